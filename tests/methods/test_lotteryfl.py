"""LotteryFL against its algorithm in numpy loops: prune before training, back to the first weights."""

import importlib
import sys
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import comity as co
from comity import running
from comity.core.wire import encode_tree
from comity.methods.sparsity import density

sys.path.append(str(Path(__file__).parent))
paper: Any = importlib.import_module("softmax")
PARTIES, MODEL = paper.problem(), paper.Softmax(rate=0.8, epochs=12)
SECRET, HERE = co.testing.fixed_secret(), co.Round("", 0, me="p0")
COHORTS = pytest.mark.parametrize("cohorts", [paper.EVERYBODY, paper.SOME], ids=["full", "partial"])
MLP = co.MLP(4, 3, hidden=(8,), rate=0.3, batch=4, epochs=3)


def torch_model(buffers="average"):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    layers = torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.ReLU(), torch.nn.Linear(8, 3)
    sgd = partial(torch.optim.SGD, lr=0.1, momentum=0.5)
    net = torch.nn.Sequential(*layers)
    return co.TorchModel(net, torch.nn.functional.cross_entropy, optimizer=sgd, batch=4, buffers=buffers)


MODELS = {
    "paper": lambda: MODEL,
    "mlp": lambda: MLP,
    "batchnorm": torch_model,
    "local buffers": lambda: torch_model("local"),
}


def sites(model=MODEL, **settings):
    return paper.sites_of(co.LotteryTrainer, model, PARTIES, **settings)


def by_the_book(cohorts, rounds, w0, *, keep=0.2, rate=0.3, threshold=0.5):
    """The shared weights, the masks, and how often somebody went back."""
    g, back = dict(w0), 0
    m = {n: {k: np.ones(g[k].shape, bool) for k in paper.PRUNABLE} for n in PARTIES}
    for t in range(rounds):
        sent = []
        for n in cohorts[t % len(cohorts)]:
            data, valid, _ = PARTIES[n]
            w = {k: g[k] * m[n].get(k, 1) for k in g}
            to = {k: max(int(np.ceil(keep * x.size)), int(x.sum() * (1 - rate))) for k, x in m[n].items()}
            more = any(to[k] < x.sum() for k, x in m[n].items())
            if more and paper.accuracy(MODEL, w, valid) >= threshold:
                m[n] = {k: paper.smallest_out(w, {k: x}, to[k])[k] for k, x in m[n].items()}
                w = {k: w0[k] * m[n].get(k, 1) for k in g}
                back += 1
            sent.append((MODEL.fit(w, data, HERE, co.Step(mask=m[n]))[0], m[n]))
        new = {k: x.copy() for k, x in g.items()}
        for k, x in g.items():
            for i in np.ndindex(x.shape):
                who = [w[k][i] for w, mask in sent if k not in mask or mask[k][i]]
                new[k][i] = np.mean(who) if who else x[i]
        g = new
    return g, m, back


@COHORTS
def test_it_is_the_algorithm(cohorts):
    wanted, masks, back = by_the_book(cohorts, 12, MODEL.init(HERE))
    found = paper.run(co.LotteryFL(MODEL), sites(keep=0.2, rate=0.3), cohorts, 12)
    assert back > 5
    for k, x in wanted.items():
        np.testing.assert_allclose(found.shared[k], x, atol=1e-6)
    for n, mask in masks.items():
        assert all(np.array_equal(found.local(n)["mask"][k], mask[k]) for k in mask)
    assert found.state["velocity"] == {}


def test_it_goes_back_to_the_start_that_it_was_given():
    start = paper.Softmax(seed=8).init(HERE)
    wanted, _, back = by_the_book(paper.SOME, 8, start, threshold=0.3)
    made = sites(keep=0.2, rate=0.3, threshold=0.3, start=start)
    found = paper.run(co.LotteryFL(MODEL, start=start), made, paper.SOME, 8)
    assert back
    for k, x in wanted.items():
        np.testing.assert_allclose(found.shared[k], x, atol=1e-6)


@pytest.mark.parametrize("name", ["mlp", "batchnorm"])
def test_the_first_weights_are_those_of_round_0_whenever_it_prunes(name):
    """In round 7, of another name: with no training, what is sent leads back to the first weights."""
    model, (data, valid, _) = MODELS[name](), PARTIES["p2"]
    method, here = co.LotteryFL(model), co.Round("", 5, number=7, me="p2")
    begun = method.init(co.Round("", 5))["params"]
    moved = {k: (x + np.float32(0.1)).astype(x.dtype) for k, x in begun.items()}
    who = co.LotteryTrainer(model, data, valid=valid, threshold=0.0, epochs=0)
    c, local = who.contribute(co.Contribution("model", moved), {}, here, SECRET)
    assert density(local["mask"]) == pytest.approx(0.8, abs=0.05)
    assert all(m.mean() == pytest.approx(0.8, abs=0.08) for m in local["mask"].values())
    for k, x in begun.items():
        m = local["mask"].get(k, np.ones(x.shape, bool))
        np.testing.assert_allclose((moved[k] + c.value[k])[m], x[m], atol=1e-6)


def test_it_goes_on_from_what_was_shared_when_it_does_not_prune():
    data, valid, _ = PARTIES["p2"]
    begun = co.LotteryFL(MODEL).init(HERE)["params"]
    moved = {k: x + 0.1 for k, x in begun.items()}
    who = co.LotteryTrainer(MODEL, data, valid=valid, threshold=1.0)
    c, local = who.contribute(co.Contribution("model", moved), {}, HERE, SECRET)
    trained, _ = MODEL.fit(moved, data, HERE)
    assert density(local["mask"]) == 1.0
    for k, x in trained.items():
        np.testing.assert_allclose(c.value[k] + moved[k], x, atol=1e-12)


def test_masks_only_shrink_down_to_keep():
    seen = []
    for rounds in range(1, 12):
        found = paper.run(co.LotteryFL(MODEL), sites(keep=0.3, threshold=0.0), paper.EVERYBODY, rounds)
        seen.append(found.local("p1")["mask"])
    for before, after in pairwise(seen):
        assert not any((after[k] & ~before[k]).any() for k in after)
    assert density(seen[0]) == pytest.approx(0.8, abs=0.03)
    assert density(seen[1]) == pytest.approx(0.64, abs=0.03)
    assert [int(m.sum()) for m in seen[-1].values()] == [8, 6], "0.3 of 24 and of 18, rounded up."
    assert all(np.array_equal(seen[-1][k], seen[-3][k]) for k in seen[-1])


def test_who_has_arrived_at_keep_does_not_go_back_any_more():
    """Else it would begin anew in every round."""
    data, valid, _ = PARTIES["p2"]
    begun = co.LotteryFL(MODEL).init(HERE)["params"]
    moved = {k: x + 0.1 for k, x in begun.items()}
    who = co.LotteryTrainer(MODEL, data, valid=valid, threshold=0.0, keep=0.3, rate=0.9, epochs=0)
    _, local = who.contribute(co.Contribution("model", moved), {}, HERE, SECRET)
    c, after = who.contribute(co.Contribution("model", moved), local, HERE, SECRET)
    assert encode_tree(after) == encode_tree(local)
    assert not np.any(c.value["body"]), "Not trained and not gone back: no change."


def test_it_decides_by_validation_never_by_test():
    data, valid, _ = PARTIES["p2"]
    begun = co.LotteryFL(MODEL).init(HERE)["params"]
    trained, _ = MODEL.fit(begun, data, HERE)
    right = (valid[0], MODEL.predict(trained, valid[0]).argmax(1))
    wrong = (right[0], (right[1] + 1) % 3)
    found = []
    for held, test in ((right, wrong), (right, right), (wrong, right)):
        who = co.LotteryTrainer(MODEL, data, valid=held, test=test)
        found.append(who.contribute(co.Contribution("model", trained), {}, HERE, SECRET)[1])
    assert encode_tree(found[0]) == encode_tree(found[1])
    assert density(found[0]["mask"]) < density(found[2]["mask"]) == 1.0


def test_normalisation_is_averaged_and_never_pruned():
    model = torch_model()
    norms = {"1.weight", "1.bias", "1.running_mean", "1.running_var"}
    found = paper.run(co.LotteryFL(model), sites(model, threshold=0.0), paper.SOME, 4)
    assert norms < found.shared.keys()
    assert all((found.shared[k] != 0).all() for k in ("1.weight", "1.running_var"))
    assert found.local("p3")["mask"].keys() == {"0.weight", "3.weight"}


@pytest.mark.parametrize("name", MODELS)
def test_the_laws_of_methods_hold(name):
    model = MODELS[name]()
    make = partial(paper.sites_of, co.LotteryTrainer, model, PARTIES, keep=0.3, threshold=0.2)
    co.testing.check_method(co.LotteryFL(model), make, rounds=3)


@pytest.mark.parametrize("name", ["mlp", "local buffers"])
def test_in_pieces_as_in_one(name, tmp_path, monkeypatch):
    monkeypatch.setattr(running, "SAVE_SECONDS", 0.0)
    model = MODELS[name]()
    made = sites(model, keep=0.3, threshold=0.3)
    fed = co.Collaboration(co.LotteryFL(model), made, select=co.sample(3), seed=3)
    straight = fed.run(rounds=6, folder=tmp_path / "straight")
    for rounds in (1, 2, 4, 6):
        pieces = fed.run(rounds=rounds, folder=tmp_path / "pieces")
    assert encode_tree(pieces.state) == encode_tree(straight.state)
    assert pieces.metrics == straight.metrics
    for n in PARTIES:
        assert encode_tree(pieces.local(n)) == encode_tree(straight.local(n))
    assert pieces.metrics["density"] < 1.0


def test_scores_are_of_the_masked_model():
    own = sites(keep=0.3, threshold=0.3)
    found = paper.run(co.LotteryFL(MODEL), own, paper.EVERYBODY, 6, evaluate=True)
    each = [paper.accuracy(MODEL, own[n].personal(found.shared, found.local(n)), PARTIES[n][2]) for n in PARTIES]
    assert found.metrics["accuracy"] == pytest.approx(np.mean(each)), "All have 15 rows to test."
    assert found.metrics["density"] == pytest.approx(np.mean([density(found.local(n)["mask"]) for n in PARTIES]))


def test_with_sparse_the_same_bits_and_fewer_bytes():
    settings = {"keep": 0.1, "rate": 0.5, "threshold": 0.0}
    plain, short = (
        paper.run(co.LotteryFL(MLP), sites(MLP, **settings), paper.SOME, 10, evaluate=True, transforms=transforms)
        for transforms in ([], [co.Sparse()])
    )
    assert short.ledger.refused == short.ledger.dropped == []
    assert encode_tree(short.state) == encode_tree(plain.state)
    assert short.metrics == plain.metrics
    assert short.ledger.bytes_up < plain.ledger.bytes_up
