"""How fits of one model are best done: found by doing some of them each way, and kept for the run."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from comity.adapters.torch.proving import cut, form_of, part
from comity.adapters.torch.sequential import one_by_one
from comity.adapters.torch.works import Form, Work
from comity.core.together import Plan, Wish

if TYPE_CHECKING:
    from comity.adapters.torch.model import TorchModel

STEPS = 20_000
"""With fewer steps ahead measuring does not pay."""
GAIN, TRIES, SECONDS, BYTES = 0.9, 3, 2.0, 2**28
"""What batched must reach of the sequential time; how often each is timed; after how long no further chunk is tried;
how much a chunk may hold."""
LIGHT, HEAVY, SLOW = (16, 32, 64, 8, 4), (4, 1, 16, 64), 1e-3
"""Chunks to try, the likeliest first, where a step takes fewer seconds than SLOW, and where it takes more."""


def choose(model: "TorchModel", work: Work, wish: Wish) -> Plan:
    """The plan for fits like these. The lock of the module is held, and it is in training."""
    plan = Plan("sequential", threads=model.threads)
    if wish.executor == "sequential":
        return replace(plan, reason="asked for")
    if len(work.data) < 2:
        return replace(plan, reason="one fit alone")
    steps = np.mean([-(-n // model.batch) for n in work.sizes]) * work.epochs
    if wish.executor is None and steps * wish.ahead < STEPS:
        return replace(plan, reason="too little work for measuring to pay")
    begun = time.perf_counter()
    try:
        form = form_of(model, work)
        if wish.chunk is not None:
            return replace(plan, executor="batched", chunk=wish.chunk, reason="asked for", measured=True)
        chunk, share = _fastest(model, work, form, begun)
    except Exception as error:  # noqa: BLE001  the user's code may raise anything; if it is wrong, the fit will say so
        said = str(error).strip().splitlines()[:1] or [type(error).__name__]
        return replace(plan, reason=said[0][:160], measured=True)
    if share > GAIN and wish.executor is None:
        return replace(plan, reason=f"{chunk} at once take {share:.2f} times as long", measured=True)
    reason = f"{chunk} at once take {share:.2f} of the time"
    return replace(plan, executor="batched", chunk=chunk, reason=reason, measured=True)


def _fastest(model: "TorchModel", work: Work, form: Form, begun: float) -> tuple[int, float]:
    """The best chunk, and its time over that of one by one."""
    clock = _clock(model)
    some = _some(model, work, clock)
    base = _timed(lambda: one_by_one(model, some), clock)
    steps, found = sum(-(-n // model.batch) for n in some.sizes), dict[int, float]()
    for chunk in _chunks(model, len(some.data), LIGHT if base < SLOW * steps else HEAVY):
        found[chunk] = _timed(partial(model._engine.run, some, chunk, form), clock) / base
        hopeless = len(found) > 1 and min(found.values()) > 1.5
        if hopeless or time.perf_counter() - begun > SECONDS:
            break
    best = min(found, key=found.__getitem__)
    return best, found[best]


def _chunks(model: "TorchModel", many: int, wanted: Sequence[int]) -> Sequence[int]:
    """Those for which there is room, none of them larger than needed."""
    row = model._flat.vector.nbytes * (2 if model._engine.rate is None else 1)
    enough = 1 << (many - 1).bit_length()
    return list(dict.fromkeys(min(c, enough) for c in wanted if c * row <= BYTES)) or [1]


def _some(model: "TorchModel", work: Work, clock: Callable[[], float]) -> Work:
    """As many of them, and as many batches of each, as can be timed often."""
    few = [cut(d, min(len(d.y), 8 * model.batch + len(d.y) % model.batch)) for d in work.data]
    short = replace(work, data=few, epochs=min(work.epochs, 1.0))
    alone = _timed(lambda: one_by_one(model, part(short, [0])), clock, 1)
    many = max(2, min(len(few), int(0.2 / max(alone, 1e-5))))
    return part(short, range(many))


def _timed(work: Callable[[], Any], clock: Callable[[], float], tries: int = TRIES) -> float:
    """The least seconds it takes, the first time not counted."""
    work()
    seconds = []
    for _ in range(tries):
        begin = clock()
        work()
        seconds.append(clock() - begin)
    return min(seconds)


def _clock(model: "TorchModel") -> Callable[[], float]:
    """What this thread computes, on a busy machine too; with several threads or a GPU the time that passes."""
    if model.device != "cpu":

        def synchronised() -> float:
            torch.accelerator.synchronize()
            return time.perf_counter()

        return synchronised
    return time.thread_time if model.threads == 1 else time.perf_counter
