"""The time that answers would take, by a clock that nobody waits for: deadlines and stragglers on one machine."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, ClassVar, TypeAlias

from comity.core.checks import number, part, refusal
from comity.core.envelope import Envelope, Owed
from comity.core.errors import ConfigError
from comity.core.parts import Engine, Roster, Until
from comity.core.round import Round
from comity.core.wire import size
from comity.engines.local import Local

Compute: TypeAlias = float | Mapping[str, float] | Callable[[Round], float]


@dataclass(frozen=True)
class Simulated:
    """An engine of this machine with a simulated clock: an answer comes when its link and its work say.

    An answer takes `link.seconds(bytes up, bytes down)`, real bytes both ways, and a contribution `compute` besides.
    So quorum, deadline and late answers can be planned without waiting; nothing sleeps. The seconds that pass are in
    the ledger (`seconds` of its entries), and depend on nothing but the run's seed: a run that was killed goes on with
    the same clock. A deadline is strict here: arriving bytes do not extend it. Lines are not shared; a participant who
    is asked again begins at once, whatever it was doing. Work is done when it is asked for, so a round in which nobody
    waits for a deadline holds the answers of its cohort.

    Attributes:
        engine: who does the work: `Local()`, in one process or several.
        links: a `Link` for all, or name to Link; who is not named has a line that takes no time.
        compute: seconds that a contribution takes: one number for all, name to number (0 for who is not named), or a
            function of the `Round` as the participant knows it: `r.me` is its name, `r.mine("compute")` its own public
            randomness of that round, `r.mine("compute", str(r.attempt))` that of the attempt.

    Raises:
        ConfigError: an engine of other machines, what is no link, or times that are not >= 0.

    Example:
        >>> import numpy as np, comity as co
        >>> data, model = (np.eye(4, dtype="float32"), np.array([0, 0, 1, 1])), co.Linear(inputs=4, classes=2)
        >>> sites = {name: co.Trainer(model, data) for name in ("ann", "ben", "slow")}
        >>> engine = co.Simulated(links=co.Link.of("dsl"), compute={"ann": 1.0, "ben": 1.0, "slow": 4.0})
        >>> fed = co.Collaboration(co.FedAvg(model), sites, deadline=2.0, late="next", evaluate=False)
        >>> ledger = fed.run(rounds=5, engine=engine).ledger
        >>> [int(e.facts["accepted"].sum()) for e in ledger if e.kind == "round"]
        [2, 2, 3, 2, 2]
    """

    engine: Any = field(default_factory=Local)
    _: KW_ONLY
    links: Any = field(default_factory=dict)
    compute: Compute = 0.0
    simulated: ClassVar[bool] = True

    def __post_init__(self) -> None:
        part("engine", "Simulated", self.engine, ("connect()", "choice"), "co.Local()")
        if getattr(self.engine, "remote", False) or getattr(self.engine, "simulated", False):
            raise ConfigError(
                "The 'engine' of Simulated must be one of this machine, without a clock. "
                f"Got {type(self.engine).__name__}. Use co.Local()."
            )
        for link in self.links.values() if isinstance(self.links, Mapping) else (self.links,):
            part("links", "Simulated", link, ("seconds()",), "co.Link(up=5e6, down=50e6), or name to Link")
        if callable(self.compute):
            return
        for seconds in self.compute.values() if isinstance(self.compute, Mapping) else (self.compute,):
            number("compute", "Simulated", seconds, "[0, inf)", hint="Or give a function of the round.")

    @property
    def choice(self) -> Mapping[str, Any]:
        """How the work is done: a fact for the ledger."""
        return {**self.engine.choice, "clock": "simulated"}

    @property
    def executor(self) -> str | None:
        """That of the engine."""
        return getattr(self.engine, "executor", None)

    @property
    def chunk(self) -> int | None:
        """That of the engine."""
        return getattr(self.engine, "chunk", None)

    def connect(self, roster: Roster, answer: Callable[[Envelope], Envelope]) -> Engine:
        """The engine over these participants."""
        return _Clocked(self, self.engine.connect(roster, answer), answer)

    def seconds(self, round: Round, up: int, down: int, phase: str = "contribute") -> float:
        """How long an answer takes.

        Args:
            round: as the participant knows it.
            up: bytes of the answer.
            down: bytes of the question.
            phase: of the question: only a contribution takes work.

        Raises:
            ConfigError: `compute` gave no seconds >= 0.
        """
        link = self.links.get(round.me) if isinstance(self.links, Mapping) else self.links
        way = float(link.seconds(up, down)) if link is not None else 0.0
        return way + (self._work(round) if phase == "contribute" else 0.0)

    def _work(self, round: Round) -> float:
        if isinstance(self.compute, Mapping):
            return float(self.compute.get(round.me, 0.0))
        if not callable(self.compute):
            return float(self.compute)
        said: Any = self.compute(round)
        try:
            seconds = float(said)
        except (TypeError, ValueError):
            seconds = math.nan
        if not 0 <= seconds < math.inf:
            raise refusal("compute", "Simulated", "a function that gives seconds >= 0", said, f"Look at '{round.me}'.")
        return seconds


class _Clocked:
    """An engine whose answers take time."""

    def __init__(self, settings: Simulated, engine: Any, door: Any) -> None:
        self.settings, self.engine, self.door = settings, engine, door
        self.patient = hasattr(door, "hold") and hasattr(door, "held")
        self._passed = 0.0

    def roster(self) -> Roster:
        """Who there is."""
        names: Roster = self.engine.roster()
        return names

    def took(self) -> float:
        """Seconds that passed since this was last asked."""
        passed, self._passed = self._passed, 0.0
        return passed

    def close(self) -> None:
        """As the engine within."""
        if close := getattr(self.engine, "close", None):
            close()

    def ask(self, cohort: Sequence[str], message: Callable[[str], Envelope], until: Until) -> Iterator[Envelope]:
        """Ask each member once, and yield what comes before the end: first of those asked now, then what is owed."""
        asked: dict[str, Envelope] = {}
        times: dict[str, float] = {}
        closes = until.owed is not None and until.seconds is None
        later: list[tuple[float, Envelope]] = []

        def noted(to: str) -> Envelope:
            asked[to] = message(to)
            return asked[to]

        for answer in self.engine.ask(cohort, noted, until):
            t = times[answer.sender] = self._time(asked.get(answer.sender), answer)
            if not closes and t <= (math.inf if until.seconds is None else until.seconds):
                yield answer
            elif until.owed is not None:
                later.append((t, answer))
        owed = self._owed(until.owed or {})
        end = ends(list(times.values()), [t for t, _ in owed], until)
        self._passed += end
        for t, answer in later:
            if t <= end:
                yield answer
            elif answer.sender in asked:
                self.door.hold(asked[answer.sender], answer)
        yield from (answer for t, answer in owed if t <= end)

    def _owed(self, owed: Mapping[str, Owed]) -> list[tuple[float, Envelope]]:
        """The answers to earlier questions, and in how many seconds they come."""
        found = []
        for o in owed.values():
            if (answer := self.door.held(o)) is not None:
                found.append((max(0.0, self.settings.seconds(o.round, _size(answer), o.down) - o.waited), answer))
        return found

    def _time(self, asked: Envelope | None, answer: Envelope) -> float:
        if asked is None:
            return 0.0
        return self.settings.seconds(asked.round, _size(answer), _size(asked), asked.phase)


def ends(asked: Sequence[float], owed: Sequence[float], until: Until) -> float:
    """When a question ends, in seconds after it was put.

    Args:
        asked: when the answers come of those who are asked now.
        owed: when those to earlier questions come.
        until: how long to wait.

    Example:
        >>> from comity.core.parts import Until
        >>> ends([1.0, 4.0], [2.0], Until(2, 3.0, owed={})), ends([1.0, 4.0], [2.0], Until(2, owed={}))
        (3.0, 2.0)
    """
    deadline = math.inf if until.seconds is None else until.seconds
    everybody = sorted([*asked, *owed])
    last = everybody[-1] if everybody else 0.0
    if until.owed is None or len(everybody) < until.quorum:
        return min(last, deadline)
    enough = everybody[until.quorum - 1]
    return enough if until.seconds is None else min(max(enough, *asked, 0.0), deadline)


def _size(envelope: Envelope) -> int:
    try:
        return size(envelope)
    except ConfigError:  # what cannot be laid out is refused by whoever asked
        return 0
