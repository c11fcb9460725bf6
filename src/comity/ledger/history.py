"""What happened round by round: the ledger as columns of a table."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from comity.ledger.record import Entry, Ledger


def history(entries: Iterable[Entry]) -> dict[str, list[Any]]:
    """One row for each closed round.

    Bytes are of everything up to the close of a round since the one before: attempts that failed and
    scores that were taken too. A metric of scores comes before one of that name from training. Where several hubs hear
    one participant (gossip), it is asked and accepted once, and its bytes count once; its training metrics count at
    each hub that heard it.

    Args:
        entries: a ledger, or its entries in order.

    Returns:
        `round` (counted from 1), `asked`, `accepted` (participants, by at least one hub), `bytes_up`,
        `bytes_down`, and each metric by its name: a ratio of sums, None where it was not taken.

    Example:
        >>> from comity.ledger.record import Ledger
        >>> ledger, up = Ledger(), np.array([40, 50])
        >>> facts = {"round": 0, "asked": "ada\\nbob", "accepted": np.array([True, False]), "up": up, "down": up}
        >>> entry = ledger.append("round", facts | {"metrics": {"loss": np.array([3.0, 6.0])}, "closed": True}, time=0)
        >>> history(ledger)
        {'round': [1], 'asked': [2], 'accepted': [1], 'bytes_up': [90], 'bytes_down': [90], 'loss': [0.5]}
    """
    rows: list[_Row] = []
    row = _Row(-1)
    for entry in entries:
        facts: Any = entry.facts
        if entry.kind == "score" and rows:
            rows[-1].heard(entry.kind, facts)
            continue
        if facts.get("closed") and rows and rows[-1].number == facts.get("round"):
            row = rows[-1]  # another hub of the same round
        row.heard(entry.kind, facts)
        if entry.kind == "round" and facts.get("closed"):
            row.close(facts)
            rows += [row] if not rows or rows[-1] is not row else []
            row = _Row(-1)
    return _columns(rows)


class _Row:
    """One round while it is counted."""

    def __init__(self, number: int) -> None:
        self.number, self.up, self.down = number, 0, 0
        self.hubs: list[Any] = []
        self.metrics: dict[str, dict[str, tuple[float, float]]] = {"score": {}, "round": {}}

    def heard(self, kind: str, facts: Any) -> None:
        self.up += int(np.sum(facts.get("up", 0)))
        self.down += int(np.sum(facts.get("down", 0)))
        if kind == "score" or facts.get("closed"):
            mine = self.metrics.setdefault(kind, {})
            for name, (total, count) in (facts.get("metrics") or {}).items():
                before = mine.get(name, (0.0, 0.0))
                mine[name] = (before[0] + float(total), before[1] + float(count))

    def close(self, facts: Any) -> None:
        self.number = int(facts["round"])
        self.hubs.append(facts)

    @property
    def asked(self) -> int:
        return len({name for facts in self.hubs for name in _names(facts)})

    @property
    def accepted(self) -> int:
        if len(self.hubs) == 1:
            return int(np.sum(self.hubs[0].get("accepted", 0)))
        pairs = (zip(_names(facts), facts.get("accepted", ()), strict=False) for facts in self.hubs)
        return len({name for hub in pairs for name, accepted in hub if accepted})

    def metric(self, name: str) -> float | None:
        total, count = self.metrics["score"].get(name) or self.metrics["round"].get(name) or (0.0, 0.0)
        return total / count if count else None


def _names(facts: Any) -> list[str]:
    return facts["asked"].split("\n") if facts.get("asked") else []


def _columns(rows: list[_Row]) -> dict[str, list[Any]]:
    names = sorted({name for row in rows for kind in ("score", "round") for name in row.metrics[kind]})
    fixed: dict[str, list[Any]] = {
        "round": [row.number + 1 for row in rows],
        "asked": [row.asked for row in rows],
        "accepted": [row.accepted for row in rows],
        "bytes_up": [row.up for row in rows],
        "bytes_down": [row.down for row in rows],
    }
    return fixed | {name: [row.metric(name) for row in rows] for name in names}


def tried(ledger: Ledger) -> int:
    """Attempts at the round that is open, of which none closed."""
    last: Any = next((e.facts for e in reversed(ledger) if e.kind == "round"), None)
    return 0 if last is None or last["closed"] else int(last["attempt"]) + 1


def scored(ledger: Ledger) -> bool:
    """Were scores taken since the last round that closed?"""
    ends = (e for e in reversed(ledger) if e.kind in ("score", "start") or e.facts.get("closed"))  # type: ignore[union-attr]
    return next((e.kind for e in ends), "") != "round"
