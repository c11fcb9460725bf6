"""The geometric median: the point from which the way to all contributions is shortest."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from comity.combine.cohort import Cohort, Slice, each_coordinate, summand, weighted_median
from comity.core.checks import flag, number, whole
from comity.core.contribution import Array, Contribution, View
from comity.core.errors import TooFewParticipants
from comity.core.round import Round


@dataclass(frozen=True)
class GeometricMedian:
    """The point z with the least sum of w·‖z - x‖ (RFA: Pillutla et al., IEEE TSP 2022, Algorithm 2).

    Found by the smoothed Weiszfeld algorithm. Survives liars who together have less than half of the weight.
    A weight is only the contributor's word: where liars may claim any, use `uniform=True`, or a method that
    bounds it.

    Where weights are Trees, what is least is the sum of √Σⱼ (wⱼ·(zⱼ - xⱼ))² over contributions, which is the
    same for weights that are one number: coordinates that somebody did not give have no part in the distance
    to it. A coordinate that nobody gave is 0, as in the mean. Contributions of weight 0 do not count. Holds
    the cohort in memory, and a slice of it once more.

    Departures: it runs at the hub on what the hub sees, and not as one secure sum for each step. It begins at
    the coordinate-wise weighted median, which liars cannot move far, and not at the mean. The smoothing ν is a
    share of the median distance from there, so that nothing depends on the unit of the values: the whole of it
    in the first step, which leaves a contribution that is not the median, and `tolerance` from then on. It ends
    when the pulls on z cancel, or after `steps`, the paper's R.

    Attributes:
        steps: the most steps, >= 1; each is one pass over the cohort.
        tolerance: the pull that may be left over, as a share of the total weight, and the smoothing, as a
            share of the median distance, > 0.
        uniform: every contribution (or sum of a group) counts once, whatever its weight.

    Raises:
        ConfigError: a setting out of its range.

    Example:
        >>> import numpy as np, comity as co
        >>> cohort = [co.Contribution("delta", np.array(x)) for x in ([1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [9e9, 9e9])]
        >>> co.GeometricMedian().lower(cohort, None, co.Round(run="", seed=0))[0].value.round(3)
        array([0.5, 0.5])
    """

    steps: int = 100
    tolerance: float = 1e-5
    uniform: bool = False
    needs: ClassVar[View] = "groups"

    def __post_init__(self) -> None:
        who = "GeometricMedian"
        object.__setattr__(self, "steps", whole("steps", who, self.steps, 1, hint="Use 100."))
        object.__setattr__(self, "uniform", flag("uniform", who, self.uniform))
        object.__setattr__(self, "tolerance", number("tolerance", who, self.tolerance, "(0, inf)", hint="Use 1e-5."))

    def init(self) -> None:
        """No state."""

    def lift(self, c: Contribution) -> Contribution:
        """As the mean does, so that groups can be summed."""
        return summand(c)

    def lower(self, gathered: Sequence[Contribution], state: None, round: Round) -> tuple[Contribution, None]:
        """Each to its mean, then their geometric median.

        Raises:
            TooFewParticipants: no contribution has weight.
            ContributionError: contributions of different names or shapes, or that are no numbers.
        """
        cohort = Cohort(gathered, uniform=self.uniform)
        if not cohort.givers().any():
            raise TooFewParticipants(
                "GeometricMedian needs a contribution with weight. Got none. Ask more participants."
            )
        with np.errstate(over="ignore", invalid="ignore"):
            z = _weiszfeld(cohort, self.steps, self.tolerance)
        return cohort.combined(cohort.tree(z)), state


def _weiszfeld(cohort: Cohort, steps: int, tolerance: float) -> Array:
    """(coordinates,) float64."""
    z = each_coordinate(cohort, weighted_median)
    way, most = _from(cohort, z)
    scale = _middle(way / np.where(most > 0, most, 1.0), most)
    share = 1.0
    for _ in range(steps if scale > 0 else 0):
        way, left = _step(cohort, z, 1.0 / np.maximum(way, np.where(most > 0, share * scale * most, 1.0)))
        if left <= tolerance * most.sum() and share == tolerance:
            break
        share = tolerance
    return z


def _slices(cohort: Cohort) -> Iterator[Slice]:
    """With weights of at most 1, whose squares stay in range."""
    unit = 1.0 if cohort.uniform else cohort.heaviest()
    for s in cohort.slices():
        yield Slice(s.x, s.w / unit, s.at)


def _from(cohort: Cohort, z: Array) -> tuple[Array, Array]:
    """(contributions,) the weighted distance of each to z; and its largest weight."""
    squared, most = np.zeros(len(cohort.gathered)), np.zeros(len(cohort.gathered))
    for s in _slices(cohort):
        squared += _squared(s, z[s.at])
        most = np.maximum(most, s.w.max(axis=1))
    return _rooted(squared), most


def _step(cohort: Cohort, z: Array, pull: Array) -> tuple[Array, float]:
    """Move z, in place, to the mean in which each counts as it pulls.

    Returns:
        (contributions,) the weighted distances from there, and the length of the pulls' sum before.
    """
    squared, left = np.zeros(len(pull)), 0.0
    for s in _slices(cohort):
        counts = np.square(s.w) * pull[:, None]
        total = counts.sum(axis=0)
        heard = np.where(pull[:, None] > 0, s.x, 0.0)
        new = (counts * heard).sum(axis=0) / np.where(total > 0, total, 1.0)
        left += float(np.square((new - z[s.at]) * total).sum())
        z[s.at] = new
        squared += _squared(s, new)
    return _rooted(squared), math.sqrt(left)


def _squared(s: Slice, z: Array) -> Array:
    return np.asarray(np.square(s.w * (s.x - z)).sum(axis=1))


def _rooted(squared: Array) -> Array:
    return np.asarray(np.sqrt(np.where(np.isnan(squared), np.inf, squared)))


def _middle(x: Array, weight: Array) -> float:
    """The lower weighted median of some numbers."""
    order = np.argsort(x, kind="stable")
    mass = np.cumsum(weight[order])
    return float(x[order[(mass >= mass[-1] / 2).argmax()]])
