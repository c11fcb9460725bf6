"""The families of models that are compared, each behind the same face."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from comity.adapters.numpy import MLP, Linear
from comity.adapters.trees import STEPS, boosted_trees
from comity.core.checks import refusal
from comity.core.contribution import Array
from comity.core.parts import Model, Step
from comity.core.round import Round
from comity.core.scores import scores
from comity.data.prepare import Preparation
from comity.methods.boosting import Boosting
from comity.methods.margins import predicted

FAMILIES = ("linear", "mlp", "trees")
RATES = {True: (0.005, 0.03), False: (0.002, 0.01)}
"""Learning rates that are tried: for classes, and for a measured target."""
CHUNK = 2
"""Epochs between two looks at the validation rows."""
PATIENCE = 5
"""Looks without progress after which training stops."""
KNOTS = (-1.0, 0.0, 1.0)
"""Where inputs may bend: at the mean and a standard deviation on either side."""
REACH = np.float32(3)
"""A hinge goes no further."""
DEPTH, BINS = 6, 64
"""Of trees that are grown jointly: levels of splits, and bins of a column."""
GROWTH = {True: 0.15, False: 0.1}
"""Their learning rate: for more than two classes, and else."""
LARGEST = np.float32(1e30)
"""Numbers that trees see end here: the next step to infinity is an error to them."""


@dataclass(frozen=True)
class Rows:
    """Some of a party's rows, as models see them.

    Attributes:
        x: (rows, inputs) float32 for gradients.
        ordinal: (rows, columns) float32 for trees, NaN where missing.
        y: (rows,) class numbers, or the measured target.
        fitted: (rows,) the target that models train on: y, or y standardised.
    """

    x: Array
    ordinal: Array
    y: Array
    fitted: Array

    def take(self, index: Array) -> "Rows":
        """Some of these rows."""
        return Rows(self.x[index], self.ordinal[index], self.y[index], self.fitted[index])

    def of(self, family: str) -> Array:
        """The inputs that a family takes."""
        return self.ordinal if family == "trees" else self.x


@dataclass(frozen=True)
class Fitted:
    """A model that was chosen.

    Attributes:
        family: "linear", "mlp" or "trees".
        model: with its settings.
        params: as fitted.
        loss: on the validation rows.
    """

    family: str
    model: Model
    params: Any
    loss: float


def rows_of(preparation: Preparation, table: Any) -> Rows:
    """All rows of a prepared table."""
    x, y = bent(preparation, preparation.inputs(table)), preparation.targets(table)
    fitted = preparation.to_standard(y) if preparation.schema.task == "regression" else y
    return Rows(x, inputs_of("trees", preparation, table), y, fitted)


def inputs_of(family: str, preparation: Preparation, table: Any) -> Array:
    """The inputs that a family takes, of a table that may lack the target: float32."""
    if family != "trees":
        return bent(preparation, preparation.inputs(table))
    return np.asarray(np.clip(preparation.ordinal(table), -LARGEST, LARGEST))


def bent(preparation: Preparation, x: Array) -> Array:
    """Inputs with hinges, so that what is linear in them may bend in a number (linear splines, degree 1).

    Args:
        preparation: says which inputs are numbers.
        x: (rows, inputs) float32 of `preparation.inputs`.

    Returns:
        (rows, `width`) float32: x, and for each number z and knot k what z is beyond k, at most 3.
    """
    names = preparation.names
    numbers = x[:, [names.index(name) for name in preparation.schema.numbers]]
    hinges = [np.clip(numbers - np.float32(knot), 0, REACH) for knot in KNOTS]
    return np.concatenate([x, *hinges], axis=1)


def width(preparation: Preparation) -> int:
    """How many inputs linear models and networks have."""
    return len(preparation.names) + len(KNOTS) * len(preparation.schema.numbers)


def families(model: str) -> tuple[str, ...]:
    """The families that a choice of `model` allows.

    Raises:
        ConfigError: no such family.
    """
    if not isinstance(model, str) or model not in ("auto", *FAMILIES):
        raise refusal("model", "", f"auto, {', '.join(FAMILIES)}", model)
    if model == "auto":
        return FAMILIES
    return (model,)


def candidates(family: str, inputs: int, classes: int) -> list[Model]:
    """The models of a family that are tried: one for each learning rate.

    Args:
        family: "linear", "mlp" or "trees".
        inputs: columns of x.
        classes: 0 for a measured target.
    """
    rates = (0.0,) if family == "trees" else RATES[bool(classes)]
    return [build(family, inputs, classes, rate) for rate in rates]


def build(family: str, inputs: int, classes: int, rate: float = 0.0) -> Model:
    """The model of a family; trees have no rate of this kind."""
    if family == "linear":
        return Linear(inputs, classes, rate=rate, momentum=0.9, decay=1e-4, batch=32)
    if family == "mlp":
        return MLP(inputs, classes, hidden=(32,), rate=rate, momentum=0.9, decay=1e-4, batch=32)
    return boosted_trees(classes)


def grower(preparation: Preparation) -> Boosting:
    """What grows trees jointly: as many as scikit-learn grows here, level by level, about as many leaves.

    Those up to the least validation loss are kept.
    """
    schema = preparation.schema
    steps, _ = STEPS[len(schema.classes) > 2]
    rate = GROWTH[len(schema.classes) > 2]
    return Boosting(
        len(schema.columns), len(schema.classes), trees=steps, rate=rate, depth=DEPTH, bins=BINS, patience=PATIENCE
    )


def chosen(tried: Sequence[str], train: Rows, valid: Rows, round: Round, *, classes: int, epochs: int) -> Fitted:
    """Fit every candidate of every family, and keep the one that does best on the validation rows."""
    best = None
    for family in tried:
        for model in candidates(family, train.x.shape[1], classes):
            fit = _grown if family == "trees" else _descended
            params, loss = fit(model, (train, valid), round, epochs)
            best = (family, model, params, loss) if best is None or loss < best[3] else best
    assert best is not None
    return Fitted(best[0], best[1], best[2](), best[3])


def _grown(model: Any, rows: tuple[Rows, Rows], round: Round, epochs: int) -> tuple[Callable[[], Any], float]:
    """Trees and their validation loss; they are packed only when asked for."""
    train, valid = rows
    nowhere = np.isnan(train.ordinal).all(axis=0)  # there is nothing to split: scikit-learn cannot bin such a column
    estimator = model.fitted((np.where(nowhere, np.float32(0), train.ordinal), train.fitted), round)
    return partial(model.packed, estimator), _loss(model.predicted(estimator, valid.ordinal), valid)


def _descended(model: Model, rows: tuple[Rows, Rows], round: Round, epochs: int) -> tuple[Callable[[], Any], float]:
    """A model that gradients train, and its validation loss."""
    params, loss = improved(model, model.init(round), rows, round, epochs)
    return lambda: params, loss


def improved(
    model: Model, params: Any, rows: tuple[Rows, Rows], round: Round, epochs: int, step: Step | None = None
) -> tuple[Any, float]:
    """Train on from `params` by gradients, looking at the validation rows on the way.

    Args:
        model: linear or mlp.
        params: where to begin.
        rows: training and validation rows.
        round: its public randomness.
        epochs: at most so many.
        step: how a step differs from the ordinary.

    Returns:
        What did best there (`params`, if nothing after them did better) and its validation loss.
    """
    train, valid = rows
    best, least, waited = params, _loss(model.predict(params, valid.x), valid), 0
    for at in range(0, epochs, CHUNK):
        here = replace(round, number=at)
        chunk = replace(step or Step(), epochs=min(CHUNK, epochs - at))
        params, _ = model.fit(params, (train.x, train.fitted), here, chunk)
        now = _loss(model.predict(params, valid.x), valid)
        waited = 0 if now < least else waited + 1
        best, least = (params, now) if now < least else (best, least)
        if waited >= PATIENCE:
            break
    return best, least


def _loss(predicted: Array, valid: Rows) -> float:
    """Mean log loss, or mean squared error of the standardised target; infinite without rows or numbers."""
    if not len(valid.y):
        return float("inf")
    found = scores(predicted, valid.fitted)
    total, n = found["log_loss"] if "log_loss" in found else found["mse"]
    return total / n if np.isfinite(total) else float("inf")


def predictor(family: str, model: Model, params: Any, preparation: Preparation) -> Callable[[Rows], Array]:
    """Rows to probabilities, or to numbers in the target's own unit."""

    return lambda rows: outputs(model, params, rows.of(family), preparation)


def outputs(model: Model, params: Any, x: Array, preparation: Preparation) -> Array:
    """(rows, classes) probabilities, or (rows,) numbers in the target's own unit."""
    grown = "widths" in params
    out = predicted(params, x, len(preparation.schema.classes)) if grown else np.asarray(model.predict(params, x))
    return out if out.ndim == 2 else preparation.to_target(out)
