"""What a hub forgets of runs that ended long ago, and what it keeps of them.

Gone: models and other states, the run's secret, what sites were asked and answered. Kept: the recipe and the ledger,
as a copy of lines that `comity audit` checks; who agreed to what; and the audit log.
"""

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from comity.core.errors import ConfigError
from comity.ledger import copies
from comity.ledger import folder as files
from comity.ledger.peek import peek
from comity.ledger.record import check_chain
from comity.service.database import Database
from comity.service.parties import told
from comity.service.runs import RunRow, Runs

_GONE = ("run.db", "run.db-wal", "run.db-shm", "secret", "lock")
_TABLES = ("tasks",)


@dataclass(frozen=True, slots=True)
class Pruned:
    """A run that was forgotten, or would be.

    Attributes:
        run: its identity.
        title: as people call it.
        ended: when, seconds since 1970.
        folder: where its ledger stays.
        freed: bytes.
    """

    run: str
    title: str
    ended: float
    folder: Path
    freed: int


def prune(
    db: Database, days: float, *, dry: bool = False, by: str = "operator", clock: Callable[[], float] = time.time
) -> list[Pruned]:
    """Forget what runs hold that ended so long ago. The same again changes nothing; killed in between, it goes on.

    Args:
        db: of the hub.
        days: since their end, >= 0.
        dry: only say what would be forgotten.
        by: who wishes it, for the audit log.
        clock: seconds since 1970.

    Returns:
        Those that were forgotten, the oldest first.

    Raises:
        ConfigError: a number below 0.
        LedgerError: a ledger is not whole: its run is left as it is.
    """
    if days < 0:
        raise ConfigError(f"--days must be >= 0. Got {days}. Use 365, for one.")
    before = clock() - 86400 * days
    old = [row for row in reversed(Runs(db).all()) if not row.live and row.ended is not None and row.ended < before]
    found = []
    for row in old:
        folder = Path(row.folder) if row.folder else None
        if folder is None or not (folder / "run.db").is_file():
            continue
        found.append(Pruned(row.run, row.title, row.ended or 0.0, folder, _size(folder)))
        if not dry:
            _forget(db, row, folder, by, clock())
    return found


def _forget(db: Database, row: RunRow, folder: Path, by: str, now: float) -> None:
    """First the ledger as lines, whole; then what it came from."""
    lock = files.take(folder)
    try:
        seen = peek(folder)
        check_chain(seen.entries, seen.head)
        (folder / copies.NAME).unlink(missing_ok=True)
        copies.append(folder, seen.entries)
        with db.writing() as on:
            there = set(sa.inspect(on).get_table_names())
            for name in _TABLES:
                if name in there:
                    table = sa.table(name, sa.column("run"))
                    on.execute(sa.delete(table).where(table.c.run == row.run))
            told(on, now, f"pruned {row.run}", by)
        shutil.rmtree(folder / "states", ignore_errors=True)
        for name in _GONE:
            (folder / name).unlink(missing_ok=True)
        files.sync(folder)
    finally:
        os.close(lock)


def _size(folder: Path) -> int:
    there = [folder / name for name in _GONE]
    there += list((folder / "states").glob("*"))
    return sum(path.stat().st_size for path in there if path.is_file())
