"""Norms of each example's own gradient, and their weighted sum, from one backward pass: ghost norms and book-keeping.

Of a layer are kept its input a and the gradient g of its output. A linear layer's gradient for example i is
Σ_t g_it a_itᵀ: its squared norm is Σ_ts <a_it, a_is> <g_it, g_is> (Li et al., ICLR 2022, eq. 2), and the sum over the
examples weighted by c is (c·g)ᵀ a, with no second backward pass (Bu et al., ICML 2023, Algorithm 1). Where the gradient
of each example takes little memory beside a and g, as in small convolutions, it is made instead, which is quicker.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap
from torch.nn import functional

Slopes: TypeAlias = Mapping[str, Tensor]
"""Where the gradients of a layer's own parameters are added up, by name; frozen ones are not in it."""


_MORE = 4
"""Gradients of examples are made where they take at most so many times the memory of inputs and outputs."""


class Unfit(Exception):
    """Why the gradients of a module cannot be found layer by layer."""


class Found(NamedTuple):
    """What a layer tells of a batch.

    Attributes:
        squares: (rows,) the squared norm of each example's gradient.
        add: `add(c)` adds the sum of the gradients weighted by c (rows,) to the slopes.
    """

    squares: Tensor
    add: Callable[[Tensor], None]


Rule: TypeAlias = Callable[[Any, Tensor, Tensor, Slopes], Found]


def rule_of(module: nn.Module) -> Rule:
    """How the gradients of a module's own parameters are found: its children's are their own matter."""
    for kind, rule, takes in _RULES:
        if isinstance(module, kind) and type(module).forward is kind.forward and takes(module):
            return rule
    return _other


def linear(module: Any, a: Tensor, g: Tensor, slopes: Slopes) -> Found:
    """a: (rows, ..., inputs), g: (rows, ..., outputs)."""
    if a.ndim == 2:
        return _flat(a, g, slopes)
    return _sequence(a.flatten(1, -2), g.flatten(1, -2), slopes)


def _flat(a: Tensor, g: Tensor, slopes: Slopes) -> Found:
    weight, bias = slopes.get("weight"), slopes.get("bias")
    each = (_squared(a) if weight is not None else 0) + (1 if bias is not None else 0)

    def add(c: Tensor) -> None:
        scaled = g * c[:, None]
        if weight is not None:
            weight.addmm_(scaled.T, a)
        if bias is not None:
            bias.add_(scaled.sum(0))

    return Found(_squared(g) * each, add)


def _sequence(a: Tensor, g: Tensor, slopes: Slopes) -> Found:
    """a: (rows, steps, inputs), g: (rows, steps, outputs)."""
    weight, bias = slopes.get("weight"), slopes.get("bias")
    squares, sums, each = torch.zeros_like(g[:, 0, 0]), None, None
    if weight is not None and a.shape[2] * g.shape[2] > _MORE * a.shape[1] * (a.shape[2] + g.shape[2]):
        squares = squares + (torch.bmm(a, a.mT) * torch.bmm(g, g.mT)).sum((1, 2))
    elif weight is not None:
        each = torch.bmm(g.mT, a).flatten(1)
        squares = squares + _squared(each)
    if bias is not None:
        sums = g.sum(1)
        squares = squares + _squared(sums)

    def add(c: Tensor) -> None:
        if weight is not None and each is not None:
            weight.view(-1).add_(c @ each)
        elif weight is not None:
            scaled, flat = g * c[:, None, None], weight.view(g.shape[2], -1)
            if a.is_contiguous():
                flat.addmm_(scaled.flatten(0, 1).T, a.flatten(0, 1))
            else:
                flat.addbmm_(scaled.mT, a)
        if bias is not None and sums is not None:
            bias.add_(c @ sums)

    return Found(squares, add)


def convolution(module: Any, a: Tensor, g: Tensor, slopes: Slopes) -> Found:
    """a and g: (rows, channels, ...), of one dimension, two or three: a linear layer over the patches."""
    patches, g, groups = _patches(module, a, g), g.flatten(2), module.groups
    if groups == 1:
        return _sequence(patches.mT, g.mT, slopes)
    weight, bias = slopes.get("weight"), slopes.get("bias")
    found: dict[str, Tensor] = {}
    if weight is not None:
        by_group = [v.reshape(len(v), groups, -1, v.shape[2]) for v in (g, patches)]
        found["weight"] = torch.einsum("bgol,bgkl->bgok", *by_group).reshape(len(a), *weight.shape)
    if bias is not None:
        found["bias"] = g.sum(2)
    return _made(found, slopes)


def _patches(module: Any, a: Tensor, g: Tensor) -> Tensor:
    """What each output has looked at: (rows, channels * kernel, outputs). Quicker than functional.unfold."""
    a = functional.pad(a, [p for p in reversed(module.padding) for _ in (0, 1)]).contiguous()
    steps, last = a.stride(), a.ndim - 2
    inside = [steps[2 + i] * module.dilation[i] for i in range(last)]
    across = [steps[2 + i] * module.stride[i] for i in range(last)]
    shape = (*a.shape[:2], *module.kernel_size, *g.shape[2:])
    return a.as_strided(shape, (*steps[:2], *inside, *across)).reshape(len(a), -1, g[0, 0].numel())


def embedding(module: Any, a: Tensor, g: Tensor, slopes: Slopes) -> Found:
    """a: (rows, ...) numbers of words, g: (rows, ..., width): words that are the same share a gradient."""
    a, g, weight = a.reshape(len(a), -1), g.reshape(len(g), -1, g.shape[-1]), slopes["weight"]
    if module.padding_idx is not None:
        g = g * (a != module.padding_idx)[:, :, None]
    same = a[:, :, None] == a[:, None, :]

    def add(c: Tensor) -> None:
        weight.index_add_(0, a.flatten(), (g * c[:, None, None]).flatten(0, 1))

    return Found((torch.bmm(g, g.mT) * same).sum((1, 2)), add)


def layer_norm(module: Any, a: Tensor, g: Tensor, slopes: Slopes) -> Found:
    """a, g: (rows, ..., *normalized_shape)."""
    shape = module.normalized_shape
    return _scaled(functional.layer_norm(a, shape, None, None, module.eps), g, slopes, (1, a.ndim - len(shape)))


def group_norm(module: Any, a: Tensor, g: Tensor, slopes: Slopes) -> Found:
    """a, g: (rows, channels, ...)."""
    return _scaled(functional.group_norm(a, module.num_groups, None, None, module.eps), g, slopes, (2, a.ndim))


def _scaled(normal: Tensor, g: Tensor, slopes: Slopes, over: tuple[int, int]) -> Found:
    """A weight times what was normalised, and a bias; `over`: the first and the last but one dimension to sum."""
    each = {"weight": lambda: g * normal, "bias": lambda: g}
    axes = tuple(range(*over))
    return _made({n: each[n]().sum(axes) if axes else each[n]() for n in slopes}, slopes)


def _other(module: Any, a: Tensor, g: Tensor, slopes: Slopes) -> Found:
    """Any module that takes one tensor, by its own derivative, example by example."""
    own = {name: getattr(module, name).detach() for name in slopes}

    def one(row: Tensor, slope: Tensor) -> Any:
        pulled: Any = vjp(lambda p: functional_call(module, p, (row[None],)), own)
        return pulled[1](slope[None])[0]

    return _made(vmap(one)(a, g), slopes)


def _made(each: Mapping[str, Tensor], slopes: Slopes) -> Found:
    """From the gradients of each example, by name."""
    rows = {name: found.flatten(1) for name, found in each.items()}

    def add(c: Tensor) -> None:
        for name, found in rows.items():
            slopes[name].view(-1).add_(c @ found)

    return Found(torch.stack([_squared(found) for found in rows.values()]).sum(0), add)


def _squared(rows: Tensor) -> Tensor:
    """The squared norm of each row of (rows, width)."""
    out: Tensor = torch.linalg.vector_norm(rows, dim=1).square()
    return out


def _plain(module: Any) -> bool:
    return module.padding_mode == "zeros" and not isinstance(module.padding, str)


_RULES: tuple[tuple[Any, Rule, Callable[[Any], bool]], ...] = (
    (nn.Linear, linear, lambda module: True),
    (nn.Conv1d, convolution, _plain),
    (nn.Conv2d, convolution, _plain),
    (nn.Conv3d, convolution, _plain),
    (nn.Embedding, embedding, lambda module: True),
    (nn.LayerNorm, layer_norm, lambda module: True),
    (nn.GroupNorm, group_norm, lambda module: True),
)
