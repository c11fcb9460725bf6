"""Large bodies beside the database: files named by their sha256, and the parts of those that are still arriving.

    down/<sha256>                 what the hub gives to be fetched
    up/<party>/<sha256>           what a party has sent, whole and verified
    up/<party>/<sha256>.part      what has arrived of it; its length is the truth
    down.lock, up/<party>.lock    whoever writes there holds it, in whichever process

A party is named by the sha256 of its name. Nobody sees, or spoils, what another sends. `objects` keeps them elsewhere.
"""

import os
import re
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

from comity.core.errors import LedgerError
from comity.ledger import folder as files

PIECE = 2**20
PARTS, HASHING = 4, 1000
"""How many uploads of one party may be unfinished; and of all, how many are hashed as they arrive."""
DAY = 86_400.0
"""Seconds after which nobody goes on with an unfinished upload."""
WHOLE = re.compile(r"[0-9a-f]{64}")


class Offset(Exception):
    """Bytes that do not follow those that are there.

    Attributes:
        at: how many there are.
    """

    def __init__(self, at: int) -> None:
        super().__init__(f"There are {at} bytes.")
        self.at = at


class StoreAway(OSError):
    """A store of large bodies that does not answer now. What it was given is there; ask again."""

    def __str__(self) -> str:
        return str(self.strerror)


class Bodies(Protocol):
    """Where the large bodies of a hub lie: `Blobs`, and `Objects`, which may raise `StoreAway` everywhere."""

    def give(self, sha: str, data: bytes) -> None:
        """Keep what is to be fetched."""
        ...

    def given(self, sha: str) -> Path | None:
        """A file of it."""
        ...

    def offset(self, party: str, sha: str) -> int:
        """How many bytes of an upload are there."""
        ...

    def add(self, party: str, sha: str, offset: int, total: int, data: bytes | bytearray) -> int:
        """The next bytes of an upload."""
        ...

    def size(self, party: str, sha: str) -> int | None:
        """The bytes of what a party has sent; None where it is not whole."""
        ...

    def sent(self, party: str, sha: str) -> files.Data | None:
        """What a party has sent; None where it is not whole."""
        ...

    def tidy(self, party: str, counted: Collection[str]) -> None:
        """Of what a party sent whole and no answer of it names, keep a few."""
        ...

    def forget(self, gone: set[str]) -> None:
        """Remove what nobody needs any more, whoever sent it."""
        ...

    def sweep(self, needed: Callable[[], set[str]], *, alone: bool) -> int:
        """Remove what a hub that was killed left behind."""
        ...


class Blobs:
    """The files of one hub.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     blobs, name = Blobs(Path(folder)), sha256(b"hello").hexdigest()
        ...     blobs.add("ada", name, 0, 5, b"he"), blobs.offset("ada", name), blobs.add("ada", name, 2, 5, b"llo")
        ...     blobs.sent("ada", name), blobs.sent("bob", name)
        (2, 2, 5)
        (b'hello', None)
    """

    def __init__(self, folder: Path) -> None:
        """Args: folder, of the hub."""
        self.down, self.up = folder / "down", folder / "up"
        for path in (self.down, self.up):
            path.mkdir(parents=True, exist_ok=True)
        self._hashing: dict[Path, tuple[tuple[int, ...], Any]] = {}  # of parts that arrive here: stamp, and sha256

    def give(self, sha: str, data: bytes) -> None:
        """Keep what is to be fetched."""
        with files.alone(self.down.with_name("down.lock")):
            if not (self.down / sha).exists():
                files.write(self.down / sha, data)

    def given(self, sha: str) -> Path | None:
        """Where it lies."""
        path = self.down / sha
        return path if path.is_file() else None

    def offset(self, party: str, sha: str) -> int:
        """How many bytes of an upload are there."""
        here = self.place(party)
        for path in (here / sha, here / f"{sha}.part"):
            with suppress(FileNotFoundError):
                return path.stat().st_size
        return 0

    def add(self, party: str, sha: str, offset: int, total: int, data: bytes | bytearray) -> int:
        """The next bytes of an upload.

        Args:
            party: whose it is.
            sha: the sha256 of the whole, hex.
            offset: where they belong.
            total: bytes of the whole.
            data: the bytes.

        Returns:
            How many there are now, on the disk; `total` when all are there and verified.

        Raises:
            Offset: they do not follow what is there.
            LedgerError: the whole is not what its sha256 says: it begins anew.
        """
        here = self.place(party)
        with files.alone(here.with_name(f"{here.name}.lock")):
            if (here / sha).exists():
                return total
            at, part = self.offset(party, sha), here / f"{sha}.part"
            if at > total:
                part.unlink()
                raise Offset(0)
            if offset != at or at + len(data) > total:
                raise Offset(at)
            if not at:
                self._room(here)
            return self._append(part, at, total, data)

    def _append(self, part: Path, at: int, total: int, data: bytes | bytearray) -> int:
        """How many there are then."""
        hashed = self._so_far(part, at)
        with part.open("ab") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
            stamp = _stamp(os.fstat(f.fileno()))
        if hashed is not None:
            hashed.update(data)
        if at + len(data) == total:
            self._finish(part, part.with_suffix(""), hashed or _read(part))
        elif hashed is not None:
            if len(self._hashing) >= HASHING:
                self._hashing.clear()  # of those that nobody went on with; they are read again
            self._hashing[part] = (stamp, hashed)
        return at + len(data)

    def _so_far(self, part: Path, at: int) -> Any:
        """The sha256 of what is there, where nobody but this process wrote it; else None."""
        known, hashed = self._hashing.pop(part, ((), None))
        if not at:
            return sha256()
        return hashed if known == _stamp(part.stat()) else None

    def size(self, party: str, sha: str) -> int | None:
        """The bytes of what a party has sent; None where it is not whole."""
        path = self.place(party) / sha
        with suppress(FileNotFoundError):
            os.utime(path)  # an answer is about to name it: no other process sweeps it away
            return path.stat().st_size
        return None

    def sent(self, party: str, sha: str) -> files.Data | None:
        """What a party has sent; None where it is not whole."""
        path = self.place(party) / sha
        return files.mapped(path) if path.is_file() else None

    def tidy(self, party: str, counted: Collection[str]) -> None:
        """Of what a party sent whole and no answer of it names, keep the newest few: else it could fill the disk.

        Args:
            party: whose.
            counted: the sha256 of what its answers name.
        """
        whole = [p for p in self.place(party).glob("*") if WHOLE.fullmatch(p.name) and p.name not in counted]
        for path in sorted(whole, key=_written)[: 1 - PARTS]:
            path.unlink(missing_ok=True)

    def forget(self, gone: set[str]) -> None:
        """Remove what nobody needs any more, whoever sent it."""
        for sha in gone:
            (self.down / sha).unlink(missing_ok=True)
        if gone:
            for path in self.up.glob("*/*"):
                if path.name in gone:
                    path.unlink(missing_ok=True)

    def sweep(self, needed: Callable[[], set[str]], *, alone: bool) -> int:
        """Remove what a hub that was killed left behind: bodies that no row names, and parts older than a day.

        Args:
            needed: the sha256 of all bodies that rows name; asked after the files were looked at.
            alone: does no other process receive here? Otherwise what is younger than a day stays, since it may be on
                its way.

        Returns:
            How many files were removed.
        """
        found = [path for path in (*self.down.iterdir(), *self.up.glob("*/*")) if _orphan(path, alone)]
        kept = needed()
        gone = [path for path in found if path.name not in kept and _orphan(path, alone)]
        for path in gone:
            path.unlink(missing_ok=True)
        return len(gone)

    def place(self, party: str) -> Path:
        """The folder of what a party has sent."""
        return self.up / sha256(party.encode()).hexdigest()[:32]

    def _room(self, here: Path) -> None:
        """Forget the oldest of too many unfinished uploads."""
        here.mkdir(exist_ok=True)
        parts = sorted(here.glob("*.part"), key=lambda p: p.stat().st_mtime)
        for path in parts[: max(0, len(parts) - PARTS + 1)]:
            path.unlink(missing_ok=True)

    def _finish(self, part: Path, whole: Path, hashed: Any) -> None:
        if hashed.hexdigest() != whole.name:
            part.unlink(missing_ok=True)
            raise LedgerError("An upload must be what its sha256 says. It is not. Send it again from the beginning.")
        part.replace(whole)
        files.sync(whole.parent)


def _stamp(said: os.stat_result) -> tuple[int, ...]:
    """Another where somebody else wrote to a file, or made it anew."""
    return said.st_ino, said.st_size, said.st_mtime_ns


def _read(part: Path) -> Any:
    """The sha256 of a file."""
    hashed = sha256()
    with part.open("rb") as f:
        while piece := f.read(PIECE):
            hashed.update(piece)
    return hashed


def _written(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _orphan(path: Path, alone: bool) -> bool:
    """May nobody be about to use it, if no row names it?"""
    if alone and path.suffix != ".part":
        return True
    try:
        return time.time() - path.stat().st_mtime > DAY
    except FileNotFoundError:
        return False
