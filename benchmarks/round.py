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
from race.bare import Bare
from sklearn.datasets import load_digits
from torch import nn

import comity as co

PARTIES, ASKED, ROUNDS, BATCH, RATE, SEED = 100, 10, 50, 16, 0.05, 0


def network() -> nn.Module:
    torch.manual_seed(SEED)
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def parties() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    X, y = load_digits(return_X_y=True)
    X = (X / 16).astype(np.float32)
    cut = co.dirichlet(y, PARTIES, alpha=0.5, seed=SEED, min_rows=1)
    return {name: (X[rows], y[rows]) for name, rows in cut.items()}


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
    plan, bare = cohorts(fed), Bare(network(), data.__getitem__, batch=BATCH, rate=RATE, seed=SEED)
    for number, cohort in enumerate(plan):
        bare.round(number, cohort)
    ours = fed.run(ROUNDS).shared
    off = {name: float(np.abs(ours[name] - value).max()) for name, value in bare.tree().items()}
    assert max(off.values()) < 1e-4, off
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
