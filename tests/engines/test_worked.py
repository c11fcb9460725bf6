"""Collaborations whose participants work in other processes come to the same as in one, to the bit."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pytest

import comity as co
from comity.core.wire import encode_tree

pytest.importorskip("cloudpickle")
RNG = np.random.default_rng(5)
DATA = {
    f"p{i:02}": (RNG.normal(size=(n, 4)).astype("float32"), RNG.integers(0, 3, n))
    for i, n in enumerate(RNG.integers(5, 40, 70))
}
FEW = {name: DATA[name] for name in list(DATA)[:6]}
LINEAR = co.Linear(4, 3, rate=0.1, batch=4)


@dataclass(frozen=True)
class Odd:
    """Is away in some rounds, and remembers how often it was asked."""

    data: Any = field(metadata={"data": True}, repr=False)
    away: tuple[int, ...] = ()

    def contribute(self, shared, local, round, secret):
        if shared.kind != "score" and round.number in self.away:
            raise RuntimeError("away")
        c, _ = co.Trainer(LINEAR, self.data).contribute(shared, {}, round, secret)
        return c, {"times": local.get("times", 0) + 1}


def torch_model(layer=None):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Linear(4, 8), *([layer] if layer else []), torch.nn.ReLU(), torch.nn.Linear(8, 3)
    )
    return co.TorchModel(
        net, loss=torch.nn.functional.cross_entropy, optimizer=partial(torch.optim.SGD, lr=0.1), batch=4
    )


def linear():
    return co.Collaboration(
        co.FedAvg(LINEAR, co.Momentum(1.0, 0.9)), {n: co.Trainer(LINEAR, d) for n, d in DATA.items()}
    )


def sampled_torch():
    model = torch_model()
    return co.Collaboration(co.FedAvg(model), {n: co.Trainer(model, d) for n, d in DATA.items()}, select=co.sample(20))


def population():
    data = list(DATA.values())
    return co.Collaboration(
        co.FedAvg(LINEAR),
        co.Population(1000, lambda i: co.Trainer(LINEAR, data[i % 70])),
        select=co.sample(9),
        evaluate=False,
    )


def odd():
    people = {n: Odd(d, (1,) if n in ("p01", "p04") else ()) for n, d in DATA.items()}
    return co.Collaboration(co.FedAvg(LINEAR), people)


def ditto():
    return co.Collaboration(co.FedAvg(LINEAR), {n: co.Ditto(LINEAR, d) for n, d in FEW.items()})


def median():
    return co.Collaboration(co.FedAvg(LINEAR), {n: co.Trainer(LINEAR, d) for n, d in FEW.items()}, combine=co.Median())


def gossip():
    people = {n: co.Trainer(LINEAR, d, send="model") for n, d in FEW.items()}
    return co.Collaboration(co.FedAvg(LINEAR, send="model"), people, select=co.ring())


KINDS = [linear, sampled_torch, population, odd, ditto, median, gossip]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_it_comes_to_the_same_in_other_processes(kind):
    fed = kind()
    here = fed.run(rounds=3, engine=co.Local("sequential"))
    there = fed.run(rounds=3, engine=co.Local("sequential", workers=2))
    assert encode_tree(here.state) == encode_tree(there.state)
    assert here.metrics == there.metrics
    for fact in ("dropped", "refused", "bytes_up", "bytes_down"):
        assert getattr(here.ledger, fact) == getattr(there.ledger, fact)
    if kind is not population:
        assert [encode_tree(here.local(n)) for n in FEW] == [encode_tree(there.local(n)) for n in FEW]


def test_a_run_is_taken_up_with_other_workers(tmp_path):
    fed = odd()
    whole = fed.run(rounds=4, engine=co.Local("sequential"))
    fed.run(rounds=2, folder=tmp_path / "run", engine=co.Local("sequential", workers=2))
    resumed = fed.run(rounds=4, folder=tmp_path / "run", engine=co.Local("sequential", workers=3))
    assert encode_tree(whole.state) == encode_tree(resumed.state)
    assert [encode_tree(whole.local(n)) for n in FEW] == [encode_tree(resumed.local(n)) for n in FEW]
