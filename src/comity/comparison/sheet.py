"""Score sheets: everything a way's scores need, as sums that add over parties.

A sheet is a Tree of arrays. The sheet of two parties' test rows together is the sum of their sheets; so
the hub computes scores over all rows without seeing one. AUC comes from histograms of the scores.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from comity.core.contribution import Array
from comity.core.tree import tree_map

BINS = 2048
REACH = 14.0
"""Scores are binned by their log-odds, from -14 to 14."""
EPS = 1e-7

LOWER_IS_BETTER = frozenset({"log_loss", "brier", "rmse", "mae"})
FOR_CLASSES = ("accuracy", "balanced_accuracy", "roc_auc", "pr_auc", "log_loss", "brier")
FOR_NUMBERS = ("r2", "rmse", "mae")


def sheet(predicted: Array, y: Array) -> dict[str, Array]:
    """The sheet of some rows.

    Args:
        predicted: (rows, classes) probabilities, or (rows,) numbers.
        y: (rows,) class numbers, or (rows,) numbers.

    Returns:
        For classes: `confusion` (classes, classes) rows by true and predicted class, `losses` (2,) summed
        log loss in nats and Brier score, `bins` (scores, 2, 2048) rows by score and truth, where two
        classes have one score and more have one each. For numbers: `sums` (5,) of rows, squared errors,
        absolute errors, y and y². All float64.
    """
    if np.ndim(predicted) == 1:
        y = np.asarray(y, float)
        off = np.asarray(predicted, float) - y
        return {"sums": np.array([len(y), (off**2).sum(), np.abs(off).sum(), y.sum(), (y**2).sum()])}
    p = np.clip(np.asarray(predicted, float), EPS, 1.0)
    p = p / p.sum(axis=1, keepdims=True) if len(p) else p
    y = np.asarray(y).astype(np.int64)
    k = p.shape[1]
    hot = np.eye(k)[y]
    confusion = np.bincount(y * k + p.argmax(axis=1), minlength=k * k).reshape(k, k).astype(float)
    log_loss = -np.log(p[np.arange(len(y)), y]).sum()
    scored = range(1, 2) if k == 2 else range(k)
    bins = np.stack([_binned(p[:, c], y == c) for c in scored])
    return {"confusion": confusion, "losses": np.array([log_loss, ((p - hot) ** 2).sum()]), "bins": bins}


def _binned(p: Array, truth: Array) -> Array:
    p = np.clip(p, EPS, 1 - EPS)
    place = ((np.log(p / (1 - p)) + REACH) / (2 * REACH) * BINS).astype(np.int64).clip(0, BINS - 1)
    return np.stack([np.bincount(place[truth == t], minlength=BINS) for t in (False, True)]).astype(float)


def total(sheets: Sequence[Mapping[str, Any]]) -> Any:
    """The sheet of all their rows together."""
    return tree_map(lambda *xs: np.sum(xs, axis=0), sheets[0], *sheets[1:])


def rows(sheet: Mapping[str, Any]) -> int:
    """How many rows a sheet speaks of."""
    return int(sheet["sums"][0] if "sums" in sheet else sheet["confusion"].sum())


def loss(sheet: Mapping[str, Any]) -> float:
    """What choices are made by: the mean log loss, or the mean squared error; infinite without rows."""
    n = rows(sheet)
    return float(sheet["sums"][1] if "sums" in sheet else sheet["losses"][0]) / n if n else float("inf")


def metrics(sheet: Mapping[str, Any]) -> dict[str, float | None]:
    """The scores of a sheet's rows; None where one is undefined (AUC with one class only, R² of one value).

    AUC and average precision are of the binned scores, the mean over classes where there are more than
    two; `brier` is the mean squared distance of the probabilities, summed over classes (0 to 2), halved
    for two classes so that it is the usual one.
    """
    n = rows(sheet)
    if "sums" in sheet:
        return _for_numbers(sheet["sums"])
    if not n:
        return dict.fromkeys(FOR_CLASSES)
    confusion = sheet["confusion"]
    truth = confusion.sum(axis=1)
    recall = np.diag(confusion)[truth > 0] / truth[truth > 0]
    half = 2 if len(confusion) == 2 else 1
    return {
        "accuracy": float(np.diag(confusion).sum() / n),
        "balanced_accuracy": float(recall.mean()) if len(recall) > 1 else None,
        "roc_auc": _mean([roc_auc(b) for b in sheet["bins"]]),
        "pr_auc": _mean([average_precision(b) for b in sheet["bins"]]),
        "log_loss": float(sheet["losses"][0] / n),
        "brier": float(sheet["losses"][1] / n / half),
    }


def _for_numbers(sums: Array) -> dict[str, float | None]:
    n, squares, absolute, y, y2 = (float(s) for s in sums)
    if not n:
        return dict.fromkeys(FOR_NUMBERS)
    spread = y2 - y * y / n
    r2 = 1 - squares / spread if spread > 1e-12 * max(y2, 1e-300) else None
    return {"r2": r2, "rmse": (squares / n) ** 0.5, "mae": absolute / n}


def roc_auc(bins: Array) -> float | None:
    """The area under the ROC curve of binned scores (Mann-Whitney, ties count half); None with one class only."""
    negative, positive = bins
    pairs = negative.sum() * positive.sum()
    below = np.cumsum(negative) - negative
    return float((positive * (below + negative / 2)).sum() / pairs) if pairs else None


def average_precision(bins: Array) -> float | None:
    """Average precision of binned scores: Σ (R_n - R_(n-1))·P_n from the highest bin down; None without positives."""
    negative, positive = bins[:, ::-1]
    if not positive.sum() or not negative.sum():
        return None
    found, asked = np.cumsum(positive), np.cumsum(positive + negative)
    return float((positive / positive.sum() * found / np.maximum(asked, 1)).sum())


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if known else None
