"""The parts put together: check, run, resume, replace."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from dataclasses import replace as replaced
from pathlib import Path
from typing import Any

from comity.channels.plain import Plain
from comity.completing import completed
from comity.core.checks import flag, number, path, refusal, seeded, text, whole, word
from comity.core.contribution import Tree
from comity.core.errors import ConfigError, nearest
from comity.core.fits import data_fits, fits, frozen_fits, listed, listeners, participants_fit
from comity.core.parts import Channel, Combiner, Method, Participant, Select, Stop, Transform
from comity.core.recipe import describe, kinds, recipe
from comity.core.round import Round
from comity.core.rules import Parts, check
from comity.engines.local import Local, Population
from comity.listeners.telling import Listener
from comity.loop.select import Every, everyone
from comity.running import Running, Saved, left_behind


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
        quorum: the share of the cohort that must be accepted for a round to close; all where `select` wants all.
        retries: how often a round is tried again before the run stops.
        deadline: seconds a cohort has; None waits for everybody.
        seed: of all public randomness.
        late: what becomes of an answer that was not there when its round closed. "drop": it is lost. "next": its
            sender is asked nothing else until it has come, and it then counts once, as a change of the model of that
            later round, times (1 + rounds late)^-staleness (FedAsync: Xie, Koyejo and Gupta 2020; FedBuff: Nguyen et
            al., AISTATS 2022). Without a deadline a round then closes as soon as its quorum is there. Some engines keep
            no question open (Local): there nobody is late.
        staleness: the exponent a >= 0; 0 counts late answers in full.
        oldest: how many rounds late an answer may be, >= 1; who is later is asked anew.

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
    late: str = "drop"
    staleness: float = 0.5
    oldest: int = 10

    def __post_init__(self) -> None:
        for name in ("method", "combine", "channel", "stop"):
            if getattr(self, name) is not None or name not in ("combine", "stop"):
                fits(name, getattr(self, name))
        self._keep(transforms=listed("transforms", self.transforms), seed=seeded("", self.seed))
        self._keep(retries=whole("retries", "", self.retries))
        self._keep(quorum=number("quorum", "", self.quorum, "[0, 1]", hint="Use 1.0 to ask for everybody."))
        if self.deadline is not None:
            self._keep(deadline=number("deadline", "", self.deadline, "(0, inf)", hint="None waits for everybody."))
        word("late", "", self.late, ("drop", "next"))
        self._keep(staleness=number("staleness", "", self.staleness, "[0, inf)", hint="Use 0.5, or 0 for no discount."))
        self._keep(oldest=whole("oldest", "", self.oldest, 1))
        if not isinstance(self.evaluate, bool | Every):
            raise refusal("evaluate", "", "True, False or every(n)", self.evaluate, "Use co.every(5), for one.")
        if not isinstance(self.participants, Population):
            participants_fit(self.participants)
        fits("combine", self.parts.combiner)
        check(self.parts)
        fits("select", self.select)

    def _keep(self, **plain: Any) -> None:
        """Settings as plain Python has them: a generator would be empty at its second use."""
        for name, value in plain.items():
            object.__setattr__(self, name, value)

    @property
    def parts(self) -> Parts:
        """Everything that both sides of the loop need to know."""
        given = Parts(
            method=self.method,
            combiner=self.method.combiner if self.combine is None else self.combine,
            transforms=tuple(self.transforms),
            channel=self.channel,
            select=self.select,
            quorum=max(self.quorum, getattr(self.select, "quorum", 0.0)),
            retries=self.retries,
            deadline=self.deadline,
            late=self.oldest if self.late == "next" else 0,
            staleness=self.staleness,
        )
        return completed(given)

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
        own["combine"], own["transforms"] = self.parts.combiner, self.parts.transforms
        if self.late == "drop":  # what changes nothing was not agreed on
            own = {k: v for k, v in own.items() if k not in ("late", "staleness", "oldest")}
        return own

    def _known(self) -> Iterable[tuple[str, Participant]]:
        """Everybody by name; of a population, the first."""
        everybody = self.participants
        if isinstance(everybody, Population):
            return ((name, everybody.find(name)) for name in everybody.names[:1])
        return everybody.items()

    def run(
        self,
        rounds: int,
        *,
        folder: str | Path | None = None,
        engine: Local | None = None,
        listen: Listener | Sequence[Listener] | None = None,
    ) -> "Run":
        """Run until so many rounds have closed; where the folder holds rounds already, go on after them.

        Args:
            rounds: closed rounds at the end, >= 0.
            folder: where recipe, ledger and states are kept; None keeps nothing. Saved at most once a
                second and at the end; a run that was killed ends bit-equal to one left alone.
            engine: what carries; `Local()` by default.
            listen: a function of one event, or a list of them: "round" (closed or not), "score", "saved" (the folder
                holds everything up to that number of rounds) and, last and always, "end" (closed: no error ended it).
                A listener that fails is reported as a RuntimeWarning and told no more: what it does changes nothing
                in the run, which goes on. Use `stop` to end a run.

        Raises:
            ConfigError: no participants, frozen values that differ, or the folder holds another recipe (the
                difference is printed).
            TooFewParticipants: a round did not reach its quorum; run the same again to go on.
            LedgerError: what the folder holds does not match its hashes.
        """
        rounds = whole("rounds", "run", rounds)
        folder = None if folder is None else path("folder", "run", folder)
        engine, told = ready(self, engine), listeners(listen)
        agreed = recipe(self)
        with Saved.open(folder, agreed) as saved:
            running = Running(self, engine, saved, agreed["hash"], told)
            running.until(rounds)
            return Run(running)


def ready(fed: Collaboration, engine: Local | None) -> Local:
    """The engine for a run, once everything that a run needs is there.

    Raises:
        ConfigError: no participants, data or frozen values that do not fit, or no engine.
    """
    engine = Local() if engine is None else engine
    fits("engine", engine)
    if not len(fed.participants) and not getattr(engine, "remote", False):
        raise ConfigError("A run needs participants. Got none. Give {name: co.Trainer(...)}.")
    for name, participant in fed._known():
        data_fits(name, participant)
        frozen_fits(fed.method, name, participant)
    return engine


class Run:
    """What came of a run.

    Attributes:
        ledger: what happened: who, how many bytes, who was refused or dropped and why.
        metrics: the last value of each metric, a ratio of sums over those who were scored.
        recipe: sha256 of what was agreed, hex.

    Example:
        >>> import numpy as np, comity as co
        >>> data, model = (np.eye(4, dtype="float32"), np.array([0, 0, 1, 1])), co.Linear(inputs=4, classes=2)
        >>> co.Collaboration(co.FedAvg(model), {name: co.Trainer(model, data) for name in "ab"}).run(rounds=3)
        Run(rounds=3, recipe=..., train_accuracy=..., train_log_loss=...)
    """

    def __init__(self, running: Running) -> None:
        """Keep what outlives the run."""
        self._method, self._sites, self._receipts = running.method, running.sites, running.asking.receipts
        self._states, self._best = running.states, running.best
        self._last = running.rounds.base
        self.ledger, self.metrics, self.recipe = running.ledger, running.metrics, running.recipe

    def __repr__(self) -> str:
        scores = "".join(f", {name}={value:.4g}" for name, value in self.metrics.items())
        return f"Run(rounds={self.ledger.rounds}, recipe={self.recipe[:8]}{scores})"

    @property
    def state(self) -> Any:
        """The method's state at the hub; {hub: state} where there are several."""
        return _only({hub: s.method for hub, s in self._states.items()})

    @property
    def combiner(self) -> Any:
        """The combiner's state at the hub, reputations for one; {hub: state} where there are several."""
        return _only({hub: s.combiner for hub, s in self._states.items()})

    @property
    def shared(self) -> Any:
        """What the hub shares at the end, a Tree (the parameters, for FedAvg); {hub: Tree} where there are several."""
        return self._shared(self._states)

    @property
    def best(self) -> Any:
        """What it shared when the validation loss was lowest; as `shared` where there was no validation."""
        return self._shared(self._best or self._states)

    def _shared(self, states: Mapping[str, Any]) -> Any:
        return _shared(self._method, states, self._last)

    @property
    def history(self) -> Any:
        """A polars frame with one row for each closed round.

        Its columns: `round` (counted from 1), `asked` and `accepted` (participants, each once however many hubs hear
        it), `bytes_up` and `bytes_down` (everything since the close of the round before, scores and failed attempts
        included), and each metric, null where it was not taken.

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
        text("name", "local", name, what="the name of a participant")
        return self._sites.kept(name, self._receipts.get(name))


def _shared(method: Method, states: Mapping[str, Any], last: Round) -> Any:
    trees = {hub: method.share(s.method, "", replaced(last, hub=hub)).value for hub, s in states.items()}
    return _only(trees)


def _only(by_hub: Mapping[str, Any]) -> Any:
    """What the one hub has, or what each of them has."""
    return next(iter(by_hub.values())) if len(by_hub) == 1 else dict(by_hub)


def load(folder: str | Path, method: Method, *, best: bool = False) -> Any:
    """What a run shared at its end, read from its folder: for predictions, or as the `start` of another run.

    The folder is only read; the run may be going on. What a state means is known to the method alone, so it comes from
    the caller, with the model that it had then.

    Args:
        folder: of a run.
        method: of the kind that ran in it.
        best: what it shared when the validation loss was lowest; the last where there was no validation.

    Returns:
        A Tree, as `run.shared` (or `run.best`); {hub: Tree} where there were several hubs.

    Raises:
        ConfigError: no run in it, or one of another method.
        LedgerError: what it holds does not match its hashes.

    Example:
        >>> import tempfile, numpy as np, comity as co
        >>> data, model = (np.eye(4, dtype="float32"), np.array([0, 0, 1, 1])), co.Linear(inputs=4, classes=2)
        >>> sites = {name: co.Trainer(model, data) for name in ("a", "b")}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     first = co.Collaboration(co.FedAvg(model), sites).run(rounds=3, folder=folder)
        ...     warm = co.FedAvg(model, start=co.load(folder, co.FedAvg(model)))
        >>> np.array_equal(warm.init(co.Round("", 0))["params"]["0.weight"], first.shared["0.weight"])
        True
    """
    fits("method", method)
    states, last, agreed = left_behind(path("folder", "load", folder), "best" if flag("best", "load", best) else "last")
    was, got = agreed["parts"]["method"].get("class"), describe(method).get("class")
    if was != got:
        raise ConfigError(f"The 'method' of load must be a {was}, which ran in {folder}. Got a {got}. Use that.")
    return _shared(method, states, last)
