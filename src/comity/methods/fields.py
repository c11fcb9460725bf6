"""Rows as they travel, and what their columns must hold: numbers, whole numbers and words, some of them missing."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np

from comity.core.checks import number, refusal, shown, word
from comity.core.contribution import Array, Tree
from comity.core.errors import ConfigError
from comity.core.spec import Leaf

KINDS = ("number", "whole", "word")
DIGEST = 16
"""Bytes of a row's hash."""


@dataclass(frozen=True)
class Field:
    """What one column of contributed rows must hold.

    Attributes:
        kind: "number" or "whole", float64 (whole numbers up to 2**53), or "word", text.
        low: the least number allowed.
        high: the largest.
        words: the words allowed; None for any.
        missing: the share of the rows of one contribution that may be without a value, in [0, 1]; where more are, all
            of these go to quarantine. Missing are None, NaN, infinity and the empty word.

    Raises:
        ConfigError: an attribute out of its range, or one that does not go with the kind.

    Example:
        >>> import comity as co
        >>> co.Field("whole", low=0, high=120), co.Field("word", words=("no", "yes")).words
        (Field(kind='whole', low=0, high=120, words=None, missing=0.0), ('no', 'yes'))
    """

    kind: str = "number"
    low: float = -math.inf
    high: float = math.inf
    words: Sequence[str] | None = None
    missing: float = 0.0

    def __post_init__(self) -> None:
        word("kind", "Field", self.kind, KINDS)
        number("low", "Field", self.low, "[-inf, inf]")
        number("high", "Field", self.high, f"[{self.low}, inf]")
        number("missing", "Field", self.missing, "[0, 1]")
        listed = isinstance(self.words, Sequence) and not isinstance(self.words, str | bytes)
        if self.words is not None and not (listed and all(isinstance(w, str) and w for w in self.words)):
            raise refusal("words", "Field", "a list of words, or None for any", self.words)
        if self.kind == "word" and (self.low, self.high) != (-math.inf, math.inf):
            raise refusal("kind", "Field", "'number' or 'whole' where there is a range", self.kind)
        if self.kind != "word" and self.words is not None:
            raise refusal("kind", "Field", "'word' where words are listed", self.kind)
        if self.words is not None:
            object.__setattr__(self, "words", tuple(self.words))


@dataclass(frozen=True, eq=False)
class Values:
    """One column.

    Attributes:
        x: (rows,) float64, or object of str; 0 or "" where it is missing.
        known: (rows,) bool.
    """

    x: Array
    known: Array

    def __getitem__(self, at: Any) -> "Values":
        return Values(self.x[at], self.known[at])


def values_of(given: Any, name: str, kind: str) -> Values:
    """A column of numbers, words and Nones, whatever holds it.

    Raises:
        ConfigError: a value of another kind; names column and row.
    """
    if isinstance(given, str | bytes) or not isinstance(given, Iterable) or not getattr(given, "shape", (1,)):
        raise ConfigError(f"'{name}' must be a column: a list or an array. Got {shown(given)}. Give each row a value.")
    held = given.tolist() if isinstance(given, np.ndarray) else list(given)
    make = _text if kind == "word" else _finite
    out = []
    for i, v in enumerate(held):
        try:
            out.append(make(v))
        except (TypeError, ValueError, OverflowError):
            what = "a word" if kind == "word" else "a number"
            raise ConfigError(f"'{name}' must hold {what} in every row, or None. Got {shown(v)} in row {i}.") from None
    x = np.array(out, object if kind == "word" else float)
    return Values(x, x != "") if kind == "word" else Values(np.nan_to_num(x) + 0.0, ~np.isnan(x))


def _text(v: Any) -> str:
    if v is None or (isinstance(v, float) and math.isnan(v)):
        return ""
    if not isinstance(v, str):
        raise TypeError
    v.encode()
    return v


def _finite(v: Any) -> float:
    if isinstance(v, str):
        raise TypeError
    x = math.nan if v is None else float(v)
    return x if math.isfinite(x) else math.nan


def packed(column: Values) -> dict[str, Array]:
    """A column as it travels: {"x", "known"}, or {"text", "ends"} in UTF-8 with the place where each word ends."""
    if column.x.dtype != object:
        return {"x": column.x, "known": column.known}
    coded = [v.encode() for v in column.x]
    ends = np.cumsum([len(v) for v in coded], dtype=np.int64) if coded else np.zeros(0, np.int64)
    return {"text": np.frombuffer(b"".join(coded), np.uint8), "ends": ends}


def unpacked(tree: Any) -> Values:
    """The column that was packed.

    Raises:
        ValueError: it is none.
    """
    if "x" in tree:
        if len(tree["x"]) != len(tree["known"]):
            raise ValueError("columns of unlike lengths")
        return Values(np.where(tree["known"], tree["x"], 0.0) + 0.0, np.asarray(tree["known"]))
    text, ends = np.asarray(tree["text"]).tobytes(), np.asarray(tree["ends"])
    starts = np.concatenate([[0], ends])
    if (np.diff(starts) < 0).any() or starts[-1] != len(text):
        raise ValueError("words that do not fit their ends")
    try:
        held = [text[a:b].decode() for a, b in zip(starts.tolist(), ends.tolist(), strict=False)]
    except UnicodeDecodeError:
        raise ValueError("words that are no UTF-8") from None
    x = np.empty(len(held), object)
    x[:] = held
    return Values(x, np.array([v != "" for v in held], bool))


def expected(kind: str) -> dict[str, Leaf]:
    """What a packed column must look like."""
    if kind == "word":
        return {"text": Leaf((None,), "uint8"), "ends": Leaf((None,), "int64", 0)}
    return {"x": Leaf((None,), "float64"), "known": Leaf((None,), "bool")}


def joined(columns: Sequence[Values]) -> Values:
    """One column after the other."""
    return Values(np.concatenate([c.x for c in columns]), np.concatenate([c.known for c in columns]))


def plain(column: Values) -> Any:
    """A column for people: (rows,) float64 with NaN, or a list of words with None."""
    if column.x.dtype == object:
        return [v or None for v in column.x]
    return np.where(column.known, column.x, np.nan)


def wrong(name: str, field: Field, column: Values) -> list[list[str]]:
    """For each row, what is wrong with its value."""
    out: list[list[str]] = [[] for _ in column.known]
    x, known = column.x, column.known
    if field.kind == "word":
        allowed = None if field.words is None else set(field.words)
        rules = {"is none of its words": np.array([allowed is not None and v not in allowed for v in x], bool) & known}
    else:
        whole = (x == np.round(x)) & (np.abs(x) <= 2.0**53)
        rules = {
            f"is below {field.low:g}": (x < field.low) & known,
            f"is above {field.high:g}": (x > field.high) & known,
            "is not whole": ~whole & known & (field.kind == "whole"),
        }
    if len(known) and (~known).mean() > field.missing:
        rules["is missing"] = ~known
    for said, rows in rules.items():
        for i in np.flatnonzero(rows).tolist():
            out[i].append(f"{name} {said}")
    return out


def far(x: Array, reference: Array, most: float) -> Array:
    """(rows,) bool: is the robust z-score, 0.6745·|x - median| / MAD, above `most` (Iglewicz & Hoaglin, 1993)?

    Args:
        x: (rows,) to be judged.
        reference: (values,) that say where the middle is; of 20 or fewer, or if half of them are equal, none is far.
        most: 3.5 is what they advise.
    """
    if len(reference) <= 20:
        return np.zeros(len(x), bool)
    middle = np.median(reference)
    spread = np.median(np.abs(reference - middle))
    return np.asarray(0.6745 * np.abs(x - middle) > most * spread) & bool(spread > 0)


def digests(columns: Mapping[str, Values], rows: int) -> Array:
    """(rows, 16) uint8: BLAKE2b of each row's values, by the sorted names of their columns."""
    names = sorted(columns)
    bits = [[c.known.astype(np.uint8)[:, None], c.x.astype("<f8").view(np.uint8).reshape(rows, 8)]
            for name in names for c in [columns[name]] if c.x.dtype != object]  # fmt: skip
    fixed = np.hstack([x for pair in bits for x in pair]) if bits else np.zeros((rows, 0), np.uint8)
    lines = [line.tobytes() for line in fixed]
    for name in names:
        if columns[name].x.dtype == object:
            coded = [v.encode() for v in columns[name].x]
            lines = [a + len(v).to_bytes(8, "little") + v for a, v in zip(lines, coded, strict=True)]
    held = b"".join(blake2b(line, digest_size=DIGEST).digest() for line in lines)
    return np.frombuffer(held, np.uint8).reshape(rows, DIGEST)


def table_of(source: Any, schema: Mapping[str, str]) -> dict[str, Values]:
    """The columns of a schema, from a mapping or a frame.

    Args:
        source: name to column, or a frame of pandas or polars.
        schema: name to kind.

    Raises:
        ConfigError: a column is not there, has another length, or holds what is not of its kind.
    """
    names = list(source.keys() if isinstance(source, Mapping) else source.columns)
    lacking = [name for name in schema if name not in names]
    if lacking:
        raise ConfigError(f"The rows must have the columns {', '.join(schema)}. There is no '{lacking[0]}'.")
    out = {name: values_of(source[name], name, kind) for name, kind in schema.items()}
    lengths = {len(c.known) for c in out.values()}
    if len(lengths) > 1:
        raise ConfigError(f"Columns must have one length. Got {', '.join(map(str, sorted(lengths)))}.")
    return out


def tree_of(columns: Mapping[str, Values]) -> Tree:
    """All columns as they travel."""
    return {name: packed(c) for name, c in columns.items()}
