"""What stands beside the scores: what it costs, parties that never took part, the model card."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from comity.report import charts, numbers, view
from comity.report.view import Results

INPUTS_SHOWN = 20


def cost(results: Results) -> dict[str, Any]:
    """The rows of the cost table; computing and energy where they were measured."""
    moved, given = results["bytes"].get("parties") or {}, results.get("cost") or {}
    worked = given.get("parties") or {}
    seconds = {name: numbers.number(worked[name].get("seconds")) for name in worked}
    hours = {name: numbers.number(worked[name].get("watt_hours")) for name in worked}
    longest = max((s for s in seconds.values() if s), default=1.0)
    rows = [
        {
            "name": name,
            "up": _told((moved.get(name) or {}).get("up"), numbers.size),
            "down": _told((moved.get(name) or {}).get("down"), numbers.size),
            "width": round(100 * (seconds.get(name) or 0.0) / longest, 2),
            "seconds": _told(seconds.get(name), numbers.duration),
            "energy": _told(hours.get(name), numbers.energy),
        }
        for name in view.ordered(results)
        if name in moved or name in worked
    ]
    return {
        "rows": rows,
        "seconds": numbers.duration(total) if (total := computing(results)) is not None else "",
        "energy": numbers.energy(sum(h for h in hours.values() if h)) if any(hours.values()) else "",
        "watts": _told(numbers.number(given.get("assumed_watts")), lambda w: f"{w:g}"),
    }


def computing(results: Results) -> float | None:
    """Seconds of computing of all parties in one joint training; None when they were not measured."""
    worked = ((results.get("cost") or {}).get("parties") or {}).values()
    found = [s for p in worked if (s := numbers.number(p.get("seconds"))) is not None]
    return sum(found) if found else None


def private(results: Results) -> dict[str, str] | None:
    """The private model's price and its guarantee, in words; None where none was trained."""
    given = results.get("private")
    if not given:
        return None
    metric, means = results["metric"], results["parties_mean"]
    scored, joint = (numbers.value(view.at(means, way, metric), metric) for way in ("private", "joint"))
    name, price = numbers.metric_name(metric), given.get("price")
    found = f"{numbers.points(price)} points of {name}"
    told = "Against joint its price is not defined." if numbers.known(price) is None else (
        f"With noise the joint model scores {scored} in place of {joint}: {found}"
        + (", within noise." if view.judged(price) == "within noise" else ".")
    )  # fmt: skip
    together = given.get("together") or {}
    n = int(together.get("trainings") or 1)
    each = str(given["guarantee"])
    if n > 1:
        each = f"One training: {each}. The {numbers.word(n)} trainings of this comparison together: "
        each += f"ε ≤ {numbers.fixed(_up(together['epsilon']), 1)}"
    return {"told": told, "guarantee": f"{each}.", **{k: str(given.get(k) or "") for k in ("how", "covers", "beyond")}}


def _up(epsilon: float) -> float:
    """Rounded up to a tenth."""
    return math.ceil(10 * epsilon - 1e-9) / 10


def unseen(results: Results) -> dict[str, Any] | None:
    """The joint model at parties that took no part in it, beside their own models; None when it was not tried."""
    rows = [_unseen_row(results, name) for name in view.ordered(results) if name in (results.get("unseen") or {})]
    if not rows:
        return None
    base, _ = view.no_skill(results)
    ends = [v["mean"] for r in rows for v in (r["joint"], r["alone"]) if v]
    axis = charts.scale([base, *ends])
    axis = charts.above(base, axis) if all(v >= base for v in ends) else axis
    for row in rows:
        pairs = (("joint", row["joint"]), ("alone", row["alone"]))
        row["cells"] = [{"way": way, "score": s, "bar": charts.bar(axis, base, s)} for way, s in pairs]
    return {"rows": rows, "finding": _unseen_finding(results, rows), "metrics": _unseen_metrics(rows)}


def unseen_line(results: Results) -> str:
    """The same for a terminal: `Zurich 0.812 (alone 0.794)`."""
    found, metric = unseen(results), results["metric"]
    if found is None:
        return ""
    told = (
        f"{r['name']} {numbers.value(r['joint'], metric)} (alone {numbers.value(r['alone'], metric)})"
        for r in found["rows"]
    )
    return ", ".join(told)


def card(results: Results) -> dict[str, Any] | None:
    """The model card, ready to print; None when there is none."""
    given = results.get("card")
    if not given:
        return None
    inputs = [str(name) for name in given.get("inputs") or ()]
    return {
        **{key: str(given.get(key) or "") for key in ("model", "trained_on", "target", "intended")},
        "classes": [str(c) for c in given.get("classes") or ()],
        "inputs": inputs,
        "shown": inputs[:INPUTS_SHOWN],
        "limits": [str(limit) for limit in given.get("limits") or ()],
        "scores": list(_card_scores(given.get("scores") or {})),
    }


def _card_scores(scores: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Names and values: of metrics, or of metrics by way."""
    for key, found in scores.items():
        name = f"{before}{numbers.metric_name(str(key))}"
        if isinstance(found, Mapping) and "mean" not in found:
            yield from _card_scores(found, f"{name}, ")
        elif isinstance(found, str):
            yield name, found
        else:
            yield name, numbers.score(_interval(found), str(key))


def _unseen_row(results: Results, name: str) -> dict[str, Any]:
    given = results["unseen"][name]
    scores = {metric: _interval(value) for metric, value in given.items() if metric != "alone"}
    joint, alone = scores.get(results["metric"]), _interval(given.get("alone"))
    a, b = numbers.known(alone), numbers.known(joint)
    gain = {"mean": b[0] - a[0]} if a and b else None
    return {"name": name, "joint": joint, "alone": alone, "gain": gain, "scores": scores}


def _unseen_finding(results: Results, rows: list[dict[str, Any]]) -> str:
    known = [r for r in rows if r["gain"]]
    if not known:
        return "Neither can be scored there."
    won = sum(r["gain"]["mean"] > 0 for r in known)
    n, one = len(known), view.noun(results, 1)
    whose = f"the {one}’s own model" if n == 1 else f"each {one}’s own model"
    count = f"{numbers.word(won) if won else 'none'} of {numbers.word(n)} {view.noun(results, n)}"
    return f"Without having seen the {one}’s records, it does better than {whose} at {count}."


def _unseen_metrics(rows: list[dict[str, Any]]) -> list[str]:
    found = {metric for row in rows for metric in row["scores"]}
    return [m for m in numbers.METRICS if m in found]


def _interval(value: Any) -> dict[str, Any] | None:
    """A score that may be a number, an interval, or undefined."""
    given = value if isinstance(value, Mapping) else {"mean": value}
    got = numbers.known(given)
    return None if got is None else dict(zip(("mean", "low", "high"), got, strict=True))


def _told(value: Any, how: Any) -> str:
    return numbers.DASH if value is None else str(how(value))
