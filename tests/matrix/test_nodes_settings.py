"""Whole nodes: what a ticket may prune, and what shrink takes out by a mask."""

import numpy as np
import pytest
from matrix_law import NO_WORD, Thing, hold, rows

import comity as co

torch = pytest.importorskip("torch")

MODEL = co.MLP(inputs=4, classes=2, hidden=(5,))
NET = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 2))
MASK = {"0.weight": np.arange(24).reshape(6, 4) > 8, "2.weight": np.arange(12).reshape(2, 6) % 6 > 1}


class Odd(torch.nn.Module):
    """Not a chain."""

    def __init__(self):
        super().__init__()
        self.a = torch.nn.Linear(4, 2)

    def forward(self, x):
        return self.a(x)


def nodes(model):
    return co.Tickets(model, 4, density=0.5, prune="nodes")


def wrapped(net):
    return co.TorchModel(net, torch.nn.functional.cross_entropy)


ROWS = (
    *rows("Tickets", "prune", lambda v: co.Tickets(MODEL, 4, prune=v), bad=NO_WORD, good=("weights", "nodes")),
    *rows("Tickets", "model", nodes, bad={"linear": co.Linear(4, 2)}, good={"mlp": MODEL, "chain": wrapped(NET)}),
    *rows("Tickets", "model", nodes, bad={"no chain": wrapped(Odd())}, says="must be an nn.Sequential"),
    *rows("Tickets", "density", lambda v: co.Tickets(MODEL, 4, density=v, prune="nodes"), bad=(0.1,), good=(0.2, 1)),
    *rows("shrink", "mask", lambda v: co.shrink(NET, 0.5, mask=v), bad=(MASK, {}), good=(None,), says="mask"),
    *rows(
        "shrink",
        "mask",
        lambda v: co.shrink(NET, mask=v),
        bad={
            "none": None,
            "number": 1,
            "text": "x",
            "list": [1],
            "thing": Thing(),
            "class": dict,
            "names": {"zzz": np.ones(2)},
            "numbers": {1: np.ones(2)},
            "shape": {"0.weight": np.ones((4, 6))},
            "scalar": {"0.weight": True},
        },
        good={"mask": MASK, "empty": {}, "parameters": wrapped(NET).init(co.Round("", 0))},
    ),
)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_node_settings(row, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hold(row, tmp_path)
