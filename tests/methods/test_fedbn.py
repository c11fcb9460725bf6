"""FedBN: Algorithm 1 by hand, what stays at home, many at once as one by one, resuming, lost replies, settings."""

from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest
from quadratic import Cohorts

import comity as co
from comity import running
from comity.combine.mean import Mean
from comity.core.contribution import Contribution
from comity.core.round import Turns
from comity.core.together import Plan, Wish, Works
from comity.core.tree import leaves, tree_map
from comity.core.wire import encode, encode_tree

torch = pytest.importorskip("torch")
nn, F = torch.nn, torch.nn.functional
RNG = np.random.default_rng(4)
SIZES = {"p0": 8, "p1": 26, "p2": 14, "p3": 11}
DATA = {n: ((RNG.normal(size=(k, 4)) * (i + 1) + i).astype("float32"), RNG.integers(0, 3, k))
        for i, (n, k) in enumerate(SIZES.items())}  # fmt: skip
FULL, SOME = (tuple(DATA),), (("p0", "p3"), ("p1", "p2", "p3"), ("p1",), ("p0", "p2"))
SECRET = co.testing.fixed_secret()
SGD = partial(torch.optim.SGD, lr=0.1)


def net(width=5, dtype=torch.float32):
    torch.manual_seed(0)
    layers = nn.Linear(4, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 3)
    return nn.Sequential(*layers).to(dtype)


def model(module=None, **settings):
    return co.TorchModel(
        net() if module is None else module, F.cross_entropy, **{"optimizer": SGD, "batch": 4, **settings}
    )


def sites(m, **settings):
    return {n: co.FedBNTrainer(m, d, **settings) for n, d in DATA.items()}


def collaboration(m, method=None, people=None, **parts):
    return co.Collaboration(method or co.FedBN(m), people or sites(m), **{"evaluate": False, "seed": 3, **parts})


def away(m):
    """The norms and the rest of a model's leaves."""
    return set(m.norms), set(m.init(co.Round("", 0))) - set(m.norms)


def by_hand(module, cohorts, rounds, optimizer):
    """Algorithm 1, in ordinary torch: nothing of a BatchNorm layer is averaged, the mean of the others is uniform."""
    nets = {n: deepcopy(module) for n in DATA}
    normal = {k for k in module.state_dict() if k.startswith("1.")}
    shared = {k: v.clone() for k, v in module.state_dict().items() if k not in normal}
    for number in range(rounds):
        after = []
        for n in cohorts[number % len(cohorts)]:
            mine, (x, y) = nets[n], DATA[n]
            mine.load_state_dict(shared, strict=False)
            mine.train()
            moves, here = optimizer(mine.parameters()), co.Round("any", 3, number=number, me=n)
            for e in range(2):
                for rows in np.array_split(here.order(len(y), "shuffle", str(e)), range(4, len(y), 4)):
                    joined = torch.from_numpy(rows)
                    moves.zero_grad()
                    inputs = torch.from_numpy(x).to(next(mine.parameters()).dtype)[joined]
                    F.cross_entropy(mine(inputs), torch.from_numpy(y)[joined]).backward()
                    moves.step()
            after.append(mine.state_dict())
        shared = {k: sum(a[k] for a in after) / len(after) for k in shared}
    own = {
        n: {k: v for k, v in mine.state_dict().items() if k in normal and v.is_floating_point()}
        for n, mine in nets.items()
    }
    return shared, own


@pytest.mark.parametrize("cohorts", [FULL, SOME], ids=["full", "partial"])
@pytest.mark.parametrize("send", ["delta", "model"])
@pytest.mark.parametrize("optimizer", [SGD, partial(torch.optim.SGD, lr=0.05, momentum=0.9)])
def test_algorithm_1(cohorts, send, optimizer):
    """To 1e-6, in float64."""
    m = model(net(dtype=torch.float64), epochs=2, optimizer=optimizer)
    fed = collaboration(m, co.FedBN(m, send=send), sites(m, send=send), select=Cohorts(cohorts))
    found = fed.run(rounds=6)
    shared, own = by_hand(m.module, cohorts, 6, optimizer)
    assert found.ledger.refused == found.ledger.dropped == []
    for k, v in shared.items():
        np.testing.assert_allclose(found.shared[k], v.numpy(), atol=1e-6, rtol=0)
    for n in DATA:
        assert found.local(n)["norms"].keys() == own[n].keys()
        for k, v in own[n].items():
            np.testing.assert_allclose(found.local(n)["norms"][k], v.detach().numpy(), atol=1e-6, rtol=0)


def test_a_party_that_waits_keeps_its_own_and_takes_the_rest():
    m = model()
    fed = collaboration(m, select=Cohorts((("p0", "p1"), ("p1", "p2"))))
    one, two = fed.run(rounds=1), fed.run(rounds=2)
    assert encode_tree(one.local("p0")) == encode_tree(two.local("p0"))
    assert encode_tree(one.local("p1")) != encode_tree(two.local("p1"))
    assert not two.local("p3")
    assert encode_tree(one.shared) != encode_tree(two.shared)


def test_nothing_of_a_normalisation_layer_travels():
    """Neither a name nor a value: every number of these layers is looked for in the bytes, both ways."""
    m = model()
    norms, rest = away(m)
    run = collaboration(m).run(rounds=2)
    local, method = run.local("p1"), co.FedBN(m)
    assert set(run.shared) == rest
    assert set(local) == {"norms"}
    assert set(local["norms"]) == norms
    here = co.Round("", 3, number=2, me="p1")
    down = method.share(run.state, "p1", here)
    up, after = co.FedBNTrainer(m, DATA["p1"]).contribute(down, dict(local), here, SECRET)
    score, _ = co.FedBNTrainer(m, DATA["p1"]).contribute(Contribution("score", down.value), dict(local), here, SECRET)
    moved = tree_map(np.subtract, after["norms"], local["norms"])
    wire = {"down": encode(down), "up": encode(up), "score": encode(score), "state": encode_tree(run.state)}
    for told, data in wire.items():
        for kept in (local["norms"], after["norms"], moved):
            for (name,), leaf in leaves(kept):
                assert name.encode() not in data, (told, name)
                assert not any(x.tobytes() in data for x in leaf if abs(x) not in (0.0, 1.0)), (told, name)
    assert any(x.tobytes() in wire["down"] for x in run.shared["0.weight"].ravel())
    assert up.weight == 26.0


def test_scores_are_those_of_the_own_layers():
    m, (x, y) = model(), DATA["p1"]
    run = collaboration(m).run(rounds=3)
    who = co.FedBNTrainer(m, DATA["p1"], test=(x[:9], y[:9]), valid=(x[9:], y[9:]))
    asked = Contribution("score", run.shared)
    found = who.contribute(asked, dict(run.local("p1")), co.Round("", 3, me="p1"), SECRET)[0].metrics
    whole = {**run.shared, **run.local("p1")["norms"]}
    assert found["accuracy"] == (float((m.predict(whole, x[:9]).argmax(1) == y[:9]).sum()), 9.0)
    assert found["valid_accuracy"] == (float((m.predict(whole, x[9:]).argmax(1) == y[9:]).sum()), 17.0)
    first = who.contribute(asked, {}, co.Round("", 3, number=4, me="p1"), SECRET)[0].metrics
    start = {**m.init(co.Round("", 3)), **run.shared}
    assert first["accuracy"] == (float((m.predict(start, x[:9]).argmax(1) == y[:9]).sum()), 9.0)


@pytest.mark.parametrize(
    ("buffers", "send"),
    [
        ("average", "delta"),
        ("local", "model"),
        ("reset", "delta"),
        *(
            pytest.param(*c, marks=pytest.mark.slow)
            for c in (("average", "model"), ("local", "delta"), ("reset", "model"))
        ),
    ],
)
def test_many_at_once_are_as_one_by_one(send, buffers, monkeypatch):
    """To the bit, in the loop and by hand; and batched within rounding."""
    m = model(buffers=buffers)
    people = sites(m, send=send)
    calls = []
    many = co.FedBNTrainer.contribute_many
    monkeypatch.setattr(co.FedBNTrainer, "contribute_many", lambda *given: calls.append(len(given[1])) or many(*given))
    together = collaboration(m, co.FedBN(m, send=send), people, select=Cohorts(SOME)).run(rounds=5)
    assert calls
    monkeypatch.setattr(co.FedBNTrainer, "alike", None)
    alone = collaboration(m, co.FedBN(m, send=send), people, select=Cohorts(SOME)).run(rounds=5)
    assert encode_tree(alone.state) == encode_tree(together.state)
    for n in DATA:
        assert encode_tree(alone.local(n)) == encode_tree(together.local(n))
    state, names = alone.state, ["p1", "p2", "p0"]
    told = co.FedBN(m, send=send).share(state, "", co.Round("", 3))
    works = Works([people[n] for n in names], [told] * 3, [dict(alone.local(n)) for n in names],
                  Turns(co.Round("", 3, number=5), names), [SECRET] * 3)  # fmt: skip
    for plan, close in ((Plan(), 0.0), (Plan("batched", 2), 1e-4)):
        for n, (c, after) in zip(names, people["p1"].contribute_many(works, plan), strict=True):
            want = people[n].contribute(told, dict(alone.local(n)), co.Round("", 3, number=5, me=n), SECRET)
            assert (c.kind, c.weight) == (want[0].kind, want[0].weight)
            assert c.metrics.keys() == want[0].metrics.keys()
            for got, expected in ((c.value, want[0].value), (after, want[1])):
                pairs = zip(leaves(got), leaves(expected), strict=True)
                assert all(p == q and np.allclose(a, b, close, close) for (p, a), (q, b) in pairs)
    assert people["p1"].plan(works, Wish("sequential", 100)).executor == "sequential"


@dataclass(frozen=True)
class Refused:
    """Its answer of the third round does not count."""

    who: Any

    def contribute(self, shared, local, round, secret):
        c, after = self.who.contribute(shared, local, round, secret)
        return (Contribution(c.kind, {}, 1.0) if round.number == 2 else c), after


def test_a_drawer_counts_only_if_its_answer_did():
    fed = collaboration(model())
    lossy = fed.replace(participants={**fed.participants, "p1": Refused(fed.participants["p1"])}).run(rounds=3)
    two = fed.run(rounds=2)
    assert [r.sender for r in lossy.ledger.refused] == ["p1"]
    assert encode_tree(lossy.local("p1")) == encode_tree(two.local("p1"))
    assert encode_tree(lossy.local("p0")) != encode_tree(two.local("p0"))


def test_in_pieces_as_in_one(tmp_path, monkeypatch):
    monkeypatch.setattr(running, "SAVE_SECONDS", 0.0)
    fed = collaboration(model(), select=co.sample(2), evaluate=True)
    straight = fed.run(rounds=5, folder=tmp_path / "straight")
    for rounds in (1, 2, 5):
        pieces = fed.run(rounds=rounds, folder=tmp_path / "pieces")
    assert encode_tree(pieces.state) == encode_tree(straight.state)
    assert pieces.metrics == straight.metrics
    for n in DATA:
        assert encode_tree(pieces.local(n)) == encode_tree(straight.local(n))
    assert encode_tree(co.load(tmp_path / "pieces", fed.method)) == encode_tree(straight.shared)


def test_a_hub_optimizer_steps_what_is_shared():
    """Momentum with rate 0.5 halves the first step, and goes on in its direction."""
    m = model()
    start = m.init(co.Round("", 3))
    plain = collaboration(m).run(rounds=1).shared
    for beta in (0.0, 0.9):
        half = collaboration(m, co.FedBN(m, co.Momentum(0.5, beta))).run(rounds=1).shared
        for k, v in plain.items():
            np.testing.assert_allclose(half[k], (v + start[k]) / 2, atol=1e-6)
    twice = [collaboration(m, co.FedBN(m, co.Momentum(0.5, beta))).run(rounds=2).shared for beta in (0.0, 0.9)]
    assert max(np.abs(twice[0][k] - twice[1][k]).max() for k in plain) > 1e-3


def test_examples_weigh_in_where_they_are_asked_to():
    m = model()
    assert co.FedBN(m).combiner == Mean(uniform=True)
    uniform, weighed = collaboration(m).run(rounds=1).shared, collaboration(m, combine=co.Mean()).run(rounds=1).shared
    c = {n: s.contribute(co.FedBN(m).share(co.FedBN(m).init(co.Round("", 3)), "", co.Round("", 3)), {},
                         co.Round("", 3, me=n), SECRET)[0] for n, s in sites(m).items()}  # fmt: skip
    first, total = m.init(co.Round("", 3)), sum(SIZES.values())
    for k in uniform:
        np.testing.assert_allclose(uniform[k], first[k] + np.mean([x.value[k] for x in c.values()], 0), atol=1e-6)
        mean = sum(SIZES[n] * x.value[k] for n, x in c.items()) / total
        np.testing.assert_allclose(weighed[k], first[k] + mean, atol=1e-6)


def test_a_start_is_where_it_begins():
    m = model()
    norms, rest = away(m)
    start = tree_map(lambda x: (x + 1).astype(x.dtype), m.init(co.Round("", 9)))
    for given in (start, {k: start[k] for k in rest}):
        shared = collaboration(m, co.FedBN(m, start=given)).run(rounds=0).shared
        assert encode_tree(shared) == encode_tree({k: start[k] for k in sorted(rest)})
    for wrong in ({k: start[k] for k in norms}, {**start, "0.bias": np.zeros(2)}, 5):
        with pytest.raises(co.ConfigError, match="The 'start' must be"):
            co.FedBN(m, start=wrong)


@pytest.mark.parametrize("buffers", ["average", "local", "reset"])
def test_the_laws_of_methods_hold(buffers):
    m = model(buffers=buffers)
    co.testing.check_method(co.FedBN(m), lambda: {n: co.FedBNTrainer(m, d, test=d, valid=d) for n, d in DATA.items()})
    co.testing.check_method(co.FedBN(m, co.Adam(0.1), send="model"), sites(m, send="model"))


def test_where_parties_look_unlike_it_is_better_than_fedavg():
    """One rule, seen through inputs of other scales and signs; 120 rows each to learn from, as many to be scored on."""
    rng, found = np.random.default_rng(0), {}
    m = model(net(16), epochs=3)
    shards = {}
    for i in range(4):
        x = rng.normal(size=(240, 4))
        y = (x[:, 0] + x[:, 1] > 0).astype(int) + (x[:, 2] > 0.5)
        x = (x * (-1) ** i * (0.3 + i) + 3 * i).astype("float32")
        shards[f"p{i}"] = (x[:120], y[:120]), (x[120:], y[120:])
    for name, hub, who in (("FedAvg", co.FedAvg, co.Trainer), ("FedBN", co.FedBN, co.FedBNTrainer)):
        people = {n: who(m, d, test=t) for n, (d, t) in shards.items()}
        found[name] = co.Collaboration(hub(m), people).run(rounds=15).metrics["accuracy"]
    assert found["FedBN"] > found["FedAvg"] + 0.05


NO_NORMS = [co.Linear(4, 3), co.MLP(4, 3), co.TorchModel(nn.Linear(4, 3), F.cross_entropy)]


@pytest.mark.parametrize("m", NO_NORMS, ids=["Linear", "MLP", "TorchModel"])
def test_models_without_such_layers_are_refused(m):
    for make in (co.FedBN, lambda m: co.FedBNTrainer(m, DATA["p0"])):
        with pytest.raises(co.ConfigError, match=r"must have normalisation layers .* Got an? .*or co.FedAvg\."):
            make(m)


def test_frozen_layers_and_nothing_but_such_layers_are_refused():
    frozen = net()
    frozen[1].requires_grad_(False)
    with pytest.raises(co.ConfigError, match="Got a TorchModel without any"):
        co.FedBN(model(frozen))
    with pytest.raises(co.ConfigError, match="must have other layers than"):
        co.FedBN(model(nn.Sequential(nn.BatchNorm1d(4))))
