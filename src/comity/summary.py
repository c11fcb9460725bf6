"""Statistics over parties: counts, means and variances through the loop, words openly collected."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from comity.collaboration import Collaboration
from comity.combine.collect import Collect
from comity.combine.mean import Mean
from comity.core.contribution import Contribution, Tree
from comity.core.errors import ConfigError
from comity.core.parts import Combiner, Secret
from comity.core.round import Round
from comity.data.prepare import merge_vocabularies, moment_weights, moments, vocabulary
from comity.data.schema import Column, Schema
from comity.data.statistics import spread
from comity.data.tables import kinds, parties_of
from comity.methods.query import Query


@dataclass(frozen=True)
class Number:
    """A column of numbers over all parties.

    Attributes:
        count: rows with a value.
        missing: rows without.
        mean: in the column's unit.
        variance: of the population (divided by count), in its unit squared.
    """

    count: int
    missing: int
    mean: float
    variance: float


@dataclass(frozen=True)
class Words:
    """A column of words over all parties.

    Attributes:
        count: rows with a value.
        missing: rows without.
        values: word to rows, the most frequent first; a party names at most 500.
    """

    count: int
    missing: int
    values: Mapping[str, int]


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
    """

    table: Any = field(repr=False, metadata={"data": True})

    def contribute(self, shared: Contribution, local: Tree, round: Round, secret: Secret) -> tuple[Contribution, Tree]:
        """Its columns and rows; the means of its numbers; their spread; or the words in its categories."""
        asked: Any = shared.value
        if asked["step"] == "columns":
            return Contribution("schema", {"rows": self.table.height, "kinds": kinds(self.table)}), local
        schema = Schema.from_tree(asked["schema"])
        if asked["step"] == "moments":
            said = moments(self.table, schema)
            return Contribution("statistics", said, moment_weights(said)), local
        if asked["step"] == "spread":
            square, count = spread(self.table, schema, asked["centre"])
            return Contribution("statistics", {"square": square}, {"square": count}), local
        return Contribution("statistics", vocabulary(self.table, schema)), local


def stats(source: Any, *, party: str | None = None, seed: int = 0) -> Stats:
    """Counts, means, variances and words of tables that stay where they are.

    Means, then mean squared distances from the common mean, travel weighted by their counts and are
    combined by `Mean`; the hub of an in-process run sees each party's. Words are openly collected, with their counts.

    Args:
        source: {party: path or frame}, or one table with a column that says whose a row is.
        party: that column; left out with a mapping.
        seed: of the run.

    Raises:
        ConfigError: no such file or column, or no party.

    Example:
        >>> import polars, comity as co
        >>> a, b = polars.DataFrame({"age": [40, 60]}), polars.DataFrame({"age": [80, None]})
        >>> found = co.stats({"a": a, "b": b})
        >>> found.rows, found.columns["age"].mean, found.columns["age"].missing
        (4, 60.0, 1)
    """
    tables, _ = parties_of(source, party)
    clerks = {name: Clerk(table) for name, table in tables.items()}
    asking = _Asking(clerks, seed)
    said = asking({"step": "columns"}, Collect())
    schema = _common({p: said[p]["kinds"] for p in said})
    if not schema.columns:
        raise ConfigError(f"There must be a column that all {len(said)} parties have. Got none.")
    numbers = asking({"step": "moments", "schema": schema.to_tree()}, Mean())
    spreads = asking({"step": "spread", "schema": schema.to_tree(), "centre": numbers["mean"]}, Mean())
    words = asking({"step": "vocabulary", "schema": schema.to_tree()}, Collect())
    columns = {
        **_numbers(schema, numbers, spreads["square"], len(clerks)),
        **_words(merge_vocabularies([words[p] for p in words])),
    }
    return Stats(
        parties=len(clerks),
        rows=sum(int(said[p]["rows"]) for p in said),
        columns={c.name: columns[c.name] for c in schema.columns},
        left_out=schema.left_out,
        bytes_up=asking.up,
        bytes_down=asking.down,
    )


class _Asking:
    """Queries to all clerks, and what they cost."""

    def __init__(self, clerks: Mapping[str, Clerk], seed: int) -> None:
        self.clerks, self.seed, self.up, self.down = clerks, seed, 0, 0

    def __call__(self, question: Tree, combine: Combiner) -> Any:
        fed = Collaboration(
            Query(question), self.clerks, combine=combine, evaluate=False, quorum=1.0, retries=0, seed=self.seed
        )
        run = fed.run(1)
        self.up, self.down = self.up + run.ledger.bytes_up, self.down + run.ledger.bytes_down
        return run.shared


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


def _numbers(schema: Schema, averaged: Any, variance: Any, parties: int) -> dict[str, Number | Words]:
    """Counts are averages over the parties; means are already those of all rows."""
    count, missing = (np.rint(averaged[k] * parties).astype(int) for k in ("count", "missing"))
    return {
        name: Number(int(count[i]), int(missing[i]), float(averaged["mean"][i]), float(variance[i]))
        for i, name in enumerate(schema.numbers)
    }


def _words(merged: Mapping[str, Any]) -> dict[str, Number | Words]:
    out: dict[str, Number | Words] = {}
    for name, said in merged.items():
        values = dict(sorted(said["values"].items(), key=lambda pair: (-pair[1], pair[0])))
        out[name] = Words(sum(values.values()) + said["other"], said["missing"], values)
    return out
