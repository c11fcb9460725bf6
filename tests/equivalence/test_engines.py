"""Over bytes, shuffled and from two threads, or made when drawn: the same bits and the same bytes counted."""

import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
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
    assert len(made) == 52, "those drawn, and the first, who is looked at twice: do data fit, does it spend?"


def test_a_torch_module_runs_as_well():
    torch = pytest.importorskip("torch")
    net = torch.nn.Linear(3, 2)
    model = co.TorchModel(net, loss=torch.nn.functional.cross_entropy, batch=4, epochs=1)
    sites = {n: co.Trainer(model, d) for n, d in zip(NAMES[:3], DATA[:3], strict=True)}
    fed = co.Collaboration(co.FedAvg(model), sites)
    local, wired = fed.run(rounds=2), fed.run(rounds=2, engine=Wired(threads=1))
    assert encode_tree(local.state) == encode_tree(wired.state)


class Adds(_Wire):
    """Adds near the work: two runs of blocks, the later first."""

    @property
    def total(self):
        return self._total if hasattr(self.answer, "total") else None

    def _total(self, cohort, task, until):
        half = len(cohort) // 64 * 3
        for start, end in ((half, len(cohort)), (0, half)):
            yield from self.answer.total(task.run(start, end))


def _parts(change):
    """Totals of which each part is changed."""

    def total(self):
        inner = Adds.total.fget(self)
        return inner and (lambda *asked: [p for part in inner(*asked) for p in change(part)])

    return {"total": property(total), "_total": Adds._total}


def _more(part):
    part.sum = replace(part.sum, weight=part.sum.weight + 1)
    return [part]


def _flipped(part):
    part.accepted = [not a for a in part.accepted]
    return [part]


def engine(wire, **own):
    """An engine whose connection is `wire`, some of its methods replaced."""
    connected = type("Connected", (wire,), own)

    class Theirs:
        choice: ClassVar = own.get("choice", {"executor": "theirs"})

        def connect(self, roster, answer):
            return connected(roster, answer, 2)

    return Theirs()


class OneByOne(_Wire):
    """Lawful and sequential, over bytes."""

    def ask(self, cohort, message, until):
        for name in cohort:
            if name not in self.names:
                raise co.ConfigError(f"'{name}' is nobody.")
            yield decode(encode(self.answer(decode(encode(message(name))))))


class Threads(OneByOne):
    """Lawful, in any order."""

    def ask(self, cohort, message, until):
        for name in cohort:
            if name not in self.names:
                raise co.ConfigError(f"'{name}' is nobody.")
        yield from _Wire.ask(self, cohort, message, until)


LAWFUL = [
    co.Local(),
    co.Local("sequential"),
    engine(OneByOne),
    engine(Threads),
    engine(Threads, total=Adds.total, _total=Adds._total),
]


@pytest.mark.parametrize("lawful", LAWFUL, ids=["local", "sequential", "one by one", "threads", "total"])
def test_the_laws_of_engines_hold(lawful):
    co.testing.check_engine(lawful)


def _asks(f):
    return {"ask": lambda self, cohort, message, until: f(self, cohort, message, until)}


def _swallow(self, *asked):
    try:
        yield from OneByOne.ask(self, *asked)
    except KeyboardInterrupt:
        return


def _coarse(self, *asked):
    """Every number in 8 bits and less."""
    for a in OneByOne.ask(self, *asked):
        value = tree_map(
            lambda x: np.round(x, 1) + np.float32(0.05) if getattr(x, "dtype", None) == np.float32 else x,
            a.body.value,
        )
        yield replace(a, body=replace(a.body, value=value)) if a.phase == "contribute" else a


def _lighter(a):
    return replace(a, body=replace(a.body, weight=1.0))


def _twice(self, cohort, message, until):
    for name in cohort:
        message(name)
    yield from OneByOne.ask(self, cohort, message, until)


def _spent(self, *asked):
    try:
        yield from OneByOne.ask(self, *(asked if self.random.random() >= 0 else ((), *asked[1:])))
    except KeyboardInterrupt:
        self.random.random = lambda: -1.0
        raise


class Once(OneByOne):
    """Cannot be asked again once nobody listened to the end."""

    def ask(self, cohort, message, until):
        if self.random.random() < 0:
            raise RuntimeError("broken")
        try:
            yield from OneByOne.ask(self, cohort, message, until)
        except GeneratorExit:
            self.random.random = lambda: -1.0
            raise


BROKEN = {
    "choice": {"choice": {"executor": {1, 2}}},
    "roster": {"roster": lambda self: list(reversed(self.names))},
    "roster, a set": {"roster": lambda self: set(self.names)},
    "ask": _asks(lambda self, *a: 1 / 0),
    "answers, lost": _asks(lambda self, *a: islice(OneByOne.ask(self, *a), 1, None)),
    "answers, twice": _asks(lambda self, *a: (b for b in OneByOne.ask(self, *a) for _ in range(2))),
    "answers, whose": _asks(lambda self, *a: (replace(b, sender="p000") for b in OneByOne.ask(self, *a))),
    "answers, others": _asks(lambda self, *a: map(_lighter, OneByOne.ask(self, *a))),
    "answers, numbers": _asks(_coarse),
    "once": _asks(_twice),
    "failure": _asks(lambda self, *a: (b for b in OneByOne.ask(self, *a) if b.body.kind != "error")),
    "strangers": _asks(lambda self, cohort, *a: OneByOne.ask(self, [n for n in cohort if n in self.names], *a)),
    "interrupt": _asks(_swallow),
    "interrupt, then nothing": _asks(_spent),
    "listen": {"ask": Once.ask},
    "total, the sum": _parts(_more),
    "total, a block": _parts(lambda part: [part] if part.first else []),
    "total, who counts": _parts(_flipped),
    "learn": _asks(lambda self, *a: (
        replace(b, body=replace(b.body, kind="error")) if b.phase == "contribute" and b.sender == "m1" else b
        for b in OneByOne.ask(self, *a)
    )),
}  # fmt: skip


@pytest.mark.parametrize("law", BROKEN)
def test_an_engine_that_breaks_a_law_is_told_which(law):
    with pytest.raises(AssertionError, match=rf"^Theirs breaks the law of '{law.split(',')[0]}'"):
        co.testing.check_engine(engine(OneByOne, **BROKEN[law]))
