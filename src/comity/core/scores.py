"""Scores that add: each is a (sum, count), so that over many parties it is a ratio of sums."""

import numpy as np

from comity.core.contribution import Array, Metrics

EPS = 1e-7


def scores(predicted: Array, y: Array, prefix: str = "") -> Metrics:
    """Score predictions.

    Args:
        predicted: (rows, classes) probabilities, or (rows,) numbers.
        y: (rows,) class numbers, or (rows,) numbers.
        prefix: put before each name.

    Returns:
        "accuracy" and "log_loss" (nats) for classes, "mse" and "mae" for numbers; each (sum, rows).

    Example:
        >>> import numpy as np
        >>> scores(np.array([[0.9, 0.1], [0.8, 0.2]]), np.array([0, 1]))["accuracy"]
        (1.0, 2.0)
    """
    rows = float(len(y))
    if np.ndim(predicted) == 2:
        p = np.asarray(predicted, float)
        y = np.asarray(y).astype(np.int64)
        hits = float((p.argmax(axis=1) == y).sum())
        chosen = p[np.arange(len(y)), y] / np.maximum(p.sum(axis=1), EPS)
        loss = float(-np.log(np.clip(chosen, EPS, 1.0)).sum())
        return {f"{prefix}accuracy": (hits, rows), f"{prefix}log_loss": (loss, rows)}
    off = np.asarray(predicted, float).ravel() - np.asarray(y, float).ravel()
    return {f"{prefix}mse": (float((off**2).sum()), rows), f"{prefix}mae": (float(np.abs(off).sum()), rows)}
