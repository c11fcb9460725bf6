"""A small world with several agents that speaks PettingZoo's parallel API: four rooms, one way out."""

import numpy as np

MAP = (
    ".....#....",
    ".....#....",
    "..........",
    ".....#....",
    ".....#....",
    "##.####.##",
    ".....#....",
    ".....#....",
    "..........",
    ".....#...G",
)
MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1))


class Rooms:
    """Agents look for the way out (+1, and it is gone); every step costs 0.01; two never stand on one cell.

    An agent sees the number of its cell. It is put anywhere, or into the room of its party.
    """

    def __init__(self, agents=2, room=None, longest=60):
        self.possible_agents = [f"agent{i}" for i in range(agents)]
        self.agents, self.longest = [], longest
        free = [(r, c) for r, row in enumerate(MAP) for c, x in enumerate(row) if x == "."]
        self.starts = [(r, c) for r, c in free if room is None or (r > 5) * 2 + (c > 5) == room]
        self.size = len(MAP) * len(MAP[0])

    def reset(self, seed=None):
        rng = np.random.default_rng(seed)
        self.agents, self.time = list(self.possible_agents), 0
        drawn = rng.choice(len(self.starts), len(self.agents), replace=False)
        self.at = {agent: self.starts[i] for agent, i in zip(self.agents, drawn, strict=True)}
        return self.seen(self.agents), {agent: {} for agent in self.agents}

    def seen(self, agents):
        return {agent: self.at[agent][0] * len(MAP[0]) + self.at[agent][1] for agent in agents}

    def step(self, actions):
        here, self.time = list(self.agents), self.time + 1
        rewards, ended = dict.fromkeys(here, -0.01), dict.fromkeys(here, False)
        for agent in here:
            (r, c), (dr, dc) = self.at[agent], MOVES[actions[agent]]
            to = (r + dr, c + dc)
            inside = 0 <= to[0] < len(MAP) and 0 <= to[1] < len(MAP[0])
            if inside and MAP[to[0]][to[1]] != "#" and to not in [self.at[a] for a in self.agents]:
                self.at[agent] = to
            if MAP[self.at[agent][0]][self.at[agent][1]] == "G":
                rewards[agent], ended[agent] = 1.0, True
                self.agents = [a for a in self.agents if a != agent]
        cut = self.time >= self.longest
        if cut:
            self.agents = []
        truncated = {agent: cut and not ended[agent] for agent in here}
        return self.seen(here), rewards, ended, truncated, {agent: {} for agent in here}
