"""Centred clipping: nobody pulls further than τ from where all were before."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from comity.combine.cohort import Cohort, Slice, each_coordinate, weighted_median
from comity.combine.krum import whole_vector, whole_vectors
from comity.combine.mean import added
from comity.core.checks import number, whole
from comity.core.contribution import Array, Contribution, View
from comity.core.errors import ContributionError
from comity.core.round import Round
from comity.core.tree import leaves, tree_map


@dataclass(frozen=True)
class CenteredClipping:
    """v + the mean of (x - v)·min(1, τ / ‖x - v‖), from the last result v on (Karimireddy et al., ICML 2021).

    The paper's centred clipping, repeated `iterations` times: whoever is further than τ from the centre pulls by τ
    only, so that f liars of n move a step by τ·f / n at most. The centre is the result of the round before; it is kept
    in the combiner's state.

    Clipping is half of the paper: it is proven for participants that send momentum (β = 0.9, for one) in place of a
    gradient, as liars within the noise of single rounds add up over many. Momentum is the participants' business:
    nothing here adds it, and the deltas of `Trainer`, each of many steps from what is shared, have none.

    Every contribution (or sum of a group) counts once, whatever its weight; those of weight 0 do not count, and one
    that is no number, or too far for float64, pulls not at all. Distances compare whole vectors: a contribution whose
    weights are a Tree and 0 somewhere is refused at the site, and does not count where it comes all the same. The
    combined weight is that of all who count. Holds the cohort in memory, and a slice of it once more.

    Departure: in the first round, where there is no result before, the centre is the coordinate-wise median, which
    liars cannot move far, and not 0, from where τ would be all that is learnt.

    Attributes:
        tau: the radius τ in the unit of the contributions' L2 norm, > 0. Honest contributions should mostly lie
            within it; math.inf makes it `Mean(uniform=True)`.
        iterations: steps of each round, >= 1.

    Raises:
        ConfigError: a setting out of its range.

    Example:
        >>> import numpy as np, comity as co
        >>> cohort = [co.Contribution("delta", np.array([x])) for x in (1.0, 2.0, 3.0, 4.0, 1e9)]
        >>> clip = co.CenteredClipping(tau=2.0)
        >>> combined, state = clip.lower(cohort, clip.init(), co.Round(run="", seed=0))
        >>> combined.value, state["centre"]
        (array([3.]), array([3.]))
    """

    tau: float
    iterations: int = 1
    needs: ClassVar[View] = "groups"

    def __post_init__(self) -> None:
        number("tau", "CenteredClipping", self.tau, "(0, inf]")
        whole("iterations", "CenteredClipping", self.iterations, 1)

    def init(self) -> dict[str, Any]:
        """No centre yet."""
        return {}

    def lift(self, c: Contribution) -> Contribution:
        """As the mean does, so that groups can be summed.

        Raises:
            ContributionError: weights that leave out some coordinates; or what is no number.
        """
        return whole_vector("CenteredClipping", c)

    def lower(self, gathered: Sequence[Contribution], state: Any, round: Round) -> tuple[Contribution, Any]:
        """Each to its mean, clipped around the centre; the result is the next centre.

        Raises:
            TooFewParticipants: no contribution has weight.
            ContributionError: contributions of different names or shapes, or that are no numbers, or that do not
                fit the centre.
        """
        cohort = Cohort(whole_vectors("CenteredClipping", gathered, 1), uniform=True)
        v = _centre(cohort, state)
        with np.errstate(over="ignore", invalid="ignore"):
            for _ in range(self.iterations):
                v = self._moved(cohort, v)
        value = cohort.tree(v)
        metrics = added([c.metrics for c in gathered])
        return replace(cohort.combined(value), metrics=metrics), {"centre": cohort.tree(v.copy())}

    def _moved(self, cohort: Cohort, v: Array) -> Array:
        squared = sum(np.square(s.x - v[s.at]).sum(axis=1) for s in cohort.slices())
        away = np.sqrt(np.asarray(squared, float))
        near = np.isfinite(away)
        factor = np.where(near, np.minimum(1.0, self.tau / np.where(away > 0, away, 1.0)), 0.0)

        def step(s: Slice) -> Array:
            pull = np.where(near[:, None], s.x - v[s.at], 0.0)
            return np.asarray(v[s.at] + (factor @ pull) / len(pull))

        return each_coordinate(cohort, step)


def _centre(cohort: Cohort, state: Any) -> Array:
    """(coordinates,) the last result, or in the first round the median."""
    first = cohort.gathered[0].value
    if "centre" not in state:
        return each_coordinate(cohort, weighted_median)
    here, there = ({path: np.shape(x) for path, x in leaves(tree)} for tree in (first, state["centre"]))
    if here != there:
        raise ContributionError(
            "Contributions must have the names and shapes of the last result. Got others. Begin a new run."
        )
    parts: list[Array] = []
    tree_map(lambda _, v: parts.append(np.asarray(v, float).ravel()), first, state["centre"])
    return np.concatenate(parts)
