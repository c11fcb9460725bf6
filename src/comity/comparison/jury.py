"""Ways to combine the parties' own models, chosen on one's own validation rows.

average: the mean of what they say; vote: each says one class; weighted: by how well each does on the own
validation rows, w_m ∝ exp(-k·loss_m) (exponential weights; k = 0 would be the average), where the loss is the
mean log loss, or the mean squared error as a share of the target's variance.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from comity.comparison.sheet import loss, sheet
from comity.core.contribution import Array

SHARPNESS = (2.0, 8.0, 32.0)
"""The k that are tried."""

Combine = Callable[[Array], Array]


def combined(valid: Array, y: Array) -> tuple[str, Combine]:
    """The combination that does best on the validation rows.

    Args:
        valid: (members, rows, classes) probabilities or (members, rows) numbers, on the validation rows.
        y: (rows,) the truth there.

    Returns:
        Its name, and a function from (members, rows, ...) to (rows, ...).
    """
    tried = _ways(valid, y)
    losses = {name: loss(sheet(way(valid), y)) for name, way in tried.items()}
    how = min(losses, key=lambda name: losses[name])
    return how, tried[how]


def _ways(valid: Array, y: Array) -> Mapping[str, Combine]:
    ways: dict[str, Combine] = {"average": _average}
    if valid.ndim == 3:
        ways["vote"] = _vote
    losses = np.array([loss(sheet(member, y)) for member in valid])
    behind = (losses - losses.min()) / (1.0 if valid.ndim == 3 else _unit(y))
    for k in SHARPNESS:
        ways[f"weighted {k:g}"] = _weighted(np.exp(-k * behind))
    return ways


def _unit(y: Array) -> float:
    """The target's variance; where it does not vary, what rounding makes of it: the same in any unit."""
    y = np.asarray(y, np.float64)
    return max(float(np.var(y)), 1e-12 * float(np.mean(y**2))) or 1.0


def _average(said: Array) -> Array:
    return np.asarray(said.mean(axis=0))


def _vote(said: Array) -> Array:
    """Shares of votes, one more spread over the classes so that none is impossible."""
    classes = said.shape[2]
    votes = np.eye(classes)[said.argmax(axis=2)].sum(axis=0)
    return np.asarray((votes + 1 / classes) / (len(said) + 1))


def _weighted(weights: Array) -> Combine:
    share: Any = weights / weights.sum()
    return lambda said: np.asarray(np.tensordot(share, said, axes=1))
