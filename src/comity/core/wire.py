"""Messages as bytes, and back: real bytes, so that what is counted is what travels. Nothing is unpickled.

    3 bytes   b"cmy"
    1 byte    version
    4 bytes   length of the header, little-endian
    header    msgpack: names, numbers and short strings; shape and dtype of each array
    buffers   each from a multiple of 8 bytes on (zeros between): arrays as C-ordered little-endian numbers,
              long strings (UTF-8) and long byte strings as they are; the last one ends the message

The header holds only types of fixed length, maps and strings, so that no declared length allocates anything.
"""

import struct
from collections.abc import Mapping
from dataclasses import fields
from math import prod
from operator import attrgetter
from typing import Any, NoReturn, TypeAlias, cast

import msgspec
import numpy as np
from msgspec.msgpack import Ext

from comity.core.contribution import Array, Contribution, Tree
from comity.core.envelope import VERSION, Envelope, Receipt
from comity.core.errors import ConfigError, WireError
from comity.core.round import Round

LIMIT, HEADER_LIMIT, DEPTH = 2**30, 2**22, 64
"""The most bytes of a message, of its header (a state on disk may have a longer one), and how deep Trees may nest."""
_TABLE = "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 bfloat16 float32 float64"
DTYPES = tuple(_TABLE.split())
"""What an array may hold; the place in this table is the code on the wire."""

Message: TypeAlias = Contribution | Envelope
_Leaf: TypeAlias = "_Node | Ext | str | bool | int | float | None"
_Buffers: TypeAlias = list[tuple[Array | bytes, int]]
_RoundRow: TypeAlias = tuple[str, int, int, int, str, str, int, int, float, int | None]

_START = struct.Struct("<3sBI")
_LENGTH = struct.Struct("<Q")
_DIMS = tuple(struct.Struct(f"<{n}q") for n in range(65))
_MAGIC, _ALIGN, _SHORT, _ANY_HEADER = b"cmy", 8, 1024, 2**32 - 1
_BYTES, _LONG_BYTES, _LONG_TEXT = 64, 65, 66
_CODES = {np.dtype(name): code for code, name in enumerate(DTYPES) if name != "bfloat16"}
_LITTLE = {code: dtype.newbyteorder("<") for dtype, code in _CODES.items()}
_ROUND = attrgetter(*(f.name for f in fields(Round)))


def _number(x: Any) -> Any:
    if isinstance(x, np.generic):
        return x.item()
    raise TypeError(f"'{x!r:.40}' of type {type(x).__name__}")


_encode = msgspec.msgpack.Encoder(enc_hook=_number).encode


class _Node(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    items: "dict[str, _Node | Ext | str | bool | int | float | None]"


class _Cover(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    round: _RoundRow
    phase: str
    sender: str
    recipe: str
    receipt: tuple[int, int, bool] | None
    signature: bytes


class _Head(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    kind: str
    value: "_Node | Ext | str | bool | int | float | None"
    weight: "_Node | Ext | str | bool | int | float | None"
    metrics: dict[str, tuple[float, float]]
    sender: str
    cover: _Cover | None


_decode = msgspec.msgpack.Decoder(_Head).decode


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
    at = _START.size + len(head)
    for _, n in buffers:
        at += -at % _ALIGN + n
    return at


def decode(data: bytes | bytearray | memoryview, *, limit: int = LIMIT) -> Message:
    """The message that `data` holds, exactly as it was: dtypes, shapes, bits, order of names.

    Arrays are read-only and aligned to 8 bytes; they are views of `data` when it is `bytes`, else of a copy.

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
    return _join(*_parts(Contribution("state", tree), _ANY_HEADER))


def decode_tree(data: bytes | bytearray | memoryview) -> Any:
    """The Tree that `encode_tree` wrote; its arrays are read-only.

    Raises:
        WireError: the bytes are no message, or one of another kind.
    """
    message = _read(data, _ANY_HEADER)
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


def from_tree(tree: Any) -> Contribution:
    """The Contribution that `as_tree` laid out.

    Raises:
        WireError: `tree` is nothing that `as_tree` makes.
    """
    try:
        kind, value, weight, metrics, sender = [tree[k] for k in ("kind", "value", "weight", "metrics", "sender")]
        pairs = {name: _pair(x) for name, x in metrics.items()}
    except (AttributeError, IndexError, KeyError, TypeError):
        raise WireError(f"A nested contribution must be one of as_tree. Got another {type(tree).__name__}.") from None
    if len(tree) != 5 or not isinstance(kind, str) or not isinstance(sender, str):
        raise WireError("A nested contribution must have five entries, its kind and sender strings.")
    return Contribution(kind, value, weight, pairs, sender)


def _pair(x: Array) -> tuple[float, float]:
    if x.shape != (2,) or x.dtype != np.float64:
        raise WireError(f"A nested metric must be (2,) float64. Got {x.dtype} of shape {x.shape}.")
    return cast(tuple[float, float], tuple(x.tolist()))


def _parts(message: Message, most: int) -> tuple[bytes, _Buffers]:
    """The encoded header, and the buffers behind it with their lengths in bytes."""
    c, cover = (message, None) if isinstance(message, Contribution) else (message.body, _cover(message))
    buffers: _Buffers = []
    weight = float(c.weight) if isinstance(c.weight, float) else c.weight
    try:
        value = _pack(c.value, ("value",), buffers)
        weights = _pack(weight, ("weight",), buffers)
        head = _encode(_Head(_name(c.kind), value, weights, _metrics(c), _name(c.sender), cover))
    except (TypeError, UnicodeError, OverflowError) as e:
        raise ConfigError(f"Names must be valid text and counts 64-bit integers. Got {e}. Change that field.") from e
    if len(head) > most:
        raise ConfigError(f"A header must be at most {most} bytes. Got {len(head)}. Stack small leaves into arrays.")
    return head, buffers


def _cover(m: Envelope) -> _Cover:
    if m.version != VERSION:
        raise ConfigError(f"The 'version' of an Envelope must be {VERSION}. Got {m.version!r}. Leave it out.")
    receipt = None if m.receipt is None else (m.receipt.number, m.receipt.attempt, m.receipt.accepted)
    return _Cover(_ROUND(m.round), m.phase, m.sender, m.recipe, receipt, m.signature)


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


def _pack(x: Any, path: tuple[str, ...], out: _Buffers) -> _Leaf:
    """What the header says of `x`, its numbers put into `out`."""
    kind = type(x)
    if kind is np.ndarray:
        return _pack_array(x, path, out)
    if kind is dict or isinstance(x, Mapping):
        return _pack_dict(x, path, out)
    if kind is float or x is None or kind is bool:
        return cast(float | bool | None, x)
    if kind is int:
        return cast(int, x) if -(2**63) <= x < 2**64 else _refuse(f"the integer {x:#x}"[:40], path, "a string")
    if isinstance(x, str):
        return _name(x) if len(x) < _SHORT else _pack_long(x.encode(), _LONG_TEXT, out)
    if isinstance(x, bytes):
        return Ext(_BYTES, bytes(x)) if len(x) < _SHORT else _pack_long(x, _LONG_BYTES, out)
    if isinstance(x, np.generic) or (isinstance(x, np.ndarray) and not isinstance(x, np.ma.MaskedArray)):
        return _pack_array(np.asarray(x), path, out)
    return _refuse(kind.__name__, path, "an array, a dict with string names, or bytes")


def _pack_dict(x: Mapping[str, Any], path: tuple[str, ...], out: _Buffers) -> _Node:
    if len(path) > DEPTH:
        raise ConfigError(f"A Tree may nest {DEPTH} deep. Got more at '{'.'.join(path[:4])}...'. Flatten it.")
    items = {}
    for k, v in x.items():
        if not isinstance(k, str):
            _refuse(f"the name {k!r:.40}", path, "string names")
        items[k] = _pack(v, (*path, k), out)
    return _Node(items)


def _pack_array(x: Array, path: tuple[str, ...], out: _Buffers) -> Ext:
    code = _CODES.get(x.dtype)
    if code is None:
        name = x.dtype.name
        code = DTYPES.index(name) if name in DTYPES else _refuse(f"an array of {name}", path, "astype")
    out.append((x, x.nbytes))
    return Ext(code, _DIMS[x.ndim].pack(*x.shape))


def _pack_long(x: bytes, code: int, out: _Buffers) -> Ext:
    out.append((x, len(x)))
    return Ext(code, _LENGTH.pack(len(x)))


def _refuse(got: str, path: tuple[str, ...], instead: str) -> NoReturn:
    raise ConfigError(
        f"A leaf must be an array of {', '.join(DTYPES)}; a str, bytes, bool, float, None, or an int of 64 bits. "
        f"Got {got} at '{'.'.join(path)}'. Use {instead}."
    )


def _join(head: bytes, buffers: _Buffers) -> bytes:
    pieces: list[Any] = [_START.pack(_MAGIC, VERSION, len(head)), head]
    at = _START.size + len(head)
    for x, n in buffers:
        gap = -at % _ALIGN
        pieces += (bytes(gap), x if isinstance(x, bytes) else _raw(x))
        at += gap + n
    return b"".join(pieces)


def _raw(x: Array) -> Array:
    if x.dtype.isbuiltin == 2:  # bfloat16 comes from another package and exports no buffer of its own
        x = x.view(np.uint16)
    return np.ascontiguousarray(x, x.dtype.newbyteorder("<"))


def _read(data: bytes | bytearray | memoryview, most: int) -> Message:
    """From here on, everything was said by a stranger."""
    whole = data if type(data) is bytes else bytes(memoryview(data))
    head, start = _read_head(whole, most)
    reader = _Reader(whole, start)
    value, weight = reader.tree(head.value), reader.tree(head.weight)
    if reader.at != len(whole):
        raise WireError(f"A message must be as long as its header declares, {reader.at} bytes. Got {len(whole)}.")
    body = Contribution(head.kind, value, weight, head.metrics, head.sender)
    return body if head.cover is None else _uncover(head.cover, body)


def _read_head(data: bytes, most: int) -> tuple[_Head, int]:
    if len(data) < _START.size:
        raise WireError(f"A message must have at least {_START.size} bytes. Got {len(data)}.")
    magic, version, length = _START.unpack_from(data)
    if magic != _MAGIC:
        raise WireError(f"A message must begin with {_MAGIC!r}. Got {magic!r}.")
    if version != VERSION:
        raise WireError(f"The wire version must be {VERSION}. Got {version}. Use one version of comity everywhere.")
    end = _START.size + length
    if length > most or end > len(data):
        raise WireError(f"The header must have at most {min(most, len(data) - _START.size)} bytes. Got {length}.")
    try:
        return _decode(memoryview(data)[_START.size : end]), end
    except (msgspec.MsgspecError, ValueError, RecursionError) as e:
        raise WireError(f"The header must be that of a message. Got {str(e)[:200]}.") from e


def _uncover(cover: _Cover, body: Contribution) -> Envelope:
    receipt = Receipt(*cover.receipt) if cover.receipt else None
    return Envelope(Round(*cover.round), cover.phase, cover.sender, cover.recipe, body, receipt, cover.signature)


class _Reader:
    """A place in the buffers that moves on leaf by leaf and never past the end."""

    __slots__ = ("at", "data")

    def __init__(self, data: bytes, at: int) -> None:
        self.data, self.at = data, at

    def tree(self, x: _Leaf, level: int = 1) -> Any:
        if type(x) is Ext:
            return self.leaf(x.code, bytes(x.data))
        if type(x) is _Node:
            if level > DEPTH:
                raise WireError(f"A Tree may nest {DEPTH} deep. Got more.")
            return {k: self.tree(v, level + 1) for k, v in x.items.items()}
        return x

    def leaf(self, code: int, said: bytes) -> Any:
        if 0 <= code < len(DTYPES):
            return self.array(code, said)
        if code == _BYTES:
            return said
        if code not in (_LONG_BYTES, _LONG_TEXT) or len(said) != _LENGTH.size:
            raise WireError(f"A leaf must be of a known type. Got code {code} with {len(said)} bytes.")
        start = self.take(_LENGTH.unpack(said)[0])
        found = self.data[start : self.at]
        try:
            return found if code == _LONG_BYTES else found.decode()
        except UnicodeDecodeError as e:
            raise WireError(f"Text must be UTF-8. Got {e}.") from e

    def array(self, code: int, said: bytes) -> Array:
        n, rest = divmod(len(said), 8)
        if rest or n >= len(_DIMS):
            raise WireError(f"A shape must have at most {len(_DIMS) - 1} axes of 8 bytes. Got {len(said)} bytes.")
        shape = _DIMS[n].unpack(said)
        dtype = _LITTLE.get(code) or _bfloat16()
        count = prod(shape)
        start = self.take(count * dtype.itemsize)
        try:
            x: Array = np.ndarray(shape, dtype, self.data, start)
        except ValueError as e:
            raise WireError(f"A shape must be one that numpy can hold. Got {shape}: {e}.") from e
        if code == 0 and count and x.view(np.uint8).max() > 1:
            raise WireError("A bool must be 0 or 1. Got another byte.")
        return x

    def take(self, n: int) -> int:
        """Where the next n bytes begin."""
        start = self.at + -self.at % _ALIGN
        if n < 0 or start + n > len(self.data):
            raise WireError(f"Buffers must hold what the header declares. Got {len(self.data) - self.at} of {n} bytes.")
        if start != self.at and any(self.data[self.at : start]):
            raise WireError("Between buffers must be zeros. Got other bytes.")
        self.at = start + n
        return start


def _bfloat16() -> np.dtype[Any]:
    try:
        return np.dtype("bfloat16")
    except TypeError:
        raise WireError("An array of bfloat16 needs a package with that dtype. Got none. Import ml_dtypes.") from None
