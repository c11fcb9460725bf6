"""Crowds: tables of answers and what is fitted to them, votes by reputation, tasks, annotators."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from matrix_law import NO_WHOLE, NO_WORD, NONE_NUMBERS, NUMBERS, WHOLE, Thing, hold, rows

import comity as co

INF = float("inf")
NO_POSITIVE = (*NONE_NUMBERS, 0, -1, INF)
NOT_NEGATIVE = (*NONE_NUMBERS, -1, INF)
COLUMNS = {"task": ["t1", "t1", "t2"], "worker": ["a", "b", "a"], "label": ["x", "y", "x"]}
ROWS = list(zip(*COLUMNS.values(), strict=True))
FRAME = pl.DataFrame(COLUMNS)
KINDS = ("MajorityVote", "DawidSkene", "GLAD")


def columns(**more):
    return {**COLUMNS, **more}


BAD_ANSWERS = {
    "None": None,
    "number": 5,
    "True": True,
    "text": "answers",
    "bytes": b"answers",
    "empty": [],
    "no columns": {},
    "Thing": Thing(),
    "class": pl.DataFrame,
    "function": len,
    "array of nothing": np.array(3),
    "numbers": [1, 2, 3],
    "pairs": [("t1", "a")],
    "fours": [("t1", "a", "x", 1)],
    "words": ["abc", "def"],
    "None inside": [None],
    "None as label": [("t1", "a", None)],
    "NaN as task": [(float("nan"), "a", "x")],
    "list as label": [("t1", "a", ["x"])],
    "list as task": [(["t1"], "a", "x")],
    "dict as worker": [("t1", {}, "x")],
    "sets": [{"t1", "a", "x"}],
    "lacks": {"task": ["t1"], "worker": ["a"]},
    "lengths": columns(label=["x"]),
    "column number": columns(label=1),
    "column text": columns(label="xyx"),
    "column None": columns(label=None),
    "column array of nothing": columns(label=np.array(1)),
    "column table": columns(label=np.zeros((3, 2))),
    "column with None": columns(worker=["a", None, "b"]),
    "no rows": {"task": [], "worker": [], "label": []},
    "frame without rows": FRAME.clear(),
    "frame without label": FRAME.drop("label"),
    "frame with null": pl.DataFrame(columns(label=["x", None, "y"])),
    "series": FRAME["task"],
}
GOOD_ANSWERS = {
    "rows": ROWS,
    "tuples": tuple(ROWS),
    "array": np.array(ROWS),
    "ints": [(0, 0, 1), (0, 1, 0), (1, 0, 1)],
    "columns": COLUMNS,
    "arrays": {k: np.array(v) for k, v in COLUMNS.items()},
    "polars": FRAME,
    "pandas": pd.DataFrame(COLUMNS),
    "more columns": FRAME.with_columns(when=pl.lit(3)),
    "one": ROWS[:1],
    "mixed": [("t1", "a", 1), (2, "b", "x"), ("t1", 3, "y")],
    "again": [*ROWS, ROWS[0]],
    "one class": [("t1", "a", 1), ("t2", "b", 1)],
}


def of(kind, name):
    return lambda v: getattr(co, kind)(**{name: v})


FITTED = [
    *(row for kind in KINDS for row in rows(kind, "repeated", of(kind, "repeated"), bad=NO_WORD, good=("last", "all"))),
    *rows("DawidSkene", "errors", of("DawidSkene", "errors"), bad=NO_WORD, good=("confusion", "two-coin", "one-coin")),
    *rows("DawidSkene", "n_iter", of("DawidSkene", "n_iter"), bad=(*NO_WHOLE, 0, -1), good=WHOLE),
    *rows("DawidSkene", "tol", of("DawidSkene", "tol"), bad=NOT_NEGATIVE, good=(0, *NUMBERS)),
    *rows("DawidSkene", "smoothing", of("DawidSkene", "smoothing"), bad=NO_POSITIVE, good=NUMBERS),
    *rows("GLAD", "n_iter", of("GLAD", "n_iter"), bad=(*NO_WHOLE, 0, -1), good=WHOLE),
    *rows("GLAD", "n_steps", of("GLAD", "n_steps"), bad=(*NO_WHOLE, 0, -1), good=WHOLE),
    *rows("GLAD", "tol", of("GLAD", "tol"), bad=NOT_NEGATIVE, good=(0, *NUMBERS)),
    *(
        row
        for kind in KINDS
        for row in rows(
            kind,
            "answers",
            lambda v, kind=kind: getattr(co, kind)().fit_predict(v),
            bad=BAD_ANSWERS,
            good=GOOD_ANSWERS,
            says="[Aa]nswer|[Tt]able|[Rr]ow|[Cc]olumn|[Tt]asks|label|file|folder",
        )
    ),
]
TASKS = {"t1": "cat", "t2": "dog"}
T, L = np.arange(2), np.array([0, 1])
WORKERS = {"ann": co.Annotator(lambda word: 0), "bob": co.Annotator(lambda word: 1)}
NO_PART = (None, 1, "vote", [], Thing(), co.ReputationVote, len)
BAD_VOTES = {
    "None": None,
    "number": 1,
    "text": "a",
    "array": L,
    "nothing": {},
    "no label": {"task": T},
    "lengths": {"task": T, "label": L[:1]},
    "floats": {"task": T, "label": L + 0.5},
    "texts": {"task": T, "label": np.array(["a", "b"])},
    "lists": {"task": [0, 1], "label": [0, 1]},
    "table": {"task": T[:, None], "label": L[:, None]},
    "votes text": {"votes": "a"},
    "votes flat": {"votes": L},
    "votes NaN": {"votes": np.full((2, 2), np.nan)},
    "votes of no class": {"votes": np.zeros((2, 0))},
}


def labelling(name):
    return lambda v: co.Labelling(**{"tasks": TASKS, "classes": 2, name: v})


def label(v):
    """A round with somebody who answers so."""
    return co.Collaboration(co.Labelling(TASKS, classes=2), {"ann": co.Annotator(v)}).run(1)


def raises(content):
    raise LookupError("no idea")


LOOP = [
    *rows(
        "ReputationVote",
        "prior",
        of("ReputationVote", "prior"),
        bad=(None, 1, "ab", (), (1,), (1, 2, 3), (0, 1), (1, -1), (1, INF), (1, "a"), (True, 1), {1: 2}, Thing()),
        good=((2.0, 1.0), [1, 2], (np.float32(1), np.int64(2))),
    ),
    *rows("ReputationVote", "n_iter", of("ReputationVote", "n_iter"), bad=(*NO_WHOLE, 0, -1), good=WHOLE),
    *rows("ReputationVote", "tol", of("ReputationVote", "tol"), bad=NOT_NEGATIVE, good=(0, *NUMBERS)),
    *rows(
        "ReputationVote",
        "value",
        lambda v: co.ReputationVote().lift(co.Contribution("label", v)),
        bad=BAD_VOTES,
        good={
            "answers": {"task": T, "label": L},
            "votes": {"votes": np.eye(2)},
            "none": {"task": T[:0], "label": L[:0]},
        },
        says="Answers|Votes",
    ),
    *rows(
        "Labelling",
        "tasks",
        labelling("tasks"),
        bad={
            "None": None,
            "number": 3,
            "text": "abc",
            "bytes": b"abc",
            "nothing": {},
            "none": [],
            "set": {"a", "b"},
            "Thing": Thing(),
            "class": dict,
            "generator": (x for x in "ab"),
            "array of nothing": np.array(3),
            "no rows": np.zeros((0, 2)),
            "things": [Thing(), Thing()],
            "a list inside": {"t1": [1, 2]},
            "objects": np.array([{}, Thing()], object),
            "complex": np.ones(3, complex),
        },
        good={
            "texts": TASKS,
            "list": ["cat", "dog"],
            "array": np.zeros((3, 4)),
            "arrays": [np.zeros(3), np.zeros((2, 2))],
            "trees": {"t1": {"text": "cat", "n": 1}},
            "None": [None, 1, b"x", 2.5],
        },
    ),
    *rows("Labelling", "classes", labelling("classes"), bad=(*NO_WHOLE, 1, -1), good=(2, np.int64(3))),
    *rows("Labelling", "per_round", labelling("per_round"), bad=(*NO_WHOLE, 0, -1), good=WHOLE),
    *rows("Labelling", "answers", labelling("answers"), bad=(*NO_WHOLE[1:], 0, -1), good=(None, *WHOLE)),
    *rows("Labelling", "certain", labelling("certain"), bad=(*NONE_NUMBERS, 0, 1.1, -1), good=(0.5, 1, np.float32(1))),
    *rows("Labelling", "combiner", labelling("combiner"), bad=NO_PART, good=(co.ReputationVote(), co.Collect())),
    *rows(
        "Labelling",
        "combiner",
        lambda v: co.Collaboration(co.Labelling(TASKS, classes=2), WORKERS, combine=v).run(1),
        bad=(co.Mean(), co.Collect(), co.Median()),
        good=(co.ReputationVote(),),
    ),
    *rows("Annotator", "answer", co.Annotator, bad=(None, 1, "yes", [], {}, Thing()), good=(len, lambda content: None)),
    *rows(
        "Annotator",
        "answer",
        label,
        bad={
            "text": lambda content: "cat",
            "half": lambda content: 0.5,
            "list": lambda content: [0],
            "flag": lambda content: True,
            "beyond": lambda content: 2,
            "below": lambda content: -1,
            "huge": lambda content: 10**30,
            "raises": raises,
            "of two": lambda content, more: 0,
        },
        good={"skips": lambda content: None, "plain": lambda content: 1, "numpy": lambda content: np.int64(1)},
        says="answer|label must|no idea|argument|int",
    ),
]


@pytest.mark.parametrize("row", [*FITTED, *LOOP], ids=str)
def test_crowds(row, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hold(row, tmp_path)
