"""Participants of one model who do their work in one call: every bit as one after the other."""

from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import pytest

import comity as co
from comity.core.contribution import Contribution
from comity.core.wire import encode_tree
from comity.engines.local import Local
from comity.loop import sites
from comity.methods.training import Kept

torch = pytest.importorskip("torch")
F = torch.nn.functional
RNG = np.random.default_rng(0)
SIZES = {"a": 5, "b": 17, "c": 32, "d": 1, "e": 9, "f": 40}
DATA = {n: (RNG.normal(size=(k, 4)).astype("float32"), RNG.integers(0, 3, k)) for n, k in SIZES.items()}


def net(kind):
    torch.manual_seed(0)
    layers = {
        "plain": [],
        "dropout": [torch.nn.Dropout(0.5)],
        "batchnorm": [torch.nn.BatchNorm1d(8)],
    }[kind]
    return torch.nn.Sequential(torch.nn.Linear(4, 8), *layers, torch.nn.ReLU(), torch.nn.Linear(8, 3))


OPTIMIZERS = {
    "sgd": partial(torch.optim.SGD, lr=0.1),
    "momentum": partial(torch.optim.SGD, lr=0.1, momentum=0.9),
    "adam": partial(torch.optim.Adam, lr=0.01),
}


class Alone:
    """`Local`, but each is asked alone."""

    choice = Local().choice

    def connect(self, roster, answer):
        return Local().connect(roster, answer.answer)


def collaboration(kind="plain", optimizer="sgd", **model):
    model = co.TorchModel(
        net(kind), loss=F.cross_entropy, optimizer=OPTIMIZERS[optimizer], batch=8, **{"epochs": 1.5, **model}
    )
    people = {n: co.Trainer(model, d) for n, d in DATA.items() if len(d[1]) > 1 or kind != "batchnorm"}
    return co.Collaboration(co.FedAvg(model), people, evaluate=co.every(2), seed=1)


def bits(run):
    drawers = {n: run.local(n) for n in run._sites._drawers}
    facts = {str(i): e.facts for i, e in enumerate(run.ledger)}
    return encode_tree({"state": run.state, "metrics": dict(run.metrics), "facts": facts, "drawers": drawers})


@pytest.fixture
def calls(monkeypatch):
    """How many were asked in each call of many."""
    seen = []
    plain = co.Trainer.contribute_many

    def counted(self, works, plan):
        seen.append(len(works))
        return plain(self, works, plan)

    monkeypatch.setattr(co.Trainer, "contribute_many", counted)
    return seen


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(
    ("kind", "model"),
    [("plain", {}), ("dropout", {}), ("batchnorm", {}), ("batchnorm", {"buffers": "local"}), ("plain", {"epochs": 0})],
)
def test_together_as_alone(kind, model, optimizer, calls):
    fed = collaboration(kind, optimizer, **model)
    together = bits(fed.run(rounds=3))
    first = 2 if model.get("buffers") == "local" else 1
    assert calls == [len(fed.participants)] * (first + 2)
    assert together == bits(fed.run(rounds=3, engine=Alone()))
    assert len(calls) == first + 2


def test_large_sets_are_gathered_as_they_are_needed(monkeypatch):
    from comity.adapters.torch import sequential as many

    fed = collaboration("dropout")
    ahead = bits(fed.run(rounds=2))
    monkeypatch.setattr(many, "BYTES_AHEAD", 0)
    assert bits(fed.run(rounds=2)) == ahead


@pytest.mark.parametrize(("limit", "groups"), [(1, []), (2, [2, 2, 2]), (4, [4, 2])])
def test_a_group_holds_little_memory(limit, groups, calls, monkeypatch):
    fed = collaboration()
    whole = bits(fed.run(rounds=1))
    del calls[:]
    size = sum(x.nbytes for x in fed.method.model.init(co.Round("r", 0)).values())
    monkeypatch.setattr(sites, "BYTES_TOGETHER", size * limit)
    assert bits(fed.run(rounds=1)) == whole
    assert calls == groups


@dataclass(frozen=True)
class Other:
    """Unlike the rest: asked alone, in its turn."""

    data: object = field(metadata={"data": True})
    model: object = None

    def contribute(self, shared, local, round, secret):
        return co.Trainer(self.model, self.data).contribute(shared, local, round, secret)


def test_unlike_ones_stand_between(calls):
    fed = collaboration()
    model = fed.method.model
    mixed = {n: Other(DATA[n], model) if n in "ce" else p for n, p in fed.participants.items()}
    run = fed.replace(participants=mixed).run(rounds=1)
    assert calls == [2]
    assert encode_tree(run.state) == encode_tree(fed.run(rounds=1).state)
    assert run.ledger[1].facts["asked"] == "a\nb\nc\nd\ne\nf"


def test_two_models_are_two_groups(calls):
    fed = collaboration()
    twin = replace(fed.method.model)
    mixed = {n: replace(p, model=twin) if n in "def" else p for n, p in fed.participants.items()}
    assert encode_tree(fed.replace(participants=mixed).run(rounds=1).state) == encode_tree(fed.run(rounds=1).state)
    assert calls[:2] == [3, 3]


def test_where_one_fails_only_that_one_is_dropped(calls):
    fed = collaboration()
    broken = (np.full((3, 4), np.nan, "float32"), np.array([0, 1, 7]))
    people = {**fed.participants, "b": _Late(fed.method.model, DATA["b"], later=broken)}
    run = fed.replace(participants=people).run(rounds=1)
    assert calls == [6]
    assert [(d.round, d.sender) for d in run.ledger.dropped if d.round == 0] == [(0, "b")]
    without = fed.replace(participants={n: p for n, p in fed.participants.items() if n != "b"}).run(rounds=1)
    assert all(np.allclose(run.shared[k], without.shared[k], atol=1e-7) for k in run.shared)


@dataclass(frozen=True)
class _Late(co.Trainer):
    """Its data go bad once the run has begun."""

    later: object = field(default=None, metadata={"data": True}, repr=False)

    def __post_init__(self):
        vars(self)["_ready"] = Kept(self.later)


def test_asked_twice_in_a_row_they_answer_as_before():
    fed = collaboration("batchnorm", buffers="local")
    once, twice = fed.run(rounds=2), fed.run(rounds=2, engine=_Twice())
    assert encode_tree(once.state) == encode_tree(twice.state)


class _Twice:
    """Each question of a cohort comes twice, one after the other."""

    choice = Local().choice

    def connect(self, roster, answer):
        return _Repeats(Local().connect(roster, answer))


@dataclass
class _Repeats:
    inner: object

    def roster(self):
        return self.inner.roster()

    def ask(self, cohort, message, until):
        known = {who: message(who) for who in cohort}
        answers = self.inner.ask([who for who in cohort for _ in range(2)], known.__getitem__, until)
        for i, answer in enumerate(answers):
            if i % 2:
                yield answer


def test_a_stop_and_a_start_in_between(tmp_path):
    fed = collaboration("batchnorm", buffers="local")
    straight = fed.run(rounds=4)
    fed.run(rounds=2, folder=tmp_path / "run")
    again = fed.run(rounds=4, folder=tmp_path / "run")
    assert encode_tree(straight.state) == encode_tree(again.state)


@pytest.mark.parametrize("threads", [1, 2, None])
def test_the_number_of_threads_is_recorded_and_put_back(threads):
    before = torch.get_num_threads()
    run = collaboration(threads=threads).run(rounds=1)
    assert run.ledger[0].facts["choice"]["threads"] == threads
    assert torch.get_num_threads() == before


def test_numpy_models_are_asked_alone(calls):
    model = co.Linear(4, 3)
    co.Collaboration(co.FedAvg(model), {n: co.Trainer(model, d) for n, d in DATA.items()}).run(rounds=1)
    assert calls == []


def test_a_kind_of_its_own_is_not_asked_with_others():
    class Mine(co.Trainer):
        def contribute(self, shared, local, round, secret):
            c, local = super().contribute(shared, local, round, secret)
            return Contribution(c.kind, c.value, 0.5, c.metrics), local

    fed = collaboration()
    mine = {n: Mine(p.model, p.data) for n, p in fed.participants.items()}
    own = fed.replace(participants=mine)
    assert bits(own.run(rounds=1)) == bits(own.run(rounds=1, engine=Alone()))
