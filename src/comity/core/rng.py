"""Keyed randomness: every stream is a function of its key, never of what was drawn before."""

import hashlib
from typing import TypeAlias

import numpy as np

from comity.core.contribution import Array

Rng: TypeAlias = np.random.Generator

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIXES = (np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)), (np.uint64(27), np.uint64(0x94D049BB133111EB))
_LAST = np.uint64(31)


def digest(*key: object) -> bytes:
    """32 bytes from a key of numbers and strings; no two keys share an encoding, and numpy's 3 is plain 3."""
    h = hashlib.sha256()
    for part in key:
        part = part.item() if isinstance(part, np.generic) else part
        text = f"{type(part).__name__}:{part}".encode()
        h.update(len(text).to_bytes(8, "little") + text)
    return h.digest()


def keyed(*key: object) -> Rng:
    """A numpy Generator (Philox) that depends on the key only.

    Example:
        >>> bool(keyed(0, 3, "p01", "noise").random() == keyed(0, 3, "p01", "noise").random())
        True
    """
    return np.random.Generator(np.random.Philox(key=np.frombuffer(digest(*key)[:16], np.uint64)))


def keyed_seed(*key: object) -> int:
    """A number in [0, 2**63) that depends on the key only.

    Example:
        >>> keyed_seed(0, 3, "p01") == keyed_seed(0, 3, "p01")
        True
    """
    return int.from_bytes(digest(*key)[:8], "little") >> 1


def keyed_order(n: int, *key: object) -> Array:
    """A permutation of 0..n-1 by sorting a counter hash (the SplitMix64 finaliser: Steele, Lea and Flood, OOPSLA 2014).

    Args:
        n: how many samples, >= 0.
        key: what the order depends on, beside n.

    Returns:
        (n,) int64.
    """
    z = np.frombuffer(digest(*key)[:8], np.uint64) + np.arange(1, n + 1, dtype=np.uint64) * _GOLDEN
    for shift, mix in _MIXES:
        z ^= z >> shift
        z *= mix
    z ^= z >> _LAST
    return z.argsort(kind="stable")
