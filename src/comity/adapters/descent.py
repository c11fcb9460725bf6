"""How the numpy models move along a gradient."""

from collections.abc import Callable
from typing import Any

import numpy as np

from comity.adapters.common import mask_of
from comity.core.parts import Step


def descend(worker: Any, model: Any, step: Step) -> Callable[[], None]:
    """A function that moves the parameters along the gradient, as torch.optim.SGD does it."""
    net, g, p = worker.net, worker.gradient, worker.vector
    start = p.copy() if step.adjust else p
    mask = mask_of(step.mask, net.layout, type(model).__name__)
    decay = net.weights() * net.weights().dtype.type(model.decay) if model.decay else None
    velocity = np.zeros_like(p) if model.momentum else g
    scratch, rate = np.empty_like(p), p.dtype.type(model.rate)

    def move() -> None:
        if step.adjust:
            g[...] = step.adjust(p, g, start)
        if decay is not None:
            np.multiply(decay, p, out=scratch)
            np.add(g, scratch, out=g)
        if mask is not None:
            np.multiply(g, mask, out=g)
        if velocity is not g:
            np.multiply(velocity, model.momentum, out=velocity)
            np.add(velocity, g, out=velocity)
        np.multiply(velocity, rate, out=scratch)
        np.subtract(p, scratch, out=p)

    return move
