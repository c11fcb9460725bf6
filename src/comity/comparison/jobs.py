"""The small collaborations of which a comparison is made. Hub and parties each build them from their own code.

    query     one question to some desks: `step`, `repeat`, `without` and, on its way only, what goes with it
    training  one joint model: which trial, which split, who takes no part
    private   one joint model with noise at the parties

What names a job (`what`) is plain JSON: far away it is what a party is told before it agrees. A question's own values
are no part of the recipe: they are what the parties answered before, put together.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from comity.collaboration import Collaboration
from comity.combine.collect import Collect
from comity.combine.mean import Mean
from comity.comparison.desk import Desk, Seat
from comity.comparison.trials import SUMS, Trial
from comity.core.contribution import Contribution, Tree
from comity.core.parts import Combiner, Participant
from comity.core.recipe import describe
from comity.core.round import Round
from comity.core.spec import Spec
from comity.methods.query import Query

TRAIN, PRIVATE, RESULTS, ROWS = "train", "private", "results", "rows"
"""Steps that are not a question to a desk; and the one that moves rows."""
SUMMED: Final[Mapping[str, Combiner]] = {"moments": Mean(), "spread": Mean(), "counts": Mean(uniform=True)}
"""Steps whose answers the hub sees as a mean; of all others it sees each."""
People = Mapping[str, Participant]


@dataclass(frozen=True)
class Step:
    """One question of a comparison.

    Attributes:
        name: of the step.
        repeat: of which split.
        question: what goes with it; no part of the recipe.
        combiner: of the answers.
    """

    name: str
    repeat: int
    question: Tree = field(repr=False)
    combiner: Combiner = field(default_factory=Collect)
    _query: Query = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_query", Query(self.question))

    def fingerprint(self) -> dict[str, Any]:
        """What of it is agreed to beforehand."""
        return {"name": self.name, "repeat": self.repeat, "combiner": describe(self.combiner)}

    def init(self, round: Round) -> Any:
        """Nothing is known."""
        return self._query.init(round)

    def share(self, state: Any, to: str, round: Round) -> Contribution:
        """The question; once it is answered, the answer."""
        return self._query.share(state, to, round)

    def expect(self, state: Any, to: str, round: Round) -> Spec:
        """Any finite Tree."""
        return self._query.expect(state, to, round)

    def update(self, state: Any, combined: Contribution, round: Round) -> Any:
        """Keep the answer and how much weight it carries."""
        return self._query.update(state, combined, round)


@dataclass(frozen=True)
class Job:
    """One small collaboration.

    Attributes:
        what: names it, JSON.
        rounds: closed rounds at its end.
        build: from name to participant (nobody, far away) to the collaboration.
        seat: who takes part for a desk.
        early: may it end by itself before its last round?
    """

    what: Mapping[str, Any]
    rounds: int
    build: Callable[[People], Collaboration] = field(repr=False)
    seat: Callable[[Desk], Participant] = field(repr=False)
    early: bool = False


def combiner_of(step: str) -> Combiner:
    """How the hub sees the answers to a step."""
    return SUMMED.get(step) or Collect()


def query(step: str, question: Mapping[str, Any], *, seed: int, combine: Combiner | None = None) -> Job:
    """A question to desks; all must answer.

    Args:
        step: what is asked.
        question: what goes with it; "repeat" and "without" name the split and the party that takes no part.
        seed: of the comparison.
        combine: of the answers; by default that of the step.
    """
    repeat = int(question.get("repeat", 0))
    named = {"step": step, "repeat": repeat, "without": str(question.get("without", ""))}
    method = Step(step, repeat, {**question, "step": step}, combine or combiner_of(step))

    def build(people: People) -> Collaboration:
        return Collaboration(method, people, evaluate=False, quorum=1.0, retries=0, seed=seed)

    return Job(named, 1, build, _itself)


def training(
    trial: Trial, repeat: int, *, rounds: int, seed: int, without: str = "", weights: Mapping[str, float] | None = None
) -> Job:
    """One joint training.

    Args:
        trial: what is trained, and how.
        repeat: on which split.
        rounds: that were asked for.
        seed: of the comparison.
        without: the party that takes no part; "" where all do.
        weights: how much a row of each group counts; None for all alike.
    """
    named = {"step": TRAIN, "repeat": repeat, "without": without, "trial": told(trial), "weights": weights}

    def build(people: People) -> Collaboration:
        return trial.collaboration(people, rounds, seed)

    def seat(desk: Desk) -> Participant:
        return Seat(desk, trial, repeat, without, weights)

    return Job(named, trial.rounds(rounds), build, seat, trial.server == SUMS)


def told(trial: Trial) -> dict[str, Any]:
    """What names a trial among those of a comparison."""
    return {"family": trial.family, "server": trial.server, "rate": trial.rate}


def _itself(desk: Desk) -> Participant:
    return desk
