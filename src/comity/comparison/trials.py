"""Ways to train a joint model: by gradients, by one ridge regression, by trees from sums of gradients."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from comity.adapters.numpy import Linear
from comity.adapters.trees import STEPS
from comity.collaboration import Collaboration, Run
from comity.comparison.families import Rows, build, candidates, grower, width
from comity.compress.once import Once
from comity.core.contribution import Tree
from comity.core.parts import Participant
from comity.data.prepare import LIMIT, Preparation
from comity.data.schema import Schema
from comity.loop.select import every
from comity.methods.boosting import BoostingTrainer
from comity.methods.features import ColumnFeatures
from comity.methods.fedavg import FedAvg, Trainer
from comity.methods.optimizers import Adam, HubOptimizer, Momentum
from comity.methods.ridge import Ridge, RidgeTrainer

SERVERS: Mapping[str, HubOptimizer] = {"FedAvg": Momentum(), "FedAdam": Adam(rate=0.03)}
GRADIENT = ("linear", "mlp")
RIDGE, SUMS = "ridge", "summed histograms"
POINTS = 15
"""About so many points of a learning curve."""
MOST = 12_000
"""Trees times columns that are grown jointly beside other families: some hundred megabytes of sums a party."""


@dataclass(frozen=True)
class Trial:
    """One way to train a joint model.

    Attributes:
        family: "linear", "mlp" or "trees".
        model: with its learning rate; for trees the method that grows them.
        server: "FedAvg", "FedAdam", "ridge" or "summed histograms".
    """

    family: str
    model: Any
    server: str

    @property
    def rate(self) -> float:
        """The learning rate at the parties; of trees, their shrinkage; of ridge, the rate at which it is tuned."""
        return float(self.model.rate)

    def __str__(self) -> str:
        return f"{self.family}, {self.server}" + ("" if self.server == RIDGE else f", rate {self.rate:g}")

    def rounds(self, asked: int) -> int:
        """How many rounds it takes where `asked` are asked for: sums need one, trees theirs."""
        return 1 if self.server == RIDGE else int(self.model.rounds) if self.server == SUMS else asked

    def points(self, asked: int) -> tuple[int, ...]:
        """Closed rounds at each point of the curve."""
        if self.server == SUMS:
            first = self.model.rounds - self.model.trees * self.model.depth - bool(self.model.patience)
            return tuple(first + n * self.model.depth for n in self._sizes())
        rounds = self.rounds(asked)
        step = max(1, rounds // POINTS)
        return tuple(dict.fromkeys([*range(step, rounds + 1, step), rounds]))

    def _sizes(self) -> tuple[int, ...]:
        """Trees at each point of the curve."""
        step = max(1, self.model.trees // POINTS)
        return tuple(dict.fromkeys([*range(step, self.model.trees + 1, step), self.model.trees]))

    def again(self, preparation: Preparation) -> "Trial":
        """The same under another preparation."""
        shape = width(preparation), len(preparation.schema.classes)
        grown = self.server == SUMS
        model = grower(preparation) if grown else build(self.family, *shape, self.rate)
        return Trial(self.family, model, self.server)

    def collaboration(self, seats: Mapping[str, Participant], asked: int, seed: int) -> Collaboration:
        """The training, ready to be run."""
        method: Any = FedAvg(self.model, SERVERS[self.server]) if self.server in SERVERS else self.model
        if self.server == RIDGE:
            method = ridge(self.model)
        grown, step = self.server == SUMS, max(1, asked // POINTS)
        evaluate = False if grown else every(1 if self.server == RIDGE else step)
        more: Any = {"stop": method.stop, "transforms": [Once(least=512)]} if grown else {}
        return Collaboration(method, seats, evaluate=evaluate, quorum=1.0, retries=0, seed=seed, **more)

    def curve(self, run: Run) -> tuple[float, ...]:
        """The validation loss at each point; for trees, of those of so many that are kept."""
        losses = run.ledger.metric("valid_log_loss") or run.ledger.metric("valid_mse")
        if self.server != SUMS:
            return tuple(losses)
        if len(losses) < 2:
            return ()
        return tuple(min(losses[: n + 1]) for n in self._sizes())

    def params(self, run: Run) -> Tree:
        """What was trained: trees, or parameters of the family's model."""
        found: Any = run.best
        return found if self.server != RIDGE else as_linear(found)


def trials(families: Sequence[str], preparation: Preparation) -> list[Trial]:
    """What is tried for the joint model: rates and server optimizers, and sums where they will do."""
    shape = width(preparation), len(preparation.schema.classes)
    out = [Trial(f, m, s) for f in families if f in GRADIENT for m in candidates(f, *shape) for s in SERVERS]
    out += [Trial("linear", candidates("linear", *shape)[0], RIDGE)] if "linear" in families else []
    return out + ([Trial("trees", grower(preparation), SUMS)] if grows(families, preparation.schema) else [])


def grows(families: Sequence[str], schema: Schema) -> bool:
    """Are trees tried jointly? Alone always; beside others where their sums are not too many."""
    steps, _ = STEPS[len(schema.classes) > 2]
    many = steps * (len(schema.classes) if len(schema.classes) > 2 else 1) * len(schema.columns)
    return "trees" in families and (len(families) == 1 or many <= MOST)


def ridge(model: Linear) -> Ridge:
    """The ridge regression that gives parameters of a linear model."""
    return Ridge(ColumnFeatures(model.inputs, bound=LIMIT), model.classes)


def as_linear(solution: Any) -> Tree:
    """A ridge solution as the parameters of a linear model: its scores are the logits that it says them to be."""
    sharp = float(solution["temperature"])
    pair = {"0.bias": solution["bias"], "0.weight": solution["weight"]}
    return {name: np.asarray(sharp * x, np.float32) for name, x in pair.items()}


def trainer(trial: Trial, train: Rows, valid: Rows) -> Participant:
    """Who takes part with these rows."""
    if trial.server == SUMS:
        return BoostingTrainer((train.ordinal, train.fitted), valid=(valid.ordinal, valid.fitted))
    data, held = (train.x, train.fitted), (valid.x, valid.fitted)
    if trial.server == RIDGE:
        return RidgeTrainer(ridge(trial.model).features, data, valid=held)
    return Trainer(trial.model, data, valid=held)
