"""Geometry of the charts: ticks, and where a value lies between them, in percent. The drawing is in the templates."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from comity.report import numbers, view
from comity.report.view import Results

WIDEST = 4.0
"""A share of the way to pooled whose interval is wider than this tells nothing."""


@dataclass(frozen=True, slots=True)
class Scale:
    """A linear scale over round ticks.

    Attributes:
        ticks: rising values, the first and the last are the ends of the axis.
        step: the distance between two.
    """

    ticks: tuple[float, ...]
    step: float

    def at(self, value: float) -> float:
        """Where the value lies, in percent of the axis."""
        first, last = self.ticks[0], self.ticks[-1]
        return round(100 * (value - first) / (last - first), 2)

    @property
    def places(self) -> int:
        """Decimals that tell one tick from the next."""
        return max(0, -math.floor(math.log10(self.step) + 1e-9))


def scale(values: Iterable[float], *, ticks: int = 4) -> Scale:
    """A scale of about that many steps (1, 2 or 5 times a power of ten) around all values.

    Example:
        >>> scale([-0.3, 5.3]).ticks
        (-2.0, 0.0, 2.0, 4.0, 6.0)
    """
    found = list(values) or [0.0, 1.0]
    low, high = min(found), max(found)
    width = (high - low) or max(abs(high), 1.0)
    rough = width / ticks
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * m for m in (1, 2, 5, 10) if unit * m >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return Scale(tuple(round(step * i, 12) for i in range(first, max(last, first + 1) + 1)), step)


def span(axis: Scale, interval: numbers.Interval) -> dict[str, float] | None:
    """Where mean, low and high lie, in percent; low and high are the mean where there is no interval."""
    got = numbers.known(interval)
    if got is None:
        return None
    mean, low, high = got
    ends = (mean, mean) if low is None or high is None else (low, high)
    return {"mean": axis.at(mean), "low": axis.at(ends[0]), "high": axis.at(ends[1])}


def forest(results: Results) -> dict[str, Any]:
    """The forest plot of gains: axis in points, and a row for each party."""
    gains = {name: numbers.hundredths(results["parties"][name]["gain"]) for name in view.ordered(results)}
    axis = scale([0.0, *_ends(numbers.known(g) for g in gains.values())])
    rows = [_forest_row(results["parties"][name], name, span(axis, gain)) for name, gain in gains.items()]
    labels = [
        {"x": axis.at(t), "text": numbers.fixed(t, axis.places, signed=True) if t else "0", "zero": not t}
        for t in axis.ticks
    ]
    used = [way for way in view.WAYS if any(r["mark"] and r["way"] == way for r in rows)]
    return {"rows": rows, "ticks": labels, "ways": used, "finding": view.finding(results)}


def _forest_row(party: Any, name: str, mark: dict[str, float] | None) -> dict[str, Any]:
    return {
        "name": name,
        "rows": party["rows"],
        "gain": party["gain"],
        "way": view.way_of(party["gain"]),
        "mark": mark,
        "verdict": party["verdict"],
        "why": view.reason(party) if mark is None else view.why(party),
    }


def _ends(found: Iterable[tuple[float, float | None, float | None] | None]) -> list[float]:
    return [end for got in found if got for end in got if end is not None]


def bars(results: Results) -> Scale:
    """The scale of all bars of scores: from no skill (or below, where somebody is worse) to the best."""
    base, _ = view.no_skill(results)
    found = _ends(view.intervals(results))
    return above(base, scale([base, *found])) if all(v >= base for v in found) else scale([base, *found])


def above(base: float, axis: Scale) -> Scale:
    """The same scale, begun at a base that lies between its ticks."""
    return Scale((base, *(t for t in axis.ticks if t > base + 0.6 * axis.step)), axis.step)


def tick_labels(axis: Scale) -> list[dict[str, Any]]:
    """Where each tick of scores lies, and what stands there; a first tick that is not round gets two decimals."""
    places = [axis.places] * len(axis.ticks)
    if abs(axis.ticks[0] / axis.step - round(axis.ticks[0] / axis.step)) > 1e-6:
        places[0] = max(2, axis.places)
    return [{"x": axis.at(t), "text": numbers.fixed(t, p)} for t, p in zip(axis.ticks, places, strict=True)]


def way_to_pooled(results: Results) -> dict[str, str] | None:
    """How much of the distance from alone to pooled joint goes, or why that is undefined; None if one was not run.

    The interval is the comparison's own (`way_to_pooled`): a ratio of means has none that could be had from theirs.
    """
    means, metric = results["parties_mean"], results["metric"]
    if any(way not in means for way in ("alone", "joint", "pooled")):
        return None
    got = [numbers.known(view.at(means, way, metric)) for way in ("alone", "joint", "pooled")]
    if None in got:
        return {"value": numbers.DASH, "range": "", "why": "one of the three scores is not defined"}
    alone, joint, pooled = (g[0] for g in got if g)
    if pooled - alone < 0.0005:
        return {"value": numbers.DASH, "range": "", "why": "undefined: pooled is no better than alone"}
    mean, low, high = numbers.known(results.get("way_to_pooled")) or ((joint - alone) / (pooled - alone), None, None)
    if low is not None and high is not None and high - low > WIDEST:
        return {"value": numbers.DASH, "range": "", "why": "cannot be told: alone and pooled lie too close"}
    ends = "" if low is None or high is None else f"({numbers.fixed(100 * low, 0)} to {numbers.fixed(100 * high, 0)})"
    return {"value": f"{numbers.fixed(100 * mean, 0)} %", "range": ends, "why": ""}


def bar(axis: Scale, base: float, interval: numbers.Interval) -> dict[str, float] | None:
    """One bar from no skill to the mean, with its interval, in percent."""
    where = span(axis, interval)
    if where is None:
        return None
    start = axis.at(base)
    x, end = sorted((start, where["mean"]))
    return {"x": x, "width": round(end - x, 2), "low": where["low"], "high": where["high"]}
