"""Bad and good values for the listeners, for what is read from a folder, and for LoRA."""

import sys
from types import ModuleType, SimpleNamespace

import matrix_law
import numpy as np
import pytest
from matrix_law import NO_FLAG, NO_PATH, NO_WHOLE, NONE_NUMBERS, NUMBERS, WHOLE, Thing, hold, rows
from rich.console import Console

import comity as co

X, Y = np.eye(4, dtype="float32"), np.array([0, 0, 1, 1])
MODEL = co.Linear(4, 2)
METHOD = co.FedAvg(MODEL)


def net():
    torch = pytest.importorskip("torch")
    return torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))


def lora(name):
    return lambda v: co.lora(net(), **{name: v})


def loaded(**given):
    co.Collaboration(METHOD, {"a": co.Trainer(MODEL, (X, Y))}).run(1, folder="../run")
    return co.load(**{"folder": "../run", "method": METHOD, **given})


ROWS = (
    *rows("Progress", "console", co.Progress, bad=(1, "x", [], Thing(), Console, len), good=(None, Console())),
    *rows("TensorBoard", "folder", co.TensorBoard, bad=(None, *NO_PATH), good=("board", "a/b")),
    *rows(
        "MLflow",
        "run",
        co.MLflow,
        bad=(None, 1, True, "", b"x", [], Thing(), SimpleNamespace(info=None)),
        good=("1f2e", SimpleNamespace(info=SimpleNamespace(run_id="1f2e"))),
    ),
    *rows("load", "folder", lambda v: loaded(folder=v), bad=(None, *NO_PATH), says="'folder'"),
    *rows("load", "empty", lambda v: loaded(folder=v), bad=(".", "../none"), says="must be the folder of a run"),
    *rows(
        "load",
        "method",
        lambda v: loaded(method=v),
        bad=(None, 1, "avg", [], Thing(), co.FedAvg, len, MODEL),
        good=(METHOD,),
    ),
    *rows(
        "load", "kind", lambda v: loaded(method=v), bad=(co.FedSGD(MODEL), co.Scaffold(MODEL)), says="'method' of load"
    ),
    *rows("load", "best", lambda v: loaded(best=v), bad=NO_FLAG, good=(True, False, np.bool_(True))),
    *rows(
        "lora",
        "net",
        lambda v: co.lora(v() if v is net else v),
        bad=(None, 1, "net", [], Thing(), MODEL, len),
        good=(net,),
    ),
    *rows("lora", "rank", lora("rank"), bad=(*NO_WHOLE, 0, -1), good=WHOLE),
    *rows("lora", "alpha", lora("alpha"), bad=(*NONE_NUMBERS[1:], 0, -1, float("inf")), good=(None, *NUMBERS)),
    *rows(
        "lora",
        "targets",
        lora("targets"),
        bad=(1, "0", b"0", [], {}, [1], ["9"], [""], Thing(), len),
        good=(None, ["0"], ("0", "2")),
    ),
    *rows("lora", "train_a", lora("train_a"), bad=NO_FLAG, good=(True, False, np.bool_(False))),
    *rows("lora", "seed", lora("seed"), bad=(*NO_WHOLE, 2**64), good=(0, -1, *WHOLE)),
)


@pytest.fixture(autouse=True)
def libraries(monkeypatch):
    """Stand-ins for what need not be installed."""
    for name, held in (("torch.utils.tensorboard", "SummaryWriter"), ("mlflow", "MlflowClient")):
        module = ModuleType(name)
        setattr(module, held, Thing)
        monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_listeners(row, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    hold(row, tmp_path / "here")


def test_the_rows_are_seen():
    assert {"Progress", "TensorBoard", "MLflow", "load", "lora"} <= {name for name, _ in matrix_law.SEEN}
