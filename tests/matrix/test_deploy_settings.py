"""Deployment: what a ticket is made of, where it goes, and what networks are made smaller by."""

from functools import partial

import numpy as np
import pytest
from matrix_law import NO_PATH, NO_WHOLE, NO_WORD, NONE_NUMBERS, Thing, hold, rows

import comity as co

torch = pytest.importorskip("torch")
NET = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
W = np.arange(6.0).reshape(2, 3)
TICKET = co.Ticket.of({"w": W})
BAD_PARAMS = {
    "None": None,
    "number": 3,
    "text": "w",
    "list": [W],
    "empty": {},
    "nested": {"a": {"w": W}},
    "numbers": {1: W},
    "whole": {"w": W.astype(int)},
    "objects": {"w": W.astype(object)},
    "words": {"w": "abc"},
    "lists": {"w": W.tolist()},
    "NaN": {"w": W * np.nan},
    "inf": {"w": W + np.inf},
    "beyond": {"w": W * 1e39},
}
BAD_MASK = {
    "number": 3,
    "text": "w",
    "list": [W > 1],
    "unknown": {"v": W > 1},
    "float": {"w": W},
    "shape": {"w": W[:1] > 1},
    "None in it": {"w": None},
    "list in it": {"w": [True]},
}
BAD_METRICS = ([], 3, "accuracy", {"accuracy": "high"}, {"accuracy": float("nan")}, {"accuracy": None}, {1: 0.5})


def kept(name):
    return lambda v: co.Ticket(**{"params": {"w": W}, "mask": {"w": W > 1}, name: v})


def saved(value, **how):
    return TICKET.save(value, **how)


def loaded(value, **how):
    TICKET.save("t")
    return co.Ticket.load(value, **how)


ROWS = (
    *rows(
        "Ticket",
        "params",
        co.Ticket.of,
        bad=BAD_PARAMS,
        good={
            "float64": {"w": W},
            "float16": {"w": W.astype("float16")},
            "scalar": {"w": np.array(1.0)},
            "none in it": {"w": W[:0]},
            "strided": {"w": W.T[::2]},
        },
        says="params",
    ),
    *rows(
        "Ticket",
        "mask",
        lambda v: co.Ticket.of({"w": W}, v),
        bad=BAD_MASK,
        good={"None": None, "empty": {}, "bool": {"w": W > 1}, "nothing kept": {"w": W > 9}},
    ),
    *rows(
        "Ticket",
        "metrics",
        kept("metrics"),
        bad=(None, *BAD_METRICS),
        good=({}, {"accuracy": 1}, {"r2": np.float32(1)}),
    ),
    *rows("Ticket", "model", kept("model"), bad=(None, 3, b"x", Thing()), good=("", "a hash")),
    *rows(
        "Ticket",
        "of a model",
        lambda v: co.Ticket.of({"w": W}, model=v),
        bad=(1, "net", Thing(), NET, co.Linear),
        good=(None, co.TorchModel(NET, torch.nn.functional.cross_entropy)),
        says="model",
    ),
    *rows("Ticket", "path", saved, bad=(*NO_PATH, ".", "x" * 300), good=("t", "new/t"), says="path|file"),
    *rows("Ticket", "values", lambda v: saved("t", values=v), bad=NO_WORD, good=("int8", "bfloat16", "float32")),
    *rows(
        "Ticket", "rest", lambda v: saved("t", rest=v), bad=(*NO_WORD[1:], "int8"), good=(None, "bfloat16", "float32")
    ),
    *rows("Ticket", "limit", lambda v: co.Ticket.load("none", limit=v), bad=(*NO_WHOLE, 0, -1)),
    *rows("Ticket", "limit", lambda v: loaded("t", limit=v), good=(24, np.int64(1000))),
    *rows("Ticket", "load", co.Ticket.load, bad=(*NO_PATH, ".", "none"), says="path|ticket file"),
    *rows(
        "Ticket",
        "densify",
        TICKET.densify,
        bad=(None, 1, "net", Thing(), torch.nn.Linear, NET, torch.nn.ReLU()),
        says="module|net",
    ),
    *rows(
        "fold",
        "net",
        co.fold,
        bad=(None, 1, "net", [], Thing(), torch.nn.Linear, torch.zeros(2)),
        good=(NET, torch.nn.Linear(2, 2), torch.nn.ReLU()),
    ),
    *rows(
        "shrink",
        "net",
        lambda v: co.shrink(v, 0.5),
        bad=(None, 1, "net", [], Thing(), torch.nn.Linear(2, 2), torch.nn.ReLU(), torch.nn.Sequential()),
        good=(NET,),
    ),
    *rows(
        "shrink",
        "keep",
        partial(co.shrink, NET),
        bad=(
            *(v for v in NONE_NUMBERS if not isinstance(v, dict)),
            {"a": 1},
            0,
            -1,
            1.5,
            {"zzz": 0.5},
            {"2": 0.5},
            {"0": 0},
            {"0": None},
        ),
        good=(1, 0.5, 1e-9, np.float32(0.5), {"0": 0.5}, {}),
    ),
    *rows("shrink", "by", lambda v: co.shrink(NET, 0.5, by=v), bad=NO_WORD, good=("weights", "scale")),
)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_deploy_settings(row, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hold(row, tmp_path)
