"""The wire: what goes in comes out, its size is known, and bad bytes never do anything but raise WireError."""

import re
import struct
import tracemalloc
from collections.abc import Mapping
from dataclasses import fields, replace
from types import MappingProxyType

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.msgpack import Ext

from comity.core import wire
from comity.core.contribution import Contribution
from comity.core.envelope import VERSION, Envelope, Receipt
from comity.core.errors import ConfigError, WireError
from comity.core.round import Round

NUMPY = [name for name in wire.DTYPES if name != "bfloat16"]
BAD_NAN = struct.unpack("<d", b"\x01\x02\x03\x04\x05\x06\xf7\xff")[0]


def same(a, b):
    """Equal to the bit: types, dtypes, shapes, NaN payloads, order of names."""
    if isinstance(a, Contribution | Envelope | Round | Receipt):
        return type(a) is type(b) and all(same(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))
    if isinstance(a, Mapping):
        return type(b) is dict and list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, np.ndarray):
        return type(b) is np.ndarray and (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
    if isinstance(a, tuple):
        return type(b) is tuple and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float):
        return type(b) is float and struct.pack("<d", a) == struct.pack("<d", b)
    return type(a) is type(b) and a == b


def filled(dtype, shape, seed):
    """Random bits, so that floats hold every sort of NaN."""
    n = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.frombuffer(np.random.default_rng(seed).bytes(n), np.uint8)
    return (raw % 2 if dtype == "bool" else raw).view(dtype).reshape(shape)


SHAPES = st.lists(st.integers(0, 4), max_size=4).map(tuple)
ARRAYS = st.builds(filled, st.sampled_from(NUMPY), SHAPES, st.integers(0, 2**32))
NUMBERS = st.integers(-(2**63), 2**64 - 1) | st.floats() | st.just(BAD_NAN) | st.booleans()
LONG = st.integers(1000, 1050).map(lambda n: "é" * n)
LEAVES = ARRAYS | NUMBERS | st.none() | st.text() | st.binary() | LONG | LONG.map(str.encode)
TREES = st.recursive(LEAVES, lambda t: st.dictionaries(st.text(), t, max_size=4), max_leaves=8)
METRICS = st.dictionaries(st.text(), st.tuples(st.floats(), st.floats()), max_size=3)
WEIGHTS = st.floats() | st.dictionaries(st.text(), st.floats() | ARRAYS, max_size=3)
CONTRIBUTIONS = st.builds(Contribution, st.text(), TREES, WEIGHTS, METRICS, st.text())
COUNT = st.integers(0, 2**40)
ROUNDS = st.builds(
    Round,
    *(st.text(), st.integers(-(2**63), 2**64 - 1), COUNT, COUNT, st.text(), st.text()),
    *(COUNT, COUNT, st.floats(), st.none() | COUNT),
)
RECEIPTS = st.none() | st.builds(Receipt, COUNT, COUNT, st.booleans())
ENVELOPES = st.builds(
    Envelope, ROUNDS, st.text(), st.text(), st.text(), CONTRIBUTIONS, receipt=RECEIPTS, signature=st.binary()
)


@settings(max_examples=300, deadline=None)
@given(CONTRIBUTIONS | ENVELOPES)
def test_decoding_undoes_encoding_and_the_size_is_the_length(m):
    data = wire.encode(m)
    assert same(m, wire.decode(data))
    assert wire.size(m) == len(data)


@settings(max_examples=100, deadline=None)
@given(TREES)
def test_a_saved_tree_comes_back(tree):
    assert same(tree, wire.decode_tree(wire.encode_tree(tree)))


@settings(max_examples=100, deadline=None)
@given(CONTRIBUTIONS)
def test_a_contribution_travels_inside_another(c):
    outer = wire.decode(wire.encode(Contribution("block", {"p01": wire.as_tree(c)})))
    assert same(c, wire.from_tree(outer.value["p01"]))


@pytest.mark.parametrize("dtype", NUMPY)
@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (1,), (2, 3), (3, 0, 2), (1,) * 64])
def test_every_dtype_and_shape(dtype, shape):
    x = filled(dtype, shape, 7)
    found = wire.decode(wire.encode(Contribution("delta", x))).value
    assert same(x, found)
    assert found.flags.aligned
    assert not found.flags.writeable


def test_every_field_of_round_receipt_and_envelope_travels():
    round = Round("ab", 1, 2, 3, "hub-b", "p01", 4, 5, 6.5, 7)
    m = Envelope(round, "score", "p01", "cd", Contribution("x", None), Receipt(8, 9, True), b"\xff\x00", VERSION)
    blank = Envelope(Round("", 0), "", "", "", Contribution("", None))
    for part, empty in ((m.round, blank.round), (m, blank)):
        untouched = [f.name for f in fields(part) if getattr(part, f.name) == getattr(empty, f.name)]
        assert untouched in ([], ["version"])
    assert same(m, wire.decode(wire.encode(m)))


@pytest.mark.parametrize(
    "x",
    [
        np.asfortranarray(np.arange(12.0).reshape(3, 4)),
        np.arange(24, dtype="int16").reshape(4, 6)[::2, ::-3],
        np.broadcast_to(np.float32(1.5), (3, 2)),
        np.arange(5, dtype=">f4"),
        np.arange(6, dtype=">u8").reshape(2, 3).T,
        np.frombuffer(b"\x7f\xa0\x00\x01\xff\xc0\x12\x34", ">f4"),
        np.array(3, ">i2"),
        np.frombuffer(b"_\0\0\0\0\0\0\xf0\x3f", "f8", offset=1),
    ],
    ids=["fortran", "strided", "broadcast", "big", "big transposed", "big nan", "big 0-d", "unaligned"],
)
def test_any_layout_becomes_c_ordered_little_endian(x):
    m = Contribution("delta", x)
    found = wire.decode(wire.encode(m)).value
    assert found.dtype == x.dtype.newbyteorder("<")
    assert found.flags.c_contiguous
    assert found.shape == x.shape
    assert found.tobytes() == x.astype(x.dtype.newbyteorder("<")).tobytes()
    assert wire.size(m) == len(wire.encode(m))


def test_numbers_on_the_wire_are_little_endian_and_in_c_order():
    data = wire.encode(Contribution("delta", np.asfortranarray(np.array([[1, 2], [3, 4]], ">u2"))))
    assert data.endswith(b"\x01\0\x02\0\x03\0\x04\0")


def test_numpy_scalars_become_0d_arrays_but_a_weight_stays_a_float():
    value = {"a": np.float64(1.5), "b": np.int8(-3), "c": np.bool_(True)}
    c = wire.decode(wire.encode(Contribution("score", value, np.float64(2.5), {"n": (np.float32(1), 2)})))
    assert same({k: np.asarray(v) for k, v in value.items()}, c.value)
    assert same(2.5, c.weight)
    assert same({"n": (1.0, 2.0)}, c.metrics)


def test_numpy_names_and_counts_travel_as_plain_ones():
    round = Round("ab", np.int64(3), expected=np.float64(2.5), me=np.str_("p01"))
    body = Contribution(np.str_("label"), {np.str_("k"): np.str_("v")}, sender=np.str_("p01"))
    m = wire.decode(wire.encode(Envelope(round, "contribute", np.str_("p01"), "cd", body)))
    assert same(m.round, Round("ab", 3, expected=2.5, me="p01"))
    assert same(m.body, Contribution("label", {"k": "v"}, sender="p01"))


def test_any_mapping_travels_as_a_dict():
    c = Contribution("text", MappingProxyType({"b": 1, "a": MappingProxyType({})}), metrics=MappingProxyType({}))
    assert same({"b": 1, "a": {}}, wire.decode(wire.encode(c)).value)


def test_what_was_decoded_does_not_change_with_the_bytes_it_came_from():
    data = bytearray(wire.encode(Contribution("delta", np.ones(9))))
    kept = [wire.decode(data).value, wire.decode(memoryview(data)).value]
    data[:] = bytes(len(data))
    assert all((x == 1).all() for x in kept)


def test_a_large_array_is_copied_once():
    c = Contribution("delta", {"w": np.ones(1_000_000)})
    tracemalloc.start()
    try:
        data = wire.encode(c)
        assert tracemalloc.get_traced_memory()[1] < 1.05 * len(data)
    finally:
        tracemalloc.stop()


# What cannot travel.


@pytest.mark.parametrize(
    ("leaf", "said"),
    [
        ([1, 2], "Got list at 'value.a.b'"),
        ((1, 2), "Got tuple at 'value.a.b'"),
        ({1}, "Got set at 'value.a.b'"),
        (2**64, "Got the integer 0x1000"),
        (-(2**63) - 1, "Got the integer -0x8000"),
        (1j, "Got complex at 'value.a.b'"),
        (np.array(["x"]), "Got an array of str32 at 'value.a.b'"),
        (np.array([None]), "Got an array of object at 'value.a.b'"),
        (np.zeros(2, "complex64"), "Got an array of complex64 at"),
        (np.longdouble(1), "Got an array of .* at 'value.a.b'"),
        (np.zeros(2, "M8[s]"), "Got an array of datetime64"),
        (np.zeros(2, [("x", "f4")]), "Got an array of void"),
        (np.ma.masked_array([1.0], [True]), "Got MaskedArray at"),
        ({3: 1}, "Got the name 3 at 'value.a.b'"),
        (Contribution("delta", 1), "Got Contribution at"),
    ],
    ids=lambda x: type(x).__name__,
)
def test_a_leaf_that_cannot_travel_is_named(leaf, said):
    for call in (wire.encode, wire.size):
        with pytest.raises(ConfigError, match=f"float32.*{said}.*Use "):
            call(Contribution("delta", {"ok": 1, "a": {"b": leaf}}))


@pytest.mark.parametrize(
    ("c", "said"),
    [
        (Contribution("delta", 1, {"a": [2]}), "Got list at 'weight.a'"),
        (Contribution("delta", 1, metrics={"loss": 3.0}), "Metric 'loss' must be"),
        (Contribution("delta", 1, metrics={"loss": (1.0, 2.0, 3.0)}), "Metric 'loss' must be"),
        (Contribution("delta", 1, metrics={"loss": ("x", 2.0)}), "Metric 'loss' must be"),
        (Contribution("delta", 1, metrics={4: (1.0, 2.0)}), "name must be a string. Got 4"),
        (Contribution(None, 1), "name must be a string. Got None"),
        (Contribution("delta", 1, sender=b"x"), "name must be a string. Got b'x'"),
        (Contribution("delta", "\ud800"), "surrogates"),
        (Contribution("delta", "\ud800" * 2000), "surrogates"),
        (Contribution("delta", {"\ud800": 1}), "surrogates"),
        (Contribution("delta", {str(i): "x" * 1000 for i in range(4200)}), "header must be at most"),
    ],
)
def test_a_contribution_that_cannot_travel_says_why(c, said):
    with pytest.raises(ConfigError, match=said):
        wire.encode(c)


def test_an_envelope_that_cannot_travel_says_why():
    m = Envelope(Round("ab", 0), "contribute", "p01", "cd", Contribution("x", None))
    with pytest.raises(ConfigError, match=r"'version' of an Envelope must be 1\. Got 2"):
        wire.encode(replace(m, version=2))
    with pytest.raises(ConfigError, match="64-bit"):
        wire.encode(replace(m, round=Round("ab", 2**70)))
    with pytest.raises(ConfigError, match="64-bit"):
        wire.encode(replace(m, phase=object()))


def nested(depth):
    tree = 1
    for _ in range(depth):
        tree = {"a": tree}
    return tree


def test_depth_has_a_limit():
    assert same(nested(64), wire.decode(wire.encode(Contribution("x", nested(64)))).value)
    loop = {}
    loop["a"] = loop
    for tree in (nested(65), loop):
        with pytest.raises(ConfigError, match="may nest 64 deep"):
            wire.encode(Contribution("x", tree))


def test_a_saved_state_may_have_more_names_than_a_message():
    tree = {f"{i}": "x" * 1000 for i in range(4200)}
    data = wire.encode_tree(tree)
    assert wire.decode_tree(data) == tree
    with pytest.raises(WireError, match="header must have at most"):
        wire.decode(data)


# What a stranger sends.


def crafted(value, weight=1.0, *, buffers=b"", cover=None, metrics=None):
    """A message with a header of our choice; {} is written as the wire writes a dict, [{}]."""
    head = msgspec.msgpack.encode(["delta", value, weight, metrics or {}, "", cover])
    return raw(head) + bytes(-len(head) % 8) * bool(buffers) + buffers


def raw(head, version=VERSION):
    return struct.pack("<3sBI", b"cmy", version, len(head)) + head


def array(code, *dims):
    return Ext(code, struct.pack(f"<{len(dims)}q", *dims))


F4, BF16, BOOL = (wire.DTYPES.index(name) for name in ("float32", "bfloat16", "bool"))


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


def seeds():
    rng = np.random.default_rng(0)
    value = {
        "w": rng.normal(size=(3, 4)).astype("f4"),
        "m": rng.random(9) > 0.5,
        "t": "x" * 1100,
        "n": {"e": {}, "i": 7},
    }
    c = Contribution("delta", value, {"w": 2.0, "m": np.ones(3)}, {"loss": (8.0, 20.0)}, "p01")
    round = Round("ab" * 16, 0, 3, 1, "hub", "p01", 10, 5, 5.0)
    down = Envelope(round, "contribute", "hub", "cd" * 32, c, Receipt(2, 0, True), bytes(range(64)))
    small = Contribution("label", {"a": np.int64(3), "b": None, "c": b"xyz", "d": 1.5})
    return [wire.encode(m) for m in (c, down, small, replace(down, body=small, receipt=None))]


def mutate(data, others, rng):
    """One to three of: bits flipped, bytes set, cut, spliced with another, a piece repeated."""
    out = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        i, j = sorted(rng.integers(0, len(out) + 1, 2)) if out else (0, 0)
        if rng.random() < 0.5:
            i = min(i, int(rng.integers(0, 200)))  # most of what can go wrong is in the header
        match rng.integers(0, 5):
            case 0 if i < len(out):
                out[i] ^= 1 << int(rng.integers(0, 8))
            case 1 if i < len(out):
                out[i] = int(rng.choice([0, 1, 0x7F, 0x80, 0xC1, 0xC9, 0xDD, 0xDF, 0xFF]))
            case 2:
                del out[i : min(j, i + 16)]
            case 3:
                other = others[rng.integers(0, len(others))]
                k = int(rng.integers(0, len(other)))
                out[i : i + 12] = other[k : k + 12]
            case _:
                out[i:i] = out[i : min(j, i + 8)]
    if len(out) >= 8 and rng.random() < 0.3:
        out[4:8] = int(rng.integers(0, 400)).to_bytes(4, "little")
    return bytes(out)


def test_ten_thousand_mutated_messages_decode_or_raise_wire_error():
    rng, good = np.random.default_rng(2), seeds()
    outcomes = {"decoded": 0, "refused": 0}
    for n in range(10_000):
        data = mutate(good[n % len(good)], good, rng)
        try:
            m = wire.decode(data)
        except WireError:
            outcomes["refused"] += 1
        else:
            outcomes["decoded"] += 1
            assert same(m, wire.decode(wire.encode(m)))
    assert min(outcomes.values()) > 200, outcomes


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
