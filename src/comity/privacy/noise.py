"""Noise from the keystream of a cipher: normals, discrete Gaussians and discrete Laplace noise, uniform choices."""

import math
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np

from comity.core.contribution import Array
from comity.core.parts import Stream

PAIRS, WORDS = 2**13, 2**13
_UNIT = 2.0**-53
_SINE = [(-1) ** i / math.factorial(2 * i + 1) for i in range(8)][::-1]
_COSINE = [(-1) ** i / math.factorial(2 * i) for i in range(9)][::-1]
SLACK = 2.0**-40
"""How far, relatively, a double may be from what it stands for; nearer than that it is decided exactly."""


def normals(stream: Stream, size: int) -> Array:
    """Independent standard normals, by Box and Muller (1958) from 53 random bits each.

    The radius comes from (k + 1) / 2^53, which is never 0: no number is beyond 8.58. Sine and cosine are Taylor
    polynomials of half the angle, exact to 2e-16; numpy's own are ten times slower. As doubles are no real numbers,
    such noise hides less than the mathematics says of it (Mironov, CCS 2012); integers do not have this weakness.

    Args:
        stream: from a secret; 8 bytes for each number are taken.
        size: how many, >= 0.

    Returns:
        (size,) float64.

    Example:
        >>> import comity as co
        >>> x = normals(co.testing.fixed_secret().stream("noise"), 100_000)
        >>> bool(abs(x.mean()) < 0.01), bool(abs(x.std() - 1) < 0.01)
        (True, True)
    """
    out = np.empty(size + size % 2)
    for i in range(0, len(out), 2 * PAIRS):
        _pairs(stream, out[i : i + 2 * PAIRS])
    return out[:size]


def _pairs(stream: Stream, out: Array) -> None:
    """Fill `out`, of even length: cosines first, then sines."""
    n = len(out) // 2
    first, second = _words(stream, 2 * n).reshape(2, n)
    radius = (first >> np.uint64(11)).view(np.int64).astype(np.float64)
    radius += 1
    radius *= _UNIT
    np.log(radius, out=radius)
    radius *= -2
    np.sqrt(radius, out=radius)
    half = (second.view(np.int64) >> 11).astype(np.float64)
    half *= math.pi / 4 * 2.0**-52
    square = half * half
    sine, cosine = out[n:], out[:n]
    _polynomial(square, _SINE, sine)
    sine *= half
    _polynomial(square, _COSINE, cosine)
    np.multiply(sine, cosine, out=half)
    np.multiply(sine, sine, out=square)
    np.subtract(0.5, square, out=cosine)
    radius *= 2
    np.multiply(half, radius, out=sine)
    cosine *= radius
    bits = cosine.view(np.uint64)
    bits ^= second << np.uint64(63)  # an angle and its mirror image: half of the circle each


def _polynomial(x: Array, factors: list[float], out: Array) -> None:
    """Horner's rule, the highest power first."""
    np.multiply(x, factors[0], out=out)
    for factor in factors[1:-1]:
        out += factor
        out *= x
    out += factors[-1]


def uniform(stream: Stream, size: int) -> Array:
    """(size,) float64 in [0, 1): multiples of 2^-53."""
    return np.asarray((_words(stream, size) >> np.uint64(11)).astype(np.float64) * _UNIT)


def choices(stream: Stream, size: int, count: int) -> Array:
    """(size,) int64, each of 0 to count - 1 exactly as often; what would favour some is drawn again."""
    fair = 2**64 - 2**64 % count
    out = _words(stream, size)
    while (bad := np.flatnonzero(out >= np.uint64(fair)) if fair < 2**64 else np.zeros(0, np.int64)).size:
        out[bad] = _words(stream, bad.size)
    return np.asarray((out % np.uint64(count)).astype(np.int64))


def discrete_gaussian(stream: Stream, std: float, size: int) -> Array:
    """Integers with probabilities proportional to exp(-x² / 2σ²), exactly.

    Canonne, Kamath and Steinke (NeurIPS 2020), Algorithm 3: discrete Laplace noise of scale t = floor(σ) + 1, kept
    with probability exp(-(|x| - σ²/t)² / 2σ²). A coin of probability exp(-γ) is thrown by comparing the bits of a
    uniform number with exp(-γ), in doubles as far as they can tell and with as many digits as it takes where not,
    in place of the paper's Algorithm 1: its distribution is the same, and it is done for many at once.

    Args:
        stream: from a secret; about 22 bytes for each number are taken.
        std: σ, the parameter, in [0, 1e9]; from 1 on it is the standard deviation within 1e-7. 0 gives zeros.
        size: how many, >= 0.

    Returns:
        (size,) int64.

    Example:
        >>> import comity as co
        >>> discrete_gaussian(co.testing.fixed_secret().stream("noise"), 3.0, 8)
        array([-6,  2,  3, -3,  1, -1,  3, -4])
    """
    out, have = np.zeros(size, np.int64), 0
    while std > 0 and have < size:
        n = min(WORDS, (size - have) * 4 // 3 + 16)
        kept = _kept(stream, std, discrete_laplace(stream, math.floor(std) + 1, n))[: size - have]
        out[have : have + len(kept)] = kept
        have += len(kept)
    return out


def discrete_laplace(stream: Stream, scale: float, size: int) -> Array:
    """Integers with probabilities proportional to exp(-|x| / scale), exactly.

    The magnitude is floor(-scale · ln u) of a uniform u, of which 53 bits decide, or more where they cannot; a minus
    before 0 is drawn again (Canonne, Kamath and Steinke 2020, Algorithm 2).

    Args:
        stream: from a secret; 8 bytes for each number are taken.
        scale: > 0.
        size: how many, >= 0.

    Returns:
        (size,) int64.
    """
    out, open_ = np.empty(size, np.int64), np.arange(size)
    while open_.size:
        again = []
        for i in range(0, open_.size, WORDS):
            at = open_[i : i + WORDS]
            words = _words(stream, len(at))
            minus = (words & np.uint64(1)).astype(bool)
            found = _magnitudes(stream, scale, words)
            out[at] = np.where(minus, -found, found)
            again.append(at[minus & (found == 0)])
        open_ = np.concatenate(again)
    return out


def _magnitudes(stream: Stream, scale: float, words: Array) -> Array:
    """floor(-scale · ln u), where u begins with the first 53 bits of each word."""
    k = (words >> np.uint64(11)).view(np.int64)
    near = k.astype(np.float64)
    x = np.log((near + 0.5) * _UNIT)
    x *= -scale
    slack = scale * (0.5 / np.maximum(near, 1.0) + 2.0**-51) + x * SLACK
    low = np.floor(x - slack)
    found = low.astype(np.int64)
    for i in np.flatnonzero((low != np.floor(x + slack)) | (k == 0)):
        found[i] = _exact_floor(int(k[i]), Fraction(scale), stream)
    return found


def _kept(stream: Stream, std: float, y: Array) -> Array:
    """Of discrete Laplace noise what remains to make a discrete Gaussian."""
    square = Fraction(std) ** 2
    middle = square / (math.floor(std) + 1)
    k = (_words(stream, len(y)) >> np.uint64(11)).view(np.int64)
    u = (k + 0.5) * _UNIT
    level = np.exp(-(((np.abs(y) - float(middle)) / std) ** 2) / 2)
    keep = u < level
    for i in np.flatnonzero(np.abs(u - level) <= _UNIT + level * SLACK):
        gamma = (abs(int(y[i])) - middle) ** 2 / (2 * square)
        keep[i] = _exactly_below(int(k[i]), gamma, stream)
    return np.asarray(y[keep])


def _exactly_below(k: int, gamma: Fraction, stream: Stream) -> bool:
    """Is u < exp(-γ), of which u begins with the 53 bits k?"""
    bits, digits = 53, 40
    while True:
        with localcontext() as context:
            context.prec = digits
            level = (-Decimal(gamma.numerator) / Decimal(gamma.denominator)).exp()
            error = level.scaleb(8 - digits) * (1 + abs(int(gamma)))
            low, high = _ends(k, bits)
            if high <= level - error:
                return True
            if low >= level + error:
                return False
        k, bits, digits = _longer(k, stream), bits + 64, digits + 25


def _exact_floor(k: int, scale: Fraction, stream: Stream) -> int:
    """floor(-scale · ln u), of which u begins with the 53 bits k."""
    bits, digits = 53, 40
    while True:
        if k:
            with localcontext() as context:
                context.prec = digits
                times = Decimal(scale.numerator) / Decimal(scale.denominator)
                high, low = (-times * end.ln() for end in _ends(k, bits))
                error = (abs(high) + times).scaleb(8 - digits)
                floor = int((low - error).to_integral_value("ROUND_FLOOR"))
                if floor == int((high + error).to_integral_value("ROUND_FLOOR")):
                    return max(floor, 0)
        k, bits, digits = _longer(k, stream), bits + 64, digits + 25


def _ends(k: int, bits: int) -> tuple[Decimal, Decimal]:
    """Between which u lies."""
    whole = Decimal(2**bits)
    return Decimal(k) / whole, Decimal(k + 1) / whole


def _longer(k: int, stream: Stream) -> int:
    """64 bits more."""
    return k << 64 | int(_words(stream, 1)[0])


def _words(stream: Stream, size: int) -> Array:
    return stream.take(8 * size).view("<u8")
