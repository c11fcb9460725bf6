"""The simulated clock: what an answer takes, when a round ends, and that nobody waits."""

import time
from dataclasses import replace

import numpy as np
import pytest

import comity as co
from comity.core.contribution import Contribution
from comity.core.envelope import Envelope
from comity.core.parts import Until
from comity.core.wire import size
from comity.engines.simulated import ends

MODEL = co.Linear(inputs=3, classes=2, rate=0.3, batch=4)
RNG = np.random.default_rng(0)
DATA = {n: (RNG.normal(size=(8, 3)).astype("float32"), RNG.integers(0, 2, 8)) for n in ("a", "b", "c")}
SLOW = co.Link(up=1e3, down=4e3, delay=0.5, loss=0.2)


def fed(**more):
    sites = {n: co.Trainer(MODEL, d) for n, d in DATA.items()}
    return co.Collaboration(co.FedAvg(MODEL), sites, **{"evaluate": False, "seed": 1, **more})


def seconds(run, kind="round"):
    return [e.facts.get("seconds") for e in run.ledger if e.kind == kind]


@pytest.mark.parametrize("engine", [co.Simulated(), co.Simulated(co.Local("sequential"), links=SLOW, compute=1.0)])
def test_the_laws_of_engines_hold(engine):
    co.testing.check_engine(engine)


def test_an_answer_takes_what_its_bytes_and_its_work_take():
    run = fed().run(rounds=1, engine=co.Simulated(links={"b": SLOW}, compute={"b": 2.0, "c": 0.5}))
    facts = next(e.facts for e in run.ledger if e.kind == "round")
    assert facts["seconds"] == pytest.approx(2.0 + SLOW.seconds(facts["up"][1], facts["down"][1]))
    assert facts["seconds"] == pytest.approx(2.5 + 8 * (facts["up"][1] / 800 + facts["down"][1] / 3200))


def test_scores_take_the_way_and_no_work():
    run = fed(evaluate=True).run(rounds=1, engine=co.Simulated(links=SLOW, compute=100.0))
    [facts] = [e.facts for e in run.ledger if e.kind == "score"]
    assert facts["seconds"] == pytest.approx(max(map(SLOW.seconds, facts["up"], facts["down"])))


def test_nobody_waits():
    start = time.monotonic()
    run = fed(deadline=3600.0).run(rounds=5, engine=co.Simulated(compute=3000.0))
    assert seconds(run) == [3000.0] * 5
    assert time.monotonic() - start < 30


def test_a_strict_deadline():
    run = fed(deadline=1.0).run(rounds=2, engine=co.Simulated(compute={"a": 1.0, "b": 0.5, "c": 1.0001}))
    rounds = [e.facts for e in run.ledger if e.kind == "round"]
    assert [f["accepted"].tolist() for f in rounds] == [[True, True, False]] * 2
    assert seconds(run) == [1.0, 1.0]


def test_the_work_may_be_drawn_from_public_randomness():
    def work(r):
        return float(r.mine("compute", str(r.attempt)).exponential(2.0))

    one, two = (fed(deadline=3.0, quorum=0.0).run(rounds=6, engine=co.Simulated(compute=work)) for _ in range(2))
    assert seconds(one) == seconds(two)
    assert len({*seconds(one)}) > 1
    facts = next(e.facts for e in one.ledger if e.kind == "round")
    turn = co.Round("", 1)
    drawn = [work(replace(turn, me=n)) <= 3.0 for n in DATA]
    assert facts["accepted"].tolist() == drawn


def test_a_local_run_has_no_clock():
    run = fed(evaluate=True).run(rounds=1)
    assert all("seconds" not in e.facts for e in run.ledger)


def test_the_choice_says_that_time_was_simulated():
    run = fed().run(rounds=0, engine=co.Simulated(co.Local("batched", chunk=2)))
    start = next(iter(run.ledger)).facts
    assert (start["choice"]["clock"], start["choice"]["executor"]) == ("simulated", "batched")


@pytest.mark.parametrize(
    ("asked", "owed", "until", "end"),
    [
        ([1.0, 4.0], [], Until(2), 4.0),
        ([1.0, 4.0], [], Until(2, 3.0), 3.0),
        ([1.0, 2.0], [], Until(1, 3.0), 2.0),
        ([], [], Until(1), 0.0),
        ([], [], Until(1, 3.0, owed={}), 0.0),
        ([1.0, 4.0], [], Until(1, 3.0, owed={}), 3.0),
        ([1.0, 2.0], [2.5], Until(1, 3.0, owed={}), 2.0),
        ([1.0, 2.0], [2.5], Until(3, 3.0, owed={}), 2.5),
        ([1.0, 2.0], [2.5], Until(4, 3.0, owed={}), 2.5),
        ([1.0, 2.0], [9.0], Until(3, 3.0, owed={}), 3.0),
        ([], [2.0, 9.0], Until(1, 3.0, owed={}), 2.0),
        ([3.0, 1.0], [2.0], Until(2, owed={}), 2.0),
        ([3.0, 1.0], [0.0], Until(1, owed={}), 0.0),
        ([3.0, 1.0], [], Until(5, owed={}), 3.0),
    ],
)
def test_when_a_question_ends(asked, owed, until, end):
    assert ends(asked, owed, until) == end


def test_what_cannot_be_laid_out_takes_no_time_on_the_way():
    odd = Envelope(co.Round("", 0, me="a"), "contribute", "a", "", Contribution("delta", {"w": object()}))
    with pytest.raises(co.ConfigError):
        size(odd)
    sites = {"a": Odd(), "b": co.Trainer(MODEL, DATA["b"])}
    made = co.Collaboration(co.FedAvg(MODEL), sites, evaluate=False)
    run = made.run(rounds=1, engine=co.Simulated(links=SLOW))
    assert [r.sender for r in run.ledger.refused or run.ledger.dropped] == ["a"]


class Odd:
    """Sends what has no bytes."""

    def contribute(self, shared, local, round, secret):
        return Contribution("delta", {"w": object()}), local
