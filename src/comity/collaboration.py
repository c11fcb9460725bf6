"""The parts put together: check, run, resume, replace."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from dataclasses import replace as replaced
from pathlib import Path
from typing import Any

from comity.channels.plain import Plain
from comity.core.contribution import Tree
from comity.core.errors import ConfigError, nearest
from comity.core.parts import Channel, Combiner, Method, Participant, Select, Stop, Transform
from comity.core.recipe import kinds, recipe
from comity.core.round import Round
from comity.core.rules import Parts, check
from comity.engines.local import Local, Population
from comity.loop.hub import Event
from comity.loop.select import Every, everyone
from comity.running import Running, Saved

Listener = Callable[[Event], None]


@dataclass(frozen=True)
class Collaboration:
    """Participants who learn together: what, how it is combined, how it is protected, who is asked.

    The parts are checked against each other when they are put together, before anything moves.

    Attributes:
        method: what is learnt.
        participants: name to participant, or a `Population`.
        combine: many to one; by default the method's own.
        transforms: protect or compress on the way up, in this order; undone in reverse.
        channel: how contributions become visible.
        select: who is asked in a round, and who hears whom.
        stop: ends a run before its last round.
        evaluate: `every(n)` takes scores after every n rounds and at the end; True only at the end; False never.
        quorum: the share of the cohort that must be accepted for a round to close.
        retries: how often a round is tried again before the run stops.
        deadline: seconds a cohort has; None waits for everybody.
        seed: of all public randomness.

    Raises:
        ConfigError: parts that do not fit together, and what to use instead.

    Example:
        >>> import numpy as np, comity as co
        >>> X, y = np.eye(4, dtype="float32"), np.array([0, 0, 1, 1])
        >>> model = co.Linear(inputs=4, classes=2, rate=0.5)
        >>> sites = {name: co.Trainer(model, (X, y)) for name in ("a", "b", "c")}
        >>> run = co.Collaboration(co.FedAvg(model), sites, seed=0).run(rounds=5)
        >>> sorted(run.shared), run.ledger.rounds
        (['0.bias', '0.weight'], 5)
    """

    method: Method
    participants: Mapping[str, Participant] | Population = field(default_factory=dict)
    combine: Combiner | None = None
    transforms: Sequence[Transform] = ()
    channel: Channel = field(default_factory=Plain)
    select: Select = field(default_factory=everyone)
    stop: Stop | None = None
    evaluate: Every | bool = True
    quorum: float = 0.5
    retries: int = 2
    deadline: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.seed, int):
            raise ConfigError(f"The 'seed' must be an int. Got {self.seed!r}.")
        if not isinstance(self.participants, Population):
            if not isinstance(self.participants, Mapping):
                got = type(self.participants).__name__
                raise ConfigError(f"The 'participants' must be {{name: participant}} or a Population. Got {got}.")
            for name in self.participants:
                _check_name(name)
        check(self.parts)

    @property
    def parts(self) -> Parts:
        """Everything that both sides of the loop need to know."""
        return Parts(
            method=self.method,
            combiner=self.combine or self.method.combiner,
            transforms=tuple(self.transforms),
            channel=self.channel,
            select=self.select,
            quorum=self.quorum,
            retries=self.retries,
            deadline=self.deadline,
        )

    def replace(self, **changes: Any) -> "Collaboration":
        """The same collaboration with some parts changed, checked anew.

        Args:
            changes: any attribute by its name.

        Raises:
            ConfigError: no attribute has that name, or the parts no longer fit.
        """
        known = {f.name for f in fields(self)}
        for name in changes:
            if name not in known:
                raise ConfigError(f"A Collaboration has no '{name}'.{nearest(name, known)}")
        return replaced(self, **changes)

    def described(self) -> dict[str, Any]:
        """What enters the recipe: every part with its settings, and the sorts of participants."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "participants"}
        everybody = self.participants
        if isinstance(everybody, Population):
            own["participants"] = {"make": everybody.make}
        else:
            own["participants"] = kinds(list(everybody.values()))
        own["combine"] = self.combine or self.method.combiner
        return own

    def run(
        self,
        rounds: int,
        *,
        folder: str | Path | None = None,
        engine: Local | None = None,
        listen: Listener | None = None,
    ) -> "Run":
        """Run until so many rounds have closed; where the folder holds rounds already, go on after them.

        Args:
            rounds: closed rounds at the end, >= 0.
            folder: where recipe, ledger and states are kept; None keeps nothing. Saved at most once a
                second and at the end; a run that was killed ends bit-equal to one left alone.
            engine: what carries; `Local()` by default.
            listen: is told every event.

        Raises:
            ConfigError: no participants, or the folder holds another recipe (the difference is printed).
            TooFewParticipants: a round did not reach its quorum; run the same again to go on.
            LedgerError: what the folder holds does not match its hashes.
        """
        if not (isinstance(rounds, int) and not isinstance(rounds, bool) and rounds >= 0):
            raise ConfigError(f"The 'rounds' must be an int >= 0. Got {rounds!r}.")
        if not len(self.participants):
            raise ConfigError("A run needs participants. Got none. Give {name: co.Trainer(...)}.")
        agreed = recipe(self)
        with Saved.open(folder, agreed) as saved:
            running = Running(self, engine or Local(), saved, agreed["hash"], listen)
            running.until(rounds)
            return Run(running)


class Run:
    """What came of a run.

    Attributes:
        ledger: what happened: who, how many bytes, who was refused or dropped and why.
        metrics: the last value of each metric, a ratio of sums over those who were scored.
        recipe: sha256 of what was agreed, hex.
    """

    def __init__(self, running: Running) -> None:
        """Keep what outlives the run."""
        self._method, self._sites, self._receipts = running.method, running.sites, running.asking.receipts
        self._states, self._best = running.states, running.best
        self._last = running.rounds.base
        self.ledger, self.metrics, self.recipe = running.ledger, running.metrics, running.recipe

    @property
    def state(self) -> Any:
        """The method's state at the hub; {hub: state} where there are several."""
        states = {hub: s.method for hub, s in self._states.items()}
        return next(iter(states.values())) if len(states) == 1 else states

    @property
    def shared(self) -> Any:
        """What the hub shares at the end, a Tree (the parameters, for FedAvg); {hub: Tree} where there are several."""
        return self._shared(self._states)

    @property
    def best(self) -> Any:
        """What it shared when the validation loss was lowest; as `shared` where there was no validation."""
        return self._shared(self._best or self._states)

    def _shared(self, states: Mapping[str, Any]) -> Any:
        trees = {h: self._method.share(s.method, "", _at(self._last, h)).value for h, s in states.items()}
        return next(iter(trees.values())) if len(trees) == 1 else trees

    @property
    def history(self) -> Any:
        """A polars frame with one row for each closed round.

        Its columns: `round` (counted from 1), `asked` and `accepted` (participants), `bytes_up` and `bytes_down`
        (everything since the close of the round before, scores and failed attempts included), and each metric,
        null where it was not taken.

        Raises:
            ConfigError: polars is not installed.
        """
        from comity.data.tables import frame
        from comity.ledger.history import history

        return frame(history(self.ledger))

    def local(self, name: str) -> Tree:
        """A participant's own drawer (in-process runs only: it is read where it lies).

        Raises:
            ConfigError: there is no such participant.
        """
        return self._sites.kept(name, self._receipts.get(name))


def _at(round: Round, hub: str) -> Round:
    return replaced(round, hub=hub)


def _check_name(name: Any) -> None:
    if not (isinstance(name, str) and name and name.isprintable()):
        raise ConfigError(f"A participant's name must be printable text. Got {name!r}.")
