"""The fairer model: weights, draws and thresholds by hand, and what it does to a table where one group is few."""

from typing import Any

import numpy as np
import polars
import pytest

import comity as co
from comity.comparison.fair import HALF, resampled, thresholds, weights
from comity.comparison.sheet import sheet


def test_groups_count_alike_and_rows_count_one_on_average() -> None:
    counts = {"a": {"f": 10.0, "m": 60.0}, "b": {"f": 20.0, "m": 30.0}}
    got = weights(counts)
    assert got == pytest.approx({"f": 120 / (2 * 30), "m": 120 / (2 * 90)})
    assert 30 * got["f"] == pytest.approx(90 * got["m"])
    assert 30 * got["f"] + 90 * got["m"] == pytest.approx(120)


def test_rows_are_drawn_in_proportion_to_their_weights() -> None:
    """4,000 draws at 0.8 have a standard deviation of 25: beyond 150 is one false alarm in 10^8."""
    words = np.array((["f"] * 1000 + ["m"] * 1000) * 2, object)
    drawn, counts = resampled(words, {"f": 4.0, "m": 1.0}, np.random.default_rng(0))
    assert len(drawn) == 4000
    assert counts == 2000 * 4 + 2000
    assert abs((words[drawn] == "f").sum() - 3200) < 150
    again, _ = resampled(words, {"f": 4.0, "m": 1.0}, np.random.default_rng(0))
    assert np.array_equal(drawn, again)


def test_a_row_without_a_group_counts_one() -> None:
    drawn, counts = resampled(np.array([None, "f"], object), {"f": 3.0}, np.random.default_rng(0))
    assert counts == 4.0
    assert set(drawn) <= {0, 1}


def test_thresholds_bring_each_groups_recall_to_that_of_all() -> None:
    rng = np.random.default_rng(0)
    held = {}
    scores = {"low": rng.uniform(0.05, 0.6, 2000), "high": rng.uniform(0.4, 0.95, 2000)}
    for name, p in scores.items():
        held[name] = sheet(np.stack([1 - p, p], axis=1), np.ones(2000, int))
    cuts = thresholds({"a": {"held": {"sex": held}}}, "sex")
    assert cuts["low"] < HALF < cuts["high"]
    recall = {g: held[g]["bins"][0][1][cut:].sum() / 2000 for g, cut in cuts.items()}
    wanted = np.mean([(p > 0.5).mean() for p in scores.values()])
    assert recall["low"] == pytest.approx(wanted, abs=0.01)
    assert recall["high"] == pytest.approx(wanted, abs=0.01)


def test_a_group_without_positives_keeps_the_usual_threshold() -> None:
    p = np.full(20, 0.3)
    some = sheet(np.stack([1 - p, p], axis=1), np.zeros(20, int))
    more = sheet(np.stack([p, 1 - p], axis=1), np.ones(20, int))
    assert thresholds({"a": {"held": {"sex": {"f": some, "m": more}}}}, "sex")["f"] == HALF


def tables(n: int = 400) -> dict[str, Any]:
    """Among the few (a tenth) the sign of the second column is turned round: a model for all serves them badly."""
    out = {}
    for i, party in enumerate(("Ayr", "Bern", "Como")):
        rng = np.random.default_rng(i)
        x, few = rng.normal(size=(n, 2)), rng.random(n) < 0.1
        y = (x[:, 0] + np.where(few, -1.5, 1.5) * x[:, 1] + 0.3 * rng.normal(size=n) > 0).astype(int)
        columns = {"u": x[:, 0], "v": x[:, 1], "kind": np.where(few, "few", "many"), "y": y}
        out[party] = polars.DataFrame(columns)
    return out


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    answer = co.compare(tables(), "y", model="linear", rounds=8, repeats=2, unseen=False, fair="kind", pooled=False)
    return dict(answer.results)


def test_the_fairer_model_narrows_the_gap_and_names_its_price(found: dict[str, Any]) -> None:
    fair = found["fair"]
    assert fair["column"] == "kind"
    assert fair["measure"] == "recall"
    assert fair["gap"]["fair"]["mean"] < fair["gap"]["joint"]["mean"]
    assert fair["price"]["mean"] < 0
    assert fair["price_metric"] == "accuracy"


def test_groups_are_scored_where_a_fairer_model_is_asked_for(found: dict[str, Any]) -> None:
    groups = found["groups"]["kind"]
    assert groups["values"].keys() == {"few", "many"}
    assert groups["ways"]["joint"]["groups"]["few"]["mean"] < groups["ways"]["joint"]["groups"]["many"]["mean"]


def test_nothing_else_changes_where_a_fairer_model_is_trained_too(found: dict[str, Any]) -> None:
    plain = co.compare(tables(), "y", model="linear", rounds=8, repeats=2, unseen=False, groups=["kind"], pooled=False)
    assert plain.results["fair"] is None
    assert plain.results["ways"] == found["ways"]
    assert plain.results["parties"] == found["parties"]


def test_a_measured_target_has_no_thresholds() -> None:
    made = {p: t.with_columns(y=polars.col("y") + polars.col("u")) for p, t in tables(120).items()}
    answer = co.compare(made, "y", model="linear", rounds=4, repeats=2, unseen=False, fair="kind", pooled=False)
    fair = answer.results["fair"]
    assert (fair["measure"], fair["price_metric"], fair["how"]) == ("r2", "r2", "group weights in training")
