"""Is it worth joining? Every way on the same splits, every choice on validation rows only."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from comity.adapters.threads import one_thread
from comity.comparison import results as made
from comity.comparison.desk import Desk
from comity.comparison.families import families
from comity.comparison.hub import Hub, Joint, Traffic, Unseen, left_out, merged
from comity.comparison.preparing import Preparing
from comity.comparison.private import Noised
from comity.comparison.saved import Outcome, write
from comity.comparison.settings import Settings, given, listed
from comity.comparison.verdict import noun
from comity.core.checks import path as path_of
from comity.core.checks import refusal
from comity.core.errors import ConfigError
from comity.data.dictionary import Dictionary
from comity.data.prepare import Preparation
from comity.data.schema import Schema
from comity.data.tables import column, parties_of, words
from comity.data.vocabularies import source_of
from comity.privacy.budget import Budget

Tell = Callable[[str, float], None]
MOST_GROUPS = 12
MOST_UNSEEN = 20


@dataclass(frozen=True)
class Repeat:
    """What one random split gave.

    Attributes:
        ways: way to party to {"valid": sheet, "test": sheet}.
        joint: the joint model that was chosen; None where no family can be trained jointly.
        chosen: way to what was chosen, in words.
        traffic: bytes of preparation and the chosen joint training.
        seconds: CPU seconds of one joint training, by party.
        unseen: party to what became of a joint model that it took no part in.
        outcome: what can be used afterwards.
        fairer: party to its sheets with the fairer joint model; {} where none was trained.
        private: the model that was trained with noise; None where none was asked for.
    """

    ways: Mapping[str, Mapping[str, Any]]
    joint: Joint | None
    chosen: Mapping[str, str]
    traffic: Traffic
    seconds: Mapping[str, float]
    unseen: Mapping[str, Unseen]
    outcome: Mapping[str, Any]
    fairer: Mapping[str, Any]
    private: Noised | None = None


@dataclass(frozen=True)
class Comparison:
    """The answer.

    Attributes:
        results: everything, as in the JSON.

    Its text is the verdict.
    """

    results: Mapping[str, Any] = field(repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.results, Mapping):
            raise refusal("results", "Comparison", "what compare gives", self.results)

    @property
    def verdict(self) -> str:
        """The answer in plain words."""
        return str(self.results["verdict"])

    def __str__(self) -> str:
        return self.verdict

    def report(self, path: str | Path) -> Path:
        """Write one self-contained HTML page.

        Raises:
            ConfigError: the path cannot be written, or the extra "report" is not installed.
        """
        from comity.report.page import write_page

        return write_page(self.results, path)

    def json(self, path: str | Path) -> Path:
        """Write the results as JSON.

        Raises:
            ConfigError: the path cannot be written.
        """
        from comity.ledger.folder import put

        path = path_of("path", "json", path)
        put(path, (json.dumps(self.results, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())
        return path


def compare(
    source: Any,
    target: str,
    *,
    party: str | None = None,
    model: str = "auto",
    rounds: int = 30,
    repeats: int = 5,
    seed: int = 0,
    pooled: bool = True,
    groups: Sequence[str] = (),
    unseen: bool = True,
    words_from: str = "open",
    fill: str = "mean",
    fair: str | None = None,
    private: Budget | None = None,
    dictionary: str | Path | Dictionary | None = None,
    runs: str | Path | None = None,
    title: str | None = None,
    called: str | None = None,
    command: str = "",
    tell: Tell | None = None,
) -> Comparison:
    """Compare learning alone with learning together, for each party.

    Five ways on the same seeded splits (60 % training, 20 % validation, 20 % test within each party):
    alone (its own model), ensemble (the average of all own models), joint (FedAvg or FedAdam; for linear models
    also one ridge regression from sums, for trees sums of their gradients' histograms), personal
    (the joint model tuned at home) and pooled (the ceiling; it moves rows). Families, optimizers,
    stopping and tuning are chosen on validation rows. A party's gain is its best way of joining, chosen on
    its validation rows, minus alone. Tables are touched by their parties' desks only.

    Args:
        source: a path (CSV, Parquet), a pandas or polars frame, or {party: path or frame}.
        target: the column to be predicted: classes, or a number.
        party: the column that says whose a row is; left out with a mapping.
        model: "auto" tries all families: "linear" (which may bend in each number at three knots), "mlp" (the
            same inputs, 32 hidden) and "trees" (gradient boosting; grown jointly, beside the others, where trees
            times columns are at most 12,000: 120 columns with two classes, 30 with ten).
        rounds: of joint training by gradients; trees take a round for each level.
        repeats: random splits; intervals are 95 % over them (Nadeau and Bengio, 2003).
        seed: of splits, models and training: the same seed gives the same results.
        pooled: False leaves out the way that moves rows.
        groups: columns of words (at most 12 different ones) by which scores are given too: who is served how well.
        unseen: also train the chosen joint model without each party in turn (of at most 20), on the first
            split, and score it at the party that took no part.
        words_from: where words of category columns come from: "open", "hashed" (salted counts, no word seen in
            fewer than 10 rows) or "dictionary".
        fill: what a missing number is taken for: "mean" or "median" (from rounds of counts).
        fair: a column of groups: also train a joint model in which all groups count alike, with a threshold for
            each group where there are two classes, and give its price.
        private: `co.Budget(epsilon=8, delta=1e-5)`: also train a joint model (linear, or `model="mlp"`) with DP-SGD at
            each party within this budget for each example and each split, and give its price. Nothing about it is
            tuned. Epsilon does not cover what the comparison releases beside it: preparation, scores, other ways.
        dictionary: a schema.toml: its codes and ranges.
        runs: a folder for the joint runs (recipe, ledger, states) and for the models of the first split.
        title: what to call the data; by default the file's name.
        called: what to call a party, as "hospital"; by default the party column's name where it is such a word.
        command: how to get the same again, for the report.
        tell: is told what is being done and how much of all is done, in [0, 1].

    Raises:
        ConfigError: no such file or column, an empty table, one class only, fewer than two parties with at
            least 10 rows, or a bad setting.

    Example:
        >>> import numpy as np, polars, comity as co
        >>> rng = np.random.default_rng(0)
        >>> x = rng.normal(size=200)
        >>> table = polars.DataFrame({"x": x, "sick": (x > 0).astype(int), "hospital": ["a", "b"] * 100})
        >>> answer = co.compare(table, "sick", party="hospital", model="linear", rounds=5, repeats=2)
        >>> sorted(answer.results["ways"]), answer.results["question"]["rows"]
        (['alone', 'ensemble', 'joint', 'personal', 'pooled'], 200)
    """
    given(dictionary, runs, (title, called, command), tell)
    by, on = listed(groups, fair)
    settings = Settings(target, party, model, rounds, repeats, seed, pooled, by, unseen, words_from, fill, on, private)
    begun = (time.perf_counter(), time.process_time())
    tables, aside = _checked(source, settings)
    hub = _hub(tables, settings, dictionary)
    schema, rows, described = hub.describe(target)
    folder = _runs_folder(runs, tables, settings)
    with one_thread():
        done = repeated(hub, schema, settings, tell, folder)
    spent = (time.perf_counter() - begun[0], time.process_time() - begun[1])
    names = (title or _title(source), called or noun(party))
    facts = made.Facts(*names, schema, rows, aside, described, spent, hub.preparing.revealed(schema), command)
    answer = Comparison(made.results(facts, settings, done))
    if folder is not None:
        write(folder, Outcome(answer.results, **done[0].outcome))
    return answer


def repeated(
    hub: Hub, schema: Schema, settings: Settings, tell: Tell | None = None, folder: Path | None = None
) -> list[Repeat]:
    """All random splits, all ways, wherever the desks are.

    Args:
        hub: that has heard what they have.
        schema: as agreed.
        settings: of the comparison.
        tell: is told what is being done and how much of all is done, in [0, 1].
        folder: for the joint runs; None keeps nothing.
    """
    return [_Repeat(hub, schema, settings, k, tell or _silent).run(folder) for k in range(settings.repeats)]


class _Repeat:
    """One random split, all ways."""

    def __init__(self, hub: Hub, schema: Schema, settings: Settings, number: int, tell: Tell) -> None:
        self.hub, self.schema, self.settings, self.number = hub, schema, settings, number
        self.folder: Path | None = None
        self._tell = tell
        self.families = families(settings.model)
        self.epochs = max(settings.rounds, 30)

    def run(self, folder: Path | None) -> Repeat:
        """Every way, its joint runs kept in `folder`."""
        self.folder = folder
        self.tell("prepare", 0.0)
        preparation, prepared = self.hub.prepare(self.schema, self.number)
        ways: dict[str, Any] = {}
        self.tell("alone", 0.02)
        ways["alone"] = self.hub.alone(self.schema, self.number, self.families, self.epochs)
        self.tell("ensemble", 0.25)
        ways["ensemble"] = self.hub.ensemble(self.number)
        chosen = {
            "alone": _most([ways["alone"][p]["family"] for p in ways["alone"]]),
            "ensemble": _most([ways["ensemble"][p]["how"] for p in ways["ensemble"]]),
        }
        joint, seconds = self._joint(preparation)
        if joint is not None:
            ways["joint"] = self.hub.joint_scores(joint, self.number)
            self.tell("personal", 0.72)
            ways["personal"] = self.hub.personal(joint, self.number)
            chosen["joint"] = str(joint.trial)
            chosen["personal"] = _most([ways["personal"][p]["how"] for p in ways["personal"]])
        private = self._private(preparation) if self.settings.private else None
        if private is not None:
            ways["private"], chosen["private"] = self.hub.score(private.fitted, self.number), private.fitted.family
        outcome = self._outcome(preparation, joint)
        if self.settings.pooled:
            self.tell("pooled", 0.8)
            ceiling = self.hub.pooled(self.families, preparation, self.number, self.epochs)
            ways["pooled"], chosen["pooled"] = self.hub.score(ceiling, self.number), ceiling.family
        unseen = self._unseen(joint) if joint is not None and self.settings.unseen and not self.number else {}
        fairer = self._fairer(joint) if joint is not None and self.settings.fair else {}
        self.tell("done", 1.0)
        traffic = merged(prepared, joint.traffic) if joint else prepared
        return Repeat(ways, joint, chosen, traffic, seconds, unseen, outcome, fairer, private)

    def _private(self, preparation: Preparation) -> Noised:
        """A joint model that is trained with noise."""
        self.tell("private", 0.76)
        folder = self.folder and self.folder / f"repeat-{self.number}" / "private"
        return self.hub.private(self.settings, preparation, self.number, folder=folder)

    def _unseen(self, joint: Joint) -> Mapping[str, Unseen]:
        """The chosen joint model, trained anew without each party in turn."""
        names = sorted(self.hub.names)
        if len(names) > MOST_UNSEEN:
            return {}
        found = {}
        for i, party in enumerate(names):
            self.tell(f"without {party}", 0.86 + 0.14 * i / len(names))
            folder = self.folder and self.folder / "without" / str(i)
            found[party] = left_out(self.hub, party, self.schema, joint, rounds=self.settings.rounds, folder=folder)
        return {party: one for party, one in found.items() if one is not None}

    def _fairer(self, joint: Joint) -> Mapping[str, Any]:
        """The chosen joint model trained so that all groups count alike."""
        found = self.hub.joint(
            joint.trial, self.number, rounds=self.settings.rounds, tell=lambda closed: None,
            folder=self.folder and self.folder / "fair" / str(self.number), weights=self.hub.weights(self.number),
        )  # fmt: skip
        return {} if found is None else self.hub.joint_scores(found, self.number)

    def _outcome(self, preparation: Preparation, joint: Joint | None) -> Mapping[str, Any]:
        """The models of this split, as they lie at the parties and the hub."""
        kept = self.hub.kept(self.number)
        shared = joint and {"family": joint.trial.family, "rate": joint.trial.rate, "params": joint.params}
        personal = {p: k["personal"] for p, k in kept.items() if "personal" in k}
        return {"preparation": preparation.to_tree(), "joint": shared, "personal": personal,
                "alone": {p: k["own"] for p, k in kept.items()}}  # fmt: skip

    def _joint(self, preparation: Preparation) -> tuple[Joint | None, Mapping[str, float]]:
        """Every family, rate and hub optimizer; the least validation loss wins. And the seconds of one training."""
        self.hub.seconds()  # what other trainings took is no part of this
        trials = self.hub.trials(self.families, preparation)
        best, spent = None, dict.fromkeys(self.hub.names, 0.0)
        for i, trial in enumerate(trials):
            folder = self.folder and self.folder / f"repeat-{self.number}" / str(trial).replace(", ", "-")
            of = trial.rounds(self.settings.rounds)
            found = self.hub.joint(
                trial, self.number, rounds=self.settings.rounds, folder=folder, tell=self._rounds(i, len(trials), of)
            )
            took = self.hub.seconds()
            if found is not None and (best is None or found.loss < best.loss):
                best, spent = found, took
        return best, spent

    def _rounds(self, i: int, n: int, of: int) -> Callable[[int], None]:
        def tell(closed: int) -> None:
            self.tell(f"joint {i + 1}/{n}   round {closed}/{of}", 0.3 + 0.42 * (i + closed / of) / n)

        return tell

    def tell(self, what: str, part: float) -> None:
        n = self.settings.repeats
        self._tell(f"repeat {self.number + 1}/{n}   {what}", (self.number + part) / n)


def own_table(source: Any, party: str, settings: Settings) -> Any:
    """The table of one party, far from the others.

    Raises:
        ConfigError: as `compare`.
    """
    return _checked({party: source}, settings)[0][party]


def _checked(source: Any, settings: Settings) -> tuple[Mapping[str, Any], int]:
    tables, aside = parties_of(source, settings.party)
    for name, table in tables.items():
        where = name if isinstance(source, Mapping) else _title(source)
        for needed in (settings.target, *settings.groups):
            column(table, needed, where)
    for group in settings.groups:
        seen = {word for table in tables.values() for word in words(table[group]).drop_nulls().unique().to_list()}
        if len(seen) > MOST_GROUPS:
            raise ConfigError(
                f"A group column must hold at most {MOST_GROUPS} different words. '{group}' holds {len(seen)}. "
                "Cut it into bands in a column of its own."
            )
    return tables, aside


def _hub(tables: Mapping[str, Any], settings: Settings, dictionary: str | Path | Dictionary | None) -> Hub:
    known = dictionary if isinstance(dictionary, Dictionary) or dictionary is None else Dictionary.load(dictionary)
    preparing = Preparing(source_of(settings.words_from, known), settings.fill, known)
    desks = {
        p: Desk(p, table, settings.target, settings.seed, settings.groups, settings.fair) for p, table in tables.items()
    }
    return Hub(desks, settings.seed, preparing=preparing)


def _runs_folder(runs: str | Path | None, tables: Mapping[str, Any], settings: Settings) -> Path | None:
    """A folder named by what is compared, so that runs over other rows are never taken for these."""
    if runs is None:
        return None
    import hashlib

    h = hashlib.sha256(repr(settings).encode())
    for name in sorted(tables):
        h.update(repr((name, tables[name].columns)).encode() + tables[name].hash_rows(seed=0).to_numpy().tobytes())
    return Path(runs) / h.hexdigest()[:16]


def _title(source: Any) -> str:
    return Path(source).name if isinstance(source, str | Path) else "the table"


def _most(said: list[str]) -> str:
    return max(sorted(set(said)), key=said.count)


def _silent(what: str, done: float) -> None:
    """Say nothing."""
