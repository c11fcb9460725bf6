"""Masks: which weights of a model may be pruned, which are kept, and what a sparse participant sends.

participant  `sparse_delta`: a change at the kept coordinates, with a weight for each of them
hub          nothing: the methods that use this say what it does
never leaves nothing by itself: a mask shows in the weights of a contribution
bytes        dense, until a transform such as `Sparse` leaves the zeros out

A mask is a Tree {name: bool array} over the prunable leaves of a flat Tree of parameters: True is kept. Prunable are
float leaves of two dimensions or more that are no running statistics: the weights of linear, convolution and embedding
layers. Biases, the weights of normalisation and statistics are never pruned.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from comity.core.checks import number, whole, word
from comity.core.contribution import Array, Contribution

SCOPES = ("global", "layer")


def prunable(params: Mapping[str, Any], statistics: Collection[str] = ()) -> tuple[str, ...]:
    """The names of the leaves that may be pruned, sorted.

    Args:
        params: {name: array}.
        statistics: names that are running statistics, as `Model.statistics`.

    Example:
        >>> prunable({"0.weight": np.ones((2, 3)), "0.bias": np.ones(2), "ids": np.ones((2, 2), int)})
        ('0.weight',)
    """
    return tuple(
        sorted(
            name
            for name, leaf in params.items()
            if name not in statistics and np.ndim(leaf) >= 2 and np.asarray(leaf).dtype.kind == "f"
        )
    )


def everything(params: Mapping[str, Any], statistics: Collection[str] = ()) -> dict[str, Array]:
    """The mask that keeps all."""
    return {name: np.ones(np.shape(params[name]), bool) for name in prunable(params, statistics)}


def magnitude_mask(
    params: Mapping[str, Any],
    density: float,
    *,
    within: Mapping[str, Any] | None = None,
    scope: str = "global",
    statistics: Collection[str] = (),
) -> dict[str, Array]:
    """The mask that keeps the weights of largest magnitude.

    Of equal magnitudes the first are kept, in the order of sorted names and then of positions. At least one weight is
    kept, of the model ("global") or of each layer ("layer").

    Args:
        params: {name: array}; what is not prunable is passed over.
        density: share of all prunable weights to keep, in [0, 1]; rounded up to whole weights.
        within: a mask that the new one stays inside of; its names are those that are pruned. None is everything.
        scope: "global" compares all weights with each other; "layer" keeps the share in each leaf.
        statistics: names that are running statistics.

    Returns:
        {name: bool array}; with `within`, never True where that is False.

    Raises:
        ConfigError: a density outside [0, 1], or another scope.

    Example:
        >>> mask = magnitude_mask({"a": np.array([[3.0, -1.0]]), "b": np.array([[-2.0, 0.5]])}, 0.5)
        >>> mask["a"], mask["b"]
        (array([[ True, False]]), array([[ True, False]]))
    """
    density = number("density", "magnitude_mask", density, "[0, 1]")
    word("scope", "magnitude_mask", scope, SCOPES)
    before = everything(params, statistics) if within is None else {k: np.asarray(v) != 0 for k, v in within.items()}
    names = sorted(before)
    groups = [names] if scope == "global" else [[name] for name in names]
    return {name: leaf for group in groups if group for name, leaf in _largest(params, density, before, group).items()}


def _largest(
    params: Mapping[str, Any], density: float, before: Mapping[str, Array], names: list[str]
) -> dict[str, Array]:
    inside = np.concatenate([before[n].ravel() for n in names])
    size = np.abs(np.concatenate([np.asarray(params[n]).ravel() for n in names]))
    size[np.isnan(size)] = np.inf  # a NaN is kept, so that whoever checks the values finds it
    size[~inside] = -1.0
    count = min(max(1, int(np.ceil(density * len(size) - 1e-9))), int(inside.sum()))
    kept = inside
    if count < inside.sum():
        least = np.partition(size, len(size) - count)[len(size) - count]
        kept = size > least
        kept[np.flatnonzero(size == least)[: count - int(kept.sum())]] = True
    ends = np.cumsum([before[n].size for n in names])[:-1]
    return {n: part.reshape(before[n].shape) for n, part in zip(names, np.split(kept, ends), strict=True)}


def kept(mask: Mapping[str, Any]) -> tuple[int, int]:
    """(weights that the mask keeps, weights that it speaks of)."""
    return sum(int(np.count_nonzero(m)) for m in mask.values()), sum(int(np.size(m)) for m in mask.values())


def density(mask: Mapping[str, Any]) -> float:
    """The share of prunable weights that a mask keeps, in [0, 1]; 1 for a mask that speaks of none.

    Example:
        >>> density({"a": np.array([[True, False]]), "b": np.array([[True, True]])})
        0.75
    """
    some, all_ = kept(mask)
    return some / all_ if all_ else 1.0


def masked(params: Mapping[str, Any], mask: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters with 0 where the mask is False; leaves that it does not name stay as they are.

    Example:
        >>> masked({"w": np.array([[1.0, -2.0]]), "b": np.array([3.0])}, {"w": np.array([[True, False]])})
        {'w': array([[1., 0.]]), 'b': array([3.])}
    """
    return {k: np.where(mask[k], v, np.zeros((), np.asarray(v).dtype)) if k in mask else v for k, v in params.items()}


def cubic(round: int, until: int, final: float, *, first: float = 1.0) -> float:
    """The density after so many rounds: quick at first, slow at the end (Zhu & Gupta, arXiv 1710.01878, eq. 1).

    Args:
        round: rounds done, >= 0.
        until: the round from which on it is `final`, >= 0.
        final: in [0, 1].
        first: before the first round, in [0, 1].

    Raises:
        ConfigError: a value outside.

    Example:
        >>> [round(cubic(t, 4, 0.2), 4) for t in range(6)]
        [1.0, 0.5375, 0.3, 0.2125, 0.2, 0.2]
    """
    done = whole("round", "cubic", round) / max(whole("until", "cubic", until), 1e-12)
    final, first = number("final", "cubic", final, "[0, 1]"), number("first", "cubic", first, "[0, 1]")
    return final + (first - final) * (1.0 - min(1.0, done if until else 1.0)) ** 3


def sparse_delta(
    c: Contribution, after: Mapping[str, Any], before: Mapping[str, Any], mask: Mapping[str, Any]
) -> Contribution:
    """A change that counts only where it was kept: a coordinate is then averaged over those who kept it.

    Args:
        c: gives kind, metrics and the weight n, a number.
        after: parameters after the work; its names may be more than those of `before`.
        before: parameters as they were shared.
        mask: over the prunable leaves among them.

    Returns:
        As value after - before, 0 where the mask is False; as weight a Tree, for each prunable leaf float32 of its
        shape, n where kept and 0 elsewhere, and n for each other leaf.
    """
    n = float(c.weight)  # type: ignore[arg-type]
    value = masked({name: np.subtract(after[name], leaf) for name, leaf in before.items()}, mask)
    weight = {name: np.asarray(mask[name], np.float32) * np.float32(n) if name in mask else n for name in before}
    return replace(c, value=value, weight=weight)
