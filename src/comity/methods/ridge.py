"""Ridge: closed-form learning in one round, from sums over features that all can make.

participant  sends F'F, F'Y and how many rows, by fold, as means over its rows; weight: its rows
hub          adds them and solves (F'F + λI)⁻¹F'Y; λ is chosen by the folds' sums, no row is needed for it
never leaves rows, labels; but of a party with fewer rows than features these sums nearly span its rows, and they hold
             how many rows of each class there are: hide them in the sum of all
bytes        up, once: folds·width²/2 numbers; down: classes·width numbers
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, ClassVar

import numpy as np

from comity.combine.mean import Mean
from comity.core.checks import number, part, refusal, shown, whole, word
from comity.core.contribution import Array, Contribution, Metrics, Tree
from comity.core.errors import ConfigError
from comity.core.fits import Unchanged
from comity.core.parts import Combiner, Secret
from comity.core.rng import keyed
from comity.core.round import Round
from comity.core.scores import scores
from comity.core.spec import Leaf, Spec
from comity.methods.features import Features
from comity.methods.training import numbers_of, rows_fit

FEATURES = ("()", "width", "bound")
LAMBDAS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)


@dataclass(frozen=True)
class Ridge:
    """Ridge regression on all rows, which lie where they are. Participants are `RidgeTrainer`.

    Sums do not depend on who holds which row: neither skew, nor how many participants there are, nor their sizes play
    a part. Classes are learnt as one-hot targets; what is predicted of them are probabilities, softmax(score/σ²), where
    σ² is the mean squared error of a score on left-out folds (the posterior of scores that are the target and noise of
    this variance). The bias is not penalised.

    `run.shared` is {"weight": (outputs, width), "bias": (outputs,), "l2", "error", "temperature"}, with which `predict`
    predicts; `error` is the mean squared error on left-out folds, summed over outputs. One round is enough; each
    further one solves anew from the sums of those who answer it.

    Attributes:
        features: the map that everybody uses, such as `PatchFeatures`.
        classes: 0 for regression (y float), else how many there are, >= 2 (y whole numbers from 0).
        l2: what is tried for λ, as a share of the mean square of a feature over all rows; each > 0.
        folds: >= 2. A row's fold follows from what stands in it, so that it is the same wherever the row lies.
        reach: the greatest absolute value of y in regression; beyond it rows are refused.
        dtype: of the sums: "float64", or "float32" for half of the bytes and about 6 digits.

    Raises:
        ConfigError: a setting out of range.

    Example:
        >>> import numpy as np, comity as co
        >>> X = np.arange(12.0).reshape(-1, 1) / 12
        >>> features = co.ColumnFeatures(1)
        >>> sites = {"a": co.RidgeTrainer(features, (X[:5], 2 * X[:5, 0] + 1))}
        >>> sites["b"] = co.RidgeTrainer(features, (X[5:], 2 * X[5:, 0] + 1))
        >>> method = co.Ridge(features)
        >>> run = co.Collaboration(method, sites).run(rounds=1)
        >>> method.predict(run.shared, [[3.0]]).round(3).tolist()
        [7.0]
    """

    features: Features
    classes: int = 0
    _: KW_ONLY
    l2: Sequence[float] = LAMBDAS
    folds: int = 3
    reach: float = math.inf
    dtype: str = "float64"
    send: ClassVar[str] = "gradient"
    tells: ClassVar[Any] = Unchanged("share", "expect", yes="all", no="each")

    def __post_init__(self) -> None:
        part("features", "Ridge", self.features, FEATURES, "co.ColumnFeatures(inputs)")
        if whole("classes", "Ridge", self.classes) == 1:
            raise refusal("classes", "Ridge", "0 (regression) or >= 2", 1, "Use classes=2.")
        whole("folds", "Ridge", self.folds, 2)
        number("reach", "Ridge", self.reach, "(0, inf]", hint="Use math.inf for none.")
        word("dtype", "Ridge", self.dtype, ("float32", "float64"))
        several = isinstance(self.l2, Sequence | np.ndarray) and not isinstance(self.l2, str | bytes)
        if not several or not np.ndim(self.l2) or not len(self.l2):
            raise refusal("l2", "Ridge", "a list of numbers", self.l2, "Use [0.001], for one.")
        object.__setattr__(self, "l2", tuple(number("l2", "Ridge", v, "(0, inf)") for v in self.l2))

    @property
    def outputs(self) -> int:
        """Columns of Y."""
        return max(self.classes, 1)

    @property
    def combiner(self) -> Combiner:
        """Mean, weighted by rows."""
        return Mean()

    def init(self, round: Round) -> Any:
        """Zeros."""
        shape = (self.outputs, self.features.width)
        known = {"l2": 0.0, "error": 1.0, "temperature": 1.0}
        return {"weight": np.zeros(shape), "bias": np.zeros(self.outputs), **known}

    def share(self, state: Any, to: str, round: Round) -> Contribution:
        """The solution, and how to answer; to nobody in particular, the solution."""
        asked = {"classes": self.classes, "folds": self.folds, "reach": self.reach, "dtype": self.dtype}
        return Contribution("model", {**state, **asked} if to else state)

    def expect(self, state: Any, to: str, round: Round) -> Spec:
        """Means of products: within the bound of the features, its square, and the reach of y."""
        b = max(float(self.features.bound), 1.0)
        y = 1.0 if self.classes else self.reach
        w, k, n = self.features.width + 1, self.outputs, self.folds
        leaves = {
            "a": Leaf((n, w * (w + 1) // 2), self.dtype, -b * b, b * b),
            "b": Leaf((n, w, k), self.dtype, -b * y, b * y),
            "c": Leaf((n, k), self.dtype, 0.0, y * y),
        }
        return Spec(leaves, kind="statistics")

    def update(self, state: Any, combined: Contribution, round: Round) -> Any:
        """Choose λ by the folds, and solve."""
        rows: Any = combined.weight
        value: Any = combined.value
        if not rows:
            return state
        folds = Folds(*(np.asarray(value[k], np.float64) * rows for k in ("a", "b", "c")))
        errors = [folds.error(v) for v in self.l2]
        best = int(np.argmin(errors))
        solved = folds.solved(self.l2[best])
        error = max(errors[best] / float(rows), 1e-12)
        temperature = self.outputs / error if self.classes else 1.0
        known = {"l2": self.l2[best], "error": error, "temperature": temperature}
        return {"weight": solved[:-1].T.copy(), "bias": solved[-1].copy(), **known}

    def predict(self, shared: Tree, x: Any) -> Array:
        """Predictions of a solution.

        Args:
            shared: `run.shared`.
            x: as the features take it.

        Returns:
            (rows, classes) float64 probabilities, rows sum to 1; for regression (rows,) float64.

        Raises:
            ConfigError: x that the features do not take, or no solution of these features and classes.
        """
        return predicted(self.features, shared, x, self.classes)


@dataclass(frozen=True)
class RidgeTrainer:
    """Sums products of its own features and targets, and scores the solution on its own held-out rows.

    Attributes:
        features: the same as the method's.
        data: (X, y): X as the features take it, y (rows,) class numbers, or float.
        test: (X, y) for the reported scores.
        valid: (X, y) for choices; its scores begin with "valid_".

    Where neither test nor valid is given, scores are of the training data and begin with "train_".

    Raises:
        ConfigError: no features, or no pairs of rows and a y for each.
    """

    features: Features
    data: Any = field(metadata={"data": True}, repr=False)
    test: Any = field(default=None, metadata={"data": True}, repr=False)
    valid: Any = field(default=None, metadata={"data": True}, repr=False)

    def __post_init__(self) -> None:
        part("features", "RidgeTrainer", self.features, FEATURES, "co.ColumnFeatures(inputs)")
        rows_fit(self, "data", "test", "valid")

    def contribute(self, shared: Contribution, local: Tree, round: Round, secret: Secret) -> tuple[Contribution, Tree]:
        """Second moments by fold, weighted by rows; or scores when scores are asked for.

        Raises:
            ConfigError: data that do not fit.
        """
        told: Any = shared.value
        if shared.kind == "score":
            return Contribution("score", None, metrics=self._scores(told)), local
        x, y = self.data
        f = np.c_[self.features(x), np.ones(len(y))]
        t = targets(y, int(told["classes"]), float(told["reach"]))
        place = folds_of(x, int(told["folds"]))
        half = np.triu_indices(f.shape[1])
        parts = [(f[place == i], t[place == i]) for i in range(int(told["folds"]))]
        value = {
            "a": np.stack([(g.T @ g)[half] for g, _ in parts]),
            "b": np.stack([g.T @ u for g, u in parts]),
            "c": np.stack([(u * u).sum(0) for _, u in parts]),
        }
        scaled = {k: (v / max(len(y), 1)).astype(str(told["dtype"])) for k, v in value.items()}
        return Contribution("statistics", scaled, float(len(y))), local

    def _scores(self, told: Any) -> Metrics:
        held = {"": self.test, "valid_": self.valid}
        sets = {k: v for k, v in held.items() if v is not None} or {"train_": self.data}
        out: dict[str, tuple[float, float]] = {}
        for name, (x, y) in sets.items():
            said = predicted(self.features, told, x, int(told["classes"])) if len(y) else None
            out |= scores(said, np.asarray(y), name) if said is not None else {}
        return out


@dataclass(frozen=True, eq=False)
class Folds:
    """Sums over the rows of each fold.

    Attributes:
        a: (folds, width·(width + 1)/2) the upper half of F'F, by rows; the last feature is 1.
        b: (folds, width, outputs) F'Y.
        c: (folds, outputs) the diagonal of Y'Y.
    """

    a: Array
    b: Array
    c: Array

    def solved(self, l2: float, without: int | None = None) -> Array:
        """(width, outputs): (A + λI)⁻¹B over all folds, or all but one; λ is `l2` times the mean of A's diagonal."""
        a, b = self.a.sum(axis=0), self.b.sum(axis=0)
        if without is not None:
            a, b = a - self.a[without], b - self.b[without]
        full = self._full(a)
        mean = float(np.diag(full)[:-1].mean())
        full[np.diag_indices(len(full) - 1)] += l2 * (mean if mean > 0 else 1.0)
        full[-1, -1] = full[-1, -1] or 1.0
        return np.asarray(np.linalg.solve(full, b))

    def error(self, l2: float) -> float:
        """The squared error on each fold of what the others give, summed: tr(W'A_f W) - 2·tr(W'B_f) + tr(Y'Y)_f."""
        total = 0.0
        for i in range(len(self.a)):
            w = self.solved(l2, i)
            total += float((w * (self._full(self.a[i]) @ w)).sum() - 2 * (w * self.b[i]).sum() + self.c[i].sum())
        return max(total, 0.0)

    def _full(self, half: Array) -> Array:
        n = self.b.shape[1]
        out = np.zeros((n, n))
        out[np.triu_indices(n)] = half
        return np.asarray(out + np.triu(out, 1).T)


def folds_of(x: Any, folds: int) -> Array:
    """(rows,) int64: each row's fold, from what stands in it, so that equal rows lie in one fold wherever they are."""
    rows = np.ascontiguousarray(np.asarray(x, np.float32).reshape(len(x), -1)) + np.float32(0)
    bits = rows.view(np.uint32).astype(np.uint64)
    odd = keyed("folds", rows.shape[1]).integers(0, 2**63, rows.shape[1], dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    mixed = (bits * odd).sum(axis=1, dtype=np.uint64)
    mixed ^= mixed >> np.uint64(31)
    return np.asarray((mixed * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(33)) % np.uint64(folds)).astype(np.int64)


def targets(y: Any, classes: int, reach: float = math.inf) -> Array:
    """(rows, outputs) float64: one-hot classes, or the numbers.

    Raises:
        ConfigError: other classes, or numbers that are not finite or beyond reach.
    """
    found = numbers_of("y", y, "float64")
    if found.ndim != 1 or not np.isfinite(found).all():
        raise ConfigError(f"y must be finite numbers, one for each row. Got shape {found.shape}, or NaN or infinity.")
    if not classes:
        if len(found) and np.abs(found).max() > reach:
            raise ConfigError(f"y must lie within ±{reach:g}. Got {np.abs(found).max():g}. Use a larger reach.")
        return found[:, None]
    if len(found) and (found.min() < 0 or found.max() >= classes or (found != np.rint(found)).any()):
        raise ConfigError(f"y must be class numbers from 0 to {classes - 1}. Got others. Count classes from 0.")
    return np.asarray(np.eye(classes)[found.astype(np.int64)])


def predicted(features: Features, shared: Tree, x: Any, classes: int) -> Array:
    """What a solution says of some rows: (rows, classes) probabilities, or (rows,) numbers."""
    told: Any = shared
    want = {"weight": (max(classes, 1), features.width), "bias": (max(classes, 1),), "temperature": ()}
    got = {k: np.shape(told[k]) for k in want if k in told} if isinstance(told, Mapping) else {}
    if got != want:
        raise ConfigError(f"The 'shared' of Ridge must be what it shared, {want}. Got {got or shown(told)}.")
    z = features(x) @ np.asarray(told["weight"]).T + np.asarray(told["bias"])
    if not classes:
        return np.asarray(z[:, 0])
    z = float(told["temperature"]) * (z - z.max(axis=1, keepdims=True, initial=-np.inf))
    p = np.exp(z)
    return np.asarray(p / p.sum(axis=1, keepdims=True))
