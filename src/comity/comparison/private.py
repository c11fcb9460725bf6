"""The price of privacy: one more way, a joint model trained with DP-SGD at every party (Abadi et al., CCS 2016).

Nothing is chosen by the data: family, clip, rates and steps are fixed before a row is looked at, and of all rounds the
last is taken. A choice by validation rows would be a release of its own, and nobody charges for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from math import isfinite
from pathlib import Path
from typing import Any

from comity.collaboration import Collaboration
from comity.comparison.desk import Desk
from comity.comparison.families import Fitted, build, width
from comity.comparison.jobs import PRIVATE, Job, People
from comity.comparison.places import Place
from comity.comparison.table import Table, to_json
from comity.core.checks import number, refusal
from comity.core.contribution import Contribution, Tree
from comity.core.errors import ConfigError, nearest
from comity.core.parts import Secret, Spend
from comity.core.round import Round
from comity.data.prepare import Preparation
from comity.methods.fedavg import FedAvg
from comity.methods.private import PrivateTrainer
from comity.privacy.accounting import Privacy, calibrate, spent
from comity.privacy.budget import Budget

CLIP, SHARE, EPOCHS = 1.0, 0.25, 1
"""Of each example's gradient; of the rows that a step takes; passes over the rows in a round."""
RATES = {True: 0.25, False: 0.1}
"""Learning rates, for classes and for a measured target: found on data sets of scikit-learn, not on the user's."""
KEYS = ("epsilon", "delta", "unit")
USE = "Use epsilon=8,delta=1e-5,unit=example."
COVERS = "ε covers what leaves a party in this training, and so the model: noise is added before anybody sees it."
BEYOND = (
    "It does not cover what is released beside it without noise: column names, row counts, means, variances and words "
    "of the preparation, the scores in this report, and the other ways. Which rows a split trains on is taken as given."
)


@dataclass(frozen=True)
class PrivateSeat:
    """A desk's seat in a private training: DP-SGD on its training rows of one split.

    It counts as much as it has rows, as in the joint training; how many that is, DP-SGD takes for public anyway.

    Attributes:
        desk: whose rows.
        model: what is trained.
        noise: standard deviation over clip.
        repeat: which split.
        clip: the largest norm of an example's gradient.
        rate: the share of its rows that a step takes.
        epochs: passes over its rows in a round.
    """

    desk: Desk = field(metadata={"data": True})
    model: Any
    noise: float
    repeat: int
    clip: float = CLIP
    rate: float = SHARE
    epochs: float = EPOCHS

    def contribute(self, shared: Contribution, local: Tree, round: Round, secret: Secret) -> tuple[Contribution, Tree]:
        """As a PrivateTrainer with these rows."""
        who, rows = self._who()
        answer, local = who.contribute(shared, local, round, secret)
        return replace(answer, weight=float(rows)), local

    def spend(self, round: Round) -> Spend:
        """What a round costs each of its examples."""
        return self._who()[0].spend(round)

    def _who(self) -> tuple[PrivateTrainer, int]:
        rows = self.desk.split(self.repeat).train
        dp: dict[str, float] = {"clip": self.clip, "noise": self.noise, "rate": self.rate, "epochs": self.epochs}
        return PrivateTrainer(self.model, (rows.x, rows.fitted), **dp), len(rows.y)


@dataclass(frozen=True)
class Noised:
    """A private model.

    Attributes:
        fitted: the model of the last round.
        noise: standard deviation over clip.
        spends: what the ledger says was spent, as facts.
    """

    fitted: Fitted
    noise: float
    spends: Sequence[Any]


def asked(text: str) -> Budget:
    """What `--private` asks for.

    Raises:
        ConfigError: another key, one that is missing or comes twice, no number, or another unit than an example.

    Example:
        >>> asked("epsilon=8,delta=1e-5,unit=example")
        Budget(epsilon=8.0, delta=1e-05, accountant='pld')
    """
    cut = (piece.partition("=") for piece in text.split(","))
    pairs = [(key.strip(), said.strip()) for key, _, said in cut]
    given = dict(pairs)
    for key in given:
        if key not in KEYS:
            raise ConfigError(f"--private must name epsilon, delta and unit. Got '{key}'.{nearest(key, KEYS)} {USE}")
    if missing := [key for key in KEYS if not given.get(key)]:
        raise ConfigError(f"--private must say its {missing[0]}. Got '{text}'. {USE}")
    if len(pairs) > len(given):
        raise ConfigError(f"--private must name each of epsilon, delta and unit once. Got '{text}'. {USE}")
    if given["unit"] != "example":
        raise ConfigError(
            f"The unit of --private must be example, one row of a table. Got '{given['unit']}'. To hide a whole party "
            "among few, all of which take part in every round, takes noise of several times what each sends: "
            "nothing that is learnt is left. Use unit=example."
        )
    epsilon, delta = _real("epsilon", given["epsilon"]), _real("delta", given["delta"])
    if not epsilon > 0:
        raise ConfigError(f"The epsilon of --private must be a number > 0. Got {epsilon:g}. {USE}")
    return promised(Budget(epsilon, delta))


def promised(private: Any) -> Budget:
    """A budget that a training can be held to.

    Raises:
        ConfigError: no Budget, no finite epsilon, or no delta.
    """
    if not isinstance(private, Budget):
        raise refusal("private", "", "a Budget", private, "Use co.Budget(epsilon=8, delta=1e-5).")
    if not isfinite(private.epsilon):
        raise refusal("epsilon", "private", "a finite number > 0", private.epsilon, "Leave private out for no noise.")
    number("delta", "private", private.delta, "(0, 1)", hint="Use delta=1e-5, well below one over the number of rows.")
    return private


def family_of(model: str) -> str:
    """The family that is trained privately: linear, where nothing else is asked for.

    Raises:
        ConfigError: trees, which gradients do not train.
    """
    if model == "trees":
        raise ConfigError(
            "A private training needs gradients. Got model='trees'. Use model='linear' or 'mlp', or leave private out."
        )
    return "linear" if model == "auto" else model


@lru_cache(maxsize=64)
def noise_of(budget: Budget, rounds: int) -> float:
    """The noise at which so many rounds keep the budget.

    Raises:
        ConfigError: dp-accounting is missing, or no noise is enough.
    """
    steps = rounds * round(EPOCHS / SHARE)
    return calibrate(budget.epsilon, budget.delta, rounds=steps, sampling=SHARE, accountant=budget.accountant)


def noised(
    place: Place, names: Sequence[str], settings: Any, preparation: Preparation, repeat: int, *, folder: Path | None
) -> Noised:
    """Train the private model of one split; what was spent is read from the ledger of the run.

    Args:
        place: where the desks are, all prepared.
        names: of the parties.
        settings: of the comparison, with `private`.
        preparation: theirs.
        repeat: which split.
        folder: of the run; a run that lies there goes on, or is taken as it is.
    """
    job, budget = job_of(settings, preparation, repeat), settings.private

    def train() -> Any:
        run = place.run(job, names, folder=folder)
        spends: list[Any] = [entry.facts for entry in run.ledger if entry.kind == "spend"]
        return {"params": run.shared, "spends": {str(i): facts for i, facts in enumerate(spends)}}

    found = place.kept(job.what, train)
    spends = [found["spends"][str(i)] for i in range(len(found["spends"]))]
    assert guaranteed(spends, budget).epsilon <= budget.epsilon, "the budget stops a run before it is passed"
    family = family_of(settings.model)
    model = _model(family, preparation)
    return Noised(Fitted(family, model, found["params"], float("nan")), noise_of(budget, settings.rounds), spends)


def job_of(settings: Any, preparation: Preparation, repeat: int) -> Job:
    """The private training of one split."""
    budget, noise = settings.private, noise_of(settings.private, settings.rounds)
    model = _model(family_of(settings.model), preparation)

    def build(people: People) -> Collaboration:
        return Collaboration(
            FedAvg(model), people, evaluate=False, quorum=1.0, retries=0, seed=settings.seed, stop=budget
        )

    what = {"step": PRIVATE, "repeat": repeat, "without": ""}
    return Job(what, settings.rounds, build, lambda desk: PrivateSeat(desk, model, noise, repeat))


def _model(family: str, preparation: Preparation) -> Any:
    """What is trained privately."""
    classes = len(preparation.schema.classes)
    made: Any = build(family, width(preparation), classes, RATES[bool(classes)])
    return replace(made, momentum=0.0)


def guaranteed(spends: Sequence[Any], budget: Budget) -> Privacy:
    """What these spends guarantee to any one example, at whatever party: the worst over the parties."""
    found = spent(spends, budget.delta, accountant=budget.accountant)
    return replace(max(found, key=float), who="")


def results(table: Table, settings: Any) -> dict[str, Any]:
    """The guarantee, what it covers, and its price against the joint model; that is None without a joint model."""
    budget, each = settings.private, [r.private for r in table.repeats]
    worst = max((guaranteed(one.spends, budget) for one in each), key=float)
    all_ = guaranteed([facts for one in each for facts in one.spends], budget)
    price = table.gains(table.parties, "private", base="joint") if "joint" in table.ways else None
    steps = settings.rounds * round(EPOCHS / SHARE)
    return {
        "epsilon": budget.epsilon,
        "delta": budget.delta,
        "unit": worst.unit,
        "spent": worst.epsilon,
        "guarantee": str(worst),
        "together": {"trainings": len(each), "epsilon": all_.epsilon, "guarantee": str(all_)},
        "price": to_json(price),
        "how": f"{each[0].fitted.family}, DP-SGD at each party: {steps} steps, clip {CLIP:g}, "
        f"noise {each[0].noise:.3g}, learning rate {each[0].fitted.model.rate:g}; nothing is tuned",
        "covers": COVERS,
        "beyond": BEYOND,
    }


def _real(key: str, said: str) -> float:
    try:
        return float(said)
    except ValueError:
        raise ConfigError(f"The {key} of --private must be a number. Got '{said}'. {USE}") from None
