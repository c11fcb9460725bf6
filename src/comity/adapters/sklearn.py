"""scikit-learn: estimators that learn step by step, with their arrays as parameters; and any estimator, as a whole."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import sklearn
from sklearn.base import clone
from sklearn.dummy import DummyClassifier

from comity.adapters.common import epochs_of, flat, measured, named, over, refuse, settings, taken
from comity.adapters.rows import classes_of, complaint, finite, inputs_of, known_labels, sort_of, table_of
from comity.adapters.saved import dump, load
from comity.core.checks import part, shown
from comity.core.contribution import Array, Metrics, Tree
from comity.core.errors import ConfigError
from comity.core.parts import Step
from comity.core.round import Round
from comity.core.tree import Layout

_ONE, _MANY = ("coef_", "intercept_"), ("coefs_", "intercepts_")


@dataclass(frozen=True)
class SklearnModel:
    """An estimator with `partial_fit` whose parameters are arrays: they travel, and can be averaged.

    For SGDClassifier, SGDRegressor, Perceptron (`coef_`, `intercept_`) and MLPClassifier, MLPRegressor (`coefs_`,
    `intercepts_`). What else such an estimator remembers (its step counter, Adam's moments) starts anew in each fit.

    Attributes:
        estimator: unfitted; it is never changed.
        classes: the labels that occur anywhere, sorted; None for regression.
        inputs: columns of X.
        epochs: calls of `partial_fit` in one fit, each over the samples in the round's order.

    Raises:
        ConfigError: no `partial_fit`, or no coefficients, or a setting out of range.

    Example:
        >>> import numpy as np
        >>> from sklearn.linear_model import SGDClassifier
        >>> from comity.core.round import Round
        >>> model = SklearnModel(SGDClassifier(loss="log_loss"), classes=(0, 1), inputs=1, epochs=20)
        >>> here = Round("doctest", seed=0)
        >>> params, _ = model.fit(model.init(here), (np.array([[-2.0], [-1.0], [1.0], [2.0]]), [0, 0, 1, 1]), here)
        >>> model.predict(params, [[-3.0], [3.0]]).argmax(1).tolist()
        [0, 1]
    """

    estimator: Any
    classes: tuple[Any, ...] | None
    _: KW_ONLY
    inputs: int
    epochs: float = 1

    def __post_init__(self) -> None:
        settings(self, "inputs", "epochs")
        who = type(self.estimator).__name__
        part("estimator", "SklearnModel", self.estimator, ("partial_fit()", "get_params()"), "EstimatorModel")
        if self.classes is None and sort_of(self.estimator) == "classifier":
            raise ConfigError("The 'classes' of SklearnModel must be all labels of a classifier. Got None. Use (0, 1).")
        object.__setattr__(self, "classes", known_labels("SklearnModel", self.estimator, self.classes))
        if getattr(self.estimator, "average", False):
            raise ConfigError(
                f"The estimator of SklearnModel must not average. Got {who}(average=True). Use average=False."
            )

    @property
    def statistics(self) -> tuple[str, ...]:
        """No leaf is a statistic."""
        return ()

    def _primed(self, seed: int) -> Any:
        """The estimator once it has seen a row of zeros of each class: all that it needs to take parameters."""
        out = clone(self.estimator)
        _set(out, learning_rate_init=1e-12, random_state=seed, shuffle=False, early_stopping=False)
        rows = len(self.classes) if self.classes else 1
        self._feed(out, np.zeros((rows, self.inputs)), np.array(self.classes or (0.0,)))
        if not hasattr(out, "coef_") and not hasattr(out, "coefs_"):
            who = type(out).__name__
            raise ConfigError(f"The estimator of SklearnModel must have coefficients. Got {who}. Use EstimatorModel.")
        return out

    @cached_property
    def _template(self) -> Any:
        return self._primed(0)

    def _feed(self, estimator: Any, x: Array, y: Array) -> None:
        if self.classes:
            estimator.partial_fit(x, y, classes=np.array(self.classes))
        else:
            estimator.partial_fit(x, y)

    @cached_property
    def _layout(self) -> Layout:
        return Layout.of(_arrays(self._template), "float64")

    def init(self, round: Round) -> Tree:
        """Zeros for coefficients, or random layers (with `round.rng("init")`) for a network; float64."""
        if hasattr(self._template, "coef_"):
            return over(self._layout, np.zeros(self._layout.size))
        return over(self._layout, _vector(self._primed(_seed(round.rng("init"))), self._layout))

    def fit(self, params: Tree, data: Any, round: Round, step: Step = Step()) -> tuple[Tree, Metrics]:
        """Train from `params` on data (X, y) by `partial_fit`; `params` is not changed.

        Returns:
            New parameters, and `examples` (rows, 1) and `train_loss`: the log loss in nats, or the squared error, of
            the rows after the fit (sum, rows).

        Raises:
            ConfigError: data or parameters that do not fit, or a Step with more than epochs.
        """
        refuse(step, "SklearnModel", ())
        x, y = self._pair(data)
        estimator = self._with(params)
        rates = {k: v for k, v in self.estimator.get_params().items() if k == "learning_rate_init"}
        _set(estimator, random_state=_seed(round.mine("sklearn")), **rates)
        for order in epochs_of(len(x), self.epochs if step.epochs is None else step.epochs, round):
            self._feed(estimator, x[order], y[order])
        loss = _loss(_predict(estimator, x, self.classes), y, self.classes)
        return over(self._layout, _vector(estimator, self._layout)), measured(len(x), loss, len(x))

    def check(self, data: Any) -> None:
        """Refuse data that `fit` cannot learn from.

        Raises:
            ConfigError: shapes or classes that are not the model's, or NaN or infinity.
        """
        self._pair(data)

    def _pair(self, data: Any) -> tuple[Array, Array]:
        x, y = table_of(data, "SklearnModel")
        x = inputs_of(x, self.inputs, "float64")
        finite("X", "SklearnModel", x)
        return x, classes_of(y, "SklearnModel", self.classes)

    def _with(self, params: Tree) -> Any:
        """A fresh estimator that has these parameters."""
        tree: Any = over(self._layout, flat(params, self._layout, "SklearnModel").astype(float))
        estimator = copy.deepcopy(self._template)
        for name in _ONE:
            if name in tree:
                setattr(estimator, name, tree[name])
        for name in _MANY:
            if hasattr(estimator, name):
                setattr(estimator, name, [tree[f"{name}.{i}"] for i in range(len(getattr(estimator, name)))])
        vars(estimator).pop("_optimizer", None)
        if hasattr(estimator, "t_"):
            estimator.t_ = type(estimator.t_)(1 if hasattr(estimator, "coef_") else 0)
        return estimator

    def predict(self, params: Tree, x: Any) -> Array:
        """(rows, classes) float64 probabilities, rows sum to 1; for regression (rows,) float64.

        Without `predict_proba` they are the softmax of the decision function, and not calibrated.
        """
        return _predict(self._with(params), inputs_of(x, self.inputs, "float64"), self.classes)

    def features(self, params: Tree, x: Any, taps: Sequence[str]) -> Mapping[str, Array]:
        """No inner representations are offered."""
        taken(taps, (), "SklearnModel")
        return {}

    def fingerprint(self) -> dict[str, Any]:
        """What a site compares with its own: class, settings and version; no values."""
        return {
            **_fingerprint(self.estimator),
            "classes": repr(self.classes),
            "inputs": self.inputs,
            "epochs": self.epochs,
        }


@dataclass(frozen=True)
class EstimatorModel:
    """Any scikit-learn estimator as a whole: it travels by skops, is never averaged and never unpickled.

    Parameters are {"estimator": bytes}, b"" before the first fit. Every fit starts from scratch.

    Attributes:
        estimator: unfitted; it is never changed. A `random_state` of None, here or in a step of a pipeline, is set
            in each fit from the round.
        classes: the labels that occur anywhere, in the order of the columns of `predict`; None for regression.

    Example:
        >>> import numpy as np
        >>> from sklearn.tree import DecisionTreeClassifier
        >>> from comity.core.round import Round
        >>> model, here = EstimatorModel(DecisionTreeClassifier(), classes=(0, 1, 2)), Round("doctest", seed=0)
        >>> params, _ = model.fit(model.init(here), (np.array([[0.0], [1.0]]), np.array([0, 2])), here)
        >>> model.predict(params, [[0.0], [1.0]]).tolist()
        [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    """

    estimator: Any
    classes: tuple[Any, ...] | None = None

    def __post_init__(self) -> None:
        needs = ("fit()", "predict()", "get_params()")
        part("estimator", "EstimatorModel", self.estimator, needs, "one of scikit-learn")
        object.__setattr__(self, "classes", known_labels("EstimatorModel", self.estimator, self.classes))

    @property
    def statistics(self) -> tuple[str, ...]:
        """No leaf is a statistic."""
        return ()

    def init(self, round: Round) -> Tree:
        """{"estimator": b""}: nothing is fitted yet."""
        return {"estimator": b""}

    def fit(self, params: Tree, data: Any, round: Round, step: Step = Step()) -> tuple[Tree, Metrics]:
        """Fit a clone on data (X, y) from scratch; `params` is not used. One class alone gives a constant.

        Returns:
            {"estimator": bytes}, and `examples` (rows, 1) and `train_loss`: the log loss in nats, or the squared
            error, of the rows after the fit (sum, rows).

        Raises:
            ConfigError: data that do not fit, labels that are no class, types that could not be loaded elsewhere, or
                a Step that asks for more than a fit.
        """
        refuse(step, "EstimatorModel", ())
        x, y = table_of(data, "EstimatorModel")
        packed = self.packed(self.fitted(data, round))
        return packed, measured(len(x), _loss(self.predict(packed, x), y, self.classes), len(x))

    def check(self, data: Any) -> None:
        """Refuse data that no fit can learn from; what X may hold, the estimator decides.

        Raises:
            ConfigError: no X (rows, columns) and y (rows,), or labels that are no class.
        """
        classes_of(table_of(data, "EstimatorModel")[1], "EstimatorModel", self.classes)

    def fitted(self, data: Any, round: Round) -> Any:
        """A clone of the estimator, fitted: for trying many at home, where none of them travels.

        Raises:
            ConfigError: as `fit`.
        """
        x, y = table_of(data, "EstimatorModel")
        estimator = clone(self.estimator)
        y = classes_of(y, "EstimatorModel", self.classes)
        if self.classes is not None and len(np.unique(y)) == 1:
            estimator = DummyClassifier()
        seed = _seed(round.mine("sklearn"))
        unset = [k for k, v in estimator.get_params().items() if k.rsplit("__")[-1] == "random_state" and v is None]
        try:
            return estimator.set_params(**dict.fromkeys(unset, seed)).fit(x, y)
        except (TypeError, ValueError) as error:
            raise ConfigError(complaint(estimator, error)) from error

    def predicted(self, estimator: Any, x: Any) -> Array:
        """As `predict`, of an estimator that `fitted` gave."""
        return _predict(estimator, np.asarray(x), self.classes)

    def packed(self, estimator: Any) -> Tree:
        """An estimator that `fitted` gave, as parameters.

        Raises:
            ConfigError: it holds types that could not be loaded elsewhere.
        """
        data = dump(estimator)
        load(data)
        return {"estimator": data}

    def predict(self, params: Tree, x: Any) -> Array:
        """(rows, classes) float64 probabilities, 0 for a class it never saw; for regression (rows,) float64.

        Without `predict_proba` they are the softmax of the decision function, or else 1 for the predicted class.

        Raises:
            ConfigError: not fitted, or bytes that are not trusted.
        """
        if not isinstance(params, Mapping) or not isinstance(params.get("estimator"), bytes):
            got = shown(params)
            raise ConfigError(
                f"The parameters of EstimatorModel must be {{'estimator': bytes}}. Got {got}. Use those that fit gave."
            )
        estimator = load(params["estimator"])
        try:
            return _predict(estimator, np.asarray(x), self.classes)
        except (TypeError, ValueError) as error:
            raise ConfigError(complaint(estimator, error)) from error

    def features(self, params: Tree, x: Any, taps: Sequence[str]) -> Mapping[str, Array]:
        """No inner representations are offered."""
        taken(taps, (), "EstimatorModel")
        return {}

    def fingerprint(self) -> dict[str, Any]:
        """What a site compares with its own: class, settings and version; no values."""
        return {**_fingerprint(self.estimator), "classes": repr(self.classes)}


def _arrays(estimator: Any) -> dict[str, Array]:
    """The arrays that an estimator has learnt, by name."""
    out = {name: np.asarray(getattr(estimator, name)) for name in _ONE if hasattr(estimator, name)}
    for name in _MANY:
        out |= {f"{name}.{i}": np.asarray(x) for i, x in enumerate(getattr(estimator, name, ()))}
    return out


def _vector(estimator: Any, layout: Layout) -> Array:
    out = np.empty(layout.size)
    views = layout.tree(out)
    for name, array in _arrays(estimator).items():
        views[name][...] = array
    return out


def _set(estimator: Any, **wanted: Any) -> None:
    """Set those parameters that the estimator has."""
    known = estimator.get_params()
    estimator.set_params(**{k: v for k, v in wanted.items() if k in known})


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**31 - 1))


def _predict(estimator: Any, x: Array, classes: tuple[Any, ...] | None) -> Array:
    if classes is None:
        return np.asarray(estimator.predict(x), float).reshape(len(x))
    seen = {label: i for i, label in enumerate(np.asarray(estimator.classes_).tolist())}
    p, out = _probabilities(estimator, x, seen), np.zeros((len(x), len(classes)))
    for column, label in enumerate(classes):
        if label in seen:
            out[:, column] = p[:, seen[label]]
    return out


def _probabilities(estimator: Any, x: Array, seen: dict[Any, int]) -> Array:
    if hasattr(estimator, "predict_proba"):
        return np.asarray(estimator.predict_proba(x), float)
    if hasattr(estimator, "decision_function"):
        z = np.asarray(estimator.decision_function(x), float)
        z = np.stack([np.zeros(len(z)), z], 1) if z.ndim == 1 else z
        p: Array = np.exp(z - z.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        return p
    hard: Array = np.eye(len(seen))[[seen[label] for label in estimator.predict(x).tolist()]]
    return hard


def _loss(predicted: Array, y: Array, classes: tuple[Any, ...] | None) -> float:
    if classes is None:
        return float(((predicted - y) ** 2).sum())
    at = [classes.index(label) for label in y.tolist()]
    return -float(np.log(np.maximum(predicted[np.arange(len(y)), at], 1e-15)).sum())


def _fingerprint(estimator: Any) -> dict[str, Any]:
    params = {k: repr(v) for k, v in sorted(estimator.get_params().items())}
    return {"class": named(type(estimator)), "params": params, "sklearn": sklearn.__version__}
