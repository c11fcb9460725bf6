"""Whatever is changed in a run's folder is found and named, or was nothing that counts."""

import importlib
import shutil
import sqlite3
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))
law = importlib.import_module("damaging")


@pytest.fixture
def folder(tmp_path):
    return Path(shutil.copytree(law.samples().whole, tmp_path / "run"))


def test_what_is_not_damaged_is_whole(folder):
    assert law.judged(folder, commands=True) == ([], "")


def test_a_killed_run_goes_on(tmp_path):
    folder = Path(shutil.copytree(law.samples().killed, tmp_path / "run"))
    assert (folder / "run.db-wal").stat().st_size > 10_000
    assert law.judged(folder, commands=True) == ([], "")


VALUES = [
    "NULL",
    "0",
    "-7",
    "3.5",
    "''",
    "'x'",
    "x'00'",
    "x'ff'",
    "CAST(x'ff' AS TEXT)",
    "1e300",
    "9223372036854775807",
]
COLUMNS = {
    "entries": ("kind", "time", "facts", "previous", "hash", "number"),
    "drawers": ("name", "data", "sha256"),
    "state": ("data", "sha256"),
}
ROWS = {"entries": ("1", "3", "(SELECT max(number) FROM entries)"), "drawers": ("'ada'", "'bob'"), "state": ("1",)}
KEYS = {"entries": "number", "drawers": "name", "state": "id"}
NAMED = {"entries": r"entry|entries|ledger", "drawers": "drawer", "state": "state row"}
CELLS = [(t, c, r, v) for t, columns in COLUMNS.items() for c in columns for r in ROWS[t] for v in VALUES]


def change(folder, table, column, row, value):
    """One cell set to a value, the schema's own checks switched off."""
    schema = f"SELECT sql FROM sqlite_master WHERE name = '{table}'"
    db = sqlite3.connect(folder / "run.db", isolation_level=None)
    made = db.execute(schema).fetchone()[0]
    db.execute("PRAGMA writable_schema = ON")
    db.execute("UPDATE sqlite_master SET sql = ? WHERE name = ?", (made.replace(" NOT NULL", ""), table))
    db.close()
    db = sqlite3.connect(folder / "run.db", isolation_level=None)
    try:
        db.execute(f"UPDATE {table} SET {column} = {value} WHERE {KEYS[table]} = {row}")
        changed = db.total_changes
    except sqlite3.IntegrityError:
        changed = 0
    db.execute("PRAGMA writable_schema = ON")
    db.execute("UPDATE sqlite_master SET sql = ? WHERE name = ?", (made, table))
    db.close()
    return changed


def try_cell(folder, cell, *, commands=False):
    table, column, row, value = cell
    if not change(folder, table, column, row, value):
        return
    faults, why = law.judged(folder, commands=commands)
    assert faults, "an audit finds it"
    assert why, "opening finds it"
    named = NAMED[table] if value != "NULL" else f"{NAMED[table]}|NULL value in"
    assert law.re.search(named + "|decode", faults[0] + why), (faults, why)


@pytest.mark.parametrize("cell", CELLS[::6], ids=" ".join)
def test_a_cell_of_the_database(folder, cell):
    try_cell(folder, cell)


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS, ids=" ".join)
def test_every_cell_of_the_database(folder, cell):
    try_cell(folder, cell, commands=True)


# Rows and files that are in themselves whole.


def old_drawer(folder):
    early = law.samples().early
    law.sql(
        folder,
        ("ATTACH ? AS early", str(early / "run.db")),
        "UPDATE drawers SET (data, sha256) = (SELECT data, sha256 FROM early.drawers e WHERE e.name = drawers.name) "
        "WHERE name = (SELECT name FROM early.drawers ORDER BY name LIMIT 1)",
    )


def swapped_drawers(folder):
    law.sql(
        folder,
        *(
            ("UPDATE drawers SET name = ? WHERE name = ?", b, a)
            for a, b in (("ada", "?"), ("bob", "ada"), ("?", "bob"))
        ),
    )


def old_pointer(folder):
    early = law.samples().early
    law.sql(
        folder,
        ("ATTACH ? AS early", str(early / "run.db")),
        "DELETE FROM state",
        "INSERT INTO state SELECT * FROM early.state",
    )


def swapped_entries(folder):
    law.sql(folder, *(f"UPDATE entries SET number = {b} WHERE number = {a}" for a, b in ((2, 99), (3, 2), (99, 3))))


def foreign_entry(folder):
    other = law.samples().other
    law.sql(
        folder,
        ("ATTACH ? AS other", str(other / "run.db")),
        "DELETE FROM entries WHERE number = 3",
        "INSERT INTO entries SELECT * FROM other.entries WHERE number = 3",
    )


def emptied(folder):
    law.sql(folder, "DELETE FROM entries", "DELETE FROM state", "DELETE FROM drawers")


def beginning(folder):
    """The database as it was before the first save."""
    db = sqlite3.connect(folder / "run.db")
    schema = db.execute("SELECT sql FROM sqlite_master WHERE sql > ''").fetchall()
    db.close()
    (folder / "run.db").unlink()
    db = sqlite3.connect(folder / "run.db")
    for (made,) in schema:
        db.execute(made)
    db.close()


def statement(text):
    return lambda folder: law.sql(folder, text)


def copied(name, source):
    return lambda folder: shutil.copy(getattr(law.samples(), source) / name, folder / name)


def state_file(folder, what):
    path = sorted((folder / "states").iterdir())[0]
    if what == "removed":
        path.unlink()
    elif what == "a folder":
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes(sorted((law.samples().early / "states").iterdir())[0].read_bytes())


def states_swapped(folder):
    a, b = sorted((folder / "states").iterdir())[:2]
    data = a.read_bytes()
    a.write_bytes(b.read_bytes())
    b.write_bytes(data)


def written(name, data):
    return lambda folder: (folder / name).write_bytes(data)


def removed(name):
    return lambda folder: (folder / name).unlink()


def edited(name, old, new):
    def edit(folder):
        text = (folder / name).read_text("utf-8")
        assert old in text
        (folder / name).write_text(text.replace(old, new), "utf-8")

    return edit


WHOLES = {
    "a drawer from an earlier save": (old_drawer, "one is lost or older", "one is lost or older"),
    "two drawers swapped": (swapped_drawers, "the drawer of '(ada|bob)'", "the drawer of '(ada|bob)'"),
    "a drawer lost": (
        statement("DELETE FROM drawers WHERE name = 'bob'"),
        "one is lost or older",
        "one is lost or older",
    ),
    "all drawers lost": (statement("DELETE FROM drawers"), "one is lost or older", "one is lost or older"),
    "a drawer too many": (
        statement("INSERT INTO drawers SELECT 'eve', data, sha256 FROM drawers WHERE name = 'ada'"),
        "the drawer of 'eve'",
        "the drawer of 'eve'",
    ),
    "an earlier state row": (old_pointer, "must end with the hash", "must end with the hash"),
    "no state row": (statement("DELETE FROM state"), "state row of .* is missing", "state row of .* is missing"),
    "two state rows": (statement("INSERT INTO state SELECT 2, data, sha256 FROM state"), "state row", "state row"),
    "another number of the state row": (statement("UPDATE state SET id = 9"), "", ""),
    "two entries swapped": (swapped_entries, "entry 2", "entry 2"),
    "an entry of another run": (foreign_entry, "entry 3", "entry 3"),
    "an entry lost": (statement("DELETE FROM entries WHERE number = 2"), "entry 2 is missing", "entry 2 is missing"),
    "the last entry lost": (
        statement("DELETE FROM entries WHERE number = (SELECT max(number) FROM entries)"),
        "must end with the hash",
        "must end with the hash",
    ),
    "an entry too many": (
        statement(
            "INSERT INTO entries SELECT number + 100, kind, time, facts, previous, hash FROM entries WHERE number = 2"
        ),
        "is missing: entry 102",
        "is missing: entry 102",
    ),
    "all rows lost": (emptied, "state row of .* is missing", "state row of .* is missing"),
    "a table lost": (statement("DROP TABLE entries"), "run.db is damaged", "must end with|run.db is damaged"),
    "the state table lost": (statement("DROP TABLE state"), "state row of .* is missing", "state row of .* is missing"),
    "the drawers' table lost": (statement("DROP TABLE drawers"), "run.db is damaged", "one is lost or older"),
    "the database before the first save": (beginning, "state row of .* is missing", "state row of .* is missing"),
    "an earlier database": (copied("run.db", "early"), r"\.state is missing", r"\.state is missing"),
    "the database of another run": (
        copied("run.db", "other"),
        "recipe.json does not match",
        r"\.state is missing|of one run|not the secret",
    ),
    "an empty database": (written("run.db", b""), "state row of .* is missing", "state row of .* is missing"),
    "no database": (removed("run.db"), "There is no run.db in it", "run.db is missing"),
    "the recipe of another run": (copied("recipe.json", "other"), "recipe.json does not match", "another recipe"),
    "no recipe": (removed("recipe.json"), "recipe.json cannot be read", "recipe.json is missing"),
    "an empty recipe": (written("recipe.json", b""), "recipe.json cannot be read", "recipe.json must be JSON"),
    "a recipe of zeros": (written("recipe.json", bytes(500)), "recipe.json cannot be read", "recipe.json must be JSON"),
    "a recipe that is no text": (
        written("recipe.json", b'{"a": "\xff"}'),
        "recipe.json does not match",
        "recipe.json must be JSON",
    ),
    "a recipe that is a number": (written("recipe.json", b"7"), "recipe.json cannot be read", "another recipe"),
    "a recipe that is too deep": (
        written("recipe.json", b"[" * 10**5),
        "recipe.json cannot be read",
        "recipe.json must be JSON",
    ),
    "a recipe with what is no number": (edited("recipe.json", "0.3", "NaN"), "recipe.json cannot be read", "0.3|NaN"),
    "a recipe with another rate": (edited("recipe.json", "0.3", "0.4"), "recipe.json does not match", "0.4 → 0.3"),
    "a recipe with another hash": (
        edited("recipe.json", '"hash": "', '"hash": "0'),
        "recipe.json does not match the hash in it",
        "",
    ),
    "a recipe laid out otherwise": (edited("recipe.json", "\n", "\n\n"), "", ""),
    "no secret": (removed("secret"), "", "secret is missing"),
    "an empty secret": (written("secret", b""), "is not the secret", "must hold 32 bytes. Got 0"),
    "a secret of zeros": (
        written("secret", bytes(32)),
        "is not the secret",
        "is not the secret that this run began with",
    ),
    "one bit of the secret": (written("secret", b"\1" + law.SECRET[1:]), "is not the secret", "is not the secret"),
    "a state lost": (lambda f: state_file(f, "removed"), r"\.state is missing", r"\.state is missing"),
    "a folder for a state": (lambda f: state_file(f, "a folder"), r"\.state", r"\.state"),
    "an earlier state": (
        lambda f: state_file(f, "early"),
        "does not match the hash in its name",
        "does not match the hash in its name",
    ),
    "two states swapped": (
        states_swapped,
        "does not match the hash in its name",
        "does not match the hash in its name",
    ),
    "no lock": (removed("lock"), "", ""),
    "something in the lock": (written("lock", b"\xff" * 99), "", ""),
    "a stray state": (written("states/" + "0" * 64 + ".state", b"x"), "", ""),
    "half a file of a killed save": (written("states/.x.state.tmp", b"x"), "", ""),
}


@pytest.mark.parametrize("name", WHOLES)
def test_rows_and_files_that_do_not_belong(folder, name):
    damage, in_audit, in_opening = WHOLES[name]
    damage(folder)
    faults, why = law.judged(folder, commands=True)
    for pattern, found in ((in_audit, " ".join(faults)), (in_opening, why)):
        assert bool(pattern) == bool(found), (name, found)
        assert law.re.search(pattern, found), (name, found)


@pytest.mark.parametrize("name", ["an earlier database", "the database before the first save", "an empty database"])
def test_a_wrong_database_costs_no_state(folder, name):
    before = {p.name: p.read_bytes() for p in (folder / "states").iterdir()}
    keep = (folder / "run.db").read_bytes()
    WHOLES[name][0](folder)
    assert law.resumed(folder)[0] is None
    assert {p.name: p.read_bytes() for p in (folder / "states").iterdir()} == before
    for left in folder.glob("run.db*"):
        left.unlink()
    (folder / "run.db").write_bytes(keep)
    assert law.judged(folder) == ([], "")
