"""A warm round of a small torch model against a bare loop that does nothing but the steps.

100 parties share the digits (Dirichlet 0.5), ten of them train a two-layer network for an epoch in each of 50 rounds.
The bare loop has one flat vector and no parties, no checks, no bytes and no ledger; both learn the same model. CPU
time, interleaved in one run. Prints one table, and one JSON line for machines.
"""

import json
import platform
import time
from functools import partial
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

import comity as co
from comity.core.rng import keyed_order

PARTIES, ASKED, ROUNDS, BATCH, RATE, SEED = 100, 10, 50, 16, 0.05, 0


def network() -> nn.Module:
    torch.manual_seed(SEED)
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def parties() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    X, y = load_digits(return_X_y=True)
    X = (X / 16).astype(np.float32)
    cut = co.dirichlet(y, PARTIES, alpha=0.5, seed=SEED, min_rows=1)
    return {name: (X[rows], y[rows]) for name, rows in cut.items()}


class Bare:
    """The steps alone: parameters and gradients are views of two vectors, one module for all."""

    def __init__(self, data: dict[str, Any]) -> None:
        self.module = network()
        named = sorted(self.module.named_parameters())
        self.vector = torch.cat([p.detach().reshape(-1) for _, p in named])
        self.gradient, self.shared, at = torch.zeros_like(self.vector), self.vector.clone(), 0
        for _, p in named:
            p.data, p.grad = (v[at : at + p.numel()].view(p.shape) for v in (self.vector, self.gradient))
            at += p.numel()
        self.data = {name: (torch.from_numpy(x), torch.from_numpy(y)) for name, (x, y) in data.items()}

    def round(self, number: int, cohort: list[str]) -> None:
        rows = sum(len(self.data[who][1]) for who in cohort)
        total = torch.zeros_like(self.vector)
        for who in cohort:
            x, y = self.data[who]
            order = torch.from_numpy(keyed_order(len(y), SEED, number, who, "shuffle", "0"))
            x, y = x[order], y[order]
            self.vector.copy_(self.shared)
            for at in range(0, len(y), BATCH):
                self.gradient.zero_()
                nn.functional.cross_entropy(self.module(x[at : at + BATCH]), y[at : at + BATCH]).backward()
                self.vector.add_(self.gradient, alpha=-RATE)
            total.add_(self.vector, alpha=len(y) / rows)
        self.shared.copy_(total)


def cohorts(fed: co.Collaboration) -> list[list[str]]:
    run = fed.run(ROUNDS)
    return [e.facts["asked"].split("\n") for e in run.ledger if e.kind == "round"]  # type: ignore[index, union-attr]


def cpu(work: Any) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def main() -> None:
    torch.set_num_threads(1)
    data = parties()
    sgd = partial(torch.optim.SGD, lr=RATE)
    model = co.TorchModel(network(), loss=nn.functional.cross_entropy, optimizer=sgd, batch=BATCH, epochs=1)
    people = {name: co.Trainer(model, d) for name, d in data.items()}
    fed = co.Collaboration(co.FedAvg(model), people, select=co.sample(ASKED), evaluate=False, seed=SEED)
    plan, bare = cohorts(fed), Bare(data)
    for number, cohort in enumerate(plan):
        bare.round(number, cohort)
    ours = np.concatenate([fed.run(ROUNDS).shared[k].ravel() for k in sorted(fed.method.model.init(co.Round("", 0)))])
    assert np.allclose(ours, bare.shared.numpy(), atol=1e-4), np.abs(ours - bare.shared.numpy()).max()
    times = [
        (cpu(lambda: fed.run(ROUNDS)) - cpu(lambda: fed.run(10)), cpu(lambda: [*map(bare.round, range(ROUNDS), plan)]))
        for _ in range(7)
    ]
    ms, steps = min(a for a, _ in times) / (ROUNDS - 10) * 1e3, min(b for _, b in times) / ROUNDS * 1e3
    ratio = float(np.median([a / (ROUNDS - 10) / (b / ROUNDS) for a, b in times]))
    figures = {"round_ms": ms, "bare_round_ms": steps, "round_over_bare": ratio}
    for name, value in figures.items():
        print(f"{name:<24}{value:>12.3f}")
    about = {"python": platform.python_version(), "torch": torch.__version__, "comity": co.__version__}
    print(json.dumps({**figures, "date": time.strftime("%Y-%m-%d"), **about}))


if __name__ == "__main__":
    main()
