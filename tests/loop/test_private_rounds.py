"""What secure sums and noise ask of the loop: scores through the channel, cohorts filled up, spends before noise."""

import numpy as np
import pytest

import comity as co
from comity.core.contribution import Contribution
from comity.core.envelope import Envelope, Receipt
from comity.core.round import Round
from comity.ledger.peek import peek
from comity.loop.asking import Asking
from comity.loop.site import Drawer, Pending, committed, settle

RNG = np.random.default_rng(0)
MODEL = co.Linear(3, 2, rate=0.5)


def data():
    x = RNG.normal(size=(20, 3)).astype("float32")
    return x, (x[:, 0] > 0).astype(int)


SITES = {f"p{i}": co.Trainer(MODEL, data(), test=data()) for i in range(6)}
EVEN = co.Mean(uniform=True)


def fed(participants=SITES, bound=8.0, **more):
    return co.Collaboration(co.FedAvg(MODEL, bound=bound), participants, **{"combine": EVEN, "seed": 1, **more})


def rounds_of(run):
    return [e.facts for e in run.ledger if e.kind == "round"]


def spends_of(ledger):
    return [(e.facts["round"], e.facts["attempt"]) for e in ledger if e.kind == "spend"]


# scores


def test_scores_are_the_same_and_nobody_shows_its_own(monkeypatch):
    sealed = []
    plain = Asking.ask

    def listening(self, *given):
        for answer in plain(self, *given):
            sealed.extend([answer.body] if answer.phase == "score" else [])
            yield answer

    open_run = fed().run(rounds=2)
    monkeypatch.setattr(Asking, "ask", listening)
    run = fed(channel=co.SecAgg()).run(rounds=2)
    assert run.metrics == pytest.approx(open_run.metrics, abs=1e-5)
    assert {b.kind for b in sealed} == {"sealed"}
    assert len(sealed) == 6
    own = [float(a) for a in np.ravel([m for b in sealed for m in b.metrics.values()])]
    assert own == []
    assert [e.facts["accepted"].sum() for e in run.ledger if e.kind == "score"] == [6]


def test_a_metric_that_was_not_named_is_not_summed():
    class Says(co.Trainer):
        def contribute(self, shared, local, round, secret):
            c, local = super().contribute(shared, local, round, secret)
            return Contribution(c.kind, c.value, c.weight, {**c.metrics, "mine": (1.0, 1.0)}), local

    sites = {n: Says(MODEL, s.data, test=s.test) for n, s in SITES.items()}
    assert "mine" in fed(participants=sites).run(rounds=1).metrics
    assert "mine" not in fed(participants=sites, channel=co.SecAgg()).run(rounds=1).metrics
    named = [co.FixedPoint(8.0, metrics=("mine",))]
    assert fed(participants=sites, channel=co.SecAgg(), transforms=named).run(rounds=1).metrics == {"mine": 1.0}


def test_scores_that_cannot_be_opened_are_none_and_the_ledger_says_why():
    two = {n: SITES[n] for n in ("p0", "p1", "p2")}
    alone = co.every(1, co.sample(2))
    run = fed(participants=two, channel=co.SecAgg(), evaluate=alone).run(rounds=1)
    assert not run.metrics
    (score,) = [e.facts for e in run.ledger if e.kind == "score"]
    assert "3" in score["failed"]


@pytest.mark.parametrize(
    "channel", [co.SecAgg(), co.TwoServer(co.Helper()), co.CKKS("p0")], ids=["SecAgg", "TwoServer", "CKKS"]
)
def test_one_of_another_form_is_left_out_and_the_ledger_says_so(channel):
    class Odd(co.Trainer):
        def contribute(self, shared, local, round, secret):
            c, local = super().contribute(shared, local, round, secret)
            return Contribution(c.kind, {**c.value, "more": np.zeros(2)}, c.weight, c.metrics), local

    few = {n: SITES[n] for n in ("p0", "p1", "p2", "p3")}
    run = fed({**few, "p3": Odd(MODEL, data())}, channel=channel, evaluate=False).run(rounds=1)
    want = fed({n: few[n] for n in ("p0", "p1", "p2")}, evaluate=False).run(rounds=1)
    assert [(name, "form" in why) for _, name, why in run.ledger.refused] == [("p3", True)]
    assert rounds_of(run)[0]["accepted"].tolist() == [True, True, True, False]
    assert all(np.allclose(run.shared[k], want.shared[k], atol=1e-5) for k in want.shared)


def test_a_median_over_sums_of_groups_outvotes_a_liar():
    class Liar(co.Trainer):
        def contribute(self, shared, local, round, secret):
            c, local = super().contribute(shared, local, round, secret)
            return Contribution(c.kind, {k: v * 0 + 7 for k, v in c.value.items()}, c.weight, c.metrics), local

    sites = {f"p{i:02}": co.Trainer(MODEL, data(), test=data()) for i in range(15)}
    lies = {**sites, "p03": Liar(MODEL, data())}
    robust = {"channel": co.SecAgg(groups=3), "combine": co.Median(), "transforms": [co.FixedPoint(8.0 * 20)]}
    honest = fed(sites, evaluate=False).run(rounds=3).shared
    held, lost = (fed(lies, evaluate=False, **more).run(rounds=3).shared for more in (robust, {"channel": co.SecAgg()}))
    off = [max(float(np.abs(found[k] - honest[k]).max()) for k in honest) for found in (held, lost)]
    assert off[0] < off[1] / 2


# cohorts


@pytest.mark.parametrize("channel", [co.SecAgg(), co.TwoServer(co.Helper())], ids=["SecAgg", "TwoServer"])
def test_a_small_poisson_cohort_is_filled_with_zeros(channel):
    run = fed(channel=channel, select=co.poisson(1e-12), combine=co.Mean(public=True), evaluate=False).run(rounds=3)
    assert [len(f["asked"].split("\n")) for f in rounds_of(run)] == [3, 3, 3]
    start = MODEL.init(Round("", 1))
    assert all(np.array_equal(run.shared[k], start[k]) for k in start)


def test_a_cohort_that_is_large_enough_is_not():
    run = fed(channel=co.SecAgg(), select=co.poisson(1.0), combine=co.Mean(public=True), evaluate=False).run(rounds=2)
    want = fed(combine=co.Mean(public=True), evaluate=False).run(rounds=2)
    assert all(np.allclose(run.shared[k], want.shared[k], atol=1e-6) for k in want.shared)


def test_nobody_is_asked_to_fill_where_the_hub_sees_each():
    run = fed(select=co.poisson(1e-12), combine=co.Mean(public=True), quorum=0.0, evaluate=False).run(rounds=1)
    assert rounds_of(run)[0]["asked"] == ""


# spends

NOISY = {"transforms": [co.Gaussian(1.0, 0.5)], "combine": co.Mean(public=True)}


def test_each_round_is_charged_once_also_when_it_goes_on(tmp_path):
    fed(**NOISY).run(rounds=2, folder=tmp_path / "r")
    run = fed(**NOISY).run(rounds=4, folder=tmp_path / "r")
    assert spends_of(run.ledger) == [(0, 0), (1, 0), (2, 0), (3, 0)]
    kinds = [e.kind for e in run.ledger if e.kind != "choice"]
    assert kinds == ["start", *["spend", "round"] * 4]
    assert co.audit(tmp_path / "r").epsilon == pytest.approx(float(co.epsilon(0.5, rounds=4, delta=1e-5)), rel=1e-6)


def test_a_spend_is_on_disk_before_its_noise_is_drawn(tmp_path, monkeypatch):
    seen, plain = [], co.Gaussian.decode

    def looks(self, c, state, round, secret):
        entries = peek(tmp_path / "r").entries
        seen.append([e.facts["round"] for e in entries if e.kind == "spend"])
        return plain(self, c, state, round, secret)

    monkeypatch.setattr(co.Gaussian, "decode", looks)
    fed(**NOISY).run(rounds=3, folder=tmp_path / "r")
    assert seen == [[0], [0, 1], [0, 1, 2]]


def test_a_kill_after_the_charge_does_not_charge_again_and_draws_the_same(tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    whole = fed(**NOISY).run(rounds=1, folder=tmp_path / "whole").shared
    plain, died = co.Gaussian.decode, []

    def dies(self, c, state, round, secret):
        out = plain(self, c, state, round, secret)
        died.append(out[0].value)
        if len(died) == 2:
            raise Killed
        return out

    monkeypatch.setattr(co.Gaussian, "decode", dies)
    with pytest.raises(Killed):
        fed(**NOISY).run(rounds=2, folder=tmp_path / "r")
    run = fed(**NOISY).run(rounds=2, folder=tmp_path / "r")
    assert spends_of(run.ledger) == [(0, 0), (1, 0)]
    assert all(np.array_equal(died[1][k], died[2][k]) for k in whole)


class Silent(co.Trainer):
    def contribute(self, shared, local, round, secret):
        if round.attempt < 1:
            raise RuntimeError("not now")
        return super().contribute(shared, local, round, secret)


def test_every_attempt_is_charged_and_one_that_would_pass_the_budget_is_not_made():
    sites = {n: Silent(MODEL, s.data) for n, s in SITES.items()}
    run = fed(participants=sites, **NOISY).run(rounds=1)
    assert spends_of(run.ledger) == [(0, 0), (0, 1)]
    one = co.Budget(float(co.epsilon(0.5, rounds=1, delta=1e-5)) * 1.01, 1e-5)
    with pytest.raises(co.BudgetExceeded, match="trying it again would pass the budget"):
        fed(participants=sites, stop=one, **NOISY).run(rounds=1)


def test_scores_are_off_where_noise_is_added(capsys):
    run = fed(**NOISY).run(rounds=1)
    assert not run.metrics
    assert [e.kind for e in run.ledger].count("score") == 0
    assert "scores     off" in capsys.readouterr().err


def test_sampling_is_credited_to_noise_at_the_hub_only():
    secret = {"select": co.poisson(0.5), "evaluate": False}
    central = fed(**{**NOISY, **secret}).run(rounds=1).ledger
    local = (
        fed(transforms=[co.Laplace(1.0, 8.0)], combine=co.Mean(public=True), bound=1e3, quorum=0.0, **secret)
        .run(rounds=1)
        .ledger
    )
    public = fed(**{**NOISY, "select": co.sample(3)}).run(rounds=1).ledger
    found = [
        [(e.facts["sampling"], e.facts["rate"]) for e in led if e.kind == "spend"] for led in (central, local, public)
    ]
    assert found == [[("poisson", 0.5)], [("none", 1.0)], [("none", 1.0)]]


def test_what_participants_spend_is_theirs():
    some = {
        n: co.PrivateTrainer(MODEL, s.data, clip=1.0, noise=z, rate=0.5)
        for (n, s), z in zip(SITES.items(), [1, 1, 1, 2, 2, 2], strict=True)
    }
    run = fed(participants=some, select=co.sample(4)).run(rounds=3)
    for facts in rounds_of(run):
        asked = set(facts["asked"].split("\n"))
        spends = [e.facts for e in run.ledger if e.kind == "spend" and e.facts["round"] == facts["round"]]
        assert {who for f in spends for who in f["who"].split("\n")} == asked
        assert {f["noise"] for f in spends} <= {1.0, 2.0}
        assert all(f["unit"] == "example" and f["count"] == 2 for f in spends)


# what the check puts in


@pytest.mark.parametrize(
    ("more", "bound"),
    [
        ({}, 8.0),
        ({"combine": co.Mean(cap=10.0)}, 80.0),
        ({"combine": co.Mean(public=True), "transforms": [co.Gaussian(2.0, 1.0)]}, 2.0),
        ({"transforms": [co.FixedPoint(3.0)]}, 3.0),
    ],
)
def test_integers_are_put_last_with_the_bound_of_what_is_sent(more, bound):
    last = fed(channel=co.SecAgg(), **more).parts.transforms[-1]
    assert isinstance(last, co.FixedPoint)
    assert last.bound == bound
    assert not any(
        isinstance(t, co.FixedPoint) for t in fed(**{k: v for k, v in more.items() if k == "combine"}).parts.transforms
    )


def test_what_has_no_bound_is_refused_with_advice():
    with pytest.raises(co.ConfigError, match=r"what FedAvg sends has no bound.*FedAvg\(\.\.\., bound=0\.1\)"):
        co.Collaboration(co.FedAvg(MODEL), SITES, combine=EVEN, channel=co.SecAgg())


def test_it_stands_in_the_recipe():
    assert "FixedPoint" in str(co.recipe(fed(channel=co.SecAgg())))


# tickets


def test_one_shared_ticket_is_sparse_and_sealed_at_once():
    model = co.MLP(3, 2, hidden=(40,), rate=0.2)
    sites = {n: co.SharedTicketTrainer(model, s.data, test=s.test) for n, s in SITES.items()}
    tickets = co.Tickets(model, 6, density=0.2, bound=8.0)
    plain = co.Collaboration(tickets, sites, combine=EVEN, evaluate=False).run(rounds=6)
    run = co.Collaboration(tickets, sites, combine=EVEN, channel=co.SecAgg(), evaluate=False).run(rounds=6)
    a, b = tickets.params(plain.shared), tickets.params(run.shared)
    assert all(np.allclose(a[k], b[k], atol=1e-5) for k in a)
    up = [int(f["up"].sum()) for f in rounds_of(run)]
    assert up[-1] < up[0]


def test_personal_masks_are_refused_or_dense():
    model = co.MLP(3, 2, hidden=(8,), rate=0.2)
    sites = {n: co.PersonalTicketTrainer(model, s.data) for n, s in SITES.items()}
    method, sums = co.PersonalTickets(model, 4, bound=8.0), {"combine": co.Mean(cap=50.0), "evaluate": False}
    with pytest.raises(co.ConfigError, match="Sparse is decoded one by one; SecAgg reveals only the sum"):
        co.Collaboration(method, sites, channel=co.SecAgg(), transforms=[co.Sparse()], **sums)
    plain = co.Collaboration(method, sites, **sums).run(rounds=4).shared
    dense = co.Collaboration(method, sites, channel=co.SecAgg(), **sums).run(rounds=4).shared
    assert all(np.allclose(plain["params"][k], dense["params"][k], atol=1e-3) for k in plain["params"])


# drawers


def pending(channel):
    key = ("run", 3, 0, "survivors", "ann")
    return Drawer({"participant": 1}, Pending(key, b"", Contribution("x", None), {"participant": 2, **channel}))


@pytest.mark.parametrize("receipt", [None, Receipt(3, 0, False), Receipt(9, 9, True)])
def test_no_hub_makes_a_site_forget_what_it_signed(receipt):
    asked = Envelope(
        Round("run", 0, number=3, attempt=1, me="ann"), "keys", "hub", "", Contribution("keys", None), receipt
    )
    assert settle(pending({"channel": {"signed": b"list"}}), asked).local == {
        "participant": 1,
        "channel": {"signed": b"list"},
    }
    assert settle(pending({}), asked).local == {"participant": 1}


def test_a_receipt_keeps_all_or_what_the_channel_knows():
    drawer = pending({"channel": 5})
    assert committed(drawer, Receipt(3, 0, True)) == {"participant": 2, "channel": 5}
    assert committed(drawer, Receipt(3, 0, False)) == {"participant": 1, "channel": 5}
