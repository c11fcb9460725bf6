"""Large bodies as files: what several lines, or several processes, do to one body at once."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import pytest

from comity.core.errors import LedgerError
from comity.ledger.blobs import Blobs, Offset

DATA = os.urandom(20_000)
NAME = sha256(DATA).hexdigest()


def sends(blobs: Blobs, piece: int) -> None:
    """Send the whole, from where others have come to."""
    at, tries = 0, 0
    while at < len(DATA) and tries < 5_000:
        try:
            at = blobs.add("ada", NAME, at, len(DATA), DATA[at : at + piece])
        except Offset as there:
            at, tries = there.at, tries + 1
    assert at == len(DATA), f"{blobs.offset('ada', NAME)} bytes are there"


@pytest.fixture(params=["one process", "two"])
def hubs(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Blobs, Blobs]:
    one = Blobs(tmp_path)
    return one, one if request.param == "one process" else Blobs(tmp_path)


def test_lines_that_send_one_body_at_once_take_turns(
    hubs: tuple[Blobs, Blobs], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each looks where the other may have come to; bytes are there once."""
    meet = threading.Barrier(2)
    offset = Blobs.offset

    def slowly(self: Blobs, party: str, sha: str) -> int:
        at = offset(self, party, sha)
        try:
            meet.wait(0.002)
        except threading.BrokenBarrierError:
            meet.reset()
        return at

    monkeypatch.setattr(Blobs, "offset", slowly)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(sends, hubs, (1_000, 999)))
    monkeypatch.undo()
    assert hubs[0].sent("ada", NAME) == DATA
    assert [p.name for p in hubs[0].place("ada").iterdir()] == [NAME]


def test_bodies_that_two_give_at_once_are_whole(hubs: tuple[Blobs, Blobs]) -> None:
    for number in range(20):
        data = DATA + bytes([number])
        name = sha256(data).hexdigest()
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda blobs, name=name, data=data: blobs.give(name, data), hubs))
        path = hubs[1].given(name)
        assert path is not None
        assert path.read_bytes() == data


def test_a_part_that_is_too_long_begins_anew(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    blobs.add("ada", NAME, 0, len(DATA), DATA[:10])
    part = next(blobs.place("ada").glob("*.part"))
    part.write_bytes(DATA + b"more")
    with pytest.raises(Offset, match="There are 0 bytes"):
        blobs.add("ada", NAME, 10, len(DATA), DATA[10:])
    sends(blobs, 7_000)
    assert blobs.sent("ada", NAME) == DATA


def test_a_whole_that_is_something_else_begins_anew(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    with pytest.raises(LedgerError, match="must be what its sha256 says"):
        blobs.add("ada", NAME, 0, len(DATA), DATA[::-1])
    assert blobs.offset("ada", NAME) == 0
    sends(blobs, 7_000)
    assert blobs.sent("ada", NAME) == DATA


def test_what_another_process_wrote_is_hashed_too(tmp_path: Path) -> None:
    """A prefix by one process, made anew as something else by another, and a suffix that fits the first."""
    one, two = Blobs(tmp_path), Blobs(tmp_path)
    one.add("ada", NAME, 0, len(DATA), DATA[:9_000])
    (part,) = one.place("ada").glob("*.part")
    part.unlink()
    two.add("ada", NAME, 0, len(DATA), bytes(9_000))
    with pytest.raises(LedgerError, match="must be what its sha256 says"):
        one.add("ada", NAME, 9_000, len(DATA), DATA[9_000:])
    assert one.sent("ada", NAME) is None
