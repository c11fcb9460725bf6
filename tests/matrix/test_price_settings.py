"""What a comparison may be asked about privacy."""

import numpy as np
import polars as pl
import pytest
from matrix_law import Thing, hold, rows

import comity as co

X = np.random.default_rng(0).normal(size=80)
TABLE = pl.DataFrame({"x": X, "y": (X > 0).astype(int), "who": ["a", "b"] * 40})
FAST = {"model": "linear", "rounds": 1, "repeats": 1, "pooled": False, "unseen": False}
NONE = (1, True, 8.0, "", "epsilon=8,delta=1e-5,unit=example", b"x", [], {"epsilon": 8, "delta": 1e-5}, Thing(), str)


def compare(private):
    return co.compare(TABLE, "y", party="who", **FAST, private=private)


ASKED = (
    *rows("compare", "private", compare, bad=(*NONE, co.Budget), good=(co.Budget(8.0, 1e-5, "rdp"),), says="private"),
    *rows("compare", "private", compare, bad=(co.Budget(8.0, 0.0),), says="delta"),
    *rows("compare", "private", compare, bad=(co.Budget(float("inf"), 1e-5),), says="epsilon"),
)


@pytest.mark.parametrize("row", ASKED, ids=str)
def test_private(row, tmp_path):
    hold(row, tmp_path)
