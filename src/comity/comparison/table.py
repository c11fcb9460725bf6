"""Scores by repeat, way, party and group, and what follows from them."""

from collections.abc import Mapping, Sequence
from typing import Any

from comity.comparison.intervals import Interval, interval
from comity.comparison.sheet import FOR_CLASSES, FOR_NUMBERS, LOWER_IS_BETTER, loss, metrics, rows, total
from comity.data.schema import Schema

WAYS = ("alone", "ensemble", "joint", "personal", "private", "pooled")
JOINING = ("joint", "personal", "ensemble")
"""Ways of joining, in the order in which a tie is decided."""
BOUNDED = frozenset({"accuracy", "balanced_accuracy", "roc_auc", "pr_auc"})
LEAST = 10
"""Test rows in a split below which a group has no score of its own."""


class Table:
    """Scores by repeat, way and party."""

    def __init__(self, schema: Schema, repeats: Sequence[Any]) -> None:
        self.repeats = repeats
        self.keys = FOR_CLASSES if schema.classes else FOR_NUMBERS
        self.headline = "r2" if not schema.classes else "roc_auc" if len(schema.classes) == 2 else "accuracy"
        self.ways = [w for w in WAYS if all(w in r.ways for r in repeats)]
        self.parties = sorted(repeats[0].ways["alone"])
        self._scores = [
            {w: {p: metrics(r.ways[w][p]["test"]) for p in self.parties} for w in self.ways} for r in repeats
        ]

    def everybody(self, k: int, way: str) -> Mapping[str, float | None]:
        """Scores over all parties' test rows together."""
        return metrics(total([self.repeats[k].ways[way][p]["test"] for p in self.parties]))

    def partiesmean(self, k: int, way: str) -> Mapping[str, float | None]:
        """Scores with each party counted once; a party whose score is undefined is not counted."""
        return {m: mean([self._scores[k][way][p][m] for p in self.parties]) for m in self.keys}

    def party(self, k: int, way: str, party: str) -> Mapping[str, float | None]:
        """One party's scores."""
        return self._scores[k][way][party]

    def joining(self, k: int, party: str) -> str:
        """The way of joining that does best on the party's own validation rows."""
        ways = [w for w in JOINING if w in self.ways]
        return min(ways, key=lambda w: loss(self.repeats[k].ways[w][party]["valid"]))

    def gain(self, k: int, party: str, way: str | None = None, base: str = "alone") -> float | None:
        """The headline score of a way, by default the chosen way of joining, minus that of another."""
        ways = (way or self.joining(k, party), base)
        with_, without = (self._scores[k][w][party][self.headline] for w in ways)
        return None if with_ is None or without is None else with_ - without

    def gains(self, parties: Sequence[str], way: str | None = None, base: str = "alone") -> Interval | None:
        """The mean gain of some parties over another way, each counted once, over the repeats.

        That of a single party is one of as many as there are parties: all hold together with 95 %.
        """
        each = [mean([self.gain(k, p, way, base) for p in parties]) for k in range(len(self.repeats))]
        tested = sum(rows(self.repeats[0].ways["alone"][p]["test"]) for p in parties)
        most = 1.0 if self.headline in BOUNDED else float("inf")
        together = len(self.parties) if len(parties) == 1 else 1
        return interval(each, -most, most, grain=1 / max(tested, 1), together=together)

    def groups(self, name: str) -> dict[str, Any]:
        """Scores by group, over all parties' test rows, and the gap between the best and the worst served.

        `values` are test rows in a split, the mean over the repeats.
        """
        sheets = [[self._of_group(k, w, name) for w in self.ways] for k in range(len(self.repeats))]
        seen = sorted({g for each in sheets for of_way in each for g in of_way})
        tested = {g: sum(rows(sheets[k][0][g]) for k in range(len(sheets)) if g in sheets[k][0]) for g in seen}
        told = [g for g in seen if tested[g] >= LEAST * len(self.repeats)]
        ways = {w: self._gap([each[i] for each in sheets], seen, told) for i, w in enumerate(self.ways)}
        return {"values": {g: round(tested[g] / len(self.repeats)) for g in seen}, "ways": ways}

    def _of_group(self, k: int, way: str, name: str) -> dict[str, Any]:
        found: dict[str, list[Any]] = {}
        for p in self.parties:
            for g, one in self.repeats[k].ways[way][p]["groups"][name].items():
                found.setdefault(g, []).append(one)
        return {g: total(each) for g, each in found.items()}

    def _gap(self, sheets: Sequence[Mapping[str, Any]], seen: Sequence[str], told: Sequence[str]) -> dict[str, Any]:
        each = [{g: metrics(s[g])[self.headline] if g in s else None for g in told} for s in sheets]
        low, high = _ends(self.headline)
        spans = [_span([v for v in one.values() if v is not None]) for one in each]
        scored = {g: to_json(interval([one[g] for one in each], low, high)) if g in told else None for g in seen}
        return {"groups": scored, "gap": to_json(interval(spans, 0.0, high - low))}

    def over(self, of: Any) -> dict[str, Any]:
        """Each metric with its interval over the repeats."""
        each = [of(k) for k in range(len(self.repeats))]
        out = {}
        for m in self.keys:
            out[m] = to_json(interval([e[m] for e in each], *_ends(m)))
        return out

    def ordered(self, gains: Mapping[str, Interval | None]) -> list[str]:
        """Parties by gain, largest first; those whose gain is undefined last."""
        return sorted(self.parties, key=lambda p: (gains[p] is None, -(gains[p].mean if gains[p] else 0.0), p))  # type: ignore[union-attr]

    def share(self, party: str) -> float | None:
        """The share of the second of two classes in a party's test rows."""
        if self.headline != "roc_auc":
            return None
        truth = sum(r.ways["alone"][party]["test"]["confusion"].sum(axis=1) for r in self.repeats)
        return float(truth[1] / truth.sum()) if truth.sum() else None

    def no_skill(self) -> float | None:
        """The share of the largest class in the test rows."""
        if self.headline != "accuracy":
            return None
        truth = sum(r.ways["alone"][p]["test"]["confusion"].sum(axis=1) for r in self.repeats for p in self.parties)
        return float(truth.max() / truth.sum())


def mean(values: Sequence[float | None]) -> float | None:
    """Of those that are known."""
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None


def to_json(found: Interval | None) -> dict[str, float | None] | None:
    """As it stands in the results."""
    return None if found is None else found.to_json()


def _ends(metric: str) -> tuple[float, float]:
    """The least and the largest value that a metric can have."""
    low = 0.0 if metric in BOUNDED or metric in LOWER_IS_BETTER else float("-inf")
    return low, 1.0 if metric in BOUNDED or metric == "r2" else float("inf")


def _span(values: Sequence[float]) -> float | None:
    return max(values) - min(values) if len(values) > 1 else None
