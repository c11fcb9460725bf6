"""A race: several collaborations side by side; validation scores say which of them is worth the full number of rounds.

Successive halving (Jamieson and Talwalkar, AISTATS 2016) with rounds as the budget: no run is begun anew, and what all
candidates sent and received is counted.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from comity.collaboration import Collaboration, Run, ready
from comity.core.checks import LONGEST_NAME, part, path, refusal, text, whole
from comity.core.errors import ComityError, ConfigError
from comity.core.fits import fits
from comity.core.recipe import recipe
from comity.engines.local import Local
from comity.ledger.record import Ledger
from comity.loop.hub import add_metrics
from comity.running import Running, Saved

USUAL = ("valid_accuracy", "valid_log_loss", "valid_mse")
LOWER = ("loss", "mse", "mae")
VALID, SAFE = "valid_", " =,+()"
_NEEDS = ("method", "parts", "evaluate", "described()")


class Standing(NamedTuple):
    """How a candidate stood at a stage.

    Attributes:
        name: of the candidate.
        rounds: closed until then; fewer than the stage's where its `stop` ended it.
        score: on validation rows; NaN where it, or any participant's, was no finite number.
    """

    name: str
    rounds: int
    score: float


@dataclass(frozen=True)
class Race:
    """What came of a race; printed, it is a small table.

    Attributes:
        winner: the name of the candidate that ran on to the end.
        run: what came of it, as its own `run` gives it.
        by: the validation metric that decided.
        table: the standing of each candidate at each stage: name, rounds, score on validation.
        bytes_up: bytes that came from participants, in the runs of all candidates together.
        bytes_down: bytes that went to them.
    """

    winner: str
    run: Run = field(repr=False)
    by: str
    table: tuple[Standing, ...]
    bytes_up: int
    bytes_down: int

    def __str__(self) -> str:
        wide = max(len("candidate"), *(len(s.name) for s in self.table))
        lines = [f"{'candidate':<{wide}}  rounds  {self.by}"]
        lines += [f"{s.name:<{wide}}  {s.rounds:>6}  {s.score:>{len(self.by)}.4f}" for s in self.table]
        won = f"{self.winner} won and has {self.run.ledger.rounds} rounds."
        return "\n".join([*lines, f"{won} All together: {self.bytes_up:,} bytes up, {self.bytes_down:,} down."])


def race(
    candidates: Mapping[str, Collaboration],
    rounds: int,
    *,
    after: int | Sequence[int],
    by: str | None = None,
    folder: str | Path | None = None,
    engine: Local | None = None,
) -> Race:
    """Run several collaborations for a few rounds, and the one with the best validation score to the end.

    For what cannot be known beforehand: a learning rate for each method, the density of a ticket, a shared mask or
    personal ones. Each candidate runs until `after` rounds have closed. Of several stages each lets the better half
    stay, rounded up, and the last one a single candidate (successive halving: Jamieson and Talwalkar, AISTATS 2016;
    there the length of a stage follows from a total budget, here it is said). Who stays runs on from where
    it stands; who does not ends there. Where scores are equal, the first of the candidates wins.

    A score is a metric of the run: a ratio of sums over the validation rows of all participants who were scored, each
    row counting once. Test scores never decide. A candidate whose score, or that of any of its participants, is no
    finite number loses to all others.

    At a stage a candidate is scored as at the end of a run: those scores are in its ledger and in its bytes, and
    `run.best` knows them. The winner's state is what it would be alone, to the bit; with co.every(n) and stages that
    are multiples of n the scores would be taken anyway, and so are the facts of its ledger. An engine that measures how
    to work may choose differently in a run in pieces: name its executor where bits must be the same.

    Args:
        candidates: name to collaboration, two at least.
        rounds: closed rounds of the winner at the end, >= 1.
        after: closed rounds at which validation decides: one number, or a rising sequence, none above `rounds`.
        by: the metric, whose name begins with "valid_": the lowest wins where it ends in "loss", "mse" or "mae", else
            the highest. None takes the first of "valid_accuracy", "valid_log_loss", "valid_mse" that all have.
        folder: where each candidate has a folder of its name, in which its run is kept; None keeps nothing, and holds
            in memory those who are still in the race. Killed and started again, a race goes on to the same end; with
            more `rounds`, its winner goes on.
        engine: what carries; `Local()` by default.

    Raises:
        ConfigError: something does not fit, a candidate takes no validation scores, or nobody's is a finite number.
        ComityError: what a candidate's run raised (TooFewParticipants, for one), with the candidate's name. With a
            folder nothing is lost: run the same again, or without that candidate.

    Example:
        >>> import numpy as np, comity as co
        >>> rng = np.random.default_rng(0)
        >>> X, y = rng.normal(size=(60, 4)).astype("float32"), np.arange(60) % 2
        >>> X[:, 0] += 3 * y
        >>> def fed(rate):
        ...     model = co.MLP(inputs=4, classes=2, hidden=(8,), rate=rate)
        ...     sites = {name: co.Trainer(model, (X[i:40:2], y[i:40:2]), valid=(X[40:], y[40:])) for i, name in
        ...              enumerate(("a", "b"))}
        ...     return co.Collaboration(co.FedAvg(model), sites, seed=0)
        >>> found = co.race({"slow": fed(0.0001), "fast": fed(0.1)}, rounds=6, after=2)
        >>> found.winner, found.run.ledger.rounds
        ('fast', 6)
        >>> [(s.name, s.rounds) for s in found.table]
        [('slow', 2), ('fast', 2)]
    """
    rounds = whole("rounds", "race", rounds, 1)
    stages, by = _stages(after, rounds), _validation(by)
    left = lanes = _lanes(candidates, folder, engine)
    table: list[Standing] = []
    for stage in stages:
        if len(left) == 1:
            break
        for lane in left:
            lane.on(stage)
        by = by or _common(left)
        table += [Standing(lane.name, lane.reached, lane.score(by)) for lane in left]
        left = _better(left, by, 1 if stage == stages[-1] else -(-len(left) // 2))
        for lane in lanes:
            lane.running = lane.running if lane in left else None
    run = left[0].on(rounds, stage=False)
    up, down = (sum(getattr(lane.ledger, name) for lane in lanes) for name in ("bytes_up", "bytes_down"))
    assert by is not None
    return Race(left[0].name, run, by, tuple(table), up, down)


@dataclass(eq=False)
class _Lane:
    """One candidate, and how far it is: in memory its run itself, with a folder its ledger alone."""

    name: str
    fed: Collaboration
    folder: Path | None
    engine: Local
    ledger: Ledger = field(default_factory=Ledger)
    running: Running | None = None
    reached: int = 0
    scores: Mapping[str, float] = field(default_factory=dict)
    refused: str = ""

    def on(self, rounds: int, *, stage: bool = True) -> Run:
        """Run on until so many rounds have closed, and see the scores where this is a stage."""
        with self._blamed():
            run = self._run(rounds)
            self.ledger = run.ledger
            if stage:
                self._judge(min(rounds, self.ledger.rounds))
            return run

    def _run(self, rounds: int) -> Run:
        if self.running is not None:
            return self._until(self.running, rounds)
        agreed = recipe(self.fed)
        with Saved.open(self.folder, agreed) as saved:
            running = Running(self.fed, self.engine, saved, agreed["hash"])
            self.running = running if self.folder is None else None
            return self._until(running, rounds)

    def _until(self, running: Running, rounds: int) -> Run:
        """Not where it has them, and their scores: the folder of a race may be further than the stage."""
        closed = running.ledger.rounds
        if closed < rounds or (closed == rounds and not _scored(running.ledger, rounds)):
            running.until(rounds)
        return Run(running)

    def _judge(self, reached: int) -> None:
        """Look up the validation scores that were taken when so many rounds had closed.

        Raises:
            ConfigError: there are none.
        """
        taken = _scored(self.ledger, reached)
        if not taken:
            raise ConfigError(
                f"Scores must have been taken after {reached} rounds. There is no entry of them in its ledger. "
                "Use a new folder, a 'stop' that lets rounds close, and nothing private: scores have no noise."
            )
        total: dict[str, tuple[float, float]] = {}
        for facts in taken:
            add_metrics(total, {name: (float(s), float(n)) for name, (s, n) in facts["metrics"].items()})
        self.scores = {name: s / n for name, (s, n) in total.items() if n and name.startswith(VALID)}
        self.reached, self.refused = reached, _first_refused(taken)
        if not self.scores and not self.refused:
            raise ConfigError(
                "Validation scores must be there to choose by. Got none from its participants. "
                "Give them valid=(X, y); test scores never decide."
            )

    def score(self, by: str) -> float:
        """Its score at this stage; NaN where somebody's was refused.

        Raises:
            ConfigError: it has no such metric.
        """
        if self.refused:
            return math.nan
        if by not in self.scores:
            said = ", ".join(sorted(self.scores))
            raise ConfigError(
                f"The 'by' of race must be a validation metric of all candidates. Got {by!r}, which '{self.name}' "
                f"has not. It has {said}."
            )
        return self.scores[by]

    @contextmanager
    def _blamed(self) -> Iterator[None]:
        """Say whose fault it is."""
        try:
            yield
        except ComityError as error:
            error.args = (f"Candidate '{self.name}': {error}", *error.args[1:])
            raise
        except Exception as error:
            error.add_note(f"Raised in the run of the candidate '{self.name}' of a race.")
            raise


def _scored(ledger: Ledger, rounds: int) -> list[Any]:
    """What each hub heard when scores were taken after so many rounds; the last time, where there were several."""
    taken: list[Any] = [e.facts for e in ledger if e.kind == "score"]
    return list({facts["hub"]: facts for facts in taken if facts["round"] == rounds}.values())


def _first_refused(taken: Sequence[Any]) -> str:
    """Why the first of the scores that were refused was so; "" where none was."""
    return next((str(one["reason"]) for facts in taken for one in facts["refused"].values()), "")


def _common(lanes: Sequence[_Lane]) -> str:
    """The usual metric that all have.

    Raises:
        ConfigError: there is none.
    """
    seen = [lane for lane in lanes if not lane.refused]
    for by in USUAL:
        if all(by in lane.scores for lane in seen):
            return by
    said = "; ".join(f"{lane.name}: {', '.join(sorted(lane.scores))}" for lane in seen[:3])
    raise ConfigError(f"The candidates of race must have a metric in common. Got {said}. Name one with by=...")


def _better(lanes: list[_Lane], by: str, keep: int) -> list[_Lane]:
    """Those with the best scores, in the order they were given; what is equal, the first.

    Raises:
        ConfigError: no score is a number.
    """
    sign = 1.0 if by.endswith(LOWER) else -1.0
    score = {lane.name: lane.score(by) for lane in lanes}
    if not any(map(math.isfinite, score.values())):
        why = next((f" ({lane.name}: {lane.refused[:150].rstrip('.')})" for lane in lanes if lane.refused), "")
        raise ConfigError(
            f"The {by} of one candidate at least must be finite. Got none that is{why}. Use smaller learning rates."
        )
    ranked = sorted((s for s in score if math.isfinite(score[s])), key=lambda name: sign * score[name])
    return [lane for lane in lanes if lane.name in ranked[:keep]]


def _stages(after: Any, rounds: int) -> list[int]:
    listed = list(after) if isinstance(after, Sequence) and not isinstance(after, str | bytes) else [after]
    hint = "Use after=5, or after=(5, 10)."
    stages = [whole("after", "race", stage, 1, hint=hint) for stage in listed]
    rising = all(a < b for a, b in pairwise(stages))
    if not stages or not rising or stages[-1] > rounds:
        raise refusal("after", "race", f"numbers of rounds that rise, none above {rounds}", after, hint)
    return stages


def _validation(by: str | None) -> str | None:
    """The name of a validation metric, or None for the usual one."""
    if by is None or (isinstance(by, str) and by.startswith(VALID) and by != VALID and by.isprintable()):
        return by
    raise refusal("by", "race", "the name of a validation metric, which begins with 'valid_'", by, f"Use {USUAL[0]!r}.")


def _lanes(candidates: Any, folder: Any, engine: Any) -> list[_Lane]:
    """The candidates, each checked as its own run would check it, before any of them begins."""
    root = None if folder is None else path("folder", "race", folder)
    if not isinstance(candidates, Mapping) or len(candidates) < 2:
        must = "a dict of names and two or more collaborations"
        raise refusal("candidates", "race", must, candidates, 'Use {"a": fed, "b": fed.replace(...)}, for one.')
    if engine is not None:
        fits("engine", engine)
    lanes = []
    for name, fed in candidates.items():
        text("candidates", "race", name, what="named in printable text")
        part("candidates", "race", fed, _NEEDS, "co.Collaboration(method, participants)")
        lane = _Lane(name, fed, None if root is None else root / _folder(name), engine)
        with lane._blamed():
            lane.engine = ready(fed, engine)
            if fed.evaluate is False:
                raise ConfigError("A candidate must be scored. Got evaluate=False. Use evaluate=True.")
        lanes.append(lane)
    return lanes


def _folder(name: str) -> str:
    """A name as that of a folder, whatever is in it."""
    said = quote(name, safe=SAFE)
    said = f"%2E{said[1:]}" if said.startswith(".") else said
    if len(said) > LONGEST_NAME:
        raise refusal("candidates", "race", "named in fewer letters", name, "It names a folder.")
    return said
