"""BatchNorm folded into the layer before it: for use, a normalisation is only a scale and a shift of its outputs."""

import copy
from collections import Counter
from typing import Any

import torch
from torch import fx, nn

from comity.core.checks import refusal
from comity.core.errors import ConfigError

_PAIRS: dict[type, tuple[type, ...]] = {
    nn.BatchNorm1d: (nn.Linear, nn.Conv1d, nn.ConvTranspose1d),
    nn.BatchNorm2d: (nn.Conv2d, nn.ConvTranspose2d),
    nn.BatchNorm3d: (nn.Conv3d, nn.ConvTranspose3d),
}
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def fold(net: nn.Module) -> nn.Module:
    """A copy of a network, in evaluation mode, whose BatchNorms are folded into the layers before them.

    With running mean m, variance v, weight g and bias b of the BatchNorm, W becomes W·s and the layer's bias c becomes
    (c - m)·s + b, with s = g / sqrt(v + eps) for each output channel (Jacob et al., CVPR 2018, section 3.2). A folded
    BatchNorm becomes an Identity, so that all other names stay. Outputs differ by rounding; zeros in W stay zeros.

    A BatchNorm stays where it is when no such layer comes right before it, when others read that layer's outputs too,
    when either is used more than once, or when it keeps no running statistics. The outputs of a Linear are taken as
    (rows, features).

    Args:
        net: any nn.Module that torch.fx can follow; it is not changed.

    Raises:
        ConfigError: no nn.Module, or one whose Python looks at values.

    Example:
        >>> import torch, comity as co
        >>> net = torch.nn.Sequential(torch.nn.Linear(3, 4, bias=False), torch.nn.BatchNorm1d(4)).eval()
        >>> x, small = torch.ones(2, 3), co.fold(net)
        >>> small[1], bool(torch.allclose(small(x), net(x), atol=1e-6))
        (Identity(), True)
    """
    if not isinstance(net, nn.Module):
        raise refusal("net", "fold", "an nn.Module", net)
    folded = copy.deepcopy(net).eval()
    for before, name in _pairs(folded):
        norm: Any = folded.get_submodule(name)
        _fold_into(folded.get_submodule(before), norm)
        path, _, leaf = name.rpartition(".")
        setattr(folded.get_submodule(path), leaf, nn.Identity())
    return folded


def _pairs(net: nn.Module) -> list[tuple[str, str]]:
    """The names of layer and BatchNorm, wherever one can be folded into the other."""
    try:
        graph = fx.Tracer().trace(net)
    except Exception as error:
        said = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise ConfigError(
            f"The 'net' of fold must be one that torch.fx can follow. Got {type(net).__name__}, of which it says: "
            f"{said[0][:120].rstrip('.')}. Fold its parts."
        ) from error
    held = {name: id(module) for name, module in net.named_modules(remove_duplicate=False)}
    calls = [node for node in graph.nodes if node.op == "call_module"]
    uses = Counter(held[str(node.target)] for node in calls)
    found = []
    for node in calls:
        before = node.args[0] if node.args else None
        if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) != 1:
            continue
        first, second = str(before.target), str(node.target)
        if uses[held[first]] == uses[held[second]] == 1 and _fit(net.get_submodule(first), net.get_submodule(second)):
            found.append((first, second))
    return found


def _fit(layer: nn.Module, norm: nn.Module) -> bool:
    """Exact types only: what was derived from them may do something else."""
    return type(layer) in _PAIRS.get(type(norm), ()) and getattr(norm, "running_mean", None) is not None


@torch.no_grad()
def _fold_into(layer: Any, norm: Any) -> None:
    """In float64: only the result is rounded."""
    weight, dtype = layer.weight.double(), layer.weight.dtype
    gamma = 1.0 if norm.weight is None else norm.weight.double()
    beta = 0.0 if norm.bias is None else norm.bias.double()
    scale = gamma / (norm.running_var.double() + norm.eps).sqrt()
    shift = beta + ((0.0 if layer.bias is None else layer.bias.double()) - norm.running_mean.double()) * scale
    if isinstance(layer, _TRANSPOSED):  # (inputs, outputs / groups, ...), the inputs of a group together
        rows = scale.reshape(layer.groups, 1, -1).expand(-1, weight.shape[0] // layer.groups, -1)
        scaled = weight * rows.reshape(weight.shape[0], -1, *[1] * (weight.ndim - 2))
    else:
        scaled = weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
    train = layer.weight.requires_grad
    layer.weight = nn.Parameter(scaled.to(dtype), requires_grad=train)
    layer.bias = nn.Parameter(shift.to(dtype), requires_grad=train)
