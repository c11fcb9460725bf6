"""The results of a comparison as JSON: every key is documented in docs/reference/compare-json.md."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from comity.comparison.hub import Traffic, merged
from comity.comparison.intervals import Interval, interval
from comity.comparison.sheet import FOR_CLASSES, FOR_NUMBERS, LOWER_IS_BETTER, loss, metrics, rows, total
from comity.comparison.verdict import judged, verdict
from comity.data.schema import Schema
from comity.report.numbers import plural

WAYS = ("alone", "ensemble", "joint", "personal", "pooled")
JOINING = ("joint", "personal", "ensemble")
"""Ways of joining, in the order in which a tie is decided."""
BOUNDED = frozenset({"accuracy", "balanced_accuracy", "roc_auc", "pr_auc"})


@dataclass(frozen=True)
class Facts:
    """What is known beside the scores.

    Attributes:
        title: of the data.
        noun: what a party is called.
        schema: what the tables have in common.
        rows: rows with a target, of every party, those left out too.
        aside: rows that name no party.
        described: bytes of the first descriptions.
        seconds: wall and CPU of the whole comparison.
    """

    title: str
    noun: str
    schema: Schema
    rows: Mapping[str, int]
    aside: int
    described: Traffic
    seconds: tuple[float, float]


def results(facts: Facts, settings: Any, repeats: Sequence[Any]) -> dict[str, Any]:
    """Everything, as a JSON-able dict."""
    table = _Table(facts.schema, repeats)
    gains = {p: table.gains([p]) for p in table.parties}
    mean_gain = table.gains(table.parties)
    taken = [table.joining(k, p) for k in range(len(repeats)) for p in table.parties]
    return {
        "version": 1,
        "title": facts.title,
        "question": _question(facts, settings, table),
        "metric": table.headline,
        "ways": {w: table.over(lambda k, w=w: table.everybody(k, w)) for w in table.ways},
        "parties_mean": {w: table.over(lambda k, w=w: table.parties_mean(k, w)) for w in table.ways},
        "parties": {p: _party(table, p, facts.rows[p], gains[p]) for p in table.ordered(gains)},
        "gain": _gain(mean_gain, taken),
        "groups": {},
        "bytes": _bytes(facts, repeats),
        "seconds": {"wall": facts.seconds[0], "cpu": facts.seconds[1]},
        "revealed": _revealed(facts.schema, table, settings),
        "verdict": verdict(
            {p: gains[p] for p in table.ordered(gains)}, mean_gain, metric=table.headline, called=facts.noun
        ),
        "left_out": _left_out(facts, table),
        "learning": _learning(repeats),
        "settings": _settings(settings, repeats),
    }


class _Table:
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

    def parties_mean(self, k: int, way: str) -> Mapping[str, float | None]:
        """Scores with each party counted once; a party whose score is undefined is not counted."""
        return {m: _mean([self._scores[k][way][p][m] for p in self.parties]) for m in self.keys}

    def party(self, k: int, way: str, party: str) -> Mapping[str, float | None]:
        """One party's scores."""
        return self._scores[k][way][party]

    def joining(self, k: int, party: str) -> str:
        """The way of joining that does best on the party's own validation rows."""
        ways = [w for w in JOINING if w in self.ways]
        return min(ways, key=lambda w: loss(self.repeats[k].ways[w][party]["valid"]))

    def gain(self, k: int, party: str) -> float | None:
        """The headline score of the chosen way of joining minus that of alone."""
        with_, without = (self._scores[k][w][party][self.headline] for w in (self.joining(k, party), "alone"))
        return None if with_ is None or without is None else with_ - without

    def gains(self, parties: Sequence[str]) -> Interval | None:
        """The mean gain of some parties, each counted once, over the repeats."""
        each = [_mean([self.gain(k, p) for p in parties]) for k in range(len(self.repeats))]
        tested = sum(rows(self.repeats[0].ways["alone"][p]["test"]) for p in parties)
        most = 1.0 if self.headline in BOUNDED else float("inf")
        return interval(each, -most, most, grain=1 / max(tested, 1))

    def over(self, of: Any) -> dict[str, Any]:
        """Each metric with its interval over the repeats."""
        each = [of(k) for k in range(len(self.repeats))]
        out = {}
        for m in self.keys:
            low = 0.0 if m in BOUNDED or m in LOWER_IS_BETTER else float("-inf")
            found = interval([e[m] for e in each], low, 1.0 if m in BOUNDED or m == "r2" else float("inf"))
            out[m] = None if found is None else found.to_json()
        return out

    def ordered(self, gains: Mapping[str, Interval | None]) -> list[str]:
        """Parties by gain, largest first; those whose gain is undefined last."""
        return sorted(self.parties, key=lambda p: (gains[p] is None, -(gains[p].mean if gains[p] else 0.0), p))  # type: ignore[union-attr]

    def no_skill(self) -> float | None:
        """The share of the largest class in the test rows."""
        if self.headline != "accuracy":
            return None
        truth = sum(r.ways["alone"][p]["test"]["confusion"].sum(axis=1) for r in self.repeats for p in self.parties)
        return float(truth.max() / truth.sum())


def _party(table: _Table, party: str, rows: int, gain: Interval | None) -> dict[str, Any]:
    n = len(table.repeats)
    taken = [table.joining(k, party) for k in range(n)]
    word = judged(gain)
    return {
        "rows": rows,
        "ways": {w: table.over(lambda k, w=w: table.party(k, w, party)) for w in table.ways},
        "gain": _gain(gain, taken),
        "verdict": word,
        "why": _why(table, gain) if word == "undefined" else None,
    }


def _gain(gain: Interval | None, taken: Sequence[str]) -> dict[str, Any] | None:
    """A gain with the way that was chosen most often."""
    return None if gain is None else {**gain.to_json(), "way": max(JOINING, key=taken.count)}


def _why(table: _Table, gain: Interval | None) -> str:
    if gain is not None:
        return "one repeat has no interval" if len(table.repeats) == 1 else "the score is defined in one repeat only"
    return "one class only in the test rows" if table.headline != "r2" else "the target does not vary in the test rows"


def _question(facts: Facts, settings: Any, table: _Table) -> dict[str, Any]:
    return {
        "target": settings.target,
        "party": settings.party,
        "task": "classes" if facts.schema.classes else "regression",
        "classes": list(facts.schema.classes),
        "rows": sum(facts.rows[p] for p in table.parties),
        "inputs": len(facts.schema.columns),
        "parties": len(table.parties),
        "noun": facts.noun,
        "set_aside": facts.aside,
        "no_skill": table.no_skill(),
    }


def _bytes(facts: Facts, repeats: Sequence[Any]) -> dict[str, Any]:
    """Of one preparation and one joint training, the mean over repeats."""
    n = len(repeats)
    all_ = merged(*(r.traffic for r in repeats))
    parties = {
        p: {"up": all_.up[p] // n + facts.described.up[p], "down": all_.down[p] // n + facts.described.down[p]}
        for p in sorted(all_.up)
    }
    sums = {side: sum(b[side] for b in parties.values()) for side in ("up", "down")}
    return {**sums, "parties": parties}


def _left_out(facts: Facts, table: _Table) -> list[dict[str, str]]:
    few = [p for p in sorted(facts.rows) if p not in table.parties]
    parties = [{"name": p, "why": f"{facts.rows[p]} {plural('row', facts.rows[p])}, fewer than 10"} for p in few]
    columns = [{"name": c, "why": why} for c, why in sorted(facts.schema.left_out.items())]
    return parties + columns


def _learning(repeats: Sequence[Any]) -> dict[str, Any]:
    """The validation loss of the chosen joint models, round by round."""
    joint = [r.joint for r in repeats]
    if not all(joint) or "log_loss" not in metrics(next(iter(repeats[0].ways["alone"].values()))["test"]):
        return {}
    ends = [interval(at, 0.0) for at in zip(*(j.curve for j in joint), strict=True)]
    side = {k: [getattr(i, k) for i in ends] for k in ("mean", "low", "high")}
    return {"way": "joint", "metric": "log_loss", "rounds": list(joint[0].rounds), **side}


def _settings(settings: Any, repeats: Sequence[Any]) -> dict[str, Any]:
    seen = {w: [r.chosen[w] for r in repeats] for w in repeats[0].chosen}
    joint = repeats[0].joint
    return {
        "seed": settings.seed,
        "repeats": settings.repeats,
        "rounds": settings.rounds,
        "model": settings.model,
        "pooled": settings.pooled,
        "chosen": {w: max(sorted(set(names)), key=names.count) for w, names in seen.items()},
        "command": "",
        "versions": {name: _version(name) for name in ("comity", "numpy", "polars", "scikit-learn")},
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "recipe": f"sha256:{joint.recipe}" if joint else None,
        "date": _day(),
        "splits": "60 / 20 / 20, stratified within each party",
    }


def _revealed(schema: Schema, table: _Table, settings: Any) -> list[dict[str, str]]:
    n, words = len(schema.columns), len(schema.categories)
    out = [
        _row("Column names, types, counts", f"{n} columns and the target, once", "each", "union", "to agree on inputs"),
        _row("Means and variances", f"{len(schema.numbers)} number columns", "each", "sum", "to scale inputs alike"),
    ]
    if words:
        out.append(
            _row("Words in category columns", f"{words} columns, with counts", "each", "union", "to code inputs")
        )
    if "joint" in table.ways:
        out.append(_row("Model changes", f"{settings.rounds} rounds", "each", "sum", "the joint model"))
    if "ensemble" in table.ways:
        out.append(_row("Own models", "one for each party", "each", "each", "the ensemble"))
    out.append(_row("Scores", "counts, losses and score histograms", "each", "each", "this report"))
    if settings.pooled:
        out.append(_row("Records", "training and validation rows, for pooled only", "each", "nothing", "the ceiling"))
    else:
        out.append(_row("Records", "none", "nothing", "nothing", "they stay"))
    return out


def _row(what: str, how_much: str, hub: str, parties: str, why: str) -> dict[str, str]:
    return {"what": what, "how_much": how_much, "hub": hub, "parties": parties, "why": why}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"


def _day() -> str:
    now = datetime.now(UTC)
    return f"{now.day} {now:%B %Y}"
