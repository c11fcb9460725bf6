"""What a hub carries: one study after the other, each in a folder of its own, through restarts and interrupts.

A study that is over stays over; one that an operator stopped is taken up again only when asked to; anything else goes
on where it stood. One that fails is noted with its reason, and the next begins.
"""

import fcntl
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from comity.core.errors import ComityError
from comity.ledger.peek import peek
from comity.ledger.record import Ledger
from comity.loop.hub import Event
from comity.service.logs import Log
from comity.service.posting import Halted, surely
from comity.service.runs import RunRow, Runs
from comity.service.studies import Study

RUNS = "runs"
"""The folder in the hub's that holds those of its runs."""
REPORT, OFTEN = "report.html", 10.0
"""Of a comparison; and seconds after which its progress is said again."""


class Stop:
    """The wish to end, which waits for the round that is open; the second time it does not.

    Attributes:
        station: that ends; None while there is none.
    """

    def __init__(self, tell: Callable[[], None]) -> None:
        """Args: tell: is called when the end waits for a round."""
        self.station: Any = None
        self._asked, self._tell = False, tell

    def ask(self) -> None:
        """End after the round; at once where none is open, or when asked again.

        Raises:
            KeyboardInterrupt: at once.
        """
        again, self._asked = self._asked, True
        if self.station is not None:
            self.station.ending = True
        if again or self.station is None or not self.station.hub.inside:
            raise KeyboardInterrupt
        self._tell()


class Job(Protocol):
    """Something to be carried."""

    @property
    def name(self) -> str:
        """Of its folder."""
        ...

    def settled(self, folder: Path, row: RunRow | None) -> str | None:
        """Why there is nothing to do, given the newest run of its folder; None where there is."""
        ...

    def run(self, by: "Conductor", folder: Path) -> None:
        """Carry it, from where it stood."""
        ...


@dataclass(frozen=True)
class Training:
    """A study that is to be carried.

    Attributes:
        study: what.
        rounds: instead of those that it names; None for those.
        minimum: parties that must have agreed; None for all that are invited.
        parties: who is invited; None for everybody who is approved.
    """

    study: Study
    rounds: int | None = None
    minimum: int | None = None
    parties: tuple[str, ...] | None = None

    @property
    def name(self) -> str:
        """Of its folder."""
        return self.study.name

    @property
    def closed(self) -> int:
        """Rounds at the end."""
        return self.study.rounds if self.rounds is None else self.rounds

    def settled(self, folder: Path, row: RunRow | None) -> str | None:
        """Is it over, with all its rounds?"""
        if row is None or row.state != "over" or (here := closed(folder)) < self.closed:
            return None
        return f"over since {_when(row.ended)}, with {here} rounds"

    def run(self, by: "Conductor", folder: Path) -> None:
        """Carry it, from where it stood."""
        about = {"study": self.study.name, "rounds": self.closed}
        engine = by.station.carrying(
            title=self.study.title, about=about, folder=str(folder), parties=self.parties, minimum=self.minimum
        )
        self.study.fed.run(self.closed, folder=folder, engine=engine, listen=Told(self.study.name, by.log))


@dataclass(frozen=True)
class Comparing:
    """A comparison that is to be carried: is it worth joining?

    Attributes:
        terms: what is compared.
        minimum: parties that must have agreed; None for all that are invited.
        parties: who is invited; None for everybody who is approved.
    """

    terms: Any
    minimum: int | None = None
    parties: tuple[str, ...] | None = None

    @property
    def name(self) -> str:
        """Of its folder."""
        return "compare-" + re.sub("[^A-Za-z0-9._-]", "-", self.terms.settings.target)[:80]

    def settled(self, folder: Path, row: RunRow | None) -> str | None:
        """Is there a report?"""
        return f"done: {folder / REPORT}" if (folder / REPORT).is_file() else None

    def run(self, by: "Conductor", folder: Path) -> None:
        """Carry it, from the step after the last one."""
        from comity.comparison.away import conduct

        last: list[Any] = [-OFTEN, ""]

        def tell(what: str, done: float) -> None:
            step, now = what.partition(" round ")[0], time.monotonic()
            if step != last[1] or now - last[0] >= OFTEN:
                last[:] = [now, step]
                facts = {"study": self.name, "what": what, "done": done}
                by.log("compare", f"{self.name}   {what} ({done:.0%})", facts)

        answer = conduct(by.station, self.terms, parties=self.parties, minimum=self.minimum, folder=folder, tell=tell)
        answer.report(folder / REPORT)
        by.log("report", f"{self.name}   report in {folder / REPORT}", {"study": self.name})


@dataclass(frozen=True)
class Conductor:
    """Carries jobs over a station.

    Attributes:
        station: a `Station`.
        log: is told what happens.
        again: take up what an operator stopped.
    """

    station: Any
    log: Log
    again: bool = False

    def folder(self, name: str) -> Path:
        """Where a run lies."""
        return Path(self.station.folder).absolute() / RUNS / name

    def carry(self, jobs: Sequence[Job]) -> int:
        """All of them, one after the other.

        Returns:
            How many failed.

        Raises:
            Halted: the hub is to end.
        """
        return sum(not self.one(job) for job in jobs)

    def one(self, job: Job) -> bool:
        """One of them: has it come to a good end?

        Raises:
            Halted: the hub is to end.
        """
        folder, facts = self.folder(job.name), {"study": job.name}
        with self._alone(job.name, folder):
            row = self.row(folder)
            why = job.settled(folder, row)
            if why is None and row is not None and row.state == "stopped" and not self.again:
                why = f"stopped by an operator {_when(row.ended)}; start the hub with --again to go on"
            if why is not None:
                self.log("settled", f"{job.name}   {why}", facts)
                return True
            try:
                job.run(self, folder)
            except Halted:
                if self.station.ending:
                    raise
                return True  # an operator stopped it before it began, or within a round
            except Exception as error:  # the hub goes on with the next
                if self.station.ending:
                    raise Halted("The hub is ending.") from error
                self._failed(job.name, folder, error)
                return False
        if self.station.ending:
            raise Halted("The hub is ending.")
        return True

    def row(self, folder: Path) -> RunRow | None:
        """The newest run of a folder."""
        runs: Runs = self.station.runs
        rows = surely(self.station, runs.all)
        return next((row for row in rows if row.folder and Path(row.folder).absolute() == folder), None)

    def _failed(self, name: str, folder: Path, error: Exception) -> None:
        why = " ".join(str(error).split()) or type(error).__name__
        if not isinstance(error, ComityError | OSError):
            why = f"{type(error).__name__}: {why}"
        row = self.row(folder)
        if row is not None and row.live:
            surely(self.station, self.station.runs.become, row.run, "failed", why[:500])
        self.log("failed", f"{name}   failed: {why} The hub goes on.", {"study": name, "why": why}, level="error")

    @contextmanager
    def _alone(self, name: str, folder: Path) -> Iterator[None]:
        """Wait while another process carries this run: when it dies, this one goes on."""
        if held(folder / "carried"):
            self.log("standby", f"{name}   another process carries it; this one takes over when it ends")
        folder.mkdir(parents=True, exist_ok=True)
        with self.station.holding(folder):
            yield


@dataclass(frozen=True)
class Told:
    """Rounds as lines of a log.

    Attributes:
        name: of the study.
        log: is told.
    """

    name: str
    log: Log

    def __call__(self, event: Event) -> None:
        """One event of the run."""
        if event.kind != "round":
            return
        number, facts = event.round.number + 1, {"study": self.name, "round": event.round.number + 1}
        for heard in event.heard.values():
            for how, named in (("refused", heard.refused), ("dropped", heard.dropped)):
                for who, why in named:
                    said = " ".join(str(why).split()).removeprefix(f"{who}: ")
                    text = f"{self.name}   round {number}   {who} {how}: {said}"
                    self.log(how, text, {**facts, "party": who, "why": said}, level="warning")
            asked, accepted = len(heard.asked), len(heard.accepted)
            end = "closed" if event.closed else f"did not close (attempt {event.round.attempt + 1})"
            count = {**facts, "asked": asked, "accepted": accepted, "attempt": event.round.attempt}
            text = f"{self.name}   round {number} {end}: {accepted} of {asked}"
            self.log("round" if event.closed else "open", text, count, level="info" if event.closed else "warning")


def held(folder: Path) -> bool:
    """Does a process carry the run of this folder?"""
    try:
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(lock)
    return False


def closed(folder: Path) -> int:
    """Rounds that were closed in a run's folder."""
    if not (folder / "run.db").is_file():
        return 0
    return Ledger.restore(peek(folder).entries).rounds


def _when(seconds: float | None) -> str:
    return time.strftime("%F %R", time.localtime(seconds)) if seconds is not None else "some time"
