"""A linear model of ten prunable weights in float64, and shared tickets written out for it: no packing, no parts."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from comity.core.parts import Step

WEIGHTS, SIZE, RATE, STEPS = 10, 12, 0.05, 3
FIRST = np.random.default_rng(5).normal(size=SIZE)


@dataclass(frozen=True)
class Planes:
    """y = X (w, u, bias); a fit is three full-batch steps; `seen` is a running mean of the first two columns of X."""

    statistics: tuple[str, ...] = ("seen",)
    epochs: float = 1

    def init(self, round):
        return tree(FIRST, np.zeros(2))

    def fit(self, params, data, round, step=Step()):
        v, seen = flat(params), np.asarray(params["seen"], float)
        moves = np.ones(SIZE)
        if step.mask is not None:
            moves[:WEIGHTS] = np.r_[step.mask["u"].ravel(), step.mask["w"].ravel()]
        for _ in range(STEPS):
            v = v - RATE * moves * gradient(v, data)
        return tree(v, 0.5 * seen + 0.5 * data[0].mean(0)[:2]), {"examples": (float(len(data[1])), 1.0)}

    def predict(self, params, x):
        return x @ flat(params)

    def features(self, params, x, taps):
        return {}


def tree(v, seen) -> Any:
    return {"u": v[:4].reshape(2, 2).copy(), "w": v[4:10].reshape(2, 3).copy(), "bias": v[10:].copy(), "seen": seen}


def flat(params) -> Any:
    return np.concatenate([np.ravel(params[k]) for k in ("u", "w", "bias")]).astype(float)


def gradient(v, data):
    x, y = data
    return 2 / len(y) * x.T @ (x @ v - y)


def problem():
    rng, out = np.random.default_rng(1), {}
    for i in range(5):
        x = rng.normal(size=(8 + 3 * i, SIZE)) * rng.uniform(0.4, 1.0, SIZE)
        out[f"p{i}"] = (x, x @ rng.normal(size=SIZE) + 0.1 * rng.normal(size=len(x)))
    return out


def by_hand(data, cohorts, closed, **how):
    """Parameters, statistics, average, velocity and mask after so many rounds; all dense."""
    w, v, a, seen = FIRST, np.zeros(SIZE), FIRST, np.zeros(2)
    mask = np.ones(SIZE, bool)
    coarse = how.get("coarse", lambda x: x)
    for t in range(closed):
        got, gotten = coarse(w), coarse(seen)
        d, ds, total = np.zeros(SIZE), np.zeros(2), 0.0
        for i in cohorts[t % len(cohorts)]:
            x = got
            for _ in range(STEPS):
                x = x - RATE * mask * gradient(x, data[i])
            n = len(data[i][1]) if how["mean"] == "weight" else 1.0
            after = 0.5 * gotten + 0.5 * data[i][0].mean(0)[:2]
            d, ds, total = d + n * (x - got), ds + n * (after - gotten), total + n
        total = 2.0 if how["mean"] == "public" else total
        v = how["momentum"] * v + d / total
        w, seen = w + v, seen + ds / total
        begin, until = round(how["begin"] * how["rounds"]), round(how["by"] * how["rounds"])
        share = 1.0
        if t + 1 > begin:
            share = how["density"] + (1 - how["density"]) * (1 - min(1, (t + 1 - begin) / (until - begin))) ** 3
        size = np.where(mask, np.abs(w), -1)[:WEIGHTS]
        mask = np.r_[np.isin(np.arange(WEIGHTS), np.argsort(-size)[: int(np.ceil(share * WEIGHTS - 1e-9))]), [True] * 2]
        w, v, a = w * mask, v * mask, a * mask
        a = how["ema"] * a + (1 - how["ema"]) * w if t else w
    return w, seen, a, v, mask
