"""Contributions as words of a ring, and their sums back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.channels.layout import Form, lay
from comity.core.contribution import Contribution
from comity.core.errors import ChannelError, ContributionError

MOST = 2**31 - 1


def of(value, weight=1.0, metrics=None):
    return Contribution("delta", value, weight, metrics or {})


def added(cohort):
    forms, vectors = zip(*(lay(c, len(cohort)) for c in cohort), strict=True)
    total = np.zeros(forms[0].size, np.uint32)
    for words in vectors:
        forms[0].add(total, words)
    return forms[0].sum(total)


@given(st.integers(1, 50), st.integers(0, 2**32 - 1))
def test_a_sum_is_exact_at_the_bounds(n, seed):
    rng = np.random.default_rng(seed)
    most = MOST // n
    values = [
        {"a": rng.integers(-most, most, (2, 3), endpoint=True), "b": rng.choice([-most, most], 3)} for _ in "x" * n
    ]
    edge = float(2**43 // n - 1)
    weights = rng.choice([edge, 0.5, 3.0], n)
    metrics = [{"loss": (float(rng.choice([-edge, edge, 0.25])), 2.0)} for _ in range(n)]
    total = added([of(v, w, m) for v, w, m in zip(values, weights, metrics, strict=True)])
    for name in "ab":
        assert total.value[name].dtype == np.int32
        assert (total.value[name] == sum(v[name] for v in values)).all()
    assert total.weight == float(sum(int(w * 2**20) for w in weights)) / 2**20
    assert total.metrics == {"loss": (sum(m["loss"][0] for m in metrics), 2.0 * n)}
    assert (total.sender, total.kind) == ("", "delta")


@pytest.mark.parametrize(
    "value",
    [
        None,
        {},
        {"a": None, "b": np.ones(3, "int8")},
        np.arange(4, dtype="uint16"),
        {"b": {"z": np.zeros((0, 3), int), "a": np.array(7)}, "a": np.arange(6).reshape(2, 3).T},
        {"x": 5},
    ],
)
def test_every_tree_comes_back(value):
    form, words = lay(of(value, 2.5, {"n": (1.0, 2.0)}), 3)
    assert Form.read(form.tree()).same(form)
    got = Form.read(form.tree()).sum(words)
    assert got.weight == 2.5
    if isinstance(value, dict):
        assert sorted(got.value) == sorted(value)
        if "b" in value and isinstance(value["b"], dict):
            assert (got.value["a"] == value["a"]).all()
            assert got.value["b"]["a"] == 7
            assert got.value["b"]["z"].shape == (0, 3)
    elif value is None:
        assert got.value is None
    else:
        assert (got.value == value).all()


def test_the_order_of_names_makes_no_difference():
    one = lay(of({"a": np.array([1]), "b": np.array([2])}, 1.0, {"x": (1.0, 2.0), "y": (3.0, 4.0)}), 2)
    two = lay(of({"b": np.array([2]), "a": np.array([1])}, 1.0, {"y": (3.0, 4.0), "x": (1.0, 2.0)}), 2)
    assert one[0].same(two[0])
    assert (one[1] == two[1]).all()


def test_subtract_undoes_add():
    form, words = lay(of({"a": np.array([5, -6, 7])}, 9.0), 2)
    total = np.arange(form.size, dtype=np.uint32)
    form.add(total, words)
    form.subtract(total, words)
    assert (total == np.arange(form.size)).all()


def test_carries_of_numbers_are_no_part_of_a_sum():
    """Two pairs with one sum give one vector: nothing else can be read from it."""
    sums = []
    for pair in ((1.0, 2.0**30 - 1), (2.0**29, 2.0**29)):
        (form, a), (_, b) = (lay(of(None, w), 2) for w in pair)
        form.add(a, b)
        sums.append(a.tobytes())
    assert sums[0] == sums[1]


@pytest.mark.parametrize(
    ("c", "says"),
    [
        (of({"a": np.ones(2)}), "FixedPoint"),
        (of({"a": "text"}), "integers"),
        (of({"a": np.array([True])}), "integers"),
        (of({"a": np.array([0, MOST // 2 + 1])}), "a must be within 1073741823, so"),
        (of({"a": np.array([-(MOST // 2) - 1] + [0] * 40000)}), "within 1073741823"),
        (of({"a": np.array([0] * 40000 + [2**40])}), "within 1073741823"),
        (of({"a": np.array([2**63], "uint64")}), "within 1073741823"),
        (of(None, float("nan")), "weight must be within.*NaN"),
        (of(None, float("inf")), "weight"),
        (of(None, 2.0**42), "weight"),
        (of(None, {"a": 1.0}), "one number"),
        (of(None, 1.0, {"loss": (-(2.0**60), 1.0)}), "metric 'loss'"),
    ],
)
def test_what_could_wrap_around_is_refused(c, says):
    with pytest.raises(ContributionError, match=says):
        lay(c, 2)


@pytest.mark.parametrize(
    "tree",
    [
        None,
        1,
        "text",
        {},
        {"kind": 1, "value": None, "metrics": {}},
        {"kind": "a", "value": "3x-1", "metrics": {}},
        {"kind": "a", "value": "3x", "metrics": {}},
        {"kind": "a", "value": 3, "metrics": {}},
        {"kind": "a", "value": np.zeros(3), "metrics": {}},
        {"kind": "a", "value": None, "metrics": {"b": None, "a": None}},
        {"kind": "a", "value": "9" * 30, "metrics": {}},
        {"kind": "a", "value": None, "metrics": "ab"},
    ],
)
def test_no_form_is_refused(tree):
    with pytest.raises(ChannelError, match="form"):
        Form.read(tree)


def test_a_vector_of_another_form_does_not_fit():
    form, words = lay(of({"a": np.arange(3)}), 2)
    assert form.fits(words)
    for odd in (words[:-1], words.view("int32"), words.reshape(1, -1), None, b"", words.tolist()):
        assert not form.fits(odd)
    assert not form.same(lay(of({"a": np.arange(4)}), 2)[0])
