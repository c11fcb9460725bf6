"""Experience: agents that learn by playing, and share what they saw, what they do, or what they think it is worth.

participant  plays in its own copy of a world with its policy, learns, and sends one of
             experience (rows of observation, action, reward, log-probability, ...), kind "experience", to a `Pool`
             the change of its policy or of its values, kind "delta", to `FedAvg(learner)`
hub          Pool: keeps the latest experience of each, and tells everybody that of the others; FedAvg: averages
never leaves with Pool: the parameters; with FedAvg: every row of experience
bytes        Pool: (8·inputs + 17) bytes a row up, and down to each of the others; FedAvg: the parameters, both ways

What sharing is worth: four rooms of 10 by 10 cells, two agents, four parties, ten seeds, equal own steps, settings
chosen for each way on other seeds; mean return while learning, with the 95 % interval of the paired gain. Q-learning
alone 0.67 (0.72 where it goes through its own rows four times), experience +0.20 ± 0.05, values +0.19 ± 0.05, a tenth
of the rows +0.10 ± 0.03. Actor-critic alone 0.37, experience +0.41 ± 0.05, policies +0.32 ± 0.06, a tenth of the rows
+0.28 ± 0.05. At the end of the run they differ by 0.01 to 0.05 only: sharing buys speed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from comity.combine.collect import Collect
from comity.core.checks import number, part, shown, whole, word
from comity.core.contribution import Array, Contribution, Tree
from comity.core.errors import ConfigError
from comity.core.parts import Combiner, Secret
from comity.core.rng import Rng
from comity.core.round import Round
from comity.core.spec import Leaf, Spec
from comity.core.tree import leaves
from comity.methods.reinforcement import Experience
from comity.methods.training import difference

SENDS = ("experience", "delta")
ROWS = ("observation", "next", "action", "reward", "log_prob", "done")
LONGEST = 1000
"""An episode is cut after so many steps when it is scored."""


class World(Protocol):
    """A world as PettingZoo's parallel API has it (`pettingzoo.ParallelEnv`).

    An observation is (inputs,) numbers, or a whole number below `inputs`, which becomes one-hot.
    """

    possible_agents: Sequence[str]
    agents: Sequence[str]

    def reset(self, seed: int | None = None) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """Begin an episode, the same for the same seed: (observations, infos) by agent."""
        ...

    def step(self, actions: Mapping[str, int]) -> tuple[Mapping[str, Any], ...]:
        """(observations, rewards, terminations, truncations, infos) by agent; who is out leaves `agents`."""
        ...


class Learner(Protocol):
    """Plays and learns, see `comity.methods.reinforcement`."""

    inputs: int
    actions: int

    def init(self, round: Round) -> Any:
        """The first parameters."""
        ...

    def act(self, params: Any, seen: Array, rng: Rng | None) -> tuple[Array, Array]:
        """Actions and log-probabilities for (n, inputs) observations."""
        ...

    def learn(self, params: Any, experience: Experience, rng: Rng | None, others: Sequence[Experience] = ()) -> Any:
        """Parameters after one's own experience and that of others."""
        ...

    def priority(self, params: Any, experience: Experience) -> Array:
        """How much there is to learn from each row."""
        ...


@dataclass(frozen=True)
class Pool:
    """A pool of experience: everybody is told what the others saw last, and learns from it as well.

    All rows are shared as in SEAC (Christianos, Schäfer & Albrecht, NeurIPS 2020), or few that matter as in SUPER
    (Gerstgrasser, Danino & Keren, NeurIPS 2023): `Player(share=0.1)`. `run.shared` is `{"experience": {name: rows}}`.

    Attributes:
        learner: what the players play with: says what experience looks like.
        keep: the most rows of each player, the last ones; 0 shares nothing: each learns alone.

    Raises:
        ConfigError: no learner, or `keep` < 0.

    Example:
        >>> import comity as co
        >>> co.Pool(co.QLearning(inputs=9, actions=4)).expect({}, "ann", co.Round("r", 0)).value["observation"].shape
        (None, 9)
    """

    learner: Learner
    keep: int = 100_000

    def __post_init__(self) -> None:
        _learner(self.learner, "Pool")
        whole("keep", "Pool", self.keep)

    @property
    def combiner(self) -> Combiner:
        """Side by side."""
        return Collect()

    def init(self, round: Round) -> Any:
        """Nobody has seen anything."""
        return {"experience": {}}

    def share(self, state: Any, to: str, round: Round) -> Contribution:
        """What the others saw last."""
        others = {who: rows for who, rows in state["experience"].items() if who != to}
        return Contribution("experience", {"experience": others})

    def expect(self, state: Any, to: str, round: Round) -> Spec:
        """Rows of the learner's inputs and actions."""
        seen, n = Leaf((None, self.learner.inputs), "float32"), self.learner.actions
        value = {"observation": seen, "next": seen, "action": Leaf((None,), "int64", 0, n - 1)}
        value |= {"reward": Leaf((None,), "float32"), "log_prob": Leaf((None,), "float32", high=0.0)}
        return Spec({**value, "done": Leaf((None,), "bool")}, kind="experience", metrics=frozenset({"return", "steps"}))

    def update(self, state: Any, combined: Contribution, round: Round) -> Any:
        """Keep the newest of each. Columns of unlike lengths are cut to the shortest."""
        value: Any = combined.value
        new = {who: _last(rows, self.keep) for who, rows in value.items()} if self.keep else {}
        kept = {**state["experience"], **new}
        return {"experience": {who: kept[who] for who in sorted(kept)}}


@dataclass(frozen=True)
class Arena:
    """Plays in a world with the policies that it is given, and sends what came of it: experience.

    It is given one policy for all agents of the world (the parameters themselves), or `{"policies": {agent: ...}}`,
    by `Query`, or by `FedAvg` when it is asked for scores. `return` is the mean over agents and finished episodes of
    the sum of rewards.

    Attributes:
        world: PettingZoo's parallel API: `possible_agents`, `agents`, `reset(seed)`, `step(actions)`. A step must
            hang on seed and actions only.
        learner: what the parameters belong to.
        steps: of the world in a round, >= 1; the last episode is cut.
        episodes: that are played for a score, >= 1, each cut after 1,000 steps.

    Raises:
        ConfigError: something is lacking or out of range.

    Example:
        >>> import comity as co
        >>> class Coin:
        ...     possible_agents, agents = ["a"], []
        ...     def reset(self, seed=None):
        ...         self.agents = ["a"]
        ...         return {"a": 0}, {"a": {}}
        ...     def step(self, actions):
        ...         self.agents = []
        ...         return {"a": 0}, {"a": float(actions["a"])}, {"a": True}, {"a": False}, {"a": {}}
        >>> learner = co.QLearning(inputs=1, actions=2)
        >>> ask = co.Query(learner.init(co.Round("r", 0)))
        >>> run = co.Collaboration(ask, {"arena": co.Arena(Coin(), learner, steps=8)}, evaluate=False).run(rounds=1)
        >>> run.shared["arena"]["reward"].shape, 0 <= run.ledger.metric("return")[0] <= 1
        ((8,), True)
    """

    world: World = field(metadata={"data": True}, repr=False)
    learner: Learner
    steps: int = 200
    episodes: int = 10

    def __post_init__(self) -> None:
        _playable(self)

    def contribute(self, shared: Contribution, local: Tree, round: Round, secret: Secret) -> tuple[Contribution, Tree]:
        """Experience, weighted by its rows; or the return when asked for scores."""
        given: Any = shared.value
        agents = self.world.possible_agents
        several = isinstance(given, Mapping) and isinstance(given.get("policies"), Mapping)
        policies = given["policies"] if several else dict.fromkeys(agents, given)
        if lacking := [a for a in agents if a not in policies]:
            raise ConfigError(f"Each agent of the world must have a policy. Got none for {', '.join(lacking)}.")
        own = _looks(self.learner.init(round))
        for agent in agents:
            if _looks(policies[agent]) != own:
                raise ConfigError(
                    f"The policies of an Arena must be parameters of its learner. Got {shown(policies[agent])} for "
                    f"'{agent}'. Use the learner's init, or what was learnt with it."
                )
        if shared.kind == "score":
            return _score(self, policies, round), local
        rows, metrics = _played(self, policies, round)
        return Contribution("experience", rows, float(len(rows["action"])), metrics), local


@dataclass(frozen=True)
class Player:
    """Plays in its own copy of a world with its own policy, and learns from it and from what others share.

    All agents of its copy follow its one policy. With `send="experience"` it belongs to a `Pool`: its parameters stay
    in its drawer, `run.local(name)["params"]`. With `send="delta"` it belongs to `FedAvg(learner)`, which averages
    policies (of `ActorCritic`) or values (of `QLearning`); it goes on from what is shared. Its score is `return`, the
    mean over agents and episodes of the sum of rewards.

    Attributes:
        world: as `Arena`'s; its own.
        learner: the same for all players.
        steps: of its world in a round, >= 1.
        send: "experience" or "delta".
        share: which part of its rows it sends, those with the largest error first, in (0, 1].
        episodes: that are played for a score, >= 1.

    Raises:
        ConfigError: something is lacking or out of range.
    """

    world: World = field(metadata={"data": True}, repr=False)
    learner: Learner
    steps: int = 200
    send: str = "experience"
    share: float = 1.0
    episodes: int = 10

    def __post_init__(self) -> None:
        _playable(self)
        word("send", "Player", self.send, SENDS)
        number("share", "Player", self.share, "(0, 1]")

    def contribute(self, shared: Contribution, local: Tree, round: Round, secret: Secret) -> tuple[Contribution, Tree]:
        """Its newest experience, or the change of its parameters; or its return when asked for scores."""
        told, mine = _mapping(shared.value), _mapping(local)
        pooled = self.send == "experience"
        params = (mine.get("params") or self.learner.init(round)) if pooled else told
        policies = dict.fromkeys(self.world.possible_agents, params)
        if shared.kind == "score":
            return _score(self, policies, round), local
        rows, metrics = _played(self, policies, round)
        others = list(told["experience"].values()) if pooled else []
        after = self.learner.learn(params, rows, round.mine("learn"), others)
        if not pooled:
            return Contribution("delta", difference(after, params), float(len(rows["action"])), metrics), local
        sent = self._best(after, rows) if self.share < 1 else rows
        return Contribution("experience", sent, float(len(sent["action"])), metrics), {**mine, "params": after}

    def _best(self, params: Any, rows: Experience) -> Experience:
        """The rows with the largest error, in their order."""
        n = len(rows["action"])
        most = np.argsort(-self.learner.priority(params, rows), kind="stable")[: max(1, round(self.share * n))]
        return {name: x[np.sort(most)] for name, x in rows.items()}


def _played(who: Any, policies: Mapping[str, Any], round: Round) -> tuple[dict[str, Array], dict[str, Any]]:
    """So many steps of the world: experience of all its agents, and what it brought."""
    rng, taken, episode = round.mine("play"), 0, 0
    rows: list[Any] = []
    returns: list[float] = []
    while taken < who.steps:
        seed = round.mine_seed("world", str(episode))
        new = _episode(who, policies, (rng, seed), who.steps - taken)
        rows += [row for step in new for row in step]
        returns += [] if who.world.agents else _returns(new)
        taken, episode = taken + len(new), episode + 1
    metrics = {"return": (float(sum(returns)), float(len(returns))), "steps": (float(taken), 1.0)}
    return _columns(rows, who.learner.inputs), metrics


def _score(who: Any, policies: Mapping[str, Any], round: Round) -> Contribution:
    rng = round.mine("score")
    seeds = (round.mine_seed("score", str(episode)) for episode in range(who.episodes))
    returns = [x for seed in seeds for x in _returns(_episode(who, policies, (rng, seed), LONGEST))]
    return Contribution("score", None, metrics={"return": (float(sum(returns)), float(len(returns)))})


def _episode(who: Any, policies: Mapping[str, Any], chance: tuple[Rng, int], most: int) -> list[list[Any]]:
    """One episode: for each step of the world a row for each agent."""
    rng, seed = chance
    world, inputs = who.world, who.learner.inputs
    found = _begun(world, seed % 2**31)
    seen = {agent: _inputs(x, inputs) for agent, x in found.items()}
    steps: list[list[Any]] = []
    while world.agents and len(steps) < most:
        acted = _acts(who.learner, policies, {agent: seen[agent] for agent in world.agents}, rng)
        found, rewards, ended = _stepped(world, {agent: int(a) for agent, (a, _) in acted.items()})
        after = {agent: _inputs(x, inputs) for agent, x in found.items()}
        steps.append(
            [
                (seen[agent], after.get(agent, seen[agent]), a, rewards[agent], log_prob, bool(ended[agent]), agent)
                for agent, (a, log_prob) in acted.items()
            ]
        )
        seen = after
    if not steps:
        raise ConfigError("A world must have agents after its reset. Got none in `agents`.")
    return steps


def _begun(world: World, seed: int) -> Mapping[str, Any]:
    """The first observations."""
    given: Any = world.reset(seed=seed)
    if not isinstance(given, tuple) or len(given) != 2 or not isinstance(given[0], Mapping):
        raise ConfigError(
            f"The reset of a world must give (observations, infos) by agent. Got {shown(given)}. Use PettingZoo's API."
        )
    return _seen(world, given[0])


def _stepped(world: World, actions: Mapping[str, int]) -> tuple[Mapping[str, Any], ...]:
    """Observations, rewards and who is out."""
    given: Any = world.step(actions)
    if not isinstance(given, tuple) or len(given) < 3 or not all(isinstance(x, Mapping) for x in given[:3]):
        raise ConfigError(
            "The step of a world must give (observations, rewards, terminations, truncations, infos) by agent. "
            f"Got {shown(given)}. Use PettingZoo's API."
        )
    for agent in actions:
        reward = given[1].get(agent)
        plain = np.asarray(reward)
        if agent not in given[2] or plain.ndim or plain.dtype.kind not in "fiub" or not np.isfinite(plain):
            raise ConfigError(
                f"The step of a world must give each agent a finite reward, and say whether it is out. Got "
                f"{shown(reward)} for '{agent}', or nothing of its end."
            )
    return _seen(world, given[0]), given[1], given[2]


def _seen(world: World, found: Mapping[str, Any]) -> Mapping[str, Any]:
    if lacking := [agent for agent in world.agents if agent not in found]:
        raise ConfigError(f"A world must give each of its `agents` an observation. Got none for {', '.join(lacking)}.")
    return found


def _acts(learner: Learner, policies: Mapping[str, Any], seen: Mapping[str, Array], rng: Rng) -> dict[str, Any]:
    """(action, log-probability) by agent; agents of one policy act together."""
    groups: dict[int, list[str]] = {}
    for agent in seen:
        groups.setdefault(id(policies[agent]), []).append(agent)
    out: dict[str, Any] = {}
    for agents in groups.values():
        actions, log_probs = learner.act(policies[agents[0]], np.stack([seen[a] for a in agents]), rng)
        out |= dict(zip(agents, zip(actions, log_probs, strict=True), strict=True))
    return out


def _inputs(observation: Any, inputs: int) -> Array:
    x = np.asarray(observation)
    if x.ndim == 0 and x.dtype.kind in "iu" and 0 <= x < inputs:
        hot = np.zeros(inputs, "float32")
        hot[int(x)] = 1
        return hot
    if x.size != inputs:
        raise ConfigError(f"An observation must have the learner's {inputs} inputs. Got shape {x.shape}.")
    return x.astype("float32").ravel()


def _columns(rows: list[Any], inputs: int) -> dict[str, Array]:
    kinds = ("float32", "float32", "int64", "float32", "float32", "bool")
    columns = list(zip(*rows, strict=True)) or [()] * (len(ROWS) + 1)
    out = {name: np.array(x, kind) for name, kind, x in zip(ROWS, kinds, columns, strict=False)}
    return {n: x.reshape(len(rows), inputs) if n in ("observation", "next") else x for n, x in out.items()}


def _returns(steps: list[list[Any]]) -> list[float]:
    """The sum of rewards of each agent."""
    total: dict[str, float] = {}
    for row in (row for step in steps for row in step):
        total[row[-1]] = total.get(row[-1], 0.0) + float(row[3])
    return list(total.values())


def _last(rows: Any, most: int) -> dict[str, Array]:
    n = min(len(x) for x in rows.values())
    return {name: x[max(0, n - most) : n] for name, x in rows.items()}


def _looks(tree: Any) -> Any:
    return {path: np.shape(x) for path, x in leaves(tree)}


def _mapping(x: Any) -> Any:
    return x if isinstance(x, Mapping) else {}


def _learner(learner: Any, of: str) -> None:
    part("learner", of, learner, ("inputs", "actions", "init()", "act()", "learn()"), "co.QLearning(inputs, actions)")


def _playable(who: Any) -> None:
    name = type(who).__name__
    part("world", name, who.world, ("possible_agents", "reset()", "step()"), "PettingZoo's parallel API")
    _learner(who.learner, name)
    whole("steps", name, who.steps, 1)
    whole("episodes", name, who.episodes, 1)
