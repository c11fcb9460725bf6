"""Personal tickets: every setting of FedLTN, LotteryFL and their trainers."""

import numpy as np
import pytest
from matrix_law import NO_WORD, NONE_NUMBERS, NUMBERS, Thing, hold, rows

import comity as co

INF = float("inf")
X, Y = np.eye(4, dtype="float32"), np.array([0, 0, 1, 1])
MODEL, SPLIT = co.MLP(4, 2, hidden=(3,)), (X, Y)
NO_MODEL = (None, 1, "linear", [], Thing(), co.MLP, len, co.TicketTrainer(MODEL, SPLIT))
NO_POSITIVE = (*NONE_NUMBERS, 0, -1, INF, -INF)
NO_SHARE = (*NONE_NUMBERS, -0.1, 1.1, INF)
SHARES = (0, 1, 0.5, np.float32(0.5), np.int64(1))
WHO = ("TicketTrainer", "LotteryTrainer")


def of(kind, name, *given):
    return lambda v: getattr(co, kind)(*given, **{name: v})


def trainer(kind, name):
    return of(kind, name, MODEL, SPLIT)


def ran(hub, kind):
    """A round with these data."""
    return lambda v: co.Collaboration(hub(MODEL), {"a": kind(MODEL, v)}).run(1)


HUBS = (
    *rows("FedLTN", "model", co.FedLTN, bad=NO_MODEL, good=(MODEL,)),
    *rows("FedLTN", "momentum", of("FedLTN", "momentum", MODEL), bad=(*NONE_NUMBERS, -0.1, 1, INF), good=(0, 0.9)),
    *rows("FedLTN", "rate", of("FedLTN", "rate", MODEL), bad=NO_POSITIVE, good=NUMBERS),
    *rows("FedLTN", "norms", of("FedLTN", "norms", MODEL), bad=NO_WORD, good=("local", "average")),
    *rows("FedLTN", "bound", of("FedLTN", "bound", MODEL), bad=(*NONE_NUMBERS, 0, -1), good=(*NUMBERS, INF)),
    *rows("FedLTN", "start", of("FedLTN", "start", MODEL), bad=(1, "x", [], {"w": X}, Thing()), good=(None,)),
    *rows("LotteryFL", "model", co.LotteryFL, bad=NO_MODEL, good=(MODEL,)),
    *rows("LotteryFL", "bound", of("LotteryFL", "bound", MODEL), bad=(*NONE_NUMBERS, 0, -1), good=(*NUMBERS, INF)),
    *rows("LotteryFL", "start", of("LotteryFL", "start", MODEL), bad=(1, "x", [], {"w": X}, Thing()), good=(None,)),
)
TRAINERS = [
    row
    for kind in WHO
    for row in (
        *rows(kind, "keep", trainer(kind, "keep"), bad=(*NO_SHARE, 0), good=(1, 0.06, np.float32(0.5))),
        *rows(kind, "rate", trainer(kind, "rate"), bad=(*NO_SHARE, 0, 1), good=(0.25, np.float32(0.5))),
        *rows(kind, "threshold", trainer(kind, "threshold"), bad=NO_SHARE, good=SHARES),
        *rows(kind, "scope", trainer(kind, "scope"), bad=NO_WORD, good=("global", "layer")),
        *rows(kind, "epochs", trainer(kind, "epochs"), bad=(*NONE_NUMBERS[1:], -1, INF), good=(None, 0, *NUMBERS)),
    )
]
OWN = (
    *rows("TicketTrainer", "tolerance", trainer("TicketTrainer", "tolerance"), bad=NO_SHARE, good=SHARES),
    *rows("TicketTrainer", "drop", trainer("TicketTrainer", "drop"), bad=(*NO_SHARE[1:],), good=(None, *SHARES)),
    *rows("LotteryTrainer", "start", trainer("LotteryTrainer", "start"), bad=(1, "x", [], {"w": X}), good=(None,)),
    *rows(
        "TicketTrainer",
        "data",
        ran(co.FedLTN, co.TicketTrainer),
        bad={"lengths": (X, Y[:2]), "NaN": (X * np.nan, Y), "class": (X, Y + 1), "wide": (X[:, :3], Y)},
        good={"fits": SPLIT},
        says="data of participant 'a'",
    ),
    *rows(
        "LotteryTrainer",
        "data",
        ran(co.LotteryFL, co.LotteryTrainer),
        bad={"lengths": (X, Y[:2]), "NaN": (X * np.nan, Y), "class": (X, Y + 1), "wide": (X[:, :3], Y)},
        good={"fits": SPLIT},
        says="data of participant 'a'",
    ),
)


@pytest.mark.parametrize("row", [*HUBS, *TRAINERS, *OWN], ids=str)
def test_it_works_or_is_refused_in_plain_words(row, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hold(row, tmp_path)
