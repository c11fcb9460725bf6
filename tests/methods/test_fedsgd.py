"""FedSGD: against pooled gradient descent by hand, against FedAvg with one full-batch step, in numpy and torch."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

import comity as co
from comity.core.contribution import Contribution
from comity.core.tree import leaves, tree_map
from comity.core.wire import encode_tree

RNG = np.random.default_rng(9)
SIZES = (4, 30, 13)
DATA = [(RNG.normal(size=(n, 4)).astype("float32"), RNG.integers(0, 3, n)) for n in SIZES]
HERE = co.Round("sgd", seed=1, me="p0")


def torch_model(rate=0.3, norm=False, buffers="average", batch=1000):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    middle = [torch.nn.BatchNorm1d(5)] if norm else []
    net = torch.nn.Sequential(torch.nn.Linear(4, 5), *middle, torch.nn.Tanh(), torch.nn.Linear(5, 3))
    loss, sgd = torch.nn.functional.cross_entropy, partial(torch.optim.SGD, lr=rate)
    return co.TorchModel(net, loss=loss, optimizer=sgd, batch=batch, buffers=buffers)


MODELS = {
    "linear": lambda: co.Linear(4, 3, rate=0.3, batch=1000),
    "mlp": lambda: co.MLP(4, 3, hidden=(6,), rate=0.3, batch=1000),
    "torch": torch_model,
}


def run(method, model, make, rounds=8):
    sites = {f"p{i}": make(model, d) for i, d in enumerate(DATA)}
    return co.Collaboration(method, sites, evaluate=False).run(rounds=rounds)


def near(a, b, atol=2e-6):
    for (path, x), (_, y) in zip(leaves(a), leaves(b), strict=True):
        np.testing.assert_allclose(x, y, atol=atol, err_msg=".".join(path))


@pytest.mark.parametrize("name", MODELS)
def test_a_round_is_a_round_of_fedavg_with_one_full_batch_step(name):
    """McMahan et al. (2017), section 2: g averaged and a step of rate η, or w - η·g averaged: the same."""
    model = MODELS[name]()
    sgd = run(co.FedSGD(model, rate=0.3), model, co.GradientTrainer)
    avg = run(co.FedAvg(model), model, co.Trainer)
    near(sgd.shared, avg.shared)


@pytest.mark.parametrize("name", MODELS)
def test_a_round_is_a_step_on_the_pooled_examples(name):
    model = MODELS[name]()
    pooled = tuple(np.concatenate(part) for part in zip(*DATA, strict=True))
    params = model.init(co.Round("any", 0))
    for _ in range(8):
        params, _ = model.fit(params, pooled, HERE)
    near(run(co.FedSGD(model, rate=0.3), model, co.GradientTrainer).shared, params)


def test_the_gradient_is_that_of_the_mean_loss():
    """By finite differences of the mean cross-entropy, away from the start."""
    model, (x, y) = co.Linear(4, 3, batch=1000), DATA[1]
    params = tree_map(lambda v: RNG.normal(size=v.shape).astype("float32"), model.init(HERE))
    who = co.GradientTrainer(model, (x, y))
    c, local = who.contribute(Contribution("model", params), {}, HERE, co.testing.fixed_secret())
    assert (c.kind, c.weight, local) == ("gradient", 30.0, {})

    def loss(w, b):
        z = x.astype(float) @ w.T + b
        return float(np.mean(np.log(np.exp(z).sum(1)) - z[np.arange(len(y)), y]))

    w, b, eps = params["0.weight"].astype(float), params["0.bias"].astype(float), 1e-6
    for i in np.ndindex(w.shape):
        e = np.zeros_like(w)
        e[i] = eps
        assert abs((loss(w + e, b) - loss(w - e, b)) / (2 * eps) - c.value["0.weight"][i]) < 1e-6
    for i in range(3):
        e = eps * np.eye(3)[i]
        assert abs((loss(w, b + e) - loss(w, b - e)) / (2 * eps) - c.value["0.bias"][i]) < 1e-6


@pytest.mark.parametrize("plain", [co.MLP(4, 3, batch=1000), co.Linear(4, 3, batch=1000)])
def test_rate_momentum_and_decay_of_the_model_play_no_part(plain):
    other = replace(plain, rate=7.0, momentum=0.9, decay=0.5, epochs=3)
    a, b = (encode_tree(run(co.FedSGD(m), m, co.GradientTrainer, rounds=3).shared) for m in (plain, other))
    assert a == b


def test_statistics_move_by_their_mean_and_have_no_gradient():
    model = torch_model(norm=True)
    sgd = run(co.FedSGD(model, rate=0.3), model, co.GradientTrainer)
    avg = run(co.FedAvg(model), model, co.Trainer)
    assert set(model.statistics) == {"1.running_mean", "1.running_var"}
    near(sgd.shared, avg.shared, atol=1e-5)


def test_local_buffers_stay_at_the_site():
    model = torch_model(norm=True, buffers="local")
    found = run(co.FedSGD(model, rate=0.3), model, co.GradientTrainer)
    plain = run(co.FedAvg(model), model, co.Trainer)
    near(found.local("p1"), plain.local("p1"), atol=1e-5)
    assert "1.running_mean" in found.local("p1")["buffers"]


@pytest.mark.parametrize("make", [lambda: co.Linear(4, 3, batch=16), lambda: torch_model(batch=16)])
def test_a_batch_smaller_than_the_data_is_refused(make):
    model = make()
    with pytest.raises(co.ConfigError, match=r"all examples in one batch. Got 2. Give the model a 'batch'"):
        co.GradientTrainer(model, DATA[1]).contribute(
            Contribution("model", model.init(HERE)), {}, HERE, co.testing.fixed_secret()
        )


def test_a_gradient_beyond_the_bound_is_refused():
    model = co.Linear(4, 3, batch=1000)
    sites = {f"p{i}": co.GradientTrainer(model, (x * (1e4 if i == 1 else 1), y)) for i, (x, y) in enumerate(DATA)}
    found = co.Collaboration(co.FedSGD(model, bound=10.0), sites, evaluate=False).run(rounds=1)
    assert [r.sender for r in found.ledger.refused] == ["p1"]


@pytest.mark.parametrize("name", MODELS)
def test_the_laws_of_methods_hold(name):
    model = MODELS[name]()
    co.testing.check_method(co.FedSGD(model), {f"p{i}": co.GradientTrainer(model, d) for i, d in enumerate(DATA)})


@pytest.mark.parametrize(("name", "value"), [("rate", 0.0), ("rate", np.inf), ("bound", 0), ("bound", np.nan)])
def test_settings_have_a_range(name, value):
    with pytest.raises(co.ConfigError, match=f"The '{name}' of FedSGD must be"):
        co.FedSGD(co.Linear(4, 3), **{name: value})
