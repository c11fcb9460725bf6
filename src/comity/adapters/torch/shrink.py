"""Whole channels and neurons taken out of a network, with all that led to them and from them: it becomes smaller.

A chain of layers is followed from input to output. Each Conv2d or Linear but the last loses outputs, its BatchNorm the
same, and the next Conv2d or Linear the inputs that came from them.
"""

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from comity.core.checks import is_number, number, refusal, shown, word
from comity.core.errors import ConfigError, nearest

_LAYERS = (nn.Conv2d, nn.Linear)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
_POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveMaxPool2d, nn.AdaptiveAvgPool2d)
_FREE = (
    nn.Identity, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Tanh,
    nn.Hardswish, nn.Softsign, nn.Dropout, nn.Dropout2d,
)  # fmt: skip
"""What acts on each number alone and leaves 0 as it is."""
_ADVICE = "Shrink a chain of Conv2d, Linear, BatchNorm, ReLU, pooling and Flatten."


@dataclass
class _Stream:
    """What flows between two layers: which channels of how many are left, maps or rows."""

    left: Tensor | None = None
    full: int = 0
    maps: bool = False
    flattened: bool = False

    def of(self, name: str, features: int) -> Tensor | None:
        """Which of a layer's inputs are left; a channel that was flattened is several of them."""
        if self.left is None:
            return None
        each, more = divmod(features, self.full)
        if more or (each != 1 and not self.flattened):
            raise ConfigError(f"The layer '{name}' must take {self.full} channels. Got {features}. {_ADVICE}")
        return (self.left[:, None] * each + torch.arange(each)).reshape(-1)


def shrink(net: nn.Module, keep: float | Mapping[str, float], *, by: str = "weights") -> nn.Module:
    """A copy of a network without its weakest channels and neurons: a smaller, ordinary, dense network.

    In every layer but the last that makes channels, the given share of outputs stays; the others go with the weights
    that led to them and from them. It computes what the network computes when these channels are zero, and is faster on
    any device. Train it on for some rounds: what was learnt in other channels leaned on them.

    The strength of a channel is the sum of the magnitudes of the weights that lead to it (Li et al., ICLR 2017), or the
    magnitude of its weight in the BatchNorm right after (Liu et al., ICCV 2017, network slimming). Departures: slimming
    ranks the channels of all layers together, here each layer keeps its share; and a layer without a BatchNorm right
    after it is always ranked by weights.

    Args:
        net: an nn.Sequential, nested or not, of Conv2d (one group), BatchNorm, Linear, activations that leave 0 as it
            is, dropout, pooling and Flatten; it is not changed. What follows the last Conv2d or Linear may be anything.
        keep: the share of outputs that stays, (0, 1], rounded, at least one; or {name of a layer: share}.
        by: "weights" or "scale".

    Returns:
        The copy; names of layers are the same.

    Raises:
        ConfigError: a setting out of range, or a layer that is none of these; it is named.

    Example:
        >>> import torch, comity as co
        >>> net = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2))
        >>> co.shrink(net, 0.25)
        Sequential(
          (0): Linear(in_features=8, out_features=4, bias=True)
          (1): ReLU()
          (2): Linear(in_features=4, out_features=2, bias=True)
        )
    """
    left = nodes(net, keep, by=by)
    small = copy.deepcopy(net)
    stream = _Stream()
    layers = _chain(small)
    last = _last(layers)
    for name, layer in layers[: last + 1]:
        _cut(name, layer, stream, left.get(name))
    return small


def nodes(net: nn.Module, keep: float | Mapping[str, float], *, by: str = "weights") -> dict[str, Tensor]:
    """Which outputs `shrink` keeps: layer to (kept,) int64, rising.

    Raises:
        ConfigError: as `shrink`.
    """
    word("by", "shrink", by, ("weights", "scale"))
    layers = _chain(net)
    last = _last(layers)
    for name, layer in layers[:last]:
        _understood(name, layer)
    makers = [(i, name, layer) for i, (name, layer) in enumerate(layers[:last]) if isinstance(layer, _LAYERS)]
    if not makers:
        raise ConfigError(f"The 'net' of shrink must have a hidden layer. Got none. {_ADVICE}")
    shares = _shares(keep, [name for _, name, _ in makers])
    return {
        name: _strongest(_strength(layer, layers[i + 1][1], by), shares[name])
        for i, name, layer in makers
        if name in shares
    }


def _shares(keep: Any, names: Sequence[str]) -> dict[str, float]:
    if not isinstance(keep, Mapping):
        if not is_number(keep):
            raise refusal("keep", "shrink", "a number in (0, 1], or such numbers by layer", keep)
        return dict.fromkeys(names, number("keep", "shrink", keep, "(0, 1]"))
    for name in keep:
        if name not in names:
            near = nearest(str(name), names) or f" There are {', '.join(names[:8])}."
            raise ConfigError(f"The 'keep' of shrink must name hidden layers. Got {shown(name)}.{near}")
    return {name: number(f"keep['{name}']", "shrink", share, "(0, 1]") for name, share in keep.items()}


def _chain(net: Any, path: str = "") -> list[tuple[str, Any]]:
    """The layers in order, by name; each stands once."""
    if type(net) is not nn.Sequential:
        if path:
            return [(path, net)]
        raise refusal("net", "shrink", "an nn.Sequential", net, _ADVICE)
    prefix = f"{path}." if path else ""
    found = [pair for name, module in net.named_children() for pair in _chain(module, f"{prefix}{name}")]
    if not path and (len(net) == 0 or len({id(module) for _, module in found}) != _count(net)):
        raise ConfigError(f"The 'net' of shrink must use each layer once. Got one that is there again. {_ADVICE}")
    return found


def _count(net: nn.Sequential) -> int:
    return sum(_count(module) if type(module) is nn.Sequential else 1 for module in net)


def _last(layers: Iterable[tuple[str, Any]]) -> int:
    """The place of the last layer with weights: its outputs are the answer, and stay."""
    places = [i for i, (_, layer) in enumerate(layers) if type(layer) in _LAYERS]
    if not places:
        raise ConfigError(f"The 'net' of shrink must have a Conv2d or Linear. Got none. {_ADVICE}")
    return places[-1]


def _understood(name: str, layer: Any) -> None:
    kind = type(layer)
    fine = kind in (*_LAYERS, *_NORMS, *_POOLS, *_FREE, nn.Flatten)
    why = ""
    if fine and kind is nn.Conv2d and layer.groups != 1:
        fine, why = False, f" with {layer.groups} groups"
    if fine and kind in _NORMS and (layer.weight is None or layer.running_mean is None):
        fine, why = False, " without weights or running statistics"
    if fine and kind is nn.Flatten and (layer.start_dim, layer.end_dim) != (1, -1):
        fine, why = False, f" from axis {layer.start_dim} to {layer.end_dim}"
    if fine and getattr(layer, "return_indices", False):
        fine, why = False, " that returns indices"
    if not fine:
        raise ConfigError(f"The layer '{name}' must be one that shrink can follow. Got {kind.__name__}{why}. {_ADVICE}")


def _strength(layer: Any, after: Any, by: str) -> Tensor:
    weight: Tensor = (after if by == "scale" and type(after) in _NORMS else layer).weight.detach()
    return weight.abs().reshape(len(weight), -1).sum(1)


def _strongest(strength: Tensor, share: float) -> Tensor:
    """The places of the strongest, rising; of equals the first."""
    kept = max(1, round(share * len(strength)))
    order = torch.argsort(strength.cpu(), descending=True, stable=True)
    return order[:kept].sort().values


def _cut(name: str, layer: Any, stream: _Stream, left: Tensor | None) -> None:
    """Take out of a layer what is gone before it, and what shall go after it."""
    _understood(name, layer)
    kind = type(layer)
    if kind is nn.Flatten:
        stream.flattened, stream.maps = stream.flattened or stream.maps, False
    elif kind in _NORMS:
        _kind_fits(name, kind is nn.BatchNorm2d, stream)
        _cut_norm(layer, stream.of(name, layer.num_features))
    elif kind in _LAYERS:
        if stream.full:
            _kind_fits(name, kind is nn.Conv2d, stream)
        inputs = stream.of(name, layer.weight.shape[1])
        stream.full, stream.left, stream.maps = layer.weight.shape[0], left, kind is nn.Conv2d
        stream.flattened = False
        _cut_layer(layer, inputs, left)


def _kind_fits(name: str, maps: bool, stream: _Stream) -> None:
    if stream.full and maps != stream.maps:
        what = ("maps", "rows") if maps else ("rows", "maps")
        raise ConfigError(f"The layer '{name}' must be given {what[0]}. Got {what[1]}. Put a Flatten between.")


@torch.no_grad()
def _cut_layer(layer: Any, inputs: Tensor | None, outputs: Tensor | None) -> None:
    weight = layer.weight if inputs is None else layer.weight[:, inputs]
    weight = weight if outputs is None else weight[outputs]
    layer.weight = nn.Parameter(weight.clone(), layer.weight.requires_grad)
    if layer.bias is not None and outputs is not None:
        layer.bias = nn.Parameter(layer.bias[outputs].clone(), layer.bias.requires_grad)
    names = ("out_channels", "in_channels") if isinstance(layer, nn.Conv2d) else ("out_features", "in_features")
    for name, n in zip(names, weight.shape, strict=False):
        setattr(layer, name, n)


@torch.no_grad()
def _cut_norm(norm: Any, left: Tensor | None) -> None:
    if left is None:
        return
    for name in ("weight", "bias"):
        own = getattr(norm, name)
        setattr(norm, name, nn.Parameter(own[left].clone(), own.requires_grad))
    norm.running_mean, norm.running_var = norm.running_mean[left].clone(), norm.running_var[left].clone()
    norm.num_features = len(left)
