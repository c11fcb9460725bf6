"""Many fits of one module in a row: what is not torch's own work is done before and after, so that the steps run on."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from comity.adapters.common import epochs_of, measured
from comity.adapters.torch.batches import batches, tensors
from comity.adapters.torch.fit import around, mover, objective, reseed, train
from comity.core.contribution import Metrics, Tree
from comity.core.parts import Step
from comity.core.round import Round

if TYPE_CHECKING:
    from comity.adapters.torch.model import TorchModel

Fitted = tuple[Tree, Tree, Metrics]
BYTES_AHEAD = 2**25
"""So many bytes of batches are gathered before the first step; larger sets are gathered as they are needed."""


def fit_many(
    model: "TorchModel", params: Sequence[Tree], local: Sequence[Tree], data: Sequence[Any], rounds: Sequence[Round]
) -> list[Fitted]:
    """For each what `TorchModel.fit_local` gives, to the bit.

    Args:
        model: whose module is used for all.
        params: where each begins.
        local: each one's own buffers.
        data: each one's examples.
        rounds: each one's round.
    """
    flat, step = model._flat, Step()
    with flat.lock, around(model.device, model.threads, 0):
        flat.train()
        sets = [tensors(d, flat.dtype, model.device) for d in data]
        pieces = [_pieces(model, s, r) for s, r in zip(sets, rounds, strict=True)]
        if sum(_bytes(s) for s in sets) * max(1.0, model.epochs) <= BYTES_AHEAD:
            pieces = [list(p) for p in pieces]
        seeds = [r.mine_seed("torch") for r in rounds]
        loss, (_, plain) = objective(flat, model.loss, step), flat.mover(model.optimizer)
        move = mover(flat, model.optimizer, step)
        out: list[Fitted] = []
        for p, own, batched, seed, whole in zip(params, local, pieces, seeds, sets, strict=True):
            reseed(model.device, seed)
            flat.put(p, model._checked(own))
            done = train(flat, iter(batched), loss, move if plain else mover(flat, model.optimizer, step))
            out.append((flat.take(), flat.take_local(), measured(_rows(whole), *done)))
        return out


def _pieces(model: "TorchModel", whole: Any, round: Round) -> Iterable[tuple[Tensor, Tensor]]:
    orders = epochs_of(_rows(whole), model.epochs, round)
    pieces: Iterator[tuple[Tensor, Tensor]] = batches(
        whole, orders, model.batch, pairs=model._flat.pairs, like=model._flat.vector
    )
    return pieces


def _rows(whole: Any) -> int:
    return len(whole[0]) if isinstance(whole, tuple) else len(whole)


def _bytes(whole: Any) -> float:
    return sum(t.nbytes for t in whole) if isinstance(whole, tuple) else float("inf")
