"""DP-SGD at a participant: every setting of PrivateTrainer."""

import numpy as np
import pytest
from matrix_law import NONE_NUMBERS, NUMBERS, Thing, hold, rows

import comity as co

INF = float("inf")
X, Y = np.eye(4, dtype="float32"), np.array([0, 0, 1, 1])
MODEL = co.Linear(inputs=4, classes=2)
USUAL = {"clip": 1.0, "noise": 1.0, "rate": 0.5}
NO_POSITIVE = (*NONE_NUMBERS, 0, -1, INF, -INF)
NO_MODEL = (None, 1, "linear", [], Thing(), co.Linear, len, co.Trainer(MODEL, (X, Y)))


def ran(**given):
    """Made, and asked for a round."""
    settings = {"model": MODEL, "data": (X, Y), **USUAL, **given}
    who = co.PrivateTrainer(settings.pop("model"), settings.pop("data"), **settings)
    return co.Collaboration(co.FedAvg(MODEL), {"a": who}).run(1)


ROWS = (
    *rows("PrivateTrainer", "model", lambda v: ran(model=v), bad=NO_MODEL, good=(MODEL,)),
    *rows(
        "PrivateTrainer",
        "data",
        lambda v: ran(data=v),
        bad={"columns": (X[:, :2], Y), "rows": (X, Y[:2]), "none": (X[:0], Y[:0]), "classes": (X, Y + 5)},
        good={"fits": (X, Y), "lists": (X.tolist(), Y.tolist())},
        says=".",
    ),
    *rows("PrivateTrainer", "clip", lambda v: ran(clip=v), bad=NO_POSITIVE, good=NUMBERS),
    *rows("PrivateTrainer", "noise", lambda v: ran(noise=v), bad=NO_POSITIVE, good=NUMBERS),
    *rows("PrivateTrainer", "rate", lambda v: ran(rate=v), bad=(*NO_POSITIVE, 1.5), good=NUMBERS),
    *rows("PrivateTrainer", "epochs", lambda v: ran(epochs=v), bad=(*NO_POSITIVE, 0.1), good=(*NUMBERS, 2)),
)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_it_works_or_says_what_must_hold(row, tmp_path):
    hold(row, tmp_path)
