"""A chain of layers, followed: which inputs of a layer come from which outputs of the layer before."""

from collections.abc import Collection, Iterable
from typing import Any

from torch import nn

from comity.core.checks import refusal
from comity.core.errors import ConfigError
from comity.core.nodes import Nodes, chained

LAYERS = (nn.Conv2d, nn.Linear)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
_POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveMaxPool2d, nn.AdaptiveAvgPool2d)
_FREE = (
    nn.Identity, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Tanh,
    nn.Hardswish, nn.Softsign, nn.Dropout, nn.Dropout2d,
)  # fmt: skip
"""What acts on each number alone and leaves 0 as it is."""
ADVICE = "Shrink a chain of Conv2d, Linear, BatchNorm, ReLU, pooling and Flatten."


def followed(net: nn.Module) -> list[tuple[str, Any, int]]:
    """The layers from the first to the last that has weights, with their names.

    The number beside each says how many of its inputs every channel or neuron of the Conv2d or Linear before it makes:
    several where a channel was flattened, 0 where there is none before.

    Raises:
        ConfigError: no chain, or a layer that cannot be followed; it is named.
    """
    layers, out, full, maps, flattened = _chain(net), [], 0, False, False
    for name, layer in layers[: _last(layers) + 1]:
        kind = type(layer)
        if not full and kind not in LAYERS and not any(True for _ in layer.parameters()):
            out.append((name, layer, 0))
            continue
        _understood(name, layer)
        if full and kind in (*LAYERS, *NORMS):
            _kind_fits(name, kind in (nn.Conv2d, nn.BatchNorm2d), maps)
        out.append((name, layer, _each(name, layer, full, flattened)))
        if kind is nn.Flatten:
            flattened, maps = flattened or maps, False
        elif kind in LAYERS:
            full, maps, flattened = layer.weight.shape[0], kind is nn.Conv2d, False
    return out


def nodes_of(net: nn.Module, leaves: Collection[str]) -> tuple[Nodes, ...]:
    """The nodes of the hidden layers of a chain; those with a weight that is none of `leaves` (frozen) are left out.

    Raises:
        ConfigError: as `followed`.
    """
    made = chained([(name, each) for name, layer, each in followed(net) if type(layer) in LAYERS])
    return tuple(group for group in made if all(leaf in leaves for leaf, _, _ in group.places))


def _chain(net: Any, path: str = "") -> list[tuple[str, Any]]:
    """The layers in order, by name; each stands once."""
    if type(net) is not nn.Sequential:
        if path:
            return [(path, net)]
        raise refusal("net", "shrink", "an nn.Sequential", net, ADVICE)
    prefix = f"{path}." if path else ""
    found = [pair for name, module in net.named_children() for pair in _chain(module, f"{prefix}{name}")]
    if not path and (len(net) == 0 or len({id(module) for _, module in found}) != _count(net)):
        raise ConfigError(f"The 'net' of shrink must use each layer once. Got one that is there again. {ADVICE}")
    return found


def _count(net: nn.Sequential) -> int:
    return sum(_count(module) if type(module) is nn.Sequential else 1 for module in net)


def _last(layers: Iterable[tuple[str, Any]]) -> int:
    """The place of the last layer with weights: its outputs are the answer, and stay."""
    places = [i for i, (_, layer) in enumerate(layers) if type(layer) in LAYERS]
    if not places:
        raise ConfigError(f"The 'net' of shrink must have a Conv2d or Linear. Got none. {ADVICE}")
    return places[-1]


def _understood(name: str, layer: Any) -> None:
    kind = type(layer)
    fine = kind in (*LAYERS, *NORMS, *_POOLS, *_FREE, nn.Flatten)
    why = ""
    if fine and kind is nn.Conv2d and layer.groups != 1:
        fine, why = False, f" with {layer.groups} groups"
    if fine and kind in NORMS and (layer.weight is None or layer.running_mean is None):
        fine, why = False, " without weights or running statistics"
    if fine and kind is nn.Flatten and (layer.start_dim, layer.end_dim) != (1, -1):
        fine, why = False, f" from axis {layer.start_dim} to {layer.end_dim}"
    if fine and getattr(layer, "return_indices", False):
        fine, why = False, " that returns indices"
    if not fine:
        raise ConfigError(f"The layer '{name}' must be one that shrink can follow. Got {kind.__name__}{why}. {ADVICE}")


def _kind_fits(name: str, wants: bool, maps: bool) -> None:
    if maps != wants:
        what = ("maps", "rows") if wants else ("rows", "maps")
        raise ConfigError(f"The layer '{name}' must be given {what[0]}. Got {what[1]}. Put a Flatten between.")


def _each(name: str, layer: Any, full: int, flattened: bool) -> int:
    """How many of a layer's inputs each output of the layer before makes."""
    kind = type(layer)
    if not full or kind not in (*LAYERS, *NORMS):
        return int(bool(full))
    features = layer.num_features if kind in NORMS else layer.weight.shape[1]
    each, more = divmod(features, full)
    if more or (each != 1 and not flattened):
        raise ConfigError(f"The layer '{name}' must take {full} channels. Got {features}. {ADVICE}")
    return int(each)
