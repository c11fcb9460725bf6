"""A cohort looked at a slice of coordinates at a time, for combiners that see each contribution."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from comity.combine.mean import added, weighted
from comity.core.contribution import Array, Contribution
from comity.core.errors import ContributionError, TooFewParticipants
from comity.core.tree import is_branch, leaves, tree_map

BLOCK = 1 << 18
"""Numbers of a slice, over the whole cohort: 2 MiB of float64."""


@dataclass(frozen=True)
class Slice:
    """Some coordinates of every contribution.

    Attributes:
        x: (contributions, coordinates) float64, each contribution divided by its weight; 0 where that is 0.
        w: (contributions, coordinates) or (contributions, 1) float64, the weights, >= 0.
        at: where its coordinates lie among all.
    """

    x: Array
    w: Array
    at: slice


class Cohort:
    """The means of what was gathered, without ever holding more than a slice of them.

    Every pass takes each leaf in its order and each leaf's coordinates in theirs, so that coordinate j of one
    pass is that of the next.
    """

    def __init__(self, gathered: Sequence[Contribution], *, uniform: bool = False) -> None:
        """Take what was gathered.

        Args:
            gathered: sums of summands (w·x, w).
            uniform: every weight > 0 counts as 1.

        Raises:
            TooFewParticipants: nothing was gathered.
            ContributionError: names, shapes or weights that do not fit together, or what is no number.
        """
        if not gathered:
            raise TooFewParticipants("Somebody must contribute. Got nothing. Ask more participants.")
        self.gathered, self.uniform = gathered, uniform
        self._tree: Any = gathered[0].value
        self._leaves = _aligned(gathered)
        self.size = sum(x[0].size for x, _ in self._leaves)

    def givers(self) -> Array:
        """(contributions,) bool: who has weight anywhere."""
        return np.array([any(np.any(np.asarray(w) > 0) for _, w in leaves(c.weight)) for c in self.gathered], bool)

    def whole(self) -> Array:
        """(contributions,) bool: who has weight everywhere."""
        return np.array([all(np.all(np.asarray(w) > 0) for _, w in leaves(c.weight)) for c in self.gathered], bool)

    def heaviest(self) -> float:
        """The largest weight."""
        return max(float(np.max(w, initial=0.0)) for c in self.gathered for _, w in leaves(c.weight))

    def uneven(self) -> bool:
        """Did anybody give some coordinates and not others?"""
        return bool((self.givers() != self.whole()).any())

    def slices(self) -> Iterator[Slice]:
        """Every coordinate once."""
        start, step = 0, max(1, BLOCK // len(self.gathered))
        for xs, ws in self._leaves:
            shape, n = xs[0].shape, xs[0].size
            for a in range(0, n, step):
                b = min(a + step, n)
                w = _stacked(ws, shape, a, b) if any(w.ndim for w in ws) else np.array(ws, float)[:, None]
                x = _stacked(xs, shape, a, b)
                given = w > 0
                with np.errstate(over="ignore", invalid="ignore"):
                    np.divide(x, w, out=x, where=given)
                x = x if given.all() else np.where(given, x, 0.0)
                yield Slice(x, given.astype(float) if self.uniform else w, slice(start + a, start + b))
            start += n

    def tree(self, vector: Array) -> Any:
        """The Tree of the values with these numbers.

        Args:
            vector: (size,) in the order of the slices.
        """
        ends = iter(np.cumsum([0, *(xs[0].size for xs, _ in self._leaves)]).tolist())
        start = next(ends)
        out = []
        for xs, _ in self._leaves:
            end = next(ends)
            out.append(vector[start:end].reshape(xs[0].shape)[()])
            start = end
        parts = iter(out)
        return tree_map(lambda _: next(parts), self._tree)

    def combined(self, value: Any, weight: Any = None) -> Contribution:
        """One contribution in place of all: the weights, unless given, and the metrics of all are added."""
        first = self.gathered[0]
        total = self._weight() if weight is None else weight
        return replace(first, value=value, weight=total, metrics=added([c.metrics for c in self.gathered]), sender="")

    def _weight(self) -> Any:
        weights = [c.weight for c in self.gathered]
        if all(_looks(w) == _looks(weights[0]) for w in weights):
            return tree_map(lambda *ws: sum(ws), *weights)
        return tree_map(lambda _, *ws: sum(np.asarray(w, float) for w in ws), self._tree, *weights)


def summand(c: Contribution) -> Contribution:
    """A contribution to (w·x, w), as the mean lifts it, so that groups can be summed.

    Raises:
        ContributionError: what is no number, or weights that do not fit.
    """
    lifted = weighted(c)
    _aligned([lifted])
    return lifted


def each_coordinate(cohort: Cohort, f: Callable[[Slice], Array]) -> Array:
    """(size,) float64: what `f` gives for the coordinates of each slice."""
    out = np.empty(cohort.size)
    for s in cohort.slices():
        out[s.at] = f(s)
    return out


def weighted_median(s: Slice) -> Array:
    """(coordinates,) the lower weighted median of each coordinate, 0 where nobody has weight."""
    order = np.argsort(s.x, axis=0, kind="stable")
    held = np.take_along_axis(s.x, order, axis=0)
    mass = np.cumsum(np.take_along_axis(np.broadcast_to(s.w, s.x.shape), order, axis=0), axis=0)
    at = (mass >= mass[-1] / 2).argmax(axis=0)
    return np.asarray(np.where(mass[-1] > 0, np.take_along_axis(held, at[None], axis=0)[0], 0.0))


def _aligned(gathered: Sequence[Contribution]) -> list[tuple[list[Array], list[Array]]]:
    """For each leaf: the arrays of all contributions, and their weights."""
    out: list[tuple[list[Array], list[Array]]] = []
    values, weights = [c.value for c in gathered], [c.weight for c in gathered]
    for c in gathered[1:]:
        if _looks(c.value) != _looks(values[0]):
            raise ContributionError(f"All must have the same names and shapes. Got others from '{c.sender}'.")

    def note(*both: Any) -> None:
        xs, ws = [np.asarray(x) for x in both[: len(values)]], [np.asarray(w) for w in both[len(values) :]]
        for c, x, w in zip(gathered, xs, ws, strict=True):
            if x.dtype.kind not in "fiub" or w.dtype.kind not in "fiub":
                raise ContributionError(f"Only numbers can be combined. Got {x.dtype} from '{c.sender}'.")
        out.append((xs, ws))

    try:
        tree_map(note, values[0], *values[1:], *weights)
        for xs, ws in out:
            for w in ws:
                np.broadcast_to(w, xs[0].shape)
    except (KeyError, TypeError, ValueError) as error:
        raise ContributionError(f"Weights must be a prefix of the values and fit their shapes. Got {error}.") from None
    return out


def _looks(x: Any) -> Any:
    return {k: _looks(v) for k, v in x.items()} if is_branch(x) else np.shape(x)


def _stacked(arrays: Sequence[Array], shape: tuple[int, ...], a: int, b: int) -> Array:
    """(arrays, b - a) float64: the same coordinates of each, in C order, without a copy of the whole."""
    out = np.empty((len(arrays), b - a))
    for row, x in zip(out, arrays, strict=True):
        plain = x.shape == shape and x.flags.c_contiguous
        row[:] = x.reshape(-1)[a:b] if plain else np.broadcast_to(x, shape).flat[a:b]
    return out
