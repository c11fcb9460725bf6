"""FedAvg and its servers against the textbook, written out in numpy."""

import numpy as np
import pytest

import comity as co

RNG = np.random.default_rng(3)
SIZES = (5, 20, 11)
X = [RNG.normal(size=(n, 4)).astype("float32") for n in SIZES]
Y = [RNG.integers(0, 3, n) for n in SIZES]


def collaboration(method, model, **parts):
    sites = {f"p{i}": co.Trainer(model, (x, y)) for i, (x, y) in enumerate(zip(X, Y, strict=True))}
    return co.Collaboration(method, sites, evaluate=False, **parts)


def gradient(w, b, x, y):
    """Of the mean cross-entropy of softmax(x w' + b)."""
    z = x.astype(float) @ w.T + b
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    p[np.arange(len(y)), y] -= 1
    return p.T @ x / len(y), p.mean(0)


def pooled_steps(steps, rate):
    x, y = np.concatenate(X), np.concatenate(Y)
    w, b = np.zeros((3, 4)), np.zeros(3)
    for _ in range(steps):
        gw, gb = gradient(w, b, x, y)
        w, b = w - rate * gw, b - rate * gb
    return w, b


def test_one_full_batch_step_is_a_pooled_gradient_step():
    """McMahan et al. (2017), section 2: with E = 1 and B = infinity, FedAvg is FedSGD."""
    model = co.Linear(4, 3, rate=0.5, batch=100, epochs=1)
    run = collaboration(co.FedAvg(model), model).run(rounds=20)
    w, b = pooled_steps(20, 0.5)
    np.testing.assert_allclose(run.shared["0.weight"], w, atol=1e-6)
    np.testing.assert_allclose(run.shared["0.bias"], b, atol=1e-6)


@pytest.mark.parametrize("send", ["delta", "model"])
def test_sending_models_is_sending_deltas(send):
    model = co.MLP(4, 3, hidden=(5,), batch=4)
    sites = {f"p{i}": co.Trainer(model, (x, y), send=send) for i, (x, y) in enumerate(zip(X, Y, strict=True))}
    run = co.Collaboration(co.FedAvg(model, send=send), sites, evaluate=False).run(rounds=4)
    want = collaboration(co.FedAvg(model), model).run(rounds=4)
    for name, x in run.shared.items():
        np.testing.assert_allclose(x, want.shared[name], atol=1e-5)


def mean_deltas(model, params, number):
    """The weighted mean of what the participants would send, by their own `fit`."""
    deltas, weights = [], []
    for i, (x, y) in enumerate(zip(X, Y, strict=True)):
        here = co.Round("any", seed=0, number=number, me=f"p{i}")
        after, _ = model.fit({k: v.astype("float32") for k, v in params.items()}, (x, y), here)
        deltas.append({k: after[k].astype(float) - params[k] for k in params})
        weights.append(float(len(y)))
    return {k: np.average([d[k] for d in deltas], axis=0, weights=weights) for k in params}


def reference(server, rounds=6):
    model = co.Linear(4, 3, rate=0.2, batch=5)
    params = {k: v.astype(float) for k, v in model.init(co.Round("any", 0)).items()}
    m = {k: np.zeros_like(v) for k, v in params.items()}
    v = {k: np.full_like(x, 1e-2**2) for k, x in params.items()}
    for number in range(rounds):
        delta = mean_deltas(model, params, number)
        for k in params:
            if server == "momentum":
                m[k] = 0.9 * m[k] + delta[k]
                params[k] = params[k] + 0.7 * m[k]
                continue
            m[k], square = 0.8 * m[k] + 0.2 * delta[k], delta[k] ** 2
            if server == "adagrad":
                v[k] = v[k] + square
            elif server == "adam":
                v[k] = 0.95 * v[k] + 0.05 * square
            else:
                v[k] = v[k] - 0.05 * square * np.sign(v[k] - square)
            params[k] = params[k] + 0.05 * m[k] / (np.sqrt(v[k]) + 1e-2)
    return params


@pytest.mark.parametrize(
    ("server", "part"),
    [
        ("momentum", co.Momentum(0.7, 0.9)),
        ("adagrad", co.Adagrad(0.05, 0.8, 1e-2)),
        ("adam", co.Adam(0.05, 0.8, 0.95, 1e-2)),
        ("yogi", co.Yogi(0.05, 0.8, 0.95, 1e-2)),
    ],
)
def test_server_steps_are_those_of_the_papers(server, part):
    """FedAvgM (Hsu et al., 2019); FedAdagrad, FedAdam and FedYogi (Reddi et al., 2021, Algorithm 2)."""
    model = co.Linear(4, 3, rate=0.2, batch=5)
    run = collaboration(co.FedAvg(model, part), model).run(rounds=6)
    for name, want in reference(server).items():
        np.testing.assert_allclose(run.shared[name], want, atol=3e-5)


def test_plain_fedavg_is_momentum_without_memory():
    model = co.Linear(4, 3, batch=5)
    plain = collaboration(co.FedAvg(model), model).run(rounds=3).shared
    still = collaboration(co.FedAvg(model, co.Momentum(1.0, 1e-12)), model).run(rounds=3).shared
    for name, x in plain.items():
        np.testing.assert_allclose(x, still[name], atol=1e-6)


class Mixed:
    """Parameters of two precisions, and statistics that no server steps."""

    statistics = ("seen",)

    def init(self, round):
        return {"a": np.zeros(2, "float32"), "b": np.zeros(2), "seen": np.zeros((), "float32")}

    def fit(self, params, data, round):
        new = {"a": params["a"] + np.float32(1), "b": params["b"] + 1e-9, "seen": params["seen"] + np.float32(4)}
        return new, {"examples": (3.0, 1.0)}

    def fingerprint(self):
        return {}


def test_several_precisions_stay_and_statistics_move_by_their_mean():
    model = Mixed()
    sites = {n: co.Trainer(model, None) for n in "ab"}
    run = co.Collaboration(co.FedAvg(model, co.Momentum(0.5)), sites, evaluate=False).run(rounds=3)
    assert run.ledger.refused == []
    assert {k: x.dtype.name for k, x in run.shared.items()} == {"a": "float32", "b": "float64", "seen": "float32"}
    assert run.shared["a"].tolist() == [1.5, 1.5]
    assert run.shared["seen"] == 12
    np.testing.assert_allclose(run.shared["b"], 1.5e-9)


@pytest.mark.parametrize("make", [co.FedAvg, lambda model, send: co.Trainer(model, None, send=send)])
def test_only_deltas_and_models_are_sent(make):
    with pytest.raises(co.ConfigError, match=r"The 'send' of .* must be one of 'delta', 'model'. Got 'weights'"):
        make(co.Linear(4, 3), send="weights")


@pytest.mark.parametrize("bound", [0.0, -1, np.nan, "wide"])
def test_a_bound_is_above_zero(bound):
    with pytest.raises(co.ConfigError, match="The 'bound' of FedAvg must be"):
        co.FedAvg(co.Linear(4, 3), bound=bound)


@pytest.mark.parametrize("participants", [1, 3])
def test_the_laws_of_methods_hold(participants):
    model = co.MLP(4, 3, hidden=(4,), batch=4)
    sites = {f"p{i}": co.Trainer(model, (X[i], Y[i])) for i in range(participants)}
    for server in (co.Momentum(), co.Momentum(0.5, 0.9), co.Adagrad(), co.Adam(), co.Yogi()):
        co.testing.check_method(co.FedAvg(model, server), sites)
