"""The data dictionary: what parties agreed that their columns hold, in one TOML file."""

import datetime
import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comity.core.checks import path as path_of
from comity.core.errors import ConfigError
from comity.data.dates import days
from comity.data.extras import need
from comity.data.schema import FEW, identifies
from comity.data.tables import column, read_typed, words
from comity.data.toml import LAST_DAY, date_of, read_dictionary, write_dictionary

if TYPE_CHECKING:
    import polars as pl
else:
    pl = need("polars", "tables")

TYPES = ("number", "category", "date", "boolean", "identifier")
MOST_CODES = 50
"""A draft lists the words of a column with at most this many."""
_LARGEST = sys.float_info.max
STEPS = 10
"""A drafted range has at most about this many steps, so that its ends say little about single values."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What one column holds.

    Attributes:
        name: as in the tables.
        type: "number", "category", "date", "boolean" (the words true and false) or "identifier".
        unit: such as "mg/dL"; "" where there is none.
        range: the least and the greatest plausible value, both included; dates in days since 1970.
        codes: the allowed words, each with its meaning ("" where it speaks for itself); empty: any word.
        required: must there be a value in every row?
    """

    name: str
    type: str
    unit: str = ""
    range: tuple[float, float] | None = None
    codes: Mapping[str, str] = field(default_factory=dict, hash=False)
    required: bool = False


@dataclass(frozen=True)
class Dictionary:
    """The columns that parties agreed on. It is public: no value of a single row should be in it.

    Attributes:
        columns: one entry for each, in the order of the file.
        target: the column to be predicted; "" where that is left open.
        party: the column that says whose a row is; "" where there is none. Tables need not have it.
        title: of the study.

    Example:
        >>> agreed = Dictionary((Entry("age", "number", "years", (0, 120), required=True),), title="Readmission")
        >>> print(agreed.to_toml())
        title = "Readmission"
        <BLANKLINE>
        [columns.age]
        type = "number"
        unit = "years"
        range = [0, 120]
        required = true
        <BLANKLINE>
        >>> Dictionary.of(agreed.to_toml()) == agreed
        True
    """

    columns: tuple[Entry, ...]
    target: str = ""
    party: str = ""
    title: str = ""

    @classmethod
    def load(cls, path: str | Path) -> "Dictionary":
        """The dictionary in a file, usually called schema.toml.

        Raises:
            ConfigError: there is no such file, or as `of`.
        """
        try:
            text = path_of("dictionary", "", path).expanduser().read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError, RuntimeError) as error:
            why = getattr(error, "strerror", None) or str(error).rstrip(".")
            raise ConfigError(f"A dictionary must be a file of UTF-8 text. {path} cannot be read: {why}.") from None
        return cls.of(text, where=Path(path).name)

    @classmethod
    def of(cls, text: str, *, where: str = "schema.toml") -> "Dictionary":
        """The dictionary that a TOML text writes down.

        Args:
            text: tables `[columns.NAME]` with `type` and, as wanted, `unit`, `range`, `codes` and `required`;
                before them `title`, `target` and `party`.
            where: the file's name, for messages.

        Raises:
            ConfigError: no TOML, a key that is not known, or a value that does not fit; names the line.
        """
        tops, columns = read_dictionary(text, where, TYPES)
        return cls(tuple(Entry(name, **said) for name, said in columns.items()), **tops)

    @classmethod
    def draft(cls, table: Any, target: str | None = None, party: str | None = None) -> "Dictionary":
        """A first dictionary, from one party's table, for people to read, correct and complete.

        Ranges are rounded outwards to steps of 1, 2 or 5 times a power of ten, at most about ten over the
        whole range, at least 1 for whole numbers (dates to the first of January of such years): an end tells
        within one step where the smallest or the largest value lies and is never that value, unless it is 0.
        Words are listed, without counts, where a column has at most 50; a word that only one row has is
        among them, so strike out what must not leave before it is sent. Identifiers are flagged and none of
        their values named. The target is required if no row lacks it.

        Args:
            table: as `read_typed` takes it; in a table already read, dates are numbers.
            target: the column to be predicted.
            party: the column that says whose a row is; it gets no entry.

        Raises:
            ConfigError: as `read_typed`; there is no such target or party.

        Example:
            >>> import polars
            >>> frame = polars.DataFrame({"age": [18, 94], "sex": ["f", "m"], "seen": ["2021-03-05", "2023-11-30"]})
            >>> for entry in Dictionary.draft(frame).columns:
            ...     print(entry.name, entry.type, entry.range, list(entry.codes))
            age number (10.0, 100.0) []
            sex category None ['f', 'm']
            seen date (18628.0, 19723.0) []
        """
        typed = read_typed(table)
        for name in (target, party):
            if name is not None:
                column(typed, name)
        entries = [_draft(typed[name], name == target) for name in typed.columns if name != party]
        return cls(tuple(entries), target or "", party or "")

    def to_toml(self) -> str:
        """The text that `of` reads."""
        return write_dictionary(self)

    def entry(self, name: str) -> Entry | None:
        """What is agreed on a column, or None."""
        return next((entry for entry in self.columns if entry.name == name), None)


def outwards(low: float, high: float, *, least: float = 0.0) -> tuple[float, float]:
    """A range rounded outwards to steps of 1, 2 or 5 times a power of ten, at most about ten of them inside.

    An end lies within one step of the value, and is never the value itself, unless that is 0.

    Args:
        low: the smallest value.
        high: the largest, >= low; both finite.
        least: the smallest step, such as 1 for whole numbers.

    Example:
        >>> outwards(18.4, 93.7), outwards(0, 0.0119), outwards(7, 7)
        ((10.0, 100.0), (0.0, 0.012), (6.0, 8.0))
    """
    span = max(high / STEPS - low / STEPS or max(abs(low) / STEPS, 0.1), least)
    power = math.floor(math.log10(span))
    times = next(k for k in (1, 2, 5, 10) if _grid(k, power) >= span * (1 - 1e-9))
    first, last = (round(end / _grid(times, power)) for end in (low, high))
    while _grid(first * times, power) > low or (_grid(first * times, power) == low and low != 0):
        first -= 1
    while _grid(last * times, power) < high or (_grid(last * times, power) == high and high != 0) or last <= first:
        last += 1
    return max(_grid(first * times, power), -_LARGEST), min(_grid(last * times, power), _LARGEST)


def _grid(times: int, power: int) -> float:
    return float(f"{times}e{power}")


def _draft(series: "pl.Series", is_target: bool) -> Entry:
    present = series.drop_nulls()
    required = is_target and len(present) == len(series)
    if present.dtype.is_temporal():
        return Entry(series.name, "date", range=_years(days(present)), required=required)
    if not is_target and identifies(series):
        return Entry(series.name, "identifier")
    if len(present) and present.dtype.is_numeric() and not (is_target and _few_whole(present)):
        ends = _ends(present)
        return Entry(series.name, "number", range=ends, required=required)
    found = sorted(words(present).unique().to_list()) if len(present) else []
    if found and set(found) <= {"false", "true"}:
        return Entry(series.name, "boolean", required=required)
    codes = dict.fromkeys(found, "") if len(found) <= MOST_CODES else {}
    return Entry(series.name, "category", codes=codes, required=required)


def _few_whole(present: "pl.Series") -> bool:
    return bool((present == present.round()).all()) and present.n_unique() <= FEW


def _ends(present: "pl.Series") -> tuple[float, float]:
    x = present.cast(pl.Float64).to_numpy()
    return outwards(float(x.min()), float(x.max()), least=1.0 if present.dtype.is_integer() else 0.0)


def _years(since: "pl.Series") -> tuple[float, float] | None:
    """First days of years around dates, which lie strictly between them."""
    if not len(since):
        return None
    x = since.to_numpy()
    first, last = date_of(x.min() - 1e-6).year, date_of(x.max()).year
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if s * STEPS >= last - first)
    low, high = max(first // step * step, 1), (last // step + 1) * step
    return _new_year(low), _new_year(high) if high <= datetime.MAXYEAR else LAST_DAY


def _new_year(year: int) -> float:
    return float((datetime.date(year, 1, 1) - datetime.date(1970, 1, 1)).days)


def without_codes(dictionary: Dictionary, names: Iterable[str]) -> list[str]:
    """Those of some columns whose words the dictionary does not list."""
    entries = {entry.name: entry for entry in dictionary.columns}
    return [n for n in names if n not in entries or not (entries[n].codes or entries[n].type == "boolean")]
