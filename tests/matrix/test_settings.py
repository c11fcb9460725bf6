"""Parts that hold plain settings: methods, combiners, selections, engines."""

import numpy as np
import pytest
from matrix_law import NO_WHOLE, NO_WORD, NONE_NUMBERS, NUMBERS, WHOLE, Thing, hold, rows

import comity as co

MODEL = co.Linear(inputs=2, classes=2)
INF = float("inf")
NOT_FRACTION = (*NONE_NUMBERS, -0.1, 1.1, INF, -INF)
NO_POSITIVE = (*NONE_NUMBERS, 0, -1, -INF)


def linear(name):
    return lambda v: co.Linear(**{"inputs": 2, "classes": 2, name: v})


def mlp(name):
    return lambda v: co.MLP(**{"inputs": 2, "classes": 2, name: v})


ROWS = (
    *rows("Linear", "inputs", linear("inputs"), bad=(*NO_WHOLE, 0, -1), good=WHOLE),
    *rows("Linear", "classes", linear("classes"), bad=(*NO_WHOLE, 1, -1), good=(0, 2, np.int64(3))),
    *rows("Linear", "rate", linear("rate"), bad=(*NONE_NUMBERS, -1, INF), good=(0, *NUMBERS)),
    *rows("Linear", "momentum", linear("momentum"), bad=(*NONE_NUMBERS, -1, 1, INF), good=(0, 0.9, np.float32(0.9))),
    *rows("Linear", "decay", linear("decay"), bad=(*NONE_NUMBERS, -1, INF), good=(0, *NUMBERS)),
    *rows("Linear", "batch", linear("batch"), bad=(*NO_WHOLE, 0, -1), good=(*WHOLE, 10**30)),
    *rows("Linear", "epochs", linear("epochs"), bad=(*NONE_NUMBERS, -1, INF), good=(0, *NUMBERS)),
    *rows("MLP", "inputs", mlp("inputs"), bad=(*NO_WHOLE, 0, -1), good=WHOLE),
    *rows("MLP", "classes", mlp("classes"), bad=(*NO_WHOLE, 1, -1), good=(0, 2, np.int64(3))),
    *rows(
        "MLP",
        "hidden",
        mlp("hidden"),
        bad=(None, 3, "ab", [0], (-1,), (1.5,), (True,), ("a",), Thing(), tuple),
        good=((), (3,), [3, 4], (np.int64(3),)),
    ),
    *rows("MLP", "rate", mlp("rate"), bad=(*NONE_NUMBERS, -1, INF), good=NUMBERS),
    *rows("MLP", "momentum", mlp("momentum"), bad=(*NONE_NUMBERS, -1, 1), good=(0, 0.9)),
    *rows("MLP", "decay", mlp("decay"), bad=(*NONE_NUMBERS, -1, INF), good=NUMBERS),
    *rows("MLP", "batch", mlp("batch"), bad=(*NO_WHOLE, 0, -1), good=WHOLE),
    *rows("MLP", "epochs", mlp("epochs"), bad=(*NONE_NUMBERS, -1, INF), good=NUMBERS),
    *rows("everyone", "nothing", lambda v: co.everyone(), good=(None,)),
    *rows(
        "sample",
        "size",
        co.sample,
        bad=(*NONE_NUMBERS, 0, -1, 0.0, -0.5, 1.5, INF, np.float64(2.0)),
        good=(1, 5, 0.1, 1.0, np.int64(3), np.float32(0.5), 10**9),
    ),
    *rows("poisson", "rate", co.poisson, bad=(*NOT_FRACTION, 0), good=(0.1, 1, 1.0, np.float32(0.5))),
    *rows("every", "rounds", co.every, bad=(*NO_WHOLE, 0, -1), good=(*WHOLE, 10**30)),
    *rows(
        "every",
        "select",
        lambda v: co.every(2, v),
        bad=(1, True, "sample", [], {}, {"hub": ["a"]}, Thing(), type(co.everyone()), co.everyone, len),
        good=(None, co.everyone(), co.sample(0.5), co.poisson(0.5)),
    ),
    *rows("Local", "executor", lambda v: co.Local(executor=v), bad=NO_WORD[1:], good=(None, "sequential", "batched")),
    *rows("Local", "chunk", lambda v: co.Local("batched", chunk=v), bad=(*NO_WHOLE[1:], 0, -1), good=(None, *WHOLE)),
    *rows("Local", "workers", lambda v: co.Local(workers=v), bad=(*NO_WHOLE, 0, -1), good=WHOLE),
    *rows(
        "Ray", "address", lambda v: co.Ray(address=v), bad=(1, True, "", b"auto", [], Thing(), str), good=(None, "auto")
    ),
    *rows("Ray", "actors", lambda v: co.Ray(actors=v), bad=(*NO_WHOLE[1:], 0, -1), good=(None, *WHOLE)),
    *rows("Ray", "gpus", lambda v: co.Ray(gpus=v), bad=(*NONE_NUMBERS[1:], -1, INF), good=(None, 0, *NUMBERS)),
    *rows("Ray", "executor", lambda v: co.Ray(executor=v), bad=NO_WORD[1:], good=(None, "sequential", "batched")),
    *rows(
        "Population",
        "size",
        lambda v: co.Population(v, lambda i: co.Trainer(MODEL, None)),
        bad=(*NO_WHOLE, -1),
        good=(0, *WHOLE, 10**18),
    ),
    *rows(
        "Population",
        "make",
        lambda v: co.Population(3, v),
        bad=(None, 1, "f", [], {}, co.Trainer(MODEL, None)),
        good=(lambda i: None, dict),
    ),
)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_settings(row, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hold(row, tmp_path)


@pytest.mark.parametrize(
    ("plain", "scalar"),
    [
        (
            co.Linear(2, 2, batch=3, rate=0.5),
            co.Linear(np.int64(2), np.int8(2), batch=np.uint8(3), rate=np.float64(0.5)),
        ),
        (co.sample(3), co.sample(np.int64(3))),
        (co.sample(0.5), co.sample(np.float32(0.5))),
        (co.poisson(0.5), co.poisson(np.float64(0.5))),
        (co.every(3), co.every(np.int64(3))),
        (co.Local(workers=1), co.Local(workers=np.int64(1))),
        (co.Population(3, len), co.Population(np.int64(3), len)),
    ],
    ids=lambda x: type(x).__name__,
)
def test_a_numpy_scalar_is_as_good_as_a_plain_number(plain, scalar):
    assert repr(plain) == repr(scalar)
