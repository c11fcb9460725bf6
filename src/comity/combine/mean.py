"""The mean: weighted by data, uniform, over a public denominator, or coordinate by coordinate."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np

from comity.core.checks import flag, number, shown
from comity.core.contribution import Contribution, Metrics, View
from comity.core.errors import ConfigError, ContributionError
from comity.core.round import Round
from comity.core.together import Stack
from comity.core.tree import tree_map


@dataclass(frozen=True)
class Mean:
    """Sum of w·x over sum of w, for each coordinate (FedAvg: McMahan et al., AISTATS 2017, Algorithm 1).

    A weight that is a Tree counts coordinate by coordinate: a coordinate is averaged over those who
    gave it weight, and is 0 where nobody did.

    Attributes:
        uniform: every contribution counts once, whatever its weight; divides by those who answered.
        public: as `uniform`, but divides by the public expectation q·N, which noise needs.
        cap: no weight counts more than this.

    Raises:
        ConfigError: both `uniform` and `public`, or a cap that is not > 0.

    Example:
        >>> import numpy as np, comity as co
        >>> mean, round = co.Mean(), co.Round(run="", seed=0, answered=2)
        >>> a, b = co.Contribution("delta", np.array([1.0]), 1.0), co.Contribution("delta", np.array([4.0]), 2.0)
        >>> total = co.Contribution("delta", mean.lift(a).value + mean.lift(b).value, 3.0)
        >>> mean.lower(total, None, round)[0].value
        array([3.])
    """

    uniform: bool = False
    public: bool = False
    cap: float = math.inf
    needs: ClassVar[View] = "sum"

    def __post_init__(self) -> None:
        for name in ("uniform", "public"):
            object.__setattr__(self, name, flag(name, "Mean", getattr(self, name)))
        if self.uniform and self.public:
            raise ConfigError("Mean takes uniform=True or public=True. Got both. Use public=True when noise is added.")
        cap = number("cap", "Mean", self.cap, "(0, inf]", hint="Use math.inf for no cap.")
        object.__setattr__(self, "cap", cap)

    @property
    def denominator(self) -> Literal["weight", "answered", "expected"]:
        """What the sum is divided by; only the last two are not data."""
        return "expected" if self.public else "answered" if self.uniform else "weight"

    def init(self) -> None:
        """No state."""

    def lift(self, c: Contribution) -> Contribution:
        """A contribution to (w·x, w)."""
        if self.uniform or self.public:
            c = replace(c, weight=tree_map(_once, c.weight))
        elif self.cap < math.inf:
            c = replace(c, weight=tree_map(self._capped, c.weight))
        return weighted(c)

    def lift_many(self, stack: Stack) -> Stack:
        """As `lift` for each of a stack, whose rows are overwritten."""
        weight = stack.weight
        if self.uniform or self.public:
            weight = np.where(weight > 0, 1.0, weight)
        elif self.cap < math.inf:
            weight = np.minimum(weight, self.cap)
        with np.errstate(over="ignore", invalid="ignore"):
            np.multiply(stack.rows, weight.astype(stack.rows.dtype)[:, None], out=stack.rows)
        return replace(stack, weight=weight)

    def lower(self, gathered: Contribution, state: None, round: Round) -> tuple[Contribution, None]:
        """The sum to the mean; the combined weight is the summed weight."""
        if self.public:
            return replace(gathered, value=tree_map(lambda x: x / round.expected, gathered.value)), state
        return mean_of(gathered), state

    def _capped(self, w: Any) -> Any:
        return min(w, self.cap) if type(w) is float else np.minimum(w, self.cap)


def weighted(c: Contribution) -> Contribution:
    """A contribution to a summand: x -> (w·x, w), leaf dtypes kept where they are floats.

    Raises:
        ContributionError: a leaf is text, bytes or None.
    """
    if type(c.weight) in (float, int) and c.weight == 1:
        return c
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            return Contribution(c.kind, tree_map(_times, c.value, c.weight), c.weight, c.metrics, c.sender)
    except KeyError as error:
        raise ContributionError(f"Weights must be a prefix of the value. Got none for {error}.") from None


def mean_of(c: Contribution) -> Contribution:
    """A sum of summands to their mean: (Σw·x, Σw) -> Σw·x / Σw, and 0 where the weight is 0."""
    if isinstance(c.weight, float | int) and c.weight > 0:
        return replace(c, value=tree_map(lambda x: x / c.weight, c.value))
    return replace(c, value=tree_map(_divide, c.value, c.weight))


def added(all_metrics: Sequence[Metrics]) -> dict[str, tuple[float, float]]:
    """The metrics of a cohort, name by name: (sum, count) pairs add."""
    total: dict[str, tuple[float, float]] = {}
    for metrics in all_metrics:
        for name, (s, n) in metrics.items():
            before = total.get(name, (0.0, 0.0))
            total[name] = (before[0] + s, before[1] + n)
    return total


def _once(w: Any) -> Any:
    """1 where a weight is positive; what is not a weight (negative, NaN) stays, to be refused."""
    if isinstance(w, float | int):
        return 1.0 if w > 0 else float(w)
    return np.where(np.asarray(w) > 0, 1.0, w)


def _times(x: Any, w: Any) -> Any:
    if type(x) is np.ndarray and x.dtype.kind == "f" and (type(w) is float or not isinstance(w, Mapping)):
        return x * w if type(w) is float else np.multiply(x, w, dtype=x.dtype)
    if isinstance(x, str | bytes) or x is None:
        raise ContributionError(f"Only numbers have a mean. Got {shown(x)}. Use combine=Collect().")
    if isinstance(w, Mapping):
        raise ContributionError(f"Weights must be a prefix of the value. Got {', '.join(map(str, w))} below a leaf.")
    return np.multiply(x, w)


def _divide(x: Any, w: Any) -> Any:
    total = np.asarray(w, float)
    return np.divide(x, np.where(total > 0, total, 1.0)) * (total > 0)
