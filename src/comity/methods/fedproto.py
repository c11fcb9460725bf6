"""FedProto: only the mean features of each class travel (Tan et al., AAAI 2022, Algorithm 1).

participant  trains its own model, its features drawn towards the shared prototypes; sends the mean features of each
             class, (classes, width) float32; weight: its examples of each class
hub          averages each class over those who have it
never leaves examples, labels (but how many there are of each class), the model
bytes        classes·width numbers down and up for each participant and round: no model travels
"""

import math
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from comity.combine.mean import Mean
from comity.core.checks import number, refusal, shown, text, whole
from comity.core.contribution import Array, Contribution, Tree
from comity.core.errors import ConfigError
from comity.core.fits import Unchanged
from comity.core.parts import Combiner, Model, Secret, Step
from comity.core.round import Round
from comity.core.spec import Leaf, Spec
from comity.methods.steps import as_dict, beside
from comity.methods.training import fitted, held_out, model_fits


@dataclass(frozen=True)
class FedProto:
    """Prototypes of classes, agreed upon by models that may all differ. Participants are `FedProtoTrainer`.

    `run.shared` is {"prototypes": (classes, width) float32, "known": (classes,) float32}; known is 1 where anybody had
    the class. The mean is weighted by the examples of each class; eq. 6 of the paper divides by the number of
    participants once more, which would draw prototypes to zero. What nobody sent stays as it was.

    Attributes:
        classes: how many there are, >= 2.
        width: of the features, >= 1: the output of the participants' tap, flattened.
        bound: the largest absolute value of a feature, > 0; what passes it is refused.

    Raises:
        ConfigError: a value out of range.

    Example:
        >>> import torch, comity as co
        >>> from torch.nn import Linear, Sequential, Tanh
        >>> X, y, _ = torch.eye(4), torch.tensor([0, 0, 1, 1]), torch.manual_seed(0)
        >>> def model(*inner): return co.TorchModel(Sequential(*inner, Linear(3, 2)), torch.nn.functional.cross_entropy)
        >>> sites = {"a": co.FedProtoTrainer(model(Linear(4, 3), Tanh()), (X, y), tap="1")}
        >>> sites["b"] = co.FedProtoTrainer(model(Linear(4, 8), Tanh(), Linear(8, 3)), (X, y), tap="2")
        >>> run = co.Collaboration(co.FedProto(classes=2, width=3), sites).run(rounds=60)
        >>> run.metrics["train_accuracy"], run.shared["prototypes"].shape
        (1.0, (2, 3))
    """

    classes: int
    width: int
    bound: float = math.inf
    send: ClassVar[str] = "model"
    tells: ClassVar[Any] = Unchanged("share", "expect", yes="all", no="each")

    def __post_init__(self) -> None:
        whole("classes", "FedProto", self.classes, 2)
        whole("width", "FedProto", self.width, 1)
        number("bound", "FedProto", self.bound, "(0, inf]", hint="Use math.inf for none.")

    @property
    def combiner(self) -> Combiner:
        """Mean, weighted by the examples of each class."""
        return Mean()

    def init(self, round: Round) -> Any:
        """No class is known."""
        return {
            "prototypes": np.zeros((self.classes, self.width), np.float32),
            "known": np.zeros(self.classes, np.float32),
        }

    def share(self, state: Any, to: str, round: Round) -> Contribution:
        """The prototypes, and which of them are known."""
        return Contribution("prototype", state)

    def expect(self, state: Any, to: str, round: Round) -> Spec:
        """Prototypes within the bound, and a weight for each class."""
        shape = (self.classes, self.width)
        return Spec({"prototypes": Leaf(shape, "float32", -self.bound, self.bound)}, kind="prototype", weights="tree")

    def update(self, state: Any, combined: Contribution, round: Round) -> Any:
        """The new prototypes of the classes that somebody had."""
        value: Any = combined.value
        weight: Any = combined.weight["prototypes"] if isinstance(combined.weight, dict) else combined.weight
        came = np.broadcast_to(np.asarray(weight) > 0, (self.classes, 1))
        new = np.where(came, value["prototypes"], state["prototypes"]).astype(np.float32)
        return {"prototypes": new, "known": np.maximum(state["known"], came[:, 0]).astype(np.float32)}


@dataclass(frozen=True)
class FedProtoTrainer:
    """Trains a model of its own on its loss + strength·|features - prototype of the class|²/width (eq. 7).

    The model begins with its own values, stays in the drawer, `run.local(name)["personal"]`, and may differ from every
    other participant's. Examples of classes without a prototype add nothing to the second term. Scores are those of the
    model as it predicts (the paper also predicts the class of the nearest prototype).

    Attributes:
        model: with a `loss(outputs, y)`, as TorchModel has it; it must offer Step(loss=...) and `features`.
        data: (X, y): X (examples, ...), y (examples,) class numbers.
        tap: the name of the submodule whose output, flattened, are the features.
        strength: λ of the paper, >= 0; the paper uses 0.1 to 4.
        test: (X, y) for the reported scores.
        valid: (X, y) for choices; its scores begin with "valid_".

    Where neither test nor valid is given, scores are of the training data and begin with "train_".

    Raises:
        ConfigError: a strength below 0 or not finite, no name of a tap, or a model without a `loss`.
    """

    model: Model
    data: Any = field(metadata={"data": True}, repr=False)
    tap: str
    strength: float = 1.0
    test: Any = field(default=None, metadata={"data": True}, repr=False)
    valid: Any = field(default=None, metadata={"data": True}, repr=False)

    def __post_init__(self) -> None:
        model_fits(self, "fit()", "features()")
        text("tap", "FedProtoTrainer", self.tap, what="the name of a submodule")
        number("strength", "FedProtoTrainer", self.strength, "[0, inf)")
        if not callable(getattr(self.model, "loss", None)):
            raise refusal("model", "FedProtoTrainer", "one with a loss of its own", self.model, "Use a TorchModel.")

    def contribute(self, shared: Contribution, local: Tree, round: Round, secret: Secret) -> tuple[Contribution, Tree]:
        """The mean features of each class, and the model into the drawer; or scores when scores are asked for."""
        mine, told = as_dict(local), as_dict(shared.value)
        params = mine.get("personal") or self._first(round)
        buffers = mine.get("buffers", {})
        _labels(self.data[1], len(told["known"]))
        if shared.kind == "score":
            return Contribution("score", None, metrics=held_out(self, params, buffers)), local
        towards = _Towards(self.model, self.tap, self.strength, told["prototypes"], told["known"])
        params, buffers, metrics = fitted(self, params, buffers, round, Step(loss=towards))
        value, counts = self._prototypes(params, len(told["known"]))
        kept = {**mine, "personal": params, **({"buffers": buffers} if buffers else {})}
        said = {k: v for k, v in metrics.items() if k != "examples"}
        return Contribution("prototype", {"prototypes": value}, {"prototypes": counts[:, None]}, said), kept

    def _first(self, round: Round) -> Tree:
        """The model's own values, once the tap is known to be there."""
        params = self.model.init(replace(round, number=0, me=""))
        self.model.features(params, self.data[0][:1], [self.tap])
        return params

    def _prototypes(self, params: Tree, classes: int) -> tuple[Array, Array]:
        """(classes, width) float32 the mean features (eq. 3), 0 where there are none, and (classes,) how many rows."""
        x, y = self.data
        features = self.model.features(params, x, [self.tap])[self.tap]
        features = np.asarray(features, np.float64).reshape(len(features), -1)
        hot = np.eye(classes)[_labels(y, classes)]
        counts = hot.sum(0)
        return (hot.T @ features / np.maximum(counts, 1)[:, None]).astype(np.float32), counts


class _Towards:
    """The loss of a batch: the model's own, and how far features are from the prototypes of their classes."""

    def __init__(self, model: Any, tap: str, strength: float, prototypes: Array, known: Array) -> None:
        self.own, self.taps, self.strength = model.loss, (tap,), strength
        self.prototypes, self.known = np.array(prototypes), np.array(known)

    def __call__(self, outputs: Any, features: Any, batch: Any) -> Any:
        y, found = batch[1], features[self.taps[0]]
        found = found.reshape(len(found), -1)
        if found.shape[1] != self.prototypes.shape[1]:
            raise ConfigError(
                f"The tap of FedProtoTrainer must put out {self.prototypes.shape[1]} features, the width of FedProto. "
                f"Got {found.shape[1]} from '{self.taps[0]}'. Name another tap, or change the width."
            )
        near, known = beside(self.prototypes, found), beside(self.known, found)
        at = y.long() if hasattr(y, "long") else y.astype(np.int64)
        far = ((found - near[at]) ** 2).mean(1) * known[at]
        return self.own(outputs, at) + self.strength * far.mean()


def _labels(y: Any, classes: int) -> Array:
    """(rows,) int64 class numbers."""
    labels = np.asarray(y)
    if labels.ndim != 1 or not ((labels >= 0) & (labels < classes)).all():
        raise ConfigError(
            f"The y of FedProtoTrainer must be class numbers from 0 to {classes - 1}, as FedProto has classes. "
            f"Got {shown(labels)}, with others in it. Give FedProto more classes."
        )
    return labels.astype(np.int64)
