"""APFL: a personal mixture of the shared model and an own one (Deng et al., arXiv 2003.13461, Algorithm 1).

participant  sends the ordinary delta of the shared model w, float32; weight: its examples. Beside it, it trains its
             own model v through the mixture alpha·v + (1 - alpha)·w, and adapts alpha (eq. 10)
hub          FedAvg, or any other hub for deltas: own models change nothing there
never leaves examples, labels, v and alpha, buffers with the policy "local"
bytes        as FedAvg: one model down and one up for each participant and round; one more model in each drawer
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from comity.core.checks import number, word
from comity.core.contribution import Array, Contribution, Tree
from comity.core.errors import ConfigError
from comity.core.parts import Model, Secret, Step
from comity.core.round import Round
from comity.core.tree import ravel, unravel
from comity.methods.fedavg import SENDS
from comity.methods.steps import as_dict, as_numpy
from comity.methods.training import fitted, held_out, model_fits, trained


@dataclass(frozen=True)
class APFL:
    """Trains the shared model as `Trainer` does, and its own one in a mixture whose weights it learns.

    At each local step w ← w - η·∇F(w) and v ← v - η·alpha·∇F(m), where m = alpha·v + (1 - alpha)·w is the personal
    model; both see the same batches, and the first time v begins at w. Alpha moves once a round, by eq. 10 at the first
    batch: alpha ← alpha - rate·<v - w, ∇F(m)>, held within [0, 1]; the paper moves it with each step. The paper's mean
    over participants is uniform: use FedAvg with combine=Mean(uniform=True) for it.

    The drawer holds `run.local(name)["personal"]` (v, a Tree like the shared parameters) and ["alpha"]. During a fit
    the gradients of the shared model are kept: one more model for each local step of a round.

    Attributes:
        model: the same as the method's; it must offer Step(adjust=...), as Linear, MLP and TorchModel do.
        data: (X, y): X (examples, ...), y (examples,); or whatever else the model's `fit` takes.
        alpha: what it begins with, in [0, 1]: 0 is the shared model alone, 1 a model trained alone.
        rate: learning rate of alpha, >= 0; 0 leaves it as it is.
        test: (X, y) for the reported scores.
        valid: (X, y) for choices; its scores begin with "valid_".
        send: "delta", or "model" for `FedAvg(send="model")`.

    Scores are the mixture's; those of the shared model stand beside them and begin with "shared_". Where neither test
    nor valid is given, scores are of the training data and their names begin with "train_".

    Raises:
        ConfigError: alpha not in [0, 1], a rate below 0 or not finite, another `send`, or no model that can be
            trained.

    Example:
        >>> import numpy as np, comity as co
        >>> X, model = np.eye(4, dtype="float32"), co.Linear(inputs=4, classes=2, rate=0.5)
        >>> y = {"a": np.array([0, 0, 1, 1]), "b": np.array([1, 1, 0, 0])}
        >>> sites = {name: co.APFL(model, (X, y[name])) for name in y}
        >>> run = co.Collaboration(co.FedAvg(model), sites).run(rounds=20)
        >>> run.metrics["train_accuracy"], run.metrics["shared_train_accuracy"], run.local("a")["alpha"] > 0.5
        (1.0, 0.5, True)
    """

    model: Model
    data: Any = field(metadata={"data": True}, repr=False)
    alpha: float = 0.5
    rate: float = 0.1
    test: Any = field(default=None, metadata={"data": True}, repr=False)
    valid: Any = field(default=None, metadata={"data": True}, repr=False)
    send: str = "delta"

    def __post_init__(self) -> None:
        model_fits(self, "fit()")
        number("alpha", "APFL", self.alpha, "[0, 1]")
        number("rate", "APFL", self.rate, "[0, inf)")
        word("send", "APFL", self.send, SENDS)

    def contribute(self, shared: Contribution, local: Tree, round: Round, secret: Secret) -> tuple[Contribution, Tree]:
        """A delta of the shared model, and v and alpha into the drawer; or scores of both when asked.

        Raises:
            ConfigError: the own model is no longer finite.
        """
        mine = as_dict(local)
        w, v, alpha = shared.value, mine.get("personal", shared.value), float(mine.get("alpha", self.alpha))
        mixed, buffers = self._mixed(v, w, alpha), mine.get("personal_buffers", mine.get("buffers", {}))
        seen = _Seen()
        c, after = trained(self, shared, mine, round, step=Step(adjust=seen), send=self.send)
        if shared.kind == "score":
            beside = {f"shared_{name}": score for name, score in c.metrics.items()}
            return Contribution("score", None, metrics=beside | dict(held_out(self, mixed, buffers))), local
        along = _Along(alpha, seen.gradients)
        new, buffers, _ = fitted(self, mixed, buffers, round, Step(adjust=along))
        moved = ravel(c.value) - (ravel(w) if self.send == "model" else 0)
        own = {"personal": self._own(v, ravel(new) - ravel(mixed) - (1 - alpha) * moved, alpha, new)}
        own["alpha"] = float(np.clip(alpha - self.rate * along.slope(ravel(v) - ravel(w)), 0.0, 1.0))
        if not np.isfinite(ravel(own["personal"])).all():
            raise ConfigError("The own model of APFL must stay finite. Got inf or NaN. Use a smaller learning rate.")
        return c, {**as_dict(after), **own, **({"personal_buffers": buffers} if buffers else {})}

    def _mixed(self, v: Tree, w: Tree, alpha: float) -> Any:
        """alpha·v + (1 - alpha)·w; statistics (BatchNorm) are the mixture's own, and v keeps them for it."""
        both = np.asarray(alpha * ravel(v) + (1 - alpha) * ravel(w), ravel(w).dtype)
        return self._with_statistics(unravel(both, w), v)

    def _own(self, v: Tree, change: Array, alpha: float, mixed: Tree) -> Any:
        """v after the mixture moved by alpha·(change of v) beside what w moved it; with alpha 0, v does not move."""
        new = ravel(v) + (change / alpha if alpha > 0 else 0)
        return self._with_statistics(unravel(np.asarray(new, ravel(v).dtype), v), mixed)

    def _with_statistics(self, tree: Any, of: Any) -> Any:
        for name in self.model.statistics:
            tree[name][...] = of[name]
        return tree


class _Seen:
    """An `adjust` that keeps each gradient and changes none."""

    def __init__(self) -> None:
        self.gradients: list[Any] = []

    def __call__(self, params: Any, gradient: Any, start: Any) -> Any:
        self.gradients.append(gradient + 0)
        return gradient


class _Along:
    """An `adjust` for the mixture: its own gradient moves v, and at each step w moves it by w's gradient of then."""

    def __init__(self, alpha: float, gradients: list[Any]) -> None:
        self.alpha, self.gradients, self.step = alpha, gradients, 0
        self.first: Any = None

    def __call__(self, params: Any, gradient: Any, start: Any) -> Any:
        if self.first is None:
            self.first = gradient + 0
        other = self.gradients[self.step]
        self.step += 1
        return self.alpha**2 * gradient + (1 - self.alpha) * other

    def slope(self, apart: Array) -> float:
        """The slope of the loss in alpha (eq. 10): <v - w, the mixture's gradient> at the first batch."""
        return 0.0 if self.first is None else float(np.vdot(apart, as_numpy(self.first)))
