"""The report of a comparison as one self-contained HTML page: no network, no script; light, dark, phone and paper."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from comity.core.errors import ConfigError
from comity.report import charts, numbers, view
from comity.report.view import Results

LOWER_IS_BETTER = ("log_loss", "brier", "rmse", "mae")
MEANING: Mapping[str, str] = {
    "accuracy": "The share of records whose class the model names rightly. 1 is perfect.",
    "balanced_accuracy": "Accuracy with every class counted equally, however rare. 1 is perfect.",
    "roc_auc": "How often the model ranks a record of the second class above one of the first. "
    "0.5 is a coin flip, 1 is perfect.",
    "pr_auc": "Precision averaged over recall; a guess scores the share of the second class. 1 is perfect.",
    "log_loss": "How far the model's probabilities are from what happened, in nats. 0 is perfect.",
    "brier": "The squared distance of the model's probabilities from what happened. 0 is perfect.",
    "rmse": "The typical error in the target's own units, large errors counted more. 0 is perfect.",
    "mae": "The mean error in the target's own units. 0 is perfect.",
    "r2": "The share of the target's variance that the model explains. 0 is guessing the mean, 1 is perfect.",
}


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
    target, text = Path(path), page(results)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"The report must go to a file that can be written. Got {target}: {error.strerror}."
        ) from error
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
    names = ("fixed", "value", "margin", "score", "gain", "gain_margin", "points", "size", "duration", "count")
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
    return {
        "r": results,
        "q": results["question"],
        "parties": results["parties"],
        "order": view.ordered(results),
        "settings": settings,
        "versions": settings.get("versions") or {},
        "seconds": results.get("seconds") or {},
        "left_out": results.get("left_out") or (),
        "party_bytes": results["bytes"].get("parties") or {},
        "traffic": view.per_party(results),
        "noun": lambda n=2: view.noun(results, n),
        "seen": view.seen,
        "headline": headline,
        "lead": lead,
        "losers": view.unsaid_losers(results),
        "mean_verdict": view.judged(results["gain"]),
        "metric": metric,
        "metric_name": numbers.metric_name(metric),
        "all_metrics": view.metrics(results),
        "lower": LOWER_IS_BETTER,
        "ways": view.shown(results),
        "has_intervals": any(low is not None for _, low, _ in view.intervals(results)),
        "worst": _worst(results),
        "ceiling": view.at(results["parties_mean"], "pooled", metric),
        "forest": charts.forest(results),
        "scores": _scores(results),
        "curve": charts.learning(results),
        "words": list(_words(results)),
    }


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
    return {
        "rows": rows,
        "base": numbers.fixed(base, 2).rstrip("0").rstrip("."),
        "base_words": base_words,
        "first": numbers.fixed(axis.ticks[0], axis.places),
        "last": numbers.fixed(axis.ticks[-1], axis.places),
    }


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


def _words(results: Results) -> Iterator[tuple[str, str]]:
    one, many, metric = view.noun(results, 1), view.noun(results), results["metric"]
    yield numbers.metric_name(metric), MEANING.get(metric, "The score that is judged.")
    yield "points", "Hundredths of the score: from 0.800 to 0.841 is 4.1 points."
    yield "alone", f"Each {one} trains on its own records only. What you have today."
    yield "ensemble", f"Each {one}’s own model votes; the answers are averaged. No training together."
    yield "joint", "One model trained together. Records stay where they are; only model changes travel."
    yield "personal", f"The joint model, then tuned at home on the {one}’s own records."
    yield "pooled", "All records in one place. A ceiling to compare with: it would need moving data."
    yield "interval", "95 % interval over repeats with other splits of the records; every way sees the same splits."
    yield "within noise", "The interval includes zero: with these records the difference cannot be told from chance."
    yield "hub", f"The service that asks the {many} in each round and combines what they send."
    yield "round", f"The hub shares the model, each {one} trains a little, the changes are added up."
    yield "recipe", "The exact, hashed description of what was agreed to run."
