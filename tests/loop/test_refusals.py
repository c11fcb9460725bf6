"""Whatever a participant sends, it is named, and the model is that of a run without it."""

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

import comity as co
from comity.core.contribution import Contribution
from comity.core.tree import tree_map

RNG = np.random.default_rng(0)
DATA = {n: (RNG.normal(size=(12, 3)).astype("float32"), RNG.integers(0, 2, 12)) for n in "abcd"}
MODEL = co.Linear(3, 2, rate=0.5)


@dataclass(frozen=True)
class Spoilt:
    """Trains as it should, and spoils what it sends in every round, or only its scores."""

    data: Any = field(metadata={"data": True}, repr=False)
    spoil: Any
    score: bool = False

    def contribute(self, shared, local, round, secret):
        c, local = co.Trainer(MODEL, self.data).contribute(shared, local, round, secret)
        return (self.spoil(c) if (shared.kind == "score") == self.score else c), local


def leaf(x):
    return lambda c: replace(c, value={**c.value, "0.bias": x})


def touched(f):
    return lambda c: replace(c, value=tree_map(f, c.value))


def weight(w):
    return lambda c: replace(c, weight=w)


def metrics(**m):
    return lambda c: replace(c, metrics=m)


def raises(error):
    def spoil(c):
        raise error

    return spoil


class Odd:
    """An object that no wire carries."""


BAD = {
    "NaN": leaf(np.float32([np.nan, 0])),
    "inf": leaf(np.float32([0, np.inf])),
    "all NaN": touched(lambda x: x * np.nan),
    "shape": leaf(np.zeros(3, "float32")),
    "0-d": leaf(np.float32(1)),
    "float64": leaf(np.zeros(2)),
    "complex": leaf(np.zeros(2, "complex64")),
    "int": leaf(np.zeros(2, "int32")),
    "bool": leaf(np.zeros(2, bool)),
    "objects": leaf(np.array([1, None], object)),
    "text array": leaf(np.array(["a", "b"])),
    "dates": leaf(np.zeros(2, "M8[s]")),
    "masked": leaf(np.ma.masked_array(np.zeros(2, "float32"), [1, 0])),
    "none": leaf(None),
    "text": leaf("text"),
    "bytes": leaf(b"bytes"),
    "list": leaf([0.0, 0.0]),
    "ragged": leaf([[1.0], [1.0, 2.0]]),
    "set": leaf({1, 2}),
    "object": leaf(Odd()),
    "function": leaf(len),
    "tree": leaf({"x": np.zeros(2, "float32")}),
    "empty tree": leaf({}),
    "extra": lambda c: replace(c, value={**c.value, "more": np.zeros(2, "float32")}),
    "name": lambda c: replace(c, value={**c.value, 7: np.zeros(2, "float32")}),
    "missing": lambda c: replace(c, value={"0.bias": c.value["0.bias"]}),
    "nothing": lambda c: replace(c, value=None),
    "no tree": lambda c: replace(c, value=np.zeros(2, "float32")),
    "far": touched(lambda x: x + np.float32(101)),
    "negative weight": weight(-1.0),
    "NaN weight": weight(math.nan),
    "infinite weight": weight(math.inf),
    "huge weight": weight(1e30),
    "huge int weight": weight(10**40),
    "text weight": weight("heavy"),
    "no weight": weight(None),
    "tree weight": weight({"0.bias": 1.0, "0.weight": 1.0}),
    "strange weight": weight({"zzz": 1.0}),
    "array weight": weight(np.ones(2)),
    "list weight": weight([1.0, 2.0]),
    "object weight": weight(Odd()),
    "other sender": lambda c: replace(c, sender="a"),
    "no sender": lambda c: replace(c, sender=None),
    "kind": lambda c: replace(c, kind="model"),
    "no kind": lambda c: replace(c, kind=None),
    "error kind": lambda c: replace(c, kind="error"),
    "NaN metric": metrics(loss=(math.nan, 1.0)),
    "inf metric": metrics(loss=(1.0, math.inf)),
    "negative count": metrics(loss=(1.0, -5.0)),
    "number metric": metrics(loss=5.0),
    "text metric": metrics(loss=("a", "b")),
    "long metric": metrics(loss=(1.0, 2.0, 3.0)),
    "no metrics": lambda c: replace(c, metrics=None),
    "no contribution": lambda c: None,
    "a number": lambda c: 5,
    "raises": raises(RuntimeError("no power")),
    "raises ours": raises(co.ConfigError("The data must be numbers. Got text.")),
    "stops": raises(StopIteration()),
    "memory": raises(MemoryError()),
    "recursion": raises(RecursionError("too deep")),
}
TRAIN = {n: co.Trainer(MODEL, d) for n, d in DATA.items()}


def collaboration(sites, **parts):
    return co.Collaboration(co.FedAvg(MODEL, bound=100.0), sites, evaluate=False, **parts)


@pytest.fixture(scope="module")
def without():
    return {
        combine: collaboration({n: t for n, t in TRAIN.items() if n != "b"}, combine=combine).run(rounds=3).shared
        for combine in (co.Mean(), co.Median(), co.Mean(uniform=True))
    }


@pytest.mark.parametrize("combine", [co.Mean(), co.Median(), co.Mean(uniform=True)], ids=lambda c: repr(c)[:12])
@pytest.mark.parametrize("how", BAD)
def test_a_bad_contribution_is_named_and_left_out(how, combine, without):
    if (
        isinstance(combine, co.Mean)
        and combine.uniform
        and how in ("huge weight", "huge int weight", "infinite weight")
    ):
        pytest.skip("each counts once")
    run = collaboration(TRAIN | {"b": Spoilt(DATA["b"], BAD[how])}, combine=combine).run(rounds=3)
    named = [*run.ledger.refused, *run.ledger.dropped]
    assert [(n.round, n.sender) for n in named] == [(0, "b"), (1, "b"), (2, "b")]
    assert all(len(n.reason) > 10 for n in named)
    assert not any(e.facts["accepted"][1] for e in run.ledger if e.kind == "round")
    for name, x in run.shared.items():
        np.testing.assert_allclose(x, without[combine][name], rtol=1e-6, atol=1e-7)


def test_whose_code_fails_is_dropped_with_its_error_and_who_sends_nonsense_is_refused():
    run = collaboration(TRAIN | {"b": Spoilt(DATA["b"], BAD["raises"])}).run(rounds=1)
    assert (run.ledger.refused, run.ledger.dropped[0].reason) == ([], "RuntimeError: no power")
    run = collaboration(TRAIN | {"b": Spoilt(DATA["b"], BAD["NaN"])}).run(rounds=1)
    assert run.ledger.dropped == []
    assert run.ledger.refused[0].reason == "b: NaN in 0.bias (1 of 2 values)."


ALSO = ("kind", "no kind", "object", "other sender", "no sender", "raises", "no contribution", "a number")


@pytest.mark.parametrize("how", [k for k in BAD if "metric" in k or k in ALSO])
def test_a_bad_score_is_named_and_left_out(how):
    fed = collaboration(TRAIN | {"b": Spoilt(DATA["b"], BAD[how], score=True)})
    spoilt = {"object": lambda c: replace(c, value={"x": Odd()})}.get(how, BAD[how])
    fed = fed.replace(participants=TRAIN | {"b": Spoilt(DATA["b"], spoilt, score=True)}, evaluate=True)
    run = fed.run(rounds=1)
    assert {n.sender for n in [*run.ledger.refused, *run.ledger.dropped]} == {"b"}
    score = next(e for e in run.ledger if e.kind == "score")
    assert score.facts["accepted"].tolist() == [True, False, True, True]
    assert run.ledger[-1].facts["metrics"]["train_accuracy"][1] == 36


def test_a_name_without_contribute_is_told_in_words():
    with pytest.raises(co.ConfigError, match=r"'b' must have a contribute method. Got tuple. Use co.Trainer"):
        collaboration({"b": DATA["b"]}).run(rounds=1)


def envelope(change):
    """An engine that changes the answers of b."""

    @dataclass(frozen=True)
    class Between:
        choice = {}

        def connect(self, roster, answer):
            @dataclass(frozen=True)
            class Ask:
                def roster(self):
                    return roster

                def ask(self, cohort, message, until):
                    for name in cohort:
                        reply = answer(message(name))
                        yield from change(reply) if name == "b" else [reply]

            return Ask()

    return Between()


def at(e, **changes):
    return replace(e, round=replace(e.round, **changes))


def inner(e, **changes):
    return replace(e, body=replace(e.body, value={"hub": {**e.body.value["hub"], **changes}}))


FORGED = {
    "twice": (lambda e: [e, e], "answered twice"),
    "another twice": (lambda e: [replace(e, body=Contribution("x", None)), e], "sent no contribution for hub 'hub'"),
    "unknown sender": (lambda e: [replace(e, sender="mallory")], "mallory was not asked in this round"),
    "as a": (lambda e: [replace(e, sender="a")], "answered as 'b'"),
    "for a": (lambda e: [at(e, me="a")], "answered as 'a'"),
    "other round": (lambda e: [at(e, number=7)], "answered for round 8, attempt 1"),
    "other attempt": (lambda e: [at(e, attempt=2)], "attempt 3"),
    "other phase": (lambda e: [replace(e, phase="score")], "to 'score'"),
    "other recipe": (lambda e: [replace(e, recipe="f00")], "of recipe f00"),
    "claims": (lambda e: [replace(e, body=replace(e.body, sender="a"))], "claims to be 'a'"),
    "claims inside": (lambda e: [inner(e, sender="a")], "claims to be 'a'"),
    "no hub": (lambda e: [replace(e, body=replace(e.body, value={}))], "sent no contribution for hub"),
    "no tree": (lambda e: [replace(e, body=replace(e.body, value=np.ones(2)))], "sent no contribution for hub"),
    "text": (lambda e: [replace(e, body=replace(e.body, value="hub"))], "sent no contribution for hub"),
    "no kind": (lambda e: [inner(e, kind=3)], "sent no contribution for hub"),
    "six": (lambda e: [inner(e, more=3)], "sent no contribution for hub"),
    "odd metrics": (lambda e: [inner(e, metrics={"x": np.ones(3)})], "sent no contribution for hub"),
    "metrics": (lambda e: [inner(e, metrics=3)], "sent no contribution for hub"),
    "empty": (lambda e: [replace(e, body=Contribution("error", None))], "None"),
}


@pytest.mark.parametrize("how", FORGED)
def test_a_forged_envelope_is_refused(how, without):
    change, said = FORGED[how]
    run = collaboration(TRAIN).run(rounds=2, engine=envelope(change))
    named = [*run.ledger.refused, *run.ledger.dropped]
    assert all(said in n.reason for n in named if how != "another twice")
    assert any(said in n.reason for n in named)
    assert {n.round for n in named} == {0, 1}
    want = collaboration(TRAIN).run(rounds=2).shared if how == "twice" else None
    if want is None:
        others = {n: t for n, t in TRAIN.items() if n != "b"}
        want = collaboration(others).run(rounds=2).shared
    for name, x in run.shared.items():
        np.testing.assert_allclose(x, want[name], rtol=1e-6, atol=1e-7)


def test_a_stranger_cannot_take_the_place_of_a_member():
    """An answer under the name of a, before a's own, is refused by what it says of itself; a's own counts."""
    run = collaboration({"b": TRAIN["b"], "a": TRAIN["a"]}).run(rounds=1, engine=envelope(FORGED["as a"][0]))
    assert [e.facts["accepted"].tolist() for e in run.ledger if e.kind == "round"] == [[False, True]]
