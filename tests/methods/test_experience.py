"""Agents that learn by playing: what experience looks like, what the pool keeps, and whether sharing helps."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

import comity as co
from comity.core.errors import ConfigError

spec = importlib.util.spec_from_file_location("rooms", Path(__file__).with_name("rooms.py"))
rooms = importlib.util.module_from_spec(spec)
spec.loader.exec_module(rooms)
Rooms, HERE = rooms.Rooms, co.Round("r", 0)
Q = co.QLearning(100, 4, rate=0.9, temperature=0.01)
AC = co.ActorCritic(100, 4, rate=2.0, value_rate=0.6)


class Line:
    """One agent walks right (1) or left (0) on cells 0..3; at 3 it is out, with reward 1."""

    possible_agents = ("a",)

    def __init__(self):
        self.agents = []

    def reset(self, seed=None):
        self.agents, self.at = ["a"], 0
        return {"a": 0}, {}

    def step(self, actions):
        self.at = max(0, self.at + (1 if actions["a"] else -1))
        out = self.at == 3
        self.agents = [] if out else ["a"]
        return {"a": self.at}, {"a": float(out)}, {"a": out}, {"a": False}, {}


LINE = co.QLearning(4, 2, rate=0.5, discount=0.9, temperature=0.5)


def players(send="experience", learner=LINE, world=Line, n=3, **more):
    return {f"p{i}": co.Player(world(), learner, send=send, **{"steps": 20, "episodes": 2, **more}) for i in range(n)}


def rows(*steps):
    """Experience of (observation, action, reward, next, done)."""
    o, a, r, n, d = zip(*steps, strict=True)
    eye = np.eye(4, dtype="float32")
    out = {"observation": eye[list(o)], "next": eye[list(n)], "action": np.array(a), "done": np.array(d)}
    return out | {"reward": np.array(r, "float32"), "log_prob": np.full(len(a), np.log(0.5), "float32")}


@pytest.mark.parametrize(
    ("method", "send"),
    [(co.Pool(LINE), "experience"), (co.FedAvg(LINE), "delta"), (co.FedAvg(co.ActorCritic(4, 2)), "delta")],
)
def test_the_laws_hold(method, send):
    learner = getattr(method, "learner", None) or method.model
    co.testing.check_method(method, lambda: players(send, learner))


class Actor:
    """The pool as an arena is asked: it is told what to play."""

    combiner, pool = co.Collect(), co.Pool(AC)
    init, expect, update = pool.init, pool.expect, pool.update

    def share(self, state, to, round):
        return co.Contribution("model", AC.init(round))


def test_an_arena_obeys_the_laws_and_gives_what_a_pool_expects():
    co.testing.check_method(Actor(), lambda: {"arena": co.Arena(Rooms(), AC, steps=30, episodes=1)})


def test_experience_is_what_happened():
    run = co.Collaboration(co.Pool(LINE), players(n=1), evaluate=False).run(rounds=1)
    got = run.shared["experience"]["p0"]
    at, then = got["observation"].argmax(1), got["next"].argmax(1)
    assert got["observation"].shape == (20, 4)
    np.testing.assert_array_equal(then, np.maximum(0, at + 2 * got["action"] - 1))
    np.testing.assert_array_equal(got["done"], then == 3)
    np.testing.assert_array_equal(got["reward"], (then == 3).astype("float32"))
    np.testing.assert_allclose(np.exp(got["log_prob"]), 0.5)
    starts = np.r_[True, got["done"][:-1]]
    assert (at[starts] == 0).all()
    np.testing.assert_array_equal(at[~starts], then[:-1][~starts[1:]])
    assert run.ledger.metric("return") == [1.0]


def test_a_cut_episode_is_not_done():
    world = Rooms(longest=5)
    fed = co.Collaboration(co.Pool(Q), {"p": co.Player(world, Q, steps=5)}, evaluate=False)
    got = fed.run(rounds=1).shared["experience"]["p"]
    assert len(got["done"]) == 10
    assert not got["done"].any()


def test_q_learning_is_its_equation():
    q = LINE.learn(LINE.init(HERE), rows((1, 1, 0.0, 2, False), (2, 1, 1.0, 3, True)), None)["q"]
    want = np.zeros((4, 2))
    want[2, 1] = 0.5 * 1.0  # the last row first
    want[1, 1] = 0.5 * 0.9 * 0.5
    np.testing.assert_allclose(q, want, rtol=1e-6)
    error = LINE.priority({"q": q}, rows((1, 1, 0.0, 2, False), (2, 1, 1.0, 3, True)))
    np.testing.assert_allclose(error, [0.9 * 0.5 - 0.225, 0.5], rtol=1e-6)


def test_actor_critic_is_its_equation():
    """One's own row, and one of somebody who played its action with 1/4: weight 0.5 / 0.25, at most clip."""
    learner = co.ActorCritic(4, 2, rate=1.0, value_rate=1.0, discount=0.9, entropy=0.0, clip=1.5)
    theirs = rows((1, 0, 2.0, 2, True)) | {"log_prob": np.log(np.array([0.25], "float32"))}
    found = learner.learn(learner.init(HERE), rows((0, 1, 1.0, 2, True)), None, [theirs])
    np.testing.assert_allclose(found["policy"][:2], [[-0.5, 0.5], [1.5 * 2.0 * 0.5, -1.5 * 2.0 * 0.5]])
    np.testing.assert_allclose(found["value"][:2], [1.0, 1.5 * 2.0])


def test_actions_are_drawn_as_the_log_probability_says():
    """10,000 draws: each |z| < 6, false alarm below 1e-8."""
    params = {"policy": np.array([[0.0, 1.0, 2.0]]), "value": np.zeros(1)}
    learner = co.ActorCritic(1, 3)
    action, log_prob = learner.act(params, np.ones((10_000, 1)), np.random.default_rng(0))
    p = np.exp([0, 1, 2]) / np.exp([0, 1, 2]).sum()
    counts = np.bincount(action, minlength=3)
    assert (np.abs(counts - 10_000 * p) / np.sqrt(10_000 * p * (1 - p))).max() < 6
    np.testing.assert_allclose(np.exp(log_prob), p[action], rtol=1e-5)


def test_the_pool_tells_each_what_the_others_saw_last():
    pool, turn = co.Pool(LINE, keep=2), HERE
    value = {
        "a": rows((0, 1, 0.0, 1, False), (1, 1, 0.0, 2, False), (2, 1, 1.0, 3, True)),
        "b": rows((0, 0, 0, 0, False)),
    }
    state = pool.update(pool.init(turn), co.Contribution("experience", value), turn)
    state = pool.update(state, co.Contribution("experience", {"b": rows((1, 0, 0, 0, False))}), turn)
    told = pool.share(state, "b", turn).value["experience"]
    assert list(told) == ["a"]
    np.testing.assert_array_equal(told["a"]["observation"].argmax(1), [1, 2])
    np.testing.assert_array_equal(pool.share(state, "a", turn).value["experience"]["b"]["observation"].argmax(1), [1])
    assert co.Pool(LINE, keep=0).update(pool.init(turn), co.Contribution("experience", value), turn)["experience"] == {}


def test_unlike_columns_are_cut_and_wrong_ones_refused():
    pool = co.Pool(LINE)
    short = rows((0, 1, 0.0, 1, False), (1, 1, 0.0, 2, False)) | {"reward": np.zeros(1, "float32")}
    kept = pool.update(pool.init(HERE), co.Contribution("experience", {"a": short}), HERE)["experience"]["a"]
    assert {len(x) for x in kept.values()} == {1}

    class Liar:
        def contribute(self, shared, local, round, secret):
            return co.Contribution("experience", rows((0, 1, 0.0, 1, False)) | {"action": np.array([2])}), local

    sites = {**players(n=2), "liar": Liar()}
    run = co.Collaboration(pool, sites, evaluate=False).run(rounds=1)
    assert [r.sender for r in run.ledger.refused] == ["liar"]


def test_others_experience_is_learnt_from():
    """A player that only stands at the wall is told the way by one that walked it."""
    fed = co.Collaboration(co.Pool(LINE), players(n=2), evaluate=False)
    told, alone = fed.run(rounds=4), fed.replace(method=co.Pool(LINE, keep=0)).run(rounds=4)
    q = {n: r.local("p0")["params"]["q"][:3, 1] for n, r in (("told", told), ("alone", alone))}
    assert (q["told"] > q["alone"]).all()
    assert "params" not in str(told.shared)


def test_a_few_rows_with_the_largest_error_are_sent():
    fed = co.Collaboration(co.Pool(LINE), players(n=1, share=0.1), evaluate=False)
    run = fed.run(rounds=1)
    got, params = run.shared["experience"]["p0"], run.local("p0")["params"]
    whole = co.Collaboration(co.Pool(LINE), players(n=1), evaluate=False).run(rounds=1).shared["experience"]["p0"]
    error = LINE.priority(params, whole)
    assert sorted(LINE.priority(params, got)) == pytest.approx(sorted(error)[-2:])
    assert run.ledger.bytes_up < 1000


def test_policies_of_several_meet_in_one_world():
    """Learnt apart, played together: an arena is given one policy for each agent."""
    run = co.Collaboration(co.Pool(Q), players(world=Rooms, learner=Q, n=2, steps=150), evaluate=False).run(rounds=12)
    learnt = {f"agent{i}": run.local(f"p{i}")["params"] for i in range(2)}
    first = dict.fromkeys(learnt, Q.init(HERE))
    found = []
    for policies in (learnt, first):
        ask = co.Query({"policies": policies})
        sites = {"arena": co.Arena(Rooms(), Q, steps=600)}
        found.append(co.Collaboration(ask, sites, evaluate=False).run(rounds=1).ledger.metric("return")[0])
    assert found[0] > found[1] + 0.5
    ask = co.Query({"policies": {"agent0": first["agent0"]}})
    fed = co.Collaboration(ask, {"arena": co.Arena(Rooms(), Q)}, evaluate=False)
    with pytest.raises(co.TooFewParticipants, match="Got none for agent1"):
        fed.run(rounds=1)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: co.Pool("x"), "'learner' of Pool"),
        (lambda: co.Pool(LINE, keep=-1), "'keep' of Pool"),
        (lambda: co.Arena(3, LINE), "'world' of Arena must have possible_agents"),
        (lambda: co.Arena(Line(), LINE, steps=0), "'steps' of Arena"),
        (lambda: co.Player(Line(), LINE, send="model"), "'send' of Player"),
        (lambda: co.Player(Line(), LINE, share=0), "'share' of Player"),
        (lambda: co.QLearning(0, 2), "'inputs' of QLearning"),
        (lambda: co.QLearning(4, 1), "'actions' of QLearning"),
        (lambda: co.QLearning(4, 2, discount=1.0), "'discount' of QLearning"),
        (lambda: co.ActorCritic(4, 2, rate=0), "'rate' of ActorCritic"),
    ],
)
def test_what_is_refused(make, says):
    with pytest.raises(ConfigError, match=says):
        make()


def test_an_observation_that_does_not_fit_is_named():
    sites = {"p": co.Player(Rooms(), LINE)}
    with pytest.raises(co.TooFewParticipants, match="must have the learner's 4 inputs"):
        co.Collaboration(co.Pool(LINE), sites, evaluate=False).run(rounds=1)


def returns(method, learner, send, rounds):
    """Mean return while learning of four parties in four rooms, seeds 0 to 4; tuned on seeds 100 to 102."""
    sites = {f"p{i}": co.Player(Rooms(), learner, steps=100, send=send) for i in range(4)}
    fed = co.Collaboration(method, sites, evaluate=co.every(2))
    return np.array([np.mean(fed.replace(seed=s).run(rounds=rounds).ledger.metric("return")) for s in range(5)])


def tuned(rate, value_rate):
    return co.ActorCritic(100, 4, rate=rate, value_rate=value_rate, entropy=0.003)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("alone", "pooled", "averaged", "rounds"),
    [
        (Q, Q, Q, 20),
        (tuned(32, 0.6), tuned(16, 0.6), tuned(32, 1.0), 30),
    ],
    ids=["experience and values", "experience and policies"],
)
def test_sharing_beats_learning_alone_with_the_same_own_steps(alone, pooled, averaged, rounds):
    """Paired over seeds: the 95 % interval of the difference (t, 4 degrees) lies above 0.05."""
    base = returns(co.Pool(alone, keep=0), alone, "experience", rounds)
    for method, learner, send in ((co.Pool(pooled), pooled, "experience"), (co.FedAvg(averaged), averaged, "delta")):
        gain = returns(method, learner, send, rounds) - base
        assert gain.mean() - 2.776 * gain.std(ddof=1) / np.sqrt(5) > 0.05
