"""Data frames at the edge: what travels is Arrow bytes, what a step works on is a polars frame."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

from comity.core.checks import refusal
from comity.core.errors import ConfigError, ContributionError
from comity.data.extras import need

if TYPE_CHECKING:
    import polars as pl
else:
    pl = need("polars", "tables")


def to_arrow(frame: "pl.DataFrame") -> dict[str, Any]:
    """A polars frame as a Tree that travels: `{"arrow": bytes, "rows": int}`, an uncompressed Arrow IPC stream.

    Raises:
        ConfigError: no polars frame, or a column of Python objects.

    Example:
        >>> import polars as pl
        >>> from_arrow(to_arrow(pl.DataFrame({"age": [40, None]})))["age"].to_list()
        [40, None]
    """
    if not isinstance(frame, pl.DataFrame):
        raise refusal("frame", "to_arrow", "a polars DataFrame", frame, "Use polars.DataFrame(...), or read_table.")
    if objects := [c for c, kind in frame.schema.items() if kind == pl.Object]:
        raise ConfigError(f"Only values travel. Column '{objects[0]}' holds Python objects. Cast or drop it.")
    out = BytesIO()
    frame.rechunk().write_ipc_stream(out, compression="uncompressed")
    return {"arrow": out.getvalue(), "rows": frame.height}


def from_arrow(table: Mapping[str, Any]) -> "pl.DataFrame":
    """The polars frame that `to_arrow` was given.

    Raises:
        ContributionError: no Arrow bytes.
    """
    data = table.get("arrow") if isinstance(table, Mapping) else None
    if not isinstance(data, bytes):
        raise ContributionError("A table must be {'arrow': bytes, 'rows': int}. Got something else. Use to_arrow.")
    try:
        return pl.read_ipc_stream(BytesIO(data))
    except (pl.exceptions.PolarsError, OSError, ValueError) as error:
        raise ContributionError(f"A table must be an Arrow stream. Got bytes that are none ({error}).") from error


@dataclass(frozen=True)
class Framed:
    """A step that works on frames, as one that works on what travels."""

    work: Callable[["pl.DataFrame"], "pl.DataFrame"]
    on: tuple[str, ...] = ()

    def __call__(self, given: Any) -> dict[str, Any]:
        """Arrow to frame, the tables of several steps joined; then the work; then frame to Arrow."""
        several = isinstance(given, Mapping) and "arrow" not in given
        frames = {name: from_arrow(t) for name, t in given.items()} if several else {"": from_arrow(given)}
        return to_arrow(self.work(self._joined(frames)))

    def _joined(self, frames: Mapping[str, "pl.DataFrame"]) -> "pl.DataFrame":
        names = list(frames)
        table = frames[names[0]]
        for name in names[1:]:
            if not self.on:
                raise ConfigError(f"Several tables must be joined. Got {', '.join(names)}. Use framed(work, on=...).")
            table = _join(table, frames[name], self.on, f"'{names[0]}' and '{name}'")
        return table


def framed(work: Callable[["pl.DataFrame"], "pl.DataFrame"], on: str | Sequence[str] = ()) -> Framed:
    """A function of a polars frame as the work of an `Agent`.

    The tables of several steps are joined on the columns `on`, which must tell rows apart: the rows that all have, in
    the order of the first. A column that several have must be the same in all.

    Args:
        work: a frame to a frame.
        on: the columns that say which rows belong together.

    Raises:
        ConfigError: no function, or no names.

    Example:
        >>> import polars as pl, comity as co
        >>> double = co.framed(lambda t: t.with_columns(twice=pl.col("x") * 2))
        >>> co.from_arrow(double(co.to_arrow(pl.DataFrame({"x": [1, 2]}))))["twice"].to_list()
        [2, 4]
    """
    if not callable(work):
        raise refusal("work", "framed", "a function of a frame", work)
    keys = (on,) if isinstance(on, str) else tuple(on)
    if not all(isinstance(k, str) for k in keys):
        raise refusal("on", "framed", "names of columns", on)
    return Framed(work, keys)


def _join(left: "pl.DataFrame", right: "pl.DataFrame", on: tuple[str, ...], whose: str) -> "pl.DataFrame":
    try:
        joined = left.join(right, on=list(on), how="inner", validate="1:1", maintain_order="left", suffix="\0")
    except pl.exceptions.PolarsError as error:
        raise ContributionError(f"The tables of {whose} cannot be joined on {', '.join(on)}. {error}") from error
    both = [c for c in right.columns if c in left.columns and c not in on]
    for c in both:
        if not joined[c].eq_missing(joined[f"{c}\0"]).all():
            raise ContributionError(f"{whose} made column '{c}' unlike. Rename it in one of them, or leave it out.")
    return joined.drop([f"{c}\0" for c in both])
