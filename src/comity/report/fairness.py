"""Who is served how well: scores per group of records, the gap between groups, and the price of a fairer model."""

from collections.abc import Iterable, Mapping
from typing import Any

from comity.report import charts, numbers, view
from comity.report.view import Results

SHAPES = ("circle", "square", "diamond", "up", "down", "bar")
TOO_FEW = "too few rows for a score"


def charts_of(results: Results) -> list[dict[str, Any]]:
    """One dumbbell chart for each column of groups, all on one scale."""
    columns = results.get("groups") or {}
    axis = charts.scale(value for column in columns.values() for value in _means(column))
    return [_chart(results, str(name), column, axis) for name, column in columns.items()]


def finding(results: Results, name: str) -> str:
    """What joining does to the gap of one column, in a sentence that respects both intervals."""
    column = results["groups"][name]
    way = view.joined(results, column["ways"])
    before, after = _gap(column, "alone"), _gap(column, way)
    if numbers.known(before) is None or numbers.known(after) is None:
        return f"The {label(name)} gap cannot be told: too few rows, so fewer than two groups have a score."
    told = f"from {numbers.gap(before)} to {numbers.gap(after)} points"
    if change := _change(before, after):
        return f"Joining {change} the {label(name)} gap {told}."
    tail = ": no clear change" if numbers.known(before)[1] is not None else ", without an interval"  # type: ignore[index]
    return f"The {label(name)} gap goes {told}{tail}."


def line(results: Results) -> str:
    """The gaps of all columns for a terminal: `age gap 4.6 ± 1.4 alone, 3.0 ± 1.2 joint`."""
    parts = []
    for name, column in (results.get("groups") or {}).items():
        ways = [w for w in ("alone", view.joined(results, column["ways"])) if w in column["ways"]]
        gaps = [f"{numbers.gap(_gap(column, w))} {w}" for w in dict.fromkeys(ways)]
        parts.append(f"{label(name)} gap {', '.join(gaps)}")
    return "; ".join(parts)


def fair(results: Results) -> dict[str, str] | None:
    """The fairer model and what it costs, in words, or None when none was trained."""
    given = results.get("fair")
    if not given:
        return None
    gaps = given.get("gap") or {}
    return {
        "column": label(given["column"]) + (f" {label(given['measure'])}" if given.get("measure") == "recall" else ""),
        "how": str(given.get("how") or "groups weighted in training"),
        "joint": numbers.gap(gaps.get("joint")),
        "fair": numbers.gap(gaps.get("fair")),
        "price": numbers.points(given.get("price")),
        "told": _price(str(given.get("price_metric") or results["metric"]), given.get("price")),
    }


def label(column: object) -> str:
    """A column's name as words: `age_band` is `age band`."""
    return str(column).replace("_", " ")


def _price(metric: str, price: numbers.Interval) -> str:
    word, points = view.judged(price), f"{numbers.points(price)} points of {numbers.metric_name(metric)}"
    told = {
        "undefined": "Its price is not defined.",
        "within noise": f"The price, {points}, is within noise.",
        "gains": f"It costs nothing: {points}.",
    }
    return told.get(word, f"The price: {points}.")


def _change(before: numbers.Interval, after: numbers.Interval) -> str:
    """`narrows` or `widens`, when neither mean lies in the other's interval; otherwise nothing."""
    a, b = numbers.known(before), numbers.known(after)
    if a is None or b is None or None in (*a, *b):
        return ""
    narrows = b[0] < a[1] and a[0] > b[2]  # type: ignore[operator]
    widens = b[0] > a[2] and a[0] < b[1]  # type: ignore[operator]
    return "narrows" if narrows else "widens" if widens else ""


def _gap(column: Mapping[str, Any], way: str) -> numbers.Interval:
    return (column["ways"].get(way) or {}).get("gap")


def _means(column: Mapping[str, Any]) -> Iterable[float]:
    for way in column["ways"].values():
        for score in (way.get("groups") or {}).values():
            if got := numbers.known(score):
                yield got[0]


def _chart(results: Results, name: str, column: Mapping[str, Any], axis: charts.Scale) -> dict[str, Any]:
    rows = column.get("values") or {}
    many = len(rows) > len(SHAPES)
    shapes = {group: "circle" if many else SHAPES[i] for i, group in enumerate(rows)}
    ways = [way for way in view.WAYS if way in column["ways"]]
    drawn = [_row(column, way, shapes, axis) for way in ways]
    measured = {dot["name"] for row in drawn for dot in row["dots"]}
    why = column.get("why") or {}
    return {
        "name": label(name),
        "many": many,
        "groups": [
            {"name": g, "rows": n, "shape": shapes[g], "why": "" if g in measured else str(why.get(g) or TOO_FEW)}
            for g, n in rows.items()
        ],
        "rows": drawn,
        "ticks": charts.tick_labels(axis),
        "finding": finding(results, name),
        "worst": _worst(drawn, view.joined(results, ways)),
    }


def _row(column: Mapping[str, Any], way: str, shapes: Mapping[str, str], axis: charts.Scale) -> dict[str, Any]:
    scores = column["ways"][way].get("groups") or {}
    known = {g: got[0] for g in shapes if (got := numbers.known(scores.get(g)))}
    dots = [{"name": g, "x": axis.at(v), "value": v, "shape": shapes[g]} for g, v in known.items()]
    at = [axis.at(value) for value in known.values()]
    return {
        "way": way,
        "dots": dots,
        "from": min(at, default=0),
        "to": max(at, default=0),
        "gap": _gap(column, way),
        "scores": {g: scores.get(g) for g in shapes},
    }


def _worst(rows: Iterable[Mapping[str, Any]], way: str) -> str:
    """Which group is served worst, before and after, in a sentence; nothing where there is none to name."""
    worst = {r["way"]: min(r["dots"], key=lambda d: d["value"])["name"] for r in rows if len(r["dots"]) > 1}
    if way not in worst:
        return ""
    if "alone" not in worst or worst["alone"] == worst[way]:
        return f"Served worst{', alone and ' + way if 'alone' in worst else ''}: {worst[way]}."
    return f"Served worst: {worst['alone']} alone, {worst[way]} with {way}."
