"""Combiners of probabilities: each equals its formula over the members, as a sum of what each sends."""

import numpy as np
import pytest

import comity as co
from comity.core.calibration import temperature_of, tempered
from comity.core.contribution import Contribution
from comity.loop.fold import Fold

ROWS, CLASSES, MEMBERS = 6, 4, 5
HERE = co.Round("law", 0, answered=MEMBERS)
COMBINERS = [co.Average(), co.Average(counts=True), co.LogPool(), co.ProductPool(), co.Vote(), co.Mean()]


def cohort(seed: int = 0, *, blind: bool = True, dtype: str = "float32") -> list[Contribution]:
    """Members of unlike certainty and weight; the last has not seen the last class."""
    rng = np.random.default_rng(seed)
    out = []
    for i in range(MEMBERS):
        p, seen, n = rng.dirichlet(np.full(CLASSES, 0.3 + i), ROWS), np.ones(CLASSES), rng.integers(1, 60, CLASSES)
        if blind and i == MEMBERS - 1:
            p[:, -1], seen[-1], n[-1] = 0, 0, 0
            p /= p.sum(1, keepdims=True)
        value = {"proba": p.astype(dtype), "seen": seen.astype(dtype), "counts": n.astype(dtype)}
        out.append(Contribution("prediction", value, float(i + 1), {"own": (1.0, 2.0)}, f"p{i}"))
    return out


def combined(combiner, said):
    fold = Fold(len(said))
    for i, c in enumerate(said):
        fold.add(i, combiner.lift(c))
    return combiner.lower(fold.total(), None, HERE)[0]


def stacked(said):
    arrays = (np.stack([np.asarray(c.value[k], float) for c in said]) for k in ("proba", "seen", "counts"))
    return (*arrays, np.array([c.weight for c in said]))


def normal(p):
    return p / p.sum(1, keepdims=True)


@pytest.mark.parametrize("combiner", COMBINERS, ids=repr)
@pytest.mark.parametrize("blind", [True, False])
def test_the_laws_of_combiners_hold(combiner, blind):
    co.testing.check_combiner(combiner, cohort(blind=blind))


@pytest.mark.parametrize("seed", range(5))
def test_the_average_is_that_of_mean(seed):
    said = cohort(seed)
    p, _, _, w = stacked(said)
    want = np.tensordot(w / w.sum(), p, 1)
    got = combined(co.Average(), said)
    np.testing.assert_allclose(got.value["proba"], want, rtol=1e-5)
    np.testing.assert_allclose(combined(co.Mean(), said).value["proba"], want, rtol=1e-5)
    assert got.value["label"].tolist() == want.argmax(1).tolist()
    assert got.metrics == {"own": (5.0, 10.0)}


@pytest.mark.parametrize("seed", range(5))
def test_the_average_by_counts_is_over_those_who_know_the_class(seed):
    said = cohort(seed)
    p, _, n, w = stacked(said)
    by_class = w[:, None] * n
    want = normal((by_class[:, None] * p).sum(0) / by_class.sum(0))
    np.testing.assert_allclose(combined(co.Average(counts=True), said).value["proba"], want, rtol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_the_log_pool_is_the_weighted_geometric_mean(seed):
    said = cohort(seed, blind=False)
    p, _, _, w = stacked(said)
    want = normal(np.prod(np.maximum(p, 1e-4) ** (w / w.sum())[:, None, None], axis=0))
    np.testing.assert_allclose(combined(co.LogPool(), said).value["proba"], want, rtol=1e-4)


def test_nobody_who_has_not_seen_a_class_vetoes_it():
    said = cohort(3)
    p, seen, _, w = stacked(said)
    share = w[:, None] * seen / (w[:, None] * seen).sum(0)
    want = normal(np.exp((share[:, None] * np.log(np.maximum(p, 1e-4))).sum(0)))
    np.testing.assert_allclose(combined(co.LogPool(), said).value["proba"], want, rtol=1e-4)


def test_two_classes_pool_by_their_log_odds():
    rows = [np.array([[0.9, 0.1]]), np.array([[0.2, 0.8]])]
    said = [Contribution("prediction", {"proba": p, "seen": np.ones(2)}, sender=str(i)) for i, p in enumerate(rows)]
    got = combined(co.LogPool(), said).value["proba"][0]
    assert np.log(got[0] / got[1]) == pytest.approx((np.log(9) - np.log(4)) / 2)


@pytest.mark.parametrize("seed", range(5))
def test_the_product_takes_out_each_members_prior(seed):
    said = cohort(seed)
    p, _, n, w = stacked(said)
    share = (n + 0.5) / (n.sum(1, keepdims=True) + 0.5 * CLASSES)
    beyond = np.clip(np.log(np.maximum(p, 1e-4)) - np.log(share)[:, None], -3, 3)
    evidence = (w[:, None] * n / (n + 5))[:, None] * beyond
    total = n.sum(0)
    z = np.log((total + 0.5) / (total.sum() + 0.5 * CLASSES)) + 0.7 * evidence.sum(0)
    got = combined(co.ProductPool(strength=0.7, cap=3.0), said).value
    np.testing.assert_allclose(got["proba"], normal(np.exp(z - z.max(1, keepdims=True))), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(got["counts"], total)


def test_the_product_of_independent_members_is_the_posterior():
    """Two members with known shares and independent features: Bayes' rule, as in Kittler's equation 7."""
    n = np.array([[9e6, 1e6], [2e6, 8e6]])
    like = np.array([[0.6, 0.2], [0.3, 0.7]])
    own = normal(n / n.sum(1, keepdims=True) * like)
    said = [
        Contribution("prediction", {"proba": own[i][None], "seen": np.ones(2), "counts": n[i]}, sender=str(i))
        for i in range(2)
    ]
    want = normal((n.sum(0) * like.prod(0))[None])
    np.testing.assert_allclose(combined(co.ProductPool(strength=1.0), said).value["proba"], want, rtol=1e-4)


def test_a_vote_takes_predictions_and_gives_shares():
    said = cohort(1)
    p, _, _, w = stacked(said)
    votes = (np.eye(CLASSES)[p.argmax(2)] * w[:, None, None]).sum(0)
    got = combined(co.Vote(), said).value
    np.testing.assert_allclose(got["proba"], votes / w.sum())
    assert got["label"].tolist() == votes.argmax(1).tolist()


@pytest.mark.parametrize("combiner", [c for c in COMBINERS if not isinstance(c, co.Mean)], ids=repr)
def test_of_nobody_there_is_no_label(combiner):
    value = combiner.lift(cohort()[0]).value
    empty = Contribution("prediction", {k: np.zeros(np.shape(v)) for k, v in value.items()}, 0.0)
    got = combiner.lower(empty, None, HERE)[0].value
    assert got["label"].tolist() == [-1] * ROWS
    assert not np.asarray(got["proba"]).any()


def test_a_weight_for_each_row_counts_row_by_row():
    said = cohort(2, blind=False)
    p, *_ = stacked(said)
    sure = np.random.default_rng(0).random((MEMBERS, ROWS, 1)) + 0.1
    for combiner, of in ((co.Average(), p), (co.LogPool(), np.log(np.maximum(p, 1e-4)))):
        weighted = [
            Contribution("prediction", c.value, {"proba": s, "seen": 1.0, "counts": 1.0}, {}, c.sender)
            for c, s in zip(said, sure, strict=True)
        ]
        mean = (sure * of).sum(0) / sure.sum(0)
        want = normal(mean if of is p else np.exp(mean))
        np.testing.assert_allclose(combined(combiner, weighted).value["proba"], want, rtol=1e-4)


BAD = {
    "no table": {"proba": np.ones(3), "seen": np.ones(3)},
    "no seen": {"proba": np.ones((2, 3))},
    "other classes": {"proba": np.full((2, 3), 0.3), "seen": np.ones(2)},
    "above 1": {"proba": np.full((2, 3), 1.3), "seen": np.ones(3)},
    "below 0": {"proba": np.full((2, 3), -0.1), "seen": np.ones(3)},
    "negative counts": {"proba": np.full((2, 3), 0.3), "seen": np.ones(3), "counts": -np.ones(3)},
    "text": "hello",
}


@pytest.mark.parametrize("combiner", COMBINERS[:4], ids=repr)
@pytest.mark.parametrize("case", BAD)
def test_what_is_no_prediction_is_refused(combiner, case):
    with pytest.raises(co.ContributionError):
        combiner.lift(Contribution("prediction", BAD[case]))


@pytest.mark.parametrize("combiner", [co.Average(counts=True), co.ProductPool()], ids=repr)
def test_counts_must_be_there_where_they_are_needed(combiner):
    value = {k: v for k, v in cohort()[0].value.items() if k != "counts"}
    with pytest.raises(co.ContributionError, match="class counts"):
        combiner.lift(Contribution("prediction", value))


MAKE = [
    lambda: co.LogPool(floor=0.0),
    lambda: co.ProductPool(cap=0.0),
    lambda: co.ProductPool(strength=-1.0),
    lambda: co.ProductPool(shrink=np.nan),
]


@pytest.mark.parametrize("make", MAKE)
def test_settings_out_of_range_are_refused(make):
    with pytest.raises(co.ConfigError):
        make()


@pytest.mark.parametrize("heat", [0.3, 1.7, 4.0])
def test_the_temperature_is_found(heat):
    """Labels drawn from the true probabilities, which the model then reports too sharply or too softly."""
    rng = np.random.default_rng(0)
    true = rng.dirichlet(np.ones(3), 8_000) * 0.9 + 0.1 / 3
    y = (rng.random(len(true))[:, None] > true.cumsum(1)).sum(1).clip(0, 2)
    said = tempered(true, heat)
    found = temperature_of(said, y)
    assert found == pytest.approx(1 / heat, rel=0.08)
    rows = np.arange(len(y))
    tried = [-np.log(np.maximum(tempered(said, t)[rows, y], 1e-30)).mean() for t in np.geomspace(0.05, 20, 60)]
    at = -np.log(np.maximum(tempered(said, found)[rows, y], 1e-30)).mean()
    assert at <= min(tried) + 1e-4


def test_a_temperature_stays_in_bounds_and_is_1_where_nothing_is_known():
    assert temperature_of(np.zeros((0, 3)), np.zeros(0, int)) == 1.0
    assert temperature_of(np.full((5, 3), 1 / 3), np.zeros(5, int)) == 1.0
    assert temperature_of(np.tile([0.6, 0.4], (5, 1)), np.zeros(5, int)) == pytest.approx(1 / 20, rel=0.01)
    assert tempered(np.zeros((1, 3)), 2.0).tolist() == [[0, 0, 0]]
    assert tempered(np.array([[1e-300, 2e-300]]), 0.5)[0] == pytest.approx([0.2, 0.8])
