"""Lists of names, sets of positions and rows of equal length as bytes, and fields of messages from anybody."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from comity.core.errors import ChannelError


def pack(names: Sequence[str]) -> bytes:
    """Names as bytes: each as UTF-8 behind its length, 4 bytes little-endian.

    Example:
        >>> unpack(pack(["ann", "bo"]))
        ['ann', 'bo']
    """
    held = (name.encode() for name in names)
    return b"".join(len(n).to_bytes(4, "little") + n for n in held)


def unpack(data: bytes) -> list[str]:
    """The names again.

    Raises:
        ChannelError: these bytes are no list of names.
    """
    out, at = [], 0
    while at < len(data):
        end = at + 4 + int.from_bytes(data[at : at + 4], "little")
        if end > len(data):
            raise ChannelError("A list of names must be whole. Got one that ends early.")
        try:
            out.append(data[at + 4 : end].decode())
        except UnicodeDecodeError:
            raise ChannelError("A name must be UTF-8. Got other bytes.") from None
        at = end
    return out


def bitmap(positions: Collection[int], n: int) -> bytes:
    """A set of positions in 0..n-1: bit i of byte i // 8, the least first.

    Example:
        >>> bitmap({0, 9}, 10).hex(), sorted(members(bitmap({0, 9}, 10), 10))
        ('0102', [0, 9])
    """
    flags = np.zeros(n, bool)
    flags[list(positions)] = True
    return np.packbits(flags, bitorder="little").tobytes()


def members(data: bytes, n: int) -> frozenset[int]:
    """The positions again.

    Raises:
        ChannelError: another length, or somebody beyond the last position.
    """
    flags = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
    if len(data) != -(-n // 8) or flags[n:].any():
        raise ChannelError(f"A list of members must be of the {n} in the cohort. It names a stranger.")
    return frozenset(np.flatnonzero(flags).tolist())


def rows(data: bytes, size: int) -> list[bytes]:
    """Bytes in rows of `size`.

    Raises:
        ChannelError: the last row is not whole.
    """
    if len(data) % size:
        raise ChannelError(f"Rows must be of {size} bytes each. Got {len(data)} bytes.")
    return [data[i : i + size] for i in range(0, len(data), size)]


def field(value: Any, name: str, size: int | None = None) -> bytes:
    """The bytes that a message holds under `name`.

    Raises:
        ChannelError: there are none, or they are of another length.
    """
    data = value.get(name) if isinstance(value, Mapping) else None
    if not isinstance(data, bytes):
        raise ChannelError(f"The message must hold '{name}', bytes. Got none.")
    if size is not None and len(data) != size:
        raise ChannelError(f"'{name}' must be {size} bytes. Got {len(data)}.")
    return data
