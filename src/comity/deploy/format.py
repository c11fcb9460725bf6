"""A ticket as the bytes of a file, and back. Nothing is unpickled, and nothing is made that is only declared.

    4 bytes    b"cmtk"
    1 byte     version
    4 bytes    length of the header, little-endian
    header     deflated: the Tree {"leaves", "metrics", "model", "rest", "values"} as `wire.encode_tree` writes it
    body       deflated: masks, scales, values of the kept numbers, the rest; each leaf by leaf in order of names
    32 bytes   sha256 of all before

A leaf of the header is "64x32x3x3 1106 584": shape, kept numbers, bytes of its mask; or "64", the shape of one that is
kept whole. From it follows how long the body is once inflated, and it is inflated no further.
"""

import hashlib
import struct
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, NoReturn

import numpy as np

from comity.compress.coding import from_bfloat16, to_bfloat16
from comity.core.contribution import Array
from comity.core.errors import WireError
from comity.core.positions import decode_mask, encode_mask
from comity.core.wire import decode_tree, encode_tree
from comity.deploy.coding import LARGEST, LEVELS, WIDTHS, blocks, from_int8, from_planes, to_int8, to_planes

MAGIC, VERSION, START, END = b"cmtk", 1, struct.Struct("<4sBI"), 32
HEADER_MOST, LIMIT, AXES = 2**22, 2**30, 32
STRATEGIES = (zlib.Z_DEFAULT_STRATEGY, zlib.Z_FILTERED, zlib.Z_HUFFMAN_ONLY)
_KEYS = ["leaves", "metrics", "model", "rest", "values"]


@dataclass(frozen=True)
class Contents:
    """What a file holds: parameters, masks, and how their numbers are written."""

    params: Mapping[str, Array]
    mask: Mapping[str, Array]
    model: str
    metrics: Mapping[str, float]
    values: str
    rest: str


@dataclass(frozen=True)
class Told:
    """What the header says of a leaf; `kept` and `coded` are None where it is kept whole."""

    name: str
    shape: tuple[int, ...]
    kept: int | None = None
    coded: int | None = None

    @property
    def size(self) -> int:
        """How many numbers the dense leaf has."""
        return prod(self.shape)

    def __str__(self) -> str:
        shape = "x".join(map(str, self.shape))
        return shape if self.kept is None else f"{shape} {self.kept} {self.coded}"


def encode(c: Contents) -> bytes:
    """The bytes of a file; of three ways to deflate the body the shortest."""
    masks = {name: encode_mask(c.mask[name]) for name in sorted(c.mask)}
    told = [_told(name, c, masks.get(name)) for name in sorted(c.params)]
    kept = [c.params[name][c.mask[name]] for name in masks]
    rest = _joined(c.params[t.name].ravel() for t in told if t.kept is None)
    sections = [b"".join(masks.values()), *_values(kept, c.values), _plain(rest, c.rest)]
    header = {"leaves": {t.name: str(t) for t in told}, "metrics": dict(c.metrics), "model": c.model}
    head = zlib.compress(encode_tree({**header, "rest": c.rest, "values": c.values}), 9)
    body = min((_deflated(sections, way) for way in STRATEGIES), key=len)
    whole = START.pack(MAGIC, VERSION, len(head)) + head + body
    return whole + hashlib.sha256(whole).digest()


def decode(data: bytes, limit: int = LIMIT) -> Contents:
    """What a file holds, from anybody.

    Args:
        data: the whole file.
        limit: the most bytes that the dense parameters may take, at 4 for each number.

    Raises:
        WireError: the bytes are no ticket, damaged, forged, of another version, or too large.
    """
    header, body = _opened(data)
    told = [_read(name, said) for name, said in header["leaves"].items()]
    numbers = sum(prod(max(1, d) for d in t.shape) for t in told)
    if 4 * numbers > limit:
        raise WireError(f"A ticket must take at most {limit} bytes. Got one of {4 * numbers}. Give a larger limit.")
    for t in told:
        if t.kept is not None and not (0 <= t.kept <= t.size and 0 < t.coded <= 2 + t.size // 8):  # type: ignore[operator]
            damaged(f"'{t.name}' with {t.kept} kept numbers in {t.coded} bytes")
    masked = [t for t in told if t.kept is not None]
    lengths = _lengths(told, masked, header["values"], header["rest"])
    raw = _inflated(body, sum(lengths))
    ends = np.cumsum(lengths).tolist()
    parts = [raw[end - n : end] for n, end in zip(lengths, ends, strict=True)]
    mask = _masks(parts[0], masked)
    params = dict(zip((t.name for t in masked), _dense(parts[1:-1], masked, mask, header["values"]), strict=True))
    whole = [t for t in told if t.kept is None]
    params |= _split(_unplain(parts[-1], header["rest"]), whole)
    ordered = {t.name: params[t.name] for t in told}
    return Contents(ordered, mask, header["model"], header["metrics"], header["values"], header["rest"])


def damaged(got: str) -> NoReturn:
    """Refuse a file."""
    raise WireError(f"A ticket file must be as it was written. Got {got}. Copy it anew.")


def _told(name: str, c: Contents, coded: bytes | None) -> Told:
    shape = c.params[name].shape
    return Told(name, shape) if coded is None else Told(name, shape, int(c.mask[name].sum()), len(coded))


def _joined(parts: Iterable[Array]) -> Array:
    return np.concatenate([np.zeros(0, np.float32), *parts])


def _values(kept: list[Array], kind: str) -> list[bytes]:
    """The section of the scales and that of the values."""
    if kind != "int8":
        return [b"", _plain(_joined(kept), kind)]
    coded = [to_int8(x) for x in kept]
    scales = np.concatenate([np.zeros(0, np.uint16), *(s for _, s in coded)])
    return [to_planes(scales), b"".join(q.tobytes() for q, _ in coded)]


def _plain(x: Array, kind: str) -> bytes:
    return to_planes(to_bfloat16(x) if kind == "bfloat16" else x)


def _deflated(sections: list[bytes], way: int) -> bytes:
    """One stream; each section has a code of its own, as they are distributed unlike each other."""
    packer = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS, 9, way)
    return b"".join([*(packer.compress(s) + packer.flush(zlib.Z_BLOCK) for s in sections if s), packer.flush()])


def _opened(data: bytes) -> tuple[dict[str, Any], bytes]:
    """The header, and the deflated body; from here on everything was said by a stranger."""
    if len(data) < START.size + END or data[:4] != MAGIC:
        damaged(f"{len(data)} bytes that do not begin as one")
    _, version, length = START.unpack_from(data)
    if version != VERSION:
        raise WireError(f"The version of a ticket file must be {VERSION}. Got {version}. Use the comity that wrote it.")
    if hashlib.sha256(data[:-END]).digest() != data[-END:]:
        damaged("another sha256 than it says")
    at = START.size + length
    if at > len(data) - END:
        damaged(f"a header of {length} bytes")
    return _header(data[START.size : at]), data[at:-END]


def _header(coded: bytes) -> dict[str, Any]:
    raw = _inflated(coded, HEADER_MOST, exact=False)
    try:
        header = decode_tree(raw)
    except WireError as error:
        raise WireError(f"The header of a ticket file must be a Tree. Got this: {error} Copy it anew.") from error
    if not isinstance(header, dict) or list(header) != _KEYS:
        damaged("other fields in its header")
    leaves, metrics = header["leaves"], header["metrics"]
    if not isinstance(leaves, dict) or list(leaves) != sorted(leaves) or not isinstance(metrics, dict):
        damaged("leaves that are in no order")
    kinds = [x if isinstance(x, str) else "" for x in (header["values"], header["rest"])]
    if kinds[0] not in WIDTHS or kinds[1] not in ("bfloat16", "float32"):
        damaged("numbers of an unknown kind")
    return header


def _read(name: str, said: Any) -> Told:
    """A leaf of the header; there is one way to write it."""
    try:
        shape, *counts = str(said).split(" ")
        axes = tuple(map(int, shape.split("x"))) if shape else ()
        told = Told(name, axes, *map(int, counts))
    except (ValueError, TypeError):
        damaged(f"'{name:.60}' of no shape")
    if str(told) != said or len(counts) not in (0, 2) or len(axes) > AXES or min(axes, default=0) < 0:
        damaged(f"'{name:.60}' of no shape")
    return told


def _lengths(told: list[Told], masked: list[Told], values: str, rest: str) -> list[int]:
    """The bytes of each section."""
    kept = [t.kept or 0 for t in masked]
    scales = 2 * sum(map(blocks, kept)) if values == "int8" else 0
    left = sum(t.size for t in told if t.kept is None)
    return [sum(t.coded or 0 for t in masked), scales, WIDTHS[values] * sum(kept), WIDTHS[rest] * left]


def _inflated(coded: bytes, n: int, *, exact: bool = True) -> bytes:
    """Exactly, or at most, `n` bytes; no more are made."""
    unpacker = zlib.decompressobj()
    try:
        raw = unpacker.decompress(coded, n + 1)
    except zlib.error:
        damaged("what cannot be inflated")
    if not unpacker.eof or unpacker.unused_data or len(raw) > n or (exact and len(raw) != n):
        damaged(f"a part that does not inflate to {n} bytes")
    return raw


def _masks(coded: bytes, masked: list[Told]) -> dict[str, Array]:
    out, at = {}, 0
    for t in masked:
        n = t.coded or 0
        try:
            out[t.name] = decode_mask(coded[at : at + n], t.size).reshape(t.shape)
        except WireError as error:
            raise WireError(f"The mask of '{t.name}' must be as it was written. Got this: {error}") from error
        if int(out[t.name].sum()) != t.kept:
            damaged(f"'{t.name}' with another number of kept numbers than {t.kept}")
        at += n
    return out


def _dense(parts: list[bytes], masked: list[Told], mask: dict[str, Array], kind: str) -> list[Array]:
    scales, coded = parts
    kept = np.cumsum([0, *(t.kept or 0 for t in masked)]).tolist()
    if kind == "int8":
        steps, whole = from_planes(scales, "uint16"), np.frombuffer(coded, np.int8)
        if (steps > LARGEST).any() or (whole < -LEVELS).any():
            damaged("a scale or a value out of range")
        cuts = np.cumsum([0, *(blocks(t.kept or 0) for t in masked)]).tolist()
        found = [from_int8(whole[kept[i] : kept[i + 1]], steps[cuts[i] : cuts[i + 1]]) for i in range(len(masked))]
    else:
        values = _unplain(coded, kind)
        found = [values[kept[i] : kept[i + 1]] for i in range(len(masked))]
    out = []
    for t, values in zip(masked, found, strict=True):
        leaf = np.zeros(t.shape, np.float32)
        leaf[mask[t.name]] = values
        out.append(leaf)
    return out


def _unplain(data: bytes, kind: str) -> Array:
    return from_bfloat16(from_planes(data, "uint16")) if kind == "bfloat16" else from_planes(data, "float32")


def _split(values: Array, whole: list[Told]) -> dict[str, Array]:
    ends = np.cumsum([0, *(t.size for t in whole)]).tolist()
    return {t.name: values[ends[i] : ends[i + 1]].reshape(t.shape) for i, t in enumerate(whole)}
