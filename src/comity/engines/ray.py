"""The engine of many machines of one owner: one actor per device, whole blocks of the cohort out, their sums back."""

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from comity.core.checks import number, text, whole, word
from comity.core.envelope import Envelope
from comity.core.errors import ConfigError
from comity.core.parts import Engine, Roster, Until
from comity.core.together import Part, Task
from comity.core.tree import leaves
from comity.engines.ray_actor import Outcome, packed
from comity.engines.ray_cluster import cores, join, leave, library, places
from comity.engines.ray_team import Run, Team, cut

BLOCKS, TOGETHER, BYTES = 64, 64, 2**28
"""Blocks of a cohort, at most; questions that travel together, and bytes of sums, at most."""
EXECUTORS = ("sequential", "batched")


@dataclass(frozen=True)
class Ray:
    """Runs participants on many machines of one owner, through Ray.

    Each actor gets the participants once, and in each round the names of whom it asks. Actors add what they get; what
    travels back is a sum for each block of the cohort, and the drawers that changed. The result does not depend on who
    did what, nor on an actor or machine that is lost: its part is done again by another.

    Never across a trust boundary: whoever reaches a cluster of Ray can do anything in it.

    Attributes:
        address: of a cluster ("auto": the one on this machine). None starts one on this machine, reached from nowhere
            else, and ends it after the run. Where this process is connected already, that is used, and left as it is.
        actors: how many; None for one per device: per GPU where the cluster has some, else per core.
        gpus: the share of a GPU that each gets, >= 0; None is 1 where the cluster has some, else 0. A model with
            `device="cuda"` then finds its own.
        executor: as for `Local`.

    Raises:
        ConfigError: a setting does not fit; and when it is run, Ray is not installed, or there is no such cluster.

    Example:
        >>> import comity as co
        >>> co.Ray(actors=2).actors
        2
    """

    address: str | None = None
    actors: int | None = None
    gpus: float | None = None
    executor: str | None = None

    def __post_init__(self) -> None:
        if self.address is not None:
            text("address", "Ray", self.address, hint="Use None to start one here, or 'auto'.")
        if self.actors is not None:
            object.__setattr__(self, "actors", whole("actors", "Ray", self.actors, 1))
        if self.gpus is not None:
            object.__setattr__(self, "gpus", number("gpus", "Ray", self.gpus, "[0, inf)"))
        if self.executor is not None:
            word("executor", "Ray", self.executor, EXECUTORS)

    @property
    def choice(self) -> Mapping[str, Any]:
        """How the work is done: a fact for the ledger. `workers` is None as long as a cluster is not joined."""
        try:
            found = version("ray")
        except PackageNotFoundError:
            found = ""
        chosen = "asked for" if self.executor else "sequential until measured"
        how = {"executor": self.executor or "sequential", "reason": chosen}
        return {**how, "workers": self._workers(), "engine": "ray", "ray": found}

    def _workers(self) -> int | None:
        if self.actors is not None:
            return self.actors
        if "ray" in sys.modules and library().is_initialized():
            return len(places(None, self.gpus)[0])
        return cores() if self.address is None else None

    def connect(self, roster: Roster, answer: Callable[[Envelope], Envelope]) -> Engine:
        """The engine over these participants: joins the cluster; actors are started with the first question.

        Args:
            roster: who there is.
            answer: the sites' door; where it has more than `__call__` (core.together.Door), that is used.
        """
        engine: Engine = _Joined(self, roster, answer)
        return engine


class _Joined:
    def __init__(self, settings: Ray, names: Roster, door: Any) -> None:
        """Join the cluster."""
        self._settings, self._names, self._door = settings, names, door
        self._team: Team | None = None
        join(self, settings.address, settings.actors)

    def roster(self) -> Roster:
        return self._names

    def close(self) -> None:
        """End the actors; and Ray, where it was started for this."""
        if self._team is not None:
            self._team.close()
        self._team = None
        leave(self)

    def ask(self, cohort: Sequence[str], message: Callable[[str], Envelope], until: Until) -> Iterator[Envelope]:
        for name in cohort:
            self._known(name)
        return self._ask(cohort, message) if cohort else iter(())

    def _ask(self, cohort: Sequence[str], message: Callable[[str], Envelope]) -> Iterator[Envelope]:
        team, put = self._hired(), _Put(library().put)
        waiting: dict[Run, list[Envelope]] = {}

        def send(actor: Any, run: Run) -> Any:
            asked = waiting.get(run) or waiting.setdefault(run, [message(n) for n in cohort[run.start : run.end]])
            body: Any = asked[0].body
            if len(asked) == 1 or any(a.body is not body for a in asked):
                return actor.answers.remote([], asked, self._lent(cohort, run))
            bare: Any = None
            return actor.answers.remote([put(body)], [replace(a, body=bare) for a in asked], self._lent(cohort, run))

        shares, rest = cut(len(cohort), 1, team.paces, most=TOGETHER, whole=False)
        for run, outcome in team.each(shares, rest, send):
            del waiting[run]
            yield from self._taken(outcome)

    @property
    def total(self) -> Callable[[Sequence[str], Task, Until], Iterator[Part]] | None:
        """Ask and add near the work, where the door can."""
        return self._total if hasattr(self._door, "total") else None

    def _total(self, cohort: Sequence[str], task: Task, until: Until) -> Iterator[Part]:
        for name in cohort:
            self._known(name)
        return self._parts(self._door.planned(task)) if cohort else iter(())

    def _parts(self, task: Task) -> Iterator[Part]:
        team = self._hired()
        head = library().put(replace(task, names=(), receipts={}))

        def send(actor: Any, run: Run) -> Any:
            part = task.run(task.start + run.start, task.start + run.end)
            lent = self._lent(task.names, run)
            return actor.total.remote([head], list(part.names), part.start, dict(part.receipts), lent)

        held = 2 * sum(getattr(x, "nbytes", 0) for _, x in leaves(task.question.body.value))
        block = max(1, math.ceil(task.question.round.asked / BLOCKS))
        most = max(1, min(BLOCKS, BYTES // max(1, held)))
        shares, rest = cut(len(task.names), block, team.paces, most=most, whole=task.start == 0)
        for _, outcome in team.each(shares, rest, send):
            yield from self._taken(outcome)

    def _hired(self) -> Team:
        """The team, with the door sent to the cluster."""
        if self._team is None:
            join(self, self._settings.address, self._settings.actors)
            away = getattr(self._door, "away", None)
            try:
                sent = packed(away() if away else self._door)
            except Exception as error:
                said = f"Got {type(error).__name__}: {error}".rstrip(".")[:300]
                must = "Participants must be such that they can be sent to an actor of Ray (pickled)"
                raise ConfigError(f"{must}. {said}. Use co.Local().") from error
            self._team = Team(*places(self._settings.actors, self._settings.gpus), library().put(sent))
        return self._team

    def _lent(self, names: Sequence[str], run: Run) -> Any:
        """The drawers of a run; None where the door has none."""
        return self._door.lend(names[run.start : run.end]) if hasattr(self._door, "lend") else None

    def _taken(self, outcome: Outcome) -> list[Any]:
        """What was given, once the drawers are back."""
        if outcome.touched:
            self._door.keep(outcome.touched)
        if outcome.error is not None:
            raise outcome.error
        return outcome.given

    def _known(self, name: str) -> None:
        if name not in self._names:
            raise ConfigError(f"The selection asked '{name}', who is not a participant.")


class _Put:
    """Sends a thing to the cluster, once where it is sent again and again."""

    def __init__(self, put: Callable[[Any], Any]) -> None:
        self._put, self._thing, self._ref = put, object(), None

    def __call__(self, thing: Any) -> Any:
        if thing is not self._thing:
            self._thing, self._ref = thing, self._put(thing)
        return self._ref
