"""Combiners against their textbook formulas."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import comity as co
from comity.combine.mean import mean_of, weighted
from comity.core.contribution import Contribution
from comity.core.errors import ConfigError, ContributionError
from comity.core.round import Round
from comity.core.tree import tree_map
from comity.loop.fold import Fold

WEIGHTS = st.just(0.0) | st.floats(1e-3, 1e3)
VALUES = st.lists(st.tuples(st.floats(-1e3, 1e3, width=32), WEIGHTS), min_size=1, max_size=70)


def turn(answered, expected=None):
    return Round("", 0, answered=answered, expected=float(expected or answered))


def combined(combiner, cohort, expected=None):
    lifted = [combiner.lift(c) for c in cohort]
    gathered = lifted
    if combiner.needs == "sum":
        fold = Fold(len(cohort))
        for i, c in enumerate(lifted):
            fold.add(i, c)
        gathered = fold.total()
    return combiner.lower(gathered, combiner.init(), turn(len(cohort), expected))[0]


def deltas(pairs):
    return [Contribution("delta", {"w": np.array([x, 1.0])}, w, {"n": (1.0, 1.0)}) for x, w in pairs]


@given(VALUES)
def test_mean_is_the_weighted_average(pairs):
    x, w = np.array(pairs).T
    got = combined(co.Mean(), deltas(pairs))
    want = np.average(x, weights=w) if w.sum() else 0.0
    assert got.value["w"][0] == pytest.approx(want, rel=1e-9, abs=1e-9)
    assert got.weight == pytest.approx(w.sum())
    assert got.metrics == {"n": (float(len(pairs)), float(len(pairs)))}


@given(VALUES)
def test_uniform_and_public_count_everybody_with_weight_once(pairs):
    x, w = np.array(pairs).T
    counted = x[w > 0]
    uniform = combined(co.Mean(uniform=True), deltas(pairs)).value["w"][0]
    assert uniform == pytest.approx(counted.mean() if len(counted) else 0.0, rel=1e-9, abs=1e-9)
    public = combined(co.Mean(public=True), deltas(pairs), expected=10.0).value["w"][0]
    assert public == pytest.approx(counted.sum() / 10.0, rel=1e-9, abs=1e-9)


@given(VALUES, st.floats(0.1, 100))
def test_cap_bounds_each_weight(pairs, cap):
    x, w = np.array(pairs).T
    c = np.minimum(w, cap)
    got = combined(co.Mean(cap=cap), deltas(pairs)).value["w"][0]
    assert got == pytest.approx((x * c).sum() / c.sum() if c.sum() else 0.0, rel=1e-9, abs=1e-9)


def test_mean_by_coordinate_with_prefixes_and_coordinates_nobody_kept():
    value = {"a": np.array([1.0, 2.0, 3.0]), "b": {"c": np.array([4.0]), "d": np.array([[5.0]])}}
    one = Contribution("delta", value, {"a": np.array([1.0, 0.0, 0.0]), "b": 2.0})
    two = Contribution("delta", tree_map(lambda x: x * 10, value), {"a": np.array([3.0, 1.0, 0.0]), "b": 6.0})
    got = combined(co.Mean(), [one, two])
    assert got.value["a"].tolist() == [(1 * 1 + 3 * 10) / 4, 20.0, 0.0]
    assert got.value["b"]["c"].tolist() == [(2 * 4 + 6 * 40) / 8]
    assert got.value["b"]["d"].tolist() == [[(2 * 5 + 6 * 50) / 8]]
    assert got.weight["a"].tolist() == [4.0, 1.0, 0.0]
    uniform = combined(co.Mean(uniform=True), [one, two])
    assert uniform.value["a"].tolist() == [5.5, 20.0, 0.0]
    capped = combined(co.Mean(cap=1.0), [one, two])
    assert capped.value["a"].tolist() == [5.5, 20.0, 0.0]


@pytest.mark.parametrize("weight", [{"a": 1.0}, {"a": {"deep": 1.0}, "b": 1.0}])
def test_weights_that_are_no_prefix_are_refused(weight):
    with pytest.raises(ContributionError, match="prefix"):
        co.Mean().lift(Contribution("delta", {"a": np.ones(2), "b": np.ones(2)}, weight))


@pytest.mark.parametrize("leaf", ["text", b"bytes", None])
def test_only_numbers_have_a_mean(leaf):
    with pytest.raises(ContributionError, match="Only numbers have a mean"):
        co.Mean().lift(Contribution("delta", {"a": leaf}, 2.0))


@pytest.mark.parametrize("weight", [5e-324, 1e-310, 1e-200])
def test_a_weight_next_to_nothing_breaks_nothing(weight):
    for combiner in (co.Mean(), co.Median()):
        got = combined(combiner, [Contribution("delta", np.array([1e3, -0.5, 0.0]), weight)] * 3).value
        assert np.isfinite(got).all()
        assert np.abs(got).max() <= 1.1e3


def test_lift_keeps_the_dtype_of_floats():
    for dtype in ("float16", "float32", "float64"):
        assert co.Mean().lift(Contribution("delta", np.ones(2, dtype), 3.0)).value.dtype == dtype


@pytest.mark.parametrize("settings", [{"uniform": True, "public": True}, {"cap": 0.0}, {"cap": -1.0}, {"cap": np.nan}])
def test_settings_of_mean_that_make_no_sense(settings):
    with pytest.raises(ConfigError):
        co.Mean(**settings)


COHORTS = st.lists(st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=3), min_size=1, max_size=12)


@given(COHORTS, st.floats(0.5, 100))
def test_median_is_numpys(rows, weight):
    got = combined(co.Median(), [Contribution("delta", {"w": np.array(r)}, weight) for r in rows])
    np.testing.assert_allclose(got.value["w"], np.median(np.array(rows), axis=0), rtol=1e-9, atol=1e-9)


@given(COHORTS, st.data())
def test_median_leaves_out_what_has_no_weight(rows, data):
    masks = [data.draw(st.lists(st.sampled_from([0.0, 2.0]), min_size=3, max_size=3)) for _ in rows]
    cohort = [Contribution("delta", {"w": np.array(r)}, {"w": np.array(m)}) for r, m in zip(rows, masks, strict=True)]
    got = combined(co.Median(), cohort).value["w"]
    for j in range(3):
        kept = [r[j] for r, m in zip(rows, masks, strict=True) if m[j]]
        assert got[j] == pytest.approx(np.median(kept) if kept else 0.0, rel=1e-9, abs=1e-9)


def test_median_of_groups():
    sums = [Contribution("delta", np.array([6.0]), 3.0), Contribution("delta", np.array([10.0]), 2.0)]
    got, _ = co.Median().lower([*sums, Contribution("delta", np.array([900.0]), 1.0)], None, turn(3))
    assert got.value.tolist() == [5.0]
    assert got.weight == 6.0


def votes(*rows, weight=1.0):
    return Contribution("label", {"votes": np.array(rows, "float32")}, weight)


def test_vote_counts_ties_and_abstentions():
    cohort = [
        votes([0.9, 0.1, 0], [0, 1, 0], [0, 0, 0], [0.2, 0.4, 0.4], weight=2.0),
        votes([0, 0.8, 0.2], [0, 0, 1], [0, 0, 0], [0.1, 0.1, 0.8], weight=1.0),
        votes([0, 1, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0], weight=1.0),
    ]
    got = combined(co.Vote(), cohort)
    assert got.value["votes"].tolist() == [[2, 2, 0], [0, 2, 1], [0, 0, 0], [0, 2, 1]]
    assert got.value["label"].tolist() == [0, 1, -1, 1]
    assert got.weight == 4.0


@given(st.lists(st.lists(st.integers(0, 3), min_size=4, max_size=4), min_size=1, max_size=9))
def test_vote_is_the_plurality(labels):
    got = combined(co.Vote(), [votes(*np.eye(4)[row]) for row in labels]).value["label"]
    for j in range(4):
        counts = np.bincount([row[j] for row in labels], minlength=4)
        assert got[j] == counts.argmax()


@pytest.mark.parametrize(
    "value",
    [
        {"votes": np.zeros(3)},
        {"votes": np.zeros((3, 0))},
        {"votes": [[1, 0]]},
        {"votes": np.array([["a", "b"]])},
        {"votes": np.array([[np.nan, 1.0]])},
        {"label": np.zeros((3, 2))},
        np.zeros((3, 2)),
        None,
        "text",
    ],
)
def test_what_is_no_vote_is_refused(value):
    with pytest.raises(ContributionError, match="ote"):
        co.Vote().lift(Contribution("label", value))


def test_collect_keeps_each_by_name_and_adds_metrics():
    said = [Contribution("text", who * 2, float(i), {"n": (1.0, 2.0)}, who) for i, who in enumerate("ab")]
    got = combined(co.Collect(), said)
    assert (got.kind, got.value, got.weight) == ("text", {"a": "aa", "b": "bb"}, {"a": 0.0, "b": 1.0})
    assert got.metrics == {"n": (2.0, 4.0)}
    assert combined(co.Collect(), []).value == {}


@dataclass(frozen=True)
class Trimmed:
    """As a stranger writes it."""

    f: int = 1
    needs: ClassVar[str] = "groups"

    def init(self):
        return None

    def lift(self, c):
        return weighted(c)

    def lower(self, gathered, state, round):
        means = [mean_of(g) for g in gathered]

        def trimmed(*xs):
            return np.sort(np.stack(xs), axis=0)[self.f : len(xs) - self.f].mean(axis=0)

        value = tree_map(trimmed, means[0].value, *(m.value for m in means[1:]))
        return Contribution(means[0].kind, value, sum(m.weight for m in means)), state


LAWFUL = [
    co.Mean(),
    co.Mean(uniform=True),
    co.Mean(public=True),
    co.Mean(cap=2.0),
    co.Median(),
    co.Vote(),
    co.Collect(),
]


@pytest.mark.parametrize("combiner", [*LAWFUL, Trimmed(2)], ids=repr)
def test_the_laws_hold(combiner):
    co.testing.check_combiner(combiner)


BROKEN = {
    "order": {"lower": lambda self, gathered, state, round: (gathered[0], state)},
    "scale": {"lift": lambda self, c: c},
    "inputs": {"lift": lambda self, c: (c.metrics.update(x=(1.0, 1.0)), c)[1]},
    "agree": {"lower": lambda self, g, s, r: (Contribution("delta", tree_map(np.zeros_like, g[0].value)), s)},
    "shape": {"lower": lambda self, g, s, r: (replace(g[0], value={"a": np.zeros(3)}, weight=1.0), s)},
    "metrics": {"lower": lambda self, g, s, r: (replace(Trimmed.lower(self, g, s, r)[0], metrics={"loss": (1, 1)}), s)},
    "text": {"lift": lambda self, c: replace(c, value=tree_map(lambda x: c.weight * x, c.value))},
    "state": {"init": lambda self: object()},
    "needs": {"needs": "all"},
    "lift": {"lift": lambda self, c: 1 / 0},
}


@pytest.mark.parametrize("law", BROKEN)
def test_a_combiner_that_breaks_a_law_is_told_which(law):
    part = type("Theirs", (Trimmed,), BROKEN[law])(1)
    with pytest.raises(AssertionError, match=rf"^Theirs breaks the law of '{law}'"):
        co.testing.check_combiner(part)


def test_an_example_must_be_a_cohort():
    with pytest.raises(ConfigError, match="three"):
        co.testing.check_combiner(co.Mean(), deltas([(1.0, 1.0)]))
