"""Large bodies in a store of objects, by an fsspec URL: "s3://bucket/hub", "gs://...", "abfs://...", "file:///...".

    URL/<hub>/down/<sha256>             what the hub gives to be fetched
    URL/<hub>/up/<party>/<sha256>       what a party has sent, whole and verified

`hub` is the beginning of the hub's key: several hubs may use one bucket, and none sweeps away what is another's. Parts
that are still arriving lie in the hub's folder, as with `Blobs`: where processes of one hub share that folder, each
goes on with what another received; their length is the truth about an upload until the whole lies in the store. What is
fetched from the store comes whole, is checked, and is kept in the folder until it is forgotten: a range is read from
bytes that were verified. The store is never believed: its bytes are hashed whenever they are read.
"""

import os
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from comity.core.errors import ConfigError, LedgerError
from comity.ledger.blobs import DAY, PARTS, PIECE, WHOLE, Blobs, StoreAway


class Objects:
    """The large bodies of one hub, in a store.

    Args:
        folder: of the hub.
        url: of the store, as fsspec takes it; who may use it is said by the environment, as that store's library
            documents it.
        hub: names this hub in the store.

    Raises:
        ConfigError: fsspec, or what it needs for this kind of store, is not installed, or it is no URL of one.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     store, name = Objects(Path(folder), "memory://bodies", "be95"), sha256(b"hello").hexdigest()
        ...     store.add("ada", name, 0, 5, b"he"), store.offset("ada", name), store.add("ada", name, 2, 5, b"llo")
        ...     store.sent("ada", name), store.sent("bob", name)
        (2, 2, 5)
        (b'hello', None)
    """

    def __init__(self, folder: Path, url: str, hub: str) -> None:
        """Nothing is asked of the store yet."""
        self._local, self._store = Blobs(folder), _Store(url, hub)
        self._fetching = threading.Lock()

    def give(self, sha: str, data: bytes) -> None:
        """Keep what is to be fetched: in the store, and here.

        Raises:
            StoreAway: it does not answer now.
        """
        self._local.give(sha, data)
        if self._store.size(f"down/{sha}") != len(data):
            self._store.put(self._local.down / sha, f"down/{sha}")

    def given(self, sha: str) -> Path | None:
        """A file of it, verified; None where the store has none.

        Raises:
            StoreAway: it does not answer now.
            LedgerError: the store gives something else.
        """
        if (here := self._local.given(sha)) is not None:
            return here
        with self._fetching:  # many ask for it at once
            if self._local.given(sha) is None:
                self._fetch(sha)
        return self._local.given(sha)

    def _fetch(self, sha: str) -> None:
        new = self._local.down / f".{sha}.{os.getpid()}.tmp"
        try:
            with new.open("wb") as f:
                for piece in self._store.read(f"down/{sha}", sha):
                    f.write(piece)
                f.flush()
                os.fsync(f.fileno())
            new.replace(self._local.down / sha)
        except FileNotFoundError:
            return
        finally:
            new.unlink(missing_ok=True)

    def offset(self, party: str, sha: str) -> int:
        """How many bytes of an upload are there.

        Raises:
            StoreAway: it does not answer now.
        """
        return self._local.offset(party, sha) or self._store.size(self._up(party, sha)) or 0

    def add(self, party: str, sha: str, offset: int, total: int, data: bytes | bytearray) -> int:
        """The next bytes of an upload; the whole, once verified, goes to the store before this returns.

        Args:
            party: whose it is.
            sha: the sha256 of the whole, hex.
            offset: where they belong.
            total: bytes of the whole.
            data: the bytes.

        Returns:
            How many there are now; `total` when all are there, verified, and in the store.

        Raises:
            Offset: they do not follow what is there.
            LedgerError: the whole is not what its sha256 says: it begins anew.
            StoreAway: the store does not take the whole now; nothing of it needs to be sent again.
        """
        if not self._local.offset(party, sha) and self._store.size(self._up(party, sha)) == total:
            return total
        now = self._local.add(party, sha, offset, total, data)
        if now == total:
            whole = self._local.place(party) / sha
            if whole.is_file():  # else another process took it there
                self._store.put(whole, self._up(party, sha))
                whole.unlink(missing_ok=True)
        return now

    def size(self, party: str, sha: str) -> int | None:
        """The bytes of what a party has sent; None where the store has it not whole.

        Raises:
            StoreAway: it does not answer now.
        """
        return self._store.size(self._up(party, sha))

    def sent(self, party: str, sha: str) -> bytes | None:
        """What a party has sent, verified; None where the store has it not.

        Raises:
            StoreAway: it does not answer now.
            LedgerError: the store gives something else.
        """
        try:
            return b"".join(self._store.read(self._up(party, sha), sha))
        except FileNotFoundError:
            return None

    def tidy(self, party: str, counted: Collection[str]) -> None:
        """Of what a party sent whole and no answer of it names, keep the newest few: else it could fill the store.

        Raises:
            StoreAway: it does not answer now.
        """
        here = self._store.names(f"up/{self._local.place(party).name}")
        loose = sorted((self._store.modified(name), name) for name in here if name.rpartition("/")[2] not in counted)
        for _, name in loose[: 1 - PARTS]:
            self._store.remove(name)

    def forget(self, gone: set[str]) -> None:
        """Remove what nobody needs any more, whoever sent it. What the store does not remove now, a sweep does."""
        self._local.forget(gone)
        if gone:
            with suppress(StoreAway):
                for sha in gone:
                    self._store.remove(f"down/{sha}")
                for name in self._store.names("up"):
                    if name.rpartition("/")[2] in gone:
                        self._store.remove(name)

    def sweep(self, needed: Callable[[], set[str]], *, alone: bool) -> int:
        """Remove what a hub that was killed left behind, here and in the store.

        Args:
            needed: the sha256 of all bodies that rows name; asked after it was looked what there is.
            alone: does no other process receive? Otherwise what is younger than a day stays, as it may be on its way.

        Returns:
            How many files and objects were removed.

        Raises:
            StoreAway: it does not answer now.
        """
        count = self._local.sweep(needed, alone=alone)
        found = [name for top in ("down", "up") for name in self._store.names(top)]
        kept = needed()
        found = [name for name in found if name.rpartition("/")[2] not in kept]
        gone = [name for name in found if alone or time.time() - self._store.modified(name) > DAY]
        for name in gone:
            self._store.remove(name)
        return count + len(gone)

    def _up(self, party: str, sha: str) -> str:
        return f"up/{self._local.place(party).name}/{sha}"


class _Store:
    """What is used of a file system; whatever it raises becomes `StoreAway`, which says nothing of its URL."""

    def __init__(self, url: str, hub: str) -> None:
        self._kind = url.partition("://")[0]
        self._fs, root = _opened(url, self._kind)
        self._root = f"{root.rstrip('/')}/{hub}"

    def size(self, name: str) -> int | None:
        """Bytes of an object; None where there is none."""
        with self._asked():
            try:
                return int(self._fs.info(f"{self._root}/{name}")["size"])
            except FileNotFoundError:
                return None

    def put(self, file: Path, name: str) -> None:
        """Keep a file under a name, in place of what is there."""
        with self._asked(FileNotFoundError):  # of the bucket
            self._fs.put_file(str(file), f"{self._root}/{name}")

    def read(self, name: str, sha: str) -> Iterator[bytes]:
        """The bytes of an object; the last of them come only where all are right.

        Raises:
            FileNotFoundError: there is none.
            LedgerError: they are not what the sha256 says.
        """
        hashed = sha256()
        with self._asked(), self._fs.open(f"{self._root}/{name}", "rb") as f:
            while piece := f.read(PIECE):
                hashed.update(piece)
                yield piece
        if hashed.hexdigest() != sha:
            raise LedgerError(
                f"A body in the object store must be what its sha256 says. {name} is not. Restore it from a copy."
            )

    def remove(self, name: str) -> None:
        """Remove an object, if it is there."""
        with self._asked(), suppress(FileNotFoundError):
            self._fs.rm_file(f"{self._root}/{name}")

    def names(self, top: str) -> list[str]:
        """The bodies below a folder."""
        with self._asked():
            try:
                found = self._fs.find(f"{self._root}/{top}")
            except FileNotFoundError:
                return []
        names = [f"{top}{path.rpartition(f'/{top}')[2]}" for path in found]
        return [name for name in names if WHOLE.fullmatch(name.rpartition("/")[2])]

    def modified(self, name: str) -> float:
        """When an object was last written, seconds since 1970; now, where the store does not say."""
        with self._asked():
            try:
                return float(self._fs.modified(f"{self._root}/{name}").timestamp())
            except (NotImplementedError, FileNotFoundError):
                return time.time()

    @contextmanager
    def _asked(self, away: type[Exception] | tuple[()] = ()) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # each store has its own, some with the URL and its key
            if isinstance(error, FileNotFoundError) and not (away and isinstance(error, away)):
                raise
            said = f"The object store ({self._kind}) must answer. Got {type(error).__name__}."
            number = error.errno if isinstance(error, OSError) and error.errno is not None else 0
            raise StoreAway(number, said) from None


def _opened(url: str, kind: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it. An error never shows the URL, which may hold a key."""
    try:
        import fsspec
    except ImportError:
        raise ConfigError(
            "fsspec must be installed for 'blobs'. It is missing. Run: pip install comity[blobs], or leave it out."
        ) from None
    if "://" not in url:
        raise ConfigError(
            "'blobs' must be the URL of a store. Got none. Use s3://BUCKET/NAME, for one, or leave it out."
        )
    try:
        fs, root = fsspec.core.url_to_fs(url, skip_instance_cache=True, use_listings_cache=False)
    except ImportError as error:
        said = str(error) if url not in str(error) else "a library is missing"
        raise ConfigError(f"A store by {kind}:// must have its library. Got: {said}. Install it.") from None
    except Exception as error:  # noqa: BLE001  each store has its own
        raise ConfigError(
            f"'blobs' must be the URL of a store that fsspec knows. Got {kind}:// and {type(error).__name__}. "
            "Use s3://BUCKET/NAME, for one."
        ) from None
    if hasattr(fs, "auto_mkdir"):
        fs.auto_mkdir = True
    return fs, str(root)
