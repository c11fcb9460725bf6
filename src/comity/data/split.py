"""Training, validation and test rows, by a keyed hash: the same for whoever knows the key."""

from collections.abc import Sequence

import numpy as np

from comity.core.contribution import Array
from comity.core.errors import ConfigError
from comity.core.rng import keyed_order

BINS = 5
"""A measured target is stratified over this many quantile bins."""


def split(
    y: Array, seed: int, *, repeat: int = 0, party: str = "", parts: Sequence[float] = (0.6, 0.2, 0.2)
) -> tuple[Array, ...]:
    """Rows for training, validation and test, each class (or quantile bin) shared out alike.

    Which rows go where depends on (seed, repeat, party, number of rows, classes) only. Shares are right to
    within a row in each class and over all together. A class of one row goes to training; from 10 rows on
    no part is empty.

    Args:
        y: (rows,) integers are classes; floats are measured and cut into 5 quantile bins.
        seed: the run's public seed.
        repeat: which of several splits.
        party: whose rows these are.
        parts: the share of each part, > 0, together 1; the first is for training.

    Returns:
        For each part (rows of it,) int64 row numbers in ascending order; disjoint, together all.

    Raises:
        ConfigError: bad shares, or y is not one finite number for each row.

    Example:
        >>> [part.tolist() for part in split(np.array([0, 0, 0, 0, 0, 1, 1, 1, 1, 1]), 0)]
        [[1, 2, 4, 7, 8, 9], [0, 5], [3, 6]]
    """
    shares = np.asarray(parts, np.float64)
    if shares.ndim != 1 or not shares.size or not (shares > 0).all() or abs(shares.sum() - 1) > 1e-9:
        raise ConfigError(f"'parts' must be shares > 0 that make 1. Got {tuple(parts)}. Use (0.6, 0.2, 0.2).")
    strata = _strata(np.asarray(y))
    order = keyed_order(len(strata), seed, "split", repeat, party)
    order = order[np.argsort(strata[order], kind="stable")]
    sizes = _sizes(np.unique(strata, return_counts=True)[1], shares)
    label = np.repeat(np.tile(np.arange(shares.size), len(sizes)), sizes.ravel())
    return tuple(np.sort(order[label == part]) for part in range(shares.size))


def _strata(y: Array) -> Array:
    if y.ndim != 1 or y.dtype.kind not in "iufb" or (y.dtype.kind == "f" and not np.isfinite(y).all()):
        raise ConfigError(f"'y' must be one finite number for each row. Got {y.dtype.name} of shape {y.shape}.")
    if y.dtype.kind != "f" or not y.size:
        return y
    return np.asarray(np.searchsorted(np.quantile(y, np.arange(1, BINS) / BINS), y))


def _sizes(counts: Array, shares: Array) -> Array:
    """(strata, parts) rows: each within one of its share, what rounding leaves is carried on."""
    sizes = np.zeros((len(counts), len(shares)), np.int64)
    carry = np.zeros(len(shares))
    for i, count in enumerate(counts):
        if count == 1:
            sizes[i, 0] = 1
            continue
        want = shares * count + carry
        sizes[i] = _rounded(want, int(count))
        if not sizes[i, 0]:
            sizes[i] += np.eye(len(shares), dtype=np.int64)[0] - np.eye(len(shares), dtype=np.int64)[sizes[i].argmax()]
        carry = want - sizes[i]
    if counts.sum() >= 10:
        _fill(sizes)
    return sizes


def _rounded(want: Array, count: int) -> Array:
    """Whole numbers >= 0 near `want` that make `count` (largest remainders)."""
    got: Array = np.maximum(np.floor(want), 0).astype(np.int64)
    for _ in range(abs(count - int(got.sum()))):
        step = 1 if got.sum() < count else -1
        open_ = (got > 0) | (step > 0)
        got[np.where(open_, (want - got) * step, -np.inf).argmax()] += step
    return got


def _fill(sizes: Array) -> None:
    """Give each empty part a row of the part and class that have most."""
    for part in range(sizes.shape[1]):
        if not sizes[:, part].any():
            giver = sizes.sum(0).argmax()
            stratum = sizes[:, giver].argmax()
            sizes[stratum, giver] -= 1
            sizes[stratum, part] += 1
