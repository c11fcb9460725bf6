"""The engine between organisations: questions are left at a post, and answers are taken from it as they are committed.

It knows neither HTTP nor a database: a `Post` keeps what must not be lost. Whatever is asked again after a restart
under the same (run, round, attempt, hub, phase) is not asked anew: what was committed is given again, in the same
order, and a question that was closed stays closed.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from comity.core.envelope import Envelope
from comity.core.errors import ConfigError
from comity.core.parts import Roster, Until
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

    def begin(self, base: Round, recipe: Mapping[str, Any]) -> Sequence[str]:
        """A run begins, or goes on: who takes part, the same at every call for this run."""
        ...

    def put(self, turn: Turn, asked: Sequence[Envelope]) -> None:
        """Make questions known, all or none; those that are known already are left as they are."""
        ...

    def replies(self, turn: Turn, after: int) -> Sequence[tuple[int, Envelope]]:
        """The committed answers with a number above `after`, in the order in which they were committed."""
        ...

    def shut(self, turn: Turn) -> None:
        """Take no more answers."""
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
class Carried:
    """An engine over a post."""

    post: Post
    names: list[str]

    def begin(self, base: Round, recipe: Mapping[str, Any]) -> None:
        """A run begins, or goes on."""
        try:
            self.names[:] = self.post.begin(base, recipe)
        except BaseException:
            self.post.close()
            raise

    def roster(self) -> Roster:
        """Who takes part in this run."""
        return self.names

    def ask(self, cohort: Sequence[str], message: Callable[[str], Envelope], until: Until) -> Iterator[Envelope]:
        """Ask each member once; see `Until` for how long answers are taken."""
        known = frozenset(self.names)
        for name in cohort:
            if name not in known:
                raise ConfigError(f"The selection asked '{name}', who is not a participant.")
        return self._ask([message(name) for name in cohort], until) if cohort else iter(())

    def _ask(self, asked: Sequence[Envelope], until: Until) -> Iterator[Envelope]:
        turn, clock = turn_of(asked[0]), _Clock(until, time.monotonic)
        self.post.put(turn, asked)
        seen = got = 0
        while True:
            for number, answer in self.post.replies(turn, seen):
                seen, got = number, got + 1
                yield answer
            left = clock.left(got, self.post.heard())
            if got >= len(asked) or left <= 0:
                break
            self.post.wait(min(left, LOOK))
        if got < len(asked):
            self.post.shut(turn)
            yield from (answer for _, answer in self.post.replies(turn, seen))

    def over(self) -> None:
        """The run has reached its end."""
        self.post.over()

    def close(self) -> None:
        """Let go of everything."""
        self.post.close()


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
