"""A ledger's entry in words: what it is, who, and what happened. Of numbers and names only, as the ledger itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from comity.ledger.record import Entry
from comity.report import numbers

NAMED = 3


@dataclass(frozen=True, slots=True)
class Line:
    """One entry as a row.

    Attributes:
        number: its place.
        time: seconds since 1970.
        kind: a word.
        who: whom it is about.
        what: a sentence.
        hash: 64 hex digits.
        bad: did something go wrong?
    """

    number: int
    time: float
    kind: str
    who: str
    what: str
    hash: str
    bad: bool = False


def line(entry: Entry) -> Line:
    """An entry as a row.

    Example:
        >>> from comity.ledger.record import Ledger
        >>> line(Ledger().append("start", {"recipe": "9f2c41d7" * 8, "seed": 0}, time=0.0)).what
        'recipe 9f2c 41d7, seed 0'
    """
    facts: Any = entry.facts if isinstance(entry.facts, Mapping) else {}
    say = {"round": _round, "score": _score, "spend": _spend, "start": _start, "choice": _choice}.get(entry.kind)
    kind, who, what, bad = say(facts) if say and facts else (entry.kind, "hub", "", not facts)
    return Line(entry.number, entry.time, kind, who, what, entry.hash, bad)


def people(names: list[str]) -> str:
    """Names where they are few, else how many."""
    return ", ".join(names) if 0 < len(names) <= NAMED else f"{numbers.count(len(names))} parties"


def metric(name: str, pair: Any) -> str:
    """A metric and its value."""
    total, count = float(pair[0]), float(pair[1])
    return f"{numbers.metric_name(name)} {numbers.fixed(total / count) if count else numbers.DASH}"


def _asked(facts: Any) -> list[str]:
    return facts["asked"].split("\n") if facts.get("asked") else []


def _said(facts: Any) -> list[str]:
    return [metric(name, pair) for name, pair in sorted((facts.get("metrics") or {}).items())]


def _bytes(facts: Any) -> str:
    up, down = (sum(int(n) for n in facts.get(key, ())) for key in ("up", "down"))
    return f"{numbers.size(up)} up, {numbers.size(down)} down"


def _round(facts: Any) -> tuple[str, str, str, bool]:
    asked, closed = _asked(facts), bool(facts.get("closed"))
    answered = sum(bool(a) for a in facts.get("accepted", ()))
    said = [f"round {int(facts.get('round', 0)) + 1}", f"{answered} of {len(asked)} answered", *_said(facts)]
    if int(facts.get("attempt", 0)):
        said.insert(1, f"attempt {int(facts['attempt']) + 1}")
    left = [(str(r["sender"]), str(r["reason"]).removeprefix(f"{r['sender']}: ")) for key in ("refused", "dropped")
            for r in (facts.get(key) or {}).values()]  # fmt: skip
    said += [f"{who}: {why}" for who, why in left[:NAMED]]
    said += [f"and {len(left) - NAMED} more without an answer"] if len(left) > NAMED else []
    if why := facts.get("failed"):
        said.append(str(why))
    return ("closed" if closed else "not closed"), people(asked), f"{', '.join(said)}; {_bytes(facts)}", not closed


def _score(facts: Any) -> tuple[str, str, str, bool]:
    said = ", ".join(_said(facts)) or "no scores"
    return (
        "scored",
        people(_asked(facts)),
        f"after round {int(facts.get('round', 0))}, {said}; {_bytes(facts)}",
        False,
    )


def _spend(facts: Any) -> tuple[str, str, str, bool]:
    who = str(facts.get("who") or "")
    count, noise = int(facts.get("count", 1)), float(facts.get("noise", 0.0))
    said = [
        f"{numbers.count(count)} {numbers.plural('release', count)}",
        str(facts.get("mechanism", "")),
        f"noise {noise:g}",
    ]
    if (rate := float(facts.get("rate", 1.0))) < 1:
        said.append(f"sample {numbers.percent(rate)}")
    if "round" in facts:
        said.insert(0, f"round {int(facts['round']) + 1}")
    return "spent", people(who.split("\n")) if who else "all", ", ".join(said), False


def _start(facts: Any) -> tuple[str, str, str, bool]:
    return "started", "hub", f"recipe {short(str(facts.get('recipe', '')))}, seed {facts.get('seed', '')}", False


def _choice(facts: Any) -> tuple[str, str, str, bool]:
    return "chose", "hub", ", ".join(f"{k} {v}" for k, v in facts.items() if isinstance(v, str | int | float)), False


def short(text: str) -> str:
    """Eight digits of a hash."""
    return f"{text[:4]} {text[4:8]}".strip()
