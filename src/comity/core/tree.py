"""Plain nested dicts with arrays for leaves: walk them, map over them, lay them out as one flat vector.

The canonical order of a Tree is that of its sorted names at every level, whatever order they were put in.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
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
        return {k: tree_map(f, v) for k, v in tree.items()}
    return {k: tree_map(f, v, *(r[k] if is_branch(r) else r for r in rest)) for k, v in tree.items()}


def is_branch(x: Any) -> TypeGuard[Mapping[str, Any]]:
    """Does `x` hold more of the Tree? Quick for what mostly stands in one: an abstract class is slow to ask."""
    kind = type(x)
    return kind is dict or (kind is not np.ndarray and kind is not float and isinstance(x, Mapping))


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
        sizes = np.cumsum([0, *(x.size for _, x in pairs)])
        kind = dtype or (np.result_type(*{x.dtype for _, x in pairs}).name if pairs else "float64")
        return cls(tuple(p for p, _ in pairs), tuple(x.shape for _, x in pairs), tuple(map(int, sizes)), kind)

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
    layout = layout or Layout.of(tree)
    arrays = [np.asarray(x) for _, x in leaves(tree)]
    if whole := _one_vector(arrays, layout):
        return whole[0]
    if not arrays:
        return np.zeros(0, layout.dtype)
    return np.concatenate([x.ravel() for x in arrays]).astype(layout.dtype, copy=False)


def unravel(vector: Array, tree: Tree) -> Any:
    """A Tree shaped as `tree` whose leaves are views of `vector`; of several dtypes, each is cast to its own."""
    shaped = Layout.of(tree).tree(vector)
    if len({np.asarray(x).dtype for _, x in leaves(tree)}) <= 1:
        return shaped
    return tree_map(lambda v, x: v.astype(np.asarray(x).dtype, copy=False), shaped, tree)


def _one_vector(arrays: list[Array], layout: Layout) -> list[Array]:
    """[the vector] that all leaves are consecutive views of, or []."""
    base = arrays[0].base if arrays else None
    if not isinstance(base, np.ndarray) or base.ndim != 1 or base.size != layout.size or base.dtype != layout.dtype:
        return []
    if not base.flags.c_contiguous:
        return []
    start, item = base.ctypes.data, base.itemsize
    for x, offset in zip(arrays, layout.offsets, strict=False):
        here = x.base is base and x.flags.c_contiguous and x.dtype == base.dtype
        if not here or (x.size and x.ctypes.data != start + offset * item):
            return []
    return [base]
