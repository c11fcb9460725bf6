"""Ridge: its own pooled solution whatever the skew, errors of folds without rows, digits in one round, feature maps."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import comity as co
from comity.methods.ridge import folds_of

RNG = np.random.default_rng(3)
X = RNG.normal(size=(300, 6))
SCORE = X @ RNG.normal(size=6) + 0.5 * X[:, 0] ** 2
Y = {0: SCORE + RNG.normal(size=300), 2: (SCORE > 0).astype(int), 4: np.searchsorted([-2, 0, 2], SCORE)}
MAPS = {
    "columns": co.ColumnFeatures(6),
    "fourier": co.FourierFeatures(6, 40, length=2.0),
    "table": co.TableFeatures(((-1.0, 0.0, 1.0),) * 6, (0,) * 6),
}


def solved(features, classes, parts, x=X, y=None, **settings):
    y = Y[classes] if y is None else y
    method = co.Ridge(features, classes, **settings)
    sites = {f"p{i}": co.RidgeTrainer(features, (x[p], y[p])) for i, p in enumerate(parts)}
    run = co.Collaboration(method, sites, evaluate=False).run(rounds=1)
    assert not [*run.ledger.refused, *run.ledger.dropped]
    return run, method


def partitions(y):
    everybody = np.arange(len(y))
    yield np.array_split(RNG.permutation(everybody), 9)
    yield np.array_split(y.argsort(kind="stable"), 4)
    yield [everybody[:1], everybody[1:4], everybody[4:]]


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("classes", [0, 2, 4])
def test_it_is_the_pooled_solution_whatever_the_skew(name, classes):
    pooled, method = solved(MAPS[name], classes, [np.arange(300)])
    want = method.predict(pooled.shared, X)
    for parts in partitions(Y[classes]):
        run, _ = solved(MAPS[name], classes, parts)
        assert run.shared["l2"] == pooled.shared["l2"]
        assert_allclose(run.shared["weight"], pooled.shared["weight"], atol=1e-8)
        assert_allclose(method.predict(run.shared, X), want, atol=1e-8)


@pytest.mark.parametrize("classes", [0, 4])
def test_it_is_ridge_regression(classes):
    """Against the normal equations of centred rows, where the bias is not penalised."""
    f, t = MAPS["fourier"](X), np.eye(4)[Y[4]] if classes else Y[0][:, None]
    run, _ = solved(MAPS["fourier"], classes, partitions_of_three(), l2=(0.01,))
    strength = 0.01 * (f**2).sum(axis=0).mean()
    centred = f - f.mean(axis=0)
    w = np.linalg.solve(centred.T @ centred + strength * np.eye(40), centred.T @ (t - t.mean(axis=0)))
    assert_allclose(run.shared["weight"], w.T, atol=1e-9)
    assert_allclose(run.shared["bias"], t.mean(axis=0) - f.mean(axis=0) @ w, atol=1e-9)


def partitions_of_three():
    return np.array_split(np.arange(300), 3)


def test_the_error_is_that_of_rows_left_out():
    """tr(W'A W) - 2 tr(W'B) + tr(Y'Y) against residuals; and λ is the one of least error."""
    grid = (1e-4, 1e-2, 1.0, 100.0)
    f, fold = np.c_[MAPS["table"](X), np.ones(300)], folds_of(X, 3)
    errors = []
    for l2 in grid:
        total = 0.0
        for i in range(3):
            g, t = f[fold != i], Y[0][fold != i]
            a = g.T @ g
            a[np.diag_indices(len(a) - 1)] += l2 * np.diag(a)[:-1].mean()
            total += ((f[fold == i] @ np.linalg.solve(a, g.T @ t) - Y[0][fold == i]) ** 2).sum()
        errors.append(total / 300)
    run, _ = solved(MAPS["table"], 0, partitions_of_three(), l2=grid)
    assert run.shared["l2"] == grid[int(np.argmin(errors))]
    assert_allclose(run.shared["error"], min(errors), rtol=1e-9)
    assert len(set(np.round(errors, 6))) == 4


def test_folds_follow_rows_and_are_about_equal():
    x = RNG.normal(size=(3000, 4))
    fold = folds_of(x, 3)
    order = RNG.permutation(3000)
    assert_array_equal(folds_of(x[order], 3), fold[order])
    assert np.bincount(fold).min() > 900
    small = RNG.integers(0, 3, (3000, 6)) / 2
    assert np.bincount(folds_of(small, 4)).min() > 600


def test_a_party_that_leaves_takes_its_rows_with_it():
    parts = partitions_of_three()
    method = co.Ridge(MAPS["columns"], 2)
    sites = {f"p{i}": co.RidgeTrainer(MAPS["columns"], (X[p], Y[2][p])) for i, p in enumerate(parts)}
    fewer = {name: sites[name] for name in ("p0", "p1")}
    run = co.Collaboration(method, fewer, evaluate=False).run(1)
    want, _ = solved(MAPS["columns"], 2, [np.arange(200)])
    assert_allclose(run.shared["weight"], want.shared["weight"], atol=1e-9)


def test_probabilities_are_of_use():
    """softmax(score/σ²): far better than guessing the shares of the classes, and sure where it may be."""
    train, held = np.arange(200), np.arange(200, 300)
    run, method = solved(MAPS["fourier"], 4, [train[:50], train[50:]])
    p = method.predict(run.shared, X[held])
    assert_allclose(p.sum(axis=1), 1)
    loss = -np.log(p[np.arange(100), Y[4][held]]).mean()
    share = np.bincount(Y[4][train], minlength=4) / 200
    assert loss < 0.75 * -np.log(share[Y[4][held]]).mean()


def digits(seed):
    """Private rows by party (Dirichlet 0.1), public images without labels, and test rows."""
    x, y = pytest.importorskip("sklearn.datasets").load_digits(return_X_y=True)
    x, order = x / 16, np.random.default_rng(seed).permutation(len(y))
    public, test, private = order[:400], order[400:800], order[800:]
    cut = co.dirichlet(y[private], 6, alpha=0.1, seed=seed)
    return [(x[private[rows]], y[private[rows]]) for rows in cut.values()], x[public], (x[test], y[test])


def test_digits_in_one_round_under_label_skew():
    """The figure to reach: 98 % over seeds 10 to 14, on which nothing was chosen."""
    right = []
    for seed in range(10, 15):
        parties, public, (a, b) = digits(seed)
        features = co.PatchFeatures(public, 512)
        method = co.Ridge(features, 10, dtype="float32")
        sites = {f"p{i}": co.RidgeTrainer(features, data) for i, data in enumerate(parties)}
        run = co.Collaboration(method, sites, evaluate=False).run(rounds=1)
        assert run.ledger.bytes_up < 6 * 1.7e6
        right.append((method.predict(run.shared, a).argmax(axis=1) == b).mean())
    assert np.mean(right) > 0.98, right


@pytest.mark.parametrize("classes", [0, 2])
def test_the_laws_of_methods(classes):
    f = MAPS["columns"]
    sites = {
        f"p{i}": co.RidgeTrainer(f, (X[i::3], Y[classes][i::3]), test=(X[:9], Y[classes][:9]), valid=(X[:0], Y[0][:0]))
        for i in range(3)
    }
    co.testing.check_method(co.Ridge(f, classes), sites)


def test_scores_are_those_of_the_solution():
    sites = {"ann": co.RidgeTrainer(MAPS["columns"], (X, Y[2]), test=(X[:50], Y[2][:50]))}
    method = co.Ridge(MAPS["columns"], 2)
    run = co.Collaboration(method, sites).run(1)
    assert run.metrics["accuracy"] == (method.predict(run.shared, X[:50]).argmax(axis=1) == Y[2][:50]).mean() > 0.8


@dataclass(frozen=True)
class Liar:
    inner: Any
    leaf: str

    def contribute(self, shared, local, round, secret):
        c, local = self.inner.contribute(shared, local, round, secret)
        return (replace(c, value={**c.value, self.leaf: c.value[self.leaf] + 1e3}) if c.kind != "score" else c), local


@pytest.mark.parametrize("leaf", ["a", "b", "c"])
def test_means_beyond_the_bounds_are_refused(leaf):
    f = MAPS["columns"]
    sites = {"ann": co.RidgeTrainer(f, (X, Y[2])), "bob": Liar(co.RidgeTrainer(f, (X, Y[2])), leaf)}
    run = co.Collaboration(co.Ridge(f, 2), sites, evaluate=False).run(1)
    assert {who for _, who, _ in run.ledger.refused} == {"bob"}


@pytest.mark.parametrize(
    ("x", "y", "says"),
    [
        (X[:, :3], Y[2], "shape .rows, 6"),
        (X, Y[2] + 1, "from 0 to 1"),
        (X, Y[2] * np.nan, "finite"),
        (np.where(X > 2, np.nan, X), Y[2], "Got NaN"),
        (X.astype(str) + "a", Y[2], "must be numbers"),
    ],
)
def test_data_that_do_not_fit_are_refused_by_name(x, y, says):
    f = MAPS["columns"]
    sites = {"ann": co.RidgeTrainer(f, (x, y)), "bob": co.RidgeTrainer(f, (X, Y[2]))}
    with pytest.raises(co.TooFewParticipants, match=f"ann.*{says}"):
        co.Collaboration(co.Ridge(f, 2), sites, quorum=1.0, retries=0).run(1)


def test_fourier_features_come_near_the_gaussian_kernel():
    """Rahimi and Recht 2007: E[z(x)·z(y)] = exp(-|x - y|²/2l²)."""
    z = co.FourierFeatures(6, 20_000, length=3.0)(X[:20])
    far = ((X[:20, None] - X[None, :20]) ** 2).sum(axis=2)
    assert_allclose(z @ z.T, np.exp(-far / 18), atol=0.05)


@pytest.mark.parametrize("shape", [(12, 8, 8), (12, 64), (7, 11, 9)])
def test_patches_by_hand(shape):
    images = np.random.default_rng(1).random((30, *shape[1:]))
    maps = co.PatchFeatures(images, 16, patch=3, parts=2, seed=4)
    x = np.random.default_rng(2).random(shape)
    got = maps(x)
    assert got.shape == (shape[0], 16)
    assert 0 <= got.min() < got.max() <= maps.bound
    mean, whitening, filters = maps._made
    assert_allclose(np.linalg.norm(filters, axis=1), 1)
    image = np.pad(x.reshape(shape[0], *((8, 8) if len(shape) == 2 else shape[1:]))[3], 1)
    high, wide = image.shape[0] - 2, image.shape[1] - 2
    near = np.zeros((high, wide, 4))
    for i in range(high):
        for j in range(wide):
            cut = image[i : i + 3, j : j + 3].ravel()
            white = (cut - cut.mean() - mean) @ whitening
            near[i, j] = np.maximum(white @ filters.T / np.linalg.norm(white) - 0.2, 0)
    top, left = -(-high // 2), -(-wide // 2)
    quarters = [near[:top, :left], near[:top, left:], near[top:, :left], near[top:, left:]]
    assert_allclose(got[3], np.concatenate([q.mean(axis=(0, 1)) for q in quarters]), atol=1e-12)
    assert_allclose(co.PatchFeatures(images, 16, patch=3, parts=2, seed=4)(x), got)


def test_patches_of_public_images_are_white():
    """Of the half of the patches that vary most: each direction's variance v becomes v / (v + 0.01)."""
    images = np.random.default_rng(0).random((100, 8, 8)).cumsum(axis=2) / 6
    mean, whitening, _ = co.PatchFeatures(images, 64, patch=3)._made
    cut = np.lib.stride_tricks.sliding_window_view(images, (3, 3), axis=(1, 2)).reshape(-1, 9)
    cut = cut - cut.mean(axis=1, keepdims=True)
    cut = cut[cut.std(axis=1) >= np.median(cut.std(axis=1))]
    assert_allclose(mean, cut.mean(axis=0), atol=1e-12)
    v = np.linalg.eigvalsh(np.cov(cut.T))
    white = np.linalg.eigvalsh(np.cov(((cut - mean) @ whitening).T))
    assert_allclose(white, np.sort(v / (v + 0.01)), atol=1e-9)
    assert v[-1] > 20 * v[1]


def test_a_frozen_network_gives_features():
    model = co.MLP(6, 4, hidden=(12,), rate=0.1, epochs=20)
    here = co.Round("test", 0)
    params, _ = model.fit(model.init(here), (X[:100], Y[4][:100]), here)
    features = co.ModelFeatures(model, params, tap="hidden0", width=12, scale=0.5)
    assert_allclose(features(X), 0.5 * model.features(params, X, ["hidden0"])["hidden0"], atol=1e-6)
    run, method = solved(features, 4, partitions_of_three())
    assert (method.predict(run.shared, X).argmax(axis=1) == Y[4]).mean() > 0.6
    with pytest.raises(co.ConfigError, match="12"):
        co.ModelFeatures(model, params, tap="hidden0", width=13)(X)
