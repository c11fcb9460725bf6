"""Bins of columns whose values stay at home: counts in cells that are cut finer where the values lie.

A float32 is read as a whole number that orders as the floats do (its sign, exponent and mantissa). Over these keys the
first cells are public and the same for everybody: two for each power of two. Parties count; their counts add; cells
that hold values are cut again. No bound has to be known or said, and what is learnt is counts.
"""

from collections.abc import Sequence

import numpy as np

from comity.core.contribution import Array

TOP = 0x7F800000
"""The key of infinity: those of finite numbers lie between -TOP and TOP."""
CELL = 1 << 22
"""Keys in a first cell: half of a power of two."""
CELLS = 1024
"""About so many cells a column after the first counting."""
LOOKS = 3
"""Countings: on the first cells, and on finer ones."""


def keys_of(x: Array) -> Array:
    """Whole numbers that order as the float32 do: (...) int64; NaN beyond TOP.

    Example:
        >>> keys_of(np.array([-1.0, -0.0, 0.0, 1.0], "float32")).tolist()
        [-1065353216, 0, 0, 1065353216]
    """
    bits = np.asarray(x, np.float32).view(np.int32).astype(np.int64)
    return np.where(bits < 0, -(bits + 2**31), bits)


def values_of(keys: Array) -> Array:
    """The float32 of their keys."""
    bits = np.where(keys < 0, -keys - 2**31, keys).astype(np.int32)
    return np.asarray(bits.view(np.float32))


def first_cells(inputs: int) -> Array:
    """(inputs, cells + 1) int32: the keys at which the first cells begin, and the end of the last."""
    return np.tile(np.arange(-TOP, TOP + 1, CELL, dtype=np.int32), (inputs, 1))


def counts(x: Array, cells: Array) -> Array:
    """How many values lie in each cell.

    Args:
        x: (rows, inputs) float32, finite or NaN.
        cells: (inputs, cells + 1) int32.

    Returns:
        (inputs, cells) int32; NaN is not counted.
    """
    out = np.zeros((len(cells), cells.shape[1] - 1), np.int32)
    for j, edges in enumerate(cells):
        known = x[:, j]
        place = np.searchsorted(edges, keys_of(known[~np.isnan(known)]), side="right") - 1
        out[j] = np.bincount(place, minlength=out.shape[1])
    return out


def finer(cells: Array, counted: Array) -> Array:
    """Cells cut where the values lie, empty ones joined.

    Args:
        cells: (inputs, cells + 1) int32.
        counted: (inputs, cells), added over all.

    Returns:
        (inputs, other cells + 1) int32; rows that need fewer end in cells without width.
    """
    rows = [_cut(edges, n) for edges, n in zip(cells.astype(np.int64), counted, strict=True)]
    width = max(map(len, rows))
    return np.stack([np.pad(r, (0, width - len(r)), mode="edge") for r in rows]).astype(np.int32)


def _cut(edges: Array, n: Array) -> Array:
    """The edges of one column: each cell gets parts by the root of its count, so that a heap of zeros gets few."""
    held = n > 0
    starts = np.flatnonzero(held | np.r_[True, held[:-1]])
    share = np.sqrt(np.where(n[starts] > 0, n[starts], 0.0))
    spare = max(CELLS - len(starts), 0)
    low, high = edges[starts], np.r_[edges[starts[1:]], edges[-1]]
    parts = 1 + (spare * share / max(share.sum(), 1.0)).astype(np.int64)
    parts = np.minimum(parts, np.maximum(high - low, 1))
    cut = [a + (b - a) * np.arange(p) // p for a, b, p in zip(low, high, parts, strict=True)]
    return np.concatenate([*cut, edges[-1:]])


def edges_of(cells: Array, counted: Array, bins: int) -> list[Array]:
    """The edges between the bins of each column: x <= edge lies below it.

    Bins hold about as many values each; what is met more often than that has one of its own (LightGBM bins alike).

    Args:
        cells: (inputs, cells + 1) int32.
        counted: (inputs, cells), added over all.
        bins: at most so many, >= 2.

    Returns:
        For each column (bins - 1 or fewer,) float32, ascending.
    """
    return [_edges(edges, n, bins) for edges, n in zip(cells.astype(np.int64), counted, strict=True)]


def _edges(edges: Array, n: Array, bins: int) -> Array:
    at = np.flatnonzero(n)
    last = _ends(n[at].tolist(), bins)
    high, low = edges[at[last] + 1] - 1, edges[at[[i + 1 for i in last]]]
    middle = values_of(high) / 2 + values_of(low) / 2
    return np.asarray(np.minimum(middle, values_of(low - 1)), np.float32)


def _ends(n: Sequence[int], bins: int) -> list[int]:
    """After which cells a bin ends; the last bin's end is left out."""
    if len(n) <= bins:
        return list(range(len(n) - 1))
    ends, here, left, more = [], 0, sum(n), bins
    for i, count in enumerate(n[:-1]):
        here += count
        full = here >= left / more or (here + n[i + 1] > 2 * left / more)
        if full and more > 1:
            ends.append(i)
            left, more, here = left - here, more - 1, 0
    return ends
