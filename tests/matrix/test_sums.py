"""What is learnt from sums: trees and ridge with their feature maps; robust combiners."""

import numpy as np
import pandas as pd
import pytest
from matrix_law import NO_WHOLE, NO_WORD, NONE_NUMBERS, NUMBERS, WHOLE, Thing, hold, rows

import comity as co

INF = float("inf")
NAN = float("nan")
X = np.random.default_rng(0).normal(size=(8, 2))
Y = np.array([0, 1] * 4)
BAD_X = np.array(X)
BAD_X[0, 0] = NAN
INF_X = np.where(np.isnan(BAD_X), INF, BAD_X)
NO_POSITIVE = (*NONE_NUMBERS, 0, -1, INF)
NOT_NEGATIVE = (*NONE_NUMBERS, -1, INF)
SHARE = (*NONE_NUMBERS, -0.1, 1.1, INF)
COLUMNS = co.ColumnFeatures(2)
IMAGES = np.random.default_rng(0).random((4, 6, 6))
MODEL = co.MLP(2, 2, hidden=(3,))
PARAMS = MODEL.init(co.Round("matrix", 0))
MADE = {
    "Boosting": {"inputs": 2, "classes": 2, "trees": 1, "depth": 1},
    "Ridge": {"features": COLUMNS, "classes": 2},
    "ColumnFeatures": {"inputs": 2},
    "FourierFeatures": {"inputs": 2},
    "TableFeatures": {"knots": ((0.0,), None), "levels": (0, 2)},
    "PatchFeatures": {"public": IMAGES, "count": 16},
    "ModelFeatures": {"model": MODEL, "params": PARAMS, "tap": "hidden0", "width": 3},
    "CenteredClipping": {"tau": 1.0},
}


def made(kind, name):
    return lambda v: getattr(co, kind)(**{**MADE.get(kind, {}), name: v})


def settings(kind, table):
    return [
        row for name, (bad, good) in table.items() for row in rows(kind, name, made(kind, name), bad=bad, good=good)
    ]


def boosted(name, classes=2):
    """A short run of trees with this data; what only the rows show has no folder to leave behind."""

    def go(v):
        site = co.BoostingTrainer(**{"data": (X, Y), name: v})
        method = co.Boosting(2, classes, trees=1, depth=1)
        co.Collaboration(method, {"a": site}, stop=method.stop, retries=0).run(method.rounds)

    return go


def ridged(name, classes=2):
    def go(v):
        site = co.RidgeTrainer(**{"features": COLUMNS, "data": (X, Y), name: v})
        co.Collaboration(co.Ridge(COLUMNS, classes), {"a": site}, retries=0).run(1)

    return go


TREES = co.Boosting(2, 2, trees=1, depth=1)
GROWN = co.Collaboration(TREES, {"a": co.BoostingTrainer((X, Y))}, stop=TREES.stop).run(TREES.rounds).shared
SOLVED = co.Collaboration(co.Ridge(COLUMNS, 2), {"a": co.RidgeTrainer(COLUMNS, (X, Y))}).run(1).shared
BAD_DATA = {
    "None": None,
    "number": 5,
    "text": "ab",
    "array": X,
    "triple": (X, Y, Y),
    "nothing": (None, None),
    "words": ("ab", "cd"),
    "scalars": (1, 2),
    "lengths": (X, Y[:-1]),
    "flat": (X[:, 0], Y),
    "wide": (X[:, [0, 1, 1]], Y),
    "texts": (np.full((8, 2), "a"), Y),
    "objects": (np.array([["a", {}]] * 8, object), Y),
    "ragged": ([[1.0], [1.0, 2.0]] * 4, Y),
    "complex": (X.astype(complex), Y),
    "class beyond": (X, Y + 1),
    "class below": (X, Y - 1),
    "half": (X, Y + 0.5),
    "label text": (X, np.array(["a", "b"] * 4)),
    "label objects": (X, np.array([0, None] * 4, object)),
    "label columns": (X, np.zeros((8, 3))),
    "label NaN": (X, np.where(Y, NAN, 0.0)),
}
GOOD_DATA = {
    "arrays": (X, Y),
    "lists": (X.tolist(), Y.tolist()),
    "list pair": [X, Y],
    "ints": ((X * 9).astype(int), Y),
    "float labels": (X, Y.astype(float)),
    "flags": (X > 0, Y > 0),
    "frame": (pd.DataFrame(X), pd.Series(Y)),
}
NOT_BOOSTING = {"None", "number", "text", "triple", "words", "texts", "objects", "ragged", "complex", "label text"}
"""What boosting does not refuse in words of its own yet; nor at test, valid, and x that is no array."""
BOOSTING_DATA = {k: v for k, v in BAD_DATA.items() if k not in NOT_BOOSTING}
HELD = {k: BAD_DATA[k] for k in ("number", "text", "triple", "lengths", "words", "label columns")}
BAD_X_ALONE = {
    "None": None,
    "number": 1,
    "text": "x",
    "flat": X[0],
    "wide": X[:, [0, 1, 1]],
    "texts": np.full((2, 2), "a"),
    "ragged": [[1.0], [1.0, 2.0]],
}
BAD_START = {
    "number": 1,
    "text": "run",
    "nothing": {},
    "Thing": Thing(),
    "lacks": {k: v for k, v in GROWN.items() if k != "edges"},
    "of one input": {**GROWN, "widths": GROWN["widths"][:1]},
    "deeper": {**GROWN, "value": np.zeros((1, 1, 8), "float32")},
    "text inside": {**GROWN, "value": "ab"},
}
LEARNERS = [
    *settings(
        "Boosting",
        {
            "inputs": ((*NO_WHOLE, 0, -1, 10**6), (*WHOLE, 30)),
            "classes": ((*NO_WHOLE, 1, -1), (0, 2, np.int64(3))),
            "trees": ((*NO_WHOLE, 0, -1), WHOLE),
            "rate": ((*NONE_NUMBERS, 0, 1.1), NUMBERS),
            "depth": ((*NO_WHOLE, 0, 13), (1, 12)),
            "bins": ((*NO_WHOLE, 1, 256), (2, 255)),
            "l2": (NOT_NEGATIVE, (0, *NUMBERS)),
            "least": (NOT_NEGATIVE, (0, *NUMBERS)),
            "gain": (NOT_NEGATIVE, (0, *NUMBERS)),
            "patience": ((*NO_WHOLE, -1), (0, *WHOLE)),
            "start": (BAD_START, {"none": None, "grown": GROWN}),
            "edges": (
                (1, "ab", [], [[1.0]], [["a"], [1]], [[NAN], []], [[INF], []], [None, None], {0: [1], 1: [2]}, Thing()),
                (None, [[], []], [[0.0, 1.0], [2]], (np.zeros(3), [])),
            ),
        },
    ),
    *settings(
        "Ridge",
        {
            "features": ((None, 1, "columns", [], Thing(), co.ColumnFeatures, len, MODEL), (COLUMNS,)),
            "classes": ((*NO_WHOLE, 1, -1), (0, 2, np.int64(3))),
            "l2": (
                (None, 1.0, "ab", [], [0], [-1], [INF], ["a"], [True], {1: 2}, Thing()),
                ([1.0], (0.1, 1), [np.float32(0.5)], np.array([0.5])),
            ),
            "folds": ((*NO_WHOLE, 1, 0), (2, np.int64(3))),
            "reach": ((*NONE_NUMBERS, 0, -1), (*NUMBERS, INF)),
            "dtype": (NO_WORD, ("float32", "float64")),
        },
    ),
    *rows("RidgeTrainer", "features", ridged("features"), bad=(None, 1, "x", [], Thing(), co.ColumnFeatures, MODEL)),
    *(
        row
        for kind, run, bad, held in (
            ("BoostingTrainer", boosted, BOOSTING_DATA, {}),
            ("RidgeTrainer", ridged, BAD_DATA, HELD),
        )
        for row in (
            *rows(kind, "data", run("data"), bad=bad, good=GOOD_DATA, says=r"\bdata\b|\bX\b|\by\b"),
            *rows(kind, "infinite", run("data"), bad={"inf label": (X, np.where(Y, INF, 0))}, says=r"\by\b"),
            *(
                row
                for name in ("test", "valid")
                for row in rows(
                    kind,
                    name,
                    run(name),
                    bad=held,
                    good={"none": None, "pair": (X, Y), "empty": (X[:0], Y[:0])},
                )
            ),
        )
    ),
    *rows("BoostingTrainer", "missing", boosted("data"), good={"NaN": (BAD_X, Y), "infinity": (INF_X, Y)}),
    *rows("RidgeTrainer", "missing", ridged("data"), bad={"NaN": (BAD_X, Y), "infinity": (INF_X, Y)}, says="X"),
    *rows("Ridge", "reach", ridged("data", 0), good={"numbers": (X, X[:, 0])}),
    *rows(
        "Boosting",
        "x",
        lambda v: TREES.predict(GROWN, v),
        bad={k: BAD_X_ALONE[k] for k in ("None", "flat", "wide")},
        good={"rows": X},
        says="X",
    ),
    *rows("Ridge", "x", lambda v: co.Ridge(COLUMNS, 2).predict(SOLVED, v), bad=BAD_X_ALONE, good={"rows": X}, says="X"),
    *rows(
        "Boosting",
        "shared",
        lambda v: TREES.predict(v, X),
        bad={"text": "x", "nothing": {}, "parameters": PARAMS},
        good={"grown": GROWN},
        says="[Tt]rees",
    ),
    *rows(
        "Ridge",
        "shared",
        lambda v: co.Ridge(COLUMNS, 2).predict(v, X),
        bad={
            "None": None,
            "text": "x",
            "nothing": {},
            "parameters": PARAMS,
            "wide": {**SOLVED, "weight": np.ones((2, 5))},
        },
        good={"solved": SOLVED},
        says="shared",
    ),
]
FEATURES = [
    *settings("ColumnFeatures", {"inputs": ((*NO_WHOLE, 0, -1), WHOLE), "bound": (NO_POSITIVE, NUMBERS)}),
    *settings(
        "FourierFeatures",
        {
            "inputs": ((*NO_WHOLE, 0, -1), WHOLE),
            "count": ((*NO_WHOLE, 0, -1), WHOLE),
            "length": (NO_POSITIVE, NUMBERS),
            "seed": (NO_WHOLE, (0, -1, np.int64(3))),
        },
    ),
    *settings(
        "TableFeatures",
        {
            "knots": (
                (None, 1, "ab", [], [0.0, None], [["a"], None], [[NAN], None], [None, None], Thing()),
                ([[0.0], None], ((), None), [[0, 1.5], None]),
            ),
            "levels": ((None, 1, "ab", [], [0], [0, -1], [0, 1.5], [0, "a"], [0, 0], Thing()), ([0, 3], (0, 1))),
            "bound": ((*NONE_NUMBERS, 0.5, INF), (1, 10.0)),
        },
    ),
    *settings(
        "PatchFeatures",
        {
            "public": (
                (
                    None,
                    1,
                    "x",
                    [],
                    X,
                    IMAGES[:1],
                    IMAGES[:, :2],
                    IMAGES * NAN,
                    IMAGES.astype(str),
                    [[1], [1, 2]],
                    Thing(),
                ),
                (IMAGES, IMAGES.reshape(4, 36), IMAGES.tolist()),
            ),
            "count": ((*NO_WHOLE, 0, 3), (4, 64)),
            "patch": ((*NO_WHOLE, 0, -1), (1, 5)),
            "parts": ((*NO_WHOLE, 0, -1), (1, 2)),
            "seed": (NO_WHOLE, (0, -1)),
        },
    ),
    *rows("PatchFeatures", "patch", made("PatchFeatures", "patch"), bad=(7,), says="patch"),
    *rows(
        "PatchFeatures", "x", lambda v: co.PatchFeatures(IMAGES, 16)(v), bad=(None, X, IMAGES[:, 1:], "x"), says="mages"
    ),
    *settings(
        "ModelFeatures",
        {
            "model": ((None, 1, "net", [], Thing(), co.MLP, len), (MODEL,)),
            "params": ((None, 1, "x", [X], X, Thing()), (PARAMS,)),
            "tap": ((None, 1, True, "", ["hidden0"], Thing()), ("hidden0",)),
            "width": ((*NO_WHOLE, 0, -1), WHOLE),
            "bound": (NO_POSITIVE, NUMBERS),
            "scale": (NO_POSITIVE, NUMBERS),
        },
    ),
    *(
        row
        for name, bad, says in (("tap", "zzz", "tap"), ("width", 5, "width"), ("params", {"w": X}, "parameters"))
        for row in rows(
            "ModelFeatures", name, lambda v, n=name: made("ModelFeatures", n)(v)(X), bad={"other": bad}, says=says
        )
    ),
    *(
        row
        for kind in ("ColumnFeatures", "FourierFeatures", "TableFeatures")
        for row in rows(
            kind, "x", lambda v, k=kind: getattr(co, k)(**MADE[k])(v), bad=BAD_X_ALONE, good={"rows": X}, says="X"
        )
    ),
]


def lowered(combiner):
    """Five who say something, of whom the last may say something else."""

    def go(v):
        said = [*([np.zeros(2)] * 6), v]
        cohort = [combiner.lift(co.Contribution("delta", x, sender=f"{i}")) for i, x in enumerate(said)]
        return combiner.lower(cohort, combiner.init(), co.Round("r", 0))

    return go


ROBUST = [
    *settings("MultiKrum", {"f": ((*NO_WHOLE, -1), (0, *WHOLE)), "m": ((*NO_WHOLE[1:], 0, -1), (None, *WHOLE))}),
    *settings("Bulyan", {"f": ((*NO_WHOLE, -1), (0, *WHOLE))}),
    *settings(
        "CenteredClipping",
        {"tau": ((*NONE_NUMBERS, 0, -1), (*NUMBERS, INF)), "iterations": ((*NO_WHOLE, 0, -1), WHOLE)},
    ),
    *settings("ReputationMean", {"reach": ((*NONE_NUMBERS, 0.5, INF), (1, 2.5)), "memory": (SHARE, (0, 1, 0.5))}),
    *(
        row
        for combiner in (co.MultiKrum(), co.Bulyan(), co.CenteredClipping(1.0), co.ReputationMean())
        for row in rows(
            type(combiner).__name__,
            "value",
            lowered(combiner),
            bad={
                "text": "a",
                "None": None,
                "shape": np.zeros(3),
                "names": {"x": np.zeros(2)},
                "texts": np.full(2, "a"),
            },
            good={"like the others": np.ones(2), "far": np.full(2, 1e300), "NaN": np.full(2, NAN)},
            says="numbers|shapes",
        )
    ),
]


@pytest.mark.parametrize("row", [*LEARNERS, *FEATURES, *ROBUST], ids=str)
def test_sums(row, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hold(row, tmp_path)
