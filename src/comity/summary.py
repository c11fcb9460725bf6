"""Statistics over parties, through the loop: counts, means, variances, quantiles, histograms, frequent words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from comity.collaboration import Collaboration
from comity.combine.collect import Collect
from comity.combine.mean import Mean
from comity.core.checks import number, refusal, whole
from comity.core.contribution import Array, Contribution, Tree
from comity.core.errors import ConfigError
from comity.core.parts import Combiner, Secret
from comity.core.rng import digest
from comity.core.round import Round
from comity.data.prepare import moment_weights, moments
from comity.data.quantiles import around, first_edges, merge_bounds, middle, open_bounds, quantile_counts, refine
from comity.data.schema import Column, Schema
from comity.data.statistics import MOST_SENT, spread
from comity.data.tables import kinds, parties_of
from comity.data.vocabularies import Hashed, Open, respond
from comity.methods.query import Query

CUTS = 4
"""Rounds of counts for the quantiles: each cuts the bin of the last into 64."""
BUCKETS = 2**12
"""Of hashed words, where rare ones are not to be named: 32 KiB for each column and party."""


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
        missing: rows without.
        mean: in the column's unit.
        variance: of the population (divided by count), in its unit squared.
        quantiles: q to what is known of it.
        histogram: of bins between the ends that the parties told; None where nobody has a value.
    """

    count: int
    missing: int
    mean: float
    variance: float
    quantiles: Mapping[float, Quantile] = field(default_factory=dict)
    histogram: Histogram | None = None


@dataclass(frozen=True)
class Words:
    """A column of words over all parties.

    Attributes:
        count: rows with a value.
        missing: rows without.
        values: word to rows, the most frequent first.
        other: rows with a word that is not named here, or not by their party: it names at most 500.
        error: by how many rows the count of a word may be too low, because a party did not name it; 0 is exact.
    """

    count: int
    missing: int
    values: Mapping[str, int]
    other: int = 0
    error: int = 0

    def top(self, n: int) -> dict[str, int]:
        """The n most frequent words with their rows; exact in this order where counts differ by more than `error`."""
        return dict(list(self.values.items())[: whole("n", "top", n)])


@dataclass(frozen=True)
class Stats:
    """What the parties' tables look like together.

    Attributes:
        parties: how many.
        rows: in all.
        columns: name to `Number` or `Words`; those that all parties have.
        left_out: name to why it is not among them.
        bytes_up: that the parties sent.
        bytes_down: that they were sent.
    """

    parties: int
    rows: int
    columns: Mapping[str, Number | Words]
    left_out: Mapping[str, str]
    bytes_up: int
    bytes_down: int


@dataclass(frozen=True, eq=False)
class Clerk:
    """A party's side of `stats`: the only place that touches its table.

    Attributes:
        table: its rows.
        salt: of hashed words, the clerks' own.
    """

    table: Any = field(repr=False, metadata={"data": True})
    salt: bytes = field(default=b"", repr=False, metadata={"data": True})

    def contribute(self, shared: Contribution, local: Tree, round: Round, secret: Secret) -> tuple[Contribution, Tree]:
        """Its columns and rows; means, spread, ends or counts of its numbers; or the words in its categories."""
        asked: Any = shared.value
        step = asked["step"]
        if step == "columns":
            return Contribution("schema", {"rows": self.table.height, "kinds": kinds(self.table)}), local
        schema = Schema.from_tree(asked["schema"])
        if step == "moments":
            said = moments(self.table, schema)
            return Contribution("statistics", said, moment_weights(said)), local
        if step == "spread":
            square, count = spread(self.table, schema, asked["centre"])
            return Contribution("statistics", {"square": square}, {"square": count}), local
        if step == "bounds":
            ends = open_bounds(self.table, schema)
            return Contribution("statistics", {"ends": np.nan_to_num(ends), "known": ~np.isnan(ends)}), local
        if step == "counts":
            counts = {k: quantile_counts(self.table, schema, e)["counts"] for k, e in asked["edges"].items()}
            return Contribution("statistics", counts), local
        return Contribution("statistics", respond(self.table, schema, step, asked, self.salt)), local


def stats(
    source: Any,
    *,
    party: str | None = None,
    quantiles: Sequence[float] = (0.25, 0.5, 0.75),
    bins: int = 20,
    least: int = 0,
    seed: int = 0,
) -> Stats:
    """Counts, means, variances, quantiles, histograms and frequent words of tables that stay where they are.

    Means, then mean squared distances from the common mean, travel weighted by their counts and are combined by `Mean`:
    the variance is right to rounding wherever the mean lies. The ends of each column are told openly, rounded outwards
    to steps of 1, 2 or 5 times a power of ten; between them counts of bins are added, exactly, and the bin that holds
    a quantile is cut into 64 again, four times in all: a quantile is right to (high - low) / 64⁴ / 2. Words are told
    openly with their counts; a party names its 500 most frequent ones, and `error` says what that can cost.

    The hub of an in-process run sees each party's counts; `least` bounds what it shows, and with it what it asks: a
    column of numbers with fewer values is left out, bins are joined with their neighbours and not cut further while
    they hold fewer, and words are named only if the bucket of their salted hash holds so many rows (`other` counts the
    rest, and is no smaller itself unless it is 0). Rows, missing values and the rounded ends are shown all the same.

    Args:
        source: {party: path or frame}, or one table with a column that says whose a row is.
        party: that column; left out with a mapping.
        quantiles: shares q, each above 0 and at most 1.
        bins: of the histograms, of equal width, >= 2.
        least: no bin, word or column of fewer rows is shown; 0 or 1 shows all.
        seed: of the run.

    Raises:
        ConfigError: no such file or column, no party, or a setting out of its range.

    Example:
        >>> import polars, comity as co
        >>> a, b = polars.DataFrame({"age": [40, 60]}), polars.DataFrame({"age": [80, None]})
        >>> found = co.stats({"a": a, "b": b}, bins=2)
        >>> age = found.columns["age"]
        >>> found.rows, age.mean, age.missing
        (4, 60.0, 1)
        >>> abs(age.quantiles[0.5].value - 60) <= age.quantiles[0.5].error < 1e-5, age.histogram.counts
        (True, (2, 1))
    """
    shares = _shares(quantiles)
    bins, least = whole("bins", "stats", bins, 2), whole("least", "stats", least)
    tables, _ = parties_of(source, party)
    asking = _Asking({name: Clerk(table, digest(seed, "salt")) for name, table in tables.items()}, seed)
    said = asking({"step": "columns"}, Collect())
    schema = _common({p: said[p]["kinds"] for p in said})
    if not schema.columns:
        raise ConfigError(f"There must be a column that all {len(said)} parties have. Got none.")
    asking.schema = schema
    columns, few = _numbers(asking, (shares, bins, least))
    columns |= _words(asking, least)
    return Stats(
        parties=len(tables),
        rows=sum(int(said[p]["rows"]) for p in said),
        columns={c.name: columns[c.name] for c in schema.columns if c.name in columns},
        left_out={**schema.left_out, **few},
        bytes_up=asking.up,
        bytes_down=asking.down,
    )


class _Asking:
    """Queries to all clerks, and what they cost."""

    def __init__(self, clerks: Mapping[str, Clerk], seed: int) -> None:
        self.clerks, self.seed, self.up, self.down = clerks, seed, 0, 0
        self.schema: Schema | None = None

    def __call__(self, question: dict[str, Any], combine: Combiner) -> Any:
        if self.schema is not None:
            question = {**question, "schema": self.schema.to_tree()}
        fed = Collaboration(
            Query(question), self.clerks, combine=combine, evaluate=False, quorum=1.0, retries=0, seed=self.seed
        )
        run = fed.run(1)
        self.up, self.down = self.up + run.ledger.bytes_up, self.down + run.ledger.bytes_down
        return run.shared

    def counts(self, edges: Mapping[str, Array]) -> dict[str, Array]:
        """How many values of all parties lie below, in and above bins: sums, from the average of the parties."""
        found = self({"step": "counts", "edges": edges}, Mean())
        return {name: np.rint(found[name] * len(self.clerks)).astype(np.int64) for name in edges}


def _shares(quantiles: Any) -> tuple[float, ...]:
    if isinstance(quantiles, str | bytes | Mapping) or not hasattr(quantiles, "__iter__"):
        raise refusal("quantiles", "stats", "shares, each above 0 and at most 1", quantiles, "Use (0.5,), for one.")
    return tuple(float(number("quantiles", "stats", q, "(0, 1]")) for q in quantiles)


def _common(said: Mapping[str, Mapping[str, str]]) -> Schema:
    """The columns that all have; words at one party make a column one of words."""
    names = sorted({name for own in said.values() for name in own})
    columns, left_out = [], {}
    for name in names:
        here = [own[name] for own in said.values() if name in own]
        if len(here) < len(said):
            left_out[name] = f"in {len(here)} of {len(said)} parties"
        elif set(here) == {"empty"}:
            left_out[name] = "empty"
        else:
            columns.append(Column(name, "category" if "category" in here else "number"))
    return Schema(tuple(columns), "", "classification", (), left_out)


Columns = dict[str, Number | Words]


def _numbers(asking: _Asking, wanted: tuple[tuple[float, ...], int, int]) -> tuple[Columns, dict[str, str]]:
    """The columns of numbers, and those of which there are too few to be shown."""
    names, least = asking.schema.numbers if asking.schema else (), wanted[2]
    if not names:
        return {}, {}
    averaged = asking({"step": "moments"}, Mean())
    square = asking({"step": "spread", "centre": averaged["mean"]}, Mean())["square"]
    count, missing = (np.rint(averaged[k] * len(asking.clerks)).astype(int) for k in ("count", "missing"))
    known, histograms = _binned(asking, wanted)
    columns: Columns = {}
    few = {name: f"fewer than {least} values" for name, n in zip(names, count, strict=True) if n < least}
    for i, name in enumerate(names):
        if name not in few:
            own = {q: at[i] for q, at in known.items()} if count[i] else {}
            shown = histograms[i] if count[i] else None
            mean, variance = float(averaged["mean"][i]), float(square[i])
            columns[name] = Number(int(count[i]), int(missing[i]), mean, variance, own, shown)
    return columns, few


def _binned(
    asking: _Asking, wanted: tuple[tuple[float, ...], int, int]
) -> tuple[dict[float, list[Quantile]], list[Histogram]]:
    """The quantiles and the histogram of each column of numbers."""
    shares, bins, least = wanted
    told = asking({"step": "bounds"}, Collect())
    bounds = merge_bounds(np.where(t["known"], t["ends"], np.nan) for t in told.values())
    whole, wide = first_edges(bounds, bins), first_edges(bounds)
    counts = asking.counts({"histogram": whole, **({"first": wide} if shares else {})})
    edges = {str(q): wide for q in shares}
    found = {str(q): counts["first"] for q in shares}
    for _ in range(CUTS - 1 if shares else 0):
        edges = {str(q): refine(found[str(q)], edges[str(q)], q, least=least) for q in shares}
        found = asking.counts(edges)
    ends = {q: around(found[str(q)], edges[str(q)], q, least=least) for q in shares}
    known = {
        q: [Quantile(float(v), float(e)) for v, e in zip(middle(x), _half(x), strict=True)] for q, x in ends.items()
    }
    return known, [_joined(e, c[1:-1], least) for e, c in zip(whole, counts["histogram"], strict=True)]


def _half(edges: Array) -> Array:
    """Half of the distance between the outer edges, and what they were rounded by."""
    return np.asarray((edges[:, -1] - edges[:, 0]) / 2 + 4 * np.spacing(np.abs(edges).max(axis=1)))


def _joined(edges: Array, counts: Array, least: int) -> Histogram:
    """Bins from the left, each joined with the next while it holds fewer than `least`; what is left joins the last."""
    ends, held, now = [float(edges[0])], list[int](), 0
    for end, n in zip(edges[1:].tolist(), counts.tolist(), strict=True):
        now += n
        if now >= least:
            ends, held, now = [*ends, end], [*held, now], 0
    if ends[-1] != float(edges[-1]):
        ends, held = ([*ends[:-1], float(edges[-1])], [*held[:-1], held[-1] + now]) if held else ([], [])
    return Histogram(tuple(ends), tuple(held))


def _words(asking: _Asking, least: int) -> Columns:
    schema = asking.schema
    if schema is None or not schema.categories:
        return {}
    told: list[Any] = []

    def ask(step: str, question: Mapping[str, Any]) -> Sequence[Any]:
        said = asking({**question, "step": step}, Collect())
        told[:] = [said[p] for p in sorted(said)]
        return told

    merged = (Open() if least < 2 else Hashed(least, BUCKETS)).collect(schema, ask)
    return {name: _named(merged[name], [own[name] for own in told], least) for name in schema.categories}


def _named(said: Mapping[str, Any], parts: Sequence[Any], least: int) -> Words:
    """Words by frequency; those of fewer rows than `least`, and what the rest needs to be no fewer, are not named."""
    ordered = sorted(said["values"].items(), key=lambda pair: (-pair[1], pair[0]))
    count, other = sum(said["values"].values()) + said["other"], said["other"]
    while ordered and (ordered[-1][1] < least or 0 < other < least):
        other += ordered.pop()[1]
    lost = [min(p["other"], min(p["values"].values())) for p in parts if len(p["values"]) >= MOST_SENT]
    return Words(count, said["missing"], dict(ordered), other, sum(lost))
