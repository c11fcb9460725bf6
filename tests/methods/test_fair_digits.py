"""Real digits where one party's images are turned: q-FedAvg serves it better than FedAvg, at little cost to others."""

import numpy as np
import pytest

import comity as co

MODEL = co.Linear(64, 10, rate=0.3, batch=16, epochs=2)


def parties(seed):
    datasets = pytest.importorskip("sklearn.datasets")
    x, y = datasets.load_digits(return_X_y=True)
    x, order = (x / 16).astype("float32"), np.random.default_rng(seed).permutation(len(y))
    for i, rows in enumerate(np.array_split(order, 8)):
        mine = x[rows] if i else np.rot90(x[rows].reshape(-1, 8, 8), axes=(1, 2)).reshape(-1, 64)
        yield f"p{i}", (mine[:150], y[rows][:150]), (mine[150:], y[rows][150:])


def accuracies(method, make, seed):
    rows = list(parties(seed))
    run = co.Collaboration(method, {n: make(MODEL, train) for n, train, _ in rows}, seed=seed, evaluate=False).run(
        rounds=30
    )
    return np.array([(MODEL.predict(run.shared, x).argmax(1) == y).mean() for _, _, (x, y) in rows])


def test_the_worst_party_fares_better_and_the_rest_hardly_worse():
    plain = np.array([accuracies(co.FedAvg(MODEL), co.Trainer, s) for s in range(2)])
    fair = np.array([accuracies(co.QFedAvg(MODEL, q=5.0, rate=30.0), co.QFedAvgTrainer, s) for s in range(2)])
    assert fair.min(1).mean() > plain.min(1).mean() + 0.08
    assert fair.mean() > plain.mean() - 0.03
    assert fair.std(1).mean() < plain.std(1).mean()
