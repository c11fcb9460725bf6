"""Where the words of category columns come from: from the dictionary, from salted counts, or openly.

| source | the parties send | what is learnt of rare words |
|---|---|---|
| `Listed` | nothing | nothing |
| `Hashed` | counts by bucket of a keyed hash; then the words of full buckets | no word of a bucket below the minimum |
| `Open` | their words with counts, at most 500 a column | all of it |
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from comity.core.contribution import Array
from comity.core.errors import ConfigError, nearest
from comity.data.dictionary import Dictionary, without_codes
from comity.data.extras import need
from comity.data.schema import Schema
from comity.data.statistics import MOST_SENT, merge_vocabularies, vocabulary
from comity.data.tables import column, words

if TYPE_CHECKING:
    import polars as pl
else:
    pl = need("polars", "tables")

BUCKETS = 2**16
Ask = Callable[[str, Mapping[str, Any]], Sequence[Any]]
"""(step, question) -> the parties' answers, or their sum where the step is "hashed"; each party calls `respond`."""


class Vocabulary(Protocol):
    """Where words come from. The hub holds one; the parties answer what it asks."""

    @property
    def reveals(self) -> str:
        """What each party reveals to the hub by it, in plain words."""
        ...

    def collect(self, schema: Schema, ask: Ask) -> dict[str, dict[str, Any]]:
        """The vocabulary of all parties, as `Preparation.of` takes it."""
        ...


@dataclass(frozen=True)
class Open:
    """Words are openly collected, with how often each occurs.

    Example:
        >>> Open().reveals
        'the words of its category columns, at most 500 each, with their counts'
    """

    @property
    def reveals(self) -> str:
        """What each party reveals to the hub by it."""
        return f"the words of its category columns, at most {MOST_SENT} each, with their counts"

    def collect(self, schema: Schema, ask: Ask) -> dict[str, dict[str, Any]]:
        """Asks once, "vocabulary"."""
        return merge_vocabularies(ask("vocabulary", {}))


@dataclass(frozen=True)
class Hashed:
    """Only words are named whose bucket of a salted hash reached a minimum over all parties.

    The salt is known to the parties and not to the hub, which could else try words until they fit. A
    collision may only reveal words whose bucket total reached the minimum: a rare word is named if, and
    only if, it shares its bucket with words that fill it up; of w words in b buckets about w / b do.

    Attributes:
        minimum: rows over all parties, >= 2.
        buckets: from 2 to 2**24; 8 bytes each for every column and party.

    Raises:
        ConfigError: an attribute out of its range.

    Example:
        >>> Hashed(minimum=20).reveals
        'counts of hashed words, and the words whose bucket holds at least 20 rows of all parties, with their counts'
    """

    minimum: int = 10
    buckets: int = BUCKETS

    def __post_init__(self) -> None:
        _check_whole("minimum", self.minimum, 2, 2**53)
        _check_whole("buckets", self.buckets, 2, 2**24)

    @property
    def reveals(self) -> str:
        """What each party reveals to the hub by it."""
        full = f"the words whose bucket holds at least {self.minimum} rows of all parties, with their counts"
        return f"counts of hashed words, and {full}"

    def collect(self, schema: Schema, ask: Ask) -> dict[str, dict[str, Any]]:
        """Asks twice, "hashed" and "reveal"."""
        counts = merge_hashed(ask("hashed", {"buckets": self.buckets}))
        return merge_vocabularies(ask("reveal", {"allowed": allowed(counts, self.minimum)}))


@dataclass(frozen=True)
class Listed:
    """The words are the codes of the dictionary; nobody is asked.

    Each code has an input of its own, whether it occurs or not; a missing word has one where the dictionary
    does not require a value; any other word is zero everywhere.

    Attributes:
        dictionary: lists the codes of every category column.
    """

    dictionary: Dictionary

    @property
    def reveals(self) -> str:
        """What each party reveals to the hub by it."""
        return "nothing: the words are those of the dictionary"

    def collect(self, schema: Schema, ask: Ask) -> dict[str, dict[str, Any]]:
        """Asks nobody.

        Raises:
            ConfigError: the dictionary does not list the codes of a category column.
        """
        lacking = without_codes(self.dictionary, schema.categories)
        if lacking:
            raise ConfigError(
                f"A vocabulary from the dictionary wants codes for every category. There are none for "
                f"{', '.join(lacking[:5])}{', ...' if len(lacking) > 5 else ''}. Add codes, leave the column out, "
                "or take the words from hashed counts."
            )
        entries = {e.name: e for e in self.dictionary.columns}
        often = 2**31  # a code is never rare
        return {
            name: {
                "values": dict.fromkeys(entries[name].codes or ("false", "true"), often),
                "missing": int(not entries[name].required),
                "other": 0,
            }
            for name in schema.categories
        }


def source_of(name: str, dictionary: Dictionary | None = None, *, minimum: int = 10) -> Vocabulary:
    """The source that a recipe names.

    Args:
        name: "open", "hashed" or "dictionary".
        dictionary: for "dictionary".
        minimum: for "hashed".

    Raises:
        ConfigError: another name, or "dictionary" without one.
    """
    if name == "dictionary":
        if dictionary is None:
            raise ConfigError("Words from the dictionary want one. Got None. Give the schema.toml, or use 'hashed'.")
        return Listed(dictionary)
    if name not in ("open", "hashed"):
        known = ("open", "hashed", "dictionary")
        raise ConfigError(f"Words must come from {', '.join(known)}. Got {name!r}.{nearest(str(name), known)}")
    return Open() if name == "open" else Hashed(minimum)


def respond(table: "pl.DataFrame", schema: Schema, step: str, question: Mapping[str, Any], salt: bytes = b"") -> Any:
    """A party's answer to what a source asks.

    Args:
        table: of `read_table`; the training rows only.
        schema: as agreed.
        step: "vocabulary", "hashed" or "reveal".
        question: what came with it.
        salt: the parties' own, at least 16 bytes; the first step does not need it.

    Raises:
        ConfigError: another step, or as the function that answers.
    """
    if step == "vocabulary":
        return vocabulary(table, schema)
    if step == "hashed":
        return hashed_counts(table, schema, salt, int(question["buckets"]))
    if step == "reveal":
        return reveal(table, schema, salt, question["allowed"])
    raise ConfigError(f"A source of words asks 'vocabulary', 'hashed' or 'reveal'. Got {step!r}.")


def hashed_counts(table: "pl.DataFrame", schema: Schema, salt: bytes, buckets: int = BUCKETS) -> dict[str, Array]:
    """How many rows fall into each bucket of a keyed hash (BLAKE2b) of column and word.

    Args:
        table: of `read_table`; the training rows only.
        schema: as agreed.
        salt: 16 to 64 bytes, the same at all parties and unknown to the hub.
        buckets: how many, >= 2.

    Returns:
        Category column to (buckets,) int64; missing words are not counted. They add over the parties.

    Raises:
        ConfigError: a salt of another length, or fewer than two buckets.
    """
    _check_whole("buckets", buckets, 2, 2**24)
    out = {}
    for name in schema.categories:
        found = _counted(column(table, name))
        out[name] = np.zeros(buckets, np.int64)
        np.add.at(out[name], _buckets(name, found, salt, buckets), list(found.values()))
    return out


def allowed(counts: Mapping[str, Array], minimum: int) -> dict[str, Array]:
    """Category column to (buckets,) bool: does the bucket hold at least the minimum of rows, over all parties?"""
    return {name: np.asarray(many) >= minimum for name, many in counts.items()}


def merge_hashed(parts: Iterable[Mapping[str, Array]]) -> dict[str, Array]:
    """The bucket counts of all rows together, from those of each party."""
    out: dict[str, Array] = {}
    for part in parts:
        for name, many in part.items():
            out[name] = out[name] + many if name in out else np.asarray(many)
    return out


def reveal(
    table: "pl.DataFrame", schema: Schema, salt: bytes, allowed: Mapping[str, Array]
) -> dict[str, dict[str, Any]]:
    """The vocabulary of a party, restricted to words in allowed buckets; the others only add to `other`.

    Args:
        table: of `read_table`; the training rows only.
        schema: as agreed.
        salt: as for `hashed_counts`.
        allowed: category column to (buckets,) bool.

    Returns:
        As `vocabulary`.

    Raises:
        ConfigError: a salt of another length, or a column that `allowed` does not have.
    """
    missing = [name for name in schema.categories if name not in allowed]
    if missing:
        raise ConfigError(f"'allowed' must have every category column. '{missing[0]}' is not there.")
    out = {}
    for name in schema.categories:
        series = column(table, name)
        found, may = _counted(series), np.asarray(allowed[name], bool)
        open_ = may[_buckets(name, found, salt, may.size)]
        named = [(word, n) for (word, n), shown in zip(found.items(), open_, strict=True) if shown]
        values = dict(sorted(named, key=lambda pair: (-pair[1], pair[0]))[:MOST_SENT])
        other = sum(found.values()) - sum(values.values())
        out[name] = {"values": values, "missing": series.null_count(), "other": other}
    return out


def _counted(series: "pl.Series") -> dict[str, int]:
    found = words(series.drop_nulls()).value_counts(name="\0rows")
    return dict(zip(found.to_series(0).to_list(), found["\0rows"].to_list(), strict=True))


def _buckets(column: str, found: Iterable[str], salt: bytes, buckets: int) -> Array:
    if not 16 <= len(salt) <= 64:
        raise ConfigError(f"The salt must have 16 to 64 bytes. Got {len(salt)}. Use secrets.token_bytes(32).")
    keyed = blake2b(column.encode() + b"\0", digest_size=8, key=salt)
    places = []
    for word in found:
        one = keyed.copy()
        one.update(word.encode())
        places.append(int.from_bytes(one.digest(), "little") % buckets)
    return np.array(places, np.int64)


def _check_whole(name: str, value: int, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ConfigError(f"'{name}' must be a whole number from {low} to {high}. Got {value!r}.")
