"""Tables in: from files and frames to one clean polars frame, and one for each party."""

import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comity.core.checks import refusal, shown
from comity.core.errors import ConfigError, nearest
from comity.data.dates import dated, days
from comity.data.delimited import distinct_names, read_delimited
from comity.data.extras import need
from comity.data.files import bare, owner, place, several
from comity.data.lines import read_lines

if TYPE_CHECKING:
    import polars as pl
else:
    pl = need("polars", "tables")

NULLS = ("", "NA", "N/A", "n/a", "<NA>", "NaN", "nan", "NULL", "null", "None", "?")
"""What stands for a missing value where words are read; compared after stripping."""


def read_table(source: Any) -> "pl.DataFrame":
    """A table as everything in comity wants it: numbers, words and nulls.

    Words are stripped and those in `NULLS` are missing. A column whose words all read as numbers is one
    of numbers (with a decimal comma too, in files not separated by commas). Truth values are the words
    "false" and "true"; dates and times, written alike in a whole column (see `dates.dated`), are days
    since 1970, and words where day and month cannot be told apart (see `dates.ambiguous_dates`); NaN and
    infinity are missing; a column that the frame declares categorical stays words.

    Args:
        source: a path to CSV or TSV (see `delimited`), JSON Lines (`.jsonl`, `.ndjson`), each with `.gz` or
            without, or Parquet, or a frame of pandas, polars or any other library that narwhals reads.

    Returns:
        (rows, columns); each column is Int64, Float64, String, or Null where nothing is known.

    Raises:
        ConfigError: there is no such file, it cannot be read as a table, it has no rows or no columns, or
            two columns have the same name.

    Example:
        >>> import polars
        >>> read_table(polars.DataFrame({"age": ["61", " 47", "?"], "smoker": [True, False, None]})).to_dicts()[:2]
        [{'age': 61, 'smoker': 'true'}, {'age': 47, 'smoker': 'false'}]
    """
    table = read_typed(source)
    return table.with_columns([days(s) for s in table if s.dtype.is_temporal()])


def read_typed(source: Any) -> "pl.DataFrame":
    """As `read_table`, but dates stay dates (Date or Datetime), so that one can tell them from numbers.

    Example:
        >>> import polars
        >>> read_typed(polars.DataFrame({"seen": ["2024-03-05"]})).dtypes
        [Datetime(time_unit='us', time_zone=None)]
    """
    frame, separator = _read(place(source)) if isinstance(source, str | Path) else (_frame(source), ",")
    if not frame.height or not frame.width:
        raise ConfigError(
            f"A table must have rows and columns. {_name(source)} has {frame.height} rows and {frame.width} columns."
        )
    frame.columns = distinct_names(frame.columns, _name(source))
    return frame.with_columns([_clean(s, decimal_comma=separator != ",") for s in frame])


def frame(columns: Mapping[str, Any]) -> "pl.DataFrame":
    """A table of columns, each (rows,) of any numpy dtype or words.

    Example:
        >>> frame({"age": [40, 61], "sick": ["no", "yes"]}).shape
        (2, 2)
    """
    return pl.DataFrame({name: pl.Series(name, list(x)) for name, x in columns.items()})


def column(table: "pl.DataFrame", name: str, where: str = "the table") -> "pl.Series":
    """A column by name.

    Raises:
        ConfigError: there is none; names the nearest one and lists them.
    """
    if not isinstance(name, str):
        raise refusal("column", "", "the name of one", name)
    if name in table.columns:
        return table[name]
    shown = ", ".join(table.columns[:20]) + (", ..." if table.width > 20 else "")
    raise ConfigError(
        f"There is no column '{name}' in {where}.{nearest(name, table.columns)} It has {table.width} columns: {shown}."
    )


def parties_of(source: Any, party: str | None = None) -> tuple[dict[str, "pl.DataFrame"], int]:
    """The table of each party, in sorted order of their names.

    Args:
        source: a mapping of party to table; a folder, a glob pattern or a list of paths, with one table for
            each party, whose name is that of the file; or one table with a column that says whose each row is.
        party: that column, which the parties' tables no longer have; None for the others.

    Returns:
        Name to table, and how many rows were set aside because they name no party.

    Raises:
        ConfigError: as `read_table` and `column`; no party at all; two names that read the same.

    Example:
        >>> import polars
        >>> frame = polars.DataFrame({"hospital": ["Bern", "Basel", "Bern", None], "age": [61, 47, 52, 70]})
        >>> tables, aside = parties_of(frame, "hospital")
        >>> {name: table.height for name, table in tables.items()}, aside
        ({'Basel': 1, 'Bern': 2}, 1)
    """
    files = several(source)
    pairs = source.items() if isinstance(source, Mapping) else [(owner(path), path) for path in files or ()]
    if isinstance(source, Mapping) or files is not None:
        if party is not None:
            what = "A mapping" if files is None else "One file for each party"
            raise ConfigError(f"{what} already says whose each table is. Got party='{party}' too. Leave it out.")
        return _sorted([(name, read_table(table)) for name, table in pairs]), 0
    if party is None:
        raise ConfigError(
            "The column that says whose each row is must be named. Got party=None. Name it, "
            "or give one file for each party (a folder, a pattern or a list)."
        )
    if not isinstance(party, str):
        raise refusal("party", "", "the name of a column", party)
    table = read_table(source)
    whose = words(column(table, party, _name(source)))
    known = table.drop(party).with_columns(whose.alias("\0party")).filter(whose.is_not_null())
    parts = known.partition_by("\0party", as_dict=True, include_key=False)
    return _sorted([(str(key[0]), part) for key, part in parts.items()]), whose.null_count()


def labelled(table: "pl.DataFrame", target: str) -> tuple["pl.DataFrame", int]:
    """The rows whose target is known, and how many are not.

    Raises:
        ConfigError: there is no such column.
    """
    unknown = column(table, target).is_null()
    return table.filter(~unknown), int(unknown.sum())


def kinds(table: "pl.DataFrame") -> dict[str, str]:
    """Column to "number", "category" or "empty".

    Example:
        >>> kinds(frame({"age": [40, 61], "sick": ["no", "yes"]}))
        {'age': 'number', 'sick': 'category'}
    """
    return {name: kind(table[name].drop_nulls()) for name in table.columns}


def kind(present: "pl.Series") -> str:
    """What a column without its nulls holds."""
    if not len(present):
        return "empty"
    return "number" if present.dtype.is_numeric() else "category"


def words(series: "pl.Series") -> "pl.Series":
    """A column as words, the same whether whole numbers were read as 1, 1.0 or "1"."""
    if series.dtype == pl.String:
        return series
    if not series.dtype.is_float():
        return series.cast(pl.String)
    whole = series.is_null() | ((series == series.round()) & (series.abs() < 2.0**53))
    as_int = series.cast(pl.Int64, strict=False).cast(pl.String)
    return as_int if whole.all() else as_int.zip_with(whole, series.cast(pl.String))


def numbers(series: "pl.Series") -> "pl.Series":
    """A column as Float64; what does not read as a finite number is null."""
    if series.dtype == pl.Float64:
        return series
    return _finite(series.cast(pl.Float64, strict=False))


def _read(path: Path) -> tuple["pl.DataFrame", str]:
    if not path.exists():
        beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise ConfigError(f"A table must be a file that exists. There is no {path}.{nearest(path.name, beside)}")
    try:
        with path.open("rb") as file:
            parquet = file.read(4) == b"PAR1"
        if parquet or bare(path) in (".jsonl", ".ndjson"):
            return pl.read_parquet(path) if parquet else read_lines(path), ","
        return read_delimited(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        why = getattr(error, "strerror", None) or (str(error).strip() or "no table").splitlines()[0][:200]
        raise ConfigError(f"A table must be a file that can be read. {path} cannot: {why.rstrip('.')}.") from None


def _frame(source: Any) -> "pl.DataFrame":
    if isinstance(source, pl.DataFrame):
        return source.clone()
    if isinstance(source, pl.LazyFrame):
        return source.collect()
    narwhals = need("narwhals", "tables")
    try:
        frame = narwhals.from_native(source)
        distinct_names(frame.collect_schema().names(), "the frame")
    except narwhals.exceptions.DuplicateError:
        raise ConfigError("Column names must differ. Two in the frame are the same. Rename one.") from None
    except TypeError:
        raise ConfigError(
            "A table must be a path to CSV, TSV, JSON Lines or Parquet, or a pandas or polars frame. "
            f"Got {shown(source)}. Make a frame of it first."
        ) from None
    if isinstance(frame, narwhals.LazyFrame):
        frame = frame.collect("polars")
    try:
        made: pl.DataFrame = frame.to_polars()
        return made
    except (ImportError, TypeError, ValueError, pl.exceptions.PolarsError):
        return pl.DataFrame([_mixed(str(name), frame[name].to_list()) for name in frame.columns])


def _mixed(name: str, values: list[Any]) -> "pl.Series":
    """A column of unlike Python objects: as polars reads it, else each as it prints."""
    try:
        return pl.Series(name, values, strict=False)
    except (TypeError, ValueError, pl.exceptions.PolarsError):
        return pl.Series(name, [None if v is None else str(v) for v in values], dtype=pl.String)


def _clean(series: "pl.Series", *, decimal_comma: bool) -> "pl.Series":
    kind = series.dtype
    if kind == pl.Null:
        return series
    if kind == pl.Boolean:
        return series.cast(pl.String)
    if kind.is_temporal():
        return series if kind.base_type() in (pl.Date, pl.Datetime) else days(series)
    if kind.is_integer() or kind.is_numeric():
        whole = kind.is_integer() and kind not in (pl.UInt64, pl.Int128)
        return series.cast(pl.Int64) if whole else _finite(series.cast(pl.Float64))
    if kind in (pl.Categorical, pl.Enum):
        return _stripped(series.cast(pl.String))
    if kind != pl.String:
        raise ConfigError(
            f"A column must hold numbers, words, dates or truth values. '{series.name}' holds {kind}. "
            "Leave it out, or spread it over several columns."
        )
    return _parsed(_stripped(series), decimal_comma=decimal_comma)


def _parsed(series: "pl.Series", *, decimal_comma: bool) -> "pl.Series":
    if series.null_count() == len(series):
        return pl.Series(series.name, [None] * len(series), dtype=pl.Null)
    for attempt in (series, series.str.replace(",", ".", literal=True)) if decimal_comma else (series,):
        for dtype in (pl.Int64, pl.Float64):
            cast = attempt.cast(dtype, strict=False)
            if cast.null_count() == series.null_count():
                return _finite(cast) if dtype == pl.Float64 else cast
    low = series.str.to_lowercase()
    if low.drop_nulls().is_in(["false", "true"]).all():
        return low
    moments = dated(series)
    return series if moments is None else moments


def _stripped(series: "pl.Series") -> "pl.Series":
    bare = series.str.strip_chars()
    return bare.set(bare.is_in(NULLS), None)


def _finite(series: "pl.Series") -> "pl.Series":
    odd = ~series.is_finite()
    return series.set(odd.fill_null(False), None) if odd.any() else series


def _sorted(pairs: list[tuple[Any, "pl.DataFrame"]]) -> dict[str, "pl.DataFrame"]:
    named: dict[str, pl.DataFrame] = {}
    for name, table in pairs:
        clean = _party(name)
        if clean in named:
            raise ConfigError(f"Parties must have different names. '{clean}' stands for two. Rename one.")
        named[clean] = table
    if not named:
        raise ConfigError("There must be at least one party. Got none. Fill in the party column, or name tables.")
    return {name: named[name] for name in sorted(named)}


def _party(name: Any) -> str:
    text = "".join(c if unicodedata.category(c)[0] != "C" else " " for c in str(name))
    clean = " ".join(text.split())
    if not clean:
        raise ConfigError(f"A party must have a name. Got {shown(name)}.")
    return clean


def _name(source: Any) -> str:
    return Path(source).name if isinstance(source, str | Path) else "the table"
