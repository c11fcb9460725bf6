"""Medians without values: counts between public bounds, narrowed round by round.

Each party counts how many of its values lie in each of 64 bins; the counts are added; the bin that holds
the median is cut into 64 again. After r rounds the median is known to (high - low) / 64**r / 2.
Counts of narrow bins are about single rows: add them where only their sum is seen, or stop with `least`.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from comity.core.contribution import Array
from comity.core.errors import ConfigError
from comity.data.dictionary import Dictionary, outwards
from comity.data.extras import need
from comity.data.schema import Schema
from comity.data.tables import column, numbers

if TYPE_CHECKING:
    import polars as pl
else:
    pl = need("polars", "tables")

BINS = 64


def median_bounds(dictionary: Dictionary, schema: Schema) -> Array:
    """The ranges that the dictionary gives to the number columns.

    Returns:
        (numbers, 2) float64, least and greatest; NaN where it gives none.
    """
    entries = [dictionary.entry(name) for name in schema.numbers]
    ranges = [(np.nan, np.nan) if e is None or e.range is None else e.range for e in entries]
    return np.array(ranges, np.float64).reshape(-1, 2)


def open_bounds(table: "pl.DataFrame", schema: Schema) -> Array:
    """What a party says openly of the ends of its number columns, rounded outwards as `outwards` does.

    Returns:
        (numbers, 2) float64; NaN where it has no value.
    """
    columns = [numbers(column(table, name)).drop_nulls().to_numpy() for name in schema.numbers]
    ends = [outwards(float(x.min()), float(x.max())) if x.size else (np.nan, np.nan) for x in columns]
    return np.array(ends, np.float64).reshape(-1, 2)


def merge_bounds(parts: Iterable[Array]) -> Array:
    """Bounds, (numbers, 2) float64, around those of all parties; 0 to 1 where nobody has a value."""
    stacked = np.stack([np.asarray(p, np.float64) for p in parts])
    ends = np.stack([np.fmin.reduce(stacked[..., 0]), np.fmax.reduce(stacked[..., 1])], axis=1)
    return np.where(np.isnan(ends), [0.0, 1.0], ends)


def first_edges(bounds: Array, bins: int = BINS) -> Array:
    """Bins of equal width between bounds.

    Args:
        bounds: (numbers, 2) float64, finite, low <= high.
        bins: how many, >= 2.

    Returns:
        (numbers, bins + 1) float64, ascending.

    Raises:
        ConfigError: bounds or bins that are not such.
    """
    ends = np.asarray(bounds, np.float64)
    if ends.ndim != 2 or ends.shape[1] != 2 or not np.isfinite(ends).all() or (ends[:, 0] > ends[:, 1]).any():
        raise ConfigError(
            f"Bounds must be two finite numbers for each column, low <= high. Got shape {ends.shape}"
            f"{'' if np.isfinite(ends).all() else ' with NaN'}. Add ranges to the dictionary, or ask for open bounds."
        )
    if bins < 2:
        raise ConfigError(f"'bins' must be a whole number >= 2. Got {bins}.")
    return _cut(ends[:, 0], ends[:, 1], bins)


def quantile_counts(table: "pl.DataFrame", schema: Schema, edges: Array) -> dict[str, Array]:
    """How many of a party's values lie below, in and above the bins.

    A bin holds its lower edge, the last one its upper edge as well. Missing values are not counted.

    Args:
        table: (rows, ...) of `read_table`.
        schema: as agreed.
        edges: (numbers, bins + 1) float64, ascending.

    Returns:
        A Tree: `counts` (numbers, bins + 2) int64, first those below, last those above. They add.

    Example:
        >>> import polars
        >>> from comity.data.schema import Column
        >>> schema = Schema((Column("age", "number"),), "sick", "classification", ("no", "yes"))
        >>> edges = first_edges([[0, 100]], bins=4)
        >>> quantile_counts(polars.DataFrame({"age": [-1.0, 20, 25, 100, 101, None]}), schema, edges)["counts"].tolist()
        [[1, 1, 1, 0, 1, 1]]
    """
    names, bins = schema.numbers, edges.shape[1] - 1
    if len(edges) != len(names):
        raise ConfigError(f"'edges' must have a row for each of {len(names)} number columns. Got {len(edges)}.")
    out = np.zeros((len(names), bins + 2), np.int64)
    for i, name in enumerate(names):
        x = numbers(column(table, name)).drop_nulls().to_numpy()
        place = np.searchsorted(edges[i], x, side="right")
        place[x == edges[i, -1]] = bins
        out[i] = np.bincount(place, minlength=bins + 2)
    return {"counts": out}


def refine(counts: Any, edges: Array, q: float = 0.5, *, least: float = 0.0) -> Array:
    """Bins within the bin that holds the quantile.

    The quantile is the smallest value that at least the share q of the values does not exceed (of an even
    number of values the lower of the two in the middle): always a value that somebody has. Where it lies
    outside the edges the nearer end takes its place; where nothing was counted the edges stay.

    Args:
        counts: (numbers, bins + 2), added (or averaged) over the parties.
        edges: (numbers, bins + 1) float64, those that were counted with.
        q: from above 0 to 1.
        least: a bin that holds fewer values than this is not cut any further, and its edges stay; wants sums.

    Returns:
        (numbers, bins + 1) float64, within the edges given.

    Raises:
        ConfigError: `q` out of range, or counts of other bins than the edges.

    Example:
        >>> edges = first_edges([[0, 100]], bins=4)
        >>> refine([[0, 1, 3, 0, 1, 0]], edges).tolist()
        [[25.0, 31.25, 37.5, 43.75, 50.0]]
    """
    many, place = _placed(counts, edges, q)
    bins, rows = edges.shape[1] - 1, np.arange(len(many))
    # below the first edge both ends are the first one, above the last both are the last
    low = edges[rows, np.clip(place - 1, 0, bins)]
    high = edges[rows, np.clip(place, 0, bins)]
    stay = (place < 0) | (many[rows, place] < least)
    return np.where(stay[:, None], edges, _cut(low, high, bins))


def around(counts: Any, edges: Array, q: float = 0.5, *, least: float = 0.0) -> Array:
    """The fewest neighbouring bins that hold the quantile and at least so many values, if all bins together do.

    Args:
        counts: (numbers, bins + 2), added over the parties.
        edges: (numbers, bins + 1) float64, those that were counted with.
        q: as for `refine`.
        least: values that the bins must hold.

    Returns:
        (numbers, 2) float64, their outer edges; all bins where nothing was counted.

    Raises:
        ConfigError: as `refine`.

    Example:
        >>> edges = first_edges([[0, 100]], bins=4)
        >>> around([[0, 1, 3, 0, 1, 0]], edges).tolist(), around([[0, 1, 3, 0, 1, 0]], edges, least=4).tolist()
        ([[25.0, 50.0]], [[0.0, 50.0]])
    """
    many, place = _placed(counts, edges, q)
    bins, out = edges.shape[1] - 1, np.empty((len(many), 2))
    for i, (own, at) in enumerate(zip(many, place.tolist(), strict=True)):
        inside, below = min(max(at, 1), bins), np.concatenate([[0.0], own.cumsum()])
        runs = [
            (high - low, low, high)
            for low in range(1, inside + 1)
            for high in range(inside, bins + 1)
            if at >= 0 and below[high + 1] - below[low] >= least
        ]
        _, low, high = min(runs, default=(bins - 1, 1, bins))
        out[i] = edges[i, low - 1], edges[i, high]
    return out


def middle(edges: Array) -> Array:
    """What is known of the quantile: (numbers,) float64, right to half of the distance between the outer edges."""
    return np.asarray(edges[:, 0] + (edges[:, -1] - edges[:, 0]) / 2)


def merge_counts(parts: Iterable[Mapping[str, Array]]) -> Array:
    """The counts of all parties together, (numbers, bins + 2) int64."""
    return np.asarray(np.sum([part["counts"] for part in parts], axis=0))


def _placed(counts: Any, edges: Array, q: float) -> tuple[Array, Array]:
    """The counts, and the place of the bin that holds the quantile among them; -1 where nothing was counted."""
    many = np.asarray(counts, np.float64)
    if not 0 < q <= 1:
        raise ConfigError(f"'q' must be above 0 and at most 1. Got {q}. The median is 0.5.")
    if many.shape != (edges.shape[0], edges.shape[1] + 1):
        raise ConfigError(f"Counts must fit the edges. Got shape {many.shape} for edges of shape {edges.shape}.")
    total = many.sum(axis=1)
    reached = many.cumsum(axis=1) >= (q * total * (1 - 1e-12))[:, None]
    return many, np.where(total > 0, reached.argmax(axis=1), -1)


def _cut(low: Array, high: Array, bins: int) -> Array:
    share = np.linspace(0.0, 1.0, bins + 1)
    edges = low[:, None] * (1 - share) + high[:, None] * share
    edges[:, 0], edges[:, -1] = low, high
    return np.asarray(np.clip(np.maximum.accumulate(edges, axis=1), low[:, None], high[:, None]))
