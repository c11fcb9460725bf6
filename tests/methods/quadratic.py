"""A model whose loss is a quadratic in float64, and plain gradient descent on it: what papers are compared with."""

from dataclasses import dataclass
from typing import Any

import numpy as np

import comity as co
from comity.core.parts import Step


@dataclass(frozen=True)
class Quadratic:
    """F(w) = mean (Xw - y)² with w = (body, head); a fit is `epochs` full-batch steps at `rate`."""

    rate: float = 0.1
    epochs: int = 3
    first: tuple[float, ...] = (0.4, -0.3, 0.2, 0.1, -0.5)
    statistics: tuple[str, ...] = ()

    def init(self, round):
        return self.tree(np.array(self.first))

    def fit(self, params, data, round, step=Step()):
        w, start = self.flat(params), self.flat(params)
        moves = np.ones(5) if step.mask is None else self.flat({"body": np.ones(3), "head": np.ones(2), **step.mask})
        for _ in range(self.epochs if step.epochs is None else step.epochs):
            g = gradient(w, data)
            g = g if step.adjust is None else step.adjust(w, g, start)
            w = w - self.rate * (moves * g)
        return self.tree(w), {"examples": (float(len(data[1])), 1.0)}

    def predict(self, params, x):
        return x @ self.flat(params)

    def features(self, params, x, taps):
        return {}

    @staticmethod
    def flat(params) -> Any:
        return np.concatenate([params["body"], params["head"]]).astype(float)

    @staticmethod
    def tree(w) -> Any:
        return {"body": w[:3].copy(), "head": w[3:].copy()}


def gradient(w, data):
    x, y = data
    return 2 / len(y) * x.T @ (x @ w - y)


def loss(w, data):
    x, y = data
    return float(np.mean((x @ w - y) ** 2))


def problem(parties=5, seed=0):
    """Least squares that differ: name to (X, y), of unlike sizes."""
    rng = np.random.default_rng(seed)
    out = {}
    for i in range(parties):
        x = rng.normal(size=(6 + 3 * i, 5)) * rng.uniform(0.5, 1.2, 5)
        out[f"p{i}"] = (x, x @ (rng.normal(size=5) * 2) + rng.normal(size=len(x)) * 0.3)
    return out


@dataclass(frozen=True)
class Cohorts:
    """Who is asked, round by round: what was written down, over and over."""

    rounds: tuple[tuple[str, ...], ...]
    asked: int = 2

    def __call__(self, roster, round, past, secret):
        return {"hub": self.rounds[round.number % len(self.rounds)]}

    def expected(self, roster):
        return float(self.asked)


EVERYBODY = (tuple(f"p{i}" for i in range(5)),)
SOME = (("p0", "p3"), ("p1", "p2", "p3"), ("p4",), ("p0", "p4"))


def run(method, sites, cohorts, rounds, **more):
    """A collaboration of these cohorts, without scores."""
    fed = co.Collaboration(method, sites, select=Cohorts(cohorts), evaluate=False, **more)
    return fed.run(rounds=rounds)
