"""Backup, restore, migration, retention: what is put back is whole, goes on, and ends with the same bits."""

import io
import json
import os
import sqlite3
import tarfile
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

import comity as co
from comity.cli.commands import app
from comity.core.wire import encode_tree
from comity.ledger import folder as files
from comity.ledger.audit import audit
from comity.service import versions
from comity.service.database import Database
from comity.service.keeping import MANIFEST, backup, restore
from comity.service.registry import Registry
from comity.service.retention import prune
from comity.service.runs import Offering, Runs
from comity.service.settings import HubSettings

DATA = np.eye(4, dtype="float32"), np.array([0, 0, 1, 1])
MODEL = co.Linear(inputs=4, classes=2, rate=0.5)


def fed() -> co.Collaboration:
    return co.Collaboration(co.FedAvg(MODEL), {n: co.Trainer(MODEL, DATA) for n in ("ada", "bob")}, seed=1)


def bits(run: Any) -> bytes:
    return encode_tree({"state": run.state})


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    HubSettings.make(tmp_path / "hub", name="Registry", host="hub.example", port=8443)
    Registry.open(tmp_path / "hub").close()
    return tmp_path / "hub"


def test_a_hub_is_put_back_as_it_was(hub: Path, tmp_path: Path) -> None:
    run = fed().run(rounds=3, folder=hub / "runs" / "one")
    with Registry.open(hub) as registry:
        registry.invite("ada", bytes(32))
    kept = backup(hub, tmp_path / "copies" / "hub.tar")
    assert (kept.runs, kept.faults, kept.elsewhere) == (("runs/one",), (), ())
    assert (tmp_path / "copies" / "hub.tar").stat().st_mode & 0o777 == 0o600
    assert not [p for p in (tmp_path / "copies").iterdir() if p.name != "hub.tar"]
    again, faults = restore(tmp_path / "copies" / "hub.tar", tmp_path / "other")
    assert faults == ()
    assert again.files == kept.files
    found = audit(tmp_path / "other" / "runs" / "one")
    assert (found.ok, found.head) == (True, run.ledger.head)
    assert HubSettings.read(tmp_path / "other").secret().public_key() == HubSettings.read(hub).secret().public_key()
    assert (tmp_path / "other" / "hub.key").stat().st_mode & 0o777 == 0o600
    with Registry.open(tmp_path / "other") as registry:
        assert [p.name for p in registry.parties()] == ["ada"]
    more = fed().run(rounds=5, folder=tmp_path / "other" / "runs" / "one")
    assert bits(more) == bits(fed().run(rounds=5))


@pytest.fixture
def at_work(hub: Path) -> Iterator[threading.Event]:
    """A run that saves again and again, and parties that are invited meanwhile."""
    stop, failed = threading.Event(), []

    def work() -> None:
        try:
            for n in range(1, 10_000):
                fed().run(rounds=n, folder=hub / "runs" / "one")
                with Registry.open(hub) as registry:
                    registry.invite(f"party {n}", bytes(32))
                if stop.is_set():
                    return
        except BaseException as error:  # noqa: BLE001
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    yield stop
    stop.set()
    thread.join(20)
    assert not thread.is_alive()
    assert not failed


def test_a_backup_of_a_hub_at_work_is_whole_and_goes_on(hub: Path, tmp_path: Path, at_work: threading.Event) -> None:
    heads = []
    for n in range(8):
        kept = backup(hub, tmp_path / f"{n}.tar")
        assert kept.faults == ()
        if not kept.runs:  # nothing was saved yet
            continue
        assert restore(tmp_path / f"{n}.tar", tmp_path / f"hub{n}")[1] == ()
        rounds = audit(tmp_path / f"hub{n}" / "runs" / "one").rounds
        heads.append(rounds)
        more = fed().run(rounds=rounds + 2, folder=tmp_path / f"hub{n}" / "runs" / "one")
        assert bits(more) == bits(fed().run(rounds=rounds + 2))
    at_work.set()
    assert heads == sorted(heads)
    assert len(set(heads)) > 1


def test_looking_leaves_nothing_behind(hub: Path, tmp_path: Path) -> None:
    fed().run(rounds=1, folder=hub / "runs" / "one")
    before = sorted(p.relative_to(hub).as_posix() for p in hub.rglob("*"))
    backup(hub, tmp_path / "hub.tar")
    assert sorted(p.relative_to(hub).as_posix() for p in hub.rglob("*")) == before


def changed(file: Path, name: str, data: bytes | None) -> None:
    """A backup with another file in the place of one; None leaves it out."""
    rows = []
    with tarfile.open(file) as tar:
        for row in tar:
            body = tar.extractfile(row)
            assert body is not None
            rows.append((row, body.read()))
    with tarfile.open(file, "w") as tar:
        for row, body_of in rows:
            new = data if row.name == name else body_of
            if new is not None:
                row.size = len(new)
                tar.addfile(row, io.BytesIO(new))


@pytest.mark.parametrize("data", [b"name = 'other'\n", None])
def test_a_backup_that_was_changed_is_not_put_back(hub: Path, tmp_path: Path, data: bytes | None) -> None:
    backup(hub, tmp_path / "hub.tar")
    changed(tmp_path / "hub.tar", "hub.toml", data)
    with pytest.raises(co.LedgerError, match=r"damaged: hub\.toml is not what was put into it"):
        restore(tmp_path / "hub.tar", tmp_path / "other")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["hub", "hub.tar"]


def test_what_is_no_backup_is_refused(hub: Path, tmp_path: Path) -> None:
    (tmp_path / "no.tar").write_text("nothing")
    with pytest.raises(co.LedgerError, match="must be a whole backup"):
        restore(tmp_path / "no.tar", tmp_path / "other")
    backup(hub, tmp_path / "hub.tar")
    whole = (tmp_path / "hub.tar").read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(co.ComityError, match="must be"):
        restore(tmp_path / "cut.tar", tmp_path / "other")
    with pytest.raises(co.ConfigError, match="empty folder"):
        restore(tmp_path / "hub.tar", hub)
    changed(tmp_path / "hub.tar", MANIFEST, json.dumps({"format": 9, "made": 0, "runs": [], "elsewhere": [],
            "files": {"hub.toml": ""}}).encode())  # fmt: skip
    with pytest.raises((co.ConfigError, co.LedgerError), match=r"format 1\. Got 9"):
        restore(tmp_path / "hub.tar", tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("name", ["../out", "/out", "a/../../out"])
def test_a_backup_cannot_write_elsewhere(hub: Path, tmp_path: Path, name: str) -> None:
    with tarfile.open(tmp_path / "evil.tar", "w") as tar:
        row = tarfile.TarInfo(name)
        row.size = 1
        tar.addfile(row, io.BytesIO(b"x"))
    with pytest.raises(co.LedgerError, match="must be a backup of a hub"):
        restore(tmp_path / "evil.tar", tmp_path / "deep" / "other")
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_backed_up_is_said(hub: Path, tmp_path: Path) -> None:
    with pytest.raises(co.ConfigError, match="outside"):
        backup(hub, hub / "hub.tar")
    with pytest.raises(co.ConfigError, match="folder of a hub"):
        backup(tmp_path, tmp_path / "hub.tar")
    fed().run(rounds=2, folder=hub / "runs" / "one")
    with closing(sqlite3.connect(hub / "runs" / "one" / "run.db")) as db, db:
        db.execute("UPDATE entries SET time = 0 WHERE number = 2")
    assert "entry 2" in backup(hub, tmp_path / "hub.tar").faults[0]
    (hub / "hub.db").write_bytes(b"x" * 5000)
    with pytest.raises(co.LedgerError, match=r"hub\.db must be a database"):
        backup(hub, tmp_path / "hub.tar")
    assert [fault for fault in restore(tmp_path / "hub.tar", tmp_path / "other")[1] if "entry 2" in fault]


def test_postgresql_and_files_elsewhere_are_named_without_a_password(hub: Path, tmp_path: Path) -> None:
    text = (hub / "hub.toml").read_text().replace("tls.crt", "/etc/comity/tls.crt")
    (hub / "hub.toml").write_text(text + 'database = "postgresql+psycopg://hub:s3cret@db/comity"\n')
    with (hub / "hub.toml").open("a") as f:
        f.write('blobs = "sftp://hub:s3cret@store/bodies?key=s3cret"\n')
    kept = backup(hub, tmp_path / "hub.tar")
    assert kept.elsewhere == ("postgresql://hub:***@db/comity", "sftp://store/bodies", "/etc/comity/tls.crt")


def runs_of(hub: Path) -> tuple[Database, Runs]:
    db = versions.opened(hub, "")
    versions.check(db)
    return db, Runs(db, clock=lambda: 1000.0)


def test_runs_that_ended_long_ago_keep_their_ledger_alone(hub: Path) -> None:
    db, runs = runs_of(hub)
    made = {"title": "", "about": {}, "minimum": 1, "invited": ["ada"], "recipe": {"hash": "ab"}}
    for name in ("old", "new", "live"):
        run = fed().run(rounds=2, folder=hub / "runs" / name)
        runs.offer(name, Offering(folder=str(hub / "runs" / name), **made))
    runs.become("old", "over")
    Runs(db, clock=lambda: 100 * 86400.0).become("new", "over")
    now = {"clock": lambda: 101 * 86400.0}
    head = audit(hub / "runs" / "old").head
    assert [p.run for p in prune(db, 30, dry=True, **now)] == ["old"]
    assert (hub / "runs" / "old" / "run.db").exists()
    assert [p.run for p in prune(db, 30, **now)] == ["old"]
    assert prune(db, 30, **now) == []
    assert {p.name for p in (hub / "runs" / "old").iterdir()} == {"ledger.jsonl", "recipe.json"}
    assert all((hub / "runs" / name / "run.db").exists() for name in ("new", "live"))
    with Registry.open(hub) as registry:
        assert [row[1] for row in registry.audit()][-1] == "pruned old"
    assert run.ledger.rounds == 2
    kept = [json.loads(line) for line in (hub / "runs" / "old" / "ledger.jsonl").read_text().splitlines()]
    assert kept[-1]["hash"] == head
    found = audit(hub / "runs" / "old")
    assert (found.ok, found.head, found.rounds) == (True, head, 2)
    db.close()


def said(*args: str | Path, code: int = 0) -> str:
    """What a command of the hub prints."""
    got = CliRunner().invoke(app, ["hub", *map(str, args)])
    if isinstance(got.exception, co.ComityError):
        raise got.exception
    assert got.exit_code == code, got.output
    return got.output


def test_the_commands(hub: Path, tmp_path: Path) -> None:
    fed().run(rounds=3, folder=hub / "runs" / "one")
    assert "1 run" in said("backup", hub, tmp_path / "hub.tar")
    got = said("restore", tmp_path / "hub.tar", tmp_path / "other")
    assert "3 rounds, chain intact" in got
    assert f"comity serve {tmp_path / 'other' / 'hub.toml'}" in got
    assert "schema     1 → 2" in said("migrate", hub)
    assert "nothing to do" in said("migrate", hub)
    assert (hub / f"hub.db.schema-{versions.SCHEMA}").stat().st_mode & 0o777 == 0o600
    assert "nothing" in said("prune", hub, "--days", "30")
    db, runs = runs_of(hub)
    made = {"title": "", "about": {}, "minimum": 1, "invited": ["ada"], "recipe": {"hash": "ab"}}
    runs.offer("one", Offering(folder=str(hub / "runs" / "one"), **made))
    runs.become("one", "over")
    db.close()
    assert f"would go   {hub / 'runs' / 'one'}" in said("prune", hub, "--days", "30", "--dry-run")
    assert f"pruned     {hub / 'runs' / 'one'}   ended 1970-01-01" in said("prune", hub, "--days", "30")
    with pytest.raises(co.ConfigError, match="--days"):
        said("prune", hub, "--days", "-1")
    lock = files.take(hub)
    with pytest.raises(co.ConfigError, match="already has"):
        said("migrate", hub)
    os.close(lock)
    (tmp_path / "other" / "runs" / "one" / "secret").write_bytes(b"x" * 32)
    assert "is not the secret" in said("restore", _made(tmp_path), tmp_path / "third", code=1)


def _made(tmp_path: Path) -> Path:
    """A backup of a hub whose run lost its secret."""
    backup(tmp_path / "other", tmp_path / "damaged.tar")
    return tmp_path / "damaged.tar"


def test_what_belongs_to_postgresql_is_said(hub: Path, tmp_path: Path) -> None:
    (hub / "hub.toml").write_text(
        (hub / "hub.toml").read_text() + 'database = "postgresql+psycopg://hub:s3cret@db/x"\n'
    )
    got = said("backup", hub, tmp_path / "hub.tar")
    assert "pg_dump --format=custom --file=hub.dump 'postgresql://hub:***@db/x'" in got
    assert "s3cret" not in got


def test_a_database_of_another_version_is_refused_or_brought_here(hub: Path) -> None:
    db, _ = runs_of(hub)
    assert versions.version(db) == versions.SCHEMA
    assert versions.migrate(db) == []
    with db.writing() as on:
        on.execute(sa.text("ALTER TABLE parties DROP COLUMN last_seen"))
        on.execute(sa.text("DROP TABLE heads"))
    with pytest.raises(co.ConfigError, match=r"without parties\.last_seen.*comity hub migrate"):
        versions.check(db)
    assert sorted(versions.migrate(db)) == ["made heads", "made parties.last_seen"]
    versions.check(db)
    with db.writing() as on:
        on.execute(sa.text("UPDATE schema SET version = 99"))
    for refuses in (versions.check, versions.migrate):
        with pytest.raises(co.ConfigError, match="It has 99: a later comity wrote it"):
            refuses(db)
    db.close()
