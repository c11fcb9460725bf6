"""FedProx: the proximal term by finite difference, FedAvg at mu 0, near the start at a large mu, partial work."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

import comity as co
from comity.core.contribution import Contribution
from comity.core.tree import norm, ravel, tree_map
from comity.core.wire import encode_tree

RNG = np.random.default_rng(5)
SIZES = (6, 21, 12)
DATA = [(RNG.normal(size=(n, 4)).astype("float32"), RNG.integers(0, 3, n)) for n in SIZES]
HERE = co.Round("prox", seed=1, me="p0")
MODEL = co.MLP(4, 3, hidden=(5,), rate=0.1, batch=4, epochs=2)


def torch_model(**settings):
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.ReLU(), torch.nn.Linear(5, 3))
    torch.manual_seed(0)
    loss = torch.nn.functional.cross_entropy
    return co.TorchModel(net, loss=loss, optimizer=partial(torch.optim.SGD, lr=0.1), batch=4, **settings)


def collaboration(model, make, method=None):
    sites = {f"p{i}": make(model, data) for i, data in enumerate(DATA)}
    return co.Collaboration(method or co.FedAvg(model), sites, evaluate=False, seed=2)


def moved(model, who, params):
    c, _ = who.contribute(Contribution("model", params), {}, HERE, co.testing.fixed_secret())
    return c.value


@pytest.mark.parametrize("make", [lambda: MODEL, torch_model])
def test_without_mu_it_is_fedavg_to_the_bit(make):
    model = make()
    prox = collaboration(model, lambda m, d: co.FedProx(m, d, mu=0.0)).run(rounds=4)
    plain = collaboration(model, co.Trainer).run(rounds=4)
    assert encode_tree(prox.state) == encode_tree(plain.state)
    own = collaboration(model, lambda m, d: co.FedProx(m, d, mu=0.0, epochs=model.epochs)).run(rounds=4)
    assert encode_tree(own.state) == encode_tree(plain.state)


@pytest.mark.parametrize("make", [lambda: MODEL, torch_model])
def test_the_larger_mu_the_nearer_to_the_start(make):
    model = make()
    params = model.init(HERE)
    far = [norm(moved(model, co.FedProx(model, DATA[1], mu=mu, epochs=8), params)) for mu in (0.0, 0.1, 1.0, 9.0)]
    assert far == sorted(far, reverse=True)
    assert far[-1] < 0.7 * far[0]


@pytest.mark.parametrize("make", [lambda: co.Linear(4, 3, rate=1e-3, batch=100), lambda: torch_model(epochs=2)])
def test_the_term_is_the_gradient_of_the_paper(make):
    """What `adjust` adds to the gradient, against finite differences of mu/2·|w - w_t|² in float64."""
    model, mu, eps = make(), 0.7, 1e-6
    rng = np.random.default_rng(0)
    n = ravel(model.init(HERE)).size
    w, start, gradient = rng.normal(size=(3, n))
    added = co.FedProx(model, DATA[0], mu=mu)._near(w, gradient, start) - gradient

    def term(at):
        return mu / 2 * float(((at - start) ** 2).sum())

    slope = [(term(w + eps * e) - term(w - eps * e)) / (2 * eps) for e in np.eye(n)]
    np.testing.assert_allclose(added, slope, atol=1e-6)


def test_two_full_batch_steps_by_hand():
    """The first step begins at w_t, where the term is 0; the second is pulled back by mu·(w - w_t)."""
    x, y = DATA[1]
    model = co.Linear(4, 3, rate=0.5, batch=100)
    params = tree_map(lambda v: RNG.normal(size=v.shape).astype("float32"), model.init(HERE))
    got = moved(model, co.FedProx(model, (x, y), mu=0.8, epochs=2), params)
    w, b = (params[k].astype(float) for k in ("0.weight", "0.bias"))
    w0, b0 = w, b
    for _ in range(2):
        z = x @ w.T + b
        p = np.exp(z - z.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        p[np.arange(len(y)), y] -= 1
        p /= len(y)
        w, b = w - 0.5 * (p.T @ x + 0.8 * (w - w0)), b - 0.5 * (p.sum(0) + 0.8 * (b - b0))
    np.testing.assert_allclose(got["0.weight"], w - w0, atol=1e-5)
    np.testing.assert_allclose(got["0.bias"], b - b0, atol=1e-5)


def test_partial_work_is_averaged_in():
    """Participants with epochs of their own: the mean of their deltas by examples; no epochs at all is a delta of 0."""
    sites = {
        f"p{i}": co.FedProx(MODEL, d, mu=0.1, epochs=e) for i, (d, e) in enumerate(zip(DATA, (0, 0.5, 3), strict=True))
    }
    run = co.Collaboration(co.FedAvg(MODEL), sites, evaluate=False).run(rounds=1)
    start = MODEL.init(co.Round("any", 0))
    total = tree_map(lambda x: np.zeros(x.shape), start)
    for name, who in sites.items():
        here = co.Round("any", 0, me=name)
        c, _ = who.contribute(Contribution("model", start), {}, here, co.testing.fixed_secret())
        assert (name == "p0") == (norm(c.value) == 0)
        total = tree_map(lambda t, v, w=c.weight: t + v * w / sum(SIZES), total, c.value)
    for name, x in run.shared.items():
        np.testing.assert_allclose(x, start[name] + total[name], atol=1e-6)


def test_what_it_was_set_to_is_in_the_recipe_and_its_data_are_not():
    said = str(co.recipe(collaboration(MODEL, lambda m, d: co.FedProx(m, d, mu=0.25, epochs=3))))
    assert "'mu': 0.25" in said
    assert "'epochs': 3" in said
    assert "data" not in said


@pytest.mark.parametrize("make", [lambda: MODEL, torch_model])
def test_the_laws_of_methods_hold(make):
    model = make()
    sites = {f"p{i}": co.FedProx(model, d, mu=0.1, epochs=1 + i) for i, d in enumerate(DATA)}
    co.testing.check_method(co.FedAvg(model), sites)


@pytest.mark.parametrize(("name", "value"), [("mu", -0.1), ("mu", np.nan), ("epochs", -1), ("epochs", np.inf)])
def test_settings_have_a_range(name, value):
    with pytest.raises(co.ConfigError, match=f"The '{name}' of FedProx must be"):
        replace(co.FedProx(MODEL, DATA[0]), **{name: value})
