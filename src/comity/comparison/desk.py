"""A party's side of a comparison: the only place that touches its table.

It answers queries (`shared.value["step"]` names one) and, in its seat, trains the joint model. What it
prepares and trains stays here, in memory, between queries.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from comity.comparison.fair import resampled
from comity.comparison.families import LARGEST, Rows, build, chosen, inputs_of, outputs, predictor, rows_of, width
from comity.comparison.jury import combined
from comity.comparison.preparing import bounds_tree, full, steady, thin
from comity.comparison.sheet import sheet
from comity.comparison.trials import SUMS, Trial, trainer
from comity.comparison.tuning import grown_on, personalised
from comity.core.contribution import Contribution, Tree
from comity.core.errors import ContributionError
from comity.core.parts import Participant, Secret
from comity.core.rng import digest
from comity.core.round import Round
from comity.data.prepare import Preparation, moment_weights, moments, vocabulary
from comity.data.quantiles import open_bounds, quantile_counts
from comity.data.schema import Schema, describe
from comity.data.split import split
from comity.data.statistics import rounded, spread
from comity.data.tables import column, labelled, words
from comity.data.vocabularies import respond


@dataclass(frozen=True)
class Split:
    """A party's rows of one repeat."""

    train: Rows
    valid: Rows
    test: Rows


@dataclass(frozen=True, eq=False)
class Desk:
    """Answers the queries of a comparison for one party.

    Attributes:
        name: the party.
        table: its rows; those without a target are not used.
        target: the column to be predicted.
        seed: of the splits.
        groups: columns by whose words scores are given too.
        fair: the one of them by which a fairer model is trained; "" for none.
        salt: of hashed words, the desks' own, unknown to a hub far away; b"" in one process.
    """

    name: str
    table: Any = field(repr=False, metadata={"data": True})
    target: str
    seed: int
    groups: tuple[str, ...] = ()
    fair: str = ""
    salt: bytes = field(default=b"", repr=False, metadata={"data": True})
    _memory: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, metadata={"data": True})

    def contribute(self, shared: Contribution, local: Tree, round: Round, secret: Secret) -> tuple[Contribution, Tree]:
        """Answer one query.

        Raises:
            ContributionError: there is no such step.
        """
        asked: Any = shared.value
        steps: Mapping[str, Callable[[Any, Round], Contribution]] = {
            "describe": self._describe,
            "moments": self._moments,
            "spread": self._spread,
            "vocabulary": self._words,
            "hashed": self._words,
            "reveal": self._words,
            "bounds": self._bounds,
            "counts": self._counts,
            "prepare": self._prepare,
            "alone": self._alone,
            "model": self._model,
            "ensemble": self._ensemble,
            "score": self._score,
            "personal": self._personal,
            "rows": self._rows,
            "groups": self._groups,
            "seconds": self._seconds,
        }
        if asked["step"] not in steps:
            raise ContributionError(
                f"There is no step '{asked['step']}' in a comparison. Use the same version of comity."
            )
        return steps[asked["step"]](asked, round), local

    @property
    def known(self) -> Any:
        """The rows whose target is known."""
        if "known" not in self._memory:
            self._memory["known"] = labelled(self.table, self.target)[0]
        return self._memory["known"]

    def split(self, repeat: int, without: str = "") -> Split:
        """This repeat's rows under the joint preparation.

        Args:
            repeat: which random split.
            without: the party that took no part in the preparation; "" for none.

        Raises:
            ContributionError: the preparation was not sent yet.
        """
        return self._prepared(repeat, without)[1]

    def kept(self, repeat: int) -> Mapping[str, Any]:
        """The own model ("own") and the tuned one ("personal") of a repeat, where they lie: in-process only."""
        found = {name: self._memory.get((name, repeat)) for name in ("own", "personal")}
        return {name: model for name, model in found.items() if model is not None}

    def memory(self, kind: str, repeat: int, without: str = "") -> Tree:
        """Something to be kept over a restart: "joint" (a preparation), "own" or "personal" (models)."""
        if kind == "joint":
            return self.prepared(repeat, without).to_tree()
        return self._memory[kind, repeat]  # type: ignore[no-any-return]

    def remember(self, kind: str, repeat: int, without: str, tree: Any) -> None:
        """What was kept, again."""
        if kind == "joint":
            preparation = Preparation.from_tree(tree)
            self._memory["joint", repeat, without] = (preparation, self._split(preparation, repeat))
        else:
            self._memory[kind, repeat] = tree

    def prepared(self, repeat: int, without: str = "") -> Preparation:
        """The joint preparation.

        Raises:
            ContributionError: it was not sent yet.
        """
        return self._prepared(repeat, without)[0]

    def spent(self, seconds: float) -> None:
        """Count CPU seconds of joint training."""
        self._memory["spent"] = self._memory.get("spent", 0.0) + seconds

    def _prepared(self, repeat: int, without: str) -> tuple[Preparation, Split]:
        if ("joint", repeat, without) not in self._memory:
            raise ContributionError(f"The preparation of repeat {repeat} was not sent yet.")
        return self._memory["joint", repeat, without]  # type: ignore[no-any-return]

    def _seconds(self, asked: Any, round: Round) -> Contribution:
        return Contribution("statistics", {"seconds": float(self._memory.pop("spent", 0.0))})

    def _describe(self, asked: Any, round: Round) -> Contribution:
        y = column(self.known, self.target)
        if y.dtype.is_numeric() and len(y) and np.abs(y.to_numpy().astype(float)).max() > float(LARGEST):
            raise ContributionError(f"The target '{self.target}' must lie within ±{LARGEST:g}. Mend the rows beyond.")
        return Contribution("schema", describe(self.known, self.target))

    def _moments(self, asked: Any, round: Round) -> Contribution:
        schema = Schema.from_tree(asked["schema"])
        said = moments(self._train_rows(schema, asked["repeat"]), schema)
        return Contribution("statistics", said, moment_weights(said))

    def _spread(self, asked: Any, round: Round) -> Contribution:
        schema = Schema.from_tree(asked["schema"])
        square, count = spread(self._train_rows(schema, asked["repeat"]), schema, asked["centre"])
        return Contribution("statistics", {"square": square}, {"square": count})

    def _words(self, asked: Any, round: Round) -> Contribution:
        schema = Schema.from_tree(asked["schema"])
        rows = self._train_rows(schema, asked["repeat"])
        question = {**asked, "allowed": full(asked["allowed"])} if asked["step"] == "reveal" else asked
        said = respond(rows, schema, asked["step"], question, self._salt)
        return Contribution("statistics", thin(said) if asked["step"] == "hashed" else said)

    def _bounds(self, asked: Any, round: Round) -> Contribution:
        schema = Schema.from_tree(asked["schema"])
        return Contribution("statistics", bounds_tree(open_bounds(self._train_rows(schema, asked["repeat"]), schema)))

    def _counts(self, asked: Any, round: Round) -> Contribution:
        schema = Schema.from_tree(asked["schema"])
        rows = self._train_rows(schema, asked["repeat"])
        return Contribution("statistics", quantile_counts(rows, schema, asked["edges"]))

    @property
    def _salt(self) -> bytes:
        """The desks' own. In one process there is nobody to hide it from, so it comes from the seed."""
        return self.salt or digest(self.seed, "salt")

    def _prepare(self, asked: Any, round: Round) -> Contribution:
        preparation = Preparation.from_tree(asked["preparation"])
        repeat = asked["repeat"]
        self._forget(repeat, asked["without"])
        self._memory["joint", repeat, asked["without"]] = (preparation, self._split(preparation, repeat))
        return Contribution("statistics", {"rows": float(self.known.height)})

    def _alone(self, asked: Any, round: Round) -> Contribution:
        """Prepare, train and choose with own rows only."""
        schema, repeat = Schema.from_tree(asked["schema"]), asked["repeat"]
        preparation = _own(schema, self._train_rows(schema, repeat))
        s = self._split(preparation, repeat)
        tried, classes = asked["families"].split(","), len(schema.classes)
        best = chosen(tried, s.train, s.valid, round, classes=classes, epochs=asked["epochs"])
        kept = {"family": best.family, "preparation": preparation.to_tree(), "params": best.params}
        self._memory["own", repeat] = kept
        predict = predictor(best.family, best.model, best.params, preparation)
        return Contribution("score", {**self._sheets(predict, s, repeat), "family": best.family})

    def _model(self, asked: Any, round: Round) -> Contribution:
        return Contribution("model", self._memory["own", asked["repeat"]])

    def _ensemble(self, asked: Any, round: Round) -> Contribution:
        """The parties' own models together, each behind its own preparation; how, the validation rows say."""
        repeat, members = asked["repeat"], asked["members"]
        s, (_, valid, test) = self.split(repeat), self._memory["indices", repeat]
        held = self.known[np.concatenate([valid, test])]
        said = np.stack([_said(members[party], held) for party in sorted(members)])
        how, together = combined(said[:, : len(valid)], s.valid.y)
        sheets = self._graded(together(said[:, : len(valid)]), together(said[:, len(valid) :]), s, repeat)
        return Contribution("score", {**sheets, "how": how})

    def _score(self, asked: Any, round: Round) -> Contribution:
        s, preparation, model = self._shared_model(asked)
        predict = predictor(asked["family"], model, asked["params"], preparation)
        return Contribution("score", self._sheets(predict, s, asked["repeat"]))

    def _personal(self, asked: Any, round: Round) -> Contribution:
        """Make the joint model one's own, as far as own validation rows gain from it."""
        s, preparation, model = self._shared_model(asked)
        tune = grown_on if asked["family"] == "trees" else personalised
        how, params = tune(model, asked["params"], (s.train, s.valid), round)
        self._memory["personal", asked["repeat"]] = params
        sheets = self._sheets(predictor(asked["family"], model, params, preparation), s, asked["repeat"])
        return Contribution("score", {**sheets, "how": how})

    def _rows(self, asked: Any, round: Round) -> Contribution:
        """Prepared rows, for the ceiling only: this is what pooling would move."""
        s = self.split(asked["repeat"])
        parts = {"train": s.train, "valid": s.valid}
        return Contribution("sample", {k: _row_tree(r) for k, r in parts.items()})

    def _groups(self, asked: Any, round: Round) -> Contribution:
        """How many training rows each group has."""
        own = self.words_of(asked["repeat"], self.fair)
        names, rows = np.unique(own[own != np.array(None)].astype(str), return_counts=True)
        return Contribution("statistics", dict(zip(names.tolist(), rows.astype(float).tolist(), strict=True)))

    def words_of(self, repeat: int, name: str) -> Any:
        """(training rows,) the words of a column, None where there is none."""
        return words(column(self.known[self._memory["indices", repeat][0]], name)).to_numpy()

    def _shared_model(self, asked: Any) -> tuple[Split, Preparation, Any]:
        preparation, s = self._prepared(asked["repeat"], asked["without"])
        return s, preparation, _built(asked["family"], preparation, asked["rate"])

    def _sheets(self, predict: Callable[[Rows], Any], s: Split, repeat: int) -> dict[str, Any]:
        return self._graded(predict(s.valid), predict(s.test), s, repeat)

    def _graded(self, valid: Any, test: Any, s: Split, repeat: int) -> dict[str, Any]:
        """The sheets of predictions: on validation rows, on test rows, and on those of each group."""
        tested = self.known[self._memory["indices", repeat][2]]
        groups = {name: _grouped(words(column(tested, name)), test, s.test.y) for name in self.groups}
        held = self.known[self._memory["indices", repeat][1]]
        fair = {self.fair: _grouped(words(column(held, self.fair)), valid, s.valid.y)} if self.fair else {}
        return {"valid": sheet(valid, s.valid.y), "test": sheet(test, s.test.y), "groups": groups, "held": fair}

    def _indices(self, schema: Schema, repeat: int) -> tuple[Any, ...]:
        if ("indices", repeat) not in self._memory:
            y = column(self.known, self.target)
            keys = y.to_numpy().astype(np.float64) if schema.task == "regression" else _codes(y)
            self._memory["indices", repeat] = split(keys, self.seed, repeat=repeat, party=self.name)
        return self._memory["indices", repeat]  # type: ignore[no-any-return]

    def _train_rows(self, schema: Schema, repeat: int) -> Any:
        return self.known[self._indices(schema, repeat)[0]]

    def _split(self, preparation: Preparation, repeat: int) -> Split:
        everything = rows_of(preparation, self.known)
        return Split(*(everything.take(i) for i in self._indices(preparation.schema, repeat)))

    def _forget(self, repeat: int, without: str) -> None:
        """Earlier repeats are over, and so are preparations without somebody else."""
        for key in [k for k in self._memory if isinstance(k, tuple)]:
            if key[1] != repeat or (key[0] == "joint" and key[2] not in ("", without)):
                del self._memory[key]


@dataclass(frozen=True)
class Seat:
    """A desk's seat in the training of one joint model: an ordinary participant with its rows.

    Attributes:
        desk: whose rows.
        trial: how the joint model is trained.
        repeat: which split.
        without: the party that takes no part; "" where all do.
        weights: how much a row of each group of the desk's fair column counts; None for all alike.
        model: what is trained.
        complete: do all take part? So much of `without` is in the recipe, and no name.
        fair: are there weights?
    """

    desk: Desk = field(metadata={"data": True})
    trial: Trial = field(metadata={"data": True})
    repeat: int
    without: str = field(default="", metadata={"data": True})
    weights: Mapping[str, float] | None = field(default=None, metadata={"data": True})
    model: Any = field(init=False)
    complete: bool = field(init=False)
    fair: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", self.trial.model)
        object.__setattr__(self, "complete", not self.without)
        object.__setattr__(self, "fair", self.weights is not None)

    def contribute(self, shared: Contribution, local: Tree, round: Round, secret: Secret) -> tuple[Contribution, Tree]:
        """As the trial's own participant on this repeat's training and validation rows."""
        begun = time.process_time()
        who, counts = self._who(shared.kind == "score", round)
        answer, local = who.contribute(shared, local, round, secret)
        self.desk.spent(time.process_time() - begun)
        return (answer if counts is None else replace(answer, weight=counts)), local

    def _who(self, scored: bool, round: Round) -> tuple[Participant, float | None]:
        """Who answers, and what that counts where groups have weights: rows are drawn by them, for trees once."""
        once, known = self.trial.server == SUMS, vars(self)
        if once and "_kept" in known:
            return known["_kept"], None
        s = self.desk.split(self.repeat, self.without)
        train, counts = s.train, None
        if self.weights is not None and (once or not scored):
            own = self.desk.words_of(self.repeat, self.desk.fair)
            drawn, counts = resampled(own, self.weights, (replace(round, number=0) if once else round).mine("fair"))
            train = s.train.take(np.resize(drawn, max(1, int(counts + 0.5))) if once else drawn)
        who = trainer(self.trial, train, s.valid)
        if once:
            known["_kept"], counts = who, None
        return who, counts


def _own(schema: Schema, table: Any) -> Preparation:
    """The preparation of one party's training rows."""
    m = moments(table, schema)
    if rounded(m):
        m["variance"], _ = spread(table, schema, m["mean"])
    return steady(Preparation.of(schema, m, vocabulary(table, schema), rare=1), m)


def _built(family: str, preparation: Preparation, rate: float = 0.0) -> Any:
    """A model of this shape; the rate matters only where it goes on training."""
    return build(family, width(preparation), len(preparation.schema.classes), rate)


def _said(member: Any, table: Any) -> Any:
    """What somebody's own model, behind its own preparation, says of some rows."""
    preparation = Preparation.from_tree(member["preparation"])
    x = inputs_of(member["family"], preparation, table)
    return outputs(_built(member["family"], preparation), member["params"], x, preparation)


def _grouped(names: Any, predicted: Any, y: Any) -> dict[str, Any]:
    """A sheet for each word; rows without one are nobody's."""
    values = names.to_numpy()
    return {str(g): sheet(predicted[values == g], y[values == g]) for g in sorted(set(names.drop_nulls().to_list()))}


def _codes(y: Any) -> Any:
    """Class numbers of one party's own classes, for stratified splits."""
    return np.unique(words(y).to_numpy().astype(str), return_inverse=True)[1]


def _row_tree(rows: Rows) -> dict[str, Any]:
    """Rows as they travel: a missing value is marked, for what is not a number is refused."""
    missing = np.isnan(rows.ordinal)
    ordinal = np.where(missing, np.float32(0), rows.ordinal)
    return {"x": rows.x, "ordinal": ordinal, "missing": missing, "y": rows.y, "fitted": rows.fitted}


def pooled(trees: Mapping[str, Any], part: str) -> Rows:
    """The rows of all parties together, from what they sent for the ceiling."""
    sides = [trees[party][part] for party in sorted(trees)]
    x, ordinal, missing, y, fitted = (
        np.concatenate([s[k] for s in sides]) for k in ("x", "ordinal", "missing", "y", "fitted")
    )
    return Rows(x, np.where(missing, np.float32(np.nan), ordinal), y, fitted)
