"""Text files with a separator, as people export them: what separates, which encoding, which names."""

import csv
import gzip
import io
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from comity.core.errors import ConfigError
from comity.data.extras import need
from comity.data.files import bare

if TYPE_CHECKING:
    import polars as pl
else:
    pl = need("polars", "tables")

SEPARATORS = (",", ";", "\t", "|")
_BOMS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))


def read_delimited(path: Path) -> tuple["pl.DataFrame", str]:
    """A text table with every value as it is written.

    Compressed with gzip or not; UTF-8 with or without a byte order mark, UTF-16 with one, else Latin-1
    (as Windows-1252). The separator is the one of comma, semicolon, tab and bar that cuts the first
    lines most evenly; the tab in a file called `.tsv` or `.tab` that has any. The first line holds the names.

    Returns:
        A frame of strings (lines without any value left out), and the separator.

    Raises:
        ConfigError: the file is not text, is empty, or its lines do not have as many values as names.
    """
    text = text_of(path)
    if not text.strip():
        raise ConfigError(f"A table must have rows. {path.name} is empty.")
    separator = "\t" if bare(path) in (".tsv", ".tab") and "\t" in text[:65536] else sniff(text[:65536])
    try:
        names = next(csv.reader(io.StringIO(text[: 1 << 24]), delimiter=separator, skipinitialspace=True))
        frame = pl.read_csv(text.encode(), separator=separator, infer_schema=False)
    except (csv.Error, pl.exceptions.PolarsError) as error:
        why = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"{path.name} must have as many values in each line as there are names in the first, separated by "
            f"{separator!r}. The reader says: {why}. Mend the file, or save it as Parquet."
        ) from None
    kept = frame.filter(~pl.all_horizontal(pl.all().is_null())) if frame.width else frame
    return _named(kept, names, path), separator


def sniff(head: str) -> str:
    """The separator that gives the first lines the same number of values, more than one; else a comma.

    Example:
        >>> sniff("age;dose\\n61;1,5\\n")
        ';'
    """
    lines = [line for line in head.splitlines()[:50] if line.strip()]
    lines = lines[:-1] if len(lines) > 2 else lines
    best, most = ",", (0.0, 1)
    for separator in SEPARATORS:
        widths = [len(row) for row in csv.reader(lines, delimiter=separator) if row]
        even = sum(w == widths[0] for w in widths) / len(widths) if widths else 0.0
        if widths and widths[0] > 1 and (round(even, 1), widths[0]) > most:
            best, most = separator, (round(even, 1), widths[0])
    return best


def distinct_names(names: Iterable[str], where: str) -> list[str]:
    """Column names without spaces and line breaks around or in them; one without a name is called by its place.

    Raises:
        ConfigError: two are the same.
    """
    clean = [" ".join(str(name).split()) or f"column {i}" for i, name in enumerate(names, 1)]
    doubled = [name for name, times in Counter(clean).items() if times > 1]
    if doubled:
        raise ConfigError(f"Column names must differ. '{doubled[0]}' stands more than once in {where}. Rename one.")
    return clean


def _named(frame: "pl.DataFrame", names: list[str], path: Path) -> "pl.DataFrame":
    if frame.width != len(names):
        raise ConfigError(f"{path.name} must name each column once. Got {len(names)} names for {frame.width} columns.")
    frame.columns = distinct_names(names, path.name)
    return frame


def text_of(path: Path) -> str:
    """What is written in a text file: gzip or not, UTF-8, UTF-16 with a byte order mark, else Windows-1252.

    Raises:
        ConfigError: a damaged gzip file, or no text.
    """
    raw = path.read_bytes()
    try:
        raw = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (OSError, EOFError) as error:
        raise ConfigError(f"{path.name} must be a whole gzip file. The reader says: {error}.") from None
    for mark, encoding in _BOMS:
        if raw.startswith(mark):
            return raw.decode(encoding, errors="replace")
    if b"\0" in raw:
        raise ConfigError(
            f"A table must be text (CSV, TSV, JSON Lines) or Parquet. {path.name} is neither. Save it as CSV or "
            "Parquet, or read it yourself and pass the pandas or polars frame."
        )
    raw = raw if b"\n" in raw else raw.replace(b"\r", b"\n")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("cp1252", errors="replace")
