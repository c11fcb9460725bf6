"""Ditto: a personal model held near the joint one (Li et al., ICML 2021, Algorithm 1 and eq. 2).

participant  sends the ordinary delta of the joint model, float32; weight: its examples. Beside it, it trains a
             personal model v on F(v) + strength/2·|v - w|², w being the joint model as it was shared
hub          FedAvg, or any other hub for deltas: personal models change nothing there
never leaves examples, labels, the personal model, buffers with the policy "local"
bytes        as FedAvg: one model down and one up for each participant and round; one more model in each drawer
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from comity.core.checks import number
from comity.core.contribution import Contribution, Tree
from comity.core.errors import ConfigError
from comity.core.parts import Model, Secret, Step
from comity.core.round import Round
from comity.core.tree import ravel
from comity.methods.steps import as_dict
from comity.methods.training import fitted, held_out, model_fits, trained


@dataclass(frozen=True)
class Ditto:
    """Trains the shared model as `Trainer` does, and a personal one that never leaves, held near the shared one.

    Each step of the personal model v is v ← v - rate·(∇F(v) + strength·(v - w)): eq. 2 of the paper, with w the
    parameters shared in this round. The first time v begins at w. With strength 0 it is a model trained alone; the
    larger the strength, the nearer it stays to w (rate·strength must be below 2, or the steps overshoot). Where the
    paper counts local iterations, here are epochs; both models see the examples in the same order.

    The drawer holds it: `run.local(name)["personal"]`, a Tree like the shared parameters.

    Attributes:
        model: the same as the method's; it must offer Step(adjust=...), as Linear, MLP and TorchModel do.
        data: (X, y): X (examples, ...), y (examples,); or whatever else the model's `fit` takes.
        strength: λ of the paper, >= 0.
        test: (X, y) for the reported scores.
        valid: (X, y) for choices; its scores begin with "valid_".
        epochs: of the personal model in a round, >= 0; None for the model's own.

    Scores are the personal model's; those of the shared model stand beside them and begin with "shared_". Where
    neither test nor valid is given, scores are of the training data and their names begin with "train_".

    Raises:
        ConfigError: strength or epochs below 0 or not finite, or no model that can be trained.

    Example:
        >>> import numpy as np, comity as co
        >>> X, model = np.eye(4, dtype="float32"), co.Linear(inputs=4, classes=2, rate=0.5)
        >>> y = {"a": np.array([0, 0, 1, 1]), "b": np.array([1, 1, 0, 0])}
        >>> sites = {name: co.Ditto(model, (X, y[name])) for name in y}
        >>> run = co.Collaboration(co.FedAvg(model), sites).run(rounds=5)
        >>> run.metrics["train_accuracy"], run.metrics["shared_train_accuracy"]
        (1.0, 0.5)
    """

    model: Model
    data: Any = field(metadata={"data": True}, repr=False)
    strength: float = 0.1
    test: Any = field(default=None, metadata={"data": True}, repr=False)
    valid: Any = field(default=None, metadata={"data": True}, repr=False)
    epochs: float | None = None

    def __post_init__(self) -> None:
        model_fits(self, "fit()")
        number("strength", "Ditto", self.strength, "[0, inf)")
        if self.epochs is not None:
            number("epochs", "Ditto", self.epochs, "[0, inf)", hint="None is the model's own.")

    def contribute(self, shared: Contribution, local: Tree, round: Round, secret: Secret) -> tuple[Contribution, Tree]:
        """A delta of the shared model, and the personal model into the drawer; or scores of both when asked."""
        mine: Any = local
        c, after = trained(self, shared, mine, round)
        v, buffers = mine.get("personal", shared.value), mine.get("personal_buffers", mine.get("buffers", {}))
        if shared.kind == "score":
            beside = {f"shared_{name}": score for name, score in c.metrics.items()}
            return Contribution("score", None, metrics=beside | dict(held_out(self, v, buffers))), local
        near = Step(adjust=pull(self.strength, shared.value), epochs=self.epochs)
        v, buffers, _ = fitted(self, v, buffers, round, near)
        if not np.isfinite(ravel(v)).all():
            raise ConfigError(
                "The personal model of Ditto must stay finite. Got inf or NaN. "
                f"Use a smaller learning rate, or a strength below {self.strength:g}: rate·strength must be below 2."
            )
        own = {"personal": v, **({"personal_buffers": buffers} if buffers else {})}
        return c, {**as_dict(after), **own}


def pull(strength: float, anchor: Tree) -> Callable[[Any, Any, Any], Any]:
    """The `adjust` of a Step that adds strength·(params - anchor), the gradient of strength/2·|params - anchor|².

    Args:
        strength: >= 0.
        anchor: a Tree like the parameters; its values are copied.
    """
    vector = np.array(ravel(anchor))
    held: list[Any] = []

    def adjust(params: Any, gradient: Any, start: Any) -> Any:
        if not held:
            held.append(_beside(vector, params))
        return gradient + strength * (params - held[0])

    return adjust


def _beside(vector: Any, params: Any) -> Any:
    """A numpy vector in the array library of `params`, and where they lie."""
    there = getattr(params, "new_tensor", None)
    return vector if there is None else there(vector)
