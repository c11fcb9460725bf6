"""How parties agree on one preparation: scales from means, words from a source, and what fills a gap."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from comity.combine.mean import Mean
from comity.core.contribution import Array
from comity.core.errors import ConfigError
from comity.data.dictionary import Dictionary
from comity.data.prepare import Preparation
from comity.data.quantiles import first_edges, median_bounds, merge_bounds, middle, refine
from comity.data.schema import Schema
from comity.data.statistics import rounded, variance
from comity.data.vocabularies import Open, Vocabulary

Ask = Callable[..., Any]
"""ask(step, combiner or None, **question) -> the combined answer, {party: answer} where there is no combiner."""
FLAT = 1e300
"""The scale of a column that does not vary: whatever stands in it becomes 0."""
HALVINGS = 4
"""Rounds of counts for a median: each cuts its bin into 64."""


@dataclass(frozen=True)
class Preparing:
    """What is asked of the parties to make a preparation.

    Attributes:
        words: where the words of category columns come from.
        fill: "mean" or "median": what a missing number is taken for.
        dictionary: its ranges bound the medians; without one the parties say outward-rounded ends openly.

    Raises:
        ConfigError: another `fill`.
    """

    words: Vocabulary = field(default_factory=Open)
    fill: str = "mean"
    dictionary: Dictionary | None = None

    def __post_init__(self) -> None:
        if self.fill not in ("mean", "median"):
            raise ConfigError(f"The 'fill' must be 'mean' or 'median'. Got {self.fill!r}.")

    def collect(self, schema: Schema, ask: Ask) -> Preparation:
        """Ask, and make one preparation for all.

        Args:
            schema: as agreed.
            ask: a query to every desk.
        """
        means = ask("moments", Mean())
        if rounded(means):
            means = {**means, "variance": ask("spread", Mean(), centre=means["mean"])["square"]}
        words = self.words.collect(schema, _list_of(ask))
        centre = self._medians(schema, ask) if self.fill == "median" and schema.numbers else None
        return steady(Preparation.of(schema, means, words, centre=centre), means)

    def _medians(self, schema: Schema, ask: Ask) -> Array:
        """A few rounds of counts between public bounds, each in the bin that held the median in the last."""
        edges = first_edges(self._bounds(schema, ask))
        for _ in range(HALVINGS):
            edges = refine(ask("counts", Mean(uniform=True), edges=edges)["counts"], edges)
        return middle(edges)

    def _bounds(self, schema: Schema, ask: Ask) -> Array:
        known = np.full((len(schema.numbers), 2), np.nan)
        if self.dictionary is not None:
            known = median_bounds(self.dictionary, schema)
        if not np.isnan(known).any():
            return known
        said = merge_bounds(_bounds_of(answer) for answer in ask("bounds", None).values())
        return np.where(np.isnan(known), said, known)

    def revealed(self, schema: Schema) -> list[tuple[str, str]]:
        """(what, how much) beyond the means, for the report."""
        out = []
        if schema.categories:
            out.append(("Words in category columns", self.words.reveals))
        if self.fill == "median" and schema.numbers:
            out.append(("Medians", f"{HALVINGS} rounds of counts in 64 bins; narrow bins are nearly single rows"))
        return out


def steady(made: Preparation, m: Mapping[str, Any]) -> Preparation:
    """A column that never varies where this was prepared, by the moments there, stays 0 elsewhere too.

    Else what a network's untrained weights make of it there would be chance.
    """
    n = len(made.schema.numbers)
    flat = variance(m) == 0
    return replace(made, scale=np.where(flat[:n], FLAT, made.scale), gaps=made.gaps & (m["count"][:n] > 0))


def bounds_tree(bounds: Array) -> dict[str, Array]:
    """Bounds as they travel: NaN, where a party has no value, is marked."""
    return {"ends": np.nan_to_num(bounds), "known": ~np.isnan(bounds)}


def _bounds_of(tree: Mapping[str, Any]) -> Array:
    return np.where(tree["known"], tree["ends"], np.nan)


def thin(columns: Mapping[str, Array]) -> dict[str, Any]:
    """Arrays that are mostly 0, counts of hashed words for one, by what is not: {"at", "value", "size"} for each."""
    return {name: _thin(x) for name, x in columns.items()}


def _thin(x: Array) -> Any:
    if 8 * np.count_nonzero(x) > x.size:
        return x
    at = np.flatnonzero(x).astype(np.int32)
    return {"at": at, "value": x[at], "size": x.size}


def full(columns: Mapping[str, Any]) -> dict[str, Array]:
    """What `thin` was given: (buckets,) for each column."""
    return {name: _full(x) if isinstance(x, Mapping) else x for name, x in columns.items()}


def _full(x: Mapping[str, Any]) -> Array:
    out = np.zeros(x["size"], x["value"].dtype)
    out[x["at"]] = x["value"]
    return out


def _list_of(ask: Ask) -> Callable[[str, Mapping[str, Any]], Sequence[Any]]:
    def answers(step: str, question: Mapping[str, Any]) -> Sequence[Any]:
        asked = {**question, "allowed": thin(question["allowed"])} if step == "reveal" else question
        said = ask(step, None, **asked)
        return [full(said[party]) if step == "hashed" else said[party] for party in sorted(said)]

    return answers
