"""A folder holds one whole generation at any moment, for one process and one recipe, and says what is damaged."""

import errno
import json
import os
import random
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from comity.core.errors import ConfigError, LedgerError
from comity.ledger.record import Ledger
from comity.ledger.store import Generation, Store

RECIPE = json.dumps({"seed": 0, "method": {"name": "FedAvg", "lr": 0.1}})


def next_generation(ledger, n, **more):
    entry = ledger.append("round", {"round": n, "up": np.array([n]), "closed": True}, time=float(n))
    drawers = {"ada": f"ada {n}".encode(), f"p{n}": b"x" * 100}
    return Generation([entry], {"last": f"state {n}".encode() * 50, **more}, drawers, {"round": n})


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "runs" / "x"


@pytest.fixture
def saved(folder):
    """A closed folder with three generations."""
    ledger = Ledger()
    with Store.open(folder, RECIPE) as store:
        for n in range(3):
            store.save(next_generation(ledger, n, **({"best": b"best"} if n == 1 else {})))
    return folder


def sql(folder, statement, *values):
    db = sqlite3.connect(folder / "run.db")
    with db:
        db.execute(statement, values)
    db.close()


def test_what_was_saved_is_loaded(saved):
    with Store.open(saved, RECIPE) as store:
        got = store.load()
        assert dict(got.states) == {"last": b"state 2" * 50, "best": b"best"}
        assert got.meta == {"round": 2}
        assert (store.drawer("ada"), store.drawer("p1"), store.drawer("nobody")) == (b"ada 2", b"x" * 100, None)
        assert store.drawer_names() == ["ada", "p0", "p1", "p2"]
        ledger = Ledger.restore(got.entries)
        ledger.verify()
        assert (ledger.rounds, ledger.bytes_up) == (3, 3)
        store.save(Generation(drawers={"p1": None, "p9": b"new"}))
        assert store.drawer_names() == ["ada", "p0", "p2", "p9"]
        assert store.load().states["last"] == b"state 2" * 50


def test_nothing_saved_is_none(folder):
    with Store.open(folder, RECIPE) as store:
        assert store.load() is None
        assert store.drawer_names() == []


def test_superseded_and_stray_files_go(saved):
    names = {p.name for p in (saved / "states").iterdir()}
    assert len(names) == 2
    (saved / "states" / ("0" * 64 + ".state")).write_bytes(b"stray")
    (saved / "states" / ".abc.state.tmp").write_bytes(b"stray")
    (saved / ".secret.tmp").write_bytes(b"stray")
    with Store.open(saved, RECIPE):
        assert {p.name for p in (saved / "states").iterdir()} == names
        assert not (saved / ".secret.tmp").exists()


def test_entries_that_do_not_follow_are_refused(saved):
    with Store.open(saved, RECIPE) as store:
        ledger = Ledger.restore(store.load().entries)
        gap = [ledger.append("a", {}, time=0.0), ledger.append("b", {}, time=0.0)][1:]
        with pytest.raises(LedgerError, match=r"Entry 4, .* must be the next to be saved. Got 5"):
            store.save(Generation(gap))
        store.save(Generation(ledger.since(3)))
        assert len(store.load().entries) == 5


def test_a_second_process_is_told_to_wait(folder):
    code = f"""
import sys
from comity.ledger.store import Store
with Store.open({str(folder)!r}, {RECIPE!r}):
    print("held", flush=True)
    sys.stdin.read()
"""
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout.readline() == b"held\n"
    with pytest.raises(
        ConfigError, match=rf"another process is using .*x \(pid {child.pid}\)\. Wait for it, or choose"
    ):
        Store.open(folder, RECIPE)
    child.communicate(b"")
    with Store.open(folder, RECIPE), pytest.raises(ConfigError, match=r"this process already has"):
        Store.open(folder, RECIPE)


def test_another_recipe_is_refused_with_the_difference(saved):
    other = json.dumps({"seed": 0, "method": {"name": "FedAvg", "lr": 0.2}, "rounds": 9})
    with pytest.raises(ConfigError) as e:
        Store.open(saved, other)
    lines = str(e.value).splitlines()
    assert lines[1:3] == ["  method.lr: 0.1 → 0.2", "  rounds: (absent) → 9"]
    assert "Choose another folder" in lines[3]
    Store.open(saved, json.dumps(json.loads(RECIPE), indent=4)).close()


def test_a_long_difference_is_cut(folder):
    Store.open(folder, json.dumps({"t": list(range(30))})).close()
    with pytest.raises(ConfigError) as e:
        Store.open(folder, json.dumps({"t": list(range(1, 30))}))
    assert "t.0: 0 → 1" in str(e.value)
    assert "and 20 more" in str(e.value)


def damage_state(folder):
    path = next(p for p in (folder / "states").iterdir() if p.stat().st_size > 10)
    data = bytearray(path.read_bytes())
    data[5] ^= 1
    path.write_bytes(data)
    return path.name


def lose_state(folder):
    path = next((folder / "states").iterdir())
    path.unlink()
    return f"{path.name} is missing"


def damage_entry(folder):
    sql(folder, "UPDATE entries SET time = 77.0 WHERE number = 2")
    return "ledger entry 2 does not match the hash in entry 3. Entry 1 is intact."


def garble_entry(folder):
    sql(folder, "UPDATE entries SET facts = x'ff00' WHERE number = 2")
    return "ledger entry 2 in .*run.db cannot be read"


def lose_last_entry(folder):
    sql(folder, "DELETE FROM entries WHERE number = 3")
    return "the ledger must end with the hash .* at entry 2"


def lose_all_entries(folder):
    sql(folder, "DELETE FROM entries")
    return "the ledger must end with the hash .* at entry 0"


def damage_head(folder):
    sql(folder, "UPDATE state SET data = x'00'")
    return "the state row of .*run.db does not match"


def lose_head(folder):
    sql(folder, "DELETE FROM state")
    return "the state row of .*run.db is missing"


def lose_database(folder):
    (folder / "run.db").unlink()
    return "run.db is missing"


def lose_recipe(folder):
    (folder / "recipe.json").unlink()
    return "recipe.json is missing"


def garble_recipe(folder):
    (folder / "recipe.json").write_text("{")
    return "recipe.json must be JSON"


def garble_database(folder):
    (folder / "run.db").write_bytes(b"no database, and long enough to be read as one" * 100)
    return "run.db is damaged"


DAMAGES = [
    damage_state,
    lose_state,
    damage_entry,
    garble_entry,
    lose_last_entry,
    lose_all_entries,
    damage_head,
    lose_head,
    lose_database,
    lose_recipe,
    garble_recipe,
    garble_database,
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda f: f.__name__)
def test_damage_is_named_with_what_to_do(saved, damage):
    named = damage(saved)
    states = sorted((saved / "states").iterdir())
    with pytest.raises(LedgerError, match=f"{named}.*(Restore|delete)"), Store.open(saved, RECIPE) as store:
        store.load()
    assert sorted((saved / "states").iterdir()) == states


def test_a_damaged_drawer_is_named(saved):
    with Store.open(saved, RECIPE) as store:
        sql(saved, "UPDATE drawers SET data = ? WHERE name = 'ada'", b"ada 7")
        with pytest.raises(LedgerError, match=r"the drawer of 'ada' in .*run.db does not match its hash. Restore"):
            store.drawer("ada")
        assert store.drawer("p1") == b"x" * 100


def test_two_drawers_cannot_change_places(saved):
    with Store.open(saved, RECIPE) as store:
        store.save(Generation(drawers={"a": b"1", "b": b"2"}))
        for old, new in (("a", "c"), ("b", "a"), ("c", "b")):
            sql(saved, "UPDATE drawers SET name = ? WHERE name = ?", new, old)
        with pytest.raises(LedgerError, match=r"the drawer of 'a'"):
            store.drawer("a")


def test_the_secret_is_made_once_kept_private_and_forgotten(folder):
    old = os.umask(0)
    try:
        with Store.open(folder, RECIPE) as store:
            first = store.secret()
            assert len(first) == 32
            assert stat.S_IMODE((folder / "secret").stat().st_mode) == 0o600
            assert store.secret() == first
    finally:
        os.umask(old)
    with Store.open(folder, RECIPE) as store:
        assert store.secret() == first
        store.forget_secret()
        assert not (folder / "secret").exists()
        assert store.secret() != first
        (folder / "secret").write_bytes(b"short")
        with pytest.raises(LedgerError, match=r"must hold 32 bytes. Got 5"):
            store.secret()


def test_a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "x").write_text("a file")
    with pytest.raises(ConfigError, match=r"x must be a folder. There is a file in its place.*Choose another"):
        Store.open(tmp_path / "x", RECIPE)
    with pytest.raises(ConfigError, match=r"There is a file in its place"):
        Store.open(tmp_path / "x" / "y", RECIPE)


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_folder_that_cannot_be_written(folder, monkeypatch, number):
    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ConfigError, match=r"must be a folder that can be written.*Choose another, or allow writing"):
        Store.open(folder, RECIPE)


def test_a_disk_that_fills_up_while_a_state_is_written(saved, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with Store.open(saved, RECIPE) as store:
        ledger = Ledger.restore(store.load().entries)
        generation = next_generation(ledger, 3)
        with monkeypatch.context() as m:
            m.setattr(os, "fsync", full)
            with pytest.raises(LedgerError, match=r"It is full. Free some space and run again.*before is intact"):
                store.save(generation)
        assert_generation(store, 3)
        store.save(generation)
        assert_generation(store, 4)


def test_a_database_that_fills_up(saved):
    with Store.open(saved, RECIPE) as store:
        ledger = Ledger.restore(store.load().entries)
        generation = next_generation(ledger, 3)
        with store._engine.connect() as db:
            db.exec_driver_sql("PRAGMA max_page_count=1")
        big = Generation(generation.entries, generation.states, {"ada": b"y" * 10**6}, generation.meta)
        with pytest.raises(LedgerError, match=r"It is full"):
            store.save(big)
        assert_generation(store, 3)
    with Store.open(saved, RECIPE) as store:
        assert_generation(store, 3)
        store.save(generation)
        assert_generation(store, 4)


def assert_generation(store, least):
    """One generation: entries, state, drawers and meta all tell the same round."""
    got = store.load()
    n = len(got.entries) - 1
    assert n >= least - 1
    assert got.meta["round"] == n
    assert got.states["last"] == f"state {n}".encode() * 50
    assert store.drawer("ada") == f"ada {n}".encode()
    assert store.drawer_names() == sorted(["ada", *(f"p{i}" for i in range(n + 1))])
    return n + 1


WRITER = """
import sys
sys.path.insert(0, sys.argv[2])
from test_store import *
with Store.open(sys.argv[1], RECIPE) as store:
    found = store.load()
    ledger = Ledger.restore(found.entries if found else ())
    print(len(ledger), flush=True)
    for n in range(len(ledger), 10**6):
        store.save(next_generation(ledger, n))
        print(n + 1, flush=True)
"""


def test_killed_at_any_moment_the_folder_holds_a_whole_generation(folder):
    rng, least = random.Random(5), 0
    for _ in range(10):
        command = [sys.executable, "-c", WRITER, str(folder), str(Path(__file__).parent)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        child.stdout.readline()
        time.sleep(rng.uniform(0.0, 0.1))
        child.send_signal(signal.SIGKILL)
        told = child.communicate()[0].split()
        with Store.open(folder, RECIPE) as store:
            least = max(least, *(int(t) for t in told), 0) if told else least
            if store.load() is None:
                assert least == 0
                continue
            least = assert_generation(store, least)
            assert len(list((folder / "states").iterdir())) == 1
    assert least > 10


STOPPED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_store import *
import comity.ledger.store as room

where, name, call = {"os": os, "Path": Path, "Store": Store, "room": room}[sys.argv[3]], sys.argv[4], int(sys.argv[5])
store = Store.open(sys.argv[1], RECIPE)
ledger = Ledger.restore(store.load().entries)
calls, honest = [], getattr(where, name)
def watched(*args, **kwargs):
    calls.append(name)
    if len(calls) == call:
        os.kill(os.getpid(), signal.SIGKILL)
    return honest(*args, **kwargs)
setattr(where, name, watched)
store.save(next_generation(ledger, 3))
"""
STEPS = [
    ("Path", "replace", 1, 3),
    ("os", "fsync", 1, 3),
    ("os", "fsync", 2, 3),
    ("Store", "_commit", 1, 3),
    ("room", "_insert", 2, 3),
    ("room", "_insert", 3, 3),
    ("Store", "_sweep", 1, 4),
]


@pytest.mark.parametrize(("where", "name", "call", "rounds"), STEPS)
def test_killed_at_each_step_of_a_save(saved, where, name, call, rounds):
    command = [sys.executable, "-c", STOPPED, saved, Path(__file__).parent, where, name, str(call)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    with Store.open(saved, RECIPE) as store:
        assert assert_generation(store, rounds) == rounds
        assert len(list((saved / "states").iterdir())) == 2
