"""What the page of a run shows, as plain values: from the database and the ledger, so that any process can show it."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from comity.report import numbers
from comity.service.keys import fingerprint
from comity.service.pages.budget import Budget, Budgets
from comity.service.pages.curve import Curve, curve_of, headline
from comity.service.pages.lines import Line, line
from comity.service.pages.reading import Heard, Read, Readings
from comity.service.pages.sessions import Who
from comity.service.parties import Party
from comity.service.runs import RunRow

HERE, TAIL, LATEST, ASKING = 60.0, 7, 20, 3
"""Seconds within which a party that polls is here; entries, rounds for a forecast, and parties that wait, shown."""


NOBODY = Heard()


@dataclass(frozen=True, slots=True)
class Seat:
    """A party in a run.

    Attributes:
        name: the party's.
        state: a word.
        shape: "ok", "work", "away" or "bad".
        note: what more there is to say.
        since: seconds since 1970 from which `note` counts; None for none.
        seen: when it was last heard; None for never, or where that is not shown.
        heard: what the ledger says of it.
    """

    name: str
    state: str
    shape: str
    note: str = ""
    since: float | None = None
    seen: float | None = None
    heard: Heard = NOBODY


@dataclass(frozen=True, slots=True)
class Asking:
    """A party that waits for approval: its fingerprint in groups of four."""

    name: str
    groups: tuple[str, ...]
    seen: float | None = None

    @property
    def key(self) -> str:
        """All 64 digits."""
        return "".join(self.groups)


@dataclass(frozen=True, slots=True)
class Notice:
    """What an operator should know at once."""

    head: str
    text: str
    alarm: bool = True


@dataclass(frozen=True, slots=True)
class File:
    """Something to take away: its name, where it is, and what it is."""

    name: str
    path: str
    note: str
    mono: bool = False


@dataclass(frozen=True)
class Board:
    """The page of a run at one moment. Attributes are named as on the page."""

    row: RunRow
    title: str
    state: str
    shape: str
    open: int
    closed: int
    total: int
    answered: int
    asked: int
    needs: int
    left: str
    left_range: str
    up: int
    down: int
    score: str
    score_name: str
    score_round: int
    notice: Notice | None
    seats: Sequence[Seat]
    summary: str
    asking: Sequence[Asking]
    curve: Curve | None
    budget: Budget
    lines: Sequence[Line]
    entries: int
    fault: str
    checked: float = field(compare=False)
    holds: str
    files: Sequence[File]

    @property
    def done(self) -> float:
        """Rounds closed, in percent."""
        return 100 * min(1.0, self.closed / self.total) if self.total else 0.0

    @property
    def live(self) -> bool:
        """Has it not come to its end?"""
        return self.row.live


class Boards:
    """Makes boards of the runs of one hub.

    Args:
        station: with `registry`, `runs` and `box`.
    """

    def __init__(self, station: Any) -> None:
        self._station, self.readings, self.budgets = station, Readings(), Budgets()

    def of(self, row: RunRow) -> Board:
        """All there is to know of a run now."""
        station = self._station
        read = self.readings.of(row.folder)
        people = {party.name: party for party in station.registry.parties()}
        asked = station.box.progress(row.run) if row.state in ("running", "paused") else []
        agreed = station.runs.agreements(row.run) if row.state == "gathering" else {}
        seats = [_seat(name, people.get(name), read, asked, row, agreed) for name in row.roster or row.invited]
        needs = math.ceil(_quorum(row.recipe) * len(asked)) if asked else 0
        name, points = headline(read.metrics)
        waiting = [asking_of(p) for p in people.values() if p.status == "waiting" and p.key]
        total = _whole(row.about.get("rounds"))
        at = max((int(a.number) + 1 for a in asked), default=min(read.rounds + 1, total or read.rounds + 1))
        board = Board(
            row=row, title=title_of(row), state=state_of(row), shape=shape_of(row), open=at,
            closed=read.rounds, total=total, answered=sum(a.state == "done" for a in asked), asked=len(asked),
            needs=needs, left="", left_range="", up=read.bytes[0], down=read.bytes[1],
            score=numbers.fixed(points[-1][1]) if points else numbers.DASH, score_name=numbers.metric_name(name),
            score_round=points[-1][0] if points else 0, notice=None, seats=seats,
            summary=_summary(row, seats, len(waiting), agreed), asking=waiting,
            curve=curve_of(name, points, total, row.about),
            budget=self.budgets.of(row.run, row.recipe, read.spends, read.rounds, total),
            lines=[line(e) for e in reversed(read.entries[-TAIL:])], entries=len(read.entries), fault=read.fault,
            checked=read.checked, holds=_holds(station.runs.heads(row.run), read), files=_files(row, read),
        )  # fmt: skip
        return _timed(replace(board, notice=_notice(board)), read)


def seen_by(board: Board, who: Who) -> Board:
    """The same for one who is logged in.

    A party sees everything that the ledger holds, since it gets and checks that ledger anyway. What only the hub's own
    tables know of others (when they were heard, what they do now, who asks to join) and the model are not shown to it.
    """
    if who.all:
        return board
    seats = [s if s.name == who.name else replace(s, state="takes part", shape="ok", note="", since=None, seen=None)
             for s in board.seats]  # fmt: skip
    files = [f for f in board.files if not f.path.startswith("state/")]
    return replace(board, seats=seats, asking=(), files=files, holds="", summary=f"{len(seats)} take part")


_SHAPES = {"gathering": "work", "running": "work", "paused": "away", "over": "ok", "stopped": "away", "failed": "bad"}


def title_of(row: RunRow) -> str:
    """What people call it."""
    return row.title or f"Run {row.run[:12]}"


def shape_of(row: RunRow) -> str:
    """The shape beside its state."""
    return _SHAPES[row.state]


def state_of(row: RunRow) -> str:
    """Its state in words."""
    return {"gathering": "waits for agreements"}.get(row.state, row.state)


def _whole(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**31 else 0


def _quorum(recipe: Mapping[str, Any]) -> float:
    parts = recipe.get("parts")
    found = parts.get("quorum") if isinstance(parts, Mapping) else None
    return float(found) if isinstance(found, int | float) and 0 <= found <= 1 else 1.0


def _seat(
    name: str, party: Party | None, read: Read, asked: Sequence[Any], row: RunRow, agreed: Mapping[str, Any]
) -> Seat:
    """How a party stands: what keeps it out first, then what it does, then whether it is here."""
    heard, seen = read.heard.get(name, NOBODY), party.last_seen if party else None
    mine = [a for a in asked if a.member == name]

    def seat(state: str, shape: str, note: str = "", since: float | None = None) -> Seat:
        return Seat(name, state, shape, note, since, seen, heard)

    if party is not None and party.status != "approved":
        return seat(party.status, "bad", "is not waited for")
    if row.state == "gathering":
        return seat("agreed", "ok") if name in agreed else seat("asked to agree", "work")
    if not row.live:
        return seat("took part", "ok") if heard.answered else seat("gave nothing", "away")
    if mine:
        state, since = mine[-1].state, getattr(mine[-1], "since", None)
        if state == "open":
            return seat("working", "work", "asked", since)
        return seat("answered", "ok") if state == "done" else seat("dropped", "bad", "asked again in the next round")
    if name in read.last:
        return seat("dropped", "bad", "asked again in the next round")
    here = seen is not None and time.time() - seen < HERE
    return seat("here", "ok") if here else seat("away", "away", "it has to call the hub")


def _summary(row: RunRow, seats: Sequence[Seat], waiting: int, agreed: Mapping[str, Any]) -> str:
    here = sum(s.state == "working" or (s.seen is not None and time.time() - s.seen < HERE) for s in seats)
    first = f"{len(agreed)} of {row.minimum} agreed" if row.state == "gathering" else f"{len(seats)} take part"
    said = [first, *([f"{here} here"] if row.live else [])]
    return ", ".join(
        [*said, *([f"{waiting} asks to join" if waiting == 1 else f"{waiting} ask to join"] if waiting else [])]
    )


def asking_of(party: Party) -> Asking:
    """A party that waits, with its fingerprint."""
    return Asking(party.name, tuple(fingerprint(party.key or b"").split()), party.last_seen)


def _notice(board: Board) -> Notice | None:
    """The worst first."""
    row, short = board.row, board.needs - sum(s.state in ("working", "answered") for s in board.seats)
    gone = [s.name for s in board.seats if s.shape == "bad"]
    if board.fault:
        return Notice("The ledger is not whole.", board.fault)
    if row.state == "failed":
        return Notice("The run failed.", row.why or "It gave no reason.")
    if row.state == "stopped":
        return Notice(
            "Stopped.", row.why or "The model and the ledger stay. It can be offered again and goes on.", False
        )
    if row.live and row.wish == "stop now":
        return Notice("It stops now.", "The round that is open does not count. The model and the ledger stay.", False)
    if row.live and row.wish == "stop":
        return Notice("It stops after this round.", "The model and the ledger stay.", False)
    if row.state == "paused":
        return Notice("Paused.", "Nothing is lost, and parties keep waiting. Resume it to go on.", False)
    if row.live and row.wish == "pause":
        return Notice("It pauses after this round.", "Answers that are on their way still count.", False)
    if board.asked and short == 0 and gone:
        told = "One has dropped" if len(gone) == 1 else f"{numbers.word(len(gone)).capitalize()} have dropped"
        return Notice(
            "No spare party.", f"{told}; if one more drops, round {board.open} cannot close. Nothing is lost."
        )
    if board.asked and short > 0:
        return Notice(
            "Too few parties.", f"Round {board.open} needs {board.needs} answers, {short} more than can come."
        )
    return None


def _timed(board: Board, read: Read) -> Board:
    """With a forecast, from the last rounds, once three have closed."""
    times = [t for _, t in read.closes[-LATEST - 1 :]]
    each = [b - a for a, b in pairwise(times)]
    more = min(board.total, board.budget.ends or board.total) - board.closed
    if not board.live or read.rounds < 3 or more <= 0:
        return board
    mean = sum(each) / len(each)
    spread = math.sqrt(sum((e - mean) ** 2 for e in each) / max(1, len(each) - 1))
    off = 1.96 * spread * math.sqrt(more + more**2 / len(each))
    ends = board.budget.ends
    until = f", to round {numbers.count(ends)}" if ends and ends < board.total else ""
    to = f"({numbers.duration(max(0.0, more * mean - off))} to {numbers.duration(more * mean + off)}){until}"
    return replace(board, left=numbers.duration(more * mean), left_range=to)


def _holds(heads: Mapping[str, Any], read: Read) -> str:
    """What the parties' own copies say: do the heads that they signed lie in this ledger?"""
    if not heads:
        return ""
    place = {e.number: e.hash for e in read.entries}
    other = [name for name, h in heads.items() if h.entries and place.get(h.entries) not in (None, h.head)]
    if other:
        return f"{', '.join(other[:3])} {'holds' if len(other) == 1 else 'hold'} another ledger than this one"
    return f"{len(heads)} {'party holds' if len(heads) == 1 else 'parties hold'} a copy that fits"


def _files(row: RunRow, read: Read) -> list[File]:
    files = [File("Best model" if name == "best" else f"Model, round {read.rounds}", f"state/{name}", "state")
             for name in sorted(read.files, reverse=True) if name in ("last", "best") and read.rounds]  # fmt: skip
    if (report := report_of(row)) is not None:
        files.append(File("Report", "report.html", f"HTML, {numbers.size(report.stat().st_size)}"))
    if read.entries:
        files.append(File("Ledger", "ledger.jsonl", f"JSON Lines, {numbers.count(len(read.entries))} entries"))
    told = str(row.recipe.get("hash", ""))
    return [*files, File("Recipe", "recipe.json", f"{told[:4]} {told[4:8]}", mono=True)]


def report_of(row: RunRow) -> Path | None:
    """The report that lies with a run, or with the comparison to which it belongs."""
    if not row.folder:
        return None
    here = Path(row.folder)
    places = [here, here.parent] if row.about.get("comparison") else [here]
    return next((p / "report.html" for p in places if (p / "report.html").is_file()), None)
