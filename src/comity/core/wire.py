"""Messages as bytes, and back: real bytes, so that what is counted is what travels. Nothing is unpickled.

    3 bytes   b"cmy"
    1 byte    version
    4 bytes   length of the header, little-endian
    header    msgpack: names, numbers and short strings; shape and dtype of each array
    buffers   each from a multiple of 8 bytes on (zeros between): arrays as C-ordered little-endian numbers,
              long strings (UTF-8) and long byte strings as they are; the last one ends the message

The header holds only types of fixed length, maps and strings, so that no declared length allocates anything.
There is one way to write a message: what decodes is byte for byte what `encode` makes of it again.
"""

from collections.abc import Mapping
from dataclasses import fields
from functools import lru_cache
from mmap import mmap
from operator import attrgetter
from typing import Any, NoReturn, TypeAlias

import numpy as np
from msgspec.msgpack import Ext

from comity.core.contribution import Array, Contribution, Tree
from comity.core.envelope import VERSION, Envelope, Receipt
from comity.core.errors import ConfigError, WireError
from comity.core.header import (
    ALIGN,
    ANY_HEADER,
    BYTES,
    CODES,
    DEPTH,
    DIMS,
    DTYPES,
    HEADER_LIMIT,
    LENGTH,
    LIMIT,
    LONG_BYTES,
    LONG_TEXT,
    MAGIC,
    SHORT,
    START,
    Cover,
    Head,
    Leaf,
    Node,
    read_header,
    write_header,
)
from comity.core.reader import Reader
from comity.core.round import Round

Message: TypeAlias = Contribution | Envelope
Data: TypeAlias = bytes | bytearray | memoryview | mmap
_Buffers: TypeAlias = list[tuple[Array | bytes, int]]

_ROUND = attrgetter(*(f.name for f in fields(Round)))


def encode(message: Message) -> bytes:
    """The bytes of a message.

    Numpy scalars become 0-d arrays; any memory layout and byte order becomes C-ordered little-endian; the
    insertion order of names is kept. A large array is copied once.

    Raises:
        ConfigError: a leaf that cannot travel (it is named), nesting beyond 64, a header beyond 4 MiB.

    Example:
        >>> decode(encode(Contribution("text", {"said": "hello"}, sender="ann"))).value
        {'said': 'hello'}
    """
    return _join(*_parts(message, HEADER_LIMIT))


def size(message: Message) -> int:
    """How many bytes `encode(message)` has, without making them.

    Raises:
        ConfigError: as for `encode`.

    Example:
        >>> m = Contribution("delta", {"w": np.zeros((3, 4), "float32")})
        >>> size(m) == len(encode(m))
        True
    """
    head, buffers = _parts(message, HEADER_LIMIT)
    at = START.size + len(head)
    for _, n in buffers:
        at += -at % ALIGN + n
    return at


def decode(data: Data, *, limit: int = LIMIT) -> Message:
    """The message that `data` holds, exactly as it was: dtypes, shapes, bits, order of names.

    It is canonical: `encode(decode(data)) == data` for all that is not refused. Nobody can say one thing in two ways.

    Arrays are read-only and aligned to 8 bytes; they are views of `data` when it is `bytes` or a file that is mapped to
    be read (which nobody may change then), else of a copy.
    Beside that copy it takes at most 128 bytes of memory for each byte of the header, whatever is declared.

    Args:
        data: one whole message, from anybody.
        limit: the most bytes it may have.

    Raises:
        WireError: the bytes are no message, are of another version, or are longer than `limit`.
    """
    n = memoryview(data).nbytes
    if n > limit:
        raise WireError(f"A message must be at most {limit} bytes. Got {n}.")
    return _read(data, HEADER_LIMIT)


def encode_tree(tree: Tree) -> bytes:
    """A state or a drawer as bytes: a message of kind "state", with a header of any length.

    Raises:
        ConfigError: as for `encode`.

    Example:
        >>> decode_tree(encode_tree({"seen": 3, "mask": {}}))
        {'seen': 3, 'mask': {}}
    """
    return _join(*_parts(Contribution("state", tree), ANY_HEADER))


def decode_tree(data: Data) -> Any:
    """The Tree that `encode_tree` wrote; its arrays are read-only.

    Raises:
        WireError: the bytes are no message, or one of another kind.
    """
    message = _read(data, ANY_HEADER)
    if not isinstance(message, Contribution) or message.kind != "state":
        raise WireError("A saved state must be a message of kind 'state'. Got another message.")
    return message.value


def as_tree(c: Contribution) -> dict[str, Any]:
    """A Contribution as a plain Tree, to travel inside another's value; metrics are (2,) float64 arrays.

    Example:
        >>> from_tree(as_tree(Contribution("score", None, metrics={"hits": (8.0, 9.0)}))).metrics
        {'hits': (8.0, 9.0)}
    """
    metrics = {name: np.array(pair, np.float64) for name, pair in c.metrics.items()}
    return {"kind": c.kind, "value": c.value, "weight": c.weight, "metrics": metrics, "sender": c.sender}


def from_tree(tree: Any, sender: str = "") -> Contribution:
    """The Contribution that `as_tree` laid out.

    Args:
        tree: what it laid out.
        sender: who sent it, where the tree does not say.

    Raises:
        WireError: `tree` is nothing that `as_tree` makes.
    """
    try:
        kind, value, weight, named = tree["kind"], tree["value"], tree["weight"], tree["sender"]
        pairs = {name: _pair(x) for name, x in tree["metrics"].items()}
    except (AttributeError, IndexError, KeyError, TypeError):
        raise WireError(f"A nested contribution must be one of as_tree. Got another {type(tree).__name__}.") from None
    if len(tree) != 5 or not isinstance(kind, str) or not isinstance(named, str):
        raise WireError("A nested contribution must have five entries, its kind and sender strings.")
    return Contribution(kind, value, weight, pairs, named or sender)


def _pair(x: Array) -> tuple[float, float]:
    if x.shape != (2,) or x.dtype != np.float64:
        raise WireError(f"A nested metric must be (2,) float64. Got {x.dtype} of shape {x.shape}.")
    total, count = x.tolist()
    return total, count


def _parts(message: Message, most: int) -> tuple[bytes, _Buffers]:
    """The encoded header, and the buffers behind it with their lengths in bytes."""
    c, cover = (message, None) if isinstance(message, Contribution) else (message.body, _cover(message))
    buffers: _Buffers = []
    weight = float(c.weight) if isinstance(c.weight, float) else c.weight
    try:
        value = _pack(c.value, ("value",), buffers)
        weights = _pack(weight, ("weight",), buffers)
        head = write_header(Head(_name(c.kind), value, weights, _metrics(c), _name(c.sender), cover))
    except (TypeError, UnicodeError, OverflowError) as e:
        raise ConfigError(f"Names must be valid text and counts 64-bit integers. Got {e}. Change that field.") from e
    if len(head) > most:
        raise ConfigError(f"A header must be at most {most} bytes. Got {len(head)}. Stack small leaves into arrays.")
    return head, buffers


def _cover(m: Envelope) -> Cover:
    if m.version != VERSION:
        raise ConfigError(f"The 'version' of an Envelope must be {VERSION}. Got {m.version!r}. Leave it out.")
    receipt = None if m.receipt is None else (m.receipt.number, m.receipt.attempt, m.receipt.accepted)
    row = _ROUND(m.round)
    if type(m.round.expected) is int:
        row = (*row[:8], float(row[8]), *row[9:])
    return Cover(row, m.phase, m.sender, m.recipe, receipt, m.signature)


def _name(x: Any) -> str:
    if isinstance(x, str):
        return x if type(x) is str else str.__str__(x)
    raise ConfigError(f"A name must be a string. Got {x!r:.80}. Use str(name).")


def _metrics(c: Contribution) -> dict[str, tuple[float, float]]:
    out = {}
    for name, pair in c.metrics.items():
        try:
            total, count = map(float, pair)
        except (TypeError, ValueError):
            raise ConfigError(f"Metric {name!r:.60} must be (sum, count). Got {pair!r:.60}. Give both.") from None
        out[_name(name)] = (total, count)
    return out


def _pack(x: Any, path: tuple[str, ...], out: _Buffers) -> Leaf:
    """What the header says of `x`, its numbers put into `out`."""
    kind = type(x)
    if kind is np.ndarray:
        return _pack_array(x, path, out)
    if kind is dict or isinstance(x, Mapping):
        return _pack_dict(x, path, out)
    if kind is float or x is None or kind is bool or (kind is int and -(2**63) <= x < 2**64):
        return x  # type: ignore[no-any-return]
    if kind is int:
        _refuse(f"the integer {x:#x}"[:40], path, "a string")
    if isinstance(x, str):
        return _name(x) if len(x) < SHORT else _pack_long(x.encode(), LONG_TEXT, out)
    if isinstance(x, bytes):
        return Ext(BYTES, bytes(x)) if len(x) < SHORT else _pack_long(x, LONG_BYTES, out)
    if isinstance(x, np.generic) or (isinstance(x, np.ndarray) and not isinstance(x, np.ma.MaskedArray)):
        return _pack_array(np.asarray(x), path, out)
    return _refuse(kind.__name__, path, "an array, a dict with string names, or bytes")


def _pack_dict(x: Mapping[str, Any], path: tuple[str, ...], out: _Buffers) -> Node:
    if len(path) > DEPTH:
        raise ConfigError(f"A Tree may nest {DEPTH} deep. Got more at '{'.'.join(path[:4])}...'. Flatten it.")
    items: dict[str, Leaf] = {}
    for k, v in x.items():
        if not isinstance(k, str):
            _refuse(f"the name {k!r:.40}", path, "string names")
        kind = type(v)
        if kind is np.ndarray:
            items[k] = _pack_array(v, (*path, k), out)
        elif kind is float or (kind is str and len(v) < SHORT):
            items[k] = v
        else:
            items[k] = _pack(v, (*path, k), out)
    return Node(items)


def _pack_array(x: Array, path: tuple[str, ...], out: _Buffers) -> Ext:
    code = CODES.get(x.dtype)
    if code is None:
        name = x.dtype.name
        code = DTYPES.index(name) if name in DTYPES else _refuse(f"an array of {name}", path, "astype")
    out.append((x, x.nbytes))
    return _said(code, x.shape)


@lru_cache(maxsize=1024)
def _said(code: int, shape: tuple[int, ...]) -> Ext:
    """Arrays of one form follow each other by the thousand."""
    return Ext(code, DIMS[len(shape)].pack(*shape))


def _pack_long(x: bytes, code: int, out: _Buffers) -> Ext:
    out.append((x, len(x)))
    return Ext(code, LENGTH.pack(len(x)))


def _refuse(got: str, path: tuple[str, ...], instead: str) -> NoReturn:
    raise ConfigError(
        f"A leaf must be an array of {', '.join(DTYPES)}; a str, bytes, bool, float, None, or an int of 64 bits. "
        f"Got {got} at '{'.'.join(path)}'. Use {instead}."
    )


def _join(head: bytes, buffers: _Buffers) -> bytes:
    pieces: list[Any] = [START.pack(MAGIC, VERSION, len(head)), head]
    at = START.size + len(head)
    for x, n in buffers:
        gap = -at % ALIGN
        pieces += (bytes(gap), x if isinstance(x, bytes) else _raw(x))
        at += gap + n
    return b"".join(pieces)


def _raw(x: Array) -> Array:
    if x.dtype.isbuiltin == 2:  # bfloat16 comes from another package and exports no buffer of its own
        x = x.view(np.uint16)
    return np.ascontiguousarray(x, x.dtype.newbyteorder("<"))


def _read(data: Data, most: int) -> Message:
    """From here on, everything was said by a stranger."""
    seen = memoryview(data)
    whole = data if type(data) is bytes or (type(data) is mmap and seen.readonly) else bytes(seen)
    head, start = read_header(whole, most)
    reader = Reader(whole, start)
    value, weight = reader.tree(head.value), reader.tree(head.weight)
    if reader.at != len(whole):
        raise WireError(f"A message must be as long as its header declares, {reader.at} bytes. Got {len(whole)}.")
    body = Contribution(head.kind, value, weight, head.metrics, head.sender)
    return body if head.cover is None else _uncover(head.cover, body)


def _uncover(cover: Cover, body: Contribution) -> Envelope:
    receipt = Receipt(*cover.receipt) if cover.receipt else None
    return Envelope(Round(*cover.round), cover.phase, cover.sender, cover.recipe, body, receipt, cover.signature)
