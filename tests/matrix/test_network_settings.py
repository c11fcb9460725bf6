"""A hub on the network, and sites that join it."""

from pathlib import Path

import pytest
from matrix_law import NONE_NUMBERS, Thing, hold, rows

import comity as co
from comity.ledger.keys import SideSecret
from comity.service.joining import Pinned

ME = SideSecret(bytes(32))
KEY = ME.public_key()
MODEL = co.Linear(2, 2)
FED = co.Collaboration(co.FedAvg(MODEL))
SITE = co.Trainer(MODEL, ([[0.0, 1.0]], [1]))
TO = Pinned("https://hub.example", "hub", "ada", KEY, "")
OTHER = co.Limits(recipe="0" * 64)
NO_TEXT = (None, 1, True, b"x", [], {}, Thing())


def network(**more):
    return co.Network(**{"bind": "127.0.0.1:0", "folder": "hub", "identity": ME, "parties": {"ada": KEY}, **more})


def joined(**more):
    """It is refused at the latest for its recipe: nothing is dialled."""
    given = {"fed": FED, "to": TO, "participant": SITE, "identity": ME, "folder": "here", "limits": OTHER, **more}
    try:
        co.join(given.pop("fed"), given.pop("to"), given.pop("participant"), **given)
    except co.ConfigError as error:
        if "must be the approved one" not in str(error):
            raise


ROWS = (
    *rows(
        "Network", "bind", lambda v: network(bind=v), bad=(*NO_TEXT, "", "host", ":1", "h:x"), good=("h:1", "[::1]:0")
    ),
    *rows("Network", "folder", lambda v: network(folder=v), bad=(None, 1, [], Thing()), good=("x", Path("x"))),
    *rows("Network", "identity", lambda v: network(identity=v), bad=(None, 1, "x", b"x", Thing()), good=(ME,)),
    *rows(
        "Network",
        "parties",
        lambda v: network(parties=v),
        bad=(None, 1, "x", [], Thing(), {"a": 1}, {"a": b"x"}, {"a": "zz"}),
        good=({}, {"a": KEY}, {"a": KEY.hex()}),
        says="parties|public key",
    ),
    *rows("Network", "url", lambda v: network(url=v), bad=(None, 1, b"x", [], Thing()), good=("", "https://h")),
    *rows(
        "Network",
        "certificate",
        lambda v: network(certificate=v, key="k"),
        bad=(None, 1, b"x", [], Thing(), ""),
        good=("c", Path("c")),
    ),
    *rows(
        "Network",
        "key",
        lambda v: network(certificate="c", key=v),
        bad=(None, 1, b"x", [], Thing(), ""),
        good=("k", Path("k")),
    ),
    *rows("Network", "most", lambda v: network(most=v), bad=(None, "x", 0, -1, 1.5, Thing()), good=(1, 2**40)),
    *rows("Network", "linger", lambda v: network(linger=v), bad=(*NONE_NUMBERS, -1, float("inf")), good=(0, 2.5)),
    *rows("Network", "tell", lambda v: network(tell=v), bad=(1, "x", Thing()), good=(None, print)),
    *rows(
        "Limits",
        "recipe",
        lambda v: co.Limits(recipe=v),
        bad=(*NO_TEXT, "x", "0" * 15),
        good=("", "0" * 16, "sha256:" + "a" * 64),
    ),
    *rows("Limits", "cohort", lambda v: co.Limits(cohort=v), bad=(None, "x", 0, -1, 1.5, Thing()), good=(1, 30)),
    *rows("Limits", "rounds", lambda v: co.Limits(rounds=v), bad=("x", -1, 1.5, Thing()), good=(None, 0, 30)),
    *rows("join", "fed", lambda v: joined(fed=v), bad=(None, 1, "x", Thing()), good=(FED,)),
    *rows("join", "to", lambda v: joined(to=v), bad=(None, 1, "https://hub.example", Thing()), good=(TO,)),
    *rows(
        "join",
        "participant",
        lambda v: joined(participant=v),
        bad=(None, 1, "x", Thing(), co.Trainer),
        good=(SITE,),
        says="contribute",
    ),
    *rows("join", "identity", lambda v: joined(identity=v), bad=(None, 1, "x", b"x", Thing()), good=(ME,)),
    *rows("join", "folder", lambda v: joined(folder=v), bad=(None, 1, [], Thing()), good=("here", Path("here"))),
    *rows("join", "limits", lambda v: joined(limits=v), bad=(1, "x", {}, Thing()), good=(OTHER,)),
)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_network(row, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hold(row, tmp_path)
