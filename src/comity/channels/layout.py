"""A contribution as one vector of ring words, and a sum of such vectors back: what masks and shares are added to.

    value     each leaf in canonical order, C order, one word of 32 bits a number; sums are taken modulo 2^32
    padding   one word of zero where there would be an odd number of them
    numbers   weight, then (sum, count) of each metric by sorted name, two words each: little-endian integers of 64 bits
              in units of 2^-20; sums are taken modulo 2^64

No sum of a cohort can wrap around: the value is bounded by (2^31 - 1) / cohort, a number by (2^63 - 1) / cohort units.
Numbers are added whole, carries included. As limbs with a sum each they would tell more than their sum.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from comity.core.contribution import Array, Contribution, Tree
from comity.core.errors import ChannelError, ContributionError
from comity.core.tree import is_branch, leaves
from comity.core.wire import encode_tree

RESOLUTION = 2**20
WORD, NUMBER = np.dtype("<u4"), np.dtype("<u8")
_LARGEST, _LARGEST_NUMBER, _MOST = 2**31 - 1, 2**63 - 1, 2**40
_PIECE = 2**15


@dataclass(frozen=True)
class Form:
    """What a vector of words holds. It is public, and the same for all whose vectors are added.

    Attributes:
        kind: the kind of the contribution.
        value: the value's Tree with the shape of each leaf, such as "3x4" or "", in its place; None where it is None.
        metrics: the names of the metrics, sorted.

    Example:
        >>> import numpy as np
        >>> form, words = lay(Contribution("delta", {"w": np.array([1, -2])}, 3.0, {"loss": (0.5, 1.0)}), 2)
        >>> form.size, words.dtype.name, form.sum(words).value["w"], form.sum(words).weight
        (8, 'uint32', array([ 1, -2], dtype=int32), 3.0)
    """

    kind: str
    value: Tree
    metrics: tuple[str, ...] = ()

    @classmethod
    def of(cls, c: Contribution) -> "Form":
        """The form of a contribution.

        Raises:
            ContributionError: a leaf that is no array of integers, or a weight that is no number.
        """
        if is_branch(c.weight):
            raise ContributionError("The weight must be one number where sums are taken in a ring. Got a Tree.")
        return cls(c.kind, _shapes(c.value, ()), tuple(sorted(c.metrics)))

    @classmethod
    def read(cls, tree: Any) -> "Form":
        """The form that `tree` gives.

        Raises:
            ChannelError: it is no form.
        """
        try:
            kind, metrics = tree["kind"], tree["metrics"]
            names = tuple(metrics)
            good = isinstance(kind, str) and isinstance(metrics, Mapping) and names == tuple(sorted(names))
            form = cls(kind, tree["value"], names)
            if good and form.size <= _MOST:
                return form
        except (TypeError, KeyError, ValueError, IndexError, AttributeError):
            pass
        raise ChannelError("A form must hold a kind, the shapes of a value and names of metrics. Got something else.")

    def tree(self) -> Tree:
        """As it travels."""
        return {"kind": self.kind, "value": self.value, "metrics": dict.fromkeys(self.metrics)}

    def same(self, other: "Form") -> bool:
        """Can vectors of both be added?"""
        return encode_tree(self.tree()) == encode_tree(other.tree())

    @cached_property
    def shapes(self) -> tuple[tuple[int, ...] | None, ...]:
        """The shape of each leaf, in canonical order."""
        return tuple(_shape(x) for _, x in leaves(self.value))

    @cached_property
    def split(self) -> int:
        """How many words there are before the numbers."""
        n = sum(math.prod(s) for s in self.shapes if s is not None)
        return n + n % 2

    @property
    def size(self) -> int:
        """How many words there are."""
        return self.split + 2 * (1 + 2 * len(self.metrics))

    def add(self, total: Array, words: Array) -> None:
        """Add a vector to `total`, (size,) uint32 each, in place: 32 bits, then 64 bits a number."""
        for a, b in zip(self.parts(total), self.parts(words), strict=True):
            np.add(a, b, out=a)

    def subtract(self, total: Array, words: Array) -> None:
        """Take a vector from `total`, in place."""
        for a, b in zip(self.parts(total), self.parts(words), strict=True):
            np.subtract(a, b, out=a)

    def parts(self, words: Array) -> tuple[Array, Array]:
        """Views of the value's words, (split,) uint32, and of the numbers, uint64."""
        return words[: self.split], words[self.split :].view(NUMBER)

    def fits(self, words: Any) -> bool:
        """Is this a vector of this form?"""
        return isinstance(words, np.ndarray) and words.dtype == WORD and words.shape == (self.size,)

    def sum(self, words: Array) -> Contribution:
        """What a vector, or a sum of vectors, says.

        Returns:
            The value as int32 arrays, views of `words`; weight and metrics as floats; without a sender.
        """
        ring, numbers = self.parts(words)
        given = iter(_shaped(ring.view("<i4"), self.shapes))
        weight, *rest = (int(n) / RESOLUTION for n in numbers.view("<i8"))
        pairs = zip(rest[::2], rest[1::2], strict=True)
        return Contribution(self.kind, _filled(self.value, given), weight, dict(zip(self.metrics, pairs, strict=True)))


def lay(c: Contribution, asked: int) -> tuple[Form, Array]:
    """A contribution as words.

    Args:
        c: its value of integers, its weight a number.
        asked: how many may be added, >= 1.

    Returns:
        Its form, and (size,) uint32 in memory of its own, to be masked in place.

    Raises:
        ContributionError: what is no integer, or so large that a sum of `asked` could wrap around.
    """
    form = Form.of(c)
    words = np.empty(form.size, WORD)
    ring, numbers = form.parts(words)
    most, at = _LARGEST // asked, 0
    for path, leaf in leaves(c.value):
        if leaf is not None:
            x = np.asarray(leaf).ravel()
            _copy(x, ring[at : at + x.size].view("<i4"), most, path)
            at += x.size
    ring[at:] = 0
    pairs = [(f"metric '{k}'", n) for k in form.metrics for n in c.metrics[k]]
    numbers.view("<i8")[:] = [_number(name, n, asked) for name, n in (("weight", c.weight), *pairs)]
    return form, words


def _copy(x: Array, into: Array, most: int, path: tuple[str, ...]) -> None:
    """Copy and check, a piece that stays in cache at a time."""
    for i in range(0, x.size, _PIECE):
        piece = x[i : i + _PIECE]
        low, high = int(piece.min()), int(piece.max())
        if low < -most or high > most:
            name = ".".join(path) or "the value"
            raise ContributionError(
                f"Numbers of {name} must be within {most}, so that no sum can wrap around. "
                "Got a larger one. Use FixedPoint as the last transform."
            )
        into[i : i + _PIECE] = piece


def _number(name: str, x: Any, asked: int) -> int:
    """A number in units."""
    most = _LARGEST_NUMBER // asked
    finite = math.isfinite(x)
    units = round(float(x) * RESOLUTION) if finite else 0
    if not finite or abs(units) > most:
        said = "a larger one" if finite else "NaN or infinity"
        raise ContributionError(f"The {name} must be within {most / RESOLUTION:.6g} in a ring. Got {said}.")
    return units


def _shapes(tree: Any, path: tuple[str, ...]) -> Any:
    """The Tree of shapes, sorted."""
    if is_branch(tree):
        return {k: _shapes(tree[k], (*path, k)) for k in sorted(tree)}
    if tree is None:
        return None
    x = np.asarray(tree)
    if x.dtype.kind not in "iu":
        name = ".".join(path) or "The value"
        raise ContributionError(f"{name} must hold integers. Got {x.dtype}. Use FixedPoint as the last transform.")
    return "x".join(map(str, x.shape))


def _shape(text: Any) -> tuple[int, ...] | None:
    if text is None:
        return None
    return tuple(_length(n) for n in text.split("x")) if text else ()


def _length(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(text)
    return int(text)


def _shaped(ring: Array, shapes: tuple[tuple[int, ...] | None, ...]) -> Any:
    at = 0
    for shape in shapes:
        if shape is None:
            yield None
            continue
        n = math.prod(shape)
        yield ring[at : at + n].reshape(shape)
        at += n


def _filled(tree: Any, given: Any) -> Any:
    if is_branch(tree):
        return {k: _filled(tree[k], given) for k in sorted(tree)}
    return next(given)
