"""A site keeps the hub's ledger, signs how far it has seen it, and ends where it is rewritten."""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import comity as co
from comity.ledger import copies
from comity.ledger.peek import peek
from comity.service import agreeing, watching

sys.path.append(str(Path(__file__).parent))
desks = importlib.import_module("desks")
made = desks.made


@pytest.fixture
def desk() -> Any:
    one = desks.Desk(made.fedavg())
    one.start()
    return one


def grow(ledger: Any, n: int) -> None:
    for i in range(n):
        facts = {"round": i, "asked": "ada\nbob", "up": np.array([i, 2]), "down": np.array([1, 1]), "closed": True}
        ledger.append("round", facts, time=float(i))


def test_it_follows_and_signs(desk, tmp_path):
    grow(desk.ledger, agreeing.MOST + 30)
    one = desk.site(tmp_path, made.trainer("ada"))
    one.watch.look()
    assert (one.watch.count, one.watch.head) == (len(desk.ledger), desk.ledger.head)
    assert (desk.heads["ada"]["entries"], desk.heads["ada"]["head"]) == (len(desk.ledger), desk.ledger.head)
    kept = copies.read(tmp_path / "run1")
    assert [e.hash for e in kept] == [e.hash for e in desk.ledger]
    co.Ledger.restore(kept).verify(desk.ledger.head)
    again = desk.site(tmp_path, made.trainer("ada"))
    assert again.watch.count == len(desk.ledger)
    assert again.watch.signed == one.watch.signed


def test_it_looks_once_a_second_and_at_the_end(desk, tmp_path, monkeypatch):
    now = [5.0]
    one = desk.site(tmp_path, made.trainer("ada"))
    one.watch._clock = lambda: now[0]
    one.watch.look()
    grow(desk.ledger, 1)
    one.watch.look()
    assert one.watch.count == 1
    now[0] += watching.EVERY
    one.watch.look()
    assert one.watch.count == 2
    grow(desk.ledger, 1)
    one.watch.look(last=True)
    assert one.watch.count == 3


@pytest.mark.parametrize("how", ["changed", "shorter", "another entry"])
def test_a_rewritten_history_ends_it(desk, how, tmp_path):
    grow(desk.ledger, 3)
    one = desk.site(tmp_path, made.trainer("ada"))
    one.watch.look(last=True)
    entries = list(desk.ledger)
    if how == "shorter":
        desk.ledger = co.Ledger.restore(entries[:2])
    else:
        desk.ledger = co.Ledger.restore(entries[:1])
        grow(desk.ledger, 2)
        facts = {"round": 2, "asked": "ada", "up": np.array([9]), "down": np.array([9]), "closed": True}
        desk.ledger.append("round" if how == "changed" else "end", facts, time=7.0)
    for who in (one, desk.site(tmp_path, made.trainer("ada"))):
        with pytest.raises(co.LedgerError, match="This site answers no more"):
            who.watch.look(last=True)
    assert len(copies.read(tmp_path / "run1")) == len(entries)


def test_entries_that_do_not_follow_are_not_kept(desk, tmp_path, monkeypatch):
    one = desk.site(tmp_path, made.trainer("ada"))
    one.watch.look(last=True)
    lie = copies.line_of(desk.ledger[0]) | {"number": 2, "previous": desk.ledger.head}
    told = {"at": desk.ledger.head, "entries": [lie], "more": False}
    monkeypatch.setattr(desks.Desk, "on_ledger", lambda *_: (200, told))
    with pytest.raises(co.LedgerError, match="entry 2 of the hub's ledger"):
        one.watch.look(last=True)
    monkeypatch.setattr(desks.Desk, "on_ledger", lambda *_: (200, {**told, "entries": [{"x": 1}]}))
    with pytest.raises(co.LedgerError, match="must be one"):
        one.watch.look(last=True)
    assert len(copies.read(tmp_path / "run1")) == 1


def test_it_must_begin_with_what_was_agreed(tmp_path):
    desk = desks.Desk(made.fedavg())
    desk.ledger.append("start", {"recipe": "ab" * 32}, time=0.0)
    with pytest.raises(co.LedgerError, match="must begin with the recipe"):
        desk.site(tmp_path, made.trainer("ada")).watch.look()


def test_a_line_that_was_cut_is_fetched_again(desk, tmp_path):
    one = desk.site(tmp_path, made.trainer("ada"))
    one.watch.look()
    path = tmp_path / "run1" / copies.NAME
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:40])
    grow(desk.ledger, 1)
    again = desk.site(tmp_path, made.trainer("ada"))
    again.watch.look()
    assert len(copies.read(tmp_path / "run1")) == 2


def test_a_hub_that_does_not_charge_is_found_out(desk, tmp_path):
    person = co.PrivateTrainer(made.MODEL, made.DATA["ada"], clip=1.0, noise=2.0, rate=0.5)
    one = desk.site(tmp_path, person)
    round_ = {"round": 0, "attempt": 0, "asked": "ada\nbob", "accepted": np.array([True, True]), "closed": True}
    spend = {"round": 0, "attempt": 0, "mechanism": "gaussian", "noise": 2.0, "who": "ada\nbob"}
    desk.ledger.append("spend", spend, time=1.0)
    desk.ledger.append("round", round_, time=1.0)
    desk.ledger.append("round", {**round_, "round": 1, "accepted": np.array([False, True])}, time=1.0)
    one.watch.look(last=True)
    desk.ledger.append("spend", {**spend, "round": 2, "who": "bob"}, time=1.0)
    desk.ledger.append("round", {**round_, "round": 2}, time=1.0)
    for _ in range(2):
        with pytest.raises(co.LedgerError, match=r"must charge what ada spends\. It does not in round 3"):
            desk.site(tmp_path, person).watch.look(last=True)


@pytest.fixture
def both(tmp_path: Path) -> tuple[Path, Path]:
    """A run's folder, and the copy that a site keeps."""
    desk = desks.Desk(made.fedavg())
    sites = {n: desk.site(tmp_path / n, made.trainer(n), name=n) for n in made.NAMES}
    run = made.fedavg().run(rounds=4, folder=tmp_path / "hub", engine=desks.Direct(desk, sites))
    desk.ledger = run.ledger
    sites["ada"].watch.look(last=True)
    return tmp_path / "hub", tmp_path / "ada" / "run1"


def test_both_sides_can_be_audited_against_each_other(both):
    hub, copy = both
    theirs, ours = co.audit(hub, against=copy), co.audit(copy, against=hub)
    assert theirs.ok, theirs.faults
    assert ours.ok, ours.faults
    assert (ours.head, ours.rounds, ours.parties, ours.recipe) == (
        theirs.head,
        4,
        theirs.parties,
        theirs.recipe,
    )
    assert "are the first of" in theirs.kept
    _cut(copy, 2)
    (copy / copies.HEAD).unlink()
    assert co.audit(hub, against=copy).ok, "a copy may be behind"
    assert any("more entries" in fault for fault in co.audit(copy, against=hub).faults)


def _cut(copy: Path, keep: int) -> None:
    path = copy / copies.NAME
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:keep]))


def test_a_copy_that_was_tampered_with_is_seen(both):
    hub, copy = both
    _cut(copy, 2)
    assert any("signed for" in fault for fault in co.audit(copy).faults), "shorter than its head"
    lines = [json.loads(line) for line in (copy / copies.NAME).read_text().splitlines()]
    lines[1]["time"] = 1.0
    (copy / copies.NAME).write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert not co.audit(copy).ok
    assert not co.audit(hub, against=copy).ok


def test_entries_are_read_of_a_folder_in_use(both):
    hub, _ = both
    entries = peek(hub).entries
    at, rest = copies.entries_after(hub, 0, 2)
    assert (at, [e.hash for e in rest]) == ("0" * 64, [e.hash for e in entries[:2]])
    at, rest = copies.entries_after(hub, 2, 99)
    assert at == entries[1].hash
    assert [e.hash for e in rest] == [e.hash for e in entries[2:]]
    assert copies.entries_after(hub, len(entries) + 5, 9) == (None, [])
    assert not list(hub.glob("run.db-*")), "a look leaves nothing behind"
