"""One data set cut into parties that differ: in their classes, in their size, or in what their rows look like."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from comity.core.checks import shown
from comity.core.contribution import Array
from comity.core.errors import ConfigError
from comity.core.rng import keyed, keyed_order
from comity.data.partition import array_of, classes_of, counted, dealt, fill, names_of, positive, rows_of, seed_of


def shards(y: Any, parties: int, *, shards_per_party: int = 2, seed: int = 0) -> dict[str, Array]:
    """Rows dealt out so that each party has few classes: sorted by class, cut into shards, shards dealt.

    As in McMahan et al. (AISTATS 2017, section 3), who give 200 shards of 300 digits to 100 parties, two each;
    most parties then have two classes. Shards differ by one row at most. Every row is used once.

    Args:
        y: (rows,) the class of each row, of any type that has an order.
        parties: how many, >= 1.
        shards_per_party: how many shards each gets, >= 1; parties · shards_per_party must not exceed the rows.
        seed: which rows of a class go into which shard, and who gets which shard.

    Returns:
        "p0", "p1", ... (zero padded) to (rows of it,) int64 row numbers, ascending.

    Raises:
        ConfigError: an argument out of its range, or too few rows.

    Example:
        >>> y = [0, 1, 2, 3, 0, 1, 2, 3]
        >>> [len({y[row] for row in rows}) for rows in shards(y, 2).values()]
        [2, 2]
    """
    classes, seed = classes_of(y), seed_of(seed)
    counted("shards_per_party", shards_per_party, 1)
    names = names_of(parties, len(classes), int(shards_per_party))
    shuffled = keyed_order(len(classes), seed, "shards", "rows")
    cut = np.array_split(shuffled[np.argsort(classes[shuffled], kind="stable")], parties * shards_per_party)
    deal = keyed_order(len(cut), seed, "shards", "deal").reshape(parties, shards_per_party)
    return {name: np.sort(np.concatenate([cut[i] for i in own])) for name, own in zip(names, deal, strict=True)}


def quantity(data: Any, parties: int, *, alpha: float = 0.5, seed: int = 0, min_rows: int = 1) -> dict[str, Array]:
    """Rows dealt out at random to parties of unlike size: sizes are a draw of Dirichlet(alpha).

    The quantity skew of NIID-Bench (Li et al., ICDE 2022, section 4.3). Every row is used once. Departure: a
    party below `min_rows` is filled up with random rows of the largest party.

    Args:
        data: how many rows, or whatever has them: an array, a frame, or a tuple of those.
        parties: how many, >= 1.
        alpha: concentration, > 0: towards 0 one party has nearly all, towards infinity all have as many.
        seed: what the deal depends on.
        min_rows: the least rows of a party, >= 0; parties · min_rows must not exceed the rows.

    Returns:
        "p0", "p1", ... (zero padded) to (rows of it,) int64 row numbers, ascending.

    Raises:
        ConfigError: an argument out of its range, or too few rows.

    Example:
        >>> [len(rows) for rows in quantity(100, 4, alpha=1e6).values()]
        [25, 25, 25, 25]
    """
    n, seed = rows_of(data), seed_of(seed)
    alpha = positive("'alpha' of quantity", alpha, "Use iid for parties alike.")
    names = names_of(parties, n, min_rows)
    order = keyed_order(n, seed, "quantity", "rows")
    owner = np.empty(n, np.int64)
    owner[order] = dealt(n, parties, alpha, keyed(seed, "quantity", "shares"))
    fill(owner, order, parties, min_rows)
    return {name: np.flatnonzero(owner == i) for i, name in enumerate(names)}


def feature_shift(x: Any, parties: int, *, seed: int = 0) -> dict[str, Array]:
    """Rows dealt out by a feature: the first party has its lowest values, the last its highest.

    For hospitals whose patients differ in age, say: P(x) differs between parties where P(y | x) is the same.
    Parties differ by one row at most; rows of one value that falls on a cut are dealt at random. Every row is
    used once.

    Args:
        x: (rows,) the feature of each row, finite numbers.
        parties: how many, from 1 to the number of rows.
        seed: decides between rows of the same value.

    Returns:
        "p0", "p1", ... (zero padded) to (rows of it,) int64 row numbers, ascending.

    Raises:
        ConfigError: values that are no finite numbers, or more parties than rows.

    Example:
        >>> {name: rows.tolist() for name, rows in feature_shift([70, 20, 45, 18], 2).items()}
        {'p0': [1, 3], 'p1': [0, 2]}
    """
    values, seed = _numbers("x", x), seed_of(seed)
    if values.ndim != 1:
        raise ConfigError(f"'x' must be one number for each row. Got shape {values.shape}. Use a column: X[:, 0].")
    names = names_of(parties, len(values), 1)
    shuffled = keyed_order(len(values), seed, "feature shift")
    ranked = shuffled[np.argsort(values[shuffled], kind="stable")]
    return {name: np.sort(part) for name, part in zip(names, np.array_split(ranked, parties), strict=True)}


def feature_noise(x: Any, parts: Mapping[str, Any], *, sigma: float = 0.1, seed: int = 0) -> dict[str, Array]:
    """Each party's own rows with more Gaussian noise from party to party: the first has least, the last most.

    The noise-based feature imbalance of NIID-Bench (Li et al., ICDE 2022, section 4.2): party i of N gets
    noise of mean 0 and variance σ·i/N, i from 1. It changes the features, so that it gives data and not row
    numbers; the labels of party p are `y[parts[p]]`.

    Args:
        x: (rows, ...) numbers.
        parts: party to row numbers, as `iid` and the other partitions give them; their order is that of i.
        sigma: the variance at the last party, >= 0, in the squared unit of x.
        seed: what the noise depends on.

    Returns:
        Party to (rows of it, ...): the dtype of x where that is a float, else float64.

    Raises:
        ConfigError: no finite numbers, row numbers that x does not have, or a sigma out of its range.

    Example:
        >>> import numpy as np, comity as co
        >>> x = np.zeros((1000, 2), "float32")
        >>> noisy = co.feature_noise(x, co.iid(x, 2), sigma=4.0)
        >>> {name: round(float(rows.std()), 1) for name, rows in noisy.items()}
        {'p0': 1.4, 'p1': 2.0}
    """
    values, seed = _numbers("x", x), seed_of(seed)
    if not values.ndim:
        raise ConfigError("'x' must have rows. Got one number.")
    sigma = positive("'sigma' of feature_noise", sigma, "Use 0.1.", zero=True)
    if not isinstance(parts, Mapping):
        raise ConfigError(f"'parts' must be party to row numbers. Got {shown(parts)}. Use co.iid(x, 10).")
    kind = values.dtype if values.dtype.kind == "f" else np.dtype("float64")
    out = {}
    for i, (name, rows) in enumerate(parts.items(), 1):
        own = values[_known(name, rows, len(values))]
        noise = keyed(seed, "feature noise", str(name)).normal(scale=np.sqrt(sigma * i / len(parts)), size=own.shape)
        out[name] = (own + noise).astype(kind)
    return out


def _numbers(name: str, x: Any) -> Array:
    values = array_of(name, x)
    if values.dtype.kind not in "fiub" or not np.isfinite(values).all():
        got = "NaN or infinity" if values.dtype.kind == "f" else f"{values.dtype} values"
        raise ConfigError(f"'{name}' must be finite numbers. Got {got}. Fill in or leave out what is missing.")
    return values


def _known(name: str, rows: Any, n: int) -> Array:
    own = array_of("parts", rows)
    if own.ndim != 1 or (own.size and (own.dtype.kind not in "iu" or own.min() < 0 or own.max() >= n)):
        raise ConfigError(
            f"The rows of '{name}' must be row numbers from 0 to {n - 1}. Got {shown(rows)}. Use a partition of x."
        )
    return own.astype(np.int64)
