"""Accounting of privacy: what is given to it."""

import numpy as np
import pytest
from matrix_law import NO_WHOLE, NO_WORD, NONE_NUMBERS, Thing, hold, rows

import comity as co

SPEND = co.Spend("gaussian", 4.0)
NO_DELTA = (*(v for v in NONE_NUMBERS if v is not None), -1e-9, 1, 1.0, 2, float("inf"))
NO_NOISE = (*NONE_NUMBERS, 0, 0.0, -1, float("inf"))
NO_SAMPLING = ("x", b"1", [], {}, True, 1j, float("nan"), Thing(), int, len, 0, -0.1, 1.5, "poisson", co.sample(0.1))
SAMPLING = (None, 0.1, 1, np.float32(0.5), co.poisson(0.1))
UNIT, BY = ("example", "participant", "party"), ("pld", "rdp")


def epsilon(**changes):
    return co.epsilon(**({"noise": 4.0, "rounds": 2, "delta": 1e-5} | changes))


def calibrate(**changes):
    return co.calibrate(**({"epsilon": 2.0, "delta": 1e-5, "rounds": 2, "accountant": "rdp"} | changes))


def budget(**changes):
    return co.Budget(**({"epsilon": 2.0, "delta": 1e-5} | changes))


def bare(**changes):
    return co.spent([co.Spend(**({"mechanism": "gaussian", "noise": 4.0} | changes))], 1e-5)


def privacy(**changes):
    return str(co.Privacy(**({"epsilon": 1.0, "delta": 1e-5, "unit": "party"} | changes)))


ROWS = (
    *rows("epsilon", "noise", lambda v: epsilon(noise=v), bad=NO_NOISE, good=(1, 0.9, np.float32(2))),
    *rows("epsilon", "rounds", lambda v: epsilon(rounds=v), bad=(*NO_WHOLE, 0, -1), good=(1, 3, np.int64(2))),
    *rows("epsilon", "delta", lambda v: epsilon(delta=v), bad=(*NO_DELTA, 0, None), good=(1e-5, 0.5)),
    *rows("epsilon", "sampling", lambda v: epsilon(sampling=v), bad=NO_SAMPLING, good=SAMPLING),
    *rows("epsilon", "unit", lambda v: epsilon(unit=v), bad=(*NO_WORD, "people"), good=UNIT),
    *rows("epsilon", "accountant", lambda v: epsilon(accountant=v), bad=(*NO_WORD, "prv"), good=BY),
    *rows("calibrate", "epsilon", lambda v: calibrate(epsilon=v), bad=NO_NOISE, good=(1, 0.5, np.float64(3))),
    *rows("calibrate", "delta", lambda v: calibrate(delta=v), bad=(*NO_DELTA, 0, None), good=(1e-5,)),
    *rows("calibrate", "rounds", lambda v: calibrate(rounds=v), bad=(*NO_WHOLE, 0, -1), good=(1, np.int64(2))),
    *rows("calibrate", "sampling", lambda v: calibrate(sampling=v), bad=NO_SAMPLING, good=SAMPLING[:2]),
    *rows(
        "calibrate",
        "mechanism",
        lambda v: calibrate(mechanism=v),
        bad=(*NO_WORD, "response"),
        good=("gaussian", "laplace", "tree", "skellam", "discrete-gaussian"),
    ),
    *rows("calibrate", "accountant", lambda v: calibrate(accountant=v), bad=(*NO_WORD, "prv"), good=BY),
    *rows(
        "spent",
        "spends",
        lambda v: co.spent(v, 1e-5),
        bad=(None, 1, "x", b"x", [1], [None], ["x"], Thing(), [{"noise": 1.0}], {"mechanism": "gaussian"}, int),
        good=([], (), SPEND, [SPEND], [{"mechanism": "laplace", "noise": 3.0}], iter([SPEND])),
    ),
    *rows("spent", "delta", lambda v: co.spent(SPEND, v), bad=(*NO_DELTA, None), good=(0, 1e-5, 0.5)),
    *rows(
        "spent",
        "epsilon",
        lambda v: co.spent(SPEND, epsilon=v),
        bad=(*NONE_NUMBERS, -1, float("inf")),
        good=(0, 1, 0.5),
    ),
    *rows("spent", "accountant", lambda v: co.spent(SPEND, 1e-5, accountant=v), bad=(*NO_WORD, "prv"), good=BY),
    *rows(
        "spent",
        "adjacency",
        lambda v: co.spent(SPEND, 1e-5, adjacency=v),
        bad=[v for v in NO_WORD if v is not None],
        good=(None, "add-remove", "replace-one"),
    ),
    *rows("spent", "both", lambda v: co.spent(SPEND, 1e-5, epsilon=v), bad=(1.0,), says="both"),
    *rows(
        "spent",
        "local",
        lambda v: co.spent(co.Spend("response", 1.0), 1e-5, adjacency=v),
        bad=("add-remove",),
        good=("replace-one",),
        says="adjacency",
    ),
    *rows("spent", "mechanism", lambda v: bare(mechanism=v), bad=NO_WORD, good=("gaussian", "laplace", "tree")),
    *rows("spent", "noise", lambda v: bare(noise=v), bad=(*NONE_NUMBERS, -1, float("inf")), good=(0, 1, 0.5)),
    *rows("spent", "rate", lambda v: bare(rate=v), bad=(*NONE_NUMBERS, 0, -1, 1.5), good=(1, 0.5)),
    *rows("spent", "count", lambda v: bare(count=v), bad=(*NO_WHOLE, -1), good=(0, 3, np.int64(2))),
    *rows("spent", "unit", lambda v: bare(unit=v), bad=(*NO_WORD, "people"), good=UNIT),
    *rows("spent", "sampling", lambda v: bare(sampling=v), bad=NO_WORD, good=("poisson", "fixed", "none")),
    *rows("spent", "who", lambda v: bare(who=v), bad=(None, 1, b"ada", [], Thing()), good=("", "ada", "ada\nbob")),
    *rows("Budget", "epsilon", lambda v: budget(epsilon=v), bad=(*NONE_NUMBERS, 0, -1), good=(1, 0.5, float("inf"))),
    *rows("Budget", "delta", lambda v: budget(delta=v), bad=(*NO_DELTA, None), good=(0, 1e-5)),
    *rows("Budget", "accountant", lambda v: budget(accountant=v), bad=(*NO_WORD, "prv"), good=BY),
    *rows("Privacy", "epsilon", lambda v: privacy(epsilon=v), good=(0.0, 1.0, float("inf"))),
    *rows("Privacy", "delta", lambda v: privacy(delta=v), good=(0.0, 1e-5)),
    *rows("Privacy", "unit", lambda v: privacy(unit=v), good=UNIT),
    *rows("Privacy", "adjacency", lambda v: privacy(adjacency=v), good=("add-remove", "replace-one")),
    *rows("Privacy", "accountant", lambda v: privacy(accountant=v), good=(*BY, "pure")),
    *rows("Privacy", "sampling", lambda v: privacy(sampling=v), good=("no sampling",)),
    *rows("Privacy", "who", lambda v: privacy(who=v), good=("", "ada")),
)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_accounting(row, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hold(row, tmp_path)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that was kept."""
    model = co.Linear(inputs=4, classes=2)
    data = np.eye(4, dtype="float32"), np.array([0, 0, 1, 1])
    folder = tmp_path_factory.mktemp("runs") / "run"
    co.Collaboration(co.FedAvg(model), {"a": co.Trainer(model, data)}).run(1, folder=folder)
    return folder


def audits(run):
    """Rows for the delta of an audit."""
    yield from rows(
        "audit",
        "delta",
        lambda v: co.audit(run, delta=v),
        bad=(*NO_DELTA, None),
        good=(0, 1e-5, np.float64(1e-6)),
    )


LATER = (audits,)
"""Rows that want a run that was kept."""


def test_the_delta_of_an_audit(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for row in audits(run):
        hold(row, tmp_path)
