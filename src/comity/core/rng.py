"""Keyed randomness: every stream is a function of its key, never of what was drawn before."""

import hashlib
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from comity.core.contribution import Array

Rng: TypeAlias = np.random.Generator

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIXES = (np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)), (np.uint64(27), np.uint64(0x94D049BB133111EB))
_LAST, _MOST = np.uint64(31), np.uint64(2**64 - 1)


def digest(*key: object) -> bytes:
    """32 bytes from a key of numbers and strings; no two keys share an encoding, and numpy's 3 is plain 3."""
    return hashlib.sha256(b"".join(map(_written, key))).digest()


def _written(part: object) -> bytes:
    """A part of a key, with its type and length."""
    part = part.item() if isinstance(part, np.generic) else part
    text = f"{type(part).__name__}:{part}".encode()
    return len(text).to_bytes(8, "little") + text


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
    return _mixed(z).argsort(kind="stable")


def keyed_orders(
    sizes: Sequence[int], names: Sequence[str], *, before: Sequence[object], after: Sequence[object]
) -> Array:
    """What `keyed_order(n, *before, name, *after)` gives for each size and name, in one go.

    Args:
        sizes: how many samples each has, >= 0.
        names: as many.
        before: the key's parts before the name.
        after: those after it.

    Returns:
        (names, the largest size) int64: row i begins with the permutation of 0..sizes[i]-1; what follows it is unused.
    """
    head, tail = hashlib.sha256(b"".join(map(_written, before))), b"".join(map(_written, after))

    def begun(name: str) -> bytes:
        h = head.copy()
        h.update(_written(name) + tail)
        return h.digest()[:8]

    seeds = np.frombuffer(b"".join(map(begun, names)), np.uint64)
    longest = max(sizes, default=0)
    z = _mixed(seeds[:, None] + np.arange(1, longest + 1, dtype=np.uint64) * _GOLDEN)
    z[np.arange(longest) >= np.asarray(sizes, np.int64)[:, None]] = _MOST
    return z.argsort(axis=1, kind="stable")


def _mixed(z: Array) -> Array:
    """The finaliser, in place."""
    for shift, mix in _MIXES:
        z ^= z >> shift
        z *= mix
    z ^= z >> _LAST
    return z
