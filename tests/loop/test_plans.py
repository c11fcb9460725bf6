"""How those who are alike work: chosen once, told to the ledger, read from it again."""

from dataclasses import dataclass, field

import numpy as np
import pytest

import comity as co
from comity.core.contribution import Contribution
from comity.core.round import Round, Turns
from comity.core.together import Plan, Stack, Together, Wish, Works
from comity.core.tree import Layout
from comity.engines.local import Local
from comity.ledger.record import Ledger
from comity.loop.plans import Plans, choice, chosen, label_of

LAYOUT = Layout.of({"w": np.zeros(3, "float32")})


@dataclass(frozen=True)
class Planner:
    """Notes how it was asked to work; measuring is counted."""

    seen: list = field(metadata={"data": True}, repr=False)
    rate: float = 1.0
    measured: bool = True

    @property
    def alike(self):
        return ("planner", self.rate)

    def contribute(self, shared, local, round, secret):
        return Contribution("delta", {"w": np.ones(3, "float32")}, 1.0), local

    def contribute_many(self, works, plan):
        self.seen.append(("work", len(works), plan.executor, plan.chunk))
        stack = Stack("delta", np.ones((len(works), 3), "float32"), LAYOUT, np.ones(len(works)))
        return Together(stack, list(works.local))

    def plan(self, works, wish):
        self.seen.append(("plan", len(works), wish.executor, wish.ahead))
        return Plan("batched", 7, 1, "it is faster", measured=self.measured)


class Model:
    statistics = ()

    def init(self, round):
        return {"w": np.zeros(3, "float32")}


def collaboration(seen, n=5, **settings):
    people = {f"p{i}": Planner(seen, **settings) for i in range(n)}
    return co.Collaboration(co.FedAvg(Model()), people, evaluate=False)


def plans(seen):
    return [s for s in seen if s[0] == "plan"]


def test_one_choice_and_one_line(capsys):
    seen = []
    run = collaboration(seen).run(rounds=3)
    assert seen == [("plan", 5, None, 15), *[("work", 5, "batched", 7)] * 3]
    facts = [e.facts for e in run.ledger if e.kind == "choice"]
    assert [(f["executor"], f["chunk"], f["threads"], f["reason"]) for f in facts] == [
        ("batched", 7, 1, "it is faster")
    ]
    assert capsys.readouterr().err.count("executor   batched: it is faster\n") == 1
    assert [e.kind for e in run.ledger] == ["start", "choice", "round", "round", "round"]


def test_a_run_that_goes_on_reads_its_choice(tmp_path, capsys):
    seen = []
    collaboration(seen).run(rounds=2, folder=tmp_path / "run")
    again = collaboration(seen).run(rounds=4, folder=tmp_path / "run")
    assert len(plans(seen)) == 1
    assert [s[2:] for s in seen if s[0] == "work"] == [("batched", 7)] * 4
    assert [e.kind for e in again.ledger].count("choice") == 1


def test_what_was_not_measured_may_be_measured_when_more_is_ahead(tmp_path):
    seen = []
    short = collaboration(seen, measured=False).run(rounds=2, folder=tmp_path / "run")
    assert [e.kind for e in short.ledger] == ["start", "round", "round"]
    collaboration(seen, measured=False).run(rounds=9, folder=tmp_path / "run")
    assert plans(seen) == [("plan", 5, None, 10), ("plan", 5, None, 35)]


@pytest.mark.parametrize("executor", ["sequential", "batched"])
def test_the_wish_is_passed_on(executor):
    seen = []
    run = collaboration(seen).run(rounds=1, engine=Local(executor))
    assert plans(seen) == [("plan", 5, executor, 5)]
    assert run.ledger[0].facts["choice"]["executor"] == executor


def test_two_sorts_are_two_choices():
    seen = []
    people = {f"p{i}": Planner(seen, rate=float(i > 2)) for i in range(6)}
    run = co.Collaboration(co.FedAvg(Model()), people, evaluate=False).run(rounds=2)
    assert len(plans(seen)) == 2
    assert len({e.facts["who"] for e in run.ledger if e.kind == "choice"}) == 2


def test_measuring_that_fails_is_the_plain_way():
    @dataclass(frozen=True)
    class Broken(Planner):
        def plan(self, works, wish):
            raise RuntimeError("no clock")

    seen = []
    people = {f"p{i}": Broken(seen) for i in range(3)}
    run = co.Collaboration(co.FedAvg(Model()), people, evaluate=False).run(rounds=2)
    assert seen == [("work", 3, "sequential", 0)] * 2
    assert [e.kind for e in run.ledger] == ["start", "round", "round"]


def works(seen):
    who = [Planner(seen), Planner(seen)]
    return Works(who, [Contribution("model", None)] * 2, [{}, {}], Turns(Round("r", 0), ["a", "b"]), [None, None])


def test_whoever_hands_out_the_work_decides():
    seen = []
    mine, theirs = Plans(), Plan("batched", 3)
    label = label_of(Planner(seen))
    assert mine.of(works(seen)) == Plan()
    assert mine.of(works(seen), {label: theirs}) == theirs
    assert mine.of(works(seen), {"other": theirs}) == Plan()
    assert seen == []


def test_the_label_is_that_of_the_settings_alone():
    assert label_of(Planner([1])) == label_of(Planner([2, 3]))
    assert label_of(Planner([])) != label_of(Planner([], rate=2.0))


def test_a_choice_comes_back_from_the_ledger():
    plan = Plan("batched", 16, None, "why", measured=True)
    ledger = Ledger()
    ledger.append("start", {"seed": 0}, time=0.0)
    ledger.append("choice", choice("ab", plan), time=0.0)
    assert chosen(ledger) == {"ab": plan}


def test_many_sorts_are_not_kept_for_ever():
    seen, mine = [], Plans()
    mine.wish = Wish()
    for i in range(200):
        who = [Planner(seen, rate=float(i), measured=False)] * 2
        mine.of(Works(who, [], [{}, {}], Turns(Round("r", 0), ["a", "b"]), []))
    assert len(mine._of) <= 64
