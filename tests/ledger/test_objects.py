"""Large bodies in a store of objects: the same as in a folder; a store that is away, or lies, spoils nothing."""

import errno
import itertools
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

import comity as co
from comity.ledger.blobs import DAY, Blobs, Offset, StoreAway
from comity.ledger.objects import Objects

DATA = bytes(range(256)) * 40
SHA = sha256(DATA).hexdigest()
OTHER = sha256(b"other").hexdigest()
COUNT = itertools.count()


@pytest.fixture(params=["memory", "file"])
def url(request: Any, tmp_path: Path) -> Iterator[str]:
    from fsspec.implementations.memory import MemoryFileSystem

    yield f"memory://bucket{next(COUNT)}/hub" if request.param == "memory" else f"file://{tmp_path}/store"
    MemoryFileSystem.store.clear()


@pytest.fixture(params=["folder", "objects"])
def make(request: Any, tmp_path: Path, url: str) -> Callable[[], Any]:
    if request.param == "folder":
        return lambda: Blobs(tmp_path / "hub")
    return lambda: Objects(tmp_path / "hub", url, "be95")


def objects_in(store: Objects) -> list[str]:
    """What lies in the store, without its own help."""
    inner: Any = store._store
    return sorted(path.partition("/be95/")[2] for path in inner._fs.find(inner._root))


def raw(store: Objects) -> tuple[Any, str]:
    inner: Any = store._store
    return inner._fs, inner._root


def test_an_upload_goes_on_in_another_process(make: Callable[[], Any]) -> None:
    store = make()
    assert store.offset("ada", SHA) == 0
    assert store.add("ada", SHA, 0, len(DATA), DATA[:100]) == 100
    assert (store.size("ada", SHA), store.sent("ada", SHA)) == (None, None)
    store = make()
    assert store.offset("ada", SHA) == 100
    with pytest.raises(Offset) as there:
        store.add("ada", SHA, 50, len(DATA), DATA[50:])
    assert there.value.at == 100
    assert store.add("ada", SHA, 100, len(DATA), DATA[100:]) == len(DATA)
    for one in (store, make()):
        assert (one.offset("ada", SHA), one.size("ada", SHA), one.sent("ada", SHA)) == (len(DATA), len(DATA), DATA)
        assert one.add("ada", SHA, 0, len(DATA), DATA[:5]) == len(DATA), "it is there"
        assert (one.offset("bob", SHA), one.size("bob", SHA), one.sent("bob", SHA)) == (0, None, None)


def test_what_is_given_and_forgotten(make: Callable[[], Any]) -> None:
    store = make()
    assert store.given(SHA) is None
    store.give(SHA, DATA)
    store.give(SHA, DATA)
    assert store.given(SHA).read_bytes() == DATA
    for name in ("ada", "bob"):
        store.add(name, SHA, 0, len(DATA), DATA)
    store.give(OTHER, b"other")
    store.forget({SHA})
    for one in (store, make()):
        assert (one.given(SHA), one.sent("ada", SHA), one.size("bob", SHA)) == (None, None, None)
        assert one.given(OTHER).read_bytes() == b"other"


def test_what_is_not_what_it_says_begins_anew(make: Callable[[], Any]) -> None:
    store = make()
    with pytest.raises(co.LedgerError, match="what its sha256 says"):
        store.add("ada", SHA, 0, len(DATA), DATA[:-1] + b"!")
    assert (make().offset("ada", SHA), store.size("ada", SHA)) == (0, None)
    assert store.add("ada", SHA, 0, len(DATA), DATA) == len(DATA)


def test_only_whole_bodies_lie_in_the_store_and_no_second_copy_here(tmp_path: Path, url: str) -> None:
    store = Objects(tmp_path / "hub", url, "be95")
    store.add("ada", SHA, 0, len(DATA), DATA[:9])
    assert objects_in(store) == []
    store.add("ada", SHA, 9, len(DATA), DATA[9:])
    store.give(OTHER, b"other")
    up = f"up/{sha256(b'ada').hexdigest()[:32]}/{SHA}"
    assert objects_in(store) == [f"down/{OTHER}", up]
    assert [p.name for p in (tmp_path / "hub").rglob("*") if p.is_file() and p.suffix != ".lock"] == [OTHER]


def test_another_hub_process_fetches_what_is_given(tmp_path: Path, url: str) -> None:
    """With a folder of its own; asked by many at once, it fetches once; forgotten by the one, the store has it not."""
    Objects(tmp_path / "one", url, "be95").give(SHA, DATA)
    second = Objects(tmp_path / "two", url, "be95")
    inner, reads = second._store, []
    read = inner.read
    inner.read = lambda *a: reads.append(a) or read(*a)  # type: ignore[method-assign,func-returns-value]
    got: list[Any] = []
    threads = [threading.Thread(target=lambda: got.append(second.given(SHA).read_bytes())) for _ in range(8)]  # type: ignore[union-attr]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert (got, len(reads)) == ([DATA] * 8, 1)


@pytest.mark.parametrize("how", ["changed", "cut"])
def test_the_store_is_never_believed(tmp_path: Path, url: str, how: str) -> None:
    store = Objects(tmp_path / "hub", url, "be95")
    store.give(SHA, DATA)
    store.add("ada", SHA, 0, len(DATA), DATA)
    fs, root = raw(store)
    lie = b"?" + DATA[1:] if how == "changed" else DATA[:300]
    for name in objects_in(store):
        fs.pipe_file(f"{root}/{name}", lie)
    with pytest.raises(co.LedgerError, match="what its sha256 says"):
        store.sent("ada", SHA)
    other = Objects(tmp_path / "other", url, "be95")
    with pytest.raises(co.LedgerError, match="what its sha256 says"):
        other.given(SHA)
    assert not list((tmp_path / "other" / "down").iterdir()), "nothing of it stays"
    assert store.given(SHA) == tmp_path / "hub" / "down" / SHA, "this one's copy was verified"
    if how == "cut":  # a put that was killed, on a file system: the whole is sent once more
        with pytest.raises(Offset) as there:
            store.add("ada", SHA, store.offset("ada", SHA), len(DATA), DATA[300:])
        assert there.value.at == 0
        store.add("ada", SHA, 0, len(DATA), DATA)
        store.give(SHA, DATA)
        third: Any = Objects(tmp_path / "third", url, "be95").given(SHA)
        assert (store.sent("ada", SHA), third.read_bytes()) == (DATA, DATA)


class Faulty:
    """A file system that fails when it is told to."""

    def __init__(self, fs: Any) -> None:
        self.fs, self.error, self.only = fs, None, ""

    def __getattr__(self, name: str) -> Any:
        def call(*given: Any, **named: Any) -> Any:
            if self.error is not None and self.only in ("", name):
                raise self.error
            return getattr(self.fs, name)(*given, **named)

        return call


@pytest.fixture
def faulty(tmp_path: Path, url: str) -> tuple[Objects, Any]:
    store = Objects(tmp_path / "hub", url, "be95")
    fs: Any = Faulty(store._store._fs)
    store._store._fs = fs
    return store, fs


def test_a_store_that_is_away_loses_nothing(faulty: tuple[Objects, Any]) -> None:
    """What arrived is not sent again: the empty rest, once it is back."""
    store, fs = faulty
    store.add("ada", SHA, 0, len(DATA), DATA[:100])
    fs.error = RuntimeError("https://key:hidden@store said no")
    with pytest.raises(StoreAway, match=r"must answer. Got RuntimeError") as seen:
        store.add("ada", SHA, 100, len(DATA), DATA[100:])
    assert "hidden" not in str(seen.value) + repr(seen.value)
    assert seen.value.__cause__ is None
    for ask in (lambda: store.size("ada", SHA), lambda: store.sent("ada", SHA), lambda: store.given(OTHER)):
        with pytest.raises(StoreAway):
            ask()
    with pytest.raises(StoreAway):
        store.give(OTHER, b"other")
    store.forget({SHA[::-1]})
    assert store.offset("ada", SHA) == len(DATA)
    fs.error = None
    assert store.size("ada", SHA) is None, "not whole, as the store has it not"
    assert store.add("ada", SHA, len(DATA), len(DATA), b"") == len(DATA)
    store.give(OTHER, b"other")
    assert (store.sent("ada", SHA), len(objects_in_all(store, fs))) == (DATA, 2)


def objects_in_all(store: Objects, fs: Any) -> list[str]:
    return list(fs.fs.find(store._store._root))


def test_a_bucket_that_is_not_there_takes_nothing(faulty: tuple[Objects, Any]) -> None:
    """Some say so as of a file that is missing: an upload is not said to be whole for that."""
    store, fs = faulty
    fs.error, fs.only = FileNotFoundError("bucket"), "put_file"
    with pytest.raises(StoreAway, match="FileNotFoundError"):
        store.add("ada", SHA, 0, len(DATA), DATA)
    fs.error = None
    assert store.offset("ada", SHA) == len(DATA)
    assert store.add("ada", SHA, len(DATA), len(DATA), b"") == len(DATA)
    assert store.sent("ada", SHA) == DATA


def test_a_full_store_is_said_to_be_full(faulty: tuple[Objects, Any]) -> None:
    from comity.service.hub import full

    store, fs = faulty
    fs.error, fs.only = OSError(errno.ENOSPC, "full"), "put_file"
    with pytest.raises(StoreAway) as seen:
        store.give(SHA, DATA)
    assert full(seen.value)


def aged(path: Path, seconds: float) -> None:
    os.utime(path, (time.time() - seconds,) * 2)


def test_a_sweep_alone_leaves_what_rows_name_and_young_parts(make: Callable[[], Any], tmp_path: Path) -> None:
    store, third = make(), sha256(b"third").hexdigest()
    for sha, data in ((SHA, DATA), (OTHER, b"other")):
        store.give(sha, data)
        store.add("ada", sha, 0, len(data), data)
    store.add("bob", SHA, 0, len(DATA), DATA[:10])
    store.add("bob", third, 0, 5, b"th")
    aged(store_part(tmp_path, "bob", third), DAY + 60)
    (tmp_path / "hub" / "down" / f".{third}.tmp").write_bytes(b"cut")
    store = make()
    store.sweep(lambda: {SHA}, alone=True)
    assert (store.given(SHA).read_bytes(), store.sent("ada", SHA)) == (DATA, DATA)
    assert (store.given(OTHER), store.sent("ada", OTHER)) == (None, None)
    assert (store.offset("bob", SHA), store.offset("bob", third)) == (10, 0)
    assert store.sweep(lambda: {SHA}, alone=True) == 0
    assert not list((tmp_path / "hub").rglob("*.tmp"))


def store_part(folder: Path, party: str, sha: str) -> Path:
    return folder / "hub" / "up" / sha256(party.encode()).hexdigest()[:32] / f"{sha}.part"


def test_with_others_about_only_what_is_old_goes(tmp_path: Path) -> None:
    """What another process just received, and no row names yet, stays; and what it is asked about meanwhile."""
    store, old = Blobs(tmp_path / "hub"), [sha256(bytes([n])).hexdigest() for n in range(3)]
    store.give(SHA, DATA)
    store.add("ada", SHA, 0, len(DATA), DATA)
    for n, sha in enumerate(old):
        store.give(sha, bytes([n]))
        store.add("ada", sha, 0, 1, bytes([n]))
    for path in (tmp_path / "hub").rglob("*"):
        if path.name in old:
            aged(path, DAY + 60)

    def needed() -> set[str]:
        assert store.size("ada", old[2]) == 1, "a row is about to name it"
        return {old[0]}

    assert store.sweep(needed, alone=False) == 3
    assert (store.sent("ada", SHA), store.given(SHA) is not None) == (DATA, True)
    assert [store.sent("ada", sha) for sha in old] == [b"\0", None, b"\2"]
    assert [store.given(sha) is None for sha in old] == [False, True, True]


def test_with_others_about_only_old_objects_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Objects(tmp_path / "hub", f"memory://bucket{next(COUNT)}", "be95")
    for sha, data in ((SHA, DATA), (OTHER, b"other")):
        store.add("ada", sha, 0, len(data), data)
    fs, _ = raw(store)
    assert store.sweep(set, alone=False) == 0
    monkeypatch.setattr(
        type(fs), "modified", lambda _, path: datetime.now(UTC) - timedelta(days=2 if path.endswith(SHA) else 0)
    )
    assert store.sweep(set, alone=False) == 1
    assert (store.sent("ada", SHA), store.sent("ada", OTHER)) == (None, b"other")


def test_hubs_that_share_a_bucket_leave_each_other_alone(tmp_path: Path, url: str) -> None:
    one, two = Objects(tmp_path / "one", url, "be95"), Objects(tmp_path / "two", url, "be96")
    for store in (one, two):
        store.add("ada", SHA, 0, len(DATA), DATA)
    fs, root = raw(one)
    fs.pipe_file(f"{root}/down/notes.txt", b"not ours")
    assert one.sweep(set, alone=True) == 1
    assert (one.sent("ada", SHA), two.sent("ada", SHA)) == (None, DATA)
    assert fs.cat_file(f"{root}/down/notes.txt") == b"not ours"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("zzz://key:hidden@bucket", "that fsspec knows"),
        ("bucket", "must be the URL of a store"),
    ],
)
def test_a_url_that_does_not_fit_is_refused_without_showing_it(tmp_path: Path, url: str, said: str) -> None:
    with pytest.raises(co.ConfigError, match=said) as seen:
        Objects(tmp_path, url, "be95")
    assert "hidden" not in str(seen.value)


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    def missing(*_: Any, **__: Any) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(co.ConfigError, match="Install s3fs"):
        Objects(tmp_path, "s3://key:hidden@bucket", "be95")
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(co.ConfigError, match=r"pip install comity\[blobs\]"):
        Objects(tmp_path, "s3://bucket", "be95")
