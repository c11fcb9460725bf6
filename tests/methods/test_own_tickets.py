"""Personal tickets on a schedule against their own words in numpy loops, and what must hold of every mask and core."""

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
from comity.core.contribution import Contribution
from comity.core.positions import encode_mask
from comity.core.spec import check
from comity.core.wire import encode_tree
from comity.methods.sparsity import density

sys.path += [str(Path(__file__).parent), str(Path(__file__).parents[1] / "scenarios")]
paper: Any = importlib.import_module("softmax")
toys: Any = importlib.import_module("protecting")
PARTIES, MODEL = paper.problem(), paper.Softmax()
SECRET = co.testing.fixed_secret()
HERE = co.Round("", 0)
COHORTS = pytest.mark.parametrize("cohorts", [paper.EVERYBODY, paper.SOME], ids=["full", "partial"])
CORES = pytest.mark.parametrize("core", [0.0, 0.5, 0.9])
TOTAL = 24 + 18
SHORT = (co.Sparse(), co.Quantize(up=4, down=8, least=64), co.Deflate())
WIDE = co.MLP(4, 3, hidden=(120,), rate=0.2, batch=4)


def torch_model(buffers="average"):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.ReLU(), torch.nn.Linear(8, 3)
    )  # fmt: skip
    sgd = partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=1e-3)
    return co.TorchModel(net, torch.nn.functional.cross_entropy, optimizer=sgd, batch=4, buffers=buffers)


MODELS = {
    "paper": lambda: MODEL,
    "mlp": lambda: co.MLP(4, 3, hidden=(8,), rate=0.2, batch=4, momentum=0.9, decay=0.01),
    "batchnorm": torch_model,
    "local buffers": lambda: torch_model("local"),
}


def sites(model=MODEL, **settings):
    return paper.sites_of(co.PersonalTicketTrainer, model, PARTIES, **settings)


def largest(w, count, within, first=None):
    """So many True: those of `first`, then the largest of the others within, one by one."""
    out = {k: np.zeros(w[k].shape, bool) for k in paper.PRUNABLE}
    spots = [(k, i) for k in paper.PRUNABLE for i in np.ndindex(w[k].shape) if within[k][i]]
    spots.sort(key=lambda s: (first is not None and first[s[0]][s[1]], abs(w[s[0]][s[1]])), reverse=True)
    for k, i in spots[:count]:
        out[k][i] = True
    return out


def share(t, rounds, begin, by, last):
    start, end = round(begin * rounds), round(by * rounds)
    return 1.0 if t <= start else last + (1 - last) * (1 - min(1, (t - start) / (end - start))) ** 3


def by_the_book(cohorts, closed, *, core, momentum, rounds, last, begin=0.0, by=0.75):
    """Weights, velocity, masks and core after so many rounds, coordinate by coordinate."""
    w = MODEL.init(HERE)
    v = {k: np.zeros_like(x) for k, x in w.items() if k != "mean"}
    shared, masks, trained = {k: np.ones(w[k].shape, bool) for k in paper.PRUNABLE}, {}, {}
    nothing = {k: ~m for k, m in shared.items()}
    everything = dict(shared)
    for t in range(closed):
        d, sent = share(t, rounds, begin, by, last), {}
        for n in cohorts[t % len(cohorts)]:
            data = PARTIES[n][0]
            own, within = (trained[n], masks[n]) if n in masks else (w, everything)
            m = masks[n] = largest(own, int(np.ceil(d * TOTAL - 1e-9)), within, shared if core else nothing)
            x = {k: w[k] * m[k] if k in m else w[k] for k in w}
            trained[n], _ = MODEL.fit(x, data, HERE, co.Step(mask=m))
            sent[n] = trained[n], m, len(data[1])
        w = {k: x.copy() for k, x in w.items()}
        for k in w:
            for i in np.ndindex(w[k].shape):
                who = [(x[k][i], c) for x, m, c in sent.values() if k not in m or m[k][i]]
                if who:
                    step = sum(c * (x - w[k][i]) for x, c in who) / sum(c for _, c in who)
                    if k != "mean":
                        step = v[k][i] = momentum * v[k][i] + step
                    w[k][i] += step
        d = share(t + 1, rounds, begin, by, last)
        if core and d < 1:
            shared = largest(w, int(np.ceil(core * d * TOTAL - 1e-9)), shared)
    return w, v, masks, shared if core else nothing


@COHORTS
@CORES
@pytest.mark.parametrize(("momentum", "begin"), [(0.0, 0.0), (0.5, 0.3)])
def test_it_is_the_algorithm(cohorts, core, momentum, begin):
    how = {"core": core, "momentum": momentum, "begin": begin, "by": 0.75, "rounds": 12}
    for closed in (1, 5, 12):
        w, v, masks, shared = by_the_book(cohorts, closed, last=0.2, **how)
        method = co.PersonalTickets(MODEL, density=0.2, **how)
        found = paper.run(method, sites(), cohorts, closed)
        for k, leaf in method.params(found.shared).items():
            np.testing.assert_allclose(leaf, w[k], atol=1e-6)
            if k != "mean" and momentum:
                np.testing.assert_allclose(found.state["velocity"][k], v[k], atol=1e-6)
        assert "mean" not in found.state["velocity"], "statistics have no momentum"
        assert all(np.array_equal(m, shared[k]) for k, m in method.mask(found.state).items())
        for n, mask in masks.items():
            assert all(np.array_equal(found.local(n)["mask"][k], mask[k]) for k in mask)
    assert len({encode_mask(found.local(n)["mask"]["body"]) for n in masks}) > 1, "Tickets must differ."


def walk(method, who, names, rounds):
    """State and drawers after each round, by hand: everybody answers, all sums by `Mean`."""
    state, drawers, out, mean = method.init(HERE), {n: {} for n in names}, [], method.combiner
    for t in range(rounds):
        told, lifted = method.share(state, "", co.Round("", 0, number=t)), []
        for n in names:
            c, drawers[n] = who[n].contribute(told, drawers[n], co.Round("", 0, number=t, me=n), SECRET)
            check(c, method.expect(state, n, HERE))
            lifted.append(mean.lift(c))
        value, weight = ({"params": _sum(getattr(c, part)["params"] for c in lifted)} for part in ("value", "weight"))
        total = Contribution("delta", value, weight)
        before, state = state, method.update(state, mean.lower(total, None, HERE)[0], HERE)
        out.append((before, told.value, dict(drawers), state))
    return out


def _sum(trees):
    first, *others = trees
    return {k: sum((t[k] for t in others), np.asarray(leaf)) for k, leaf in first.items()}


@CORES
@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("name", MODELS)
def test_masks_only_shrink_to_the_density_around_the_core(name, scope, core):
    model, names = MODELS[name](), ("p0", "p2", "p4")
    method = co.PersonalTickets(model, 6, core=core, density=0.25, by=0.67, scope=scope, momentum=0.5)
    who, masks, cores = sites(model), {n: [] for n in names}, []
    steps = walk(method, who, names, 6)
    for t, (_, told, drawers, _) in enumerate(steps):
        shared = method.mask(told)
        cores.append(shared)
        assert told["density"] == method.density_after(t)
        for n in names:
            mask, params = drawers[n]["mask"], who[n].personal(told, drawers[n])
            masks[n].append(mask)
            count = [int(np.ceil(told["density"] * m.size - 1e-9)) for m in mask.values()]
            total = int(np.ceil(told["density"] * sum(m.size for m in mask.values()) - 1e-9))
            found = [int(m.sum()) for m in mask.values()]
            assert found == count if scope == "layer" else sum(found) == total
            assert all(not (shared[k] & ~m).any() for k, m in mask.items() if core), "The core lies inside."
            assert all(
                not params[k][~m].any() and drawers[n]["trained"][k].shape == (m.sum(),) for k, m in mask.items()
            )
    for line in (*masks.values(), cores):
        assert all(not (b[k] & ~a[k]).any() for a, b in pairwise(line) for k in b), "They only shrink."
    last = density(method.mask(steps[-1][-1]))
    assert last == pytest.approx(core * 0.25, abs=0.06)
    assert last > 0 or not core
    assert any(not np.array_equal(masks["p0"][-1][k], masks["p4"][-1][k]) for k in shared) or core == 0.9


def test_what_nobody_covers_does_not_move_nor_its_velocity():
    method = co.PersonalTickets(WIDE, 5, density=0.2, by=0.4, momentum=0.9, scope="layer")
    still = 0
    for before, _, drawers, after in walk(method, sites(WIDE), ("p0", "p1"), 5):
        for k in drawers["p0"]["mask"]:
            nobody = ~(drawers["p0"]["mask"][k] | drawers["p1"]["mask"][k])
            still += nobody.sum()
            for part in ("params", "velocity"):
                np.testing.assert_array_equal(after[part][k][nobody], before[part][k][nobody])
                assert not np.array_equal(after[part][k], before[part][k])
    assert still > 1000


@CORES
def test_who_was_away_cuts_at_once_when_it_is_back(core):
    """Its mask is the largest of what it trained itself, the core first; it is also scored so while it is away."""
    method = co.PersonalTickets(WIDE, 6, core=core, density=0.2, by=0.5)
    cohorts = (("p0", "p1"), ("p1",), ("p1", "p2"), ("p1",), ("p1", "p2"), ("p0", "p1"))
    early, away, back = (paper.run(method, sites(WIDE), cohorts, rounds) for rounds in (1, 5, 6))
    assert density(early.local("p0")["mask"]) == density(away.local("p0")["mask"]) == 1.0
    held, shared = away.local("p0"), method.mask(away.shared)
    own = np.concatenate([held["trained"][k] for k in sorted(held["mask"])])
    inside = np.concatenate([shared[k].ravel() for k in sorted(shared)])
    count = int(np.ceil(0.2 * own.size))
    wanted = np.zeros(own.size, bool)
    wanted[np.lexsort((-np.abs(own), ~inside))[:count]] = True
    mask = back.local("p0")["mask"]
    assert np.concatenate([mask[k].ravel() for k in sorted(mask)]).tolist() == wanted.tolist()
    params = sites(WIDE)["p0"].personal(away.shared, held)
    assert np.concatenate([params[k].ravel() != 0 for k in sorted(mask)]).tolist() == wanted.tolist()
    scored = paper.run(method, sites(WIDE), cohorts, 5, evaluate=True)
    assert scored.metrics["density"] == pytest.approx(count / own.size)


@pytest.mark.parametrize("core", [0.0, 0.5])
def test_a_newcomer_begins_with_the_largest_shared_weights(core):
    method = co.PersonalTickets(WIDE, 6, core=core, density=0.2, by=0.5)
    run = paper.run(method, sites(WIDE), (("p0", "p1"),), 5)
    other = co.PersonalTicketTrainer(WIDE, (PARTIES["p4"][0][0] * 9, PARTIES["p4"][0][1]))
    told = Contribution("model", run.shared)
    found = [w.contribute(told, {}, co.Round("", 0, me="p4"), SECRET)[1]["mask"] for w in (sites(WIDE)["p4"], other)]
    assert encode_tree(found[0]) == encode_tree(found[1]), "Its data are not looked at."
    params, shared = run.shared["params"], method.mask(run.shared)
    flat = np.concatenate([np.where(shared[k], np.inf, np.abs(params[k])).ravel() for k in sorted(shared)])
    least = np.sort(flat)[::-1][int(np.ceil(0.2 * flat.size)) - 1]
    mask = np.concatenate([found[0][k].ravel() for k in sorted(shared)])
    assert mask.tolist() == (flat >= least).tolist()
    assert mask.sum() == np.ceil(0.2 * flat.size)


def test_one_core_for_all_is_refused_with_advice():
    with pytest.raises(co.ConfigError, match=r"'core' of PersonalTickets must .* Got 1.* co\.Tickets"):
        co.PersonalTickets(MODEL, 4, core=1)


def test_where_the_hub_sees_only_sums_sparse_is_refused_and_dense_works():
    method = co.PersonalTickets(WIDE, 6, core=0.5, density=0.2, by=0.5)

    class Sums(co.Plain):
        reveals = "sum"

    with pytest.raises(co.ConfigError, match="Sparse is decoded one by one; Sums reveals only the sum"):
        co.Collaboration(method, sites(WIDE), transforms=[co.Sparse()], channel=Sums())
    summed = paper.run(method, sites(WIDE), paper.EVERYBODY, 4, **toys.SUMMED)
    plain = paper.run(method, sites(WIDE), paper.EVERYBODY, 4, combine=co.Mean(cap=1000.0))
    assert summed.ledger.refused == summed.ledger.dropped == []
    for k, leaf in plain.shared["params"].items():
        np.testing.assert_allclose(summed.shared["params"][k], leaf, atol=1e-4)


@COHORTS
@pytest.mark.parametrize("core", [0.0, 0.5])
def test_with_sparse_the_same_bits_and_with_the_chain_few_bytes(core, cohorts):
    method = co.PersonalTickets(WIDE, 12, core=core, density=0.1, by=0.5)
    chains = ([], [co.Sparse()], SHORT, (SHORT[0], co.Once(least=64), *SHORT[1:]))
    plain, sparse, short, once = (
        paper.run(method, sites(WIDE), cohorts, 12, evaluate=True, transforms=list(t)) for t in chains
    )
    assert all(r.ledger.refused == r.ledger.dropped == [] for r in (plain, sparse, short, once))
    assert encode_tree(sparse.state) == encode_tree(plain.state)
    assert sparse.metrics == plain.metrics
    assert encode_tree(once.state) == encode_tree(short.state)
    for n in PARTIES:
        assert encode_tree(sparse.local(n)) == encode_tree(plain.local(n))
        assert density(short.local(n)["mask"]) == np.ceil(0.1 * 840) / 840
    dense = paper.run(co.FedAvg(WIDE), paper.sites_of(co.Trainer, WIDE, PARTIES), cohorts, 12)
    up, down = ([[e for e in r.ledger if e.kind == "round"][-1].facts[way].sum() for r in (dense, sparse, short)]
                for way in ("up", "down"))  # fmt: skip
    assert up[0] > 2.5 * up[1] > 2.5 * up[2]
    assert down[0] > 2.0 * down[1] > 2.0 * down[2]


@pytest.mark.parametrize("transforms", [[], SHORT], ids=["plain", "chain"])
def test_in_pieces_as_in_one(transforms, tmp_path, monkeypatch):
    monkeypatch.setattr(running, "SAVE_SECONDS", 0.0)
    model = torch_model("local")
    method = co.PersonalTickets(model, 6, core=0.4, density=0.3, by=0.6)
    fed = co.Collaboration(method, sites(model), select=co.sample(3), transforms=transforms, seed=3)
    straight = fed.run(rounds=6, folder=tmp_path / "straight")
    for rounds in (1, 2, 4, 6):
        pieces = fed.run(rounds=rounds, folder=tmp_path / "pieces")
    assert encode_tree(pieces.state) == encode_tree(straight.state)
    assert pieces.metrics == straight.metrics
    for n in PARTIES:
        assert encode_tree(pieces.local(n)) == encode_tree(straight.local(n))
    assert encode_tree(co.load(tmp_path / "pieces", method)) == encode_tree(pieces.shared)


@pytest.mark.parametrize("name", MODELS)
def test_the_laws_of_methods_hold(name):
    model = MODELS[name]()
    make = partial(paper.sites_of, co.PersonalTicketTrainer, model, PARTIES)
    co.testing.check_method(co.PersonalTickets(model, 3, core=0.5, density=0.3, by=0.7), make, rounds=3)


def test_scores_are_of_the_own_ticket():
    own, method = sites(), co.PersonalTickets(MODEL, 6, core=0.3, density=0.4)
    ran = paper.run(method, own, paper.EVERYBODY, 6, evaluate=True)
    each = [paper.accuracy(MODEL, own[n].personal(ran.shared, ran.local(n)), PARTIES[n][2]) for n in PARTIES]
    assert ran.metrics["accuracy"] == pytest.approx(np.mean(each)), "All have 15 rows to test."
    assert ran.metrics["density"] == pytest.approx(np.ceil(0.4 * TOTAL) / TOTAL)


def test_examples_are_augmented_and_counted_once():
    seen = []

    def noisy(x, rng):
        seen.append(x.shape)
        return x + rng.normal(0, 0.1, x.shape)

    data = PARTIES["p1"][0]
    who = co.PersonalTicketTrainer(WIDE, data, epochs=3, augment=noisy)
    told = co.PersonalTickets(WIDE, 4).share(co.PersonalTickets(WIDE, 4).init(HERE), "", HERE)
    c, _ = who.contribute(told, {}, co.Round("", 0, me="p1"), SECRET)
    assert seen == [data[0].shape] * 3
    assert {float(x) for x in np.unique(c.weight["params"]["0.weight"])} == {float(len(data[1]))}
    plain, _ = co.PersonalTicketTrainer(WIDE, data, epochs=3).contribute(told, {}, co.Round("", 0, me="p1"), SECRET)
    assert encode_tree(plain.value) != encode_tree(c.value)


def test_the_state_of_another_run_goes_on_and_what_was_shared_begins_anew():
    model = co.MLP(4, 3, hidden=(8,), rate=0.2, batch=100)
    method = co.PersonalTickets(model, 8, core=0.5, density=0.2, by=0.75)
    first = paper.run(method, sites(model), paper.EVERYBODY, 3)
    rest = paper.run(co.PersonalTickets(model, 8, core=0.5, density=0.2, by=0.75, start=first.state), sites(model),
                     paper.EVERYBODY, 5)  # fmt: skip
    assert rest.state["closed"] == 8
    assert density(rest.local("p0")["mask"]) == np.ceil(0.2 * 56) / 56
    before, after = method.mask(first.state), method.mask(rest.state)
    assert all(not (after[k] & ~before[k]).any() for k in after)
    for start in (first.shared, method.params(first.state)):
        state = co.PersonalTickets(model, 8, core=0.5, start=start).init(HERE)
        assert encode_tree(state["params"]) == encode_tree(first.state["params"])
        assert state["closed"] == 0
        assert density(method.mask(state)) == 1.0


def test_what_does_not_fit_is_refused_in_plain_words():
    method = co.PersonalTickets(MODEL, 4, core=0.5)
    state = method.init(HERE)
    other = co.PersonalTickets(WIDE, 4, core=0.5).init(HERE)
    for start, says in (
        ({**state, "core": other["core"]}, "a mask of body, head"),
        ({**state, "core": {}}, "with a core"),
        ({**state, "closed": -1}, "closed"),
        ({**state, "velocity": other["velocity"]}, "a velocity like its parameters"),
        (other, "'start' must be"),
        ({"body": np.zeros((6, 4))}, "'start' must be"),
    ):
        with pytest.raises(co.ConfigError, match=says):
            co.PersonalTickets(MODEL, 4, core=0.5, start=start)
    for found in (state["params"], None, 3):
        with pytest.raises(co.ConfigError, match="what a run of PersonalTickets shared"):
            method.params(found)
    with pytest.raises(co.ConfigError, match="told what PersonalTickets shares"):
        sites()["p0"].personal(state["params"], {})
    fed = co.Collaboration(co.FedAvg(MODEL), sites(), quorum=0, evaluate=False)
    assert "told what PersonalTickets shares" in fed.run(rounds=1).ledger.dropped[0].reason
    c, _ = sites()["p0"].contribute(method.share(state, "", HERE), {}, co.Round("", 0, me="p0"), SECRET)
    with pytest.raises(co.ContributionError, match=r"must lie from -0\.001 to 0\.001"):
        check(c, co.PersonalTickets(MODEL, 4, bound=0.001).expect(state, "p0", HERE))
