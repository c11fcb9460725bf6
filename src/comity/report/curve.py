"""The learning curve: geometry on a canvas of 100 by 100, its reference lines and what it shows."""

from collections.abc import Sequence
from typing import Any

from comity.report import numbers, view
from comity.report.charts import Scale, scale
from comity.report.view import Results

APART = 8.5
"""The least distance between two labels at the right, in percent of the height."""
LOWER_IS_BETTER = frozenset({"log_loss", "brier", "rmse", "mae"})


def learning(results: Results) -> dict[str, Any] | None:
    """The learning curve, or None when there is none to draw."""
    curve = results.get("learning") or {}
    found = _measured(curve)
    if len(found) < 2:
        return None
    way, metric = str(curve.get("way", "joint")), str(curve["metric"])
    references = _references(curve, way)
    axis = scale([*(v for _, *values in found for v in values), *references.values()])
    first, last = found[0][0], found[-1][0]

    def point(at: float, value: float) -> str:
        return f"{100 * (at - first) / (last - first):.2f},{100 - axis.at(value):.2f}"

    band = [point(r, low) for r, _, low, _ in found] + [point(r, high) for r, _, _, high in reversed(found)]
    return {
        "line": " ".join(point(r, mean) for r, mean, _, _ in found),
        "band": " ".join(band),
        "ticks": [{"y": _y(axis, t), "text": numbers.fixed(t, axis.places)} for t in axis.ticks],
        "rounds": _round_ticks(first, last),
        "references": [{"way": w, "value": v, "y": _y(axis, v)} for w, v in references.items()],
        "labels": _labels(axis, {**references, way: found[-1][1]}),
        "table": found,
        "way": way,
        "metric": metric,
        "passes": passes(found, references.get("alone"), lower=metric in LOWER_IS_BETTER),
        "finding": _finding(found, way, metric, references),
    }


def passes(found: Sequence[Sequence[float]], line: float | None, *, lower: bool) -> int | None:
    """The first round from which every mean stays better than a line; None when the last one is not."""
    since = None
    for at, mean, *_ in found:
        better = line is not None and (mean < line if lower else mean > line)
        since = None if not better else since or int(at)
    return since


def _references(curve: Any, way: str) -> dict[str, float]:
    given = curve.get("reference") or {}
    values = {w: numbers.number(given.get(w)) for w in view.WAYS if w != way}
    return {w: v for w, v in values.items() if v is not None}


def _labels(axis: Scale, ends: dict[str, float]) -> list[dict[str, Any]]:
    """The labels at the right from top to bottom, far enough from one another to be read."""
    order = sorted(ends, key=lambda w: -ends[w])
    at: list[float] = []
    for way in order:
        at.append(max(_y(axis, ends[way]), at[-1] + APART if at else 0.0))
    for i in reversed(range(len(at))):
        at[i] = min(at[i], 100.0 if i == len(at) - 1 else at[i + 1] - APART)
    return [
        {"way": w, "y": round(y, 2), "text": f"{w} {numbers.fixed(ends[w])}"} for w, y in zip(order, at, strict=True)
    ]


def _finding(found: Sequence[Sequence[float]], way: str, metric: str, references: dict[str, float]) -> str:
    first, last = found[0], found[-1]
    text = (
        f"The {way} model goes from {numbers.fixed(first[1])} {numbers.metric_name(metric)} in round {int(first[0])} "
        f"to {numbers.fixed(last[1])} in round {int(last[0])}"
    )
    beside = ", ".join(f"{w} has {numbers.fixed(v)}" for w, v in references.items())
    return f"{text}; {beside}." if beside else f"{text}."


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
    inner = [int(t) for t in scale([first, last], ticks=5).ticks if first + (last - first) / 8 < t <= last]
    return [{"x": 100 * (t - first) / (last - first), "text": numbers.count(t)} for t in (first, *inner)]


def _y(axis: Scale, value: float) -> float:
    return round(100 - axis.at(value), 2)
