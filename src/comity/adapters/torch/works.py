"""What is to be fitted, and what came of it, by column."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from comity.adapters.torch.batches import Ready
from comity.core.contribution import Array
from comity.core.round import Turns

Form = Literal["spread", "filled", "exact"]
"""How targets and losses meet a step: spread over classes, filled up with a share for each row, or as they are."""
Signature = tuple[Any, ...]


def signature(data: Sequence[Any]) -> Signature | None:
    """Shape and dtype of a row, where all have the same and are in memory."""
    found = {(d.x.shape[1:], d.x.dtype, d.y.shape[1:], d.y.dtype) if isinstance(d, Ready) else None for d in data}
    return found.pop() if len(found) == 1 else None


@dataclass(frozen=True, eq=False)
class Work:
    """What is to be fitted: columns, one entry a client, in the order asked.

    Attributes:
        start: the parameters as vectors: one for all, or (clients, size).
        local: each one's own buffers; None stands for the first values.
        data: each one's examples.
        rounds: each one's round.
        epochs: passes over the data.
    """

    start: Array
    local: Sequence[Any]
    data: Sequence[Any]
    rounds: Turns
    epochs: float

    @cached_property
    def sizes(self) -> list[int]:
        """How many examples each has."""
        return [d[1].shape[0] if isinstance(d, Ready) else len(d) for d in self.data]


@dataclass(frozen=True, eq=False)
class Done:
    """What came of it: rows (clients, size), local buffers, and (clients, 2) summed loss and samples seen."""

    rows: Array
    local: list[dict[str, Array]]
    loss: Array
