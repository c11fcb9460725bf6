"""A comparison's result applied to new rows, preparation included."""

from pathlib import Path
from typing import Any

import numpy as np

from comity.adapters.threads import one_thread
from comity.comparison.families import build, inputs_of, outputs, width
from comity.comparison.saved import read_model
from comity.core.checks import path
from comity.core.contribution import Array
from comity.core.errors import ConfigError, nearest
from comity.data.prepare import Preparation
from comity.data.schema import Schema
from comity.data.tables import frame, numbers, read_table
from comity.report.numbers import plural

SHOWN = 10


def predict(folder: str | Path, source: Any, *, party: str | None = None, way: str | None = None) -> Any:
    """Predict the target of new rows.

    The models are those of the comparison's first split: trained on 60 % of the rows, chosen on 20 %.

    Args:
        folder: a comparison's folder (`compare(..., runs=...)` makes one), or one of its model files.
        source: the new rows, a path or frame as `read_table` takes it. They need every input column and no
            target; columns beyond the inputs are not looked at.
        party: whose model: the joint one tuned at that party.
        way: "joint", "personal" or "alone"; by default personal for a party that has such a model, else joint.

    Returns:
        A polars frame with one row for each row of `source`, in its order (a line of a file that holds nothing
        is no row): `row` (int64, counted from 1);
        with classes `probability_<class>` (float64, sums to 1) for each and `predicted`, the most probable;
        for a measured target `predicted` (float64) in the target's own unit.

    Raises:
        ConfigError: no comparison there, no such party or model, an input column is missing, or a column of
            numbers holds words.
        LedgerError: names the file that does not match its hash.

    Example:
        >>> import tempfile, numpy as np, polars, comity as co
        >>> x = np.random.default_rng(0).normal(size=200)
        >>> table = polars.DataFrame({"x": x, "sick": (x > 0).astype(int), "hospital": ["a", "b"] * 100})
        >>> with tempfile.TemporaryDirectory() as runs:
        ...     answer = co.compare(table, "sick", party="hospital", model="linear", repeats=1, runs=runs)
        ...     folder = next(Path(runs).iterdir())
        ...     found = predict(folder, polars.DataFrame({"x": [-2.0, 2.0]}), party="a")
        >>> found.columns, found["predicted"].to_list()
        (['row', 'probability_0', 'probability_1', 'predicted'], ['0', '1'])
    """
    model = read_model(path("folder", "predict", folder), party, way)
    preparation = Preparation.from_tree(model.preparation)  # type: ignore[arg-type]
    table = read_table(source)
    _check(preparation.schema, table, source)
    shape = width(preparation), len(preparation.schema.classes)
    with one_thread():
        x = inputs_of(model.family, preparation, table)
        out = outputs(build(model.family, *shape, model.rate), model.params, x, preparation)
    return frame(_columns(out, preparation.schema.classes))


def _columns(out: Array, classes: tuple[str, ...]) -> dict[str, Any]:
    """What is said of each row, column by column."""
    rows = {"row": list(range(1, len(out) + 1))}
    if not classes:
        return {**rows, "predicted": out.astype(np.float64).tolist()}
    said = {f"probability_{c}": out[:, i].astype(np.float64).tolist() for i, c in enumerate(classes)}
    return {**rows, **said, "predicted": [classes[i] for i in out.argmax(axis=1)]}


def _check(schema: Schema, table: Any, source: Any) -> None:
    """Refuse what would be taken for missing values and predicted all the same."""
    where = Path(source).name if isinstance(source, str | Path) else "the new rows"
    lacking = [c.name for c in schema.columns if c.name not in table.columns]
    if lacking:
        shown = ", ".join(f"'{name}'" for name in lacking[:SHOWN]) + (", ..." if len(lacking) > SHOWN else "")
        spare = [name for name in table.columns if name not in {c.name for c in schema.columns}]
        hint = nearest(lacking[0], spare) or " Add them; cells may be empty."
        all_, some = len(schema.columns), len(lacking)
        raise ConfigError(
            f"New rows must have the {all_} {plural('column', all_)} that the model was trained on. "
            f"{where} lacks {some}: {shown}.{hint}"
        )
    for name in schema.numbers:
        series = table[name].drop_nulls()
        odd = series.filter(numbers(series).is_null())
        if len(odd):
            raise ConfigError(
                f"The column '{name}' must hold numbers, as in training. {where} has {odd[0]!r} there, and "
                f"{len(odd)} {plural('row', len(odd))} like it. Correct them, or leave the cells empty."
            )
