"""Probabilities made honest: one temperature for all rows, found on rows that the model was not trained on."""

import numpy as np

from comity.core.contribution import Array

FLOOR = 1e-4
"""The least probability that is believed before a logarithm: one class is never more than this far out of reach."""

_LEAST, _MOST = 1 / 20, 20.0
_GOLDEN = (np.sqrt(5) - 1) / 2
_CUTS = 40


def log_floored(p: Array, floor: float = FLOOR) -> Array:
    """(rows, classes) float64 logarithms in nats of probabilities cut off below at `floor`."""
    return np.asarray(np.log(np.maximum(np.asarray(p, float), floor)))


def softmax(z: Array) -> Array:
    """(..., classes) float64, each row summing to 1; z may hold -inf, but not in a whole row."""
    e: Array = np.exp(z - z.max(axis=-1, keepdims=True, initial=-np.inf))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))


def tempered(p: Array, temperature: float) -> Array:
    """Probabilities at another temperature: p^(1/T), normalised; for a network this is softmax(z / T).

    Args:
        p: (rows, classes) probabilities; 0 stays 0.
        temperature: T > 0; above 1 softer, below 1 sharper.

    Returns:
        (rows, classes) float64, rows sum to 1; a row of zeros stays one.

    Example:
        >>> tempered(np.array([[0.8, 0.2]]), 0.5).round(3).tolist()
        [[0.941, 0.059]]
    """
    p = np.asarray(p, float)
    top = p.max(axis=1, keepdims=True, initial=0.0)
    soft: Array = (p / np.where(top > 0, top, 1.0)) ** (1.0 / temperature)
    total = soft.sum(axis=1, keepdims=True)
    return np.asarray(soft / np.where(total > 0, total, 1.0))


def temperature_of(p: Array, y: Array) -> float:
    """The temperature at which these probabilities have the least log loss (Guo et al., ICML 2017, section 4.2).

    The loss is convex in 1/T, so a golden-section search over log T finds it. Departure: T lies from 1/20 to 20,
    where rows that a model gets all right would ask for 0.

    Args:
        p: (rows, classes) probabilities of rows that the model was not trained on.
        y: (rows,) the true column of each row.

    Returns:
        T; 1.0 where nothing can be learnt of it: no rows, or the loss does not depend on T.

    Example:
        >>> sure = np.array([[0.99, 0.01]] * 4)
        >>> temperature_of(sure, np.array([0, 0, 0, 1])) > 2
        True
    """
    if not len(y):
        return 1.0
    z, rows = log_floored(p), np.arange(len(y))

    def loss(log_t: float) -> float:
        s = z / np.exp(log_t)
        s = s - s.max(axis=1, keepdims=True)
        return float((np.log(np.exp(s).sum(axis=1)) - s[rows, y]).mean())

    low, high = np.log(_LEAST), np.log(_MOST)
    for _ in range(_CUTS):
        a, b = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        low, high = (low, b) if loss(a) <= loss(b) else (a, high)
    best = float((low + high) / 2)
    return float(np.exp(best)) if loss(best) < loss(0.0) - 1e-9 else 1.0
