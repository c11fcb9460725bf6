"""One data set cut into parties: by a column, evenly, or unevenly by class."""

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from comity.core.checks import is_number, shown
from comity.core.contribution import Array
from comity.core.errors import ConfigError
from comity.core.rng import Rng, keyed, keyed_order

MOST_ALPHA = 1e100
"""Shares of a larger alpha are the same, and beyond 1e307 cannot be drawn."""


def by_column(table: Any, column: str) -> dict[str, Any]:
    """The table of each party, as a column says whose each row is; rows that name nobody are left out.

    Args:
        table: a path or a frame, as `read_table` takes it.
        column: says whose each row is; the parts no longer have it.

    Returns:
        Party to polars frame, in sorted order.

    Raises:
        ConfigError: as `read_table`; there is no such column; nobody is named.

    Example:
        >>> import polars
        >>> frame = polars.DataFrame({"hospital": ["Bern", "Basel", "Bern"], "age": [61, 47, 52]})
        >>> {name: part["age"].to_list() for name, part in by_column(frame, "hospital").items()}
        {'Basel': [47], 'Bern': [61, 52]}
    """
    from comity.data.tables import parties_of  # polars is not needed to cut arrays

    return parties_of(table, column)[0]


def iid(data: Any, parties: int, *, seed: int = 0) -> dict[str, Array]:
    """Rows dealt out evenly: parties differ by one row at most and by chance only.

    Args:
        data: how many rows, or whatever has them: an array, a frame, or a tuple of those.
        parties: how many, from 1 to the number of rows.
        seed: what the deal depends on.

    Returns:
        "p0", "p1", ... (zero padded) to (rows of it,) int64 row numbers, ascending.

    Raises:
        ConfigError: more parties than rows, or not a whole number >= 1.

    Example:
        >>> {name: rows.tolist() for name, rows in iid(5, 2).items()}
        {'p0': [1, 2, 4], 'p1': [0, 3]}
    """
    n, seed = rows_of(data), seed_of(seed)
    names = names_of(parties, n, 1)
    return {
        name: np.sort(part)
        for name, part in zip(names, np.array_split(keyed_order(n, seed, "iid"), parties), strict=True)
    }


def dirichlet(y: Any, parties: int, *, alpha: float = 0.5, seed: int = 0, min_rows: int = 1) -> dict[str, Array]:
    """Rows dealt out unevenly by class: each class is shared out by a draw of Dirichlet(alpha).

    As in Yurochkin et al. (ICML 2019, arXiv:1905.12022, section 4), and with the meaning of alpha as in Hsu et
    al. (2019, arXiv:1909.06335), who draw for each party instead: towards 0 a class belongs to one party,
    towards infinity all parties are alike. Every row is used once. Departure: a party below `min_rows` is
    filled up with random rows of the largest party, where others draw again until none is.

    Args:
        y: (rows,) the class of each row, of any type.
        parties: how many, >= 1.
        alpha: concentration, > 0.
        seed: what the deal depends on.
        min_rows: the least rows of a party, >= 0; parties · min_rows must not exceed the rows.

    Returns:
        "p0", "p1", ... (zero padded) to (rows of it,) int64 row numbers, ascending.

    Raises:
        ConfigError: an argument out of its range.

    Example:
        >>> parts = dirichlet([0, 0, 0, 1, 1, 1], 2, alpha=0.1)
        >>> sorted(row for rows in parts.values() for row in rows.tolist())
        [0, 1, 2, 3, 4, 5]
    """
    classes = classes_of(y)
    alpha = positive("'alpha' of dirichlet", alpha, "Use iid for parties alike.")
    names = names_of(parties, len(classes), min_rows)
    seed = seed_of(seed)
    order = keyed_order(len(classes), seed, "dirichlet", "rows")
    rng = keyed(seed, "dirichlet", "shares")
    owner = np.empty(len(classes), np.int64)
    for k in range(classes.max() + 1):
        rows = order[classes[order] == k]
        owner[rows] = dealt(len(rows), parties, alpha, rng)
    fill(owner, order, parties, min_rows)
    return {name: np.flatnonzero(owner == i) for i, name in enumerate(names)}


def dealt(n: int, parties: int, alpha: float, rng: Rng) -> Array:
    """(n,) int64 the party of each row, ascending: shares are a draw of Dirichlet(alpha)."""
    shares = rng.dirichlet(np.full(parties, min(alpha, MOST_ALPHA)))
    cuts = np.round(np.cumsum(shares)[:-1] * n).astype(np.int64)
    return np.searchsorted(cuts, np.arange(n), side="right").astype(np.int64)


def fill(owner: Array, order: Array, parties: int, least: int) -> None:
    """Give parties below `least` rows what they lack, from whoever has most; changes `owner`."""
    sizes = np.bincount(owner, minlength=parties)
    for poor in np.flatnonzero(sizes < least):
        while sizes[poor] < least:
            rich = sizes.argmax()
            spare = min(least - sizes[poor], max(1, sizes[rich] - np.partition(sizes, -2)[-2]), sizes[rich] - least)
            given = order[owner[order] == rich][:spare]
            owner[given] = poor
            sizes[rich] -= len(given)
            sizes[poor] += len(given)


def classes_of(y: Any) -> Array:
    """(rows,) int64 the number of each row's class, in the order of the classes.

    Raises:
        ConfigError: not one class for each row, one that is missing, or classes that have no order.
    """
    values = array_of("y", y)
    if values.ndim != 1:
        raise ConfigError(f"'y' must be one class for each row. Got shape {values.shape}. Use y.argmax(axis=1)?")
    lost = [i for i, v in enumerate(values) if _missing(v)] if values.dtype.kind in "fcO" else []
    if lost:
        raise ConfigError(f"'y' must have a class for each row. Got none in row {lost[0]}. Leave out such rows.")
    try:
        return np.unique(values, return_inverse=True)[1].astype(np.int64)
    except TypeError:
        raise ConfigError("'y' must hold classes of one type. Got several. Use all numbers or all words.") from None


def array_of(name: str, x: Any) -> Array:
    """An array of one shape.

    Raises:
        ConfigError: rows of unlike lengths.
    """
    try:
        return np.asarray(x)
    except ValueError:
        raise ConfigError(f"'{name}' must have rows of one length. Got {shown(x)}. Fill them up.") from None


def _missing(v: Any) -> bool:
    try:
        return v is None or bool(v != v)
    except (TypeError, ValueError):  # pandas.NA is neither equal to itself nor not
        return True


def rows_of(data: Any) -> int:
    """How many rows there are.

    Raises:
        ConfigError: it is no number of rows and has none, or tables of a tuple differ.
    """
    if isinstance(data, int | np.integer) and not isinstance(data, bool) and data >= 0:
        return int(data)
    try:
        if isinstance(data, str | bytes | Mapping):
            raise TypeError
        sizes = [len(x) for x in data] if isinstance(data, tuple) and data else [len(data)]
    except TypeError:
        raise ConfigError(f"'data' must be a number of rows or have rows. Got {shown(data)}. Use len(y).") from None
    if len(set(sizes)) > 1:
        raise ConfigError(f"The arrays of 'data' must have as many rows as each other. Got {sizes}.")
    return sizes[0]


def names_of(parties: int, rows: int, least: int) -> list[str]:
    """The names of the parties, padded with zeros.

    Raises:
        ConfigError: no whole numbers, or too few rows.
    """
    counted("parties", parties, 1)
    counted("min_rows", least, 0)
    if rows < parties * least:
        each = f"{least} row each" if least == 1 else f"{least} rows each"
        most = rows // least
        advice = f"Use at most {most} parties." if most else "There are not enough for one party."
        raise ConfigError(f"{parties} parties need {each}. Got {rows} rows. {advice}")
    return [f"p{i:0{len(str(parties - 1))}d}" for i in range(parties)]


def counted(name: str, value: Any, low: int) -> None:
    """Refuse what is no whole number of at least `low`.

    Raises:
        ConfigError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < low:
        raise ConfigError(f"'{name}' must be a whole number >= {low}. Got {shown(value)}.")


def positive(name: str, value: Any, advice: str, *, zero: bool = False) -> float:
    """A finite number > 0, or also 0.

    Raises:
        ConfigError: it is none.
    """
    value = value.item() if isinstance(value, np.generic) else value
    if not (is_number(value) and (0 if zero else 5e-324) <= value <= sys.float_info.max):
        raise ConfigError(f"The {name} must be a number {'>= 0' if zero else '> 0'}. Got {shown(value)}. {advice}")
    return float(value)


def seed_of(seed: Any) -> int:
    """The seed as an int, the same for every integer type.

    Raises:
        ConfigError: it is no whole number.
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
        raise ConfigError(f"The 'seed' must be a whole number. Got {shown(seed)}. Use seed=0.")
    return int(seed)
