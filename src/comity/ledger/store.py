"""A run on disk: a folder whose every save is one generation, whole or not at all.

    recipe.json             what was agreed
    run.db                  SQLite: entries, drawers, and which state files belong to them
    states/<sha256>.state   what the hub has learnt, named by content
    secret                  32 bytes of OS entropy, mode 0600
    lock                    held while a process uses the folder

A save writes the state files first (temporary name, fsync, rename, fsync of the folder), then commits one
transaction that points to them (WAL, synchronous=FULL), then removes what nothing points to. Whatever
happens in between, the folder holds the generation before or the one after.
"""

import errno
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from comity.core.contribution import Tree
from comity.core.errors import ComityError, ConfigError, LedgerError, WireError
from comity.core.wire import decode_tree, encode_tree
from comity.ledger import folder as files
from comity.ledger.record import GENESIS, Entry, check_chain

_SCHEMA = sa.MetaData()
ENTRIES = sa.Table(
    "entries",
    _SCHEMA,
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("time", sa.Float, nullable=False),
    sa.Column("facts", sa.LargeBinary, nullable=False),
    sa.Column("previous", sa.Text, nullable=False),
    sa.Column("hash", sa.Text, nullable=False),
)
_DRAWERS = sa.Table(
    "drawers",
    _SCHEMA,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("data", sa.LargeBinary, nullable=False),
    sa.Column("sha256", sa.Text, nullable=False),
)
STATE = sa.Table(
    "state",
    _SCHEMA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("data", sa.LargeBinary, nullable=False),
    sa.Column("sha256", sa.Text, nullable=False),
)
_ERRNO = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_READONLY: errno.EROFS,
    sqlite3.SQLITE_CANTOPEN: errno.EACCES,
    sqlite3.SQLITE_IOERR: errno.EIO,
}
_DAMAGED = "Restore it from a copy, or delete the folder to start the run again."


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
class _Pointer:
    """The one row of `state`: which save it is, how long the ledger is, its head, and the file of each named state."""

    saved: int = 0
    count: int = 0
    head: str = GENESIS
    states: Mapping[str, str] = field(default_factory=dict)
    meta: Tree = None

    def encode(self) -> bytes:
        known = {"saved": self.saved, "count": self.count, "head": self.head}
        return encode_tree({**known, "states": dict(self.states), "meta": self.meta})

    @classmethod
    def decode(cls, data: bytes) -> "_Pointer":
        tree: Any = decode_tree(data)
        return cls(**tree)

    def then(self, generation: Generation) -> "_Pointer":
        """The row after one more save."""
        new, count, head = generation.entries, self.count, self.head
        if new and (new[0].number, new[0].previous) != (count + 1, head):
            raise LedgerError(
                f"Entry {count + 1}, after {head[:12]}, must be the next to be saved. Got {new[0].number}."
            )
        new_files = {name: sha256(data).hexdigest() for name, data in generation.states.items()}
        last = new[-1] if new else None
        place = (last.number, last.hash) if last else (count, head)
        return _Pointer(self.saved + 1, *place, {**self.states, **new_files}, generation.meta)


class Store:
    """A run's folder, held by one process at a time.

    Example:
        >>> import tempfile
        >>> from comity.ledger.record import Ledger
        >>> ledger = Ledger()
        >>> entry = ledger.append("start", {}, time=0.0)
        >>> with tempfile.TemporaryDirectory() as folder, Store.open(folder, '{"seed": 0}') as store:
        ...     store.save(Generation([entry], {"last": b"weights"}, {"ada": b"masks"}, {"round": 0}))
        ...     store.load().states["last"], store.drawer("ada")
        (b'weights', b'masks')
    """

    def __init__(self, folder: Path, lock: int, engine: sa.Engine) -> None:
        self.folder = folder
        self._lock = lock
        self._engine = engine
        self._pointer: _Pointer | None = None

    @classmethod
    def open(cls, folder: str | Path, recipe_json: str) -> "Store":
        """Open a run's folder, or make it.

        Args:
            folder: where the run lies.
            recipe_json: the recipe, JSON.

        Raises:
            ConfigError: another process uses the folder, it holds another recipe, or it cannot be written.
            LedgerError: its recipe or database is damaged or missing.
        """
        path = Path(folder)
        with explained(path, ConfigError):
            store = cls(path, files.take(path), _engine(path / "run.db"))
        try:
            with explained(path, ConfigError):
                store._begin(recipe_json)
        except BaseException:
            store.close()
            raise
        return store

    def save(self, generation: Generation) -> None:
        """Write one generation; when this returns it is on the disk.

        Raises:
            LedgerError: the entries do not follow the saved ones, or the folder cannot be written (a full
                disk). What was saved before is intact.
        """
        before = self._now()
        after = before.then(generation)
        self._pointer = None
        try:
            with explained(self.folder, LedgerError):
                for sha, data in {sha256(d).hexdigest(): d for d in generation.states.values()}.items():
                    files.write(self._state_file(sha), data)
                self._commit(generation, after)
        except BaseException:
            with suppress(ComityError):
                self._sweep()
            raise
        self._pointer = after
        self._sweep()

    def load(self) -> Generation | None:
        """The last generation, every hash checked; None before the first save.

        Raises:
            LedgerError: names the entry, row or file that does not match its hash.
        """
        self._pointer = None
        now = self._now()
        if not now.saved:
            return None
        entries = self._entries()
        try:
            check_chain(entries, now.head)
        except LedgerError as e:
            raise LedgerError(f"{self.folder / 'run.db'}: {e} {_DAMAGED}") from None
        return Generation(entries, {n: self._state(sha) for n, sha in now.states.items()}, {}, now.meta)

    def drawer(self, name: str) -> bytes | None:
        """One participant's drawer, its hash checked; None when it has none.

        Raises:
            LedgerError: names the drawer that does not match its hash.
        """
        rows = self._rows(sa.select(_DRAWERS).where(_DRAWERS.c.name == name))
        if not rows:
            return None
        row = rows[0]
        if not isinstance(row.data, bytes) or _drawer_hash(name, row.data) != row.sha256:
            raise LedgerError(f"the drawer of '{name}' in {self.folder / 'run.db'} does not match its hash. {_DAMAGED}")
        return bytes(row.data)

    def drawer_names(self) -> list[str]:
        """The participants that have a drawer, sorted."""
        return [row.name for row in self._rows(sa.select(_DRAWERS.c.name).order_by(_DRAWERS.c.name))]

    def secret(self) -> bytes:
        """32 bytes of OS entropy, made once and kept in the folder with mode 0600 until `forget_secret`.

        Raises:
            LedgerError: the file does not hold 32 bytes, or cannot be written.
        """
        path = self.folder / "secret"
        with explained(self.folder, LedgerError):
            if not path.exists():
                files.write(path, os.urandom(32), 0o600)
            data = path.read_bytes()
        if len(data) != 32:
            raise LedgerError(f"{path} must hold 32 bytes. Got {len(data)}. {_DAMAGED}")
        return data

    def forget_secret(self) -> None:
        """Remove the secret: at the end of a run nobody needs it."""
        with explained(self.folder, LedgerError):
            (self.folder / "secret").unlink(missing_ok=True)

    def close(self) -> None:
        """Let another process use the folder."""
        self._engine.dispose()
        if self._lock >= 0:
            os.close(self._lock)
        self._lock = -1

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _begin(self, recipe_json: str) -> None:
        recipe, db, states = (self.folder / name for name in ("recipe.json", "run.db", "states"))
        lost = recipe if db.exists() and not recipe.exists() else db
        if not lost.exists() and (db.exists() or any(states.glob("*.state"))):
            raise LedgerError(f"{lost} is missing from a folder that holds a run. {_DAMAGED}")
        files.agree(recipe, recipe_json)
        states.mkdir(exist_ok=True)
        _SCHEMA.create_all(self._engine)
        files.sync(self.folder)
        self._sweep()

    def _now(self) -> _Pointer:
        """What the database points to; read once, then remembered."""
        if self._pointer is None:
            rows = self._rows(sa.select(STATE))
            some = bool(rows) or bool(self._rows(sa.select(ENTRIES.c.number).limit(1)))
            self._pointer = pointed(rows, some, self.folder / "run.db")
        return self._pointer

    def _commit(self, generation: Generation, after: _Pointer) -> None:
        touched, data = generation.drawers, after.encode()
        with self._engine.begin() as db:
            _insert(db, ENTRIES, [_entry_row(e) for e in generation.entries])
            if touched:
                db.execute(_DRAWERS.delete().where(_DRAWERS.c.name == sa.bindparam("n")), [{"n": n} for n in touched])
            _insert(db, _DRAWERS, [_drawer_row(n, d) for n, d in touched.items() if d is not None])
            db.execute(STATE.delete())
            _insert(db, STATE, [{"id": 1, "data": data, "sha256": sha256(data).hexdigest()}])

    def _entries(self) -> list[Entry]:
        rows = self._rows(sa.select(ENTRIES).order_by(ENTRIES.c.number))
        return [entry_of(row, self.folder / "run.db") for row in rows]

    def _state_file(self, sha: str) -> Path:
        return state_path(self.folder, sha)

    def _state(self, sha: str) -> bytes:
        return read_state(self.folder, sha)

    def _sweep(self) -> None:
        """Remove what an interrupted or superseded save left behind, by what the database points to."""
        files.sweep(self.folder, {self._state_file(sha) for sha in self._now().states.values()})

    def _rows(self, query: sa.Select[Any]) -> Sequence[sa.Row[Any]]:
        with explained(self.folder, LedgerError), self._engine.connect() as db:
            return db.execute(query).all()


def pointed(rows: Sequence[sa.Row[Any]], some: bool, db: Path) -> _Pointer:
    """What the state row says; where there are entries there must be one."""
    if not rows and some:
        raise LedgerError(f"the state row of {db} is missing. {_DAMAGED}")
    if any(not isinstance(r.data, bytes) or sha256(r.data).hexdigest() != r.sha256 for r in rows):
        raise LedgerError(f"the state row of {db} does not match its hash. {_DAMAGED}")
    return _Pointer.decode(rows[0].data) if rows else _Pointer()


def state_path(folder: Path, sha: str) -> Path:
    """Where a state of this content lies."""
    return folder / "states" / f"{sha}.state"


def read_state(folder: Path, sha: str) -> bytes:
    """The state of this content, verified."""
    path = state_path(folder, sha)
    with explained(folder, LedgerError):
        data = path.read_bytes() if path.exists() else None
    if data is None or sha256(data).hexdigest() != sha:
        fault = "is missing" if data is None else "does not match the hash in its name"
        raise LedgerError(f"{path} {fault}. {_DAMAGED}")
    return data


def _engine(path: Path) -> sa.Engine:
    engine = sa.create_engine(sa.URL.create("sqlite", database=str(path)))

    def settings(connection: Any, _: object) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")

    sa.event.listen(engine, "connect", settings)
    return engine


def _insert(db: sa.Connection, table: sa.Table, rows: list[dict[str, Any]]) -> None:
    if rows:
        db.execute(table.insert(), rows)


def _entry_row(e: Entry) -> dict[str, Any]:
    named = {"number": e.number, "kind": e.kind, "time": e.time, "previous": e.previous, "hash": e.hash}
    return {**named, "facts": encode_tree(e.facts)}


def entry_of(row: sa.Row[Any], db: Path, *, strict: bool = True) -> Entry:
    """A row as an entry; where facts cannot be read they are None, or refused if `strict`."""
    try:
        facts = decode_tree(bytes(row.facts))
    except (TypeError, WireError):
        if strict:
            raise LedgerError(f"ledger entry {row.number} in {db} cannot be read. {_DAMAGED}") from None
        facts = None
    return Entry(row.number, row.kind, row.time, facts, row.previous, row.hash)


def _drawer_hash(name: str, data: bytes) -> str:
    """Bound to the name, so that two drawers cannot change places."""
    return sha256(name.encode() + b"\0" + data).hexdigest()


def _drawer_row(name: str, data: bytes) -> dict[str, Any]:
    return {"name": name, "data": data, "sha256": _drawer_hash(name, data)}


@contextmanager
def explained(folder: Path, error: type[ComityError]) -> Iterator[None]:
    """Turn what the system or the database says into what a person can do."""
    try:
        yield
    except OSError as e:
        raise error(files.complaint(folder, e)) from e
    except sa.exc.SQLAlchemyError as e:
        said = getattr(e, "orig", None) or e
        code = getattr(said, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise LedgerError(f"{folder / 'run.db'} is damaged ({said}). {_DAMAGED}") from e
        raise error(files.complaint(folder, OSError(_ERRNO.get(code, errno.EIO), str(said)))) from e
