"""A secret that everybody can reproduce."""

from dataclasses import dataclass
from typing import ClassVar

from comity.core.rng import Rng, digest
from comity.ledger.keys import SideSecret
from comity.ledger.stream import CipherStream


@dataclass(frozen=True, slots=True)
class FixedSecret:
    """A secret that everybody can reproduce. A run that uses one is not private.

    Attributes:
        seed: which one.
    """

    seed: int = 0
    private: ClassVar[bool] = False

    def rng(self, *purpose: str) -> Rng:
        """The same stream for the same seed and purpose, on every machine."""
        return self._side().rng(*purpose)

    def key(self, *purpose: str) -> bytes:
        """32 bytes, the same for the same seed and purpose: they hide nothing."""
        return self._side().key(*purpose)

    def stream(self, *purpose: str) -> CipherStream:
        """Bytes of a cipher, the same for the same seed and purpose: they hide nothing."""
        return self._side().stream(*purpose)

    def sign(self, data: bytes) -> bytes:
        """An Ed25519 signature, 64 bytes, that proves nothing."""
        return self._side().sign(data)

    def public_key(self) -> bytes:
        """The Ed25519 public key of these signatures, 32 bytes."""
        return self._side().public_key()

    def side(self, name: str) -> SideSecret:
        """The secret of one participant, where one process plays all of them."""
        return self._side().side(name)

    def _side(self) -> SideSecret:
        return SideSecret(digest("fixed secret", self.seed))


def fixed_secret(seed: int = 0) -> FixedSecret:
    """A secret for tests, the same in every run and process.

    Noise drawn from it protects nothing, because whoever knows the seed can subtract it: what was made
    with it is marked as not private (`private` is False).

    Args:
        seed: which one, any int.

    Example:
        >>> import comity as co
        >>> a, b = co.testing.fixed_secret(seed=1), co.testing.fixed_secret(seed=1)
        >>> bool(a.rng("noise").random() == b.rng("noise").random()), a.private
        (True, False)
    """
    return FixedSecret(seed)
