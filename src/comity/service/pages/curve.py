"""The learning curve of a run that goes on: its axis reaches to the last planned round."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from comity.report import numbers
from comity.report.charts import scale
from comity.report.curve import LOWER_IS_BETTER, passes
from comity.report.view import WAYS

POINTS, ROWS = 240, 12
"""Points drawn and rows of the table, at most."""
ORDER = ("roc_auc", "balanced_accuracy", "accuracy", "r2", "pr_auc", "rmse", "mae", "log_loss", "brier", "loss")


@dataclass(frozen=True)
class Curve:
    """A curve on a canvas of 100 by 100.

    Attributes:
        metric: its key.
        line: points, "x,y" with blanks between.
        end: (x, y) of the last one.
        value: there.
        ticks: (y, text).
        rounds: (x, text).
        references: (way, y, text) of levels to compare with.
        table: (round, value).
        finding: one sentence.
    """

    metric: str
    line: str
    end: tuple[float, float]
    value: str
    ticks: Sequence[tuple[float, str]]
    rounds: Sequence[tuple[float, str]]
    references: Sequence[tuple[str, float, str]]
    table: Sequence[tuple[int, str]]
    finding: str

    def at(self, number: int, total: int) -> float:
        """Where a round lies, in percent of the width."""
        return _x(number, total or 2)


def headline(metrics: Mapping[str, Sequence[tuple[int, float]]]) -> tuple[str, Sequence[tuple[int, float]]]:
    """The metric to show: the first that is there, in a fixed order, else by its name."""
    found = [name for name in ORDER if metrics.get(name)] or sorted(name for name in metrics if metrics[name])
    return (found[0], metrics[found[0]]) if found else ("score", ())


def curve_of(
    name: str, points: Sequence[tuple[int, float]], total: int, about: Mapping[str, Any] | None = None
) -> Curve | None:
    """The curve; None before there are two points.

    Args:
        name: the metric's key.
        points: (round counted from 1, value).
        total: rounds that are planned; 0 where that is not known.
        about: of the run: "reference" may name the score of a way to compare with.

    Example:
        >>> curve_of("accuracy", [(1, 0.5), (2, 0.75)], 10).finding
        'Accuracy has gone from 0.500 in round 1 to 0.750 in round 2.'
    """
    found = [(r, v) for r, v in points if numbers.number(v) is not None]
    if len(found) < 2:
        return None
    last = max(total, found[-1][0])
    given = (about or {}).get("reference")
    levels = {w: numbers.number(given.get(w)) for w in WAYS} if isinstance(given, Mapping) else {}
    known = {w: v for w, v in levels.items() if v is not None}
    axis = scale([*(v for _, v in found), *known.values()])
    drawn = _thinned(found, POINTS)
    marks = [(_x(r, last), round(100 - axis.at(v), 2)) for r, v in drawn]
    return Curve(
        metric=name,
        line=" ".join(f"{x:.2f},{y:.2f}" for x, y in marks),
        end=marks[-1],
        value=numbers.fixed(found[-1][1], numbers.decimals(name, found[-1][1])),
        ticks=[(round(100 - axis.at(t), 2), numbers.fixed(t, axis.places)) for t in axis.ticks],
        rounds=_rounds(last),
        references=[(w, round(100 - axis.at(v), 2), f"{w} {numbers.fixed(v)}") for w, v in known.items()],
        table=[(r, numbers.fixed(v, 4)) for r, v in _thinned(found, ROWS)],
        finding=_finding(name, found, known),
    )


def _x(number: int, last: int) -> float:
    return round(100 * (number - 1) / max(1, last - 1), 2)


def _rounds(last: int) -> list[tuple[float, str]]:
    inner = [int(t) for t in scale([1, last], ticks=5).ticks if 1 + (last - 1) / 8 < t <= last and t == int(t)]
    return [(0.0, "round 1"), *((_x(t, last), numbers.count(t)) for t in dict.fromkeys(inner))]


def _thinned(points: Sequence[tuple[int, float]], most: int) -> list[tuple[int, float]]:
    if len(points) <= most:
        return list(points)
    step = (len(points) - 1) / (most - 1)
    return [points[round(i * step)] for i in range(most)]


def _finding(name: str, found: Sequence[tuple[int, float]], known: Mapping[str, float]) -> str:
    """What the curve shows."""
    (first, low), (last, high) = found[0], found[-1]
    called = numbers.metric_name(name)
    ends = f"from {numbers.fixed(low)} in round {first} to {numbers.fixed(high)} in round {last}"
    text = f"{called[:1].upper()}{called[1:]} has gone {ends}"
    since = passes([(r, v) for r, v in found], known.get("alone"), lower=name in LOWER_IS_BETTER)
    return f"{text}; it passed alone, {numbers.fixed(known['alone'])}, by round {since}." if since else f"{text}."
