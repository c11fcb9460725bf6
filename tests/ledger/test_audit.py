"""An audit sees every change, disturbs nobody, and counts as the ledger does."""

import shutil
import sqlite3
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import comity as co
from comity.core.errors import ConfigError, LedgerError
from comity.ledger.history import history
from comity.ledger.peek import peek
from comity.ledger.record import GENESIS, Ledger, digest
from comity.ledger.store import Generation, Store

ROUNDS = 4


@dataclass(frozen=True)
class Sometimes:
    """Answers as its trainer does, but in round 2 not at all and in round 3 with what is no number."""

    trainer: Any

    def contribute(self, shared: Any, local: Any, round: Any, secret: Any) -> Any:
        if shared.kind != "score" and round.number == 1:
            raise RuntimeError("connection reset")
        answer, local = self.trainer.contribute(shared, local, round, secret)
        if shared.kind != "score" and round.number == 2:
            answer = replace(answer, value={k: np.full_like(v, np.nan) for k, v in answer.value.items()})
        return answer, local


def collaboration() -> Any:
    model = co.Linear(inputs=3, classes=2, rate=0.3)
    rng = np.random.default_rng(0)
    sites: dict[str, Any] = {}
    for name in ("ada", "bob", "cyd"):
        x = rng.normal(size=(12, 3)).astype("float32")
        sites[name] = co.Trainer(model, (x, (x[:, 0] > 0).astype(int)), valid=(x, (x[:, 0] > 0).astype(int)))
    sites["cyd"] = Sometimes(sites["cyd"])
    return co.Collaboration(co.FedAvg(model), sites, evaluate=co.every(2), seed=1)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("runs") / "joint run?#%"
    return folder, collaboration().run(ROUNDS, folder=folder)


@pytest.fixture
def folder(original: tuple[Path, Any], tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(original[0], tmp_path / "copy"))


def sql(folder: Path, statement: str, *values: Any) -> None:
    db = sqlite3.connect(folder / "run.db")
    with db:
        db.execute(statement, values)
    db.close()


def files(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {str(p): (p.read_bytes(), p.stat().st_mtime_ns) for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_run_that_is_whole(original: tuple[Path, Any]) -> None:
    folder, run = original
    found = co.audit(folder)
    assert (found.ok, found.faults, found.kept) == (True, (), "")
    assert found.intact == found.entries == len(run.ledger)
    assert (found.head, found.recipe, found.rounds) == (run.ledger.head, run.recipe, ROUNDS)
    assert found.times == (run.ledger[0].time, run.ledger[-1].time)
    assert found.bytes == (run.ledger.bytes_up, run.ledger.bytes_down)
    assert {n: (p.up, p.down) for n, p in found.parties.items()} == {n: run.ledger.bytes_of(n) for n in found.parties}
    assert {n: (p.answered, p.asked) for n, p in found.parties.items()} == {"ada": (4, 4), "bob": (4, 4), "cyd": (2, 4)}
    assert found.parties["ada"].error == ""
    assert found.parties["cyd"].error.startswith("round 3: ")
    assert [(r.round, r.sender) for r in found.dropped] == [(1, "cyd")]
    assert [(r.round, r.sender) for r in found.refused] == [(2, "cyd")]
    rounds = [e for e in run.ledger if e.kind == "round"]
    assert (found.parties["cyd"].first, found.parties["cyd"].last) == (rounds[0].time, rounds[3].time)
    assert (found.spends, found.privacy) == ((), "no privacy mechanism in this recipe")


def test_looking_writes_nothing_and_needs_no_lock(original: tuple[Path, Any]) -> None:
    folder, run = original
    before = files(folder)
    seen = peek(folder)
    co.audit(folder)
    assert files(folder) == before
    assert [e.hash for e in seen.entries] == [e.hash for e in run.ledger]
    with Store.open(folder, seen.recipe) as store:
        kept = store.load()
        assert kept is not None
        assert {name: seen.state(name) for name in seen.files} == kept.states
        assert co.audit(folder).ok
        with Store.open(folder.parent / "other", "{}"):
            assert co.audit(folder.parent / "other").entries == 0


HOLDER = """
import sys, time
from comity.ledger.record import Ledger
from comity.ledger.store import Generation, Store
ledger = Ledger()
with Store.open(sys.argv[1], "{}") as store:
    for n in range(100_000):
        entry = ledger.append("round", {"round": n, "closed": True}, time=float(n))
        store.save(Generation([entry], {"last": b"state %d" % n}, {}, {"round": n}))
        if not n:
            print("held", flush=True)
        time.sleep(0.01)
"""


def test_a_run_that_goes_on_meanwhile_and_is_killed(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    try:
        found = [co.audit(tmp_path) for _ in range(40)]
    finally:
        child.kill()
        child.communicate()
    assert [f.faults for f in found if not f.ok] == []
    lengths = [f.entries for f in found]
    assert lengths == sorted(lengths)
    assert lengths[-1] > lengths[0] >= 1
    left = co.audit(tmp_path)  # the log of the killed process still holds what it saved last
    assert left.ok
    assert left.entries >= lengths[-1]


@pytest.mark.parametrize(
    ("statement", "intact", "says"),
    [
        ("UPDATE entries SET time = time + 1 WHERE number = 3", 2, "entry 3 does not match the hash in entry 4"),
        ("UPDATE entries SET facts = x'00' WHERE number = 3", 2, "entry 3 does not match"),
        ("UPDATE entries SET kind = 'x' WHERE number = 1", 0, "entry 1 does not match"),
        ("UPDATE entries SET hash = 'f' WHERE number = 3", 2, "entry 3 does not match"),
        ("DELETE FROM entries WHERE number = 3", 2, "entry 3 is missing"),
        ("UPDATE entries SET kind = 'x' WHERE number = 7", 6, "entry 7 does not match its own hash"),
        ("DELETE FROM entries WHERE number = 7", 6, "must end with the hash"),
    ],
)
def test_the_first_bad_entry_is_named(folder: Path, statement: str, intact: int, says: str) -> None:
    assert co.audit(folder).entries == 7  # start, four rounds, two scores
    sql(folder, statement)
    found = co.audit(folder)
    assert not found.ok
    assert found.intact == intact
    assert says in found.faults[0]
    assert found.head == (peek(folder).entries[intact - 1].hash if intact else GENESIS)


def forged(folder: Path, at: int) -> None:
    """Change an entry and make the chain after it anew, the head in the state row too."""
    seen = peek(folder)
    entries, before = list(seen.entries[: at - 1]), seen.entries[at - 2].hash
    for entry in seen.entries[at - 1 :]:
        new = replace(entry, time=entry.time + 1, previous=before)
        before = digest(new)
        entries.append(replace(new, hash=before))
    shutil.rmtree(folder)
    with Store.open(folder, seen.recipe) as store:
        store.save(Generation(entries))


def test_only_a_kept_head_shows_a_chain_made_anew(folder: Path, original: tuple[Path, Any], tmp_path: Path) -> None:
    run = original[1]
    (tmp_path / "kept.txt").write_text(f"head       {run.ledger[3].hash}\nrecipe     sha256:{run.recipe[:8]}\n")
    assert co.audit(folder, against=tmp_path / "kept.txt").kept == "the kept head is that of entry 4 of 7"
    forged(folder, 3)
    assert co.audit(folder).ok
    for copy in (tmp_path / "kept.txt", original[0]):
        found = co.audit(folder, against=copy)
        assert (found.ok, found.kept) == (False, "")
        assert "changed since, or is that of another run" in found.faults[0]
    assert "Entry 3 differs" in co.audit(folder, against=original[0]).faults[0]


def test_beside_a_copy(folder: Path, original: tuple[Path, Any], tmp_path: Path) -> None:
    assert co.audit(folder, against=original[0]).kept == "the copy's 7 entries are the first of 7"
    shorter = tmp_path / "shorter"
    with Store.open(shorter, "{}") as store:
        store.save(Generation(original[1].ledger[:5]))
    assert co.audit(folder, against=shorter).kept == "the copy's 5 entries are the first of 7"
    found = co.audit(shorter, against=folder)
    assert "has 2 more entries" in found.faults[-1]
    sql(shorter, "DELETE FROM entries WHERE number = 2")
    assert "is broken itself" in co.audit(folder, against=shorter).faults[0]


def test_a_kept_head_that_is_none(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "kept.txt").write_text("nothing")
    with pytest.raises(ConfigError, match=r"must be one hash of 64 digits.* holds 0"):
        co.audit(folder, against=tmp_path / "kept.txt")
    (tmp_path / "kept.txt").write_text("0" * 64 + " " + "1" * 64)
    with pytest.raises(ConfigError, match="holds 2"):
        co.audit(folder, against=tmp_path / "kept.txt")
    with pytest.raises(ConfigError, match="must be in a file or a run's folder"):
        co.audit(folder, against=tmp_path / "missing.txt")


def test_states_and_recipe_are_verified_too(folder: Path) -> None:
    recipe = (folder / "recipe.json").read_text("utf-8")
    (folder / "recipe.json").write_text(recipe.replace("0.3", "0.4"), "utf-8")
    assert "recipe.json does not match the hash that the ledger began with" in co.audit(folder).faults[0]
    (folder / "recipe.json").write_text("{", "utf-8")
    assert "recipe.json cannot be read" in co.audit(folder).faults[0]
    (folder / "recipe.json").write_text(recipe, "utf-8")
    path = next((folder / "states").iterdir())
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    assert path.name in co.audit(folder).faults[0]
    path.unlink()
    assert f"{path.name} is missing" in co.audit(folder).faults[0]


def test_a_folder_that_holds_no_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must be the folder of a run"):
        co.audit(tmp_path)
    (tmp_path / "run.db").write_bytes(b"no database at all, and long enough to be looked at" * 30)
    with pytest.raises(LedgerError, match="is damaged"):
        co.audit(tmp_path)


def test_spends_are_listed(tmp_path: Path) -> None:
    ledger = Ledger()
    ledger.append("spend", {"noise": 1.1}, time=0.0)
    with Store.open(tmp_path, "{}") as store:
        store.save(Generation(ledger.since(0)))
    found = co.audit(tmp_path)
    assert ([s["noise"] for s in found.spends], found.privacy) == ([1.1], "1 spend recorded")


def test_the_history_of_a_run_is_a_frame(original: tuple[Path, Any]) -> None:
    run = original[1]
    h = run.history
    assert h.columns[:5] == ["round", "asked", "accepted", "bytes_up", "bytes_down"]
    assert h["round"].to_list() == [1, 2, 3, 4]
    assert h["asked"].to_list() == [3] * 4
    assert h["accepted"].to_list() == [3, 2, 2, 3]
    assert (h["bytes_up"].sum(), h["bytes_down"].sum()) == (run.ledger.bytes_up, run.ledger.bytes_down)
    scored = h["valid_log_loss"].to_list()
    assert (scored[0], scored[2]) == (None, None)
    assert [scored[1], scored[3]] == run.ledger.metric("valid_log_loss")
    assert h["train_loss"].to_list() == run.ledger.metric("train_loss")


def test_history_counts_attempts_and_hubs() -> None:
    ledger = Ledger()
    for number, hub, closed in ((0, "a", False), (0, "a", True), (0, "b", True), (1, "a", True), (2, "a", False)):
        facts = {"round": number, "hub": hub, "asked": "ada\nbob", "accepted": np.array([True, closed])}
        more = {"up": np.array([1, 2]), "down": np.array([3, 4]), "metrics": {"loss": np.array([number + 2.0, 2.0])}}
        ledger.append("round", facts | more | {"closed": closed}, time=0.0)
    got = history(ledger)
    assert got == {
        "round": [1, 2],
        "asked": [2, 2],
        "accepted": [2, 2],
        "bytes_up": [9, 3],
        "bytes_down": [21, 7],
        "loss": [1.0, 1.5],
    }
    assert history(Ledger()) == {"round": [], "asked": [], "accepted": [], "bytes_up": [], "bytes_down": []}
