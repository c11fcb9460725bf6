"""Four parties learn to leave a house, each in its own copy of it. What should they share?

Each plays the same 900 steps with two agents that get into each other's way. They share nothing, what they saw
(experience), what they think it is worth (values), or what they do (policies).
"""

import numpy as np

import comity as co

HOUSE = ("...#...", "...#...", ".......", "...#...", "##.#.##", "...#...", ".......", "...#..G")
MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1))
PARTIES, ROUNDS, STEPS, SEEDS = 4, 15, 60, 5


class House:
    """PettingZoo's parallel API. A step costs 0.01, the way out (G) gives 1; an agent sees the number of its cell."""

    possible_agents, cells = ("ann", "bob"), 56

    def reset(self, seed=None):
        free = [i for i in range(self.cells) if HOUSE[i // 7][i % 7] == "."]
        self.agents, self.time = list(self.possible_agents), 0
        drawn = np.random.default_rng(seed).choice(free, 2, replace=False)
        self.at = dict(zip(self.agents, drawn.tolist(), strict=True))
        return dict(self.at), {}

    def step(self, actions):
        here, self.time = self.agents, self.time + 1
        for a in here:
            row, column = self.at[a] // 7 + MOVES[actions[a]][0], self.at[a] % 7 + MOVES[actions[a]][1]
            to = row * 7 + column
            if 0 <= row < 8 and 0 <= column < 7 and HOUSE[row][column] != "#" and to not in self.at.values():
                self.at[a] = to
        out = {a: self.at[a] == self.cells - 1 for a in here}
        seen, self.at = {a: self.at[a] for a in here}, {a: at for a, at in self.at.items() if not out[a]}
        self.agents = [a for a in here if not out[a] and self.time < 50]
        cut = {a: not out[a] and self.time >= 50 for a in here}
        return seen, {a: 1.0 if out[a] else -0.01 for a in here}, out, cut, {}


def mean_return(method, learner, send, seed):
    """The mean over the run of what a party's agents get, by the policy of that time."""
    sites = {f"p{i}": co.Player(House(), learner, steps=STEPS, send=send) for i in range(PARTIES)}
    return np.mean(co.Collaboration(method, sites, evaluate=co.every(3), seed=seed).run(ROUNDS).ledger.metric("return"))


q, actor = co.QLearning(56, 4, rate=0.9, temperature=0.01), co.ActorCritic(56, 4, rate=16.0, value_rate=0.6)
for learner, averaged in ((q, "values"), (actor, "policies")):
    ways = {"alone": co.Pool(learner, keep=0), "experience": co.Pool(learner), averaged: co.FedAvg(learner)}
    sends = dict.fromkeys(ways, "experience") | {averaged: "delta"}
    runs = {n: np.mean([mean_return(m, learner, sends[n], s) for s in range(SEEDS)]) for n, m in ways.items()}
    said = ", ".join(f"{name} {x:.2f}" for name, x in runs.items())
    print(f"{type(learner).__name__}, mean return while learning, {SEEDS} seeds, same own steps: {said}")
