"""What the codecs of this room share: the float leaves of a Tree, blocks of them, bfloat16, and how a coded Tree lies.

A coded Tree is {"value": a Tree of the same names, "marks": a letter for each of its leaves in canonical order, and
what the codec adds}. A mark is "." where the leaf is as it was; else it says which float it was: "e" float16,
"f" float32, "d" float64, a capital where the codec took its second way. A Tree of weights goes where the values went.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from comity.core.checks import shown
from comity.core.contribution import Array, Contribution
from comity.core.errors import ContributionError
from comity.core.rng import Rng
from comity.core.tree import is_branch, leaves

_LETTERS = {"float16": "e", "float32": "f", "float64": "d"}
FLOATS = {letter: np.dtype(name) for name, letter in _LETTERS.items()}
_EXPONENT, _SIGNLESS, _QUIET = np.uint32(0x7F800000), np.uint32(0x7FFFFFFF), np.uint32(0x40)


class Same:
    """A thing by its identity, to be a key: a question that goes to many is coded once."""

    def __init__(self, thing: Any) -> None:
        self.thing = thing

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and other.thing is self.thing

    def __hash__(self) -> int:
        return id(self.thing)


def is_float(x: Any) -> bool:
    """Is it an array (or a scalar) of float16, float32 or float64?"""
    return isinstance(x, np.ndarray | np.generic) and x.dtype.name in _LETTERS


def strange(of: str, must: str, got: Any) -> ContributionError:
    """The error for what a codec did not write."""
    said = got if isinstance(got, str) else f"{shown(got)}"
    return ContributionError(f"What {of} reads must {must}. Got {said}. Use the same transforms on both sides.")


def coded(c: Contribution, value: Any, marks: str, **added: Any) -> Contribution:
    """The contribution with a coded Tree in place of its value."""
    told = {"value": value, "marks": marks, **added}
    weight: Any = c.weight
    if is_branch(weight) or np.ndim(weight):
        weight = {name: weight if name == "value" else 1.0 for name in told}
    return replace(c, value=told, weight=weight)


def opened(c: Contribution, of: str, *added: str) -> tuple[Any, list[Any]]:
    """What `coded` laid out.

    Returns:
        The weight, and value, marks and what the codec added.

    Raises:
        ContributionError: something else.
    """
    told: Any = c.value
    names = {"value", "marks", *added}
    if not is_branch(told) or told.keys() != names or not isinstance(told["marks"], str):
        raise strange(of, f"be a Tree with {', '.join(sorted(names))}", told)
    weight: Any = c.weight
    if is_branch(weight):
        if weight.keys() != names or any(type(weight[k]) is not float or weight[k] != 1 for k in names - {"value"}):
            raise strange(of, f"have weights for {', '.join(sorted(names))}", weight)
        weight = weight["value"]
    return weight, [told[name] for name in ("value", "marks", *added)]


def marked(tree: Any, code: Callable[[Array], tuple[Any, bool]]) -> tuple[Any, str]:
    """The Tree with its float leaves coded, and the marks.

    Args:
        tree: any.
        code: a float leaf to what stands for it, and whether that is by the second way.
    """
    new: dict[tuple[str, ...], Any] = {}
    marks = []
    for path, x in leaves(tree):
        letter, new[path] = ".", x
        if is_float(x):
            new[path], second = code(np.asarray(x))
            letter = _LETTERS[x.dtype.name].upper() if second else _LETTERS[x.dtype.name]
        marks.append(letter)
    return _rebuilt(tree, new), "".join(marks)


def unmarked(tree: Any, marks: str, read: Callable[[str, Any, bool], Array], of: str) -> Any:
    """The Tree that `marked` was given, from anybody.

    Args:
        tree: the coded one.
        marks: of its leaves.
        read: a leaf's name, what stands for it, and whether by the second way, to its numbers.
        of: the codec, for messages.

    Raises:
        ContributionError: marks that do not fit the leaves.
    """
    new = {}
    for path, x, mark in pairs(tree, marks, of):
        letter = mark.lower()
        new[path] = x if mark == "." else _narrowed(read(".".join(path), x, mark != letter), FLOATS[letter])
    return _rebuilt(tree, new)


def pairs(tree: Any, marks: str, of: str) -> list[tuple[tuple[str, ...], Any, str]]:
    """(path, leaf, mark) of a coded Tree from anybody, in canonical order.

    Raises:
        ContributionError: marks that do not fit the leaves.
    """
    found = list(leaves(tree))
    if len(found) != len(marks) or set(marks) - set(".efdEFD"):
        raise strange(of, f"have a mark of .efdEFD for each of its {len(found)} leaves", marks)
    return [(path, x, mark) for (path, x), mark in zip(found, marks, strict=True)]


def array_of(dtype: str, x: Any, name: str, of: str) -> Array:
    """An array of this dtype.

    Raises:
        ContributionError: something else.
    """
    if not isinstance(x, np.ndarray) or x.dtype != np.dtype(dtype):
        raise strange(of, f"hold {dtype} in '{name}'", x)
    return x


def vector_of(dtype: str, x: Any, name: str, of: str) -> Array:
    """An array of this dtype and one axis.

    Raises:
        ContributionError: something else.
    """
    if array_of(dtype, x, name, of).ndim != 1:
        raise strange(of, f"have one axis in '{name}'", x)
    return x  # type: ignore[no-any-return]


def starts(n: int, block: int) -> Array:
    """Where each block of n numbers begins."""
    return np.arange(0, n, block)


def spread(x: Array, block: int, n: int) -> Array:
    """What holds for blocks, for each of their n numbers."""
    return np.repeat(x, block)[:n]


def to_bfloat16(x: Array, rng: Rng | None = None, *, up: bool = False) -> Array:
    """Numbers as the bits of bfloat16.

    Args:
        x: any shape, float.
        rng: rounds to one of the two neighbours, without bias; by default to the nearest, ties to even.
        up: rounds away from zero instead.

    Returns:
        uint16 of the same shape. What is finite stays finite; NaN and infinity stay what they are.
    """
    with np.errstate(over="ignore"):
        bits = np.asarray(x, np.float32).view(np.uint32)
    cut = bits >> 16
    more: Any = np.uint32(0xFFFF) if up else np.uint32(0x7FFF) + (cut & 1)
    if rng is not None:
        more = rng.integers(0, 1 << 16, bits.shape, np.uint32)
    rounded = (bits + more) >> 16
    whole = cut | np.where((bits & _SIGNLESS) > _EXPONENT, _QUIET, np.uint32(0))
    stays = ((bits & _EXPONENT) == _EXPONENT) | ((rounded << 16 & _EXPONENT) == _EXPONENT)
    return np.asarray(np.where(stays, whole, rounded), np.uint16)


def from_bfloat16(bits: Array) -> Array:
    """The float32 numbers of the bits of bfloat16."""
    return np.asarray(bits.astype(np.uint32) << 16, np.uint32).view(np.float32)


def _narrowed(x: Array, dtype: np.dtype[Any]) -> Array:
    """In the dtype that a leaf had: what is finite stays finite."""
    if dtype.itemsize < x.dtype.itemsize:
        most = np.finfo(dtype).max
        x = np.where(np.isfinite(x), np.clip(x, -most, most), x)
    return x.astype(dtype, copy=False)


def _rebuilt(tree: Any, new: Mapping[tuple[str, ...], Any], path: tuple[str, ...] = ()) -> Any:
    if not is_branch(tree):
        return new[path]
    return {k: _rebuilt(v, new, (*path, k)) for k, v in tree.items()}
