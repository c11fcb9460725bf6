"""Clip a Tree to a norm, and what mechanisms on a sum have in common."""

import math
from dataclasses import replace
from typing import Any

import numpy as np

from comity.core.checks import number
from comity.core.contribution import Array, Contribution
from comity.core.errors import ChannelError, ContributionError
from comity.core.parts import Stream
from comity.core.round import Round
from comity.core.spec import Leaf, Spec
from comity.core.tree import Layout, fingerprint, is_branch, leaves, ravel, tree_map
from comity.privacy.noise import normals

PIECE = 2**15
_SURE = 1e-12
"""By how much more a vector is shortened than doubles say: sums of many squares are rounded."""


def clipped(tree: Any, clip: float, order: int = 2) -> tuple[Any, float]:
    """A Tree of floats whose norm over all leaves together is at most `clip`, and the norm that it had.

    Args:
        tree: of numbers; whole ones become float64, floats keep their dtype.
        clip: > 0.
        order: 1 or 2.

    Raises:
        ContributionError: NaN, infinity, or what is no number.
    """
    tree = tree_map(_floats, tree)
    arrays = [x for _, x in leaves(tree)]
    top = max((_top(x) for x in arrays), default=0.0)
    unit = top if top and not 1e-100 < top < 1e100 else 1.0
    total = sum(_power(x, unit, order) for x in arrays)
    size = math.sqrt(total) if order == 2 else total
    if size * unit <= clip:
        return tree, size * unit
    precision = max([_SURE, *(2 * float(np.finfo(x.dtype).eps) for x in arrays)])
    scale = clip / size * (1 - precision)
    return tree_map(lambda x: _scaled(x, unit, scale), tree), size * unit


def _floats(x: Any) -> Array:
    if isinstance(x, str | bytes) or x is None or (kind := np.asarray(x).dtype.kind) not in "fiub":
        raise ContributionError(f"Only numbers can be clipped. Got {type(x).__name__}. Leave it out.")
    return np.asarray(x) if kind == "f" else np.asarray(x, np.float64)


def _top(x: Array) -> float:
    """The largest magnitude."""
    if not x.size:
        return 0.0
    top = float(max(x.max(), -x.min()))
    if not math.isfinite(top):
        raise ContributionError("NaN or infinity in the value. Its norm cannot be bounded.")
    return top


def _power(x: Array, unit: float, order: int) -> float:
    flat, total = x.reshape(-1), 0.0
    for i in range(0, flat.size, PIECE):
        p = flat[i : i + PIECE].astype(np.float64)
        if unit != 1.0:
            p /= unit
        total += float(p @ p) if order == 2 else float(np.abs(p).sum())
    return total


def _scaled(x: Array, unit: float, scale: float) -> Array:
    if unit == 1.0 and scale > 1e-30:
        return np.asarray(x * x.dtype.type(scale))
    return np.asarray(np.asarray(x, np.float64) / unit * scale).astype(x.dtype)


def noised(tree: Any, std: float, stream: Stream) -> Any:
    """A Tree of sums, float64, with independent normals of this standard deviation added to each number.

    Raises:
        ChannelError: the sum is that of nobody, and its shape is not known.
    """
    if not std:
        return tree
    if any(x is None for _, x in leaves(tree)):
        raise ChannelError("A sum must have a known shape to be noised. Got that of nobody. Ask more participants.")
    layout = Layout.of(tree, "float64")
    noise = normals(stream, layout.size)
    noise *= std
    noise += ravel(tree, layout)
    return layout.tree(noise)


def anonymous(c: Contribution, value: Any, weight: float = 1.0) -> Contribution:
    """A contribution of which nothing but the value tells anything about data."""
    return Contribution(c.kind, value, weight, {}, c.sender)


def released(c: Contribution, value: Any, round: Round) -> Contribution:
    """A sum: its weight is the number of those who answered, which is known anyway."""
    return replace(c, value=value, weight=float(answered(round)), metrics={})


def answered(round: Round) -> int:
    """How many answered; all who were asked where that is not known."""
    return round.asked if round.answered is None else round.answered


def idle(c: Contribution) -> bool:
    """Is it of somebody who only fills up a cohort, or has nothing to count?"""
    return not is_branch(c.weight) and not np.any(np.asarray(c.weight))


def narrowed(spec: Spec, most: float, weight: float = 1.0) -> Spec:
    """A Spec whose leaves lie within [-most, most], with one weight and without metrics."""

    def leaf(x: Any) -> Any:
        if is_branch(x):
            return {k: leaf(below) for k, below in x.items()}
        return Leaf(x.shape, x.dtype, max(x.low, -most), min(x.high, most))

    return replace(spec, value=leaf(spec.value), max_weight=weight, metrics=frozenset(), weights="scalar")


def keep_numbers(part: Any, **intervals: str) -> None:
    """Settings that must be numbers of an interval, kept as plain Python has them."""
    for name, within in intervals.items():
        hint = "Use noise=1.0, for one; 0 only clips." if name == "noise" else ""
        kept = number(name, type(part).__name__, getattr(part, name), within, hint=hint)
        object.__setattr__(part, name, float(kept))


def purpose(name: str, round: Round, value: Any = None) -> tuple[str, ...]:
    """What a stream of noise is for: another round, attempt or hub is another purpose.

    So is another value, where one is given: two values in one turn, of a run that was copied or whose data changed,
    never get the same noise, which their difference would be rid of.
    """
    turn = name, str(round.number), str(round.attempt), round.hub
    return turn if value is None else (*turn, fingerprint(value))
