"""The laws of channels: they hold for lawful channels of one and of four phases, and tell which law another breaks."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest

import comity as co
from comity.core.contribution import Contribution
from comity.core.errors import ChannelError, ConfigError, TooFewParticipants
from comity.core.parts import Until
from comity.core.rng import keyed
from comity.core.tree import leaves, tree_map

P, G, POINT = 2**61 - 1, 3, 1024


@dataclass(frozen=True)
class Masked:
    """Pairwise masks in a ring of 64 bits, agreed keys, and recovery of those who drop out.

    A toy: keys of 61 bits, and every member holds a copy of every other's key. `groups`: sums of so many
    neighbours; None for one sum of all.
    """

    threshold: float = 0.5
    groups: int | None = None
    ring: ClassVar[bool] = True

    @property
    def reveals(self):
        return "groups" if self.groups else "sum"

    def setup(self, cohort, ask, round):
        n = self.groups or len(cohort)
        parts = [cohort[i : i + n] for i in range(0, len(cohort), n)]
        keys = {}
        for a in ask(cohort, lambda to: Contribution("keys", None), Until(len(cohort))):
            public = a.value.get("public") if isinstance(a.value, Mapping) else None
            if isinstance(public, int) and 1 < public < P:
                keys[a.sender] = public
        known = {m: {k: keys[k] for k in part if k in keys} for part in parts for m in part if m in keys}
        copies: dict[str, Any] = {}
        for a in ask(list(keys), lambda to: Contribution("copies", known[to]), Until(len(keys))):
            if _whole_numbers(a.value) and a.value.keys() == known[a.sender].keys():
                copies[a.sender] = dict(a.value)
        known = {m: {k: v for k, v in known[m].items() if k in copies} for m in copies}
        return _Session(known, copies, math.ceil(self.threshold * len(cohort)), parts, round)

    def answer(self, message, memory, round, secret):
        if message.kind == "keys":
            private = int(self.private(round, secret).integers(2, P - 2))
            return Contribution("keys", {"public": pow(G, private, P)}), {"private": private}
        if message.kind not in ("copies", "recover") or not _whole_numbers(message.value) or "private" not in memory:
            raise ChannelError(f"There is no phase '{message.kind}' with such words.")
        private = memory["private"]
        if message.kind == "copies":
            copies = {k: private ^ _pad(private, public, round) for k, public in message.value.items()}
            return Contribution("copies", copies), {**memory, "keys": dict(message.value)}
        mine = {k: v ^ _pad(private, memory["keys"].get(k, 2), round) for k, v in message.value.items()}
        return Contribution("recover", mine), memory

    def private(self, round, secret):
        return secret.rng("masked", str(round.number), str(round.attempt))

    def seal(self, c, view, memory, round, secret):
        if not isinstance(view, Mapping) or len(view) < 2:
            raise ChannelError(f"{round.me} has nobody to hide among.")
        value = tree_map(lambda x: np.array(x, np.int64), c.value)
        metrics = {k: {"sum": _fixed(s), "count": _fixed(n)} for k, (s, n) in c.metrics.items()}
        plain = {"value": value, "weight": _fixed(c.weight), "metrics": metrics}
        masked = _added(plain, self.masks(plain, round.me, view, memory["private"], round), 1)
        return Contribution("masked", {"kind": c.kind, **masked}), memory

    def masks(self, like, me, publics, private, round):
        """What `me` adds: one mask for each pair, with the sign of their order."""
        total = tree_map(lambda x: np.zeros(np.shape(x), np.int64), like)
        for other, public in publics.items():
            if other != me:
                rng = keyed(pow(public, private, P), round.number, round.attempt)
                whole = {".".join(p): rng.integers(-(2**63), 2**63, np.shape(x)) for p, x in leaves(like)}
                total = _added(total, _named(like, whole), 1 if me < other else -1)
        return total

    def open(self, sealed, session, ask, until):
        came = {c.sender: c.value for c in sealed if c.sender in session.known and _is_sealed(c.value)}
        if len(came) < max(2, session.least):
            raise TooFewParticipants(f"{session.least} must seal. Got {len(came)}.")
        private = self.recovered(came, session, ask)
        for part in session.parts:
            here = [m for m in part if m in came]
            if len(here) >= 2:
                yield self.opened(here, came, session, private)

    def opened(self, here, came, session, private):
        kind = came[here[0]]["kind"]
        bodies = [{k: v for k, v in came[m].items() if k != "kind"} for m in here]
        total = bodies[0]
        for body in bodies[1:]:
            total = _added(total, body, 1)
        for gone in (m for m in session.known[here[0]] if m not in came):
            publics = {m: session.known[gone][m] for m in here}
            total = _added(total, self.masks(total, gone, publics, private[gone], session.round), 1)
        pairs = {k: (v["sum"] / POINT, v["count"] / POINT) for k, v in total["metrics"].items()}
        return Contribution(kind, total["value"], float(total["weight"]) / POINT, pairs)

    def recovered(self, came, session, ask):
        gone = {m: [k for k in session.known[m] if k not in came] for m in came}
        if not any(gone.values()):
            return {}
        body = {m: {k: session.copies[k][m] for k in missing} for m, missing in gone.items()}
        private, heard = {}, 0
        for a in ask(list(came), lambda to: Contribution("recover", body[to]), Until(1)):
            if _whole_numbers(a.value) and a.value.keys() == body[a.sender].keys():
                heard += 1
                good = {k: v for k, v in a.value.items() if pow(G, v, P) == session.known[k][k]}
                private |= good
        if heard < session.least or not set(private) >= {k for ks in gone.values() for k in ks}:
            raise TooFewParticipants(f"{session.least} must help to open. Got {heard}.")
        return private


@dataclass(frozen=True)
class _Session:
    known: dict
    copies: dict
    least: int
    parts: list
    round: Any

    def view(self, member):
        return self.known.get(member)


def _pad(private, public, round):
    return int(keyed("pad", pow(public, private, P), round.number, round.attempt).integers(2**61))


def _fixed(x):
    return np.array(round(float(x) * POINT), np.int64)


def _whole_numbers(value):
    return isinstance(value, Mapping) and all(isinstance(v, int) and 0 <= v < 2**61 for v in value.values())


def _is_sealed(value):
    return isinstance(value, Mapping) and value.keys() == {"kind", "value", "weight", "metrics"}


def _named(like, whole, path=()):
    if isinstance(like, Mapping):
        return {k: _named(v, whole, (*path, k)) for k, v in like.items()}
    return whole[".".join(path)]


def _added(a, b, sign):
    with np.errstate(over="ignore"):
        return tree_map(lambda x, y: np.asarray(x) + sign * np.asarray(y), a, b)


@pytest.mark.parametrize("channel", [co.Plain(), Masked(), Masked(0.75), Masked(groups=2)], ids=repr)
def test_the_laws_hold(channel):
    co.testing.check_channel(channel)


def test_other_examples_and_thresholds():
    rng = np.random.default_rng(0)
    deltas = [Contribution("delta", {"w": rng.normal(size=3)}, w, {}, f"{i}") for i, w in enumerate([1.0] * 5)]
    trees = [Contribution("delta", {"w": rng.normal(size=3)}, {"w": np.ones(3)}, {}, f"{i}") for i in range(3)]
    text = [Contribution("text", "yes", sender=w) for w in "abc"]
    for example in (deltas, trees, text):
        co.testing.check_channel(co.Plain(), example)
    ints = [Contribution("delta", {"w": rng.integers(-9, 9, 3)}, 1.0, {}, f"{i}") for i in range(3)]
    co.testing.check_channel(Masked(), ints, least=2)
    with pytest.raises(AssertionError, match="Masked breaks the law of 'threshold'"):
        co.testing.check_channel(Masked(), ints, least=3)
    for few in (deltas[:2], deltas + deltas, [deltas[0]] * 3):
        with pytest.raises(ConfigError, match="three to 6"):
            co.testing.check_channel(co.Plain(), few)
    with pytest.raises(ConfigError, match="told apart"):
        co.testing.check_channel(Masked(groups=2), trees)


def test_an_inexact_channel_says_how_inexact_it_is():
    class Rounds(co.Plain):
        tolerance = 0.05

        def seal(self, c, view, memory, round, secret):
            return replace(c, value=tree_map(lambda x: np.round(x, 1), c.value)), memory

    co.testing.check_channel(Rounds())
    with pytest.raises(AssertionError, match="Rounds breaks the law of 'each'"):
        co.testing.check_channel(type("Rounds", (Rounds,), {"tolerance": 0.01})())


def _stranger(self, cohort, ask, round):
    list(ask(["nobody"], lambda to: Contribution("keys", None), Until(1)))


def _many(self, cohort, ask, round):
    list(ask(cohort, lambda to: Contribution(f"keys {to}", None), Until(1)))


def _scores(self, cohort, ask, round):
    list(ask(cohort, lambda to: Contribution("score", None), Until(1)))


def _twice(opened):
    for c in opened:
        yield c
        yield c


def _marked(c):
    c.metrics["seen"] = (1.0, 1.0)
    return c


def _opens(f):
    return {"open": lambda self, sealed, session, ask, until: f(self, sealed, session, ask, until)}


def _seals(f):
    return {"seal": lambda self, c, view, memory, round, secret: f(self, c, view, memory, round, secret)}


def _all_or_none(self, sealed, session, ask, until):
    came = list(sealed)
    if len(came) < len(session.known):
        raise ChannelError("Somebody is missing.")
    yield from Masked.open(self, iter(came), session, ask, until)


def _unchanged(self, like, me, publics, private, round):
    return Masked.masks(self, like, me, publics, private, replace(round, number=0, attempt=0))


class _Seen:
    def view(self, member):
        return {1, 2}


OS = np.random.default_rng()
MASKED = {
    "sum: value": _opens(
        lambda self, *a: (replace(c, value=tree_map(lambda x: x + 1, c.value)) for c in Masked.open(self, *a))
    ),
    "sum: metrics": _opens(lambda self, *a: (replace(c, metrics={}) for c in Masked.open(self, *a))),
    "sum: weight": _opens(lambda self, *a: (replace(c, weight=c.weight + 1) for c in Masked.open(self, *a))),
    "sum: kind": _opens(lambda self, *a: (replace(c, kind="model") for c in Masked.open(self, *a))),
    "sum: no recovery": {"recovered": lambda self, came, session, ask: dict.fromkeys(session.known, 2)},
    "drop-outs: all or none": _opens(_all_or_none),
    "reveals: no mask": {"masks": lambda self, like, *a: tree_map(lambda x: np.zeros(np.shape(x), np.int64), like)},
    "fresh: one mask": {"private": lambda self, round, secret: secret.rng("masked"), "masks": _unchanged},
    "reveals: open weight": _seals(lambda self, c, *a: (replace(Masked.seal(self, c, *a)[0], weight=c.weight), a[1])),
    "reveals: two items": _opens(lambda self, *a: _twice(Masked.open(self, *a))),
    "reveals: sender": _opens(lambda self, *a: (replace(c, sender="p1") for c in Masked.open(self, *a))),
    "repeat: own entropy": {"private": lambda self, round, secret: OS},
    "cohort: a stranger": {"setup": _stranger},
    "phases: many phases": {"setup": _many},
    "phases: a score": {"setup": _scores},
    "memory: a set in memory": _seals(lambda self, *a: (Masked.seal(self, *a)[0], {"x": {1}})),
    "view: a set in view": {"setup": lambda self, *a: _Seen()},
    "answer: raw errors": {
        "answer": lambda self, m, *a: Masked.answer(self, m, *a) if m.kind == "keys" else ({}[m.kind], 1)
    },
    "phases: any phase": {
        "answer": lambda self, m, mem, *a: (m, mem) if m.kind == "no such phase" else Masked.answer(self, m, mem, *a)
    },
    "inputs: changes": _seals(lambda self, c, *a: (_marked(c), Masked.seal(self, c, *a))[1]),
    "reveals": {"reveals": "all"},
}


@pytest.mark.parametrize("name", MASKED)
def test_a_channel_that_breaks_a_law_is_told_which(name):
    with pytest.raises(AssertionError, match=rf"^Theirs breaks the law of '{name.split(':')[0]}'"):
        co.testing.check_channel(type("Theirs", (Masked,), MASKED[name])())


def test_a_threshold_that_is_not_kept():
    class Lax(Masked):
        def setup(self, cohort, ask, round):
            return replace(Masked.setup(self, cohort, ask, round), least=2)

    co.testing.check_channel(Lax(0.5))
    with pytest.raises(AssertionError, match="Lax breaks the law of 'threshold'"):
        co.testing.check_channel(Lax(0.75))


def test_strange_words_that_come_through_are_found():
    class Trusts(Masked):
        def open(self, sealed, session, ask, until):
            came = list(sealed)
            assert all(c.value["kind"] for c in came)
            return Masked.open(self, iter(came), session, ask, until)

    with pytest.raises(AssertionError, match="Trusts breaks the law of 'strange'"):
        co.testing.check_channel(Trusts())


class Alone(Masked):
    """Says groups, and opens one where its neighbour dropped out."""

    def open(self, sealed, session, ask, until):
        came = {c.sender: c.value for c in sealed if c.sender in session.known and _is_sealed(c.value)}
        if len(came) < max(2, session.least):
            raise TooFewParticipants("too few")
        private = self.recovered(came, session, ask)
        for part in session.parts:
            if here := [m for m in part if m in came]:
                yield self.opened(here, came, session, private)


class Overlaps(Masked):
    """Opens the first group again in place of the second."""

    def open(self, *a):
        first = list(Masked.open(self, *a))[:1]
        yield from first * 2


@pytest.mark.parametrize(("channel", "law"), [(Alone(groups=2), "reveals"), (Overlaps(groups=2), "groups|reveals")])
def test_groups_that_are_none(channel, law):
    with pytest.raises(AssertionError, match=f"breaks the law of '({law})'"):
        co.testing.check_channel(channel)


@pytest.mark.parametrize(
    "own",
    [
        _opens(lambda self, sealed, *a: reversed(list(sealed))),
        _opens(lambda self, sealed, *a: _twice(sealed)),
        _opens(lambda self, sealed, *a: list(sealed)[1:]),
        _opens(lambda self, sealed, *a: (replace(c, sender="p1") for c in sealed)),
        _opens(lambda self, sealed, *a: (replace(c, weight=c.weight * (1 + 1e-12)) for c in sealed)),
    ],
)
def test_each_is_opened_as_it_was(own):
    with pytest.raises(AssertionError, match="breaks the law of 'each'"):
        co.testing.check_channel(type("Theirs", (co.Plain,), own)())


@dataclass(frozen=True)
class Whole:
    """Whole multiples of 2⁻²⁰."""

    decodes: ClassVar[str] = "sum"
    contracts: ClassVar[bool] = True
    integers: ClassVar[bool] = True

    def init(self):
        return None

    def encode(self, c, public, local, round, secret):
        return replace(c, value=tree_map(lambda x: np.trunc(np.asarray(x, float) * 2**20).astype(int), c.value)), local

    def decode(self, c, state, round, secret):
        return replace(c, value=tree_map(lambda x: x / 2**20, c.value)), state


def test_the_loop_drives_four_phases_as_the_check_does():
    rng, model = np.random.default_rng(0), co.Linear(3, 2, rate=0.3)
    data = {n: (rng.normal(size=(9, 3)).astype("f4"), rng.integers(0, 2, 9)) for n in "abcde"}

    @dataclass(frozen=True)
    class Away:
        def contribute(self, shared, local, round, secret):
            if shared.kind != "score" and round.number == 1:
                raise RuntimeError("away")
            return co.Trainer(model, data["c"]).contribute(shared, local, round, secret)

    sites = {n: co.Trainer(model, d) for n, d in data.items()} | {"c": Away()}
    fed = co.Collaboration(co.FedAvg(model), sites, combine=co.Mean(uniform=True))
    plain, hidden = (fed.replace(**k).run(rounds=3) for k in ({}, {"channel": Masked(), "transforms": [Whole()]}))
    assert [(d.round, d.sender) for d in hidden.ledger.dropped] == [(1, "c")]
    assert all(np.abs(plain.shared[k] - hidden.shared[k]).max() < 1e-5 for k in plain.shared)
