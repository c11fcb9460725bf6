"""Regions: two levels equal one, what stays in the region, and what happens when parts of it fail."""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import pytest

import comity as co
from comity import running
from comity.core.contribution import Contribution
from comity.core.tree import leaves, tree_map
from comity.core.wire import encode_tree

RNG = np.random.default_rng(6)
SIZES = {"anna": 5, "bert": 40, "cleo": 11, "dora": 23, "emil": 8, "fred": 16}
DATA = {n: (RNG.normal(size=(k, 4)).astype("float32"), RNG.integers(0, 3, k)) for n, k in SIZES.items()}
MODEL = co.MLP(4, 3, hidden=(5,), rate=0.2, batch=4)
METHOD = co.FedAvg(MODEL, co.Momentum(0.8, 0.5))
NORTH, SOUTH = ("anna", "bert", "cleo", "dora"), ("emil", "fred")


def trainers(names=SIZES, make=co.Trainer):
    return {n: make(MODEL, DATA[n]) for n in names}


def region(names, listen=None, make=co.Trainer, **parts):
    return co.Region(co.Collaboration(METHOD, trainers(names, make), **parts), listen)


def outer(participants, **parts):
    return co.Collaboration(METHOD, participants, seed=2, **parts)


def two_levels(make=co.Trainer, **parts):
    return outer({"north": region(NORTH, make=make, **parts), "south": region(SOUTH, make=make)})


def near(a, b, atol=1e-6):
    for (path, x), (_, y) in zip(leaves(a), leaves(b), strict=True):
        np.testing.assert_allclose(x, y, atol=atol, err_msg=".".join(path))


SHAPES = {
    "two regions": lambda: two_levels(),
    "a region and others": lambda: outer({**trainers(("emil", "fred")), "north": region(NORTH)}),
    "one region": lambda: outer({"all": region(tuple(SIZES))}),
    "regions of regions": lambda: outer({
        "west": co.Region(co.Collaboration(METHOD, {"north": region(NORTH[:3]), "dora": trainers()["dora"]})),
        "south": region(SOUTH),
    }),
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_two_levels_are_one(shape):
    """Weights by examples, unequal; the same seed and names give the same shuffles."""
    flat, deep = outer(trainers()).run(rounds=3), SHAPES[shape]().run(rounds=3)
    near(deep.shared, flat.shared)
    for name, value in flat.metrics.items():
        assert deep.metrics[name] == pytest.approx(value, abs=1e-6)
    np.testing.assert_allclose(deep.ledger.metric("train_loss"), flat.ledger.metric("train_loss"), rtol=1e-5)
    assert deep.ledger.refused == deep.ledger.dropped == []
    assert {x.dtype.name for _, x in leaves(deep.shared)} == {"float32"}


def test_gradients_pass_through_regions_as_well():
    model = replace(MODEL, batch=100)
    sites = {n: co.GradientTrainer(model, DATA[n]) for n in SIZES}
    method = co.FedSGD(model, rate=0.3)
    parts = {
        n: co.Region(co.Collaboration(method, {m: sites[m] for m in ms})) for n, ms in (("n", NORTH), ("s", SOUTH))
    }
    near(co.Collaboration(method, parts).run(rounds=3).shared, co.Collaboration(method, sites).run(rounds=3).shared)


def test_in_pieces_as_in_one(tmp_path, monkeypatch):
    monkeypatch.setattr(running, "SAVE_SECONDS", 0.0)
    fed = two_levels(co.Ditto, transforms=[Feedback()], combine=Counting())
    straight = fed.run(rounds=5, folder=tmp_path / "straight")
    for rounds in (1, 2, 4, 5):
        pieces = fed.run(rounds=rounds, folder=tmp_path / "pieces")
    assert encode_tree(pieces.state) == encode_tree(straight.state)
    assert pieces.metrics == straight.metrics
    for name in ("north", "south"):
        assert encode_tree(pieces.local(name)) == encode_tree(straight.local(name))
    assert straight.local("north")["hub"]["combiner"] == {"rounds": 5}


@dataclass(frozen=True)
class Counting:
    """The mean, and in how many rounds it was asked for."""

    needs: ClassVar[str] = "sum"
    mean: co.Mean = field(default_factory=co.Mean)

    def init(self):
        return {"rounds": 0}

    def lift(self, c):
        return self.mean.lift(c)

    def lower(self, gathered, state, round):
        return self.mean.lower(gathered, None, round)[0], {"rounds": state["rounds"] + 1}


@dataclass(frozen=True)
class Feedback:
    """Rounds to 1/64 and holds back the rest until the next time; the hub counts whom it decoded."""

    decodes: ClassVar[str] = "each"
    contracts: ClassVar[bool] = False

    def init(self):
        return {"n": 0}

    def encode(self, c, public, local, round, secret):
        rest = local.get("rest", tree_map(np.zeros_like, c.value))
        whole = tree_map(lambda x, r: np.round((x + r) * 64) / 64, c.value, rest)
        left = tree_map(lambda x, r, w: (x + r - w).astype(x.dtype), c.value, rest, whole)
        return replace(c, value=tree_map(lambda w, x: w.astype(x.dtype), whole, c.value)), {"rest": left}

    def decode(self, c, state, round, secret):
        return c, {"n": state["n"] + 1}


def test_members_drawers_are_those_of_a_flat_run():
    """Personal models, what a transform held back, and the hub's entries for each member."""
    flat = outer(trainers(make=co.Ditto), transforms=[Feedback()]).run(rounds=3)
    deep = outer({"all": region(tuple(SIZES), make=co.Ditto, transforms=[Feedback()])}).run(rounds=3)
    drawer = deep.local("all")
    assert {n: e["n"] for n, e in drawer["hub"]["transforms"]["0"].items()} == dict.fromkeys(SIZES, 3)
    for name in SIZES:
        held = drawer["sites"][name]
        assert held.keys() == {"local"}
        near(held["local"]["participant"], flat.local(name), atol=1e-5)
        assert held["local"]["transforms.0"].keys() == {"rest"}
    near(deep.shared, flat.shared, atol=1e-5)


@dataclass(frozen=True)
class Moody:
    """Answers as another does, but for some rounds: "fail", "alter" (what goes up is of another shape)."""

    who: Any = field(metadata={"data": True})
    rounds: tuple = ()
    how: str = "fail"

    def contribute(self, shared, local, round, secret):
        c, after = self.who.contribute(shared, local, round, secret)
        if shared.kind == "score" or round.number not in self.rounds:
            return c, after
        if self.how == "fail":
            raise ValueError("no power")
        return replace(c, value={}), after


@pytest.mark.parametrize("how", ["fail", "alter"])
def test_a_member_that_fails_is_left_out_and_its_drawer_stays(how):
    sites = trainers(NORTH, co.Ditto)
    heard = []
    inner = co.Collaboration(METHOD, {**sites, "anna": Moody(sites["anna"], (1, 2), how)})
    deep = outer({"north": co.Region(inner, heard.append)}).run(rounds=3)
    flat = outer({**sites, "anna": Moody(sites["anna"], (1, 2), how)}).run(rounds=3)
    near(deep.shared, flat.shared, atol=1e-5)
    for name in NORTH:
        near(deep.local("north")["sites"][name]["local"]["participant"], flat.local(name), atol=1e-5)
    assert deep.ledger.metric("members") == [1.0, 0.75, 0.75]
    assert deep.ledger.refused == deep.ledger.dropped == []
    told = [e.heard["north"].refused + e.heard["north"].dropped for e in heard if e.kind == "round"]
    assert [[who for who, _ in said] for said in told] == [[], ["anna"], ["anna"]]


@pytest.mark.parametrize("how", ["fail", "alter"])
def test_below_the_quorum_the_region_is_left_out_and_its_drawer_stays(how):
    moody = {n: Moody(co.Ditto(MODEL, DATA[n]), (1,), how) for n in NORTH[:3]}
    inner = co.Collaboration(METHOD, {**moody, "dora": co.Ditto(MODEL, DATA["dora"])})
    fed = outer({"north": co.Region(inner), "south": region(SOUTH, make=co.Ditto)})
    two, one = fed.run(rounds=2), fed.run(rounds=1)
    (lost,) = two.ledger.dropped
    assert (lost.sender, lost.reason) == ("north", "1 of 4 members of the region were accepted; it needs 2.")
    assert encode_tree(two.local("north")) == encode_tree(one.local("north"))
    assert encode_tree(two.local("south")) != encode_tree(one.local("south"))


@dataclass(frozen=True)
class Lost:
    """A region whose answers of one round the outer hub refuses."""

    region: co.Region
    number: int

    def contribute(self, shared, local, round, secret):
        c, after = self.region.contribute(shared, local, round, secret)
        lost = shared.kind != "score" and round.number == self.number
        return (replace(c, kind="text") if lost else c), after


def test_what_the_outer_hub_refuses_is_dropped_inside_as_well():
    inside = co.Collaboration(METHOD, trainers(NORTH, co.Ditto), transforms=[Feedback()], combine=Counting())
    sites = {"north": Lost(co.Region(inside), 2), "south": region(SOUTH)}
    three, two = outer(sites).run(rounds=3), outer(sites).run(rounds=2)
    assert [r.sender for r in three.ledger.refused] == ["north"]
    assert two.local("north")["hub"]["combiner"] == {"rounds": 2}
    assert encode_tree(three.local("north")) == encode_tree(two.local("north"))


def test_a_round_that_is_tried_again_counts_once():
    """The first attempt fails for the south; the north is asked again and forgets what it had done."""
    tries = []

    @dataclass(frozen=True)
    class Late:
        def contribute(self, shared, local, round, secret):
            tries.append((round.number, round.attempt))
            if round.attempt == 0:
                raise ValueError("later")
            return trainers()["fred"].contribute(shared, local, round, secret)

    north = region(NORTH, make=co.Ditto, combine=Counting())
    again = outer({"north": north, "fred": Late()}, quorum=1.0, evaluate=False).run(rounds=2)
    once = outer({"north": north, "fred": trainers()["fred"]}, quorum=1.0, evaluate=False).run(rounds=2)
    assert tries == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert encode_tree(again.state) == encode_tree(once.state)
    assert encode_tree(again.local("north")) == encode_tree(once.local("north"))


def test_scores_are_those_of_all_members_even_when_few_are_drawn():
    deep = outer({"north": region(NORTH, select=co.sample(1)), "south": region(SOUTH)}).run(rounds=1)
    want = {n: [0.0, 0.0] for n in ("train_accuracy", "train_log_loss")}
    for n in SIZES:
        here, asked = co.Round("", 0, me=n), Contribution("score", deep.shared)
        c, _ = trainers()[n].contribute(asked, {}, here, co.testing.fixed_secret())
        for name, pair in c.metrics.items():
            want[name] = [a + b for a, b in zip(want[name], pair, strict=True)]
    assert {k: pytest.approx(s / n) for k, (s, n) in want.items()} == deep.metrics
    assert deep.ledger.metric("members") == [1.0]


def test_a_selection_inside():
    drawn = []
    deep = outer({"north": region(NORTH, drawn.append, select=co.sample(2)), "south": region(SOUTH)}).run(rounds=3)
    cohorts = [tuple(e.heard["north"].asked) for e in drawn if e.kind == "round"]
    assert [len(c) for c in cohorts] == [2, 2, 2]
    assert len(set(cohorts)) > 1
    assert {e.round.hub for e in drawn} == {"north"}
    assert deep.ledger.rounds == 3


def test_a_median_inside_survives_a_liar():
    @dataclass(frozen=True)
    class Liar:
        def contribute(self, shared, local, round, secret):
            c, _ = trainers()["anna"].contribute(shared, local, round, secret)
            return (c if shared.kind == "score" else replace(c, value=tree_map(lambda x: x + 1e6, c.value))), local

    names = NORTH[1:]
    people = {**trainers(names), "liar": Liar()}
    robust = outer({"north": co.Region(co.Collaboration(METHOD, people, combine=co.Median()))}).run(rounds=2)
    plain = outer({"north": co.Region(co.Collaboration(METHOD, people))}).run(rounds=2)
    size = {k: max(float(np.abs(x).max()) for _, x in leaves(run.shared)) for k, run in (("m", robust), ("p", plain))}
    assert size["m"] < 10 < 1e4 < size["p"]
    flat = outer(people, combine=co.Median()).run(rounds=2)
    near(robust.shared, flat.shared)


def test_the_recipe_holds_the_parts_inside_and_no_names():
    fed = two_levels(transforms=[Feedback()], combine=co.Median(), quorum=0.75)
    said = co.recipe(fed)
    text = str(said)
    assert not [n for n in (*SIZES, "north", "south") if n in text]
    kinds = [p["inside"] for p in said["parts"]["participants"]]
    assert {k["combine"]["class"] for k in kinds} == {"comity.combine.mean.Mean", "comity.combine.robust.Median"}
    assert {p["class"] for k in kinds for p in k["participants"]} == {"comity.methods.fedavg.Trainer"}
    assert {k["quorum"] for k in kinds} == {0.5, 0.75}
    changed = [two_levels(transforms=[Feedback()], combine=co.Median(), quorum=q) for q in (0.75, 0.8)]
    assert co.recipe(changed[0])["hash"] == said["hash"] != co.recipe(changed[1])["hash"]
    assert region(NORTH).fingerprint()["quorum"] == 0.5
    deep = str(co.recipe(outer({"world": co.Region(fed)})))
    assert "Median" in deep
    assert not [n for n in (*SIZES, "north", "south", "world") if f"'{n}'" in deep]


def test_no_name_goes_up():
    """Not in what is sent, not in the ledger, not in the words of an error."""

    @dataclass(frozen=True)
    class Broken:
        needs: ClassVar[str] = "each"

        def init(self):
            return None

        def lift(self, c):
            return c

        def lower(self, gathered, state, round):
            raise ValueError(f"{gathered[0].sender} is odd")

    sites = trainers(NORTH)
    moody = co.Collaboration(METHOD, {**sites, "anna": Moody(sites["anna"], (0,))}, quorum=1.0)
    parts = {"one": region(NORTH, combine=Broken()), "two": co.Region(moody), "three": region(SOUTH, quorum=0.1)}
    run = outer({**parts, "four": region(NORTH, combine=co.Collect())}, quorum=0.25).run(rounds=1)
    text = " ".join(str(e.facts) for e in run.ledger)
    assert not [n for n in SIZES if n in text]
    reasons = {r.sender: r.reason for r in run.ledger.dropped}
    assert reasons.keys() == {"one", "two", "four"}
    assert "ValueError in test_region.py" in reasons["one"]
    assert "3 of 4 members" in reasons["two"]
    assert "Collect keeps them side by side" in reasons["four"]


def test_members_have_secrets_of_their_own():
    seen = {}

    @dataclass(frozen=True)
    class Draws:
        who: Any

        def contribute(self, shared, local, round, secret):
            seen[round.me] = float(secret.rng("noise").random())
            return self.who.contribute(shared, local, round, secret)

    people = {n: Draws(t) for n, t in trainers().items()}
    parts = {
        k: co.Region(co.Collaboration(METHOD, {n: people[n] for n in ms})) for k, ms in (("n", NORTH), ("s", SOUTH))
    }
    outer(parts).run(rounds=1)
    assert len(set(seen.values())) == len(SIZES)

    class Bare:
        def rng(self, *purpose):
            return np.random.default_rng(0)

        def sign(self, data):
            return b""

    shared = Contribution("model", MODEL.init(co.Round("", 0)))
    with pytest.raises(co.ConfigError, match=r"must have side\(name\).*Got Bare"):
        region(NORTH).contribute(shared, {}, co.Round("", 0, me="north"), Bare())


def test_members_are_counted_at_all_levels():
    sites = trainers(NORTH)
    north = co.Region(co.Collaboration(METHOD, {**sites, "anna": Moody(sites["anna"], (1,))}))
    west = co.Region(co.Collaboration(METHOD, {"north": north, **trainers(SOUTH)}))
    assert outer({"west": west}).run(rounds=2).ledger.metric("members") == [1.0, (2 + 1 + 3) / (2 + 1 + 4)]


def test_a_region_in_which_nobody_is_drawn_weighs_nothing():
    people = {"north": region(NORTH, select=co.poisson(1e-12)), **trainers(SOUTH)}
    run, without = outer(people).run(rounds=2), outer(trainers(SOUTH)).run(rounds=2)
    assert run.ledger.dropped == run.ledger.refused == []
    near(run.shared, without.shared, atol=0)


def test_a_population_inside():
    many = co.Population(100, lambda i: co.Trainer(MODEL, DATA[list(SIZES)[i % 6]]))
    inner = co.Region(co.Collaboration(METHOD, many, select=co.sample(10)))
    run = outer({"many": inner}).run(rounds=2)
    assert run.ledger.dropped == []
    assert run.ledger.metric("members") == [1.0, 1.0]


def test_the_laws_of_methods_hold():
    co.testing.check_method(METHOD, {"north": region(NORTH), "south": region(SOUTH, make=co.Ditto)})
    co.testing.check_method(METHOD, {"north": region(NORTH, transforms=[Feedback()], combine=co.Median())})


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: co.Region(co.Collaboration(METHOD)), "needs participants"),
        (lambda: co.Region(METHOD), "collaboration"),
        (lambda: region(NORTH, stop=lambda past, ahead: True), "does not stop by itself"),
    ],
)
def test_what_is_no_region(make, said):
    with pytest.raises(co.ConfigError, match=said):
        make()
