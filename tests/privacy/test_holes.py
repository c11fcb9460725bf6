"""What would break the promise: nobody sees a single party's update; what is spent is known, capped and true."""

from dataclasses import replace

import numpy as np
import pytest

import comity as co
from comity.core.contribution import Contribution
from comity.core.envelope import Envelope
from comity.core.errors import ConfigError, ContributionError
from comity.core.tree import ravel
from comity.loop.asking import Asking
from comity.loop.hub import Heard
from comity.loop.site import failure

RNG = np.random.default_rng(0)
MODEL = co.Linear(3, 2, rate=0.5)
EVEN, PUBLIC = co.Mean(uniform=True), co.Mean(public=True)
HERE = co.Round(run="holes", seed=0, number=3, hub="hub", me="a", roster=8, asked=8, expected=8.0)


def data():
    x = RNG.normal(size=(20, 3)).astype("float32")
    return x, (x[:, 0] > 0).astype(int)


SITES = {f"p{i}": co.Trainer(MODEL, data(), test=data()) for i in range(6)}
WHOLE = {n: co.Trainer(MODEL, s.data, send="model") for n, s in SITES.items()}
PRIVATE = {n: co.PrivateTrainer(MODEL, s.data, clip=1.0, noise=1.0, rate=0.5, test=s.test) for n, s in SITES.items()}


def fed(people=SITES, **more):
    return co.Collaboration(co.FedAvg(MODEL, bound=8.0), people, **{"combine": EVEN, "seed": 1, **more})


def spends(run):
    return [e.facts for e in run.ledger if e.kind == "spend"]


class Fails:
    def contribute(self, shared, local, round, secret):
        raise KeyError("Jane Doe, born 1970")


class Silly:
    """Sends a number that no ring holds."""

    def contribute(self, shared, local, round, secret):
        zeros = {k: np.zeros_like(v) for k, v in shared.value.items()}
        return Contribution("delta", zeros, 1.0, {"loss": (123456789012345.0, 1.0)}), local


# what is spent


@pytest.mark.parametrize("noise", [co.Gaussian(1.0, 1.0), co.TreeGaussian(1.0, 1.0, participations=9)])
def test_what_several_hubs_release_is_not_counted_as_one_release(noise):
    method = co.FedAvg(MODEL, send="model")
    with pytest.raises(ConfigError, match="each peer is a hub"):
        co.Collaboration(method, WHOLE, combine=PUBLIC, transforms=[noise], select=co.ring(1))
    local = co.Collaboration(method, WHOLE, combine=PUBLIC, transforms=[co.Laplace(1.0, 1.0)], select=co.ring(1))
    assert spends(local.run(1))[0]["mechanism"] == "laplace"


def test_whom_two_hubs_hear_is_released_twice():
    class Two:
        def __call__(self, roster, round, past, secret):
            return {"north": roster[:4], "south": roster[3:]}

        def expected(self, roster):
            return 3.0

    run = fed(combine=PUBLIC, transforms=[co.Gaussian(1.0, 1.0)], select=Two()).run(2)
    assert [s["count"] for s in spends(run)] == [2, 2]
    tree = fed(combine=PUBLIC, transforms=[co.TreeGaussian(1.0, 1.0, participations=9)], select=Two()).run(1)
    assert spends(tree)[0]["noise"] == pytest.approx(1 / 9 / 2**0.5)


def test_noise_inside_a_region_is_charged_and_its_scores_are_off():
    inside = fed(combine=PUBLIC, transforms=[co.Gaussian(1.0, 2.0)])
    run = fed({"north": co.Region(inside), "alone": SITES["p0"]}).run(2)
    assert [(s["mechanism"], s["noise"], s["unit"], s["who"]) for s in spends(run)] == [
        ("gaussian", 2.0, "participant", "north")
    ] * 2
    assert not run.metrics
    assert not [e for e in run.ledger if e.kind == "score"]


def test_private_members_of_a_region_are_charged_and_capped():
    outer = fed({"south": co.Region(co.Region(fed(PRIVATE)).collaboration)}, stop=co.Budget(8.0, 1e-5))
    run = outer.run(200)
    assert 0 < run.ledger.rounds < 200
    (spent,) = co.spent(spends(run), 1e-5)
    assert (spent.unit, spent.who, spent.epsilon <= 8.0) == ("example", "south", True)
    plain = fed({"south": co.Region(fed()), "north": co.Region(fed())}).run(1)
    assert not spends(plain)
    assert "accuracy" in plain.metrics


def test_a_region_within_a_region_is_charged():
    inner = co.Region(fed(PRIVATE))
    run = fed({"top": co.Region(fed({"middle": inner}))}).run(1)
    assert [(s["unit"], s["who"], s["count"]) for s in spends(run)] == [("example", "top", 2)]


def test_in_a_population_nobody_spends_without_being_charged():
    names = list(SITES)
    mixed = co.Population(6, lambda i: SITES[names[i]] if i < 3 else PRIVATE[names[i]])
    with pytest.raises(ConfigError, match="must spend privacy, or none"):
        fed(mixed).run(1)
    assert len(spends(fed(co.Population(6, lambda i: PRIVATE[names[i]])).run(1))) == 1
    assert not spends(fed(co.Population(6, lambda i: SITES[names[i]])).run(1))


def test_sampling_is_not_credited_where_the_divisor_tells_how_many_were_drawn():
    def sampled(combine):
        parts = {"combine": combine, "transforms": [co.Gaussian(1.0, 1.0)], "select": co.poisson(0.5), "quorum": 0.0}
        return spends(fed(**parts).run(1))[0]

    assert (sampled(PUBLIC)["sampling"], sampled(PUBLIC)["rate"]) == ("poisson", 0.5)
    assert (sampled(EVEN)["sampling"], sampled(EVEN)["rate"]) == ("none", 1.0)


def test_how_many_were_drawn_moves_nothing_where_the_draw_is_credited():
    seen = []

    class Notes(co.FedAvg):
        def update(self, state, combined, round):
            seen.append((combined.weight, round.asked, round.answered))
            return super().update(state, combined, round)

    parts = {"combine": PUBLIC, "transforms": [co.Gaussian(1.0, 1.0)], "quorum": 0.0}
    run = co.Collaboration(Notes(MODEL), SITES, select=co.poisson(0.5), **parts).run(6)
    asked = {len(e.facts["asked"].split()) for e in run.ledger if e.kind == "round"}
    assert len(asked) > 1
    assert set(seen) == {(3.0, 3, 3)}


# noise that serves twice


@pytest.mark.parametrize("part", [co.Gaussian(1.0, 1.0), co.Gaussian(1.0, 1.0, quantile=0.5)])
def test_two_sums_in_one_turn_do_not_get_the_same_noise(part):
    secret, a, b = co.testing.fixed_secret(), np.zeros(50), np.full(50, 0.01)
    out = [part.decode(Contribution("delta", x, 12.0), part.init(), HERE, secret)[0].value for x in (a, b)]
    assert np.abs((out[1] - out[0]) - (b - a)).max() > 0.1


@pytest.mark.parametrize("part", [co.Laplace(1.0, 1.0), co.DiscreteGaussian(1.0, 1.0)])
def test_two_contributions_in_one_turn_do_not_get_the_same_noise(part):
    secret, a, b = co.testing.fixed_secret(), np.zeros(50), np.full(50, 0.01)
    sent = [part.encode(Contribution("delta", x), None, {}, HERE, secret)[0] for x in (a, b)]
    out = [part.decode(c, None, replace(HERE, answered=8), secret)[0].value for c in sent]
    assert np.abs((out[1] - out[0]) - (b - a)).max() > 0.1


def test_two_lots_of_labels_in_one_turn_do_not_get_the_same_changes():
    part, secret = co.RandomisedResponse(0.5, 2, labels=200), co.testing.fixed_secret()
    changed = []
    for flip in (0, 1):
        label = np.zeros(200, int)
        label[0] = flip
        told, _ = part.encode(Contribution("label", {"votes": np.eye(2)[label]}), None, {}, HERE, secret)
        changed.append(told.value["votes"].argmax(axis=1)[1:])
    assert (changed[0] != changed[1]).any()


def test_asking_again_with_other_parameters_does_not_take_the_noise_away():
    who, secret = PRIVATE["p0"], co.testing.fixed_secret()
    start = MODEL.init(HERE)
    near = {k: v + np.float32(1e-4) for k, v in start.items()}
    a, b, again = (
        ravel(who.contribute(Contribution("model", x), {}, HERE, secret)[0].value) for x in (start, near, start)
    )
    assert np.array_equal(a, again)
    assert np.abs(a - b).max() > 0.01


def test_shares_of_noise_want_as_many_as_they_were_made_for():
    parts = {"combine": PUBLIC, "transforms": [co.DiscreteGaussian(1.0, 1.0)], "channel": co.TwoServer(co.Helper())}
    with pytest.raises(ConfigError, match=r"opens a sum of the quorum, 50%.*quorum=0.9"):
        fed(**parts)
    assert spends(fed(quorum=0.9, **parts).run(1))


# what is said beside the sum


def hidden():
    private = {"combine": EVEN, "people": {**PRIVATE, "z": Fails()}}
    return {
        "secagg": {"channel": co.SecAgg(threshold=0.7), "people": {**SITES, "z": Fails()}},
        "two servers": {"channel": co.TwoServer(co.Helper()), "people": {**SITES, "z": Fails()}},
        "laplace": {"combine": PUBLIC, "transforms": [co.Laplace(1.0, 1.0)], "people": {**SITES, "z": Fails()}},
        "itself": private,
    }


@pytest.mark.parametrize("how", ["secagg", "two servers", "laplace"])
def test_the_words_of_an_error_stay_where_the_data_is(how):
    run = fed(**hidden()[how]).run(1)
    (gone,) = {r.reason for r in run.ledger.dropped if r.sender == "z"}
    assert "Jane" not in gone
    assert gone.startswith("KeyError in test_holes.py:")


def test_the_words_of_an_error_are_told_where_the_hub_sees_each():
    run = fed({**SITES, "z": Fails()}).run(1)
    assert "Jane" in run.ledger.dropped[0].reason
    assert failure(ContributionError("too few rows"), hidden=True).value == {"reason": "too few rows"}


@pytest.mark.parametrize("channel", [co.SecAgg(), co.TwoServer(co.Helper())], ids=["secagg", "two servers"])
def test_a_number_that_does_not_fit_is_not_told(channel):
    run = fed({**SITES, "z": Silly()}, channel=channel, evaluate=False).run(1)
    (said,) = [r.reason for r in run.ledger.dropped]
    assert "must be within" in said
    assert "12345" not in said


# who is in a sum


def test_who_sent_nothing_that_can_be_read_is_in_no_sum():
    heard = Heard("hub", ["a", "b"], turn=(0, 0))
    asking = Asking(fed().parts, None, "recipe")

    def answer(who, value):
        here = co.Round(run="", seed=0, hub="hub", me=who)
        return Envelope(here, "contribute", who, "recipe", Contribution("sealed", value))

    list(asking.sealed([answer("a", {"other": 1}), answer("b", {"hub": {}})], heard, "contribute"))
    asking.in_sums(object(), heard)
    assert "a" not in heard.accepted


def test_scores_that_failed_do_not_spoil_the_next_round():
    run = fed({n: SITES[n] for n in ("p0", "p1", "p2", "p3")}, channel=co.SecAgg(), evaluate=co.every(1, co.sample(2)))
    run = run.run(2)
    assert [(e.facts["number" if "number" in e.facts else "round"], e.facts["attempt"]) for e in run.ledger
            if e.kind == "round"] == [(0, 0), (1, 0)]  # fmt: skip


def test_keys_of_scores_and_of_rounds_never_serve_twice(tmp_path, monkeypatch):
    from comity.channels.identity import Keys

    made, plain = [], Keys.of.__func__

    def noted(cls, secret, round):
        keys = plain(cls, secret, round)
        made.append((round.me, round.number, round.attempt, round.hub, keys.seed))
        return keys

    monkeypatch.setattr(Keys, "of", classmethod(noted))
    here = fed({n: SITES[n] for n in ("p0", "p1", "p2")}, channel=co.SecAgg(), evaluate=co.every(1))
    for rounds in (1, 2, 2, 3):
        here.run(rounds, folder=tmp_path)
    turns = {m[:4] for m in made}
    assert len({m[4] for m in made}) == len(turns)
    assert {hub for *_, hub in turns} == {"hub", "hub (scores)"}


class Walk:
    """Members of a secure sum with their memories, in a turn of a hub that may ask what it likes."""

    def __init__(self, n=3):
        self.channel, self.names = co.SecAgg(), [f"p{i}" for i in range(n)]
        self.memories = {name: {} for name in self.names}

    def begin(self, number, hub="hub", names=None):
        names = names or self.names
        self.turn = co.Round("run", 0, number=number, hub=hub, roster=len(names), asked=len(names))

        def ask(cohort, body, until):
            for name in cohort:
                here, secret = replace(self.turn, me=name), co.testing.fixed_secret().side(name)
                c, self.memories[name] = self.channel.answer(body(name), self.memories[name], here, secret)
                yield replace(c, sender=name)

        return self.channel.setup(names, ask, self.turn)

    def seal(self, session, name, x):
        c = Contribution("delta", {"w": np.full(4, x)}, 1.0)
        here, secret = replace(self.turn, me=name), co.testing.fixed_secret().side(name)
        sealed, self.memories[name] = self.channel.seal(c, session.view(name), self.memories[name], here, secret)
        return sealed.value["words"]


def test_a_turn_of_another_hub_makes_nobody_forget_that_it_sealed():
    """Else the difference of two contributions under the same masks would be bare."""
    walk = Walk()
    session = walk.begin(0)
    walk.seal(session, "p0", 1)
    walk.begin(1, hub="other")
    with pytest.raises(co.ChannelError, match="not gone back to"):
        walk.seal(walk.begin(0), "p0", 5)


def test_a_run_that_stopped_goes_on_with_fresh_keys_and_keeps_its_scores(tmp_path):
    here = [False]

    class Away(co.Trainer):
        def contribute(self, shared, local, round, secret):
            if shared.kind != "score" and round.number and not here[0]:
                raise RuntimeError("away")
            return super().contribute(shared, local, round, secret)

    people = {n: (Away if n > "p1" else co.Trainer)(MODEL, s.data, test=s.test) for n, s in SITES.items()}
    runs = fed(people, channel=co.SecAgg())
    first = runs.run(1, folder=tmp_path).metrics
    with pytest.raises(co.TooFewParticipants):
        runs.run(2, folder=tmp_path)
    assert runs.run(1, folder=tmp_path).metrics == first
    here[0] = True
    rounds = [e.facts for e in runs.run(2, folder=tmp_path).ledger if e.kind == "round"]
    assert [(f["round"], f["attempt"], f["closed"]) for f in rounds][1:] == [
        (1, 0, False), (1, 1, False), (1, 2, False), (1, 3, True)
    ]  # fmt: skip
    assert rounds[-1]["accepted"].all()
