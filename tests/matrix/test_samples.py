"""Contributed rows: what their columns must hold, who gives them, and the data set that they join."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from matrix_law import NO_WHOLE, NO_WORD, NONE_NUMBERS, NUMBERS, WHOLE, Thing, hold, rows

import comity as co

INF = float("inf")
SHARE = (*NONE_NUMBERS, -0.1, 1.1, INF)
X = np.zeros((8, 2))
MADE = {"Samples": {"schema": {"age": co.Field("whole"), "sick": co.Field("word")}}}


def made(kind, name):
    return lambda v: getattr(co, kind)(**{**MADE.get(kind, {}), name: v})


def settings(kind, table):
    return [
        row for name, (bad, good) in table.items() for row in rows(kind, name, made(kind, name), bad=bad, good=good)
    ]


ROWS = {"age": [40, 61], "sick": ["no", None]}


def given(v):
    """A round in which somebody gives these rows."""
    co.Collaboration(co.Samples(**MADE["Samples"]), {"ann": co.Contributor(v)}, retries=0).run(1)


SAMPLES = [
    *settings(
        "Field",
        {
            "kind": (NO_WORD, ("number", "whole", "word")),
            "low": (NONE_NUMBERS, (0, -INF, np.float32(0.5))),
            "high": (NONE_NUMBERS, (0, INF, np.int64(3))),
            "missing": (SHARE, (0, 1, 0.5)),
        },
    ),
    *rows("Field", "high", lambda v: co.Field(low=3, high=v), bad=(2, -INF), good=(3, 4)),
    *rows("Field", "kind", lambda v: co.Field("word", **v), bad={"a range": {"low": 0}}),
    *rows("Field", "kind", lambda v: co.Field("number", **v), bad={"words": {"words": ("a",)}}),
    *rows(
        "Field",
        "words",
        lambda v: co.Field("word", words=v),
        bad=(1, "ab", b"ab", [1], [""], [None], {"a": 1}, {"a"}, Thing()),
        good=(None, ("a", "b"), ["a"], ()),
    ),
    *settings(
        "Samples",
        {
            "schema": (
                (None, 1, "age", [], {}, ["age"], {"age": "whole"}, {1: co.Field()}, {"": co.Field()}, Thing()),
                ({"age": co.Field()},),
            ),
            "most": ((*NO_WHOLE, 0, -1), WHOLE),
            "outliers": ((*NONE_NUMBERS[1:], 0, -1, INF), (None, *NUMBERS)),
            "prior": ((None, 1, "ab", (), (1,), (1, 2, 3), (0, 1), (1, -1), (1, INF), (1, "a")), ((1, 2), [1, 1])),
            "combiner": ((None, 1, "collect", [], Thing(), co.Collect, len), (co.Collect(),)),
        },
    ),
    *rows("Samples", "schema", made("Samples", "schema"), bad={"taken": {"round": co.Field()}}, says="schema"),
    *rows(
        "Samples",
        "combiner",
        lambda v: co.Collaboration(co.Samples(**MADE["Samples"]), {"a": co.Contributor(ROWS)}, combine=v).run(1),
        bad=(co.Mean(), co.Median()),
        good=(co.Collect(),),
        says="combine|numbers",
    ),
    *rows("Contributor", "rows", co.Contributor, bad=(None, 1, "x", [], [1], X, Thing(), len), good=(ROWS,)),
    *rows(
        "Contributor",
        "rows",
        given,
        bad={
            "lacks": {"age": [1]},
            "lengths": {"age": [1, 2], "sick": ["no"]},
            "a word for a number": {"age": ["old"], "sick": ["no"]},
            "a number for a word": {"age": [1], "sick": [2]},
            "a list inside": {"age": [[1]], "sick": ["no"]},
            "no column": {"age": 1, "sick": "no"},
            "column None": {"age": None, "sick": ["no"]},
            "column text": {"age": [1, 2], "sick": "no"},
            "column of nothing": {"age": np.array(1), "sick": ["no"]},
            "column table": {"age": np.zeros((2, 2)), "sick": ["a", "b"]},
        },
        good={"rows": ROWS, "polars": pl.DataFrame(ROWS), "pandas": pd.DataFrame(ROWS), "none": {k: [] for k in ROWS}},
        says="rows|'age'|'sick'|[Cc]olumn",
    ),
]  # fmt: skip


@pytest.mark.parametrize("row", SAMPLES, ids=str)
def test_samples(row, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hold(row, tmp_path)
