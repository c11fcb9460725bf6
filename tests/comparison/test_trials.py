"""Joint models that come of sums: saved, applied to new rows, tuned at home, fairer, taken up again."""

from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest
from numpy.testing import assert_allclose

import comity as co
from comity.comparison.compare import compare
from comity.comparison.desk import Seat
from comity.comparison.fair import resampled
from comity.comparison.families import Rows, build
from comity.comparison.trials import as_linear, ridge
from comity.comparison.tuning import grown_on

FAST: dict[str, Any] = {"model": "trees", "repeats": 1, "unseen": False, "party": "hospital"}


def table(n: int = 400, seed: int = 0) -> polars.DataFrame:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3))
    return polars.DataFrame(
        {
            "u": np.where(rng.random(n) < 0.1, np.nan, x[:, 0]),
            "v": x[:, 1],
            "colour": rng.choice(["red", "green", "blue"], n),
            "sex": np.where(x[:, 2] > 0, "f", "m"),
            "y": (x[:, 0] * x[:, 1] + 0.3 * x[:, 2] > 0).astype(int),
            "hospital": rng.choice(["Ayr", "Bern", "Cork"], n),
        }
    )


@pytest.mark.parametrize("number", [False, True])
def test_joint_trees_are_saved_and_predict_new_rows(number: bool, tmp_path: Path) -> None:
    frame = table().with_columns((100 + 5 * polars.col("v")).alias("y")) if number else table()
    got = compare(frame, "y", runs=tmp_path, **FAST).results
    new = table(200, seed=9)
    for given in ({}, {"party": "Ayr"}):
        said = co.predict(tmp_path, new, **given)
        if number:
            assert np.sqrt(np.mean((said["predicted"].to_numpy() - 100 - 5 * new["v"].to_numpy()) ** 2)) < 1.5
        else:
            assert_allclose(said["probability_0"] + said["probability_1"], 1)
            assert np.mean(said["predicted"].cast(int).to_numpy() == new["y"].to_numpy()) > 0.8
    assert list(got["ways"]) == ["alone", "ensemble", "joint", "personal", "pooled"]
    again = compare(frame, "y", runs=tmp_path, **FAST).results
    assert again["ways"] == got["ways"]


def test_trees_are_not_grown_again_where_they_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, contribute = [], Seat.contribute
    monkeypatch.setattr(Seat, "contribute", lambda self, *a: asked.append(a[0].kind) or contribute(self, *a))
    compare(table(), "y", runs=tmp_path, **FAST)
    grown = len(asked)
    compare(table(), "y", runs=tmp_path, **FAST)
    assert grown == len(asked) > 300


def test_fairer_trees_see_the_same_rows_in_every_round(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[np.ndarray] = []

    def noted(*given: Any) -> Any:
        rows, weight = resampled(*given)
        drawn.append(rows)
        return rows, weight

    monkeypatch.setattr("comity.comparison.desk.resampled", noted)
    got = compare(table(), "y", fair="sex", **FAST).results
    assert len(drawn) == 3  # once for each party
    assert got["fair"]["column"] == "sex"
    assert got["ways"]["joint"]["roc_auc"]["mean"] > 0.85
    assert got["fair"]["gap"].keys() == {"joint", "fair"}


def rows(seed: int, flip: bool, n: int = 300) -> Rows:
    x = np.random.default_rng(seed).normal(size=(n, 2)).astype("float32")
    y = (x[:, 0] > 0).astype(int) ^ flip
    return Rows(x, x, y, y)


def test_joint_trees_grow_on_at_home_as_far_as_it_helps() -> None:
    everybody, here = rows(0, False), co.Round("test", 0)
    method = co.Boosting(2, 2, trees=20, depth=6, rate=0.08)
    sites = {"a": co.BoostingTrainer((everybody.ordinal, everybody.y))}
    joint = co.Collaboration(method, sites, stop=method.stop).run(method.rounds).shared
    model = build("trees", 2, 2)
    how, trees = grown_on(model, joint, (rows(1, True), rows(2, True)), here)
    assert how == "trees"
    assert len(trees["value"]) == 20 + 20
    valid = rows(3, True)
    losses = [-np.log(method.predict(t, valid.ordinal)[np.arange(300), valid.y]).mean() for t in (joint, trees)]
    assert losses[1] < losses[0] - 0.3
    assert grown_on(model, joint, (rows(1, True), rows(2, False)), here) == ("none", joint)
    nobody = rows(2, True).take(np.zeros(0, int))
    assert grown_on(model, joint, (rows(1, True), nobody), here) == ("none", joint)


@pytest.mark.parametrize("classes", [0, 3])
def test_a_ridge_solution_is_a_linear_model(classes: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(90, 4)).astype("float32")
    y = rng.integers(0, 3, 90) if classes else x[:, 0]
    model = co.Linear(4, classes)
    method = ridge(model)
    shared = co.Collaboration(method, {"a": co.RidgeTrainer(method.features, (x, y))}).run(1).shared
    assert_allclose(model.predict(as_linear(shared), x), method.predict(shared, x), atol=1e-5)
