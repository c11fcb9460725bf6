"""A hub's folder as one file, and back: taken while the hub is at work, checked when it is put back.

What a backup holds fits together, whatever is written meanwhile. The hub's database is copied first and the runs
last: whatever a hub forgets belongs to rounds that its runs have saved before. So a run in the copy is never behind
the questions in it, and where it is ahead, the hub asks again and gets the same answers. SQLite is copied by its own
backup, a run's states together with the row that points to them.

The file holds the hub's key: it is made with mode 0600, and is to be kept like the folder itself.
"""

import errno
import hashlib
import json
import os
import shutil
import sqlite3
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, urlsplit

from comity import __version__
from comity.core.errors import ConfigError, LedgerError
from comity.ledger import folder as files
from comity.ledger.audit import audit
from comity.ledger.peek import LOOKS, peek
from comity.ledger.record import check_chain
from comity.ledger.store import state_path
from comity.service.settings import TOML, HubSettings

FORMAT, MANIFEST = 1, "comity-backup.json"
PIECE = 2**20
_LEFT = ("lock",)
_ENDS = ("-wal", "-shm", "-journal", ".part", ".tmp", ".lock")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True, slots=True)
class Kept:
    """What a backup holds.

    Attributes:
        file: the backup.
        made: when, seconds since 1970.
        files: how many files.
        size: their bytes.
        runs: the folders of runs in it.
        elsewhere: what belongs to the hub and is not in it: the URLs of a database and of a store of objects without
            their passwords, paths outside.
        faults: what is wrong with a run; it is in the file as it is.
    """

    file: Path
    made: float
    files: int
    size: int
    runs: tuple[str, ...]
    elsewhere: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()


def backup(folder: str | Path, out: str | Path, *, clock: Callable[[], float] = time.time) -> Kept:
    """Write a hub's folder into one file, which is there whole or not at all. The hub may be at work.

    Args:
        folder: the hub's.
        out: the file, a tar; one that is there is replaced.
        clock: seconds since 1970.

    Returns:
        What is in it. `faults` names what was damaged before.

    Raises:
        ConfigError: no hub lives there, or the file cannot be written, or lies in the folder itself.
        LedgerError: a database is damaged, or the disk is full.
    """
    settings, file = HubSettings.read(folder), Path(out).absolute()
    where = settings.folder.absolute()
    if file.resolve().is_relative_to(where.resolve()):
        raise ConfigError(f"A backup must lie outside of the hub's folder. Got {file}. Name another place.")
    draft = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    with _plainly(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            with tempfile.TemporaryDirectory(prefix=".comity-", dir=file.parent) as room, _private(draft) as sink:
                kept = _Copy(where, Path(room), sink).made(file, clock(), _elsewhere(settings))
                sink.flush()
                os.fsync(sink.fileno())
            draft.replace(file)
        finally:
            draft.unlink(missing_ok=True)
        files.sync(file.parent)
    return kept


def restore(file: str | Path, folder: str | Path) -> tuple[Kept, tuple[str, ...]]:
    """Put a backup back, into a folder that is empty or not there; every byte and every run is checked.

    Args:
        file: the backup.
        folder: where the hub is to live.

    Returns:
        What was in it, and what is wrong with the runs: () where every ledger is whole.

    Raises:
        ConfigError: it is no backup, or the folder holds something.
        LedgerError: it is damaged; nothing was put back.
    """
    source, where = Path(file).absolute(), Path(folder).absolute()
    if where.exists() and (not where.is_dir() or any(where.iterdir())):
        raise ConfigError(f"A backup must be put back into an empty folder. {where} holds something. Choose another.")
    draft = where.with_name(f".{where.name}.restoring")
    with _plainly(where):
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700, parents=True)
        try:
            kept = _unpacked(source, draft)
            if where.exists():
                where.rmdir()
            draft.rename(where)
            files.sync(where.parent)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    HubSettings.read(where)
    return kept, tuple(_audited(where, kept))


def snapshot(source: Path, copy: Path) -> None:
    """Copy a SQLite database as it is at one moment, whoever writes to it; nothing is left beside it.

    Raises:
        LedgerError: it is damaged.
    """
    for _ in range(LOOKS):
        live, stamp = _live(source), _stamp(source)
        copy.unlink(missing_ok=True)
        mode = "mode=ro" if live else "immutable=1"  # a plain read-only connection leaves files of this user behind
        with _told(source, copy.parent):
            _copied(f"file:{quote(str(source))}?{mode}", source, copy)
        if live or (not _live(source) and _stamp(source) == stamp):
            return
    raise LedgerError(f"{source} changed each of {LOOKS} times it was read. Try again when it is quieter.")


def _copied(uri: str, source: Path, copy: Path) -> None:
    with closing(sqlite3.connect(uri, uri=True, timeout=30.0)) as a, closing(sqlite3.connect(copy)) as b:
        a.backup(b)
        found = b.execute("PRAGMA integrity_check").fetchone()
        if found != ("ok",):
            raise LedgerError(f"{source} is damaged ({str(found)[:100]}). Restore it from an earlier backup.")


class _Copy:
    """The files of a hub on their way into a tar."""

    def __init__(self, folder: Path, room: Path, sink: IO[bytes]) -> None:
        self._folder, self._room = folder, room
        self._tar = tarfile.open(fileobj=sink, mode="w", format=tarfile.PAX_FORMAT)  # noqa: SIM115
        self._sums: dict[str, str] = {}
        self._size = 0

    def made(self, file: Path, now: float, elsewhere: tuple[str, ...]) -> Kept:
        """Everything, the hub's own database first, the runs last."""
        runs = sorted(path.parent for path in self._folder.rglob("run.db"))
        inside = {path for run in runs for path in (run / "run.db", run / "states", run / "recipe.json")}
        for path in sorted(self._folder.glob("*.db")):
            if path not in inside:
                self._database(path)
        for path in self._plain(inside):
            with suppress(FileNotFoundError):  # forgotten meanwhile: nobody needs it
                self._add(path, path.relative_to(self._folder).as_posix())
        faults = [fault for run in runs for fault in self._run(run)]
        named = tuple(run.relative_to(self._folder).as_posix() for run in runs)
        kept = Kept(file, now, len(self._sums), self._size, named, elsewhere, tuple(faults))
        self._close(kept)
        return kept

    def _plain(self, inside: set[Path]) -> Iterator[Path]:
        """Files that are whole whenever they are there."""
        for top, folders, names in os.walk(self._folder):
            folders[:] = sorted(f for f in folders if Path(top, f) not in inside)
            for name in sorted(names):
                path = Path(top, name)
                if name in _LEFT or name.endswith(_ENDS) or path in inside or not path.is_file():
                    continue
                if top == str(self._folder) and name.endswith(".db"):
                    continue
                yield path

    def _database(self, path: Path) -> None:
        copy = self._room / "copy.db"
        snapshot(path, copy)
        self._add(copy, path.relative_to(self._folder).as_posix())

    def _run(self, run: Path) -> Iterator[str]:
        """A run: its database, and the states that this very copy points to."""
        here = self._room / "run"
        for _ in range(LOOKS):
            shutil.rmtree(here, ignore_errors=True)
            (here / "states").mkdir(parents=True)
            snapshot(run / "run.db", here / "run.db")
            seen = peek(here)
            try:
                for sha in set(seen.files.values()):
                    shutil.copyfile(state_path(run, sha), state_path(here, sha))
            except FileNotFoundError as error:  # a newer one has taken its place
                gone = error
                continue
            break
        else:
            yield f"{gone.filename} is missing. Restore it from an earlier backup."
        with suppress(FileNotFoundError):
            shutil.copyfile(run / "recipe.json", here / "recipe.json")
        for path in sorted(p for p in here.rglob("*") if p.is_file()):
            self._add(path, (run.relative_to(self._folder) / path.relative_to(here)).as_posix())
        try:
            check_chain(seen.entries, seen.head)
        except LedgerError as error:
            yield f"{run}: {error}"

    def _add(self, path: Path, name: str) -> None:
        with path.open("rb") as source:
            said = os.fstat(source.fileno())
            row = tarfile.TarInfo(name)
            row.size, row.mode, row.mtime = said.st_size, said.st_mode & 0o700, int(said.st_mtime)
            hashed: Any = _Hashed(source)
            self._tar.addfile(row, hashed)
        self._sums[name] = hashed.sha.hexdigest()
        self._size += row.size

    def _close(self, kept: Kept) -> None:
        rows = {"format": FORMAT, "comity": __version__, "made": kept.made, "runs": list(kept.runs)}
        data = json.dumps({**rows, "elsewhere": list(kept.elsewhere), "files": self._sums}, indent=1).encode()
        row = tarfile.TarInfo(MANIFEST)
        row.size, row.mode, row.mtime = len(data), 0o600, int(kept.made)
        self._tar.addfile(row, BytesIO(data))
        self._tar.close()


class _Hashed:
    """A file that is hashed while it is read."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source: Any = source
        self.sha = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data: bytes = self._source.read(size)
        self.sha.update(data)
        return data


def _unpacked(source: Path, draft: Path) -> Kept:
    """Every file of a backup, held against its manifest."""
    sums: dict[str, str] = {}
    size, manifest = 0, b""
    try:
        with tarfile.open(source, "r:") as tar:
            for row in tar:
                data = tar.extractfile(row) if row.isreg() else None
                if data is None or row.name in sums or not _inside(row.name):
                    raise LedgerError(f"{source} must be a backup of a hub. It holds {row.name!r:.80}. Use another.")
                if row.name == MANIFEST:
                    manifest = data.read(2**26)
                    continue
                sums[row.name] = _extracted(data, draft / row.name, row.mode)
                size += row.size
    except (tarfile.TarError, EOFError) as error:
        raise LedgerError(f"{source} must be a whole backup. Got: {error}. Use another.") from None
    said = _manifest(source, manifest)
    if said["files"] != sums:
        wrong = next(n for n in sorted({*said["files"], *sums}) if said["files"].get(n) != sums.get(n))
        raise LedgerError(f"{source} is damaged: {wrong} is not what was put into it. Use another backup.")
    return Kept(source, said["made"], len(sums), size, tuple(said["runs"]), tuple(said["elsewhere"]))


def _inside(name: str) -> bool:
    parts = name.split("/")
    return not name.startswith("/") and all(p not in ("", ".", "..") for p in parts)


def _extracted(data: IO[bytes], path: Path, mode: int) -> str:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    sha = hashlib.sha256()
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode & 0o700), "wb") as sink:
        while piece := data.read(PIECE):
            sha.update(piece)
            sink.write(piece)
        sink.flush()
        os.fsync(sink.fileno())
    return sha.hexdigest()


def _manifest(source: Path, data: bytes) -> dict[str, Any]:
    try:
        said: dict[str, Any] = json.loads(data)
        known = said["format"], said["made"], said["runs"], said["elsewhere"], said["files"][TOML]
    except (ValueError, KeyError, TypeError):
        raise ConfigError(f"{source} must be what comity hub backup wrote. It is not, or not all of it.") from None
    if known[0] != FORMAT:
        raise ConfigError(f"{source} must be a backup of format {FORMAT}. Got {known[0]!r:.20}. Update comity.")
    return said


def _audited(where: Path, kept: Kept) -> Iterator[str]:
    for run in kept.runs:
        try:
            found = audit(where / run)
        except (ConfigError, LedgerError) as error:
            yield f"{run}: {error}"
        else:
            yield from (f"{run}: {fault}" for fault in found.faults)


def _elsewhere(settings: HubSettings) -> tuple[str, ...]:
    """What belongs to a hub and lies outside of its folder."""
    home = settings.folder.resolve()
    named = (settings.certificate, settings.certificate_key, settings.mutual_tls, *(s.file for s in settings.studies))
    outside = [str(path) for path in named if path is not None and not path.resolve().is_relative_to(home)]
    store = [_bare(settings.blobs)] if settings.blobs else []
    return (*([dumped(settings.database)] if settings.database else []), *store, *outside)


def _bare(url: str) -> str:
    """The URL of a store, without what may hold a key."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def dumped(url: str) -> str:
    """A database's URL for pg_dump and psql, without its password."""
    import sqlalchemy as sa

    return sa.make_url(url).set(drivername="postgresql").render_as_string(hide_password=True)


def _private(path: Path) -> Any:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")


@contextmanager
def _told(db: Path, room: Path) -> Iterator[None]:
    """What SQLite says while a database is copied, for a person."""
    try:
        yield
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL:
            raise OSError(errno.ENOSPC, "No space left", str(room)) from None
        raise LedgerError(f"{db} must be a database that can be read. Got: {error}.") from None


@contextmanager
def _plainly(where: Path) -> Iterator[None]:
    """What the system says, for a person."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise LedgerError(
                f"The disk must have room for {where}. It is full. Free some space and run again."
            ) from error
        at = where if str(error.filename or "").endswith(".tmp") else error.filename or where
        raise ConfigError(f"{at} must be open to reading and writing. Got: {error.strerror}. Allow it.") from error


def _live(db: Path) -> bool:
    return db.with_name(f"{db.name}-wal").exists()


def _stamp(db: Path) -> tuple[int, int]:
    said = db.stat()
    return said.st_mtime_ns, said.st_size
