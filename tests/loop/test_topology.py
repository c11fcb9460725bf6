"""Who hears whom: rings and graphs mix as their matrices say, turns and steps lose nobody."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import comity as co
from comity.core.contribution import Contribution
from comity.core.errors import ConfigError, TooFewParticipants
from comity.core.round import Round

NAMES = tuple(f"p{i}" for i in range(8))
FIRST = {n: np.random.default_rng(i).normal(size=3) for i, n in enumerate(NAMES)}
WANT = {n: np.random.default_rng(100 + i).normal(size=3) for i, n in enumerate(NAMES)}
PATH = [("p0", "p1"), ("p1", "p2"), ("p2", "p3"), ("p3", "p4"), ("p1", "p5"), ("p1", "p6"), ("p6", "p7")]
MEAN = co.Mean(uniform=True)


@dataclass(frozen=True)
class Bowl:
    """F(w) = |w - b|² / 2, one step at `rate`; every hub begins elsewhere."""

    rate: float = 0.0
    statistics: tuple[str, ...] = ()

    def init(self, round):
        return {"w": FIRST.get(round.hub, np.zeros(3))}

    def fit(self, params, data, round, step=None):
        return {"w": params["w"] - self.rate * (params["w"] - data[0])}, {"examples": (float(len(data[1])), 1.0)}

    def predict(self, params, x):
        return np.abs(params["w"] - x).sum(axis=1)


def peers(select, combine=MEAN, rate=0.0, rows=None, **more):
    model = Bowl(rate)
    sites = {n: co.Trainer(model, (WANT[n], np.zeros(rows[n] if rows else 1)), send="model") for n in NAMES}
    method = co.FedAvg(model, send="model")
    return co.Collaboration(method, sites, select=select, combine=combine, evaluate=False, **more)


def models(run):
    return np.array([run.shared[n]["w"] for n in NAMES])


def members(select, names=NAMES, number=0, past=None, attempt=0):
    return select(names, Round("r", 0, number=number, attempt=attempt), past, None)


def matrix(select, shares=None):
    """The mixing matrix, from who hears whom; `shares(i, j)` where it is not uniform."""
    w = np.zeros((8, 8))
    for hub, heard in members(select).items():
        for who in heard:
            w[NAMES.index(hub), NAMES.index(who)] = 1 / len(heard) if shares is None else shares(hub, who)
    return w


def metropolis(neighbours):
    d = {n: len(x) for n, x in neighbours.items()}

    def share(i, j):
        return 1 / (1 + max(d[i], d[j])) if i != j else 1 - sum(1 / (1 + max(d[i], d[k])) for k in neighbours[i])

    return share


def test_a_ring_hears_its_neighbours():
    assert members(co.ring())["p0"] == ["p0", "p1", "p7"]
    assert members(co.ring(2))["p7"] == ["p0", "p1", "p5", "p6", "p7"]
    assert members(co.ring(4))["p3"] == list(NAMES)
    assert [co.ring(2).expected(n) for n in (3, 5, 9)] == [3, 5, 5]
    assert members(co.ring(), ("a",)) == {"a": ["a"]}


PLAIN = [
    (co.ring(), MEAN, None),
    (co.ring(2), MEAN, None),
    (co.graph(PATH), co.Metropolis(co.graph(PATH).neighbours), metropolis(co.graph(PATH).neighbours)),
]


@pytest.mark.parametrize(("select", "combine", "shares"), PLAIN, ids=["ring", "ring of two", "metropolis on a tree"])
def test_peers_go_to_the_plain_mean_at_the_rate_of_the_spectral_gap(select, combine, shares):
    """x(t) = W^t x(0): the distance to the mean shrinks by the second eigenvalue."""
    w, start = matrix(select, shares), np.array(list(FIRST.values()))
    np.testing.assert_allclose(w.sum(axis=0), 1.0)
    second = np.sort(np.abs(np.linalg.eigvalsh(w)))[-2]
    far = []
    for rounds in (1, 40, 41):
        found = models(peers(select, combine).run(rounds=rounds))
        np.testing.assert_allclose(found, np.linalg.matrix_power(w, rounds) @ start, atol=1e-12)
        far.append(np.linalg.norm(found - start.mean(axis=0)))
    assert far[2] / far[1] == pytest.approx(second, abs=2e-3)
    assert far[1] <= np.linalg.norm(start - start.mean(axis=0)) * second**40 * 1.0001


def test_the_spectral_gap_of_a_ring_is_that_of_its_formula():
    assert np.sort(np.linalg.eigvalsh(matrix(co.ring())))[-2] == pytest.approx((1 + 2 * np.cos(np.pi / 4)) / 3)


def test_the_peers_of_a_ring_learn_the_mean_of_what_they_want():
    """w ← W(w - η(w - b)): the mean of the peers goes to the mean of b by 1 - η a round, each peer near it."""
    w, x, b = matrix(co.ring()), np.array(list(FIRST.values())), np.array(list(WANT.values()))
    found = models(peers(co.ring(), rate=0.1).run(rounds=60))
    for _ in range(60):
        x = w @ (x - 0.1 * (x - b))
    np.testing.assert_allclose(found, x, atol=1e-12)
    far = np.linalg.norm(found.mean(axis=0) - b.mean(axis=0))
    first = np.linalg.norm(np.mean(list(FIRST.values()), axis=0) - b.mean(axis=0))
    assert far == pytest.approx(first * 0.9**60, rel=1e-6)
    alone = np.linalg.norm(b - b.mean(axis=0), axis=1).mean()
    assert np.linalg.norm(found - b.mean(axis=0), axis=1).mean() < alone / 3


def test_a_uniform_mean_on_a_tree_counts_who_hears_many():
    """Its stationary weights are the numbers of those heard: why Metropolis is there."""
    graph = co.graph(PATH)
    heard = np.array([len(graph.neighbours[n]) + 1 for n in NAMES], float)
    want = heard / heard.sum() @ np.array(list(FIRST.values()))
    np.testing.assert_allclose(models(peers(graph).run(rounds=200)), np.tile(want, (8, 1)), atol=1e-4)
    assert np.abs(want - np.mean(list(FIRST.values()), axis=0)).max() > 0.05


def test_examples_count_under_the_weighted_mean():
    rows = {n: i + 1 for i, n in enumerate(NAMES)}
    found = models(peers(co.ring(), co.Mean(), rows=rows).run(rounds=1))
    share = np.array([1, 2, 8]) / 11
    np.testing.assert_allclose(found[0], share @ np.array([FIRST["p0"], FIRST["p1"], FIRST["p7"]]))


def test_a_resumed_gossip_equals_one_straight_through(tmp_path):
    fed = peers(co.ring(), rate=0.1)
    fed.run(rounds=3, folder=tmp_path / "run")
    np.testing.assert_array_equal(models(fed.run(rounds=7, folder=tmp_path / "run")), models(fed.run(rounds=7)))


def test_each_member_is_scored_with_what_its_home_shares():
    fed = peers(co.ring(), rate=0.0).replace(evaluate=co.every(1))
    sites = {
        n: co.Trainer(Bowl(), (WANT[n], np.zeros(1)), test=(WANT[n][None], np.zeros(1)), send="model") for n in NAMES
    }
    run = fed.replace(participants=sites).run(rounds=1)
    far = np.abs(models(run) - np.array(list(WANT.values()))).sum(axis=1)
    assert run.metrics["mse"] == pytest.approx(np.mean(far**2))
    assert run.metrics["mse"] != pytest.approx(np.mean(np.abs(models(run)[0] - list(WANT.values())).sum(axis=1) ** 2))


@dataclass(frozen=True)
class Sides:
    """Two hubs with members of their own."""

    def __call__(self, roster, round, past, secret):
        return {"left": roster[:3], "right": roster[3:]}

    def expected(self, roster):
        return roster / 2


def test_members_of_two_hubs_are_scored_with_their_own_hub():
    model = Bowl(1.0)
    sites = {n: co.Trainer(model, (WANT[n], np.zeros(1)), test=(WANT[n][None], np.zeros(1))) for n in NAMES}
    fed = co.Collaboration(co.FedAvg(model), sites, select=Sides())
    run = fed.run(rounds=1)
    w = {"left": np.mean([WANT[n] for n in NAMES[:3]], axis=0), "right": np.mean([WANT[n] for n in NAMES[3:]], axis=0)}
    far = [np.abs(w["left" if n in NAMES[:3] else "right"] - WANT[n]).sum() for n in NAMES]
    assert run.metrics["mse"] == pytest.approx(np.mean(np.square(far)))


@pytest.mark.parametrize("method", [co.FedAvg(Bowl()), co.FedSGD(Bowl())], ids=["deltas", "gradients"])
def test_what_is_no_whole_model_never_gossips(method):
    with pytest.raises(ConfigError, match="peers mix whole models"):
        co.Collaboration(method, {}, select=co.ring())


def test_graphs():
    assert co.graph(PATH).neighbours["p1"] == ("p0", "p2", "p5", "p6")
    assert members(co.graph(PATH))["p1"] == ["p0", "p1", "p2", "p5", "p6"]
    assert co.graph({"a": ["b"], "b": ["a"], "c": []}).neighbours["c"] == ()
    assert co.graph([("a", "b")], directed=True).neighbours == {"a": (), "b": ("a",)}
    assert co.graph({"a": ["b"]}, directed=True).neighbours == {"a": ("b",), "b": ()}
    assert co.graph(PATH).expected(8) == 1 + 14 / 8


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: co.ring(0), "'k' of ring must be an int >= 1. Got 0"),
        (lambda: co.graph([]), "'edges' of graph must be at least one"),
        (lambda: co.graph(["ab"]), "must be pairs of names"),
        (lambda: co.graph([("a", "a")]), "from 'a' to 'a'"),
        (lambda: co.graph({"a": ["b"], "b": []}), "'a' hears 'b', not the other way round"),
        (lambda: members(co.graph([("p0", "p9")])), "no participant 'p9', whom graph names"),
        (lambda: members(co.graph([("p0", "p1")])), "'p2' does not"),
        (lambda: co.Metropolis({"a": ("b",), "b": ()}), "same both ways. 'a' hears 'b'"),
        (lambda: co.turns(), "at least one stage"),
        (lambda: co.turns("a", 3), "must have __iter__"),
        (lambda: co.turns(("a", "a")), "all different"),
        (lambda: members(co.turns("p0", "nobody")), "no participant 'nobody', whom turns names"),
        (lambda: co.ready({}), "'before' of ready"),
        (lambda: co.ready({"a": ["c"], "b": ["a"], "c": ["b"]}), "the circle (a|b|c) -> "),
        (lambda: members(co.ready({"x": []})), "no participant 'x'"),
        (lambda: co.one_of("a"), "2 or more"),
        (lambda: co.one_of("a", "b", explore=-1), "'explore' of one_of"),
    ],
)
def test_what_is_refused(make, says):
    with pytest.raises(ConfigError, match=says):
        make()


def test_metropolis_obeys_the_laws_and_hears_neighbours_only():
    star = co.graph([("hub", f"p{i}") for i in range(1, 8)])
    co.testing.check_combiner(co.Metropolis(star.neighbours))
    said = [Contribution("model", np.ones(2), sender=n) for n in ("p1", "p2")]
    with pytest.raises(co.ContributionError, match="'p1' must hear itself and its neighbours only"):
        co.Metropolis(star.neighbours).lower(said, None, Round("r", 0, hub="p1"))


def test_who_is_absent_is_kept_for():
    mix = co.Metropolis(co.graph([("a", "b"), ("a", "c")]).neighbours)
    said = {n: Contribution("model", np.array([x]), sender=n) for n, x in (("a", 0.0), ("b", 3.0), ("c", 6.0))}

    def lower(*names):
        return mix.lower([said[n] for n in names], None, Round("r", 0, hub="a"))[0].value[0]

    assert lower("a", "b", "c") == pytest.approx(3.0)
    assert lower("a", "b") == pytest.approx(1.0)
    assert lower("b", "c") == pytest.approx(4.5)


def test_turns_and_generations():
    flow = co.turns("p0", ("p1", "p2"), "p3")
    assert [members(flow, number=n)["hub"] for n in range(4)] == [["p0"], ["p1", "p2"], ["p3"], ["p0"]]
    assert (len(flow), flow.expected(8)) == (3, 4 / 3)
    steps = co.ready({"p3": ["p1", "p2"], "p2": ["p0"], "p1": ["p0"], "p4": ["p0"]})
    found = [members(steps, number=n)["hub"] for n in range(4)]
    assert (found, len(steps), steps.expected(8)) == ([["p0"], ["p2", "p1", "p4"], ["p3"], []], 3, 5 / 3)


@dataclass(frozen=True)
class Fails:
    def contribute(self, shared, local, round, secret):
        raise RuntimeError("off")


def test_turns_want_all_and_quorum_is_never_lowered():
    sites: dict[str, Any] = {"a": co.Agent(lambda t: t), "b": co.Agent(lambda t: t), "c": Fails()}
    fed = co.Collaboration(co.Relay("x"), sites, select=co.turns(("a", "b", "c")), evaluate=False, quorum=0.1)
    assert fed.parts.quorum == 1.0
    assert fed.replace(select=co.everyone()).parts.quorum == 0.1
    with pytest.raises(TooFewParticipants, match="Round 1 needs 3; 2 of 3"):
        fed.run(rounds=1)


@dataclass(frozen=True)
class Past:
    seen: dict[str, list[float]]

    def metric(self, name):
        return self.seen.get(name, [])


def test_a_turn_goes_to_whoever_does_it_well():
    """UCB1 over two arms: each once, then the better one mostly; after a failed attempt the other."""
    flow, good = co.turns(co.one_of("p0", "p1")), {"p0": 0.3, "p1": 0.9}
    past = Past({})
    for _ in range(200):
        (who,) = members(flow, past=past)["hub"]
        past.seen.setdefault(f"quality.{who}", []).append(good[who])
    counts = {n: len(x) for n, x in past.seen.items()}
    assert counts["quality.p1"] > 160
    assert counts["quality.p0"] >= 10
    (best,), (other,) = (members(flow, past=past, attempt=a)["hub"] for a in (0, 1))
    assert {best, other} == {"p0", "p1"}
