"""What a hub that was killed left behind is removed when it starts; what another process receives is not."""

import hashlib
import importlib
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import comity as co
from comity.ledger.blobs import DAY

sys.path.append(str(Path(__file__).parent))
asking, made, servers = map(importlib.import_module, ("asking", "actors", "test_postgres"))
DATA = os.urandom(300_000)
SHA = hashlib.sha256(DATA).hexdigest()


@contextmanager
def large(folder: Path) -> Iterator[Any]:
    """A hub that asks ada a large question; it ends as if it were killed: nothing is counted."""
    with asking.asking(folder) as hub:
        hub.ask("ada", seconds=3.0, value=DATA)
        yield hub


def bodies(folder: Path, which: str) -> list[str]:
    found = (path for path in (folder / "hub" / which).rglob("*") if path.is_file())
    return sorted(path.name for path in found if path.suffix != ".lock")


def test_a_body_that_no_row_names_goes_at_the_next_start(tmp_path: Path) -> None:
    """The hub was killed before it wrote the answer; the repeat is taken."""
    with large(tmp_path) as hub:
        hub.poll("ada")
        hub.line("ada").send(SHA, DATA)
        assert bodies(tmp_path, "up") == [SHA]
        asked = bodies(tmp_path, "down")
        assert len(asked) == 1
        hub.engine.post._hub.box.shut = lambda *_: None  # killed: the question is still open
    (tmp_path / "hub" / "down" / ("ab" * 32)).write_bytes(b"given, and never asked")
    (tmp_path / "hub" / "up" / "someone").mkdir()
    for name, age in (("young", 60.0), ("old", DAY + 60)):
        path = tmp_path / "hub" / "up" / "someone" / f"{hashlib.sha256(name.encode()).hexdigest()}.part"
        path.write_bytes(b"half")
        os.utime(path, (time.time() - age,) * 2)
    with large(tmp_path) as hub:
        assert bodies(tmp_path, "up") == [f"{hashlib.sha256(b'young').hexdigest()}.part"]
        assert bodies(tmp_path, "down") == asked, "somebody is asked this"
        task = hub.poll("ada")
        line = hub.line("ada")
        line.send(SHA, DATA)
        assert SHA in bodies(tmp_path, "up")
        assert hub.say("ada", task).status == 200
        assert hub.wait() == ["ada"]


def test_a_body_that_an_answer_names_stays(tmp_path: Path) -> None:
    """The answer was taken, and not counted when the hub was killed."""
    with large(tmp_path) as hub:
        task, wide = hub.poll("ada"), "y" * 300_000
        from comity.core.contribution import Contribution
        from comity.core.wire import encode

        body = encode(Contribution("said", {"x": wide}))
        hub.line("ada").send(hashlib.sha256(body).hexdigest(), body)
        assert hub.say("ada", task, wide).status == 200
        assert hub.wait() == ["ada"]
    with large(tmp_path) as hub:
        assert hub.wait() == ["ada"]
        assert hub.answers[0].body.value["x"] == wide


def test_a_process_that_starts_leaves_what_another_receives(postgres: Any, tmp_path: Path) -> None:
    url, where = postgres.url(), tmp_path / "hub"
    with servers.station(url, tmp_path) as ours:
        sizes = {}
        for sha, data in ((SHA, DATA), (hashlib.sha256(b"old").hexdigest(), b"old")):
            ours.blobs.add("ada", sha, 0, len(data), data)
            sizes[sha] = len(data)
        half = hashlib.sha256(b"half").hexdigest()
        ours.blobs.add("bob", half, 0, 4, b"ha")
        (old,) = where.rglob(hashlib.sha256(b"old").hexdigest())
        os.utime(old, (time.time() - DAY - 60,) * 2)
        with servers.station(url, tmp_path) as theirs:
            assert (theirs.blobs.size("ada", SHA), theirs.blobs.offset("bob", half)) == (len(DATA), 2)
            assert not old.exists()
            assert theirs.blobs.add("bob", half, 2, 4, b"lf") == 4


def test_a_store_that_cannot_be_used_is_said_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from comity.service.station import Station

    def away(*_: Any, **__: Any) -> None:
        raise PermissionError("key:hidden")

    settings = made.network(tmp_path)
    monkeypatch.setattr("fsspec.implementations.memory.MemoryFileSystem.find", away)
    with pytest.raises(co.ConfigError, match=r"PermissionError. Check 'blobs'") as seen:
        Station(settings, blobs="memory://bucket/away")
    assert "hidden" not in str(seen.value)
    monkeypatch.undo()
    with Station(settings, blobs="memory://bucket/away"):
        pass
