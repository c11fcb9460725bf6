"""What travels between hub and site: the header of a message, which names its body by sha256, and the body where small.

    4 bytes   length of the header, little-endian
    header    an Envelope whose body is {"sha256", "size", "asked"}, with the hub's signature on the way down
    body      the Contribution, where it has at most `INLINE` bytes; a larger one is fetched or sent by its sha256

What is asked of many is then one body and many small headers. "asked" is "" on the way down, and the sha256 of the
question on the way up: an answer names what it answers.
"""

import struct
from dataclasses import replace
from hashlib import sha256
from typing import Any, NamedTuple

from comity.core.contribution import Contribution
from comity.core.envelope import Envelope
from comity.core.errors import WireError
from comity.core.parts import Secret
from comity.core.wire import Data, decode, encode

INLINE = 2**18
HEADER = 2**16
"""The most bytes of a body that travels with its header, and of a header."""
_LENGTH = struct.Struct("<I")


class Ref(NamedTuple):
    """A body by its sha256 (hex), its bytes, and the sha256 of the question that it answers."""

    sha: str
    size: int
    asked: str


class Packet(NamedTuple):
    """A header as bytes, what it says, and the body where it travels with it."""

    header: bytes
    said: Envelope
    ref: Ref
    body: bytes | None


def header(message: Envelope, body: bytes, *, asked: str = "", secret: Secret | None = None) -> tuple[bytes, Ref]:
    """The header of a message, signed where there is a secret."""
    ref = Ref(sha256(body).hexdigest(), len(body), asked)
    return header_of(message, ref, secret), ref


def header_of(message: Envelope, ref: Ref, secret: Secret | None = None) -> bytes:
    """As `header`, for a body whose sha256 is known."""
    named = Contribution("ref", {"sha256": ref.sha, "size": ref.size, "asked": ref.asked})
    bare = encode(replace(message, body=named, signature=b""))
    return bare if secret is None else encode(replace(message, body=named, signature=secret.sign(bare)))


def joined(head: bytes, ref: Ref, body: bytes) -> bytes:
    """Header and, where it is small, body."""
    return _LENGTH.pack(len(head)) + head + (body if ref.size <= INLINE else b"")


def read(data: bytes) -> Packet:
    """What somebody sent.

    Raises:
        WireError: it is no packet, or its body is not the one that the header names.
    """
    if len(data) < _LENGTH.size:
        raise WireError("A packet must begin with its length. Got fewer bytes.")
    (length,) = _LENGTH.unpack_from(data)
    head, body = data[_LENGTH.size : _LENGTH.size + length], data[_LENGTH.size + length :]
    if not 0 < length == len(head) <= HEADER:
        raise WireError(f"A packet must hold a header of at most {HEADER} bytes. Got {length}.")
    said = decode(head)
    if not isinstance(said, Envelope):
        raise WireError("The header of a packet must be an envelope. Got another message.")
    ref = _ref(said.body)
    inline = body if ref.size <= INLINE else None
    if (inline is None and body) or (
        inline is not None and (len(body), sha256(body).hexdigest()) != (ref.size, ref.sha)
    ):
        raise WireError("The body of a packet must be the one that its header names. Got another.")
    return Packet(head, said, ref, inline)


def opened(said: Envelope, body: Data) -> Envelope:
    """The message whole.

    Raises:
        WireError: the body is no contribution.
    """
    whole = decode(body)
    if not isinstance(whole, Contribution):
        raise WireError("A body must be a contribution. Got an envelope.")
    return replace(said, body=whole)


def bare(said: Envelope) -> bytes:
    """The bytes that the hub signed."""
    return encode(replace(said, signature=b""))


def _ref(body: Contribution) -> Ref:
    value: Any = body.value
    try:
        ref = Ref(value["sha256"], value["size"], value["asked"])
    except (TypeError, KeyError, IndexError):
        raise WireError("A header must name its body. It does not.") from None
    named = (is_sha(ref.sha), type(ref.size) is int and ref.size >= 0, ref.asked == "" or is_sha(ref.asked))
    if body.kind != "ref" or len(value) != 3 or not all(named):
        raise WireError("A header must name its body by sha256 and size. Got something else.")
    return ref


def is_sha(x: Any) -> bool:
    """Is this the sha256 of something, in hex?"""
    return isinstance(x, str) and len(x) == 64 and not x.strip("0123456789abcdef")
