"""What the rows of one participant know in boosting: their bins, their margins, their gradients."""

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from comity.core.checks import refusal
from comity.core.contribution import Array, Tree
from comity.core.errors import ConfigError
from comity.methods.trees import NEVER, PARTS, Bins, descend, histograms, margins

REACH = 1024.0
"""A gradient of regression ends here, in standard deviations of the target; of a million rows none is so far off."""
LARGEST = np.float32(3e38)


class Known:
    """Some rows in their bins, and how far they were taken."""

    def __init__(self, bins: Bins, codes: Array, y: Array) -> None:
        self.bins, self.codes, self.y = bins, codes, y
        self.trees: Any = None
        self.margins = np.zeros((len(y), 0))
        self._slopes: tuple[Any, tuple[Array, Array]] | None = None
        self._nodes: dict[int, tuple[list[Array], int, Array]] = {}

    def after(self, told: Any) -> "Known":
        """These rows after the trees told; from the beginning, unless they begin with those that were told before."""
        n = 0 if self.trees is None else len(self.trees["value"])
        if self.trees is None or not begins_with(told, self.trees, n):
            n, begin = 0, np.tile(np.asarray(told["begin"], np.float64), (len(self.y), 1))
        else:
            begin = self.margins
        if self.trees is not None and n == len(told["value"]) and begin is self.margins:
            return self
        found = Known(self.bins, self.codes, self.y)
        found.trees = {k: np.array(told[k]) for k in ("begin", *PARTS)}
        found.margins = margins({k: told[k][n:] for k in PARTS}, self.codes, self.bins, begin)
        return found

    def slopes(self, classes: int, bits: int, spread: float) -> tuple[Array, Array]:
        """(rows, outputs) float64 each: gradients and hessians of the loss by the margins, as whole numbers."""
        key = (classes, bits, spread)
        if self._slopes is None or self._slopes[0] != key:
            g, h = slopes_of(self.margins, self.y, classes, spread)
            self._slopes = key, (np.rint(g * 2.0**bits), np.rint(h * 2.0**bits))
        return self._slopes[1]

    def histograms(self, tree: Any, level: int, asked: Array, slopes: Any) -> tuple[Array, Array]:
        """(asked, cells) float64 each: gradients and hessians of the rows in each node asked for."""
        out = np.zeros((len(asked), self.bins.size)), np.zeros((len(asked), self.bins.size))
        for k in np.unique(asked // 2**level):
            mine = np.flatnonzero(asked // 2**level == k)
            places = np.full(2**level, -1)
            places[asked[mine] % 2**level] = np.arange(len(mine))
            slot = places[self._places(tree, int(k), level)]
            weights = tuple(s[:, k] for s in slopes)
            for total, part in zip(out, histograms(self.codes, self.bins, slot, weights, len(mine)), strict=True):
                total[mine] = part
        return out

    def _places(self, tree: Any, k: int, level: int) -> Array:
        """(rows,) int64: the node of each row at a level, from where it was last looked for in this tree."""
        parts = [tree[name][k] for name in PARTS[:3]]
        before, reached, node = self._nodes.get(k, ([], 0, None))
        known = 2**reached - 1
        if reached > level or not all(np.array_equal(a, b[:known]) for a, b in zip(before, parts, strict=False)):
            reached, node = 0, None
        found = descend(parts, range(reached, level), self.codes, self.bins, node)
        self._nodes[k] = [np.array(p[: 2**level - 1]) for p in parts], level, found
        return found


def predicted(shared: Tree, x: Array, classes: int) -> Array:
    """What the trees say of some rows; (rows, inputs) float32 in, probabilities or numbers out."""
    told: Any = shared
    if "value" not in told:
        raise ConfigError("Trees must have been grown before they predict. Got none. Run more rounds.")
    bins = bins_of(told)
    begin = np.tile(np.asarray(told["begin"], np.float64), (len(x), 1))
    return outputs_of(margins(told, bins.codes(x), bins, begin), classes)


def slopes_of(m: Array, y: Array, classes: int, spread: float) -> tuple[Array, Array]:
    """Of the logistic, the softmax and half the squared loss (in standard deviations)."""
    if not classes:
        return np.clip((m - y[:, None]) / spread, -REACH, REACH), np.ones_like(m)
    p = outputs_of(m, classes)
    if classes == 2:
        p = p[:, 1:]
        return p - y[:, None], p * (1 - p)
    return p - np.eye(classes)[y.astype(np.int64)], p * (1 - p)


def outputs_of(m: Array, classes: int) -> Array:
    """(rows, classes) probabilities, or (rows,) numbers."""
    if not classes:
        return m[:, 0]
    z = np.concatenate([np.zeros_like(m), m], axis=1) if classes == 2 else m
    z = np.exp(z - z.max(axis=1, keepdims=True, initial=-np.inf))
    return np.asarray(z / z.sum(axis=1, keepdims=True))


def first_margins(y: Array, classes: int) -> tuple[Array, float, float]:
    """The margins to begin with, what gradients are measured in, and the rows."""
    if not classes:
        rows, mean = float(np.rint(y[0])), y[1] / max(y[0], 1.0)
        variance = max(y[2] / max(y[0], 1.0) - mean * mean, 0.0)
        return np.array([mean], np.float32), float(np.float32(math.sqrt(variance))) or 1.0, rows
    n = np.rint(y)
    share = np.log(np.maximum(n, 0.5) / max(n.sum(), 1.0))
    begin = share[1:] - share[:1] if classes == 2 else share
    return begin.astype(np.float32), 1.0, float(n.sum())


def bits_of(rows: float, classes: int) -> int:
    """Binary places of a gradient: sums over all rows stay below 2**31 while 11 places are left."""
    fit = int(31 - math.log2(max(rows, 1.0) + 1))
    return 20 if not classes else min(20, fit) if fit >= 11 else 24


def dtype_of(bits: int, classes: int) -> str:
    """The dtype of sums with so many places."""
    return "int32" if classes and bits <= 20 else "int64"


def begins_with(told: Any, trees: Any, n: int) -> bool:
    """Do the trees told begin with these?"""
    if len(told["value"]) < n or not np.array_equal(told["begin"], trees["begin"]):
        return False
    return all(np.array_equal(told[k][:n], trees[k]) for k in PARTS)


@lru_cache(maxsize=64)
def _made(edges: bytes, widths: bytes) -> Bins:
    return Bins(np.frombuffer(edges, np.float32), np.frombuffer(widths, np.int16))


def bins_of(tree: Any) -> Bins:
    """The bins that were told, made once."""
    return _made(np.asarray(tree["edges"], np.float32).tobytes(), np.asarray(tree["widths"], np.int16).tobytes())


def inputs_of(x: Any, inputs: int) -> Array:
    """(rows, inputs) float32; what is beyond float32 becomes its end.

    Raises:
        ConfigError: another shape.
    """
    with np.errstate(over="ignore"):
        found = np.clip(np.asarray(x, np.float32), -LARGEST, LARGEST)
    if found.ndim != 2 or found.shape[1] != inputs:
        raise ConfigError(f"X must have shape (rows, {inputs}). Got {found.shape}. Give each row its columns.")
    return found


def pair_of(data: Any, inputs: int, classes: Any) -> tuple[Array, Array]:
    """X and y as they are worked with.

    Raises:
        ConfigError: they do not fit.
    """
    x, y = inputs_of(data[0], inputs), np.asarray(data[1])
    if y.shape != (len(x),):
        raise ConfigError(f"y must have shape ({len(x)},), one value for each row of X. Got {y.shape}.")
    y = y.astype(np.float64)
    if not np.isfinite(y).all():
        raise ConfigError("y must be finite numbers. Got NaN or infinity. Leave those rows out.")
    if classes and len(y) and not (np.all(y == np.rint(y)) and y.min() >= 0 and y.max() < int(classes)):
        got = y[(y != np.rint(y)) | (y < 0) | (y >= int(classes))][0]
        raise ConfigError(f"y must be class numbers from 0 to {int(classes) - 1}. Got {got:g}. Count classes from 0.")
    return x, y


def laid(edges: Sequence[Array]) -> dict[str, Array]:
    """Edges as they travel."""
    return {
        "edges": np.concatenate([np.zeros(0, np.float32), *edges]).astype(np.float32),
        "widths": np.array([len(e) + 1 for e in edges], np.int16),
    }


def edges_given(edges: Any, inputs: int) -> tuple[Array, ...]:
    """Edges as they were given, each column's ascending, without repetitions.

    Raises:
        ConfigError: they are not numbers, or not of these columns.
    """
    use = "Give each column a list of edges, [] for none."
    if isinstance(edges, str | Mapping) or not hasattr(edges, "__len__") or len(edges) != inputs:
        raise refusal("edges", "Boosting", f"{inputs} lists of numbers, one for each column", edges, use)
    try:
        found = tuple(np.unique(np.asarray(e, np.float32).ravel()) for e in edges)
    except (TypeError, ValueError):
        raise refusal("edges", "Boosting", f"{inputs} lists of numbers, one for each column", edges, use) from None
    for j, e in enumerate(found):
        if not np.isfinite(e).all() or len(e) > NEVER - 1:
            raise ConfigError(f"The 'edges' of column {j} must be at most 254 finite numbers. Got {len(e)}. Use fewer.")
    return found


def start_fits(start: Any, inputs: int, outputs: int, depth: int) -> None:
    """Refuse trees to go on from that are of another shape.

    Raises:
        ConfigError: says which shape they must have.
    """
    use = "Give run.shared of a run with the same settings."
    if not isinstance(start, Mapping) or not {"edges", "widths", "begin", *PARTS} <= start.keys():
        raise refusal("start", "Boosting", "the trees of another run", start, use)
    shape, want = np.shape(start["value"])[1:], (outputs, 2**depth)
    if shape != want or len(start["widths"]) != inputs:
        got = f"{shape} and {len(start['widths'])}"
        raise ConfigError(f"The 'start' of Boosting must have leaves {want} and {inputs} inputs. Got {got}. {use}")
