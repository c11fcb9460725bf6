"""Answers are read the same, however they come; what is no table of answers is refused with a reason."""

import numpy as np
import pandas
import polars
import pytest

import comity as co
from comity.crowd.answers import read_answers

TASK, WORKER, LABEL = ["t2", "t1", "t1", "t10"], ["bob", "ann", "bob", "eve"], [1, 0, 1, 0]
COLUMNS = {"task": TASK, "worker": WORKER, "label": LABEL}
ROWS = list(zip(TASK, WORKER, LABEL, strict=True))


@pytest.mark.parametrize(
    "make",
    [
        lambda folder: COLUMNS,
        lambda folder: {name: np.array(x) for name, x in COLUMNS.items()},
        lambda folder: {name: pandas.Series(x) for name, x in COLUMNS.items()},
        lambda folder: ROWS,
        lambda folder: [list(row) for row in ROWS],
        lambda folder: np.array(ROWS, object),
        lambda folder: polars.DataFrame(COLUMNS).with_columns(seconds=1.5),
        lambda folder: polars.LazyFrame(COLUMNS),
        lambda folder: pandas.DataFrame(COLUMNS),
        lambda folder: [polars.DataFrame(COLUMNS).write_csv(folder / "a.csv"), folder / "a.csv"][1],
        lambda folder: [polars.DataFrame(COLUMNS).write_parquet(folder / "a.parquet"), str(folder / "a.parquet")][1],
    ],
)
def test_any_table(make, tmp_path):
    read = read_answers(make(tmp_path))
    assert (read.tasks, read.workers, read.classes) == (("t1", "t10", "t2"), ("ann", "bob", "eve"), (0, 1))
    assert list(zip(read.task, read.worker, read.label, strict=True)) == [(0, 0, 0), (0, 1, 1), (1, 2, 0), (2, 1, 1)]
    assert read.first.tolist() == [1, 0]


def test_ids_of_unlike_kinds():
    read = read_answers([("a", 1, True), (2, "w", None.__class__), ((3, "x"), 1, True)])
    assert len(read.tasks) == 3
    assert set(read.workers) == {1, "w"}


def test_repeated_answers():
    rows = [*ROWS, ("t1", "ann", 1), ("t1", "ann", 1)]
    last, every = read_answers(rows), read_answers(rows, "all")
    assert (last.repeated, every.repeated) == (2, 0)
    assert last.votes().tolist() == [[0, 2], [1, 0], [0, 1]]
    assert every.votes().tolist() == [[1, 3], [1, 0], [0, 1]]
    assert co.MajorityVote().fit(rows).left_out_ == 2


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ([], "at least one row"),
        (7, "A table must be a path"),
        (object(), "A table must be a path"),
        ([("t", "w")], r"Row 1 is \('t', 'w'\)|Row 1 is a tuple of 2"),
        (["twl"], "Row 1 is 'twl'"),
        ({"task": [1], "worker": [1], "lable": [1]}, "Got no 'label'. Did you mean 'lable'"),
        ({"task": [1], "worker": [1, 2], "label": [1]}, "task 1, worker 2, label 1"),
        ([("t", "w", 1), ("t", None, 1)], "1 of 2 have no worker, the first is row 2"),
        ([("t", "w", float("nan"))], "have no label"),
        (polars.DataFrame({"task": [1], "worker": [1]}), "no column 'label'"),
        (polars.DataFrame({"task": [1, 2], "worker": [1, 1], "label": ["cat", None]}), "1 of 2 have no label"),
        ([("t", "w", [1])], "must be hashable"),
        ([(["t"], "w", 1)], "must be hashable"),
    ],
)
def test_what_is_refused(answers, said):
    with pytest.raises(co.ConfigError, match=said):
        read_answers(answers)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(co.ConfigError, match=r"There is no .*nowhere\.csv"):
        co.MajorityVote().fit(tmp_path / "nowhere.csv")
