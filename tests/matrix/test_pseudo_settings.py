"""Pseudo-labels: every setting."""

import numpy as np
import pytest
from matrix_law import NO_FLAG, NO_WHOLE, NONE_NUMBERS, WHOLE, Thing, hold, rows

import comity as co

INF = float("inf")
X = np.random.default_rng(0).normal(size=(6, 4)).astype("float32")
Y = np.array([0, 1, 0, 1, 0, 1])
MLP = co.MLP(4, 2, hidden=(3,))
TRAINER = co.Trainer(MLP, (X, Y))


def of(name):
    return lambda v: co.PseudoLabels(**{"inner": TRAINER, "unlabelled": X, name: v})


def held(data):
    return co.PseudoLabels(co.Trainer(MLP, data), X)


PSEUDO = (
    *rows(
        "PseudoLabels",
        "inner",
        of("inner"),
        bad=(None, 1, "x", [], Thing(), co.Trainer, len, MLP, co.PseudoLabels(TRAINER, X), co.Contributor({"a": [1]})),
        good={
            "Trainer": TRAINER,
            "none": co.Trainer(MLP, None),
            "prox": co.FedProx(MLP, (X[:0], Y[:0])),
            "ticket": co.SharedTicketTrainer(MLP, None),
            "tuned": co.Tuned(TRAINER, ("none",)),
        },
    ),
    *rows("PseudoLabels", "inner", lambda v: of("inner")(co.Tuned(TRAINER, v)), bad=(("none", "all"),), says="'all'"),
    *rows(
        "PseudoLabels",
        "inner",
        held,
        bad={"text": "data", "lengths": (X, Y[:-1]), "wide": (X[:, :3], Y), "class beyond": (X, Y + 2), "one": (X,)},
        good={"few": (X, Y), "lists": (X.tolist(), Y.tolist())},
        says="data",
    ),
    *rows(
        "PseudoLabels",
        "unlabelled",
        of("unlabelled"),
        bad={
            "none": None,
            "text": "x",
            "words": ["a"],
            "empty": X[:0],
            "number": 3,
            "wide": X[:, :3],
            "NaN": X * np.nan,
            "infinite": X * INF,
            "pair": (X, Y),
        },
        good={"array": X, "one": X[:1], "lists": X.tolist(), "whole": X.astype(int)},
    ),
    *rows("PseudoLabels", "confidence", of("confidence"), bad=(*NONE_NUMBERS, 0, -1, 1.1, INF), good=(1, 0.5, 1e-6)),
    *rows("PseudoLabels", "recalibrate", of("recalibrate"), bad=NO_FLAG, good=(True, False, np.True_)),
    *rows("PseudoLabels", "balance", of("balance"), bad=(*NONE_NUMBERS, 0, -1), good=(1, 0.5, INF)),
    *rows("PseudoLabels", "trust", of("trust"), bad=(*NONE_NUMBERS, 0, -1, 1.1, INF), good=(1, 0.5, 1e-6)),
    *rows("PseudoLabels", "least", of("least"), bad=(*NO_WHOLE, 0, -1), good=WHOLE),
    *rows("PseudoLabels", "begin", of("begin"), bad=(*NO_WHOLE, -1), good=(0, *WHOLE)),
)


@pytest.mark.parametrize("row", PSEUDO, ids=str)
def test_a_setting_works_or_says_what_must_hold(row, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hold(row, tmp_path)
