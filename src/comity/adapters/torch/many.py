"""Many fits of one module: one after the other, or the steps of many at once where a plan says so and it can be."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from comity.adapters.torch.batches import tensors
from comity.adapters.torch.choosing import BYTES, choose
from comity.adapters.torch.fit import around
from comity.adapters.torch.proving import form_of
from comity.adapters.torch.sequential import one_by_one
from comity.adapters.torch.works import Done, Work
from comity.core.contribution import Tree
from comity.core.round import Turns
from comity.core.together import Fitted, Plan, Wish

if TYPE_CHECKING:
    from comity.adapters.torch.model import TorchModel

CHUNK = 16
"""How many at once where a plan leaves it open."""


def fit_many(
    model: "TorchModel", params: Sequence[Tree], local: Sequence[Tree], data: Sequence[Any], rounds: Turns, plan: Plan
) -> Fitted:
    """For each what `TorchModel.fit_local` gives: to the bit, or where the plan says batched within rounding.

    Args:
        model: whose module is used for all.
        params: where each begins; best the same object where it is the same.
        local: each one's own buffers.
        data: each one's examples.
        rounds: each one's round.
        plan: how.
    """
    threads = model.threads if plan.threads is None else plan.threads
    with model._flat.lock, around(model.device, threads, 0):
        work = _work(model, params, local, data, rounds)
        done = _together(model, work, plan.chunk or CHUNK) if plan.executor == "batched" else None
        done = one_by_one(model, work) if done is None else done
        examples = np.ones((len(data), 2))
        examples[:, 0] = work.sizes
        return Fitted(done.rows, model._flat.layout, done.local, {"examples": examples, "train_loss": done.loss})


def plan_for(
    model: "TorchModel", params: Sequence[Tree], local: Sequence[Tree], data: Sequence[Any], rounds: Turns, wish: Wish
) -> Plan:
    """How such fits are done best."""
    with model._flat.lock, around(model.device, model.threads, 0):
        return choose(model, _work(model, params, local, data, rounds), wish)


def _work(
    model: "TorchModel", params: Sequence[Tree], local: Sequence[Tree], data: Sequence[Any], rounds: Turns
) -> Work:
    flat = model._flat
    flat.train()
    known = [tensors(d, flat.dtype, model.device) for d in data]
    same = all(p is params[0] for p in params)
    start = flat.of(params[0]) if same and len(params) else np.array([*map(flat.of, params)])
    return Work(start, [model._checked(own) for own in local], known, rounds, model.epochs)


def _together(model: "TorchModel", work: Work, chunk: int) -> Done | None:
    """None where it cannot be: then each is done alone, and told its own fault."""
    if len(work.data) < 2:
        return None
    try:
        form = form_of(model, work)
        held = sum(d.x.nbytes + d.y.nbytes for d in work.data)
        chunk = max(1, min(chunk, chunk * BYTES // max(1, held)))
        return model._engine.run(work, chunk, form)
    except Exception:  # noqa: BLE001  whatever it was comes again when they are done one by one, or was of batching
        return None
