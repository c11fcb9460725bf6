"""The same posteriors as crowd-kit after the same number of steps, where it is installed."""

import numpy as np
import pytest
from crowds import made_up

import comity as co


def frame(rows):
    pandas = pytest.importorskip("pandas")
    return pandas.DataFrame(rows, columns=["task", "worker", "label"])


@pytest.fixture(scope="module")
def peer():
    return pytest.importorskip("crowdkit.aggregation", exc_type=ImportError)


pytestmark = pytest.mark.filterwarnings("ignore")


def theirs(found):
    return found.probas_.sort_index().sort_index(axis=1).to_numpy()


@pytest.mark.parametrize("classes", [2, 4])
def test_majority_vote(peer, classes):
    rows, _ = made_up(classes=classes, each=4)
    ours, other = co.MajorityVote().fit(rows), peer.MajorityVote().fit(frame(rows))
    np.testing.assert_allclose(ours.probas_, theirs(other), atol=1e-12)
    assert ours.skills_ == pytest.approx(other.skills_.to_dict())


@pytest.mark.parametrize("steps", [1, 2, 10])
@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("name", ["DawidSkene", "OneCoinDawidSkene"])
def test_dawid_and_skene(peer, name, classes, steps):
    """Each worker gives every label, or a cell that crowd-kit leaves out would differ."""
    rows, _ = made_up(tasks=300, workers=10, classes=classes, each=7)
    other = getattr(peer, name)(n_iter=steps, tol=-np.inf).fit(frame(rows))
    errors = "confusion" if name == "DawidSkene" else "one-coin"
    ours = co.DawidSkene(errors, n_iter=steps, tol=0, smoothing=1e-10).fit(rows)
    np.testing.assert_allclose(ours.probas_, theirs(other), atol=1e-8)
    np.testing.assert_allclose(ours.priors_, other.priors_.sort_index().to_numpy(), atol=1e-8)


@pytest.mark.parametrize("classes", [2, 3])
def test_glad(peer, classes):
    """Its conjugate gradient stops early, so labels in doubt may differ."""
    rows, _ = made_up(tasks=60, workers=10, classes=classes, each=6)
    ours, other = co.GLAD().fit(rows), peer.GLAD().fit(frame(rows))
    assert (ours.probas_.argmax(1) == theirs(other).argmax(1)).mean() > 0.9
    assert np.corrcoef(list(ours.skills_.values()), other.alphas_.sort_index())[0, 1] > 0.9
