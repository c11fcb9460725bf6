"""An ensemble in one place: unlike scikit-learn models, the way to combine them chosen by cross-validation."""

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from comity.adapters.rows import complaint, finite, sort_of, table_of
from comity.adapters.sklearn import EstimatorModel
from comity.core.calibration import log_floored, softmax, temperature_of
from comity.core.checks import number, part, refusal, seeded, shown, whole, word
from comity.core.contribution import Array
from comity.core.errors import ConfigError
from comity.core.round import Round

Pool = Callable[[Array], Array]
"""(members, rows, classes) log-probabilities to (rows, classes) log-probabilities."""

STEPS, SHARPEST = 200, 3.0


@dataclass(eq=False)
class Ensemble:
    """Unlike models that learn the same rows, combined in the way that cross-validation prefers.

    Each member is calibrated by one temperature on its out-of-fold probabilities. The ways: "log_pool" (log-linear,
    weights >= 0 by maximum likelihood, drawn to their mean), "linear_pool" (weights by EM), "greedy" (Caruana et al.,
    ICML 2004) and "stacking" (a logistic regression on log-probabilities). "single" is the best member, raw or
    calibrated. They are compared by a second cross-validation on the same out-of-fold rows, and the best way is taken
    only where its gain over "single" is more than `guard` standard errors of the gain per row: on a few hundred rows
    a few of them decide, and an ensemble may well be worse than its best member.

    Attributes:
        members: name to unfitted scikit-learn classifier; they are never changed.
        strategy: "auto", or the way to take without a choice.
        guard: standard errors, >= 0; 0 takes the best way by its mean.
        folds: of both cross-validations, >= 2; fewer where a class has fewer rows.
        seed: of the folds, and of members without a `random_state`.

    After `fit`:
        classes_: the labels, sorted; columns of `predict_proba`.
        strategy_: the way that was taken.
        losses_: way to mean cross-validated log loss in nats.
        gain_, error_: the mean gain of the best way over "single" per row, in nats, and its standard error.
        temperatures_: name to temperature.

    Raises:
        ConfigError: no members, or a setting out of range.

    Example:
        >>> import numpy as np, comity as co
        >>> from sklearn.linear_model import LogisticRegression
        >>> from sklearn.naive_bayes import GaussianNB
        >>> rng = np.random.default_rng(0)
        >>> X = rng.normal(size=(80, 2)); y = np.where(X.sum(1) > 0, "yes", "no")
        >>> both = co.Ensemble({"lr": LogisticRegression(), "nb": GaussianNB()}).fit(X, y)
        >>> both.predict([[2.0, 2.0], [-2.0, -2.0]]).tolist(), sorted(both.losses_)
        (['yes', 'no'], ['greedy', 'linear_pool', 'log_pool', 'single', 'stacking'])
    """

    members: Mapping[str, Any]
    _: KW_ONLY
    strategy: str = "auto"
    guard: float = 1.5
    folds: int = 5
    seed: int = 0
    classes_: Any = field(default=None, init=False, repr=False)
    strategy_: str = field(init=False, repr=False)
    losses_: dict[str, float] = field(init=False, repr=False)
    gain_: float = field(init=False, repr=False)
    error_: float = field(init=False, repr=False)
    temperatures_: dict[str, float] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.members, Mapping) or not self.members:
            raise ConfigError(f"The 'members' of Ensemble must be {{name: estimator}}. Got {shown(self.members)}.")
        for name, member in self.members.items():
            part("members", "Ensemble", member, ("fit()", "predict()", "get_params()"), "scikit-learn classifiers")
            if not isinstance(name, str) or sort_of(member) not in (None, "classifier"):
                raise refusal("members", "Ensemble", "{name: classifier}", self.members)
        word("strategy", "Ensemble", self.strategy, ("auto", *WAYS))
        number("guard", "Ensemble", self.guard, "[0, inf)")
        self.folds = whole("folds", "Ensemble", self.folds, 2)
        self.seed = seeded("Ensemble", self.seed)

    def fit(self, X: Any, y: Any) -> "Ensemble":
        """Choose, and fit every member on all rows.

        Args:
            X: (rows, columns).
            y: (rows,) labels, two rows of each at least.

        Raises:
            ConfigError: data that do not fit, fewer than two classes, or a class with one row.
        """
        X, y = table_of((X, y), "Ensemble")
        finite("y", "Ensemble", y)
        try:
            self.classes_, at, sizes = np.unique(y, return_inverse=True, return_counts=True)
        except TypeError:
            got = f"{shown(y)}, of which some are others"
            raise ConfigError(f"The y of Ensemble must be all words or all numbers. Got {got}.") from None
        if len(sizes) < 2 or sizes.min() < 2:
            raise ConfigError(
                f"The y of Ensemble must hold two classes, two rows of each. Got {len(sizes)}, the least with "
                f"{sizes.min()}. Leave out what is rare."
            )
        folds = min(self.folds, int(sizes.min()))
        labels = tuple(self.classes_.tolist())
        self._models = {name: EstimatorModel(m, labels) for name, m in self.members.items()}
        said = self._out_of_fold(X, y, at, folds)
        self._choose(said, at, _cut(at, folds, self.seed + 1))
        here = Round("ensemble", self.seed)
        self._fitted = {name: m.fitted((X, y), here) for name, m in self._models.items()}
        return self

    def predict_proba(self, X: Any) -> Array:
        """(rows, classes) float64 probabilities, rows sum to 1.

        Raises:
            ConfigError: not fitted, or rows that a member does not take.
        """
        if self.classes_ is None:
            raise ConfigError("An Ensemble must be fitted first. Got an unfitted one. Use fit(X, y).")
        said = [log_floored(self._said(name, X)) for name in self._models]
        return np.exp(self._pool(np.stack(said)))

    def predict(self, X: Any) -> Any:
        """(rows,) the most probable label."""
        p = self.predict_proba(X)
        return self.classes_[p.argmax(axis=1)]

    def _said(self, name: str, X: Any) -> Array:
        try:
            return self._models[name].predicted(self._fitted[name], X)
        except (IndexError, TypeError, ValueError) as error:
            raise (
                error if isinstance(error, ConfigError) else ConfigError(complaint(self.members[name], error))
            ) from error

    def _out_of_fold(self, X: Array, y: Array, at: Array, folds: int) -> Array:
        """(members, rows, classes) log-probabilities of rows that the member was not fitted on."""
        out = np.empty((len(self._models), len(y), len(self.classes_)))
        for fold, (train, rest) in enumerate(_cut(at, folds, self.seed)):
            here = Round("ensemble", self.seed, number=fold + 1)
            for i, model in enumerate(self._models.values()):
                fitted = model.fitted((X[train], y[train]), here)
                out[i, rest] = log_floored(model.predicted(fitted, X[rest]))
        return out

    def _choose(self, said: Array, y: Array, cut: list[Any]) -> None:
        rows = {way: np.empty(len(y)) for way in WAYS}
        for train, rest in cut:
            for way, fit in WAYS.items():
                pool = fit(said[:, train], y[train])
                rows[way][rest] = -pool(said[:, rest])[np.arange(len(rest)), y[rest]]
        self.losses_ = {way: float(loss.mean()) for way, loss in rows.items()}
        best = min((w for w in WAYS if w != "single"), key=self.losses_.__getitem__)
        gains = rows["single"] - rows[best]
        self.gain_, self.error_ = float(gains.mean()), float(gains.std() / np.sqrt(len(y)))
        chosen = best if self.gain_ > self.guard * self.error_ else "single"
        self.strategy_ = chosen if self.strategy == "auto" else self.strategy
        heats = [temperature_of(np.exp(member), y) for member in said]
        self.temperatures_ = dict(zip(self.members, heats, strict=True))
        self._pool = WAYS[self.strategy_](said, y)


def _cut(y: Array, folds: int, seed: int) -> list[Any]:
    return list(StratifiedKFold(folds, shuffle=True, random_state=seed).split(y[:, None], y))


def _normal(z: Array) -> Array:
    top = z.max(axis=-1, keepdims=True)
    return np.asarray(z - top - np.log(np.exp(z - top).sum(axis=-1, keepdims=True)))


def _heat(said: Array, y: Array) -> Pool:
    """Each member at its own temperature."""
    heats = np.array([temperature_of(np.exp(member), y) for member in said])
    return lambda q: _normal(q / heats[:, None, None])


def _loss(z: Array, y: Array) -> float:
    return -float(z[np.arange(len(y)), y].mean())


def _single(said: Array, y: Array) -> Pool:
    """The best member, as it is or calibrated."""
    heat = _heat(said, y)
    raw, warm = _normal(said), heat(said)
    losses = [min(_loss(a, y), _loss(b, y)) for a, b in zip(raw, warm, strict=True)]
    best = int(np.argmin(losses))
    if _loss(raw[best], y) <= _loss(warm[best], y):
        return lambda q: _normal(q[best])
    return lambda q: np.asarray(heat(q)[best])


def _pooled(fit: Callable[[Array, Array], Pool], said: Array, y: Array) -> Pool:
    """Calibrated first, then pooled."""
    heat = _heat(said, y)
    pool = fit(heat(said), y)
    return lambda q: pool(heat(q))


def _linear(weights: Array) -> Pool:
    return lambda q: np.log(np.maximum(np.tensordot(weights, np.exp(q), 1), 1e-12))


def _log_pool(said: Array, y: Array) -> Pool:
    """Weights from 0 to 3 of least log loss with a ridge towards 1 / members, by projected gradient steps."""
    m, rows = len(said), np.arange(len(y))
    start = np.full(m, 1 / m)
    right = said[:, rows, y]

    def value(w: Array) -> tuple[float, Array]:
        z = _normal(np.tensordot(w, said, 1))
        slope = np.einsum("nc,mnc->m", np.exp(z), said) - right.sum(axis=1) + 2 * m * (w - start)
        return -float(z[rows, y].sum()) + m * float(((w - start) ** 2).sum()), slope

    w, step = start, 1.0 / len(y)
    now, slope = value(w)
    for _ in range(STEPS):
        while True:
            new = np.clip(w - step * slope, 0.0, SHARPEST)
            after, steeper = value(new)
            if after <= now + float(slope @ (new - w)) / 2 or step < 1e-12:
                break
            step /= 2
        small = now - after < 1e-9 * len(y)
        w, now, slope, step = new, after, steeper, step * 1.5
        if small:
            break
    return lambda q: _normal(np.tensordot(w, q, 1))


def _linear_pool(said: Array, y: Array) -> Pool:
    """Weights by EM with a Dirichlet(1 + 1 / members) prior."""
    p = np.exp(said[:, np.arange(len(y)), y])
    w = np.full(len(p), 1 / len(p))
    for _ in range(STEPS):
        r = w[:, None] * p
        share = (r / r.sum(axis=0)).sum(axis=1) + 1 / len(p)
        w = share / share.sum()
    return _linear(w)


def _greedy(said: Array, y: Array, steps: int = 40) -> Pool:
    """Members one by one, each as often as it helps."""
    p = np.exp(said[:, np.arange(len(y)), y])
    total, w = np.zeros(len(y)), np.zeros(len(p))
    best, kept = np.inf, w
    for k in range(steps):
        losses = -np.log((total + p) / (k + 1) + 1e-12).mean(axis=1)
        i = int(losses.argmin())
        total, w[i] = total + p[i], w[i] + 1
        if losses[i] < best - 1e-6:
            best, kept = losses[i], w / w.sum()
    return _linear(kept)


def _stacking(said: Array, y: Array) -> Pool:
    """A logistic regression on all members' centred log-probabilities."""
    classes = said.shape[2]

    def flat(q: Array) -> Array:
        return np.concatenate(list(q - q.mean(axis=2, keepdims=True)), axis=1)

    model = LogisticRegression(C=0.03, max_iter=200).fit(flat(said), y)

    def pool(q: Array) -> Array:
        z = np.asarray(model.decision_function(flat(q)), float)
        z = np.stack([np.zeros(len(z)), z], 1) if z.ndim == 1 else z
        out = np.zeros((len(z), classes))
        out[:, model.classes_] = softmax(z)
        return _normal(log_floored(out))

    return pool


WAYS: Mapping[str, Callable[[Array, Array], Pool]] = {
    "single": _single,
    "log_pool": partial(_pooled, _log_pool),
    "linear_pool": partial(_pooled, _linear_pool),
    "greedy": partial(_pooled, _greedy),
    "stacking": partial(_pooled, _stacking),
}
