"""Over bytes, shuffled and from two threads, or made when drawn: the same bits and the same bytes counted."""

import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import pytest

import comity as co
from comity.core.contribution import Contribution
from comity.core.tree import tree_map
from comity.core.wire import decode, encode, encode_tree

RNG = np.random.default_rng(2)
N = 150
DATA = [(RNG.normal(size=(6, 3)).astype("float32"), RNG.integers(0, 2, 6)) for _ in range(N)]
MODEL = co.Linear(3, 2, rate=0.3, batch=4)
NAMES = [f"{i:03d}" for i in range(N)]


@dataclass(frozen=True)
class Wired:
    """Every envelope is bytes on its way, both ways; two threads answer, in any order."""

    choice: ClassVar = {"executor": "wired"}
    threads: int = 2

    def connect(self, roster, answer):
        return _Wire(roster, answer, self.threads)


@dataclass(frozen=True)
class _Wire:
    names: Any
    answer: Any
    threads: int
    random: Any = field(default_factory=lambda: random.Random(0))

    def roster(self):
        return self.names

    def ask(self, cohort, message, until):
        def one(name):
            return encode(self.answer(decode(encode(message(name)))))

        order = self.random.sample(list(cohort), len(cohort))
        with ThreadPoolExecutor(self.threads) as pool:
            replies = list(pool.map(one, order))
        self.random.shuffle(replies)
        yield from map(decode, replies)


@dataclass(frozen=True)
class Remembering:
    data: Any = field(metadata={"data": True}, repr=False)

    def contribute(self, shared, local, round, secret):
        c, _ = co.Trainer(MODEL, self.data).contribute(shared, {}, round, secret)
        if shared.kind == "score":
            return c, local
        mine = local.get("w", np.float32(0.0))
        return replace(c, value={k: x + mine for k, x in c.value.items()}), {"w": mine + np.float32(0.01)}


@dataclass(frozen=True)
class Differences:
    """Sends what changed since the member's last accepted reply."""

    decodes: ClassVar[str] = "each"
    contracts: ClassVar[bool] = False

    def init(self):
        return {}

    def encode(self, c, public, local, round, secret):
        return replace(c, value=tree_map(lambda x: x - np.float32(len(local)), c.value)), {**local, str(len(local)): 1}

    def decode(self, c, state, round, secret):
        return replace(c, value=tree_map(lambda x: x + np.float32(len(state)), c.value)), {**state, str(len(state)): 1}


def facts(run):
    """The ledger without times and without the engine's own choice."""
    rows = []
    for e in run.ledger:
        known = {k: v for k, v in e.facts.items() if k != "choice"}
        rows.append((e.kind, encode_tree(known)))
    return rows


COMBINERS = [co.Mean(), co.Mean(uniform=True), co.Median()]


@pytest.mark.parametrize("combine", COMBINERS, ids=repr)
@pytest.mark.parametrize("participant", [lambda d: co.Trainer(MODEL, d), Remembering], ids=["trainer", "drawer"])
def test_the_wire_changes_no_bit_and_no_count(combine, participant):
    sites = {n: participant(d) for n, d in zip(NAMES, DATA, strict=True)}
    parts = {"select": co.sample(0.6), "combine": combine, "transforms": [Differences()], "evaluate": co.every(2)}
    fed = co.Collaboration(co.FedAvg(MODEL, co.Adam(0.1)), sites, **parts)
    local, wired = fed.run(rounds=4), fed.run(rounds=4, engine=Wired())
    assert encode_tree(local.state) == encode_tree(wired.state)
    assert facts(local) == facts(wired)
    assert (local.ledger.bytes_up, local.ledger.bytes_down) == (wired.ledger.bytes_up, wired.ledger.bytes_down)
    assert local.metrics == wired.metrics
    transforms = [encode_tree(r._states["hub"].transforms[0]) for r in (local, wired)]
    assert transforms[0] == transforms[1]
    for n in NAMES[:20]:
        assert encode_tree(local.local(n)) == encode_tree(wired.local(n))


BAD = ["002", "004", "007"]


def test_refusals_are_the_same_over_the_wire():
    @dataclass(frozen=True)
    class Bad:
        def contribute(self, shared, local, round, secret):
            if shared.kind == "score":
                raise ValueError("no score")
            return Contribution("delta", {"0.bias": np.zeros(2)}), local

    sites = {n: co.Trainer(MODEL, d) for n, d in zip(NAMES[:9], DATA[:9], strict=True)} | dict.fromkeys(BAD, Bad())
    fed = co.Collaboration(co.FedAvg(MODEL), sites)
    local, wired = fed.run(rounds=2), fed.run(rounds=2, engine=Wired())
    assert local.ledger.refused == wired.ledger.refused
    assert local.ledger.dropped == wired.ledger.dropped
    assert [r.sender for r in local.ledger.refused] == [*BAD, *BAD]
    assert encode_tree(local.state) == encode_tree(wired.state)


def test_a_population_is_the_dict_of_its_members():
    def make(i):
        return co.Trainer(MODEL, DATA[i])

    method = co.FedAvg(MODEL, co.Momentum(1.0, 0.5))
    parts = {"select": co.sample(0.3), "evaluate": co.every(2)}
    made = co.Collaboration(method, co.Population(N, make), **parts).run(rounds=4)
    kept = co.Collaboration(method, {n: make(i) for i, n in enumerate(NAMES)}, **parts).run(rounds=4)
    assert encode_tree(made.state) == encode_tree(kept.state)
    assert [f for k, f in facts(made)[1:]] != []
    assert made.metrics == kept.metrics
    assert made.ledger.bytes_up == pytest.approx(kept.ledger.bytes_up)


def test_a_million_members_cost_what_is_drawn():
    made = []

    def make(i):
        made.append(i)
        return co.Trainer(MODEL, DATA[i % N])

    parts = {"select": co.sample(10), "evaluate": False}
    run = co.Collaboration(co.FedAvg(MODEL), co.Population(1_000_000, make), **parts).run(rounds=5)
    assert run.ledger.rounds == 5
    assert len(made) == 50


def test_a_torch_module_runs_as_well():
    torch = pytest.importorskip("torch")
    net = torch.nn.Linear(3, 2)
    model = co.TorchModel(net, loss=torch.nn.functional.cross_entropy, batch=4, epochs=1)
    sites = {n: co.Trainer(model, d) for n, d in zip(NAMES[:3], DATA[:3], strict=True)}
    fed = co.Collaboration(co.FedAvg(model), sites)
    local, wired = fed.run(rounds=2), fed.run(rounds=2, engine=Wired(threads=1))
    assert encode_tree(local.state) == encode_tree(wired.state)
