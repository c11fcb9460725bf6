"""What a stranger sends: bad bytes never do anything but raise WireError, and allocate nothing they only declare."""

import re
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.msgpack import Ext
from wire_law import BF16, BOOL, F4, array, crafted, raw, same

from comity.core import wire
from comity.core.contribution import Contribution
from comity.core.envelope import VERSION, Envelope
from comity.core.errors import WireError
from comity.core.round import Round


def test_the_crafted_messages_below_are_good_but_for_one_thing():
    c = wire.decode(crafted(array(F4, 2), buffers=struct.pack("<2f", 1, 2)))
    assert same(c, Contribution("delta", np.array([1, 2], "float32")))


HOSTILE = {
    "huge": crafted(array(F4, 2**60), buffers=bytes(8)),
    "huge in a dict": crafted([{"a": [{"b": array(F4, 2**60)}]}], buffers=bytes(8)),
    "huge weight": crafted(None, array(F4, 2**60)),
    "product overflows 64 bits": crafted(array(F4, 2**32, 2**32), buffers=bytes(8)),
    "product overflows to 2": crafted(array(F4, 2**62 + 1, 4, 2), buffers=bytes(32)),
    "many large axes": crafted(array(F4, *[2**62] * 64), buffers=bytes(8)),
    "too many axes": crafted(array(F4, *[1] * 65), buffers=bytes(4)),
    "empty but huge": crafted(array(F4, 0, 2**62, 2**62)),
    "negative": crafted(array(F4, -1), buffers=bytes(8)),
    "twice negative": crafted(array(F4, -1, -2), buffers=bytes(8)),
    "negative and empty": crafted(array(F4, 0, -1)),
    "step back": crafted([{"a": array(F4, 2), "b": array(F4, -2)}], buffers=bytes(8)),
    "odd shape": crafted(Ext(F4, b"\1\2\3"), buffers=bytes(4)),
    "unknown dtype": crafted(array(len(wire.DTYPES), 1), buffers=bytes(8)),
    "negative dtype": crafted(array(-1, 1), buffers=bytes(8)),
    "long text beyond the data": crafted(Ext(66, struct.pack("<Q", 2**63))),
    "long bytes beyond the data": crafted(Ext(65, struct.pack("<Q", 2**63))),
    "long text, bad length": crafted(Ext(66, b"\1")),
    "long text, no UTF-8": crafted(Ext(66, struct.pack("<Q", 2)), buffers=b"\xff\xff"),
    "a bool of 2": crafted(array(BOOL, 2), buffers=b"\1\2"),
    "trailing bytes": crafted(None, buffers=bytes(8)),
    "one byte short": crafted(array(F4, 2), buffers=bytes(7)),
    "one byte long": crafted(array(F4, 2), buffers=bytes(9)),
    "dirt between buffers": crafted([{"a": array(F4, 1), "b": array(F4, 1)}], buffers=b"\0\0\0\0\1\0\0\0\0\0\0\0"),
    "a list": crafted([1, 2]),
    "a bare dict": crafted({"a": 1}),
    "native bytes": crafted(b"x"),
    "names that are numbers": crafted([{1: 2}]),
    "metrics of three": crafted(None, metrics={"a": (1.0, 2.0, 3.0)}),
    "metrics of text": crafted(None, metrics={"a": ("x", 2.0)}),
    "half a cover": crafted(None, cover=["score"]),
    "a bad round": crafted(None, cover=[["ab", "seed", 0, 0, "", "", 0, 0, 0.0, None], "", "", "", None, b""]),
    "65 deep": raw(b"\x96\xa1d" + b"\x91\x81\xa1a" * 65 + b"\xc0\x01\x80\xa0\xc0"),
    "a million deep": raw(b"\x96\xa1d" + b"\x91\x81\xa1a" * 10**6),
    "a million lists": raw(b"\x96\xa1d" + b"\x91" * 10**6),
    "a list of 2**32": raw(b"\x96\xa1d\xdd\xff\xff\xff\xff"),
    "a dict of 2**32": raw(b"\x96\xa1d\x91\xdf\xff\xff\xff\xff\xa1a\xc0"),
    "metrics of 2**32": raw(b"\x96\xa1d\xc0\x01\x81\xa1a\xdd\xff\xff\xff\xff"),
    "a string of 2**32": raw(b"\x96\xdb\xff\xff\xff\xff"),
    "a name without UTF-8": raw(b"\x96\xa1\xff\xc0\x01\x80\xa0\xc0"),
    "header cut": raw(b"\x96\xa1d"),
    "header and more": raw(b"\x96\xa1d\xc0\x01\x80\xa0\xc0\xc0"),
    "no header": raw(b""),
    "header beyond the data": struct.pack("<3sBI", b"cmy", VERSION, 2**32 - 1) + b"\x96",
    "header one byte beyond the data": struct.pack("<3sBI", b"cmy", VERSION, 9) + b"\x96\xa1d\xc0\x01\x80\xa0\xc0",
    "header over the limit": raw(bytes(wire.HEADER_LIMIT + 1)),
    "nothing": b"",
    "too short": b"cmy\1\0\0\0",
    "other magic": b"PK\3\4" + bytes(20),
    "zeros": bytes(100),
    "ones": b"\xff" * 100,
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_hostile_bytes_are_refused(data):
    with pytest.raises(WireError, match=r"\. Got .*\."):
        wire.decode(data)
    with pytest.raises(WireError):
        wire.decode_tree(data)


@pytest.mark.parametrize("name", [n for n in HOSTILE if re.search(r"huge|large|2\*\*32|beyond|overflow", n)])
def test_declared_sizes_allocate_nothing(name):
    with pytest.raises(WireError):
        wire.decode(HOSTILE[name])
    tracemalloc.start()
    try:
        with pytest.raises(WireError):
            wire.decode(HOSTILE[name])
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("header beyond the data", r"header must have at most 1 bytes\. Got 4294967295"),
        ("header one byte beyond the data", r"header must have at most 8 bytes\. Got 9"),
        ("negative dtype", r"known type\. Got code -1"),
        ("huge", r"Got 11 of 4611686018427387904 bytes"),
        ("trailing bytes", r"as long as its header declares, 28 bytes\. Got 40"),
        ("65 deep", r"may nest 64 deep"),
    ],
)
def test_a_refusal_says_what_was_wrong(name, said):
    with pytest.raises(WireError, match=said):
        wire.decode(HOSTILE[name])


def test_another_beginning_is_refused():
    good = wire.encode(Contribution("delta", 1))
    with pytest.raises(WireError, match="must begin with b'cmy'"):
        wire.decode(b"CMY" + good[3:])


def test_another_version_is_named():
    with pytest.raises(WireError, match=r"wire version must be 1\. Got 9"):
        wire.decode(raw(b"\x96\xa1d\xc0\x01\x80\xa0\xc0", version=9))


def test_the_limit_holds_before_anything_is_read():
    data = wire.encode(Contribution("delta", np.ones(100)))
    assert wire.decode(data, limit=len(data)).kind == "delta"
    for bad in (data, bytearray(data), bytes(len(data))):
        with pytest.raises(WireError, match=f"at most {len(data) - 1} bytes. Got {len(data)}"):
            wire.decode(bad, limit=len(data) - 1)


def test_bfloat16_has_a_code_and_needs_its_dtype():
    data = crafted(array(BF16, 2), buffers=b"\x80\x3f\x00\x40")
    try:
        dtype = np.dtype("bfloat16")
    except TypeError:
        with pytest.raises(WireError, match="bfloat16 needs a package"):
            wire.decode(data)
    else:
        x = wire.decode(data).value
        assert x.dtype == dtype
        assert wire.encode(Contribution("delta", x)) == data


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_any_header_decodes_or_raises_wire_error(head):
    for data in (head, raw(head), raw(b"\x96\xa1d" + head)):
        try:
            wire.decode(data)
        except WireError:
            continue
        assert data.startswith(b"cmy")


@pytest.mark.parametrize("tree", [None, 3, "x", [], np.zeros(3), {}, {"kind": "x"}], ids=repr)
def test_what_is_no_nested_contribution_is_refused(tree):
    with pytest.raises(WireError, match="nested contribution"):
        wire.from_tree(tree)


@pytest.mark.parametrize("part", [{"extra": 1}, {"kind": 3}, {"sender": None}, {"metrics": 3}], ids=repr)
def test_a_nested_contribution_has_its_five_entries(part):
    good = wire.as_tree(Contribution("score", None, metrics={"a": (1.0, 2.0)}))
    assert wire.from_tree(good).kind == "score"
    with pytest.raises(WireError, match="nested contribution"):
        wire.from_tree({**good, **part})


@pytest.mark.parametrize("pair", [np.zeros(3), np.zeros(2, "float32"), (1.0, 2.0), 5, {"a": 1}, np.zeros((2, 1))])
def test_a_nested_metric_must_be_two_floats(pair):
    with pytest.raises(WireError):
        wire.from_tree({**wire.as_tree(Contribution("score", None)), "metrics": {"a": pair}})


def test_a_message_is_no_saved_state():
    envelope = Envelope(Round("ab", 0), "score", "p01", "cd", Contribution("state", 1))
    for m in (Contribution("delta", 1), envelope):
        with pytest.raises(WireError, match="kind 'state'"):
            wire.decode_tree(wire.encode(m))
