"""Normalisation layers that keep running statistics (BatchNorm): which leaves are theirs, and their statistics anew."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from comity.adapters.torch.batches import Ready, batches, tensor, tensors
from comity.adapters.torch.flat import Flat, frozen_norms
from comity.core.checks import shown
from comity.core.contribution import Array
from comity.core.errors import ConfigError
from comity.core.round import Round


def norm_layers(module: nn.Module) -> dict[str, nn.Module]:
    """BatchNorm and InstanceNorm layers with running statistics, by name; those that are frozen are none of them."""
    still = {id(m) for m in frozen_norms(module)}
    found = ((n, m) for n, m in module.named_modules() if isinstance(m, nn.modules.batchnorm._NormBase))
    return {n: m for n, m in found if m.running_mean is not None and id(m) not in still}


def norm_leaves(module: nn.Module, leaves: Collection[str]) -> tuple[str, ...]:
    """Which of these leaves belong to such layers: weights, biases and averaged statistics, sorted."""
    layers = norm_layers(module).values()
    own = {id(t) for m in layers for t in [*m.parameters(recurse=False), *m.buffers(recurse=False)]}
    named = [*module.named_parameters(), *module.named_buffers()]
    return tuple(sorted(name for name, t in named if id(t) in own and name in leaves))


def order_of(n: int) -> Array:
    """The order in which n rows are read anew: shuffled, as rows that lie sorted by class would make batches alike."""
    return Round("recalibrate", 0).order(n, "recalibrate")


@torch.no_grad()
def recalibrated(
    flat: Flat, params: Any, local: Mapping[str, Any] | None, x: Any, batch: int
) -> tuple[Any, dict[str, Array]]:
    """Parameters and local buffers, with the running statistics of x in the place of their own.

    Wants the lock of `flat` to be held. Everything else is as it was given, to the bit.

    Args:
        flat: the module over its vector.
        params: of the module.
        local: buffers that stay at the site.
        x: rows, or a Dataset of (x, y).
        batch: rows in a batch.

    Raises:
        ConfigError: no rows, rows that the module does not take, or statistics that are not kept.
    """
    flat.put(params, local)
    kept, own = flat.take(), flat.take_local()
    layers = norm_layers(flat.module)
    names = {f"{n}.{s}".lstrip(".") for n in layers for s in ("running_mean", "running_var")} & _buffers(flat)
    if not names:
        return kept, own
    if lost := sorted(names - kept.keys() - own.keys()):
        must = "must keep its running statistics to recalibrate them"
        raise ConfigError(f'The module {must}. Got \'{lost[0]}\' with the policy "reset". Use buffers="average".')
    _passed(flat, layers.values(), x, batch)
    after = {**flat.take(), **flat.take_local()}
    for name in names:
        (kept if name in kept else own)[name][...] = after[name]
    return kept, own


def _buffers(flat: Flat) -> set[str]:
    return {b.name for b in flat.buffers}


def _passed(flat: Flat, layers: Collection[nn.Module], x: Any, batch: int) -> None:
    """Pass all rows through the module: these layers in training, everything else (dropout) as it predicts."""
    whole = _rows(x, flat)
    n = len(whole[0]) if isinstance(whole, tuple) else len(whole)
    flat.eval()
    try:
        with cumulative(layers):
            for part, _ in batches(whole, [order_of(n)], batch, pairs=flat.pairs, like=flat.vector):
                flat.module(part)
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        if isinstance(error, ConfigError):
            raise
        said = (str(error).strip().splitlines()[:1] or [type(error).__name__])[0][:160].rstrip(".")
        raise ConfigError(f"The module must take the rows of x. Got rows of which it says: {said}.") from error
    finally:
        flat.eval()


def _rows(x: Any, flat: Flat) -> Any:
    """The rows as a pair of which only the first is looked at, or a Dataset."""
    device = str(flat.vector.device)
    if isinstance(x, Dataset):
        return tensors(x, flat.dtype, device)
    rows: Tensor = tensor(x if isinstance(x, Tensor | np.ndarray) else np.asarray(x), flat.dtype, device)
    if rows.ndim == 0 or not len(rows):
        raise ConfigError(f"The x of recalibrate must have rows. Got {shown(x)}. Use the rows that it trains on.")
    return Ready(rows, torch.arange(len(rows), device=rows.device))


@contextmanager
def cumulative(layers: Collection[nn.Module]) -> Iterator[None]:
    """Layers in training whose running statistics become the plain mean over the calls made inside.

    The k-th call counts 1/k, as a BatchNorm of torch does with momentum=None; InstanceNorm has no such setting.
    """
    before = [(m, m.momentum) for m in layers]
    seen = dict.fromkeys(map(id, layers), 0)

    def count(layer: Any, _: Any) -> None:
        seen[id(layer)] += 1
        layer.momentum = 1.0 / seen[id(layer)]

    hooks = [m.register_forward_pre_hook(count) for m in layers]
    try:
        for m in layers:
            m.train()
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for m, momentum in before:
            m.momentum = momentum
