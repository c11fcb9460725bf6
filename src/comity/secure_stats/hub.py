"""Statistics over parties of whom nothing but sums is seen: each figure is a sum, or follows from sums.

party   counts of rows, of values between edges, of words by hash or by code; sums of scaled values and of squares
hub     adds over one and the same cohort, opens the total, asks the next question
never   a row, a smallest or largest value, a word of fewer rows than `least` (but by chance), who has what

**What protects.** Whatever the channel says of sums. All questions but the first, which is about columns, are answered
by the same parties or not opened: two cohorts that differ by one would give its figures by subtraction. **What does
not.** Nothing remembers another call: ask again with one party more or less, or with one row changed, and the
difference is theirs. The hub sees exact totals, small ones too; `least` bounds what is asked further and what is shown.
A party can lie about its own figures. There is no noise: statistics with differential privacy are something else.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from comity.core.contribution import Array
from comity.core.errors import ConfigError
from comity.core.parts import Channel
from comity.data.dictionary import Dictionary
from comity.data.quantiles import first_edges, median_bounds
from comity.data.schema import Column, Schema
from comity.data.sketch import buckets_for, full, read
from comity.data.statistics import MOST_SENT
from comity.figures import Number, Stats, Words, binned, named
from comity.secure_stats.asking import Asking
from comity.secure_stats.party import DOUBLING, HALVES

LARGEST = 2.0**42
"""Of a number that travels beside the counts, summed over the cohort."""
NARROWINGS = 6
"""Questions after which the ends of a column are near enough; each divides what is not known of one by 64."""
_KINDS = {"number": "number", "date": "number", "category": "category", "boolean": "category"}


def secure(
    tables: Mapping[str, Any],
    channel: Channel,
    wanted: tuple[tuple[float, ...], int, int],
    *,
    seed: int,
    dictionary: str | Path | Dictionary | None,
) -> Stats:
    """Statistics of tables, by sums alone.

    Args:
        tables: party to table.
        channel: how the parties' answers become visible.
        wanted: shares of quantiles, bins, and the fewest rows of what is shown.
        seed: of the runs.
        dictionary: what columns hold, and within which range.

    Raises:
        ConfigError: too few parties, a channel that cannot add exactly, or no column that all parties have.
        TooFewParticipants: somebody dropped out once figures were asked.
    """
    known = dictionary if isinstance(dictionary, Dictionary) or dictionary is None else Dictionary.load(dictionary)
    asking, least = Asking(tables, channel, seed), wanted[2]
    schema = _schema(asking, known)
    found = _found(asking, schema, _ranges(known, schema), least)
    columns: dict[str, Number | Words] = {**_numbers(asking, found, wanted), **_words(asking, found, known, least)}
    rows, missing = told(found.rows, {name: found.rows - found.known[name] for name in columns}, least)
    return Stats(
        parties=len(asking.tellers),
        rows=rows,
        columns={c.name: replace(columns[c.name], missing=missing[c.name]) for c in found.schema.columns},
        left_out={**schema.left_out, **found.left_out},
        bytes_up=asking.up,
        bytes_down=asking.down,
    )


def told(rows: int, missing: Mapping[str, int], least: int) -> tuple[int | str, dict[str, int | str]]:
    """Rows and missing values as they may be shown.

    Counts of values are exact; so where some, but fewer than `least`, are missing from a column, exact rows, or what
    another column lacks, would give that number away.

    Example:
        >>> told(107, {"age": 0, "sick": 12}, 10), told(107, {"age": 3, "sick": 12}, 10)
        ((107, {'age': 0, 'sick': 12}), (100, {'age': '<10', 'sick': 10}))
    """
    if not any(0 < n < least for n in (rows, *missing.values())):
        return rows, dict(missing)
    said = {name: n // least * least if n >= least else f"<{least}" for name, n in {"": rows, **missing}.items()}
    return said.pop(""), said


@dataclass(frozen=True)
class _Found:
    """What is known once rows are counted.

    Attributes:
        schema: the columns of which there is enough to be shown.
        rows: of all parties.
        known: column to rows with a value.
        ranges: (numbers, 2) float64, as declared; NaN where a column has none.
        sizes: (numbers, bins + 2) int64, values between the edges of `DOUBLING`; 0 where a range is declared.
        left_out: column to why it is not shown.
    """

    schema: Schema
    rows: int
    known: Mapping[str, int]
    ranges: Array
    sizes: Array
    left_out: Mapping[str, str]


def _schema(asking: Asking, known: Dictionary | None) -> Schema:
    """The columns that all have; their names are asked openly where no dictionary lists them."""
    entries = {} if known is None else {e.name: e.type for e in known.columns if e.name != known.party}
    left_out = {name: "an identifier" for name, kind in entries.items() if kind not in _KINDS}
    names = asking.names() if known is None else sorted(entries.keys() - left_out.keys())
    if not names:
        raise ConfigError("There must be a column to tell of. Got none.")
    said = asking.sum({"step": "columns", "names": dict.fromkeys(names, 0)})["value"]["has"]
    columns, parties = [], len(asking.tellers)
    for name, (has, number, category) in zip(names, said.tolist(), strict=True):
        if has < parties:
            left_out[name] = f"in {has} of {parties} parties"
        elif not number + category:
            left_out[name] = "empty"
        else:
            usual = "category" if category else "number"
            columns.append(Column(name, _KINDS.get(entries.get(name, ""), usual)))
    if not columns:
        raise ConfigError(f"There must be a column that all {parties} parties have. Got none.")
    return Schema(tuple(columns), "", "classification", (), left_out)


def _ranges(known: Dictionary | None, schema: Schema) -> Array:
    return np.full((len(schema.numbers), 2), np.nan) if known is None else median_bounds(known, schema)


def _only(schema: Schema, names: Collection[str]) -> Schema:
    return replace(schema, columns=tuple(c for c in schema.columns if c.name in names), left_out={})


def _found(asking: Asking, schema: Schema, ranges: Array, least: int) -> _Found:
    free = np.isnan(ranges[:, 0])
    asked = _only(schema, [n for n, yes in zip(schema.numbers, free, strict=True) if yes])
    said = asking.sum({"step": "rows", "free": asked.to_tree()}, schema)["value"]
    sizes = np.zeros((len(free), len(DOUBLING) + 1), np.int64)
    sizes[free] = said["sizes"]
    known = dict(zip((*schema.numbers, *schema.categories), said["known"].tolist(), strict=True))
    left_out = {name: f"fewer than {least} values" for name, n in known.items() if n < least}
    for name, own in zip(schema.numbers, sizes, strict=True):
        if own[0] + own[-1] and name not in left_out:
            left_out[name] = "values beyond 1e38, and no range is declared"
    kept = _only(schema, known.keys() - left_out.keys())
    at = [i for i, name in enumerate(schema.numbers) if name not in left_out]
    return _Found(kept, int(said["rows"][0]), known, ranges[at], sizes[at], left_out)


def _numbers(asking: Asking, found: _Found, wanted: tuple[tuple[float, ...], int, int]) -> dict[str, Number]:
    schema, (shares, _, least) = _only(found.schema, found.schema.numbers), wanted
    if not schema.columns:
        return {}
    count = np.array([found.known[name] for name in schema.numbers])
    free = np.isnan(found.ranges[:, 0])
    around = found.ranges.copy()
    around[free] = np.array([_cover(own) for own in found.sizes[free]]).reshape(-1, 2)
    mean, variance = _moments(asking, schema, around, count)
    asked = _only(schema, [n for n, yes in zip(schema.numbers, free, strict=True) if yes])
    around[free] = _ends(asking, asked, found.sizes[free], max(least, 1))
    known, histograms = binned(lambda edges: asking.counts(edges, schema), around, wanted)
    columns = {}
    for i, (name, n) in enumerate(zip(schema.numbers, count.tolist(), strict=True)):
        own = {q: known[q][i] for q in shares if n and _inside(q, n, max(least, 1))}
        columns[name] = Number(n, 0, float(mean[i]), float(variance[i]), own, histograms[i] if n else None)
    return columns


def _inside(q: float, n: int, least: int) -> bool:
    """Do so many values lie at or beyond the quantile, on either side?"""
    rank = math.ceil(q * n * (1 - 1e-12))
    return least <= rank <= n - least + 1


def _moments(asking: Asking, schema: Schema, bounds: Array, count: Array) -> tuple[Array, Array]:
    """Means and variances: sums of values, then of what is left of them about the mean, and of its squares.

    The second scale is the power of two above the largest distance from the mean, so that little is lost in units
    where values lie far from zero, or one far from all others.
    """
    half = bounds[:, 1] / 2 - bounds[:, 0] / 2
    question = {
        "centre": bounds[:, 0] / 2 + bounds[:, 1] / 2,
        "width": np.where(half > 0, half, 1.0),
        "times": 2.0 ** np.floor(np.log2(LARGEST / (np.maximum(count, 1) * len(asking.tellers)))),
        "bounds": bounds,
    }
    over = question["times"] * np.maximum(count, 1)
    first, _ = _sums(asking, schema, question)
    question["centre"] = question["centre"] + question["width"] * first / over
    away = asking.sum({"step": "away", **question}, schema)["value"]["away"]
    farthest = [int(np.flatnonzero(own).max(initial=0)) for own in away]
    question["width"] = question["width"] * HALVES[np.minimum(farthest, len(HALVES) - 1)]
    rest, squares = (s / over for s in _sums(asking, schema, question))
    mean = np.where(count > 0, question["centre"] + question["width"] * rest, 0.0)
    return mean, np.maximum(question["width"] ** 2 * (squares - rest**2), 0.0)


def _sums(asking: Asking, schema: Schema, question: Mapping[str, Array]) -> tuple[Array, Array]:
    said = asking.sum({"step": "sums", **question}, schema)["metrics"]
    return tuple(np.array([said[f"{i}.{k}"] for i in range(len(schema.numbers))]) for k in ("sum", "square"))  # type: ignore[return-value]


def _cover(sizes: Array) -> tuple[float, float]:
    """Powers of two around all values."""
    held = np.flatnonzero(sizes)
    return (float(DOUBLING[held[0] - 1]), float(DOUBLING[held[-1]])) if held.size else (0.0, 1.0)


def _ends(asking: Asking, schema: Schema, sizes: Array, least: int) -> Array:
    """Edges beyond which fewer than `least` values lie, near to those that are so many from either end.

    A bin that holds fewer values is not cut, so that no value is cornered: the smallest and the largest stay unknown.

    Returns:
        (numbers, 2) float64.
    """
    low, high = (_End.of(sizes, np.tile(DOUBLING, (len(sizes), 1)), least, top) for top in (False, True))
    for _ in range(NARROWINGS):
        span = np.ptp(_around(low, high), axis=1) / 64
        wide = [(e.edges[:, 1] - e.edges[:, 0] > span) & (e.held >= least) for e in (low, high)]
        names = [n for n, a, b in zip(schema.numbers, *wide, strict=True) if a or b]
        if not names:
            break
        at = [i for i, n in enumerate(schema.numbers) if n in names]
        cut = [
            np.where(own[:, None], e.edges, o.edges)[at]
            for own, e, o in zip(wide, (low, high), (high, low), strict=True)
        ]
        edges = dict(zip(("low", "high"), map(first_edges, cut), strict=True))
        counts = asking.counts(edges, _only(schema, names))
        for end, own, key, top in ((low, wide[0], "low", False), (high, wide[1], "high", True)):
            end.put(at, own[at], _End.of(counts[key], edges[key], least, top))
    return _around(low, high)


@dataclass
class _End:
    """The bin of each column where the count from one end reaches the minimum, and what it holds."""

    edges: Array
    held: Array

    @classmethod
    def of(cls, counts: Array, edges: Array, least: int, top: bool) -> "_End":
        """Find it from the bottom, or from the top."""
        found, held = np.empty((len(counts), 2)), np.zeros(len(counts), np.int64)
        for i, own in enumerate(np.asarray(counts)):
            reached = (own[::-1] if top else own).cumsum() >= least
            place = int(reached.argmax()) if reached.any() else 1
            place = min(max(len(own) - 1 - place if top else place, 1), len(own) - 2)
            found[i], held[i] = edges[i, place - 1 : place + 1], own[place]
        return cls(found, held)

    def put(self, at: list[int], which: Array, new: "_End") -> None:
        """Take over those that were cut."""
        for i, yes, edges, held in zip(at, which, new.edges, new.held, strict=True):
            if yes:
                self.edges[i], self.held[i] = edges, held


def _around(low: _End, high: _End) -> Array:
    """From the bin at one end to that at the other, (numbers, 2); where values are few the ends cross."""
    both = np.concatenate([low.edges, high.edges], axis=1)
    return np.stack([both.min(axis=1), both.max(axis=1)], axis=1)


def _words(asking: Asking, found: _Found, known: Dictionary | None, least: int) -> dict[str, Words]:
    names = found.schema.categories
    if not names:
        return {}
    entries = {} if known is None else {e.name: e for e in known.columns}
    codes = {n: tuple(entries[n].codes) or (("false", "true") * (entries[n].type == "boolean")) for n in entries}
    asked: dict[str, Any] = {
        name: dict.fromkeys(codes[name], 0) if codes.get(name) else buckets_for(found.known[name], least)
        for name in names
    }
    said = asking.sum({"step": "words", "words": asked})["value"]
    values = {n: dict(zip(sorted(c), said[n].tolist(), strict=True)) for n, c in asked.items() if isinstance(c, dict)}
    admitted = {n: full(said[n], least, MOST_SENT) for n in names if n not in values}
    tables = {n: may for n, may in admitted.items() if may is not None and may.any()}
    if tables:
        coded = asking.sum({"step": "codes", "words": tables})["value"]
        values |= {n: read(n, coded[n]) for n in tables}
    out = {}
    for name in names:
        own = values.get(name, {})
        said_of = {"values": own, "missing": 0, "other": found.known[name] - sum(own.values())}
        out[name] = named(said_of, (), least)
    return out
