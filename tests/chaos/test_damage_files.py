"""Files of a run's folder spoilt at random; folders of other versions; a secret that was forgotten on purpose."""

import importlib
import random
import shutil
import sqlite3
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from comity.core import wire
from comity.ledger.store import Store

sys.path.append(str(Path(__file__).parent))
law = importlib.import_module("damaging")


@pytest.fixture
def folder(tmp_path):
    return Path(shutil.copytree(law.samples().whole, tmp_path / "run"))


def spoilt(path, rng):
    """A file with something wrong in it."""
    data = bytearray(path.read_bytes())
    i = rng.randrange(len(data))
    match rng.randrange(6):
        case 0:
            data[i] ^= 1 << rng.randrange(8)
        case 1:
            data[i : i + 16] = rng.randbytes(16)
        case 2:
            del data[i:]
        case 3:
            data += rng.randbytes(9)
        case 4:
            data[i:] = bytes(len(data) - i)
        case _:
            del data[i : i + 1]
    path.write_bytes(data)


def spoil_files(folder, rng, count):
    for n in range(count):
        here = Path(shutil.copytree(folder, folder.with_name(f"copy{n}")))
        path = rng.choice([here / "recipe.json", here / "secret", *sorted((here / "states").iterdir())])
        before = path.read_bytes()
        spoilt(path, rng)
        faults, why = law.judged(here)
        if path.name == "recipe.json":  # a blank between two words says nothing
            assert faults or not why
        else:
            assert (bool(faults), bool(why)) == (path.read_bytes() != before,) * 2, (n, path.name, faults, why)
            assert not why or path.name in why
        shutil.rmtree(here)


def test_files_spoilt_at_random(folder):
    spoil_files(folder, random.Random(1), 12)


@pytest.mark.slow
def test_many_files_spoilt_at_random(folder):
    spoil_files(folder, random.Random(2), 300)


def pointed(folder, change):
    """The state row written anew, its hash right."""
    db = sqlite3.connect(folder / "run.db")
    tree = dict(wire.decode_tree(db.execute("SELECT data FROM state").fetchone()[0]))
    change(tree)
    data = wire.encode_tree(tree)
    db.close()
    law.sql(folder, ("UPDATE state SET data = ?, sha256 = ?", data, sha256(data).hexdigest()))


def test_a_folder_from_before_drawers_and_secrets_were_noted_goes_on_and_notes_them(folder):
    def forgotten(tree):
        del tree["drawers"], tree["secret"]

    pointed(folder, forgotten)
    assert law.resumed(folder, law.ROUNDS + 1) == (law.samples().good[law.ROUNDS + 1], "")
    law.sql(folder, "DELETE FROM drawers WHERE name = 'ada'")
    assert "one is lost or older" in law.audited(folder)[0]
    (folder / "secret").write_bytes(bytes(32))
    assert "is not the secret" in law.resumed(folder)[1]


def test_a_folder_of_a_later_version_says_so(folder):
    pointed(folder, lambda tree: tree.update(more=1))
    assert "another version of comity" in law.audited(folder)[0]
    assert "another version of comity" in law.resumed(folder)[1]


def test_a_secret_that_was_forgotten_is_not_missed(folder):
    with Store.open(folder, (folder / "recipe.json").read_text("utf-8")) as store:
        assert store.secret() == law.SECRET
        store.forget_secret()
    assert law.resumed(folder) == (law.samples().good[law.ROUNDS], "")
    assert len((folder / "secret").read_bytes()) == 32
    assert (folder / "secret").read_bytes() != law.SECRET
