import subprocess
import sys

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comity.core.errors import ConfigError
from comity.data.partition import by_column, dirichlet, iid


def rows(parts):
    return sorted(np.concatenate(list(parts.values())).tolist())


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 3))
def test_iid_is_a_partition(n, parties, seed):
    if parties > n:
        with pytest.raises(ConfigError, match=f"Use at most {n} parties"):
            iid(n, parties, seed=seed)
        return
    parts = iid(n, parties, seed=seed)
    assert rows(parts) == list(range(n))
    assert len(parts) == parties
    sizes = [len(p) for p in parts.values()]
    assert max(sizes) - min(sizes) <= 1


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.integers(0, 4), min_size=20, max_size=80),
    st.integers(1, 10),
    st.sampled_from([1e-3, 0.1, 1.0, 100.0]),
    st.integers(0, 2),
    st.integers(0, 3),
)
def test_dirichlet_is_a_partition_with_enough_rows_each(y, parties, alpha, least, seed):
    parts = dirichlet(y, parties, alpha=alpha, min_rows=least, seed=seed)
    assert rows(parts) == list(range(len(y)))
    assert list(parts) == [f"p{i}" if parties <= 10 else f"p{i:02d}" for i in range(parties)]
    assert all(len(p) >= least and (np.diff(p) > 0).all() for p in parts.values())


def shares(alpha, seed=0):
    y = np.repeat(np.arange(4), 1000)
    parts = dirichlet(y, 5, alpha=alpha, seed=seed, min_rows=0)
    return np.array([np.bincount(y[p], minlength=4) for p in parts.values()]) / 1000


def test_alpha_says_how_uneven():
    assert np.abs(shares(1e4) - 0.2).max() < 0.02
    assert (shares(1e-3).max(axis=0) > 0.95).all()
    draws = np.concatenate([shares(0.5, seed).ravel() for seed in range(100)])
    # Dirichlet(0.5 · 1₅): variance m(1 - m)/(5·0.5 + 1) with m = 1/5; 2000 draws, 4 standard errors
    assert abs(draws.var() - 0.2 * 0.8 / 3.5) < 0.006


def test_filling_up_takes_from_the_largest():
    parts = dirichlet(np.zeros(100), 4, alpha=1e-3, min_rows=10)
    assert sorted(len(p) for p in parts.values()) == [10, 10, 10, 70]
    two = np.repeat([0, 1], 100)
    before = {
        seed: sorted(len(p) for p in dirichlet(two, 3, alpha=1e-3, min_rows=0, seed=seed).values()) for seed in range(9)
    }
    seed = next(seed for seed, sizes in before.items() if sizes == [0, 100, 100])
    assert sorted(len(p) for p in dirichlet(two, 3, alpha=1e-3, min_rows=50, seed=seed).values()) == [50, 75, 75]


def test_the_seed_decides_and_the_names_are_padded():
    y = np.arange(300) % 3
    assert all(np.array_equal(a, b) for a, b in zip(dirichlet(y, 3).values(), dirichlet(y, 3).values(), strict=True))
    assert not np.array_equal(dirichlet(y, 3)["p0"], dirichlet(y, 3, seed=1)["p0"])
    assert not np.array_equal(iid(300, 3)["p0"], iid(300, 3, seed=1)["p0"])
    assert [list(iid(300, n))[-1] for n in (1, 10, 11, 101)] == ["p0", "p9", "p10", "p100"]
    assert next(iter(iid(300, 11))) == "p00"
    assert rows(dirichlet(pl.Series(list("abab") * 5), 2)) == list(range(20))


def test_iid_takes_whatever_has_rows():
    want = iid(6, 2)
    for data in (
        np.zeros((6, 3)),
        pl.DataFrame({"a": range(6)}),
        (np.zeros((6, 3)), np.zeros(6)),
        [0] * 6,
        np.int64(6),
    ):
        assert all(np.array_equal(a, b) for a, b in zip(iid(data, 2).values(), want.values(), strict=True))


def test_by_column():
    parts = by_column(pl.DataFrame({"who": ["b", "a", None, "b"], "x": [1, 2, 3, 4]}), "who")
    assert {k: v.to_dict(as_series=False) for k, v in parts.items()} == {"a": {"x": [2]}, "b": {"x": [1, 4]}}
    with pytest.raises(ConfigError, match="Did you mean 'who'"):
        by_column(pl.DataFrame({"who": ["b"]}), "whom")


def test_bad_arguments():
    for bad in (
        lambda: iid(5, 0),
        lambda: iid(5, 2.0),
        lambda: iid(5, True),
        lambda: iid(None, 2),
        lambda: iid(True, 1),
        lambda: dirichlet([0, 1], 3),
        lambda: dirichlet([0, 1], 2, alpha=0),
        lambda: dirichlet([0, 1], 2, alpha=float("nan")),
        lambda: dirichlet([0, 1], 2, min_rows=-1),
        lambda: dirichlet([0, 1], 2, min_rows=2),
        lambda: dirichlet([[0], [1]], 2),
        lambda: dirichlet([], 1),
    ):
        with pytest.raises(ConfigError):
            bad()


def test_cutting_arrays_needs_no_polars():
    code = "import sys; sys.modules['polars'] = None; import comity as co; "
    code += "print(len(co.iid(9, 3)), len(co.dirichlet([0, 1] * 9, 3)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["3", "3"]
    code = "import sys; sys.modules['polars'] = None; import comity as co; co.read_table('x.csv')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ConfigError: polars is needed for tables. Install it: pip install 'comity[tables]'" in done.stderr
