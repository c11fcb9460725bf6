"""A side's own secrets, all derived from one root of OS entropy that never leaves it."""

import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from comity.core.errors import ConfigError
from comity.core.rng import Rng, digest

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from comity.ledger.stream import CipherStream


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class SideSecret:
    """Randomness and an identity that nobody without the root can reproduce. It satisfies `core.parts.Secret`.

    A stream depends on (root, purpose) only, so that a replay after a crash draws the same values:
    name the round in the purpose. The streams are numpy's Philox under a 128-bit key from HMAC-SHA256;
    that is *not* a cryptographic stream, and noise that a privacy proof rests on is drawn from `stream`.

    Attributes:
        root: 32 bytes or more of OS entropy. It is never shown.
        of: whose it is, derived from the root when it is first needed.

    Example:
        >>> secret = SideSecret(bytes(32))
        >>> bool(secret.rng("noise", "3").random() == secret.rng("noise", "3").random())
        True
        >>> secret
        SideSecret(...)
    """

    root: bytes
    of: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.root) < 32:
            raise ConfigError(
                f"The root of a secret must be at least 32 bytes. Got {len(self.root)}. Use os.urandom(32)."
            )

    def __repr__(self) -> str:
        return "SideSecret(...)"

    def rng(self, *purpose: str) -> Rng:
        """A Generator for one purpose: the same purpose gives the same stream again."""
        return np.random.Generator(np.random.Philox(key=np.frombuffer(self._derive("rng", *purpose)[:16], np.uint64)))

    def key(self, *purpose: str) -> bytes:
        """32 bytes for one purpose, by HMAC-SHA256 of the root: the same purpose gives the same bytes again."""
        return self._derive("key", *purpose)

    def stream(self, *purpose: str) -> "CipherStream":
        """The keystream of a cipher for one purpose: the same purpose gives the same stream again."""
        from comity.ledger.stream import CipherStream

        return CipherStream(self._derive("stream", *purpose))

    def side(self, name: str) -> "SideSecret":
        """The secret of one participant, where one process plays all of them."""
        return SideSecret(self.root, (*self.of, name))

    def sign(self, data: bytes) -> bytes:
        """An Ed25519 signature (RFC 8032) of `data`, 64 bytes."""
        return self._identity().sign(data)

    def public_key(self) -> bytes:
        """The Ed25519 public key that verifies what `sign` makes, 32 bytes."""
        return self._identity().public_key().public_bytes_raw()

    def _identity(self) -> "Ed25519PrivateKey":
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

        seed = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"comity ed25519 identity").derive(self._key())
        return Ed25519PrivateKey.from_private_bytes(seed)

    def _derive(self, *purpose: str) -> bytes:
        return hmac.digest(self._key(), digest(*purpose), "sha256")

    def _key(self) -> bytes:
        key = self.root
        for name in self.of:
            key = hmac.digest(key, digest("side", name), "sha256")
        return key
