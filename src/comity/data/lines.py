"""JSON Lines: one object in each line, its keys the columns."""

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING

from comity.core.errors import ConfigError
from comity.data.delimited import text_of
from comity.data.extras import need

if TYPE_CHECKING:
    import polars as pl
else:
    pl = need("polars", "tables")


def read_lines(path: Path) -> "pl.DataFrame":
    """A table of JSON Lines, compressed with gzip or not; a key that a line does not have is missing there.

    A column that holds numbers in some lines and words in others is one of words.

    Raises:
        ConfigError: a line is no object, named by its number, or a column holds lists or objects.
    """
    text = text_of(path)
    if not text.strip():
        raise ConfigError(f"A table must have rows. {path.name} is empty.")
    try:
        return pl.read_ndjson(io.BytesIO(text.encode()), infer_schema_length=None)
    except pl.exceptions.PolarsError as error:
        why = str(error).strip().splitlines()[0]
        raise ConfigError(_complaint(text, path.name, why)) from None


def _complaint(text: str, name: str, why: str) -> str:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            return f"Each line of {name} must be a JSON object. Line {number} is none: {error}. Mend that line."
        if not isinstance(row, dict):
            return f"Each line of {name} must be a JSON object. Line {number} is a {type(row).__name__}. Use {{...}}."
        deep = [key for key, value in row.items() if isinstance(value, dict | list)]
        if deep:
            return (
                f"A column must hold numbers, words, dates or truth values. '{deep[0]}' in line {number} of {name} "
                "holds more. Leave it out, or spread it over several columns."
            )
    return f"{name} must be JSON Lines. The reader says: {why}. Save it as CSV or Parquet."
