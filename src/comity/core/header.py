"""The header of a message: what may stand in it, and the one way to write it."""

import struct
from mmap import mmap
from typing import Any, TypeAlias

import msgspec
import numpy as np
from msgspec.msgpack import Ext

from comity.core.envelope import VERSION
from comity.core.errors import WireError

LIMIT, HEADER_LIMIT, DEPTH = 2**30, 2**22, 64
"""The most bytes of a message, of its header (a state on disk may have a longer one), and how deep Trees may nest."""
_TABLE = "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 bfloat16 float32 float64"
DTYPES = tuple(_TABLE.split())
"""What an array may hold; the place in this table is the code on the wire."""
CODES = {np.dtype(name): code for code, name in enumerate(DTYPES) if name != "bfloat16"}
BYTES, LONG_BYTES, LONG_TEXT = 64, 65, 66
"""Codes of what is no array: bytes in the header, and bytes and text in a buffer."""
MAGIC, ALIGN, SHORT, ANY_HEADER = b"cmy", 8, 1024, 2**32 - 1
"""How a message begins; where buffers may; what is shorter stands in the header; no limit for that."""
START = struct.Struct("<3sBI")
LENGTH = struct.Struct("<Q")
DIMS = tuple(struct.Struct(f"<{n}q") for n in range(65))

Leaf: TypeAlias = "Node | Ext | str | bool | int | float | None"
_RoundRow: TypeAlias = tuple[str, int, int, int, str, str, int, int, float, int | None]


class Node(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """A dict, in a list of its own so that it is told from everything else."""

    items: "dict[str, Node | Ext | str | bool | int | float | None]"


class Cover(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """What an envelope adds to its body."""

    round: _RoundRow
    phase: str
    sender: str
    recipe: str
    receipt: tuple[int, int, bool] | None
    signature: bytes


class Head(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """The whole header; what is long or an array is only described."""

    kind: str
    value: "Node | Ext | str | bool | int | float | None"
    weight: "Node | Ext | str | bool | int | float | None"
    metrics: dict[str, tuple[float, float]]
    sender: str
    cover: Cover | None


def _number(x: Any) -> Any:
    if isinstance(x, np.generic):
        return x.item()
    raise TypeError(f"'{x!r:.40}' of type {type(x).__name__}")


write_header = msgspec.msgpack.Encoder(enc_hook=_number).encode
_decode = msgspec.msgpack.Decoder(Head).decode


def read_header(data: bytes | mmap, most: int) -> tuple[Head, int]:
    """The header of a message from anybody, and where it ends.

    Raises:
        WireError: it is none, or it is not written as `write_header` writes it.
    """
    if len(data) < START.size:
        raise WireError(f"A message must have at least {START.size} bytes. Got {len(data)}.")
    magic, version, length = START.unpack_from(data)
    if magic != MAGIC:
        raise WireError(f"A message must begin with {MAGIC!r}. Got {magic!r}.")
    if version != VERSION:
        raise WireError(f"The wire version must be {VERSION}. Got {version}. Use one version of comity everywhere.")
    end = START.size + length
    if length > most or end > len(data):
        raise WireError(f"The header must have at most {min(most, len(data) - START.size)} bytes. Got {length}.")
    said = memoryview(data)[START.size : end]
    try:
        head = _decode(said)
        again = write_header(head)
    except (msgspec.MsgspecError, ValueError, RecursionError) as e:
        raise WireError(f"The header must be that of a message. Got {str(e)[:200]}.") from e
    if again != said:
        raise WireError(f"A header must be written in the one way that encode does. Got another, of {length} bytes.")
    return head, end
