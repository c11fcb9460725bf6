"""The results around the scores: groups, costs, harms, card, protection and notes, from end to end."""

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars
import pytest

import comity as co
from comity.comparison.compare import compare
from comity.comparison.hub import Hub
from comity.comparison.intervals import Interval
from comity.comparison.results import WATTS, _cost
from comity.comparison.verdict import costs, harms, judged, verdict

FAST: dict[str, Any] = {"model": "linear", "rounds": 4, "repeats": 2}
WAYS = ["alone", "ensemble", "joint", "personal", "pooled"]
UP, DOWN = Interval(0.041, 0.029, 0.053), Interval(-0.021, -0.030, -0.012)
NOISE, ONCE = Interval(0.003, -0.003, 0.009), Interval(-0.2, None, None)


def table(task: str = "two", n: int = 300) -> polars.DataFrame:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 3))
    z = x @ [1.0, -1.0, 0.5] + rng.normal(size=n)
    y = {"two": (z > 0).astype(int), "three": np.digitize(z, [-0.7, 0.7]), "number": z}[task]
    sex = rng.choice(["f", "m"], n).astype(object)
    sex[rng.random(n) < 0.1] = None
    return polars.DataFrame(
        {
            "u": x[:, 0],
            "v": x[:, 1],
            "w": x[:, 2],
            "sex": list(sex),
            "y": y,
            "hospital": rng.choice(["Ayr", "Bern", "Cork"], n),
        }
    )


@pytest.fixture(params=["two", "three", "number"], scope="module")
def got(request: pytest.FixtureRequest) -> Any:
    return compare(table(request.param), "y", party="hospital", groups=["sex"], **FAST).results


def plain(node: Any) -> bool:
    """Of nothing but what JSON has: numpy's own numbers are refused, whatever they pass for."""
    if type(node) is dict:
        return all(type(k) is str and plain(v) for k, v in node.items())
    return all(map(plain, node)) if type(node) is list else node is None or type(node) in (str, int, float, bool)


def test_the_results_are_pure_json(got: Any) -> None:
    assert plain(got)
    assert json.loads(json.dumps(got, allow_nan=False)) == got


def test_groups_as_documented(got: Any) -> None:
    assert list(got["groups"]) == ["sex"]
    sex = got["groups"]["sex"]
    assert sex.keys() == {"values", "ways"}
    assert list(sex["values"]) == ["f", "m"]
    assert 40 <= sum(sex["values"].values()) <= 60  # of 60 test rows in a split, a tenth without a word
    assert list(sex["ways"]) == WAYS
    for way in sex["ways"].values():
        assert way.keys() == {"groups", "gap"}
        assert list(way["groups"]) == ["f", "m"]
        f, m = (way["groups"][g]["mean"] for g in ("f", "m"))
        assert way["gap"].keys() == {"mean", "low", "high"}
        assert way["gap"]["mean"] >= abs(f - m) - 1e-12  # the mean of distances is no less than that of means


def test_each_party_against_alone(got: Any) -> None:
    metric = got["metric"]
    for party in got["parties"].values():
        assert list(party["against"]) == WAYS[1:]
        for way, gain in party["against"].items():
            apart = party["ways"][way][metric]["mean"] - party["ways"]["alone"][metric]["mean"]
            assert gain["mean"] == pytest.approx(apart)
        shared = got["question"]["classes"] == ["0", "1"]
        assert (party["share"] is not None) == shared
        if shared:
            assert 0.2 < party["share"] < 0.8


def test_unseen_influence_and_cost(got: Any) -> None:
    assert got["unseen"].keys() == got["influence"].keys() == got["cost"]["parties"].keys() == got["parties"].keys()
    for one in got["unseen"].values():
        assert one.keys() == {*got["ways"]["joint"], "alone"}
    for one in got["influence"].values():
        assert one.keys() == {"gain", "loss", "others", "better"}
        assert one["loss"].keys() == {"with", "without"}
        assert 0 <= one["better"] <= one["others"] == 2
    for one in got["cost"]["parties"].values():
        assert one["watt_hours"] == pytest.approx(one["seconds"] * got["cost"]["assumed_watts"] / 3600)
        assert one["seconds"] > 0


def test_the_card_and_the_page_for_the_officer(got: Any) -> None:
    card = got["card"]
    assert card["model"] == "linear, " + card["model"].partition(", ")[2]
    assert "60 % of 300 rows of 3 parties, the first of 2 splits" in card["trained_on"]
    assert card["inputs"] == ["sex", "u", "v", "w"]
    assert card["classes"] == got["question"]["classes"]
    assert card["scores"] == got["ways"]["joint"]
    leaves = {leaf["what"]: leaf for leaf in got["protection"]["leaves"]}
    assert "by group" in leaves["Scores"]["form"]
    assert "Prepared training and validation rows" in leaves
    assert "test rows" in got["protection"]["stays"]
    assert "all records" not in got["protection"]["stays"]
    assert all(leaf.keys() == {"what", "to", "why", "form"} for leaf in leaves.values())


def test_without_pooled_and_groups_less_is_said_to_leave() -> None:
    got = compare(table(), "y", party="hospital", pooled=False, unseen=False, **FAST).results
    whats = [leaf["what"] for leaf in got["protection"]["leaves"]]
    assert "Prepared training and validation rows" not in whats
    assert "all records" in got["protection"]["stays"]
    assert not any("by group" in leaf["form"] for leaf in got["protection"]["leaves"])
    assert (got["groups"], got["unseen"], got["influence"]) == ({}, {}, {})


def test_the_note_says_which_intervals_hold_together(got: Any) -> None:
    assert got["interval_note"].startswith("Scores: 95 % over 2 splits, the same for every way. ")
    assert "Gains: 95 % for all 3 hospitals together." in got["interval_note"]
    two = table().filter(polars.col("hospital") != "Cork")
    assert "for both together" in compare(two, "y", party="hospital", **FAST).results["interval_note"]
    one = compare(two, "y", party="hospital", **{**FAST, "repeats": 1}).results["interval_note"]
    assert one.startswith("One split: nothing is known of the noise.")


def test_without_a_joint_way_nobody_is_unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Hub, "joint", lambda self, trial, repeat, **kw: None)
    got = compare(table(), "y", party="hospital", **{**FAST, "model": "trees", "repeats": 1}).results
    assert (got["unseen"], got["influence"]) == ({}, {})
    assert list(next(iter(got["parties"].values()))["against"]) == ["ensemble", "pooled"]
    assert got["card"]["model"] == "trees"
    assert got["card"]["scores"] == got["ways"]["alone"]
    assert not [r for r in got["revealed"] if r["why"] == "the joint model"]


@pytest.mark.parametrize("lost", [0, 1])
def test_joint_training_that_diverges_on_one_split_only(lost: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The way is no more among those compared; what is told of the others stands."""
    train = Hub.joint
    monkeypatch.setattr(
        Hub, "joint", lambda self, trial, repeat, **kw: None if repeat == lost else train(self, trial, repeat, **kw)
    )
    got = compare(table(), "y", party="hospital", **FAST).results
    assert plain(got)
    assert list(got["ways"]) == ["alone", "ensemble", "pooled"]
    assert got["settings"]["chosen"]["joint"].startswith("linear")
    assert got["learning"] == {}
    assert bool(got["unseen"]) == bool(got["influence"]) == (lost == 1)
    scores = got["card"]["scores"]["roc_auc"]
    assert (scores["low"] is None) == (lost == 1)  # of one split only, or those of alone


def test_groups_that_cannot_be() -> None:
    frame = table()
    with pytest.raises(co.ConfigError, match=r"list of columns. Got 'sex'. Use \['sex'\]"):
        compare(frame, "y", party="hospital", groups="sex", **FAST)
    with pytest.raises(co.ConfigError, match=r"no column 'sx'.*Did you mean 'sex'"):
        compare(frame, "y", party="hospital", groups=["sx"], **FAST)
    with pytest.raises(co.ConfigError, match=r"at most 12 different words. 'u' holds 300"):
        compare(frame, "y", party="hospital", groups=["u"], **FAST)


def test_the_cost_by_hand() -> None:
    repeats = [SimpleNamespace(seconds={"b": 2.0, "a": 7200.0}), SimpleNamespace(seconds={"b": 4.0, "a": 0.0})]
    got = _cost(repeats)
    assert got["assumed_watts"] == WATTS == 15.0
    assert list(got["parties"]) == ["a", "b"]
    assert got["parties"]["a"] == {"seconds": 3600.0, "watt_hours": 15.0}
    assert got["parties"]["b"]["seconds"] == 3.0


def test_what_the_joint_model_would_cost() -> None:
    gains = {"Ayr": NOISE, "Bern": DOWN, "Cork": UP, "Dijon": NOISE, "Essen": None}
    joint = {"Ayr": DOWN, "Bern": DOWN, "Cork": UP, "Dijon": NOISE, "Essen": ONCE}
    assert costs(joint, gains, "roc_auc") == [
        "The joint model as it is would cost Ayr 2.1 ± 0.9 points of ROC AUC; its best way of joining does not."
    ]
    assert costs({}, gains, "roc_auc") == []


def told(with_: float, without: float, better: int, others: int, joint: Interval | None = DOWN) -> list[str]:
    losses = {"with": with_, "without": without}
    return harms({"Ayr": {"gain": 0.1, "loss": losses, "others": others, "better": better}}, {"Ayr": joint})


def test_who_harms_the_others() -> None:
    said = ["Without Ayr the joint model fits all others better (the others' loss falls by 14 %): look at its data."]
    assert told(0.50, 0.43, 3, 3) == told(5e11, 4.3e11, 2, 2) == told(5e-9, 4.3e-9, 3, 3) == said
    assert told(0.50, 0.43, 2, 3) == []  # one other does better with it
    assert told(0.50, 0.48, 3, 3) == []  # by less than a twentieth
    assert told(0.50, 0.43, 1, 1) == []  # of two parties, either may be the odd one
    assert told(0.0, 0.0, 0, 3) == []
    assert harms({}, {}) == []


@pytest.mark.parametrize("joint", [UP, NOISE, None, ONCE])
def test_nobody_is_accused_whose_own_model_is_no_better_there_than_the_joint_one(joint: Interval | None) -> None:
    assert told(0.50, 0.43, 3, 3, joint) == []


TINY, LESS = Interval(0.003, 0.001, 0.005), Interval(-0.004, -0.005, -0.003)


def test_less_than_half_a_point_is_no_reason_to_join() -> None:
    """With enough rows every difference can be told from noise."""
    names = ("Ayr", "Bern", "Cork")

    def said(*gains: Interval | None, mean: Interval) -> str:
        return verdict(dict(zip(names, gains, strict=False)), mean, metric="roc_auc", called="hospital")

    assert said(NOISE, NOISE, NOISE, mean=TINY) == (
        "No gain from joining that matters. The mean is +0.3 ± 0.2 points of ROC AUC. "
        "For no single hospital can it be told from noise."
    )
    assert said(NOISE, NOISE, mean=LESS).startswith("No gain from joining that matters. The mean is −0.4 ± 0.1")
    assert said(TINY, NOISE, LESS, mean=TINY).endswith("For Ayr and Cork the difference is less than half a point.")
    assert "is within noise or less than half a point; the mean" in said(TINY, NOISE, mean=NOISE)
    assert said(UP, TINY, NOISE, mean=UP) == (
        "Worth joining for one of three hospitals. Ayr gains +4.1 ± 1.2 points of ROC AUC. "
        "For Cork the difference is within noise. For Bern the difference is less than half a point."
    )
    assert said(TINY, TINY, mean=UP).endswith("For Ayr and Bern the difference is less than half a point.")
    assert costs({"Ayr": LESS}, {"Ayr": NOISE}, "roc_auc") == []
    assert judged(TINY) == "gains"
