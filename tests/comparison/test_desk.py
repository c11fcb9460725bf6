"""The parties' desks: the same splits for all ways, choices on validation rows, nothing from anybody else's rows."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import polars
import pytest

from comity.adapters.numpy import Linear
from comity.comparison import families
from comity.comparison.compare import Settings, _Repeat, _silent
from comity.comparison.desk import Desk, _said
from comity.comparison.families import Rows, bent, chosen, improved, outputs, width
from comity.comparison.hub import Hub, Trial
from comity.comparison.jury import combined
from comity.comparison.sheet import loss, total
from comity.comparison.table import Table
from comity.core.errors import TooFewParticipants
from comity.core.round import Round
from comity.core.scores import scores
from comity.methods.fedavg import Trainer

EVERYTHING = ("linear", "mlp", "trees")
HERE = Round("", seed=0, me="here")


def tables(task: str = "classes", seed: int = 0, rows: int = 120) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    out = {}
    for i, party in enumerate(("Ayr", "Bern", "Cork")):
        x = rng.normal(size=(rows + 20 * i, 3)) + i
        z = x @ [1.0, -1.0, 0.5] + rng.normal(size=len(x))
        y = (z > z.mean()).astype(int) if task == "classes" else z
        out[party] = polars.DataFrame({"u": x[:, 0], "v": x[:, 1], "w": x[:, 2], "y": y})
    return out


def hub_of(parts: Mapping[str, Any], seed: int = 0) -> Hub:
    return Hub({p: Desk(p, t, "y", seed) for p, t in parts.items()}, seed)


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, Mapping):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    return bool(np.array_equal(np.asarray(a), np.asarray(b)))


def indices(hub: Hub, schema: Any, repeat: int = 0) -> dict[str, Any]:
    return {p: d._indices(schema, repeat) for p, d in hub.desks.items()}


def repeat_of(hub: Hub, task: str, model: str = "auto") -> tuple[Any, Any]:
    schema, _, _ = hub.describe("y")
    settings = Settings("y", "party", model=model, rounds=4, repeats=1)
    return schema, _Repeat(hub, schema, settings, 0, _silent).run(None)


def with_other_test_labels(task: str) -> tuple[Hub, Hub]:
    """Two hubs whose desks have the same splits and differ in nothing but the targets of test rows."""
    first = hub_of(tables(task))
    schema, _, _ = first.describe("y")
    changed, kept = {}, indices(first, schema)
    for party, table in tables(task).items():
        y, test = table["y"].to_numpy().copy(), kept[party][2]
        y[test] = 1 - y[test] if task == "classes" else y[test[::-1]] * 3 + 2
        changed[party] = table.with_columns(polars.Series("y", y))
    second = hub_of(changed)
    for party, desk in second.desks.items():
        desk._memory["indices", 0] = kept[party]
    return hub_of(tables(task)), second


@pytest.mark.parametrize("task", ["classes", "regression"])
def test_no_choice_looks_at_test_rows(task: str) -> None:
    first, second = with_other_test_labels(task)
    (schema, a), (_, b) = repeat_of(first, task), repeat_of(second, task)
    assert set(a.ways) == {"alone", "ensemble", "joint", "personal", "pooled"}
    assert a.chosen == b.chosen
    assert str(a.joint.trial) == str(b.joint.trial)
    assert (a.joint.loss, a.joint.curve) == (b.joint.loss, b.joint.curve)
    assert equal(a.joint.params, b.joint.params)
    own = [{p: desk._memory["own", 0] for p, desk in hub.desks.items()} for hub in (first, second)]
    assert equal(own[0], own[1])
    for way, parties in a.ways.items():
        for party in parties:
            assert equal(parties[party]["valid"], b.ways[way][party]["valid"]), (way, party)
            assert not equal(parties[party]["test"], b.ways[way][party]["test"]), (way, party)
    one, two = Table(schema, [a]), Table(schema, [b])
    assert [one.joining(0, p) for p in one.parties] == [two.joining(0, p) for p in two.parties]
    assert [one.gain(0, p) for p in one.parties] != [two.gain(0, p) for p in two.parties]


def test_validation_rows_do_matter_for_choices() -> None:
    """The check above could see a difference: other validation targets do change what is kept."""
    first = hub_of(tables())
    schema, _, _ = first.describe("y")
    kept, changed = indices(first, schema), {}
    for party, table in tables().items():
        y = table["y"].to_numpy().copy()
        y[kept[party][1]] = 1 - y[kept[party][1]]
        changed[party] = table.with_columns(polars.Series("y", y))
    second = hub_of(changed)
    for party, desk in second.desks.items():
        desk._memory["indices", 0] = kept[party]
    (_, a), (_, b) = repeat_of(first, "classes", "linear"), repeat_of(second, "classes", "linear")
    assert a.joint.loss != b.joint.loss
    assert not equal(a.joint.params, b.joint.params)


@pytest.mark.parametrize("part", [1, 2])
def test_preparation_is_fitted_on_training_rows_only(part: int) -> None:
    parts = {
        p: t.with_columns(polars.Series("word", [f"w{i % 3}" for i in range(t.height)])) for p, t in tables().items()
    }
    first = hub_of(parts)
    schema, _, _ = first.describe("y")
    kept, changed = indices(first, schema), {}
    for party, table in parts.items():
        u, word = table["u"].to_numpy().copy(), np.array(table["word"].to_list(), dtype=object)
        u[kept[party][part]] += 1000
        word[kept[party][part]] = "w9"
        changed[party] = table.with_columns(polars.Series("u", u), polars.Series("word", list(word)))
    second = hub_of(changed)
    a, b = first.prepare(schema, 0)[0].to_tree(), second.prepare(schema, 0)[0].to_tree()
    assert equal(a["numbers"], b["numbers"])
    assert a["codes"] == b["codes"]
    assert "w9" not in b["codes"]["word"]["values"]


def test_alone_uses_own_rows_only() -> None:
    mine, others = tables(), tables(seed=7, rows=200)
    first, second = hub_of(mine), hub_of({**others, "Bern": mine["Bern"]})
    schema, _, _ = first.describe("y")
    for hub in (first, second):
        hub.prepare(schema, 0)
    a, b = (hub.alone(schema, 0, EVERYTHING, 6) for hub in (first, second))
    assert equal(a["Bern"]["valid"], b["Bern"]["valid"])
    assert equal(a["Bern"]["test"], b["Bern"]["test"])
    assert a["Bern"]["family"] == b["Bern"]["family"]
    assert not equal(a["Ayr"]["test"], b["Ayr"]["test"])
    assert not equal(first.ensemble(0)["Bern"]["test"], second.ensemble(0)["Bern"]["test"])


@pytest.mark.parametrize("task", ["classes", "regression"])
def test_every_way_is_scored_on_the_same_rows(task: str) -> None:
    hub = hub_of(tables(task))
    _, found = repeat_of(hub, task, "linear")
    assert len(found.ways) == 5
    for part in ("valid", "test"):
        for party in hub.desks:
            truths = [_truth(found.ways[way][party][part]) for way in found.ways]
            assert all(np.array_equal(t, truths[0]) for t in truths)
            assert truths[0][0] > 0


def _truth(sheet: Any) -> Any:
    """What of a sheet depends on rows and targets only."""
    return sheet["sums"][[0, 3, 4]] if "sums" in sheet else sheet["confusion"].sum(axis=1)


def test_splits_do_not_overlap_and_change_with_the_repeat() -> None:
    hub = hub_of(tables())
    schema, _, _ = hub.describe("y")
    for party, parts in indices(hub, schema).items():
        together = np.sort(np.concatenate(parts))
        assert np.array_equal(together, np.arange(tables()[party].height))
        assert not np.array_equal(parts[2], indices(hub, schema, 1)[party][2])


def test_the_ensemble_combines_what_each_says_as_validation_rows_choose() -> None:
    hub = hub_of(tables("regression"))
    schema, _, _ = hub.describe("y")
    preparation, _ = hub.prepare(schema, 0)
    hub.alone(schema, 0, ("linear",), 4)
    got = hub.ensemble(0)
    for party, desk in hub.desks.items():
        _, valid, test = (desk.known[i] for i in desk._indices(schema, 0))
        said: dict[str, list] = {"valid": [], "test": []}
        for other in hub.desks.values():
            own = other._memory["own", 0]
            prepared = type(preparation).from_tree(own["preparation"])
            model = Linear(width(prepared), 0)
            for part, rows in (("valid", valid), ("test", test)):
                said[part].append(outputs(model, own["params"], bent(prepared, prepared.inputs(rows)), prepared))
        how, together = combined(np.stack(said["valid"]), valid["y"].to_numpy())
        off = together(np.stack(said["test"])) - test["y"].to_numpy()
        assert got[party]["how"] == how
        assert got[party]["test"]["sums"][1] == pytest.approx((off**2).sum(), rel=1e-5)


def test_the_joint_model_is_the_one_that_did_best_on_validation_rows() -> None:
    hub = hub_of(tables())
    schema, found = repeat_of(hub, "classes")
    each = found.ways["joint"]
    assert loss(total([each[p]["valid"] for p in each])) == pytest.approx(found.joint.loss, rel=1e-5)
    assert found.joint.loss == min(found.joint.curve)
    preparation, _ = hub.prepare(schema, 0)
    trials = hub.trials(EVERYTHING, preparation)
    assert [str(t).split(", rate")[0] for t in trials[8:]] == ["linear, ridge", "trees, summed histograms"]
    assert len(trials) == 10
    for trial in trials:
        other = hub.joint(trial, 0, rounds=4, folder=None, tell=lambda closed: None)
        assert other is not None
        assert other.loss >= found.joint.loss
        scored = hub.joint_scores(other, 0)
        assert loss(total([scored[p]["valid"] for p in scored])) == pytest.approx(min(other.curve), rel=1e-5)


def test_a_joint_model_that_gets_worse_is_taken_from_before() -> None:
    hub = hub_of(tables(rows=40))
    schema, _, _ = hub.describe("y")
    preparation, _ = hub.prepare(schema, 0)
    wild = Trial("linear", Linear(width(preparation), 2, rate=30.0, batch=8), "FedAvg")
    found = hub.joint(wild, 0, rounds=6, folder=None, tell=lambda closed: None)
    assert found is not None
    assert found.curve[-1] > found.loss
    each = hub.joint_scores(found, 0)
    assert loss(total([each[p]["valid"] for p in each])) == pytest.approx(found.loss, rel=1e-4)


def test_a_joint_model_whose_scores_were_refused_has_diverged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the parameters are still numbers and the predictions are not, a point of the curve is missing."""
    hub = hub_of(tables(rows=40))
    schema, _, _ = hub.describe("y")
    preparation, _ = hub.prepare(schema, 0)
    trial = hub.trials(("linear",), preparation)[0]
    contribute = Trainer.contribute

    def overflows(self: Any, shared: Any, local: Any, round: Any, secret: Any) -> Any:
        c, local = contribute(self, shared, local, round, secret)
        late = shared.kind == "score" and round.number > 2
        return (replace(c, metrics={"valid_log_loss": (float("nan"), 1.0)}) if late else c), local

    monkeypatch.setattr(Trainer, "contribute", overflows)
    assert hub.joint(trial, 0, rounds=2, folder=None, tell=lambda closed: None) is not None
    assert hub.joint(trial, 0, rounds=4, folder=None, tell=lambda closed: None) is None


def test_the_ceiling_is_sent_no_test_rows() -> None:
    hub = hub_of(tables())
    schema, _, _ = hub.describe("y")
    hub.prepare(schema, 0)
    moved, _ = hub._ask("rows", repeat=0)
    for party, parts in indices(hub, schema).items():
        assert moved[party].keys() == {"train", "valid"}
        for part, at in zip(("train", "valid"), parts, strict=False):
            assert np.array_equal(moved[party][part]["y"], tables()[party]["y"].to_numpy()[at])


def test_a_step_that_does_not_exist() -> None:
    with pytest.raises(TooFewParticipants, match="no step 'dance'"):
        hub_of(tables())._ask("dance")


@pytest.mark.parametrize("value", [None, 0.1, 7.0])
def test_a_column_that_never_varied_at_home_says_nothing_elsewhere(value: float | None) -> None:
    parts = tables()
    parts["Ayr"] = parts["Ayr"].with_columns(polars.lit(value, polars.Float64).alias("u"))
    hub = hub_of(parts)
    schema, _, _ = hub.describe("y")
    hub.prepare(schema, 0)
    hub.alone(schema, 0, ("mlp",), 4)
    member, bern = hub.desks["Ayr"]._memory["own", 0], parts["Bern"]
    said = _said(member, bern)
    assert np.array_equal(said, _said(member, bern.with_columns(polars.col("u") * 1e6)))
    assert not np.array_equal(said, _said(member, bern.with_columns(polars.col("v") * 2)))


def rows(n: int, seed: int, classes: int = 2) -> Rows:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 4)).astype(np.float32)
    z = x[:, 0] - x[:, 1] + rng.normal(size=n)
    y = (z > 0).astype(int) if classes else z.astype(np.float32)
    return Rows(x, x.copy(), y, y)


@pytest.mark.parametrize("classes", [0, 2])
def test_what_is_chosen_does_best_on_the_validation_rows(classes: int) -> None:
    train, valid = rows(200, 0, classes), rows(80, 1, classes)
    each = [chosen([f], train, valid, HERE, classes=classes, epochs=6) for f in EVERYTHING]
    best = chosen(EVERYTHING, train, valid, HERE, classes=classes, epochs=6)
    assert (best.loss, best.family) == min((f.loss, f.family) for f in each)
    total, n = scores(best.model.predict(best.params, valid.of(best.family)), valid.y)["log_loss" if classes else "mse"]
    assert best.loss == pytest.approx(total / n, rel=1e-6)


def test_training_goes_back_to_the_best_look() -> None:
    train, valid = rows(60, 0), rows(60, 1)
    model = Linear(4, 2, rate=1e6)
    start = model.init(HERE)
    params, loss = improved(model, start, (train, valid), HERE, 20)
    assert params is start
    assert loss == pytest.approx(np.log(2), rel=1e-6)


def test_rows_are_taken_together() -> None:
    some = rows(9, 0).take(np.array([2, 5]))
    assert some.of("trees") is some.ordinal
    assert some.of("mlp") is some.x
    assert [len(a) for a in (some.x, some.ordinal, some.y, some.fitted)] == [2] * 4


@pytest.mark.parametrize("classes", [0, 2, 3])
def test_trees_take_columns_without_any_value(classes: int) -> None:
    train, valid = rows(80, 0, min(classes, 2)), rows(40, 1, min(classes, 2))
    train.ordinal[:, 2] = np.nan
    model = families.build("trees", 4, classes)
    got = chosen(["trees"], train, valid, HERE, classes=classes, epochs=1)
    nothing = np.where(np.arange(4) == 2, np.float32(0), valid.ordinal)
    assert np.array_equal(model.predict(got.params, valid.ordinal), model.predict(got.params, nothing))
    assert np.isfinite(got.loss)


def test_a_model_that_does_not_exist() -> None:
    with pytest.raises(ValueError, match="'model' must be auto, linear, mlp, trees"):
        families.families("tree")
