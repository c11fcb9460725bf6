"""Preprocessing whose statistics are sums, so that parties who keep their data prepare it alike.

Each party sends `moments` and `vocabulary` of its training rows. Moments are means, combined by their
counts (`moment_weights`); vocabularies are added. `Preparation.of` makes one preparation of what was
combined, and every party applies it at home.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from comity.core.contribution import Array
from comity.core.errors import ConfigError
from comity.data.extras import need
from comity.data.schema import Schema
from comity.data.statistics import (
    MEANS,
    deviation,
    merge_moments,
    merge_vocabularies,
    moment_weights,
    moments,
    signed_log,
    skewed,
    variance,
    vocabulary,
)
from comity.data.tables import column, numbers, words

if TYPE_CHECKING:
    import polars as pl
else:
    pl = need("polars", "tables")

__all__ = [
    "Codes",
    "Preparation",
    "merge_moments",
    "merge_vocabularies",
    "moment_weights",
    "moments",
    "vocabulary",
]

LIMIT = 10.0
"""Standardised numbers are clipped to plus or minus this."""


@dataclass(frozen=True)
class Codes:
    """How the words of one category column become inputs.

    Attributes:
        values: the words that have an input of their own, sorted.
        other: is there an input for any other word? (Was there a rare one at fitting?)
        missing: is there an input for no word at all?
    """

    values: tuple[str, ...]
    other: bool = False
    missing: bool = False

    @classmethod
    def of(cls, said: Mapping[str, Any], *, rare: int, most: int) -> "Codes":
        """The codes for one column of a merged vocabulary."""
        often = [value for value, times in said["values"].items() if times >= rare]
        kept = sorted(often, key=lambda value: (-said["values"][value], value))[:most]
        other = len(kept) < len(said["values"]) or said["other"] > 0
        return cls(tuple(sorted(kept)), other, said["missing"] > 0)

    def names(self, column: str) -> list[str]:
        """The names of the inputs."""
        extra = [(self.other, f"{column} other"), (self.missing, f"{column} missing")]
        return [*(f"{column}={value}" for value in self.values), *(name for on, name in extra if on)]

    def indices(self, series: "pl.Series") -> Array:
        """(rows,) int64: the place of the word in `values`, their number for another word, -1 for none."""
        places = range(len(self.values))
        found = words(series).replace_strict(self.values, places, default=len(self.values), return_dtype=pl.Int64)
        return np.asarray(found.set(series.is_null(), -1).to_numpy())

    def places(self, series: "pl.Series") -> Array:
        """(rows,) int64: which input is 1, or -1 where there is none for it."""
        n = len(self.values)
        table = [*range(n), n if self.other else -1, n + self.other if self.missing else -1]
        return np.asarray(np.take(np.array(table, np.int64), self.indices(series)))


@dataclass(frozen=True, eq=False)
class Preparation:
    """Turns a table into what models train on; the same at every party.

    Numbers become (x - mean) / scale within ±10, after sign(x)·log(1 + |x|) where they are heavily skewed
    to the right; a missing one is 0 (the mean) or the median, and 1 in an input of its own if any was missing
    at fitting. Words
    become one input each; rare ones share one; a missing word has its own; what was not there at fitting
    is 0 everywhere. Build it with `Preparation.of`.

    Attributes:
        schema: as agreed; inputs follow its columns.
        mean: (numbers,) float64, after the logarithm where there is one.
        scale: (numbers,) float64 > 0, the standard deviation.
        logged: (numbers,) bool.
        gaps: (numbers,) bool: has an input that says "missing".
        codes: category column to its codes.
        target_mean: of the target in regression, else 0.
        target_scale: its standard deviation, > 0, else 1.
        fill: (numbers,) float64, what a missing number becomes, standardised; None for 0, the mean.

    Example:
        >>> import polars
        >>> from comity.data.schema import Column
        >>> columns = (Column("age", "number"), Column("sex", "category"))
        >>> schema = Schema(columns, "sick", "classification", ("no", "yes"))
        >>> frame = polars.DataFrame({"age": [40.0, 60.0, None], "sex": ["f", "m", "f"], "sick": ["no", "yes", "no"]})
        >>> prepared = Preparation.of(schema, moments(frame, schema), vocabulary(frame, schema), rare=1)
        >>> x, y = prepared.transform(frame)
        >>> prepared.names, y.tolist()
        (('age', 'age missing', 'sex=f', 'sex=m'), [0, 1, 0])
        >>> x.tolist()
        [[-1.0, 0.0, 1.0, 0.0], [1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 1.0, 0.0]]
    """

    schema: Schema
    mean: Array
    scale: Array
    logged: Array
    gaps: Array
    codes: Mapping[str, Codes]
    target_mean: float = 0.0
    target_scale: float = 1.0
    fill: Array | None = None

    @classmethod
    def of(
        cls,
        schema: Schema,
        moments: Mapping[str, Array],
        vocabulary: Mapping[str, Any],
        *,
        rare: int = 5,
        most: int = 50,
        centre: Array | None = None,
    ) -> "Preparation":
        """The preparation that follows from combined statistics.

        Args:
            schema: as agreed.
            moments: combined over the parties; `count` and `missing` may be sums or averages. With `variance`, mean
                squared distances from the common mean (`statistics.spread`), these are taken for those of numbers.
            vocabulary: added over the parties.
            rare: words seen less often, over all parties, share the input "other"; >= 1.
            most: at most this many words, the most frequent, have an input of their own; >= 1.
            centre: (numbers,) float64 in each column's own unit, such as its median (`quantiles`): what
                missing numbers are taken for; None, or NaN in a column, for the mean.

        Raises:
            ConfigError: `rare` or `most` is below 1, or `centre` is not one number for each column.
        """
        if rare < 1 or most < 1:
            raise ConfigError(f"'rare' and 'most' must be whole numbers >= 1. Got rare={rare}, most={most}.")
        n = len(schema.numbers)
        told = ("missing", *MEANS, *(["variance"] if "variance" in moments else []))
        m = {k: np.nan_to_num(np.asarray(moments[k], np.float64)) for k in told}
        logged, own = skewed(m), deviation(variance(m), m["square"])
        mean = np.where(logged, m["log"], m["mean"])
        of_logs = variance({"mean": m["log"], "square": m["log_square"]})
        scale = np.where(logged, deviation(of_logs, m["log_square"]), own)
        codes = {name: Codes.of(vocabulary[name], rare=rare, most=most) for name in schema.categories}
        target = (float(m["mean"][n]), float(own[n])) if m["mean"].size > n else (0.0, 1.0)
        fill = None if centre is None else _filled(np.asarray(centre, np.float64), mean[:n], scale[:n], logged[:n])
        return cls(schema, mean[:n], scale[:n], logged[:n], m["missing"][:n] > 0, codes, *target, fill)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the inputs, in the order of the columns of X."""
        return tuple(name for _, names in self._layout() for name in names)

    @property
    def categorical(self) -> tuple[bool, ...]:
        """For each column of `ordinal`, whether it holds codes of words."""
        return tuple(c.kind == "category" for c in self.schema.columns)

    def transform(self, table: "pl.DataFrame") -> tuple[Array, Array]:
        """Inputs and target of a table.

        Returns:
            X (rows, inputs) float32, and y: (rows,) int64 class numbers, or float32 as measured.

        Raises:
            ConfigError: a column is missing, or a target is missing or of no known class.
        """
        return self.inputs(table), self.targets(table)

    def inputs(self, table: "pl.DataFrame") -> Array:
        """X, (rows, inputs) float32; needs no target.

        Raises:
            ConfigError: a column is missing.
        """
        layout = self._layout()
        x = np.zeros((table.height, sum(len(names) for _, names in layout)), np.float32)
        rows, start, i = np.arange(table.height), 0, 0
        for name, names in layout:
            series = column(table, name)
            if name in self.codes:
                places = self.codes[name].places(series)
                seen = places >= 0
                x[rows[seen], start + places[seen]] = 1.0
            else:
                self._number(series, i, x[:, start : start + len(names)])
                i += 1
            start += len(names)
        return x

    def targets(self, table: "pl.DataFrame") -> Array:
        """y, (rows,): int64 class numbers in classification, float32 as measured in regression.

        Raises:
            ConfigError: the target is missing somewhere, or of no known class.
        """
        series, name = column(table, self.schema.target), self.schema.target
        if self.schema.task == "regression":
            y = numbers(series)
            if y.null_count():
                raise ConfigError(_unknown(name, "a number", series.filter(y.is_null())))
            return y.to_numpy().astype(np.float32)
        index = Codes(self.schema.classes).indices(series)
        wrong = (index < 0) | (index == len(self.schema.classes))
        if wrong.any():
            raise ConfigError(_unknown(name, f"one of {', '.join(self.schema.classes[:10])}", series.filter(wrong)))
        return index

    def ordinal(self, table: "pl.DataFrame") -> Array:
        """Inputs for trees, (rows, columns) float32: numbers as they are, words as their places in the codes.

        A missing value is NaN; a word without a code of its own is the number of codes.

        Raises:
            ConfigError: a column is missing.
        """
        x = np.empty((table.height, len(self.schema.columns)), np.float32)
        for j, c in enumerate(self.schema.columns):
            series = column(table, c.name)
            if c.kind == "number":
                with np.errstate(over="ignore"):
                    x[:, j] = numbers(series).to_numpy()
            else:
                places = self.codes[c.name].indices(series)
                x[:, j] = np.where(places < 0, np.nan, places)
        return x

    def to_standard(self, y: Array) -> Array:
        """A measured target, (rows,), as models train on it: mean 0, standard deviation 1, float32."""
        return ((y - self.target_mean) / self.target_scale).astype(np.float32)

    def to_target(self, predicted: Array) -> Array:
        """Predictions of a standardised target, (rows,), in the target's own unit, float32."""
        return (predicted * self.target_scale + self.target_mean).astype(np.float32)

    def to_tree(self) -> dict[str, Any]:
        """The preparation as a Tree, so that it is saved and sent without code."""
        numbers = {k: np.asarray(getattr(self, k)) for k in ("mean", "scale", "logged", "gaps")}
        numbers |= {} if self.fill is None else {"fill": self.fill}
        codes = {
            name: {"values": {v: i for i, v in enumerate(c.values)}, "other": int(c.other), "missing": int(c.missing)}
            for name, c in self.codes.items()
        }
        target = {"mean": self.target_mean, "scale": self.target_scale}
        return {"schema": self.schema.to_tree(), "numbers": numbers, "codes": codes, "target": target}

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any]) -> "Preparation":
        """The preparation that `to_tree` wrote, whatever order the names are in."""
        n, schema = tree["numbers"], Schema.from_tree(tree["schema"])
        codes = {
            name: Codes(tuple(sorted(c["values"], key=c["values"].__getitem__)), bool(c["other"]), bool(c["missing"]))
            for name, c in tree["codes"].items()
        }
        target = (float(tree["target"]["mean"]), float(tree["target"]["scale"]))
        logged, gaps = n["logged"].astype(bool), n["gaps"].astype(bool)
        return cls(schema, n["mean"], n["scale"], logged, gaps, codes, *target, n.get("fill"))

    def _layout(self) -> list[tuple[str, list[str]]]:
        gaps = dict(zip(self.schema.numbers, self.gaps, strict=True))
        return [
            (c.name, self.codes[c.name].names(c.name))
            if c.name in self.codes
            else (c.name, [c.name, f"{c.name} missing"] if gaps[c.name] else [c.name])
            for c in self.schema.columns
        ]

    def _number(self, series: "pl.Series", i: int, out: Array) -> None:
        values = numbers(series).to_numpy()
        values = signed_log(values) if self.logged[i] else values
        gap = np.isnan(values)
        known = np.clip((values - self.mean[i]) / self.scale[i], -LIMIT, LIMIT)
        out[:, 0] = np.where(gap, 0.0 if self.fill is None else self.fill[i], known)
        if self.gaps[i]:
            out[:, 1] = gap


def _filled(centre: Array, mean: Array, scale: Array, logged: Array) -> Array:
    if centre.shape != mean.shape:
        raise ConfigError(f"'centre' must be one number for each of {mean.size} columns. Got shape {centre.shape}.")
    placed = (np.where(logged, signed_log(centre), centre) - mean) / scale
    return np.asarray(np.clip(np.nan_to_num(placed), -LIMIT, LIMIT))


def _unknown(name: str, must: str, wrong: "pl.Series") -> str:
    got = "missing" if wrong[0] is None else repr(str(wrong[0]))
    return f"The target '{name}' must be {must} in every row. It is {got} in {len(wrong)} rows. Leave those out."
