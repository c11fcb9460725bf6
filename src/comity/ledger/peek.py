"""A look at a run's folder: no lock, no recipe, nothing written, while another process may be using it."""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import sqlalchemy as sa

from comity.core.errors import ConfigError, LedgerError
from comity.ledger.record import Entry
from comity.ledger.store import explained, has_states, read_state
from comity.ledger.tables import (
    DRAWERS,
    ENTRIES,
    STATE,
    Pointer,
    check_drawers,
    check_sound,
    entry_of,
    fingerprint,
    pointed,
)

LOOKS = 5
"""How often a folder that changes while it is read is read again."""


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """A run's folder as it was at one moment.

    Attributes:
        folder: where it lies.
        recipe: the text of recipe.json; "" where there is none.
        head: the hash that the last entry must have, as the database has it.
        entries: the ledger, not verified yet (see `check_chain`); facts that cannot be read are None.
        files: state by name to the sha256 of its file.
        faults: what is wrong with the drawers and the secret, where that was asked for.
    """

    folder: Path
    recipe: str
    head: str
    entries: Sequence[Entry]
    files: Mapping[str, str]
    faults: Sequence[str] = ()

    def state(self, name: str) -> bytes:
        """A saved state, its hash checked; the newest one where a process has written another meanwhile.

        Raises:
            LedgerError: its file is missing or does not match its hash.
        """
        sha = self.files[name]
        for _ in range(LOOKS):
            try:
                return read_state(self.folder, sha)
            except LedgerError:
                before, sha = sha, peek(self.folder).files.get(name, sha)
                if sha == before:
                    raise
        return read_state(self.folder, sha)


def peek(folder: str | Path, *, thorough: bool = False) -> Seen:
    """Look at a run's folder without holding it.

    Args:
        folder: where the run lies.
        thorough: read every drawer and the pages of the database too.

    Raises:
        ConfigError: there is no run in it.
        LedgerError: its database is damaged or cannot be read.

    Example:
        >>> import tempfile
        >>> from comity.ledger.store import Store
        >>> with tempfile.TemporaryDirectory() as folder, Store.open(folder, '{"seed": 0}'):
        ...     seen = peek(folder)
        >>> seen.recipe, len(seen.entries)
        ('{"seed": 0}', 0)
    """
    path = Path(folder)
    db = path / "run.db"
    if not db.is_file():
        raise ConfigError(f"{path} must be the folder of a run. There is no run.db in it. Name another folder.")
    for _ in range(LOOKS):
        live, stamp = _log(db).exists(), _stamp(db)
        try:
            seen = _look(path, live, thorough)
        except LedgerError:
            if live or _stamp(db) == stamp:
                raise
            continue
        if live or (not _log(db).exists() and _stamp(db) == stamp):
            return seen
    raise LedgerError(f"{path} changed each of {LOOKS} times it was read. Look again when it is quieter.")


def _look(folder: Path, live: bool, thorough: bool) -> Seen:
    """One look at one moment. Without a log nobody writes, and the database can be read as a plain file."""
    db, recipe = folder / "run.db", folder / "recipe.json"
    mode = "mode=ro" if live else "immutable=1"  # a plain read-only connection leaves files behind
    uri = f"file:{quote(str(db.absolute()))}?{mode}"
    engine = sa.create_engine("sqlite://", creator=lambda: sqlite3.connect(uri, uri=True), poolclass=sa.pool.NullPool)
    begun, faults = has_states(folder), []
    with explained(folder, LedgerError), engine.connect() as connection:
        connection.exec_driver_sql("BEGIN")
        if thorough:
            check_sound(connection, db)
        made = sa.inspect(connection).has_table("state")
        pointers = connection.execute(sa.select(STATE)).all() if made else ()
        rows = connection.execute(sa.select(ENTRIES).order_by(ENTRIES.c.number)).all() if made else ()
        now = pointed(pointers, bool(rows) or begun, db)
        if thorough and made:
            faults = [*_drawers(connection, now, db), *_secret(folder, now)]
        connection.rollback()
        text = recipe.read_text(encoding="utf-8", errors="replace") if recipe.exists() else ""
    entries = [entry_of(row, db, strict=False) for row in rows]
    return Seen(folder, text, now.head, entries, now.states, faults)


def _drawers(connection: sa.Connection, now: Pointer, db: Path) -> Iterator[str]:
    try:
        check_drawers(connection.execution_options(yield_per=100).execute(sa.select(DRAWERS)), now, db)
    except LedgerError as error:
        yield str(error)


def _secret(folder: Path, now: Pointer) -> Iterator[str]:
    """Is it another one? A copy for others has none, and only its owner can read it."""
    path = folder / "secret"
    with suppress(OSError):
        if now.secret and path.exists() and fingerprint(path.read_bytes()) != now.secret:
            yield f"{path} is not the secret that this run began with. Restore it from a copy."


def _log(db: Path) -> Path:
    """What was written and not yet moved into the database: there as long as a process holds it."""
    return db.with_name(f"{db.name}-wal")


def _stamp(db: Path) -> tuple[int, int]:
    said = db.stat()
    return said.st_mtime_ns, said.st_size
