"""What all adapters share: the order of the samples, one flat vector in and out, the settings they accept."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from comity.core.checks import number, shown, whole
from comity.core.contribution import Array, Metrics, Tree
from comity.core.errors import ConfigError, nearest
from comity.core.parts import Step
from comity.core.round import Round
from comity.core.tree import Layout, ravel

_WITHIN = {"rate": "[0, inf)", "epochs": "[0, inf)", "decay": "[0, inf)", "momentum": "[0, 1)"}


def epochs_of(n: int, epochs: float, round: Round) -> Iterator[Array]:
    """The order of the samples in each epoch, the same in every adapter.

    Args:
        n: samples, >= 1.
        epochs: >= 0; the last one may be a part: 1.5 epochs end after the first half of the second order.
        round: keys the orders.

    Yields:
        (samples of the epoch,) int64.
    """
    for e in range(int(np.ceil(epochs))):
        yield round.order(n, "shuffle", str(e))[: int(np.ceil(min(1.0, epochs - e) * n - 1e-9))]


def flat(params: Tree, layout: Layout, who: str) -> Array:
    """`params` as one vector, after a check that they are of this model. Do not write to it: it may be theirs.

    Raises:
        ConfigError: a name or shape is not the model's.
    """
    names = [path[0] for path in layout.paths]
    if not isinstance(params, Mapping) or params.keys() != set(names):
        got = sorted(map(str, params)) if isinstance(params, Mapping) else shown(params)
        raise ConfigError(f"The parameters of {who} must be named {names}. Got {got}. Use those of the same model.")
    for name, shape in zip(names, layout.shapes, strict=True):
        if np.shape(params[name]) != shape:
            raise ConfigError(
                f"'{name}' of {who} must have shape {shape}. Got {np.shape(params[name])}. Use those of the same model."
            )
    return ravel(params, layout)


def settings(model: Any, *names: str) -> None:
    """Refuse settings out of range, and keep each as plain Python has it.

    Raises:
        ConfigError: rate, epochs or decay not finite and >= 0, momentum not in [0, 1), or batch or inputs not whole
            and >= 1.
    """
    who = type(model).__name__
    for name in names:
        value = getattr(model, name)
        plain = number(name, who, value, _WITHIN[name]) if name in _WITHIN else whole(name, who, value, 1)
        object.__setattr__(model, name, plain)


def refuse(step: Step, who: str, offers: Sequence[str]) -> None:
    """Refuse what a step asks for and a model does not offer.

    Raises:
        ConfigError: names the field and says what to use.
    """
    for name in ("loss", "adjust", "mask", "private"):
        if getattr(step, name) is not None and name not in offers:
            advice = "Leave it out; noise can be added by a transform" if name == "private" else "Use a TorchModel"
            raise ConfigError(
                f"A Step for {who} must hold what it offers. Got Step({name}=...), not offered yet. {advice}."
            )


def taken(taps: Sequence[str], known: Sequence[str], who: str) -> None:
    """Refuse taps that do not exist.

    Raises:
        ConfigError: names the tap and the nearest one that exists.
    """
    for tap in taps:
        if tap not in known:
            raise ConfigError(
                f"A tap of {who} must be one of {list(known)}. Got {shown(tap)}.{nearest(str(tap), known)}"
            )


def measured(n: int, loss: float, count: int) -> Metrics:
    """The metrics of a fit: `examples` (rows, 1) and `train_loss` (sum over the samples seen, samples seen)."""
    return {"examples": (float(n), 1.0), "train_loss": (float(loss), float(count))}


def named(thing: Any) -> str:
    """The qualified name of a class, a function or an object's class."""
    owner = thing if hasattr(thing, "__qualname__") else type(thing)
    return f"{owner.__module__}.{owner.__qualname__}"


def over(layout: Layout, vector: Array) -> dict[str, Array]:
    """The parameters that lie in `vector`, by name: views."""
    named: dict[str, Array] = layout.tree(vector)
    return named


def mask_of(mask: Tree, layout: Layout, who: str) -> Array | None:
    """A step's mask as one vector of bools; a leaf that is not named may move.

    Raises:
        ConfigError: a name is not the model's, or a leaf does not fit.
    """
    if mask is None:
        return None
    out = np.ones(layout.size, bool)
    views = layout.tree(out)
    if not isinstance(mask, Mapping) or not mask.keys() <= views.keys():
        raise ConfigError(f"The mask of {who} must be a Tree of {sorted(views)}. Got {mask!r:.80}. Name its leaves so.")
    for name, leaf in mask.items():
        if np.shape(leaf) != views[name].shape:
            raise ConfigError(f"The mask '{name}' must have shape {views[name].shape}. Got {np.shape(leaf)}.")
        views[name][...] = np.asarray(leaf) != 0
    return out
