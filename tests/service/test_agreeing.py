"""What a hub takes of an agreement and of a head, and what it shows of a ledger, and to whom."""

import asyncio
import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import comity as co
from comity.core.recipe import canonical
from comity.ledger.copies import entry_of
from comity.service import agreeing
from comity.service.database import Database
from comity.service.doors import Known
from comity.service.hub import Refused
from comity.service.runs import SCHEMA, Offering, Runs
from comity.service.runsecret import said

sys.path.append(str(Path(__file__).parent))
made = importlib.import_module("actors")

SPEND = {"mechanism": "gaussian", "noise": 2.0, "rate": 0.5, "count": 2, "unit": "example", "sampling": "poisson"}
SPEND |= {"who": ""}


async def _off(do: Any, *given: Any) -> Any:
    return do(*given)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Any]:
    """Ada and Bob are invited; Cyd is known, and is not."""
    run = made.fedavg().replace(participants={n: made.trainer(n) for n in ("ada", "bob")})
    run.run(rounds=2, folder=tmp_path / "run")
    db = Database.open(tmp_path, SCHEMA)
    runs = Runs(db)
    recipe = co.recipe(made.fedavg())
    facts = {"title": "", "about": {}, "folder": str(tmp_path / "run"), "minimum": 2}
    runs.offer("r1", Offering(recipe=recipe, invited=["ada", "bob"], **facts))
    yield SimpleNamespace(runs=runs, doors=Known(made.KEYS), off=_off, recipe=recipe["hash"])
    db.close()


def agreement(hub: Any, who: str = "ada", run: str = "r1", **changes: Any) -> dict[str, Any]:
    rows = {"recipe": hub.recipe, "limits": co.Limits().told(), "spends": [SPEND], "time": 5.0, **changes}
    rows["proof"] = changes.get("proof") or {"by": said(made.secret(who), "agree", run, who, canonical(rows))}
    return rows


def send(hub: Any, handler: Any, rows: Any, who: str = "ada", **params: str) -> Any:
    """Returns: what is told, or the status and why not."""
    body = rows if isinstance(rows, bytes) else json.dumps(rows).encode()
    asked = SimpleNamespace(who=who, body=body, request=SimpleNamespace(query_params=params))
    try:
        return json.loads(asyncio.run(handler(hub, asked)).body)
    except Refused as no:
        return no.status, no.told["reason"]


def agree(hub: Any, who: str = "ada", run: str = "r1", **changes: Any) -> Any:
    return send(hub, agreeing.agree, {"run": run, **agreement(hub, who, run, **changes)}, who)


def test_the_first_stays_and_may_be_repeated(hub):
    assert agree(hub) == {"new": True, "began": False, "time": 5.0}
    assert agree(hub) == {"new": False, "began": False, "time": 5.0}
    assert agree(hub, time=7.0)["time"] == 5.0
    assert agree(hub, spends=[])["new"], "before the start it may be another"
    hub.runs.start("r1", ["ada"])
    assert agree(hub) == {"new": False, "began": True, "time": 5.0}
    kept = hub.runs.agreements("r1")["ada"]
    assert kept["spends"] == []
    assert agreeing.agreed(made.KEYS["ada"], "r1", "ada", kept), "it can be shown later"
    assert not agreeing.agreed(made.KEYS["ada"], "r2", "ada", kept)
    assert not agreeing.agreed(made.KEYS["bob"], "r1", "ada", kept)


def test_strangers_and_other_recipes(hub):
    assert agree(hub, "cyd")[0] == 404
    for run in ("r2", "", "../r1", "r1\0"):
        assert agree(hub, run=run)[0] == 404
    assert agree(hub, recipe="ab" * 32)[0] == 409
    assert send(hub, agreeing.agree, {"run": "r1", **agreement(hub, "ada")}, "bob")[0] == 422, "of another party"
    assert hub.runs.agreements("r1") == {}


def test_what_is_spent_is_declared_before_the_run_begins(hub):
    """After that it would not be charged."""
    agree(hub)
    hub.runs.start("r1", ["ada", "bob"])
    status, why = agree(hub, "bob")
    assert (status, "would not charge it" in why) == (409, True)
    assert agree(hub, "bob", spends=[])["new"]
    assert not agree(hub, "ada")["new"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"spends": [{**SPEND, "noise": -1.0}]},
        {"spends": [{**SPEND, "noise": 10**400}]},
        {"spends": [{**SPEND, "who": "bob"}]},
        {"spends": [{**SPEND, "count": 1.5}]},
        {"spends": [{}]},
        {"spends": "none"},
        {"spends": [SPEND] * 99},
        {"limits": {}},
        {"time": "now"},
        {"proof": {"by": "zz"}},
        {"proof": {"by": "00" * 64}},
        {"proof": {}},
    ],
    ids=str,
)
def test_what_cannot_be_accounted_for(hub, wrong):
    assert agree(hub, **wrong)[0] == 422
    assert hub.runs.agreements("r1") == {}


def test_junk(hub):
    for handler in (agreeing.agree, agreeing.head):
        for junk in (b"", b"[]", b"{}", b"\xff", b"[" * 9000, b'{"run": 1}'):
            assert send(hub, handler, junk)[0] == 422
    nan = json.dumps({"run": "r1", **agreement(hub)}).replace("5.0", "NaN").encode()
    assert send(hub, agreeing.agree, nan)[0] == 422


def test_a_ledger_is_shown_from_any_entry_on(hub, tmp_path):
    whole = send(hub, agreeing.ledger, b"", run="r1")
    found = [entry_of(line) for line in whole["entries"]]
    assert (whole["at"], whole["more"]) == ("0" * 64, False)
    ledger = co.Ledger.restore(found)
    ledger.verify(co.audit(tmp_path / "run").head)
    rest = send(hub, agreeing.ledger, b"", run="r1", after="2")
    assert (rest["at"], len(rest["entries"])) == (found[1].hash, len(found) - 2)
    assert send(hub, agreeing.ledger, b"", run="r1", after="99") == {"at": None, "entries": [], "more": False}
    assert send(hub, agreeing.ledger, b"", "cyd", run="r1")[0] == 404
    for after in ("-1", "x", "1" * 20, "²"):
        assert send(hub, agreeing.ledger, b"", run="r1", after=after)[0] == 400
    assert np.array_equal(found[1].facts["up"], next(iter(ledger.since(1))).facts["up"])


def test_a_ledger_that_is_not_there_yet_is_empty(hub, tmp_path):
    facts = {"title": "", "recipe": {"hash": "ab"}, "about": {}, "minimum": 1, "invited": ["ada"]}
    hub.runs.offer("r2", Offering(folder=str(tmp_path / "no"), **facts))
    assert send(hub, agreeing.ledger, b"", run="r2") == {"at": "0" * 64, "entries": [], "more": False}
    assert send(hub, agreeing.ledger, b"", run="r2", after="3")[0] == 404
    hub.runs.offer("r3", Offering(**facts))
    assert send(hub, agreeing.ledger, b"", run="r3")[0] == 404


def test_a_head_is_noted_with_its_signature(hub):
    last = "ab" * 32
    rows = {"run": "r1", "entries": 3, "head": last, "by": said(made.secret("ada"), "head", "r1", "ada", "3", last)}
    assert send(hub, agreeing.head, rows) == {"new": True}
    held = hub.runs.heads("r1")["ada"]
    assert agreeing.held(made.KEYS["ada"], "r1", "ada", held.entries, held.head, held.proof["by"])
    for wrong in ({"entries": 4}, {"head": "cd" * 32}, {"head": "x"}, {"entries": True}, {"entries": -1}, {"by": "zz"}):
        assert send(hub, agreeing.head, {**rows, **wrong})[0] == 422
    assert send(hub, agreeing.head, rows, "bob")[0] == 422
    assert send(hub, agreeing.head, rows, "cyd")[0] == 404
