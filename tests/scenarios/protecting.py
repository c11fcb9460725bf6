"""Toys that show the shape of what is not there yet: secure aggregation, noise on the sum, tickets; and an engine.

None of them protects anything: keys have 61 bits, and noise is drawn from whatever secret the run has.
"""

import random
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

import comity as co
from comity.core.contribution import Contribution
from comity.core.errors import ChannelError, TooFewParticipants
from comity.core.parts import Spend, Step, Until
from comity.core.rng import keyed
from comity.core.tree import leaves, norm, tree_map
from comity.core.wire import decode, encode
from comity.methods.training import difference

P, G, POINT = 2**61 - 1, 3, 2**10


@dataclass(frozen=True)
class Masked:
    """The hub sees the sum. Between every two members lies a mask in Z_2^64; for who is gone it is taken out."""

    reveals: ClassVar[str] = "sum"
    ring: ClassVar[bool] = True

    def setup(self, cohort, ask, round):
        keys = ask(cohort, lambda to: Contribution("key", None), Until(len(cohort)))
        return _Session(dict(sorted((a.sender, a.value) for a in keys)), round)

    def answer(self, message, memory, round, secret):
        if message.kind == "key":
            own = int(secret.rng("masked", str(round.number), str(round.attempt)).integers(2, P - 2))
            return Contribution("key", pow(G, own, P)), {"own": own}
        if message.kind != "gone" or "own" not in memory:
            raise ChannelError(f"There is no phase '{message.kind}'.")
        return Contribution("gone", {q: pow(key, memory["own"], P) for q, key in message.value.items()}), memory

    def seal(self, c, view, memory, round, secret):
        metrics = {name: np.array(pair) for name, pair in c.metrics.items()}
        body = {"value": c.value, **tree_map(_fixed, {"weight": c.weight, "metrics": metrics})}
        for other in view.keys() - {round.me}:
            mask = _mask(pow(view[other], memory["own"], P), body, round)
            body = _added(body, mask, 1 if round.me < other else -1)
        return Contribution(c.kind, body), memory

    def open(self, sealed, session, ask, until):
        came = {c.sender: c for c in sealed}
        if len(came) < 2:
            raise TooFewParticipants(f"Two must seal. Got {len(came)}.")
        first, *others = came.values()
        total = first.value
        for c in others:
            total = _added(total, c.value, 1)
        gone = {who: key for who, key in session.keys.items() if who not in came}
        helped = list(ask(list(came), lambda to: Contribution("gone", gone), Until(len(came)))) if gone else []
        if gone and len(helped) < len(came):
            raise TooFewParticipants(f"All {len(came)} who sealed must help to open. Got {len(helped)}.")
        for a in helped:
            for who, seed in a.value.items():
                total = _added(total, _mask(seed, total, session.round), -1 if a.sender < who else 1)
        metrics = {name: tuple((x / POINT).tolist()) for name, x in total["metrics"].items()}
        yield Contribution(first.kind, total["value"], tree_map(lambda w: w / POINT, total["weight"]), metrics)


@dataclass(frozen=True)
class _Session:
    keys: Mapping[str, int]
    round: Any

    def view(self, member):
        return self.keys


def _fixed(x):
    return np.round(np.asarray(x, float) * POINT).astype(np.int64)


def _mask(seed, like, round):
    drawn = {p: keyed(seed, round.number, round.attempt, *p) for p, _ in leaves(like)}
    masks = {p: drawn[p].integers(-(2**63), 2**63, np.shape(x)) for p, x in leaves(like)}

    def laid(tree, path=()):
        return {k: laid(v, (*path, k)) for k, v in tree.items()} if isinstance(tree, Mapping) else masks[path]

    return laid(like)


def _added(a, b, sign):
    with np.errstate(over="ignore"):
        return tree_map(lambda x, y: np.asarray(x) + sign * np.asarray(y), a, b)


@dataclass(frozen=True)
class FixedPoint:
    """Whole numbers for a ring, rounded towards zero."""

    bits: int = 24
    decodes: ClassVar[str] = "sum"
    contracts: ClassVar[bool] = True
    integers: ClassVar[bool] = True

    def init(self):
        return None

    def encode(self, c, public, local, round, secret):
        return replace(
            c, value=tree_map(lambda x: np.trunc(np.asarray(x) * 2.0**self.bits).astype("int64"), c.value)
        ), local

    def decode(self, c, state, round, secret):
        return replace(c, value=tree_map(lambda x: x / 2.0**self.bits, c.value)), state


@dataclass(frozen=True)
class Noise:
    """Differential privacy at the hub: clipped at the site, noise on the sum, each sum counted."""

    clip: float
    noise: float
    decodes: ClassVar[str] = "sum"
    contracts: ClassVar[bool] = True

    def init(self):
        return {"sums": 0}

    def bounds(self, spec):
        return spec

    def spend(self, round):
        return Spend("gaussian", self.noise)

    def encode(self, c, public, local, round, secret):
        scale = min(1.0, self.clip / max(norm(c.value), 1e-12))
        return replace(c, value=tree_map(lambda x: x * np.asarray(scale, x.dtype), c.value)), local

    def decode(self, c, state, round, secret):
        rng = secret.rng("noise", str(round.number), str(round.attempt))
        noisy = tree_map(lambda x: x + rng.normal(0, self.noise * self.clip, np.shape(x)), c.value)
        return replace(c, value=noisy), {"sums": state["sums"] + 1}


@dataclass(frozen=True)
class Budget:
    """Stops before the release that would be one too many."""

    releases: int

    def __call__(self, past, ahead):
        return past.rounds + sum(s.count for s in ahead) > self.releases


@dataclass(frozen=True)
class TicketTrainer:
    """A sparse model of its own: the smallest weights are pruned round by round; the weight is its mask."""

    model: Any
    data: Any = field(metadata={"data": True}, repr=False)
    keep: float = 0.25
    cut: float = 0.25

    def contribute(self, shared, local, round, secret):
        mask = local["mask"] if local else tree_map(lambda x: np.ones(x.shape, x.dtype), shared.value)
        start = tree_map(np.multiply, shared.value, mask)
        if shared.kind == "score":
            right = self.model.predict(start, self.data[0]).argmax(1) == self.data[1]
            pair = float(right.sum()), float(len(right))
            return Contribution("score", None, metrics={"train_accuracy": pair}), local
        params, metrics = self.model.fit(start, self.data, round, Step(mask=mask))
        rows = len(self.data[1])
        weight = tree_map(lambda m: m.astype(float) * rows, mask)
        return Contribution("delta", difference(params, start), weight, metrics), {"mask": self.pruned(mask, params)}

    def pruned(self, mask, params):
        """The next ticket: of each matrix a quarter less, down to `keep`; vectors stay."""
        return {k: self._cut(m, params[k]) if m.ndim > 1 else m for k, m in mask.items()}

    def _cut(self, mask, x):
        left = int(max(self.keep, mask.mean() * (1 - self.cut)) * mask.size)
        best = np.argsort(-np.abs(x * mask).ravel(), kind="stable")[:left]
        out = np.zeros(mask.size, mask.dtype)
        out[best] = 1
        return out.reshape(mask.shape)


@dataclass(frozen=True)
class Post:
    """Carries bytes, from two threads, in any order, and loses what some send.

    Attributes:
        lost: (name, phase) of answers that never come.
    """

    lost: frozenset[tuple[str, str]] = frozenset()
    choice: ClassVar[Mapping[str, Any]] = {"executor": "post"}

    def connect(self, roster, answer, *_):
        return _Post(self.lost, roster, answer)


@dataclass(frozen=True)
class _Post:
    lost: Any
    names: Any
    answer: Any
    chance: Any = field(default_factory=lambda: random.Random(0))

    def roster(self):
        return self.names

    def ask(self, cohort, message, until):
        sacks = [encode(message(name)) for name in cohort]
        self.chance.shuffle(sacks)
        with ThreadPoolExecutor(2) as threads:
            coming = [threads.submit(lambda sack: encode(self.answer(decode(sack))), sack) for sack in sacks]
            for done in as_completed(coming):
                answer = decode(done.result())
                if (answer.sender, answer.phase) not in self.lost:
                    yield answer


SUMMED = {"channel": Masked(), "transforms": [FixedPoint()], "combine": co.Mean(cap=1000.0)}
PRIVATE = {"channel": Masked(), "transforms": [Noise(1.0, 0.5), FixedPoint()], "combine": co.Mean(uniform=True)}


def tickets(parties):
    """Sparse personal models, momentum at the hub; nothing but their masked sum is seen."""
    method = co.FedAvg(parties.MODEL, co.Momentum(0.7, 0.3))
    return parties.fed(method, parties.trainers(TicketTrainer), **SUMMED)
