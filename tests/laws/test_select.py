"""Selections: how many, how often, and nothing of the size of the roster."""

import time
import tracemalloc

import numpy as np
import pytest

import comity as co
from comity.core.errors import ConfigError
from comity.core.round import Round

MANY = co.Population(1_000_000, lambda i: None).names
SECRET = co.testing.fixed_secret()


def drawn(select, roster, number=0, *, seed=0, attempt=0, secret=SECRET):
    return list(select(roster, Round("r", seed, number=number, attempt=attempt), None, secret)["hub"])


@pytest.mark.parametrize(
    ("size", "roster", "want"),
    [(0.1, 200, 20), (0.1, 4, 1), (1.0, 7, 7), (1, 7, 1), (3, 200, 3), (50, 7, 7), (0.999, 10, 10), (0.25, 10, 2)],
)
def test_a_sample_has_its_size(size, roster, want):
    names = [f"p{i}" for i in range(roster)]
    for number in range(5):
        got = drawn(co.sample(size), names, number)
        assert len(got) == len(set(got)) == want
        assert got == sorted(got, key=names.index)
    assert co.sample(size).expected(roster) == want


@pytest.mark.parametrize("size", [0, -1, 0.0, 1.5, True, "half", None, float("nan")])
def test_sizes_that_make_no_sense(size):
    with pytest.raises(ConfigError):
        co.sample(size)


@pytest.mark.parametrize("rate", [0, -0.1, 1.1, "x", None, float("nan")])
def test_rates_that_make_no_sense(rate):
    with pytest.raises(ConfigError):
        co.poisson(rate)


@pytest.mark.parametrize("rounds", [0, -1, 1.5, None])
def test_every_wants_rounds(rounds):
    with pytest.raises(ConfigError):
        co.every(rounds)


def test_a_sample_is_public_and_changes_with_round_attempt_and_seed():
    one = drawn(co.sample(10), MANY, 3)
    assert one == drawn(co.sample(10), MANY, 3, secret=co.testing.fixed_secret(9))
    others = [drawn(co.sample(10), MANY, 4), drawn(co.sample(10), MANY, 3, seed=1)]
    assert one not in [*others, drawn(co.sample(10), MANY, 3, attempt=1)]


def test_a_poisson_cohort_is_secret_and_changes_with_round_and_attempt():
    one = drawn(co.poisson(1e-4), MANY, 3)
    assert one == drawn(co.poisson(1e-4), MANY, 3, seed=5)
    assert one != drawn(co.poisson(1e-4), MANY, 3, secret=co.testing.fixed_secret(9))
    assert one not in [drawn(co.poisson(1e-4), MANY, 4), drawn(co.poisson(1e-4), MANY, 3, attempt=1)]


@pytest.mark.parametrize("select", [co.sample(20), co.poisson(2e-5)], ids=["sample", "poisson"])
def test_a_million_costs_nothing(select):
    drawn(select, MANY)
    tracemalloc.start()
    start = time.process_time()
    for number in range(50):
        assert len(drawn(select, MANY, number)) < 100
    spent = time.process_time() - start
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000
    assert spent < 1.0


def test_poisson_draws_each_independently_at_its_rate():
    """Counts over 4,000 rounds of 10 at q = 0.3. Each |z| < 6 has a false alarm below 2e-9; there are 11 of them."""
    q, n, rounds = 0.3, 10, 4000
    names = [str(i) for i in range(n)]
    hits = np.zeros((rounds, n))
    for number in range(rounds):
        for who in drawn(co.poisson(q), names, number):
            hits[number, int(who)] = 1
    z = (hits.sum(0) - rounds * q) / np.sqrt(rounds * q * (1 - q))
    assert np.abs(z).max() < 6
    sizes = hits.sum(1)
    variance = n * q * (1 - q)
    assert abs(sizes.var() - variance) < 6 * variance * np.sqrt(2 / rounds)
    assert sizes.min() == 0
    pair = (hits[:, 0] * hits[:, 1]).sum()
    assert abs(pair - rounds * q * q) < 6 * np.sqrt(rounds * q * q * (1 - q * q))


def test_sample_draws_each_equally_often():
    """3 of 10, 4,000 rounds: each |z| < 6, false alarm below 2e-8 over all ten."""
    names = [str(i) for i in range(10)]
    counts = np.zeros(10)
    for number in range(4000):
        for who in drawn(co.sample(3), names, number):
            counts[int(who)] += 1
    assert (np.abs(counts - 1200) / np.sqrt(4000 * 0.3 * 0.7)).max() < 6


def test_poisson_of_one_is_everyone():
    assert drawn(co.poisson(1.0), ["a", "b"]) == drawn(co.everyone(), ["a", "b"]) == ["a", "b"]
    assert co.poisson(0.1).expected(50) == 5.0


def test_scores_are_asked_of_a_thousand_at_most():
    assert len(drawn(co.every(1).chosen(10**6), MANY)) == 1000
    assert len(drawn(co.every(1).chosen(12), [str(i) for i in range(12)])) == 12
    assert co.every(1, co.sample(5)).chosen(10**6) == co.sample(5)


def test_names_of_a_population():
    assert (MANY[0], MANY[-1], MANY[5:7]) == ("000000", "999999", ["000005", "000006"])
    for name in ("000041", "999999"):
        assert name in MANY
    for name in ("41", "1000000", "-00001", "00004x", "", 41, "٠٠٠٠٤١"):
        assert name not in MANY
    with pytest.raises(IndexError):
        MANY[1_000_000]
