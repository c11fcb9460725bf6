"""Partitions by shards, by size and by feature: every row once, uneven as the papers say."""

from itertools import pairwise

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import comity as co
from comity.core.errors import ConfigError

X = np.arange(12.0).reshape(6, 2)


def is_a_partition(parts, n, parties):
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(n))
    assert list(parts) == [f"p{i}" if parties <= 10 else f"p{i:02d}" for i in range(parties)]
    assert all(p.dtype == np.int64 and (np.diff(p) > 0).all() for p in parts.values())


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(1, 12), st.integers(1, 4), st.integers(0, 3))
def test_shards_deal_every_row_once_and_few_classes(y, parties, each, seed):
    if parties * each > len(y):
        with pytest.raises(ConfigError, match="need"):
            co.shards(y, parties, shards_per_party=each, seed=seed)
        return
    parts = co.shards(y, parties, shards_per_party=each, seed=seed)
    is_a_partition(parts, len(y), parties)
    small = len(y) // (parties * each)
    assert all(small * each <= len(p) <= (small + 1) * each for p in parts.values())


def test_shards_are_those_of_the_paper():
    y = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 6000))
    parts = co.shards(y, 100)
    assert {len(p) for p in parts.values()} == {600}
    assert max(len(np.unique(y[p])) for p in parts.values()) == 2
    assert all(set(np.bincount(y[p])) <= {0, 300, 600} for p in parts.values())
    one = co.shards(y, 10, shards_per_party=1)
    assert sorted(np.unique(y[p]).item() for p in one.values()) == list(range(10))


def test_rows_of_one_class_fall_into_shards_by_chance():
    parts = co.shards(np.zeros(1000), 2, shards_per_party=1)
    assert abs(parts["p0"].mean() - 499.5) < 45  # 5 standard errors of a mean of 500 of 0..999


@settings(max_examples=100, deadline=None)
@given(
    st.integers(0, 200),
    st.integers(1, 12),
    st.sampled_from([1e-300, 0.1, 1.0, 1e9, 1.7e308]),
    st.integers(0, 3),
    st.integers(0, 3),
)
def test_quantity_is_a_partition_with_enough_rows_each(n, parties, alpha, least, seed):
    if parties * least > n:
        with pytest.raises(ConfigError, match="need"):
            co.quantity(n, parties, alpha=alpha, min_rows=least, seed=seed)
        return
    parts = co.quantity(n, parties, alpha=alpha, min_rows=least, seed=seed)
    is_a_partition(parts, n, parties)
    assert all(len(p) >= least for p in parts.values())


def test_alpha_says_how_unlike_the_sizes_are():
    def sizes(alpha, seed=0):
        return np.array([len(p) for p in co.quantity(10_000, 5, alpha=alpha, seed=seed, min_rows=0).values()]) / 10_000

    assert np.abs(sizes(1e5) - 0.2).max() < 0.01
    assert sizes(1e-3).max() > 0.99
    draws = np.concatenate([sizes(0.5, seed) for seed in range(400)])
    # Dirichlet(0.5 · 1₅): variance m(1 - m)/(5·0.5 + 1) with m = 1/5; 2000 draws, 4 standard errors
    assert abs(draws.var() - 0.2 * 0.8 / 3.5) < 0.006


def test_quantity_leaves_classes_alike():
    y = np.repeat([0, 1], 5000)
    for rows in co.quantity(y, 4, alpha=2.0, min_rows=500).values():
        assert abs(y[rows].mean() - 0.5) < 5 * 0.5 / np.sqrt(len(rows))


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(-3, 3) | st.floats(-10, 10), min_size=1, max_size=60), st.integers(1, 12), st.integers(0, 3)
)
def test_feature_shift_gives_each_party_a_range(x, parties, seed):
    if parties > len(x):
        with pytest.raises(ConfigError, match="Use at most"):
            co.feature_shift(x, parties, seed=seed)
        return
    parts = co.feature_shift(x, parties, seed=seed)
    is_a_partition(parts, len(x), parties)
    own = [np.array(x)[p] for p in parts.values()]
    assert all(a.max() <= b.min() for a, b in pairwise(own))
    assert max(map(len, own)) - min(map(len, own)) <= 1


def test_rows_of_one_value_are_dealt_by_chance():
    first = {seed: co.feature_shift(np.zeros(100), 2, seed=seed)["p0"].tolist() for seed in (0, 1)}
    assert first[0] != first[1]
    assert abs(np.mean(first[0]) - 49.5) < 20


def test_feature_noise_grows_from_party_to_party():
    x = np.zeros((40_000, 2), "float32")
    parts = co.iid(x, 4)
    noisy = co.feature_noise(x, parts, sigma=0.4)
    variances = [noisy[p].var() for p in parts]
    # variance σ·i/N of 20,000 numbers: standard error v·√(2/20,000), 5 of them
    assert all(abs(v - w) < 5 * w * 0.01 for v, w in zip(variances, (0.1, 0.2, 0.3, 0.4), strict=True))
    assert all(abs(n.mean()) < 5 * 0.7 / np.sqrt(n.size) and n.dtype == np.float32 for n in noisy.values())


def test_feature_noise_keeps_rows_in_their_places():
    parts = {"b": [4, 0], "a": np.array([], int), "c": np.array([2], "uint8")}
    got = co.feature_noise(X, parts, sigma=0)
    assert list(got) == ["b", "a", "c"]
    assert got["b"].tolist() == [[8.0, 9.0], [0.0, 1.0]]
    assert got["a"].shape == (0, 2)
    whole = co.feature_noise(np.arange(6), co.iid(6, 2))
    assert all(v.dtype == np.float64 and (v != np.round(v)).all() for v in whole.values())
    assert not np.array_equal(*(co.feature_noise(X, parts, seed=s)["b"] for s in (0, 1)))


DEALS = {
    "iid": lambda **k: co.iid(60, 3, **k),
    "dirichlet": lambda **k: co.dirichlet([0, 1] * 30, 3, **k),
    "shards": lambda **k: co.shards([0, 1] * 30, 3, **k),
    "quantity": lambda **k: co.quantity(60, 3, **k),
    "feature_shift": lambda **k: co.feature_shift([0, 1] * 30, 3, **k),
}


@pytest.mark.parametrize("name", DEALS)
def test_the_seed_decides_whatever_integer_it_is(name):
    deal = DEALS[name]
    same, other = deal(seed=np.int64(1)), deal(seed=2)
    assert all(np.array_equal(a, b) for a, b in zip(deal(seed=1).values(), same.values(), strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(same.values(), other.values(), strict=True))
    for seed in (None, 1.0, "1", True):
        with pytest.raises(ConfigError, match="'seed' must be a whole number"):
            deal(seed=seed)


@pytest.mark.parametrize("alpha", [None, "0.5", float("nan"), float("inf"), -1, 0, True, [0.5], 1j, 10**400])
def test_an_alpha_that_is_no_number_above_zero(alpha):
    for deal in (co.dirichlet, co.quantity):
        with pytest.raises(ConfigError, match="The 'alpha' of"):
            deal([0, 1, 0, 1], 2, alpha=alpha)


@pytest.mark.parametrize(
    ("y", "said"),
    [
        ([0, None, 1], "none in row 1"),
        ([0.0, 1.0, np.nan], "none in row 2"),
        (["a", None], "none in row 1"),
        (pd.Series(["a", pd.NA], dtype="string"), "none in row 1"),
        (pl.Series([1, None]), "none in row 1"),
        (np.array([1, "a"], object), "classes of one type"),
        (None, "one class for each row"),
        ("abc", "one class for each row"),
        (np.zeros((2, 2)), r"argmax"),
    ],
)
def test_classes_that_are_none(y, said):
    for deal in (co.dirichlet, co.shards):
        with pytest.raises(ConfigError, match=said):
            deal(y, 1)


@pytest.mark.parametrize("data", [None, -1, 5.0, "file.csv", b"ab", {"x": [1, 2]}, True, (X, X[:3]), (1, 2), object()])
def test_data_without_rows(data):
    for deal in (co.iid, co.quantity):
        with pytest.raises(ConfigError, match="'data'"):
            deal(data, 1)


@pytest.mark.parametrize("parties", [0, -1, 2.0, "2", None, True, float("nan"), 7])
def test_parties_that_cannot_be(parties):
    for deal in (co.iid, co.dirichlet, co.shards, co.quantity, co.feature_shift):
        with pytest.raises(ConfigError, match="parties"):
            deal([0, 1, 0, 1, 0, 1], parties)


@pytest.mark.parametrize(
    "bad",
    [
        lambda: co.shards([0, 1], 1, shards_per_party=0),
        lambda: co.shards([0, 1], 1, shards_per_party=1.0),
        lambda: co.shards([0, 1], 1, shards_per_party=None),
        lambda: co.quantity(5, 2, min_rows=None),
        lambda: co.quantity(0, 2),
        lambda: co.feature_shift([1.0, np.nan], 1),
        lambda: co.feature_shift(["a", "b"], 1),
        lambda: co.feature_shift(X, 2),
        lambda: co.feature_shift(None, 1),
        lambda: co.feature_noise(X, co.iid(7, 2)),
        lambda: co.feature_noise(X, {"a": [-1]}),
        lambda: co.feature_noise(X, {"a": [0.5]}),
        lambda: co.feature_noise(X, {"a": None}),
        lambda: co.feature_noise(X, [0, 1]),
        lambda: co.feature_noise(X, co.iid(X, 2), sigma=-1),
        lambda: co.feature_noise(X, co.iid(X, 2), sigma=X),
        lambda: co.feature_noise(5.0, {"a": [0]}),
        lambda: co.feature_noise(X * np.inf, {"a": [0]}),
    ],
)
def test_bad_arguments(bad):
    with pytest.raises(ConfigError), np.errstate(invalid="ignore"):
        bad()
