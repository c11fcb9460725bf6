"""Statistics of tables that add up over parties: moments of numbers, vocabularies of words."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from comity.core.contribution import Array
from comity.data.extras import need
from comity.data.schema import Schema
from comity.data.tables import column, numbers, words

if TYPE_CHECKING:
    import polars as pl
else:
    pl = need("polars", "tables")

MOST_SENT = 500
"""A party names at most this many values of a column, its most frequent ones."""
MEANS = ("mean", "square", "cube", "log", "log_square")
ROUNDED = 1e-8
"""A variance below this share of the mean square has lost half of its digits in E[x²] - E[x]²."""


def moments(table: "pl.DataFrame", schema: Schema) -> dict[str, Array]:
    """What a party's number columns add to the statistics, and in regression its target, last.

    Args:
        table: (rows, ...) of `read_table`; the training rows only.
        schema: as agreed.

    Returns:
        A Tree of (numbers,) float64: `count` and `missing` rows, and over the rows with a value the means
        of x (`mean`), x² (`square`), x³ (`cube`), s(x) (`log`) and s(x)² (`log_square`), where
        s(x) = sign(x)·log(1 + |x|); 0 where there is no value.

    Example:
        >>> import polars
        >>> from comity.data.schema import Column
        >>> schema = Schema((Column("age", "number"),), "sick", "classification", ("no", "yes"))
        >>> sums = moments(polars.DataFrame({"age": [40.0, 60.0, None]}), schema)
        >>> sums["count"].tolist(), sums["missing"].tolist(), sums["mean"].tolist(), sums["square"].tolist()
        ([2.0], [1.0], [50.0], [2600.0])
    """
    rows = [_moments(numbers(column(table, name))) for name in _measured(schema)]
    return {k: np.array([row[k] for row in rows], np.float64) for k in ("count", "missing", *MEANS)}


def spread(table: "pl.DataFrame", schema: Schema, centre: Array) -> tuple[Array, Array]:
    """The mean squared distance of each number column from a centre that all parties share.

    Asked after the means are known, it gives the variance without the cancellation of E[x²] - E[x]².

    Args:
        table: (rows, ...) of `read_table`.
        schema: as agreed.
        centre: (numbers,) float64.

    Returns:
        (numbers,) float64, 0 where there is no value, and (numbers,) rows with a value.
    """
    columns = [_values(numbers(column(table, name))) for name in _measured(schema)]
    squares = [float(((x - c) ** 2).mean()) if x.size else 0.0 for x, c in zip(columns, centre, strict=True)]
    return np.array(squares, float), np.array([x.size for x in columns], float)


def moment_weights(moments: Mapping[str, Array]) -> dict[str, Array | float]:
    """How much each of a party's moments counts in a weighted mean, coordinate by coordinate.

    Averaged with these weights, means are those of all rows together, and `count` and `missing` are the
    parties' averages.

    Returns:
        A Tree shaped as `moments`, or a prefix of it: its `count` for the means, 1 for `count` and `missing`.
    """
    return {"count": 1.0, "missing": 1.0, **dict.fromkeys(MEANS, moments["count"])}


def merge_moments(parts: Iterable[Mapping[str, Array]]) -> dict[str, Array]:
    """The moments of all rows together, from those of each party."""
    stacked = list(parts)
    total = np.sum([p["count"] for p in stacked], axis=0)
    out = {"count": total, "missing": np.sum([p["missing"] for p in stacked], axis=0)}
    for k in MEANS:
        out[k] = np.sum([p[k] * p["count"] for p in stacked], axis=0) / np.maximum(total, 1.0)
    return out


def vocabulary(table: "pl.DataFrame", schema: Schema) -> dict[str, dict[str, Any]]:
    """The values in a party's category columns, openly, with how often each occurs.

    Args:
        table: (rows, ...) of `read_table`; the training rows only.
        schema: as agreed.

    Returns:
        A Tree: `<column>.values` (value to rows, at most 500 values), `<column>.missing` and
        `<column>.other` (rows with a value not named).
    """
    return {name: _vocabulary(words(column(table, name))) for name in schema.categories}


def merge_vocabularies(parts: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The vocabulary of all rows together, from those of each party."""
    out: dict[str, dict[str, Any]] = {}
    for part in parts:
        for name, said in part.items():
            sums = out.setdefault(name, {"values": Counter(), "missing": 0, "other": 0})
            sums["values"].update(said["values"])
            sums["missing"] += said["missing"]
            sums["other"] += said["other"]
    return {name: {**said, "values": dict(said["values"])} for name, said in out.items()}


def signed_log(x: Array) -> Array:
    """sign(x)·log(1 + |x|), shaped as x."""
    return np.asarray(np.copysign(np.log1p(np.abs(x)), x))


def rounded(m: Mapping[str, Array]) -> bool:
    """Is there a column so far from zero that its moments do not tell its variance? Then ask for the `spread`."""
    variance, square = m["square"] - m["mean"] ** 2, np.asarray(m["square"])
    return bool(((square > 0) & (variance < ROUNDED * square)).any())


def variance(m: Mapping[str, Array]) -> Array:
    """The variance of each column; 0 where it is nothing but rounding.

    Args:
        m: combined moments; with `variance`, mean squared distances from the common mean (`spread`), these are taken.
    """
    if "variance" in m:
        return np.asarray(np.where(m["variance"] > 1e-28 * m["square"], m["variance"], 0.0))
    found = m["square"] - m["mean"] ** 2
    return np.asarray(np.where(found > 1e-12 * m["square"], found, 0.0))


def deviation(variance: Array, square: Array) -> Array:
    """The standard deviation; 1 or more where nothing varies, so that one may divide by it."""
    return np.asarray(np.sqrt(np.where(variance > 0, variance, np.maximum(square, 1.0))))


def skewed(m: Mapping[str, Array]) -> Array:
    """Skewness above 2, told only where the spread is not small beside the mean (else rounding decides)."""
    spread = deviation(variance(m), m["square"])
    third = m["cube"] - 3 * m["mean"] * m["square"] + 2 * m["mean"] ** 3
    return np.asarray((third > 2 * spread**3) & (spread > 0.5 * np.abs(m["mean"])))


def _measured(schema: Schema) -> Sequence[str]:
    return [*schema.numbers, schema.target] if schema.task == "regression" else schema.numbers


def _values(series: "pl.Series") -> Array:
    """What is there, within ±1e90, so that its cube is a number."""
    return np.asarray(np.clip(series.drop_nulls().to_numpy(), -1e90, 1e90))


def _moments(series: "pl.Series") -> dict[str, float]:
    x = _values(series)
    if not x.size:
        return dict.fromkeys(("count", *MEANS), 0.0) | {"missing": float(len(series))}
    logs, square = signed_log(x), x * x
    means = {"mean": x, "square": square, "cube": square * x, "log": logs, "log_square": logs * logs}
    return {"count": x.size, "missing": series.null_count(), **{k: float(v.mean()) for k, v in means.items()}}


def _vocabulary(series: "pl.Series") -> dict[str, Any]:
    counts = series.drop_nulls().value_counts(name="\0rows")
    top = counts.sort("\0rows", series.name, descending=[True, False]).head(MOST_SENT)
    values = {str(value): int(times) for value, times in top.iter_rows()}
    other = len(series) - series.null_count() - sum(values.values())
    return {"values": values, "missing": series.null_count(), "other": other}
