"""The engine between organisations: questions are left at a post, and answers are taken from it as they are committed.

It knows neither HTTP nor a database: a `Post` keeps what must not be lost. Whatever is asked again after a restart
under the same (run, round, attempt, hub, phase) is not asked anew: what was committed is given again, in the same
order, and a question that was closed stays closed.
"""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Protocol

from comity.core.envelope import Envelope, Owed
from comity.core.errors import ConfigError
from comity.core.parts import Roster, Spend, Until
from comity.core.round import Round

LOOK = 0.5
"""Seconds between looks, where nothing wakes the engine."""
PATIENCE = 10
"""By how many times its own length a deadline is extended at most, while bytes arrive."""


class Turn(NamedTuple):
    """What one question is about, whoever is asked."""

    run: str
    number: int
    attempt: int
    hub: str
    phase: str


class Post(Protocol):
    """Keeps questions and answers. Whatever a method returned is durable."""

    def kept(self, folder: str) -> None:
        """Where the run's ledger lies, said before it begins: those who take part may fetch it."""
        ...

    def begin(self, base: Round, recipe: Mapping[str, Any]) -> Sequence[str]:
        """A run begins, or goes on: who takes part, the same at every call for this run."""
        ...

    def people(self) -> Mapping[str, "Declared"]:
        """What each of them spends of its own, where one does."""
        ...

    def wanted(self) -> bool:
        """Is another round wanted? Whatever was asked so far is counted and saved. It returns once that is known."""
        ...

    def put(self, turn: Turn, asked: Sequence[Envelope], owed: Mapping[str, Owed] | None) -> None:
        """Make questions known, all or none; those that are known already are left as they are.

        Args:
            turn: what they are about.
            asked: a question for each member.
            owed: the earlier questions that stay open, by member; None where that is not said.
        """
        ...

    def replies(self, turn: Turn, after: int) -> Sequence[tuple[int, Envelope]]:
        """The committed answers with a number above `after`, in the order in which they were committed."""
        ...

    def late(self, owed: Mapping[str, Owed]) -> Sequence[Envelope]:
        """The committed answers to these earlier questions."""
        ...

    def shut(self, turn: Turn) -> None:
        """Take no more answers."""
        ...

    def gone(self) -> Collection[str]:
        """Those of the run who may not answer any more."""
        ...

    def wait(self, seconds: float) -> None:
        """Return when something was committed, or after so many seconds."""
        ...

    def heard(self) -> float:
        """When bytes of anybody last arrived, by the clock of `time.monotonic`."""
        ...

    def over(self) -> None:
        """The run has reached its end: everybody may go."""
        ...

    def close(self) -> None:
        """Let go of everything."""
        ...


@dataclass(frozen=True)
class Declared:
    """A member as the hub knows it: what each round spends of its privacy, as it said when it agreed.

    Attributes:
        spends: for one round, whichever.
    """

    spends: tuple[Spend, ...]

    def spend(self, round: Round) -> Sequence[Spend]:
        """What a round spends."""
        return self.spends


@dataclass(frozen=True)
class Carried:
    """An engine over a post.

    Attributes:
        post: keeps.
        names: who takes part, once the run has begun.
        people: what they spend of their own, where one does; {} where nobody does.
    """

    post: Post
    names: list[str]
    people: dict[str, Declared] = field(default_factory=dict)
    patient: ClassVar[bool] = True

    def kept(self, folder: str) -> None:
        """Where the run's ledger lies."""
        self.post.kept(folder)

    def begin(self, base: Round, recipe: Mapping[str, Any]) -> None:
        """A run begins, or goes on."""
        try:
            self.names[:] = self.post.begin(base, recipe)
            self.people.update(self.post.people())
        except BaseException:
            self.post.close()
            raise

    def roster(self) -> Roster:
        """Who takes part in this run."""
        return self.names

    def wanted(self) -> bool:
        """Is another round wanted? It waits while the run is paused."""
        return self.post.wanted()

    def ask(self, cohort: Sequence[str], message: Callable[[str], Envelope], until: Until) -> Iterator[Envelope]:
        """Ask each member once; see `Until` for how long answers are taken.

        Whoever may not answer any more is not waited for.
        """
        known = frozenset(self.names)
        for name in cohort:
            if name not in known:
                raise ConfigError(f"The selection asked '{name}', who is not a participant.")
        if not cohort and not until.owed:
            return iter(())
        return _Question(self.post, [message(name) for name in cohort], until).answers()

    def over(self) -> None:
        """The run has reached its end."""
        self.post.over()

    def close(self) -> None:
        """Let go of everything."""
        self.post.close()


class _Question:
    """One question to a cohort, until it is closed."""

    def __init__(self, post: Post, asked: Sequence[Envelope], until: Until) -> None:
        self._post, self._asked, self._until = post, asked, until
        self._missing = {message.round.me for message in asked}
        self._owed = dict(until.owed or {})
        self._clock = _Clock(until, time.monotonic)
        self._seen = self._got = 0
        self._looked = time.monotonic()

    def answers(self) -> Iterator[Envelope]:
        """Those that come in time."""
        post, turn = self._post, turn_of(self._asked[0]) if self._asked else None
        if turn is not None:
            post.put(turn, self._asked, self._until.owed)
        while True:
            yield from self._new(turn)
            left = self._clock.left(self._got, post.heard())
            if left <= 0 or self._enough() or self._hopeless():
                break
            post.wait(min(left, LOOK))
        if turn is not None and self._missing and self._until.owed is None:
            post.shut(turn)
            yield from self._new(turn)

    def _new(self, turn: Turn | None) -> Iterator[Envelope]:
        for number, answer in self._post.replies(turn, self._seen) if turn is not None else ():
            self._seen, self._got = number, self._got + 1
            self._missing.discard(answer.sender)
            yield answer
        for answer in self._post.late(self._owed) if self._owed else ():
            self._got += 1
            del self._owed[answer.sender]
            yield answer

    def _enough(self) -> bool:
        """Has everybody answered who is asked; or, where one may be late, as many as are needed?"""
        if self._until.owed is None:
            return not self._missing
        if self._until.seconds is None:
            return self._got >= self._until.quorum
        return not self._missing and (self._got >= self._until.quorum or not self._owed)

    def _hopeless(self) -> bool:
        """Is there nobody left who may answer?"""
        now = time.monotonic()
        if now - self._looked < LOOK:
            return False
        self._looked = now
        gone = set(self._post.gone())
        return bool(gone) and self._missing <= gone and (self._until.owed is None or self._owed.keys() <= gone)


class _Clock:
    """How long a question is open."""

    def __init__(self, until: Until, now: Callable[[], float]) -> None:
        self._until, self._now, self._start = until, now, now()
        self._enough = 0.0

    def left(self, got: int, heard: float) -> float:
        """Seconds that are left.

        Args:
            got: answers so far.
            heard: when bytes last arrived.
        """
        until, now = self._until, self._now()
        if until.seconds is None:
            return LOOK
        ends = max(self._start, min(heard, self._start + PATIENCE * until.seconds)) + until.seconds
        if got >= until.quorum:
            self._enough = self._enough or now
            if until.grace > 0:
                ends = min(ends, self._enough + until.grace)
        return ends - now


def turn_of(asked: Envelope) -> Turn:
    """What a message is about."""
    r = asked.round
    return Turn(r.run, r.number, r.attempt, r.hub, asked.phase)
