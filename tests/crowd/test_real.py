"""Real crowds, where they are at hand: accuracies as measured with crowd-kit 1.4.2, and the time they take."""

import time

import pytest
from crowds import accuracy, real

import comity as co

pytestmark = pytest.mark.data

# Percent of gold tasks right. After Dawid-Skene and one-coin: how many iterations crowd-kit made with its defaults. It
# counts the class prior once for each answer, not for each task, so its loss may rise, and then it stops.
PEER = {
    "bluebird": (75.9, (88.9, 2), (58.3, 19)),
    "rte": (87.5, (92.8, 9), (92.5, 10)),
    "web": (68.8, (82.9, 37), (74.9, 2)),
    "trec": (66.1, (70.2, 3), (56.0, 19)),
    "cf": (88.0, (83.0, 5), (88.7, 6)),
    "cf_amt": (84.7, (84.0, 2), (86.0, 5)),
    "zencrowd_us": (86.8, (82.9, 3), (90.4, 6)),
    "zencrowd_in": (73.7, (75.6, 4), (79.3, 26)),
    "zencrowd_all": (82.5, (80.2, 3), (86.2, 2)),
    "relevance": (53.6, (61.7, 22), (25.8, 100)),
    "adult": (76.3, (76.6, 2), (70.9, 32)),
    "mozafari": (69.6, (70.9, 3), (66.8, 72)),
}
GLAD = {"bluebird": 72.2, "rte": 92.5, "web": 82.2, "cf": 88.0, "cf_amt": 85.3, "mozafari": 69.4}
CLOSE = 0.5


@pytest.mark.parametrize("name", PEER)
def test_as_accurate_as_the_peer_at_its_own_number_of_steps(name):
    rows, gold = real(name)
    votes, matrix, coin = PEER[name]
    assert accuracy(co.MajorityVote("all").fit_predict(rows), gold) == pytest.approx(votes, abs=CLOSE)
    for errors, (percent, steps) in (("confusion", matrix), ("one-coin", coin)):
        same = co.DawidSkene(errors, n_iter=steps, tol=0, smoothing=1e-10, repeated="all")
        assert accuracy(same.fit_predict(rows), gold) == pytest.approx(percent, abs=CLOSE), errors


@pytest.mark.parametrize("name", GLAD)
def test_glad_is_as_accurate_as_the_peer(name):
    rows, gold = real(name)
    assert accuracy(co.GLAD(repeated="all").fit_predict(rows), gold) == pytest.approx(GLAD[name], abs=CLOSE)


@pytest.mark.slow
def test_all_sets_in_seconds():
    sets = [real(name)[0] for name in PEER]
    start = time.process_time()
    for rows in sets:
        for how in (co.MajorityVote(), co.DawidSkene(), co.DawidSkene("one-coin")):
            how.fit(rows)
    assert time.process_time() - start < 20
