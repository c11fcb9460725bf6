"""The buffers of a message, read leaf by leaf as its header declares them. Everything was said by a stranger."""

from math import prod
from mmap import mmap
from typing import Any

import numpy as np
from msgspec.msgpack import Ext

from comity.core.contribution import Array
from comity.core.errors import WireError
from comity.core.header import (
    ALIGN,
    BYTES,
    CODES,
    DEPTH,
    DIMS,
    DTYPES,
    LENGTH,
    LONG_BYTES,
    LONG_TEXT,
    SHORT,
    Leaf,
    Node,
)

_LITTLE = {code: dtype.newbyteorder("<") for dtype, code in CODES.items()}


class Reader:
    """A place in the buffers that moves on leaf by leaf and never past the end."""

    __slots__ = ("at", "data")

    def __init__(self, data: bytes | mmap, at: int) -> None:
        self.data, self.at = data, at

    def tree(self, x: Leaf, level: int = 1) -> Any:
        """What the header says of a Tree, with its buffers."""
        if type(x) is Ext:
            return self.leaf(x.code, bytes(x.data))
        if type(x) is Node:
            if level > DEPTH:
                raise WireError(f"A Tree may nest {DEPTH} deep. Got more.")
            return {k: self.tree(v, level + 1) for k, v in x.items.items()}
        if type(x) is str and len(x) >= SHORT:
            raise WireError(f"Text of {SHORT} characters or more must be in a buffer. Got {len(x)} in the header.")
        return x

    def leaf(self, code: int, said: bytes) -> Any:
        """An array, bytes or a long text."""
        if 0 <= code < len(DTYPES):
            return self.array(code, said)
        if code == BYTES and len(said) < SHORT:
            return said
        if code not in (LONG_BYTES, LONG_TEXT) or len(said) != LENGTH.size:
            raise WireError(f"A leaf must be of a known type. Got code {code} with {len(said)} bytes.")
        start = self.take(LENGTH.unpack(said)[0])
        found = self.data[start : self.at]
        try:
            long = found if code == LONG_BYTES else found.decode()
        except UnicodeDecodeError as e:
            raise WireError(f"Text must be UTF-8. Got {e}.") from e
        if len(long) < SHORT:
            raise WireError(f"Text and bytes in a buffer must be {SHORT} or more. Got {len(long)}.")
        return long

    def array(self, code: int, said: bytes) -> Array:
        """A view of the message, whatever its shape says no larger than that."""
        n, rest = divmod(len(said), 8)
        if rest or n >= len(DIMS):
            raise WireError(f"A shape must have at most {len(DIMS) - 1} axes of 8 bytes. Got {len(said)} bytes.")
        shape = DIMS[n].unpack(said)
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
        start = self.at + -self.at % ALIGN
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
