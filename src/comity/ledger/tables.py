"""The tables of a run's folder: what a row must be, and the pointer to which all the others have to fit."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from comity.core.contribution import Tree
from comity.core.errors import LedgerError, WireError
from comity.core.wire import decode_tree, encode_tree
from comity.ledger.record import GENESIS, Entry

DAMAGED = "Restore it from a copy, or delete the folder to start the run again."
SCHEMA = sa.MetaData()
ENTRIES = sa.Table(
    "entries",
    SCHEMA,
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("time", sa.Float, nullable=False),
    sa.Column("facts", sa.LargeBinary, nullable=False),
    sa.Column("previous", sa.Text, nullable=False),
    sa.Column("hash", sa.Text, nullable=False),
)
DRAWERS = sa.Table(
    "drawers",
    SCHEMA,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("data", sa.LargeBinary, nullable=False),
    sa.Column("sha256", sa.Text, nullable=False),
)
STATE = sa.Table(
    "state",
    SCHEMA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("data", sa.LargeBinary, nullable=False),
    sa.Column("sha256", sa.Text, nullable=False),
)
ZERO = "0" * 64


@dataclass(frozen=True, slots=True, eq=False)
class Generation:
    """What belongs together in one save, and what `load` gives back.

    Attributes:
        entries: the ledger entries since the last save; all of them when loaded.
        states: changed hub states by name ("last", "best"), as encoded Trees; all of them when loaded.
        drawers: touched drawers by participant, None to remove one; {} when loaded, see `Store.drawer`.
        meta: a small Tree to find the place again (the round, for one); it replaces the one before.
    """

    entries: Sequence[Entry] = ()
    states: Mapping[str, bytes] = field(default_factory=dict)
    drawers: Mapping[str, bytes | None] = field(default_factory=dict)
    meta: Tree = None


@dataclass(frozen=True, slots=True)
class Pointer:
    """The one row of `state`, to which everything else has to fit.

    Attributes:
        saved: which save it is.
        count: how long the ledger is.
        head: the hash of its last entry.
        states: the sha256 of each named state.
        meta: as in `Generation`.
        drawers: the hashes of all drawers, added modulo 2**256; "" where an earlier version did not note it.
        secret: what `fingerprint` says of the secret; "" where there is none, or none yet.
    """

    saved: int = 0
    count: int = 0
    head: str = GENESIS
    states: Mapping[str, str] = field(default_factory=dict)
    meta: Tree = None
    drawers: str = ZERO
    secret: str = ""

    def encode(self) -> bytes:
        """As bytes, for its row."""
        known = {"saved": self.saved, "count": self.count, "head": self.head}
        hashes = {"drawers": self.drawers, "secret": self.secret}
        return encode_tree({**known, "states": dict(self.states), "meta": self.meta, **hashes})

    @classmethod
    def decode(cls, data: bytes) -> "Pointer":
        """From the bytes of its row.

        Raises:
            TypeError: it is that of another version.
            WireError: it is none.
        """
        tree: Any = decode_tree(data)
        return cls(**{"drawers": "", **tree})

    def then(self, generation: Generation) -> "Pointer":
        """The row after one more save; its `drawers` are still those before it."""
        new, count, head = generation.entries, self.count, self.head
        if new and (new[0].number, new[0].previous) != (count + 1, head):
            raise LedgerError(
                f"Entry {count + 1}, after {head[:12]}, must be the next to be saved. Got {new[0].number}."
            )
        new_files = {name: sha256(data).hexdigest() for name, data in generation.states.items()}
        last = new[-1] if new else None
        place = (last.number, last.hash) if last else (count, head)
        states = {**self.states, **new_files}
        return Pointer(self.saved + 1, *place, states, generation.meta, self.drawers, self.secret)


def pointed(rows: Sequence[sa.Row[Any]], some: bool, db: Path) -> Pointer:
    """What the state row says; where there are entries or states there must be one."""
    if not rows and some:
        raise LedgerError(f"the state row of {db} is missing. {DAMAGED}")
    bad = [r for r in rows if not isinstance(r.data, bytes) or sha256(r.data).hexdigest() != r.sha256]
    if bad or len(rows) > 1:
        raise LedgerError(f"the state row of {db} does not match its hash. {DAMAGED}")
    try:
        return Pointer.decode(rows[0].data) if rows else Pointer()
    except (TypeError, WireError):
        raise LedgerError(f"the state row of {db} is that of another version of comity. Use that one.") from None


def entry_row(e: Entry) -> dict[str, Any]:
    """An entry as a row."""
    named = {"number": e.number, "kind": e.kind, "time": e.time, "previous": e.previous, "hash": e.hash}
    return {**named, "facts": encode_tree(e.facts)}


def entry_of(row: sa.Row[Any], db: Path, *, strict: bool = True) -> Entry:
    """A row as an entry; where facts cannot be read they are None, or refused if `strict`."""
    facts = None
    try:
        facts = decode_tree(row.facts if isinstance(row.facts, bytes) else b"")
    except WireError:
        if strict:
            raise LedgerError(f"ledger entry {row.number} in {db} cannot be read. {DAMAGED}") from None
    return Entry(row.number, row.kind, row.time, facts, row.previous, row.hash)


def drawer_row(name: str, data: bytes) -> dict[str, Any]:
    """A drawer as a row."""
    return {"name": name, "data": data, "sha256": drawer_hash(name, data)}


def drawer_hash(name: str, data: bytes) -> str:
    """Bound to the name, so that two drawers cannot change places."""
    return sha256(name.encode() + b"\0" + data).hexdigest()


def drawer_of(row: sa.Row[Any], db: Path) -> bytes:
    """What a row holds, verified.

    Raises:
        LedgerError: it does not match its hash.
    """
    whole = isinstance(row.name, str) and isinstance(row.data, bytes)
    if not whole or drawer_hash(row.name, row.data) != row.sha256:
        raise LedgerError(f"the drawer of '{row.name}' in {db} does not match its hash. {DAMAGED}")
    return bytes(row.data)


def tally(before: str, more: Iterable[str], less: Iterable[str] = ()) -> str:
    """The sum of hashes modulo 2**256: the same in any order, and kept up with by what changes.

    It shows a drawer that was lost, or is from an earlier save; whoever means to forge one can make it fit.
    """
    try:
        total = int(before, 16) + sum(int(h, 16) for h in more) - sum(int(h, 16) for h in less)
    except (TypeError, ValueError):
        raise LedgerError(f"the hash of a drawer in run.db cannot be read. {DAMAGED}") from None
    return f"{total % 2**256:064x}"


def check_drawers(rows: Iterable[sa.Row[Any]], pointer: Pointer, db: Path) -> None:
    """Refuse drawers that do not match their hashes, or are not those of the last save.

    Raises:
        LedgerError: names the drawer where one does not match, else says that one is lost or older.
    """
    total = ZERO
    for row in rows:
        drawer_of(row, db)
        total = tally(total, [row.sha256])
    if pointer.drawers and total != pointer.drawers:
        raise LedgerError(f"the drawers in {db} are not those of the last save: one is lost or older. {DAMAGED}")


def check_sound(db: sa.Connection, path: Path) -> None:
    """Refuse a database whose pages do not fit together: a row that no index finds would be taken for absent.

    Raises:
        LedgerError: with what SQLite says is wrong.
    """
    db.exec_driver_sql("SELECT type, name, tbl_name, sql FROM sqlite_master").all()  # is it text?
    said = str(db.exec_driver_sql("PRAGMA integrity_check(1)").scalar())
    if said != "ok":
        raise LedgerError(f"{path} is damaged ({' '.join(said.split())}). {DAMAGED}")


def check_recipe(recipe_json: str, entries: Sequence[Entry], folder: Path) -> None:
    """Refuse a ledger that began with another recipe.

    Raises:
        LedgerError: names both hashes.
    """
    facts: Any = entries[0].facts if entries else {}
    agreed, told = facts.get("recipe"), json.loads(recipe_json).get("hash")
    if agreed and told and agreed != told:
        got = f"the ledger in run.db began with {str(agreed)[:12]}, the recipe is {str(told)[:12]}"
        raise LedgerError(f"{folder / 'recipe.json'} and run.db must be of one run. Got two: {got}. {DAMAGED}")


def fingerprint(secret: bytes) -> str:
    """What may be known of a secret: enough to tell it from another."""
    return sha256(b"comity secret\0" + secret).hexdigest()
