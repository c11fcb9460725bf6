"""Combiners that survive liars, coordinate by coordinate: the median and the trimmed mean."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from comity.combine.cohort import Cohort, Slice, each_coordinate, summand
from comity.core.checks import number, whole
from comity.core.contribution import Array, Contribution, View
from comity.core.errors import ConfigError, TooFewParticipants
from comity.core.round import Round


@dataclass(frozen=True)
class Median:
    """Coordinate-wise median (Yin et al., ICML 2018, Definition 1). Survives fewer than half liars.

    Every contribution (or sum of a group) counts once; those of weight 0 do not count, coordinate by
    coordinate where weights are Trees. Holds the cohort in memory, and a slice of it once more.

    Example:
        >>> import numpy as np, comity as co
        >>> cohort = [co.Contribution("delta", np.array([x])) for x in (1.0, 2.0, 1e9)]
        >>> co.Median().lower(cohort, None, co.Round(run="", seed=0))[0].value
        array([2.])
    """

    needs: ClassVar[View] = "groups"

    def init(self) -> None:
        """No state."""

    def lift(self, c: Contribution) -> Contribution:
        """As the mean does, so that groups can be summed."""
        return summand(c)

    def lower(self, gathered: Sequence[Contribution], state: None, round: Round) -> tuple[Contribution, None]:
        """Each to its mean, then the median of every coordinate.

        Raises:
            TooFewParticipants: nobody contributed.
            ContributionError: contributions of different names or shapes, or that are no numbers.
        """
        cohort = Cohort(gathered)
        return cohort.combined(cohort.tree(each_coordinate(cohort, _median))), state


@dataclass(frozen=True)
class TrimmedMean:
    """Coordinate-wise trimmed mean (Yin et al., ICML 2018, Definition 2). Survives `f` liars out of n > 2f.

    Of each coordinate the f largest and the f smallest values are left out; the mean of the rest lies
    between two values of honest contributors, whatever f liars send. f = 0 is `Mean(uniform=True)`.

    Every contribution (or sum of a group) counts once: a weight is only the contributor's word. Those of
    weight 0 do not count. Where weights are Trees, f is taken off the values of a coordinate's own givers; a
    coordinate with 2f givers or fewer, all of whom could be liars or trimmed, is treated as if nobody gave
    it: value 0 and weight 0, as the mean does. Holds the cohort in memory, and a slice of it once more.

    Attributes:
        f: how many liars it survives, >= 0; 2f + 1 contributions are needed.
        trim: in place of f, the share β in [0, 0.5) left out at each end, which fits a cohort of any size:
            f = floor(β · n), with n the givers of the coordinate.

    Raises:
        ConfigError: f or trim out of its range, or both.

    Example:
        >>> import numpy as np, comity as co
        >>> cohort = [co.Contribution("delta", np.array([x])) for x in (1.0, 2.0, 4.0, -1e9, 3.0)]
        >>> co.TrimmedMean(f=1).lower(cohort, None, co.Round(run="", seed=0))[0].value
        array([2.])
    """

    f: int = 1
    trim: float | None = None
    needs: ClassVar[View] = "groups"

    def __post_init__(self) -> None:
        liars("TrimmedMean", self.f)
        if self.trim is None:
            return
        if self.f != 1:
            raise ConfigError(f"TrimmedMean takes f or trim. Got both, f={self.f} and trim={self.trim}. Leave out f.")
        trim = number("trim", "TrimmedMean", self.trim, "[0, 0.5)", hint="Use 0.2 to survive a fifth of liars.")
        object.__setattr__(self, "trim", trim)

    def init(self) -> None:
        """No state."""

    def lift(self, c: Contribution) -> Contribution:
        """As the mean does, so that groups can be summed."""
        return summand(c)

    def lower(self, gathered: Sequence[Contribution], state: None, round: Round) -> tuple[Contribution, None]:
        """Each to its mean, then the trimmed mean of every coordinate.

        Raises:
            TooFewParticipants: 2f contributions with weight, or fewer.
            ContributionError: contributions of different names or shapes, or that are no numbers.
        """
        cohort = Cohort(gathered)
        n = int(cohort.givers().sum())
        need = 2 * int(self._cut(np.array(n))) + 1
        if n < need:
            raise TooFewParticipants(
                f"TrimmedMean(f={self.f}) needs {need} contributions. Got {n}. "
                "Use a smaller f, or ask more participants."
            )
        weight = self._weight(cohort) if cohort.uneven() else None
        return cohort.combined(cohort.tree(each_coordinate(cohort, self._trimmed)), weight), state

    def _cut(self, n: Array) -> Array:
        """How many values are left out at each end, of n."""
        if self.trim is None:
            return np.full(n.shape, self.f)
        return np.floor(self.trim * n + 1e-9).astype(int)

    def _trimmed(self, s: Slice) -> Array:
        held, n = ordered(s)
        cut = self._cut(n)
        if (n == len(held)).all():
            same = int(cut[0])
            return np.asarray(held[same : len(held) - same].mean(axis=0))
        rank = np.arange(len(held))[:, None]
        kept = (rank >= cut) & (rank < n - cut)
        return np.asarray(np.where(kept, held, 0.0).sum(axis=0) / np.maximum(n - 2 * cut, 1))

    def _weight(self, cohort: Cohort) -> Any:
        """The summed weight of each coordinate, 0 where too few gave it."""

        def total(s: Slice) -> Array:
            n = np.broadcast_to((s.w > 0).sum(axis=0), s.x.shape[1:])
            return np.where(n > 2 * self._cut(n), s.w.sum(axis=0), 0.0)

        return cohort.tree(each_coordinate(cohort, total))


def liars(name: str, f: Any) -> None:
    """Refuse an `f` that is no number of liars.

    Raises:
        ConfigError: it is not an int >= 0.
    """
    whole("f", name, f, hint="Use the number of liars to survive.")


def ordered(s: Slice) -> tuple[Array, Array]:
    """The values of each coordinate in rising order, those without weight last as infinity; and how many have weight.

    Returns:
        (contributions, coordinates) float64 and (coordinates,) int.
    """
    counted = np.broadcast_to(s.w > 0, s.x.shape)
    if counted.all():
        return np.sort(s.x, axis=0), np.full(s.x.shape[1], len(s.x))
    return np.sort(np.where(counted, s.x, math.inf), axis=0), counted.sum(axis=0)


def _median(s: Slice) -> Array:
    held, n = ordered(s)
    last = np.maximum(n - 1, 0)
    low = np.take_along_axis(held, last[None] // 2, axis=0)[0]
    high = np.take_along_axis(held, np.minimum(n // 2, last)[None], axis=0)[0]
    return np.asarray(np.where(n > 0, (low + high) / 2, 0.0))
