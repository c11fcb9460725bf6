"""Geometry of the charts: ticks, and where a value lies between them, in percent. The drawing is in the templates."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from comity.report import numbers, view
from comity.report.view import Results


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
    return scale([base, *_ends(view.intervals(results))])


def bar(axis: Scale, base: float, interval: numbers.Interval) -> dict[str, float] | None:
    """One bar from no skill to the mean, with its interval, in percent."""
    where = span(axis, interval)
    if where is None:
        return None
    start = axis.at(base)
    x, end = sorted((start, where["mean"]))
    return {"x": x, "width": round(end - x, 2), "low": where["low"], "high": where["high"]}


def learning(results: Results) -> dict[str, Any] | None:
    """The learning curve on a canvas of 100 by 100, or None when there is none to draw."""
    found = _measured(results.get("learning") or {})
    if len(found) < 2:
        return None
    axis = scale([v for _, *values in found for v in values])
    first, last = found[0][0], found[-1][0]

    def point(at: float, value: float) -> str:
        return f"{100 * (at - first) / (last - first):.2f},{100 - axis.at(value):.2f}"

    band = [point(r, low) for r, _, low, _ in found] + [point(r, high) for r, _, _, high in reversed(found)]
    way, metric = str(results["learning"].get("way", "joint")), str(results["learning"]["metric"])
    return {
        "line": " ".join(point(r, mean) for r, mean, _, _ in found),
        "band": " ".join(band),
        "ticks": [{"y": 100 - axis.at(t), "text": numbers.fixed(t, axis.places)} for t in axis.ticks],
        "rounds": _round_ticks(first, last),
        "end": {"y": 100 - axis.at(found[-1][1]), "text": numbers.fixed(found[-1][1])},
        "table": found,
        "way": way,
        "metric": metric,
        "finding": f"The {way} model goes from {numbers.fixed(found[0][1])} {numbers.metric_name(metric)} "
        f"in round {first} to {numbers.fixed(found[-1][1])} in round {last}.",
    }


def _measured(curve: Any) -> list[tuple[int, float, float, float]]:
    columns: list[Sequence[Any]] = [curve.get(k) or () for k in ("rounds", "mean")]
    out = []
    for i, (at, mean) in enumerate(zip(*columns, strict=False)):
        got = numbers.known({"mean": mean, "low": _nth(curve.get("low"), i), "high": _nth(curve.get("high"), i)})
        if got is not None:
            out.append((int(at), got[0], got[0] if got[1] is None else got[1], got[0] if got[2] is None else got[2]))
    return out


def _nth(values: Sequence[Any] | None, i: int) -> Any:
    return values[i] if values is not None and i < len(values) else None


def _round_ticks(first: int, last: int) -> list[dict[str, Any]]:
    inner = [int(t) for t in scale([first, last], ticks=5).ticks if first + (last - first) / 10 < t <= last]
    return [{"x": 100 * (t - first) / (last - first), "text": numbers.count(t)} for t in (first, *inner)]
