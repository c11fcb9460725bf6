"""Memory is bounded by the bytes that came, never by what they declare."""

import struct
import subprocess
import sys
import tracemalloc
from itertools import islice, product
from pathlib import Path

import numpy as np
import pytest
from wire_law import BOOL, F4, array, crafted, raw

from comity.core import wire
from comity.core.contribution import Contribution
from comity.core.errors import WireError

LETTERS = [bytes([c]) for c in range(97, 123)]


def names(n):
    """The n shortest names, as they stand in a header."""
    short = (b"".join(t) for length in range(1, 6) for t in product(LETTERS, repeat=length))
    return (bytes([0xA0 | len(k)]) + k for k in islice(short, n))


def of(value, metrics=b"\x80"):
    return raw(b"\x96\xa1d" + value + b"\xcb" + bytes(8) + metrics + b"\xa0\xc0")


def large(n, leaf):
    return b"\xde" + struct.pack(">H", n) + b"".join(k + leaf for k in names(n))


N = 20_000
LARGEST = {
    "nothing": of(b"\x91" + large(N, b"\xc0")),
    "empty dicts": of(b"\x91" + large(N, b"\x91\x80")),
    "dicts of one": of(b"\x91" + large(N, b"\x91\x81\xa1a\xc0")),
    "deep dicts": of(b"\x91" + large(1000, b"\x91\x81\xa1a" * 62 + b"\xc0")),
    "empty bytes": of(b"\x91" + large(N, b"\xc7\0\x40")),
    "empty arrays": of(b"\x91" + large(N, b"\xd7\x0b" + bytes(8))),
    "metrics": of(b"\xc0", large(N, b"\x92" + b"\xcb?\xf0\0\0\0\0\0\0" * 2)),
    "metrics said otherwise": of(b"\xc0", large(N, b"\x92\1\1")),
    "one name again and again": of(b"\x91\xde\x4e\x20" + b"\xa0\x91\x80" * N),
}


def peak(data, **more):
    """The most bytes held while a message is decoded, and what came of it."""
    tracemalloc.start()
    try:
        try:
            return wire.decode(data, **more), tracemalloc.get_traced_memory()[1]
        except WireError as error:
            return error, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", LARGEST)
def test_the_largest_of_headers_takes_so_many_bytes_for_each_of_its_own(name):
    data = LARGEST[name]
    found, most = peak(data)
    refused = name in ("empty arrays", "metrics said otherwise", "one name again and again")
    assert isinstance(found, WireError) == refused
    assert most < 128 * len(data), f"{most / len(data):.0f} times"


def test_buffers_are_not_copied_and_a_copy_is_one():
    data = wire.encode(Contribution("delta", {"w": np.ones(500_000), "m": np.zeros(100_000, bool)}))
    assert peak(data)[1] < 200_000
    assert peak(bytearray(data))[1] < 1.05 * len(data) + 200_000


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_a_limit_refuses_one_byte_more_before_it_looks(kind):
    for limit in (0, 7, 8, 1000, 2**20):
        data = kind(b"PK" + bytes(limit - 1)) if limit else kind(b"P")
        found, most = peak(data, limit=limit)
        assert f"at most {limit} bytes. Got {limit + 1}" in str(found)
        assert most < 2000
        assert "must" in str(peak(data, limit=limit + 1)[0])
    good = wire.encode(Contribution("delta", np.ones(100)))
    assert isinstance(peak(kind(good), limit=len(good))[0], Contribution)


def test_the_usual_limit_is_a_gibibyte():
    assert (wire.LIMIT, wire.decode.__kwdefaults__) == (2**30, {"limit": 2**30})


TERABYTES = [
    crafted(array(F4, 2**40), buffers=bytes(8)),
    crafted(array(BOOL, 2**42), buffers=bytes(8)),
    crafted([{"a": array(F4, 1), "b": array(F4, 2**20, 2**20)}], buffers=bytes(16)),
    crafted(array(F4, *[2**12] * 4), buffers=bytes(64)),
    crafted(None, array(F4, 2**41)),
    crafted(crafted(None)[8:]),
    *(raw(b"\x96\xa1d" + start + b"\xff\xff\xff\xff" + bytes(40)) for start in (b"\xdd", b"\x91\xdf", b"\xdb")),
    *(raw(b"\x96\xa1d" + start + b"\xff\xff\xff\xff" + bytes(40)) for start in (b"\xc6", b"\xc9")),
    raw(b"\x96\xa1d\xc0\x01\xdf\xff\xff\xff\xff" + b"\xa1a\x92\x01\x01" * 4),
    struct.pack("<3sBI", b"cmy", 1, 2**32 - 1) + bytes(64),
]  # fmt: skip

CHILD = f"""
import resource, sys
sys.path[:0] = [{str(Path(__file__).parent)!r}]
import conftest
from test_wire_memory import TERABYTES
from comity.core import wire
from comity.core.errors import WireError
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**24, used + 2**24))
for data in TERABYTES:
    try:
        wire.decode(data)
        print("decoded", data)
    except WireError:
        pass
try:
    bytearray(2**26)
    print("the limit does not hold")
except MemoryError:
    print("done", len(TERABYTES))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_declared_terabytes_fit_into_sixteen_more_mebibytes():
    found = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, timeout=60, check=False)
    assert found.stdout == f"done {len(TERABYTES)}\n", found
    assert found.returncode == 0
