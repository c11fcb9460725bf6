"""Ten parties with unlike numbers of rows, of which a few columns say what the label is; and how well a model does."""

import numpy as np

import comity as co

COLUMNS, SEEDED = 40, np.random.default_rng(0)
TRUTH = np.concatenate([SEEDED.normal(0, 2, 8), np.zeros(COLUMNS - 8)])
MODEL = co.Linear(COLUMNS, 2, rate=0.5, batch=32, epochs=3)
ROUNDS = 20


def shard(n):
    x = SEEDED.normal(size=(n, COLUMNS)).astype("float32")
    return x, (x @ TRUTH > 0).astype(int)


DATA = {f"p{i:02}": shard(int(SEEDED.integers(60, 300))) for i in range(10)}
TEST = shard(4000)


def sorted_shards():
    """As many parties, of which most know one label only."""
    x, y = shard(2000)
    order = np.argsort(x @ TRUTH).reshape(10, 200)
    return {n: (x[rows], y[rows]) for n, rows in zip(DATA, order, strict=True)}


SKEWED = sorted_shards()


def accuracy(params, test=TEST):
    return float((MODEL.predict(params, test[0]).argmax(1) == test[1]).mean())


def trainers(who=co.Trainer, data=DATA, **more):
    return {name: who(MODEL, d, **more) for name, d in data.items()}


def fed(method=None, sites=None, **parts):
    parts = {"evaluate": False, **parts}
    return co.Collaboration(method or co.FedAvg(MODEL), trainers() if sites is None else sites, **parts)


def alone(data=DATA, rounds=ROUNDS):
    """The accuracy of each party that trains as long by itself."""
    return [accuracy(fed(sites=trainers(data={n: d})).run(rounds).shared) for n, d in data.items()]


def furthest(a, b):
    """The largest difference of two Trees of arrays."""
    return max(float(np.abs(a[k] - b[k]).max()) for k in a)
