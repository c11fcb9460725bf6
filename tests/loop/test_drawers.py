"""A site's drawer commits in two steps, and what a lost reply held back is never lost with it."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest

import comity as co
from comity.core.contribution import Contribution
from comity.core.envelope import Envelope, Receipt
from comity.core.round import Round
from comity.core.rules import Parts
from comity.core.spec import Spec, like
from comity.core.wire import as_tree, decode, decode_tree, encode, encode_tree, from_tree
from comity.loop.select import Everyone
from comity.loop.site import EMPTY, Drawer, Site, drawer_tree, tree_drawer
from comity.loop.sites import Sites

SECRET = co.testing.fixed_secret()


@dataclass(frozen=True)
class Counter:
    """Counts in its drawer how often it was accepted."""

    needs: ClassVar[str] = "local"

    def contribute(self, shared, local, round, secret):
        n = int(local.get("n", 0)) + 1
        if shared.kind == "score":
            return Contribution("score", None, metrics={"n": (float(n), 1.0)}), {"n": 100}
        return Contribution("delta", {"w": np.array([float(n)])}), {"n": n}


def site(participant=None, *transforms):
    parts = Parts(None, co.Mean(), transforms, co.Plain(), Everyone())
    return Site("a", participant or Counter(), parts, SECRET)


def question(number=0, attempt=0, receipt=None, *, said=0.0, phase="contribute"):
    shared = Contribution("model", {"w": np.array([said])})
    body = Contribution("question", {"shared": as_tree(shared), "public": {}, "views": {"hub": None}})
    if phase == "score":
        body = replace(shared, kind="score")
    return Envelope(Round("r", 0, number=number, attempt=attempt, me="a"), phase, "hub", "recipe", body, receipt)


def said(answer):
    return float(from_tree(answer.body.value["hub"]).value["w"][0])


def test_accepted_is_committed_and_refused_or_lost_is_dropped():
    s = site()
    first, drawer = s.answer(question(0), EMPTY)
    assert said(first) == 1
    assert drawer.local == {}
    second, after = s.answer(question(1, receipt=Receipt(0, 0, True)), drawer)
    assert said(second) == 2
    assert after.local["participant"]["n"] == 1
    for receipt in (Receipt(0, 0, False), None, Receipt(5, 0, True)):
        again, after = s.answer(question(1, receipt=receipt), drawer)
        assert said(again) == 1
        assert after.local == {}


def test_the_same_question_gets_the_same_bytes_and_another_is_refused():
    s = site()
    first, drawer = s.answer(question(), EMPTY)
    again, after = s.answer(question(), drawer)
    assert encode(first) == encode(again)
    assert after is drawer
    other, after = s.answer(question(said=1.0), drawer)
    assert other.body.kind == "error"
    assert "asked something else for the same round and attempt" in other.body.value["reason"]
    assert after is drawer


def test_a_drawer_on_disk_repeats_the_same_bytes_too():
    s = site()
    first, drawer = s.answer(question(), EMPTY)
    stored = tree_drawer(decode_tree(encode_tree(drawer_tree(drawer))))
    again, after = s.answer(question(), stored)
    assert encode(first) == encode(again)
    assert s.answer(question(said=1.0), stored)[0].body.kind == "error"
    later, _ = s.answer(question(1, receipt=Receipt(0, 0, True)), after)
    assert said(later) == 2
    empty = tree_drawer(decode_tree(encode_tree(drawer_tree(EMPTY))))
    assert empty == EMPTY


def test_a_higher_attempt_drops_what_is_pending():
    s = site()
    _, drawer = s.answer(question(0, 0), EMPTY)
    second, drawer = s.answer(question(0, 1), drawer)
    assert said(second) == 1
    assert drawer.pending.key[2] == 1
    third, _ = s.answer(question(1, 0, Receipt(0, 0, True)), drawer)
    assert said(third) == 1


def test_a_score_settles_but_never_writes():
    s = site()
    _, drawer = s.answer(question(), EMPTY)
    score, after = s.answer(question(1, receipt=Receipt(0, 0, True), phase="score"), drawer)
    assert score.body.metrics == {"n": (2.0, 1.0)}
    assert after == Drawer({"participant": {"n": 1}})
    assert s.answer(question(1, phase="score"), after)[1] is after


def test_an_error_leaves_the_drawer_as_it_was():
    class Fails(Counter):
        def contribute(self, shared, local, round, secret):
            if round.number:
                raise RuntimeError("no power")
            return Counter.contribute(self, shared, local, round, secret)

    s = site(Fails())
    _, drawer = s.answer(question(), EMPTY)
    answer, after = s.answer(question(1, receipt=Receipt(0, 0, True)), drawer)
    assert answer.body.value["reason"] == "RuntimeError: no power"
    assert after == Drawer({"participant": {"n": 1}})


@pytest.mark.parametrize("text", ["\ud800 half", "x" * 10**6])
def test_any_words_of_an_error_can_travel(text):
    class Fails:
        def contribute(self, shared, local, round, secret):
            raise ValueError(text)

    answer, _ = site(Fails()).answer(question(), EMPTY)
    assert decode(encode(answer)).body.kind == "error"
    assert len(encode(answer)) < 5000


def test_an_error_without_words():
    class Mute(Exception):
        def __str__(self):
            raise RuntimeError

    class Fails:
        def contribute(self, shared, local, round, secret):
            raise Mute

    assert site(Fails()).answer(question(), EMPTY)[0].body.value["reason"].startswith("Mute: ")


class Memory:
    """A channel of two phases that remembers the first in the second."""

    reveals = "each"

    def answer(self, message, memory, round, secret):
        return Contribution("key", None), {"key": float(round.number) + 7}

    def seal(self, c, view, memory, round, secret):
        return replace(c, value={"w": np.array([memory["key"]])}), memory


def test_a_later_phase_of_the_same_attempt_sees_what_the_earlier_wrote():
    s = Site("a", Counter(), Parts(None, co.Mean(), (), Memory(), Everyone()), SECRET)
    _, drawer = s.answer(replace(question(3), phase="keys"), EMPTY)
    sealed, drawer = s.answer(question(3), drawer)
    assert said(sealed) == 10
    assert drawer.local == {}
    _, drawer = s.answer(question(4, receipt=Receipt(3, 0, True), phase="score"), drawer)
    assert drawer.local == {"channel": {"key": 10.0}, "participant": {"n": 1}}


@dataclass(frozen=True)
class Feedback:
    """Sends the largest coordinate only, and adds what it held back next time (error feedback)."""

    decodes: ClassVar[str] = "each"
    contracts: ClassVar[bool] = False

    def init(self):
        return {"seen": 0}

    def encode(self, c, public, local, round, secret):
        x = c.value["w"] + local.get("held", 0.0)
        top = np.argmax(np.abs(x))
        sent = np.zeros_like(x)
        sent[top] = x[top]
        return replace(c, value={"w": sent}), {"held": x - sent}

    def decode(self, c, state, round, secret):
        return c, {"seen": state["seen"] + 1}


@dataclass(frozen=True)
class Losing:
    """An engine that loses every fifth reply, on the way up."""

    choice: ClassVar = {}
    every: int = 5

    def connect(self, roster, answer):
        return _Lost(roster, answer, self.every)


class _Lost:
    def __init__(self, roster, answer, every):
        self.names, self.answer, self.every, self.n = roster, answer, every, 0

    def roster(self):
        return self.names

    def ask(self, cohort, message, until):
        for name in cohort:
            self.n += 1
            reply = self.answer(message(name))
            if self.n % self.every:
                yield reply


@dataclass(frozen=True)
class Steady:
    value: tuple

    def contribute(self, shared, local, round, secret):
        return Contribution("delta", {"w": np.array(self.value)}), local


@dataclass(frozen=True)
class Total:
    """Adds up all that arrives."""

    combiner: ClassVar = co.Mean(uniform=True)

    def init(self, round):
        return {"w": np.zeros(3), "n": 0.0}

    def share(self, state, to, round):
        return Contribution("model", None)

    def expect(self, state, to, round):
        return Spec(like({"w": np.zeros(3)}))

    def update(self, state, combined, round):
        return {"w": state["w"] + combined.value["w"] * combined.weight, "n": state["n"] + combined.weight}


def test_nothing_of_the_residual_is_lost_with_a_reply():
    """What arrived and what is held back must be all that was contributed in rounds that counted."""
    values = {"a": (1.0, 0.5, 0.25), "b": (3.0, -2.0, 1.0), "c": (0.1, 0.2, 0.4)}
    sites = {n: Steady(v) for n, v in values.items()}
    fed = co.Collaboration(Total(), sites, transforms=[Feedback()], evaluate=False)
    run = fed.run(rounds=23, engine=Losing())
    arrived, held = run.state["w"], np.zeros(3)
    counted = dict.fromkeys(values, 0)
    for entry in run.ledger:
        if entry.kind == "round":
            for who, ok in zip(entry.facts["asked"].split("\n"), entry.facts["accepted"], strict=True):
                counted[who] += int(ok)
    assert 0 < 23 * 3 - sum(counted.values()) < 20
    for name in values:
        drawer = run._sites.drawer(name)
        local = drawer.local
        if drawer.pending and counted_last(run, name):
            local = drawer.pending.local
        held = held + local["transforms.0"]["held"]
    want = sum(np.array(values[n]) * counted[n] for n in values)
    np.testing.assert_allclose(arrived + held, want, rtol=1e-12)
    entries = next(iter(run._states.values())).transforms[0]
    assert {n: e["seen"] for n, e in entries.items()} == counted


def counted_last(run, name):
    last = [e for e in run.ledger if e.kind == "round"][-1].facts
    return bool(last["accepted"][last["asked"].split("\n").index(name)])


def test_local_is_what_counts_after_the_last_answer():
    class Refused(Counter):
        def contribute(self, shared, local, round, secret):
            c, local = Counter.contribute(self, shared, local, round, secret)
            return (replace(c, weight=-1.0) if round.number == 2 else c), local

    fed = co.Collaboration(Total1(), {"a": Refused(), "b": Counter()}, evaluate=False)
    run = fed.run(rounds=3)
    assert run.local("a") == {"n": 2}
    assert run.local("b") == {"n": 3}
    with pytest.raises(co.ConfigError, match="There is no participant 'z'"):
        run.local("z")


@dataclass(frozen=True)
class Total1(Total):
    def init(self, round):
        return {"w": np.zeros(1), "n": 0.0}

    def expect(self, state, to, round):
        return Spec(like({"w": np.zeros(1)}))


def test_a_drawer_shared_by_name():
    @dataclass(frozen=True)
    class Ticket(Counter):
        drawer: ClassVar[str] = "ticket"

    run = co.Collaboration(Total1(), {"a": Ticket()}, evaluate=False).run(rounds=2)
    assert run.local("a") == {"n": 2}
    assert set(run._sites.drawer("a").pending.local) == {"ticket"}


def test_what_has_no_drawer_keeps_none():
    sites = Sites({"a": Steady((1.0, 2.0, 3.0))}.__getitem__, site().parts, lambda n: SECRET, lambda n: None)
    sites.answer(question())
    assert sites.touched() == {}


def test_a_reused_buffer_does_not_change_what_is_sent_again():
    buffer = np.zeros(2)

    class Reuses:
        def contribute(self, shared, local, round, secret):
            buffer[...] += 1
            return Contribution("delta", {"w": buffer}), {"was": buffer}

    s = site(Reuses())
    first, drawer = s.answer(question(), EMPTY)
    sent = encode(first)
    buffer[...] = 77
    assert encode(s.answer(question(), drawer)[0]) == sent
