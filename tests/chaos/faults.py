"""Named points that a run passes, noted in shared memory; at the n-th pass of one of them it kills itself."""

import mmap
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import sqlalchemy as sa

from comity.channels.plain import Plain
from comity.ledger import folder as files
from comity.ledger.store import Store
from comity.loop.adding import Adding
from comity.loop.asking import Asking
from comity.loop.attempt import Attempt
from comity.loop.rounds import Rounds
from comity.loop.scoring import Scoring
from comity.running import Running

# What a point is: (owner, attribute, name before, name after).
AROUND = (
    (Store, "_begin", "opening", "opened"),
    (Store, "save", "saving", "saved"),
    (files, "agree", "agreeing", "agreed"),
    (files, "write", "writing", "written"),
    (os, "fsync", "syncing", "synced"),
    (os, "replace", "renaming", "renamed"),
    (Store, "_commit", "committing", "committed"),
    (files, "sweep", "sweeping", "swept"),
    (os, "unlink", "removing", "removed"),
    (Rounds, "round", "round", "round over"),
    (Attempt, "_combine", "combining", "combined"),
    (Running, "_heard", "noting", "noted"),
    (Scoring, "of", "scoring", "scored"),
    (Plain, "seal", "sealing", "sealed"),
    (Asking, "admitted", "admitting", "admitted"),
    (Running, "_save", "at the end of a step", "step over"),
)
OTHER = ("half written", "statement", "before the commit", "opening the channel", "gathering", "gathered")
WORK = (("contribute", "working", "worked"), ("fit", "fitting", "fitted"))
"""One by one or many together, a participant's work and within it the model's."""
NAMES = (*(name for *_, before, after in AROUND for name in (before, after)), *OTHER)
NAMES += tuple(name for _, before, after in WORK for name in (before, after))
ANYWHERE = "anywhere"
"""The n-th pass of all points together."""
WIDTH = 64


class Points:
    """Counts the passes of each point, and strikes at the one that was planned."""

    def __init__(self, board: mmap.mmap, point: str | None, n: int) -> None:
        """Args: shared memory to note the last point in; the point to be killed at and its pass, from 1."""
        assert point in (None, ANYWHERE, *NAMES)
        self.board, self.plan = board, (point, n)
        self.passed: Counter[str] = Counter()

    def reach(self, name: str) -> None:
        self.passed[name] += 1
        here = name, self.passed[name]
        total = self.passed.total()
        self.board[:WIDTH] = f"{name} {here[1]}".ljust(WIDTH).encode()
        self.board[WIDTH : WIDTH + 8] = total.to_bytes(8, "little")
        if self.plan in (here, (ANYWHERE, total)):
            os.kill(os.getpid(), signal.SIGKILL)

    def install(self, *workers: type) -> None:
        """Put the points where they belong, in this process, for good; `workers` are participants and models."""
        self._write()
        for owner, name, before, after in AROUND:
            self._around(owner, name, before, after)
        for worker in workers:
            for name, before, after in WORK:
                for method in (name, f"{name}_many"):
                    if hasattr(worker, method):
                        self._around(worker, method, before, after)
        self._channel()
        sa.event.listen(sa.Engine, "after_cursor_execute", lambda *_: self.reach("statement"))
        sa.event.listen(sa.Engine, "commit", lambda *_: self.reach("before the commit"))

    def _around(self, owner: Any, name: str, before: str, after: str) -> None:
        plain: Callable[..., Any] = getattr(owner, name)

        def passing(*args: Any, **named: Any) -> Any:
            self.reach(before)
            out = plain(*args, **named)
            self.reach(after)
            return out

        setattr(owner, name, passing)

    def _write(self) -> None:
        """A file that is half there."""
        plain = files.write

        def write(path: Any, data: bytes, mode: int = 0o666) -> None:
            if self.plan == ("half written", self.passed["half written"] + 1):
                path.with_name(f".{path.name}.tmp").write_bytes(data[: len(data) // 2])
            self.reach("half written")
            plain(path, data, mode)

        files.write = write  # type: ignore[assignment]

    def _channel(self) -> None:
        """Between the opening of the channel and the last contribution."""
        plain = Plain.open

        def passing(*args: Any) -> Iterator[Any]:
            self.reach("opening the channel")
            for c in plain(*args):
                self.reach("gathering")
                yield c
            self.reach("gathered")

        Plain.open = passing  # type: ignore[assignment]
        self._adding()

    def _adding(self) -> None:
        """The same where contributions are added near the work."""
        plain, add = Adding.parts_of, Adding._add

        def passing(run: Adding) -> Iterator[Any]:
            self.reach("opening the channel")
            yield from plain(run)
            self.reach("gathered")

        def adding(run: Adding, *args: Any) -> None:
            self.reach("gathering")
            add(run, *args)

        Adding.parts_of, Adding._add = passing, adding  # type: ignore[method-assign, assignment]
