"""Learners of a policy from experience: linear in what an agent sees, so a table where that is one-hot.

A learner is what `Arena` and `Player` play with. It has `inputs` and `actions`; `init(round)` gives the first
parameters, `act(params, seen, rng)` plays, `learn(params, experience, rng, others=())` gives new parameters, and
`priority(params, experience)` says how much there is to learn from each row. For `FedAvg`, which averages parameters,
it has what a model has: `fit`, and `statistics`, of which there are none.

Experience is a Tree of arrays with one row for each step of an agent: `observation` and `next` (n, inputs) float32,
`action` (n,) int64, `reward` (n,) float32, `log_prob` (n,) float32 (natural, of the action at the time) and `done`
(n,) bool: the world ended for the agent; false where an episode was only cut.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np

from comity.core.checks import number, whole
from comity.core.contribution import Array
from comity.core.rng import Rng
from comity.core.round import Round

Experience: TypeAlias = Mapping[str, Array]


@dataclass(frozen=True)
class QLearning:
    """Q-learning (Watkins & Dayan, Machine Learning 1992, eq. 1), played by a softmax of q / temperature.

    Q(s, a) = w_a · s, and w_a ← w_a + rate·(r + discount·max_b Q(s', b) - Q(s, a))·s, row by row. As it is off-policy,
    others' experience is as good as one's own. What is learnt is `{"q": (inputs, actions) float32}`.

    Attributes:
        inputs: numbers in an observation, >= 1.
        actions: how many there are, >= 2.
        rate: in (0, 1].
        discount: of the future, in [0, 1).
        temperature: of play, > 0.
        passes: how often experience is gone through, the last first, >= 1.

    Raises:
        ConfigError: a setting is out of its range.

    Example:
        >>> import numpy as np, comity as co
        >>> learner, s = co.QLearning(inputs=2, actions=2, rate=0.5), np.eye(2, dtype="float32")
        >>> more = {"reward": np.ones(1, "float32"), "done": np.ones(1, bool), "log_prob": np.zeros(1, "float32")}
        >>> seen = {"observation": s[:1], "action": np.array([1]), "next": s[1:], **more}
        >>> learner.learn(learner.init(co.Round("r", 0)), seen, None)["q"]
        array([[0. , 0.5],
               [0. , 0. ]], dtype=float32)
    """

    inputs: int
    actions: int
    rate: float = 0.5
    discount: float = 0.95
    temperature: float = 0.1
    passes: int = 1
    statistics: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        _sizes(self)
        number("rate", "QLearning", self.rate, "(0, 1]")
        number("temperature", "QLearning", self.temperature, "(0, inf)")
        whole("passes", "QLearning", self.passes, 1)

    def init(self, round: Round) -> dict[str, Array]:
        """Nothing is worth anything."""
        return {"q": np.zeros((self.inputs, self.actions), "float32")}

    def act(self, params: Any, seen: Array, rng: Rng | None) -> tuple[Array, Array]:
        """Actions (n,) int64 and their log-probabilities (n,) float32; the best ones without `rng`."""
        return _drawn(seen @ params["q"] / self.temperature, rng)

    def learn(
        self, params: Any, experience: Experience, rng: Rng | None, others: Sequence[Experience] = ()
    ) -> dict[str, Array]:
        """Parameters after all experience, one's own last."""
        q = np.array(params["q"], float)
        for seen in [*others, experience] * self.passes:
            for i in range(len(seen["action"]) - 1, -1, -1):
                s, a = seen["observation"][i], seen["action"][i]
                ahead = 0.0 if seen["done"][i] else self.discount * float((seen["next"][i] @ q).max())
                q[:, a] += self.rate * (seen["reward"][i] + ahead - s @ q[:, a]) * s
        return {"q": q.astype("float32")}

    def fit(self, params: Any, data: Experience, round: Round) -> tuple[dict[str, Array], dict[str, Any]]:
        """As a model's: parameters after a log of experience, and how many rows it has."""
        return self.learn(params, data, round.mine("learn")), {"examples": (float(len(data["action"])), 1.0)}

    def priority(self, params: Any, experience: Experience) -> Array:
        """The absolute temporal-difference error of each row."""
        ahead = self.discount * (experience["next"] @ params["q"]).max(axis=1, initial=-np.inf) * ~experience["done"]
        now = (experience["observation"] @ params["q"])[np.arange(len(ahead)), experience["action"]]
        return np.asarray(np.abs(experience["reward"] + ahead - now))


@dataclass(frozen=True)
class ActorCritic:
    """Advantage actor-critic with shared experience (Christianos, Schäfer & Albrecht, NeurIPS 2020, eqs. 4 and 5).

    A softmax policy and a value, both linear in the observation: `{"policy": (inputs, actions), "value": (inputs,)}`
    float32. With the advantage A = r + discount·V(s') - V(s), one's own rows move the policy along A·∇log π(a|s) and
    the value along A·s; a row of somebody else counts by π(a|s) / π'(a|s), π' being who played it, at most `clip`.

    Departures: linear, no network; rows are gone through in batches of 8 in random order, each row a step, but an input
    that adds up to more than 1 in a batch moves by the mean; the ratio is clipped.

    Attributes:
        inputs: numbers in an observation, >= 1.
        actions: how many there are, >= 2.
        rate: of the policy, > 0.
        value_rate: of the value, in (0, 1].
        discount: of the future, in [0, 1).
        entropy: weight of the entropy of the policy, >= 0.
        clip: the largest weight of somebody else's row, > 0.

    Raises:
        ConfigError: a setting is out of its range.

    Example:
        >>> import numpy as np, comity as co
        >>> learner = co.ActorCritic(inputs=2, actions=4)
        >>> action, log_prob = learner.act(learner.init(co.Round("r", 0)), np.eye(2), np.random.default_rng(0))
        >>> np.exp(log_prob)
        array([0.25, 0.25], dtype=float32)
    """

    inputs: int
    actions: int
    rate: float = 1.0
    value_rate: float = 0.5
    discount: float = 0.95
    entropy: float = 0.01
    clip: float = 2.0
    statistics: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        _sizes(self)
        for name, within in (("rate", "(0, inf)"), ("value_rate", "(0, 1]"), ("entropy", "[0, inf)")):
            number(name, "ActorCritic", getattr(self, name), within)
        number("clip", "ActorCritic", self.clip, "(0, inf]")

    def init(self, round: Round) -> dict[str, Array]:
        """All actions alike."""
        policy = np.zeros((self.inputs, self.actions), "float32")
        return {"policy": policy, "value": np.zeros(self.inputs, "float32")}

    def act(self, params: Any, seen: Array, rng: Rng | None) -> tuple[Array, Array]:
        """Actions (n,) int64 and their log-probabilities (n,) float32; the likeliest ones without `rng`."""
        return _drawn(seen @ params["policy"], rng)

    def learn(
        self, params: Any, experience: Experience, rng: Rng | None, others: Sequence[Experience] = ()
    ) -> dict[str, Array]:
        """Parameters after all experience, gone through once in batches of 8 in random order."""
        w, v = (np.array(params[name], float) for name in ("policy", "value"))
        all_rows = [experience, *others]
        rows = {name: np.concatenate([e[name] for e in all_rows]) for name in experience}
        mine = np.arange(len(rows["action"])) < len(experience["action"])
        order = np.arange(len(mine)) if rng is None else rng.permutation(len(mine))
        for at in np.array_split(order, max(1, len(order) // 8)):
            self._step(w, v, {name: x[at] for name, x in rows.items()}, mine[at])
        return {"policy": w.astype("float32"), "value": v.astype("float32")}

    def _step(self, w: Array, v: Array, rows: Experience, mine: Array) -> None:
        s, a, n = rows["observation"], rows["action"], len(mine)
        log_p = _log_softmax(s @ w)
        p = np.exp(log_p)
        ratio = np.exp(log_p[np.arange(n), a] - rows["log_prob"])
        weight = np.where(mine, 1.0, np.minimum(ratio, self.clip))
        advantage = rows["reward"] + self.discount * (rows["next"] @ v) * ~rows["done"] - s @ v
        towards = (np.eye(self.actions)[a] - p) * (weight * advantage)[:, None]
        entropy = -p * (log_p - (p * log_p).sum(axis=1, keepdims=True))
        often = np.maximum(1.0, (s * s).sum(axis=0))
        w += self.rate * (s.T @ (towards + self.entropy * entropy * weight[:, None]) / often[:, None])
        v += self.value_rate * (s.T @ (weight * advantage) / often)

    def fit(self, params: Any, data: Experience, round: Round) -> tuple[dict[str, Array], dict[str, Any]]:
        """As a model's: parameters after a log of experience, and how many rows it has."""
        return self.learn(params, data, round.mine("learn")), {"examples": (float(len(data["action"])), 1.0)}

    def priority(self, params: Any, experience: Experience) -> Array:
        """The absolute advantage of each row."""
        ahead = self.discount * (experience["next"] @ params["value"]) * ~experience["done"]
        return np.asarray(np.abs(experience["reward"] + ahead - experience["observation"] @ params["value"]))


def _sizes(learner: Any) -> None:
    name = type(learner).__name__
    whole("inputs", name, learner.inputs, 1)
    whole("actions", name, learner.actions, 2)
    number("discount", name, learner.discount, "[0, 1)")


def _drawn(preference: Array, rng: Rng | None) -> tuple[Array, Array]:
    """An action for each row of (n, actions) preferences, by the Gumbel trick; the first of the best without rng."""
    log_p = _log_softmax(np.asarray(preference, float))
    noisy = log_p if rng is None else log_p + rng.gumbel(size=log_p.shape)
    action = noisy.argmax(axis=1)
    return action, log_p[np.arange(len(action)), action].astype("float32")


def _log_softmax(x: Array) -> Array:
    x = x - x.max(axis=1, keepdims=True)
    return np.asarray(x - np.log(np.exp(x).sum(axis=1, keepdims=True)))
