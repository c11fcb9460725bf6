"""What was not asked for is refused, whatever it is, and by nothing but a ContributionError."""

import math
import re
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.core.contribution import Contribution
from comity.core.errors import ContributionError
from comity.core.spec import BLOCK, Leaf, Spec, check, like, zeros

PARAMS = {"a": np.zeros(3, "float32"), "b": {"c": np.zeros((2, 2), "float32")}}
SPEC = Spec(like(PARAMS, -5, 5), kind="delta", max_weight=100)


def good(**changes):
    given = {"kind": "delta", "value": PARAMS, "weight": 2.0, "metrics": {"loss": (1.0, 2.0)}} | changes
    return Contribution(**given)


def with_a(x):
    return good(value={**PARAMS, "a": x})


ONES = np.ones(3, "float32")


@pytest.mark.parametrize("at", [0, BLOCK - 1, BLOCK, 3 * BLOCK + 6])
@pytest.mark.parametrize(
    ("bad", "said"),
    [(np.nan, "NaN in value (1 of"), (-np.inf, "infinity in value (1 of"), (6.0, "Got 6"), (-6.0, "Got -6")],
)
@pytest.mark.parametrize("turned", [False, True])
def test_one_bad_number_in_many_is_found_wherever_it_is(at, bad, said, turned):
    x = np.zeros((2, 3 * BLOCK + 7), "float32")
    x[1, at] = bad
    x = x.T if turned else x
    spec = Spec(Leaf(x.shape, "float32", -5, 5), kind="delta")
    with pytest.raises(ContributionError, match=re.escape(said)):
        check(Contribution("delta", x), spec)
    check(Contribution("delta", np.clip(np.nan_to_num(x), -5, 5)), spec)


@pytest.mark.parametrize("bounds", [(-5.0, 5.0), (-math.inf, math.inf)])
@pytest.mark.parametrize(("bad", "word"), [(math.nan, "NaN in value"), (math.inf, "infinity in value")])
def test_bfloat16_is_looked_at_like_any_other_float(bounds, bad, word):
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    spec = Spec(Leaf((3,), "bfloat16", *bounds), kind="delta")
    with pytest.raises(ContributionError, match=word):
        check(Contribution("delta", np.array([0, bad, 1], bfloat16)), spec)
    check(Contribution("delta", np.array([0, 3, 1], bfloat16)), spec)


BAD = {
    "kind": (good(kind="model"), "Kind 'delta' was asked for. Got 'model'"),
    "no tree": (good(value=ONES), "value must be a Tree with a, b. Got float32 of shape (3,)"),
    "text value": (good(value="text"), "Got str 'text'"),
    "extra": (good(value={**PARAMS, "z": ONES}), "unasked z"),
    "missing": (good(value={"a": ONES}), "missing b"),
    "deep extra": (good(value={"a": ONES, "b": {"c": np.zeros((2, 2), "float32"), "d": 1}}), "unasked d"),
    "shape": (with_a(np.ones(4, "float32")), "a must have shape (3,). Got (4,)"),
    "transposed": (with_a(np.ones((3, 1), "float32")), "Got (3, 1)"),
    "dtype": (with_a(np.ones(3)), "a must be float32. Got float64"),
    "int": (with_a(np.ones(3, int)), "Got int64"),
    "objects": (with_a(np.array([1, "x", None], object)), "Got object"),
    "NaN": (with_a(np.float32([1, np.nan, 0])), "NaN in a (1 of 3 values)"),
    "inf": (with_a(np.float32([np.inf, -np.inf, 0])), "infinity in a (2 of 3 values)"),
    "none": (with_a(None), "Got ()"),
    "text": (with_a("text"), "Got ()"),
    "list": (with_a([1.0, 2.0, 3.0]), "Got float64"),
    "ragged": (with_a([[1.0], [2.0, 3.0]]), "a must be an array. Got list"),
    "tree at a leaf": (with_a({"x": ONES}), "Got ()"),
    "above": (with_a(np.float32([0, 5.1, 0])), "a must lie from -5 to 5. Got 5.1"),
    "below": (with_a(np.float32([0, -5.1, 0])), "Got -5.1"),
    "negative weight": (good(weight=-1.0), "weight must be from 0 to 100. Got -1"),
    "NaN weight": (good(weight=math.nan), "Got nan"),
    "absurd weight": (good(weight=1e9), "Got 1e+09"),
    "infinite weight": (good(weight=math.inf), "Got inf"),
    "text weight": (good(weight="many"), "weight must be a number. Got str 'many'"),
    "no weight": (good(weight=None), "weight must be a number. Got NoneType"),
    "array weight": (good(weight=np.ones(3)), "weight must be a number"),
    "ragged weight": (good(weight=[[1], [1, 2]]), "weight must be an array. Got list"),
    "weights": (good(weight={"a": 1.0, "b": 2.0}), "weight must be one number. Got a Tree of weights"),
    "NaN metric": (good(metrics={"loss": (math.nan, 1.0)}), "Metric 'loss' must be a finite (sum, count >= 0)"),
    "inf count": (good(metrics={"loss": (1.0, math.inf)}), "Metric 'loss'"),
    "negative count": (good(metrics={"loss": (1.0, -2.0)}), "Metric 'loss'"),
    "text metric": (good(metrics={"loss": ("1", "2")}), "Metric 'loss'"),
    "short metric": (good(metrics={"loss": (1.0,)}), "Metric 'loss'"),
    "number metric": (good(metrics={"loss": 5}), "Metric 'loss'"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_breaks_the_spec_is_refused_by_name(name):
    c, said = BAD[name]
    with pytest.raises(ContributionError) as e:
        check(c, SPEC)
    assert said in str(e.value)


@pytest.mark.parametrize("weight", [0, 2, 0.0, 100, 99.5, np.float32(3), np.int64(4), True])
def test_ordinary_weights_pass(weight):
    check(good(weight=weight), SPEC)


def test_ranges_scale_with_the_weight_once_lifted():
    lifted = with_a(np.float32([0, 9.9, -9.9]))
    check(lifted, SPEC, lifted=True)
    with pytest.raises(ContributionError, match=r"Got -4\.95"):
        check(lifted, Spec(like(PARAMS, -4, 4)), lifted=True)
    with pytest.raises(ContributionError, match=r"must lie"):
        check(lifted, SPEC)


def test_metrics_that_were_not_asked_for():
    spec = Spec(like(PARAMS), metrics=frozenset({"auc"}))
    with pytest.raises(ContributionError, match=r"Metric 'loss' was not asked for"):
        check(good(), spec)


TREE = Spec(like(PARAMS), weights="tree")


@pytest.mark.parametrize(
    "weight", [1.0, {"a": 1.0, "b": 2.0}, {"a": np.ones(3), "b": {"c": np.ones((2, 2))}}, {"a": 0, "b": np.ones(2)}]
)
def test_a_tree_of_weights_is_a_prefix(weight):
    check(good(weight=weight), TREE)


@pytest.mark.parametrize(
    "weight",
    [
        {"a": 1.0},
        {"a": 1.0, "b": 1.0, "z": 1.0},
        {"a": {"x": 1.0}, "b": 1.0},
        {"a": np.ones(2), "b": 1.0},
        {"a": np.ones((1, 1, 3)), "b": 1.0},
        {"a": np.array([1.0, np.nan, 1.0]), "b": 1.0},
        {"a": -1.0, "b": 1.0},
    ],
)
def test_other_trees_of_weights_are_refused(weight):
    with pytest.raises(ContributionError, match="weight"):
        check(good(weight=weight), TREE)


def test_a_free_leaf_takes_anything_finite():
    free = Spec({"x": Leaf()})
    for x in ("text", None, {"deep": [1]}, 5, np.ones((2, 2)), b"bytes"):
        check(Contribution("text", {"x": x}), free)
    for x in (math.nan, np.float32("inf"), {"deep": np.array([np.nan])}):
        with pytest.raises(ContributionError):
            check(Contribution("text", {"x": x}), free)


def test_a_free_axis():
    spec = Spec({"x": Leaf(shape=(None, 2), dtype="float32")})
    for n in (0, 1, 7):
        check(Contribution("sample", {"x": np.zeros((n, 2), "float32")}), spec)
    with pytest.raises(ContributionError):
        check(Contribution("sample", {"x": np.zeros((2, 3), "float32")}), spec)


def test_huge_floats_are_finite():
    check(Contribution("delta", {"x": np.full(9, 3e38, "float32")}), Spec(like({"x": np.zeros(9, "float32")})))


def test_zeros_fit_their_spec():
    value = zeros(like(PARAMS))
    check(good(value=value, weight=0.0), SPEC)
    assert zeros({"x": Leaf()}) == {"x": None}


JSONISH = st.recursive(
    st.none() | st.floats() | st.integers() | st.text() | st.binary() | st.just(np.array([1, None], object)),
    lambda t: st.lists(t, max_size=3) | st.dictionaries(st.text(max_size=3), t, max_size=3),
    max_leaves=6,
)


@given(JSONISH, JSONISH, st.dictionaries(st.text(max_size=2), JSONISH, max_size=2))
def test_whatever_comes_nothing_but_a_refusal(value, weight, metrics):
    for spec in (SPEC, TREE, Spec(Leaf()), Spec({"a": Leaf()}, weights="any")):
        for c in (good(value=value, weight=weight, metrics=metrics), with_a(value), good(value={"a": value})):
            with suppress(ContributionError):
                check(c, spec)
