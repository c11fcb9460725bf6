"""Large bodies beside the database: files named by their sha256, and the parts of those that are still arriving.

    down/<sha256>                 what the hub gives to be fetched
    up/<party>/<sha256>           what a party has sent, whole and verified
    up/<party>/<sha256>.part      what has arrived of it; its length is the truth

A party is named by the sha256 of its name. Nobody sees, or spoils, what another sends.
"""

import os
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from comity.core.errors import LedgerError
from comity.ledger import folder as files

PIECE = 2**20
PARTS = 4
"""How many uploads of one party may be unfinished."""


class Offset(Exception):
    """Bytes that do not follow those that are there.

    Attributes:
        at: how many there are.
    """

    def __init__(self, at: int) -> None:
        super().__init__(f"There are {at} bytes.")
        self.at = at


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

    def give(self, sha: str, data: bytes) -> None:
        """Keep what is to be fetched."""
        if not (self.down / sha).exists():
            files.write(self.down / sha, data)

    def given(self, sha: str) -> Path | None:
        """Where it lies."""
        path = self.down / sha
        return path if path.is_file() else None

    def offset(self, party: str, sha: str) -> int:
        """How many bytes of an upload are there."""
        here = self._place(party)
        for path in (here / sha, here / f"{sha}.part"):
            with suppress(FileNotFoundError):
                return path.stat().st_size
        return 0

    def add(self, party: str, sha: str, offset: int, total: int, data: bytes) -> int:
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
        here = self._place(party)
        if (here / sha).exists():
            return total
        at = self.offset(party, sha)
        if offset != at or at + len(data) > total:
            raise Offset(at)
        part = here / f"{sha}.part"
        if not part.exists():
            self._room(here)
        with part.open("ab") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        if at + len(data) == total:
            self._finish(part, here / sha, sha)
        return at + len(data)

    def size(self, party: str, sha: str) -> int | None:
        """The bytes of what a party has sent; None where it is not whole."""
        path = self._place(party) / sha
        return path.stat().st_size if path.is_file() else None

    def sent(self, party: str, sha: str) -> bytes | None:
        """What a party has sent; None where it is not whole."""
        path = self._place(party) / sha
        return path.read_bytes() if path.is_file() else None

    def forget(self, gone: set[str]) -> None:
        """Remove what nobody needs any more, whoever sent it."""
        for sha in gone:
            (self.down / sha).unlink(missing_ok=True)
        if gone:
            for path in self.up.glob("*/*"):
                if path.name in gone:
                    path.unlink(missing_ok=True)

    def _place(self, party: str) -> Path:
        return self.up / sha256(party.encode()).hexdigest()[:32]

    def _room(self, here: Path) -> None:
        """Forget the oldest of too many unfinished uploads."""
        here.mkdir(exist_ok=True)
        parts = sorted(here.glob("*.part"), key=lambda p: p.stat().st_mtime)
        for path in parts[: max(0, len(parts) - PARTS + 1)]:
            path.unlink(missing_ok=True)

    def _finish(self, part: Path, whole: Path, sha: str) -> None:
        hashed = sha256()
        with part.open("rb") as f:
            while piece := f.read(PIECE):
                hashed.update(piece)
        if hashed.hexdigest() != sha:
            part.unlink(missing_ok=True)
            raise LedgerError("An upload must be what its sha256 says. It is not. Send it again from the beginning.")
        part.replace(whole)
        files.sync(whole.parent)
