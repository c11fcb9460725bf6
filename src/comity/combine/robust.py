"""Combiners that survive liars."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from comity.combine.mean import added, mean_of, weighted
from comity.core.contribution import Contribution, View
from comity.core.round import Round
from comity.core.tree import tree_map


@dataclass(frozen=True)
class Median:
    """Coordinate-wise median (Yin et al., ICML 2018, Definition 1). Survives fewer than half liars.

    Every contribution (or sum of a group) counts once; those of weight 0 do not count, coordinate by
    coordinate where weights are Trees. Holds the cohort in memory.

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
        return weighted(c)

    def lower(self, gathered: Sequence[Contribution], state: None, round: Round) -> tuple[Contribution, None]:
        """Each to its mean, then the median of every coordinate."""
        means = [mean_of(c) for c in gathered]
        value = tree_map(lambda *xs: _median(xs[: len(means)], xs[len(means) :]), means[0].value,
                         *(m.value for m in means[1:]), *(m.weight for m in means))  # fmt: skip
        weight = tree_map(lambda *ws: sum(ws), means[0].weight, *(m.weight for m in means[1:]))
        metrics = added([c.metrics for c in gathered])
        return replace(means[0], value=value, weight=weight, metrics=metrics, sender=""), state


def _median(values: Sequence[Any], weights: Sequence[Any]) -> Any:
    stack = np.stack([np.asarray(v, float) for v in values])
    counts = [np.asarray(w) > 0 for w in weights]
    if all(c.all() for c in counts):
        return np.median(stack, axis=0)
    counted = np.stack([np.broadcast_to(c, stack.shape[1:]) for c in counts])
    held = np.sort(np.where(counted, stack, np.inf), axis=0)
    n = counted.sum(axis=0)
    low = np.take_along_axis(held, np.maximum(n - 1, 0)[None] // 2, axis=0)[0]
    high = np.take_along_axis(held, np.minimum(n // 2, np.maximum(n - 1, 0))[None], axis=0)[0]
    return np.where(n > 0, (low + high) / 2, 0.0)
