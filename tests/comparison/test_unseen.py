"""The joint model without each party in turn: equal to a comparison run by hand without it, and blind to its rows."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars
import pytest

from comity.comparison.compare import Settings, _Repeat, _silent
from comity.comparison.desk import Desk
from comity.comparison.families import build, width
from comity.comparison.hub import Hub, left_out
from comity.comparison.results import _influence, _unseen
from comity.comparison.sheet import loss, metrics, total
from comity.comparison.table import Table

ROUNDS = 4
NAMES = ("Ayr", "Bern", "Cork")


def tables(task: str = "classes", rows: int = 100) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    out = {}
    for i, party in enumerate(NAMES):
        x = rng.normal(size=(rows + 20 * i, 3)) + i
        z = x @ [1.0, -1.0, 0.5] + rng.normal(size=len(x))
        words = [("red", "green", party)[j % 3] for j in range(len(x))]
        y = (z > z.mean()).astype(int) if task == "classes" else z
        out[party] = polars.DataFrame({"u": x[:, 0], "v": x[:, 1], "w": x[:, 2], "colour": words, "y": y})
    return out


def hub_of(parts: Mapping[str, Any]) -> Hub:
    return Hub({p: Desk(p, t, "y", 0) for p, t in parts.items()}, 0)


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, Mapping):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    return bool(np.array_equal(np.asarray(a), np.asarray(b)))


def repeat_of(hub: Hub, model: str, number: int = 0, folder: Path | None = None) -> tuple[Any, Any]:
    schema, _, _ = hub.describe("y")
    settings = Settings("y", "party", model=model, rounds=ROUNDS, repeats=2, pooled=False)
    return schema, _Repeat(hub, schema, settings, number, _silent).run(folder)


@pytest.fixture(params=[("classes", "linear"), ("classes", "mlp"), ("regression", "linear")], scope="module")
def found(request: pytest.FixtureRequest) -> Any:
    task, model = request.param
    schema, repeat = repeat_of(hub_of(tables(task)), model)
    return SimpleNamespace(task=task, schema=schema, repeat=repeat)


@pytest.mark.parametrize("party", NAMES)
def test_the_scores_are_those_of_a_comparison_by_hand_without_the_party(found: Any, party: str) -> None:
    """The others prepare, train and score by themselves: the same bits; then the party is handed what came out."""
    parts = tables(found.task)
    others = hub_of({p: t for p, t in parts.items() if p != party})
    preparation, _ = others.prepare(found.schema, 0)
    if party == "Cork":
        assert "colour=Cork" not in preparation.names
    chosen = found.repeat.joint.trial
    shape = width(preparation), len(found.schema.classes)
    trial = replace(chosen, model=build(chosen.family, *shape, chosen.rate))
    joint = others.joint(trial, 0, rounds=ROUNDS, folder=None, tell=lambda closed: None)
    assert joint is not None
    by_hand = others.joint_scores(joint, 0)
    got = found.repeat.unseen[party]
    assert equal(got.others, by_hand)
    alone = hub_of({party: parts[party]})
    alone.hand(preparation, 0)
    assert equal(got.there, alone.joint_scores(joint, 0)[party])


@pytest.mark.parametrize("task", ["classes", "regression"])
def test_the_rows_of_who_is_left_out_do_not_reach_the_model(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other values in its table: the others' preparation, model and scores are the same, bit for bit."""
    joints: list[Any] = []
    train = Hub.joint

    def kept(self: Hub, *args: Any, **settings: Any) -> Any:
        joints.append(train(self, *args, **settings))
        return joints[-1]

    first = hub_of(tables(task))
    schema, repeat = repeat_of(first, "linear")
    changed = tables(task)
    y = changed["Bern"]["y"].to_numpy()
    changed["Bern"] = changed["Bern"].with_columns(
        polars.col("u") * 50 + 7, polars.col("v").reverse(), polars.Series("y", y[::-1].copy())
    )
    second = hub_of(changed)
    for hub in (first, second):
        hub.prepare(schema, 0)
    monkeypatch.setattr(Hub, "joint", kept)
    trial = repeat.joint
    for party in ("Bern", "Ayr"):
        one, two = (left_out(hub, party, schema, trial, rounds=ROUNDS, folder=None) for hub in (first, second))
        assert one is not None
        assert two is not None
        mine, theirs = joints[-2:]
        blind = party == "Bern"
        assert equal(mine.params, theirs.params) == blind
        assert (mine.curve == theirs.curve) == blind
        assert equal(one.others["Cork"], two.others["Cork"]) == blind
        assert not equal(one.there, two.there)


def test_what_is_said_of_it_by_hand(found: Any) -> None:
    table = Table(found.schema, [found.repeat])
    unseen, influence = _unseen(table), _influence(table)
    assert list(unseen) == list(influence) == list(NAMES)
    ways = found.repeat.ways
    for party in NAMES:
        mine = found.repeat.unseen[party]
        assert {k: v for k, v in unseen[party].items() if k != "alone"} == metrics(mine.there["test"])
        assert unseen[party]["alone"] == metrics(ways["alone"][party]["test"])[table.headline]
        others = [p for p in NAMES if p != party]
        without = {p: mine.others[p]["test"] for p in others}
        with_ = {p: ways["joint"][p]["test"] for p in others}
        gains = [metrics(without[p])[table.headline] - metrics(with_[p])[table.headline] for p in others]
        assert influence[party]["gain"] == pytest.approx(np.mean(gains))
        held = [
            [sheets[p][part] for p in others for part in ("valid", "test")] for sheets in (ways["joint"], mine.others)
        ]
        assert influence[party]["loss"]["with"] == pytest.approx(loss(total(held[0])))
        assert influence[party]["loss"]["without"] == pytest.approx(loss(total(held[1])))
        assert influence[party]["others"] == 2
        pairs = [(total(held[0][i : i + 2]), total(held[1][i : i + 2])) for i in (0, 2)]
        assert influence[party]["better"] == sum(loss(left) < loss(kept) for kept, left in pairs)


def test_nothing_of_it_is_left_in_the_other_ways() -> None:
    """With and without this step every way and every later split is the same."""
    scores = []
    for unseen in (True, False):
        hub = hub_of(tables())
        schema, _, _ = hub.describe("y")
        settings = Settings("y", "party", model="linear", rounds=ROUNDS, repeats=2, unseen=unseen)
        repeats = [_Repeat(hub, schema, settings, k, _silent).run(None) for k in range(2)]
        scores.append([r.ways for r in repeats])
        assert [bool(r.unseen) for r in repeats] == [unseen, False]
    assert equal(scores[0][0], scores[1][0])
    assert equal(scores[0][1], scores[1][1])


def test_seconds_are_those_of_the_joint_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted by a clock that ticks once for each look: what is trained without a party is not among them."""
    ticks = iter(range(10**9))
    monkeypatch.setattr("comity.comparison.desk.time.process_time", lambda: next(ticks))
    hub = hub_of(tables())
    schema, _, _ = hub.describe("y")
    settings = Settings("y", "party", model="mlp", rounds=ROUNDS, repeats=2)
    first, second = (_Repeat(hub, schema, settings, k, _silent).run(None).seconds for k in range(2))
    assert first == second == dict.fromkeys(NAMES, ROUNDS * 2)  # each round asks for a change and for a score


def test_no_more_than_two_preparations_are_kept() -> None:
    hub = hub_of(tables())
    repeat_of(hub, "linear")
    for desk in hub.desks.values():
        kept = [key for key in desk._memory if key[0] == "joint"]
        assert len(kept) == 2
        assert ("joint", 0, "") in kept


@pytest.mark.parametrize("value", [None, 3.0])
def test_a_column_that_varies_only_at_who_is_left_out_says_nothing_there(value: float | None) -> None:
    """Else what a network's untrained weights make of it would be chance."""
    parts = {
        p: t if p == "Bern" else t.with_columns(polars.lit(value, polars.Float64).alias("u"))
        for p, t in tables().items()
    }
    scored = []
    for factor in (1.0, 1e6):
        hub = hub_of(parts | {"Bern": parts["Bern"].with_columns(polars.col("u") * factor)})
        schema, _, _ = hub.describe("y")
        preparation, _ = hub.prepare(schema, 0)
        trial = hub.trials(("mlp",), preparation)[0]
        joint = hub.joint(trial, 0, rounds=1, folder=None, tell=lambda closed: None)
        assert joint is not None
        scored.append(left_out(hub, "Bern", schema, joint, rounds=ROUNDS, folder=None))
    assert equal(scored[0].there["test"], scored[1].there["test"])


def test_runs_without_somebody_are_taken_up(tmp_path: Path) -> None:
    _, once = repeat_of(hub_of(tables()), "linear", folder=tmp_path)
    assert sorted(p.name for p in (tmp_path / "without").iterdir()) == ["0", "1", "2"]
    _, again = repeat_of(hub_of(tables()), "linear", folder=tmp_path)
    for party in NAMES:
        assert equal(once.unseen[party].there, again.unseen[party].there)
        assert equal(once.unseen[party].others, again.unseen[party].others)
