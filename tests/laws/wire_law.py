"""What the tests of the wire share: equality to the bit, strategies, and messages made by hand."""

import struct
from collections.abc import Mapping
from dataclasses import fields

import msgspec
import numpy as np
from hypothesis import strategies as st
from msgspec.msgpack import Ext

from comity.core import wire
from comity.core.contribution import Contribution
from comity.core.envelope import VERSION, Envelope, Receipt
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
COUNT = st.integers(0, 2**40)


@st.composite
def prefixes(draw, tree):
    """Weights that are a prefix of a Tree: they end where it does, or above."""
    if isinstance(tree, Mapping) and draw(st.booleans()):
        return {k: draw(prefixes(v)) for k, v in tree.items()}
    return draw(ARRAYS | st.floats() | st.integers(0, 2**40))


@st.composite
def contributions(draw):
    """Any Tree, with weights that are one number, a prefix of it, or anything else."""
    value = draw(TREES)
    weight = draw(st.floats() | prefixes(value) | st.dictionaries(st.text(), st.floats() | ARRAYS, max_size=3))
    return Contribution(draw(st.text()), value, weight, draw(METRICS), draw(st.text()))


CONTRIBUTIONS = contributions()
ROUNDS = st.builds(
    Round,
    *(st.text(), st.integers(-(2**63), 2**64 - 1), COUNT, COUNT, st.text(), st.text()),
    *(COUNT, COUNT, st.floats(), st.none() | COUNT),
)
RECEIPTS = st.none() | st.builds(Receipt, COUNT, COUNT, st.booleans())
ENVELOPES = st.builds(
    Envelope, ROUNDS, st.text(), st.text(), st.text(), CONTRIBUTIONS, receipt=RECEIPTS, signature=st.binary()
)


@st.composite
def laid_out(draw):
    """An array of random bits in any byte order and memory layout, and the same numbers in C order, little-endian."""
    dtype = np.dtype(draw(st.sampled_from(NUMPY))).newbyteorder(draw(st.sampled_from("<>")))
    shape = draw(SHAPES)
    x = filled(dtype, shape, draw(st.integers(0, 2**32)))
    match draw(st.sampled_from(["c", "fortran", "turned", "every second", "backwards", "broadcast", "unaligned"])):
        case "fortran":
            x = np.asfortranarray(x)
        case "turned":
            x = x.transpose(draw(st.permutations(range(x.ndim))))
        case "every second":
            x = np.repeat(x, 2, axis=-1)[..., ::2] if x.ndim else x
        case "backwards":
            x = x[..., ::-1] if x.ndim else x
        case "broadcast":
            x = np.broadcast_to(x, (draw(st.integers(0, 3)), *shape))
        case "unaligned":
            x = np.frombuffer(b"_" + x.tobytes(), dtype, offset=1).reshape(shape) if x.size else x
    bits = np.frombuffer(x.tobytes(), dtype)
    swapped = (bits if dtype.isnative else bits.byteswap()).view(dtype.newbyteorder("<"))
    return x, swapped.reshape(x.shape)


def crafted(value, weight=1.0, *, buffers=b"", cover=None, metrics=None):
    """A message with a header of our choice; {} is written as the wire writes a dict, [{}]."""
    head = msgspec.msgpack.encode(["delta", value, weight, metrics or {}, "", cover])
    return raw(head) + bytes(-len(head) % 8) * bool(buffers) + buffers


def raw(head, version=VERSION):
    return struct.pack("<3sBI", b"cmy", version, len(head)) + head


def array(code, *dims):
    return Ext(code, struct.pack(f"<{len(dims)}q", *dims))


F4, BF16, BOOL = (wire.DTYPES.index(name) for name in ("float32", "bfloat16", "bool"))
