"""FedBN, its participants, and finishing: every setting."""

import numpy as np
import pytest
from matrix_law import NO_WORD, NONE_NUMBERS, NUMBERS, Thing, hold, rows

import comity as co

torch = pytest.importorskip("torch")
INF = float("inf")
X = np.random.default_rng(0).normal(size=(6, 4)).astype("float32")
Y = np.array([0, 1, 0, 1, 0, 1])
LOSS = torch.nn.functional.cross_entropy
LAYERS = torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 2)
NET = co.TorchModel(torch.nn.Sequential(*LAYERS), LOSS)
LOCAL = co.TorchModel(torch.nn.Sequential(*LAYERS), LOSS, buffers="local")
RESET = co.TorchModel(torch.nn.Sequential(*LAYERS), LOSS, buffers="reset")
ONLY = co.TorchModel(torch.nn.BatchNorm1d(4), LOSS)
MLP, HERE = co.MLP(4, 2, hidden=(3,)), co.Round("matrix", 0)
PARAMS = NET.init(HERE)
REST = {k: v for k, v in PARAMS.items() if k not in NET.norms}
TRAINER = co.Trainer(NET, (X, Y))
NO_MODEL = (None, 1, "linear", [], {}, Thing(), co.Linear, len, (X, Y), TRAINER)
NO_NORMS = {"Linear": co.Linear(4, 2), "MLP": MLP, "torch": co.TorchModel(torch.nn.Linear(4, 2), LOSS)}
NORMS = {"average": NET, "local": LOCAL, "reset": RESET}
EPOCHS = (*NONE_NUMBERS, -1, INF)
BAD_DATA = {
    "None": None,
    "text": "data",
    "lengths": (X, Y[:-1]),
    "empty": (X[:0], Y[:0]),
    "wide": (X[:, :3], Y),
    "class beyond": (X, Y + 2),
    "NaN": (X * np.nan, Y),
}


def bn(name):
    return lambda v: co.FedBN(**{"model": NET, name: v})


def run(name, **more):
    """A round and its scores."""

    def go(v):
        site = co.FedBNTrainer(**{"model": NET, "data": (X, Y), name: v, **more})
        co.Collaboration(co.FedBN(NET), {"a": site}).run(1, folder="new")

    return go


def finished(name):
    return lambda v: co.finished(**{"model": NET, "params": PARAMS, "data": (X, Y), name: v})


FEDBN = (
    *rows("FedBN", "model", co.FedBN, bad=(*NO_MODEL, ONLY), good=NORMS),
    *rows("FedBN", "model", co.FedBN, bad=NO_NORMS, says="must have normalisation layers .* co.FedAvg"),
    *rows(
        "FedBN",
        "optimizer",
        bn("optimizer"),
        bad=(None, 1, "adam", [], Thing(), co.Adam, len, NET),
        good=(co.Adam(), co.Momentum(0.5, 0.9)),
    ),
    *rows("FedBN", "bound", bn("bound"), bad=(*NONE_NUMBERS, 0, -1), good=(*NUMBERS, INF)),
    *rows("FedBN", "send", bn("send"), bad=NO_WORD, good=("delta", "model")),
    *rows(
        "FedBN",
        "start",
        bn("start"),
        bad={"number": 1, "nothing": {}, "another": {"weight": X}, "NaN": {**PARAMS, "0.bias": np.full(3, np.nan)}},
        good={"none": None, "whole": PARAMS, "rest": REST, "lists": {k: v.tolist() for k, v in REST.items()}},
    ),
    *rows("FedBNTrainer", "model", lambda v: co.FedBNTrainer(v, (X, Y)), bad=NO_MODEL, good=NORMS),
    *rows("FedBNTrainer", "model", lambda v: co.FedBNTrainer(v, (X, Y)), bad=NO_NORMS, says="normalisation layers"),
    *rows("FedBNTrainer", "send", lambda v: co.FedBNTrainer(NET, (X, Y), send=v), bad=NO_WORD, good=("delta", "model")),
    *rows("FedBNTrainer", "data", run("data"), bad=BAD_DATA, good={"fits": (X, Y)}, says="data of participant 'a'"),
    *rows("FedBNTrainer", "valid", run("valid"), bad={"wide": (X[:, :3], Y)}, good={"none": None, "fits": (X, Y)}),
)
TUNED = (
    *rows(
        "Tuned",
        "inner",
        co.Tuned,
        bad=(None, 1, "x", [], Thing(), co.Trainer, len, NET, co.Tuned(TRAINER), co.Contributor({"age": [1]})),
        good={
            "Trainer": TRAINER,
            "FedBN": co.FedBNTrainer(NET, (X, Y)),
            "Ditto": co.Ditto(LOCAL, (X, Y)),
            "FedRep": co.FedRepTrainer(NET, (X, Y)),
        },
    ),
    *rows("Tuned", "inner", lambda v: co.Tuned(co.Trainer(v, (X, Y))), bad=NO_NORMS, says="'finish' of Tuned"),
    *rows(
        "Tuned",
        "finish",
        lambda v: co.Tuned(TRAINER, v),
        bad=(*NONE_NUMBERS, "none", (), ("zzz",), ("none", "none"), (None,), ("none", 1), ([],)),
        good=(("none",), ["all", "norms"], ("recalibrate", "none", "all", "norms")),
    ),
    *rows("Tuned", "epochs", lambda v: co.Tuned(TRAINER, epochs=v), bad=EPOCHS, good=(0, *NUMBERS)),
)
FINISHED = (
    *rows("finished", "model", finished("model"), bad=(*NO_NORMS.values(), LOCAL, None, 1, Thing()), good=(NET,)),
    *rows("finished", "model", lambda v: co.finished(v, PARAMS, (X, Y), "all"), bad=NO_MODEL),
    *rows(
        "finished",
        "params",
        finished("params"),
        bad=(None, 1, "x", [], {}, {**PARAMS, "0.bias": X}, REST),
        good={"own": PARAMS, "lists": {k: v.tolist() for k, v in PARAMS.items()}},
        says="of TorchModel",
    ),
    *rows(
        "finished",
        "data",
        finished("data"),
        bad={"None": None, "text": "data", "empty": (X[:0], Y[:0]), "wide": (X[:, :3], Y), "number": 3, "none": ()},
        good={"fits": (X, Y), "no labels": (X, None)},
        says=r"x|data",
    ),
    *rows("finished", "how", finished("how"), bad=NO_WORD, good=("none", "recalibrate", "norms", "all")),
    *rows(
        "finished",
        "round",
        finished("round"),
        bad=(None, 1, "r", Thing(), co.Round),
        good=(HERE, co.Round("r", 1, me="ann")),
    ),
    *rows("finished", "epochs", finished("epochs"), bad=EPOCHS, good=(0, *NUMBERS)),
)


@pytest.mark.parametrize("row", [*FEDBN, *TUNED, *FINISHED], ids=str)
def test_a_setting_works_or_says_what_must_hold(row, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hold(row, tmp_path)
