"""Federated averaging and nothing around it: what the training itself costs, and what the right answer is."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from comity.core.rng import keyed_order

Rows: TypeAlias = tuple[np.ndarray, np.ndarray]


class Bare:
    """Parameters, float buffers and gradients are views of two vectors, one module for all; plain SGD, one epoch.

    There are no parties, no checks, no bytes and no ledger.

    Args:
        module: trained in place.
        rows: name to (X, y).
        batch: rows in a step.
        rate: of SGD.
        seed: of the shuffles, which are those of a run with this seed.
    """

    def __init__(self, module: nn.Module, rows: Callable[[str], Rows], *, batch: int, rate: float, seed: int) -> None:
        self.module, self.rows, self.batch, self.rate, self.seed = module.train(), rows, batch, rate, seed
        flat = [t for _, t in self._named()]
        self.vector = torch.cat([t.detach().reshape(-1) for t in flat])
        self.gradient, self.shared, at = torch.zeros_like(self.vector), self.vector.clone(), 0
        for t in flat:
            t.data = self.vector[at : at + t.numel()].view(t.shape)
            if isinstance(t, nn.Parameter):
                t.grad = self.gradient[at : at + t.numel()].view(t.shape)
            at += t.numel()

    def _named(self) -> Iterator[tuple[str, Tensor]]:
        yield from self.module.named_parameters()
        yield from ((name, b) for name, b in self.module.named_buffers() if b.is_floating_point())

    def round(self, number: int, cohort: Sequence[str]) -> None:
        """Each of the cohort trains from the shared vector; their mean, weighted by rows, is the next one."""
        total, rows = torch.zeros_like(self.vector), 0
        for who in cohort:
            n = self._trained(number, who)
            total.add_(self.vector, alpha=n)
            rows += n
        self.shared.copy_(total.div_(rows))

    def _trained(self, number: int, who: str) -> int:
        x, y = (torch.from_numpy(v) for v in self.rows(who))
        order = torch.from_numpy(keyed_order(len(y), self.seed, number, who, "shuffle", "0"))
        x, y = x[order].to(self.vector.dtype), y[order]
        self.vector.copy_(self.shared)
        for at in range(0, len(y), self.batch):
            self.gradient.zero_()
            nn.functional.cross_entropy(self.module(x[at : at + self.batch]), y[at : at + self.batch]).backward()
            self.vector.add_(self.gradient, alpha=-self.rate)
        return len(y)

    def tree(self) -> dict[str, np.ndarray]:
        """What is shared now, by name."""
        self.vector.copy_(self.shared)
        return {name: t.detach().numpy().copy() for name, t in self._named()}
