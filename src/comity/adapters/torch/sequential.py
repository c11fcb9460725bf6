"""Fits one after the other: what is not torch's own work is done before and after, so that the steps run on."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from comity.adapters.common import epochs_of
from comity.adapters.torch.batches import batches
from comity.adapters.torch.fit import mover, objective, reseed, train
from comity.adapters.torch.packing import ORDERS, orders_of
from comity.adapters.torch.works import Done, Work
from comity.core.contribution import Array
from comity.core.parts import Step

if TYPE_CHECKING:
    from comity.adapters.torch.model import TorchModel

BYTES_AHEAD = 2**24
"""So many bytes of batches are gathered before the first step; larger sets are gathered as they are needed."""


def one_by_one(model: "TorchModel", work: Work) -> Done:
    """For each what `TorchModel.fit_local` gives, to the bit. The lock of the module is held, and it is in training."""
    flat, step, many = model._flat, Step(), len(work.data)
    pieces = _pieces(model, work)
    seeds = [r.mine_seed("torch") for r in work.rounds]
    loss, (_, plain) = objective(flat, model.loss, step), flat.mover(model.optimizer)
    move = mover(flat, model.optimizer, step)
    rows = np.empty((many, flat.layout.size), flat.layout.dtype)
    done, local = np.zeros((many, 2)), []
    for i in range(many):
        reseed(model.device, seeds[i])
        flat.set(work.start if work.start.ndim == 1 else work.start[i])
        flat.bind(work.local[i])
        done[i] = train(flat, iter(pieces[i]), loss, move if plain else mover(flat, model.optimizer, step))
        flat.take_into(rows[i])
        local.append(flat.take_local())
    return Done(rows, local, done)


def _pieces(model: "TorchModel", work: Work) -> list[Iterable[tuple[Tensor, Tensor]]]:
    """Each one's batches; gathered before the first step where they hold little memory."""
    flat, epochs = model._flat, work.epochs
    out: list[Iterable[tuple[Tensor, Tensor]]] = [
        batches(d, orders, model.batch, pairs=flat.pairs, like=flat.vector)
        for d, orders in zip(work.data, _orders(work), strict=True)
    ]
    if sum(map(_bytes, work.data)) * max(1.0, epochs) <= BYTES_AHEAD:
        out = [list(p) for p in out]
    return out


def _orders(work: Work) -> list[Iterable[Array]]:
    sizes = work.sizes
    if len(sizes) * max(sizes, default=0) * max(1.0, work.epochs) > ORDERS:
        return [epochs_of(n, work.epochs, r) for n, r in zip(sizes, work.rounds, strict=True)]
    found = [(order, used.tolist()) for order, used in orders_of(sizes, work.epochs, work.rounds)]
    return [[order[i, : used[i]] for order, used in found] for i in range(len(sizes))]


def _bytes(whole: Any) -> float:
    return sum(t.nbytes for t in whole) if isinstance(whole, tuple) else float("inf")
