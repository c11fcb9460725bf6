"""The laws of transforms and methods: they hold for lawful parts, and tell which law another breaks."""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import pytest

import comity as co
from comity.core.contribution import Contribution
from comity.core.parts import Spend
from comity.core.spec import Spec, like
from comity.core.tree import norm, tree_map


@dataclass(frozen=True)
class Nothing:
    """Changes nothing."""

    decodes: ClassVar[str] = "sum"
    contracts: ClassVar[bool] = True

    def init(self):
        return None

    def encode(self, c, public, local, round, secret):
        return c, local

    def decode(self, c, state, round, secret):
        return c, state


@dataclass(frozen=True)
class Exact(Nothing):
    lossless: ClassVar[bool] = True


@dataclass(frozen=True)
class Clip(Nothing):
    """Scales down to a largest L2 norm, and adds noise on the sum."""

    most: float = 1.0

    def bounds(self, spec):
        return spec

    def encode(self, c, public, local, round, secret):
        scale = min(1.0, self.most / max(norm(c.value), 1e-12))
        return replace(c, value=tree_map(lambda x: (x * scale).astype(x.dtype), c.value)), local

    def decode(self, c, state, round, secret):
        rng = secret.rng("noise", str(round.number))
        return replace(c, value=tree_map(lambda x: x + rng.normal(size=np.shape(x)), c.value)), state

    def spend(self, round):
        return Spend("gaussian", 1.0)


@dataclass(frozen=True)
class Fixed(Nothing):
    """Integers, rounded towards zero."""

    def encode(self, c, public, local, round, secret):
        return replace(c, value=tree_map(lambda x: np.trunc(x * 4096.0).astype(np.int64), c.value)), local

    def decode(self, c, state, round, secret):
        return replace(c, value=tree_map(lambda x: x / 4096.0, c.value)), state


@dataclass(frozen=True)
class Top(Nothing):
    """The largest coordinate of each leaf; the rest is held back, or dropped."""

    feedback: bool = True
    decodes: ClassVar[str] = "each"

    @property
    def contracts(self):
        return not self.feedback

    def encode(self, c, public, local, round, secret):
        full = tree_map(np.add, c.value, local["held"]) if self.feedback and local else c.value
        sent = tree_map(lambda x: np.where(np.abs(x) == np.abs(x).max(), x, 0), full)
        return replace(c, value=sent), {"held": tree_map(np.subtract, full, sent)} if self.feedback else local

    def pack(self, c, state, to, round):
        return replace(c, value=tree_map(lambda x: np.asarray(x, "float16"), c.value))

    def unpack(self, c, local, round):
        return replace(c, value=tree_map(lambda x: np.asarray(x, "float32"), c.value)), local


@pytest.mark.parametrize("transform", [Nothing(), Exact(), Clip(), Fixed(), Top(), Top(feedback=False)], ids=repr)
def test_the_laws_of_transforms_hold(transform):
    co.testing.check_transform(transform)
    co.testing.check_transform(transform, Contribution("delta", {"w": np.ones((3, 2), "float32")}, 4.0))


class Feedback(Top):
    contracts = True


def _encode(f):
    return {"encode": lambda self, c, public, local, round, secret: f(c, local)}


def _decode(f):
    return {"decode": lambda self, c, state, round, secret: f(c, state)}


def _spoil(c, local):
    c.metrics["x"] = (1.0, 1.0)
    return c, local


LOOSE = np.random.default_rng(0)
BROKEN = {
    "contracts": [(Feedback, {}), (Nothing, {"contracts": 1}), (Nothing, _encode(lambda c, m: (times(c, 1.01), m)))],
    "decodes": [(Nothing, {"decodes": "groups"})],
    "inputs": [(Nothing, _encode(_spoil))],
    "repeat": [(Nothing, {"contracts": False} | _encode(lambda c, m: (times(c, LOOSE.random()), m)))],
    "restores": [
        (Exact, _decode(lambda c, s: (times(c, 1 + 1e-6), s))),
        (Nothing, _decode(lambda c, s: (first(c), s))),
    ],
    "sum": [(Nothing, _decode(lambda c, s: (replace(c, value=tree_map(np.tanh, c.value)), s)))],
    "drawer": [(Nothing, _encode(lambda c, m: (c, {"x": {1, 2}})))],
    "state": [(Nothing, {"init": lambda self: object()}), (Nothing, _decode(lambda c, s: (c, {1: 2})))],
    "encode": [(Nothing, _encode(lambda c, m: 1 / 0)), (Nothing, _encode(lambda c, m: (_write(c), m)))],
    "decode": [(Nothing, _decode(lambda c, s: 1 / 0))],
    "unpack": [(Top, {"unpack": lambda self, c, local, round: (first(c), local)})],
}


def times(c, k):
    return replace(c, value=tree_map(lambda x: x * np.float32(k), c.value))


def first(c):
    return replace(c, value={"a": c.value["a"]})


def _write(c):
    c.value["a"][0] = 0
    return c


@pytest.mark.parametrize(("law", "n"), [(law, n) for law, parts in BROKEN.items() for n in range(len(parts))])
def test_a_transform_that_breaks_a_law_is_told_which(law, n):
    base, own = BROKEN[law][n]
    with pytest.raises(AssertionError, match=rf"^Theirs breaks the law of '{law}'"):
        co.testing.check_transform(type("Theirs", (base,), own)())


MODEL = co.Linear(2, 2, batch=2)
DATA = np.eye(2, dtype="float32"), np.array([0, 1])


@dataclass(frozen=True)
class Theirs:
    data: Any = field(default=DATA, metadata={"data": True}, repr=False)

    def contribute(self, shared, local, round, secret):
        return co.Trainer(MODEL, self.data).contribute(shared, local, round, secret)


@dataclass(frozen=True)
class Learns(co.FedAvg):
    model: Any = MODEL


def _changed(f):
    def contribute(self, shared, local, round, secret):
        c, local = Theirs.contribute(self, shared, local, round, secret)
        return f(c, local)

    return {"contribute": contribute}


def _update(f):
    def update(self, state, combined, round):
        return f(co.FedAvg.update(self, state, combined, round), state)

    return {"update": update}


def _in_place(new, old):
    old["optimizer"]["n"] = 1
    return new


COUNT = iter(range(1000))
MEMBERS = {
    "expect": [_changed(lambda c, m: (replace(c, value={"0.bias": c.value["0.bias"]}), m) if c.value else (c, m))],
    "sender": [_changed(lambda c, m: (replace(c, sender="zed"), m))],
    "drawer": [_changed(lambda c, m: (c, {"x": {1}}))],
    "score": [
        _changed(lambda c, m: (replace(c, kind="delta"), m)),
        _changed(lambda c, m: (replace(c, metrics={}), m)),
        _changed(lambda c, m: (replace(c, metrics={"x": (np.nan, 1.0)}), m) if c.kind == "score" else (c, m)),
    ],
    "contribute": [_changed(lambda c, m: 1 / 0)],
    "inputs": [{"contribute": lambda self, shared, local, round, secret: _mark(self, shared, local, round, secret)}],
}


def _mark(self, shared, local, round, secret):
    shared.value["more"] = 1
    return Theirs.contribute(
        Theirs(), replace(shared, value={k: shared.value[k] for k in PARAMS}), local, round, secret
    )


PARAMS = MODEL.init(co.Round("", 0))
METHODS = {
    "repeat": [{"init": lambda self, round: {"params": MODEL.init(round), "optimizer": {"n": next(COUNT)}}}],
    "inputs": [_update(_in_place)],
    "state": [{"init": lambda self, round: {"params": MODEL.init(round), "optimizer": {1, 2}}}],
    "init": [{"init": lambda self, round: 1 / 0}],
    "update": [_update(lambda new, old: 1 / 0)],
}


@pytest.mark.parametrize(("law", "n"), [(law, n) for law, parts in MEMBERS.items() for n in range(len(parts))])
def test_a_participant_that_breaks_a_law_is_told_which(law, n):
    members = {"a": type("Odd", (Theirs,), MEMBERS[law][n])(), "b": Theirs()}
    said = "FedAvg|Odd"
    with pytest.raises(AssertionError, match=rf"^({said}) breaks the law of '{law}'"):
        co.testing.check_method(co.FedAvg(MODEL), members)


@pytest.mark.parametrize(("law", "n"), [(law, n) for law, parts in METHODS.items() for n in range(len(parts))])
def test_a_method_that_breaks_a_law_is_told_which(law, n):
    with pytest.raises(AssertionError, match=rf"^Odd breaks the law of '{law}'"):
        co.testing.check_method(type("Odd", (Learns,), METHODS[law][n])(), {"a": Theirs(), "b": Theirs()})


def test_a_participant_that_keeps_something_is_found_by_a_factory_or_without():
    class Keeps(Theirs):
        seen: ClassVar[list] = []

        def contribute(self, shared, local, round, secret):
            self.seen.append(1)
            c, local = Theirs.contribute(self, shared, local, round, secret)
            return (c if shared.kind == "score" else replace(c, weight=float(len(self.seen)))), local

    data = [(DATA[0][:1], DATA[1][:1]), (DATA[0][1:], DATA[1][1:])]
    with pytest.raises(AssertionError, match="breaks the law of 'repeat'"):
        co.testing.check_method(co.FedAvg(MODEL), lambda: {n: Keeps(d) for n, d in zip("ab", data, strict=True)})
    co.testing.check_method(co.FedAvg(MODEL), lambda: {"a": Theirs(), "b": Theirs()}, rounds=1, seed=9)
    with pytest.raises(co.ConfigError, match="needs participants"):
        co.testing.check_method(co.FedAvg(MODEL), {})


@dataclass(frozen=True)
class Collecting:
    """A method whose combiner sees each."""

    combiner: ClassVar = co.Collect()

    def init(self, round):
        return {"got": {}}

    def share(self, state, to, round):
        return Contribution("text", None)

    def expect(self, state, to, round):
        return Spec(like({"x": np.zeros(1)}))

    def update(self, state, combined, round):
        return {"got": combined.value}


def test_the_laws_hold_for_a_method_that_collects():
    class Says:
        def contribute(self, shared, local, round, secret):
            if shared.kind == "score":
                return Contribution("score", None, metrics={"n": (1.0, 1.0)}), local
            return Contribution("text", {"x": np.array([secret.rng("x").random()])}), {"n": local.get("n", 0) + 1}

    co.testing.check_method(Collecting(), {"a": Says(), "b": Says()})


def test_a_fixed_secret_is_fixed_and_says_so():
    a, b, c = co.testing.fixed_secret(), co.testing.fixed_secret(0), co.testing.fixed_secret(1)
    assert a == b
    assert a.rng("x", "1").bytes(8) == b.rng("x", "1").bytes(8)
    assert len({s.rng(*p).bytes(8) for s in (a, c, a.side("p")) for p in (("x",), ("x", "1"), ())}) == 9
    assert len(a.sign(b"data")) == 64
    assert a.sign(b"data") == b.sign(b"data") != c.sign(b"data")
    assert a.private is False
