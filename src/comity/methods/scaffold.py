"""SCAFFOLD: local steps corrected for the drift of unlike data (Karimireddy et al., ICML 2020, Algorithm 1, option II).

participant  corrects each gradient by c - c_i; sends the change of the model and that of its control variate c_i,
             float32
hub          averages both over those who answered; x moves by rate times the mean, c by |S|/N times it
never leaves examples, labels, c_i itself, buffers with the policy "local"
bytes        two models down and two up for each participant and round; one more model in each drawer and at the hub
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
from comity.methods.steps import added, as_dict, as_numpy, beside, first, scaled, start_fits, zeros_like
from comity.methods.training import difference, fitted, held_out, model_fits, weighed


@dataclass(frozen=True)
class Scaffold:
    """Stochastic controlled averaging. Participants are `ScaffoldTrainer`.

    x ← x + rate·mean(Δx) and c ← c + |S|/N·mean(Δc), S being those who answered and N all participants. The mean is
    uniform, as in the paper; with combine=Mean(), examples weigh in both. What is shared, and `run.state`, is
    {"params": ..., "control": c}; `run.shared` is the parameters.

    Attributes:
        model: what is trained; the participants hold the same one.
        rate: the hub's learning rate η_g, > 0; the paper uses 1.
        bound: the largest absolute value of a coordinate that is sent, > 0; what passes it is refused.
        start: parameters to begin with, in place of the model's own.

    Raises:
        ConfigError: a rate or a bound that is not > 0, no model, or a start of another form than it.

    Example:
        >>> import numpy as np, comity as co
        >>> X, y = np.eye(4, dtype="float32"), np.array([0, 0, 1, 1])
        >>> model = co.Linear(inputs=4, classes=2, rate=0.5)
        >>> sites = {"a": co.ScaffoldTrainer(model, (X[:3], y[:3])), "b": co.ScaffoldTrainer(model, (X[3:], y[3:]))}
        >>> co.Collaboration(co.Scaffold(model), sites).run(rounds=5).metrics["train_accuracy"]
        1.0
    """

    model: Model
    rate: float = 1.0
    bound: float = math.inf
    start: Tree = None
    send: ClassVar[str] = "delta"
    tells: ClassVar[Any] = Unchanged("share", "expect", yes="all", no="each")

    def __post_init__(self) -> None:
        model_fits(self, "statistics")
        number("rate", "Scaffold", self.rate, "(0, inf)")
        number("bound", "Scaffold", self.bound, "(0, inf]", hint="Use math.inf for none.")
        start_fits(self.model, self.start)

    @property
    def combiner(self) -> Combiner:
        """Mean, uniform as in the paper."""
        return Mean(uniform=True)

    def init(self, round: Round) -> Any:
        """The parameters, and a control variate of zeros."""
        params = first(self.model, round, self.start)
        return {"params": params, "control": zeros_like(params)}

    def share(self, state: Any, to: str, round: Round) -> Contribution:
        """Parameters and control variate; to nobody in particular, the parameters."""
        return Contribution("model", state if to else state["params"])

    def expect(self, state: Any, to: str, round: Round) -> Spec:
        """A change of each, within the bound."""
        return Spec(like(state, -self.bound, self.bound), kind="delta")

    def update(self, state: Any, combined: Contribution, round: Round) -> Any:
        """Line 16 and 17 of Algorithm 1; statistics (BatchNorm) move by their mean."""
        mean: Any = combined.value
        answered = (round.answered or 0) / max(round.roster, 1)
        return {
            "params": added(state["params"], scaled(mean["params"], self.rate, self.model)),
            "control": added(state["control"], tree_map(lambda d: answered * d, mean["control"])),
        }


@dataclass(frozen=True)
class ScaffoldTrainer:
    """Trains with corrected gradients: y ← y - η·(g(y) - c_i + c).

    The new c_i is c_i - c + (x - y)/(K·η) (option II). With plain SGD that is the mean of the gradients g over the K
    local steps, and it is computed so: the local rate need not be known, and with momentum or weight decay, of which
    the paper does not speak, it stays a mean of gradients. The drawer holds it, `run.local(name)["control"]`; at first
    it is 0.

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
        """Two changes, and the new control variate into the drawer; or scores when scores are asked for."""
        mine, told = as_dict(local), as_dict(shared.value)
        params, buffers = told["params"], mine.get("buffers", {})
        if shared.kind == "score":
            return Contribution("score", None, metrics=held_out(self, params, buffers)), local
        before = ravel(mine.get("control", zeros_like(params)))
        corrected = _Corrected(ravel(told["control"]) - before)
        after, buffers, metrics = fitted(self, params, buffers, round, Step(adjust=corrected))
        control = corrected.mean(before)
        value = {"params": difference(after, params), "control": unravel(control - before, params)}
        kept = {**mine, "control": unravel(control, params), **({"buffers": buffers} if buffers else {})}
        return weighed(self, "delta", value, metrics), kept


class _Corrected:
    """An `adjust` that adds a constant vector to each gradient, and sums the gradients as they came."""

    def __init__(self, correction: Array) -> None:
        self.correction: Any = correction
        self.total: Any = None
        self.steps = 0

    def __call__(self, params: Any, gradient: Any, start: Any) -> Any:
        if self.total is None:
            self.correction, self.total = beside(self.correction, params), 0 * gradient
        self.total += gradient
        self.steps += 1
        return gradient + self.correction

    def mean(self, otherwise: Array) -> Array:
        """The mean gradient; where there was no step, `otherwise`."""
        return np.asarray(as_numpy(self.total) / self.steps, otherwise.dtype) if self.steps else otherwise
