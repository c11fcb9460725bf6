"""An ensemble in one place: its pools are optimal, and its guard prefers the single."""

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.tree import DecisionTreeClassifier

import comity as co
from comity.adapters import ensemble as made
from comity.core.calibration import log_floored

RNG = np.random.default_rng(1)
X = RNG.normal(size=(150, 3))
Y = np.where(X[:, 0] * X[:, 1] + 0.2 * RNG.normal(size=150) > 0, "up", "down")
MEMBERS = {
    "tree": DecisionTreeClassifier(min_samples_leaf=5),
    "rf": RandomForestClassifier(15, random_state=0),
    "nb": GaussianNB(),
}


def said(members: int = 2, rows: int = 60, classes: int = 3, seed: int = 0):
    """Log-probabilities that lean to the truth, the first member more than the others."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, rows)
    p = np.stack([rng.dirichlet(np.ones(classes), rows) + np.eye(classes)[y] / (i + 1) for i in range(members)])
    return log_floored(p / p.sum(2, keepdims=True)), y


def loss(z, y):
    return -z[np.arange(len(y)), y].sum()


def test_the_log_pool_has_the_least_penalised_loss():
    z, y = said()

    def penalised(w):
        pooled = np.tensordot(w, z, 1)
        pooled -= np.log(np.exp(pooled).sum(1, keepdims=True))
        return loss(pooled, y) + 2 * ((w - 0.5) ** 2).sum()

    grid = np.linspace(0, 3, 61)
    tried = {(a, b): penalised(np.array([a, b])) for a in grid for b in grid}
    best = min(tried, key=tried.__getitem__)
    want = np.tensordot(np.array(best), z, 1)
    got = made._log_pool(z, y)(z)
    assert loss(got, y) == pytest.approx(loss(want - np.log(np.exp(want).sum(1, keepdims=True)), y), rel=0.01)


def test_the_linear_pool_has_the_most_likely_weights():
    z, y = said()
    p = np.exp(z)

    def likelihood(a):
        mixed = a * p[0] + (1 - a) * p[1]
        return np.log(mixed[np.arange(len(y)), y]).sum() + 0.5 * (np.log(a) + np.log(1 - a))

    grid = np.linspace(0.005, 0.995, 199)
    a = grid[np.argmax([likelihood(a) for a in grid])]
    np.testing.assert_allclose(np.exp(made._linear_pool(z, y)(z)), a * p[0] + (1 - a) * p[1], atol=0.01)


@pytest.mark.parametrize("way", made.WAYS)
def test_every_way_gives_probabilities_and_beats_a_coin(way):
    both = co.Ensemble(MEMBERS, strategy=way, folds=3).fit(X[:100], Y[:100])
    p = both.predict_proba(X[100:])
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-6)
    assert both.strategy_ == way
    assert both.classes_.tolist() == ["down", "up"]
    assert (both.predict(X[100:]) == Y[100:]).mean() > 0.6


def test_the_guard_asks_for_more_than_a_mean_gain():
    free = co.Ensemble(MEMBERS, folds=3, guard=0.0).fit(X, Y)
    held = co.Ensemble(MEMBERS, folds=3, guard=1e9).fit(X, Y)
    assert free.gain_ > 0
    assert free.strategy_ == min(free.losses_, key=free.losses_.__getitem__)
    assert free.gain_ == pytest.approx(free.losses_["single"] - free.losses_[free.strategy_])
    assert held.strategy_ == "single"
    between = free.gain_ / free.error_
    assert co.Ensemble(MEMBERS, folds=3, guard=between * 0.99).fit(X, Y).strategy_ == free.strategy_
    assert co.Ensemble(MEMBERS, folds=3, guard=between * 1.01).fit(X, Y).strategy_ == "single"


def test_of_one_good_member_and_a_useless_one_the_single_is_taken():
    straight = np.where(X[:, 0] > 0, "up", "down")
    members = {"good": LogisticRegression(C=100.0), "noise": DecisionTreeClassifier(max_features=1, max_depth=1)}
    both = co.Ensemble(members, folds=3).fit(X, straight)
    alone = LogisticRegression(C=100.0).fit(X, straight)
    assert both.predict(X).tolist() == alone.predict(X).tolist()


def test_the_same_seed_gives_the_same_bits_and_members_are_not_changed():
    first, second = (co.Ensemble(MEMBERS, folds=3, seed=4).fit(X, Y).predict_proba(X) for _ in range(2))
    assert np.array_equal(first, second)
    assert not hasattr(MEMBERS["tree"], "tree_")


def test_a_fitted_ensemble_is_a_member_of_another():
    local = co.Ensemble(MEMBERS, folds=3).fit(X, Y)
    member = co.Predictor(local, classes=("down", "up"))
    np.testing.assert_allclose(member.predict(X[:5]), local.predict_proba(X[:5]))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: co.Ensemble({}), "members"),
        (lambda: co.Ensemble(MEMBERS, strategy="auot"), "auto"),
        (lambda: co.Ensemble(MEMBERS, guard=-1.0), "guard"),
        (lambda: co.Ensemble(MEMBERS, folds=1), "folds"),
        (lambda: co.Ensemble(MEMBERS).fit(X, np.array(["up"] * 150)), "two classes"),
        (lambda: co.Ensemble(MEMBERS).fit(X, np.array(["up"] * 149 + ["down"])), "two rows"),
        (lambda: co.Ensemble(MEMBERS).predict(X), "fitted first"),
    ],
)
def test_what_does_not_fit_is_refused(make, said):
    with pytest.raises(co.ConfigError, match=said):
        make()
