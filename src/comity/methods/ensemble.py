"""Ensembles of members that never leave home: a question over inputs, an answer in probabilities.

participant  answers a Query over inputs x (rows, ...) with {"proba": (rows, classes), "seen": (classes,)} float32, its
             class counts beside them where it says so; of kind "prediction"; weight: 1, or how sure or right it is
hub          co.Query(x) with combine=Average(), Vote(), LogPool() or ProductPool(); all of them are sums
never leaves the model, its parameters, its examples
bytes        the inputs down, 4·rows·classes up, once for each participant
"""

import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from comity.core.calibration import FLOOR, softmax, temperature_of, tempered
from comity.core.checks import number, refusal, shown, word
from comity.core.contribution import Array, Contribution, Tree
from comity.core.errors import ConfigError
from comity.core.parts import Secret
from comity.core.round import Round
from comity.core.scores import scores
from comity.methods.training import rows_fit

WEIGHTS = ("accuracy", "certainty")


@dataclass(frozen=True, eq=False)
class Predictor:
    """A member of an ensemble: a fitted model that answers for given inputs and never travels.

    Columns are classes: those of `classes`, or else 0, 1, ... as the estimator numbers them. A class that the
    estimator never saw has 0 in "proba", and 0 in "seen" where the others have 1. A regressor answers with
    {"value": (rows,)}, to be combined by `Mean`.

    Attributes:
        estimator: fitted, as scikit-learn's are: `predict_proba`, else `decision_function` (its softmax), else
            `predict` (1 for the predicted class); or (model, params) of a comity Model.
        classes: the labels that occur anywhere, in the order of the columns, the same for all members.
        calibrate: (X, y) of its own that it was not trained on: one temperature is found on them and used in every
            answer (Guo et al., ICML 2017).
        counts: (classes,) how many examples of each class it was trained on; they travel with each answer, as
            `ProductPool` and `Average(counts=True)` want it, and are a disclosure.
        weight: how much it counts, >= 0; "accuracy" on the rows of `calibrate`; or "certainty", row by row:
            1 - entropy / log(classes). Where parties hold different classes, accuracy at home says little.
        test: (X, y); where scores are asked for, "own_accuracy" and "own_log_loss" are those of this member alone.

    Raises:
        ConfigError: nothing that predicts, classes that are not known, or a setting out of range.

    Example:
        >>> import numpy as np, comity as co
        >>> class Stump:
        ...     classes_ = np.array([0, 1])
        ...     def __init__(self, at): self.at = at
        ...     def predict(self, X): return (X[:, 0] > self.at).astype(int)
        >>> jury = {name: co.Predictor(Stump(at)) for name, at in {"a": 1, "b": 2, "c": 3}.items()}
        >>> asked = co.Query(np.array([[0.0], [2.5], [4.0]]))
        >>> run = co.Collaboration(asked, jury, combine=co.Average(), evaluate=False).run(rounds=1)
        >>> run.shared["proba"][:, 1].round(2).tolist(), run.shared["label"].tolist()
        ([0.0, 0.67, 1.0], [0, 1, 1])
    """

    estimator: Any = field(metadata={"data": True}, repr=False)
    _: KW_ONLY
    classes: tuple[Any, ...] | None = None
    calibrate: Any = field(default=None, metadata={"data": True}, repr=False)
    counts: Any = field(default=None, metadata={"data": True}, repr=False)
    weight: float | str = 1.0
    test: Any = field(default=None, metadata={"data": True}, repr=False)

    def __post_init__(self) -> None:
        if not _predicts(self.estimator):
            raise refusal("estimator", "Predictor", "fitted, with predict(), or (model, params)", self.estimator)
        if isinstance(self.weight, str):
            word("weight", "Predictor", self.weight, WEIGHTS)
            if self.weight == "accuracy" and self.calibrate is None:
                raise ConfigError("Predictor(weight='accuracy') must have rows. Got none. Give calibrate=(X, y).")
        else:
            number("weight", "Predictor", self.weight, "[0, inf)")
        if self.classes is not None:
            object.__setattr__(self, "classes", _classes(self.classes))
        rows_fit(self, "calibrate", "test")
        if self.calibrate is not None and not len(self.calibrate[1]):
            raise refusal("calibrate", "Predictor", "(X, y) with rows", self.calibrate, "Or leave it out.")
        if self.counts is not None:
            object.__setattr__(self, "counts", _counts(self.counts, self.classes))

    def contribute(self, shared: Contribution, local: Tree, round: Round, secret: Secret) -> tuple[Contribution, Tree]:
        """Probabilities for the inputs that were asked about; its own scores where scores are asked for."""
        if shared.kind == "score":
            return Contribution("score", None, metrics=self._scores()), local
        asked: Any = shared.value if isinstance(shared.value, Mapping) else {"x": shared.value}
        x = asked.get("x")
        if not isinstance(x, np.ndarray) or x.ndim < 1:
            raise ConfigError(f"A question to a Predictor must be an array of inputs. Got {shown(x)}. Use co.Query(x).")
        p = self.predict(x)
        if p.ndim == 1:
            return Contribution("prediction", {"value": p.astype("float32")}, self._weight(p, {"value": 1.0})), local
        value = {"proba": p.astype("float32"), "seen": self._seen(p.shape[1])}
        if self.counts is not None and asked.get("counts", True):
            value["counts"] = _fitting(self.counts, p.shape[1])
        if asked.get("tap") is not None:
            value["hint"] = self._hint(x, asked["tap"])
        return Contribution("prediction", value, self._weight(p, value)), local

    def predict(self, x: Any) -> Array:
        """(rows, classes) float64 calibrated probabilities; (rows,) numbers of a regressor.

        Raises:
            ConfigError: the columns cannot be put into the order of `classes`.
        """
        p = self._raw(x)
        if p.ndim == 1 or self.temperature == 1.0:
            return p
        return tempered(np.maximum(p, FLOOR * self._seen(p.shape[1])), self.temperature)

    @cached_property
    def temperature(self) -> float:
        """T of the calibration, 1.0 without one; classes that it never saw do not count.

        Probabilities of those it saw are taken for 0.0001 at least, so that certainty can be softened.
        """
        if self.calibrate is None:
            return 1.0
        p, y = self._raw(self.calibrate[0]), self._columns(self.calibrate[1])
        if p.ndim == 1:
            raise ConfigError("Only probabilities can be calibrated. Got a regressor. Leave out calibrate.")
        seen = self._seen(p.shape[1]) > 0
        fair = seen[y]
        return temperature_of(p[fair][:, seen], (np.cumsum(seen) - 1)[y[fair]])

    def _raw(self, x: Any) -> Array:
        labels = self._labels
        p = self._asked(x, labels)
        if labels is None or p.ndim == 1:
            return p
        out = np.zeros((len(p), len(self.classes or labels)))
        out[:, [self._place[label] for label in labels]] = p
        return out

    def _asked(self, x: Any, labels: list[Any] | None) -> Array:
        """What the estimator says itself.

        Raises:
            ConfigError: it is not fitted, or does not take such rows.
        """
        try:
            if isinstance(self.estimator, tuple):
                model, params = self.estimator
                return np.asarray(model.predict(params, x), float)
            return _probabilities(self.estimator, x, labels)
        except ConfigError:
            raise
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            said = (str(error).strip().splitlines() or ["nothing"])[0][:200].rstrip(".")
            raise ConfigError(
                f"The 'estimator' of Predictor must be fitted, and take rows as it is asked. It says: {said}."
            ) from error

    @cached_property
    def _labels(self) -> list[Any] | None:
        """The member's own labels in the order of its own columns; None where nobody says."""
        if isinstance(self.estimator, tuple):
            named = getattr(self.estimator[0], "classes", None)
            found = named if isinstance(named, tuple) else self.classes
        else:
            found = getattr(self.estimator, "classes_", self.classes)
        return None if found is None else np.asarray(found).tolist()

    @cached_property
    def _place(self) -> dict[Any, int]:
        """The column of each label."""
        own = self._labels
        if self.classes is None:
            if own is not None and own != list(range(len(own))):
                raise ConfigError(
                    f"The classes of a member must be numbered 0, 1, ... or declared. Got {shown(own)}. "
                    "Use Predictor(estimator, classes=...) with all labels that occur anywhere, the same for everybody."
                )
            return {label: i for i, label in enumerate(own or ())}
        place = {label: i for i, label in enumerate(self.classes)}
        if strange := [label for label in own or () if label not in place]:
            raise ConfigError(f"The 'classes' of Predictor must name all labels. Got none for {shown(strange[:3])}.")
        return place

    def _columns(self, y: Any) -> Array:
        """(rows,) int64 the column of each label."""
        labels = np.asarray(y).tolist()
        place: Mapping[Any, int] = self._place or {i: i for i in range(1 + max(map(int, labels), default=0))}
        if strange := sorted({str(label) for label in labels if label not in place}):
            raise ConfigError(f"The labels of a Predictor's rows must be among its classes. Got {shown(strange[:3])}.")
        return np.array([place[label] for label in labels], np.int64)

    def _seen(self, classes: int) -> Array:
        """(classes,) float32: 1 where the member has seen the class."""
        seen = np.ones(classes, "float32")
        if self.counts is not None:
            return (_fitting(self.counts, classes) > 0).astype("float32")
        if self._labels is not None:
            seen[:] = 0
            seen[[self._place[label] for label in self._labels]] = 1
        return seen

    def _weight(self, p: Array, value: Mapping[str, Any]) -> Any:
        if self.weight == "certainty" and p.ndim == 2:
            entropy = -(p * np.log(np.maximum(p, 1e-12))).sum(axis=1, keepdims=True)
            sure = np.clip(1 - entropy / math.log(max(p.shape[1], 2)), 1e-3, 1.0)
            return {**dict.fromkeys(value, 1.0), "proba": sure}
        return self._accuracy if isinstance(self.weight, str) else float(self.weight)

    @cached_property
    def _accuracy(self) -> float:
        found = self._measured(self.calibrate)
        if "accuracy" not in found:
            raise ConfigError("Predictor(weight='accuracy') must have classes. Got a regressor. Use a number.")
        hits, rows = found["accuracy"]
        return hits / max(rows, 1.0)

    def _measured(self, rows: Any, prefix: str = "") -> dict[str, tuple[float, float]]:
        p = self.predict(rows[0])
        return dict(scores(p, np.asarray(rows[1]) if p.ndim == 1 else self._columns(rows[1]), prefix))

    def _scores(self) -> dict[str, tuple[float, float]]:
        return {} if self.test is None or not len(self.test[1]) else self._measured(self.test, "own_")

    def _hint(self, x: Array, tap: str) -> Array:
        """(rows, width) float32 inner representation, one row flat."""
        if not isinstance(self.estimator, tuple):
            raise ConfigError("A member asked for an inner representation must be (model, params). Leave out the hint.")
        model, params = self.estimator
        return np.asarray(model.features(params, x, (tap,))[tap], "float32").reshape(len(x), -1)


def _predicts(estimator: Any) -> bool:
    if isinstance(estimator, tuple):
        return len(estimator) == 2 and callable(getattr(estimator[0], "predict", None))
    return not isinstance(estimator, type) and callable(getattr(estimator, "predict", None))


def _classes(classes: Any) -> tuple[Any, ...]:
    """Labels as plain Python has them."""
    plain = classes.tolist() if isinstance(classes, np.ndarray) and classes.ndim == 1 else classes
    sound = isinstance(plain, tuple | list) and all(
        isinstance(c, str | bytes | int | float | np.generic) for c in plain
    )
    found = tuple(c.item() if isinstance(c, np.generic) else c for c in plain) if sound else ()
    if len(set(found)) < max(2, len(found)):
        raise refusal("classes", "Predictor", "two labels or more, each once", classes, "Use (0, 1), for one.")
    return found


def _counts(counts: Any, classes: tuple[Any, ...] | None) -> Array:
    try:
        n = np.asarray(counts)
    except ValueError:
        n = np.empty(0, "O")
    if n.ndim != 1 or not len(n) or n.dtype.kind not in "fiu" or not (np.isfinite(n).all() and (n >= 0).all()):
        raise refusal(
            "counts", "Predictor", "(classes,) numbers >= 0", counts, "Use np.bincount(y, minlength=classes)."
        )
    return n.astype("float32") if classes is None else _fitting(n.astype("float32"), len(classes))


def _fitting(n: Array, classes: int) -> Array:
    if len(n) != classes:
        raise ConfigError(f"The 'counts' of Predictor must be one for each of {classes} classes. Got {len(n)}.")
    return n


def _probabilities(estimator: Any, x: Any, labels: list[Any] | None) -> Array:
    """(rows, own classes) in the estimator's own order; (rows,) numbers where it has no classes."""
    if labels is None:
        return np.asarray(estimator.predict(x), float).reshape(len(x))
    if hasattr(estimator, "predict_proba"):
        return np.asarray(estimator.predict_proba(x), float)
    if hasattr(estimator, "decision_function"):
        z = np.asarray(estimator.decision_function(x), float)
        return softmax(np.stack([np.zeros(len(z)), z], 1) if z.ndim == 1 else z)
    place = {label: i for i, label in enumerate(labels)}
    return np.eye(len(labels))[[place[label] for label in np.asarray(estimator.predict(x)).tolist()]]
