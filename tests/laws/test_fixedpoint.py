"""FixedPoint: whatever is sent, a sum over the cohort stays within 32 bits and is the plain sum but for rounding."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import comity as co
from comity.compress.fixedpoint import bound_of
from comity.core.spec import like
from comity.core.tree import tree_map

HERE = co.Round(run="", seed=0, asked=3)


def sent(x, fixed, here=HERE, **more):
    return fixed.encode(co.Contribution("delta", x, **more), None, {}, here, None)[0]


def test_the_laws_of_transforms_hold():
    co.testing.check_transform(co.FixedPoint(bound=10.0))


@given(
    st.integers(1, 5),
    st.floats(1e-6, 1e6),
    st.lists(st.lists(st.floats(-1e7, 1e7), min_size=3, max_size=3), min_size=1, max_size=5),
)
def test_no_sum_leaves_the_range_and_it_is_the_sum_of_what_was_clipped(asked, bound, rows):
    rows = rows[:asked]
    here, fixed = replace(HERE, asked=asked), co.FixedPoint(bound=bound)
    words = [sent(np.array(row), fixed, here).value["fixed"].astype(object) for row in rows]
    total = sum(words)
    assert all(-(2**31) < int(w) < 2**31 for w in total)
    back = fixed.decode(co.Contribution("delta", {"fixed": total.astype(np.int64)}), None, here, None)[0].value
    want = sum(np.clip(np.array(row), -bound, bound) for row in rows)
    step = bound / ((2**31 - 1) // asked)
    assert np.abs(back - want).max() <= step * len(rows) * (1 + 1e-6)


def test_it_rounds_towards_zero():
    words = sent(np.array([0.1, -0.1]), co.FixedPoint(bound=1.0)).value["fixed"]
    exact = 0.1 * ((2**31 - 1) // 3)
    assert words.tolist() == [math.floor(exact), -math.floor(exact)]


def test_float32_loses_no_digits():
    x = np.array([0.123456789, 0.9999999], "float32")
    words = sent(x, co.FixedPoint(bound=1.0), replace(HERE, asked=1)).value["fixed"]
    assert words.tolist() == [int(float(v) * (2**31 - 1)) for v in x]


def test_long_leaves_are_the_same_as_short_ones():
    x = np.linspace(-2, 2, 50_001).astype("float32")
    whole = sent(x, co.FixedPoint(bound=1.5))
    apart = np.concatenate([sent(x[i : i + 7], co.FixedPoint(bound=1.5)).value["fixed"] for i in range(0, len(x), 7)])
    assert np.array_equal(whole.value["fixed"], apart)
    assert whole.metrics["clipped"] == (float((np.abs(x) > 1.5).sum()), 50_001.0)


def test_whole_numbers_and_weights_for_each_coordinate_come_back():
    value = {"a": {"w": np.array([0.5, -0.25]), "n": np.array([3, -4])}, "k": np.array(7)}
    weight = {"a": {"w": np.array([2.0, 0.0]), "n": 1.0}, "k": 3.0}
    fixed = co.FixedPoint(bound=1.0, heaviest=4.0)
    c = sent(value, fixed, weight=weight)
    assert all(x.dtype == np.int32 for part in ("fixed", "whole", "weight") for x in _leaves(c.value[part]))
    back = fixed.decode(c, None, HERE, None)[0]
    assert back.value["a"]["n"].tolist() == [3, -4]
    assert int(back.value["k"]) == 7
    tree_map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-8), back.value["a"]["w"], value["a"]["w"])
    np.testing.assert_allclose(back.weight["a"]["w"], [2.0, 0.0], atol=1e-8)
    assert abs(float(back.weight["k"]) - 3.0) < 1e-8


def _leaves(tree):
    return [tree] if not isinstance(tree, dict) else [x for v in tree.values() for x in _leaves(v)]


def test_everybody_sends_the_same_metrics():
    fixed = co.FixedPoint(bound=1.0, metrics=("loss", "accuracy"))
    c = sent(np.zeros(2), fixed, metrics={"loss": (1.0, 2.0), "mine": (3.0, 4.0)})
    assert c.metrics == {"loss": (1.0, 2.0), "accuracy": (0.0, 0.0), "clipped": (0.0, 2.0)}
    assert dict(fixed.decode(c, None, HERE, None)[0].metrics) == {"loss": (1.0, 2.0), "clipped": (0.0, 2.0)}


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_refused_before_it_is_an_integer(bad):
    with pytest.raises(co.ContributionError, match="NaN or infinity"):
        sent({"w": np.array([0.0, bad])}, co.FixedPoint(bound=1.0))


@pytest.mark.parametrize(
    ("value", "said"),
    [({"w": "text"}, "Only numbers"), ({"w": None}, "Only numbers"), ({"n": np.array([2**30])}, "must lie within")],
)
def test_what_cannot_be_added_is_refused(value, said):
    with pytest.raises(co.ContributionError, match=said):
        sent(value, co.FixedPoint(bound=1.0))


@pytest.mark.parametrize(
    "settings", [{"bound": 0.0}, {"bound": math.inf}, {"bound": 1, "heaviest": 0}, {"bound": 1, "metrics": "loss"}]
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(co.ConfigError, match="FixedPoint"):
        co.FixedPoint(**settings)


def test_the_bound_of_a_spec():
    spec = {"a": like(np.zeros(2), -0.5, 2.0), "b": {"c": like(np.zeros(1), -3.0, 1.0)}}
    assert bound_of(spec, 2.0) == 6.0
    assert bound_of(like(np.zeros(2)), 1.0) == math.inf


def test_an_empty_value_is_one():
    fixed = co.FixedPoint(bound=1.0)
    assert fixed.decode(sent({}, fixed), None, HERE, None)[0].value == {}
