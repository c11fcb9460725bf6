"""The report of a comparison as one self-contained HTML page: no network, no script; light, dark, phone and paper."""

from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

from comity.core.checks import path as path_of
from comity.core.errors import ConfigError
from comity.ledger.folder import put
from comity.report import beside, charts, curve, fairness, numbers, view
from comity.report.view import Results
from comity.report.words import pieces, words

PANELS, WIDE = 12, 6
"""More parties than the first have their scores in a table, not in panels; more than the second, in three columns."""


def page(results: Results) -> str:
    """The report as HTML text, in UTF-8.

    Args:
        results: what a comparison gives, version 1.

    Returns:
        One page with everything inside; it loads nothing when it is opened.

    Raises:
        ConfigError: results of another version, or jinja2 is not installed.
    """
    context = _context(view.check(results))
    return str(_environment().get_template("report.html.j2").render(context))


def write_page(results: Results, path: str | Path) -> Path:
    """Write the report to a file, making its folder.

    Args:
        results: what a comparison gives, version 1.
        path: where the page goes; what is there is replaced.

    Returns:
        The path.

    Raises:
        ConfigError: as `page`, or the path cannot be written.
    """
    target = path_of("path", "report", path)
    put(target, page(results).encode())
    return target


def _environment() -> Any:
    try:
        import jinja2
    except ImportError as error:
        raise ConfigError("A report needs jinja2. It is not installed. Run: pip install 'comity[report]'") from error
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("comity.report"),
        autoescape=True,
        undefined=jinja2.ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    names = ("fixed", "value", "margin", "score", "gain", "gain_margin", "points", "gap", "size", "duration", "count")
    environment.filters |= {
        name: getattr(numbers, name) for name in (*names, "word", "plural", "digest", "metric_name")
    }
    environment.filters |= {"trim": _trim, "sentence": _sentence, "end_points": _end_points, "end_score": _end_score}
    return environment


def _trim(text: str, ends: str = " ") -> str:
    return str(text).strip(ends)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _end_points(interval: numbers.Interval, end: str) -> str:
    found = numbers.number((numbers.hundredths(interval) or {}).get(end))
    return numbers.DASH if found is None else numbers.fixed(found, 2, signed=True)


def _end_score(interval: numbers.Interval, end: str) -> str:
    found = numbers.number((interval or {}).get(end))
    return numbers.DASH if found is None else numbers.fixed(found, 4)


def _context(results: Results) -> dict[str, Any]:
    headline, lead = view.verdict(results)
    settings, metric = results["settings"], results["metric"]
    meaning = words(results)
    ids = count(1)
    return {
        "r": results,
        "q": results["question"],
        "parties": results["parties"],
        "order": view.ordered(results),
        "settings": settings,
        "versions": settings.get("versions") or {},
        "seconds": results.get("seconds") or {},
        "left_out": results.get("left_out") or (),
        "traffic": view.per_party(results),
        "noun": lambda n=2: view.noun(results, n),
        "seen": view.seen,
        "share": lambda name: view.share(results, name),
        "watched": lambda side: view.watched(results, side),
        "tip_id": lambda: next(ids),
        "words": meaning,
        "headline": headline,
        "lead": pieces(lead, (numbers.metric_name(metric), "points", "within noise", "interval")),
        "losers": view.unsaid_losers(results),
        "mean_verdict": view.judged(results["gain"]),
        "metric": metric,
        "metric_name": numbers.metric_name(metric),
        "all_metrics": view.metrics(results),
        "lower": curve.LOWER_IS_BETTER,
        "ways": view.shown(results),
        "head": lambda way: view.head(results, way),
        "has_intervals": any(low is not None for _, low, _ in view.intervals(results)),
        "worst": _worst(results),
        "to_pooled": charts.way_to_pooled(results),
        "forest": charts.forest(results),
        "scores": _scores(results),
        "curve": curve.learning(results),
        **_optional(results),
    }


def _optional(results: Results) -> dict[str, Any]:
    """What a comparison may leave out."""
    return {
        "note": str(results.get("interval_note") or ""),
        "groups": fairness.charts_of(results),
        "fair": fairness.fair(results),
        "private": _private(results),
        "unseen": beside.unseen(results),
        "cost": beside.cost(results),
        "card": beside.card(results),
        "protection": results.get("protection") or None,
    }


def _private(results: Results) -> dict[str, Any] | None:
    """The price of privacy, its figures not torn from their intervals."""
    found = beside.private(results)
    return None if found is None else {**found, "pieces": pieces(found["told"], ("points",))}


def _worst(results: Results) -> dict[str, Any] | None:
    """The party that is served worst alone, before and after."""
    metric, found = results["metric"], []
    for name, party in results["parties"].items():
        way = view.way_of(party["gain"])
        before, after = view.at(party["ways"], "alone", metric), view.at(party["ways"], way, metric)
        if (got := numbers.known(before)) and numbers.known(after):
            found.append((got[0], {"name": name, "before": before, "after": after, "way": way}))
    return min(found, key=lambda pair: pair[0])[1] if found else None


def _scores(results: Results) -> dict[str, Any]:
    axis, (base, base_words) = charts.bars(results), view.no_skill(results)

    def row(name: str, ways: Mapping[str, Any], **more: Any) -> dict[str, Any]:
        cells = [_cell(ways, way, results["metric"], axis, base) for way in view.shown(results)]
        return {"name": name, "cells": cells, **more}

    rows = [row(name, results["parties"][name]["ways"], **_party(results, name)) for name in view.ordered(results)]
    mean = {"total": True, "note": f"{view.noun(results)} counted equally", "has_gain": True, "gain": results["gain"]}
    rows.append(row("mean", results["parties_mean"], verdict=view.judged(results["gain"]), **mean))
    rows.append(row("all records", results["ways"], total=True, note="taken together", has_gain=False))
    ticks = charts.tick_labels(axis)
    return {
        "rows": rows,
        "panels": [r for r in rows if not r.get("total")] if len(results["parties"]) <= PANELS else [],
        "three": len(results["parties"]) > WIDE,
        "uneven": any("(" in numbers.margin(c["score"], results["metric"]) for r in rows for c in r["cells"]),
        "base": numbers.fixed(base, 2).rstrip("0").rstrip("."),
        "base_words": base_words,
        "at_base": axis.at(base),
        "ticks": ticks,
        "first": ticks[0]["text"],
        "last": ticks[-1]["text"],
        "finding": _scores_finding(results),
    }


def _scores_finding(results: Results) -> str:
    """The ways by their mean over parties, and the best of those that move no record."""
    metric = results["metric"]
    got = {w: numbers.known(view.at(results["parties_mean"], w, metric)) for w in view.shown(results)}
    means = {w: g[0] for w, g in got.items() if g}
    stay = {w: v for w, v in means.items() if w != "pooled"}
    if not stay:
        return f"No mean {numbers.metric_name(metric)} is defined."
    told = ", ".join(f"{w} {numbers.value({'mean': v}, metric)}" for w, v in means.items())
    best = max(stay, key=lambda w: stay[w])
    return f"Mean {numbers.metric_name(metric)}: {told}. Best without moving records: {best}."


def _party(results: Results, name: str) -> dict[str, Any]:
    party = results["parties"][name]
    undefined = numbers.known(party["gain"]) is None
    return {
        "note": f"{numbers.count(party['rows'])} {numbers.plural('row', party['rows'])}",
        "why": view.reason(party) if undefined else view.why(party),
        "has_gain": True,
        "gain": party["gain"],
        "verdict": party["verdict"],
    }


def _cell(ways: Mapping[str, Any], way: str, metric: str, axis: charts.Scale, base: float) -> dict[str, Any]:
    score = view.at(ways, way, metric)
    return {"way": way, "score": score, "bar": charts.bar(axis, base, score), "all": ways.get(way) or {}}
