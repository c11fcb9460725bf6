"""FedMD: unlike models learn from each other's class scores on public inputs (Li and Wang, 2019, Algorithm 1).

participant  keeps a model of its own in its drawer; digests what all together said of the public inputs, goes on with
             its own examples, and sends its probabilities for them, {"proba", "seen", "counts"} float32
hub          combines the probabilities to a consensus, sharpens it and shares it
never leaves the models, of whatever architecture; the examples
bytes        public inputs and consensus down, 4·rows·classes up; with `Once` the inputs go down only once
"""

from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any

import numpy as np

from comity.combine.ensemble import Average
from comity.core.calibration import tempered
from comity.core.checks import flag, number, part, whole
from comity.core.contribution import Array, Contribution, Tree
from comity.core.errors import ConfigError
from comity.core.parts import Combiner, Model, Secret, Step
from comity.core.round import Round
from comity.core.spec import Spec
from comity.methods.distill import POOL, prediction, public_of
from comity.methods.training import fitted, held_out, model_fits


@dataclass(frozen=True)
class FedMD:
    """Federated learning by model distillation: what travels are class scores on public inputs, never a model.

    Departures from the paper: scores are probabilities; a class is averaged by how many examples of it each party has
    (`Average(counts=True)`; class counts are a disclosure), without which skewed labels spoil the consensus; and the
    consensus is sharpened. `combiner=Average()` with sharpen=1 is the paper's. The public inputs need no labels, so
    the first training is on the party's own examples. `run.shared` is the consensus, {"proba", "label"}; the models
    stay in the drawers: `run.local(name)["model"]`.

    Attributes:
        public_x: (rows, ...) inputs that everybody may see.
        classes: how many there are.
        sharpen: the consensus is p^sharpen, normalised; 1 leaves it alone.
        combiner: `Average(counts=True)` by default.

    Raises:
        ConfigError: a setting out of range.

    Example:
        >>> import numpy as np, comity as co
        >>> X, y = np.eye(4, dtype="float32"), np.array([0, 0, 1, 1])
        >>> models = {"a": co.Linear(4, 2, rate=0.5), "b": co.MLP(4, 2, hidden=(8,), rate=0.5)}
        >>> sites = {name: co.FedMDTrainer(models[name], (X, y), balanced=False) for name in models}
        >>> run = co.Collaboration(co.FedMD(X, classes=2), sites, transforms=[co.Once()]).run(rounds=4)
        >>> run.shared["label"].tolist(), sorted(run.local("a")["model"])
        ([0, 0, 1, 1], ['0.bias', '0.weight'])
    """

    public_x: Any = field(repr=False)
    classes: int
    _: KW_ONLY
    sharpen: float = 2.0
    combiner: Combiner = field(default_factory=lambda: Average(counts=True))

    def __post_init__(self) -> None:
        object.__setattr__(self, "public_x", public_of(self.public_x, "FedMD"))
        whole("classes", "FedMD", self.classes, 2)
        number("sharpen", "FedMD", self.sharpen, "(0, inf)")
        part("combiner", "FedMD", self.combiner, POOL, "co.Average(counts=True)")

    def init(self, round: Round) -> Any:
        """Nobody has said anything."""
        return {"proba": np.zeros((0, self.classes), "float32")}

    def share(self, state: Any, to: str, round: Round) -> Contribution:
        """To a party, the public inputs and the consensus (no rows at first); to everybody, the consensus."""
        proba = state["proba"]
        if not to:
            return Contribution("prediction", {"proba": proba, "label": proba.argmax(axis=1)})
        return Contribution("query", {"x": self.public_x, "proba": proba})

    def expect(self, state: Any, to: str, round: Round) -> Spec:
        """Probabilities of all public inputs."""
        return prediction(len(self.public_x), self.classes, counts=True)

    def update(self, state: Any, combined: Contribution, round: Round) -> Any:
        """The consensus, sharpened; a row of which nobody said anything is the same for all classes."""
        said: Any = combined.value
        proba = tempered(said["proba"], 1 / self.sharpen)
        silent = ~proba.any(axis=1, keepdims=True)
        return {"proba": np.where(silent, 1 / self.classes, proba).astype("float32")}


@dataclass(frozen=True)
class FedMDTrainer:
    """Trains a model of its own on its own examples and on the consensus about public inputs, for `FedMD`.

    With `joint`, both are in one loss: as many own rows as public ones in each pass, in mixed batches. With `balanced`
    the logits of own rows are shifted by the log of the own class shares (balanced softmax: Ren et al., NeurIPS 2020,
    eq. 4), so that skewed labels do not undo what the others taught. The published order, digest and then revisit,
    is joint=False.

    Attributes:
        model: any model with classes that takes soft labels; with `balanced` one that takes Step(loss=...), as
            TorchModel does.
        data: (X, y) arrays: X like the public inputs, y (examples,) class numbers.
        test: (X, y) for the reported scores of its own model.
        valid: (X, y) for choices; its scores begin with "valid_".
        joint: one loss in place of digest and revisit.
        balanced: shift own logits by class shares; only with `joint`.
        passes: epochs over the public inputs in a round.
        revisit: epochs over the own examples in the first round, and after each digest; None for the model's own.

    Raises:
        ConfigError: settings out of range; in a run, a model that cannot be told the loss.
    """

    model: Model
    data: Any = field(metadata={"data": True}, repr=False)
    _: KW_ONLY
    test: Any = field(default=None, metadata={"data": True}, repr=False)
    valid: Any = field(default=None, metadata={"data": True}, repr=False)
    joint: bool = True
    balanced: bool = True
    passes: float = 3.0
    revisit: float | None = None

    def __post_init__(self) -> None:
        model_fits(self, "fit()", "predict()")
        for name in ("joint", "balanced"):
            flag(name, "FedMDTrainer", getattr(self, name))
        number("passes", "FedMDTrainer", self.passes, "[0, inf)")
        if self.revisit is not None:
            number("revisit", "FedMDTrainer", self.revisit, "[0, inf)", hint="None is the model's own.")

    def contribute(self, shared: Contribution, local: Tree, round: Round, secret: Secret) -> tuple[Contribution, Tree]:
        """Probabilities for the public inputs, and its model into the drawer; or its own scores when asked."""
        mine: Any = local
        told: Any = shared.value
        params, buffers = mine.get("model"), mine.get("buffers", {})
        params = self.model.init(round) if params is None else params
        if shared.kind == "score":
            return Contribution("score", None, metrics=held_out(self, params, buffers)), local
        params, buffers = self._trained(params, buffers, told, round)
        classes = told["proba"].shape[1]
        counts = self._counts(classes)
        p = np.asarray(_predicted(self.model, params, buffers, told["x"]), "float32")
        value = {"proba": p, "seen": (counts > 0).astype("float32"), "counts": counts}
        after = {"model": params, **({"buffers": buffers} if buffers else {})}
        return Contribution("prediction", value), after

    def _trained(self, params: Any, buffers: Any, told: Any, round: Round) -> tuple[Any, Any]:
        x, targets = told["x"], told["proba"]
        again = Step(epochs=self.revisit)
        if not len(targets):
            return fitted(self, params, buffers, round, again)[:2]
        if not self.joint:
            public = replace(self, data=(x, targets))
            params, buffers, _ = fitted(public, params, buffers, round, Step(epochs=self.passes))
            return fitted(self, params, buffers, round, again)[:2]
        both = replace(self, data=self._mixed(x, targets, round))
        counts = self._counts(targets.shape[1])
        shift = np.log(np.maximum(counts / max(float(counts.sum()), 1.0), 1e-9))
        loss = JointLoss(len(counts), tuple(shift.tolist())) if self.balanced else None
        try:
            return fitted(both, params, buffers, round, Step(loss=loss, epochs=self.passes))[:2]
        except ConfigError as error:
            if not self.balanced:
                raise
            raise ConfigError(f"{error} Or use FedMDTrainer(balanced=False).") from error

    def _mixed(self, x: Array, targets: Array, round: Round) -> tuple[Array, Array]:
        """Public rows and as many own ones; y is soft labels, or [public | own] side by side where it is balanced."""
        k = targets.shape[1]
        X, y = np.asarray(self.data[0]), np.asarray(self.data[1]).astype(np.int64)
        rows = np.resize(round.order(len(y), "own"), len(x))
        inputs = np.concatenate([x, X[rows].astype(x.dtype).reshape(len(rows), *x.shape[1:])])
        own = np.eye(k, dtype="float32")[y[rows]]
        if not self.balanced:
            return inputs, np.concatenate([targets, own])
        none = np.zeros_like(own)
        return inputs, np.hstack([np.concatenate([targets, none]), np.concatenate([none, own])])

    def _counts(self, classes: int) -> Array:
        y = np.asarray(self.data[1])
        fits = y.ndim == 1 and y.dtype.kind in "iufb" and bool(((y >= 0) & (y < classes) & (y == np.floor(y))).all())
        if not fits:
            got = f"{y.dtype.name} of shape {y.shape}"
            raise ConfigError(f"The y of FedMDTrainer must be class numbers from 0 to {classes - 1}. Got {got}.")
        return np.bincount(y.astype(np.int64), minlength=classes).astype("float32")


@dataclass(frozen=True)
class JointLoss:
    """Cross-entropy on public targets, and on own labels behind shifted logits; y holds them side by side."""

    classes: int
    shift: tuple[float, ...]

    def __call__(self, outputs: Any, features: Any, batch: Any) -> Any:
        """Twice the mean over the rows, as each row has only one of the two."""
        k, y = self.classes, batch[1]
        if tuple(outputs.shape) != (len(y), k):
            raise ConfigError(f"The model must put out one logit for each of {k} classes. Got {tuple(outputs.shape)}.")
        public = (y[:, :k] * outputs.log_softmax(1)).sum(1)
        own = (y[:, k:] * (outputs + outputs.new_tensor(self.shift)).log_softmax(1)).sum(1)
        return -2 * (public + own).mean()


def _predicted(model: Any, params: Any, buffers: Any, x: Array) -> Any:
    if predict_local := getattr(model, "predict_local", None):
        return predict_local(params, buffers, x)
    return model.predict(params, x)
