"""Models: what they are made of, what they are fitted with, what they are asked."""

import warnings
from functools import partial

import numpy as np
import pytest
from matrix_law import NO_WHOLE, NO_WORD, NONE_NUMBERS, NUMBERS, WHOLE, Thing, hold, rows
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression, SGDClassifier, SGDRegressor
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

import comity as co

torch = pytest.importorskip("torch")
INF = float("inf")
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(6, 2)).astype("float32"), np.array([0, 1, 0, 1, 0, 1])
HERE = co.Round("matrix", 0)
NET = torch.nn.Sequential(torch.nn.Linear(2, 2))
LOSS = torch.nn.functional.cross_entropy
SGD = SGDClassifier(loss="log_loss")
MODELS = {
    "Linear": co.Linear(2, 2),
    "MLP": co.MLP(2, 2, hidden=(3,)),
    "SklearnModel": co.SklearnModel(SGD, classes=(0, 1), inputs=2),
    "EstimatorModel": co.EstimatorModel(DecisionTreeClassifier(), (0, 1)),
    "TorchModel": co.TorchModel(NET, LOSS),
}
PARAMS = {name: model.fit(model.init(HERE), (X, Y), HERE)[0] for name, model in MODELS.items()}


class Locked(torch.nn.Linear):
    """A module that cannot be copied."""

    def __deepcopy__(self, memo):
        raise TypeError("cannot pickle a lock")


def spoil(x, value):
    x = np.array(x)
    x.flat[0] = value
    return x


def sk(name):
    return lambda v: co.SklearnModel(**{"estimator": SGD, "classes": (0, 1), "inputs": 2, name: v})


def to(name):
    return lambda v: co.TorchModel(**{"module": NET, "loss": LOSS, name: v})


BAD = {
    "None": None,
    "text": "data",
    "number": 5,
    "triple": (X, Y, Y),
    "lengths": (X, Y[:-1]),
    "empty": (X[:0], Y[:0]),
    "scalars": (1, 2),
    "nothing": (None, None),
    "words": ("ab", "cd"),
    "ragged": ([[1.0], [1.0, 2.0]] * 3, Y),
}
ODD = {
    "texts": (np.full((6, 2), "a"), Y),
    "objects": (np.array([["a", {}]] * 6, object), Y),
    "wide": (X[:, [0, 1, 1]], Y),
}
CLASSES = {
    "class beyond": (X, Y + 1),
    "class below": (X, Y - 1),
    "label text": (X, np.array(["a", "b"] * 3)),
    "label objects": (X, np.array([0, None] * 3, object)),
}
NOT_FINITE = {"NaN": (spoil(X, np.nan), Y), "inf": (spoil(X, np.inf), Y)}
BAD_FIT = {
    "Linear": BAD | ODD | CLASSES,
    "MLP": BAD | ODD | CLASSES,
    "SklearnModel": BAD | ODD | CLASSES | NOT_FINITE,
    "EstimatorModel": BAD | CLASSES | {"texts": ODD["texts"], "objects": ODD["objects"]},
    "TorchModel": BAD | {"texts": ODD["texts"], "objects": ODD["objects"], "label text": CLASSES["label text"]},
}
BAD_CHECK = {
    **{name: BAD_FIT[name] | NOT_FINITE for name in ("Linear", "MLP", "SklearnModel")},
    "EstimatorModel": BAD | CLASSES,
    "TorchModel": BAD | ODD | CLASSES | NOT_FINITE | {"flat": (X[:, 0], Y), "targets": (X, np.array([0, np.nan] * 3))},
}
BAD_X = {
    "None": None,
    "text": "x",
    "texts": np.full((2, 2), "a"),
    "flat": X[:, 0],
    "wide": X[:, [0, 1, 1]],
    "number": 3,
    "objects": np.array([["a", {}]], object),
    "ragged": [[1.0], [1.0, 2.0]],
}
BAD_PARAMS = {
    "None": None,
    "number": 3,
    "text": "x",
    "list": [1],
    "empty": {},
    "names": {"w": X},
    "mixed": {1: 2, "a": 3},
}
STEPS = {"private": co.Step(private=co.Private(1.0, 1.0, np.random.default_rng(0)))}
STREAM = co.testing.fixed_secret().stream("models")
UNABLE = {"private": co.Step(private=co.Private(1.0, 1.0, STREAM))}
BAD_STEPS = {
    "Linear": STEPS | {"loss": co.Step(loss=len), "mask": co.Step(mask=3), "mask name": co.Step(mask={"w": X})},
    "MLP": STEPS | {"loss": co.Step(loss=len), "mask shape": co.Step(mask={"0.bias": X})},
    "SklearnModel": UNABLE | {"mask": co.Step(mask={}), "adjust": co.Step(adjust=len), "loss": co.Step(loss=len)},
    "EstimatorModel": UNABLE | {"mask": co.Step(mask={}), "adjust": co.Step(adjust=len)},
    "TorchModel": STEPS | {"mask": co.Step(mask=3)},
}


def per_model(parameter, call, bad, good=None):
    """The same parameter of each model; a message names what is wrong in many ways."""
    for name, model in MODELS.items():
        cases = bad.get(name, bad)
        yield from rows(name, parameter, partial(call, name, model), bad=cases, good=good or {}, says=".")


CALLS = [
    *per_model(
        "fit",
        lambda name, m, v: m.fit(m.init(HERE), v, HERE),
        BAD_FIT,
        {"fits": (X, Y), "lists": (X.tolist(), Y.tolist())},
    ),
    *per_model("check", lambda name, m, v: m.check(v), BAD_CHECK, {"fits": (X, Y), "lists": (X.tolist(), Y.tolist())}),
    *per_model("params", lambda name, m, v: m.predict(v, X), BAD_PARAMS),
    *per_model(
        "predict",
        lambda name, m, v: m.predict(PARAMS[name], v),
        BAD_X,
        {"rows": X, "list": X.tolist(), "float64": X.astype(float)},
    ),
    *per_model(
        "taps",
        lambda name, m, v: m.features(PARAMS[name], X, v),
        {"unknown": ["zzz"], "number": [1], "None": [None]},
        {"none": ()},
    ),
    *per_model("step", lambda name, m, v: m.fit(m.init(HERE), (X, Y), HERE, v), BAD_STEPS),
]
MADE = (
    *rows(
        "SklearnModel",
        "estimator",
        sk("estimator"),
        bad=(None, 1, "sgd", [], Thing(), SGDClassifier, len, LogisticRegression()),
        good=(SGDClassifier(loss="log_loss"),),
    ),
    *rows(
        "SklearnModel",
        "classes",
        sk("classes"),
        bad=(None, 1, "ab", [], (), (0,), (0, 0), (None, 1), ([0], [1]), {0, 1}, Thing(), int),
        good=((0, 1), [0, 1], np.array([0, 1]), ("a", "b"), (0, 1, 2)),
    ),
    *rows(
        "SklearnModel",
        "regression",
        lambda v: co.SklearnModel(SGDRegressor(), classes=v, inputs=2),
        bad=((0, 1), [0, 1]),
        good=(None,),
        says="classes",
    ),
    *rows("SklearnModel", "inputs", sk("inputs"), bad=(*NO_WHOLE, 0, -1), good=WHOLE),
    *rows("SklearnModel", "epochs", sk("epochs"), bad=(*NONE_NUMBERS, -1, INF), good=(0, *NUMBERS)),
    *rows(
        "EstimatorModel",
        "estimator",
        lambda v: co.EstimatorModel(v, (0, 1)),
        bad=(None, 1, "tree", [], Thing(), DecisionTreeClassifier, len),
        good=(DecisionTreeClassifier(), SGD),
    ),
    *rows(
        "EstimatorModel",
        "classes",
        lambda v: co.EstimatorModel(DecisionTreeClassifier(), v),
        bad=(1, "ab", [], (), (0,), (0, 0), (None, 1), ([0], [1]), {0, 1}, Thing(), int),
        good=(None, (0, 1), ["a", "b"]),
    ),
    *rows(
        "EstimatorModel",
        "regression",
        lambda v: co.EstimatorModel(DecisionTreeRegressor(), v),
        bad=((0, 1), ["a", "b"]),
        good=(None,),
        says="classes",
    ),
    *rows(
        "TorchModel",
        "module",
        to("module"),
        bad=(None, 1, "net", [], Thing(), torch.nn.Linear, len, torch.zeros(2), Locked(2, 2)),
        good=(NET, torch.nn.Linear(2, 2)),
    ),
    *rows(
        "TorchModel",
        "loss",
        to("loss"),
        bad=(None, 1, "mse", [], Thing(), torch.nn.CrossEntropyLoss),
        good=(LOSS, torch.nn.CrossEntropyLoss(), lambda o, y: o.sum()),
    ),
    *rows(
        "TorchModel",
        "optimizer",
        to("optimizer"),
        bad=(None, 1, "sgd", [], Thing(), torch.optim.SGD(NET.parameters())),
        good=(torch.optim.SGD, partial(torch.optim.Adam, lr=0.1)),
    ),
    *rows("TorchModel", "batch", to("batch"), bad=(*NO_WHOLE, 0, -1), good=WHOLE),
    *rows("TorchModel", "epochs", to("epochs"), bad=(*NONE_NUMBERS, -1, INF), good=(0, *NUMBERS)),
    *rows("TorchModel", "buffers", to("buffers"), bad=NO_WORD, good=("average", "local", "reset")),
    *rows("TorchModel", "device", to("device"), bad=(*NO_WORD, "cuda:99", "tpu"), good=("cpu", torch.device("cpu"))),
    *rows("TorchModel", "threads", to("threads"), bad=(*NO_WHOLE[1:], 0, -1), good=(None, *WHOLE)),
    *rows(
        "TorchModel",
        "probabilities",
        to("probabilities"),
        bad=(1, True, "", "logits", b"x", [], Thing()),
        good=(None, "softmax", "sigmoid", "none", lambda z: z),
    ),
    *rows(
        "TorchModel",
        "load",
        lambda v: MODELS["TorchModel"].load(v, PARAMS["TorchModel"]),
        says="module|nn.Module",
        bad=(None, 1, "net", Thing(), torch.nn.Linear(2, 2), torch.nn.Linear),
        good=(torch.nn.Sequential(torch.nn.Linear(2, 2)),),
    ),
    *rows(
        "Trainer",
        "torch data",
        lambda v: co.Collaboration(co.FedAvg(MODELS["TorchModel"]), {"a": co.Trainer(MODELS["TorchModel"], v)}).run(
            1, folder="new"
        ),
        bad=BAD_CHECK["TorchModel"],
        good={
            "arrays": (X, Y),
            "tensors": (torch.tensor(X), torch.tensor(Y)),
            "doubles": (X.astype(float), Y),
            "dataset": torch.utils.data.TensorDataset(torch.tensor(X), torch.tensor(Y)),
            "rows": list(zip(torch.tensor(X), torch.tensor(Y), strict=True))
            and torch.utils.data.Subset(torch.utils.data.TensorDataset(torch.tensor(X), torch.tensor(Y)), [0, 1]),
        },
        says="data of participant 'a'",
    ),
    *rows(
        "EstimatorModel",
        "missing",
        lambda v: co.EstimatorModel(HistGradientBoostingClassifier(max_iter=2), (0, 1)).check(v),
        good={"NaN is for the estimator to judge": (spoil(X, np.nan), Y)},
    ),
)


@pytest.mark.parametrize("row", [*CALLS, *MADE], ids=str)
def test_models(row, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The .?NVIDIA|CUDA initialization", category=UserWarning)
        hold(row, tmp_path)
