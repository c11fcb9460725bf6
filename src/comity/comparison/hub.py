"""The hub's side of a comparison: every way, as collaborations with the parties' desks, wherever these are."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from comity.comparison.desk import Desk, pooled
from comity.comparison.fair import weights
from comity.comparison.families import Fitted, chosen
from comity.comparison.jobs import RESULTS, ROWS, query, training
from comity.comparison.places import Here, Place
from comity.comparison.preparing import Preparing
from comity.comparison.private import Noised, noised
from comity.comparison.trials import Trial, trials
from comity.core.errors import ConfigError, TooFewParticipants
from comity.core.parts import Combiner
from comity.core.round import Round
from comity.data.prepare import Preparation
from comity.data.schema import Schema, agree
from comity.ledger.record import Ledger
from comity.loop.hub import Event
from comity.report.numbers import plural

LEAST_ROWS = 10

Sheets = Mapping[str, Any]
Tell = Callable[[str, float], None]


@dataclass
class Traffic:
    """Bytes by party, both ways."""

    up: dict[str, int] = field(default_factory=dict)
    down: dict[str, int] = field(default_factory=dict)


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
        self, desks: Mapping[str, Desk] | Place, seed: int, without: str = "", preparing: Preparing | None = None
    ) -> None:
        """Args: desks by party, or where they are; the seed; the party that takes no part; how to prepare."""
        self.place: Place = Here(desks) if isinstance(desks, Mapping) else desks
        self.names, self.seed, self.without = list(self.place.names), seed, without
        self.preparing = preparing or Preparing()
        self.everybody: list[str] = []

    @property
    def desks(self) -> dict[str, Desk]:
        """The desks by party: in one process only."""
        return {p: self.place.desks[p] for p in self.names}

    def of(self, names: Sequence[str], without: str) -> "Hub":
        """The hub of some of these parties, where one takes no part."""
        found = Hub(self.place, self.seed, without, self.preparing)
        found.names = [p for p in self.names if p in names]
        return found

    def describe(self, target: str) -> tuple[Schema, dict[str, int], Traffic]:
        """What the tables have in common, the rows of each party, and what it cost.

        Parties with fewer than 10 rows are left out here.

        Raises:
            ConfigError: fewer than two parties are left, or the columns do not fit.
        """
        said, traffic = self._ask("describe")
        rows = {party: int(said[party]["rows"]) for party in said}
        self.everybody = sorted(rows)
        self.names = [p for p in self.everybody if rows[p] >= LEAST_ROWS]
        if len(self.names) < 2:
            shown = [
                f"{p} ({n} {plural('row', n)})" for p, n in sorted(rows.items(), key=lambda own: (-own[1], own[0]))
            ]
            few = ", ".join(shown[:10]) + (f" and {len(shown) - 10} more" if len(shown) > 10 else "")
            raise ConfigError(
                f"A comparison needs two parties with at least {LEAST_ROWS} rows whose target is known. Got {few}."
            )
        return agree({p: said[p] for p in self.names}, target), rows, traffic

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
        job = training(trial, repeat, rounds=rounds, seed=self.seed, without=self.without, weights=weights)

        def listen(event: Event) -> None:
            if event.kind == "round":
                tell(event.round.number + 1)

        def train() -> Any:
            try:
                run = self.place.run(job, self.names, folder=folder, listen=listen)
            except TooFewParticipants:
                return {}
            losses = np.array(trial.curve(run), np.float64)
            return {"params": trial.params(run), "curve": losses, "recipe": run.recipe, **_paid(run.ledger, self.names)}

        found = self.place.kept(job.what, train)
        points = trial.points(rounds)
        if not found or len(found["curve"]) < len(points):
            return None
        curve = tuple(float(loss) for loss in found["curve"])
        traffic = Traffic(dict(found["up"]), dict(found["down"]))
        return Joint(trial, found["params"], min(curve), curve, points, traffic, found["recipe"])

    def private(self, settings: Any, preparation: Preparation, repeat: int, *, folder: Path | None) -> Noised:
        """Train the private model of one split."""
        return noised(self.place, self.names, settings, preparation, repeat, folder=folder)

    def kept(self, repeat: int) -> Mapping[str, Mapping[str, Any]]:
        """Party to the models that it keeps, where they can be had: in one process."""
        return {p: models for p, models in self.place.models(repeat).items() if p in self.names}

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
        moved, _ = self._ask(ROWS, repeat=repeat)
        rows = pooled(moved, "train"), pooled(moved, "valid")
        round = Round(run="", seed=self.seed, me="pooled")
        return chosen(families, *rows, round, classes=len(preparation.schema.classes), epochs=epochs)

    def deliver(self, names: Sequence[str], said: Mapping[str, Any]) -> None:
        """Give these parties the results."""
        asked = self.of([], "")
        asked.names = list(names)
        asked._ask(RESULTS, **said)

    def _ask(self, step: str, combine: Combiner | None = None, **asked: Any) -> tuple[Any, Traffic]:
        """One query to every desk; all must answer."""
        job = query(step, {"without": self.without, **asked}, seed=self.seed, combine=combine)

        def ask() -> Any:
            run = self.place.run(job, self.names)
            return {"said": run.shared, **_paid(run.ledger, self.names or list(run.shared))}

        found = self.place.kept(job.what, ask)
        return found["said"], Traffic(dict(found["up"]), dict(found["down"]))


def _paid(ledger: Ledger, names: Sequence[str]) -> dict[str, dict[str, int]]:
    paid = {name: ledger.bytes_of(name) for name in names}
    return {"up": {p: n for p, (n, _) in paid.items()}, "down": {p: n for p, (_, n) in paid.items()}}


def left_out(hub: Hub, party: str, schema: Schema, joint: Joint, *, rounds: int, folder: Path | None) -> Unseen | None:
    """Prepare and train anew on the first split as `joint` was, without one party; None where it diverged."""
    others = hub.of([p for p in hub.names if p != party], party)
    preparation, _ = others.prepare(schema, 0)
    found = others.joint(joint.trial.again(preparation), 0, rounds=rounds, folder=folder, tell=lambda closed: None)
    if found is None:
        return None
    there = hub.of([party], party)
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
