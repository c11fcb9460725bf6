"""What the pages need of a run's ledger, folded as it grows; any process that sees the folder can show it."""

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from comity.core.errors import ConfigError, LedgerError
from comity.ledger.peek import Seen, peek
from comity.ledger.record import GENESIS, Entry, digest

AGAIN = 5.0
"""Seconds after which a folder is read again though nothing seems to have changed."""
KEPT, ERRORS = 64, 2
"""Folders that are remembered, and errors of each party."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What a ledger says of one party: bytes up and down, how often it was asked and answered, its last errors."""

    up: int = 0
    down: int = 0
    asked: int = 0
    answered: int = 0
    errors: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Read:
    """A ledger at one moment.

    Attributes:
        entries: all of them.
        fault: what is wrong with the chain, or why nothing can be read; "" where all fits.
        checked: when that was looked at, seconds since 1970.
        heard: by party.
        closes: (round counted from 1, time) of each closed round.
        last: names that gave no accepted answer in the last attempt, with why.
        metrics: by name (round counted from 1, value), scores before what was reported in training.
        spends: facts of each use of privacy budget.
        files: saved states by name to sha256.
    """

    entries: Sequence[Entry] = ()
    fault: str = ""
    checked: float = 0.0
    heard: Mapping[str, Heard] = field(default_factory=dict)
    closes: Sequence[tuple[int, float]] = ()
    last: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)
    spends: Sequence[Any] = ()
    files: Mapping[str, str] = field(default_factory=dict)

    @property
    def rounds(self) -> int:
        """How many closed."""
        return len(self.closes)

    @property
    def bytes(self) -> tuple[int, int]:
        """Up and down, all parties together."""
        return sum(h.up for h in self.heard.values()), sum(h.down for h in self.heard.values())


class Readings:
    """Ledgers that were read, for the threads of one process.

    Example:
        >>> import tempfile, numpy as np
        >>> import comity as co
        >>> data = np.eye(4, dtype="float32"), np.array([0, 0, 1, 1])
        >>> model = co.Linear(inputs=4, classes=2, rate=0.5)
        >>> fed = co.Collaboration(co.FedAvg(model), {name: co.Trainer(model, data) for name in ("ada", "bob")})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     run = fed.run(rounds=3, folder=folder)
        ...     read = Readings().of(folder)
        >>> read.rounds, read.heard["bob"].answered, read.fault
        (3, 3, '')
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, _Fold] = {}

    def of(self, folder: str) -> Read:
        """The ledger in a folder; nothing where no run has begun in it."""
        if not folder or not (Path(folder) / "run.db").is_file():
            return Read(checked=time.time())
        with self._lock:
            fold = self._known.pop(folder, None) or _Fold(Path(folder))
            self._known[folder] = fold
            while len(self._known) > KEPT:
                del self._known[next(iter(self._known))]
        return fold.look()


class _Fold:
    """One folder, its ledger folded as far as it was read."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._lock = folder, threading.Lock()
        self._stamp: Any = None
        self._when = 0.0
        self._begin()

    def _begin(self) -> None:
        self._count, self._head = 0, GENESIS
        self._heard: dict[str, list[Any]] = {}
        self._closes: list[tuple[int, float]] = []
        self._metrics: dict[str, dict[str, dict[int, list[float]]]] = {"score": {}, "round": {}}
        self._spends: list[Any] = []
        self._last: dict[str, str] = {}
        self._read = Read()

    def look(self) -> Read:
        with self._lock:
            stamp, now = _stamp(self._folder / "run.db"), time.time()
            if stamp == self._stamp and 0 <= now - self._when < AGAIN:
                return self._read
            try:
                seen = peek(self._folder)
            except (ConfigError, LedgerError) as error:
                return Read(fault=str(error), checked=now)
            self._stamp, self._when = stamp, now
            self._read = self._through(seen, now)
            return self._read

    def _through(self, seen: Seen, now: float) -> Read:
        entries, before = seen.entries, self._count
        if len(entries) < before or (before and entries[before - 1].hash != self._head):
            self._begin()
            before = 0
        if len(entries) == before and self._read.checked:
            fault = self._read.fault or self._ends(seen)
            return Read(**{name: getattr(self._read, name) for name in _SAME}, fault=fault, checked=now)
        fault = self._read.fault
        for entry in entries[before:]:
            fault = fault or _wrong(entry, self._count, self._head)
            self._count, self._head = self._count + 1, entry.hash
            if isinstance(entry.facts, Mapping):
                self._add(entry, entry.facts)
        heard = {name: Heard(a, b, c, d, tuple(why)) for name, (a, b, c, d, why) in self._heard.items()}
        return Read(
            entries, fault or self._ends(seen), now, heard, tuple(self._closes), dict(self._last), self._series(),
            tuple(self._spends), seen.files,
        )  # fmt: skip

    def _ends(self, seen: Seen) -> str:
        return "" if seen.head == self._head else f"The ledger must end with the hash {seen.head[:12]}. It does not."

    def _add(self, entry: Entry, facts: Mapping[str, Any]) -> None:
        if entry.kind == "spend":
            self._spends.append(facts)
        names = facts["asked"].split("\n") if facts.get("asked") else []
        if entry.kind == "round":
            self._last = {}
        for i, name in enumerate(names):
            mine = self._heard.setdefault(name, [0, 0, 0, 0, []])
            mine[0] += _nth(facts.get("up"), i)
            mine[1] += _nth(facts.get("down"), i)
            if entry.kind == "round":
                mine[2] += 1
                mine[3] += _nth(facts.get("accepted"), i)
        self._blame(entry, facts)
        if entry.kind in self._metrics and (entry.kind == "score" or facts.get("closed")):
            self._measure(entry.kind, round_of(entry), facts.get("metrics") or {})
        if entry.kind == "round" and facts.get("closed"):
            number = int(facts["round"]) + 1
            if not self._closes or self._closes[-1][0] != number:
                self._closes.append((number, entry.time))

    def _blame(self, entry: Entry, facts: Mapping[str, Any]) -> None:
        for why in (*(facts.get("refused") or {}).values(), *(facts.get("dropped") or {}).values()):
            who, reason = str(why["sender"]), str(why["reason"])
            reason = reason.removeprefix(f"{who}: ")
            if entry.kind == "round":
                self._last[who] = reason
            if who in self._heard:
                errors = self._heard[who][4]
                self._heard[who][4] = [f"round {round_of(entry)}: {reason}", *errors][:ERRORS]

    def _measure(self, kind: str, number: int, metrics: Mapping[str, Any]) -> None:
        for name, (total, count) in metrics.items():
            pair = self._metrics[kind].setdefault(name, {}).setdefault(number, [0.0, 0.0])
            pair[0], pair[1] = pair[0] + float(total), pair[1] + float(count)

    def _series(self) -> dict[str, list[tuple[int, float]]]:
        both = {**self._metrics["round"], **self._metrics["score"]}
        return {name: [(r, s / n) for r, (s, n) in found.items() if n] for name, found in both.items()}


_SAME = ("entries", "heard", "closes", "last", "metrics", "spends", "files")


def round_of(entry: Entry) -> int:
    """Of which round it is, counted from 1; scores name the rounds that had closed when they were taken."""
    facts: Any = entry.facts
    return int(facts.get("round", 0)) + (entry.kind != "score")


def _wrong(entry: Entry, count: int, head: str) -> str:
    """What is wrong with the next entry; "" where it fits."""
    if (entry.number, entry.previous) != (count + 1, head) or digest(entry) != entry.hash:
        return f"Ledger entry {count + 1} does not match what came before it, or its own hash."
    return ""


def _nth(values: Any, i: int) -> int:
    return int(values[i]) if values is not None and i < len(values) else 0


def _stamp(db: Path) -> tuple[Any, ...]:
    out = []
    for path in (db, db.with_name(f"{db.name}-wal")):
        try:
            said = path.stat()
            out.append((said.st_mtime_ns, said.st_size, said.st_ino))
        except OSError:
            out.append((0, 0, 0))
    return tuple(out)
