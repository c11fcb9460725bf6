"""The one data type: whatever moves, up or down, is a Contribution."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray
Tree: TypeAlias = Mapping[str, Any] | Array | str | bytes | int | float | None
"""A plain nested dict whose leaves are arrays, strings, bytes, numbers or None. A table travels as Arrow bytes."""

View: TypeAlias = Literal["sum", "groups", "each"]
"""What the hub may see, ordered: each > groups > sum."""

Metrics: TypeAlias = Mapping[str, tuple[float, float]]
"""Name to (sum, count): metrics add, and a metric's value is sum / count."""

RANK: Mapping[str, int] = {"sum": 0, "groups": 1, "each": 2}


@dataclass(frozen=True, slots=True, eq=False)
class Contribution:
    """Whatever moves: what it is, its value, how much it counts, what was measured, and from whom.

    Attributes:
        kind: the field's word for what moves: "delta" "gradient" "prediction" "label" "sample"
            "experience" "model" "score" "text".
        value: a Tree.
        weight: how much it counts, >= 0. A Tree of weights counts coordinate by coordinate; it is a
            prefix of the value's Tree (`{"a": 2.0}` counts everything below "a" twice).
        metrics: name to (sum, count), protected exactly as the value is.
        sender: the name of the participant; "" when it is a sum or comes from the hub.

    Example:
        >>> import numpy as np
        >>> Contribution("delta", {"w": np.ones(3, "float32")}, weight=20.0, metrics={"loss": (8.0, 20.0)}).kind
        'delta'
    """

    kind: str
    value: Tree
    weight: float | Tree = 1.0
    metrics: Metrics = field(default_factory=dict)
    sender: str = ""
