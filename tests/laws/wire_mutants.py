"""Good messages, and what a stranger may make of them: bytes, headers and whole Trees changed at random."""

import struct
from dataclasses import replace

import msgspec
import numpy as np
from msgspec.msgpack import Ext
from wire_law import array, raw

from comity.core import wire
from comity.core.contribution import Contribution
from comity.core.envelope import Envelope, Receipt
from comity.core.round import Round

NAN = float("nan")
DEEPER = b"\x91\x81\xa1a"
ODD_BYTES = [0, 1, 0x7F, 0x80, 0x91, 0xC0, 0xC1, 0xC9, 0xCA, 0xCB, 0xD4, 0xDC, 0xDD, 0xDE, 0xDF, 0xFF]
SIZES = [-(2**63), -(2**31), -2, -1, 0, 1, 2, 3, 5, 255, 2**20, 2**31, 2**32, 2**40, 2**62, 2**63 - 1]
NUMBERS = [0, 1, -1, 7, 2**31, 2**63 - 1, -(2**63), 2**64 - 1, 0.0, -0.0, 1.5, -2.0, 1e300, NAN, np.inf, -np.inf]
WORDS = ["", "w", "sender", "p01", "p02", "error", "delta", "score", "contribute", "x" * 1023, "x" * 1024, "é\0"]
KINDS = ["bool", "int8", "int64", "uint8", "uint64", "float16", "float32", "float64"]


class Raw(bytes):
    """Bytes that stand in a header as they are."""


class Pairs(list):
    """A dict as pairs, so that a name may come twice."""


def round_of(me, number=0):
    return Round("ab" * 8, 0, number, 0, "hub", me, 3, 3, 3.0)


def samples():
    """Contributions and envelopes of every sort, small ones and one with long text and bytes."""
    rng = np.random.default_rng(0)
    w = {"0.weight": rng.normal(size=(2, 3)).astype("f4"), "0.bias": np.zeros(2, "f4")}
    c = Contribution("delta", w, 20.0, {"train_loss": (8.0, 20.0)}, "p01")
    mixed = {"m": rng.random(9) > 0.5, "t": "x" * 1100, "n": {"e": {}, "i": 7, "b": b"z" * 1030}, "h": np.float16(3)}
    spread = replace(c, weight={"0.weight": np.ones((2, 3)), "0.bias": 2.0})
    shared = Contribution("model", w)
    question = Contribution("question", {"shared": wire.as_tree(shared), "public": {}, "views": {"hub": None}})
    down = Envelope(round_of("p01", 3), "contribute", "hub", "cd" * 32, question, Receipt(2, 0, True), bytes(range(64)))
    score = replace(down, phase="score", body=replace(shared, kind="score"), receipt=None)
    up = Envelope(round_of("p01"), "contribute", "p01", "cd" * 32, Contribution("sealed", {"hub": wire.as_tree(c)}))
    told = replace(up, phase="score", body=Contribution("score", None, metrics={"valid_auc": (8.0, 9.0)}))
    small = Contribution("label", {"a": np.int64(3), "b": None, "c": b"xyz", "d": 1.5, "e": np.zeros((0, 3))})
    return [c, spread, Contribution("text", mixed, {"m": 2.0}), small, down, score, up, told]


def mutant(messages, rng):
    """One message changed in one of three ways, as bytes."""
    m = rng.choice(messages)
    how = rng.random()
    if how < 0.3:
        return wire.encode(changed(m, rng))
    data = wire.encode(m)
    for _ in range(rng.randint(1, 3)):
        data = of_bytes(data, wire.encode(rng.choice(messages)), rng) if how < 0.6 else of_header(data, rng)
    return data


def of_bytes(data, other, rng):
    """Bits flipped; bytes set, put in, cut out or repeated; two messages spliced; the beginning changed."""
    out = bytearray(data)
    i, j = sorted(rng.randrange(len(out) + 1) for _ in "ij")
    if rng.random() < 0.5:
        i = min(i, rng.randrange(200))
    match rng.randrange(9):
        case 0 if i < len(out):
            out[i] ^= 1 << rng.randrange(8)
        case 1 if i < len(out):
            out[i] = rng.choice(ODD_BYTES)
        case 2:
            out[i:i] = bytes(rng.choice(ODD_BYTES) for _ in range(rng.randint(1, 9)))
        case 3:
            del out[i : min(j, i + rng.randint(1, 40))]
        case 4:
            out[i:i] = out[i : min(j, i + rng.randint(1, 40))]
        case 5:
            del out[rng.choice([j, len(out) - 1, 8, 7]) :]
        case 6:
            k = rng.randrange(len(other))
            out[i : i + rng.choice([12, len(out)])] = other[k : k + rng.choice([12, len(other)])]
        case 7:
            out[rng.randrange(min(4, len(out)))] = rng.randrange(256)
        case _:
            out[4:8] = struct.pack("<I", rng.choice([0, 1, 7, abs(len(out) - 8), len(out), 2**22, 2**31, 2**32 - 1]))
    return bytes(out or b"\0")


def of_header(data, rng):
    """The header taken apart, one thing in it changed, and put together again before the same buffers."""
    if DEEPER * 70 in data:
        return data
    try:
        length = struct.unpack_from("<I", data, 4)[0]
        head = msgspec.msgpack.decode(data[8 : 8 + length])
    except (struct.error, msgspec.MsgspecError, ValueError, RecursionError):
        return data
    head, body = (
        _edited(_apart(head), rng),
        data[8 + length :].lstrip(b"\0") if rng.random() < 0.1 else data[8 + length :],
    )
    if rng.random() < 0.2:
        body = bytearray(body)
        i = rng.randrange(len(body) + 1)
        body[i : i + 8] = rng.choice([b"\xff" * 8, struct.pack("<d", NAN), bytes(8), b"\0\0\x80\x7f" * 2])
    packed = _pack(head)
    gap = bytes(-len(packed) % 8) if body else b""
    return raw(packed) + gap + bytes(body).removeprefix(bytes(-(8 + length) % 8))


def _apart(x):
    if isinstance(x, dict):
        return Pairs([[k, _apart(v)] for k, v in x.items()])
    return [_apart(v) for v in x] if isinstance(x, list) else x


def _places(x, found):
    if isinstance(x, list):
        for i, v in enumerate(x):
            found.append((x, i))
            _places(v, found)
    return found


def _edited(head, rng):
    found = _places(head, []) if isinstance(head, list) else []
    if not found:
        return _strange(rng)
    where, i = rng.choice(found)
    other, j = rng.choice(found)
    match rng.randrange(8):
        case 0:
            where.insert(i, where[i])
        case 1:
            del where[i]
        case 2:
            where[i], other[j] = other[j], where[i]
        case 3:
            where[i] = Raw(DEEPER * rng.choice([1, 2, 62, 64, 65, 66, 300, 5000]) + _pack(where[i]))
        case 4:
            where[i] = _pack(where[i])[:-1] if rng.random() < 0.2 else _long(where[i])
        case _:
            leaves = [(w, k) for w, k in found if isinstance(w[k], Ext)]
            where, i = rng.choice(leaves) if leaves and rng.random() < 0.6 else (where, i)
            where[i] = _resized(where[i], rng) if isinstance(where[i], Ext) else _strange(rng)
    return head


def _resized(x, rng):
    """Another code or another shape."""
    if rng.random() < 0.3:
        return Ext(rng.choice([-128, -1, 13, 14, 63, 64, 65, 66, 127, *range(13)]), bytes(x.data))
    n = len(x.data) // 8
    dims = list(struct.unpack(f"<{n}q", x.data[: 8 * n]))
    match rng.randrange(4):
        case 0 if dims:
            dims[rng.randrange(n)] = rng.choice(SIZES)
        case 1:
            rng.shuffle(dims)
        case 2:
            dims = [rng.choice(SIZES) for _ in range(rng.choice([1, 2, 3, 64, 65]))]
        case _:
            dims.insert(rng.randint(0, n), rng.choice([0, 1, 1, 2]))
    return array(x.code, *dims)


def _strange(rng):
    pool = [
        None,
        True,
        False,
        b"",
        b"x" * 64,
        [],
        [1],
        Pairs(),
        [Pairs()],
        Pairs([[1, 2]]),
        Raw(b"\xa1\xff"),
        Raw(b"\xc1"),
    ]
    pool += [
        Raw(b"\xdd\xff\xff\xff\xff"),
        Raw(b"\xdf\x7f\xff\xff\xff"),
        Raw(b"\xc6\xff\xff\xff\xff"),
        Raw(b"\xca\x7f\xc0\0\1"),
    ]
    pool += [[Pairs([["a", 1], ["a", 2]])], Ext(rng.randrange(-128, 128), b"\1" * rng.choice([0, 1, 8, 16]))]
    return rng.choice([rng.choice(pool), rng.choice(NUMBERS), rng.choice(WORDS), rng.choice(pool)])


def _long(x):
    """The same thing said in more bytes than it needs."""
    if isinstance(x, int) and not isinstance(x, bool) and 0 <= x < 2**31:
        return Raw(b"\xcf" + x.to_bytes(8, "big"))
    if isinstance(x, str):
        return Raw(b"\xdb" + struct.pack(">I", len(x.encode())) + x.encode())
    if isinstance(x, Ext):
        return Raw(b"\xc9" + struct.pack(">Ib", len(x.data), x.code) + x.data)
    return Raw(b"\xca" + struct.pack(">f", x)) if isinstance(x, float) and abs(x) < 1e30 else x


def _pack(x):
    if isinstance(x, Raw):
        return x
    if isinstance(x, Pairs):
        return _counted(0x80, b"\xde", len(x)) + b"".join(_pack(v) for pair in x for v in _two(pair))
    if isinstance(x, list):
        return _counted(0x90, b"\xdc", len(x)) + b"".join(map(_pack, x))
    return Raw(msgspec.msgpack.encode(x))


def _two(pair):
    return pair if isinstance(pair, list) and not isinstance(pair, Pairs) else [pair]


def _counted(small, large, n):
    return bytes([small | n]) if n < 16 else large + struct.pack(">H", n)


# Trees that are well said and mean something else.


def leaf(rng):
    if rng.random() < 0.5:
        shape = rng.choice([(), (0,), (1,), (2,), (3,), (2, 3), (3, 2), (1, 3), (2, 1, 3), (0, 2**40), (1,) * 64])
        x = np.zeros(shape, rng.choice(KINDS))
        return (
            x
            if x.dtype == bool
            else x + x.dtype.type(rng.choice([0, 1, 3, *([NAN, np.inf] if x.dtype.kind == "f" else [])]))
        )
    return rng.choice([None, b"", b"bytes", {}, {"a": {}}, {"0.weight": 1.0}, True, *NUMBERS, *WORDS])


def tree(x, rng):
    """A Tree with one place changed, left out or added."""
    if not isinstance(x, dict) or not x or rng.random() < 0.2:
        return leaf(rng)
    out, k = dict(x), rng.choice(list(x))
    match rng.randrange(8):
        case 0:
            del out[k]
        case 1:
            out[rng.choice(WORDS)] = leaf(rng)
        case 2:
            out = {k: out.pop(k), **out}
        case 3:
            out[k] = {rng.choice([*WORDS, *x]): out[k]}
        case _:
            out[k] = tree(out[k], rng)
    return out


def changed(m, rng):
    """A message with one field or one leaf that was not meant."""
    if isinstance(m, Envelope) and rng.random() < 0.3:
        match rng.randrange(5):
            case 0:
                return replace(m, phase=rng.choice(WORDS))
            case 1:
                return replace(m, recipe=rng.choice(WORDS), signature=rng.choice([b"", b"x" * 64]))
            case 2:
                return replace(m, receipt=rng.choice([None, Receipt(rng.choice(SIZES), rng.choice(SIZES), True)]))
            case 3:
                number = rng.choice([*SIZES, 2**64 - 1])
                return replace(m, round=replace(m.round, number=number, attempt=rng.choice([0, 1, number])))
            case _:
                who = {rng.choice(["run", "hub", "me"]): rng.choice(WORDS), "expected": rng.choice([0.0, NAN, np.inf])}
                return replace(m, round=replace(m.round, seed=rng.choice(SIZES), asked=rng.choice(SIZES), **who))
    if isinstance(m, Envelope):
        return replace(m, body=changed(m.body, rng))
    match rng.randrange(6):
        case 0:
            return replace(m, kind=rng.choice(WORDS))
        case 1:
            weight = tree(m.weight, rng)
            return replace(
                m, weight=rng.choice([weight, rng.choice(NUMBERS), np.ones(rng.randrange(3)), {"0.bias": weight}])
            )
        case 2:
            return replace(m, metrics={rng.choice(WORDS): (rng.choice(NUMBERS), rng.choice(NUMBERS)), **m.metrics})
        case _:
            return replace(m, value=tree(m.value, rng), sender=rng.choice([m.sender, m.sender, rng.choice(WORDS)]))
