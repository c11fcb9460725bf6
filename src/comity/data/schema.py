"""What the parties' tables have in common: columns, kinds, and the task."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from comity.core.contribution import Tree
from comity.core.errors import ConfigError
from comity.data.extras import need
from comity.data.tables import column, kind, words

if TYPE_CHECKING:
    import polars as pl
else:
    pl = need("polars", "tables")

FEW = 10
"""A target of whole numbers with at most this many distinct values is one of classes."""
MOST_CLASSES = 100
MANY = 50
"""A column is taken for an identifier only if it has more distinct values than this."""

_ID = re.compile(r"(^|[^a-z])(p?id|uuid|key|index|nr)$|[a-z]I[dD]$", re.ASCII)


@dataclass(frozen=True, slots=True)
class Column:
    """One input column.

    Attributes:
        name: as in the tables.
        kind: "number" or "category".
    """

    name: str
    kind: str


@dataclass(frozen=True)
class Schema:
    """What all parties' tables share.

    Attributes:
        columns: the inputs, sorted by name.
        target: the column to be predicted.
        task: "classification" or "regression".
        classes: the classes as words, sorted (by value where all are whole numbers); () in regression.
        left_out: column to the reason why it is no input.

    Example:
        >>> schema = Schema((Column("age", "number"),), "outcome", "classification", ("no", "yes"))
        >>> Schema.from_tree(schema.to_tree()) == schema
        True
    """

    columns: tuple[Column, ...]
    target: str
    task: str
    classes: tuple[str, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", tuple(sorted(self.columns, key=lambda c: c.name)))

    @property
    def numbers(self) -> tuple[str, ...]:
        """The names of the number columns."""
        return tuple(c.name for c in self.columns if c.kind == "number")

    @property
    def categories(self) -> tuple[str, ...]:
        """The names of the category columns."""
        return tuple(c.name for c in self.columns if c.kind == "category")

    def to_tree(self) -> dict[str, Any]:
        """The schema as a nested dict of strings and whole numbers: JSON, or a Tree on the wire."""
        return {
            "columns": {c.name: c.kind for c in self.columns},
            "target": self.target,
            "task": self.task,
            "classes": {name: place for place, name in enumerate(self.classes)},
            "left_out": dict(self.left_out),
        }

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any]) -> "Schema":
        """The schema that `to_tree` wrote, whatever order the names are in."""
        columns = tuple(Column(name, kind) for name, kind in tree["columns"].items())
        classes = tuple(sorted(tree["classes"], key=tree["classes"].__getitem__))
        return cls(columns, tree["target"], tree["task"], classes, dict(tree["left_out"]))


def describe(table: "pl.DataFrame", target: str) -> dict[str, Any]:
    """What one party says openly about its own table; no row and no input value that differs between rows.

    Args:
        table: of `read_table`.
        target: the column to be predicted.

    Returns:
        A Tree: `rows`; `columns.<name>` with `kind` ("number", "category", "empty"), `present`,
        `missing` and `distinct` (counts), `only` (the value where there is just one, else None) and `serial` (1 where
        each row has its own whole number, in running order or under a name such as "id"); and `target`
        with `kind`, `distinct` and `values` (class to count; {} where it is one of many numbers).

    Raises:
        ConfigError: there is no such target column.
    """
    values = column(table, target)
    inputs = {name: _describe(table[name]) for name in table.columns if name != target}
    return {"rows": table.height, "columns": inputs, "target": _describe_target(values)}


def agree(descriptions: Mapping[str, Tree], target: str) -> Schema:
    """The schema that follows from what the parties said, the same in whatever order they did.

    A column is kept if all parties have it, even if one has no value in it; words at one party make it a
    category. Left out, with the reason: columns of some parties only, empty and constant columns,
    identifiers (more than 50 values of words and nearly as many as rows, or a number of its own for each
    row). The target is one of classes if it is words or truth values, or has at most 10 distinct values,
    all whole numbers; else the task is regression.

    Args:
        descriptions: party to what `describe` gave.
        target: the column to be predicted.

    Raises:
        ConfigError: no party, a target with one class only or with more than 100, a target of words at one
            party and of measurements at another, or no column left.
    """
    if not descriptions:
        raise ConfigError("There must be at least one party that describes its table. Got none.")
    said: dict[str, Any] = {party: descriptions[party] for party in sorted(descriptions)}
    classes = _classes({party: d["target"] for party, d in said.items()}, target)
    names = sorted({name for d in said.values() for name in d["columns"]} - {target})
    columns, left_out = [], {}
    for name in names:
        here = {party: d["columns"][name] for party, d in said.items() if name in d["columns"]}
        reason = _where(here, said) or _useless(list(here.values()))
        if reason:
            left_out[name] = reason
        else:
            category = any(c["kind"] == "category" for c in here.values())
            columns.append(Column(name, "category" if category else "number"))
    if not columns:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items()) or "there is none"
        raise ConfigError(f"At least one column must be of use beside '{target}'. Got none: {reasons}.")
    return Schema(tuple(columns), target, "classification" if classes else "regression", classes, left_out)


def identifies(series: "pl.Series") -> bool:
    """Is a column of one table an identifier, by the rule of `agree`?

    Example:
        >>> import polars
        >>> identifies(polars.Series("patient_id", range(1000, 1060))), identifies(polars.Series("age", [47, 61]))
        (True, False)
    """
    return _useless([_describe(series)]) == "an identifier"


def _describe(series: "pl.Series") -> dict[str, Any]:
    present = series.drop_nulls()
    distinct = present.n_unique() if len(present) else 0
    return {
        "kind": kind(present),
        "present": len(present),
        "missing": series.null_count(),
        "distinct": distinct,
        "only": words(present.head(1))[0] if distinct == 1 else None,
        "serial": int(distinct == len(series) and _serial(series)),
    }


def _describe_target(series: "pl.Series") -> dict[str, Any]:
    present = series.drop_nulls()
    what, distinct = kind(present), present.n_unique() if len(present) else 0
    whole = what == "number" and bool((present == present.round()).all())
    values: dict[str, int] = {}
    if (what == "category" and distinct <= MOST_CLASSES) or (whole and distinct <= FEW):
        values = dict(words(present).value_counts().sort(series.name).iter_rows())
    return {"kind": what, "distinct": distinct, "values": values}


def _serial(series: "pl.Series") -> bool:
    """Different whole numbers: a running order, or a name that says so."""
    if not series.dtype.is_numeric() or not bool((series == series.round()).all()):
        return False
    return series.is_sorted() or bool(_ID.search(series.name))


def _where(here: Mapping[str, Any], everybody: Mapping[str, Any]) -> str:
    lacking = [party for party in everybody if party not in here]
    if not lacking:
        return ""
    if len(here) <= 2:
        return f"only in {' and '.join(here)}"
    return (
        f"not in {' and '.join(lacking)}" if len(lacking) <= 2 else f"only in {len(here)} of {len(everybody)} parties"
    )


def _useless(said: list[Any]) -> str:
    some = [c for c in said if c["kind"] != "empty"]
    if not some:
        return "empty"
    distinct = sum(c["distinct"] for c in said)
    if len({c["only"] for c in some}) == 1 and some[0]["only"] is not None and not any(c["missing"] for c in some):
        return f"constant ({some[0]['only'][:40]})"
    worded = any(c["kind"] == "category" for c in some)
    own = distinct > 0.9 * sum(c["present"] for c in some) if worded else all(c["serial"] for c in some)
    return "an identifier" if own and distinct > MANY else ""


def _classes(said: Mapping[str, Any], target: str) -> tuple[str, ...]:
    """The classes; () where the target is a number."""
    kinds = {kind: [p for p, t in said.items() if t["kind"] == kind] for kind in ("category", "number")}
    if not kinds["category"] and not kinds["number"]:
        raise ConfigError(f"The target must be known for some rows. '{target}' is empty at every party.")
    values = {value for t in said.values() for value in t["values"]}
    many = [p for p in kinds["number"] if not said[p]["values"]]
    if not kinds["category"] and (many or len(values) > FEW):
        return ()
    if many:
        raise ConfigError(
            f"The target must be of one kind at all parties. '{target}' holds words at {kinds['category'][0]} "
            f"and measurements at {many[0]}. Make it the same."
        )
    most = max(len(values), *(t["distinct"] for t in said.values()))
    if most > MOST_CLASSES:
        raise ConfigError(
            f"A target of words must have at most {MOST_CLASSES} classes. '{target}' has {most:,}. Name another column."
        )
    if len(values) < 2:
        raise ConfigError(
            f"The target must have at least two classes. '{target}' is {min(values)!r} in every row of all parties. "
            "Name another column, or add rows of another class."
        )
    return tuple(sorted(values, key=_by_value(values)))


def _by_value(values: set[str]) -> Any:
    whole = all(re.fullmatch(r"-?\d{1,15}", v) for v in values)
    return (lambda v: (int(v), v)) if whole else (lambda v: (0, v))
