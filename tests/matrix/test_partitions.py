"""One data set cut into parties."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from matrix_law import NO_FLAG, NO_PATH, NO_WHOLE, NONE_NUMBERS, WHOLE, Thing, hold, rows

import comity as co

INF = float("inf")
TABLE = pl.DataFrame({"age": [61, 47, 52, 70], "who": ["a", "b", "a", "b"]})
Y = [0, 1, 1, 0]
X = np.random.default_rng(0).normal(size=(4, 2))
PARTS = {"a": np.array([0, 1]), "b": np.array([2])}
NO_SEED = (*NO_WHOLE,)
NO_Y = (None, 1, "ab", Thing(), {}, np.ones((3, 2)), [], [[1], [1, 2]], int)

ROWS = (
    *rows(
        "iid",
        "data",
        lambda v: co.iid(v, 2),
        bad=(None, 1.5, True, Thing(), int, len, 1, "ab", [1]),
        good=(5, np.int64(5), [1, 2], TABLE, np.ones((4, 2)), (np.ones(3), np.ones(3))),
        says="data|parties",
    ),
    *rows("iid", "parties", lambda v: co.iid(9, v), bad=(*NO_WHOLE, 0, -1, 10, 10**30), good=WHOLE),
    *rows("iid", "seed", lambda v: co.iid(9, 2, seed=v), bad=NO_WHOLE, good=(0, -1, *WHOLE)),
    *rows(
        "dirichlet",
        "y",
        lambda v: co.dirichlet(v, 2),
        bad=(None, 1, "ab", Thing(), {}, np.ones((3, 2)), [], [[1], [1, 2]], int),
        says=r"'y'|rows",
        good=([0, 1, 1], ["a", "b"], np.array([0.5, 1.5]), np.array(["a", "b"], object), pl.Series([1, 2])),
    ),
    *rows("dirichlet", "parties", lambda v: co.dirichlet([0, 1, 1, 0], v), bad=(*NO_WHOLE, 0, -1, 5), good=WHOLE),
    *rows(
        "dirichlet",
        "alpha",
        lambda v: co.dirichlet([0, 1, 1, 0], 2, alpha=v),
        bad=(*NONE_NUMBERS, 0, -1, INF),
        good=(1, 0.5, np.float32(0.5), 1e-300, 1e300),
    ),
    *rows("dirichlet", "seed", lambda v: co.dirichlet([0, 1, 1, 0], 2, seed=v), bad=NO_WHOLE, good=(0, -1, *WHOLE)),
    *rows(
        "dirichlet",
        "min_rows",
        lambda v: co.dirichlet([0, 1, 1, 0], 2, min_rows=v),
        bad=(*NO_WHOLE, -1, 3),
        good=(0, 1, np.int8(2)),
        says="min_rows|rows each",
    ),
    *rows(
        "shards",
        "y",
        lambda v: co.shards(v, 1, shards_per_party=1),
        bad=NO_Y,
        good=(Y, ["a", "b"], pl.Series(Y)),
        says=r"'y'|rows|shards",
    ),
    *rows(
        "shards",
        "parties",
        lambda v: co.shards(Y, v, shards_per_party=1),
        bad=(*NO_WHOLE, 0, -1, 5),
        good=WHOLE,
        says="parties|rows",
    ),
    *rows(
        "shards", "shards_per_party", lambda v: co.shards(Y, 1, shards_per_party=v), bad=(*NO_WHOLE, 0, -1), good=WHOLE
    ),
    *rows("shards", "seed", lambda v: co.shards(Y, 1, seed=v), bad=NO_SEED, good=(0, -1, *WHOLE)),
    *rows(
        "quantity",
        "data",
        lambda v: co.quantity(v, 2),
        bad=(None, 1.5, True, Thing(), int, len, 1, "ab", [1]),
        good=(5, [1, 2], TABLE, X),
        says="data|parties",
    ),
    *rows("quantity", "parties", lambda v: co.quantity(4, v), bad=(*NO_WHOLE, 0, -1, 5), good=WHOLE),
    *rows(
        "quantity",
        "alpha",
        lambda v: co.quantity(4, 2, alpha=v),
        bad=(*NONE_NUMBERS, 0, -1, INF),
        good=(1, 0.5, np.float32(0.5)),
    ),
    *rows("quantity", "seed", lambda v: co.quantity(4, 2, seed=v), bad=NO_SEED, good=(0, -1, *WHOLE)),
    *rows(
        "quantity",
        "min_rows",
        lambda v: co.quantity(4, 2, min_rows=v),
        bad=(*NO_WHOLE, -1, 3),
        good=(0, 1, np.int8(2)),
        says="min_rows|rows each",
    ),
    *rows(
        "feature_shift",
        "x",
        lambda v: co.feature_shift(v, 2),
        bad=(None, 1, "ab", Thing(), {}, X, [], [[1], [1, 2]], ["a"], [1, np.nan], int),
        good=([3, 1, 2], X[:, 0], pl.Series([1, 2])),
        says=r"'x'|rows",
    ),
    *rows("feature_shift", "parties", lambda v: co.feature_shift(X[:, 0], v), bad=(*NO_WHOLE, 0, -1, 5), good=WHOLE),
    *rows("feature_shift", "seed", lambda v: co.feature_shift(X[:, 0], 2, seed=v), bad=NO_SEED, good=(0, -1, *WHOLE)),
    *rows(
        "feature_noise",
        "x",
        lambda v: co.feature_noise(v, PARTS),
        bad=(None, 1, "ab", Thing(), {}, [[1], [1, 2]], ["a"], X * np.nan, int),
        good=(X, X.tolist(), X[:, 0]),
        says=r"'x'|rows",
    ),
    *rows(
        "feature_noise",
        "parts",
        lambda v: co.feature_noise(X, v),
        says="parts|rows|part",
        bad=(None, 1, "ab", Thing(), [1], {"a": [9]}, {"a": [-1]}, {"a": [0.5]}, {"a": "x"}, {"a": None}, {"a": [[0]]}),
        good=(PARTS, {"a": [0]}),
    ),
    *rows(
        "feature_noise",
        "sigma",
        lambda v: co.feature_noise(X, PARTS, sigma=v),
        bad=(*NONE_NUMBERS, -1, INF),
        good=(0, 1, np.float32(0.5)),
    ),
    *rows("feature_noise", "seed", lambda v: co.feature_noise(X, PARTS, seed=v), bad=NO_SEED, good=(0, -1, *WHOLE)),
    *rows(
        "Shards",
        "X",
        lambda v: co.Shards(v, np.array(Y), [1, 3]),
        bad=(None, 1, "ab", Thing(), X.tolist(), X[:3], X.astype(object), np.float32(1), np.array(1.0), np.ndarray),
        good=(X, X[:, 0], X.astype(">f4"), X > 0, np.array(["a", "b", "c", "d"]), X[::-1]),
    ),
    *rows(
        "Shards",
        "y",
        lambda v: co.Shards(X, v, [1, 3]),
        bad=(None, 1, "ab", Thing(), Y, np.array(Y[:3]), np.array([None] * 4), np.array(1.0), np.ndarray),
        good=(np.array(Y), X, np.array(["a", "b", "c", "d"])),
    ),
    *rows(
        "Shards",
        "sizes",
        lambda v: co.Shards(X, np.array(Y), v),
        bad=(*NO_WHOLE, 4, [4.0], [True] * 4, [5], [5, -1], [2, 1], [[4]], [[1], [1, 2]], [10**30], [2**62] * 4),
        good=([4], [0, 4], (1, 3), np.array([2, 2], np.uint8), [0, 0, 4, 0]),
    ),
    *rows(
        "Shards",
        "pairs",
        lambda v: co.Shards.of(v),
        bad=(
            None,
            1,
            "ab",
            Thing(),
            [],
            {},
            [1],
            [(X,)],
            [(X, Y[:3])],
            [(1, 2)],
            [(X, Y), (X[:, :1], Y)],
            X,
            int,
            [(X, Y), (X.astype(str), Y)],
            [(X, Y), (X, list("abcd"))],
            {"a": (X, None)},
            [([[1], [1, 2]], [0, 1])],
        ),
        good=([(X, Y)], {"a": (X, Y), "b": (X.tolist(), Y)}, [[X, Y], (X[:0], Y[:0])], ((X, pl.Series(Y)),)),
        says="pairs|The rows of X|The rows of y|'X'|'y'",
    ),
    *rows(
        "Shards",
        "rows",
        lambda v: co.Shards.cut(X, Y, v),
        bad=(
            None,
            1,
            "ab",
            Thing(),
            [1],
            {"a": [4]},
            {"a": [-1]},
            {"a": [0.5]},
            {"a": "x"},
            {"a": None},
            {"a": [[0]]},
            [[True]],
            {"a": [[1], [1, 2]]},
            X,
            int,
        ),
        good=(PARTS, {"a": [0]}, {}, [], [[0], []], [np.array([3, 3])]),
    ),
    *rows(
        "Shards",
        "folder",
        lambda v: co.Shards(X, np.array(Y), [4]).save(v),
        bad=NO_PATH,
        good=("new", Path("new") / "deep"),
    ),
    *rows("Shards", "folder", co.Shards.open, bad=(*NO_PATH, "nowhere"), says="folder|X.npy is missing"),
    *rows(
        "Shards",
        "memory",
        lambda v: [co.Shards(X, np.array(Y), [4]).save("new"), co.Shards.open("new", memory=v)],
        good=(True, False, np.True_),
    ),
    *rows("Shards", "memory", lambda v: co.Shards.open("new", memory=v), bad=NO_FLAG),
)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_partitions(row, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hold(row, tmp_path)


@pytest.mark.parametrize(
    "cut", [co.iid, co.quantity, co.dirichlet, co.shards, co.feature_shift], ids=lambda f: f.__name__
)
def test_a_numpy_seed_deals_as_a_plain_one(cut):
    data = 40 if cut in (co.iid, co.quantity) else np.arange(40) % 4
    plain, scalar = cut(data, 3, seed=5), cut(data, np.int64(3), seed=np.int64(5))
    assert plain.keys() == scalar.keys()
    assert all((plain[k] == scalar[k]).all() for k in plain)
