"""Mutated messages: each is refused as bytes, refused as a contribution, answered with an error, or harmless."""

import random
import time
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from wire_law import same
from wire_mutants import mutant, samples

import comity as co
from comity.core import wire
from comity.core.contribution import Contribution
from comity.core.envelope import Envelope
from comity.core.errors import ContributionError, WireError
from comity.core.rules import Parts
from comity.core.spec import Leaf, Spec, check, like
from comity.loop.asking import Asking
from comity.loop.hub import Heard
from comity.loop.site import EMPTY, Drawer, Pending, Site

MODEL = co.Linear(inputs=3, classes=2, rate=0.1)
X = np.random.default_rng(1).normal(size=(6, 3)).astype("float32")
DATA = (X, (X[:, 0] > 0).astype(int))
PARAMS = samples()[0].value
SPECS = [
    Spec(like(PARAMS), kind="delta"),
    Spec(like(PARAMS, -0.5, 0.5), max_weight=100.0, metrics=frozenset({"train_loss"})),
    Spec(like(PARAMS), weights="tree"),
    Spec(Leaf(), weights="any"),
    Spec(Leaf(), kind="score", weights="any"),
    Spec({"0.weight": Leaf((None, 3)), "0.bias": Leaf(low=0.0)}, weights="any"),
    Spec(Leaf(low=-1.0, high=1.0), weights="any"),
]
METHOD, SECRET = co.FedAvg(MODEL), co.testing.fixed_secret()
SITES = [
    Site("p01", co.Trainer(MODEL, DATA, valid=DATA), Parts(METHOD, combiner, (), co.Plain(), co.everyone()), SECRET)
    for combiner in (co.Mean(), co.Median())
]


def drawers(m):
    """Nothing kept; something pending for another question; something pending for this one."""
    pending = Pending(m.key, Contribution("question", None), Contribution("sealed", None), {"participant": {"n": 1}})
    other = Pending(("", 0, 0, "contribute", "p01"), bytes(32), Contribution("sealed", None), {})
    return EMPTY, Drawer({"participant": {"n": 0}}, other), Drawer({"participant": {"n": 0}}, pending)


def tried(data, seen):
    """What becomes of bytes from anybody, all the way. What is not meant to be raised escapes."""
    began = time.process_time()
    try:
        m = wire.decode(data)
    except WireError:
        m = None
    assert time.process_time() - began < 1.0
    if m is None:
        seen["no message"] += 1
        return
    again = wire.encode(m)
    assert again == data, "decoding is canonical"
    assert wire.size(m) == len(data)
    assert same(m, wire.decode(again))
    seen["a message"] += 1
    if isinstance(m, Envelope):
        answered(m, seen)
        heard(m, seen)
    else:
        checked(m, seen)


def checked(c, seen):
    for spec in SPECS:
        for lifted in (False, True):
            try:
                check(c, spec, lifted=lifted)
            except ContributionError:
                seen["refused"] += 1
            else:
                seen["fits"] += 1
    try:
        found = wire.from_tree(c.value)
    except WireError:
        return
    checked(found, seen)


def answered(m, seen):
    for drawer in drawers(m):
        for site in SITES:
            reply, after = site.answer(m, drawer)
            assert wire.size(reply) == len(wire.encode(reply))
            seen["error" if reply.body.kind == "error" else f"answered {m.phase}"[:15]] += 1
            assert reply.body.kind != "error" or (
                after.pending in (None, drawer.pending) and after.local in (drawer.local, {"participant": {"n": 1}})
            )


def heard(m, seen):
    """The hub, which asked p01 and p02."""
    asking = Asking(SITES[0].parts, SimpleNamespace(), "cd" * 32)
    for phase in ("contribute", "score"):
        what = Heard("hub", ["p01", "p02"], turn=(0, 0))
        if asking.admitted(m, what, phase):
            assert what.answered == {m.sender}
            assert m.sender in ("p01", "p02")
            seen["admitted"] += 1
        else:
            ((who, why),) = what.refused + what.dropped
            assert who == m.sender
            assert why is not None
            seen["not admitted"] += 1


def many(count, seed):
    rng, messages, seen = random.Random(seed), samples(), Counter()
    for _ in range(count):
        data = mutant(messages, rng)
        try:
            tried(data, seen)
        except Exception as error:
            raise AssertionError(f"{data!r} from seed {seed} does what it may not") from error
    return seen


def enough(seen, count):
    outcomes = (
        "no message",
        "a message",
        "refused",
        "fits",
        "error",
        "answered contri",
        "answered score",
        "admitted",
        "not admitted",
    )
    assert {k: seen[k] for k in outcomes if seen[k] < count / 100} == {}, seen


def test_four_thousand_mutated_messages():
    enough(many(4_000, 3), 4_000)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_a_hundred_thousand_mutated_messages(seed):
    enough(many(10_000, 100 + seed), 10_000)
