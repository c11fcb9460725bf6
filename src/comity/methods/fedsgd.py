"""FedSGD: one gradient over all examples of each participant in a round (McMahan et al., AISTATS 2017, section 2).

participant  sends the gradient of its mean loss at the shared parameters, float32; weight: its examples
hub          averages the gradients and steps: w ← w - rate·gradient
never leaves examples, labels, buffers with the policy "local"
bytes        one model down and one gradient up for each participant and round
"""

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from comity.combine.mean import Mean
from comity.core.checks import number
from comity.core.contribution import Array, Contribution, Tree
from comity.core.errors import ConfigError
from comity.core.fits import Unchanged
from comity.core.parts import Combiner, Model, Secret, Step
from comity.core.round import Round
from comity.core.spec import Spec, like
from comity.core.tree import tree_map, unravel
from comity.methods.steps import added, first, start_fits
from comity.methods.training import fitted, held_out, model_fits, weighed


@dataclass(frozen=True)
class FedSGD:
    """Gradient descent over the examples of all, which lie where they are.

    A round is one step on the pooled examples (up to rounding), and the same as one round of `FedAvg` with full
    batches, one epoch and plain SGD at this rate. Participants are `GradientTrainer`.

    Attributes:
        model: what is trained; the participants hold the same one. Its own rate, momentum and decay play no part.
        rate: η of the paper, > 0.
        bound: the largest absolute value of a gradient's coordinate, > 0; what passes it is refused.
        start: parameters to begin with, in place of the model's own.

    Raises:
        ConfigError: a rate or a bound that is not > 0, no model, or a start of another form than it.

    Example:
        >>> import numpy as np, comity as co
        >>> X, y = np.eye(4, dtype="float32"), np.array([0, 0, 1, 1])
        >>> model = co.Linear(inputs=4, classes=2)
        >>> sites = {name: co.GradientTrainer(model, (X, y)) for name in ("a", "b")}
        >>> co.Collaboration(co.FedSGD(model, rate=0.5), sites).run(rounds=3).metrics["train_accuracy"]
        1.0
    """

    model: Model
    rate: float = 0.1
    bound: float = math.inf
    start: Tree = None
    send: ClassVar[str] = "gradient"
    ages: ClassVar[bool] = True
    tells: ClassVar[Any] = Unchanged("share", "expect", yes="all", no="each")

    def __post_init__(self) -> None:
        model_fits(self, "statistics", "fit()")
        number("rate", "FedSGD", self.rate, "(0, inf)")
        number("bound", "FedSGD", self.bound, "(0, inf]", hint="Use math.inf for none.")
        start_fits(self.model, self.start)

    @property
    def combiner(self) -> Combiner:
        """Mean, weighted by examples."""
        return Mean()

    def init(self, round: Round) -> Any:
        """The parameters."""
        return {"params": first(self.model, round, self.start)}

    def share(self, state: Any, to: str, round: Round) -> Contribution:
        """The parameters."""
        return Contribution("model", state["params"])

    def expect(self, state: Any, to: str, round: Round) -> Spec:
        """The parameters' names, shapes and dtypes, within the bound."""
        return Spec(like(state["params"], -self.bound, self.bound), kind="gradient")

    def update(self, state: Any, combined: Contribution, round: Round) -> Any:
        """Step against the gradient; statistics (BatchNorm) have none and move by their mean."""
        mean: Any = combined.value
        moved = {k: mean[k] if k in self.model.statistics else tree_map(self._scaled, mean[k]) for k in mean}
        return {"params": added(state["params"], moved)}

    def _scaled(self, g: Any) -> Any:
        return -self.rate * g


@dataclass(frozen=True)
class GradientTrainer:
    """Answers with the gradient of its loss at the shared parameters; it does not move them.

    The gradient is that of the model's own loss, a mean over all examples, without momentum and without weight decay;
    where a model has statistics (BatchNorm), what stands in their place is how one forward pass changed them.

    Attributes:
        model: the same as the method's; it must offer Step(adjust=..., mask=...), as Linear, MLP and TorchModel do, and
            take all examples in one batch.
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
        """A gradient weighted by examples; or scores when scores are asked for.

        Raises:
            ConfigError: the model's batch is smaller than the data.
        """
        mine: Any = local
        params, buffers = shared.value, mine.get("buffers", {})
        if shared.kind == "score":
            return Contribution("score", None, metrics=held_out(self, params, buffers)), local
        seen = _Seen()
        still = Step(adjust=seen, mask=tree_map(np.zeros_like, params), epochs=1)
        after, buffers, metrics = fitted(self, params, buffers, round, still)
        value = unravel(seen.only(), params)
        for name in self.model.statistics:
            value[name][...] = after[name] - shared.value[name]  # type: ignore[index, call-overload]
        return weighed(self, "gradient", value, metrics), ({**mine, "buffers": buffers} if buffers else local)


class _Seen:
    """An `adjust` that counts the batches and notes the gradient of the last."""

    def __init__(self) -> None:
        self.batches, self.last = 0, np.zeros(0)

    def __call__(self, params: Any, gradient: Any, start: Any) -> Any:
        self.last = np.array(gradient.cpu().numpy() if hasattr(gradient, "cpu") else gradient)
        self.batches += 1
        return gradient

    def only(self) -> Array:
        """The one gradient, (size,).

        Raises:
            ConfigError: there were several batches, or none.
        """
        if self.batches != 1:
            raise ConfigError(
                f"The model of GradientTrainer must take all examples in one batch. Got {self.batches}. "
                "Give the model a 'batch' as large as the data, such as 1_000_000."
            )
        return self.last
