"""What DP-SGD needs in every adapter: settings, a Poisson batch and noise from a cipher; and the fit of numpy's models.

Abadi et al., CCS 2016, Algorithm 1: each step takes each example with a probability, clips the gradient of each to an
L2 norm, adds Gaussian noise to the sum, and divides by the expected size of the batch, which is no data.
"""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from comity.core.checks import number, refusal
from comity.core.contribution import Array
from comity.core.parts import Private, Stream

_BLOCK = 2**17


def private_of(private: Private, who: str) -> Private:
    """The settings of DP-SGD, if they are such.

    Raises:
        ConfigError: a clip that is not finite and > 0, a noise that is not finite and >= 0, a rate outside (0, 1], or a
            stream that gives no bytes.
    """
    number("clip", who, private.clip, "(0, inf)")
    number("noise", who, private.noise, "[0, inf)")
    number("rate", who, private.rate, "(0, 1]")
    if not callable(getattr(private.stream, "take", None)):
        hint = "Use secret.stream(...): a seeded generator can be guessed."
        raise refusal("stream", who, "a Stream of a secret", type(private.stream).__name__, hint)
    return private


def steps_of(epochs: float, rate: float) -> int:
    """How many steps go over the data `epochs` times, where each takes the share `rate` of them."""
    return round(epochs / rate)


def drawn(stream: Stream, n: int, rate: float) -> Array:
    """A Poisson sample: each of n rows by itself with probability `rate`, to within 2**-64.

    Args:
        stream: of a secret; 8 bytes for each row, none at rate 1.
        n: how many rows there are.
        rate: in (0, 1].

    Returns:
        (rows drawn,) int64, ascending; it may be empty.

    Example:
        >>> import comity as co
        >>> drawn(co.testing.fixed_secret().stream("doctest"), 10, rate=0.5).tolist()
        [2, 4, 6, 8, 9]
    """
    if rate >= 1:
        return np.arange(n)
    words = stream.take(8 * n).view("<u8")
    return np.flatnonzero(words < np.uint64(int(rate * 2.0**64)))


def put_normals(vector: Array, stream: Stream, std: float) -> None:
    """Fill a vector with Gaussian noise (Box and Muller, 1958); what is to be noised is added to it afterwards.

    A radius is made of 63 random bits, an angle of 32, or of 64 where the vector is float64. No number is then larger
    than 9.4 standard deviations, which a Gaussian is once in 10**20. The noise is rounded to the dtype of the vector,
    so its last bits are no Gaussian's: what Mironov (CCS 2012) did to Laplace noise is not ruled out by a proof. Noise
    on whole numbers, in a ring, has no such gap.

    Args:
        vector: (size,) float32 or float64, overwritten.
        stream: of a secret; 12 or 16 bytes for two numbers.
        std: standard deviation, >= 0.
    """
    if not std:
        vector[...] = 0
        return
    for a in range(0, len(vector), _BLOCK):
        part = vector[a : a + _BLOCK]
        half = -(-len(part) // 2)
        radius, angle = _polar(stream, half, part.dtype)
        radius *= part.dtype.type(std)
        np.sin(angle, out=part[:half])
        part[:half] *= radius
        np.cos(angle, out=angle)
        np.multiply(angle[: len(part) - half], radius[: len(part) - half], out=part[half:])


def _polar(stream: Stream, size: int, dtype: Any) -> tuple[Array, Array]:
    """Radius and angle of so many points of the standard Gaussian of the plane."""
    kind, bits = dtype.type, 8 * dtype.itemsize
    words = stream.take((8 + dtype.itemsize) * size)
    radius = words[: 8 * size].view("<i8").astype(dtype)
    np.abs(radius, out=radius)
    radius += kind(1)
    radius *= kind(2.0**-63)
    np.log(radius, out=radius)
    radius *= kind(-2)
    np.sqrt(radius, out=radius)
    angle = words[8 * size :].view(f"<i{bits // 8}").astype(dtype)
    angle *= kind(np.pi * 2.0 ** (1 - bits))
    return radius, angle


class Worker(Protocol):
    """One fit's memory: see `adapters.numpy.Worker`."""

    net: Any
    vector: Array
    gradient: Array


def private_steps(
    worker: Worker, rows: tuple[Array, Array], private: Private, *, move: Callable[[], None], plan: tuple[float, int]
) -> None:
    """The steps of a private fit.

    Args:
        worker: whose `vector` is trained, whose `gradient` is filled.
        rows: (rows, inputs), and (rows, outputs) targets.
        private: clip, noise, stream and rate.
        move: moves the parameters along the gradient.
        plan: epochs, and how many rows at once.

    Raises:
        ConfigError: settings that are none.
    """
    (x, t), (epochs, batch), private = rows, plan, private_of(private, "Private")
    share = 1 / (private.rate * len(x))
    for _ in range(steps_of(epochs, private.rate)):
        some = drawn(private.stream, len(x), private.rate)
        put_normals(worker.gradient, private.stream, private.noise * private.clip * share)
        for a in range(0, len(some), batch):
            part = some[a : a + batch]
            add_clipped(worker, x[part], t[part], private.clip, share=share)
        move()


def add_clipped(worker: Worker, x: Array, t: Array, clip: float, *, share: float) -> None:
    """Add to `worker.gradient` the sum of each row's own gradient, clipped, times `share`.

    The gradient of a row is an outer product in each layer, so its norm is a product of norms (Goodfellow, 2015). A row
    whose gradient is not finite adds nothing.
    """
    layers = worker.net.layers(worker.vector)
    inputs, errors = [x, *worker.net.forward(worker.vector, x)], []
    z = inputs.pop()
    errors.append(_probabilities(z) - t if worker.net.classes else 2 * (z - t))
    for (w, _), h in zip(layers[:0:-1], inputs[:0:-1], strict=True):
        errors.append((errors[-1] @ w) * (h > 0))
    pairs = list(zip(inputs, reversed(errors), strict=True))
    squares = sum(_square(e) * (_square(h) + 1) for h, e in pairs)
    fine = np.isfinite(squares)
    if not fine.all():
        add_clipped(worker, x[fine], t[fine], clip, share=share)
        return
    c = share * np.minimum(1, clip / np.maximum(np.sqrt(squares), np.finfo(x.dtype).tiny))
    for (w, b), (h, e) in zip(worker.net.layers(worker.gradient), pairs, strict=True):
        e *= c[:, None].astype(e.dtype)
        w += e.T @ h
        b += e.sum(0)


def _square(rows: Array) -> Array:
    out: Array = np.einsum("ij,ij->i", rows, rows)
    return out


def _probabilities(z: Array) -> Array:
    p: Array = np.exp(z - z.max(1, keepdims=True, initial=-np.inf))
    p /= p.sum(1, keepdims=True)
    return p
