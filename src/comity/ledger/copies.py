"""A copy of a run's ledger that somebody else keeps: entries as they were, in a file of lines.

FOLDER/ledger.jsonl   one entry a line; its facts are the wire bytes, in base64, so that hashes can be checked
FOLDER/head.json      how many entries were signed for, and the hash of the last
FOLDER/recipe.json    what was agreed
"""

import base64
import json
import os
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa

from comity.core.errors import ConfigError, LedgerError, WireError
from comity.core.wire import decode_tree, encode_tree
from comity.ledger.folder import sync
from comity.ledger.peek import Seen, peek
from comity.ledger.record import GENESIS, Entry, digest
from comity.ledger.store import explained
from comity.ledger.tables import ENTRIES

NAME, HEAD, RECIPE = "ledger.jsonl", "head.json", "recipe.json"


def line_of(entry: Entry) -> dict[str, Any]:
    """An entry as JSON.

    Example:
        >>> from comity.ledger.record import Ledger
        >>> entry = Ledger().append("start", {"seed": 3}, time=1.5)
        >>> entry_of(line_of(entry)).facts["seed"], digest(entry_of(line_of(entry))) == entry.hash
        (3, True)
    """
    facts = base64.b64encode(encode_tree(entry.facts)).decode()
    named = {"number": entry.number, "kind": entry.kind, "time": entry.time}
    return {**named, "facts": facts, "previous": entry.previous, "hash": entry.hash}


def entry_of(line: Any) -> Entry:
    """An entry as it was.

    Raises:
        LedgerError: it is none.
    """
    try:
        facts = decode_tree(base64.b64decode(line["facts"], validate=True))
        number, kind, time = int(line["number"]), str(line["kind"]), float(line["time"])
        return Entry(number, kind, time, facts, str(line["previous"]), str(line["hash"]))
    except (WireError, ValueError, KeyError, TypeError):
        raise LedgerError("A ledger's entry must be one. Got something else.") from None


def follows(before: Entry | None, entry: Entry) -> bool:
    """Does an entry come after another in one unbroken chain?"""
    number, previous = (1, GENESIS) if before is None else (before.number + 1, before.hash)
    return (entry.number, entry.previous) == (number, previous) and digest(entry) == entry.hash


def append(folder: Path, entries: Sequence[Entry]) -> None:
    """Add entries to a copy; on the disk when this returns."""
    path, lines = folder / NAME, [json.dumps(line_of(entry), sort_keys=True) for entry in entries]
    new = not path.exists()
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666), "ab") as f:
        before = f.tell()
        try:
            f.write("".join(f"{line}\n" for line in lines).encode())
            f.flush()
            os.fsync(f.fileno())
        except OSError:  # a full disk: half a line must not stand before the next
            os.truncate(path, before)
            raise
    if new:
        sync(folder)


def read(folder: Path, *, mend: bool = False) -> list[Entry]:
    """The entries of a copy, not verified. A last line that was cut was never signed for, and is left out.

    Args:
        folder: of the copy.
        mend: cut it off in the file too.

    Raises:
        LedgerError: a line is none of an entry.
    """
    path = folder / NAME
    data = path.read_bytes() if path.exists() else b""
    whole = data.rfind(b"\n") + 1
    if mend and whole < len(data):
        os.truncate(path, whole)
    entries = []
    for n, line in enumerate(data[:whole].splitlines(), 1):
        try:
            entries.append(entry_of(json.loads(line)))
        except (ValueError, LedgerError):
            raise LedgerError(f"{path} must hold entries of a ledger. Line {n} is none. Restore it.") from None
    return entries


def seen_in(folder: Path, *, thorough: bool = False) -> Seen:
    """A run's folder, or a copy that a site keeps of one.

    Raises:
        ConfigError: there is neither.
        LedgerError: it is damaged.
    """
    if (folder / "run.db").is_file() or not (folder / NAME).is_file():
        return peek(folder, thorough=thorough)
    entries, recipe = read(folder), folder / RECIPE
    text = recipe.read_text(encoding="utf-8", errors="replace") if recipe.exists() else ""
    last = entries[-1].hash if entries else GENESIS
    return Seen(folder, text, last, entries, {}, [*_unsigned(folder, entries)])


def _unsigned(folder: Path, entries: Sequence[Entry]) -> Sequence[str]:
    """What does not fit the head that was signed."""
    path = folder / HEAD
    if not path.exists():
        return []
    try:
        said: Mapping[str, Any] = json.loads(path.read_bytes())
        n, head = int(said["entries"]), str(said["head"])
    except (ValueError, KeyError, TypeError):
        return [f"{path} cannot be read. Restore it."]
    if n > len(entries) or (entries[n - 1].hash if n else GENESIS) != head:
        return [f"{folder / NAME} must hold the {n} entries that were signed for in {HEAD}. It does not. Restore it."]
    return []


def entries_after(folder: Path, after: int, most: int) -> tuple[str | None, list[Entry]]:
    """Entries of a run's folder, which may be in use.

    Args:
        folder: of the run.
        after: the number of an entry, >= 0.
        most: how many at most.

    Returns:
        The hash of entry `after` (GENESIS for 0, None where there is no such entry), and those that follow it.

    Raises:
        ConfigError: there is no run in it.
        LedgerError: its database is damaged or cannot be read.
    """
    db = folder / "run.db"
    if not db.is_file():
        raise ConfigError(f"{folder} must be the folder of a run. There is no run.db in it. Name another folder.")
    live = db.with_name(f"{db.name}-wal").exists()
    uri = f"file:{quote(str(db.absolute()))}?{'mode=ro' if live else 'immutable=1'}"
    engine = sa.create_engine("sqlite://", creator=lambda: sqlite3.connect(uri, uri=True), poolclass=sa.pool.NullPool)
    c = ENTRIES.c
    query = sa.select(ENTRIES).where(c.number >= max(1, after)).order_by(c.number).limit(most + 1)
    with explained(folder, LedgerError), engine.connect() as connection:
        rows = connection.execute(query).all()
    found = [_plain(row, db) for row in rows]
    if after == 0:
        return GENESIS, found[:most]
    at = found[0].hash if found and found[0].number == after else None
    return at, [entry for entry in found if entry.number > after]


def _plain(row: Any, db: Path) -> Entry:
    from comity.ledger.tables import entry_of as from_row

    return from_row(row, db)
