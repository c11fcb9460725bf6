"""FedAvg: train where the data are, average the changes (McMahan et al., AISTATS 2017, Algorithm 1).

participant  sends a delta: parameters after local training minus before, float32; weight: its examples
hub          averages the deltas and steps: plainly, or with one of the hub optimizers (methods/optimizers.py)
never leaves examples, labels, buffers with the policy "local"
bytes        one model down and one up for each participant and round
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from comity.combine.mean import Mean
from comity.core.checks import number, part, word
from comity.core.contribution import Contribution, Tree
from comity.core.fits import Unchanged
from comity.core.parts import Combiner, Model, Secret
from comity.core.round import Round
from comity.core.spec import Spec, like
from comity.core.together import Plan, Wish, Works
from comity.core.tree import tree_map
from comity.methods.optimizers import HubOptimizer, Momentum
from comity.methods.steps import added, as_dict, first, start_fits
from comity.methods.training import model_fits, planned, trained, trained_many

SENDS = ("delta", "model")


@dataclass(frozen=True)
class FedAvg:
    """Federated averaging.

    Attributes:
        model: what is trained; the participants hold the same one.
        optimizer: how the hub turns the mean delta into a step: `Momentum(rate, beta)`, `Adagrad`, `Adam` or `Yogi`.
        bound: the largest absolute value of a delta's coordinate; what passes it is refused.
        send: "delta" or "model" (whole models, as peers without a hub need).
        start: parameters to begin with, in place of the model's own.

    Raises:
        ConfigError: a bound that is not > 0, another `send`, no model, or a start of another form than it.

    Example:
        >>> import numpy as np, comity as co
        >>> X, y = np.eye(4, dtype="float32"), np.array([0, 0, 1, 1])
        >>> model = co.Linear(inputs=4, classes=2, rate=0.5)
        >>> fed = co.Collaboration(co.FedAvg(model), {"a": co.Trainer(model, (X, y)), "b": co.Trainer(model, (X, y))})
        >>> fed.run(rounds=3).metrics["train_accuracy"]
        1.0
    """

    model: Model
    optimizer: HubOptimizer = field(default_factory=Momentum)
    bound: float = math.inf
    send: str = "delta"
    start: Tree = None
    tells: ClassVar[Any] = Unchanged("share", "expect", yes="all", no="each")

    def __post_init__(self) -> None:
        model_fits(self, "statistics")
        part("optimizer", "FedAvg", self.optimizer, ("init()", "step()"), "co.Momentum()")
        number("bound", "FedAvg", self.bound, "(0, inf]", hint="Use math.inf for none.")
        word("send", "FedAvg", self.send, SENDS)
        start_fits(self.model, self.start)

    @property
    def combiner(self) -> Combiner:
        """Mean, weighted by examples."""
        return Mean()

    @property
    def ages(self) -> bool:
        """A delta may be added to a later model; a whole model would undo what came between."""
        return self.send == "delta"

    def init(self, round: Round) -> Any:
        """Parameters, and the hub optimizer's memory of those it steps."""
        params = first(self.model, round, self.start)
        return {"params": params, "optimizer": self.optimizer.init(self._stepped(params))}

    def share(self, state: Any, to: str, round: Round) -> Contribution:
        """The parameters, and how the participants are to answer."""
        return Contribution("model", state["params"])

    def expect(self, state: Any, to: str, round: Round) -> Spec:
        """The parameters' names, shapes and dtypes, within the bound."""
        return Spec(like(state["params"], -self.bound, self.bound), kind=self.send)

    def update(self, state: Any, combined: Contribution, round: Round) -> Any:
        """Add the step; statistics (BatchNorm) move by their mean, whatever the optimizer."""
        params = state["params"]
        change = combined.value
        if self.send == "model":
            change = tree_map(np.subtract, change, params)
        step, memory = self.optimizer.step(self._stepped(change), state["optimizer"])
        return {"params": added(params, {**as_dict(change), **step}), "optimizer": memory}

    def _stepped(self, tree: Any) -> Any:
        """Without the statistics."""
        return {k: v for k, v in tree.items() if k not in self.model.statistics}


@dataclass(frozen=True)
class Trainer:
    """Trains the shared model on its own examples, and scores it on its own held-out ones.

    Attributes:
        model: the same as the method's.
        data: (X, y): X (examples, ...), y (examples,); or whatever else the model's `fit` takes.
        test: (X, y) for the reported scores.
        valid: (X, y) for choices; its scores begin with "valid_".
        send: "delta", or "model" for `FedAvg(send="model")`.

    Where neither test nor valid is given, scores are of the training data and begin with "train_".

    Raises:
        ConfigError: another `send`, or no model that can be trained.
    """

    model: Model
    data: Any = field(metadata={"data": True}, repr=False)
    test: Any = field(default=None, metadata={"data": True}, repr=False)
    valid: Any = field(default=None, metadata={"data": True}, repr=False)
    send: str = "delta"

    def __post_init__(self) -> None:
        model_fits(self, "fit()")
        word("send", "Trainer", self.send, SENDS)

    def contribute(self, shared: Contribution, local: Tree, round: Round, secret: Secret) -> tuple[Contribution, Tree]:
        """A delta weighted by examples; or scores when scores are asked for."""
        return trained(self, shared, local, round, send=self.send)

    @property
    def alike(self) -> Hashable:
        """Trainers of one model can work together where the model can."""
        mine = type(self).contribute is Trainer.contribute
        return (id(self.model), self.send) if mine and hasattr(self.model, "fit_many") else None

    def contribute_many(self, works: Works, plan: Plan) -> Sequence[tuple[Contribution, Tree]]:
        """For each of these, who are alike, what `contribute` gives when it is not asked for scores."""
        return trained_many(works, plan, send=self.send)

    def plan(self, works: Works, wish: Wish) -> Plan:
        """How these, who are alike, do their work: what their model measures."""
        return planned(works, wish)
