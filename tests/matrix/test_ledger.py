"""The ledger and its audit."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from matrix_law import NO_PATH, Thing, hold, rows

import comity as co

X, Y = np.eye(4, dtype="float32"), np.array([0, 0, 1, 1])
MODEL = co.Linear(inputs=4, classes=2)
HEAD = "a" * 64


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that was kept."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    co.Collaboration(co.FedAvg(MODEL), {"a": co.Trainer(MODEL, (X, Y))}).run(2, folder=folder)
    return folder


def ledger(facts):
    return co.Ledger().append("round", facts, time=0.0)


ROWS = (
    *rows("audit", "folder", co.audit, bad=(None, *NO_PATH, ".", "nothing", "x" * 300), says="folder|run"),
    *rows(
        "Ledger",
        "kind",
        lambda v: co.Ledger().append(v, {}, time=0.0),
        bad=(None, 1, True, b"x", [], Thing(), str, ""),
        good=("start", "a word"),
    ),
    *rows(
        "Ledger",
        "time",
        lambda v: co.Ledger().append("x", {}, time=v),
        bad=(None, "now", [], Thing(), float("nan"), float("inf"), True),
        good=(0, 1.5, np.float64(2), np.int64(3)),
    ),
    *rows(
        "Ledger",
        "facts",
        ledger,
        bad=(None, 1, "x", [], Thing(), {"a": Thing()}, {1: 2}, {"a": 1j}, {"a": np.array([None])}),
        good=({}, {"a": 1}, {"a": X, "b": None}),
    ),
    *rows(
        "Ledger",
        "up",
        lambda v: ledger({"asked": "a\nb", "up": v}),
        bad=(None, 1, "x", [1], np.ones(3), np.ones((2, 1))),
        good=(np.array([1, 2]),),
    ),
    *rows("Ledger", "entries", co.Ledger.restore, bad=(None, 1, "x", [1], [None], Thing()), good=([], ())),
    *rows(
        "Ledger",
        "head",
        lambda v: co.Ledger().verify(v),
        bad=(1, "x", HEAD, b"x", [], Thing()),
        good=(None, "0" * 64),
        says="hash|head",
    ),
    *rows("Ledger", "name", lambda v: co.Ledger().bytes_of(v), good=("a", "")),
    *rows("Ledger", "metric", lambda v: co.Ledger().metric(v), good=("loss", "zzz")),
    *rows("Ledger", "position", lambda v: co.Ledger().since(v), good=(0, 5, np.int64(1))),
)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_ledger(row, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hold(row, tmp_path)


DAMAGE = {
    "no database": lambda p: (p / "run.db").unlink(),
    "an empty database": lambda p: (p / "run.db").write_bytes(b""),
    "garbage": lambda p: (p / "run.db").write_bytes(b"\xff" * 9000),
    "half": lambda p: os.truncate(p / "run.db", 6000),
    "a database that is a folder": lambda p: (p / "run.db").unlink() or (p / "run.db").mkdir(),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_an_audit_of_what_is_damaged(how, run, tmp_path):
    shutil.copytree(run, tmp_path / "copy")
    DAMAGE[how](tmp_path / "copy")
    (row,) = rows("audit", "folder", co.audit, bad={how: tmp_path / "copy"}, says="copy")
    hold(row, tmp_path)


AGAINST = {
    "empty": b"",
    "garbage": bytes(range(256)),
    "two": f"{HEAD} {'b' * 64}".encode(),
    "short": b"abc123",
    "words": b"no hash here",
}


def against(run):
    """Rows for what is kept elsewhere."""
    yield from rows(
        "audit",
        "against",
        lambda v: co.audit(run, against=v),
        says="against|head|run",
        bad=(*NO_PATH, *AGAINST, "nothing", "folder", "x" * 300),
        good=(None, run),
    )


LATER = (against,)
"""Rows that want a run that was kept."""


def test_heads_that_were_kept(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    for name, text in AGAINST.items():
        Path(name).write_bytes(text)
    for row in against(run):
        hold(row, tmp_path)
