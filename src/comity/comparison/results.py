"""The results of a comparison as JSON: every key is documented in docs/reference/compare-json.md."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from comity.comparison import fair, private
from comity.comparison.disclosure import card, protection, revealed
from comity.comparison.hub import Traffic, merged
from comity.comparison.intervals import Interval, interval
from comity.comparison.sheet import loss, metrics, total
from comity.comparison.table import JOINING, WAYS, Table, mean, to_json
from comity.comparison.verdict import costs, harms, judged, verdict
from comity.data.schema import Schema
from comity.report.numbers import plural

WATTS = 15.0
"""What a busy core is assumed to draw."""


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
        prepared: what the preparation revealed beyond means, and how much.
        command: how to get the same again.
    """

    title: str
    noun: str
    schema: Schema
    rows: Mapping[str, int]
    aside: int
    described: Traffic
    seconds: tuple[float, float]
    prepared: Sequence[tuple[str, str]]
    command: str


def results(facts: Facts, settings: Any, repeats: Sequence[Any]) -> dict[str, Any]:
    """Everything, as a JSON-able dict."""
    table = Table(facts.schema, repeats)
    gains = {p: table.gains([p]) for p in table.parties}
    mean_gain = table.gains(table.parties)
    taken = [table.joining(k, p) for k in range(len(repeats)) for p in table.parties]
    influence = _influence(table)
    ordered = {p: gains[p] for p in table.ordered(gains)}
    joint = {p: table.gains([p], "joint") for p in ordered if "joint" in table.ways}
    said = [
        verdict(ordered, mean_gain, metric=table.headline, called=facts.noun),
        *costs(joint, gains, table.headline),
        *harms(influence, joint),
    ]
    return {
        "version": 1,
        "title": facts.title,
        "question": _question(facts, settings, table),
        "metric": table.headline,
        "ways": {w: table.over(lambda k, w=w: table.everybody(k, w)) for w in table.ways},
        "parties_mean": {w: table.over(lambda k, w=w: table.partiesmean(k, w)) for w in table.ways},
        "parties": {p: _party(table, p, facts.rows[p], gains[p]) for p in table.ordered(gains)},
        "gain": _gain(mean_gain, taken),
        "way_to_pooled": _way_to_pooled(table, mean_gain),
        "groups": {name: table.groups(name) for name in settings.groups},
        "fair": fair.results(table, settings.fair) if settings.fair else None,
        "private": private.results(table, settings) if settings.private else None,
        "unseen": _unseen(table),
        "influence": influence,
        "cost": _cost(repeats),
        "bytes": _bytes(facts, repeats),
        "seconds": {"wall": facts.seconds[0], "cpu": facts.seconds[1]},
        "revealed": revealed(facts.schema, table.ways, settings, facts.prepared),
        "protection": protection(facts.schema, table.ways, settings, facts.prepared),
        "card": card(facts, settings, table),
        "verdict": " ".join(said),
        "interval_note": _note(table, facts.noun),
        "left_out": _left_out(facts, table),
        "learning": _learning(repeats),
        "settings": _settings(settings, repeats, facts.command),
    }


def _party(table: Table, party: str, rows: int, gain: Interval | None) -> dict[str, Any]:
    n = len(table.repeats)
    taken = [table.joining(k, party) for k in range(n)]
    word = judged(gain)
    return {
        "rows": rows,
        "share": table.share(party),
        "ways": {w: table.over(lambda k, w=w: table.party(k, w, party)) for w in table.ways},
        "against": {w: to_json(table.gains([party], w)) for w in table.ways if w != "alone"},
        "gain": _gain(gain, taken),
        "verdict": word,
        "why": _why(table, gain) if word == "undefined" else None,
    }


def _gain(gain: Interval | None, taken: Sequence[str]) -> dict[str, Any] | None:
    """A gain with the way that was chosen most often."""
    return None if gain is None else {**gain.to_json(), "way": max(JOINING, key=taken.count)}


def _way_to_pooled(table: Table, gain: Interval | None) -> dict[str, float | None] | None:
    """The mean gain as a share of what pooling would gain; None where pooling gains nothing to speak of.

    The interval is the gain's: the distance from alone to pooled is taken as it is.
    """
    if gain is None or "pooled" not in table.ways:
        return None
    ceiling = table.gains(table.parties, "pooled")
    if ceiling is None or ceiling.mean < 0.0005:
        return None
    return {k: None if v is None else v / ceiling.mean for k, v in gain.to_json().items()}


def _why(table: Table, gain: Interval | None) -> str:
    if gain is not None:
        return "one repeat has no interval" if len(table.repeats) == 1 else "the score is defined in one repeat only"
    return "one class only in the test rows" if table.headline != "r2" else "the target does not vary in the test rows"


def _question(facts: Facts, settings: Any, table: Table) -> dict[str, Any]:
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


def _unseen(table: Table) -> dict[str, Any]:
    """The joint model at each party that took no part in it, on the first split."""
    found = table.repeats[0].unseen
    alone = {p: table.party(0, "alone", p)[table.headline] for p in table.parties}
    return {p: {**metrics(one.there["test"]), "alone": alone[p]} for p, one in sorted(found.items())}


def _influence(table: Table) -> dict[str, Any]:
    """What the others' joint model gains where a party takes no part, on the first split.

    `gain` is in units of the headline metric, the mean over the others on test rows; `loss` is their mean loss on
    held-out rows, validation and test, with the party and without it, `better` for how many it is lower without.
    """
    out = {}
    for party, one in sorted(table.repeats[0].unseen.items()):
        others = sorted(one.others)
        without = {p: one.others[p]["test"] for p in others}
        with_ = {p: table.repeats[0].ways["joint"][p]["test"] for p in others}
        left = {p: _held(one.others[p]) for p in others}
        kept = {p: _held(table.repeats[0].ways["joint"][p]) for p in others}
        gains = [_minus(metrics(without[p])[table.headline], metrics(with_[p])[table.headline]) for p in others]
        out[party] = {
            "gain": mean(gains),
            "loss": {"with": loss(total(list(kept.values()))), "without": loss(total(list(left.values())))},
            "others": len(others),
            "better": sum(loss(left[p]) < loss(kept[p]) for p in others),
        }
    return out


def _held(sheets: Mapping[str, Any]) -> Any:
    """Validation and test rows together: both models were stopped on the former alike."""
    return total([sheets["valid"], sheets["test"]])


def _minus(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def _cost(repeats: Sequence[Any]) -> dict[str, Any]:
    """CPU seconds of one joint training at each party, the mean over repeats, and an estimate of the energy."""
    parties = {}
    for p in sorted(repeats[0].seconds):
        seconds = sum(r.seconds[p] for r in repeats) / len(repeats)
        parties[p] = {"seconds": seconds, "watt_hours": seconds * WATTS / 3600}
    return {"parties": parties, "assumed_watts": WATTS}


def _note(table: Table, called: str) -> str:
    n = len(table.repeats)
    if n == 1:
        return "One split: nothing is known of the noise."
    every = f"all {len(table.parties)} {plural(called, len(table.parties))}" if len(table.parties) > 2 else "both"
    return f"Scores: 95 % over {n} splits, the same for every way. Gains: 95 % for {every} together."


def _left_out(facts: Facts, table: Table) -> list[dict[str, str]]:
    few = [p for p in sorted(facts.rows) if p not in table.parties]
    parties = [{"name": p, "why": f"{facts.rows[p]} {plural('row', facts.rows[p])}, fewer than 10"} for p in few]
    columns = [{"name": c, "why": why} for c, why in sorted(facts.schema.left_out.items())]
    return parties + columns


def _learning(repeats: Sequence[Any]) -> dict[str, Any]:
    """The validation loss of the chosen joint models, round by round, beside that of alone and pooled."""
    joint = [r.joint for r in repeats]
    if not all(joint) or "log_loss" not in metrics(next(iter(repeats[0].ways["alone"].values()))["test"]):
        return {}
    curves = [j.curve for j in joint if j.rounds == joint[0].rounds]  # other sorts of training count other rounds
    ends = [interval(at, 0.0) for at in zip(*curves, strict=True)]
    side = {k: [getattr(i, k) for i in ends] for k in ("mean", "low", "high")}
    beside = [way for way in ("alone", "pooled") if all(way in r.ways for r in repeats)]
    reference = {way: mean([_valid_loss(r.ways[way]) for r in repeats]) for way in beside}
    return {"way": "joint", "metric": "log_loss", "rounds": list(joint[0].rounds), **side, "reference": reference}


def _valid_loss(sheets: Mapping[str, Any]) -> float:
    """Over all parties' validation rows together."""
    return loss(total([one["valid"] for one in sheets.values()]))


def _settings(settings: Any, repeats: Sequence[Any], command: str) -> dict[str, Any]:
    seen = {w: [r.chosen[w] for r in repeats if w in r.chosen] for w in WAYS if any(w in r.chosen for r in repeats)}
    joint = repeats[0].joint
    return {
        "seed": settings.seed,
        "repeats": settings.repeats,
        "rounds": settings.rounds,
        "model": settings.model,
        "pooled": settings.pooled,
        "chosen": {w: max(sorted(set(names)), key=names.count) for w, names in seen.items()},
        "command": command,
        "versions": {name: _version(name) for name in ("comity", "numpy", "polars", "scikit-learn")},
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "recipe": f"sha256:{joint.recipe}" if joint else None,
        "date": _day(),
        "splits": "60 / 20 / 20, stratified within each party",
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"


def _day() -> str:
    now = datetime.now(UTC)
    return f"{now.day} {now:%B %Y}"
