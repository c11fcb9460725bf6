"""Shared tickets against the formulas written out in numpy, to 1e-6; and what travels, is refused and goes on."""

import importlib.util
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from quadratic import EVERYBODY, SOME, Cohorts

import comity as co
from comity.core.contribution import Contribution
from comity.core.parts import Step
from comity.core.positions import encode_mask
from comity.core.spec import check
from comity.core.tree import tree_map
from comity.core.wire import encode_tree
from comity.methods.sparsity import density, kept


def loaded(name, path):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / path)
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


pruned, toys = loaded("tickets_pruned", "pruned.py"), loaded("tickets_toys", "../scenarios/protecting.py")
DATA, PLANES = pruned.problem(), pruned.Planes()
RNG = np.random.default_rng(3)
ROWS = {f"p{i}": (RNG.normal(size=(12, 20)).astype("float32"), RNG.integers(0, 3, 12)) for i in range(5)}
MLP = co.MLP(20, 3, hidden=(30,), rate=0.1, batch=4, momentum=0.9, decay=0.01)
TOTAL = 20 * 30 + 30 * 3
COHORTS = pytest.mark.parametrize("cohorts", [EVERYBODY, SOME], ids=["full", "partial"])
USUAL = {"rounds": 8, "density": 0.3, "begin": 0.0, "by": 0.75, "momentum": 0.5, "ema": 0.8, "mean": "weight"}
WAYS = {
    "usual": {},
    "plain": {"momentum": 0.0, "ema": 0.0},
    "late": {"begin": 0.25, "by": 0.6, "density": 0.1},
    "uniform": {"mean": "uniform"},
    "public": {"mean": "public"},
    "coarse": {"coarse": lambda x: np.round(np.asarray(x) * 16) / 16},
}


class Coarse:
    """A way down that loses a little: what is received is not what was shared."""

    decodes, contracts = "each", True

    def init(self):
        return None

    def pack(self, c, state, to, round):
        value = {k: tree_map(WAYS["coarse"]["coarse"], c.value[k]) for k in ("values", "rest")}
        return replace(c, value={**c.value, **value})

    def encode(self, c, public, local, round, secret):
        return c, local

    def decode(self, c, state, round, secret):
        return c, state


def fed(method=None, data=ROWS, cohorts=EVERYBODY, **more):
    method = method or co.Tickets(MLP, 8, density=0.2, by=0.75)
    sites = {name: co.SharedTicketTrainer(method.model, rows) for name, rows in data.items()}
    return co.Collaboration(method, sites, select=Cohorts(cohorts), evaluate=False, **more)


def walk(method, rounds, data=ROWS):
    """The states after each round, by hand."""
    sites = {name: co.SharedTicketTrainer(method.model, rows) for name, rows in data.items()}
    states, mean = [method.init(co.Round("walk", 0))], method.combiner
    for t in range(rounds):
        turn = co.Round("walk", 0, number=t)
        shared = method.share(states[-1], "", turn)
        lifted = [mean.lift(s.contribute(shared, {}, turn.to(n), None)[0]) for n, s in sites.items()]
        total = Contribution(
            "delta",
            tree_map(lambda *x: sum(x), lifted[0].value, *(c.value for c in lifted[1:])),
            sum(c.weight for c in lifted),
        )
        states.append(method.update(states[-1], mean.lower(total, None, turn)[0], turn))
    return states


class TestTextbook:
    @COHORTS
    @pytest.mark.parametrize("rounds", [1, 4, 8])
    @pytest.mark.parametrize("way", WAYS)
    def test_step_prune_average(self, way, rounds, cohorts):
        how = {**USUAL, **WAYS[way]}
        w, seen, a, v, mask = pruned.by_hand(DATA, cohorts, rounds, **how)
        named = {k: how[k] for k in ("density", "begin", "by", "momentum", "ema")}
        method = co.Tickets(PLANES, how["rounds"], **named)
        combine = co.Mean(**({} if how["mean"] == "weight" else {how["mean"]: True}))
        transforms = [Coarse()] if way == "coarse" else []
        run = fed(method, DATA, cohorts, combine=combine, transforms=transforms).run(rounds)
        params, mean = (method.params(run.state, ema=e) for e in (False, True))
        np.testing.assert_allclose(pruned.flat(params), w, atol=1e-6, rtol=0)
        np.testing.assert_allclose(pruned.flat(mean), a, atol=1e-6, rtol=0)
        np.testing.assert_allclose(params["seen"], seen, atol=1e-6, rtol=0)
        found = method.mask(run.state)
        assert np.r_[found["u"].ravel(), found["w"].ravel()].tolist() == mask[:10].tolist()
        velocity = run.state["velocity"]
        np.testing.assert_allclose(velocity["values"]["w"], v[4:10][mask[4:10]], atol=1e-6, rtol=0)
        np.testing.assert_allclose(velocity["rest"]["bias"], v[10:], atol=1e-6, rtol=0)
        assert velocity["rest"].keys() == {"bias"}, "statistics have no momentum"

    def test_the_average_of_statistics_is_of_what_they_were(self):
        """They move by their mean; the moving average is of them as well."""
        method = co.Tickets(PLANES, 9, ema=0.5)
        states = walk(method, 3, DATA)
        seen = [method.params(s, ema=False)["seen"] for s in states[1:]]
        after = [0.5 * DATA[n][0].mean(0)[:2] for n in DATA]
        n = [len(DATA[name][1]) for name in DATA]
        np.testing.assert_allclose(seen[0], np.average(after, axis=0, weights=n), atol=1e-12)
        wanted = 0.5 * (0.5 * seen[0] + 0.5 * seen[1]) + 0.5 * seen[2]
        np.testing.assert_allclose(method.params(states[-1])["seen"], wanted, atol=1e-12)


class TestMask:
    def test_the_density_is_the_schedules_and_only_falls(self):
        method = co.Tickets(MLP, 10, density=0.13, begin=0.2, by=0.8)
        states = walk(method, 10)
        shares = [0.13 + 0.87 * (1 - min(1, max(0, t - 2) / 6)) ** 3 for t in range(11)]
        masks = [method.mask(s) for s in states]
        for t, (state, mask, share) in enumerate(zip(states, masks, shares, strict=True)):
            assert kept(mask) == (int(np.ceil(share * TOTAL - 1e-9)), TOTAL)
            assert abs(method.density_after(t) - share) < 1e-12
            for ema in (True, False):
                params = method.params(state, ema=ema)
                assert all(not params[n][~m].any() for n, m in mask.items())
            sizes = {n: (int(m.sum()),) for n, m in mask.items()}
            for part in ("params", "ema", "velocity"):
                assert {n: v.shape for n, v in state[part]["values"].items()} == sizes
        for old, new in pairwise(masks):
            assert all(not (new[n] & ~old[n]).any() for n in new)
        assert [density(m) for m in masks[:3]] == [1.0, 1.0, 1.0]
        assert masks[8]["0.weight"].tolist() == masks[10]["0.weight"].tolist(), "done is done"

    def test_magnitude_is_compared_over_all_layers(self):
        method = co.Tickets(MLP, 4, density=0.1, by=0)
        before, after = walk(co.Tickets(MLP, 4, density=1.0, by=0), 1)[1], walk(method, 1)[1]
        whole = method.params(before, ema=False)
        size = np.concatenate([np.abs(whole[n]).ravel() for n in ("0.weight", "2.weight")])
        least = np.sort(size)[::-1][69 - 1]
        mask = method.mask(after)
        assert all(mask[n].tolist() == (np.abs(whole[n]) >= least).tolist() for n in mask)
        assert density({"2": mask["2.weight"]}) != density({"0": mask["0.weight"]})

    def test_in_each_layer_the_same_share(self):
        method = co.Tickets(MLP, 4, density=0.1, by=0, scope="layer")
        assert {n: int(m.sum()) for n, m in method.mask(walk(method, 1)[1]).items()} == {"0.weight": 60, "2.weight": 9}

    def test_what_is_not_kept_stays_0_in_training(self):
        """Momentum and weight decay of the model's own optimizer included."""
        method = co.Tickets(MLP, 4, density=0.1, by=0, scope="layer")
        ticket = method.share(walk(method, 1)[1], "", co.Round("", 0)).value
        who = co.SharedTicketTrainer(MLP, ROWS["p0"])
        start, mask = who.received(ticket), method.mask(ticket)
        after, _ = MLP.fit(start, ROWS["p0"], co.Round("", 0, me="p0"), Step(mask=mask))
        reply = who.contribute(Contribution("model", ticket), {}, co.Round("", 0, me="p0"), None)[0]
        for name, leaf in mask.items():
            assert not after[name][~leaf].any()
            np.testing.assert_array_equal(reply.value["values"][name], (after[name] - start[name])[leaf])
            assert np.any(reply.value["values"][name])
        np.testing.assert_array_equal(reply.value["rest"]["0.bias"], after["0.bias"] - start["0.bias"])
        assert reply.weight == 12.0
        assert reply.value.keys() == {"values", "rest"}


class TestTravels:
    def test_a_sum_only_channel_gives_the_same_state(self):
        run = fed(cohorts=SOME, combine=co.Mean(cap=1000.0)).run(8)
        summed = fed(cohorts=tuple(c for c in SOME if len(c) > 1), **toys.SUMMED)
        plain = fed(cohorts=tuple(c for c in SOME if len(c) > 1), combine=co.Mean(cap=1000.0))
        found, wanted = summed.run(8), plain.run(8)
        assert found.ledger.refused == found.ledger.dropped == run.ledger.refused == []
        assert found.state["params"]["mask"] == wanted.state["params"]["mask"]
        for part in ("params", "ema", "velocity"):
            tree_map(
                lambda a, b: None if isinstance(a, bytes) else np.testing.assert_allclose(a, b, atol=1e-5),
                found.state[part],
                wanted.state[part],
            )

    def test_noise_on_the_sum_keeps_to_the_kept_coordinates(self):
        method = co.Tickets(MLP, 8, density=0.2, by=0.75)
        run = fed(method, **toys.PRIVATE).run(8)
        assert run.ledger.refused == run.ledger.dropped == []
        mask = method.mask(run.state)
        assert kept(mask) == (int(np.ceil(0.2 * TOTAL)), TOTAL)
        assert all(not method.params(run.state)[n][~m].any() for n, m in mask.items())

    def test_each_combiner_of_dense_vectors_fits(self):
        for combine in (co.Median(), co.TrimmedMean(trim=0.2), co.GeometricMedian()):
            assert fed(combine=combine).run(2).ledger.refused == []

    def test_the_mask_goes_down_when_it_changed(self):
        """Bit-equal with and without Once; the schedule ends after round 6, and from round 8 on no mask travels."""
        method = co.Tickets(co.MLP(20, 3, hidden=(120,), batch=4), 8, density=0.2, by=0.75)
        plain, once = (fed(method, transforms=t).run(9) for t in ([], [co.Once(least=64)]))
        assert encode_tree(once.state) == encode_tree(plain.state)
        masks = sum(len(m) for m in plain.state["params"]["mask"].values() if len(m) >= 64)
        saved = [
            (a.facts["down"] - b.facts["down"]).tolist()
            for a, b in zip(plain.ledger, once.ledger, strict=True)
            if a.kind == "round"
        ]
        assert masks > 200
        assert all(s < 0 for row in saved[:7] for s in row)
        assert all(masks - 150 < s < masks for row in saved[7:] for s in row)

    def test_a_change_of_another_shape_is_refused_by_name(self):
        method = co.Tickets(MLP, 8, density=0.2, by=0)
        old, new = walk(method, 1)
        stale = method.share(old, "", co.Round("", 0))
        c = co.SharedTicketTrainer(MLP, ROWS["p0"]).contribute(stale, {}, co.Round("", 0, me="p0"), None)[0]
        check(c, method.expect(old, "p0", co.Round("", 0)))
        with pytest.raises(co.ContributionError, match=r"values\.0\.weight must have shape"):
            check(c, method.expect(new, "p0", co.Round("", 0)))
        with pytest.raises(co.ContributionError, match=r"must lie from -0\.001 to 0\.001"):
            check(c, replace(method, bound=0.001).expect(old, "p0", co.Round("", 0)))


def test_the_laws_of_methods_hold():
    sites = {n: co.SharedTicketTrainer(MLP, ROWS[n]) for n in ("p0", "p1", "p2")}
    co.testing.check_method(co.Tickets(MLP, 3, density=0.2), sites)


class TestGoesOn:
    @COHORTS
    def test_resumed_is_straight_through_to_the_bit(self, cohorts, tmp_path):
        straight = fed(cohorts=cohorts, transforms=[co.Once(least=64)]).run(9)
        for rounds in (2, 5, 9):
            run = fed(cohorts=cohorts, transforms=[co.Once(least=64)]).run(rounds, folder=tmp_path)
        assert encode_tree(run.state) == encode_tree(straight.state)

    def test_what_is_shared_in_the_end_is_the_average(self, tmp_path):
        method = co.Tickets(MLP, 3, density=0.2, ema=0.9)
        sites = {n: co.SharedTicketTrainer(MLP, r) for n, r in ROWS.items()}
        collaboration = co.Collaboration(method, sites)
        early, run = collaboration.run(2), collaboration.run(3, folder=tmp_path)
        for found, ema in ((early, False), (run, True)):
            params = method.params(found.state, ema=ema)
            assert encode_tree(method.params(found.shared)) == encode_tree(params)
            assert encode_tree(method.params(found.state, ema=not ema)) != encode_tree(params)
            right = [(MLP.predict(params, x).argmax(1) == y).mean() for x, y in ROWS.values()]
            assert abs(found.metrics["train_accuracy"] - np.mean(right)) < 1e-9
        assert encode_tree(co.load(tmp_path, method)) == encode_tree(run.shared)

    def test_a_round_too_many_goes_on_from_the_average(self):
        method = co.Tickets(PLANES, 2, momentum=0.0, ema=0.5)
        states = walk(method, 3, DATA)
        start = method.params(states[2])
        change = np.average(
            [pruned.flat(PLANES.fit(start, DATA[n], None, Step(mask=method.mask(states[2])))[0]) for n in DATA],
            axis=0,
            weights=[len(DATA[n][1]) for n in DATA],
        )
        np.testing.assert_allclose(pruned.flat(method.params(states[3], ema=False)), change, atol=1e-12)

    @pytest.mark.parametrize("batch", [100])
    def test_the_state_of_another_run_goes_on_as_if_it_were_one(self, batch):
        model = co.MLP(20, 3, hidden=(30,), rate=0.1, batch=batch)
        method = co.Tickets(model, 8, density=0.2, by=0.75)
        straight, half = fed(method).run(8), fed(method).run(3)
        rest = fed(replace(method, start=half.state)).run(5)
        assert rest.state["closed"] == 8
        assert rest.state["params"]["mask"] == straight.state["params"]["mask"]
        for name, leaf in method.params(straight.state).items():
            np.testing.assert_allclose(method.params(rest.state)[name], leaf, atol=1e-6)

    def test_a_ticket_or_parameters_begin_anew(self):
        method = co.Tickets(MLP, 4, density=0.2, by=0.5)
        first = fed(method).run(4)
        params = method.params(first.shared)
        ticket, dense = (fed(replace(method, start=s)).run(0) for s in (first.shared, params))
        assert encode_tree(ticket.shared) == encode_tree(first.shared)
        assert density(method.mask(dense.shared)) == 1.0
        assert ticket.state["closed"] == dense.state["closed"] == 0
        assert encode_tree(method.params(dense.shared)) == encode_tree(params)
        again = fed(replace(method, start=first.shared)).run(1)
        assert again.state["params"]["mask"] == first.shared["mask"], "the schedule is behind it"

    def test_a_start_that_does_not_fit(self):
        method = co.Tickets(MLP, 4)
        state = fed(method).run(2).state
        other = fed(co.Tickets(co.MLP(20, 3, hidden=(31,)), 4)).run(1)
        mixed = {**state, "ema": method.init(co.Round("", 0))["ema"]}
        short = {**state["params"], "values": {"0.weight": np.zeros(3, "float32")}}
        broken = {**state["params"], "mask": {n: m + b"x" for n, m in state["params"]["mask"].items()}}
        for start, says in (
            (other.state, "mask|fit the model"),
            (other.shared, "mask|fit the model"),
            (mixed, "parts fit"),
            ({**state, "closed": -1}, "closed"),
            (short, r"'0\.weight' of shape"),
            ({**state["params"], "mask": {}}, "a mask of 0.weight, 2.weight"),
            (broken, "mask"),
            ({"values": 1}, "'start' must be"),
        ):
            with pytest.raises(co.ConfigError, match=says):
                co.Tickets(MLP, 4, start=start)
        with pytest.raises(co.ConfigError, match="what a run of Tickets shared"):
            method.params(MLP.init(co.Round("", 0)))


def test_batchnorm_of_torch_is_averaged():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 3)
    )
    model = co.TorchModel(net, torch.nn.functional.cross_entropy, batch=6)
    rows = {n: (x[:, :].repeat(4, 1)[:, :64].reshape(-1, 1, 8, 8), y) for n, (x, y) in ROWS.items()}
    method = co.Tickets(model, 3, density=0.25, by=0.5)
    states = walk(method, 3, rows)
    assert set(states[-1]["params"]["mask"]) == {"0.weight", "4.weight"}
    assert kept(method.mask(states[-1])) == (int(np.ceil(0.25 * (36 + 432))), 468)
    start = method.params(states[0])
    after = [model.fit(start, rows[n], co.Round("walk", 0, me=n))[0]["1.running_mean"] for n in rows]
    np.testing.assert_allclose(states[1]["params"]["rest"]["1.running_mean"], np.mean(after, 0), atol=1e-6)
    assert encode_mask(method.mask(states[-1])["0.weight"]) == states[-1]["params"]["mask"]["0.weight"]


SHORT = (co.Once(least=64), co.Quantize(up=4, down=8, least=64), co.Deflate())


@pytest.mark.parametrize("cohorts", [EVERYBODY, SOME], ids=["full", "partial"])
def test_the_whole_chain_is_short_and_resumes_to_the_bit(cohorts, tmp_path):
    """Integers both ways, changes of what was received, the mask when it is new: a tenth of the dense bytes."""
    method = co.Tickets(co.MLP(20, 3, hidden=(200,), rate=0.1, batch=4), 10, density=0.2, by=0.5)
    dense = fed(co.FedAvg(method.model), cohorts=cohorts).replace(
        participants={n: co.Trainer(method.model, r) for n, r in ROWS.items()}
    )
    run, whole = fed(method, cohorts=cohorts, transforms=SHORT).run(10), dense.run(10)
    assert run.ledger.refused == run.ledger.dropped == []
    assert kept(method.mask(run.state)) == (920, 4600)
    last, wide = ([e for e in r.ledger if e.kind == "round"][-1].facts for r in (run, whole))
    assert all(last["up"] * 10 < wide["up"])
    assert all(last["down"] * 8 < wide["down"])
    for rounds in (3, 10):
        again = fed(method, cohorts=cohorts, transforms=SHORT).run(rounds, folder=tmp_path)
    assert encode_tree(again.state) == encode_tree(run.state)


def test_finished_at_the_sites():
    """Running statistics of each site's own, of the ticket that is deployed; none of its weights grows again."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(1)
    net = torch.nn.Sequential(
        torch.nn.Linear(20, 30), torch.nn.BatchNorm1d(30), torch.nn.ReLU(), torch.nn.Linear(30, 3)
    )
    model = co.TorchModel(net, torch.nn.functional.cross_entropy, batch=6)
    method = co.Tickets(model, 4, density=0.3, by=0.5)
    ways = ("recalibrate", "norms")
    sites = {
        n: co.Tuned(co.SharedTicketTrainer(model, r, test=r, valid=r), finish=ways, epochs=2) for n, r in ROWS.items()
    }
    run = co.Collaboration(method, sites).run(4)
    params, right = method.params(run.shared), dict.fromkeys(ways, 0.0)
    for name, rows in ROWS.items():
        for how in ways:
            done = co.finished(model, params, rows, how, co.Round(run.recipe[:16], 0, number=4, me=name), epochs=2)
            assert all(not done[n][~m].any() for n, m in method.mask(run.shared).items())
            right[how] += float((model.predict(done, rows[0]).argmax(1) == rows[1]).mean()) / len(ROWS)
    assert {how: pytest.approx(run.metrics[f"{how}_accuracy"]) for how in ways} == right
