"""Examples seen anew in each epoch: what a participant's `augment` makes of them, and the fit of its ticket on that."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol, TypeAlias

import numpy as np

from comity.core.checks import number, refusal
from comity.core.contribution import Array, Metrics, Tree
from comity.core.errors import ConfigError
from comity.core.parts import Step
from comity.core.rng import Rng
from comity.core.round import Round
from comity.methods.sparsity import kept
from comity.methods.training import Examples, fitted, rows_fit

Augment: TypeAlias = Callable[[Array, Rng], Array]


class Augmented(Examples, Protocol):
    """A frozen dataclass of a participant that trains for some epochs, on examples that it may change."""

    @property
    def epochs(self) -> float | None:
        """In a round; None for the model's own."""
        ...

    @property
    def augment(self) -> Augment | None:
        """`augment(x, rng) -> x`, or None."""
        ...


def augment_fits(who: Augmented) -> None:
    """Refuse epochs out of range, an `augment` that cannot be called, or one without (X, y) to change.

    Raises:
        ConfigError: names the setting.
    """
    of = type(who).__name__
    if who.epochs is not None:
        number("epochs", of, who.epochs, "[0, inf)", hint="None is the model's own.")
    if who.augment is not None:
        if not callable(who.augment):
            raise refusal("augment", of, "a function of x and a Generator", who.augment)
        rows_fit(who, "data")


def fitted_anew(
    who: Augmented, params: Tree, buffers: Tree, round: Round, mask: Mapping[str, Any]
) -> tuple[Any, Any, Metrics]:
    """As `training.fitted`, with weights outside the mask held at 0, on augmented examples where there is an `augment`.

    The metric "examples" counts the participant's own, not their copies.
    """
    some, all_ = kept(mask)
    held = mask if some < all_ else None
    if who.augment is None:
        return fitted(who, params, buffers, round, Step(mask=held, epochs=who.epochs))
    changed, epochs = _changed(who, round)
    after, buffers, metrics = fitted(changed, params, buffers, round, Step(mask=held, epochs=epochs))
    return after, buffers, {**metrics, "examples": (float(len(who.data[1])), 1.0)}


def _changed(who: Any, round: Round) -> tuple[Any, float]:
    """Whose data a fit is of, a copy of them for each epoch, and for how many epochs."""
    epochs = float(getattr(who.model, "epochs", 1) if who.epochs is None else who.epochs)
    copies, rng = max(1, math.ceil(epochs)), round.mine("augment")
    x, y = (np.asarray(v) for v in who.data)
    made = [np.asarray(who.augment(x, rng)) for _ in range(copies)]
    if any(m.shape[:1] != x.shape[:1] for m in made):
        must, got = "must give as many rows as it is given", f"{made[0].shape} from {x.shape}"
        raise ConfigError(f"The 'augment' of {type(who).__name__} {must}. Got {got}.")
    data = np.concatenate(made), np.concatenate([y] * copies)
    return replace(who, data=data, augment=None), epochs / copies
