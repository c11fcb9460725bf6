"""A run on disk: a folder whose every save is one generation, whole or not at all.

    recipe.json             what was agreed
    run.db                  SQLite: entries, drawers, and a row that says which states, drawers and secret fit
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
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from comity.core.errors import ComityError, ConfigError, LedgerError
from comity.ledger import folder as files
from comity.ledger.record import Entry, check_chain
from comity.ledger.tables import (
    DAMAGED,
    DRAWERS,
    ENTRIES,
    SCHEMA,
    STATE,
    ZERO,
    Pointer,
    check_drawers,
    check_recipe,
    check_sound,
    drawer_of,
    drawer_row,
    entry_of,
    entry_row,
    fingerprint,
    pointed,
    tally,
)
from comity.ledger.tables import Generation as Generation

_ERRNO = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_READONLY: errno.EROFS,
    sqlite3.SQLITE_CANTOPEN: errno.EACCES,
    sqlite3.SQLITE_IOERR: errno.EIO,
}
_SURROUNDINGS = (*_ERRNO, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_INTERRUPT)
_SURROUNDINGS += (sqlite3.SQLITE_PERM, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_NOLFS, sqlite3.SQLITE_AUTH)
"""What is wrong when it is not the file: its disk, its rights, who else holds it, memory."""


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
        self._pointer: Pointer | None = None
        self._fingerprint = self._recipe = ""

    @classmethod
    def open(cls, folder: str | Path, recipe_json: str) -> "Store":
        """Open a run's folder, or make it.

        Args:
            folder: where the run lies.
            recipe_json: the recipe, JSON.

        Raises:
            ConfigError: another process uses the folder, it holds another recipe, or it cannot be written.
            LedgerError: its recipe, database or secret is damaged or missing.
        """
        path = Path(folder)
        store = None
        try:
            with explained(path, ConfigError):
                engine = database(path / "run.db")
                store = cls(path, files.take(path), engine)
                store._begin(recipe_json)
        except BaseException:
            if store is not None:
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
        after = replace(before.then(generation), secret=self._fingerprint or before.secret)
        self._pointer = None
        try:
            with explained(self.folder, LedgerError):
                if not before.saved:
                    self._mark(before)
                for sha, data in {sha256(d).hexdigest(): d for d in generation.states.values()}.items():
                    files.write(self._state_file(sha), data)
                after = self._commit(generation, after)
        except BaseException:
            self._pointer = None  # it may have been committed all the same
            with suppress(ComityError):
                self._sweep()
            raise
        self._pointer = after
        self._sweep()

    def load(self) -> Generation | None:
        """The last generation, every hash checked, those of all drawers too; None before the first save.

        Raises:
            LedgerError: names the entry, drawer, row or file that does not match its hash.
        """
        self._pointer = None
        with explained(self.folder, LedgerError), self._engine.connect() as db:
            check_sound(db, self._db)
        now = self._now()
        if not now.saved:
            return None
        entries = self._entries()
        try:
            check_chain(entries, now.head)
        except LedgerError as e:
            raise LedgerError(f"{self._db}: {e} {DAMAGED}") from None
        check_recipe(self._recipe, entries, self.folder)
        with explained(self.folder, LedgerError), self._engine.connect() as db:
            check_drawers(db.execution_options(yield_per=100).execute(sa.select(DRAWERS)), now, self._db)
        return Generation(entries, {n: self._state(sha) for n, sha in now.states.items()}, {}, now.meta)

    def drawer(self, name: str) -> bytes | None:
        """One participant's drawer, its hash checked; None when it has none.

        Raises:
            LedgerError: names the drawer that does not match its hash.
        """
        rows = self._rows(sa.select(DRAWERS).where(DRAWERS.c.name == name))
        return drawer_of(rows[0], self._db) if rows else None

    def drawer_names(self) -> list[str]:
        """The participants that have a drawer, sorted."""
        return [row.name for row in self._rows(sa.select(DRAWERS.c.name).order_by(DRAWERS.c.name))]

    def secret(self) -> bytes:
        """32 bytes of OS entropy, made once and kept in the folder with mode 0600 until `forget_secret`.

        Raises:
            LedgerError: the file does not hold 32 bytes, is not the one the run began with, or cannot be written.
        """
        path, known = self.folder / "secret", self._now().secret
        with explained(self.folder, LedgerError):
            if not known and not path.exists():
                files.write(path, os.urandom(32), 0o600)
        data = self._secret(known)
        self._fingerprint = fingerprint(data)
        return data

    def forget_secret(self) -> None:
        """Remove the secret: at the end of a run nobody needs it."""
        now, self._fingerprint = self._now(), ""
        with explained(self.folder, LedgerError):
            if now.secret:
                with self._engine.begin() as db:
                    self._pointer = _replace_pointer(db, replace(now, secret=""))
            (self.folder / "secret").unlink(missing_ok=True)

    def close(self) -> None:
        """Let another process use the folder."""
        lock, self._lock = self._lock, -1
        try:
            self._engine.dispose()
        finally:
            if lock >= 0:
                os.close(lock)

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def _db(self) -> Path:
        return self.folder / "run.db"

    def _begin(self, recipe_json: str) -> None:
        self._recipe = recipe_json
        recipe, db, states = (self.folder / name for name in ("recipe.json", "run.db", "states"))
        lost = recipe if db.exists() and not recipe.exists() else db
        if not lost.exists() and (db.exists() or any(states.glob("*.state"))):
            raise LedgerError(f"{lost} is missing from a folder that holds a run. {DAMAGED}")
        files.agree(recipe, recipe_json)
        states.mkdir(exist_ok=True)
        SCHEMA.create_all(self._engine)
        files.sync(self.folder)
        if known := self._now().secret:
            self._secret(known)
        self._sweep()

    def _secret(self, known: str) -> bytes:
        path = self.folder / "secret"
        with explained(self.folder, LedgerError):
            data = path.read_bytes() if path.exists() else None
        if data is None:
            raise LedgerError(f"{path} is missing. {DAMAGED}")
        if len(data) != 32:
            raise LedgerError(f"{path} must hold 32 bytes. Got {len(data)}. {DAMAGED}")
        if known and fingerprint(data) != known:
            raise LedgerError(f"{path} is not the secret that this run began with. {DAMAGED}")
        return data

    def _now(self) -> Pointer:
        """What the database points to; read once, then remembered."""
        if self._pointer is None:
            some = has_states(self.folder) or bool(self._rows(sa.select(ENTRIES.c.number).limit(1)))
            self._pointer = pointed(self._rows(sa.select(STATE)), some, self._db)
        return self._pointer

    def _mark(self, now: Pointer) -> None:
        """The state row before the first save: there before any state file, so that a database without it is known."""
        with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as db:
            db.execute(STATE.insert().prefix_with("OR REPLACE"), _pointer_row(now))

    def _commit(self, generation: Generation, after: Pointer) -> Pointer:
        touched = list(generation.drawers)
        new = [drawer_row(n, d) for n, d in generation.drawers.items() if d is not None]
        with self._engine.begin() as db:
            _insert(db, ENTRIES, [entry_row(e) for e in generation.entries])
            old = _hashes(db, touched)
            if touched:
                db.execute(DRAWERS.delete().where(DRAWERS.c.name == sa.bindparam("n")), [{"n": n} for n in touched])
            _insert(db, DRAWERS, new)
            added = [row["sha256"] for row in new]
            known = after.drawers != ""
            total = tally(after.drawers, added, old) if known else tally(ZERO, db.scalars(sa.select(DRAWERS.c.sha256)))
            return _replace_pointer(db, replace(after, drawers=total))

    def _entries(self) -> list[Entry]:
        rows = self._rows(sa.select(ENTRIES).order_by(ENTRIES.c.number))
        return [entry_of(row, self._db) for row in rows]

    def _state_file(self, sha: str) -> Path:
        return state_path(self.folder, sha)

    def _state(self, sha: str) -> bytes:
        return read_state(self.folder, sha)

    def _sweep(self) -> None:
        """Remove what an interrupted or superseded save left behind, by what the database points to.

        Where that is not there, nothing is removed: the database may be the one that is wrong.
        """
        kept = {self._state_file(sha) for sha in self._now().states.values()}
        if all(path.exists() for path in kept):
            files.sweep(self.folder, kept)

    def _rows(self, query: sa.Select[Any]) -> Sequence[sa.Row[Any]]:
        with explained(self.folder, LedgerError), self._engine.connect() as db:
            return db.execute(query).all()


def has_states(folder: Path) -> bool:
    """Was there ever a save, or the beginning of one?"""
    return any((folder / "states").glob("*.state"))


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
        raise LedgerError(f"{path} {fault}. {DAMAGED}")
    return data


def database(path: Path, wait: float = 5.0) -> sa.Engine:
    """SQLite whose commits are on the disk when they return; a lock of another is waited for, in seconds."""
    engine = sa.create_engine(sa.URL.create("sqlite", database=str(path)), connect_args={"timeout": wait})

    def settings(connection: Any, _: object) -> None:
        _patiently(connection, "PRAGMA journal_mode=WAL", time.monotonic() + wait)
        connection.execute("PRAGMA synchronous=FULL")

    sa.event.listen(engine, "connect", settings)
    return engine


def _patiently(connection: sqlite3.Connection, statement: str, until: float) -> None:
    """Run what SQLite refuses at once while another process is making the same database."""
    while True:
        try:
            connection.execute(statement)
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(0.005)


def _insert(db: sa.Connection, table: sa.Table, rows: list[dict[str, Any]]) -> None:
    if rows:
        db.execute(table.insert(), rows)


def _hashes(db: sa.Connection, names: Sequence[str]) -> list[str]:
    found: list[str] = []
    for i in range(0, len(names), 500):
        found += db.scalars(sa.select(DRAWERS.c.sha256).where(DRAWERS.c.name.in_(names[i : i + 500])))
    return found


def _replace_pointer(db: sa.Connection, now: Pointer) -> Pointer:
    db.execute(STATE.delete())
    _insert(db, STATE, [_pointer_row(now)])
    return now


def _pointer_row(now: Pointer) -> dict[str, Any]:
    data = now.encode()
    return {"id": 1, "data": data, "sha256": sha256(data).hexdigest()}


def _closed_itself(path: Path) -> bool:
    """Does the file itself say that it is read only (its write version), where nobody ever wrote that?"""
    with suppress(OSError), path.open("rb") as file:
        return file.read(19)[18:] > b"\2"
    return False


@contextmanager
def explained(folder: Path, error: type[ComityError], db: str = "run.db") -> Iterator[None]:
    """Turn what the system or the database says into what a person can do."""
    try:
        yield
    except OSError as e:
        raise error(files.complaint(folder, e)) from e
    except UnicodeDecodeError as e:  # sqlite3 raises it as it is where a name in the schema is no text
        raise LedgerError(f"{folder / db} is damaged ({e}). {DAMAGED}") from e
    except sa.exc.SQLAlchemyError as e:
        said = getattr(e, "orig", None) or e
        code = getattr(said, "sqlite_errorcode", 0) & 0xFF
        told = isinstance(said, sqlite3.DatabaseError) and not isinstance(said, sqlite3.ProgrammingError)
        if (told and code not in _SURROUNDINGS) or (code == sqlite3.SQLITE_READONLY and _closed_itself(folder / db)):
            raise LedgerError(f"{folder / db} is damaged ({said}). {DAMAGED}") from e
        raise error(files.complaint(folder, OSError(_ERRNO.get(code, errno.EIO), str(said)))) from e
