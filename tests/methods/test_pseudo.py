"""Pseudo-labels: by hand, who holds whom, sites without labels, what is not changed, laws, settings."""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest

import comity as co
from comity import running
from comity.core.contribution import Contribution
from comity.core.tree import tree_map
from comity.core.wire import encode, encode_tree

torch = pytest.importorskip("torch")
nn, F = torch.nn, torch.nn.functional
RNG = np.random.default_rng(7)
CENTRES = 3 * RNG.normal(size=(3, 4))
Y = np.arange(36) % 3
X = (CENTRES[Y] + RNG.normal(size=(36, 4))).astype("float32")
OTHER = (CENTRES[Y] + RNG.normal(size=(36, 4)) + 1).astype("float32")
FEW, HELD = (X[:9], Y[:9]), (X[9:18], Y[9:18])
SECRET, HERE = co.testing.fixed_secret(), co.Round("pseudo", 3, number=7, me="p1")
MLP = co.MLP(4, 3, hidden=(8,), rate=0.2, batch=4)
LINEAR = co.Linear(4, 3, rate=0.2, batch=4)
ALL = {"confidence": 1e-6, "least": 1, "balance": math.inf, "trust": 1.0}


def model(**settings):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    sgd = partial(torch.optim.SGD, lr=0.1, momentum=0.5)
    return co.TorchModel(net, F.cross_entropy, **{"optimizer": sgd, "batch": 4, **settings})


NET, LOCAL = model(), model(buffers="local")


def learnt(m, epochs=10):
    return m.fit(m.init(HERE), (X[9:], Y[9:]), HERE, co.Step(epochs=epochs))[0]


def answer(who, params, local=None, *, kind="model", round=HERE):
    return who.contribute(Contribution(kind, params), local or {}, round, SECRET)


def same(one, other):
    return encode(one[0]) == encode(other[0]) and encode_tree(one[1]) == encode_tree(other[1])


@pytest.mark.parametrize("data", [FEW, None, (X[:0], Y[:0])], ids=["few", "None", "empty"])
@pytest.mark.parametrize("recalibrate", [True, False])
def test_by_hand(data, recalibrate):
    """Labels with its own statistics, those it is sure of, beside the labelled rows, and the weight."""
    params = learnt(NET)
    who = co.PseudoLabels(co.Trainer(NET, data), OTHER, confidence=0.6, recalibrate=recalibrate, balance=math.inf)
    c, local = answer(who, params)
    p = NET.predict(NET.recalibrate(params, OTHER) if recalibrate else params, OTHER)
    sure = p.max(1) >= 0.6
    assert 10 <= sure.sum() < 36
    rows = 0 if data is None else len(data[1])
    x, y = OTHER[sure], p.argmax(1)[sure]
    union = (np.concatenate([X[:rows], x]), np.concatenate([Y[:rows], y]))
    want, _ = answer(co.Trainer(NET, union), params)
    assert encode_tree(c.value) == encode_tree(want.value)
    assert c.weight == pytest.approx(rows + 0.1 * sure.sum())
    assert c.metrics["pseudo"] == (float(sure.sum()), 36.0)
    assert local == {}


def test_own_statistics_make_other_labels():
    params = learnt(NET)
    own, of_all = (NET.predict(p, OTHER).argmax(1) for p in (NET.recalibrate(params, OTHER), params))
    assert (own == Y).mean() > (of_all == Y).mean()


def test_a_class_is_used_as_often_as_twice_the_median():
    params = learnt(MLP, 30)
    rows = np.concatenate([X[Y == 0], X[Y == 1][:4], X[Y == 2][:2]])
    found = np.bincount(MLP.predict(params, rows).argmax(1), minlength=3)
    assert found.tolist() == [12, 4, 2]

    def used(balance, seed=3):
        who = co.PseudoLabels(co.Trainer(MLP, None), rows, **{**ALL, "balance": balance})
        x, y = who._pseudo(params, {}, co.Round("", seed, me="a"))
        return x, np.bincount(y, minlength=3).tolist()

    assert [used(b)[1] for b in (1, 2, 0.3, math.inf)] == [[4, 4, 2], [8, 4, 2], [2, 2, 2], [12, 4, 2]]
    assert np.array_equal(used(1)[0], used(1)[0])
    assert not np.array_equal(used(1)[0], used(1, seed=4)[0])


def test_with_too_few_or_too_early_it_makes_none():
    params = learnt(MLP, 30)
    plain = answer(co.Trainer(MLP, FEW), params)
    for settings in ({"least": 37}, {"begin": 8}, {"confidence": 1.0, "least": 10}):
        c, local = answer(co.PseudoLabels(co.Trainer(MLP, FEW), OTHER, **{**ALL, **settings}), params)
        assert c.metrics["pseudo"] == (0.0, 36.0)
        assert encode_tree(c.value) == encode_tree(plain[0].value)
        assert (c.weight, local) == (9.0, plain[1])
    assert answer(co.PseudoLabels(co.Trainer(MLP, FEW), OTHER, **{**ALL, "begin": 7}), params)[0].weight == 45.0


def inner(kind, data, **more):
    return {
        "Trainer": lambda: (co.FedAvg(NET), co.Trainer(NET, data, **more)),
        "local": lambda: (co.FedAvg(LOCAL), co.Trainer(LOCAL, data, **more)),
        "model": lambda: (co.FedAvg(NET, send="model"), co.Trainer(NET, data, send="model", **more)),
        "FedProx": lambda: (co.FedAvg(MLP), co.FedProx(MLP, data, mu=0.1, epochs=2, **more)),
        "Ditto": lambda: (co.FedAvg(LOCAL), co.Ditto(LOCAL, data, **more)),
        "APFL": lambda: (co.FedAvg(MLP), co.APFL(MLP, data, **more)),
        "FedBN": lambda: (co.FedBN(NET), co.FedBNTrainer(NET, data, **more)),
        "FedRep": lambda: (co.FedRep(NET, head=("3",)), co.FedRepTrainer(NET, data, **more)),
        "Scaffold": lambda: (co.Scaffold(MLP), co.ScaffoldTrainer(MLP, data, **more)),
        "Tickets": lambda: (co.Tickets(NET, 6, by=0.5), co.SharedTicketTrainer(NET, data, epochs=2, **more)),
        "FedLTN": lambda: (co.FedLTN(NET), co.TicketTrainer(NET, data, keep=0.3, threshold=0.0, **more)),
        "LotteryFL": lambda: (co.LotteryFL(NET), co.LotteryTrainer(NET, data, keep=0.3, threshold=0.0, **more)),
        "Tuned": lambda: (co.FedAvg(NET), co.Tuned(co.Trainer(NET, data, **more), finish=("recalibrate", "none"))),
    }[kind]()


KINDS = pytest.mark.parametrize(
    "kind", ["Trainer", "local", "model", "FedProx", "Ditto", "APFL", "FedBN", "FedRep", "Scaffold", "Tickets",
             "FedLTN", "LotteryFL", "Tuned"],
)  # fmt: skip


@KINDS
def test_a_site_that_is_sure_of_nothing_says_nothing(kind):
    """Weight 0, no change, the drawer as it was; alone it moves nothing and the round closes."""
    method, who = inner(kind, None)
    who = co.PseudoLabels(who, OTHER, confidence=1.0, least=37)
    shared = method.share(method.init(HERE), "a", HERE)
    before = {} if kind == "Scaffold" else {"kept": 1}
    c, local = who.contribute(shared, before, HERE, SECRET)
    assert local is before
    weights, changes = [], []
    tree_map(lambda w: weights.append(float(np.max(w))), c.weight)
    if kind == "model":
        assert (weights, encode_tree(c.value)) == ([0.1], encode_tree(shared.value))
    else:
        tree_map(lambda x: changes.append(float(np.abs(x).max(initial=0))), c.value)
        assert set(weights) == set(changes) == {0.0}
    run = co.Collaboration(method, {"a": who}, evaluate=False).run(rounds=2)
    assert run.ledger.refused == run.ledger.dropped == []
    assert run.ledger.metric("pseudo") == [0.0, 0.0]
    begun = method.init(co.Round("", 0))
    one, two = (s.get("params", s) for s in (run.state, begun))
    one, two = (t.get("rest", t) for t in (one, two))
    assert {n: np.allclose(v, two[n], rtol=1e-6) for n, v in one.items()} == dict.fromkeys(two, True)


@KINDS
def test_it_learns_without_labels_of_its_own(kind):
    """One has labels and two have none: all are used in the end, and they are right on what they have."""
    method, first = inner(kind, FEW, valid=HELD)
    people = {"few": first}
    for name, x in (("b", X[9:]), ("c", OTHER)):
        people[name] = co.PseudoLabels(inner(kind, None, test=(x, Y[: len(x)]))[1], x, confidence=0.5, least=2)
    run = co.Collaboration(method, people, seed=1).run(rounds=6)
    assert run.ledger.refused == run.ledger.dropped == []
    assert run.ledger.metric("pseudo")[-1] > 0
    if kind in ("Trainer", "local", "FedProx", "Ditto", "Tickets", "Tuned"):
        assert run.ledger.metric("pseudo")[-1] > 0.5
        assert run.metrics["accuracy"] > 0.5


def test_labels_come_from_what_it_would_train_from():
    """Of a ticket its dense parameters; of FedBN with its own layers; with the buffers that stay at the site."""
    params, other = learnt(NET), tree_map(lambda v: (v + np.float32(0.5)).astype("float32"), learnt(NET))
    seen, real = [], co.TorchModel.predict_local
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(co.TorchModel, "predict_local", lambda s, p, b, x: seen.append((p, b)) or real(s, p, b, x))
        patch.setattr(co.TorchModel, "recalibrate_local", lambda s, p, b, x: (p, b))
        norms = {n: other[n] for n in NET.norms}
        rest = {n: v for n, v in params.items() if n not in norms}
        answer(co.PseudoLabels(co.FedBNTrainer(NET, None), X, **ALL), rest, {"norms": norms})
        assert encode_tree(seen[-1][0]) == encode_tree({**rest, **norms})
        tickets = co.Tickets(NET, 4, start=params)
        sparse = tickets.share(tickets.init(HERE), "", HERE).value
        answer(co.PseudoLabels(co.SharedTicketTrainer(NET, None), X, **ALL), sparse)
        assert encode_tree(seen[-1][0]) == encode_tree(tickets.params(sparse))
        own = {**LOCAL.local_init(), **{n: other[n] for n in NET.statistics}}
        shared = {n: v for n, v in params.items() if n not in own}
        answer(co.PseudoLabels(co.Trainer(LOCAL, None), X, **ALL), shared, {"buffers": own})
        assert encode_tree(seen[-1][1]) == encode_tree(own)


def test_augmentation_is_that_of_the_inner_one_and_labels_come_before_it():
    calls = []

    def turned(x, rng):
        calls.append(len(x))
        return -x

    params = learnt(MLP, 30)
    tickets = co.Tickets(MLP, 4, start=params)
    sparse = tickets.share(tickets.init(HERE), "", HERE).value
    empty = (X[:0], Y[:0])
    c, _ = answer(co.PseudoLabels(co.SharedTicketTrainer(MLP, empty, augment=turned), X, **ALL), sparse)
    union = X, MLP.predict(params, X).argmax(1)
    want, _ = answer(co.SharedTicketTrainer(MLP, union, augment=turned), sparse)
    assert encode_tree(c.value) == encode_tree(want.value)
    assert calls[-1] == 36


def test_scores_are_those_of_the_inner_one():
    params = learnt(NET)
    for data in (FEW, None):
        plain = co.Trainer(NET, FEW, test=HELD, valid=HELD)
        who = co.PseudoLabels(co.Trainer(NET, data, test=HELD, valid=HELD), OTHER)
        assert same(answer(who, params, kind="score"), answer(plain, params, kind="score"))
    assert answer(co.PseudoLabels(co.Trainer(NET, None), X), params, kind="score")[0].metrics == {}
    tuned = co.PseudoLabels(co.Tuned(co.Trainer(NET, FEW, test=HELD), finish=("recalibrate",)), OTHER)
    whole = np.concatenate([FEW[0], OTHER])
    new = NET.predict(NET.recalibrate(params, whole), HELD[0])
    c, _ = answer(tuned, params, kind="score")
    assert c.metrics["recalibrate_accuracy"] == (float((new.argmax(1) == HELD[1]).sum()), 9.0)


def test_in_pieces_as_in_one(tmp_path, monkeypatch):
    monkeypatch.setattr(running, "SAVE_SECONDS", 0.0)
    people = {"few": co.Trainer(LOCAL, FEW, valid=HELD)}
    people |= {n: co.PseudoLabels(co.Trainer(LOCAL, None), x, confidence=0.5) for n, x in (("b", X), ("c", OTHER))}
    fed = co.Collaboration(co.FedAvg(LOCAL), people, select=co.sample(2), seed=3)
    straight = fed.run(rounds=4, folder=tmp_path / "straight")
    for rounds in (1, 2, 4):
        pieces = fed.run(rounds=rounds, folder=tmp_path / "pieces")
    assert encode_tree(straight.state) == encode_tree(pieces.state)
    assert all(encode_tree(straight.local(n)) == encode_tree(pieces.local(n)) for n in people)


def test_a_weight_of_zero_passes_what_travels():
    """Beside others and with nobody else, sparse and quantised."""
    method, few = inner("FedLTN", FEW)
    silent = {n: co.PseudoLabels(inner("FedLTN", None)[1], x, least=37) for n, x in (("b", OTHER), ("c", X))}
    for people in ({"few": few, **silent}, silent):
        parts = [co.Sparse(), co.Quantize(up=4, down=8, least=4), co.Deflate()]
        run = co.Collaboration(method, people, evaluate=False, transforms=parts).run(rounds=2)
        assert run.ledger.refused == run.ledger.dropped == []
        assert all(np.isfinite(v).all() for v in run.shared.values())


@pytest.mark.parametrize("kind", ["Trainer", "local", "Tickets", "FedLTN"])
def test_the_laws_of_methods_hold(kind):
    def sites():
        made = {n: co.PseudoLabels(inner(kind, None, valid=HELD)[1], x, confidence=0.4, least=2)
                for n, x in (("b", X), ("c", OTHER))}  # fmt: skip
        return {"few": inner(kind, FEW, valid=HELD)[1], **made}

    co.testing.check_method(inner(kind, FEW)[0], sites, rounds=2)


@dataclass(frozen=True)
class Idle:
    """Says that nothing changed, without a look at anything."""

    model: Any
    data: Any

    def contribute(self, shared, local, round, secret):
        return Contribution("delta", tree_map(np.zeros_like, shared.value)), local


def test_one_that_does_not_train_is_refused():
    with pytest.raises(co.ConfigError, match=r"must train its model\. Got Idle, which did not\. Use Idle alone"):
        answer(co.PseudoLabels(Idle(MLP, FEW), X), MLP.init(HERE))


def test_a_model_without_classes_is_refused():
    line = co.TorchModel(nn.Linear(4, 1), F.mse_loss)
    with pytest.raises(co.ConfigError, match="must predict classes"):
        answer(co.PseudoLabels(co.Trainer(line, None), X), line.init(HERE))
