"""What is timed: data, module and sizes of each workload. All train one epoch of plain SGD a round, rate 0.05.

digits           scikit-learn's digits, 80 % of them, cut by class with Dirichlet(0.5) into 100 clients;
                 two layers, 4,810 parameters, batches of 16; digits-all asks all of them in every round
digits-least-2   the same, cut so that each of the 100 has two rows at least
cnn              1,000 clients of 30 to 90 noisy images of 28x28; two convolutions of 3x3, 108,618 parameters
cnn-5x5          1,000 clients of 64 such images, made anew when drawn; 5x5, 215,370 parameters, batches of 32
resnet           ten clients of 64 images of 3x32x32; ResNet-8 with BatchNorm, 78,042 parameters
population       clients of 8 to 24 rows of 64 numbers, made when drawn; the network of digits
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy, relu

import comity as co
from race.bare import Bare, Rows

RATE, SEED = 0.05, 0


@dataclass(frozen=True)
class Work:
    """One workload.

    Attributes:
        name: of it.
        network: the module, before training.
        clients: the rows of each, or a function from number to rows for `total` clients.
        asked: clients a round.
        rounds: how many are run; the later half is timed.
        batch: rows in a step.
        total: how many clients, where they are made when drawn.
        workers: process counts that are timed beside the default.
    """

    name: str
    network: Callable[[], nn.Module]
    clients: Callable[[], list[Rows]] | Callable[[int], Rows] = field(repr=False)
    asked: int
    rounds: int
    batch: int = 16
    total: int | None = None
    workers: tuple[int, ...] = ()

    @cached_property
    def rows(self) -> Callable[[str], Rows]:
        """The rows of a client by its name."""
        if self.total is not None:
            return lambda name: self.clients(int(name))  # type: ignore[call-arg, return-value]
        held: list[Rows] = self.clients()  # type: ignore[call-arg, assignment]
        return {f"c{i:04}": rows for i, rows in enumerate(held) if len(rows[1])}.__getitem__

    def module(self) -> nn.Module:
        """The module with its first values."""
        torch.manual_seed(SEED)
        return self.network()

    def collaboration(self) -> co.Collaboration:
        """As a user writes it."""
        sgd = partial(torch.optim.SGD, lr=RATE)
        model = co.TorchModel(self.module(), loss=cross_entropy, optimizer=sgd, batch=self.batch, epochs=1)
        people = co.Population(self.total, Drawn(model, self.clients)) if self.total else self._people(model)
        return co.Collaboration(co.FedAvg(model), people, select=co.sample(self.asked), evaluate=False, seed=SEED)

    def _people(self, model: Any) -> Mapping[str, Any]:
        held: Mapping[str, Rows] = self.rows.__self__  # type: ignore[attr-defined]
        return {name: co.Trainer(model, rows) for name, rows in held.items()}

    def bare(self, dtype: torch.dtype = torch.float32) -> Bare:
        """The same work with nothing around it."""
        return Bare(self.module().to(dtype), self.rows, batch=self.batch, rate=RATE, seed=SEED)


@dataclass(frozen=True)
class Drawn:
    """Makes a client when it is drawn."""

    model: Any
    clients: Callable[[int], Rows]

    def __call__(self, number: int) -> co.Trainer:
        """The client of this number."""
        return co.Trainer(self.model, self.clients(number))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def _pair(inside: int, outside: int, size: int, padding: int = 0) -> list[nn.Module]:
    return [nn.Conv2d(inside, outside, size, padding=padding), nn.ReLU(), nn.MaxPool2d(2)]


def cnn3() -> nn.Module:
    head = [nn.Flatten(), nn.Linear(32 * 5 * 5, 128), nn.ReLU(), nn.Linear(128, 10)]
    return nn.Sequential(*_pair(1, 16, 3), *_pair(16, 32, 3), *head)


def cnn5() -> nn.Module:
    head = [nn.Flatten(), nn.Linear(32 * 7 * 7, 128), nn.ReLU(), nn.Linear(128, 10)]
    return nn.Sequential(*_pair(1, 16, 5, 2), *_pair(16, 32, 5, 2), *head)


class Residual(nn.Module):
    """Two convolutions and a way around them (He et al., CVPR 2016, figure 2)."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.first, self.norm1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False), nn.BatchNorm2d(outside)
        self.second, self.norm2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False), nn.BatchNorm2d(outside)
        wider = nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))
        self.around = nn.Identity() if inside == outside and stride == 1 else wider

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return relu(self.norm2(self.second(relu(self.norm1(self.first(x))))) + self.around(x))


def resnet8() -> nn.Module:
    stem = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    body = [Residual(16, 16, 1), Residual(16, 32, 2), Residual(32, 64, 2)]
    return nn.Sequential(*stem, *body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def _cut(y: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Row numbers of 100 clients: each class is shared out by a draw of Dirichlet(0.5)."""
    parts: list[list[np.ndarray]] = [[] for _ in range(100)]
    for c in np.unique(y):
        rows = rng.permutation(np.flatnonzero(y == c))
        ends = np.cumsum(rng.dirichlet(np.full(100, 0.5)))[:-1] * len(rows)
        for part, some in zip(parts, np.split(rows, ends.astype(int)), strict=True):
            part.append(some)
    return [np.concatenate(part) for part in parts]


def digits() -> list[Rows]:
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    rng = np.random.default_rng(SEED)
    kept = rng.permutation(len(y))[: int(0.8 * len(y))]
    X, y = (X[kept] / 16).astype(np.float32), y[kept].astype(np.int64)
    return [(X[rows], y[rows]) for rows in _cut(y, rng)]


def digits_least_2() -> list[Rows]:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    X, y = load_digits(return_X_y=True)
    X, _, y, _ = train_test_split((X / 16).astype(np.float32), y, test_size=0.2, random_state=SEED, stratify=y)
    parts = [rows.tolist() for rows in _cut(y, np.random.default_rng(SEED))]
    for part in parts:
        while len(part) < 2:
            part.append(max(parts, key=len).pop())
    return [(X[rows], y[rows]) for rows in parts]


def _images(clients: int, shape: tuple[int, ...], low: int, high: int) -> Iterator[Rows]:
    """Noise around one pattern a class."""
    rng = np.random.default_rng(SEED)
    patterns = rng.normal(size=(10, *shape)).astype(np.float32)
    for n in rng.integers(low, high + 1, clients):
        y = rng.integers(0, 10, n)
        yield patterns[y] * 0.5 + rng.standard_normal((n, *shape), dtype=np.float32), y.astype(np.int64)


def small_images() -> list[Rows]:
    return list(_images(1000, (1, 28, 28), 30, 90))


def large_images() -> list[Rows]:
    return list(_images(10, (3, 32, 32), 64, 64))


def drawn_images(number: int) -> Rows:
    patterns = np.random.default_rng(12345).normal(size=(10, 1, 28, 28)).astype(np.float32)
    rng = np.random.default_rng(1000 + number)
    y = rng.integers(0, 10, 64)
    return patterns[y] + rng.normal(scale=2.0, size=(64, 1, 28, 28)).astype(np.float32), y


PATTERNS = np.random.default_rng(0).standard_normal((10, 64), dtype=np.float32)


def drawn_rows(number: int) -> Rows:
    rng = np.random.default_rng(number)
    y = rng.integers(0, 10, int(rng.integers(8, 25)))
    return PATTERNS[y] + rng.standard_normal((len(y), 64), dtype=np.float32), y


_KNOWN = (
    Work("digits", mlp, digits, 10, 2400),
    Work("digits-all", mlp, digits, 100, 240),
    Work("digits-least-2", mlp, digits_least_2, 10, 2400),
    Work("cnn", cnn3, small_images, 50, 10, workers=(2,)),
    Work("cnn-5x5", cnn5, drawn_images, 50, 8, batch=32, total=1000, workers=(2,)),
    Work("resnet", resnet8, large_images, 10, 8),
)
WORK: Mapping[str, Work] = {work.name: work for work in _KNOWN}
TOTALS, ASKED = (100, 10_000, 1_000_000), (10, 100, 1_000, 10_000)


def population(total: int, asked: int) -> Work:
    """Many clients, made when drawn; enough rounds that the way of working is found by measuring."""
    return replace(
        WORK["digits"],
        name=f"population-{total}-{asked}",
        clients=drawn_rows,
        total=total,
        asked=asked,
        rounds=max(4, 16_000 // asked // 2 * 2),
    )


def find(name: str) -> Work:
    """The workload of this name."""
    if name in WORK:
        return WORK[name]
    _, total, asked = name.split("-")
    return population(int(total), int(asked))
