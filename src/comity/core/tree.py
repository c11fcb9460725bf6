"""Plain nested dicts with arrays for leaves: walk them, map over them, lay them out as one flat vector.

The canonical order of a Tree is that of its sorted names at every level, whatever order they were put in.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from math import prod
from typing import Any, TypeGuard

import numpy as np

from comity.core.contribution import Array, Tree


def tree_map(f: Callable[..., Any], tree: Any, *rest: Any) -> Any:
    """Apply `f` to the leaves of Trees of one structure.

    Args:
        f: called with one leaf of each Tree.
        tree: gives the structure of the result.
        rest: Trees that are prefixes of `tree`: where one ends early, its leaf serves everything below.
    """
    if not is_branch(tree):
        return f(tree, *rest)
    if not rest:
        return {k: f(v) if type(v) is np.ndarray else tree_map(f, v) for k, v in tree.items()}
    if len(rest) == 1:
        other = rest[0]
        if is_branch(other):
            return {k: tree_map(f, v, other[k]) for k, v in tree.items()}
        return {k: f(v, other) if type(v) is np.ndarray else tree_map(f, v, other) for k, v in tree.items()}
    return {k: tree_map(f, v, *(r[k] if is_branch(r) else r for r in rest)) for k, v in tree.items()}


def is_branch(x: Any) -> TypeGuard[Mapping[str, Any]]:
    """Does `x` hold more of the Tree? Quick for what mostly stands in one: an abstract class is slow to ask."""
    kind = type(x)
    return kind is dict or (kind not in _LEAVES and isinstance(x, Mapping))


_LEAVES = frozenset((np.ndarray, float, int, bool, str, bytes, type(None)))


def leaves(tree: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """(path, leaf) pairs in canonical order."""
    if is_branch(tree):
        for k in sorted(tree):
            yield from leaves(tree[k], (*path, k))
    else:
        yield path, tree


def frozen(tree: Any) -> Any:
    """The same Tree with arrays that are read only: whoever writes into one gets an error."""
    return tree_map(_read_only, tree)


def owned(tree: Any) -> Any:
    """The same Tree in dicts of its own, with read-only copies of the arrays that somebody could still write into."""
    return tree_map(_copied, tree)


def _copied(x: Any) -> Any:
    if not isinstance(x, np.ndarray) or not x.flags.writeable:
        return x
    copy = x.copy()
    copy.flags.writeable = False
    return copy


def _read_only(x: Any) -> Any:
    if not isinstance(x, np.ndarray) or not x.flags.writeable:
        return x
    view = x.view()
    view.flags.writeable = False
    return view


def fingerprint(tree: Any) -> str:
    """The sha256 of names, dtypes, shapes and numbers, hex: what is drawn for one value is tied to it.

    Example:
        >>> a, b = {"w": np.ones(2)}, {"w": np.zeros(2)}
        >>> fingerprint(a) == fingerprint({"w": np.ones(2)}), fingerprint(a) == fingerprint(b)
        (True, False)
    """
    found = hashlib.sha256()
    for path, leaf in leaves(tree):
        x = np.ascontiguousarray(leaf)
        found.update(repr((path, x.dtype.str, np.shape(leaf))).encode())
        found.update(x.view(np.uint8).data if x.dtype.kind in "fiub" and x.size else repr(leaf).encode())
    return found.hexdigest()


def norm(tree: Tree) -> float:
    """The L2 norm over all leaves together."""
    return float(np.sqrt(sum(float(np.vdot(x, x).real) for _, leaf in leaves(tree) for x in [np.asarray(leaf, float)])))


@dataclass(frozen=True)
class Layout:
    """Where each leaf of a Tree lies in one flat vector, in canonical order.

    Attributes:
        paths: the path of each leaf.
        shapes: its shape.
        offsets: where it begins; one more entry gives the length of the vector.
        dtype: the dtype of the vector.
    """

    paths: tuple[tuple[str, ...], ...]
    shapes: tuple[tuple[int, ...], ...]
    offsets: tuple[int, ...]
    dtype: str

    @classmethod
    def of(cls, tree: Tree, dtype: str | None = None) -> "Layout":
        """The layout of `tree`; without `dtype`, the one that holds what all its leaves hold."""
        pairs = [(p, np.asarray(x)) for p, x in leaves(tree)]
        shapes = tuple(x.shape for _, x in pairs)
        return _laid(tuple(p for p, _ in pairs), shapes, dtype or frozenset(x.dtype for _, x in pairs))

    @property
    def size(self) -> int:
        """How many numbers there are."""
        return self.offsets[-1]

    def tree(self, vector: Any) -> Any:
        """A Tree whose leaves are views of `vector`, (size,) of any array library."""
        out: dict[str, Any] = {}
        for path, shape, start, end in zip(self.paths, self.shapes, self.offsets, self.offsets[1:], strict=False):
            here = out
            for k in path[:-1]:
                here = here.setdefault(k, {})
            if not path:
                return vector[start:end].reshape(shape)
            here[path[-1]] = vector[start:end].reshape(shape)
        return out


def ravel(tree: Tree, layout: Layout | None = None) -> Array:
    """The leaves as one flat vector, in canonical order.

    Free when the leaves are views of one contiguous vector in that order (as the adapters hand them
    out): the result is then a view too, so copy before you write to it.

    Returns:
        (size,) of the layout's dtype.
    """
    arrays: list[Array] = []
    _collect(tree, arrays)
    kind = np.dtype(layout.dtype) if layout else arrays[0].dtype if arrays else np.dtype("float64")
    if (whole := _one_vector(arrays, kind)) is not None:
        return whole
    if not arrays:
        return np.zeros(0, kind)
    if layout is None:
        kind = np.result_type(*{x.dtype for x in arrays})
    return np.concatenate([x.ravel() for x in arrays]).astype(kind, copy=False)


def unravel(vector: Array, tree: Tree) -> Any:
    """A Tree shaped as `tree` whose leaves are views of `vector`; of several dtypes, each is cast to its own."""
    shaped = Layout.of(tree).tree(vector)
    if len({np.asarray(x).dtype for _, x in leaves(tree)}) <= 1:
        return shaped
    return tree_map(lambda v, x: v.astype(np.asarray(x).dtype, copy=False), shaped, tree)


def _collect(tree: Any, into: list[Array]) -> None:
    """The leaves as arrays, in canonical order."""
    if is_branch(tree):
        for k in sorted(tree):
            _collect(tree[k], into)
    else:
        into.append(np.asarray(tree))


@lru_cache(maxsize=256)
def _laid(
    paths: tuple[tuple[str, ...], ...], shapes: tuple[tuple[int, ...], ...], dtype: str | frozenset[np.dtype[Any]]
) -> Layout:
    """Trees of one form follow each other by the thousand."""
    kind = dtype if isinstance(dtype, str) else np.result_type(*dtype).name if dtype else "float64"
    return Layout(paths, shapes, tuple(accumulate(map(prod, shapes), initial=0)), kind)


def _one_vector(arrays: list[Array], dtype: np.dtype[Any]) -> Array | None:
    """The vector that all leaves are consecutive views of, and nothing else is."""
    base = arrays[0].base if arrays else None
    if not isinstance(base, np.ndarray) or base.ndim != 1 or base.dtype != dtype or not base.flags.c_contiguous:
        return None
    start = at = _address(base)
    for x in arrays:
        here = x.base is base and x.dtype == dtype and x.flags.c_contiguous
        if not here or (x.size and _address(x) != at):
            return None
        at += x.nbytes
    return base if at - start == base.nbytes else None


def _address(x: Array) -> int:
    return int(x.__array_interface__["data"][0])
