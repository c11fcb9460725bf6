"""What a contribution must look like, and the check that refuses whatever does not."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from comity.core.contribution import Array, Contribution, Tree
from comity.core.errors import ContributionError
from comity.core.tree import is_branch

BLOCK = 2**16
"""Numbers of an array that are looked at together."""
_sum = np.add.reduce


@dataclass(frozen=True, slots=True)
class Leaf:
    """What one leaf must be.

    Attributes:
        shape: its shape; None for any, and None inside for an axis of any length.
        dtype: its numpy dtype's name; None for any array, string, bytes, number or None.
        low: the least value allowed.
        high: the largest value allowed.
    """

    shape: tuple[int | None, ...] | None = None
    dtype: str | None = None
    low: float = -math.inf
    high: float = math.inf


@dataclass(frozen=True, slots=True)
class Spec:
    """What a contribution must look like before `lift`.

    Attributes:
        value: a Tree of Leaf; `Leaf()` at a place lets anything stand there, a whole Tree included.
        kind: the kind; None for any.
        max_weight: the largest weight, for each coordinate where weights are a Tree.
        metrics: the metric names allowed; None for any.
        weights: "scalar", "tree" or "any".
    """

    value: Any
    kind: str | None = None
    max_weight: float = 1e9
    metrics: frozenset[str] | None = None
    weights: str = "scalar"


def like(tree: Tree, low: float = -math.inf, high: float = math.inf) -> Any:
    """A Tree of Leaf that asks for the same names, shapes and dtypes as `tree`, within [low, high]."""
    if is_branch(tree):
        plain = np.ndarray
        return {
            k: _leaf(v.shape, v.dtype, low, high) if type(v) is plain else like(v, low, high) for k, v in tree.items()
        }
    x = tree if type(tree) is np.ndarray else np.asarray(tree)
    return _leaf(x.shape, x.dtype, low, high)


@lru_cache(maxsize=1024)
def _leaf(shape: tuple[int, ...], dtype: Any, low: float, high: float) -> Leaf:
    """Methods ask for the same leaves from every participant."""
    return Leaf(shape, dtype.name, low, high)


def zeros(spec: Any) -> Any:
    """The Tree of zeros that fits a Tree of Leaf: the sum of an empty cohort."""
    if is_branch(spec):
        return {k: zeros(v) for k, v in spec.items()}
    if spec.shape is None or spec.dtype is None or None in spec.shape:
        return None
    return np.zeros(spec.shape, spec.dtype)


def check(c: Contribution, spec: Spec, *, lifted: bool = False) -> None:
    """Refuse a contribution that breaks its spec.

    Args:
        c: as the combiner lifted it when `lifted`, else as the participant made it.
        spec: what the method expects before `lift`.
        lifted: the values are w·x, so that ranges scale with the weight.

    Raises:
        ContributionError: names the leaf, what was expected and what was got.
    """
    if spec.kind is not None and c.kind != spec.kind:
        raise ContributionError(f"Kind '{spec.kind}' was asked for. Got '{c.kind}'.")
    most = _check_weight(c.weight, spec, spec.value, "weight")
    _check_metrics(c.metrics, spec.metrics)
    with np.errstate(over="ignore", invalid="ignore"):
        _check_value(c.value, spec.value, most if lifted else 1.0, "value")


def _check_weight(weight: Any, spec: Spec, value: Any, path: str) -> float:
    """The largest weight; a Tree of weights must be a prefix of the value's."""
    if is_branch(weight):
        if spec.weights == "scalar":
            raise ContributionError(f"{path} must be one number. Got a Tree of weights.")
        if value != Leaf() and (not is_branch(value) or weight.keys() != value.keys()):
            wanted = f"a Tree with {_names(value)}" if is_branch(value) else "numbers"
            raise ContributionError(f"{path} must be {wanted}. Got {_describe(weight)}.")
        below = value if is_branch(value) else dict.fromkeys(weight, value)
        return max((_check_weight(w, spec, below[k], f"{path}.{k}") for k, w in weight.items()), default=0.0)
    if type(weight) is float and 0.0 <= weight <= spec.max_weight:
        return weight
    x = _array(weight, path)
    if x.dtype.kind not in "fiub" or (x.ndim and spec.weights == "scalar"):
        raise ContributionError(f"{path} must be a number. Got {_describe(weight)}.")
    if x.ndim and not _spreads(x.shape, value):
        raise ContributionError(f"{path} must fit the shape of its values. Got {_describe(weight)}.")
    low, high = (float(x.min()), float(x.max())) if x.size else (0.0, 0.0)
    if not (low >= 0.0 and high <= spec.max_weight):
        got = low if not low >= 0.0 else high
        raise ContributionError(f"{path} must be from 0 to {spec.max_weight:g}. Got {got:g}.")
    return high


def _spreads(shape: tuple[int, ...], value: Any) -> bool:
    """Can weights of this shape stand for each coordinate of what lies below?"""
    if is_branch(value):
        return all(_spreads(shape, v) for v in value.values())
    if value.shape is None or len(shape) > len(value.shape):
        return value.shape is None
    ends = value.shape[len(value.shape) - len(shape) :]
    return all(want is None or s in (1, want) for s, want in zip(shape, ends, strict=True))


def _check_metrics(metrics: Mapping[str, tuple[float, float]], allowed: frozenset[str] | None) -> None:
    for name, pair in metrics.items():
        if allowed is not None and name not in allowed:
            raise ContributionError(f"Metric '{name}' was not asked for.")
        if not _is_metric(pair):
            raise ContributionError(f"Metric '{name}' must be a finite (sum, count >= 0). Got {pair!r:.80}.")


def _is_metric(pair: Any) -> bool:
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        return False
    return all(isinstance(v, float | int) and math.isfinite(v) for v in pair) and pair[1] >= 0


def _check_value(value: Any, spec: Any, scale: float, path: str) -> None:
    if is_branch(spec):
        if not is_branch(value):
            raise ContributionError(f"{path} must be a Tree with {_names(spec)}. Got {_describe(value)}.")
        if value.keys() != spec.keys():
            extra, missing = value.keys() - spec.keys(), spec.keys() - value.keys()
            said = [f"{word} {_names(names)}" for word, names in (("unasked", extra), ("missing", missing)) if names]
            raise ContributionError(f"{path} does not have the leaves asked for: {'; '.join(said)}.")
        for k, s in spec.items():
            below = k if path == "value" else f"{path}.{k}"
            if type(s) is Leaf and s.dtype is not None:
                _check_leaf(value[k], s, scale, below)
            else:
                _check_value(value[k], s, scale, below)
    elif spec.dtype is None and spec.shape is None and spec.low == -math.inf and spec.high == math.inf:
        _check_finite(value, path)
    else:
        _check_leaf(value, spec, scale, path)


def _check_leaf(value: Any, leaf: Leaf, scale: float, path: str) -> None:
    x = value if isinstance(value, np.ndarray) else _array(value, path)
    if leaf.shape is not None and x.shape != leaf.shape and not _fits(x.shape, leaf.shape):
        raise ContributionError(f"{path} must have shape {leaf.shape}. Got {x.shape}.")
    if leaf.dtype is not None and x.dtype != np.dtype(leaf.dtype):
        raise ContributionError(f"{path} must be {leaf.dtype}. Got {x.dtype.name}.")
    if x is not value and is_branch(value):
        raise ContributionError(f"{path} must be an array. Got {_describe(value)}.")
    if not x.size or (leaf.low == -math.inf and leaf.high == math.inf):
        _check_finite(x, path)
    else:
        if x.dtype.kind not in "fiubV":
            raise ContributionError(f"{path} must be numbers. Got {_describe(value)}.")
        slack = 1e-6 * max(abs(b) for b in (leaf.low, leaf.high) if math.isfinite(b)) * scale
        low, high = _extremes(x)
        if not math.isfinite(low) or not math.isfinite(high):
            _check_finite(x, path)
        if low < leaf.low * scale - slack or high > leaf.high * scale + slack:
            bad = low if low < leaf.low * scale - slack else high
            raise ContributionError(f"{path} must lie from {leaf.low:g} to {leaf.high:g}. Got {bad / (scale or 1):g}.")


def _extremes(x: Array) -> tuple[float, float]:
    """The least and the largest, NaN where there is one: block by block, so that each is read from memory once."""
    if x.size <= BLOCK or not x.flags.c_contiguous:
        return float(x.min()), float(x.max())
    flat = x.reshape(-1)
    blocks = [flat[at : at + BLOCK] for at in range(0, flat.size, BLOCK)]
    each = np.array([(b.min(), b.max()) for b in blocks], np.float64)
    return float(each[:, 0].min()), float(each[:, 1].max())


def _check_finite(value: Any, path: str) -> None:
    if is_branch(value):
        for k, v in value.items():
            _check_finite(v, f"{path}.{k}")
    elif isinstance(value, float | np.floating) and not math.isfinite(value):
        raise ContributionError(f"{path} is {value}.")
    elif isinstance(value, np.ndarray) and _is_float(value.dtype) and not math.isfinite(_sum(value, axis=None)):
        bad = int((~np.isfinite(value)).sum())
        word = "NaN" if np.isnan(value).any() else "infinity"
        if bad:
            raise ContributionError(f"{word} in {path} ({bad} of {value.size} values).")


def _is_float(dtype: np.dtype[Any]) -> bool:
    """bfloat16, which comes from another package, is no "f" to numpy."""
    return dtype.kind == "f" or dtype.name == "bfloat16"


def _array(value: Any, path: str) -> Array:
    try:
        return np.asarray(value)
    except (TypeError, ValueError):
        raise ContributionError(f"{path} must be an array. Got {_describe(value)}.") from None


def _fits(shape: tuple[int, ...], want: tuple[int | None, ...]) -> bool:
    return len(shape) == len(want) and all(w is None or s == w for s, w in zip(shape, want, strict=True))


def _names(names: Any) -> str:
    shown = sorted(map(str, names))
    return ", ".join(shown[:5]) + (f" and {len(shown) - 5} more" if len(shown) > 5 else "")


def _describe(value: Any) -> str:
    if is_branch(value):
        return f"a Tree with {_names(value)}"
    if isinstance(value, np.ndarray):
        return f"{value.dtype.name} of shape {value.shape}"
    return f"{type(value).__name__} {value!r}"[:80]
