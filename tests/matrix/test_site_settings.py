"""What a site agrees to, and how it is stopped."""

import threading
from typing import Any

import pytest
from matrix_law import NONE_NUMBERS, Thing, hold, rows

import comity as co
from comity.ledger.keys import SideSecret
from comity.service.joining import Pinned

ME = SideSecret(bytes(32))
MODEL = co.Linear(2, 2)


def joined(stop: Any) -> None:
    """It is refused for its recipe: nothing is dialled."""
    to, site = Pinned("https://hub.example", "hub", "ada", ME.public_key(), ""), co.Trainer(MODEL, ([[0.0, 1.0]], [1]))
    limits, fed = co.Limits(recipe="0" * 64), co.Collaboration(co.FedAvg(MODEL))
    try:
        co.join(fed, to, site, identity=ME, folder="here", limits=limits, stop=stop)
    except co.ConfigError as error:
        if "must be the approved one" not in str(error):
            raise


NUMBERS = tuple(x for x in NONE_NUMBERS if x is not None)
ROWS = (
    *rows("Limits", "epsilon", lambda v: co.Limits(epsilon=v), bad=(*NUMBERS, 0, -1, float("inf")), good=(None, 0.5)),
    *rows("Limits", "delta", lambda v: co.Limits(delta=v), bad=(*NONE_NUMBERS, -1, 1), good=(0, 1e-5)),
    *rows("Limits", "bytes", lambda v: co.Limits(bytes=v), bad=("x", -1, 1.5, Thing()), good=(None, 0, 2**40)),
    *rows("Limits", "hours", lambda v: co.Limits(hours=v), bad=(*NUMBERS, 0, -1, float("inf")), good=(None, 0.5)),
    *rows("join", "stop", joined, bad=(1, "x", True, Thing()), good=(None, threading.Event())),
)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_site(row: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    hold(row, tmp_path)
