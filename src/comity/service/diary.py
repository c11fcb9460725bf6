"""What a site wrote down before it answered: each question once, and what the answer spends.

    FOLDER/RUN/spends.jsonl   one line when a question is taken up, on the disk before the answer is made;
                              one more when there is an answer, before it is sent

Killed at any moment, what is written is at least what was released.
"""

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from comity.core.envelope import Envelope
from comity.core.errors import LedgerError
from comity.ledger.folder import sync
from comity.ledger.record import Ledger

NAME = "spends.jsonl"


class Asked(NamedTuple):
    """A question that is answered once: all hubs have one answer to "contribute" of a turn."""

    number: int
    attempt: int
    phase: str
    hub: str

    @classmethod
    def of(cls, asked: Envelope) -> "Asked":
        """What a question is about."""
        r = asked.round
        return cls(r.number, r.attempt, asked.phase, "" if asked.phase == "contribute" else r.hub)


@dataclass
class Noted:
    """What is known of a question: the sha256 of its body, and of the answer's where there is one."""

    asked: str
    said: str = ""


@dataclass
class Diary:
    """One run's, at one site. Made with `open`; who uses it holds the site's folder.

    Attributes:
        path: the file.
        notes: what was asked.
        last: the newest question that was taken up.
        spent: what was spent, as a ledger of "spend" entries.
        bytes: that travelled, both ways.
    """

    path: Path
    notes: dict[Asked, Noted] = field(default_factory=dict)
    last: Asked | None = None
    spent: Ledger = field(default_factory=Ledger)
    bytes: int = 0
    clock: Callable[[], float] = time.time
    _drawn: set[tuple[int, int]] = field(default_factory=set)

    @classmethod
    def open(cls, folder: Path, clock: Callable[[], float] = time.time) -> "Diary":
        """Read what is there; a last line that was cut is of an answer that was never made.

        Raises:
            LedgerError: the file is damaged.
        """
        diary = cls(folder / NAME, clock=clock)
        data = diary.path.read_bytes() if diary.path.exists() else b""
        whole = data.rfind(b"\n") + 1
        try:
            for line in data[:whole].splitlines():
                diary._take(json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise LedgerError(
                f"{diary.path} must hold what this site has spent. It is damaged. Restore it, or take part in no more "
                "of this run."
            ) from None
        if whole < len(data):
            os.truncate(diary.path, whole)
        return diary

    def known(self, asked: Asked, question: str) -> str:
        """What became of a question.

        Args:
            asked: which.
            question: the sha256 of its body.

        Returns:
            "new"; "other" where another question was answered under the same name; "open" where it was taken up last,
            so that nothing was asked since; "past" otherwise.
        """
        noted = self.notes.get(asked)
        if noted is None:
            return "new"
        if noted.asked != question:
            return "other"
        return "open" if asked == self.last else "past"

    def missed(self, number: int, attempt: int) -> list[tuple[int, int]]:
        """Turns up to this one of which nothing was written down: (round, attempt)."""
        first = [(n, 0) for n in range(number)]
        here = [(number, a) for a in range(attempt)]
        return [turn for turn in (*first, *here) if turn not in self._drawn]

    def take(self, asked: Asked, question: str, size: int, spends: Sequence[Mapping[str, Any]]) -> None:
        """A question is taken up: on the disk when this returns."""
        line = {**asked._asdict(), "asked": question, "down": size, "spends": [dict(s) for s in spends]}
        self._write({**line, "time": self.clock()}, durable=True)

    def say(self, asked: Asked, answer: str, size: int) -> None:
        """There is an answer, to be sent now."""
        self._write({**asked._asdict(), "said": answer, "up": size, "time": self.clock()}, durable=False)

    def _write(self, line: Mapping[str, Any], *, durable: bool) -> None:
        new = not self.path.exists()
        with os.fdopen(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600), "ab") as f:
            before = f.tell()
            try:
                f.write(json.dumps(line, sort_keys=True).encode() + b"\n")
                f.flush()
                if durable:
                    os.fsync(f.fileno())
            except OSError:  # a full disk: half a line must not stand before the next
                os.truncate(self.path, before)
                raise
        if new:
            sync(self.path.parent)
        self._take(line)

    def _take(self, line: Any) -> None:
        asked = Asked(int(line["number"]), int(line["attempt"]), str(line["phase"]), str(line["hub"]))
        if "said" in line:
            self.notes[asked].said = str(line["said"])
            self.bytes += int(line["up"])
            return
        self.notes[asked], self.last = Noted(str(line["asked"])), asked
        self.bytes += int(line["down"])
        for facts in line["spends"]:
            self._drawn.add((int(facts["round"]), int(facts["attempt"])))
            self.spent.append("spend", facts, time=float(line["time"]))
