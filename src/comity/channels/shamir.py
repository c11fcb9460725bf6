"""Shamir's secret sharing (Communications of the ACM, 1979) of 32-byte secrets over the field of 2^256 + 297 elements.

2^256 + 297 is the least prime above 2^256: every 32-byte string is an element. This is the one piece of arithmetic that
is written here; every other primitive of the channels comes from the `cryptography` package. Python's integers take
time that depends on their values: an attacker on the same machine who measures it is not kept out.
"""

from collections.abc import Sequence
from functools import lru_cache

PRIME = 2**256 + 297
SECRET, SHARE, DRAWN = 32, 33, 48


def split(secret: bytes, t: int, xs: Sequence[int], random: bytes) -> list[bytes]:
    """Shares of a secret, any `t` of which give it back and fewer say nothing.

    Args:
        secret: 32 bytes, big-endian; the polynomial at 0.
        t: how many are enough, >= 1; the degree of the polynomial is t - 1.
        xs: where it is evaluated, different and within [1, PRIME).
        random: at least 48 bytes for each coefficient from x^1 on: a big-endian number modulo PRIME (its distance from
            uniform is below 2^-127).

    Returns:
        For each x, 33 bytes, big-endian.

    Example:
        >>> shares = split(bytes(31) + b"!", 2, (1, 2, 3), bytes(range(48)))
        >>> join((1, 3), (shares[0], shares[2]))[-1:]
        b'!'
    """
    assert len(secret) == SECRET
    assert len(random) >= DRAWN * (t - 1)
    drawn = (random[DRAWN * i : DRAWN * (i + 1)] for i in range(t - 1))
    rising = [int.from_bytes(secret, "big"), *(int.from_bytes(d, "big") % PRIME for d in drawn)]
    return [_at(x, rising[::-1]).to_bytes(SHARE, "big") for x in xs]


def _at(x: int, falling: Sequence[int]) -> int:
    y = 0
    for c in falling:
        y = (y * x + c) % PRIME
    return y


def join(xs: Sequence[int], shares: Sequence[bytes]) -> bytes:
    """The polynomial through these points at 0, as 33 bytes: b"\\x00" and the secret where all of them are right."""
    ys = (int.from_bytes(s, "big") for s in shares)
    return (sum(w * y for w, y in zip(weights(tuple(xs)), ys, strict=True)) % PRIME).to_bytes(SHARE, "big")


@lru_cache(maxsize=4096)
def weights(xs: tuple[int, ...]) -> tuple[int, ...]:
    """Lagrange's weights for the value at 0; one inversion for all of them.

    Args:
        xs: different points, none of them 0.
    """
    above, below = [], []
    for i, x in enumerate(xs):
        up = down = 1
        for other in (*xs[:i], *xs[i + 1 :]):
            up = up * other % PRIME
            down = down * (other - x) % PRIME
        above.append(up)
        below.append(down)
    return tuple(u * v % PRIME for u, v in zip(above, _inverses(below), strict=True))


def _inverses(numbers: Sequence[int]) -> list[int]:
    """All inverses at the price of one (Montgomery, 1987)."""
    before = [1]
    for n in numbers:
        before.append(before[-1] * n % PRIME)
    inverse, out = pow(before[-1], -1, PRIME), []
    for n, product in zip(reversed(numbers), reversed(before[:-1]), strict=True):
        out.append(inverse * product % PRIME)
        inverse = inverse * n % PRIME
    return out[::-1]
