"""Intervals over repeated random splits, corrected for the overlap of their training rows."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import t

TRAIN, VALID, TEST = 0.6, 0.2, 0.2


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
    values: Sequence[float | None],
    low: float = -math.inf,
    high: float = math.inf,
    *,
    grain: float = 0.0,
    together: int = 1,
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
        together: of how many intervals this is one, if all are to hold at once with 95 % (Bonferroni).

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
    half = quantile(n - 1, together) * math.sqrt(1 / n + TEST / (TRAIN + VALID)) * spread
    return Interval(mean, max(mean - half, min(low, mean)), min(mean + half, max(high, mean)))


def quantile(df: int, together: int) -> float:
    """Of Student's t, two-sided, 5 % shared by so many intervals."""
    return float(t.ppf(1 - 0.025 / together, df))
