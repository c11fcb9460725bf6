"""Quorum and attempts, empty cohorts, several hubs, turns, entries of members."""

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest

import comity as co
from comity.core.contribution import Contribution
from comity.core.errors import ConfigError, TooFewParticipants
from comity.core.spec import Spec, like
from comity.core.tree import tree_map
from comity.core.wire import encode
from comity.loop.select import Sample

MEAN = co.Mean(uniform=True)
W = {"w": np.zeros(2, "float32")}


@dataclass(frozen=True)
class Steady:
    value: float
    weight: float = 1.0
    kind: str = "delta"

    def contribute(self, shared, local, round, secret):
        if shared.kind == "score":
            return Contribution("score", None, metrics={"n": (self.value, 1.0)}), local
        w = np.full(2, self.value, "float32")
        return Contribution(self.kind, {"w": w}, self.weight, {"n": (1.0, 1.0)}), local


@dataclass(frozen=True)
class Only:
    """Answers only in some attempts of round 1."""

    attempts: tuple

    def contribute(self, shared, local, round, secret):
        if shared.kind != "score" and round.number == 1 and round.attempt not in self.attempts:
            raise RuntimeError("away")
        return Steady(1.0).contribute(shared, local, round, secret)


class Model:
    """Two numbers that start at a place of their own."""

    statistics = ()

    def init(self, round):
        rng = round.rng("init", round.hub)
        return {"w": rng.normal(size=2).astype("float32")}

    def fingerprint(self):
        return {}


@dataclass(frozen=True)
class Sum:
    """Adds the combined value to what it has, and keeps the round that it saw."""

    combiner: Any = MEAN

    def init(self, round):
        return {"w": W["w"], "answered": 0, "expected": 0.0}

    def share(self, state, to, round):
        return Contribution("model", {"w": state["w"]})

    def expect(self, state, to, round):
        return Spec(like(W), kind="delta")

    def update(self, state, combined, round):
        w = (state["w"] + combined.value["w"]).astype("float32")
        return {"w": w, "answered": round.answered, "expected": round.expected}


def test_a_round_is_tried_again_until_its_quorum():
    sites = {"a": Steady(1.0), "b": Only((2,)), "c": Only((1, 2))}
    run = co.Collaboration(Sum(), sites, quorum=1.0, evaluate=False).run(rounds=2)
    rounds = [(e.facts["round"], e.facts["attempt"], e.facts["closed"]) for e in run.ledger if e.kind == "round"]
    assert rounds == [(0, 0, True), (1, 0, False), (1, 1, False), (1, 2, True)]
    assert run.ledger.rounds == 2
    assert run.state["w"].tolist() == [2.0, 2.0]
    assert Counter(d.sender for d in run.ledger.dropped) == {"b": 2, "c": 1}


def test_a_quorum_of_half_closes_without_the_rest():
    run = co.Collaboration(Sum(), {"a": Steady(4.0), "b": Only(())}, evaluate=False).run(rounds=2)
    assert run.state["w"].tolist() == [6.5, 6.5]
    assert run.state["answered"] == 1


def test_too_few_stops_in_words_and_can_be_resumed(tmp_path):
    away = {"a": Steady(1.0), "b": Only(()), "c": Only(())}
    fed = co.Collaboration(Sum(), away, quorum=0.9, retries=1)
    with pytest.raises(TooFewParticipants) as e:
        fed.run(rounds=3, folder=tmp_path)
    said = str(e.value)
    for words in ("Round 2 needs 3", "1 of 3 contributions", "b: RuntimeError: away", "c: RuntimeError: away"):
        assert words in said
    assert "run the same again" in said
    with pytest.raises(TooFewParticipants):
        fed.run(rounds=3, folder=tmp_path)


def test_a_run_goes_on_after_too_few(tmp_path):
    here: set[str] = set()
    sites = {n: Present(n, here) for n in "abc"}
    fed = co.Collaboration(Sum(), sites, quorum=0.9, retries=1, evaluate=False)
    here |= {"a"}
    with pytest.raises(TooFewParticipants):
        fed.run(rounds=3, folder=tmp_path)
    here |= {"b", "c"}
    with pytest.raises(TooFewParticipants):
        fed.replace(participants=sites | {"c": Present("c", set())}).run(rounds=1, folder=tmp_path)
    run = fed.run(rounds=3, folder=tmp_path)
    assert run.ledger.rounds == 3
    assert len(run.ledger.dropped) == 2 * 2 + 2
    assert run.local("a")["n"] == 3
    run.ledger.verify()


@dataclass(frozen=True)
class Present:
    """Counts the contributions that counted."""

    me: str
    here: Any

    def contribute(self, shared, local, round, secret):
        if self.me not in self.here:
            raise RuntimeError("away")
        c, _ = Steady(1.0).contribute(shared, local, round, secret)
        return c, {"n": local.get("n", 0) + 1}


def test_nobody_answers_at_all():
    class Silent:
        choice: ClassVar = {}

        def connect(self, roster, answer):
            return self

        def roster(self):
            return ["a", "b"]

        def ask(self, cohort, message, until):
            for name in cohort:
                message(name)
            return iter(())

    fed = co.Collaboration(Sum(), {"a": Steady(1.0), "b": Steady(1.0)})
    with pytest.raises(TooFewParticipants, match="No answer from a, b"):
        fed.run(rounds=1, engine=Silent())


class Nobody:
    def __call__(self, roster, round, past, secret):
        return {"hub": roster[:2] if round.number % 2 else []}

    def expected(self, roster):
        return 4.0


@pytest.mark.parametrize("combine", [co.Mean(), co.Mean(uniform=True), co.Mean(public=True), co.Median()])
def test_an_empty_cohort_is_a_round(combine, tmp_path):
    fed = co.Collaboration(Sum(), {n: Steady(8.0) for n in "abc"}, select=Nobody(), combine=combine, evaluate=False)
    run = fed.run(rounds=1, folder=tmp_path)
    assert run.ledger.rounds == 1
    assert run.state["w"].tolist() == [0.0, 0.0]
    run = fed.run(rounds=5, folder=tmp_path)
    assert run.state["w"][0] == {True: 8.0, False: 16.0}[getattr(combine, "public", False)]
    assert (run.state["expected"], run.state["answered"]) == ((4.0, 0) if combine != co.Median() else (4.0, 2))


def test_public_divides_by_the_expectation_whoever_comes():
    sites = {f"{i:03}": Steady(1.0) for i in range(200)}
    fed = co.Collaboration(Sum(), sites, select=co.poisson(0.02), combine=co.Mean(public=True), evaluate=False)
    run = fed.run(rounds=30)
    asked = [len(e.facts["up"]) for e in run.ledger if e.kind == "round"]
    assert run.state["w"][0] == pytest.approx(sum(asked) / 4.0)
    assert len(set(asked)) > 3


@dataclass(frozen=True)
class Gossip:
    """Each peer hears itself and the next one."""

    peers: ClassVar[bool] = True

    def __call__(self, roster, round, past, secret):
        names = list(roster[:])
        return {n: [n, names[(i + 1) % len(names)]] for i, n in enumerate(names)}

    def expected(self, roster):
        return 2.0


@dataclass(frozen=True)
class Echo:
    """Sends the model that its own hub shared."""

    def contribute(self, shared, local, round, secret):
        if shared.kind == "score":
            return Contribution("score", None), local
        return Contribution("model", tree_map(np.array, shared.value)), {"n": local.get("n", 0) + 1}


def test_every_peer_is_its_own_hub():
    names = [f"p{i}" for i in range(5)]
    fed = co.Collaboration(
        co.FedAvg(Model(), send="model"), dict.fromkeys(names, Echo()), select=Gossip(), evaluate=False
    )
    start = np.array([t["w"] for t in fed.run(rounds=0).shared.values()])
    run = fed.run(rounds=80)
    once = np.array([fed.run(rounds=1).shared[n]["w"] for n in names])
    np.testing.assert_allclose(once, (start + np.roll(start, -1, axis=0)) / 2, rtol=1e-6)
    for n in names:
        np.testing.assert_allclose(run.shared[n]["w"], start.mean(axis=0), rtol=1e-4)
        assert run.local(n)["n"] == 80
    assert run.ledger.rounds == 80
    entries = [e for e in run.ledger if e.kind == "round"]
    assert len(entries) == 400
    assert sum(int((e.facts["up"] > 0).sum()) for e in entries) == 400


def test_a_peer_that_fails_is_dropped_at_each_hub_that_hears_it():
    class Fails(Echo):
        def contribute(self, shared, local, round, secret):
            raise RuntimeError("off")

    names = [f"p{i}" for i in range(4)]
    sites = dict.fromkeys(names, Echo()) | {"p1": Fails()}
    run = co.Collaboration(co.FedAvg(Model(), send="model"), sites, select=Gossip(), evaluate=False).run(rounds=1)
    hubs = {e.facts["hub"]: e.facts for e in run.ledger if e.kind == "round"}
    assert {h: len(f["dropped"]) for h, f in hubs.items()} == {"p0": 1, "p1": 1, "p2": 0, "p3": 0}


@dataclass(frozen=True)
class Turns:
    """One after the other."""

    def __call__(self, roster, round, past, secret):
        return {"hub": [roster[past.rounds % len(roster)]]}

    def expected(self, roster):
        return 1.0


def test_turns():
    class Append:
        def contribute(self, shared, local, round, secret):
            if shared.kind == "score":
                return Contribution("score", None), local
            return Contribution("text", {"said": shared.value["said"] + round.me}), local

    @dataclass(frozen=True)
    class Relay:
        combiner: ClassVar = co.Collect()

        def init(self, round):
            return {"said": ""}

        def share(self, state, to, round):
            return Contribution("text", state)

        def expect(self, state, to, round):
            return Spec({"said": co.Leaf()}, kind="text")

        def update(self, state, combined, round):
            return next(iter(combined.value.values()))

    fed = co.Collaboration(Relay(), dict.fromkeys("xyz", Append()), select=Turns(), quorum=1.0, evaluate=False)
    assert fed.run(rounds=5).shared == {"said": "xyzxy"}


class Roving:
    """A hub of another name in every round."""

    def __call__(self, roster, round, past, secret):
        return {f"hub{round.number}": list(roster[:])}

    def expected(self, roster):
        return float(roster)


def test_a_hub_that_appears_later_begins_at_the_beginning(tmp_path):
    fed = co.Collaboration(Sum(), {"a": Steady(3.0)}, select=Roving(), evaluate=False)
    fed.run(rounds=1, folder=tmp_path)
    run = fed.run(rounds=3, folder=tmp_path)
    assert {h: s["w"][0] for h, s in run.state.items()} == {"hub0": 3.0, "hub1": 3.0, "hub2": 3.0}


@dataclass(frozen=True)
class Delta:
    """Sends the difference to what it sent before; the hub adds it to the member's own entry."""

    decodes: ClassVar[str] = "each"
    contracts: ClassVar[bool] = False

    def init(self):
        return {"w": W["w"]}

    def encode(self, c, public, local, round, secret):
        before = local.get("w", W["w"])
        return replace(c, value={"w": c.value["w"] - before}), {"w": c.value["w"]}

    def decode(self, c, state, round, secret):
        w = state["w"] + c.value["w"]
        return replace(c, value={"w": w}), {"w": w}

    def pack(self, c, state, to, round):
        return replace(c, metrics={"rounds": (float(state["w"][0]), 1.0)})

    def unpack(self, c, local, round):
        assert c.metrics["rounds"][0] == local.get("w", W["w"])[0]
        return c, local


@pytest.mark.parametrize("combine", [co.Mean(), co.Median(), co.Collect()])
def test_each_member_has_its_own_entry(combine, tmp_path):
    sites = {n: Steady(v) for n, v in (("a", 1.0), ("b", 2.0), ("c", 6.0))}
    method = replace(Kept(), combiner=combine)
    fed = co.Collaboration(method, sites, transforms=[Delta()], select=Sample(count=2), evaluate=False)
    fed.run(rounds=4, folder=tmp_path)
    run = fed.run(rounds=9, folder=tmp_path)
    assert run.ledger.dropped == []
    values = {n: float(s.value) for n, s in sites.items()}
    for entry, got in zip([e for e in run.ledger if e.kind == "round"][-1:], [run.state["last"]], strict=True):
        asked = entry.facts["asked"].split("\n")
        want = {n: values[n] for n in asked}
        if combine == co.Collect():
            assert {n: t["w"][0] for n, t in got.items()} == want
        else:
            assert got["w"][0] == pytest.approx(np.mean(list(want.values())))


@dataclass(frozen=True)
class Kept:
    combiner: Any = MEAN

    def init(self, round):
        return {"last": {}}

    def share(self, state, to, round):
        return Contribution("model", None)

    def expect(self, state, to, round):
        return Spec(like(W))

    def update(self, state, combined, round):
        return {"last": combined.value}


def test_a_transform_that_cannot_decode_refuses_its_sender():
    class Fails(Delta):
        def decode(self, c, state, round, secret):
            if c.sender == "b":
                raise KeyError("mask")
            return super().decode(c, state, round, secret)

    sites = {n: Steady(1.0) for n in "abc"}
    run = co.Collaboration(Kept(), sites, transforms=[Fails()], evaluate=False).run(rounds=1)
    assert [str(r) for r in run.ledger.refused] == ["round 0: b: Fails cannot decode it (KeyError: 'mask')."]


def test_a_selection_of_strangers_is_an_error():
    class Wrong(Turns):
        def __call__(self, roster, round, past, secret):
            return {"hub": ["a", "zed"]}

    with pytest.raises(ConfigError, match="asked 'zed', who is not a participant"):
        co.Collaboration(Sum(), {"a": Steady(1.0)}, select=Wrong()).run(rounds=1)


def test_scores_are_sums_over_those_who_were_asked():
    sites = {"a": Steady(1.0), "b": Steady(5.0)}
    fed = co.Collaboration(Sum(), sites, evaluate=co.every(2))
    run = fed.run(rounds=5)
    assert run.metrics == {"n": 3.0}
    assert [e.facts["round"] for e in run.ledger if e.kind == "score"] == [2, 4, 5]
    assert fed.replace(evaluate=False).run(rounds=2).metrics == {}
    assert [e.kind for e in fed.replace(evaluate=True).run(rounds=2).ledger] == ["start", "round", "round", "score"]


def test_a_run_that_is_stopped_early_is_scored_too():
    stop = lambda past, ahead: past.rounds >= 2  # noqa: E731
    run = co.Collaboration(Sum(), {"a": Steady(1.0)}, stop=stop).run(rounds=9)
    assert run.ledger.rounds == 2
    assert run.metrics == {"n": 1.0}


@dataclass(frozen=True)
class Alike(Sum):
    """Tells everybody the very same object."""

    def share(self, state, to, round):
        return Contribution("model", state)


@dataclass(frozen=True)
class Apart(Sum):
    """Tells everybody something of another length."""

    def share(self, state, to, round):
        return Contribution("model", {"for": to[0] * ord(to[0]), "w": state["w"]})


@pytest.mark.parametrize("method", [Alike(), Apart()])
def test_bytes_down_are_those_of_each_envelope(method):
    """Whether everybody is told the same, under names of several lengths, or not."""
    seen = {}

    class Spy:
        choice: ClassVar = {}

        def connect(self, roster, answer):
            self.names, self.answer = roster, answer
            return self

        def roster(self):
            return self.names

        def ask(self, cohort, message, until):
            for name in cohort:
                out = message(name)
                reply = self.answer(out)
                seen[name] = seen.get(name, 0) + len(encode(out))
                yield reply

    names = ["a", "b", "bb", "é", "x" * 40, "y" * 300]
    run = co.Collaboration(method, {n: Steady(1.0) for n in names}, evaluate=True).run(rounds=3, engine=Spy())
    assert {n: run.ledger.bytes_of(n)[1] for n in names} == seen
    assert run.ledger.bytes_down == sum(seen.values())
