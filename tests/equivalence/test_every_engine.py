"""The same collaboration on every engine and by every executor, for every sort of module."""

import sys
from functools import partial

import numpy as np
import pytest

import comity as co
from comity.core.wire import encode_tree

torch = pytest.importorskip("torch")
cloudpickle = pytest.importorskip("cloudpickle")
nn, F = torch.nn, torch.nn.functional
RNG = np.random.default_rng(7)
SIZES = (19, 3, 8, 26, 5, 16, 17, 12, 7)


class Residual(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.a, self.b = (nn.Conv2d(channels, channels, 3, padding=1, bias=False) for _ in range(2))
        self.norm, self.last = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)

    def forward(self, x):
        return F.relu(x + self.last(self.b(F.relu(self.norm(self.a(x))))))


class Reader(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.inner, self.out = nn.Embedding(20, 5), nn.GRU(5, 6, batch_first=True), nn.Linear(6, 3)

    def forward(self, x):
        return self.out(self.inner(self.embed(x))[0][:, -1])


class Bag(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.out = nn.Embedding(20, 5), nn.Linear(5, 3)

    def forward(self, x):
        return self.out(self.embed(x).mean(1))


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x):
        h = self.a(x)
        return self.b(h * 2 if h.sum() > 0 else torch.tanh(h))


def layers(*between):
    return nn.Sequential(nn.Linear(4, 8), *between, nn.ReLU(), nn.Linear(8, 3))


def images(*between):
    return nn.Sequential(nn.Conv2d(1, 4, 3), *between, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3))


NETS = {
    "mlp": (layers, (4,)),
    "cnn": (lambda: images(nn.ReLU(), nn.MaxPool2d(2)), (1, 8, 8)),
    "batchnorm": (lambda: images(nn.BatchNorm2d(4), nn.ReLU()), (1, 8, 8)),
    "resnet": (lambda: images(nn.BatchNorm2d(4), Residual(4)), (1, 8, 8)),
    "gru": (Reader, "words"),
    "embedding": (Bag, "words"),
    "dropout": (lambda: layers(nn.Dropout(0.4)), (4,)),
    "branching": (Branching, (4,)),
}
UNBATCHED = ("dropout", "branching")
BATCHED = co.Local("batched", chunk=4)
SPREAD = {
    "workers": co.Local("sequential", workers=2),
    "workers, batched": co.Local("batched", workers=2, chunk=4),
    "ray": co.Ray(actors=2, executor="sequential"),
}


def collaboration(net, **parts):
    make, shape = NETS[net]
    torch.manual_seed(0)
    model = co.TorchModel(make(), F.cross_entropy, optimizer=partial(torch.optim.SGD, lr=0.1), batch=8)

    def rows(n):
        x = RNG.integers(0, 20, (n, 6)) if shape == "words" else RNG.normal(size=(n, *shape)).astype("float32")
        return x, RNG.integers(0, 3, n)

    people = {f"p{i}": co.Trainer(model, rows(n), test=rows(4)) for i, n in enumerate(SIZES)}
    return co.Collaboration(co.FedAvg(model), people, seed=2, **parts)


def facts(run):
    """All that is in the ledger but how it was done."""
    kept = [(e.kind, {k: v for k, v in e.facts.items() if k != "choice"}) for e in run.ledger if e.kind != "choice"]
    return [(kind, encode_tree(known)) for kind, known in kept]


def close(a, b):
    assert a.shared.keys() == b.shared.keys()
    return all(np.allclose(a.shared[k], b.shared[k], rtol=1e-4, atol=1e-5) for k in a.shared)


@pytest.mark.parametrize("net", [pytest.param(n, marks=pytest.mark.slow) if n == "resnet" else n for n in NETS])
def test_batched_is_close_to_one_after_the_other(net, capsys):
    fed = collaboration(net)
    one = fed.run(rounds=1, engine=co.Local("sequential"))
    many = fed.run(rounds=1, engine=BATCHED)
    assert close(one, many)
    (choice,) = [e.facts for e in many.ledger if e.kind == "choice"]
    assert choice["executor"] == ("sequential" if net in UNBATCHED else "batched")
    said = capsys.readouterr().err
    assert f"executor   {choice['executor']}: {choice['reason']}\n" in said
    if net in UNBATCHED:
        assert encode_tree(many.state) == encode_tree(one.state)
    assert encode_tree(fed.run(rounds=1, engine=BATCHED).state) == encode_tree(many.state)


@pytest.fixture(scope="module")
def spread():
    """What is defined here is sent as it is: no other process can import it."""
    module = sys.modules[__name__]
    ray = pytest.importorskip("ray")
    cloudpickle.register_pickle_by_value(module)
    ray.cloudpickle.register_pickle_by_value(module)
    held = SPREAD["ray"].connect((), None)
    yield
    held.close()
    ray.cloudpickle.unregister_pickle_by_value(module)
    cloudpickle.unregister_pickle_by_value(module)


USUAL = ("batchnorm", "branching")


def cases():
    """All of them; those that differ in the module alone are slow for what they tell."""
    for engine in SPREAD:
        for net in NETS:
            yield pytest.param(net, engine, marks=() if net in USUAL else pytest.mark.slow)


@pytest.mark.ray
@pytest.mark.parametrize(("net", "engine"), list(cases()))
def test_whoever_does_the_work_the_bits_are_those_of_one_process(net, engine, spread):
    fed = collaboration(net, evaluate=co.every(2))
    there = fed.run(rounds=2, engine=SPREAD[engine])
    here = fed.run(rounds=2, engine=BATCHED if "batched" in engine else co.Local("sequential"))
    if "batched" in engine:
        assert close(there, here)
    else:
        assert encode_tree(there.state) == encode_tree(here.state)
        assert there.metrics == here.metrics
    assert len(facts(there)) == len(facts(here))
    if engine != "workers, batched":
        assert facts(there) == facts(here)
