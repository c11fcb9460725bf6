"""Krum and Multi-Krum: the contributions that most of the others agree with."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from comity.combine.cohort import Cohort, each_coordinate, summand
from comity.combine.mean import added, mean_of
from comity.combine.robust import liars
from comity.core.checks import whole
from comity.core.contribution import Array, Contribution, View
from comity.core.errors import ContributionError, TooFewParticipants
from comity.core.round import Round

TIE = 1e-9
"""Scores nearer to the least than this share of it are the same but for rounding."""


@dataclass(frozen=True)
class Krum:
    """The one contribution that lies nearest to its n - f - 2 nearest others (Krum: Blanchard et al., NeurIPS 2017).

    The score of a contribution is the sum of its squared distances to those; the least score wins (section 4
    of the paper). Survives `f` liars out of n >= 2f + 3. What the others know is thrown away, so that where
    nobody lies it learns more slowly than the mean, and where parties differ it takes the side of one.

    A tie goes to the sender whose name comes first, as in the paper to the smallest identifier; then to
    whoever was asked first. Every contribution (or sum of a group) counts once, whatever its weight; those of
    weight 0 do not count. Distances compare whole vectors: a contribution whose weights are a Tree and 0
    somewhere is refused at the site, and does not count where it comes all the same. The combined weight is
    that of all who count. Holds the cohort in memory, and a slice of it once more.

    Departure: distances come from products of the vectors less their coordinate-wise median, in float64, which
    takes n² products instead of n² differences. The median keeps what liars send out of the rounding of others.

    Attributes:
        f: how many liars it survives, >= 0; 2f + 3 contributions are needed.

    Raises:
        ConfigError: f out of its range.

    Example:
        >>> import numpy as np, comity as co
        >>> cohort = [co.Contribution("delta", np.array([x])) for x in (1.0, 2.0, 1.5, -1e9, 1.6)]
        >>> co.Krum(f=1).lower(cohort, None, co.Round(run="", seed=0))[0].value
        array([1.6])
    """

    f: int = 1
    needs: ClassVar[View] = "groups"

    def __post_init__(self) -> None:
        liars("Krum", self.f)

    def init(self) -> None:
        """No state."""

    def lift(self, c: Contribution) -> Contribution:
        """As the mean does, so that groups can be summed.

        Raises:
            ContributionError: weights that leave out some coordinates; or what is no number.
        """
        return whole_vector("Krum", c)

    def lower(self, gathered: Sequence[Contribution], state: None, round: Round) -> tuple[Contribution, None]:
        """The mean of the contribution with the least score.

        Raises:
            TooFewParticipants: 2f + 2 contributions with weight, or fewer.
            ContributionError: contributions of different names or shapes, or that are no numbers.
        """
        counted = whole_vectors(f"Krum(f={self.f})", gathered, 2 * self.f + 3)
        cohort = Cohort(counted)
        chosen = counted[nearest(counted, scores(squared_distances(cohort), len(counted) - self.f - 2), 1)[0]]
        metrics = added([c.metrics for c in gathered])
        return replace(cohort.combined(mean_of(chosen).value), metrics=metrics), state


@dataclass(frozen=True)
class MultiKrum:
    """The mean of the m contributions with the least Krum scores (Multi-Krum: Blanchard et al., NeurIPS 2017).

    Learns faster than `Krum`, which is m = 1, where nobody lies; m = n is `Mean(uniform=True)`. With `f` liars out of
    n >= 2f + 3, resilience is proven for m <= n - f - 2 (Damaskinos et al., SysML 2019), and it is lost for sure
    where m > n - f: then a liar is always among the m.

    Ties, weights, Trees of weights and distances are as in `Krum`: of equal scores the names that come first are
    taken; every contribution counts once; the combined weight is that of all who count. Holds the cohort in memory,
    and a slice of it once more.

    Attributes:
        f: how many liars it survives, >= 0; 2f + 3 contributions are needed.
        m: how many are averaged, >= 1, and needed at least; None takes n - f - 2 of n.

    Raises:
        ConfigError: f or m out of its range.

    Example:
        >>> import numpy as np, comity as co
        >>> cohort = [co.Contribution("delta", np.array([x])) for x in (1.0, 2.0, 1.5, -1e9, 1.6)]
        >>> co.MultiKrum(f=1).lower(cohort, None, co.Round(run="", seed=0))[0].value
        array([1.55])
    """

    f: int = 1
    m: int | None = None
    needs: ClassVar[View] = "groups"

    def __post_init__(self) -> None:
        liars("MultiKrum", self.f)
        if self.m is not None:
            whole("m", "MultiKrum", self.m, 1, hint="None takes n - f - 2 of n.")

    def init(self) -> None:
        """No state."""

    def lift(self, c: Contribution) -> Contribution:
        """As the mean does, so that groups can be summed.

        Raises:
            ContributionError: weights that leave out some coordinates; or what is no number.
        """
        return whole_vector("MultiKrum", c)

    def lower(self, gathered: Sequence[Contribution], state: None, round: Round) -> tuple[Contribution, None]:
        """The mean of the means of the m contributions with the least scores.

        Raises:
            TooFewParticipants: fewer than 2f + 3 contributions with weight, or than m.
            ContributionError: contributions of different names or shapes, or that are no numbers.
        """
        counted = whole_vectors(f"MultiKrum(f={self.f})", gathered, max(2 * self.f + 3, self.m or 1))
        cohort, most = Cohort(counted), len(counted) - self.f - 2
        taken = nearest(counted, scores(squared_distances(cohort), most), self.m or most)
        mean = each_coordinate(cohort, lambda s: np.asarray(s.x[taken].mean(axis=0)))
        metrics = added([c.metrics for c in gathered])
        return replace(cohort.combined(cohort.tree(mean)), metrics=metrics), state


def whole_vector(name: str, c: Contribution) -> Contribution:
    """A contribution to a summand that has weight everywhere, or nowhere.

    Raises:
        ContributionError: weights that leave out some coordinates; or what is no number.
    """
    lifted = summand(c)
    if Cohort([lifted]).uneven():
        raise ContributionError(
            f"{name} compares whole vectors: each coordinate needs weight. Got weights that are 0 in places. "
            "Use combine=Median()."
        )
    return lifted


def whole_vectors(name: str, gathered: Sequence[Contribution], need: int) -> list[Contribution]:
    """Those that have weight everywhere.

    Raises:
        TooFewParticipants: fewer than needed.
    """
    counted = [c for c, counts in zip(gathered, Cohort(gathered).whole(), strict=True) if counts]
    if len(counted) < need:
        raise TooFewParticipants(
            f"{name} needs {need} contributions. Got {len(counted)}. Use a smaller f, or ask more participants."
        )
    return counted


def nearest(counted: Sequence[Contribution], score: Array, m: int) -> list[int]:
    """Where the m least scores stand, in the order of the cohort; of those that tie, the names that come first."""
    last = np.partition(score, m - 1)[m - 1]
    sure = np.flatnonzero(score < last * (1 - TIE))
    tied = [i for i in np.flatnonzero(score <= last * (1 + TIE)).tolist() if i not in sure]
    return sorted([*sure.tolist(), *sorted(tied, key=lambda i: (counted[i].sender, i))[: m - len(sure)]])


def squared_distances(cohort: Cohort) -> Array:
    """(contributions, contributions) float64, infinite where they are no numbers and to oneself."""
    n = len(cohort.gathered)
    gram = np.zeros((n, n))
    with np.errstate(over="ignore", invalid="ignore"):
        for s in cohort.slices():
            x = s.x - np.partition(s.x, n // 2, axis=0)[n // 2]
            gram += x @ x.T
        size = np.diagonal(gram)
        squared = size[:, None] + size[None, :] - (gram + gram.T)
    squared = np.where(np.isnan(squared), np.inf, np.maximum(squared, 0.0))
    np.fill_diagonal(squared, np.inf)
    return squared


def scores(squared: Array, others: int) -> Array:
    """(contributions,) the sum of the squared distances to so many nearest others."""
    return np.asarray(np.sort(squared, axis=1)[:, :others].sum(axis=1))
