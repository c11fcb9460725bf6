"""Bounds that dp-accounting does not have: noise added as integers, and sampling before any mechanism."""

import math

import numpy as np

from comity.core.checks import number, whole
from comity.core.contribution import Array


def discrete_gaussian_noise(std: float, *, sensitivity: float = 1.0, shares: int = 1, dimension: int = 1) -> float:
    """The noise multiplier of a sum of discrete Gaussians, made smaller by what the sum lacks of a Gaussian.

    The release is ½ε²-concentrated differentially private with the ε of Theorem 1 of Kairouz, Liu and Steinke
    (ICML 2021), the least of its first and last bound; this is 1/ε, so that what follows from the `noise` of a `Spend`
    is ρ = 1 / (2 noise²).

    Args:
        std: of each share, in steps of the grid, >= 0.5.
        sensitivity: L2, in steps, where one unit is added or removed.
        shares: how many independent ones are in the sum: honest ones that did not drop out.
        dimension: numbers in the vector.

    Raises:
        ConfigError: a value lies outside.

    Example:
        >>> discrete_gaussian_noise(40.0, sensitivity=400.0, shares=100, dimension=1000)
        1.0
    """
    number("std", "discrete_gaussian_noise", std, "[0.5, inf)", hint="Scale the values up: use a finer grid.")
    number("sensitivity", "discrete_gaussian_noise", sensitivity, "(0, inf)")
    n, d = whole("shares", "", shares, 1), whole("dimension", "", dimension, 1)
    k = np.arange(1, min(n, 1000))
    tau = 10 * float(np.exp(-2 * (math.pi * std) ** 2 * k / (k + 1)).sum()) * max(1.0, (n - 1) / 999)
    plain = sensitivity / (math.sqrt(n) * std)
    return 1 / min(math.sqrt(plain**2 + tau * d / 2), plain + tau * math.sqrt(d))


def skellam_noise(std: float, *, sensitivity: float = 1.0) -> float:
    """The noise multiplier of Skellam noise on integers, made smaller by what it lacks of a Gaussian.

    Agarwal, Kairouz and Liu (NeurIPS 2021), Theorem 3.1: for whole α >= 2 the Rényi divergence is at most
    α Δ₂² / (2μ) + ((2α − 1) Δ₂² + 6 Δ₁) / (4μ²), of variance μ. Of integers Δ₁ <= Δ₂², so it is at most
    α / (2 noise²) for noise = std / Δ₂ / √(1 + 9 / (4μ)).

    Args:
        std: of the sum of all honest shares that did not drop out, in steps of the grid.
        sensitivity: L2, in steps, where one unit is added or removed.

    Raises:
        ConfigError: a value is not a finite number > 0.

    Example:
        >>> round(skellam_noise(100.0, sensitivity=100.0), 5)
        0.99989
    """
    number("std", "skellam_noise", std, "(0, inf)")
    number("sensitivity", "skellam_noise", sensitivity, "(0, inf)")
    return std / sensitivity / math.sqrt(1 + 9 / (4 * std**2))


def subsampled(curve: Array, rate: float, orders: Array) -> Array:
    """Rényi divergence after Poisson sampling of what a mechanism is given, whatever the mechanism.

    Zhu and Wang (ICML 2019), Theorem 5, for whole orders; others get infinity. Add/remove adjacency.

    Args:
        curve: (n,) the mechanism's own at the orders 0 to n - 1, which is not asked for at 0 and 1.
        rate: in (0, 1).
        orders: (orders,) which are wanted, each > 1 and below n.

    Returns:
        (orders,) never above the mechanism's own.
    """
    logs = np.cumsum(np.log(np.maximum(np.arange(len(curve)), 1)))
    out = np.full(len(orders), np.inf)
    for i, order in enumerate(orders):
        a = int(order)
        if a == order and a >= 2:
            j = np.arange(2, a + 1)
            terms = logs[a] - logs[j] - logs[a - j] + j * math.log(rate) + (a - j) * math.log1p(-rate)
            terms += (j - 1) * curve[2 : a + 1] + np.where(j > 2, math.log(3), 0.0)
            first = (a - 1) * math.log1p(-rate) + math.log(a * rate - rate + 1)
            out[i] = min(np.logaddexp.reduce([first, *terms]) / (a - 1), curve[a])
    return out
