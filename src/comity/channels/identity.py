"""Keys of a member for one turn, the advertisement of them, and whose it is."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from comity.core.errors import ChannelError
from comity.core.parts import Secret
from comity.core.rng import digest
from comity.core.round import Round

KEY, SIGNATURE, MASK_KEY = 32, 64, 16
ADVERT = 5 * KEY + SIGNATURE
PROTOCOL = "comity secagg 1"
_FIELD = 2**255 - 19
# u-coordinates of order 8 on the curve and its twist; with 0, 1 and -1, and what is these modulo the field.
_EIGHTH = (
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
)
_LOW_ORDER = {0, 1, _FIELD - 1, _FIELD, _FIELD + 1, *_EIGHTH}


@dataclass(frozen=True, slots=True)
class Advert:
    """What a member makes known of its keys for one turn.

    Attributes:
        identity: its long-term Ed25519 public key, 32 bytes.
        c: the X25519 public key under which it is sent shares, 32 bytes.
        s: the X25519 public key of its pairwise masks, 32 bytes.
        nonce: the sha256 of the nonce that it adds to the order.
        seed: the sha256 of the seed of its own mask: what is put together of shares is held against it.
        signature: by the identity, of all of these, its name and the context, 64 bytes.
    """

    identity: bytes
    c: bytes
    s: bytes
    nonce: bytes
    seed: bytes
    signature: bytes

    @classmethod
    def read(cls, data: bytes) -> "Advert":
        """From its 224 bytes."""
        a, b, c, d, e = (data[i : i + KEY] for i in range(0, 5 * KEY, KEY))
        return cls(a, b, c, d, e, data[5 * KEY :])

    def packed(self) -> bytes:
        """As 224 bytes."""
        return b"".join((self.identity, self.c, self.s, self.nonce, self.seed, self.signature))

    def check(self, name: str, context: bytes) -> None:
        """Is this what `name` signed for this context?

        Raises:
            ChannelError: it is not.
        """
        if not signed(self.identity, self.signature, _said(self.packed()[: 5 * KEY], name, context)):
            raise ChannelError(
                f"The keys of {name} must be signed by it for this round. Got another signature: the keys were "
                "swapped, are of another round, or its settings of SecAgg differ."
            )


@dataclass(frozen=True, repr=False)
class Keys:
    """A member's own for one turn, derived from its secret: the same again when it is asked again, and never shown."""

    secret: Secret
    turn: tuple[str, ...]

    @classmethod
    def of(cls, secret: Secret, round: Round) -> "Keys":
        """Fresh for every run, round, attempt and hub."""
        return cls(secret, (round.run, str(round.number), str(round.attempt), round.hub))

    def __repr__(self) -> str:
        return "Keys(...)"

    @cached_property
    def c(self) -> X25519PrivateKey:
        """Opens what shares were sent under."""
        return X25519PrivateKey.from_private_bytes(self._key("c"))

    @cached_property
    def s(self) -> X25519PrivateKey:
        """Agrees on pairwise masks."""
        return X25519PrivateKey.from_private_bytes(self._key("s"))

    @property
    def seed(self) -> bytes:
        """The seed of its own mask, 32 bytes."""
        return self._key("b")

    @property
    def nonce(self) -> bytes:
        """What it adds to the order, 32 bytes."""
        return self._key("nonce")

    def drawn(self, which: str, size: int) -> bytes:
        """Bytes of a cipher, for coefficients."""
        drawn: bytes = self.secret.stream("secagg", which, *self.turn).take(size).tobytes()
        return drawn

    def advert(self, name: str, context: bytes) -> Advert:
        """Signed for this context."""
        c, s = self.c.public_key().public_bytes_raw(), self.s.public_key().public_bytes_raw()
        held = self.secret.public_key(), c, s, sha256(self.nonce), sha256(self.seed)
        return Advert(*held, signature=self.secret.sign(_said(b"".join(held), name, context)))

    def _key(self, which: str) -> bytes:
        return self.secret.key("secagg", which, *self.turn)


def sha256(data: bytes) -> bytes:
    """32 bytes."""
    return hashlib.sha256(data).digest()


def _said(keys: bytes, name: str, context: bytes) -> bytes:
    return digest(PROTOCOL, "keys", context.hex(), name, keys.hex())


def signed(identity: bytes, signature: bytes, data: bytes) -> bool:
    """Is this a signature of `data`?"""
    try:
        Ed25519PublicKey.from_public_bytes(identity).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True


def agreed(mine: X25519PrivateKey, theirs: bytes, salt: bytes, info: bytes) -> bytes:
    """A key of 16 bytes that two sides agree on: HKDF-SHA256 of X25519.

    Raises:
        ChannelError: the other side's key is of low order.
    """
    try:
        shared = mine.exchange(X25519PublicKey.from_public_bytes(theirs))
    except ValueError:
        raise ChannelError(
            "A public key must be a point of X25519 of full order. Got one that fixes the key."
        ) from None
    return derived(shared, salt, info)


def usable(*keys: bytes) -> bool:
    """Are these points with which two sides agree on a key that others cannot guess? Those of order 1, 2, 4, 8 are not.

    The highest bit of a key means nothing (RFC 7748, section 5).
    """
    return all(int.from_bytes(key, "little") % 2**255 not in _LOW_ORDER for key in keys)


def derived(secret: bytes, salt: bytes, info: bytes) -> bytes:
    """A key of 16 bytes by HKDF-SHA256 (RFC 5869)."""
    return HKDF(algorithm=hashes.SHA256(), length=MASK_KEY, salt=salt, info=info).derive(secret)


def pinned(name: str, identity: bytes, known: Mapping[str, bytes], given: Mapping[str, bytes] | None) -> None:
    """Is this the identity that a peer has always had, or that was given for it?

    Raises:
        ChannelError: it is another, or none was given for it.
    """
    want = known.get(name) if given is None else given.get(name)
    if given is not None and want is None:
        raise ChannelError(f"The identity of {name} must be among those given to SecAgg. Got none. It is a stranger.")
    if want is not None and want != identity:
        raise ChannelError(
            f"The identity of {name} must be the one known since its first round. Got another: the keys were swapped."
        )
