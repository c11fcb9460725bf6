"""A party's side of secure statistics, and the question that it answers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from comity.combine.mean import Mean
from comity.core.contribution import Array, Contribution, Tree
from comity.core.parts import Combiner, Secret
from comity.core.round import Round
from comity.core.spec import Leaf, Spec
from comity.core.tree import tree_map
from comity.data.quantiles import quantile_counts
from comity.data.schema import Schema
from comity.data.sketch import coded, counted
from comity.data.tables import column, kinds, numbers, words

DOUBLING = np.concatenate([-(2.0 ** np.arange(127, -65, -1)), [0.0], 2.0 ** np.arange(-64, 128)])
"""Edges of bins between which numbers of any size are counted where no range is declared."""
HALVES = 2.0 ** np.arange(-62, 2)
"""Edges for distances from the mean, over half of the range."""


@dataclass(frozen=True)
class Total:
    """A question, and the sum of what everybody answers.

    Attributes:
        question: a Tree; the answers are Trees of whole numbers, and metrics.
    """

    question: Tree
    combiner: ClassVar[Combiner] = Mean(uniform=True)

    def init(self, round: Round) -> Any:
        """Nothing is known."""
        return {}

    def share(self, state: Any, to: str, round: Round) -> Contribution:
        """The question."""
        return Contribution("query", self.question)

    def expect(self, state: Any, to: str, round: Round) -> Spec:
        """Any numbers."""
        return Spec(Leaf())

    def update(self, state: Any, combined: Contribution, round: Round) -> Any:
        """Keep the sums."""
        w: Any = combined.weight
        value = tree_map(lambda x: np.rint(np.asarray(x) * w).astype(np.int64), combined.value)
        return {"value": value, "parties": w, "metrics": {k: float(s) for k, (s, _) in combined.metrics.items()}}


@dataclass(frozen=True, eq=False)
class Teller:
    """A party's side: the only place that touches its table.

    Attributes:
        table: its rows.
        salt: of hashed words, the parties' own.
    """

    table: Any = field(repr=False, metadata={"data": True})
    salt: bytes = field(repr=False, metadata={"data": True})

    def contribute(self, shared: Contribution, local: Tree, round: Round, secret: Secret) -> tuple[Contribution, Tree]:
        """What it adds to a sum; the names of its columns are told as they are."""
        asked: Any = shared.value
        step = asked["step"]
        if step == "names":
            return Contribution("names", dict.fromkeys(self.table.columns, 0)), local
        if step == "sums":
            metrics = self._sums(Schema.from_tree(asked["schema"]), asked)
            return Contribution("sums", {"parties": np.ones(1, np.int64)}, metrics=metrics), local
        answer = {"columns": self._columns, "rows": self._rows, "counts": self._counts, "away": self._away}
        if step in answer:
            return Contribution(step, answer[step](asked)), local
        found = {name: self._found(name) for name in asked["words"]}
        if step == "words":
            return Contribution("words", {name: self._rows_of(name, found[name], asked) for name in found}), local
        most = (2**31 - 1) // max(round.asked, 1)
        rng = secret.rng("stats", round.run, str(round.number), str(round.attempt))
        told = {
            name: coded(name, found[name], np.asarray(full), self.salt, most=most, rng=rng)
            for name, full in sorted(asked["words"].items())
        }
        return Contribution("codes", told), local

    def _columns(self, asked: Any) -> Tree:
        """Has it this column, and does it hold numbers, or words?"""
        own = kinds(self.table)
        said = [[n in own, own.get(n) == "number", own.get(n) == "category"] for n in sorted(asked["names"])]
        return {"has": np.array(said, np.int64)}

    def _rows(self, asked: Any) -> Tree:
        """Its rows, those with a value, and the sizes of numbers."""
        schema, free = Schema.from_tree(asked["schema"]), Schema.from_tree(asked["free"])
        known = [len(numbers(column(self.table, n)).drop_nulls()) for n in schema.numbers]
        known += [len(column(self.table, n).drop_nulls()) for n in schema.categories]
        sizes = quantile_counts(self.table, free, np.tile(DOUBLING, (len(free.numbers), 1)))["counts"]
        rows = np.array([self.table.height], np.int64)
        return {"rows": rows, "known": np.array(known, np.int64), "sizes": sizes}

    def _counts(self, asked: Any) -> Tree:
        """Values between edges."""
        schema = Schema.from_tree(asked["schema"])
        return {k: quantile_counts(self.table, schema, e)["counts"] for k, e in asked["edges"].items()}

    def _away(self, asked: Any) -> Tree:
        """Values by their distance from the mean."""
        out = []
        for v in self._scaled(Schema.from_tree(asked["schema"]), asked):
            place = np.searchsorted(HALVES, np.abs(v), side="left")
            out.append(np.bincount(place, minlength=len(HALVES) + 1))
        return {"away": np.array(out, np.int64)}

    def _sums(self, schema: Schema, asked: Any) -> dict[str, tuple[float, float]]:
        """Sums of scaled values and of their squares, times what makes them whole numbers enough."""
        out = {}
        for i, (v, k) in enumerate(zip(self._scaled(schema, asked), asked["times"].tolist(), strict=True)):
            out[f"{i}.sum"], out[f"{i}.square"] = (k * float(v.sum()), 1.0), (k * float((v * v).sum()), 1.0)
        return out

    def _scaled(self, schema: Schema, asked: Any) -> list[Array]:
        """(x - centre) / width of the values of each column, cut to its bounds."""
        out = []
        for name, c, w, (low, high) in zip(
            schema.numbers, asked["centre"], asked["width"], asked["bounds"], strict=True
        ):
            x = numbers(column(self.table, name)).drop_nulls().to_numpy()
            out.append((np.clip(x, low, high) - c) / w)
        return out

    def _found(self, name: str) -> dict[str, int]:
        """Its words, with their rows."""
        found = words(column(self.table, name).drop_nulls()).value_counts(name="\0rows")
        return dict(zip(found.to_series(0).to_list(), found["\0rows"].to_list(), strict=True))

    def _rows_of(self, name: str, found: Mapping[str, int], asked: Any) -> Array:
        """Rows of the words that are listed, or by bucket."""
        known = asked["words"][name]
        if isinstance(known, Mapping):
            return np.array([found.get(word, 0) for word in sorted(known)], np.int64)
        return counted(name, found, self.salt, int(known))
