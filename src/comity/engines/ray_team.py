"""Who does which part of a cohort: most of it is handed out at once, the rest goes to whoever is free."""

import math
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

from comity.core.errors import ComityError, ConfigError
from comity.engines.ray_actor import Outcome, Worker
from comity.engines.ray_cluster import library

PUSHED, LIGHT, AHEAD = 0.8, 0.02, 2
"""The share handed out at once; seconds of work an actor below which all is; runs that wait in an actor."""
TRIES, GRACE, PATIENCE = 3, 1.0, 300.0
"""How often a run is begun; seconds for work that nobody waits for any more; seconds without any actor."""


class Run(NamedTuple):
    """Neighbours in a cohort: positions from `start` to before `end`."""

    start: int
    end: int


def cut(
    members: int, block: int, paces: Sequence[float | None], *, most: int, whole: bool
) -> tuple[list[deque[Run]], deque[Run]]:
    """Cut a cohort into runs of whole blocks.

    Args:
        members: how many.
        block: members of a block.
        paces: for each actor the seconds that a member takes; None where that is not known yet.
        most: blocks of a run.
        whole: is the first actor's share one run, however long?

    Returns:
        For each actor its share, longer where it is faster; and the rest, in runs for whoever is free: none where all
        of it takes no time, or only one is there.
    """
    blocks, known = math.ceil(members / block), [p for p in paces if p]
    usual = sum(known) / len(known) if known else None
    light = usual is not None and members * usual < LIGHT * len(paces)
    pushed = blocks if light or len(paces) == 1 else round(PUSHED * blocks)
    ends = list(accumulate((usual or 1.0) / (p or usual or 1.0) for p in paces))
    edges = [0, *(round(pushed * end / ends[-1]) for end in ends)]

    def runs(a: int, b: int, n: int) -> deque[Run]:
        return deque(Run(i * block, min(min(i + n, b) * block, members)) for i in range(a, b, n))

    shares = [runs(a, b, max(1, b - a) if whole and a == 0 else most) for a, b in pairwise(edges)]
    return shares, runs(pushed, blocks, max(1, min(most, (blocks - pushed) // (4 * len(paces)))))


@dataclass(eq=False)
class Slot:
    """A place for an actor, whoever holds it.

    Attributes:
        node: where it is to be.
        actor: who holds it; None before the first.
        ready: has it taken the door?
        pace: seconds that a member takes there; None before the first.
        lost: actors in a row that were lost before they were ready.
    """

    node: str
    actor: Any = None
    ready: bool = False
    pace: float | None = None
    lost: int = 0

    def learn(self, seconds: float, members: int) -> None:
        """Note how long some members took."""
        each = max(seconds, 1e-9) / members
        self.pace = each if self.pace is None else 0.5 * (self.pace + each)


class Team:
    """The actors of a run: one for each place, replaced when they are lost.

    Args:
        nodes: the place of each.
        gpus: the share of a GPU of each.
        door: a reference to what they are to hold.
    """

    def __init__(self, nodes: Sequence[str], gpus: float, door: Any) -> None:
        """Take places; actors are started with the first work."""
        self._ray, self._gpus, self._door = library(), gpus, door
        self.slots = [Slot(node) for node in nodes]
        self._starting: dict[Any, tuple[Slot, Any]] = {}

    @property
    def paces(self) -> list[float | None]:
        """Seconds that a member takes in each place."""
        return [s.pace for s in self.slots]

    def each(
        self, shares: list[deque[Run]], rest: deque[Run], send: Callable[[Any, Run], Any]
    ) -> Iterator[tuple[Run, Outcome]]:
        """Have all runs done, and give what came of each as it comes.

        Args:
            shares: for each place.
            rest: for whoever is free.
            send: sends a run to an actor and gives the reference to its Outcome; again, where an actor is lost.

        Raises:
            ComityError: three actors were lost over the same run, or nobody could be started.
        """
        flying: dict[Any, tuple[Slot, Any, Run]] = {}
        begun: Counter[Run] = Counter()
        try:
            while flying or rest or any(shares):
                self._hand_out(flying, shares, rest, send)
                for ref in self._wait([*flying, *self._starting], bool(flying)):
                    if ref in self._starting:
                        self._started(ref)
                        continue
                    slot, actor, run = flying.pop(ref)
                    outcome = self._outcome(ref)
                    if isinstance(outcome, Outcome):
                        slot.learn(outcome.seconds, run.end - run.start)
                        yield run, outcome
                        continue
                    begun[run] += 1
                    if begun[run] == TRIES:
                        raise ComityError(_lost(f"over members {run.start + 1} to {run.end} of a cohort", outcome))
                    rest.appendleft(run)
                    if slot.actor is actor:
                        self._hire(slot)
        finally:
            self._abandon(flying)

    def close(self) -> None:
        """End all actors."""
        if self._ray.is_initialized():
            for slot in self.slots:
                self._fire(slot)
        self._starting.clear()

    def _hand_out(self, flying: dict[Any, Any], shares: list[deque[Run]], rest: deque[Run], send: Any) -> None:
        for slot, share in zip(self.slots, shares, strict=True):
            if slot.actor is None:
                self._hire(slot)
            has = sum(s is slot for s, _, _ in flying.values())
            while slot.ready and has < AHEAD and (run := _next(share, rest, shares, has > 0)):
                flying[send(slot.actor, run)] = (slot, slot.actor, run)
                has += 1

    def _wait(self, refs: list[Any], working: bool) -> list[Any]:
        done: list[Any] = self._ray.wait(refs, num_returns=1, timeout=None if working else PATIENCE)[0]
        if not done:
            room = f"The cluster must have room for an actor. Got none in {PATIENCE:.0f} seconds."
            raise ConfigError(f"{room} Use fewer actors or a smaller share of GPUs, or wait for other work to end.")
        return done

    def _outcome(self, ref: Any) -> "Outcome | Exception":
        """What came, or how the actor was lost."""
        errors = self._ray.exceptions
        try:
            outcome: Outcome = self._ray.get(ref)
        except errors.RayTaskError:
            raise
        except errors.RayError as lost:
            return lost  # type: ignore[no-any-return]
        return outcome

    def _hire(self, slot: Slot) -> None:
        """Start an actor for this place, or near it where its node is lost."""
        self._fire(slot)
        near = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(slot.node, soft=True)
        settings = {"num_cpus": 0, "num_gpus": self._gpus, "max_restarts": 0, "scheduling_strategy": near}
        slot.actor = self._ray.remote(**settings)(Worker).remote()
        self._starting[slot.actor.open.remote([self._door])] = (slot, slot.actor)

    def _fire(self, slot: Slot) -> None:
        if slot.actor is not None:
            self._ray.kill(slot.actor, no_restart=True)
        slot.actor, slot.ready = None, False

    def _started(self, ref: Any) -> None:
        slot, actor = self._starting.pop(ref)
        if slot.actor is not actor:
            return
        outcome = self._outcome(ref)
        if not isinstance(outcome, Outcome):
            slot.lost += 1
            if slot.lost == TRIES:
                self._fire(slot)
                raise ComityError(_lost("before they could begin", outcome))
            self._hire(slot)
        elif outcome.error is not None:
            self._fire(slot)
            said = f"Got {type(outcome.error).__name__}: {outcome.error}".rstrip(".")
            must = "Participants must be such that an actor can load them"
            raise ConfigError(f"{must}. {said}. Install their modules on each machine.") from outcome.error
        else:
            slot.ready, slot.lost = True, 0

    def _abandon(self, flying: dict[Any, tuple[Slot, Any, Run]]) -> None:
        """Nobody waits for these any more: an actor that does not end them soon is replaced before its next work."""
        if not flying or not self._ray.is_initialized():
            return
        late = self._ray.wait(list(flying), num_returns=len(flying), timeout=GRACE)[1]
        for slot, actor, _ in map(flying.__getitem__, late):
            if slot.actor is actor:
                self._fire(slot)


def _next(share: deque[Run], rest: deque[Run], shares: Sequence[deque[Run]], busy: bool) -> Run | None:
    """The next run of a place: its own, else of the rest, else the last of the longest share, if it has nothing."""
    if share:
        return share.popleft()
    if busy:
        return None
    return rest.popleft() if rest else longest.pop() if (longest := max(shares, key=len)) else None


def _lost(when: str, why: Exception) -> str:
    said = " ".join(str(why).split())[:300]
    return f"An actor of Ray must last. Got {TRIES} that were lost {when} ({said}). Look at memory, then run again."
