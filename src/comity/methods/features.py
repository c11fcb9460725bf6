"""Feature maps that everybody can make at home: public inputs, a public seed, and nothing private.

Each is a callable from inputs to (rows, width) float64 whose values lie within its `bound`, so that sums over its rows
are bounded too.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from comity.core.checks import number, part, refusal, text, whole
from comity.core.contribution import Array, Tree
from comity.core.errors import ConfigError
from comity.core.parts import Model
from comity.core.rng import keyed
from comity.methods.training import numbers_of

MOST_PATCHES = 4000
"""Patches of the public images from which the whitening is made and filters are drawn."""
LEVEL = 0.2
"""What a cosine must exceed to be a feature."""
SOFT = 0.01
"""Added to the variances that are whitened, of pixels in [0, 1]."""


class Features(Protocol):
    """A map from inputs to features, the same at every participant."""

    @property
    def width(self) -> int:
        """How many features there are."""
        ...

    @property
    def bound(self) -> float:
        """No feature has a greater absolute value."""
        ...

    def __call__(self, x: Any) -> Array:
        """(rows, width) float64."""
        ...


@dataclass(frozen=True)
class ColumnFeatures:
    """The columns as they are, cut at a bound.

    Attributes:
        inputs: columns of X, >= 1.
        bound: the greatest absolute value, > 0.

    Example:
        >>> ColumnFeatures(2, bound=3.0)([[1.0, -9.0]]).tolist()
        [[1.0, -3.0]]
    """

    inputs: int
    bound: float = 10.0

    def __post_init__(self) -> None:
        whole("inputs", "ColumnFeatures", self.inputs, 1)
        number("bound", "ColumnFeatures", self.bound, "(0, inf)")

    @property
    def width(self) -> int:
        """One for each column."""
        return self.inputs

    def __call__(self, x: Any) -> Array:
        """(rows, inputs) float64, within ± bound."""
        return np.asarray(np.clip(_table(x, self.inputs), -self.bound, self.bound))


@dataclass(frozen=True)
class FourierFeatures:
    """Random Fourier features: cosines whose inner products come near a Gaussian kernel's.

    √(2/count)·cos(W'x + b) with W from a normal distribution of deviation 1/length and b uniform on [0, 2π) (Rahimi
    and Recht, NeurIPS 2007, algorithm 1).

    Attributes:
        inputs: columns of X, >= 1, each on about the same scale.
        count: how many features, >= 1.
        length: of the kernel, exp(-|x - y|²/(2·length²)), > 0, in units of the inputs.
        seed: public.

    Example:
        >>> FourierFeatures(3, count=8)(np.zeros((2, 3))).shape
        (2, 8)
    """

    inputs: int
    count: int = 256
    _: KW_ONLY
    length: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("inputs", "count"):
            whole(name, "FourierFeatures", getattr(self, name), 1)
        number("length", "FourierFeatures", self.length, "(0, inf)")
        whole("seed", "FourierFeatures", self.seed, None)

    @property
    def width(self) -> int:
        """As counted."""
        return self.count

    @property
    def bound(self) -> float:
        """√(2/count)."""
        return math.sqrt(2 / self.count)

    @cached_property
    def _drawn(self) -> tuple[Array, Array]:
        rng = keyed(self.seed, "fourier", self.inputs, self.count)
        return rng.normal(0.0, 1 / self.length, (self.inputs, self.count)), rng.uniform(0, 2 * math.pi, self.count)

    def __call__(self, x: Any) -> Array:
        """(rows, count) float64."""
        w, b = self._drawn
        return np.asarray(self.bound * np.cos(_table(x, self.inputs) @ w + b))


@dataclass(frozen=True)
class TableFeatures:
    """One-hot words, and numbers that may bend at knots (linear splines); missing values have a feature of their own.

    A number z becomes z, max(0, z - knot) for each knot, and 1 where it is missing (the others are 0 then); codes of
    words, whole numbers from 0, become one feature each and one more for any other or none.

    Attributes:
        knots: for each column its knots, ascending, () for a plain number; None for a column of words.
        levels: for each column how many words it has, 0 for a number.
        bound: numbers and hinges end there, > 0.

    Example:
        >>> table = TableFeatures(knots=((0.0,), None), levels=(0, 2))
        >>> table([[1.5, 1.0], [np.nan, 7.0]]).tolist()
        [[1.5, 1.5, 0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 1.0, 0.0, 0.0, 1.0]]
    """

    knots: Sequence[Sequence[float] | None]
    levels: Sequence[int]
    bound: float = 10.0

    def __post_init__(self) -> None:
        if not isinstance(self.knots, Sequence) or isinstance(self.knots, str) or not len(self.knots):
            raise refusal("knots", "TableFeatures", "a list of knots for each column", self.knots)
        if not isinstance(self.levels, Sequence) or isinstance(self.levels, str):
            raise refusal("levels", "TableFeatures", "a list of whole numbers", self.levels, "Use 0 for a number.")
        levels = tuple(whole("levels", "TableFeatures", n, hint="Use 0 for a number.") for n in self.levels)
        if len(levels) != len(self.knots):
            raise ConfigError(f"'levels' must be of {len(self.knots)} columns. Got {len(levels)}. Use 0 for a number.")
        if not all(k is None or (isinstance(k, Sequence | np.ndarray) and not isinstance(k, str)) for k in self.knots):
            raise refusal("knots", "TableFeatures", "a list of knots, or None, for each column", self.knots)
        knots = tuple(None if k is None else tuple(number("knots", "TableFeatures", v) for v in k) for k in self.knots)
        for k, n in zip(knots, levels, strict=True):
            if (k is None) != (n > 0):
                raise ConfigError("A column must have knots or levels. Got both or none. Use None, or 0 levels.")
        number("bound", "TableFeatures", self.bound, "[1, inf)")
        object.__setattr__(self, "knots", knots)
        object.__setattr__(self, "levels", levels)

    @property
    def width(self) -> int:
        """All columns' features together."""
        return sum(n + 1 if k is None else len(k) + 2 for k, n in zip(self.knots, self.levels, strict=True))

    def __call__(self, x: Any) -> Array:
        """(rows, width) float64."""
        table = _table(x, len(self.levels), missing=True)
        return np.concatenate([self._column(j, z) for j, z in enumerate(table.T)], axis=1)

    def _column(self, j: int, z: Array) -> Array:
        knots = self.knots[j]
        gone = np.isnan(z)
        if knots is None:
            words = np.arange(self.levels[j])
            hot = z[:, None] == words
            return np.concatenate([hot, ~hot.any(axis=1, keepdims=True)], axis=1).astype(np.float64)
        known = np.clip(np.where(gone, 0.0, z), -self.bound, self.bound)
        hinges = np.maximum(known[:, None] - np.asarray(knots, np.float64), 0) * ~gone[:, None]
        return np.concatenate([known[:, None], np.minimum(hinges, self.bound), gone[:, None]], axis=1)


@dataclass(frozen=True)
class PatchFeatures:
    """How much small grey images look like patches of public ones, in each part of the picture.

    Patches of the public, unlabelled images are freed of their mean and whitened, and some are drawn as filters of
    length 1. An image's feature is max(0, cosine - 0.2) of its own patches and a filter, averaged over a part of the
    picture. After Coates, Ng and Lee (AISTATS 2011), whose filters are k-means centres or such random patches.

    Attributes:
        public: (images, height, width) or (images, height·width) of square ones, in [0, 1]; at least 2. Everybody has
            the same. They are nobody's training rows.
        count: features wanted; really filters times parts.
        patch: the side of a patch, in pixels.
        parts: the picture is cut into parts by parts.
        seed: public.

    Example:
        >>> images = np.random.default_rng(0).random((20, 8, 8))
        >>> patches = PatchFeatures(images, count=64)
        >>> patches(images[:3]).shape
        (3, 64)
    """

    public: Any = field(metadata={"data": True}, repr=False)
    count: int = 512
    _: KW_ONLY
    patch: int = 5
    parts: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("patch", "parts"):
            whole(name, "PatchFeatures", getattr(self, name), 1)
        whole("count", "PatchFeatures", self.count, self.parts**2)
        whole("seed", "PatchFeatures", self.seed, None)
        images = _images(self.public, "The 'public' of PatchFeatures")
        if len(images) < 2 or min(images.shape[1:]) < max(self.patch, self.parts):
            raise ConfigError(
                f"The 'public' of PatchFeatures must be at least 2 images of {self.patch} by {self.patch} pixels or "
                f"more. Got shape {images.shape}. Use a smaller patch."
            )
        object.__setattr__(self, "public", images)

    @property
    def filters(self) -> int:
        """How many there are."""
        return self.count // self.parts**2

    @property
    def width(self) -> int:
        """Filters times parts."""
        return self.filters * self.parts**2

    @property
    def bound(self) -> float:
        """1 - 0.2: a cosine is at most 1."""
        return 1 - LEVEL

    @cached_property
    def _made(self) -> tuple[Array, Array, Array]:
        """The mean patch, the whitening, and the filters."""
        rng = keyed(self.seed, "patches")
        cut = _centred(_patches(self.public, self.patch)).reshape(-1, self.patch**2)
        spread = cut.std(axis=1)
        cut = cut[spread >= np.median(spread)]
        cut = cut[rng.permutation(len(cut))[:MOST_PATCHES]]
        mean = cut.mean(axis=0)
        values, vectors = np.linalg.eigh(np.cov((cut - mean).T).reshape(self.patch**2, -1))
        whitening = (vectors / np.sqrt(np.maximum(values, 0) + SOFT)) @ vectors.T
        drawn = rng.choice(len(cut), self.filters, replace=len(cut) < self.filters)
        return mean, whitening, _unit((cut[drawn] - mean) @ whitening)

    def __call__(self, x: Any) -> Array:
        """(images, width) float64, in [0, 0.8]; x as `public`."""
        images = _images(x)
        if images.shape[1:] != self.public.shape[1:]:
            raise ConfigError(f"Images must have shape {self.public.shape[1:]}. Got {images.shape[1:]}.")
        step = max(1, (1 << 24) // (images[0].size * max(self.filters, self.patch**2))) if len(images) else 1
        some = [self._some(images[a : a + step]) for a in range(0, len(images), step)]
        return np.concatenate(some) if some else np.zeros((0, self.width))

    def _some(self, images: Array) -> Array:
        mean, whitening, filters = self._made
        cut = _centred(_patches(np.pad(images, ((0, 0), (1, 1), (1, 1))), self.patch))
        n, high, wide = cut.shape[:3]
        near = np.maximum(_unit((cut.reshape(-1, self.patch**2) - mean) @ whitening) @ filters.T - LEVEL, 0)
        near = near.reshape(n, high, wide, -1)
        rows, columns = (np.array_split(np.arange(k), self.parts) for k in (high, wide))
        pooled = [near[:, r[0] : r[-1] + 1, c[0] : c[-1] + 1].mean(axis=(1, 2)) for r in rows for c in columns]
        return np.concatenate(pooled, axis=1)


@dataclass(frozen=True)
class ModelFeatures:
    """An inner layer of a network that stays as it is, such as the one before the last of a pretrained one.

    Attributes:
        model: with `features`, as TorchModel, Linear and MLP have it.
        params: of the model, public and the same for all.
        tap: the name of the layer.
        width: of its output, flattened, >= 1.
        bound: features are cut there, > 0.
        scale: what features are multiplied by, > 0.

    Example:
        >>> import comity as co
        >>> model = co.MLP(4, 2, hidden=(3,))
        >>> inner = ModelFeatures(model, model.init(co.Round("", 0)), tap="hidden0", width=3)
        >>> inner(np.eye(4)).shape
        (4, 3)
    """

    model: Model
    params: Tree
    _: KW_ONLY
    tap: str
    width: int
    bound: float = 100.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        part("model", "ModelFeatures", self.model, ("features()",), "a co.TorchModel, co.MLP or co.Linear")
        if not isinstance(self.params, Mapping):
            raise refusal("params", "ModelFeatures", "a Tree of parameters", self.params)
        text("tap", "ModelFeatures", self.tap, what="the name of a layer")
        whole("width", "ModelFeatures", self.width, 1)
        for name in ("bound", "scale"):
            number(name, "ModelFeatures", getattr(self, name), "(0, inf)")

    def __call__(self, x: Any) -> Array:
        """(rows, width) float64, within ± bound."""
        found = np.asarray(self.model.features(self.params, x, [self.tap])[self.tap], np.float64)
        found = found.reshape(len(found), -1) * self.scale
        if found.shape[1] != self.width:
            must = f"that of '{self.tap}', {found.shape[1]}"
            raise ConfigError(f"The 'width' of ModelFeatures must be {must}. Got {self.width}.")
        return np.clip(found, -self.bound, self.bound)


def _table(x: Any, inputs: int, *, missing: bool = False) -> Array:
    """(rows, inputs) float64.

    Raises:
        ConfigError: another shape, or a value that is not finite.
    """
    found = numbers_of("X", x, "float64")
    if found.ndim != 2 or found.shape[1] != inputs:
        raise ConfigError(f"X must have shape (rows, {inputs}). Got {found.shape}. Give each row its columns.")
    if np.isinf(found).any() or (not missing and np.isnan(found).any()):
        raise ConfigError("X must be finite numbers. Got NaN or infinity. Fill them, or leave those rows out.")
    return found


def _images(x: Any, what: str = "Images") -> Array:
    """(images, height, width) float64, finite.

    Raises:
        ConfigError: they are no images.
    """
    found = numbers_of(what, x, "float64")
    if found.ndim == 2:
        side = math.isqrt(found.shape[1])
        if side * side == found.shape[1]:
            found = found.reshape(-1, side, side)
    if found.ndim != 3 or not np.isfinite(found).all():
        raise ConfigError(f"{what} must be (images, height, width) finite numbers. Got shape {found.shape}.")
    return found


def _patches(images: Array, side: int) -> Array:
    """(images, down, across, side²)."""
    seen = np.lib.stride_tricks.sliding_window_view(images, (side, side), axis=(1, 2))
    return np.asarray(seen.reshape(*seen.shape[:3], side * side))


def _centred(patches: Array) -> Array:
    return np.asarray(patches - patches.mean(axis=-1, keepdims=True))


def _unit(rows: Array) -> Array:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))
