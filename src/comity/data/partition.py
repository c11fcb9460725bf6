"""One data set cut into parties: by a column, evenly, or unevenly by class."""

from typing import Any

import numpy as np

from comity.core.contribution import Array
from comity.core.errors import ConfigError
from comity.core.rng import keyed, keyed_order


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
    n = _rows(data)
    names = _names(parties, n, 1)
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
    classes = np.unique(np.asarray(y), return_inverse=True)[1]
    if classes.ndim != 1:
        raise ConfigError(f"'y' must be one class for each row. Got shape {np.shape(y)}. Use y.argmax(axis=1)?")
    if not (np.isfinite(alpha) and alpha > 0):
        raise ConfigError(f"The 'alpha' of dirichlet must be a number > 0. Got {alpha}. Use iid for parties alike.")
    names = _names(parties, len(classes), min_rows)
    order = keyed_order(len(classes), seed, "dirichlet", "rows")
    rng = keyed(seed, "dirichlet", "shares")
    owner = np.empty(len(classes), np.int64)
    for k in range(classes.max() + 1):
        rows = order[classes[order] == k]
        cuts = np.round(np.cumsum(rng.dirichlet(np.full(parties, alpha)))[:-1] * len(rows)).astype(np.int64)
        owner[rows] = np.searchsorted(cuts, np.arange(len(rows)), side="right")
    _fill(owner, order, parties, min_rows)
    return {name: np.flatnonzero(owner == i) for i, name in enumerate(names)}


def _fill(owner: Array, order: Array, parties: int, least: int) -> None:
    sizes = np.bincount(owner, minlength=parties)
    for poor in np.flatnonzero(sizes < least):
        while sizes[poor] < least:
            rich = sizes.argmax()
            spare = min(least - sizes[poor], max(1, sizes[rich] - np.partition(sizes, -2)[-2]), sizes[rich] - least)
            given = order[owner[order] == rich][:spare]
            owner[given] = poor
            sizes[rich] -= len(given)
            sizes[poor] += len(given)


def _rows(data: Any) -> int:
    if isinstance(data, int | np.integer) and not isinstance(data, bool):
        return int(data)
    try:
        return len(data[0]) if isinstance(data, tuple) and data else len(data)
    except TypeError:
        raise ConfigError(f"'data' must be a number of rows or have rows. Got {type(data).__name__}.") from None


def _names(parties: int, rows: int, least: int) -> list[str]:
    for name, value, low in (("parties", parties, 1), ("min_rows", least, 0)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < low:
            raise ConfigError(f"'{name}' must be a whole number >= {low}. Got {value!r}.")
    if rows < parties * least:
        each = f"{least} row each" if least == 1 else f"{least} rows each"
        raise ConfigError(f"{parties} parties need {each}. Got {rows} rows. Use at most {rows // least} parties.")
    return [f"p{i:0{len(str(parties - 1))}d}" for i in range(parties)]
