"""FedLTN against its own words in numpy loops, and what must hold of every ticket."""

import importlib
import sys
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import comity as co
from comity import running
from comity.core.contribution import Contribution
from comity.core.wire import encode_tree
from comity.methods.sparsity import density

sys.path.append(str(Path(__file__).parent))
paper: Any = importlib.import_module("softmax")
PARTIES, MODEL = paper.problem(), paper.Softmax()
SECRET = co.testing.fixed_secret()
HERE = co.Round("", 0, me="p0")
COHORTS = pytest.mark.parametrize("cohorts", [paper.EVERYBODY, paper.SOME], ids=["full", "partial"])
SHARED = ("bias", "body", "head")


def sites(**settings):
    return paper.sites_of(co.TicketTrainer, MODEL, PARTIES, **settings)


def torch_model(buffers="average", seed=0):
    torch = pytest.importorskip("torch")
    torch.manual_seed(seed)
    net = torch.nn.Sequential(
        torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.ReLU(), torch.nn.Linear(8, 3)
    )  # fmt: skip
    sgd = partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=1e-3)
    return co.TorchModel(net, torch.nn.functional.cross_entropy, optimizer=sgd, batch=4, buffers=buffers)


MODELS = {
    "paper": lambda: MODEL,
    "linear": lambda: co.Linear(4, 3, rate=0.1, batch=4),
    "mlp": lambda: co.MLP(4, 3, hidden=(8,), rate=0.2, batch=4),
    "batchnorm": torch_model,
    "local buffers": lambda: torch_model("local"),
    "reset buffers": lambda: torch_model("reset"),
}


class World(NamedTuple):
    """What the algorithm has after some rounds."""

    shared: Any
    velocity: Any
    masks: Any
    norms: Any


def by_the_book(cohorts, rounds, *, momentum, keep=0.2, rate=0.3, threshold=0.5, tolerance=0.05, drop=None):
    """The algorithm, coordinate by coordinate."""
    w0 = MODEL.init(HERE)
    g = {k: w0[k] for k in SHARED}
    v = {k: np.zeros_like(g[k]) for k in SHARED}
    m = {n: {k: np.ones(g[k].shape, bool) for k in paper.PRUNABLE} for n in PARTIES}
    b, best = {n: {k: w0[k] for k in MODEL.norms} for n in PARTIES}, dict.fromkeys(PARTIES)
    size = sum(g[k].size for k in paper.PRUNABLE)
    for t in range(rounds):
        sent = {}
        for n in cohorts[t % len(cohorts)]:
            data, valid, _ = PARTIES[n]
            w = {**{k: g[k] * m[n].get(k, 1) for k in SHARED}, **b[n]}
            w, _ = MODEL.fit(w, data, HERE, co.Step(mask=m[n]))
            was, left = paper.accuracy(MODEL, w, valid), sum(x.sum() for x in m[n].values())
            enough = was >= threshold if drop is None else best[n] is not None and was >= best[n] - drop
            best[n] = max(was, best[n] or 0)
            if enough and left > keep * size:
                to = max(int(np.ceil(keep * size)), int(left * (1 - rate)))
                cut = paper.smallest_out(w, m[n], to)
                now = paper.accuracy(MODEL, {**w, **{k: w[k] * cut[k] for k in cut}}, valid)
                m[n] = cut if was - now <= tolerance + 1e-9 else m[n]
            b[n] = {k: w[k] for k in MODEL.norms}
            sent[n] = ({k: w[k] * m[n].get(k, 1) for k in SHARED}, dict(m[n]), len(data[1]))
        for k in SHARED:
            for i in np.ndindex(g[k].shape):
                who = [(w[k][i], c) for w, mask, c in sent.values() if k not in mask or mask[k][i]]
                if who:
                    d = sum(c * (x - g[k][i]) for x, c in who) / sum(c for _, c in who)
                    g[k], v[k] = g[k].copy(), v[k].copy()
                    v[k][i] = momentum * v[k][i] + d
                    g[k][i] += v[k][i]
    return World(g, v, m, b)


@COHORTS
@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_it_is_the_algorithm(cohorts, momentum):
    wanted = by_the_book(cohorts, 12, momentum=momentum)
    found = paper.run(co.FedLTN(MODEL, momentum), sites(keep=0.2, rate=0.3), cohorts, 12)
    for k in SHARED:
        np.testing.assert_allclose(found.shared[k], wanted.shared[k], atol=1e-6)
        if momentum:
            np.testing.assert_allclose(found.state["velocity"][k], wanted.velocity[k], atol=1e-6)
    for n in PARTIES:
        ticket = found.local(n)
        assert all(np.array_equal(ticket["mask"][k], wanted.masks[n][k]) for k in paper.PRUNABLE)
        assert ticket["norms"].keys() == set(MODEL.norms)
        for k in MODEL.norms:
            np.testing.assert_allclose(ticket["norms"][k], wanted.norms[n][k], atol=1e-6)
    assert len({round(density(found.local(n)["mask"]), 3) for n in PARTIES}) > 1, "Tickets must differ."


@COHORTS
def test_with_a_drop_it_is_the_algorithm(cohorts):
    wanted = by_the_book(cohorts, 8, momentum=0.5, drop=0.1, tolerance=0.2)
    found = paper.run(co.FedLTN(MODEL, 0.5), sites(keep=0.2, rate=0.3, drop=0.1, tolerance=0.2), cohorts, 8)
    for k in SHARED:
        np.testing.assert_allclose(found.shared[k], wanted.shared[k], atol=1e-6)
    assert any(density(found.local(n)["mask"]) < 1 for n in PARTIES)
    assert all("best" in found.local(n) for n in PARTIES)


def hub_of(momentum, values):
    method = co.FedLTN(MODEL, momentum)
    state = method.init(HERE)
    for change, weight in values:
        like = {k: np.zeros_like(x) for k, x in state["params"].items()}
        value = {**like, "head": np.full((3, 6), change)}
        state = method.update(state, Contribution("delta", value, {"bias": 0.0, "body": 0.0, "head": weight}), HERE)
    return state


def test_a_coordinate_that_nobody_covers_does_not_drift():
    """Covered, uncovered, uncovered, covered: only the covered rounds move it, and its velocity."""
    weight = np.ones((3, 6))
    weight[0] = 0.0
    one, half = (1.0, np.ones((3, 6))), (1.0, weight)
    begun, after_one, later = hub_of(0.5, [])["params"], hub_of(0.5, [one]), hub_of(0.5, [one, half, half])
    np.testing.assert_array_equal(later["params"]["head"][0], after_one["params"]["head"][0])
    np.testing.assert_array_equal(later["velocity"]["head"][0], 1.0)
    np.testing.assert_allclose(later["params"]["head"][1] - begun["head"][1], 1.0 + 1.5 + 1.75)
    again = hub_of(0.5, [one, half, half, one])
    np.testing.assert_allclose(again["params"]["head"][0] - begun["head"][0], 1.0 + 1.5)
    for k in ("bias", "body"):
        np.testing.assert_array_equal(again["params"][k], begun[k])


@pytest.mark.parametrize("name", [n for n in MODELS if n != "paper"])
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_masks_only_shrink_and_nothing_is_rewound(name, scope):
    """Round for round: pruned weights stay 0, in what is sent, and kept ones go on from where training left them."""
    model, (data, valid, _) = MODELS[name](), PARTIES["p4"]
    method = co.FedLTN(model)
    who = co.TicketTrainer(model, data, valid=valid, keep=0.3, rate=0.4, threshold=0.0, tolerance=1.0, scope=scope)
    state, local, before = method.init(HERE), {}, None
    for number in range(6):
        here = co.Round("", 0, number=number, me="p4")
        shared = method.share(state, "p4", here)
        begun = who.personal(shared.value, local)
        trained, _ = model.fit(begun, data, here, co.Step(mask=before))
        c, local = who.contribute(shared, local, here, SECRET)
        mask = local["mask"]
        for k, m in mask.items():
            assert before is None or not (m & ~before[k]).any()
            assert not (c.value[k][~m]).any()
            np.testing.assert_array_equal(c.weight[k] > 0, m)
            if name != "local buffers":
                np.testing.assert_array_equal(c.value[k], np.where(m, trained[k] - shared.value[k], 0))
        state, before = method.update(state, method.combiner.lower(method.combiner.lift(c), None, here)[0], here), mask
    assert density(mask) == pytest.approx(0.3, abs=0.08)
    if scope == "layer":
        assert all(m.mean() == pytest.approx(0.3, abs=0.08) for m in mask.values())


def test_a_cut_that_costs_too_much_is_taken_back():
    found = {}
    for tolerance in (0.0, 1.0):
        ran = paper.run(co.FedLTN(MODEL), sites(keep=0.05, rate=0.8, threshold=0.0, tolerance=tolerance), [("p1",)], 1)
        found[tolerance] = ran
    assert density(found[0.0].local("p1")["mask"]) == 1.0
    assert density(found[1.0].local("p1")["mask"]) == pytest.approx(0.2, abs=0.03)
    data, valid, _ = PARTIES["p1"]
    w, _ = MODEL.fit(MODEL.init(HERE), data, HERE)
    for k in SHARED:
        np.testing.assert_allclose(found[0.0].shared[k], w[k], atol=1e-12, err_msg="It must go on with the whole.")
    cut = {**w, **{k: w[k] * found[1.0].local("p1")["mask"][k] for k in paper.PRUNABLE}}
    assert paper.accuracy(MODEL, cut, valid) < paper.accuracy(MODEL, w, valid)


@pytest.mark.parametrize(("settings", "prunes"), [({"threshold": 1.0}, False), ({"threshold": 0.0}, True)])
def test_the_threshold_is_of_validation_never_of_test(settings, prunes):
    data, valid, _ = PARTIES["p0"]
    wrong = (valid[0], (valid[1] + 1) % 3)
    who = co.TicketTrainer(MODEL, data, valid=wrong, test=valid, tolerance=1.0, **settings)
    ran = paper.run(co.FedLTN(MODEL), {"p0": who}, [("p0",)], 1)
    assert (density(ran.local("p0")["mask"]) < 1) == prunes
    other = co.TicketTrainer(MODEL, data, valid=wrong, test=wrong, tolerance=1.0, **settings)
    again = paper.run(co.FedLTN(MODEL), {"p0": other}, [("p0",)], 1)
    assert encode_tree(again.local("p0")) == encode_tree(ran.local("p0"))


def test_without_validation_it_decides_by_its_training_data():
    data, _, _ = PARTIES["p0"]
    found = [
        co.TicketTrainer(MODEL, data, valid=valid, threshold=0.8).contribute(
            co.FedLTN(MODEL).share(co.FedLTN(MODEL).init(HERE), "p0", HERE), {}, HERE, SECRET
        )[1]
        for valid in (None, data)
    ]
    assert encode_tree(found[0]) == encode_tree(found[1])


def test_normalisation_layers_stay_and_are_never_pruned():
    model = torch_model()
    norms = {"1.weight", "1.bias", "1.running_mean", "1.running_var"}
    ran = paper.run(co.FedLTN(model), paper.sites_of(co.TicketTrainer, model, PARTIES, keep=0.2), paper.SOME, 6)
    assert not norms & ran.shared.keys()
    for n in ("p0", "p3"):
        assert ran.local(n)["norms"].keys() == norms
        assert not norms & ran.local(n)["mask"].keys()
    a, b = (ran.local(n)["norms"]["1.running_mean"] for n in ("p0", "p3"))
    assert not np.allclose(a, b)
    shared = co.FedLTN(model, norms="average")
    ran = paper.run(shared, paper.sites_of(co.TicketTrainer, model, PARTIES, keep=0.2), paper.SOME, 3)
    assert norms < ran.shared.keys()
    assert ran.local("p0")["norms"] == {}
    assert not norms & ran.local("p0")["mask"].keys()
    assert not {"1.running_mean", "1.running_var"} & ran.state["velocity"].keys()


@pytest.mark.parametrize("name", MODELS)
def test_the_laws_of_methods_hold(name):
    model = MODELS[name]()
    make = partial(paper.sites_of, co.TicketTrainer, model, PARTIES, keep=0.3, threshold=0.3, drop=None, tolerance=0.5)
    co.testing.check_method(co.FedLTN(model), make, rounds=3)


@pytest.mark.parametrize(
    ("name", "transforms"),
    [("mlp", []), ("batchnorm", [co.Sparse()]), ("local buffers", [co.Sparse()])],
    ids=["plain", "sparse", "local buffers and sparse"],
)
def test_in_pieces_as_in_one(name, transforms, tmp_path, monkeypatch):
    """Mask and norms lie in the drawer, and what Sparse knows of the mask beside them."""
    monkeypatch.setattr(running, "SAVE_SECONDS", 0.0)
    model = MODELS[name]()
    make = paper.sites_of(co.TicketTrainer, model, PARTIES, keep=0.3, threshold=0.3, tolerance=0.3)
    fed = co.Collaboration(co.FedLTN(model), make, select=co.sample(3), transforms=transforms, seed=3)
    straight = fed.run(rounds=6, folder=tmp_path / "straight")
    for rounds in (1, 2, 4, 6):
        pieces = fed.run(rounds=rounds, folder=tmp_path / "pieces")
    assert encode_tree(pieces.state) == encode_tree(straight.state)
    assert pieces.metrics == straight.metrics
    for n in PARTIES:
        assert encode_tree(pieces.local(n)) == encode_tree(straight.local(n))
    assert pieces.metrics["density"] < 0.9


class Refused:
    """Its answer of the third round does not count."""

    drawer = "ticket"

    def __init__(self, who):
        self.who = who

    def contribute(self, shared, local, round, secret):
        c, after = self.who.contribute(shared, local, round, secret)
        bad = round.number == 2 and shared.kind != "score"
        return (Contribution(c.kind, {}, 1.0) if bad else c), after


def test_a_ticket_counts_only_if_its_answer_did():
    fed = co.Collaboration(co.FedLTN(MODEL), sites(threshold=0.0, tolerance=1.0), evaluate=False)
    lossy = fed.replace(participants={**fed.participants, "p1": Refused(fed.participants["p1"])}).run(rounds=3)
    two = fed.run(rounds=2)
    assert [r.sender for r in lossy.ledger.refused] == ["p1"]
    assert encode_tree(lossy.local("p1")) == encode_tree(two.local("p1"))
    assert density(lossy.local("p0")["mask"]) < density(two.local("p0")["mask"])


def test_scores_are_of_the_ticket():
    own = sites(keep=0.3, threshold=0.3, tolerance=0.3)
    ran = paper.run(co.FedLTN(MODEL), own, paper.EVERYBODY, 5, evaluate=True)
    each = [paper.accuracy(MODEL, own[n].personal(ran.shared, ran.local(n)), PARTIES[n][2]) for n in PARTIES]
    assert ran.metrics["accuracy"] == pytest.approx(np.mean(each)), "All have 15 rows to test."
    some = [density(ran.local(n)["mask"]) for n in PARTIES]
    assert ran.metrics["density"] == pytest.approx(np.mean(some))
    for n in PARTIES:
        whole = own[n].personal(ran.shared, ran.local(n))
        assert whole.keys() == MODEL.init(HERE).keys()
        assert (whole["body"] == 0).sum() == (~ran.local(n)["mask"]["body"]).sum()


def test_a_start_may_be_a_whole_model_or_what_was_shared():
    other = paper.Softmax(seed=7).init(HERE)
    for start in (other, {k: other[k] for k in SHARED}):
        state = co.FedLTN(MODEL, start=start).init(HERE)
        assert all(np.array_equal(state["params"][k], other[k]) for k in SHARED)
    with pytest.raises(co.ConfigError, match="'start' must be"):
        co.FedLTN(MODEL, start={"body": other["body"]})


@pytest.mark.parametrize("combine", [co.Median(), co.TrimmedMean(f=1), co.Mean(uniform=True)])
def test_other_combiners_go_coordinate_by_coordinate_too(combine):
    ran = paper.run(co.FedLTN(MODEL, 0.5), sites(tolerance=1.0, threshold=0.0), paper.EVERYBODY, 6, combine=combine)
    assert ran.ledger.refused == ran.ledger.dropped == []
    assert all(np.isfinite(x).all() for x in ran.shared.values())


def test_it_prunes_by_accuracy_and_says_so():
    numbers = co.Linear(4, classes=0)
    data = PARTIES["p0"][0]
    fed = co.Collaboration(co.FedLTN(numbers), {"p0": co.TicketTrainer(numbers, data)}, quorum=0, evaluate=False)
    assert "must predict classes" in fed.run(rounds=1).ledger.dropped[0].reason


@COHORTS
@pytest.mark.parametrize("name", ["wide", "batchnorm", "local buffers"])
def test_with_sparse_the_same_bits_and_fewer_bytes(name, cohorts):
    model = co.MLP(4, 3, hidden=(64,), rate=0.2, batch=4) if name == "wide" else MODELS[name]()
    settings = {"keep": 0.1, "rate": 0.5, "threshold": 0.3, "tolerance": 0.5}
    runs = [
        paper.run(co.FedLTN(model), paper.sites_of(co.TicketTrainer, model, PARTIES, **settings), cohorts, 12, **how)
        for how in ({"evaluate": True}, {"evaluate": True, "transforms": [co.Sparse()]})
    ]
    plain, short = runs
    assert short.ledger.refused == short.ledger.dropped == []
    assert encode_tree(short.state) == encode_tree(plain.state)
    assert short.metrics == plain.metrics
    assert all(encode_tree(short.local(n)) == encode_tree(plain.local(n)) for n in PARTIES)
    assert short.ledger.bytes_up < plain.ledger.bytes_up
    if name == "wide":
        assert short.ledger.bytes_up < plain.ledger.bytes_up / 2.5
        assert short.ledger.bytes_down < plain.ledger.bytes_down
