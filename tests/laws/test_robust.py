"""Combiners that survive liars, against their textbooks and the properties that are published for them."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import comity as co
from comity.combine import cohort as slices
from comity.core.contribution import Contribution
from comity.core.errors import ConfigError, ContributionError, TooFewParticipants
from comity.core.tree import leaves

TURN = co.Round("", 0)
ROBUST = [
    co.Median(),
    co.TrimmedMean(),
    co.TrimmedMean(f=0),
    co.TrimmedMean(f=3),
    co.TrimmedMean(trim=0.3),
    co.Krum(),
    co.Krum(f=0),
    co.Krum(f=2),
    co.GeometricMedian(),
    co.GeometricMedian(uniform=True),
]


def cohort(rows, weights=None):
    """Contributions as they were lifted, with the senders a, b, c, ..."""
    weights = np.ones(len(rows)) if weights is None else weights
    return [
        Contribution("delta", np.asarray(r, float) * w, float(w), {"n": (1.0, 1.0)}, f"{i:03}")
        for i, (r, w) in enumerate(zip(rows, weights, strict=True))
    ]


def lowered(combiner, gathered):
    return combiner.lower(gathered, None, TURN)[0]


def at(combiner, rows, weights=None):
    return lowered(combiner, cohort(rows, weights)).value


def drawn(seed, n, d=3):
    return np.random.default_rng(seed).normal(size=(n, d))


@pytest.mark.parametrize("combiner", ROBUST, ids=repr)
def test_the_laws_hold(combiner):
    co.testing.check_combiner(combiner)


@pytest.mark.parametrize("combiner", ROBUST, ids=repr)
def test_small_slices_change_nothing(combiner, monkeypatch):
    rng = np.random.default_rng(3)
    value = {"a": rng.normal(size=(9, 4, 5)), "b": {"c": rng.normal(size=(9, 7)), "d": rng.normal(size=9)}}
    gathered = [
        combiner.lift(Contribution("delta", {"a": a.T, "b": {"c": c, "d": d}}, w, {}, str(w)))
        for a, c, d, w in zip(value["a"], value["b"]["c"], value["b"]["d"], range(1, 10), strict=True)
    ]
    whole = lowered(combiner, gathered)
    monkeypatch.setattr(slices, "BLOCK", 30)
    for (path, x), (_, y) in zip(leaves(whole.value), leaves(lowered(combiner, gathered).value), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6, err_msg=str(path))


ROWS = st.integers(7, 12).flatmap(
    lambda n: st.lists(st.lists(st.floats(-100, 100), min_size=3, max_size=3), min_size=n, max_size=n)
)


@settings(max_examples=30, deadline=None)
@given(ROWS, st.lists(st.floats(-1e3, 1e3), min_size=3, max_size=3), st.sampled_from([0.01, 1.0, 300.0]), st.data())
@pytest.mark.parametrize("combiner", ROBUST, ids=repr)
def test_a_shift_a_unit_and_an_order_move_the_result_alike(combiner, rows, shift, unit, data):
    rows = np.array(rows)
    if isinstance(combiner, co.GeometricMedian):
        assume(np.linalg.matrix_rank((rows - rows.mean(axis=0)).round(3)) > 1)  # else the least may be a whole line
    straight = at(combiner, rows)
    order = data.draw(st.permutations(range(len(rows))))
    gathered = cohort(rows)
    mixed = lowered(combiner, [gathered[i] for i in order]).value
    near = 1e-3 if isinstance(combiner, co.GeometricMedian) else 1e-9
    if isinstance(combiner, co.Krum) and tied(rows, combiner.f):
        return
    np.testing.assert_allclose(mixed, straight, rtol=0, atol=near * 300)
    np.testing.assert_allclose(at(combiner, rows * unit + shift), straight * unit + shift, rtol=0, atol=near * 3e4)


def krum_scores(rows, f):
    squared = ((rows[:, None] - rows[None]) ** 2).sum(axis=2)
    return np.array([np.sort(np.delete(d, i))[: len(rows) - f - 2].sum() for i, d in enumerate(squared)])


def tied(rows, f):
    """Would rounding decide who wins?"""
    scores = np.sort(krum_scores(rows, f))
    return scores[1] - scores[0] <= 1e-6 * max(1.0, scores[-1])


@settings(max_examples=40, deadline=None)
@given(ROWS, st.integers(0, 3))
def test_trimmed_mean_is_the_textbooks(rows, f):
    want = [np.mean(sorted(column)[f : len(column) - f]) for column in zip(*rows, strict=True)]
    np.testing.assert_allclose(at(co.TrimmedMean(f=f), rows), want, rtol=1e-9, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(ROWS, st.floats(0, 0.49))
def test_trim_is_a_share_of_the_cohort(rows, share):
    got = at(co.TrimmedMean(trim=share), rows)
    np.testing.assert_array_equal(got, at(co.TrimmedMean(f=int(share * len(rows) + 1e-9)), rows))
    assert at(co.TrimmedMean(trim=0.29), np.arange(100.0)[:, None] ** 2) == np.mean(np.arange(29.0, 71) ** 2)


@settings(max_examples=40, deadline=None)
@given(ROWS)
def test_nothing_trimmed_is_the_uniform_mean(rows):
    np.testing.assert_allclose(at(co.TrimmedMean(f=0), rows), np.mean(rows, axis=0), rtol=1e-9, atol=1e-9)


LIES = st.lists(st.lists(st.floats(-1e30, 1e30), min_size=3, max_size=3), min_size=2, max_size=2)


@settings(max_examples=40, deadline=None)
@given(ROWS, LIES)
@pytest.mark.parametrize("combiner", [co.TrimmedMean(f=2), co.TrimmedMean(trim=0.25), co.Median()], ids=repr)
def test_two_liars_move_no_coordinate_out_of_the_honest_range(combiner, rows, lies):
    got = at(combiner, [*rows, *lies])
    low, high = np.min(rows, axis=0), np.max(rows, axis=0)
    assert (got >= low - 1e-9).all()
    assert (got <= high + 1e-9).all()


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 2), st.integers(0, 6))
def test_krum_is_the_textbooks(seed, f, more):
    rows = drawn(seed, 2 * f + 3 + more)
    scores = krum_scores(rows, f)
    assert at(co.Krum(f=f), rows).tolist() == rows[scores <= scores.min() * (1 + 1e-9)][0].tolist()


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**6), LIES, st.sampled_from([1.0, 1e-20]))
def test_krum_picks_an_honest_vector(seed, lies, near):
    honest = drawn(seed, 7)
    far = [100 * np.sign(lie) + np.array(lie) * near for lie in lies]
    assume(all(np.abs(lie).max() > 50 for lie in far))
    got = at(co.Krum(f=2), [*far, *honest])
    assert got.tolist() in honest.tolist()


def test_one_huge_lie_does_not_blur_the_distances_of_others():
    honest = drawn(0, 7) * 1e-3 + 5.0
    straight = at(co.Krum(f=2), [*honest, *honest[:1] + 1.0, *honest[:1] + 1e3])
    for lie in (1e12, -1e20, 1e30, 1e200, np.inf, np.nan):
        got = at(co.Krum(f=2), [*honest, honest[0] + 1.0, np.full(3, lie)])
        assert got.tolist() == straight.tolist()


def test_a_tie_goes_to_the_name_that_comes_first():
    a, b, c = cohort([[0.0], [1.0], [10.0]])
    a, b = replace(a, sender="zoe"), replace(b, sender="amy")
    for gathered in ([a, b, c], [b, c, a], [c, a, b]):
        assert lowered(co.Krum(f=0), gathered).value == 1.0


def objective(z, rows, weights):
    return float((weights * np.linalg.norm(z - rows, axis=1)).sum())


@pytest.mark.parametrize(("n", "d"), [(3, 2), (5, 2), (10, 3), (20, 30)])
def test_the_geometric_median_is_the_least_sum_of_distances(n, d):
    optimize = pytest.importorskip("scipy.optimize")
    for seed in range(5):
        rows, weights = drawn(seed, n, d), np.random.default_rng(seed).uniform(0.5, 3, n)
        got = at(co.GeometricMedian(), rows, weights)
        best = min(
            optimize.minimize(objective, start, (rows, weights), method="Nelder-Mead" if d < 4 else "BFGS").fun
            for start in (rows.mean(axis=0), got, *rows[:3])
        )
        assert objective(got, rows, weights) <= best * (1 + 1e-6)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(3, 12))
def test_the_pulls_on_the_geometric_median_cancel(seed, n):
    rows, weights = drawn(seed, n), np.random.default_rng(seed).uniform(0.5, 3, n)
    z = at(co.GeometricMedian(steps=10_000, tolerance=1e-9), rows, weights)
    way = np.linalg.norm(rows - z, axis=1)
    pulls = weights[:, None] * (rows - z) / np.maximum(way, 1e-12)[:, None]
    nearest = way.argmin()
    if way[nearest] < 1e-4:  # the median is a contribution: the others cannot outweigh it (Vardi and Zhang, 2000)
        assert np.linalg.norm(np.delete(pulls, nearest, axis=0).sum(axis=0)) <= weights[nearest] * 1.001
    else:
        assert np.linalg.norm(pulls.sum(axis=0)) < 1e-3 * weights.sum()


def test_it_leaves_a_contribution_where_it_begins_if_that_is_not_the_median():
    rows, weights = drawn(14847, 3), np.random.default_rng(14847).uniform(0.5, 3, 3)
    exact = at(co.GeometricMedian(steps=5000, tolerance=1e-9), rows, weights)
    near = at(co.GeometricMedian(), rows, weights)
    assert objective(near, rows, weights) <= objective(exact, rows, weights) * 1.001
    assert np.linalg.norm(exact - rows, axis=1).min() > 0.01


def test_in_one_dimension_the_geometric_median_is_the_median():
    rows = np.random.default_rng(1).normal(size=(9, 1))
    np.testing.assert_allclose(at(co.GeometricMedian(), rows), np.median(rows, axis=0), atol=1e-4)
    heavy = at(co.GeometricMedian(), [[0.0, 1.0], [5.0, 5.0], [9.0, 2.0]], [1.0, 10.0, 2.0])
    np.testing.assert_allclose(heavy, [5.0, 5.0], atol=1e-4)


@pytest.mark.parametrize("n", [5, 8, 11])
def test_the_breakdown_point(n):
    """With a share α < 1/2 of liars it stays within 2(1 - α)/(1 - 2α) of the honest radius; with more it does not."""
    honest, f = drawn(n, n), (n - 1) // 2
    radius = np.linalg.norm(honest, axis=1).max()
    for size in (1e3, 1e9, 1e30, 1e200):
        lies = np.full((f, 3), size)
        got = at(co.GeometricMedian(), [*lies, *honest[f:]])
        assert np.linalg.norm(got) <= 2 * (1 - f / n) / (1 - 2 * f / n) * radius
    over = at(co.GeometricMedian(), [*np.full((n - f, 3), 1e9), *honest[:f]])
    assert np.linalg.norm(over) > 1e8


def test_who_claims_a_great_weight_wins_unless_all_count_once():
    rows, weights = [[9.0, 9.0], [0.0, 0.0], [0.1, 0.0], [0.0, 0.1]], [1e6, 1.0, 1.0, 1.0]
    assert at(co.GeometricMedian(), rows, weights).round(3).tolist() == [9.0, 9.0]
    for combiner in (co.GeometricMedian(uniform=True), co.TrimmedMean(), co.Median()):
        assert np.abs(at(combiner, rows, weights)).max() < 0.2
    assert np.abs(at(co.Krum(f=0), rows, weights)).max() < 0.2


@pytest.mark.parametrize("combiner", [co.TrimmedMean(f=1), co.Krum(f=0), co.GeometricMedian(), co.Median()], ids=repr)
def test_who_has_no_weight_does_not_count(combiner):
    rows = drawn(5, 5)
    spoilt = [*cohort(rows), *(replace(c, weight=0.0, sender=f"x{c.sender}") for c in cohort(rows * 1e6))]
    got = lowered(combiner, spoilt)
    np.testing.assert_allclose(got.value, at(combiner, rows), atol=1e-9)
    assert (got.weight, got.metrics) == (5.0, {"n": (10.0, 10.0)})


TOO_FEW = [(co.TrimmedMean(f=2), 5), (co.TrimmedMean(trim=0.4), 1), (co.Krum(f=1), 5), (co.GeometricMedian(), 1)]


@pytest.mark.parametrize(("combiner", "least"), TOO_FEW, ids=repr)
def test_too_few_is_said(combiner, least):
    assert np.isfinite(at(combiner, drawn(0, least))).all()
    idle = replace(cohort([[1.0, 1.0, 1.0]])[0], weight=0.0)
    for gathered in ([*cohort(drawn(0, least - 1)), idle, idle, idle], []):
        with pytest.raises(TooFewParticipants, match=r"Got (\d|none|nothing)\."):
            lowered(combiner, gathered)


def masked(rows, masks):
    return [
        Contribution("delta", {"w": np.array(r) * m}, {"w": np.array(m, float)}, {}, f"{i:03}")
        for i, (r, m) in enumerate(zip(rows, masks, strict=True))
    ]


def test_each_coordinate_is_that_of_its_givers():
    rows = np.array([[1.0, 1.0, 1.0, 1.0], [2.0, 5.0, 8.0, 1.0], [3.0, 9.0, 4.0, 1.0], [9.0, 2.0, 7.0, 1.0]])
    masks = np.array([[2, 2, 0, 0], [2, 2, 0, 0], [2, 2, 1, 0], [2, 0, 1, 0]])
    got = lowered(co.TrimmedMean(f=1), masked(rows, masks))
    assert got.value["w"].tolist() == [2.5, 5.0, 0.0, 0.0]
    assert got.weight["w"].tolist() == [8.0, 6.0, 0.0, 0.0]
    share = lowered(co.TrimmedMean(trim=0.25), masked(rows, masks))
    assert share.value["w"].tolist() == [2.5, 5.0, 5.5, 0.0]
    assert share.weight["w"].tolist() == [8.0, 6.0, 2.0, 0.0]
    middle = lowered(co.GeometricMedian(), masked(rows, masks))
    assert middle.value["w"][3] == 0.0
    assert middle.weight["w"].tolist() == [8.0, 6.0, 2.0, 0.0]


def test_the_geometric_median_of_parts_is_the_least_of_what_it_says():
    optimize = pytest.importorskip("scipy.optimize")
    rng = np.random.default_rng(4)
    rows, weights = rng.normal(size=(7, 3)), rng.integers(0, 3, (7, 3)).astype(float)

    def said(z):
        return float(np.sqrt((weights * (z - rows)) ** 2 @ np.ones(3)).sum())

    got = lowered(co.GeometricMedian(), masked(rows, weights)).value["w"]
    assert said(got) <= optimize.minimize(said, got, method="Nelder-Mead").fun * (1 + 1e-6)
    even = lowered(co.GeometricMedian(), masked(rows, np.full((7, 3), 2.0))).value["w"]
    np.testing.assert_allclose(even, at(co.GeometricMedian(), rows), atol=1e-6)


def test_weights_by_prefix_and_weights_that_differ_in_kind():
    value = {"a": np.ones(2), "b": {"c": np.full(3, 4.0)}}
    mixed = [Contribution("delta", value, w, {}, str(i)) for i, w in enumerate([1.0, {"a": 1.0, "b": 1.0}, 1.0])]
    for combiner in (co.TrimmedMean(), co.GeometricMedian(), co.Krum(f=0), co.Median()):
        got = lowered(combiner, mixed)
        assert got.value["b"]["c"].tolist() == [4.0] * 3
        assert np.asarray(got.weight["b"]["c"]).tolist() == 3.0
    prefix = [Contribution("delta", value, {"a": 2.0, "b": 1.0}, {}, str(i)) for i in range(3)]
    got = lowered(co.Krum(f=0), prefix)
    assert (got.value["a"].tolist(), got.weight) == ([0.5, 0.5], {"a": 6.0, "b": 3.0})


def test_krum_takes_no_parts_of_vectors():
    part = Contribution("delta", {"w": np.ones(2)}, {"w": np.array([1.0, 0.0])})
    with pytest.raises(ContributionError, match="whole vectors"):
        co.Krum().lift(part)
    whole = [replace(c, value={"w": c.value}) for c in cohort(drawn(0, 3, 2))]
    with pytest.raises(TooFewParticipants, match="Got 2"):
        lowered(co.Krum(f=0), [*whole[:2], part])
    near = lowered(co.Krum(f=0), [*whole, part]).value["w"]
    assert near.tolist() in [c.value["w"].tolist() for c in whole]


@pytest.mark.parametrize("combiner", ROBUST, ids=repr)
@pytest.mark.parametrize("odd", ["text", b"bytes", None, {"x": 1.0}, np.array(["a"]), np.ones(4), np.array([None])])
def test_what_does_not_fit_is_named(combiner, odd):
    gathered = [*cohort(drawn(0, 9)), Contribution("delta", odd, 1.0, {}, "eve")]
    with pytest.raises(ContributionError, match="eve"):
        lowered(combiner, gathered)
    if not isinstance(odd, dict) and np.asarray(odd).dtype.kind != "f":
        with pytest.raises(ContributionError):
            combiner.lift(gathered[-1])


@pytest.mark.parametrize(
    "make",
    [
        *(lambda f=f, of=of: of(f=f) for f in (-1, 1.0, "1", None, True) for of in (co.TrimmedMean, co.Krum)),
        *(lambda b=b: co.TrimmedMean(trim=b) for b in (-0.1, 0.5, 1, "0.1", True, float("nan"))),
        lambda: co.TrimmedMean(f=2, trim=0.1),
        *(lambda s=s: co.GeometricMedian(steps=s) for s in (0, -1, 1.5, None, True)),
        *(lambda t=t: co.GeometricMedian(tolerance=t) for t in (0, -1.0, float("nan"), float("inf"), None, "1", True)),
        *(lambda u=u: co.GeometricMedian(uniform=u) for u in (None, 1, "yes")),
    ],
)
def test_settings_that_make_no_sense(make):
    with pytest.raises(ConfigError, match="Got"):
        make()


def test_every_pair_of_liars_among_five_is_survived_by_the_median():
    honest = drawn(2, 5)
    for liars in combinations(range(5), 2):
        rows = honest.copy()
        rows[list(liars)] = 1e15
        kept = np.delete(honest, liars, axis=0)
        got = at(co.Median(), rows)
        assert (got <= kept.max(axis=0)).all()
        assert (got >= kept.min(axis=0)).all()
