"""Damage below the rows: pages of the database and of its log. What is loaded is what was saved, or nothing is."""

import importlib
import random
import shutil
import sqlite3
import sys
from collections import Counter
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))
law = importlib.import_module("damaging")

PAGE = 4096
HEADER = 100
"""The bytes of the database's own header, each of which is damaged in turn."""


def spoilt(data, rng):
    """A file with bits turned, bytes overwritten, pages zeroed, swapped or cut away."""
    data = bytearray(data)
    page = rng.randrange(len(data) // PAGE) * PAGE
    i = page + rng.choice([rng.randrange(PAGE), rng.randrange(HEADER), PAGE - 1 - rng.randrange(200)])
    other = rng.randrange(len(data) // PAGE) * PAGE
    match rng.randrange(9):
        case 0 | 1:
            data[i] ^= 1 << rng.randrange(8)
        case 2:
            data[i : i + 8] = rng.randbytes(8)
        case 3:
            data[i : i + rng.choice([1, 4, 32])] = b""
        case 4:
            data[page : page + PAGE] = bytes(PAGE)
        case 5:
            data[page : page + PAGE], data[other : other + PAGE] = data[other : other + PAGE], data[page : page + PAGE]
        case 6:
            data[page : page + PAGE] = data[other : other + PAGE]
        case 7:
            del data[rng.choice([page, i]) :]
        case _:
            data[i : i + 200] = b"\xff" * len(data[i : i + 200])
    return bytes(data)


def damaged(tmp_path, source, damage, what):
    """What comes of one damage to a copy."""
    here = Path(shutil.copytree(source, tmp_path / "copy"))
    damage(here)
    try:
        faults, why = law.judged(here)
    except AssertionError as error:
        raise AssertionError(f"{what}: {error}") from error
    shutil.rmtree(here)
    return faults, why


def many(tmp_path, source, name, count, seed):
    rng, seen, before = random.Random(seed), Counter(), (source / name).read_bytes()
    for n in range(count):
        now = spoilt(before, rng)
        faults, why = damaged(tmp_path, source, lambda here, now=now: (here / name).write_bytes(now), n)
        assert bool(faults) == bool(why), (n, faults, why)
        seen["found" if why else "nothing that counts"] += 1
    return seen


def test_some_damages_to_pages(tmp_path):
    seen = many(tmp_path, law.samples().whole, "run.db", 40, 1)
    assert min(seen["found"], seen["nothing that counts"]) > 3, seen


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_many_damages_to_pages(tmp_path, seed):
    many(tmp_path, law.samples().whole, "run.db", 250, 10 + seed)


@pytest.mark.slow
def test_each_byte_of_the_header(tmp_path):
    before = (law.samples().whole / "run.db").read_bytes()
    for i in range(HEADER):
        for value in (before[i] ^ 1, before[i] ^ 128, 0, 255):
            now = before[:i] + bytes([value]) + before[i + 1 :]
            damaged(tmp_path, law.samples().whole, lambda here, now=now: (here / "run.db").write_bytes(now), (i, value))


def log_spoilt(rng):
    def damage(here):
        path = here / "run.db-wal"
        path.write_bytes(spoilt(path.read_bytes(), rng))
        if rng.random() < 0.5:
            (here / "run.db-shm").unlink(missing_ok=True)

    return damage


def logs(tmp_path, count, seed):
    """A log that is damaged loses the newest saves or is refused; the run never goes on from half of one."""
    rng, seen = random.Random(seed), Counter()
    for n in range(count):
        _, why = damaged(tmp_path, law.samples().killed, log_spoilt(rng), n)
        seen["refused" if why else "went on"] += 1
    return seen


def test_some_damages_to_the_log(tmp_path):
    seen = logs(tmp_path, 15, 3)
    assert seen["refused"] > 1, seen


@pytest.mark.slow
def test_many_damages_to_the_log(tmp_path):
    seen = logs(tmp_path, 300, 4)
    assert seen["went on"] > 0 < seen["refused"], seen


def test_no_log(tmp_path):
    """What was moved into the database before is an earlier save, and its states are gone."""
    faults, why = damaged(tmp_path, law.samples().killed, lambda here: (here / "run.db-wal").unlink(), "no log")
    assert ".state is missing" in why
    assert ".state is missing" in " ".join(faults)


def checkpointed(folder):
    db = sqlite3.connect(folder / "run.db")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    return (folder / "run.db").read_bytes()


def mixed(tmp_path, count, seed):
    """The database of one save, some pages of it those of another, as after a log that was lost half way."""
    old = checkpointed(Path(shutil.copytree(law.samples().early, tmp_path / "old")))
    new = checkpointed(Path(shutil.copytree(law.samples().whole, tmp_path / "new")))
    rng, seen, pages = random.Random(seed), Counter(), range(0, len(new), PAGE)
    differing = [i for i in pages if old[i : i + PAGE] not in (b"", new[i : i + PAGE])]
    assert len(differing) > 5
    for n in range(count):
        data = bytearray(new)
        chosen = rng.sample(differing, rng.randint(1, len(differing)))
        for i in chosen:
            data[i : i + PAGE] = old[i : i + PAGE]
        damage = lambda here, data=bytes(data): (here / "run.db").write_bytes(data)  # noqa: E731
        faults, why = damaged(tmp_path, law.samples().whole, damage, (n, chosen))
        assert faults
        assert why
        seen[why.partition("run.db")[2][:30]] += 1
    return seen


def test_pages_of_two_saves(tmp_path):
    assert len(mixed(tmp_path, 10, 5)) > 1


@pytest.mark.slow
def test_pages_of_two_saves_in_many_ways(tmp_path):
    mixed(tmp_path, 200, 6)


def test_a_drawer_that_no_index_finds(tmp_path):
    """The row is there and matches its hash, but looking it up by name would find nothing."""

    def damage(here):
        db = sqlite3.connect(here / "run.db")
        root = db.execute("SELECT rootpage FROM sqlite_master WHERE name LIKE 'sqlite_autoindex_drawers%'").fetchone()[
            0
        ]
        db.close()
        data = bytearray((here / "run.db").read_bytes())
        start = (root - 1) * PAGE
        at = data.index(b"bob", start, start + PAGE)
        data[at : at + 3] = b"boa"
        (here / "run.db").write_bytes(data)

    faults, why = damaged(tmp_path, law.samples().whole, damage, "index")
    assert "run.db is damaged (" in why
    assert "index" in why
    assert "run.db is damaged (" in faults[0]
