"""Score sheets against scikit-learn, and the law that makes them worth having: they add."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as sk

from comity.comparison.sheet import loss, metrics, rows, sheet, total

N = 3000


def two_classes(kind: str, seed: int) -> tuple[Any, Any]:
    """(rows, 2) probabilities and truth, in one of the ways in which scores are awkward."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=N) * {"smooth": 1.5, "confident": 6.0}.get(kind, 1.5)
    y = (z + 2 * rng.normal(size=N) > 0).astype(int)
    p = 1 / (1 + np.exp(-z))
    if kind == "ties":
        p = np.round(p, 1).clip(0.1, 0.9)
    if kind == "extreme":
        p = np.where(rng.random(N) < 0.3, np.round(p), p)
    if kind == "rare":
        y = (rng.random(N) < 0.02 * (1 + p)).astype(int)
    return np.stack([1 - p, p], axis=1), y


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", ["smooth", "confident", "ties", "extreme", "rare"])
def test_two_classes_score_as_in_scikit_learn(kind: str, seed: int) -> None:
    p, y = two_classes(kind, seed)
    got = metrics(sheet(p, y))
    assert got["accuracy"] == pytest.approx(sk.accuracy_score(y, p.argmax(axis=1)))
    assert got["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(y, p.argmax(axis=1)))
    assert got["roc_auc"] == pytest.approx(sk.roc_auc_score(y, p[:, 1]), abs=2e-3)
    assert got["pr_auc"] == pytest.approx(sk.average_precision_score(y, p[:, 1]), abs=2e-3)
    assert got["brier"] == pytest.approx(sk.brier_score_loss(y, p[:, 1]), abs=1e-6)
    clipped = np.clip(p, 1e-7, 1 - 1e-7)
    assert got["log_loss"] == pytest.approx(sk.log_loss(y, clipped / clipped.sum(1, keepdims=True)), rel=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_many_classes_score_as_in_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(N, 4)) * 2
    y = (z + 2 * rng.gumbel(size=z.shape)).argmax(axis=1)
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    got = metrics(sheet(p, y))
    assert got["accuracy"] == pytest.approx(sk.accuracy_score(y, p.argmax(axis=1)))
    assert got["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(y, p.argmax(axis=1)))
    assert got["roc_auc"] == pytest.approx(sk.roc_auc_score(y, p, multi_class="ovr"), abs=2e-3)
    hot = np.eye(4)[y]
    assert got["pr_auc"] == pytest.approx(sk.average_precision_score(hot, p, average="macro"), abs=2e-3)
    assert got["log_loss"] == pytest.approx(sk.log_loss(y, p), rel=1e-6)
    assert got["brier"] == pytest.approx(((p - hot) ** 2).sum(axis=1).mean(), rel=1e-6)


@pytest.mark.parametrize("shift", [0.0, 1e4])
def test_numbers_score_as_in_scikit_learn(shift: float) -> None:
    rng = np.random.default_rng(1)
    y = rng.normal(size=N) * 3 + shift
    said = y + rng.normal(size=N)
    got = metrics(sheet(said, y))
    assert got["r2"] == pytest.approx(sk.r2_score(y, said), abs=1e-6)
    assert got["rmse"] == pytest.approx(sk.root_mean_squared_error(y, said))
    assert got["mae"] == pytest.approx(sk.mean_absolute_error(y, said))


@pytest.mark.parametrize("classes", [0, 2, 3])
def test_the_parts_add_to_the_sheet_of_the_whole(classes: int) -> None:
    rng = np.random.default_rng(2)
    if classes:
        said = rng.dirichlet(np.ones(classes), N)
        y = rng.integers(0, classes, N)
    else:  # in quarters, whose sums are exact in whatever order they are made
        said, y = rng.integers(-40, 40, N) / 4, rng.integers(-40, 40, N) / 4
    cuts = [0, 1, 50, 50, 2000, N]
    parts = [sheet(said[a:b], y[a:b]) for a, b in pairwise(cuts)]
    added, whole = total(parts), sheet(said, y)
    for key, value in whole.items():
        exact = key != "losses"
        np.testing.assert_allclose(added[key], value, rtol=0 if exact else 1e-12)
    assert metrics(added) == pytest.approx(metrics(whole), rel=1e-12)
    assert rows(added) == N
    assert loss(added) == pytest.approx(loss(whole))


def test_one_class_only_has_no_ranking() -> None:
    got = metrics(sheet(np.full((5, 2), 0.5), np.zeros(5, int)))
    assert got["roc_auc"] is got["pr_auc"] is got["balanced_accuracy"] is None
    assert got["accuracy"] == 1.0
    assert got["log_loss"] == pytest.approx(np.log(2))


def test_a_class_that_does_not_occur_is_left_out_of_the_mean() -> None:
    rng = np.random.default_rng(3)
    p = rng.dirichlet(np.ones(3), 500)
    y = rng.integers(0, 2, 500)
    expected = np.mean([sk.roc_auc_score(y == c, p[:, c]) for c in (0, 1)])
    assert metrics(sheet(p, y))["roc_auc"] == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("said", [np.zeros((0, 2)), np.zeros((0, 3)), np.zeros(0)])
def test_no_rows_no_scores(said: Any) -> None:
    nothing = sheet(said, np.zeros(0, int))
    assert set(metrics(nothing).values()) == {None}
    assert rows(nothing) == 0
    assert loss(nothing) == np.inf


@pytest.mark.parametrize("value", [0.0, 7.5, 0.1, 1 / 3, 1e8 / 7, 1e-5 / 7])
def test_a_constant_target_has_no_r2(value: float) -> None:
    got = metrics(sheet(np.linspace(0, 1, 37), np.full(37, value)))
    assert got["r2"] is None
    assert got["mae"] is not None
