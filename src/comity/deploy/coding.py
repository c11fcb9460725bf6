"""Numbers of a ticket as few bytes: int8 with a scale for each block, bfloat16, float32; bytes lie by their place."""

import numpy as np

from comity.compress.coding import from_bfloat16, to_bfloat16
from comity.core.contribution import Array

BLOCK, LEVELS = 64, 127
LARGEST = 0x7F7F
"""The greatest finite bfloat16, and so the greatest magnitude that a ticket may hold."""
WIDTHS = {"int8": 1, "bfloat16": 2, "float32": 4}


def blocks(n: int) -> int:
    """How many blocks `n` numbers make."""
    return -(-n // BLOCK)


def to_int8(x: Array) -> tuple[Array, Array]:
    """Whole numbers of -127 to 127, and a scale for each block of 64, as the bits of a bfloat16.

    The scale is the greatest magnitude of its block over 127, rounded up, so that every number comes back within half
    a scale of what it was.

    Args:
        x: (n,) float32, finite.

    Example:
        >>> whole, scale = to_int8(np.array([63.4, -127.0, 0.0], np.float32))
        >>> from_int8(whole, scale).tolist()
        [63.0, -127.0, 0.0]
    """
    padded = np.zeros(blocks(x.size) * BLOCK, np.float64)
    padded[: x.size] = x
    table = padded.reshape(-1, BLOCK)
    top = np.abs(table).max(1)
    scale = np.maximum(to_bfloat16((top / LEVELS).astype(np.float32), up=True), top > 0).astype(np.uint16)
    step = from_bfloat16(scale).astype(np.float64)[:, None]
    whole = np.rint(np.divide(table, step, out=np.zeros_like(table), where=step > 0))
    return np.clip(whole, -LEVELS, LEVELS).astype(np.int8).reshape(-1)[: x.size], scale


def from_int8(whole: Array, scale: Array) -> Array:
    """(n,) float32: each number times the scale of its block."""
    out: Array = whole.astype(np.float32) * np.repeat(from_bfloat16(scale), BLOCK)[: whole.size]
    return out


def to_planes(x: Array) -> bytes:
    """All first bytes, then all second ones: exponents lie beside exponents, which deflates better."""
    little = np.ascontiguousarray(x, x.dtype.newbyteorder("<"))
    return little.view(np.uint8).reshape(-1, x.dtype.itemsize).T.tobytes()


def from_planes(data: bytes, dtype: str) -> Array:
    """The numbers that `to_planes` laid out."""
    width = np.dtype(dtype).itemsize
    rows = np.frombuffer(data, np.uint8).reshape(width, -1).T
    return np.ascontiguousarray(rows).view(np.dtype(dtype).newbyteorder("<")).reshape(-1).astype(dtype)
