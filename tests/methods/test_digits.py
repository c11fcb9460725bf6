"""The family on real digits, unevenly split by label. A sanity check: nothing is tuned on the test digits."""

import numpy as np
import pytest

import comity as co

RATE = 0.3


@pytest.fixture(scope="module")
def digits():
    datasets = pytest.importorskip("sklearn.datasets")
    x, y = datasets.load_digits(return_X_y=True)
    x = (x / 16).astype("float32")
    order = np.random.default_rng(0).permutation(len(y))
    test, train = order[:450], order[450:]
    parts = np.array_split(train[np.argsort(y[train] + np.random.default_rng(1).uniform(0, 6, len(train)))], 8)
    return [(x[p], y[p]) for p in parts], (x[test], y[test])


def accuracy(method, model, make, digits, rounds=15):
    shards, test = digits
    sites = {f"p{i}": make(model, d, test) for i, d in enumerate(shards)}
    run = co.Collaboration(method(model), sites, evaluate=True).run(rounds=rounds)
    assert run.ledger.refused == run.ledger.dropped == []
    return run.metrics["accuracy"]


def trainer(model, data, test):
    return co.Trainer(model, data, test=test)


FAMILY = {
    "FedAvg": (co.FedAvg, trainer, 0.88),
    "FedAvgM": (lambda m: co.FedAvg(m, co.Momentum(0.3, 0.9)), trainer, 0.88),
    "FedAdagrad": (lambda m: co.FedAvg(m, co.Adagrad(0.1)), trainer, 0.85),
    "FedAdam": (lambda m: co.FedAvg(m, co.Adam(0.03)), trainer, 0.85),
    "FedYogi": (lambda m: co.FedAvg(m, co.Yogi(0.03)), trainer, 0.85),
    "FedProx": (co.FedAvg, lambda m, d, t: co.FedProx(m, d, mu=0.1, test=t), 0.88),
}


@pytest.mark.parametrize("name", FAMILY)
def test_the_family_learns_digits(name, digits):
    method, make, least = FAMILY[name]
    model = co.MLP(64, 10, hidden=(32,), rate=RATE, batch=16)
    assert accuracy(method, model, make, digits) > least


def test_one_gradient_a_round_learns_more_slowly(digits):
    model = co.MLP(64, 10, hidden=(32,), rate=RATE, batch=2000)
    slow = accuracy(lambda m: co.FedSGD(m, RATE), model, lambda m, d, t: co.GradientTrainer(m, d, test=t), digits)
    many = accuracy(lambda m: co.FedSGD(m, RATE), model, lambda m, d, t: co.GradientTrainer(m, d, test=t), digits, 150)
    assert 0.2 < slow < 0.85 < many


def test_where_sites_disagree_a_personal_model_is_right(digits):
    """Half of the sites count digits from the other end: no shared model can serve both."""
    shards, (x, y) = digits
    model = co.MLP(64, 10, hidden=(32,), rate=RATE, batch=16)
    rows, answers = (np.concatenate(part) for part in zip(*shards, strict=True))
    sites = {}
    for i in range(8):
        own = answers[i::8] if i % 2 else 9 - answers[i::8]
        sites[f"p{i}"] = co.Ditto(model, (rows[i::8], own), test=(x, y if i % 2 else 9 - y))
    metrics = co.Collaboration(co.FedAvg(model), sites).run(rounds=15).metrics
    assert metrics["shared_accuracy"] < 0.65
    assert metrics["accuracy"] > 0.75
