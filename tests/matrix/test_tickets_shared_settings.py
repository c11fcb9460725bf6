"""Shared tickets, their participants, and who goes first: every setting."""

import numpy as np
import pytest
from matrix_law import NO_WHOLE, NO_WORD, NONE_NUMBERS, NUMBERS, WHOLE, Thing, hold, rows

import comity as co

INF = float("inf")
X, Y = np.eye(4, dtype="float32"), np.array([0, 0, 1, 1])
MODEL = co.MLP(inputs=4, classes=2, hidden=(5,))
ROUND = co.Round("", 0)
INIT = MODEL.init(ROUND)
STATE = co.Tickets(MODEL, 4).init(ROUND)
OTHER = co.MLP(inputs=4, classes=2, hidden=(6,)).init(ROUND)
NO_MODEL = (None, 1, "mlp", [], Thing(), co.MLP, len)
NO_SELECT = (1, "all", [], Thing(), co.sample, co.ring())
SHARE = (*NONE_NUMBERS, -0.1, INF)


def ticket(name):
    return lambda v: co.Tickets(MODEL, 4, **{name: v})


def trainer(name):
    return lambda v: co.SharedTicketTrainer(MODEL, (X, Y), **{name: v})


def doubled(x, rng):
    return 2 * x


class Flat(co.Linear):
    """A model with nothing to prune."""

    def init(self, round):
        return {"bias": np.zeros(3, "float32")}


ROWS = (
    *rows("Tickets", "model", lambda v: co.Tickets(v, 4), bad=NO_MODEL, good=(MODEL, co.Linear(4, 2))),
    *rows("Tickets", "model", lambda v: co.Tickets(v, 4), bad={"flat": Flat(4, 2)}, says="two dimensions"),
    *rows("Tickets", "rounds", lambda v: co.Tickets(MODEL, v), bad=(*NO_WHOLE, 0, -1), good=WHOLE),
    *rows("Tickets", "density", ticket("density"), bad=(*SHARE, 0, 1.1), good=NUMBERS),
    *rows("Tickets", "begin", ticket("begin"), bad=(*SHARE, 1), good=(0, 0.4, np.float32(0.1))),
    *rows("Tickets", "by", ticket("by"), bad=(*SHARE, 1.1), good=(0, *NUMBERS)),
    *rows("Tickets", "by", lambda v: co.Tickets(MODEL, 4, begin=0.5, by=v), bad=(0.4,), good=(0.5, 0.6)),
    *rows("Tickets", "momentum", ticket("momentum"), bad=(*SHARE, 1), good=(0, 0.9, np.float32(0.5))),
    *rows("Tickets", "ema", ticket("ema"), bad=(*SHARE, 1), good=(0, 0.9, np.float32(0.5))),
    *rows("Tickets", "scope", ticket("scope"), bad=NO_WORD, good=("global", "layer")),
    *rows("Tickets", "bound", ticket("bound"), bad=(*NONE_NUMBERS, 0, -1), good=(*NUMBERS, INF)),
    *rows(
        "Tickets",
        "start",
        ticket("start"),
        says="start|fit the model",
        bad={
            "number": 1.0,
            "text": "x",
            "none of it": {},
            "other": OTHER,
            "other ticket": co.Tickets(co.MLP(inputs=4, classes=2, hidden=(6,)), 4).init(ROUND)["params"],
            "half": {**STATE, "params": {**STATE["params"], "mask": {}}},
            "closed": {**STATE, "closed": "x"},
            "no Tree": {**STATE, "params": 1},
            "no velocity": {**STATE, "velocity": None},
            "NaN": {**INIT, "0.bias": INIT["0.bias"] * np.nan},
            "NaN inside": {**STATE["params"], "rest": {k: v * np.nan for k, v in STATE["params"]["rest"].items()}},
        },
        good={"parameters": INIT, "ticket": STATE["params"], "state": STATE, "none": None},
    ),
    *rows("SharedTicketTrainer", "epochs", trainer("epochs"), bad=(*NONE_NUMBERS[1:], -1, INF), good=(None, 0, 2.5)),
    *rows(
        "SharedTicketTrainer", "augment", trainer("augment"), bad=(1, "flip", [], Thing(), True), good=(None, doubled)
    ),
    *rows(
        "SharedTicketTrainer",
        "augment",
        lambda v: co.SharedTicketTrainer(MODEL, v, augment=doubled),
        bad={"one": (X,), "none": None, "lengths": (X, Y[:2])},
        says=r"'data' of SharedTicketTrainer",
    ),
    *rows(
        "jumpstart",
        "first",
        lambda v: co.jumpstart(v, 3),
        bad=(None, 1, "ab", b"ab", [], (), ["a", 1], ["a", "a"], [""], {"a": 1}, {"a"}, Thing(), len),
        good=(["a"], ("a", "b")),
    ),
    *rows("jumpstart", "rounds", lambda v: co.jumpstart(["a"], v), bad=(*NO_WHOLE, 0, -1), good=WHOLE),
    *rows(
        "jumpstart",
        "among",
        lambda v: co.jumpstart(["a"], 3, among=v),
        bad=NO_SELECT,
        good=(None, co.sample(1), co.everyone()),
    ),
    *rows(
        "jumpstart",
        "then",
        lambda v: co.jumpstart(["a"], 3, then=v),
        bad=NO_SELECT,
        good=(None, co.sample(1), co.poisson(0.5)),
    ),
)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_shared_tickets(row, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hold(row, tmp_path)
