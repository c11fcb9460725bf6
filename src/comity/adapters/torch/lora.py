"""LoRA: a large network stays as it is, and small matrices beside its layers are trained (Hu et al., ICLR 2022, eq. 3).

A layer W is frozen and becomes W + alpha/rank·B·A: A (rank, inputs) begins at random, B (outputs, rank) at zero. Frozen
leaves do not travel, so of an (outputs, inputs) layer rank·(inputs + outputs) numbers do.
"""

import copy
import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from comity.core.checks import flag, number, refusal, seeded, shown, whole
from comity.core.errors import ConfigError, nearest


class LowRank(nn.Module):
    """A frozen Linear or Embedding with a low-rank change beside it.

    Other modules may read its `weight` (attention layers of torch do): it is W + scale·B·A.

    Args:
        layer: kept as it is, and frozen.
        rank: of the change, >= 1.
        scale: alpha/rank.
        first: (rank, inputs), A to begin with.
    """

    def __init__(self, layer: nn.Linear | nn.Embedding, rank: int, scale: float, first: Tensor) -> None:
        super().__init__()
        self.layer, self.rank, self.scale = layer.requires_grad_(False), rank, scale
        outputs = layer.weight.shape[1 if isinstance(layer, nn.Embedding) else 0]
        self.A = nn.Parameter(first)
        self.B = nn.Parameter(first.new_zeros(outputs, rank))

    def forward(self, x: Tensor) -> Tensor:
        """What the layer gives, and the change: two thin products in place of a whole matrix."""
        out: Tensor = self.layer(x)
        if isinstance(self.layer, nn.Embedding):
            inner = functional.embedding(x, self.A.T, self.layer.padding_idx)
        else:
            inner = functional.linear(x, self.A)
        return out + self.scale * functional.linear(inner, self.B)

    @property
    def weight(self) -> Tensor:
        """The whole weight, in the shape of the layer's own."""
        change = self.scale * (self.B @ self.A)
        return self.layer.weight + (change.T if isinstance(self.layer, nn.Embedding) else change)

    @property
    def bias(self) -> Tensor | None:
        """The layer's own."""
        return getattr(self.layer, "bias", None)

    def extra_repr(self) -> str:
        """Rank and scale, which the recipe of a run holds."""
        return f"rank={self.rank}, scale={self.scale:g}"


def lora(
    net: nn.Module,
    rank: int = 4,
    *,
    alpha: float | None = None,
    targets: Sequence[str] | None = None,
    train_a: bool = True,
    seed: int = 0,
) -> nn.Module:
    """A copy of a network in which only small low-rank changes of some layers are trained, and travel.

    At first it computes what `net` does. Everything else in it is frozen; what shall be trained whole beside the
    changes (a new last layer) gets its gradient back: `tuned.head.requires_grad_(True)`. The copy is an ordinary module
    for `TorchModel`, and all parties must hold the same frozen values: the recipe holds their hashes.

    Averaging A and B apart, as FedAvg does, is not averaging the changes: mean(B)·mean(A) is not mean(B·A). With
    train_a=False A stays as it was drawn, the average is that of the changes, less travels, and noise for privacy is
    not multiplied (FFA-LoRA: Sun et al., ICLR 2024); the changes then have less freedom for a rank.

    Departures from the paper: A is drawn from N(0, 1/inputs) (1/width for an Embedding), which the paper leaves open;
    alpha is `rank` unless given, so that alpha/rank is 1; all Linear layers are changed unless `targets` are given, not
    only attention's.

    Args:
        net: any module; it is not changed.
        rank: r of the paper, >= 1; no more than the smaller side of a layer makes sense.
        alpha: a factor of the change over `rank`, > 0; None for `rank`.
        targets: names of Linear or Embedding layers, or the last part of their names, such as ("q_proj", "v_proj");
            None for every Linear.
        train_a: is A trained, and does it travel?
        seed: of A, the same for all.

    Returns:
        The copy. `comity.adapters.torch.lora.merge` makes an ordinary network of it again.

    Raises:
        ConfigError: a setting out of range, no module, or targets that are no such layers.

    Example:
        >>> import torch, comity as co
        >>> net = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
        >>> model = co.TorchModel(co.lora(net, rank=2), torch.nn.functional.cross_entropy)
        >>> {name: x.shape for name, x in model.init(co.Round("", 0)).items()}
        {'0.A': (2, 64), '0.B': (32, 2), '2.A': (2, 32), '2.B': (10, 2)}
        >>> whole = co.TorchModel(net, torch.nn.functional.cross_entropy).init(co.Round("", 0))
        >>> sum(x.size for x in whole.values())
        2410
    """
    rank, seed = whole("rank", "lora", rank, 1), seeded("lora", seed)
    scale = 1.0 if alpha is None else number("alpha", "lora", alpha, "(0, inf)") / rank
    train_a = flag("train_a", "lora", train_a)
    if not isinstance(net, nn.Module) or any(isinstance(m, LowRank) for m in net.modules()):
        raise refusal("net", "lora", "an nn.Module without changes of lora", net, "Use the network itself.")
    tuned = copy.deepcopy(net).requires_grad_(False)
    chosen = _chosen(tuned, targets)
    generator = torch.Generator().manual_seed(seed)
    made: dict[int, LowRank] = {}
    for name, layer in chosen:
        if id(layer) not in made:
            made[id(layer)] = LowRank(layer, rank, scale, _drawn(layer, rank, generator))
            made[id(layer)].A.requires_grad_(train_a)
        tuned = _put(tuned, name, made[id(layer)])
    return tuned


def merge(net: nn.Module) -> nn.Module:
    """A copy of a network of `lora` whose changes are in its weights: the network as it was, with other values.

    All its parameters require gradients again. Layers that shared one weight no longer do where they were changed.

    Args:
        net: of `lora`, or any module that holds some; `model.load(net, run.shared)` puts what was learnt into it.

    Raises:
        ConfigError: nothing in it is of `lora`.

    Example:
        >>> import torch, comity as co
        >>> net = torch.nn.Linear(3, 2)
        >>> torch.equal(merge(co.lora(net)).weight, net.weight)
        True
    """
    if not isinstance(net, nn.Module) or not any(isinstance(m, LowRank) for m in net.modules()):
        raise refusal("net", "merge", "a network of co.lora", net, "Use what co.lora gave.")
    merged, made = copy.deepcopy(net), {}
    for name, module in list(merged.named_modules(remove_duplicate=False)):
        if isinstance(module, LowRank):
            if id(module) not in made:
                made[id(module)] = _merged(module)
            merged = _put(merged, name, made[id(module)])
    return merged.requires_grad_(True)


def _chosen(net: nn.Module, targets: Sequence[str] | None) -> list[tuple[str, Any]]:
    """The layers to change, by name; one that has two names stands twice."""
    every: list[tuple[str, Any]] = [
        (n, m) for n, m in net.named_modules(remove_duplicate=False) if isinstance(m, nn.Linear | nn.Embedding)
    ]
    if targets is None:
        linear = [(n, m) for n, m in every if isinstance(m, nn.Linear)]
        if not linear:
            raise ConfigError("The 'net' of lora must have a Linear layer. Got none. Name others in 'targets'.")
        return linear
    wanted, known = _words(targets), [name for name, _ in every]
    for target in wanted:
        if not any(_ends(name, target) for name in known):
            there = nearest(target, known) or f" There are {', '.join(known[:5]) or 'none'}."
            raise ConfigError(
                f"The 'targets' of lora must be names of Linear or Embedding layers. Got {shown(target)}.{there}"
            )
    for name, layer in every:
        if isinstance(layer, nn.Embedding) and layer.max_norm is not None and any(_ends(name, t) for t in wanted):
            raise ConfigError(f"An Embedding of lora must stay as it is. Got '{name}' with a max_norm. Leave it out.")
    return [(n, m) for n, m in every if any(_ends(n, t) for t in wanted)]


def _words(targets: Any) -> list[str]:
    several = not isinstance(targets, str | bytes) and isinstance(targets, Iterable)
    wanted = list(targets) if several else []
    if not wanted or not all(isinstance(t, str) and t for t in wanted):
        raise refusal("targets", "lora", "a tuple of names of layers", targets, 'Use ("0", "2"), for one.')
    return wanted


def _ends(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


def _drawn(layer: nn.Linear | nn.Embedding, rank: int, generator: torch.Generator) -> Tensor:
    """A to begin with, (rank, inputs), drawn on the host; a row of padding has no change."""
    weight, embeds = layer.weight, isinstance(layer, nn.Embedding)
    inputs = weight.shape[0 if embeds else 1]
    a = torch.randn(rank, inputs, generator=generator) / math.sqrt(weight.shape[1])
    if isinstance(layer, nn.Embedding) and layer.padding_idx is not None:
        a[:, layer.padding_idx] = 0
    return a.to(weight.device, weight.dtype)


def _put(net: nn.Module, name: str, layer: nn.Module) -> nn.Module:
    """The network with another layer at a name; the layer itself where the network is nothing else."""
    if not name:
        return layer
    path, _, leaf = name.rpartition(".")
    setattr(net.get_submodule(path), leaf, layer)
    return net


@torch.no_grad()
def _merged(module: LowRank) -> nn.Module:
    layer = copy.copy(module.layer)
    layer._parameters = dict(module.layer._parameters)
    layer.weight = nn.Parameter(module.weight.clone())
    return layer
