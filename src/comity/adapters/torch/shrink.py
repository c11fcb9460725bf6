"""Whole channels and neurons taken out of a network, with all that led to them and from them: it becomes smaller.

A chain of layers is followed from input to output. Each Conv2d or Linear but the last loses outputs, its BatchNorm the
same, and the next Conv2d or Linear the inputs that came from them.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from comity.adapters.torch.chain import ADVICE, LAYERS, NORMS, followed, nodes_of
from comity.core.checks import is_number, number, refusal, shown, word
from comity.core.errors import ConfigError, nearest


def shrink(
    net: nn.Module,
    keep: float | Mapping[str, float] | None = None,
    *,
    by: str = "weights",
    mask: Mapping[str, Any] | None = None,
) -> nn.Module:
    """A copy of a network without its weakest channels and neurons: a smaller, ordinary, dense network.

    In every layer but the last that makes channels, the given share of outputs stays; the others go with the weights
    that led to them and from them. It computes what the network computes when these channels are zero, and is faster on
    any device. Train it on for some rounds: what was learnt in other channels leaned on them.

    With a mask exactly those go of whose weights none is kept: neither one that leads to them nor one that reads them.
    That is what `Tickets(prune="nodes")` makes, and nothing changes then: the small network gives the outputs of the
    masked one in evaluation mode, but for rounding. Of a layer of which nothing is kept the first node stays.

    The strength of a channel is the sum of the magnitudes of the weights that lead to it (Li et al., ICLR 2017), or the
    magnitude of its weight in the BatchNorm right after (Liu et al., ICCV 2017, network slimming). Departures: slimming
    ranks the channels of all layers together, here each layer keeps its share; and a layer without a BatchNorm right
    after it is always ranked by weights.

    Args:
        net: an nn.Sequential, nested or not, of Conv2d (one group), BatchNorm, Linear, activations that leave 0 as it
            is, dropout, pooling and Flatten; it is not changed. What follows the last Conv2d or Linear may be anything,
            and so may what comes before the first, if it has no parameters.
        keep: the share of outputs that stays, (0, 1], rounded, at least one; or {name of a layer: share}; None with a
            mask.
        by: "weights" or "scale"; of no account with a mask.
        mask: in the place of `keep`: {name of a parameter: array}, where not 0 is kept: a mask, or the parameters
            themselves. What it does not name is kept. The weights of `net` are to be 0 where it is.

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
    small, before, left = copy.deepcopy(net), None, _left(net, keep, by, mask)
    for name, layer, each in followed(small):
        inputs = None if before is None else (before[:, None] * each + torch.arange(each)).reshape(-1)
        if type(layer) in NORMS:
            _cut_norm(layer, inputs)
        elif type(layer) in LAYERS:
            before = left.get(name)
            _cut_layer(layer, inputs, before)
    return small


def nodes(net: nn.Module, keep: float | Mapping[str, float], *, by: str = "weights") -> dict[str, Tensor]:
    """Which outputs `shrink` keeps: layer to (kept,) int64, rising.

    Raises:
        ConfigError: as `shrink`.
    """
    word("by", "shrink", by, ("weights", "scale"))
    layers = followed(net)[:-1]
    makers = [(i, name, layer) for i, (name, layer, _) in enumerate(layers) if type(layer) in LAYERS]
    if not makers:
        raise _no_hidden()
    shares = _shares(keep, [name for _, name, _ in makers])
    after = [layer for _, layer, _ in layers[1:]] + [None]
    return {
        name: _strongest(_strength(layer, after[i], by), shares[name]) for i, name, layer in makers if name in shares
    }


def _left(net: nn.Module, keep: Any, by: str, mask: Any) -> dict[str, Tensor]:
    if (keep is None) == (mask is None):
        got = "neither" if mask is None else "both"
        raise ConfigError(
            f"The 'keep' of shrink must be given, or 'mask' in its place. Got {got}. Use shrink(net, 0.5)."
        )
    return nodes(net, keep, by=by) if mask is None else _alive(net, mask)


def _no_hidden() -> ConfigError:
    return ConfigError(f"The 'net' of shrink must have a hidden layer. Got none. {ADVICE}")


def _alive(net: nn.Module, mask: Any) -> dict[str, Tensor]:
    """Which outputs have a weight that is kept, as `nodes` gives it."""
    own = {name: p.detach() for name, p in (*net.named_parameters(), *net.named_buffers())}
    groups = nodes_of(net, own)
    if not groups:
        raise _no_hidden()
    if not isinstance(mask, Mapping):
        raise refusal("mask", "shrink", "{name of a parameter: array}", mask, "Use the mask of a ticket.")
    seen = {name: np.ones(tuple(p.shape), bool) for name, p in own.items()}
    for name, given in mask.items():
        if name not in seen or np.shape(given) != seen[name].shape:
            must = f"'{name}' of shape {seen[name].shape}" if name in seen else "names of the net's parameters"
            raise ConfigError(
                f"The 'mask' of shrink must have {must}. Got {shown(given if name in seen else name)}. "
                "Use that of the same network."
            )
        seen[name] = np.asarray(given) != 0
    found = {group.name: np.flatnonzero(group.alive(seen)) for group in groups}
    return {name: torch.from_numpy(kept if len(kept) else np.zeros(1, "int64")) for name, kept in found.items()}


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


def _strength(layer: Any, after: Any, by: str) -> Tensor:
    weight: Tensor = (after if by == "scale" and type(after) in NORMS else layer).weight.detach()
    return weight.abs().reshape(len(weight), -1).sum(1)


def _strongest(strength: Tensor, share: float) -> Tensor:
    """The places of the strongest, rising; of equals the first."""
    kept = max(1, round(share * len(strength)))
    order = torch.argsort(strength.cpu(), descending=True, stable=True)
    return order[:kept].sort().values


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
