"""The hub's side of a comparison: every way, as collaborations with the parties' desks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from comity.collaboration import Collaboration
from comity.combine.collect import Collect
from comity.comparison.desk import Desk, Seat, pooled
from comity.comparison.fair import weights
from comity.comparison.families import Fitted, chosen
from comity.comparison.preparing import Preparing
from comity.comparison.trials import Trial, trials
from comity.core.errors import ConfigError, TooFewParticipants
from comity.core.parts import Combiner
from comity.core.round import Round
from comity.data.prepare import Preparation
from comity.data.schema import Schema, agree
from comity.ledger.record import Ledger
from comity.loop.hub import Event
from comity.methods.query import Query
from comity.report.numbers import plural

LEAST_ROWS = 10

Sheets = Mapping[str, Any]
Tell = Callable[[str, float], None]


@dataclass
class Traffic:
    """Bytes by party, both ways."""

    up: dict[str, int] = field(default_factory=dict)
    down: dict[str, int] = field(default_factory=dict)

    def add(self, ledger: Ledger, names: Mapping[str, Any]) -> None:
        """Count a run's."""
        for name in names:
            up, down = ledger.bytes_of(name)
            self.up[name] = self.up.get(name, 0) + up
            self.down[name] = self.down.get(name, 0) + down


@dataclass(frozen=True)
class Joint:
    """A joint model that was trained.

    Attributes:
        trial: what was trained, and how.
        params: those that did best on the parties' validation rows together.
        loss: on these rows.
        curve: their loss round by round, at `rounds`.
        rounds: closed rounds at each point of the curve.
        traffic: bytes of this training.
        recipe: sha256 of what was run.
    """

    trial: Trial
    params: Any
    loss: float
    curve: tuple[float, ...]
    rounds: tuple[int, ...]
    traffic: Traffic
    recipe: str


@dataclass(frozen=True)
class Unseen:
    """A joint model in which one party had no part.

    Attributes:
        there: the sheets at that party.
        others: the sheets at those who trained it.
    """

    there: Mapping[str, Any]
    others: Sheets


class Hub:
    """Asks the desks, and knows of their tables what they answer."""

    def __init__(
        self, desks: Mapping[str, Desk], seed: int, without: str = "", preparing: Preparing | None = None
    ) -> None:
        """Args: desks by party, the seed, the party that takes no part ("" where all do), how to prepare."""
        self.desks, self.seed, self.without = dict(desks), seed, without
        self.preparing = preparing or Preparing()

    def describe(self, target: str) -> tuple[Schema, dict[str, int], Traffic]:
        """What the tables have in common, the rows of each party, and what it cost.

        Parties with fewer than 10 rows are left out here.

        Raises:
            ConfigError: fewer than two parties are left, or the columns do not fit.
        """
        said, traffic = self._ask("describe")
        rows = {party: int(said[party]["rows"]) for party in said}
        self.desks = {p: d for p, d in self.desks.items() if rows[p] >= LEAST_ROWS}
        if len(self.desks) < 2:
            shown = [
                f"{p} ({n} {plural('row', n)})" for p, n in sorted(rows.items(), key=lambda own: (-own[1], own[0]))
            ]
            few = ", ".join(shown[:10]) + (f" and {len(shown) - 10} more" if len(shown) > 10 else "")
            raise ConfigError(
                f"A comparison needs two parties with at least {LEAST_ROWS} rows whose target is known. Got {few}."
            )
        return agree({p: said[p] for p in self.desks}, target), rows, traffic

    def prepare(self, schema: Schema, repeat: int) -> tuple[Preparation, Traffic]:
        """Agree on one preparation for all, from statistics of the training rows."""
        paid: list[Traffic] = []

        def ask(step: str, combine: Combiner | None, **asked: Any) -> Any:
            said, traffic = self._ask(step, combine, schema=schema.to_tree(), repeat=repeat, **asked)
            paid.append(traffic)
            return said

        preparation = self.preparing.collect(schema, ask)
        _, last = self._ask("prepare", repeat=repeat, preparation=preparation.to_tree())
        return preparation, merged(*paid, last)

    def hand(self, preparation: Preparation, repeat: int) -> None:
        """Give these desks a preparation in which they had no part."""
        self._ask("prepare", repeat=repeat, preparation=preparation.to_tree())

    def seconds(self) -> dict[str, float]:
        """CPU seconds of joint training at each party since this was last asked."""
        said, _ = self._ask("seconds")
        return {party: float(said[party]["seconds"]) for party in said}

    def alone(self, schema: Schema, repeat: int, families: tuple[str, ...], epochs: int) -> Sheets:
        """Each party's scores with the model that it chose on its own rows."""
        asked: dict[str, Any] = {"schema": schema.to_tree(), "families": ",".join(families), "epochs": epochs}
        sheets: Sheets = self._ask("alone", repeat=repeat, **asked)[0]
        return sheets

    def ensemble(self, repeat: int) -> Sheets:
        """Each party's scores with everybody's own models together."""
        members, _ = self._ask("model", repeat=repeat)
        sheets: Sheets = self._ask("ensemble", repeat=repeat, members=members)[0]
        return sheets

    def trials(self, families: Sequence[str], preparation: Preparation) -> list[Trial]:
        """What is tried for the joint model."""
        return trials(families, preparation)

    def weights(self, repeat: int) -> dict[str, float]:
        """How much a row of each group counts, so that groups count alike."""
        return weights(self._ask("groups", repeat=repeat)[0])

    def joint(
        self,
        trial: Trial,
        repeat: int,
        *,
        rounds: int,
        folder: Path | None,
        tell: Callable[[int], None],
        weights: Mapping[str, float] | None = None,
    ) -> Joint | None:
        """Train one model jointly; of its rounds, the one that did best on validation rows is kept.

        Returns:
            None where training diverged: contributions were no longer numbers, and were refused.
        """
        seats = {p: Seat(d, trial, repeat, self.without, weights) for p, d in self.desks.items()}
        fed = trial.collaboration(seats, rounds, self.seed)

        def listen(event: Event) -> None:
            if event.kind == "round":
                tell(event.round.number + 1)

        try:
            run = fed.run(trial.rounds(rounds), folder=folder, listen=listen)
        except TooFewParticipants:
            return None
        traffic = Traffic()
        traffic.add(run.ledger, self.desks)
        curve, points = trial.curve(run), trial.points(rounds)
        if len(curve) < len(points):
            return None
        return Joint(trial, trial.params(run), min(curve), curve, points, traffic, run.recipe)

    def score(self, model: Fitted, repeat: int) -> Sheets:
        """Each party's scores with a model that all are given."""
        return self._with_model("score", model.family, model.params, repeat)

    def joint_scores(self, joint: Joint, repeat: int) -> Sheets:
        """Each party's scores with the joint model."""
        return self._with_model("score", joint.trial.family, joint.params, repeat)

    def personal(self, joint: Joint, repeat: int) -> Sheets:
        """Each party's scores with the joint model tuned at home."""
        return self._with_model("personal", joint.trial.family, joint.params, repeat, joint.trial.rate)

    def _with_model(self, step: str, family: str, params: Any, repeat: int, rate: float = 0.0) -> Sheets:
        sheets: Sheets = self._ask(step, repeat=repeat, family=family, params=params, rate=rate)[0]
        return sheets

    def pooled(self, families: Sequence[str], preparation: Preparation, repeat: int, epochs: int) -> Fitted:
        """The ceiling: rows are moved to the hub, which trains on all of them."""
        moved, _ = self._ask("rows", repeat=repeat)
        rows = pooled(moved, "train"), pooled(moved, "valid")
        round = Round(run="", seed=self.seed, me="pooled")
        return chosen(families, *rows, round, classes=len(preparation.schema.classes), epochs=epochs)

    def _ask(self, step: str, combine: Combiner | None = None, **asked: Any) -> tuple[Any, Traffic]:
        """One query to every desk; all must answer."""
        query = Query({"step": step, "without": self.without, **asked})
        fed = Collaboration(
            query, self.desks, combine=combine or Collect(), evaluate=False, quorum=1.0, retries=0, seed=self.seed
        )
        run = fed.run(1)
        traffic = Traffic()
        traffic.add(run.ledger, self.desks)
        return run.shared, traffic


def left_out(hub: Hub, party: str, schema: Schema, joint: Joint, *, rounds: int, folder: Path | None) -> Unseen | None:
    """Prepare and train anew on the first split as `joint` was, without one party; None where it diverged."""
    others = Hub({p: d for p, d in hub.desks.items() if p != party}, hub.seed, party, hub.preparing)
    preparation, _ = others.prepare(schema, 0)
    found = others.joint(joint.trial.again(preparation), 0, rounds=rounds, folder=folder, tell=lambda closed: None)
    if found is None:
        return None
    there = Hub({party: hub.desks[party]}, hub.seed, party)
    there.hand(preparation, 0)
    return Unseen(there.joint_scores(found, 0)[party], others.joint_scores(found, 0))


def merged(*parts: Traffic) -> Traffic:
    """Their bytes together."""
    out = Traffic()
    for part in parts:
        for mine, theirs in ((out.up, part.up), (out.down, part.down)):
            for name, n in theirs.items():
                mine[name] = mine.get(name, 0) + n
    return out
