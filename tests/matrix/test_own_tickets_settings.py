"""Personal tickets on a schedule: every setting."""

import numpy as np
import pytest
from matrix_law import NO_WHOLE, NO_WORD, NONE_NUMBERS, NUMBERS, WHOLE, Thing, hold, rows

import comity as co

INF = float("inf")
X, Y = np.eye(4, dtype="float32"), np.array([0, 0, 1, 1])
MODEL = co.MLP(inputs=4, classes=2, hidden=(5,))
ROUND = co.Round("", 0)
INIT = MODEL.init(ROUND)
STATE = co.PersonalTickets(MODEL, 4).init(ROUND)
CORED = co.PersonalTickets(MODEL, 4, core=0.5).init(ROUND)
TOLD = co.PersonalTickets(MODEL, 4).share(STATE, "", ROUND).value
OTHER = co.MLP(inputs=4, classes=2, hidden=(6,)).init(ROUND)
NO_MODEL = (None, 1, "mlp", [], Thing(), co.MLP, len)
SHARE = (*NONE_NUMBERS, -0.1, INF)


def ticket(name):
    return lambda v: co.PersonalTickets(MODEL, 4, **{name: v})


def trainer(name):
    return lambda v: co.PersonalTicketTrainer(MODEL, (X, Y), **{name: v})


def doubled(x, rng):
    return 2 * x


class Flat(co.Linear):
    """A model with nothing to prune."""

    def init(self, round):
        return {"bias": np.zeros(3, "float32")}


ROWS = (
    *rows("PersonalTickets", "model", lambda v: co.PersonalTickets(v, 4), bad=NO_MODEL, good=(MODEL, co.Linear(4, 2))),
    *rows(
        "PersonalTickets",
        "model",
        lambda v: co.PersonalTickets(v, 4),
        bad={"flat": Flat(4, 2)},
        says="'model' of PersonalTickets must have a weight of two dimensions",
    ),
    *rows("PersonalTickets", "rounds", lambda v: co.PersonalTickets(MODEL, v), bad=(*NO_WHOLE, 0, -1), good=WHOLE),
    *rows(
        "PersonalTickets", "core", ticket("core"), bad=(*SHARE, 1, 1.0), good=(0, 0.5, np.float32(0.99)), says="core"
    ),
    *rows("PersonalTickets", "core", ticket("core"), bad={"one": 1}, says=r"Use .*co\.Tickets|co\.Tickets does"),
    *rows("PersonalTickets", "density", ticket("density"), bad=(*SHARE, 0, 1.1), good=NUMBERS),
    *rows("PersonalTickets", "begin", ticket("begin"), bad=(*SHARE, 1), good=(0, 0.4, np.float32(0.1))),
    *rows("PersonalTickets", "by", ticket("by"), bad=(*SHARE, 1.1), good=(0, *NUMBERS)),
    *rows("PersonalTickets", "by", lambda v: co.PersonalTickets(MODEL, 4, begin=0.5, by=v), bad=(0.4,), good=(0.5,)),
    *rows("PersonalTickets", "momentum", ticket("momentum"), bad=(*SHARE, 1), good=(0, 0.9, np.float32(0.5))),
    *rows("PersonalTickets", "scope", ticket("scope"), bad=NO_WORD, good=("global", "layer")),
    *rows("PersonalTickets", "bound", ticket("bound"), bad=(*NONE_NUMBERS, 0, -1), good=(*NUMBERS, INF)),
    *rows(
        "PersonalTickets",
        "start",
        ticket("start"),
        says="start|fit the model",
        bad={
            "number": 1.0,
            "text": "x",
            "none of it": {},
            "other": OTHER,
            "other shared": {**TOLD, "params": OTHER},
            "with a core": CORED,
            "closed": {**STATE, "closed": "x"},
            "no Tree": {**STATE, "params": 1},
            "no velocity": {**STATE, "velocity": None},
            "no core": {**STATE, "core": None},
            "strange core": {**STATE, "core": 3},
            "NaN": {**INIT, "0.bias": INIT["0.bias"] * np.nan},
        },
        good={"parameters": INIT, "shared": TOLD, "state": STATE, "none": None},
    ),
    *rows(
        "PersonalTickets",
        "start",
        lambda v: co.PersonalTickets(MODEL, 4, core=0.5, start=v),
        says="start|fit the model",
        bad={
            "no core": STATE,
            "half a core": {**CORED, "core": {"0.weight": b"x"}},
            "no mask": {**CORED, "core": dict.fromkeys(CORED["core"], b"x")},
        },
        good={"state": CORED},
    ),
    *rows("PersonalTicketTrainer", "epochs", trainer("epochs"), bad=(*NONE_NUMBERS[1:], -1, INF), good=(None, 0, 2.5)),
    *rows(
        "PersonalTicketTrainer", "augment", trainer("augment"), bad=(1, "flip", [], Thing(), True), good=(None, doubled)
    ),
    *rows(
        "PersonalTicketTrainer",
        "augment",
        lambda v: co.PersonalTicketTrainer(MODEL, v, augment=doubled),
        bad={"one": (X,), "none": None, "lengths": (X, Y[:2])},
        says=r"'data' of PersonalTicketTrainer",
    ),
)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_personal_tickets_on_a_schedule(row, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hold(row, tmp_path)
