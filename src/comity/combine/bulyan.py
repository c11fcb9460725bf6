"""Bulyan: Krum chooses who may speak, and of each coordinate only what lies near the median is heard."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from comity.combine.cohort import Cohort, Slice, each_coordinate
from comity.combine.krum import TIE, squared_distances, whole_vector, whole_vectors
from comity.combine.mean import added
from comity.combine.robust import liars
from comity.core.contribution import Array, Contribution, View
from comity.core.round import Round


@dataclass(frozen=True)
class Bulyan:
    """Of each coordinate the mean of the values nearest to the median of the chosen (El Mhamdi et al., ICML 2018).

    Krum chooses one contribution after the other, each from those that are left, until θ = n - 2f are chosen; the
    result is, coordinate by coordinate, the mean of the θ - 2f chosen values nearest to their median. Survives `f`
    liars out of n >= 4f + 3, and bounds what they can do to a single coordinate, which bounds on distances leave open
    in high dimension.

    The median of an even number of values is the lower of the two in the middle, and of two values as near to it
    the lower is heard. Ties of Krum go to the sender whose name comes first. Weights and Trees of weights are as in
    `Krum`: every contribution counts once, and the combined weight is that of all who count. Holds the cohort in
    memory, and a slice of it once more; chooses in n - 2f steps of n² each.

    Departure: Krum adds the distances to the r - f - 2 nearest others of the r that are left, and to one at least.
    The paper takes f as it is down to r = 2f + 1, where for f <= 1 that would be none.

    Attributes:
        f: how many liars it survives, >= 0; 4f + 3 contributions are needed.

    Raises:
        ConfigError: f out of its range.

    Example:
        >>> import numpy as np, comity as co
        >>> cohort = [co.Contribution("delta", np.array([x])) for x in (1.0, 2.0, 1.5, -1e9, 1.6, 1.4, 1.7)]
        >>> co.Bulyan(f=1).lower(cohort, None, co.Round(run="", seed=0))[0].value.round(3)
        array([1.567])
    """

    f: int = 1
    needs: ClassVar[View] = "groups"

    def __post_init__(self) -> None:
        liars("Bulyan", self.f)

    def init(self) -> None:
        """No state."""

    def lift(self, c: Contribution) -> Contribution:
        """As the mean does, so that groups can be summed.

        Raises:
            ContributionError: weights that leave out some coordinates; or what is no number.
        """
        return whole_vector("Bulyan", c)

    def lower(self, gathered: Sequence[Contribution], state: None, round: Round) -> tuple[Contribution, None]:
        """Choose by Krum, then the mean around the median of every coordinate.

        Raises:
            TooFewParticipants: fewer than 4f + 3 contributions with weight.
            ContributionError: contributions of different names or shapes, or that are no numbers.
        """
        counted = whole_vectors(f"Bulyan(f={self.f})", gathered, 4 * self.f + 3)
        cohort = Cohort(counted)
        chosen = _chosen(cohort, self.f)
        value = cohort.tree(each_coordinate(cohort, lambda s: _near_median(s, chosen, 2 * self.f)))
        return replace(cohort.combined(value), metrics=added([c.metrics for c in gathered])), state


def _chosen(cohort: Cohort, f: int) -> list[int]:
    """n - 2f places in the cohort, in its order."""
    n = len(cohort.gathered)
    squared = squared_distances(cohort)
    order = np.argsort(squared, axis=1, kind="stable")
    ordered = np.take_along_axis(squared, order, axis=1)
    others, left = order != np.arange(n)[:, None], np.ones(n, bool)
    for _ in range(n - 2 * f):
        heard = left[order] & others
        near = heard & (heard.cumsum(axis=1) <= max(int(left.sum()) - f - 2, 1))
        score = np.where(left, np.where(near, ordered, 0.0).sum(axis=1), np.inf)
        tied = np.flatnonzero(left & (score <= score.min() * (1 + TIE)))
        left[min(tied.tolist(), key=lambda i: (cohort.gathered[i].sender, i))] = False
    return np.flatnonzero(~left).tolist()


def _near_median(s: Slice, chosen: Sequence[int], out: int) -> Array:
    """(coordinates,) the mean of all but `out` of the chosen values, those nearest to their median."""
    held = np.sort(s.x[chosen], axis=0)
    away = np.abs(held - held[(len(chosen) - 1) // 2])
    near = np.argsort(away, axis=0, kind="stable")[: len(chosen) - out]
    return np.asarray(np.take_along_axis(held, near, axis=0).mean(axis=0))
