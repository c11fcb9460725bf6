"""The figures that statistics over parties give, and what of them may be shown."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from comity.core.checks import whole
from comity.core.contribution import Array
from comity.data.quantiles import around, first_edges, middle, refine
from comity.data.statistics import MOST_SENT

CUTS = 4
"""Rounds of counts for the quantiles: each cuts the bin of the last into 64."""
Counts = Callable[[Mapping[str, Array]], Mapping[str, Array]]
"""Edges by name to how many values of all parties lie below, in and above their bins."""


@dataclass(frozen=True)
class Quantile:
    """What is known of a quantile.

    Attributes:
        value: in the column's unit.
        error: the quantile lies within `value` ± `error`: the smallest value that somebody has and that a share q of
            the values does not exceed (numpy's "inverted_cdf").
    """

    value: float
    error: float


@dataclass(frozen=True)
class Histogram:
    """Exact counts of bins.

    Attributes:
        edges: rising, one more than bins. A bin holds its lower edge, the last one its upper edge as well.
        counts: values in each bin, of all parties.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Number:
    """A column of numbers over all parties.

    Attributes:
        count: rows with a value.
        missing: rows without; where small numbers are hidden, see `Stats`.
        mean: in the column's unit.
        variance: of the population (divided by count), in its unit squared.
        quantiles: q to what is known of it.
        histogram: of bins between the ends that the parties told; None where nobody has a value.
    """

    count: int
    missing: int | str
    mean: float
    variance: float
    quantiles: Mapping[float, Quantile] = field(default_factory=dict)
    histogram: Histogram | None = None


@dataclass(frozen=True)
class Words:
    """A column of words over all parties.

    Attributes:
        count: rows with a value.
        missing: rows without; where small numbers are hidden, see `Stats`.
        values: word to rows, the most frequent first.
        other: rows with a word that is not named here, or not by their party: it names at most 500.
        error: by how many rows the count of a word may be too low, because a party did not name it; 0 is exact.
    """

    count: int
    missing: int | str
    values: Mapping[str, int]
    other: int = 0
    error: int = 0

    def top(self, n: int) -> dict[str, int]:
        """The n most frequent words with their rows; exact in this order where counts differ by more than `error`."""
        return dict(list(self.values.items())[: whole("n", "top", n)])


@dataclass(frozen=True)
class Stats:
    """What the parties' tables look like together.

    Where small numbers are hidden by `stats(..., channel=...)`, and a column lacks some values but fewer than may be
    shown, `rows` and every `missing` are rounded down to multiples of that number, and those below it are "<10".

    Attributes:
        parties: how many.
        rows: in all.
        columns: name to `Number` or `Words`; those that all parties have.
        left_out: name to why it is not among them.
        bytes_up: that the parties sent.
        bytes_down: that they were sent.
    """

    parties: int
    rows: int | str
    columns: Mapping[str, Number | Words]
    left_out: Mapping[str, str]
    bytes_up: int
    bytes_down: int


def binned(
    count: Counts, bounds: Array, wanted: tuple[tuple[float, ...], int, int]
) -> tuple[dict[float, list[Quantile]], list[Histogram]]:
    """The quantiles and the histogram of each column of numbers.

    Args:
        count: asks the parties.
        bounds: (numbers, 2) float64. What lies beyond is counted with the bin at that end.
        wanted: shares of the quantiles, how many bins, and the fewest values of one.

    Returns:
        Share to what is known of that quantile of each column; and the histogram of each.
    """
    shares, bins, least = wanted
    parts, wide = first_edges(bounds, bins), first_edges(bounds)
    counts = count({"histogram": parts, **({"first": wide} if shares else {})})
    edges = {str(q): wide for q in shares}
    found = {str(q): counts["first"] for q in shares}
    for _ in range(CUTS - 1 if shares else 0):
        edges = {str(q): refine(found[str(q)], edges[str(q)], q, least=least) for q in shares}
        found = dict(count(edges))
    ends = {q: around(found[str(q)], edges[str(q)], q, least=least) for q in shares}
    known = {
        q: [Quantile(float(v), float(e)) for v, e in zip(middle(x), _half(x), strict=True)] for q, x in ends.items()
    }
    return known, [joined(e, _within(c), least) for e, c in zip(parts, counts["histogram"], strict=True)]


def _within(counts: Array) -> Array:
    """Counts of the bins, with what lies beyond in the first and the last."""
    inside = np.array(counts[1:-1])
    inside[0] += counts[0]
    inside[-1] += counts[-1]
    return inside


def _half(edges: Array) -> Array:
    """Half of the distance between the outer edges, and what they were rounded by."""
    return np.asarray((edges[:, -1] - edges[:, 0]) / 2 + 4 * np.spacing(np.abs(edges).max(axis=1)))


def joined(edges: Array, counts: Array, least: int) -> Histogram:
    """Bins from the left, each joined with the next while it holds fewer than `least`; what is left joins the last."""
    ends, held, now = [float(edges[0])], list[int](), 0
    for end, n in zip(edges[1:].tolist(), counts.tolist(), strict=True):
        now += n
        if now >= least:
            ends, held, now = [*ends, end], [*held, now], 0
    if ends[-1] != float(edges[-1]):
        ends, held = ([*ends[:-1], float(edges[-1])], [*held[:-1], held[-1] + now]) if held else ([], [])
    return Histogram(tuple(ends), tuple(held))


def named(said: Mapping[str, Any], parts: Sequence[Any], least: int) -> Words:
    """Words by frequency; those of fewer rows than `least`, and what the rest needs to be no fewer, are not named."""
    ordered = sorted(said["values"].items(), key=lambda pair: (-pair[1], pair[0]))
    count, other = sum(said["values"].values()) + said["other"], said["other"]
    while ordered and (ordered[-1][1] < least or 0 < other < least):
        other += ordered.pop()[1]
    lost = [min(p["other"], min(p["values"].values())) for p in parts if len(p["values"]) >= MOST_SENT]
    return Words(count, said["missing"], dict(ordered), other, sum(lost))
