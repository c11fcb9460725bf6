"""Softmax regression in float64 with a normalisation of its own, and its gradient descent: what papers are held to."""

from dataclasses import dataclass

import numpy as np

import comity as co
from comity.core.parts import Step

NAMES = tuple(f"p{i}" for i in range(5))
PRUNABLE = ("body", "head")


@dataclass(frozen=True)
class Softmax:
    """softmax(head·tanh(body·((x - mean)·scale)) + bias); `mean` is a running statistic, `scale` is learnt.

    A fit is `epochs` full-batch steps; masked leaves move only where their mask is.
    """

    rate: float = 0.5
    epochs: int = 3
    seed: int = 1
    norms: tuple[str, ...] = ("mean", "scale")
    statistics: tuple[str, ...] = ("mean",)

    def init(self, round):
        rng = np.random.default_rng(self.seed)
        body, head = rng.normal(size=(6, 4)), rng.normal(size=(3, 6))
        return {"bias": np.zeros(3), "body": body, "head": head, "mean": np.zeros(4), "scale": np.ones(4)}

    def fit(self, params, data, round, step=Step()):
        w, (x, y) = {k: np.array(v) for k, v in params.items()}, data
        mask = {**{k: np.ones_like(v) for k, v in w.items()}, **(step.mask or {})}
        w["mean"] = 0.5 * w["mean"] + 0.5 * x.mean(0)
        for _ in range(self.epochs if step.epochs is None else step.epochs):
            for k, g in gradient(w, x, y).items():
                w[k] = w[k] - self.rate * mask[k] * g
        return w, {"examples": (float(len(y)), 1.0)}

    def predict(self, params, x):
        return np.exp(logits(params, x)) / np.exp(logits(params, x)).sum(1, keepdims=True)


def logits(w, x):
    return np.tanh(((x - w["mean"]) * w["scale"]) @ w["body"].T) @ w["head"].T + w["bias"]


def gradient(w, x, y):
    z = (x - w["mean"]) * w["scale"]
    h = np.tanh(z @ w["body"].T)
    p = np.exp(h @ w["head"].T + w["bias"])
    e = (p / p.sum(1, keepdims=True) - np.eye(3)[y]) / len(y)
    d = (e @ w["head"]) * (1 - h**2)
    return {"bias": e.sum(0), "head": e.T @ h, "body": d.T @ z, "scale": ((d @ w["body"]) * (x - w["mean"])).sum(0)}


def accuracy(model, params, data):
    return float((model.predict(params, data[0]).argmax(1) == data[1]).mean())


def problem(seed=0):
    """Parties of unlike sizes and shifts: name to (training, validation, test)."""
    rng, out = np.random.default_rng(seed), {}
    truth = rng.normal(size=(4, 3))
    for i, name in enumerate(NAMES):
        x = rng.normal(size=(10 + 4 * i + 30, 4))
        y = (x @ truth + 0.3 * rng.normal(size=(len(x), 3))).argmax(1)
        x = x * rng.uniform(0.5, 2.0) + rng.normal(size=4)
        n = 10 + 4 * i
        out[name] = ((x[:n], y[:n]), (x[n : n + 15], y[n : n + 15]), (x[n + 15 :], y[n + 15 :]))
    return out


def smallest_out(w, mask, keep):
    """Keep so many of all that are in the mask, by sorting pairs: magnitudes are all different here."""
    pairs = sorted((abs(w[k][i]), k, i) for k in mask for i in zip(*np.nonzero(mask[k]), strict=True))
    out = {k: m.copy() for k, m in mask.items()}
    for _, k, i in pairs[: len(pairs) - keep]:
        out[k][i] = False
    return out


def sites_of(who, model, parties, **settings):
    return {n: who(model, d, valid=v, test=t, **settings) for n, (d, v, t) in parties.items()}


EVERYBODY = (NAMES,)
SOME = (("p0", "p3"), ("p1", "p2", "p3"), ("p4",), ("p0", "p4"))


@dataclass(frozen=True)
class Cohorts:
    """Who is asked, round by round: what was written down, over and over."""

    rounds: tuple[tuple[str, ...], ...]

    def __call__(self, roster, round, past, secret):
        return {"hub": self.rounds[round.number % len(self.rounds)]}

    def expected(self, roster):
        return 2.0


def run(method, sites, cohorts, rounds, **more):
    fed = co.Collaboration(method, sites, **{"select": Cohorts(cohorts), "evaluate": False, **more})
    return fed.run(rounds=rounds)
