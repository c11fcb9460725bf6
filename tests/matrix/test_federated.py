"""Federated methods beyond FedAvg and their participants: every setting, first parameters, data."""

import numpy as np
import pytest
from matrix_law import NO_FLAG, NO_WHOLE, NO_WORD, NONE_NUMBERS, NUMBERS, WHOLE, Thing, hold, rows

import comity as co

torch = pytest.importorskip("torch")
INF = float("inf")
X = np.random.default_rng(0).normal(size=(6, 4)).astype("float32")
Y = np.array([0, 1, 0, 1, 0, 1])
MODEL = co.MLP(4, 2, hidden=(3,))
BAD_X = np.array(X)
BAD_X[0, 0] = np.nan
PARAMS = MODEL.init(co.Round("matrix", 0))
NET = co.TorchModel(
    torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Tanh(), torch.nn.Linear(3, 2)),
    torch.nn.functional.cross_entropy,
)

NO_POSITIVE = (*NONE_NUMBERS, 0, -1, INF, -INF)
NOT_NEGATIVE = (*NONE_NUMBERS, -1, INF)
SHARE = (*NONE_NUMBERS, -0.1, 1.1, INF)
EPOCHS = (*NONE_NUMBERS[1:], -1, INF)
NO_MODEL = (None, 1, "linear", [], {}, Thing(), co.Linear, len, (X, Y))
POOLS = (None, 1, "mean", [], Thing(), co.Average, len)
HUBS = {
    "FedAvg": {"model": MODEL},
    "FedSGD": {"model": MODEL},
    "Scaffold": {"model": MODEL},
    "FedDyn": {"model": MODEL},
    "QFedAvg": {"model": MODEL},
    "IFCA": {"model": MODEL},
    "FedDF": {"model": MODEL, "public_x": X},
    "FedRep": {"model": MODEL, "head": ("2",)},
    "FedProto": {"classes": 2, "width": 3},
    "FedMD": {"public_x": X, "classes": 2},
    "Distill": {"model": MODEL, "public_x": X, "temperature": 1.0},
}
SITES = {
    "Trainer": ("FedAvg", {}),
    "GradientTrainer": ("FedSGD", {}),
    "ScaffoldTrainer": ("Scaffold", {}),
    "FedDynTrainer": ("FedDyn", {}),
    "QFedAvgTrainer": ("QFedAvg", {}),
    "IFCATrainer": ("IFCA", {}),
    "FedRepTrainer": ("FedRep", {}),
    "FedProtoTrainer": ("FedProto", {"model": NET, "tap": "1"}),
    "FedMDTrainer": ("FedMD", {"balanced": False}),
    "APFL": ("FedAvg", {}),
    "Ditto": ("FedAvg", {}),
    "FedProx": ("FedAvg", {}),
}
FIT = {name: {"model": MODEL, "data": (X, Y)} | more for name, (_, more) in SITES.items()}


def hub(kind, name):
    return lambda v: getattr(co, kind)(**{**HUBS[kind], name: v})


def site(kind, name):
    return lambda v: getattr(co, kind)(**{**FIT[kind], name: v})


def run(kind, name, method=None, folder="new"):
    """A round of a participant with this, and its scores. What only training shows has no folder to leave behind."""

    def go(v):
        hub = SITES[kind][0]
        joint = getattr(co, hub)(**HUBS[hub]) if method is None else method
        co.Collaboration(joint, {"a": site(kind, name)(v)}).run(1, folder=folder)

    return go


def without(name):
    return {k: v for k, v in PARAMS.items() if k != name}


BAD_START = {
    "number": 1,
    "text": "best",
    "path": b"runs",
    "list": [X],
    "Thing": Thing(),
    "nothing": {},
    "another": {"weight": X},
    "lacks": without("0.weight"),
    "more": {**PARAMS, "4.bias": X},
    "shape": {**PARAMS, "0.bias": X},
    "texts": {**PARAMS, "0.bias": np.full(3, "a")},
    "None inside": {**PARAMS, "0.bias": None},
    "NaN": {**PARAMS, "0.bias": np.full(3, np.nan)},
    "ragged": {**PARAMS, "0.bias": [[1.0], [1.0, 2.0]]},
    "state": {"params": PARAMS},
}
GOOD_START = {
    "none": None,
    "parameters": PARAMS,
    "float64": {k: v.astype(float) for k, v in PARAMS.items()},
    "lists": {k: v.tolist() for k, v in PARAMS.items()},
}
BAD_DATA = {
    "None": None,
    "text": "data",
    "array": X,
    "triple": (X, Y, Y),
    "lengths": (X, Y[:-1]),
    "empty": (X[:0], Y[:0]),
    "NaN": (BAD_X, Y),
    "wide": (X[:, :3], Y),
    "texts": (X.astype(str), Y),
    "class beyond": (X, Y + 1),
    "label text": (X, np.array(["a", "b"] * 3)),
}
GOOD_DATA = {"arrays": (X, Y), "float labels": (X, Y.astype("float32")), "float64": (X.astype(float), Y)}
PUBLIC = {
    "None": None,
    "number": 3,
    "text": "rows",
    "flat": X[:, 0],
    "texts": X.astype(str),
    "objects": np.array([["a", {}]] * 2, object),
    "ragged": [[1.0], [1.0, 2.0]],
    "no rows": X[:0],
    "no columns": X[:, :0],
    "NaN": BAD_X,
    "complex": X.astype(complex),
}
LABELS = {"text": "ab", "number": 1, "short": Y[:3], "floats": Y + 0.5, "below": Y - 3, "words": ["a"] * 6, "table": X}
HEADS = (None, 1, "2", "zzz", [], (), ("zzz",), ("0", "2"), (1,), ("",), Thing(), {"2"}, ("2", "zzz"))
TAPS = (1, "1", ("a",), ("a", "b", "c"), (1, 2), (None, "a"), {"a": "b"}, Thing())


def settings(kind, of, table):
    return [row for name, (bad, good) in table.items() for row in rows(kind, name, of(kind, name), bad=bad, good=good)]


BOUND = {"bound": ((*NONE_NUMBERS, 0, -1), (*NUMBERS, INF))}
SEND = {"send": (NO_WORD, ("delta", "model"))}
OWN_EPOCHS = {"epochs": (EPOCHS, (None, 0, *NUMBERS))}
HUB_SETTINGS = [
    *settings("Scaffold", hub, {"rate": (NO_POSITIVE, NUMBERS), **BOUND}),
    *settings("FedDyn", hub, {"alpha": (NO_POSITIVE, NUMBERS), **BOUND}),
    *settings("QFedAvg", hub, {"q": (NOT_NEGATIVE, (0, *NUMBERS)), "rate": (NO_POSITIVE, NUMBERS), **BOUND}),
    *settings("IFCA", hub, {"clusters": ((*NO_WHOLE, 0, -1), WHOLE), "spread": (NOT_NEGATIVE, (0, *NUMBERS)), **BOUND}),
    *settings(
        "FedRep", hub, {"head": (HEADS, (("2",), ["2"], ("0.weight",), ("2.bias", "2.weight"))), **BOUND, **SEND}
    ),
    *settings(
        "FedProto", hub, {"classes": ((*NO_WHOLE, 1, -1), (2, np.int64(3))), "width": ((*NO_WHOLE, 0), WHOLE), **BOUND}
    ),
    *settings(
        "FedMD",
        hub,
        {
            "public_x": (PUBLIC, {"rows": X, "lists": X.tolist(), "images": X.reshape(6, 2, 2)}),
            "classes": ((*NO_WHOLE, 1, -1), (2, np.int64(3))),
            "sharpen": (NO_POSITIVE, NUMBERS),
            "combiner": (POOLS, (co.Average(), co.LogPool(), co.Mean())),
        },
    ),
    *settings(
        "FedDF",
        hub,
        {
            "public_x": (PUBLIC, {"rows": X, "lists": X.tolist(), "ints": X.astype(int)}),
            "epochs": (EPOCHS, (None, 0, *NUMBERS)),
            **BOUND,
        },
    ),
    *settings(
        "Distill",
        hub,
        {
            "model": (NO_MODEL, (MODEL, NET)),
            "start": (BAD_START, GOOD_START),
            "public_x": (PUBLIC, {"rows": X, "lists": X.tolist(), "ints": X.astype(int)}),
            "temperature": (NO_POSITIVE, NUMBERS),
            "batch": ((*NO_WHOLE[1:], 0, -1), (None, *WHOLE, 10**9)),
            "epochs": (EPOCHS, (None, 0, *NUMBERS)),
            "labels": (LABELS, {"none": None, "all": Y, "some": np.where(Y, -1, Y), "list": Y.tolist()}),
            "hard": (SHARE, (0, 1, 0.5, np.float32(0.5))),
            "hint": (TAPS, (None, ("1", "0"), ["1", "0"])),
            "pull": (NOT_NEGATIVE, (0, *NUMBERS)),
            "counts": (NO_FLAG, (True, False)),
            "combiner": (POOLS[1:], (None, co.Average(), co.ProductPool())),
        },
    ),
    *(
        row
        for kind in HUBS
        if kind not in ("FedProto", "FedMD", "Distill")
        for row in settings(kind, hub, {"model": (NO_MODEL, (MODEL,)), "start": (BAD_START, GOOD_START)})
    ),
    *rows(
        "IFCA",
        "start",
        hub("IFCA", "start"),
        bad={"of three": {str(j): PARAMS for j in range(3)}, "one wrong": {"0": PARAMS, "1": without("0.bias")}},
        good={"of each": {"0": PARAMS, "1": PARAMS}},
    ),
    *rows("FedRep", "start", hub("FedRep", "start"), good={"body": {k: PARAMS[k] for k in ("0.bias", "0.weight")}}),
]
SITE_SETTINGS = [
    *(row for kind in SITES for row in settings(kind, site, {"model": (NO_MODEL, (FIT[kind]["model"],))})),
    *settings("APFL", site, {"alpha": (SHARE, (0, 1, 0.5)), "rate": (NOT_NEGATIVE, (0, *NUMBERS)), **SEND}),
    *settings("FedRepTrainer", site, {"head_epochs": (NOT_NEGATIVE, (0, *NUMBERS)), **OWN_EPOCHS, **SEND}),
    *settings(
        "FedProtoTrainer",
        site,
        {
            "tap": ((None, 1, True, "", [], ("1",), b"1", Thing()), ("1", "0")),
            "strength": (NOT_NEGATIVE, (0, *NUMBERS)),
        },
    ),
    *settings(
        "FedMDTrainer",
        site,
        {
            "joint": (NO_FLAG, (True, False)),
            "balanced": (NO_FLAG, (True, False)),
            "passes": (NOT_NEGATIVE, (0, *NUMBERS)),
            "revisit": (EPOCHS, (None, 0, *NUMBERS)),
        },
    ),
]
RUNS = [
    *(
        row
        for kind in SITES
        for row in (
            *rows(kind, "data", run(kind, "data"), bad=BAD_DATA, good=GOOD_DATA, says="data of participant 'a'"),
            *(
                row
                for name in ("test", "valid")
                for row in rows(
                    kind,
                    name,
                    run(kind, name),
                    bad={k: BAD_DATA[k] for k in ("text", "lengths", "wide", "class beyond")},
                    good={"none": None, "empty": (X[:0], Y[:0]), "arrays": (X, Y)},
                    says=f"{name} of participant 'a'",
                )
            ),
        )
    ),
    *rows("FedProtoTrainer", "tap", run("FedProtoTrainer", "tap", folder=None), bad=("zzz", "2"), good=("1",)),
    *rows("FedProto", "width", run("FedProtoTrainer", "strength", co.FedProto(2, 5), None), bad=(1.0,)),
    *rows("FedMDTrainer", "balanced", run("FedMDTrainer", "balanced"), good=(False, True)),
]


@pytest.mark.parametrize("row", [*HUB_SETTINGS, *SITE_SETTINGS, *RUNS], ids=str)
def test_federated(row, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hold(row, tmp_path)
