"""What follows from score sheets: gains, simultaneous intervals and groups, on made-up predictions."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import polars
import pytest
from sklearn import metrics as sk

from comity.comparison.desk import Desk, _grouped
from comity.comparison.intervals import interval
from comity.comparison.sheet import metrics, sheet, total
from comity.comparison.table import LEAST, Table
from comity.data.schema import Column, Schema

TWO = Schema((Column("x", "number"),), "y", "classification", ("no", "yes"))
THREE = Schema((Column("x", "number"),), "y", "classification", ("a", "b", "c"))
NUMBER = Schema((Column("x", "number"),), "y", "regression")


def right(n: int, of: int, classes: int = 3) -> dict[str, Any]:
    """The sheet of `of` rows, all of the first class but the last two, of which n are predicted right."""
    y = np.minimum(np.maximum(np.arange(of) - of + classes, 0), classes - 1)
    said = np.where(np.arange(of) < n, y, (y + 1) % classes)
    return sheet(np.where(np.eye(classes)[said] > 0, 0.8, 0.2 / (classes - 1)), y)


def repeat(**ways: dict[str, tuple[int, int]]) -> Any:
    """Ways to party to how many of 20 validation and of 20 test rows are right."""
    made = {
        way: {p: {"valid": right(v, 20), "test": right(t, 20), "groups": {}} for p, (v, t) in parties.items()}
        for way, parties in ways.items()
    }
    return SimpleNamespace(ways=made)


def by_hand() -> Table:
    """Ayr: joint is taken, then personal; Bern: the ensemble twice, which does worse than alone on test rows."""
    return Table(
        THREE,
        [
            repeat(
                alone={"Ayr": (10, 10), "Bern": (15, 15)},
                ensemble={"Ayr": (11, 19), "Bern": (19, 13)},
                joint={"Ayr": (14, 16), "Bern": (12, 20)},
                personal={"Ayr": (13, 18), "Bern": (16, 20)},
            ),
            repeat(
                alone={"Ayr": (10, 12), "Bern": (15, 15)},
                ensemble={"Ayr": (11, 19), "Bern": (19, 14)},
                joint={"Ayr": (14, 15), "Bern": (12, 20)},
                personal={"Ayr": (16, 14), "Bern": (16, 20)},
            ),
        ],
    )


def test_gains_by_hand() -> None:
    table = by_hand()
    assert table.headline == "accuracy"
    assert table.ways == ["alone", "ensemble", "joint", "personal"]
    assert [table.joining(k, "Ayr") for k in (0, 1)] == ["joint", "personal"]
    assert [table.joining(k, "Bern") for k in (0, 1)] == ["ensemble", "ensemble"]
    assert [table.gain(k, "Ayr") for k in (0, 1)] == pytest.approx([6 / 20, 2 / 20])
    assert [table.gain(k, "Bern") for k in (0, 1)] == pytest.approx([-2 / 20, -1 / 20])
    assert [table.gain(k, "Ayr", "joint") for k in (0, 1)] == pytest.approx([6 / 20, 3 / 20])
    both = table.gains(["Ayr", "Bern"])
    assert both is not None
    assert both.mean == pytest.approx(((6 - 2) / 2 + (2 - 1) / 2) / 2 / 20)


def test_a_tie_goes_to_joint_then_personal() -> None:
    ways = {w: {"Ayr": (10, 10)} for w in ("alone", "ensemble", "joint", "personal")}
    assert Table(THREE, [repeat(**ways)]).joining(0, "Ayr") == "joint"
    del ways["joint"]
    assert Table(THREE, [repeat(**ways)]).joining(0, "Ayr") == "personal"


def test_a_partys_interval_holds_together_with_the_others() -> None:
    """For one party the level is 5 % / 2, for the mean of all 5 %; a test row of 20 is the least spread."""
    ways = [
        repeat(alone={"Ayr": (9, 10), "Bern": (9, 10)}, joint={"Ayr": (9, 10 + n), "Bern": (9, 10)})
        for n in (1, 1, 1, 2)
    ]
    table, gains = Table(THREE, ways), [0.05, 0.05, 0.05, 0.1]
    one, all_ = table.gains(["Ayr"]), table.gains(["Ayr", "Bern"])
    alone, wider = interval(gains, grain=1 / 20), interval(gains, grain=1 / 20, together=2)
    mean = interval([g / 2 for g in gains], grain=1 / 40)
    for got, said in ((one, wider), (all_, mean)):
        assert got is not None
        assert said is not None
        assert (got.low, got.high) == pytest.approx((said.low, said.high))
    assert alone is not None
    assert wider is not None
    assert wider.low < alone.low  # type: ignore[operator]


def test_the_simultaneous_interval_by_hand() -> None:
    """Three repeats, two parties: t(2) at 1 - 0.025/2 is 6.205 (tables), S = 0.05, factor 1/3 + 1/4."""
    ways = [
        repeat(alone={"Ayr": (9, 10), "Bern": (9, 10)}, joint={"Ayr": (9, 10 + n), "Bern": (9, 10)}) for n in (1, 2, 3)
    ]
    got = Table(THREE, ways).gains(["Ayr"])
    assert got is not None
    assert got.mean == pytest.approx(0.1)
    assert got.high == pytest.approx(0.1 + 6.2053 * 0.05 * (1 / 3 + 1 / 4) ** 0.5, rel=1e-4)


def test_a_way_that_one_repeat_lacks_is_left_out() -> None:
    table = Table(THREE, [repeat(alone={"A": (9, 9)}, joint={"A": (9, 9)}), repeat(alone={"A": (9, 9)})])
    assert table.ways == ["alone"]


def group_of(p: Any, y: Any, words: Any) -> dict[str, Any]:
    rows = sheet(p, y)
    return {"valid": rows, "test": rows, "groups": {"sex": _grouped(polars.Series("sex", list(words)), p, y)}}


def grouped(schema: Schema, seed: int = 0, repeats: int = 3, **words: list[Any]) -> tuple[Table, list[Any]]:
    """A table of two ways over two parties, and (p, y, words) of each repeat and way."""
    rng, made, raw = np.random.default_rng(seed), [], []
    for _ in range(repeats):
        ways: dict[str, Any] = {"alone": {}, "joint": {}}
        kept: dict[str, Any] = {"alone": [], "joint": []}
        for party, seen in words.items():
            n = len(seen)
            y = rng.integers(0, max(len(schema.classes), 2), n) if schema.classes else rng.normal(size=n)
            for way in ways:
                p = rng.dirichlet(np.ones(len(schema.classes)), n) if schema.classes else y + rng.normal(size=n)
                ways[way][party] = group_of(p, y, seen)
                kept[way].append((p, y, np.array([w or "" for w in seen])))
        made.append(SimpleNamespace(ways=ways))
        raw.append({w: [np.concatenate(x) for x in zip(*kept[w], strict=True)] for w in kept})
    return Table(schema, made), raw


SCORED: Any = {
    "roc_auc": lambda p, y: sk.roc_auc_score(y, p[:, 1]),
    "accuracy": lambda p, y: sk.accuracy_score(y, p.argmax(axis=1)),
    "r2": lambda p, y: sk.r2_score(y, p),
}


@pytest.mark.parametrize("schema", [TWO, THREE, NUMBER])
def test_group_scores_are_those_of_scikit_learn_over_all_parties(schema: Schema) -> None:
    table, raw = grouped(schema, Ayr=["f", "m", "m", None] * 40, Bern=["f", "m", None, "f", "m"] * 30)
    got = table.groups("sex")
    score = SCORED[table.headline]
    assert got["values"] == {"f": 40 + 60, "m": 80 + 60}
    for way in ("alone", "joint"):
        by_group = {g: [score(p[w == g], y[w == g]) for p, y, w in (r[way] for r in raw)] for g in ("f", "m")}
        for g, each in by_group.items():
            assert got["ways"][way]["groups"][g]["mean"] == pytest.approx(np.mean(each), abs=2e-3)
        spans = [abs(a - b) for a, b in zip(by_group["f"], by_group["m"], strict=True)]
        gap = got["ways"][way]["gap"]
        assert gap["mean"] == pytest.approx(np.mean(spans), abs=4e-3)
        assert 0 <= gap["low"] <= gap["mean"] <= gap["high"]
        if table.headline != "r2":
            assert all(0 <= x["low"] <= x["high"] <= 1 for x in got["ways"][way]["groups"].values())
            assert gap["high"] <= 1


def test_a_group_at_one_party_only_counts() -> None:
    table, raw = grouped(TWO, Ayr=["f"] * 60, Bern=["m"] * 60)
    got = table.groups("sex")["ways"]["alone"]["groups"]
    each = [SCORED["roc_auc"](p[w == "m"], y[w == "m"]) for p, y, w in (r["alone"] for r in raw)]
    assert got["m"]["mean"] == pytest.approx(np.mean(each), abs=2e-3)


@pytest.mark.parametrize("n", [LEAST - 1, LEAST])
def test_a_group_of_few_rows_has_no_score(n: int) -> None:
    table, _ = grouped(THREE, Ayr=["f"] * 40 + ["x"] * (n - 4), Bern=["m"] * 40 + ["x"] * 4)
    got = table.groups("sex")
    assert got["values"]["x"] == n
    for way in got["ways"].values():
        assert (way["groups"]["x"] is None) == (n < LEAST)
        assert way["groups"]["f"] is not None


def test_few_rows_do_not_make_a_gap() -> None:
    """A group that is not scored does not enter the gap; one group alone has none."""
    many, _ = grouped(THREE, seed=1, Ayr=["f"] * 60, Bern=["f"] * 60)
    assert many.groups("sex")["ways"]["joint"]["gap"] is None
    few, _ = grouped(THREE, seed=1, Ayr=["f"] * 60, Bern=["f"] * 55 + ["x"] * 5)
    assert few.groups("sex")["ways"]["joint"]["gap"] is None


def test_a_group_of_one_class_is_undefined() -> None:
    rng = np.random.default_rng(0)
    p, words = rng.dirichlet(np.ones(2), 60), ["f", "m"] * 30
    y = np.where(np.array(words) == "f", 0, rng.integers(0, 2, 60))
    made = [SimpleNamespace(ways={"alone": {"Ayr": group_of(p, y, words)}})] * 2
    got = Table(TWO, made).groups("sex")["ways"]["alone"]
    assert got["groups"]["f"] is None
    assert got["groups"]["m"] is not None
    assert got["gap"] is None


def test_nobody_has_a_word() -> None:
    table, _ = grouped(TWO, Ayr=[None] * 20, Bern=[None] * 20)
    assert table.groups("sex") == {"values": {}, "ways": {w: {"groups": {}, "gap": None} for w in ("alone", "joint")}}


@pytest.mark.parametrize("series", [polars.Series("g", [True, False, None]), polars.Series("g", [1, 2, None])])
def test_truth_values_and_numbers_name_groups(series: Any) -> None:
    desk = Desk("Ayr", polars.DataFrame({"g": series, "y": [0, 1, 0]}), "y", 0, ("g",))
    desk._memory["indices", 0] = (np.array([], int), np.array([], int), np.arange(3))
    p, y = np.full((3, 2), 0.5), np.array([0, 1, 0])
    split: Any = SimpleNamespace(valid=SimpleNamespace(y=y[:0]), test=SimpleNamespace(y=y))
    got = desk._graded(p[:0], p, split, 0)["groups"]["g"]
    names = ["false", "true"] if series.dtype == polars.Boolean else ["1", "2"]
    assert sorted(got) == names
    assert metrics(total(list(got.values())))["accuracy"] == 0.5  # the two whose word is known: one of each class
