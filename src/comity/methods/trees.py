"""Trees over binned columns, as small arrays: histograms, the best splits, and where rows end up.

A tree of depth D is a full binary tree in heap order: node j of level d has the children 2j and 2j + 1 of level d + 1.
A row goes right where its bin is beyond `cut`; a missing value, whose bin is the column's last, goes where `left` says.
A node that is not split sends every row left (`cut` is 255), so that its value is that of its leftmost leaf.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from comity.core.contribution import Array

NEVER = 255
"""A cut that no bin is beyond."""
CHUNK = 1 << 20
"""Numbers that are laid out at once."""
PARTS = ("feature", "cut", "left", "value")


@dataclass(frozen=True, eq=False)
class Bins:
    """How columns are binned.

    Attributes:
        edges: (all edges,) float32, those of one column after those of another, each ascending.
        widths: (inputs,) int16, how many bins each column has, its edges + 1; one more holds missing values.
    """

    edges: Array
    widths: Array

    @cached_property
    def starts(self) -> Array:
        """(inputs + 1,) int64: where the cells of each column begin in a histogram, and its length."""
        return np.asarray(np.r_[0, np.cumsum(self.widths.astype(np.int64) + 1)])

    @cached_property
    def columns(self) -> list[Array]:
        """The edges of each column."""
        return list(np.split(self.edges, np.cumsum(self.widths.astype(np.int64) - 1)[:-1]))

    @property
    def size(self) -> int:
        """Cells of a histogram over all columns."""
        return int(self.starts[-1])

    def codes(self, x: Array) -> Array:
        """(rows, inputs) uint8: the bin of each value; that of a missing one is `widths`."""
        out = np.empty(x.shape, np.uint8)
        for j, edges in enumerate(self.columns):
            known = x[:, j]
            out[:, j] = np.where(np.isnan(known), self.widths[j], np.searchsorted(edges, known, side="left"))
        return out

    def same(self, other: "Bins | None") -> bool:
        """Are these the same bins?"""
        if other is None:
            return False
        return np.array_equal(self.edges, other.edges) and np.array_equal(self.widths, other.widths)


def no_trees(outputs: int, depth: int) -> dict[str, Array]:
    """No tree yet: {"feature", "cut", "left": (0, outputs, 2**depth - 1), "value": (0, outputs, 2**depth)}."""
    inner = (0, outputs, 2**depth - 1)
    small = {"feature": np.zeros(inner, np.int16), "cut": np.zeros(inner, np.uint8), "left": np.zeros(inner, np.uint8)}
    return {**small, "value": np.zeros((0, outputs, 2**depth), np.float32)}


def stump(outputs: int, depth: int) -> dict[str, Array]:
    """One tree for each output without any split yet, and without values."""
    inner = (outputs, 2**depth - 1)
    return {
        "feature": np.zeros(inner, np.int16),
        "cut": np.full(inner, NEVER, np.uint8),
        "left": np.ones(inner, np.uint8),
    }


def descend(tree: Sequence[Array], levels: range, codes: Array, bins: Bins, node: Array | None = None) -> Array:
    """In which node each row is some levels further down.

    Args:
        tree: feature, cut and left of one output, each (nodes,).
        levels: those to go down.
        codes: (rows, inputs) uint8.
        bins: of these codes.
        node: (rows,) int64 where each row is at the first of the levels; None at the root.

    Returns:
        (rows,) int64, the place among the nodes of the level reached.
    """
    node = np.zeros(len(codes), np.int64) if node is None else node
    feature, cut, left = (np.asarray(part) for part in tree)
    flat, row = codes.ravel(), np.arange(len(codes)) * codes.shape[1]
    for d in levels:
        at = node + (2**d - 1)
        f = feature.take(at)
        code = flat.take(row + f)
        right = (code > cut.take(at)) & ~((left.take(at) > 0) & (code == bins.widths.take(f)))
        node = 2 * node + right
    return node


def margins(trees: Mapping[str, Array], codes: Array, bins: Bins, begin: Array) -> Array:
    """Margins after more trees.

    Args:
        trees: as `no_trees`, any number of them.
        codes: (rows, inputs) uint8.
        bins: of these codes.
        begin: (rows, outputs) float64, margins before.
    """
    out = begin.copy()
    depth = int(trees["value"].shape[2]).bit_length() - 1
    for t in range(len(trees["value"])):
        for k in range(out.shape[1]):
            tree = [trees[name][t, k] for name in PARTS[:3]]
            out[:, k] += trees["value"][t, k].take(descend(tree, range(depth), codes, bins))
    return out


def histograms(codes: Array, bins: Bins, slot: Array, weights: tuple[Array, ...], slots: int) -> list[Array]:
    """Sums of weights over the rows of each slot, column by column and bin by bin.

    Args:
        codes: (rows, inputs) uint8.
        bins: of these codes.
        slot: (rows,) int64, -1 for a row that counts nowhere.
        weights: each (rows,) float64 whole numbers.
        slots: how many there are.

    Returns:
        For each weight (slots, cells) float64: exact while whole sums stay below 2**53.
    """
    size, inputs = bins.size, codes.shape[1]
    out = [np.zeros(slots * size) for _ in weights]
    rows = np.flatnonzero(slot >= 0)
    step = max(1, CHUNK // max(inputs, 1))
    for a in range(0, len(rows), step):
        here = rows[a : a + step]
        cell = codes[here] + bins.starts[:-1] + (slot[here] * size)[:, None]
        for total, w in zip(out, weights, strict=True):
            total += np.bincount(cell.ravel(), np.repeat(w[here], inputs), minlength=slots * size)
    return [total.reshape(slots, size) for total in out]


@dataclass(frozen=True, eq=False)
class Splits:
    """The best split of each of some nodes.

    Attributes:
        found: (nodes,) bool: is there one?
        feature: (nodes,) the column.
        cut: (nodes,) the last bin that goes left.
        left: (nodes,) uint8: do missing values go left?
        g: (nodes, 2) sums of gradients, left and right, as whole as they came.
        h: (nodes, 2) sums of hessians.
    """

    found: Array
    feature: Array
    cut: Array
    left: Array
    g: Array
    h: Array


def best(g: Array, h: Array, bins: Bins, unit: float, rule: tuple[float, float, float]) -> Splits:
    """The split of greatest gain of each node (Chen and Guestrin, KDD 2016, eq. 7 without the half).

    Missing values are tried on either side (their algorithm 3); where a node has none, new ones would go with the
    greater sum of hessians.

    Args:
        g: (nodes, cells) int64 sums of gradients, times `unit`.
        h: (nodes, cells) int64 sums of hessians, times `unit`.
        bins: of these cells.
        unit: what the sums were multiplied by.
        rule: λ, the least sum of hessians of a child, and the least gain.
    """
    last, start = bins.starts[1:] - 1, bins.starts[:-1]
    column = np.repeat(np.arange(len(last)), np.diff(bins.starts))
    total = [np.add.reduceat(x, start, axis=1)[:, :1] for x in (g, h)]
    below = [_running(x, start, column) for x in (g, h)]
    missing = [x[:, last][:, column] for x in (g, h)]
    gains = np.full((len(g), 2, bins.size), -np.inf)
    for side in (0, 1):
        left = [b + side * m for b, m in zip(below, missing, strict=True)]
        gains[:, side] = _gain(left, total, unit, rule)
    gains[:, :, last] = gains[:, 1, last - 1] = -np.inf  # nothing would go right
    at = gains.reshape(len(g), -1).argmax(axis=1)
    side, cell, row = at // bins.size, at % bins.size, np.arange(len(g))
    found = gains[row, side, cell] > max(rule[2], 1e-12)
    gone = [(b[row, cell] + side * m[row, cell])[:, None] for b, m in zip(below, missing, strict=True)]
    gl, hl = (np.concatenate([x, t - x], axis=1) for x, t in zip(gone, total, strict=True))
    none = (missing[0][row, cell] == 0) & (missing[1][row, cell] == 0)
    goes = np.where(none, hl[:, 0] >= hl[:, 1], side == 1).astype(np.uint8)
    return Splits(found, column[cell], cell - start[column[cell]], goes, gl, hl)


def _running(x: Array, start: Array, column: Array) -> Array:
    """Sums from the first cell of each column on."""
    total = np.cumsum(x, axis=1)
    before = total[:, start] - x[:, start]
    return np.asarray(total - before[:, column])


def _gain(left: list[Any], total: list[Any], unit: float, rule: tuple[float, float, float]) -> Array:
    l2, least, _ = rule
    gl, hl = (x / unit for x in left)
    g, h = (x / unit for x in total)
    gr, hr = g - gl, h - hl
    with np.errstate(divide="ignore", invalid="ignore"):
        gain = gl * gl / (hl + l2) + gr * gr / (hr + l2) - g * g / (h + l2)
    return np.where((hl >= least) & (hr >= least) & np.isfinite(gain), gain, -np.inf)


def with_sisters(asked: Array, held: Any, sums: tuple[Array, Array]) -> tuple[Array, Array, Array]:
    """All children of the nodes that were split: those asked for, and their parents less them."""
    parents = np.searchsorted(held["codes"], asked // 2)
    both = np.r_[asked, asked ^ 1]
    order = both.argsort(kind="stable")
    g, h = (np.concatenate([x, held[k][parents] - x])[order] for k, x in zip(("g", "h"), sums, strict=True))
    return both[order], g, h
