"""Dates and times written as words: which order of day, month and year a whole column has."""

import re
from typing import TYPE_CHECKING

import numpy as np

from comity.core.contribution import Array
from comity.data.extras import need

if TYPE_CHECKING:
    import polars as pl
else:
    pl = need("polars", "tables")

LOOKED_AT = 100
"""A column is taken for words as soon as one of its first values, this many, is no date."""

_TIME = r"([0-9]{1,2}):([0-9]{2})(?::([0-9]{2})(?:[.,]([0-9]{1,9}))?)?"
_CLOCK = rf"(?:[T ] ?{_TIME}(?: ?([AaPp][Mm]))?(?: ?(Z|[+-][0-9]{{2}}:?[0-9]{{2}}))?)?$"
_YEAR_FIRST = {s: rf"^([0-9]{{4}}){s}([0-9]{{1,2}}){s}([0-9]{{1,2}}){_CLOCK}" for s in ("-", "/", r"\.")}
_YEAR_LAST = {s: rf"^([0-9]{{1,2}}){s}([0-9]{{1,2}}){s}([0-9]{{4}}){_CLOCK}" for s in ("-", "/", r"\.")}
_PER_DAY = 86_400_000_000


def dated(series: "pl.Series") -> "pl.Series | None":
    """A column of words as dates and times, or None where it holds anything else or two readings are possible.

    Every value must be written alike: year first (ISO 8601: 2024-03-05, 2024-03-05T14:30:00.5+01:00, and
    with slashes or points), or year last, with points day first, with slashes or hyphens in the order that
    all values allow, told by a day above 12. Times with an offset become UTC. Two digits for a year, and
    dates without separators, stay what they are.

    Returns:
        (rows,) Datetime in microseconds, null where the word is.

    Example:
        >>> import polars
        >>> dated(polars.Series(["13/02/2024", "01/02/2024"])).dt.month().to_list()
        [2, 2]
        >>> dated(polars.Series(["03/02/2024", "01/02/2024"])) is None
        True
    """
    found = _read(series)
    return None if found is None or found[1] == "either" else _instants(series.name, found[0], found[1])


def ambiguous_dates(table: "pl.DataFrame") -> dict[str, str]:
    """Columns left as words because each date in them could be day first or month first, with what to do.

    Example:
        >>> import polars
        >>> sorted(ambiguous_dates(polars.DataFrame({"seen": ["03/02/2024", "01/02/2024"], "ward": ["a", "b"]})))
        ['seen']
    """
    found = {name: _read(table[name]) for name in table.columns if table.schema[name] == pl.String}
    return {
        name: "Each date could be day first or month first, so they stay words. Write them as 2024-03-05."
        for name, read in found.items()
        if read is not None and read[1] == "either"
    }


def days(series: "pl.Series") -> "pl.Series":
    """Dates, times and durations as days since 1970, (rows,) Float64."""
    per_second = {"ms": 1e3, "us": 1e6, "ns": 1e9}[getattr(series.dtype, "time_unit", None) or "ns"]
    unit = 1.0 if series.dtype == pl.Date else 86_400 * per_second
    return series.to_physical().cast(pl.Float64) / unit


def _read(series: "pl.Series") -> tuple["pl.DataFrame", str] | None:
    """What stands in the groups of the one pattern that fits all values, and the order of the first three."""
    head = series.drop_nulls().head(LOOKED_AT).to_list()
    for order, patterns in (("year", _YEAR_FIRST), ("day", _YEAR_LAST)):
        for separator, pattern in patterns.items():
            if not head or not all(re.match(pattern, word) for word in head):
                continue
            parts = series.str.extract_groups(pattern).struct.unnest()
            if parts.to_series(0).null_count() > series.null_count():
                return None
            return parts, order if order == "year" or separator == r"\." else _order(parts)
    return None


def _order(parts: "pl.DataFrame") -> str:
    """Is the first of two numbers the day or the month? "either" where both would do, "" where neither."""
    first, second = (_whole(parts, place) for place in (0, 1))
    day, month = bool((second <= 12).all()), bool((first <= 12).all())
    if day and month and not (first == second).all():
        return "either"
    return "day" if day else "month" if month else ""


def _instants(name: str, parts: "pl.DataFrame", order: str) -> "pl.Series | None":
    places = {"year": (0, 1, 2), "day": (2, 1, 0), "month": (2, 0, 1)}.get(order)
    if places is None:
        return None
    gone = parts.to_series(0).is_null().to_numpy()
    year, month, day = (np.where(gone, 1, _whole(parts, place)) for place in places)
    clock = _clock(parts)
    first = (month >= 1) & (month <= 12) & (year >= 1)
    if clock is None or not first.all():
        return None
    months = (year - 1970) * 12 + month - 1
    start, following = (_first_day(m) for m in (months, months + 1))
    if not ((day >= 1) & (day <= following - start)).all():
        return None
    instants = pl.Series(name, (start + day - 1) * _PER_DAY + clock).cast(pl.Datetime("us"))
    return instants.set(pl.Series(gone), None)


def _first_day(month: Array) -> Array:
    """Of months since 1970, in days since 1970."""
    return np.asarray(month.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64))


def _clock(parts: "pl.DataFrame") -> Array | None:
    """Microseconds since midnight UTC; None where a clock does not show such a time."""
    hour, minute, second = (_whole(parts, place) for place in (3, 4, 5))
    half = parts.to_series(7).str.to_lowercase()
    twelve = half.is_not_null().to_numpy()
    if ((hour > 23) | (minute > 59) | (second > 59) | (twelve & ((hour < 1) | (hour > 12)))).any():
        return None
    hour = np.where(twelve, hour % 12 + 12 * (half == "pm").fill_null(False).to_numpy(), hour)
    fraction = parts.to_series(6).str.pad_end(6, "0").str.slice(0, 6).cast(pl.Int64).fill_null(0).to_numpy()
    zone = parts.to_series(8).str.replace(":", "", literal=True).str.replace("Z", "+0000", literal=True)
    offset = zone.fill_null("+0000").cast(pl.Int64).to_numpy()
    ahead = np.sign(offset) * (np.abs(offset) // 100 * 60 + np.abs(offset) % 100)
    return np.asarray(((hour * 60 + minute - ahead) * 60 + second) * 1_000_000 + fraction)


def _whole(parts: "pl.DataFrame", place: int) -> Array:
    return np.asarray(parts.to_series(place).cast(pl.Int64).fill_null(0).to_numpy())
