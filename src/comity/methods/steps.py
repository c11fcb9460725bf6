"""What several methods do with parameters and gradients: begin, add a change, put vectors side by side."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from comity.core.checks import shown
from comity.core.contribution import Array, Tree
from comity.core.errors import ConfigError
from comity.core.parts import Model
from comity.core.round import Round
from comity.core.scores import scores
from comity.core.tree import Layout, is_branch, leaves, ravel, tree_map, unravel
from comity.methods.training import Examples, predicted

LEAST_LOSS = 1e-10
"""A loss is at least this, so that any power of it is finite."""


def first(model: Model, round: Round, start: Tree = None) -> Any:
    """The parameters to begin with: `start` in the dtypes of the model, or the model's own.

    Raises:
        ConfigError: a start with other names or shapes than the model's, or with values that are no finite numbers;
            names the leaf.
    """
    own: Any = model.init(round)
    if start is None:
        return own
    new = _like(own, start, "")
    return unravel(ravel(new), new)


def start_fits(model: Model, start: Tree) -> None:
    """Look at a start when a method is made: in a run its folder would already be there.

    Raises:
        ConfigError: as `first`.
    """
    if start is not None:
        first(model, Round("start", 0), start)


def as_dict(tree: Any) -> dict[str, Any]:
    """A Tree that is known to be a dict: a plain copy of its first level."""
    return dict(tree)


def zeros_like(tree: Tree) -> Any:
    """A Tree of zeros that looks like `tree`, over one flat vector."""
    return unravel(np.zeros_like(ravel(tree)), tree)


def added(params: Tree, change: Tree) -> Any:
    """params + change in the dtypes of the parameters, over one flat vector; neither is changed."""
    layout, moves = Layout.of(params), Layout.of(change)
    if (layout.paths, layout.shapes) != (moves.paths, moves.shapes) or len({x.dtype for _, x in leaves(params)}) != 1:
        new = tree_map(_moved, params, change)
        return unravel(ravel(new), new)
    new = layout.tree(np.empty(layout.size, layout.dtype))
    for (_, to), (_, p), (_, d) in zip(leaves(new), leaves(params), leaves(change), strict=True):
        np.add(p, d, out=to, casting="unsafe")  # as (p + d).astype(p.dtype), without the sum between
    return new


def scaled(tree: Any, by: float, model: Model) -> Any:
    """A change times a number; statistics (BatchNorm) are not steps and stay as they are."""
    return {k: v if k in model.statistics else tree_map(lambda x: by * x, v) for k, v in tree.items()}


def without_statistics(tree: Any, model: Model) -> Any:
    """The same Tree with zeros in the place of statistics."""
    return {k: np.zeros_like(v) if k in model.statistics else v for k, v in tree.items()}


def beside(vector: Any, params: Any) -> Any:
    """A numpy vector in the array library of `params`, and where they lie."""
    there = getattr(params, "new_tensor", None)
    return vector if there is None else there(vector)


def as_numpy(vector: Any) -> Array:
    """A vector of any array library as a numpy array of its own."""
    return np.array(vector.cpu().numpy() if hasattr(vector, "cpu") else vector)


def training_loss(who: Examples, params: Tree, buffers: Tree) -> float:
    """The mean loss on a participant's own examples: cross-entropy in nats, or the mean squared error.

    Args:
        who: whose model and examples; its data are (X, y).
        params: of the model.
        buffers: the site's own, {} where there are none.
    """
    x, y = who.data
    found = scores(predicted(who.model, params, buffers, x), np.asarray(y))
    total, rows = found.get("log_loss") or found["mse"]
    return max(total / max(rows, 1.0), LEAST_LOSS)


def _moved(p: Any, d: Any) -> Any:
    return (p + d).astype(p.dtype)


def _like(own: Any, start: Any, path: str) -> Any:
    """What was given in place of the model's own values at `path`."""
    if not is_branch(own):
        return _leaf(np.asarray(own), start, path)
    if not isinstance(start, Mapping):
        raise _refused(f"a Tree with {_names(own)}{f' below {path!r}' if path else ''}", shown(start))
    for name in sorted({*own, *start}, key=str):
        if name not in own or name not in start:
            raise _refused(f"a Tree with {_names(own)}", f"{'no' if name in own else 'also'} '{path}{name}'")
    return {name: _like(leaf, start[name], f"{path}{name}.") for name, leaf in own.items()}


def _leaf(own: Array, given: Any, path: str) -> Array:
    name = path.removesuffix(".")
    try:
        found = np.asarray(given)
    except (TypeError, ValueError):
        found = np.empty(0, "O")
    if found.dtype.kind not in "fiub" or found.shape != own.shape:
        raise _refused(f"like the model: '{name}' an array of shape {own.shape}", shown(given))
    with np.errstate(over="ignore"):
        out = np.array(found, own.dtype)
    if not np.isfinite(out).all():
        raise _refused("finite numbers", f"NaN or infinity in '{name}'")
    return out


def _names(tree: Any) -> str:
    names = sorted(map(str, tree))
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _refused(must: str, got: str) -> ConfigError:
    return ConfigError(f"The 'start' must be {must}. Got {got}. Use the parameters of a run of the same model.")
