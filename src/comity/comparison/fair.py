"""A fairer joint model, and its price.

Rows of each group count so much in training that all groups count alike (reweighing: Kamiran and Calders,
2012, without regard to labels); and with two classes each group has its own threshold, set on validation
rows so that those of the second class are found as often as over all (equal opportunity: Hardt, Price and
Srebro, NeurIPS 2016, section 3). All of it is computed from sheets, which add over parties.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from comity.comparison.intervals import interval
from comity.comparison.sheet import BINS, metrics, total
from comity.comparison.table import BOUNDED, LEAST, Table, to_json
from comity.core.contribution import Array

HALF = BINS // 2
"""The bin from which on the second class is the likelier."""
HOW = "group weights in training, thresholds per group"


def weights(counts: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """How much a row of each group counts, so that groups count alike and rows count 1 on average.

    Args:
        counts: party to its training rows of each group.
    """
    rows: dict[str, float] = {}
    for own in counts.values():
        for group, n in own.items():
            rows[group] = rows.get(group, 0.0) + n
    everybody = sum(rows.values())
    return {group: everybody / (len(rows) * n) for group, n in sorted(rows.items()) if n}


def resampled(words: Array, weight: Mapping[str, float], rng: Any) -> tuple[Array, float]:
    """Rows drawn in proportion to their groups' weights, and how much they count together.

    Args:
        words: (rows,) each row's group, None where it is not known (it counts 1).
        weight: of each group.
        rng: public, so that the draw can be repeated.

    Returns:
        (rows,) int64 row numbers, with repetitions; and the summed weight.
    """
    each = np.array([weight.get(w, 1.0) for w in words])
    drawn = np.searchsorted(np.cumsum(each) / each.sum(), rng.random(len(each)), side="right")
    return np.minimum(drawn, len(each) - 1), float(each.sum())


def results(table: Table, column: str) -> dict[str, Any] | None:
    """What the fairer model does and costs; None where it could not be trained in every split."""
    fairer = [r.fairer for r in table.repeats]
    if not all(fairer):
        return None
    two = table.headline == "roc_auc"
    measure = "recall" if two else table.headline
    before = [_gap(table, r.ways["joint"], column, {}) for r in table.repeats]
    after = [_gap(table, f, column, thresholds(f, column) if two else {}) for f in fairer]
    paid = [_minus(a["score"], b["score"]) for a, b in zip(after, before, strict=True)]
    most = 1.0 if measure in BOUNDED or two else float("inf")
    gap = {
        "joint": interval([one["gap"] for one in before], 0.0, most),
        "fair": interval([one["gap"] for one in after], 0.0, most),
    }
    return {
        "column": column,
        "measure": measure,
        "gap": {way: to_json(found) for way, found in gap.items()},
        "price": to_json(interval(paid, -most, most)),
        "price_metric": "accuracy" if two else table.headline,
        "how": HOW if two else "group weights in training",
    }


def thresholds(sheets: Mapping[str, Any], column: str) -> dict[str, int]:
    """For each group the bin from which on a row is called of the second class.

    Set on validation rows so that the recall of each group is nearest to that of all at the usual threshold.
    """
    held = _groups(sheets, column, "held")
    bins = {g: s["bins"][0][1] for g, s in held.items()}
    all_ = np.sum(list(bins.values()), axis=0)
    wanted = all_[HALF:].sum() / max(all_.sum(), 1.0)
    return {g: _nearest(b, wanted) for g, b in bins.items()}


def _nearest(positives: Array, wanted: float) -> int:
    """The bin at which recall comes nearest to what is wanted; the usual one without positives."""
    if not positives.sum():
        return HALF
    recall = np.cumsum(positives[::-1])[::-1] / positives.sum()
    off = np.abs(recall - wanted)
    best = np.flatnonzero(off <= off.min() + 1e-12)
    return int(best[np.abs(best - HALF).argmin()])


def _gap(table: Table, sheets: Mapping[str, Any], column: str, at: Mapping[str, int]) -> dict[str, float | None]:
    """The gap between the best and the worst served group, and the score over all rows that it goes with."""
    tested = _groups(sheets, column, "groups")
    if table.headline != "roc_auc":
        scored = [metrics(s)[table.headline] for s in tested.values()]
        everybody = metrics(total([one["test"] for one in sheets.values()]))[table.headline]
        return {"gap": _span(scored), "score": everybody}
    recalls, hits, rows = [], 0.0, 0.0
    for g, s in tested.items():
        negative, positive = s["bins"][0]
        cut = at.get(g, HALF)
        hits, rows = hits + positive[cut:].sum() + negative[:cut].sum(), rows + positive.sum() + negative.sum()
        recalls.append(positive[cut:].sum() / positive.sum() if positive.sum() >= LEAST else None)
    return {"gap": _span(recalls), "score": hits / rows if rows else None}


def _groups(sheets: Mapping[str, Any], column: str, part: str) -> dict[str, Any]:
    found: dict[str, list[Any]] = {}
    for one in sheets.values():
        for g, s in one[part][column].items():
            found.setdefault(g, []).append(s)
    return {g: total(each) for g, each in sorted(found.items())}


def _span(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return max(known) - min(known) if len(known) > 1 else None


def _minus(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b
