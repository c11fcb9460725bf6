"""What a race is given: candidates, rounds, stages, a metric, a folder, an engine."""

from pathlib import Path

import numpy as np
import pytest
from matrix_law import NO_PATH, NO_WHOLE, Thing, hold, rows

import comity as co

X = np.random.default_rng(0).normal(size=(6, 2)).astype("float32")
Y = np.array([0, 1, 0, 1, 0, 1])
MODEL = co.Linear(inputs=2, classes=2)
SITES = {name: co.Trainer(MODEL, (X, Y), valid=(X, Y)) for name in ("a", "b")}
FED = co.Collaboration(co.FedAvg(MODEL), SITES)
TWO = {"one": FED, "two": FED.replace(seed=1)}
NO_STAGE = [v for v in NO_WHOLE if not isinstance(v, list)]
ENGINES = (1, True, "local", [], Thing(), co.Local, FED, len)


def unlike(**changes):
    return {"one": FED, "two": FED.replace(**changes)}


def race(name):
    return lambda v: co.race(**{"candidates": TWO, "rounds": 3, "after": 2, name: v})


ROWS = (
    *rows(
        "race",
        "candidates",
        race("candidates"),
        bad=(None, 1, True, "ab", [FED, FED], FED, {}, {"a": FED}, co.Collaboration, Thing()),
        good={"two": TWO, "same": {"a": FED, "b": FED}, "odd name": {"a/b": FED, "..": FED}},
    ),
    *rows(
        "race",
        "named candidates",
        race("candidates"),
        says="candidates",
        bad={
            "no name": {"": FED, "b": FED},
            "number name": {1: FED, 2: FED},
            "line": {"a\nb": FED, "b": FED},
            "nobody": {"a": None, "b": FED},
            "a run": {"a": FED, "b": FED.run(1)},
            "a method": {"a": FED, "b": FED.method},
            "class": {"a": FED, "b": co.Collaboration},
        },
    ),
    *rows(
        "race",
        "candidates as they run",
        race("candidates"),
        says="^Candidate 'two': ",
        bad={
            "no participants": unlike(participants={}),
            "no scores": unlike(evaluate=False),
            "data": unlike(participants={"a": co.Trainer(MODEL, (X, Y + 1), valid=(X, Y))}),
            "no validation": unlike(participants={"a": co.Trainer(MODEL, (X, Y), test=(X, Y))}),
        },
        good={"scores now and then": unlike(evaluate=co.every(2))},
    ),
    *rows("race", "rounds", race("rounds"), bad=(*NO_WHOLE, 0, -1), good=(2, 3, np.int64(3), np.uint8(4))),
    *rows(
        "race",
        "after",
        race("after"),
        bad=(*NO_STAGE, 0, -1, 4, [2, 1], [2, 2], [0, 1], [1, 4], (1, None), {1, 2}, iter([1])),
        good=(1, 3, [1], [1, 2], (1, 2, 3), range(1, 3), np.int64(2), [np.int8(1), np.uint8(2)]),
    ),
    *rows(
        "race",
        "by",
        race("by"),
        bad=(1, True, "", "accuracy", "log_loss", "train_accuracy", "valid", "valid_", "valid_\n", b"valid_mse", []),
        good=(None, "valid_accuracy", "valid_log_loss"),
    ),
    *rows("race", "by that is not there", race("by"), says="'by' of race", bad=("valid_mse", "valid_acuracy")),
    *rows("race", "folder", race("folder"), bad=NO_PATH, good=(None, "runs/one", Path("two"), "ünï cödé")),
    *rows("race", "long name", lambda v: co.race(TWO | {v: FED}, 3, after=2, folder="x"), says="candidates",
          bad=("a" * 256, "ü" * 80), good=("a" * 200,)),
    *rows("race", "engine", race("engine"), bad=ENGINES, good=(None, co.Local())),
)  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_race(row, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hold(row, tmp_path)
