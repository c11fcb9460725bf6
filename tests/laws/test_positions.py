"""Positions: a mask comes back as it was, near its entropy, and bytes that are no mask are refused in little memory."""

import hashlib
import tracemalloc
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import comity as co
from comity.core.positions import decode_delta, decode_mask, encode_delta, encode_mask, mask_hash

MILLION = 10**6


def entropy(p):
    return 0.0 if p in (0.0, 1.0) else float(-p * np.log2(p) - (1 - p) * np.log2(1 - p))


def drawn(density, size=MILLION):
    return np.random.default_rng(3).random(size) < density


MASKS = st.one_of(
    arrays(bool, st.integers(0, 200)),
    st.tuples(st.integers(0, 3000), st.floats(0, 1)).map(lambda x: drawn(x[1], x[0])),
)


@given(MASKS)
def test_a_mask_comes_back_and_is_never_longer_than_its_bits(mask):
    data = encode_mask(mask)
    back = decode_mask(data, mask.size)
    assert back.dtype == bool
    assert np.array_equal(back, mask)
    assert len(data) <= 1 + (mask.size + 7) // 8


@given(st.data())
def test_a_change_comes_back(data):
    old = data.draw(MASKS)
    new = data.draw(arrays(bool, old.size))
    for mask in (new, old & new, old | new, old):
        assert np.array_equal(decode_delta(old, encode_delta(old, mask)), mask)


@pytest.mark.parametrize("density", [0.95, 0.8, 0.5, 0.38, 0.3, 0.214, 0.2, 0.1, 0.06, 0.02, 0.01, 0.001])
def test_sizes_stand_near_the_entropy(density):
    mask = drawn(density)
    bits = 8 * len(encode_mask(mask)) / mask.size
    least = entropy(float(mask.mean()))
    assert least * 0.999 <= bits <= least * (1.043 if 0.36 < density < 0.64 else 1.035)


def test_dropping_a_quarter_costs_its_entropy_among_the_kept():
    old = drawn(0.06)
    new = old & drawn(0.75)[::-1]
    kept, ideal = int(old.sum()), entropy(float(new.sum() / old.sum()))
    assert ideal * kept <= 8 * len(encode_delta(old, new)) <= 1.035 * ideal * kept
    assert len(encode_delta(old, new)) < 0.2 * len(encode_mask(new))


@pytest.mark.parametrize(
    ("mask", "data"),
    [
        (np.zeros(0, bool), b"\0"),
        (np.ones(5, bool), b"\0\xf8"),
        (np.zeros(80, bool), b"\1\0"),
        (np.ones(80, bool), b"\x81\0"),
        (np.arange(80) == 3, b"\x02\1\x60"),
        (np.arange(80) != 3, b"\x82\1\x60"),
    ],
)
def test_the_bytes_are_these(mask, data):
    assert encode_mask(mask) == data


def test_no_shorter_parameter_is_left_out():
    """The count and every parameter's bits, summed here the plain way."""
    for density in (0.3, 0.1, 0.03, 0.002):
        mask = drawn(density, 5000)
        gaps = np.diff(np.flatnonzero(mask), prepend=-1) - 1
        least = min(int((gaps >> k).sum()) + gaps.size * (k + 1) for k in range(13))
        assert len(encode_mask(mask)) == 1 + (1 if gaps.size < 128 else 2) + (least + 7) // 8


@given(st.binary(max_size=40), st.integers(0, 300))
def test_any_bytes_are_refused_or_are_the_only_way_to_write_it(data, size):
    try:
        mask = decode_mask(data, size)
    except co.WireError:
        return
    assert encode_mask(mask) == data


def test_of_all_short_bytes_as_many_are_taken_as_there_are_masks():
    taken = 0
    for data in (bytes(b) for n in range(3) for b in product(range(256), repeat=n)):
        try:
            decode_mask(data, 8)
        except co.WireError:
            continue
        taken += 1
    assert taken == 2**8


@given(st.data())
def test_damaged_bytes_are_refused_or_are_the_only_way_to_write_it(data):
    size = data.draw(st.integers(20, 2000))
    good = bytearray(encode_mask(drawn(data.draw(st.floats(0.001, 0.3)), size)))
    at, value = data.draw(st.integers(0, len(good) - 1)), data.draw(st.integers(0, 255))
    good[at] = value
    cut = bytes(good[: data.draw(st.integers(0, len(good)))])
    for said in (bytes(good), cut, bytes(good) + b"\0"):
        try:
            mask = decode_mask(said, size)
        except co.WireError:
            continue
        assert encode_mask(mask) == said


@pytest.mark.parametrize(
    "data",
    [
        b"",
        "text",
        None,
        b"\0\1",
        b"\x01\x80\x00" + b"\0" * 8,
        b"\x80\x01\x30",
        b"\xff\x01\xff",
        b"\x40\x02\xff\xff\xff\xff",
        b"\x05\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"\x05\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x02\x28" + b"\xff" * 11,
        b"\x01\x01\x00\x00",
    ],
)
def test_what_is_no_mask_of_eighty_positions_is_refused(data):
    with pytest.raises(co.WireError, match=r"mask of \d+ positions must be"):
        decode_mask(data, 80)


def test_another_size_is_refused():
    data = encode_mask(drawn(0.1, 1000))
    for size in (0, 10, 500, 999, 10**5):
        try:
            assert encode_mask(decode_mask(data, size)) == data
        except co.WireError:
            continue
    with pytest.raises(co.WireError, match="1000 positions"):
        decode_mask(b"\0" + bytes(124), 1000)


@pytest.mark.parametrize("head", [b"\1", b"\2", b"\x14", b"\x81", b"\x94", b"\xa0"])
@pytest.mark.parametrize(
    "body", [b"\xa0\xc2\x1e" + b"\xff" * 60000, b"\xff\xff\x03" + b"\xaa" * 124000, b"\1" * 125000]
)
def test_hostile_bytes_take_memory_by_the_size_alone(head, body):
    tracemalloc.start()
    try:
        with pytest.raises(co.WireError):
            decode_mask(head + body, MILLION)
        assert tracemalloc.get_traced_memory()[1] < 40 * MILLION
    finally:
        tracemalloc.stop()


def test_long_bytes_for_few_positions_are_not_unpacked():
    data = b"\1\1" + bytes(10**7)
    tracemalloc.start()
    try:
        with pytest.raises(co.WireError, match=r"1 to 11 bytes\. Got 10000002"):
            decode_mask(data, 80)
        assert tracemalloc.get_traced_memory()[1] < 10**6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("data", [b"", "x", None, b"\0", b"\x7f\0\0", b"\x80\0\0", b"\xff" * 12, b"\2\0\xff\0"])
def test_what_is_no_change_is_refused(data):
    with pytest.raises(co.WireError, match="mask"):
        decode_delta(drawn(0.5, 40), data)


@pytest.mark.parametrize("mask", [np.ones(3), [True], None, np.ones(3, "uint8")])
def test_what_is_no_mask_is_not_written(mask):
    for call in (encode_mask, mask_hash, lambda m: encode_delta(m, np.ones(3, bool))):
        with pytest.raises(co.ConfigError, match="array of bool"):
            call(mask)
    with pytest.raises(co.ConfigError, match="as many positions"):
        encode_delta(np.ones(3, bool), np.ones(4, bool))


def test_the_hash_tells_masks_apart_and_stays_what_it_is():
    a, b = drawn(0.5, 70), drawn(0.3, 9)
    same = mask_hash({"a": a, "x": {"b": b}})
    assert same == mask_hash({"x": {"b": b.reshape(3, 3)}, "a": a.copy()})
    flipped = a.copy()
    flipped[69] ^= True
    others = [{"a": flipped, "x": {"b": b}}, {"a": a, "x": b}, {"a": a}, {"a": np.append(a, False), "x": {"b": b}}, {}]
    assert len({same, *map(mask_hash, others)}) == 6
    assert all(len(mask_hash(o)) == 8 for o in others)
    assert mask_hash({}) == hashlib.blake2b(digest_size=8).digest()
