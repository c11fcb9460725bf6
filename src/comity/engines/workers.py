"""The engine of several processes on one machine: members' names go out, answers or sums of blocks come back."""

import pickle
import weakref
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any, Protocol

from comity.core.envelope import Envelope
from comity.core.errors import ChannelError, ComityError, ConfigError
from comity.core.parts import Roster, Until
from comity.core.together import Part, Task
from comity.core.tree import leaves
from comity.engines import lots
from comity.engines.crew import Crew, Owner
from comity.engines.worker import Ask, Did, Ended, Total

LIVES = 3
"""How often a worker may die of the same piece of work."""
TOGETHER, BYTES_TOGETHER = 64, 2**25
"""The most questions in a chunk, and the most bytes that what they hold has together."""


class Workers:
    """Asks the participants of one machine through several long-lived processes.

    They are started when they are first needed, and end with `close`, with this object, or with this process. Each
    holds the sites without their drawers; the drawers that it needs are lent to it. What is shared goes to all of
    them once a question. What comes back does not depend on how many there are, nor on who did what.

    Args:
        roster: who there is.
        door: the sites (core.together.Door), or a plain function that answers as one.
        workers: processes, >= 1.
    """

    def __init__(self, roster: Roster, door: Any, workers: int) -> None:
        """No process is started yet."""
        self._roster, self._door = roster, door
        self._crew = Crew(workers)
        self._costs = lots.Costs()
        weakref.finalize(self, self._crew.close)

    def roster(self) -> Roster:
        """Who there is."""
        return self._roster

    def ask(self, cohort: Sequence[str], message: Callable[[str], Envelope], until: Until) -> Iterator[Envelope]:
        """Ask each member once and yield the answers as they come.

        Raises:
            ConfigError: somebody is not in the roster, or what is to be sent cannot be.
            ChannelError: workers died of the same questions, three times.
        """
        self._known(cohort)
        with closing(self._carried(_Asks(cohort, message, self._crew.workers))) as carried:
            for _, did in carried:
                yield from did.made

    @property
    def total(self) -> Callable[[Sequence[str], Task, Until], Iterator[Part]] | None:
        """Ask a whole cohort, added near the work; None where the door cannot."""
        return self._total if hasattr(self._door, "total") else None

    def _total(self, cohort: Sequence[str], task: Task, until: Until) -> Iterator[Part]:
        """The parts, as they come.

        Raises:
            ConfigError, ChannelError: as `ask`.
        """
        self._known(cohort)
        if hasattr(self._door, "planned"):
            task = self._door.planned(task)
        runs = _Totals(task, self._crew.workers, self._costs)
        with closing(self._carried(runs)) as carried:
            for run, did in carried:
                yield from runs.took(run, did)

    def close(self) -> None:
        """End the processes. Whoever asks again starts new ones."""
        self._crew.close()

    def _known(self, cohort: Sequence[str]) -> None:
        for name in cohort:
            if name not in self._roster:
                raise ConfigError(f"The selection asked '{name}', who is not a participant.")

    def _carried(self, jobs: "_Jobs") -> Generator[tuple[Any, Did], None, None]:
        """Hand out jobs, and give what was done, as it comes."""
        crew, owner = self._crew, Owner(self._door)
        crew.drain()
        first = True
        try:
            while True:
                while len(owner.inbox) < crew.workers and crew.pump(wait=False):
                    pass
                while crew.free() and len(owner.inbox) < crew.workers and (job := jobs.next()) is not None:
                    if first:
                        crew.hold(owner, job.question.body.value)
                        first = False
                    crew.give(job, owner)
                if owner.inbox:
                    job, said = owner.inbox.popleft()
                    if isinstance(said, Did):
                        yield job, said
                    elif said.how == "died":
                        jobs.again(_once_more(job, said.said))
                    else:
                        _end(said)
                elif crew.at_work():
                    crew.pump(wait=True)
                else:
                    return
        finally:
            crew.drop(owner)


class _Jobs(Protocol):
    """What is to be done, piece by piece."""

    def next(self) -> Any:
        """The next piece; None where there is none, or none yet."""
        ...

    def again(self, job: Any) -> None:
        """This piece was lost."""
        ...


@dataclass(eq=False)
class _Chunk:
    """Some questions of a cohort."""

    questions: list[Envelope]
    deaths: int = 0
    lent: Any = None

    @property
    def question(self) -> Envelope:
        """One of them."""
        return self.questions[0]

    @property
    def names(self) -> list[str]:
        """Who is asked."""
        return [q.round.me for q in self.questions]

    def message(self, door: Any) -> Ask:
        """What the worker is told: the same whenever it is asked again."""
        self.lent = _lent(door, self.names) if self.lent is None else self.lent
        return Ask(self.questions, self.lent)


class _Asks:
    """A cohort's questions, in chunks that become smaller towards its end."""

    def __init__(self, cohort: Sequence[str], message: Callable[[str], Envelope], workers: int) -> None:
        self.cohort, self.message, self.workers = cohort, message, workers
        self.at, self.most = 0, 0
        self._lost: list[_Chunk] = []

    def next(self) -> _Chunk | None:
        """The lost ones first."""
        if self._lost:
            return self._lost.pop()
        left = len(self.cohort) - self.at
        if not left:
            return None
        first = [self._first()] if self.at == 0 else []
        n = max(1, min(self.most, -(-left // (2 * self.workers))))
        names = self.cohort[self.at + len(first) : self.at + n]
        self.at += n
        return _Chunk([*first, *map(self.message, names)])

    def again(self, job: _Chunk) -> None:
        """Ask it again."""
        self._lost.append(job)

    def _first(self) -> Envelope:
        question = self.message(self.cohort[0])
        held = sum(getattr(x, "nbytes", 0) for _, x in leaves(question.body.value))
        self.most = max(1, min(TOGETHER, BYTES_TOGETHER // max(1, held)))
        return question


@dataclass(eq=False)
class _Run:
    """A run of blocks of a cohort."""

    task: Task
    lot: lots.Lot
    next: int
    deaths: int = 0
    lent: Any = None

    @property
    def question(self) -> Envelope:
        """What is asked."""
        return self.task.question

    @property
    def names(self) -> Sequence[str]:
        """Whose work is not done."""
        size = lots.block_size(self.task.question.round.asked)
        return self.task.names[self.next * size - self.task.start :]

    def message(self, door: Any) -> Total:
        """What the worker is told: the same whenever it is asked again."""
        self.lent = _lent(door, self.task.names) if self.lent is None else self.lent
        return Total(self.task, self.lent)


class _Totals:
    """A cohort in runs of blocks.

    A run whose worker died is done again as a whole: who do their work together are the same then, and so are the
    sums. Where they are not alone, the cut does not depend on what was measured either.
    """

    def __init__(self, task: Task, workers: int, costs: lots.Costs) -> None:
        self.task, self.costs = task, costs
        self.size = lots.block_size(len(task.names))
        room = lots.room_for(task)
        known = costs.mean is not None and all(plan.executor == "sequential" for plan in task.plans.values())
        each = costs.of(task.names) if known else [1.0] * len(task.names)
        cut = lots.cut(lots.by_block(each), workers, room=room, seconds=known) if each else []
        self.waiting = cut[::-1]
        self.ahead = max(room, 2 * workers) + (cut[0].last if cut else 0)
        self.folded = 0
        self._came: set[int] = set()
        self._lost: list[_Run] = []

    def next(self) -> _Run | None:
        """The lost ones first; none whose sums would be too many that wait for their turn."""
        if self._lost:
            return self._lost.pop()
        if not self.waiting or self.waiting[-1].last > self.folded + self.ahead:
            return None
        lot = self.waiting.pop()
        start, end = lot.first * self.size, min((lot.last + 1) * self.size, len(self.task.names))
        return _Run(self.task.run(start, end), lot, lot.first)

    def again(self, job: _Run) -> None:
        """Do it again."""
        self._lost.append(job)

    def took(self, run: _Run, did: Did) -> Iterator[Part]:
        """What is new of this."""
        first, last = did.made[0], did.made[-1]
        end = last.start + len(last.up) - run.task.start
        self.costs.learn(run.task.names[first.start - run.task.start : end], did.seconds)
        for part in did.made:
            if part.first >= run.next:
                run.next = part.last + 1
                self._fold(part)
                yield part

    def _fold(self, part: Part) -> None:
        """This one is about to be added to those before it, or waits for them."""
        self._came.update(range(part.first, part.last + 1))
        while self.folded in self._came:
            self._came.remove(self.folded)
            self.folded += 1


def _lent(door: Any, names: Sequence[str]) -> Any:
    return door.lend(names) if hasattr(door, "lend") else {}


def _once_more(job: Any, how: str) -> Any:
    """The same piece for another worker.

    Raises:
        ChannelError: it was the end of several already.
    """
    job.deaths += 1
    if job.deaths < LIVES:
        return job
    names = list(job.names)
    who = f"'{names[0]}'" if len(names) == 1 else f"{len(names)} members from '{names[0]}' to '{names[-1]}'"
    raise ChannelError(
        f"A worker process must outlive what it is asked. Got {job.deaths} that ended ({how}) while asking {who}. "
        "Look for what ends them (memory, for one), or use workers=1."
    )


def _end(said: Ended) -> None:
    """Nothing more comes of a piece: it is done, or something was raised."""
    if said.how == "done":
        return
    if said.how == "interrupt":
        raise KeyboardInterrupt
    if said.how == "unready":
        raise ConfigError(
            f"Participants must load in a worker process. Got {said.said}. "
            "Put their modules where sys.path finds them, or use workers=1."
        )
    error: BaseException | None = None
    with suppress(Exception):
        error = pickle.loads(said.error) if said.error else None
    if error is None:
        raise RuntimeError(f"A worker process raised what cannot be sent.\n{said.said}")
    if not isinstance(error, ComityError):
        error.add_note(f"Raised in a worker process:\n{said.said}")
    raise error
