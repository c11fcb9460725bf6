"""Majority vote, Dawid-Skene and GLAD: the textbook formulas by loops, EM that never gets worse, invariance."""

import itertools

import numpy as np
import pytest
from crowds import accuracy, made_up

import comity as co

ALL = [co.MajorityVote, co.DawidSkene, lambda: co.DawidSkene("two-coin"), lambda: co.DawidSkene("one-coin"), co.GLAD]


def by_hand(rows, classes, steps, smoothing):
    """Dawid & Skene's eqs. 2.3 to 2.5, term by term."""
    tasks, workers = sorted({r[0] for r in rows}), sorted({r[1] for r in rows})
    q = np.zeros((len(tasks), classes))
    for t, _, label in rows:
        q[tasks.index(t), label] += 1
    q /= q.sum(1, keepdims=True)
    for _ in range(steps):
        errors = np.full((len(workers), classes, classes), smoothing)
        for t, w, label in rows:
            errors[workers.index(w), :, label] += q[tasks.index(t)]
        errors /= errors.sum(2, keepdims=True)
        q = np.tile(q.mean(0), (len(tasks), 1))
        for t, w, label in rows:
            q[tasks.index(t)] *= errors[workers.index(w), :, label]
        likelihood = np.log(q.sum(1)).sum() + smoothing * np.log(errors).sum()
        q /= q.sum(1, keepdims=True)
    return q, -likelihood / len(rows)


@pytest.mark.parametrize("smoothing", [1e-10, 0.01, 1.0])
@pytest.mark.parametrize("classes", [2, 4])
def test_dawid_and_skene_by_hand(classes, smoothing):
    rows, _ = made_up(tasks=30, workers=8, classes=classes, each=5, seed=classes)
    for steps in (1, 2, 7):
        q, loss = by_hand(rows, classes, steps, smoothing)
        found = co.DawidSkene(n_iter=steps, tol=0, smoothing=smoothing).fit(rows)
        np.testing.assert_allclose(found.probas_, q, atol=1e-9)
        assert found.loss_history_[-1] == pytest.approx(loss, abs=1e-10)
        assert len(found.loss_history_) == steps
        assert not found.converged_


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("smoothing", [1e-10, 0.3])
@pytest.mark.parametrize("errors", ["confusion", "two-coin", "one-coin"])
def test_em_never_gets_worse(errors, smoothing, classes):
    for seed in range(3):
        rows, _ = made_up(classes=classes, seed=seed, each=3)
        losses = co.DawidSkene(errors, n_iter=60, tol=0, smoothing=smoothing).fit(rows).loss_history_
        assert (np.diff(losses) < 1e-9).all()
        assert losses[-1] < losses[0] - 1e-3


@pytest.mark.parametrize("n_steps", [1, 3])
@pytest.mark.parametrize("classes", [2, 5])
def test_glad_never_gets_worse(classes, n_steps):
    for seed in range(3):
        rows, _ = made_up(classes=classes, seed=seed, each=4)
        found = co.GLAD(n_iter=40, tol=0, n_steps=n_steps).fit(rows)
        assert (np.diff(found.loss_history_) < 1e-12).all()
        assert found.loss_history_[-1] < found.loss_history_[0] - 1e-3


def test_glad_is_at_a_stationary_point_of_its_own_loss():
    """Eq. 1 by loops: moving any ability or difficulty a little does not help."""
    rows, _ = made_up(tasks=12, workers=5, classes=3, each=4)
    found = co.GLAD(n_iter=3000, tol=1e-13).fit(rows)
    ability = np.array(list(found.skills_.values()))
    ease = -np.log(list(found.difficulties_.values()))

    def loss(a, b):
        joint = np.full((12, 3), -np.log(3))
        for t, w, label in rows:
            s = 1 / (1 + np.exp(-a[w] * np.exp(b[t])))
            joint[t] += [np.log(s) if k == label else np.log((1 - s) / 2) for k in range(3)]
        both = np.logaddexp.reduce(joint, axis=1).sum() - 0.5 * ((a - 1) ** 2).sum() - 0.5 * ((b - 1) ** 2).sum()
        return -both / len(rows)

    assert loss(ability, ease) == pytest.approx(found.loss_history_[-1], abs=1e-9)
    for side, i, by in itertools.product((0, 1), range(5), (-0.01, 0.01)):
        moved = [ability.copy(), ease.copy()]
        moved[side][i] += by
        assert loss(*moved) > loss(ability, ease)


def test_two_classes_have_two_coins():
    rows, _ = made_up(classes=2)
    full, coins = co.DawidSkene().fit(rows), co.DawidSkene("two-coin").fit(rows)
    np.testing.assert_allclose(full.errors_, coins.errors_, atol=1e-12)
    one = co.DawidSkene("one-coin").fit(rows).errors_
    np.testing.assert_allclose(one[:, 0, 0], one[:, 1, 1])


@pytest.mark.parametrize("make", ALL)
def test_results_have_their_shapes(make):
    rows, _ = made_up(tasks=20, workers=7, classes=4, each=5)
    found = make().fit(rows)
    assert found.probas_.shape == (20, 4)
    np.testing.assert_allclose(found.probas_.sum(axis=1), 1)
    assert list(found.labels_) == list(found.tasks_) == list(range(20))
    assert list(found.skills_) == list(found.workers_) == list(range(7))
    assert set(found.labels_.values()) <= set(found.classes_) == {0, 1, 2, 3}
    assert make().fit_predict(rows) == found.labels_
    if hasattr(found, "errors_"):
        assert found.errors_.shape == (7, 4, 4)
        np.testing.assert_allclose(found.errors_.sum(axis=2), 1)
        assert found.priors_.sum() == pytest.approx(1)


@pytest.mark.parametrize("make", ALL)
def test_names_and_the_order_of_rows_do_not_matter(make):
    rows, _ = made_up(classes=3, each=5)
    there = {0: "zebra", 1: "ant", 2: "cow"}
    renamed = [(f"t{1000 - t}", f"w{w * 7 % 15}", there[k]) for t, w, k in rows]
    plain, other = make().fit(rows), make().fit(renamed)
    assert {f"t{1000 - t}": there[k] for t, k in plain.labels_.items()} == other.labels_
    columns = [other.classes_.index(there[k]) for k in plain.classes_]
    tasks = [other.tasks_.index(f"t{1000 - t}") for t in plain.tasks_]
    np.testing.assert_allclose(plain.probas_, other.probas_[tasks][:, columns], atol=1e-9)
    shuffled = make().fit([rows[i] for i in np.random.default_rng(1).permutation(len(rows))])
    np.testing.assert_array_equal(plain.probas_, shuffled.probas_)


def test_ties_go_to_what_appears_first():
    assert co.MajorityVote().fit_predict([("t", "a", "z"), ("t", "b", "a")]) == {"t": "z"}
    assert co.MajorityVote().fit_predict([("s", "a", "a"), ("t", "a", "z"), ("t", "b", "a")])["t"] == "a"


@pytest.mark.parametrize("make", ALL)
def test_all_of_one_mind(make):
    found = make().fit([(t, w, "yes") for t in range(3) for w in range(4)])
    assert found.labels_ == dict.fromkeys(range(3), "yes")
    assert np.isfinite(found.probas_).all()
    assert make().fit_predict([("t", "w", 5)]) == {"t": 5}


def test_who_errs_in_a_way_of_its_own_is_understood():
    """Half of the workers turn two classes round: the matrix learns from them, votes and one coin cannot."""
    rng = np.random.default_rng(2)
    truth = dict(enumerate(rng.integers(0, 2, 200).tolist()))
    odd = {w: w % 9 in (0, 1, 2, 3) for w in range(18)}
    rows = [
        (t, w, int((k ^ odd[w]) if rng.random() < 0.9 else 1 - (k ^ odd[w])))
        for t, k in truth.items()
        for w in rng.choice(18, 9, replace=False).tolist()
    ]
    assert (
        accuracy(co.DawidSkene().fit_predict(rows), truth)
        > 97
        > 85
        > accuracy(co.MajorityVote().fit_predict(rows), truth)
    )
    skills = co.DawidSkene().fit(rows).skills_
    assert all((skill < 0.5) == odd[w] for w, skill in skills.items())


def test_a_hard_task_is_known_by_glad():
    rows = [(t, w, 1) for t in range(10) for w in range(6)] + [("hard", w, w % 2) for w in range(6)]
    found = co.GLAD().fit(rows)
    assert found.difficulties_["hard"] > 2 * max(found.difficulties_[t] for t in range(10))


def test_many_answers_do_not_underflow():
    rows = [(0, w, w % 3 == 0) for w in range(5000)] + [(1, w, True) for w in range(5000)]
    for make in ALL:
        assert np.isfinite(make().fit(rows).probas_).all()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: co.DawidSkene("three-coin"), "The 'errors' of DawidSkene must be one of 'confusion', 'two-coin'"),
        (lambda: co.DawidSkene(smoothing=0), "The 'smoothing' of DawidSkene"),
        (lambda: co.DawidSkene(n_iter=0), "The 'n_iter' of DawidSkene"),
        (lambda: co.DawidSkene(tol=-1), "The 'tol' of DawidSkene"),
        (lambda: co.GLAD(n_steps=0), "The 'n_steps' of GLAD"),
        (lambda: co.GLAD(tol=float("nan")), "The 'tol' of GLAD"),
        (lambda: co.MajorityVote("first"), "The 'repeated' of MajorityVote must be one of 'last', 'all'"),
    ],
)
def test_settings_have_a_range(make, said):
    with pytest.raises(co.ConfigError, match=said):
        make()
