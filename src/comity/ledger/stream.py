"""Random bytes from a cipher: whoever lacks the key cannot tell them from chance."""

import numpy as np
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from comity.core.contribution import Array

PIECE, TAG = 2**17, 16
_ZEROS = bytes(PIECE)


class CipherStream:
    """The keystream of AES-128-GCM (NIST SP 800-38D), read from its beginning: one nonce for each 128 KiB.

    A stream can be read once, in whatever portions; the portions make no difference. It holds 2**96 pieces, and is
    never read twice for two purposes: a purpose has a key of its own.
    """

    def __init__(self, key: bytes) -> None:
        """Args: key: 16 bytes or more, of which the first 16 count."""
        self._cipher, self._piece = AESGCM(key[:16]), 0
        self._left = np.empty(0, np.uint8)

    def take(self, size: int) -> Array:
        """The next bytes.

        Args:
            size: how many, >= 0.

        Returns:
            (size,) uint8, fresh.
        """
        short = size - len(self._left)
        if short > 0:
            pieces = -(-short // PIECE)
            made = np.empty(len(self._left) + pieces * PIECE + TAG, np.uint8)
            made[: len(self._left)] = self._left
            self._fill(made.data[len(self._left) :], pieces)
            self._left = made[:-TAG]
        out, self._left = self._left[:size], self._left[size:]
        return out if out.base is None or short > 0 else out.copy()

    def _fill(self, room: memoryview, pieces: int) -> None:
        """Pieces after one another; the tag behind each is written over by the next."""
        for i in range(pieces):
            at = i * PIECE
            nonce = (self._piece + i).to_bytes(12, "big")
            self._cipher.encrypt_into(nonce, _ZEROS, None, room[at : at + PIECE + TAG])
        self._piece += pieces
