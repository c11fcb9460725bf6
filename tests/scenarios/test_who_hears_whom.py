"""Rings, regions, steps and pools; and what is learnt where parties differ, through masked sums as well."""

import numpy as np
import scenario_protecting as toys
import scenario_shards as s

import comity as co

NAMES = list(s.DATA)


def test_gossip_on_a_ring_needs_no_hub():
    method = co.FedAvg(s.MODEL, send="model")
    sites = s.trainers(send="model")
    run = s.fed(method, sites, select=co.ring(), combine=co.Mean(uniform=True)).run(s.ROUNDS)
    assert min(s.accuracy(run.shared[n]) for n in NAMES) > np.mean(s.alone()) + 0.04
    models = np.array([run.shared[n]["0.weight"].ravel() for n in NAMES])
    assert np.linalg.norm(models - models.mean(0), axis=1).mean() < 0.1 * np.linalg.norm(models.mean(0))
    assert run.ledger.dropped == run.ledger.refused == []


def test_two_levels_masked_below_are_flat():
    """The hub above hears two regions, each of which sees a sum only."""
    sites = s.trainers()
    halves = {"north": NAMES[:4], "south": NAMES[4:]}
    below = {
        k: co.Collaboration(co.FedAvg(s.MODEL), {n: sites[n] for n in ns}, **toys.SUMMED) for k, ns in halves.items()
    }
    deep = s.fed(sites={name: co.Region(inner) for name, inner in below.items()}).run(s.ROUNDS)
    flat = s.fed().run(s.ROUNDS)
    assert s.furthest(deep.shared, flat.shared) < 1e-5
    assert deep.ledger.bytes_up < 0.25 * flat.ledger.bytes_up


def test_scaffold_through_masked_sums_where_labels_are_skewed():
    data, model = s.SKEWED, co.Linear(s.COLUMNS, 2, rate=0.5, batch=1000, epochs=100, decay=0.01)
    averaged = s.fed(co.FedAvg(model), {n: co.Trainer(model, d) for n, d in data.items()}).run(5)
    corrected = s.fed(co.Scaffold(model), {n: co.ScaffoldTrainer(model, d) for n, d in data.items()})
    masked = corrected.replace(channel=toys.Masked(), transforms=[toys.FixedPoint()]).run(5)
    assert s.accuracy(masked.shared) > s.accuracy(averaged.shared) + 0.02
    assert s.furthest(masked.shared, corrected.run(5).shared) < 1e-3


def test_two_hidden_clusters_through_a_masked_sum():
    """Nobody sees who is in which: a weight for each model, and only their sums."""
    data = {n: (x, y if i % 2 else 1 - y) for i, (n, (x, y)) in enumerate(s.DATA.items())}
    method, sites = co.IFCA(s.MODEL, clusters=2), s.trainers(co.IFCATrainer, data)
    run = s.fed(method, sites, **toys.SUMMED).run(s.ROUNDS)
    chosen = [run.local(n)["cluster"] for n in NAMES]
    assert len({*chosen[::2]}) == len({*chosen[1::2]}) == 1
    assert chosen[0] != chosen[1]
    x, y = s.TEST
    own = [s.accuracy(run.shared[str(c)], (x, y if i % 2 else 1 - y)) for i, c in enumerate(chosen)]
    one = s.fed(sites=s.trainers(data=data)).run(s.ROUNDS).shared
    flipped = [s.accuracy(one, (x, y if i % 2 else 1 - y)) for i in range(10)]
    assert np.mean(own) > 0.95 > np.mean(flipped) + 0.3


def test_a_writer_two_critics_and_an_editor():
    """A text goes from turn to turn; the critics have the same one, and the editor has both of theirs."""
    agents = {
        "writer": co.Agent(lambda text: f"{text} draft"),
        "critic1": co.Agent(lambda text: f"{text} too long"),
        "critic2": co.Agent(lambda text: f"{text} no source"),
        "editor": co.Agent(lambda both: f"final({' | '.join(both[name] for name in sorted(both))})"),
    }
    flow = co.turns("writer", ("critic1", "critic2"), "editor")
    run = s.fed(co.Relay("topic:"), agents, select=flow).run(len(flow))
    assert run.shared == "final(topic: draft too long | topic: draft no source)"
    assert [e.facts["asked"].split("\n") for e in run.ledger if e.kind == "round"] == [
        ["writer"],
        ["critic1", "critic2"],
        ["editor"],
    ]


class Arms:
    """One choice of twelve, and it is over."""

    possible_agents = ("a",)
    worth = np.random.default_rng(3).normal(size=12)

    def reset(self, seed=None):
        self.agents, self.luck = ["a"], np.random.default_rng(seed).normal(0, 0.1)
        return {"a": 0}, {}

    def step(self, actions):
        self.agents = []
        return {"a": 0}, {"a": self.worth[actions["a"]] + self.luck}, {"a": True}, {"a": False}, {}


def error(pool, learner, share=1.0):
    """How far eight players with twenty tries each are from what the arms are worth."""
    players = {f"p{i}": co.Player(Arms(), learner, steps=5, share=share) for i in range(8)}
    run = s.fed(pool, players).run(4)
    return np.mean([np.abs(run.local(n)["params"]["q"][0] - Arms.worth).mean() for n in players])


def test_sharing_the_experience_that_surprised_most_is_worth_more_than_playing_alone():
    learner = co.QLearning(1, 12, rate=0.5, temperature=1.0)
    pool, alone = co.Pool(learner), co.Pool(learner, keep=0)
    assert error(pool, learner) < error(pool, learner, share=0.4) < 0.5 * error(alone, learner)
