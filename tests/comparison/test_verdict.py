"""The answer in plain words: who gains, who loses, who cannot be told, and nothing louder than that."""

import re
from itertools import product

import pytest

from comity.comparison.intervals import Interval
from comity.comparison.verdict import judged, noun, verdict

UP, DOWN = Interval(0.041, 0.029, 0.053), Interval(-0.021, -0.030, -0.012)
NOISE, NONE, ONCE = Interval(0.003, -0.003, 0.009), None, Interval(0.01, None, None)


def said(*gains: Interval | None, mean: Interval | None = UP, called: str = "hospital") -> str:
    names = ["Ayr", "Bern", "Cork", "Dijon", "Essen", "Fano"]
    return verdict(dict(zip(names, gains, strict=False)), mean, metric="roc_auc", called=called)


@pytest.mark.parametrize(
    ("gain", "word"),
    [
        (UP, "gains"),
        (DOWN, "loses"),
        (NOISE, "within noise"),
        (NONE, "undefined"),
        (ONCE, "undefined"),
        (Interval(0.1, 0.0, 0.2), "within noise"),
        (Interval(-0.1, -0.2, 0.0), "within noise"),
    ],
)
def test_a_gain_is_judged_by_its_whole_interval(gain: Interval | None, word: str) -> None:
    assert judged(gain) == word


def test_all_gain() -> None:
    better = Interval(0.06, 0.05, 0.07)
    assert said(UP, better, UP) == (
        "Worth joining for all three hospitals. Bern gains most, +6.0 ± 1.0 points of ROC AUC."
    )
    assert said(UP, UP).startswith("Worth joining for both hospitals. ")


def test_some_gain() -> None:
    assert said(UP, NOISE, UP, UP) == (
        "Worth joining for three of four hospitals. Ayr gains most, +4.1 ± 1.2 points of ROC AUC. "
        "For Bern the difference is within noise."
    )
    one = said(UP, NOISE, NOISE)
    assert one.startswith("Worth joining for one of three hospitals. Ayr gains +4.1")
    assert one.endswith("For Bern and Cork the difference is within noise.")


def test_losers_are_named() -> None:
    assert said(UP, DOWN) == (
        "Worth joining for one of two hospitals. Ayr gains +4.1 ± 1.2 points of ROC AUC. "
        "Bern loses 2.1 ± 0.9 points of ROC AUC."
    )
    none = said(DOWN, NOISE, mean=DOWN)
    assert none.startswith("Joining does not pay: one of two hospitals would lose, none gains. Ayr loses 2.1 ± 0.9")


def test_nobody_stands_out() -> None:
    assert said(NOISE, NOISE, mean=NOISE) == (
        "No gain from joining that these data can show. For both hospitals the difference is within noise; "
        "the mean is +0.3 ± 0.6 points of ROC AUC."
    )


def test_who_cannot_be_told_is_not_counted_as_within_noise() -> None:
    got = said(NOISE, NONE, NOISE, mean=NOISE)
    assert "For two of three hospitals the difference is within noise" in got
    assert got.endswith(" For Bern it cannot be told.")
    assert said(UP, NONE).endswith("For Bern it cannot be told.")


def test_all_together() -> None:
    up = said(NOISE, NOISE, NOISE, mean=UP)
    assert up.startswith("Worth joining for the three hospitals together. The mean gain is +4.1 ± 1.2 points of")
    down = said(NOISE, NOISE, NOISE, mean=DOWN)
    assert down.startswith("Joining does not pay for the three hospitals together. The mean loss is 2.1 ± 0.9 points")
    assert up.endswith("For no single hospital can it be told from noise.")


def test_without_an_interval_nothing_is_claimed() -> None:
    assert said(ONCE, ONCE, mean=ONCE) == (
        "It cannot be told. A gain of +1.0 points of ROC AUC has no interval: use more repeats, or more rows."
    )
    assert said(NONE, NONE, mean=None).startswith("It cannot be told. The gain has no interval")


def test_many_names_are_cut() -> None:
    got = said(UP, *[NOISE] * 5, called="city")
    assert "of six cities." in got
    assert "For Bern, Cork, Dijon, Essen and 1 more the difference is within noise." in got


@pytest.mark.parametrize("mean", [UP, DOWN, NOISE, ONCE, None])
@pytest.mark.parametrize("gains", list(product([UP, DOWN, NOISE, NONE], repeat=3)))
def test_no_case_is_loud_or_lame(gains: tuple[Interval | None, ...], mean: Interval | None) -> None:
    text = said(*gains, mean=mean, called="party")
    assert not re.search(r"[Ss]ignific|!|\bp[ =<]|None|\bnan|\binf\b|  |partys|−−|\+−", text)
    assert text.endswith(".")
    if judged(mean) != "undefined":
        for name, gain in zip(("Ayr", "Bern", "Cork"), gains, strict=False):
            if judged(gain) in ("loses", "undefined"):
                assert name in text


def test_the_noun_is_the_columns_name_where_that_is_one() -> None:
    assert [noun(name) for name in ("Hospital", " writer ", "col_7", None, "")] == [
        "hospital",
        "writer",
        *["party"] * 3,
    ]
