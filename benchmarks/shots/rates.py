"""Learning rates of the clients: for each method the one that validation chose, on seeds that no table shows."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from shots import net

GRID = 0.01, 0.02, 0.05, 0.1
SEEDS = 0, 1
CHOSEN: Mapping[str, Mapping[str, float]] = {
    "S10": {
        "alone": 0.05,
        "fedavg": 0.1,
        "fedbn": 0.1,
        "fedrep": 0.05,
        "ditto": 0.05,
        "lotteryfl": 0.02,
        "fedltn": 0.1,
        "twin": 0.01,
        "tickets": 0.05,
    },
    "S10-CIFAR": {
        "alone": 0.05,
        "fedavg": 0.02,
        "fedbn": 0.1,
        "ditto": 0.02,
        "twin": 0.02,
        "tickets": 0.05,
    },
}
"""By split and method, as `python benchmarks/tickets.py --tune` found them; on S10-CIFAR with seed 0 and three rates
only, and alone not at all: it has that of S10."""


def family(name: str) -> str:
    """Variants of a method have its rate: "tickets-long" that of "tickets"."""
    return name.split("-")[0]


def rate_of(split: str, name: str) -> float:
    """What a method trains with; splits of the same images share what was chosen on the first of them."""
    chosen = CHOSEN["S10-CIFAR" if split.endswith("CIFAR") else "S10"]
    return chosen.get(family(name), net.RATE)


def tuned(
    names: Iterable[str], run: Callable[[str, float], Sequence[Mapping[str, Any]]]
) -> dict[str, dict[float, float]]:
    """Validation accuracy of each method at each rate of the grid, after the last pass that suits it best.

    Args:
        names: of methods.
        run: the runs of a method at a rate, one for each seed.
    """
    return {name: {rate: _valid(run(name, rate)) for rate in GRID} for name in names}


def _valid(runs: Sequence[Mapping[str, Any]]) -> float:
    return max(float(np.mean([np.mean(r["ways"][way]["valid"]) for r in runs])) for way in runs[0]["ways"])
