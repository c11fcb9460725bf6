"""What adapters ask of data: a pair, numbers, the shape and the classes of the model, all of it finite."""

from typing import Any

import numpy as np

from comity.core.checks import shown
from comity.core.contribution import Array
from comity.core.errors import ConfigError


def pair(data: Any, who: str) -> tuple[Any, Any]:
    """The X and y of `data`.

    Raises:
        ConfigError: it is no pair, has no rows, or the two differ in rows.
    """
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise ConfigError(f"The data of {who} must be a pair (X, y). Got {shown(data)}. Use (X, y).")
    for name, values in zip(("X", "y"), data, strict=True):
        if isinstance(values, str | bytes) or getattr(values, "shape", None) == () or not hasattr(values, "__len__"):
            raise ConfigError(f"The {name} of {who} must have rows. Got {shown(values)}. Use an array.")
    x, y = data
    if len(x) == 0 or len(x) != len(y):
        raise ConfigError(f"X and y of {who} must have the same number of rows, >= 1. Got {len(x)} and {len(y)}.")
    return x, y


def numbers(name: str, who: str, values: Any, dtype: str | None = None) -> Array:
    """An array of numbers, of `dtype` where one is wanted.

    Raises:
        ConfigError: words, dates, complex numbers, or rows of unlike lengths.
    """
    try:
        out = np.asarray("" if values is None else values)
        out = out.astype(dtype or float) if out.dtype.kind == "O" else out
        got = f"dtype {out.dtype}"
    except (TypeError, ValueError, RuntimeError):
        out, got = np.empty(0, "O"), f"{shown(values)} with more than numbers in it"
    got = "None" if values is None else got
    if out.dtype.kind not in "fiub":
        raise ConfigError(f"The {name} of {who} must be numbers in rows of one length. Got {got}. Encode it first.")
    with np.errstate(over="ignore"):
        return out if dtype is None else np.asarray(out, dtype, order="C")


def inputs_of(x: Any, inputs: int, dtype: str) -> Array:
    """X, (rows, inputs) of `dtype`.

    Raises:
        ConfigError: no numbers, or another shape.
    """
    out = numbers("X", "the model", x, dtype)
    if out.ndim != 2 or out.shape[1] != inputs:
        raise ConfigError(f"X must have shape (rows, {inputs}). Got {out.shape}. Flatten its rows, or change inputs.")
    return out


def columns_of(y: Array, columns: int, dtype: str) -> Array:
    """Numbers as targets, (rows, columns) of `dtype`.

    Raises:
        ConfigError: no numbers, or another shape.
    """
    out = numbers("y", "the model", y, dtype)
    if out.size != len(out) * columns:
        raise ConfigError(f"The y must be (rows,) numbers. Got shape {out.shape}. Use one column of it.")
    return out.reshape(len(out), columns)


def labels_of(y: Array, classes: int) -> Array:
    """Class numbers, (rows,) int64.

    Raises:
        ConfigError: labels that are not whole numbers from 0 to classes - 1.
    """
    with np.errstate(invalid="ignore"):
        labels = y.astype(np.int64) if y.dtype.kind in "iufb" else np.full(y.shape, -1)
    if y.ndim != 1 or labels.min() < 0 or labels.max() >= classes or (labels != y).any():
        ends = f" from {y.min()!s} to {y.max()!s}" if y.dtype.kind in "iufb" else ""
        raise ConfigError(
            f"The y must be (rows,) whole numbers from 0 to {classes - 1}. Got {y.dtype.name} of shape "
            f"{y.shape}{ends}. Number the classes, or give the model more of them."
        )
    return labels


def finite(name: str, who: str, values: Array) -> None:
    """Refuse NaN and infinity.

    Raises:
        ConfigError: says how many there are.
    """
    bad = 0 if values.dtype.kind != "f" else values.size - int(np.isfinite(values).sum())
    if bad:
        word = "NaN" if np.isnan(values).any() else "infinity"
        raise ConfigError(
            f"The {name} of {who} must be finite. Got {word} ({bad} of {values.size} values). Fill it in."
        )


def table_of(data: Any, who: str) -> tuple[Array, Array]:
    """X (rows, columns) and y (rows,), of any dtype.

    Raises:
        ConfigError: as `pair`; other shapes.
    """
    x, y = pair(data, who)
    try:
        x, y = np.asarray(x), np.asarray(y)
        got = f"{x.shape} and {y.shape}"
    except ValueError:
        x, y, got = np.empty(0), np.empty(0), "rows of unlike lengths"
    if x.ndim != 2 or y.ndim != 1:
        raise ConfigError(f"The data of {who} must be X (rows, columns) and y (rows,). Got {got}.")
    return x, y


def classes_of(y: Array, who: str, classes: tuple[Any, ...] | None) -> Array:
    """y as it is where its labels are known; as finite float64 where there are no classes.

    Raises:
        ConfigError: a label that is no class, or no finite numbers.
    """
    if classes is None:
        y = numbers("y", who, y, "float64")
        finite("y", who, y)
    elif strange := sorted(set(y.tolist()) - set(classes), key=str):
        raise ConfigError(
            f"The y must hold labels among {shown(classes)}. Got {shown(strange[:3])}. Add them to classes."
        )
    return y


def sort_of(estimator: Any) -> str | None:
    """What a scikit-learn estimator says of itself, such as "classifier"."""
    tags = getattr(estimator, "__sklearn_tags__", None)
    return None if tags is None else tags().estimator_type


def known_labels(who: str, estimator: Any, classes: Any) -> tuple[Any, ...] | None:
    """The classes as a tuple of plain labels, two or more; None for a regression.

    Raises:
        ConfigError: no such tuple, or the estimator is a regressor.
    """
    if classes is None:
        return None
    if sort_of(estimator) == "regressor":
        raise ConfigError(f"The 'classes' of {who} must be None for a regressor. Got {shown(classes)}. Leave them out.")
    plain = classes.tolist() if isinstance(classes, np.ndarray) and classes.ndim == 1 else classes
    sound = isinstance(plain, tuple | list) and all(
        isinstance(c, str | bytes | int | float | np.generic) for c in plain
    )
    found = tuple(c.item() if isinstance(c, np.generic) else c for c in plain) if sound else ()
    if len(set(found)) < max(2, len(found)):
        raise ConfigError(
            f"The 'classes' of {who} must be a tuple of labels, each once. Got {shown(classes)}. Use (0, 1)."
        )
    return found


def complaint(estimator: Any, error: Exception) -> str:
    """What an estimator says of data that it cannot take, in one line."""
    said = str(error).strip().splitlines() or [type(error).__name__]
    return f"{type(estimator).__name__} must be able to take the rows. Got its complaint: {said[0][:200].rstrip('.')}."
