"""Members that never leave home, the pools that combine them, an ensemble in one place, and what travels once."""

import numpy as np
import pytest
from matrix_law import NO_FLAG, NO_WHOLE, NO_WORD, NONE_NUMBERS, NUMBERS, Thing, hold, rows
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

import comity as co

INF = float("inf")
X = np.random.default_rng(0).normal(size=(12, 2)).astype("float32")
Y = np.array([0, 1] * 6)
BAD_X = np.array(X)
BAD_X[0, 0] = np.nan
WORDS = np.where(Y, "yes", "no")
HERE = co.Round("matrix", 0)
NET = co.Linear(inputs=2, classes=2)
PARAMS = NET.init(HERE)
TREE = DecisionTreeClassifier(max_depth=1).fit(X, Y)
WORDY = DecisionTreeClassifier(max_depth=1).fit(X, WORDS)
REGRESSOR = DecisionTreeRegressor(max_depth=1).fit(X, X[:, 0])
NO_POSITIVE = (*NONE_NUMBERS, 0, -1, INF)
NOT_INSIDE = (*NONE_NUMBERS, 0, 1, -1, INF)
NO_ESTIMATOR = (None, 1, "tree", [], {}, Thing(), DecisionTreeClassifier, len, (NET,), (NET, PARAMS, 1), (1, PARAMS))
SAID = {"proba": np.full((3, 2), 0.5, "float32"), "seen": np.ones(2, "float32")}
COUNTED = {**SAID, "counts": np.ones(2, "float32")}


def said(**more):
    return {**COUNTED, **more}


BAD_SAID = {
    "None": None,
    "number": 1.0,
    "text": "a",
    "array": COUNTED["proba"],
    "nothing": {},
    "no seen": {"proba": COUNTED["proba"]},
    "flat": said(proba=np.ones(3, "float32")),
    "texts": said(proba=np.full((3, 2), "a")),
    "classes": said(proba=np.full((3, 4), 0.25, "float32")),
    "above 1": said(proba=np.full((3, 2), 2.0)),
    "below 0": said(proba=np.full((3, 2), -0.1)),
    "NaN": said(proba=np.full((3, 2), np.nan)),
    "counts below 0": said(counts=np.array([-1.0, 2.0])),
    "counts text": said(counts="ab"),
    "counts of three": said(counts=np.ones(3)),
}
BAD_ROWS = {
    "number": 1,
    "text": "ab",
    "array": X,
    "triple": (X, Y, Y),
    "lengths": (X, Y[:-1]),
    "words": ("ab", "cd"),
    "scalars": (1, 2),
    "nothing": (None, None),
}
STRANGE = {"strange label": (X, Y + 5), "wide": (X[:, [0, 1, 1]], Y), "texts": (np.full((12, 2), "a"), Y)}


def predictor(name, estimator=TREE, **more):
    return lambda v: co.Predictor(**{"estimator": estimator, **more, name: v})


def asked(estimator, question=X, **more):
    """What a member says to a question."""
    member = co.Predictor(estimator, **more)
    return co.Collaboration(co.Query(question), {"a": member}, combine=co.Average(), evaluate=False).run(1)


def lifted(pool):
    return lambda v: getattr(co, pool)(**({"counts": True} if pool == "Average" else {})).lift(
        co.Contribution("prediction", v)
    )


PREDICTOR = (
    *rows("Predictor", "estimator", lambda v: co.Predictor(v), bad=NO_ESTIMATOR, good=(TREE, REGRESSOR, (NET, PARAMS))),
    *rows(
        "Predictor",
        "estimator",
        lambda v: asked(*v) if isinstance(v, list) else asked(v),
        bad={
            "unfitted": DecisionTreeClassifier(),
            "unfitted logistic": LogisticRegression(),
            "words without classes": WORDY,
            "parameters of another": (NET, {"w": X}),
            "no parameters": (NET, None),
        },
        good={"tree": TREE, "a model of comity": (NET, PARAMS)},
        says="estimator|declared|parameters",
    ),
    *rows(
        "Predictor",
        "question",
        lambda v: asked(TREE, v),
        bad={
            "None": None,
            "text": "x",
            "tree": {"y": X},
            "wide": X[:, [0, 1, 1]],
            "texts": X.astype(str),
            "flat": X[0],
        },
        good={"rows": X, "in a tree": {"x": X}, "float64": X.astype(float)},
        says="question|estimator",
    ),
    *rows(
        "Predictor",
        "classes",
        predictor("classes"),
        bad=(1, 1.5, "ab", True, [], (), (0,), (0, 0), (None, 1), ([0], [1]), {0, 1}, Thing(), int, X),
        good=(None, (0, 1), [0, 1], (0, 1, 2), np.array([0, 1]), ("no", "yes")),
    ),
    *rows(
        "Predictor",
        "classes",
        lambda v: asked(WORDY, classes=v),
        bad={"not all": ("no", "perhaps"), "numbers": (0, 1)},
        good={"all": ("no", "yes"), "more": ("no", "perhaps", "yes")},
    ),
    *rows("Predictor", "calibrate", predictor("calibrate"), bad={**BAD_ROWS, "empty": (X[:0], Y[:0])}, good=(None,)),
    *rows(
        "Predictor",
        "calibrate",
        lambda v: asked(TREE, calibrate=v),
        bad=STRANGE,
        good={"arrays": (X, Y), "lists": (X.tolist(), Y.tolist())},
        says="labels|estimator",
    ),
    *rows(
        "Predictor",
        "weight",
        lambda v: asked(REGRESSOR, weight=v, calibrate=(X, X[:, 0])),
        bad=("accuracy",),
        says="must have classes",
    ),
    *rows("Predictor", "test", predictor("test"), bad=BAD_ROWS, good={"none": None, "rows": (X, Y), "empty": ([], [])}),
    *rows(
        "Predictor",
        "counts",
        predictor("counts"),
        bad=(1, "ab", [], [-1, 2], [float("nan"), 1], ["a", "b"], X, [[1], [1, 2]], Thing(), [None, 1]),
        good=(None, [3, 4], (6.0, 6.0), np.array([6, 6])),
    ),
    *rows("Predictor", "counts", lambda v: asked(TREE, counts=v), bad={"of three": [1, 2, 3]}, good={"two": [6, 6]}),
    *rows("Predictor", "counts", predictor("counts", classes=(0, 1)), bad=([1], [1, 2, 3]), good=([1, 2],)),
    *rows(
        "Predictor",
        "weight",
        predictor("weight", calibrate=(X, Y)),
        bad=(*NONE_NUMBERS, -1, INF, "", "sure"),
        good=(0, *NUMBERS, "accuracy", "certainty"),
    ),
    *rows("Predictor", "weight", predictor("weight"), bad=("accuracy",), says="calibrate"),
)
POOLS = (
    *rows("Average", "counts", lambda v: co.Average(counts=v), bad=NO_FLAG, good=(True, False, np.bool_(True))),
    *rows("LogPool", "floor", lambda v: co.LogPool(floor=v), bad=NOT_INSIDE, good=(0.5, np.float32(0.5), 1e-9)),
    *rows("ProductPool", "strength", lambda v: co.ProductPool(strength=v), bad=NO_POSITIVE, good=NUMBERS),
    *rows(
        "ProductPool", "shrink", lambda v: co.ProductPool(shrink=v), bad=(*NONE_NUMBERS, -1, INF), good=(0, *NUMBERS)
    ),
    *rows("ProductPool", "cap", lambda v: co.ProductPool(cap=v), bad=NO_POSITIVE, good=NUMBERS),
    *(
        row
        for pool in ("Average", "LogPool", "ProductPool")
        for row in rows(
            pool, "value", lifted(pool), bad=BAD_SAID, good={"counted": COUNTED}, says="[Pp]rediction|[Pp]robabilities"
        )
    ),
    *rows("LogPool", "value", lifted("LogPool"), good={"without counts": SAID}),
    *rows("ProductPool", "value", lifted("ProductPool"), bad={"without counts": SAID}, says="counts"),
    *rows("Average", "value", lifted("Average"), bad={"without counts": SAID}, says="counts"),
)
ONCE = (
    *rows("Once", "least", lambda v: co.Once(least=v), bad=(*NO_WHOLE, 0, 63, -1), good=(64, 4096, np.int64(100))),
    *rows("Once", "keep", lambda v: co.Once(keep=v), bad=(*NO_WHOLE, 0, -1), good=(1, np.int64(2))),
)


def ensemble(name, **more):
    return lambda v: co.Ensemble(**{"members": {"tree": DecisionTreeClassifier(max_depth=1)}, **more, name: v})


def fit(name):
    """Fitted on all but one thing that is as it should be."""
    made = co.Ensemble({"nb": GaussianNB()}, folds=2)
    return lambda v: made.fit(**{"X": X, "y": Y, name: v})


FITTED = co.Ensemble({"nb": GaussianNB()}, folds=2).fit(X, WORDS)
NO_MEMBERS = {
    "None": None,
    "number": 1,
    "text": "tree",
    "list": [TREE],
    "one": TREE,
    "nobody": {},
    "no estimator": {"a": 1},
    "None inside": {"a": None},
    "class": {"a": DecisionTreeClassifier},
    "function": {"a": len},
    "regressor": {"a": LinearRegression()},
    "number name": {1: TREE},
    "one of two": {"a": TREE, "b": "tree"},
}
BAD_INPUTS = {
    "None": None,
    "number": 1,
    "text": "x",
    "flat": X[:, 0],
    "empty": X[:0],
    "short": X[:5],
    "texts": np.full((12, 2), "a"),
    "objects": np.array([["a", {}]] * 12, object),
    "NaN": BAD_X,
    "ragged": [[1.0], [1.0, 2.0]] * 6,
}
BAD_LABELS = {
    "None": None,
    "number": 1,
    "text": "x",
    "short": Y[:5],
    "one class": Y * 0,
    "one row": np.array([0] * 11 + [1]),
    "NaN": np.where(Y, np.nan, 0.0),
    "mixed": np.array([0, "a"] * 6, object),
    "None inside": np.array([0, None] * 6, object),
    "table": X,
    "ragged": [[1], [1, 2]] * 6,
}
ENSEMBLE = (
    *rows(
        "Ensemble", "members", lambda v: co.Ensemble(v), bad=NO_MEMBERS, good={"two": {"a": TREE, "b": GaussianNB()}}
    ),
    *rows("Ensemble", "strategy", ensemble("strategy"), bad=NO_WORD, good=("auto", "single", "greedy", "stacking")),
    *rows("Ensemble", "guard", ensemble("guard"), bad=(*NONE_NUMBERS, -1, INF), good=(0, *NUMBERS)),
    *rows("Ensemble", "folds", ensemble("folds"), bad=(*NO_WHOLE, 0, 1, -1), good=(2, np.int64(3), 10**9)),
    *rows("Ensemble", "seed", ensemble("seed"), bad=(*NO_WHOLE, 2**64), good=(0, 1, np.int64(3))),
    *rows(
        "Ensemble", "X", fit("X"), bad=BAD_INPUTS, good={"lists": X.tolist(), "rows": X}, says="Ensemble|take the rows"
    ),
    *rows("Ensemble", "y", fit("y"), bad=BAD_LABELS, good={"words": WORDS, "lists": WORDS.tolist()}, says="Ensemble"),
    *rows(
        "Ensemble",
        "rows",
        FITTED.predict,
        bad={k: BAD_INPUTS[k] for k in ("None", "number", "text", "flat", "texts", "objects", "NaN", "ragged")}
        | {"wide": X[:, [0, 1, 1]]},
        good={"rows": X, "list": X.tolist(), "one": X[:1]},
        says="X |rows",
    ),
    *rows("Ensemble", "unfitted", ensemble("members")({"a": TREE}).predict, bad={"rows": X}, says="fitted"),
)


@pytest.mark.parametrize("row", [*PREDICTOR, *POOLS, *ONCE, *ENSEMBLE], ids=str)
def test_ensembles(row, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hold(row, tmp_path)
