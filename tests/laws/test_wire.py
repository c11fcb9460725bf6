"""The wire: what goes in comes out, its size is known, and bad bytes never do anything but raise WireError."""

import mmap
import tracemalloc
from dataclasses import fields, replace
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from wire_law import BAD_NAN, CONTRIBUTIONS, ENVELOPES, NUMPY, TREES, filled, laid_out, same

from comity.core import wire
from comity.core.contribution import Contribution
from comity.core.envelope import VERSION, Envelope, Receipt
from comity.core.errors import ConfigError, WireError
from comity.core.round import Round


@settings(max_examples=300, deadline=None)
@given(CONTRIBUTIONS | ENVELOPES)
@example(Contribution("delta", {"a": {"b": np.ones(2), "c": {}}, "d": 1}, {"a": 2.0, "d": np.array(3.0)}))
@example(Contribution("delta", {"a": {"b": np.ones(2)}}, {"a": {"b": np.full(2, BAD_NAN)}}))
def test_decoding_undoes_encoding_and_the_size_is_the_length(m):
    data = wire.encode(m)
    found = wire.decode(data)
    assert same(m, found)
    assert wire.size(m) == len(data)
    assert wire.encode(found) == data


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.text(), laid_out(), max_size=3))
def test_any_byte_order_and_memory_layout_travels_to_the_bit(pairs):
    m = Contribution("delta", {k: x for k, (x, _) in pairs.items()}, {k: x for k, (x, _) in pairs.items()})
    data = wire.encode(m)
    found = wire.decode(data)
    assert wire.size(m) == len(data)
    for tree in (found.value, found.weight):
        assert same({k: plain for k, (_, plain) in pairs.items()}, tree)
    assert wire.encode(found) == data


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


def test_a_mapped_file_is_read_where_it_lies(tmp_path):
    """As `bytes` would be, and the file may be gone by then; one that somebody may write through is copied."""
    message = Contribution(
        "delta", {"w": np.arange(999.0), "text": "x" * 99, "bytes": b"y" * 99, "bit": np.ones(9, bool)}
    )
    path = tmp_path / "message"
    path.write_bytes(wire.encode(message))
    with path.open("rb") as f:
        found = wire.decode(mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ))
    path.unlink()
    assert same(found.value, message.value)
    path.write_bytes(wire.encode(message))
    with path.open("r+b") as f:
        lent = mmap.mmap(f.fileno(), 0)
        copied = wire.decode(lent)
        lent[:] = bytes(len(lent))
    assert same(copied.value, message.value)
    assert not found.value["w"].flags.writeable
    assert type(found.value["bytes"]) is bytes
    with pytest.raises(WireError):
        wire.decode(lent)


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
