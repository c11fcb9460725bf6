"""Majority vote on shared questions."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np

from comity.core.contribution import Array, Contribution, View
from comity.core.errors import ContributionError
from comity.core.round import Round


@dataclass(frozen=True)
class Vote:
    """Majority vote, each voter counting by its weight (plurality for more than two classes).

    A contribution's value is `{"votes": (tasks, classes)}`: one-hot, or probabilities, of which the
    largest is the vote; or it is a member's prediction, which has them as "proba" and may hold more.
    A row of zeros abstains. A tie goes to the class with the lowest number.

    The combined value is `{"votes": (tasks, classes) float64, "label": (tasks,) int64}`; a task on
    which nobody voted has label -1. Of predictions it is "proba", the shares of the votes, and "label".

    Example:
        >>> import numpy as np, comity as co
        >>> vote, round = co.Vote(), co.Round(run="", seed=0)
        >>> votes = np.array([[2.0, 1.0], [0.0, 3.0]])
        >>> vote.lower(co.Contribution("label", {"votes": votes}, 3.0), None, round)[0].value["label"]
        array([0, 1])
    """

    needs: ClassVar[View] = "sum"
    denominator: ClassVar[Literal["answered"]] = "answered"

    def init(self) -> None:
        """No state."""

    def lift(self, c: Contribution) -> Contribution:
        """One-hot votes times the voter's weight."""
        name, votes = _votes(c)
        hot = np.zeros(votes.shape, votes.dtype if votes.dtype.kind == "f" else np.float64)
        cast = votes.max(axis=1, initial=0) > 0
        hot[np.flatnonzero(cast), votes[cast].argmax(axis=1)] = 1
        more: Any = {} if name == "votes" else c.value
        return replace(c, value={**more, name: hot * np.asarray(c.weight, hot.dtype)})

    def lower(self, gathered: Contribution, state: None, round: Round) -> tuple[Contribution, None]:
        """Summed votes to labels."""
        value: Any = gathered.value
        votes = np.asarray(value["votes"] if "votes" in value else value["proba"], float)
        label = np.where(votes.max(axis=1, initial=0) > 0, votes.argmax(axis=1), -1)
        if "votes" in value:
            return replace(gathered, value={"votes": votes, "label": label}), state
        share = votes / np.maximum(votes.sum(axis=1, keepdims=True), np.finfo(float).tiny)
        return replace(gathered, value={**value, "proba": share, "label": label}), state


def _votes(c: Contribution) -> tuple[str, Array]:
    name = "proba" if isinstance(c.value, Mapping) and "proba" in c.value and "votes" not in c.value else "votes"
    votes = c.value.get(name) if isinstance(c.value, Mapping) else None
    if not isinstance(votes, np.ndarray) or votes.ndim != 2 or not votes.shape[1] or votes.dtype.kind not in "fiub":
        raise ContributionError("A vote must be {'votes': (tasks, classes)} of numbers. Got another value.")
    if not isinstance(c.weight, float | int):
        raise ContributionError(f"A vote's weight must be one number. Got {type(c.weight).__name__}.")
    if votes.dtype.kind == "f" and not np.isfinite(votes).all():
        raise ContributionError("Votes must be finite. Got NaN or infinity. A row of zeros abstains.")
    return name, votes
