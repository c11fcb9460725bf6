"""FixedPoint: numbers as integers that add in a ring without overflow, for secure aggregation."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from comity.core.checks import number, refusal
from comity.core.contribution import Array, Contribution, Tree, View
from comity.core.errors import ContributionError
from comity.core.parts import Secret
from comity.core.round import Round
from comity.core.tree import is_branch, tree_map

PIECE = 2**14
_NAMES = ("accuracy", "log_loss", "mse", "mae")
USUAL = ("examples", "loss", *(f"{before}{name}" for before in ("", "valid_", "train_") for name in _NAMES))
"""The metrics that are summed where nothing else is said."""


@dataclass(frozen=True)
class FixedPoint:
    """Float leaves become integers of one scale, so that a sum over the cohort is exact and fits into 32 bits.

    Of a lifted number x, round(towards zero) of x·Q / bound is sent, with Q = floor((2^31 - 1) / n) and n the size of
    the cohort (`round.asked`): n such numbers cannot leave the range, whatever they are. A mean is off by less than
    bound / Q, 4.7e-8 of the bound for 100 participants. Numbers beyond the bound are clipped to it, and how many were
    is the metric "clipped". Whole numbers are sent as they are.

    A channel that adds in a ring must be given the same metrics by everybody, so only those named here are sent; one
    that a participant does not have is (0, 0).

    A Collaboration puts it last by itself, with the bound of what the method expects, where the channel wants it.

    Attributes:
        bound: the largest absolute value of a lifted number, w·x, > 0.
        heaviest: where weights are Trees, the largest weight of one coordinate, > 0.
        metrics: names of those that are sent.

    Raises:
        ConfigError: a bound that is not > 0 and finite, or names that are none.

    Example:
        >>> import numpy as np, comity as co
        >>> fixed, here = co.FixedPoint(bound=1.0), co.Round(run="", seed=0, asked=2)
        >>> c, _ = fixed.encode(co.Contribution("delta", np.array([0.5, -2.0])), None, {}, here, None)
        >>> c.value["fixed"], c.metrics["clipped"]
        (array([  536870911, -1073741823], dtype=int32), (1.0, 2.0))
        >>> fixed.decode(c, None, here, None)[0].value
        array([ 0.5, -1. ])
    """

    bound: float
    heaviest: float = 1.0
    metrics: tuple[str, ...] = USUAL
    decodes: ClassVar[View] = "sum"
    contracts: ClassVar[bool] = True
    integers: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("bound", "heaviest"):
            object.__setattr__(self, name, number(name, "FixedPoint", getattr(self, name), "(0, inf)"))
        names = tuple(self.metrics) if isinstance(self.metrics, tuple | list) else (None,)
        if not all(isinstance(n, str) and n for n in names) or len(set(names)) < len(names):
            raise refusal("metrics", "FixedPoint", "a tuple of names, each once", self.metrics, 'Use ("loss",).')
        object.__setattr__(self, "metrics", names)

    def init(self) -> Tree:
        """No state."""
        return None

    def encode(
        self, c: Contribution, public: Tree, local: Tree, round: Round, secret: Secret
    ) -> tuple[Contribution, Tree]:
        """Integers of the value, and of a Tree of weights; the metrics that are asked for.

        Raises:
            ContributionError: NaN or infinity, text, or whole numbers that could overflow the sum.
        """
        count, most = _Count(), _most(round)
        value = _sorted_out(c.value, lambda x: _integers(x, self.bound, most, count), most)
        weight: Any = c.weight
        if is_branch(weight) or np.ndim(weight):
            value["weight"] = tree_map(lambda w: _integers(np.asarray(w), self.heaviest, most, count), weight)
            weight = 0.0
        metrics = {name: c.metrics.get(name, (0.0, 0.0)) for name in self.metrics}
        metrics["clipped"] = float(count.clipped), float(count.numbers)
        return replace(c, value=value, weight=weight, metrics=metrics), local

    def decode(self, c: Contribution, state: Any, round: Round, secret: Secret) -> tuple[Contribution, Any]:
        """Numbers of the sum again, float64; metrics that nobody had are left out."""
        value: Any = c.value
        most = _most(round)
        fixed = tree_map(lambda x: np.asarray(x) * (self.bound / most), value.get("fixed", {}))
        weight: Any = c.weight
        if "weight" in value:
            weight = tree_map(lambda x: np.asarray(x) * (self.heaviest / most), value["weight"])
        metrics = {name: pair for name, pair in c.metrics.items() if pair[1]}
        whole = value.get("whole")
        return replace(
            c, value=fixed if whole is None else _merged(fixed, whole), weight=weight, metrics=metrics
        ), state


class _Count:
    """How many numbers there were, and how many were clipped."""

    numbers = clipped = 0


def _most(round: Round) -> int:
    """The largest integer of which as many as are asked still fit."""
    return (2**31 - 1) // max(1, round.asked)


def _sorted_out(value: Any, of: Any, most: int) -> dict[str, Any]:
    """{"fixed": the float leaves as integers, "whole": those that are whole numbers}."""
    fixed, whole = _part(value, True), _part(value, False)
    out = {} if fixed is None else {"fixed": tree_map(of, fixed)}
    return out if whole is None else {**out, "whole": tree_map(lambda x: _checked(x, most), whole)}


def _part(tree: Any, floats: bool) -> Any:
    """What of a Tree is floats, or is not; None where nothing is."""
    if is_branch(tree):
        found = {k: below for k, v in tree.items() if (below := _part(v, floats)) is not None}
        return found if found or (floats and not tree) else None
    kind = np.asarray(tree).dtype.kind
    if kind not in "fiub":
        raise ContributionError(f"Only numbers can be added in a ring. Got {type(tree).__name__}. Leave it out.")
    return np.asarray(tree) if (kind == "f") == floats else None


def _merged(a: Any, b: Any) -> Any:
    if not (is_branch(a) and is_branch(b)):
        return b if is_branch(a) and not a else a
    return {k: _merged(a[k], b[k]) if k in a and k in b else a.get(k, b.get(k)) for k in sorted({*a, *b})}


def _checked(x: Array, most: int) -> Array:
    low, high = (int(x.min()), int(x.max())) if x.size else (0, 0)
    if low < -most or high > most:
        raise ContributionError(f"A whole number must lie within {most} for its sum to fit. Got a larger one.")
    return x.astype(np.int32)


def _integers(x: Array, bound: float, most: int, count: _Count) -> Array:
    """x·most / bound towards zero, in pieces that stay in the cache; float32 would lose digits.

    Raises:
        ContributionError: NaN or infinity.
    """
    flat, out = x.reshape(-1), np.empty(x.size, np.int32)
    room = np.empty(min(PIECE, x.size), np.float64)
    for i in range(0, x.size, PIECE):
        p = room[: len(flat[i : i + PIECE])]
        np.multiply(flat[i : i + PIECE], most / bound, out=p, dtype=np.float64)
        low, high = float(p.min()), float(p.max())
        if not (low >= -most and high <= most):
            if not (np.isfinite(low) and np.isfinite(high)):
                raise ContributionError("NaN or infinity in the value. It cannot be made an integer.")
            count.clipped += int(((p < -most * (1 + 1e-6)) | (p > most * (1 + 1e-6))).sum())
            np.clip(p, -most, most, out=p)
        out[i : i + PIECE] = p
    count.numbers += x.size
    return out.reshape(x.shape)


def bound_of(spec: Any, heaviest: float) -> float:
    """The largest absolute value that a Spec's value allows of a lifted number; inf where it does not say."""
    if isinstance(spec, Mapping):
        return max((bound_of(below, heaviest) for below in spec.values()), default=0.0)
    return float(max(abs(spec.low), abs(spec.high))) * heaviest
