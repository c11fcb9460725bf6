"""Deflate: the whole Tree as one compressed piece, both ways, without loss."""

import struct
import zlib
from collections import Counter
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np

from comity.compress.coding import Same, strange
from comity.core.checks import refusal, whole
from comity.core.contribution import Contribution, Tree, View
from comity.core.errors import ContributionError, WireError
from comity.core.parts import Secret
from comity.core.round import Round
from comity.core.tree import leaves
from comity.core.wire import decode, encode

_HEAD = struct.Struct("<BQ")
_FRONT, _PIECE, _PAYS, _RATIO = 8, 2**12, 0.95, 1032
"""How a wire message begins; a piece of it that tells how it shrinks; when the slow way pays; the most that DEFLATE can
shrink."""


@dataclass(frozen=True)
class Deflate:
    """Value and weight travel as one piece of zlib bytes; every bit arrives.

    It pays after `Quantize`, `QSGD` or `Half`; plain float32 shrinks by a fifth or less. Numbers of several bytes are
    cut into planes first (all their first bytes, then all their second ones), as their high bytes are alike. It stands
    last among the transforms, and needs a channel that shows each contribution.

    Attributes:
        level: 0 (none) to 9 (slowest), as zlib has it.
        most: bytes that a message may have before it is compressed, >= 1. Where strangers send, set it near the size of
            your model: what says that it is longer is refused before any memory is taken for it.

    Raises:
        ConfigError: a setting out of range.

    Example:
        >>> import numpy as np, comity as co
        >>> codec, here = co.Deflate(), co.Round(run="", seed=0)
        >>> c = co.Contribution("delta", {"w": np.zeros((100, 100), "float32")})
        >>> told, drawer = codec.encode(c, None, {}, here, None)
        >>> len(told.value) < 200, codec.decode(told, None, here, None)[0].value["w"].shape
        (True, (100, 100))
    """

    level: int = 6
    most: int = 2**28
    decodes: ClassVar[View] = "each"
    contracts: ClassVar[bool] = True
    lossless: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "level", whole("level", "Deflate", self.level, 0))
        if self.level > 9:
            raise refusal("level", "Deflate", "from 0 to 9", self.level, "Use 6, for one.")
        object.__setattr__(self, "most", whole("most", "Deflate", self.most, 1))

    def init(self) -> Tree:
        """No state."""
        return None

    def pack(self, c: Contribution, state: Any, to: str, round: Round) -> Contribution:
        """At the hub: what goes down, compressed."""
        return replace(c, value=_packed(self, round, Same(c.value), Same(c.weight)), weight=1.0)

    def unpack(self, c: Contribution, local: Any, round: Round) -> tuple[Contribution, Tree]:
        """At the site: as it was.

        Raises:
            ContributionError: nothing that `pack` writes.
        """
        return self._read(c), local

    def encode(
        self, c: Contribution, public: Tree, local: Any, round: Round, secret: Secret
    ) -> tuple[Contribution, Tree]:
        """At the site: what goes up, compressed.

        Raises:
            ContributionError: more than `most` bytes.
        """
        return replace(c, value=self._deflated(c.value, c.weight), weight=1.0), local

    def decode(self, c: Contribution, state: Any, round: Round, secret: Secret) -> tuple[Contribution, Any]:
        """At the hub: as it was.

        Raises:
            ContributionError: nothing that `encode` writes, or more than `most` bytes.
        """
        return self._read(c), state

    def _deflated(self, value: Any, weight: Any) -> bytes:
        plain = encode(Contribution("", value, weight))
        self._fits(len(plain))
        width = _width(value, weight)
        front = _front(plain)
        data = plain[:front] + _planes(plain[front:], width)
        return _HEAD.pack(width, len(data)) + _smallest(data, self.level)

    def _read(self, c: Contribution) -> Contribution:
        blob: Any = c.value
        if not isinstance(blob, bytes) or len(blob) < _HEAD.size:
            raise strange("Deflate", f"be {_HEAD.size} bytes or more", blob)
        width, length = _HEAD.unpack_from(blob)
        self._fits(length)
        if width not in (1, 2, 4, 8) or length > _RATIO * len(blob) or length < _FRONT:
            raise strange("Deflate", "say how long it is", f"{length} bytes of width {width} from {len(blob)}")
        data = _inflated(memoryview(blob)[_HEAD.size :], length)
        front = _front(data)
        try:
            told: Any = decode(data[:front] + _joined(data[front:], width))
        except WireError as error:
            raise ContributionError(f"What Deflate reads must hold a message. {error}") from None
        if not isinstance(told, Contribution) or told.kind or told.sender or told.metrics:
            raise strange("Deflate", "hold a value and a weight and nothing else", "more")
        return replace(c, value=told.value, weight=told.weight)

    def _fits(self, n: int) -> None:
        if n > self.most:
            said = (
                f"What Deflate takes must have at most {self.most} bytes. Got {n}. Use Deflate(most=...) on both sides."
            )
            raise ContributionError(said)


@lru_cache(maxsize=1)
def _packed(codec: Deflate, round: Round, value: Same, weight: Same) -> bytes:
    return codec._deflated(value.thing, weight.thing)


def _smallest(data: bytes, level: int) -> bytes:
    """By runs and frequencies, as suits noise, and quickly; by repetitions where pieces of it tell that they pay."""
    step = max(len(data) // 8, _PIECE)
    pieces = b"".join(data[i : i + _PIECE] for i in range(0, len(data), step))
    runs, repeats = (len(_zlib(pieces, level, way)) for way in (zlib.Z_RLE, zlib.Z_DEFAULT_STRATEGY))
    return _zlib(data, level, zlib.Z_DEFAULT_STRATEGY if repeats < _PAYS * runs else zlib.Z_RLE)


def _zlib(data: bytes, level: int, way: int) -> bytes:
    maker = zlib.compressobj(level, zlib.DEFLATED, zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, way)
    return maker.compress(data) + maker.flush()


def _inflated(blob: memoryview, length: int) -> bytes:
    """Exactly `length` bytes, from anybody."""
    reader = zlib.decompressobj()
    try:
        data = reader.decompress(blob, length + 1)
    except zlib.error as error:
        raise strange("Deflate", "be zlib bytes", str(error)) from None
    if len(data) != length or not reader.eof or reader.unused_data:
        raise strange("Deflate", f"hold the {length} bytes that it declares", "another number")
    return data


def _width(*trees: Any) -> int:
    """The bytes of a number, where most of the Trees' bytes are such numbers."""
    found: Counter[int] = Counter()
    for tree in trees:
        for _, x in leaves(tree):
            if isinstance(x, np.ndarray):
                found[x.itemsize] += x.nbytes
    return max(found, key=lambda size: (found[size], -size), default=1)


def _front(plain: bytes) -> int:
    """Where the buffers of a wire message begin: what lies before is text."""
    n = _FRONT + int.from_bytes(plain[4:8], "little")
    return min(n + -n % 8, len(plain))


def _planes(data: bytes, width: int) -> bytes:
    """The first bytes of all numbers, then the second ones, and so on; what is left over at the end."""
    n = len(data) // width
    cells = np.frombuffer(data, np.uint8, n * width).reshape(n, width)
    return cells.T.tobytes() + data[n * width :]


def _joined(data: bytes, width: int) -> bytes:
    """What `_planes` cut."""
    n = len(data) // width
    cells = np.frombuffer(data, np.uint8, n * width).reshape(width, n)
    return cells.T.tobytes() + data[n * width :]
