"""Intervals over repeated random splits, corrected for the overlap of their training rows."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

TRAIN, VALID, TEST = 0.6, 0.2, 0.2

# Two-sided 95 % quantiles of Student's t, by degrees of freedom 1 to 30.
_T95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval.

    Attributes:
        mean: over the repeats.
        low: lower end; None where one repeat says nothing of the spread.
        high: upper end, or None.
    """

    mean: float
    low: float | None
    high: float | None

    def to_json(self) -> dict[str, float | None]:
        """As it stands in the results."""
        return {"mean": self.mean, "low": self.low, "high": self.high}


def interval(
    values: Sequence[float | None], low: float = -math.inf, high: float = math.inf, *, grain: float = 0.0
) -> Interval | None:
    """The mean over repeats and its corrected resampled-t interval (Nadeau and Bengio, 2003, section 3, estimate 7).

    The variance of the mean over J splits is taken as (1/J + test/train)·S², because the splits share
    rows: the naive 1/J is too small. Training here is what a model learns from and is chosen on.

    Args:
        values: one for each repeat; None where it is undefined there.
        low: the least value that there can be.
        high: the largest.
        grain: what one test row is worth. S is never taken to be smaller: equal values on few rows and few
            splits are a coincidence of counting, not certainty.

    Returns:
        None when no repeat has a value; without ends when only one has.
    """
    known = [v for v in values if v is not None]
    if not known:
        return None
    n, mean = len(known), math.fsum(known) / len(known)
    if n == 1:
        return Interval(mean, None, None)
    variance = math.fsum((v - mean) ** 2 for v in known) / (n - 1)
    spread = math.sqrt(max(variance, grain * grain))
    half = _t95(n - 1) * math.sqrt(1 / n + TEST / (TRAIN + VALID)) * spread
    return Interval(mean, max(mean - half, min(low, mean)), min(mean + half, max(high, mean)))


def _t95(df: int) -> float:
    """The quantile; beyond 30 degrees by the Cornish-Fisher expansion, right to three decimals."""
    if df <= len(_T95):
        return _T95[df - 1]
    z = 1.959964
    return z + (z**3 + z) / (4 * df) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * df**2)
