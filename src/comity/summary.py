"""Statistics over parties, through the loop: counts, means, variances, quantiles, histograms, frequent words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from comity.collaboration import Collaboration
from comity.combine.collect import Collect
from comity.combine.mean import Mean
from comity.core.checks import number, refusal, seeded, whole
from comity.core.contribution import Array, Contribution, Tree
from comity.core.errors import ConfigError
from comity.core.fits import fits
from comity.core.parts import Channel, Combiner, Secret
from comity.core.rng import digest
from comity.core.round import Round
from comity.data.dictionary import Dictionary
from comity.data.prepare import moment_weights, moments
from comity.data.quantiles import merge_bounds, open_bounds, quantile_counts
from comity.data.schema import Column, Schema
from comity.data.statistics import spread
from comity.data.tables import kinds, parties_of
from comity.data.vocabularies import Hashed, Open, respond
from comity.figures import Number, Stats, Words, binned, named
from comity.methods.query import Query
from comity.secure_stats.hub import secure

LEAST = 10
"""Rows that are few, where a channel hides each party and nothing else is said."""
BUCKETS = 2**12
"""Of hashed words, where rare ones are not to be named: 32 KiB for each column and party."""


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
    channel: Channel | None = None,
    dictionary: str | Path | Dictionary | None = None,
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

    **With a channel** such as `SecAgg()` the hub sees sums over all parties and nothing of one; a helper or a hub may
    be distrusted as far as the channel says. Each figure is a computation of its own whose answers add, and all are
    answered by the same parties: one that is gone before any figure is asked is left out, later the rest is refused.
    What differs, beside that:

    - Column names are told openly where there is no dictionary; kinds, rows and everything else only as sums.
    - Values are cut to the range that the dictionary declares. Where it declares none, values are counted by size, in
      bins that double; from there the ends are narrowed to edges beyond which fewer than `least` values lie. So of the
      smallest and the largest value nothing but a power of two is found, and not whose it is. What lies beyond is
      counted in the first and the last bin of a histogram. Means and variances are of all values.
    - Counts are exact; a mean and a standard deviation are right to 1e-9 of the range, or to the rounding of a float64
      where values lie far from zero; a quantile as told. One with fewer than `least` values at or beyond it on either
      side is not among the quantiles.
    - Words are those that the dictionary lists, or all of whose three buckets of hashes hold `least` rows, up to 64
      bytes: so a rare word is told to the hub only where chance has it share all three, and it is not shown.
    - Some missing values, but fewer than `least`, are told as "<10", see `Stats`.

    Two calls over parties that differ by one tell of that one; nothing here remembers what was asked before. There is
    no noise, so there is no privacy budget. A table of one row is hidden as well as any other.

    Args:
        source: {party: path or frame}, or one table with a column that says whose a row is.
        party: that column; left out with a mapping.
        quantiles: shares q, each above 0 and at most 1.
        bins: of the histograms, of equal width, >= 2.
        least: no bin, word or column of fewer rows is shown; 0 or 1 shows all, but with a channel 0 stands for 10.
        seed: of the run.
        channel: how answers become visible: `SecAgg()`, `TwoServer(...)`, or `Plain()` to try the same without.
        dictionary: what columns hold, their ranges and codes: a schema.toml, or what was read of one. For a channel.

    Raises:
        ConfigError: no such file or column, no party, fewer parties than the channel hides one among, a channel that
            does not add whole numbers exactly, or a setting out of its range.
        TooFewParticipants: with a channel, a party dropped out once figures were asked.

    Example:
        >>> import polars, comity as co
        >>> a, b = polars.DataFrame({"age": [40, 60]}), polars.DataFrame({"age": [80, None]})
        >>> found = co.stats({"a": a, "b": b}, bins=2)
        >>> age = found.columns["age"]
        >>> found.rows, age.mean, age.missing
        (4, 60.0, 1)
        >>> abs(age.quantiles[0.5].value - 60) <= age.quantiles[0.5].error < 1e-5, age.histogram.counts
        (True, (2, 1))
        >>> rows = polars.DataFrame({"age": [*range(20, 60)]})
        >>> hidden = co.stats({"a": rows, "b": rows, "c": rows[:1]}, channel=co.SecAgg()).columns["age"]
        >>> hidden.count, round(hidden.mean, 6), min(hidden.histogram.counts) >= 10
        (81, 39.259259, True)
    """
    shares = _shares(quantiles)
    bins, least = whole("bins", "stats", bins, 2), whole("least", "stats", least)
    if channel is None and dictionary is not None:
        raise refusal("dictionary", "stats", "None where there is no channel", dictionary, "Use channel=co.SecAgg().")
    if channel is not None:
        fits("channel", channel)
    tables, _ = parties_of(source, party)
    if channel is not None:
        return secure(
            tables, channel, (shares, bins, least or LEAST), seed=seeded("stats", seed), dictionary=dictionary
        )
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
    told = asking({"step": "bounds"}, Collect())
    bounds = merge_bounds(np.where(t["known"], t["ends"], np.nan) for t in told.values())
    known, histograms = binned(asking.counts, bounds, wanted)
    columns: Columns = {}
    few = {name: f"fewer than {least} values" for name, n in zip(names, count, strict=True) if n < least}
    for i, name in enumerate(names):
        if name not in few:
            own = {q: at[i] for q, at in known.items()} if count[i] else {}
            shown = histograms[i] if count[i] else None
            mean, variance = float(averaged["mean"][i]), float(square[i])
            columns[name] = Number(int(count[i]), int(missing[i]), mean, variance, own, shown)
    return columns, few


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
    return {name: named(merged[name], [own[name] for own in told], least) for name in schema.categories}
