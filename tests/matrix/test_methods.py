"""Methods and their participants, hub optimizers, combiners: every setting."""

import numpy as np
import pytest
from matrix_law import NO_FLAG, NO_WHOLE, NO_WORD, NONE_NUMBERS, NUMBERS, WHOLE, Thing, hold, rows

import comity as co

INF = float("inf")
X, Y = np.eye(4, dtype="float32"), np.array([0, 0, 1, 1])
MODEL = co.Linear(inputs=4, classes=2)
SITES = {"a": co.Trainer(MODEL, (X, Y)), "b": co.Trainer(MODEL, (X, Y))}
NO_POSITIVE = (*NONE_NUMBERS, 0, -1, INF, -INF)
NO_DECAY = (*NONE_NUMBERS, -0.1, 1, INF)
NO_MODEL = (None, 1, "linear", [], Thing(), co.Linear, len, SITES["a"])
NO_COHORT = {"none": (), "text": "ab", "number": 5, "one": co.Contribution("delta", X), "things": [1, 2, 3]}


def of(kind, name, *given):
    return lambda v: getattr(co, kind)(*given, **{name: v})


def trained(kind, name):
    """A participant with a setting, in a run."""
    return lambda v: getattr(co, kind)(MODEL, (X, Y), **{name: v})


OPTIMIZERS = [
    row
    for kind, names in {
        "Momentum": ("rate",),
        "Adagrad": ("rate", "tau"),
        "Adam": ("rate", "tau"),
        "Yogi": ("rate", "tau"),
    }.items()
    for name in names
    for row in rows(kind, name, of(kind, name), bad=NO_POSITIVE, good=NUMBERS)
] + [
    row
    for kind, names in {
        "Momentum": ("beta",),
        "Adagrad": ("beta1",),
        "Adam": ("beta1", "beta2"),
        "Yogi": ("beta1", "beta2"),
    }.items()
    for name in names
    for row in rows(kind, name, of(kind, name), bad=NO_DECAY, good=(0, 0.9, np.float32(0.5)))
]
METHODS = (
    *rows("FedAvg", "model", lambda v: co.FedAvg(v), bad=NO_MODEL, good=(MODEL,)),
    *rows(
        "FedAvg",
        "optimizer",
        of("FedAvg", "optimizer", MODEL),
        bad=(None, 1, "adam", [], Thing(), co.Adam, len, MODEL),
        good=(co.Adam(), co.Momentum(0.5, 0.9), co.Yogi(), co.Adagrad()),
    ),
    *rows("FedAvg", "bound", of("FedAvg", "bound", MODEL), bad=(*NONE_NUMBERS, 0, -1), good=(*NUMBERS, INF)),
    *rows("FedAvg", "send", of("FedAvg", "send", MODEL), bad=NO_WORD, good=("delta", "model")),
    *rows("FedSGD", "model", lambda v: co.FedSGD(v), bad=NO_MODEL, good=(MODEL,)),
    *rows("FedSGD", "rate", of("FedSGD", "rate", MODEL), bad=NO_POSITIVE, good=NUMBERS),
    *rows("FedSGD", "bound", of("FedSGD", "bound", MODEL), bad=(*NONE_NUMBERS, 0, -1), good=(*NUMBERS, INF)),
    *rows("Trainer", "send", trained("Trainer", "send"), bad=NO_WORD, good=("delta", "model")),
    *rows("FedProx", "mu", trained("FedProx", "mu"), bad=(*NONE_NUMBERS, -1, INF), good=(0, *NUMBERS)),
    *rows(
        "FedProx", "epochs", trained("FedProx", "epochs"), bad=(*NONE_NUMBERS[1:], -1, INF), good=(None, 0, *NUMBERS)
    ),
    *rows("Ditto", "strength", trained("Ditto", "strength"), bad=(*NONE_NUMBERS, -1, INF), good=(0, *NUMBERS)),
    *rows("Ditto", "epochs", trained("Ditto", "epochs"), bad=(*NONE_NUMBERS[1:], -1, INF), good=(None, 0, *NUMBERS)),
    *rows(
        "GradientTrainer",
        "data",
        lambda v: co.Collaboration(co.FedSGD(MODEL), {"a": co.GradientTrainer(MODEL, v)}).run(1),
        bad={"lengths": (X, Y[:2]), "NaN": (X * np.nan, Y), "class": (X, Y + 1), "wide": (X[:, :3], Y)},
        good={"fits": (X, Y)},
        says="data of participant 'a'",
    ),
    *rows(
        "Query",
        "combiner",
        of("Query", "combiner", {"ask": "x"}),
        bad=(None, 1, "mean", [], Thing(), co.Mean, len),
        good=(co.Mean(), co.Collect()),
    ),
    *rows(
        "Query",
        "spec",
        of("Query", "spec", {"ask": "x"}),
        bad=(None, 1, "any", [], Thing(), co.Spec, len),
        good=(co.Spec(co.Leaf()),),
    ),
    *rows(
        "Query",
        "question",
        lambda v: co.Collaboration(co.Query(v), {}),
        bad=(Thing(), len, [1], {1: 2}, 1j),
        good=(None, 1, "x", b"x", {}, {"a": X}, X, 2.5),
    ),
    *rows(
        "Region",
        "collaboration",
        co.Region,
        bad=(None, 1, "x", [], SITES, Thing(), co.Collaboration, len),
        good=(co.Collaboration(co.FedAvg(MODEL), SITES),),
    ),
    *rows(
        "Region",
        "listen",
        lambda v: co.Region(co.Collaboration(co.FedAvg(MODEL), SITES), v),
        bad=(1, "x", [], Thing(), int),
        good=(None, len),
    ),
)
COMBINERS = (
    *rows("Mean", "uniform", of("Mean", "uniform"), bad=NO_FLAG, good=(True, False, np.bool_(True))),
    *rows("Mean", "public", of("Mean", "public"), bad=NO_FLAG, good=(True, False, np.bool_(True))),
    *rows("Mean", "both", lambda v: co.Mean(uniform=v, public=v), bad=(True,), says="uniform=True or public=True"),
    *rows("Mean", "cap", of("Mean", "cap"), bad=(*NONE_NUMBERS, 0, -1), good=(*NUMBERS, INF)),
    *rows("TrimmedMean", "f", of("TrimmedMean", "f"), bad=(*NO_WHOLE, -1), good=WHOLE),
    *rows(
        "TrimmedMean",
        "trim",
        of("TrimmedMean", "trim"),
        bad=(*NONE_NUMBERS[1:], -0.1, 0.5, INF),
        good=(None, 0, 0.2, np.float32(0.2)),
    ),
    *rows("Krum", "f", of("Krum", "f"), bad=(*NO_WHOLE, -1), good=WHOLE),
    *rows("GeometricMedian", "steps", of("GeometricMedian", "steps"), bad=(*NO_WHOLE, 0, -1), good=WHOLE),
    *rows(
        "GeometricMedian",
        "tolerance",
        of("GeometricMedian", "tolerance"),
        bad=(*NONE_NUMBERS, 0, -1, INF),
        good=(0.1, np.float32(0.1)),
    ),
    *rows("GeometricMedian", "uniform", of("GeometricMedian", "uniform"), bad=NO_FLAG, good=(True, np.bool_(False))),
    *rows("Median", "nothing", lambda v: co.Median(), good=(None,)),
    *rows(
        "Vote",
        "votes",
        lambda v: co.Vote().lift(co.Contribution("label", v)),
        says="[Vv]ote",
        bad=(None, 1, "a", X, {}, {"votes": "a"}, {"votes": Y}, {"votes": X.astype(str)}, {"votes": X * np.nan}),
        good={"one hot": {"votes": X}, "ints": {"votes": X.astype(int)}},
    ),
    *rows(
        "Mean",
        "value",
        lambda v: co.Mean().lift(co.Contribution("delta", v, 2.0)),
        bad=("text", b"ab", None, {"a": "b"}),
        good=(X, 1.5, {"a": X, "b": {"c": Y}}),
        says="numbers",
    ),
    *rows("Collect", "value", lambda v: co.Collect().lift(co.Contribution("delta", v)), good=("text", None, X)),
)
TESTING = (
    *rows(
        "testing",
        "check_combiner",
        co.testing.check_combiner,
        bad=(None, 1, "mean", [], Thing(), co.Mean, len),
        says="combiner",
    ),
    *rows("testing", "example", lambda v: co.testing.check_combiner(co.Mean(), v), bad=NO_COHORT, says="example"),
    *rows(
        "testing",
        "check_method",
        lambda v: co.testing.check_method(v, SITES),
        says="method",
        bad=(None, 1, "avg", [], Thing(), co.FedAvg, len),
    ),
    *rows(
        "testing",
        "participants",
        lambda v: co.testing.check_method(co.FedAvg(MODEL), v),
        bad=(None, 1, "a", [], {}, Thing()),
    ),
    *rows(
        "testing",
        "rounds",
        lambda v: co.testing.check_method(co.FedAvg(MODEL), SITES, rounds=v),
        bad=(*NO_WHOLE, 0, -1),
        good=(1,),
    ),
    *rows(
        "testing",
        "check_transform",
        co.testing.check_transform,
        bad=(None, 1, "x", [], Thing(), co.Mean, len),
        says="transform",
    ),
)


@pytest.mark.parametrize("row", [*OPTIMIZERS, *METHODS, *COMBINERS, *TESTING], ids=str)
def test_parts(row, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hold(row, tmp_path)
