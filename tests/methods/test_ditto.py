"""Ditto: eq. 2 by hand, its two limits, what stays at home, and resuming."""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pytest

import comity as co
from comity import running
from comity.core.contribution import Contribution
from comity.core.tree import leaves, norm, tree_map
from comity.core.wire import encode_tree

RNG = np.random.default_rng(4)
SIZES = (8, 25, 14)
DATA = {f"p{i}": (RNG.normal(size=(n, 4)).astype("float32"), RNG.integers(0, 3, n)) for i, n in enumerate(SIZES)}
SECRET = co.testing.fixed_secret()
MODEL = co.MLP(4, 3, hidden=(5,), rate=0.1, batch=4)


def torch_model(norm=False, buffers="average"):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    middle = [torch.nn.BatchNorm1d(5)] if norm else []
    net = torch.nn.Sequential(torch.nn.Linear(4, 5), *middle, torch.nn.ReLU(), torch.nn.Linear(5, 3))
    loss, sgd = torch.nn.functional.cross_entropy, partial(torch.optim.SGD, lr=0.1)
    return co.TorchModel(net, loss=loss, optimizer=sgd, batch=4, buffers=buffers)


def collaboration(model=MODEL, **settings):
    return co.Collaboration(co.FedAvg(model), {n: co.Ditto(model, d, **settings) for n, d in DATA.items()}, seed=3)


def away(a, b):
    return norm(tree_map(lambda x, y: x.astype(float) - y, a, b))


@pytest.mark.parametrize("make", [lambda: MODEL, torch_model])
def test_the_joint_model_is_that_of_fedavg_to_the_bit(make):
    model = make()
    plain = co.Collaboration(co.FedAvg(model), {n: co.Trainer(model, d) for n, d in DATA.items()}, seed=3)
    assert encode_tree(collaboration(model).run(rounds=3).state) == encode_tree(plain.run(rounds=3).state)


def test_steps_by_hand():
    """Algorithm 1, full batches: v moves along its own gradient and towards what is shared in this round."""
    model, (x, y) = co.Linear(4, 3, rate=0.4, batch=100), DATA["p1"]
    who, local = co.Ditto(model, (x, y), strength=0.6), {}
    v, c = np.zeros((3, 4)), np.zeros(3)
    for number in range(4):
        w = {"0.weight": RNG.normal(size=(3, 4)).astype("float32"), "0.bias": RNG.normal(size=3).astype("float32")}
        here = co.Round("hand", 0, number=number, me="p1")
        _, local = who.contribute(Contribution("model", w), local, here, SECRET)
        if number == 0:
            v, c = w["0.weight"].astype(float), w["0.bias"].astype(float)
        z = x @ v.T + c
        p = np.exp(z - z.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        p[np.arange(len(y)), y] -= 1
        p /= len(y)
        v, c = v - 0.4 * (p.T @ x + 0.6 * (v - w["0.weight"])), c - 0.4 * (p.sum(0) + 0.6 * (c - w["0.bias"]))
    np.testing.assert_allclose(local["personal"]["0.weight"], v, atol=1e-5)
    np.testing.assert_allclose(local["personal"]["0.bias"], c, atol=1e-5)


@pytest.mark.parametrize("make", [lambda: MODEL, torch_model])
def test_with_strength_0_it_is_training_alone(make):
    model = make()
    run = collaboration(model, strength=0.0).run(rounds=4)
    for name, data in DATA.items():
        alone = model.init(co.Round("any", 3))
        for number in range(4):
            alone, _ = model.fit(alone, data, co.Round("any", 3, number=number, me=name))
        assert encode_tree(run.local(name)["personal"]) == encode_tree(alone)


@pytest.mark.parametrize("make", [lambda: replace(MODEL, rate=1e-4), lambda: co.Linear(4, 3, rate=1e-4, batch=4)])
def test_the_stronger_the_nearer_to_what_was_shared(make):
    """The personal model is within |gradient| / strength of the shared one; here rate·strength is 1 at the end."""
    model = make()
    rng = np.random.default_rng(0)
    first, then = (tree_map(lambda x: x + rng.normal(size=x.shape).astype("float32"), model.init(co.Round("", 0)))
                   for _ in range(2))  # fmt: skip
    far = []
    for strength in (0.0, 100.0, 1000.0, 10_000.0):
        who, local = co.Ditto(model, DATA["p1"], strength=strength), {}
        for number, shared in enumerate((first, then)):
            here = co.Round("", 0, number=number, me="p1")
            _, local = who.contribute(Contribution("model", shared), local, here, SECRET)
        far.append(away(local["personal"], then))
    assert far == sorted(far, reverse=True)
    assert far[-1] < 1e-2 * far[0]


@pytest.mark.parametrize("make", [lambda: MODEL, torch_model])
def test_scores_are_the_personal_models_and_the_shared_beside_them(make):
    model, (x, y) = make(), DATA["p1"]
    test, valid = (x[:9], y[:9]), (x[9:15], y[9:15])
    who, shared = co.Ditto(model, (x, y), test=test, valid=valid), model.init(co.Round("", 0))
    mine = tree_map(lambda v: v + np.float32(0.5) * RNG.normal(size=v.shape).astype("float32"), shared)

    def scored(local):
        return who.contribute(Contribution("score", shared), local, co.Round("", 0, me="p1"), SECRET)[0].metrics

    found, first = scored({"personal": mine}), scored({})
    for prefix, (a, b) in {"": test, "valid_": valid}.items():
        assert found[f"{prefix}accuracy"] == (float((model.predict(mine, a).argmax(1) == b).sum()), float(len(b)))
        hits = float((model.predict(shared, a).argmax(1) == b).sum())
        assert found[f"shared_{prefix}accuracy"] == (hits, float(len(b)))
    assert found["log_loss"] != found["shared_log_loss"]
    assert {k: v for k, v in first.items() if "shared" not in k} == {
        k.removeprefix("shared_"): v for k, v in first.items() if "shared" in k
    }


def test_batchnorm_of_the_personal_model_is_its_own():
    model = torch_model(norm=True)
    local = collaboration(model, strength=0.0).run(rounds=2).local("p1")
    assert away(local["personal"], model.init(co.Round("", 0))) > 0.1
    resident = torch_model(norm=True, buffers="local")
    kept = collaboration(resident, strength=0.5).run(rounds=2).local("p1")
    assert kept["personal_buffers"].keys() == kept["buffers"].keys()
    assert away(kept["personal_buffers"], kept["buffers"]) > 0
    alone, buffers = resident.init(co.Round("", 3)), {}
    for number in range(3):
        here = co.Round("", 3, number=number, me="p1")
        alone, buffers, _ = resident.fit_local(alone, buffers, DATA["p1"], here)
    free = collaboration(resident, strength=0.0).run(rounds=3).local("p1")
    assert away(free["personal_buffers"], buffers) == 0


def test_epochs_of_its_own():
    run = collaboration(strength=0.5, epochs=0).run(rounds=3)
    start = MODEL.init(co.Round("any", 3))
    assert all(away(run.local(n)["personal"], start) == 0 for n in DATA)
    long, short = (collaboration(strength=0.0, epochs=e).run(rounds=1) for e in (5, 1))
    assert away(long.local("p0")["personal"], start) > away(short.local("p0")["personal"], start)


def test_in_pieces_as_in_one(tmp_path, monkeypatch):
    monkeypatch.setattr(running, "SAVE_SECONDS", 0.0)
    fed = collaboration().replace(select=co.sample(2))
    straight = fed.run(rounds=6, folder=tmp_path / "straight")
    for rounds in (1, 2, 5, 6):
        pieces = fed.run(rounds=rounds, folder=tmp_path / "pieces")
    assert encode_tree(pieces.state) == encode_tree(straight.state)
    assert pieces.metrics == straight.metrics
    for name in DATA:
        assert list(leaves(straight.local(name)))
        assert encode_tree(pieces.local(name)) == encode_tree(straight.local(name))


@dataclass(frozen=True)
class Refused:
    """Its answers come too late to count."""

    who: co.Ditto

    def contribute(self, shared, local, round, secret):
        c, after = self.who.contribute(shared, local, round, secret)
        bad = round.number == 2 and shared.kind != "score"
        return (Contribution(c.kind, {}, c.weight) if bad else c), after


def test_a_personal_model_counts_only_if_its_round_did():
    """What the hub refused is dropped at the site as well."""
    sites = {n: co.Ditto(MODEL, d) for n, d in DATA.items()}
    run = collaboration().replace(participants={**sites, "p1": Refused(sites["p1"])}).run(rounds=3)
    two = collaboration().run(rounds=2)
    assert [r.sender for r in run.ledger.refused] == ["p1"]
    assert encode_tree(run.local("p1")) == encode_tree(two.local("p1"))
    assert encode_tree(run.local("p0")) != encode_tree(two.local("p0"))


def test_a_personal_model_that_runs_away_says_so():
    run = collaboration().replace(quorum=0.0, participants={"a": co.Ditto(replace(MODEL, epochs=80), DATA["p1"], 1e4)})
    found = run.run(rounds=1)
    assert "rate·strength must be below 2" in found.ledger.dropped[0].reason


@pytest.mark.parametrize(
    "make", [lambda: MODEL, torch_model, lambda: torch_model(True), lambda: torch_model(True, "local")]
)
def test_the_laws_of_methods_hold(make):
    model = make()
    co.testing.check_method(co.FedAvg(model), {n: co.Ditto(model, d, 0.3, d, d) for n, d in DATA.items()})


@pytest.mark.parametrize(("name", "value"), [("strength", -1), ("strength", np.inf), ("epochs", -1), ("epochs", "two")])
def test_settings_have_a_range(name, value):
    with pytest.raises(co.ConfigError, match=f"The '{name}' of Ditto must be"):
        co.Ditto(MODEL, DATA["p0"], **{name: value})
