"""What runs gave: which last pass validation chooses, means, paired intervals, and rows of a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

DRAWS = 4000
HEAD = ("method", "last pass", "seeds", "mean", "worst", "10th", "model kB", "smaller", "MB up", "MB down", "CPU s")


@dataclass(frozen=True)
class Line:
    """A row of the table.

    Attributes:
        name: what is shown.
        run: which training it reads.
        ways: last passes, of which validation chooses one for all clients and seeds.
    """

    name: str
    run: str
    ways: Sequence[str] = ("none",)


@dataclass(frozen=True)
class Found:
    """A row with its figures, by seed: accuracies are (clients,) arrays in 0..1."""

    line: Line
    way: str
    accuracy: Mapping[int, Any]
    facts: Mapping[int, Mapping[str, float]]


def found(line: Line, runs: Mapping[int, Mapping[str, Any]]) -> Found:
    """The row, its last pass chosen by the mean validation accuracy over clients and seeds."""
    ways = [w for w in line.ways if all(w in run["ways"] for run in runs.values())]
    way = max(ways, key=lambda w: np.mean([np.mean(run["ways"][w]["valid"]) for run in runs.values()]))
    accuracy = {seed: np.array(run["ways"][way]["test"]) for seed, run in runs.items()}
    facts = {
        seed: {k: run[k] for k in ("up", "seconds", "dense")}
        | {"size": run["ways"][way]["size"], "down": run["down"] + len(accuracy[seed]) * run["ways"][way]["sent"]}
        for seed, run in runs.items()
    }
    return Found(line, way, accuracy, facts)


def gain(one: Found, other: Found) -> tuple[float, float, float, float, int] | None:
    """Mean difference in points with its 95 % interval, that of the worst client, and the number of seeds they share.

    The interval is a paired bootstrap over seeds, and over clients within a seed. None where they share no seed.
    """
    seeds = sorted(one.accuracy.keys() & other.accuracy.keys())
    if not seeds:
        return None
    d = 100 * np.array([one.accuracy[s] - other.accuracy[s] for s in seeds])
    worst = 100 * np.mean([one.accuracy[s].min() - other.accuracy[s].min() for s in seeds])
    rng = np.random.default_rng(0)
    who = rng.integers(len(seeds), size=(DRAWS, len(seeds), 1))
    means = d[who, rng.integers(d.shape[1], size=(DRAWS, len(seeds), d.shape[1]))].mean((1, 2))
    low, high = np.percentile(means, [2.5, 97.5])
    return float(d.mean()), float(low), float(high), float(worst), len(seeds)


def cells(row: Found, against: Sequence[Found]) -> list[str]:
    """One row as text: HEAD, then a column for each it is compared with."""
    seeds = list(row.accuracy)
    each = [100 * row.accuracy[s] for s in seeds]
    mean = {k: float(np.mean([row.facts[s][k] for s in seeds])) for k in row.facts[seeds[0]]}
    middle = [float(np.mean(v)) for v in ([a.mean() for a in each], [a.min() for a in each])]
    tenth = float(np.mean([np.percentile(a, 10) for a in each]))
    figures = [*(f"{v:.1f}" for v in (*middle, tenth, mean["size"] / 1e3)), f"{mean['dense'] / mean['size']:.1f}"]
    traffic = [f"{mean[k] / 1e6:.2f}" for k in ("up", "down")]
    compared = ["" if other.line == row.line else _said(gain(row, other)) for other in against]
    return [row.line.name, row.way, str(len(seeds)), *figures, *traffic, f"{mean['seconds']:.0f}", *compared]


def _said(d: tuple[float, float, float, float, int] | None) -> str:
    return "" if d is None else f"{d[0]:+.1f} [{d[1]:+.1f}, {d[2]:+.1f}], worst {d[3]:+.1f}"


def summary(row: Found) -> dict[str, Any]:
    """One row for machines: accuracies of all clients by seed, bytes, seconds."""
    return {
        "run": row.line.run,
        "way": row.way,
        "accuracy": {str(s): [round(float(a), 4) for a in v] for s, v in row.accuracy.items()},
        "facts": {str(s): dict(v) for s, v in row.facts.items()},
    }
