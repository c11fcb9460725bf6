"""Masks: the keystream of AES-128-GCM, added to the words of a vector."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from comity.channels.layout import NUMBER, WORD, Form
from comity.core.contribution import Array

PIECE, TAG = 2**17, 16
_WORDS = PIECE // 4
_ZEROS = bytes(PIECE)


def mask(words: Array, form: Form, plus: Sequence[bytes], minus: Sequence[bytes] = ()) -> None:
    """Add the masks of some keys and take away those of others, in place.

    A mask is the ciphertext of zeros, in pieces of 128 KiB, the number of the piece as 12 bytes big-endian for a nonce;
    tags are dropped. It is read as the words of the form: 32 bits modulo 2^32, numbers of 64 bits modulo 2^64. One
    piece of the vector is held in cache while every key is applied to it.

    Args:
        words: (form.size,) uint32, contiguous.
        form: what the vector holds.
        plus: keys of 16 bytes, each for one vector only.
        minus: the same.

    Example:
        >>> form = Form("delta", "5")
        >>> words = np.zeros(form.size, np.uint32)
        >>> mask(words, form, [bytes(16)])
        >>> words[:2].tobytes().hex()
        '0388dace60b6a392'
        >>> mask(words, form, [], [bytes(16)])
        >>> bool(words.any())
        False
    """
    ciphers = [(AESGCM(key).encrypt_into, op) for keys, op in ((plus, np.add), (minus, np.subtract)) for key in keys]
    pad = np.empty(PIECE + TAG, np.uint8)
    for i in range(0, words.size, _WORDS):
        _piece(words[i : i + _WORDS], form.split - i, (i // _WORDS).to_bytes(12, "big"), ciphers, pad)


def _piece(words: Array, split: int, nonce: bytes, ciphers: Sequence[tuple[Any, Any]], pad: Array) -> None:
    """Every key on one piece; `split` words of it, if it has as many, are of 32 bits."""
    size, cut = words.nbytes, min(max(split, 0), words.size)
    zeros, room = _ZEROS if size == PIECE else _ZEROS[:size], pad.data[: size + TAG]
    ring, numbers = words[:cut], words[cut:].view(NUMBER)
    given = pad[: 4 * cut].view(WORD), pad[4 * cut : size].view(NUMBER)
    pad32, pad64 = given
    for encrypt_into, op in ciphers:
        encrypt_into(nonce, zeros, None, room)
        op(ring, pad32, ring)
        if cut < words.size:
            op(numbers, pad64, numbers)
