"""FedDyn: each participant's loss is bent so that all have one optimum (Acar et al., ICLR 2021, Algorithm 1).

participant  minimises L_k(w) - <g_k, w> + alpha/2·|w - w_t|² and sends a delta, float32
hub          averages the deltas, and sums them up in h, by which the mean is moved on
never leaves examples, labels, g_k (the participant's gradient at its last model), buffers with the policy "local"
bytes        as FedAvg: one model down and one up for each participant and round; one more model in each drawer and
             at the hub
"""

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from comity.combine.mean import Mean
from comity.core.checks import number
from comity.core.contribution import Array, Contribution, Tree
from comity.core.fits import Unchanged
from comity.core.parts import Combiner, Model, Secret, Step
from comity.core.round import Round
from comity.core.spec import Spec, like
from comity.core.tree import ravel, tree_map, unravel
from comity.methods.steps import added, as_dict, beside, first, start_fits, without_statistics, zeros_like
from comity.methods.training import difference, fitted, held_out, model_fits, weighed


@dataclass(frozen=True)
class FedDyn:
    """Federated learning with dynamic regularisation. Participants are `FedDynTrainer`.

    h ← h - alpha·|P|/m·mean(Δ) and w ← w + mean(Δ) - h/alpha, P being those who answered and m all participants. The
    hub keeps h/alpha, for which alpha is not needed. The mean is uniform, as in the paper. Alpha travels with the
    model, so that all use the same one; `run.shared` is the parameters.

    Attributes:
        model: what is trained; the participants hold the same one.
        alpha: weight of the dynamic regulariser, > 0; the paper tries 0.001 to 0.1. Local steps at a rate with
            rate·alpha >= 2 overshoot.
        bound: the largest absolute value of a delta's coordinate, > 0; what passes it is refused.
        start: parameters to begin with, in place of the model's own.

    Raises:
        ConfigError: alpha or a bound that is not > 0, no model, or a start of another form than it.

    Example:
        >>> import numpy as np, comity as co
        >>> X, y = np.eye(4, dtype="float32"), np.array([0, 0, 1, 1])
        >>> model = co.Linear(inputs=4, classes=2, rate=0.5, epochs=5)
        >>> sites = {"a": co.FedDynTrainer(model, (X[:3], y[:3])), "b": co.FedDynTrainer(model, (X[3:], y[3:]))}
        >>> co.Collaboration(co.FedDyn(model), sites).run(rounds=5).metrics["train_accuracy"]
        1.0
    """

    model: Model
    alpha: float = 0.1
    bound: float = math.inf
    start: Tree = None
    send: ClassVar[str] = "delta"
    tells: ClassVar[Any] = Unchanged("share", "expect", yes="all", no="each")

    def __post_init__(self) -> None:
        model_fits(self, "statistics")
        number("alpha", "FedDyn", self.alpha, "(0, inf)")
        number("bound", "FedDyn", self.bound, "(0, inf]", hint="Use math.inf for none.")
        start_fits(self.model, self.start)

    @property
    def combiner(self) -> Combiner:
        """Mean, uniform as in the paper."""
        return Mean(uniform=True)

    def init(self, round: Round) -> Any:
        """The parameters with alpha, and h/alpha = 0."""
        params = first(self.model, round, self.start)
        return {"shared": {"params": params, "alpha": float(self.alpha)}, "h": zeros_like(params)}

    def share(self, state: Any, to: str, round: Round) -> Contribution:
        """Parameters and alpha; to nobody in particular, the parameters."""
        return Contribution("model", state["shared"] if to else state["shared"]["params"])

    def expect(self, state: Any, to: str, round: Round) -> Spec:
        """The parameters' names, shapes and dtypes, within the bound."""
        return Spec(like(state["shared"]["params"], -self.bound, self.bound), kind="delta")

    def update(self, state: Any, combined: Contribution, round: Round) -> Any:
        """The last two lines of a round of Algorithm 1; statistics (BatchNorm) move by their mean."""
        mean: Any = combined.value
        answered = (round.answered or 0) / max(round.roster, 1)
        steps = without_statistics(mean, self.model)
        h = added(state["h"], tree_map(lambda d: -answered * d, steps))
        params = added(state["shared"]["params"], tree_map(np.subtract, mean, h))
        return {"shared": {**state["shared"], "params": params}, "h": h}


@dataclass(frozen=True)
class FedDynTrainer:
    """Trains on its loss - <g_k, w> + alpha/2·|w - w_t|²; afterwards g_k ← g_k - alpha·(w - w_t).

    Where the paper minimises exactly, the model's own epochs are run, as in the paper's experiments. The drawer holds
    g_k, `run.local(name)["gradient"]`; at first it is 0.

    Attributes:
        model: the same as the method's; it must offer Step(adjust=...), as Linear, MLP and TorchModel do.
        data: (X, y): X (examples, ...), y (examples,); or whatever else the model's `fit` takes.
        test: (X, y) for the reported scores.
        valid: (X, y) for choices; its scores begin with "valid_".

    Where neither test nor valid is given, scores are of the training data and begin with "train_".

    Raises:
        ConfigError: no model that can be trained.
    """

    model: Model
    data: Any = field(metadata={"data": True}, repr=False)
    test: Any = field(default=None, metadata={"data": True}, repr=False)
    valid: Any = field(default=None, metadata={"data": True}, repr=False)

    def __post_init__(self) -> None:
        model_fits(self, "fit()")

    def contribute(self, shared: Contribution, local: Tree, round: Round, secret: Secret) -> tuple[Contribution, Tree]:
        """A delta, and g_k into the drawer; or scores when scores are asked for."""
        mine, told = as_dict(local), as_dict(shared.value)
        params, alpha, buffers = told["params"], float(told["alpha"]), mine.get("buffers", {})
        if shared.kind == "score":
            return Contribution("score", None, metrics=held_out(self, params, buffers)), local
        held = ravel(mine.get("gradient", zeros_like(params)))
        after, buffers, metrics = fitted(self, params, buffers, round, Step(adjust=_Bent(held, alpha)))
        change = difference(after, params)
        moved = ravel(without_statistics(change, self.model))
        new = unravel((held - alpha * moved).astype(held.dtype), params)
        kept = {**mine, "gradient": new, **({"buffers": buffers} if buffers else {})}
        return weighed(self, "delta", change, metrics), kept


class _Bent:
    """An `adjust` that subtracts g_k and adds alpha·(params - start)."""

    def __init__(self, held: Array, alpha: float) -> None:
        self.held, self.alpha = held, alpha
        self.there: Any = None

    def __call__(self, params: Any, gradient: Any, start: Any) -> Any:
        if self.there is None:
            self.there = beside(self.held, params)
        return gradient - self.there + self.alpha * (params - start)
