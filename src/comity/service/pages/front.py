"""What the first page shows: all runs, who asks to join, and the parties of the hub."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from comity.service.keys import fingerprint
from comity.service.pages.board import Asking, Boards, asking_of, shape_of, state_of, title_of
from comity.service.pages.sessions import Who
from comity.service.parties import Party
from comity.service.runs import RunRow

SHOWN = 100


@dataclass(frozen=True, slots=True)
class Row:
    """A run in the list; of a comparison its newest step, with `before` of them behind it."""

    run: str
    title: str
    state: str
    shape: str
    why: str
    closed: int
    total: int
    parties: int
    begun: float
    ended: float | None
    before: int


@dataclass(frozen=True, slots=True)
class Person:
    """A party in the list; `short` is the beginning of its key's fingerprint."""

    name: str
    status: str
    roles: tuple[str, ...]
    last_seen: float | None
    short: str


@dataclass(frozen=True)
class Front:
    """The first page at one moment."""

    runs: Sequence[Row]
    more: int
    asking: Sequence[Asking]
    people: Sequence[Person]


def front(station: Any, boards: Boards, who: Who) -> Front:
    """What one who is logged in sees: a party, only the runs that concern it."""
    rows = [row for row in station.runs.all() if sees(row, who)]
    people = station.registry.parties() if who.all else []
    waiting = [asking_of(p) for p in people if p.status == "waiting" and p.key]
    apart = _apart(rows)
    shown = [_row(some, boards) for some in apart[:SHOWN]]
    return Front(shown, max(0, len(apart) - SHOWN), waiting, [_person(p) for p in people if p.status != "removed"])


def sees(row: RunRow, who: Who) -> bool:
    """May somebody look at a run? A party that takes part in it, or is invited to."""
    return who.all or row.concerns(who.name)


def _apart(rows: Sequence[RunRow]) -> list[list[RunRow]]:
    """Each run by itself, and the steps of one comparison together; newest first."""
    found: dict[str, list[RunRow]] = {}
    for row in rows:
        together = str(row.about.get("id", "")) if row.about.get("comparison") else ""
        found.setdefault(together or f"run {row.run}", []).append(row)
    return list(found.values())


def _row(steps: Sequence[RunRow], boards: Boards) -> Row:
    row = steps[0]
    total = row.about.get("rounds")
    parties = len(row.roster or row.invited)
    return Row(
        row.run, title_of(row), state_of(row), shape_of(row), row.why, boards.readings.of(row.folder).rounds,
        total if isinstance(total, int) else 0, parties, row.begun, row.ended, len(steps) - 1,
    )  # fmt: skip


def _person(party: Party) -> Person:
    short = fingerprint(party.key)[:9] if party.key else "none"
    return Person(party.name, party.status, party.roles, party.last_seen, short)
