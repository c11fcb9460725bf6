"""TopK: only the largest numbers go up; what was held back is added to the next ones."""

import math
import re
from dataclasses import dataclass, replace
from itertools import accumulate
from math import prod
from typing import Any, ClassVar

import numpy as np

from comity.compress.coding import FLOATS, coded, is_float, marked, opened, pairs, strange, unmarked, vector_of
from comity.core.checks import flag, number, whole
from comity.core.contribution import Array, Contribution, Tree, View
from comity.core.errors import ContributionError, WireError
from comity.core.parts import Secret
from comity.core.positions import decode_mask, encode_mask
from comity.core.round import Round
from comity.core.tree import Layout, is_branch, leaves, ravel

_LONGEST, _SHAPE = 1000, re.compile(r"((0|[1-9]\d{0,17})(,(0|[1-9]\d{0,17}))*)?", re.ASCII)


@dataclass(frozen=True)
class TopK:
    """A share of a contribution's floats go up: those of largest magnitude over all leaves; the others count as 0.

    With feedback, what was not sent stays in the site's drawer and is added to its next contribution (error feedback:
    Stich, Cordonnier and Jaggi, NeurIPS 2018, Algorithm 1), so that nothing is lost, only late. It acts on the lifted
    contribution (weight times value): what is held back keeps the weight that it had. A contribution that was lost
    or refused leaves the drawer as it was. Where a coordinate has no weight, what is held back for it waits; where
    names or shapes change, it is dropped. For participants who are seldom asked it is stale: try without.

    With feedback it may raise the norm and may not stand after a transform that bounds it. `Quantize` and `Deflate` may
    follow. It needs a channel that shows each contribution. What goes down is left alone.

    Attributes:
        keep: the share that is sent, rounded up to whole numbers, in (0, 1].
        feedback: add what was held back before?
        most: numbers that a contribution may have, >= 1. A short message stands for many numbers: where strangers send,
            set it near the size of your model.

    Raises:
        ConfigError: a setting out of range.

    Example:
        >>> import numpy as np, comity as co
        >>> codec, here = co.TopK(keep=0.25), co.Round(run="", seed=0)
        >>> c = co.Contribution("delta", {"w": np.array([1.0, -5.0, 2.0, 0.5], "float32")})
        >>> told, drawer = codec.encode(c, None, {}, here, None)
        >>> codec.decode(told, None, here, None)[0].value["w"]
        array([ 0., -5.,  0.,  0.], dtype=float32)
        >>> told, drawer = codec.encode(c, None, drawer, here, None)
        >>> codec.decode(told, None, here, None)[0].value["w"], drawer["held"]["w"]
        (array([ 0., -5.,  0.,  0.], dtype=float32), array([2., 0., 4., 1.], dtype=float32))
    """

    keep: float
    feedback: bool = True
    most: int = 2**26
    decodes: ClassVar[View] = "each"

    def __post_init__(self) -> None:
        object.__setattr__(self, "keep", number("keep", "TopK", self.keep, "(0, 1]", hint="Use 0.01 for 1 %."))
        object.__setattr__(self, "feedback", flag("feedback", "TopK", self.feedback))
        object.__setattr__(self, "most", whole("most", "TopK", self.most, 1))

    @property
    def contracts(self) -> bool:
        """Without feedback it only sets numbers to 0."""
        return not self.feedback

    def init(self) -> Tree:
        """No state at the hub."""
        return None

    def encode(
        self, c: Contribution, public: Tree, local: Any, round: Round, secret: Secret
    ) -> tuple[Contribution, Tree]:
        """At the site: the largest numbers and where they stand; what is held back goes into the drawer.

        Raises:
            ContributionError: more than `most` numbers.
        """
        shapes, marks = marked(c.value, lambda x: (",".join(map(str, x.shape)), False))
        layout, flat = _flat(c.value)
        self._fits(layout.size)
        ready, waiting = self._held(c.weight, local, layout)
        flat += ready
        kept = self._largest(flat)
        told = coded(c, shapes, marks, kept=flat[kept], at=encode_mask(kept))
        if not self.feedback:
            return told, local
        flat[kept] = 0
        return told, {"held": layout.tree(flat + waiting)}

    def decode(self, c: Contribution, state: Any, round: Round, secret: Secret) -> tuple[Contribution, Any]:
        """At the hub: the numbers that were sent, 0 elsewhere.

        Raises:
            ContributionError: nothing that `encode` writes, or more than `most` numbers.
        """
        weight, (value, marks, kept, at) = opened(c, "TopK", "kept", "at")
        shapes = [_shape(".".join(path), x) for path, x, mark in pairs(value, marks, "TopK") if mark != "."]
        ends = list(accumulate(map(prod, shapes), initial=0))
        self._fits(ends[-1])
        dtype = np.result_type(*(FLOATS[m.lower()] for m in marks if m != "."), np.float16)
        flat = self._filled(vector_of(dtype.name, kept, "kept", "TopK"), at, ends[-1])
        leaf = iter([_shaped(flat[a:b], s) for a, b, s in zip(ends, ends[1:], shapes, strict=False)])
        return replace(
            c, value=unmarked(value, marks, lambda name, x, second: next(leaf), "TopK"), weight=weight
        ), state

    def _held(self, weight: Any, local: Any, layout: Layout) -> tuple[Any, Any]:
        """What was held back: where there is weight now, and where there is none."""
        before = local.get("held") if self.feedback and layout.size else None
        if before is None or (Layout.of(before).paths, Layout.of(before).shapes) != (layout.paths, layout.shapes):
            return 0, 0
        held = ravel(before, layout)
        has = np.concatenate([_weighed(weight, p, s) for p, s in zip(layout.paths, layout.shapes, strict=True)])
        return np.where(has, held, 0), np.where(has, 0, held)

    def _largest(self, flat: Array) -> Array:
        """Which numbers are sent; NaN is, for the hub to refuse."""
        n = flat.size
        kept = np.zeros(n, bool)
        kept[np.argpartition(np.abs(flat), n - self._count(n))[n - self._count(n) :] if n else []] = True
        return kept

    def _filled(self, kept: Array, at: Any, n: int) -> Array:
        if kept.shape != (self._count(n),):
            raise strange("TopK", f"hold {self._count(n)} of {n} numbers", kept)
        try:
            mask = decode_mask(at, n)
        except WireError as error:
            raise ContributionError(str(error)) from None
        if np.count_nonzero(mask) != kept.size:
            raise strange("TopK", f"say where {kept.size} numbers stand", f"{np.count_nonzero(mask)} places")
        flat = np.zeros(n, kept.dtype)
        flat[mask] = kept
        return flat

    def _count(self, n: int) -> int:
        return math.ceil(self.keep * n - 1e-9)

    def _fits(self, n: int) -> None:
        if n > self.most:
            said = f"What TopK takes must have at most {self.most} numbers. Got {n}. Use TopK(most=...) on both sides."
            raise ContributionError(said)


def _flat(tree: Any) -> tuple[Layout, Array]:
    """Where the float leaves lie in one vector of its own, and the vector."""
    found = [(path, np.asarray(x)) for path, x in leaves(tree) if is_float(x)]
    paths, shapes = tuple(p for p, _ in found), tuple(x.shape for _, x in found)
    dtype = np.result_type(*{x.dtype for _, x in found}, np.float16)
    flat = np.concatenate([np.zeros(0, dtype), *(x.reshape(-1) for _, x in found)])
    return Layout(paths, shapes, tuple(accumulate(map(prod, shapes), initial=0)), dtype.name), flat


def _weighed(weight: Any, path: tuple[str, ...], shape: tuple[int, ...]) -> Array:
    """Which numbers of a leaf count."""
    for name in path:
        if is_branch(weight) and name not in weight:
            raise ContributionError(f"Weights must be a prefix of the value. Got none for '{name}'. Put TopK first.")
        weight = weight[name] if is_branch(weight) else weight
    return np.broadcast_to(np.asarray(weight) > 0, shape).reshape(-1)


def _shape(name: str, said: Any) -> tuple[int, ...]:
    """The shape of a leaf, from anybody."""
    if isinstance(said, str) and len(said) < _LONGEST and _SHAPE.fullmatch(said):
        return tuple(map(int, said.split(","))) if said else ()
    raise strange("TopK", f"say the shape of '{name}'", said)


def _shaped(flat: Array, shape: tuple[int, ...]) -> Array:
    try:
        return flat.reshape(shape)
    except ValueError as error:
        raise strange("TopK", "say shapes that numpy can hold", str(error)) from None
