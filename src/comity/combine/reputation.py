"""A mean that counts by reputation: who was often far from the others counts less, and not at all while it is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from comity.combine.cohort import Cohort, each_coordinate, weighted_median
from comity.combine.krum import whole_vector, whole_vectors
from comity.combine.mean import added
from comity.core.checks import number
from comity.core.contribution import Array, Contribution, View
from comity.core.errors import TooFewParticipants
from comity.core.round import Round


@dataclass(frozen=True)
class ReputationMean:
    """A mean in which each contributor counts by its reputation, a Beta posterior of agreeing with the others.

    A contribution agrees if it lies within `reach` times the median of all distances from the coordinate-wise median
    of the round: the residuals of a robust fit, judged in their own robust unit as in the residual-based reweighting
    of Fu et al. (2019). Reputation is the Beta reputation system of Jøsang & Ismail (Bled eConference 2002): with r
    rounds of agreement and s of none, ρ = (r + 1) / (r + s + 2), and both are multiplied by `memory` before the new
    round is added, so that what is long ago counts less. The result is the sum of ρ·x over that of ρ, over those that
    agree in this round; a lie is thus left out at once, and who lied before counts less while it is honest.

    Fewer than half liars can neither move the median out of the honest range, nor the reach beyond `reach` times the
    longest honest distance; within it they move the result by their share of reputation. Where parties differ
    honestly, those that differ most lose reputation too: `reputations` shows it.

    Reputations are kept by the sender's name, for which each contribution must be seen. The contributor's weight does
    not count: reputation takes its place. Who does not contribute, or with weight 0, keeps its reputation. Distances
    compare whole vectors: a contribution whose weights are a Tree and 0 somewhere is refused at the site, and does
    not count where it comes all the same. The combined weight is that of all who count. Holds the cohort in memory,
    and a slice of it once more.

    Departures: Fu et al. weigh each parameter by itself, by a repeated median regression, and keep nothing; here a
    whole vector agrees or does not, and is remembered.

    Attributes:
        reach: how far, in median distances, still agrees, >= 1; at 1 just over half of them do.
        memory: by what r and s are multiplied each round, the forgetting factor, in [0, 1]; 1 forgets nothing.

    Raises:
        ConfigError: a setting out of its range.

    Example:
        >>> import numpy as np, comity as co
        >>> said = {"ann": 1.0, "bob": 2.0, "cy": 3.0, "eve": -1e9}
        >>> cohort = [co.Contribution("delta", np.array([x]), sender=name) for name, x in said.items()]
        >>> mean = co.ReputationMean()
        >>> combined, state = mean.lower(cohort, mean.init(), co.Round(run="", seed=0))
        >>> combined.value, {name: round(rho, 2) for name, rho in mean.reputations(state).items()}
        (array([2.]), {'ann': 0.67, 'bob': 0.67, 'cy': 0.67, 'eve': 0.33})
    """

    reach: float = 2.0
    memory: float = 0.9
    needs: ClassVar[View] = "each"

    def __post_init__(self) -> None:
        number("reach", "ReputationMean", self.reach, "[1, inf)")
        number("memory", "ReputationMean", self.memory, "[0, 1]")

    def init(self) -> dict[str, Any]:
        """Nobody is known: ρ = 1/2."""
        return {"feedback": {}}

    def lift(self, c: Contribution) -> Contribution:
        """As it is.

        Raises:
            ContributionError: weights that leave out some coordinates; or what is no number.
        """
        whole_vector("ReputationMean", c)
        return c

    def lower(self, gathered: Sequence[Contribution], state: Any, round: Round) -> tuple[Contribution, Any]:
        """The mean by reputation; the state keeps r and s of everybody.

        Raises:
            TooFewParticipants: no contribution has weight.
            ContributionError: contributions of different names or shapes, or that are no numbers.
        """
        counted = whole_vectors("ReputationMean", gathered, 1)
        cohort = Cohort([replace(c, weight=1.0) for c in counted])
        agrees = self._agreement(cohort)
        after = self._heard(state, {c.sender: bool(a) for c, a in zip(counted, agrees, strict=True)})
        known = self.reputations(after)
        if not agrees.any():
            raise TooFewParticipants("ReputationMean needs a finite contribution. Got none. Ask more participants.")
        rho = np.array([known[c.sender] for c in counted])[agrees]
        value = each_coordinate(cohort, lambda s: np.asarray(rho @ s.x[agrees] / rho.sum()))
        metrics = added([c.metrics for c in gathered])
        return replace(Cohort(counted).combined(cohort.tree(value)), metrics=metrics), after

    def reputations(self, state: Any) -> dict[str, float]:
        """Everybody's ρ in (0, 1), by name; that of whoever is not named is 1/2.

        Args:
            state: the combiner's.
        """
        return {who: float((r + 1) / (r + s + 2)) for who, (r, s) in state["feedback"].items()}

    def _agreement(self, cohort: Cohort) -> Array:
        """(contributions,) bool."""
        squared = np.zeros(len(cohort.gathered))
        with np.errstate(over="ignore", invalid="ignore"):
            for s in cohort.slices():
                squared += np.square(s.x - weighted_median(s)).sum(axis=1)
        away = np.sqrt(np.where(np.isnan(squared), np.inf, squared))
        middle = np.sort(away)[len(away) // 2]
        return np.asarray(np.isfinite(away) & (away <= self.reach * middle * (1 + 1e-9)))

    def _heard(self, state: Any, agreed: Mapping[str, bool]) -> dict[str, Any]:
        feedback = dict(state["feedback"])
        for who in sorted(agreed):
            before = np.asarray(feedback.get(who, (0.0, 0.0)), float)
            feedback[who] = self.memory * before + np.array([agreed[who], not agreed[who]], float)
        return {"feedback": {who: feedback[who] for who in sorted(feedback)}}
