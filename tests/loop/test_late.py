"""Answers that come after their round: what they are worth, that each counts once, and that nothing else changed."""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import pytest

import comity as co
from comity.core.contribution import Contribution
from comity.core.envelope import Owed
from comity.loop.hub import Heard
from comity.loop.late import Owing, aged

MODEL = co.Linear(inputs=1, classes=2)
RNG = np.random.default_rng(0)
DATA = {n: (RNG.normal(size=(12, 3)).astype("float32"), RNG.integers(0, 2, 12)) for n in ("a", "b", "c", "d")}
LINEAR = co.Linear(3, 2, rate=0.3, batch=4)
LATE: dict[str, Any] = {"late": "next", "evaluate": False}


@dataclass(frozen=True)
class Says:
    """Sends a delta of one number everywhere, and counts in its drawer how often it was heard."""

    number: float
    weight: float = 1.0

    def contribute(self, shared, local, round, secret):
        value = {k: np.full_like(v, self.number) for k, v in shared.value.items()}
        return Contribution("delta", value, self.weight), {"heard": local.get("heard", 0) + 1}


def moved(run, start=0.0):
    """How far the first bias has moved."""
    return float(run.shared["0.bias"][0]) - start


def rounds_of(run):
    return [e.facts for e in run.ledger if e.kind == "round"]


def clocked(**seconds):
    return co.Simulated(compute=seconds)


def heard(run):
    """Who was accepted in each closed round."""
    return [
        [who for who, ok in zip(f["asked"].split("\n"), f["accepted"], strict=True) if ok]
        for f in rounds_of(run)
        if f["closed"]
    ]


class TestByHand:
    def test_a_late_delta_is_scaled_and_its_weight_is_not(self):
        """c takes 2.5 s, rounds 1 s: asked in round 0, it is heard in round 2, by two rounds late."""
        people = {"a": Says(1.0, 2.0), "b": Says(4.0, 1.0), "c": Says(10.0, 3.0)}
        fed = co.Collaboration(co.FedAvg(MODEL), people, deadline=1.0, **LATE)
        run = fed.run(rounds=3, engine=clocked(a=1.0, b=1.0, c=2.5))
        first = (2 * 1 + 1 * 4) / 3
        third = (2 * 1 + 1 * 4 + 3 * 10 / np.sqrt(3)) / 6
        assert heard(run) == [["a", "b"], ["a", "b"], ["a", "b", "c"]]
        assert moved(run) == pytest.approx(2 * first + third, rel=1e-6)

    @pytest.mark.parametrize(("exponent", "scale"), [(0.0, 1.0), (0.5, 1 / np.sqrt(2)), (1.0, 0.5), (3.0, 0.125)])
    def test_one_round_late(self, exponent, scale):
        people = {"a": Says(1.0), "b": Says(8.0)}
        fed = co.Collaboration(co.FedAvg(MODEL), people, deadline=1.0, staleness=exponent, **LATE)
        run = fed.run(rounds=2, engine=clocked(a=1.0, b=1.5))
        assert moved(run) == pytest.approx(1.0 + (1.0 + 8.0 * scale) / 2, rel=1e-6)

    def test_a_round_in_which_all_are_late_takes_a_smaller_step(self):
        """Round 0 is a's, round 1 b's alone, which was made from the model before: it is not divided out again."""
        people = {"a": Says(1.0), "b": Says(8.0)}
        fed = co.Collaboration(co.FedAvg(MODEL), people, select=Turnwise(), staleness=1.0, quorum=0.5, **LATE)
        run = fed.run(rounds=2, engine=clocked(a=1.0, b=4.0))
        assert heard(run) == [["a"], ["b"]]
        assert moved(run) == pytest.approx(1.0 + 8.0 / 2, rel=1e-6)
        assert [f["seconds"] for f in rounds_of(run)] == [1.0, 3.0]

    def test_in_a_later_attempt_at_the_same_round_it_is_not_late(self):
        people = {"a": Says(1.0), "b": Says(8.0)}
        fed = co.Collaboration(co.FedAvg(MODEL), people, deadline=1.0, quorum=1.0, staleness=9.0, **LATE)
        run = fed.run(rounds=1, engine=clocked(a=1.0, b=1.5))
        assert [(f["closed"], f["attempt"]) for f in rounds_of(run)] == [(False, 0), (True, 1)]
        assert moved(run) == pytest.approx((1.0 + 8.0) / 2, rel=1e-6)

    def test_the_buffer_of_fedbuff_closes_with_the_kth_answer(self):
        """K = 2 of 4: nobody waits for the others, who come in the rounds after."""
        people = {n: Says(1.0) for n in "abcd"}
        run = co.Collaboration(co.FedAvg(MODEL), people, **LATE).run(rounds=4, engine=clocked(a=1, b=2, c=3.5, d=5))
        assert heard(run) == [["a", "b"], ["a", "c"], ["a", "b"], ["a", "d"]]
        assert [f["seconds"] for f in rounds_of(run)] == [2.0, 1.5, 1.0, 1.0]

    def test_robust_rules_see_the_scaled_delta(self):
        people = {"a": Says(1.0), "b": Says(2.0), "c": Says(4.0)}
        fed = co.Collaboration(co.FedAvg(MODEL), people, combine=co.Median(), deadline=1.0, staleness=1.0, **LATE)
        run = fed.run(rounds=2, engine=clocked(a=0.5, b=1.0, c=1.7))
        assert moved(run) == pytest.approx(1.5 + 2.0, rel=1e-6)

    def test_the_scale_keeps_types_and_metrics(self):
        c = aged(Contribution("delta", {"w": np.float32([4.0])}, 3.0, {"loss": (2.0, 1.0)}), 3, 0.5)
        assert (c.value["w"].dtype, float(c.value["w"][0]), c.weight, c.metrics) == (
            np.float32,
            2.0,
            3.0,
            {"loss": (2.0, 1.0)},
        )


@dataclass(frozen=True)
class Turnwise:
    """Everybody in the first round, nobody after it who does not owe an answer."""

    def __call__(self, roster, round, past, secret):
        return {"hub": ["a", "b"] if round.number == 0 else ["b"]}

    def expected(self, roster):
        return 2.0


class TestNothingElseChanged:
    def sites(self):
        return {n: co.Trainer(LINEAR, d) for n, d in DATA.items()}

    def fed(self, **more):
        return co.Collaboration(co.FedAvg(LINEAR, co.Adam(0.1)), self.sites(), select=co.sample(0.75), seed=3, **more)

    @pytest.mark.parametrize("engine", [None, co.Simulated(), co.Simulated(compute=5.0, links=co.Link.of("dsl"))])
    @pytest.mark.parametrize("late", [{}, {"late": "drop", "staleness": 2.0}, {"late": "next", "quorum": 1.0}])
    def test_where_nobody_is_late_all_come_to_the_same_bits(self, engine, late):
        plain = self.fed().run(rounds=5)
        run = self.fed(**late).run(rounds=5, engine=engine)
        for name, value in plain.shared.items():
            assert np.array_equal(value, run.shared[name])
        assert run.metrics == plain.metrics
        assert heard(run) == heard(plain)
        assert all("late" not in f for f in rounds_of(run))

    def test_an_engine_that_keeps_no_question_open_has_nobody_late(self):
        run = self.fed(late="next").run(rounds=3)
        assert [len(who) for who in heard(run)] == [3, 3, 3]

    def test_the_recipe_of_a_run_without_late_answers_is_what_it_was(self):
        parts = co.recipe(self.fed(staleness=0.7))["parts"]
        assert not {"late", "staleness", "oldest"} & set(parts)
        assert co.recipe(self.fed())["hash"] == co.recipe(self.fed(oldest=3))["hash"]
        later = co.recipe(self.fed(late="next"))
        assert (later["parts"]["late"], later["parts"]["staleness"], later["parts"]["oldest"]) == ("next", 0.5, 10)

    def test_dropped_is_dropped(self):
        people = {"a": Says(1.0), "b": Says(8.0)}
        fed = co.Collaboration(co.FedAvg(MODEL), people, deadline=1.0, evaluate=False)
        run = fed.run(rounds=3, engine=clocked(a=1.0, b=1.5))
        assert heard(run) == [["a"]] * 3
        assert moved(run) == pytest.approx(3.0)
        assert run.local("b") == {}


class TestOnce:
    def test_who_works_is_asked_nothing_else_and_counts_once(self):
        people = {n: Says(1.0) for n in "abcd"}
        fed = co.Collaboration(co.FedAvg(MODEL), people, deadline=1.0, **LATE)
        run = fed.run(rounds=20, engine=clocked(a=0.5, b=0.9, c=2.5, d=3.2))
        counts = {n: sum(n in who for who in heard(run)) for n in people}
        assert counts["a"] == counts["b"] == 20
        assert 4 <= counts["d"] <= counts["c"] <= 8
        assert {n: run.local(n)["heard"] for n in people} == counts
        busy = [set(f["asked"].split("\n")[-len(f["late"]["round"]) :]) for f in rounds_of(run) if "late" in f]
        assert len(busy) > 10
        assert {"c", "d"} >= set.union(*busy)
        downs = [dict(zip(f["asked"].split("\n"), f["down"].tolist(), strict=True)) for f in rounds_of(run)]
        asked = sum(d["c"] > 0 for d in downs)
        assert asked - counts["c"] in (0, 1)

    def test_the_ledger_says_who_was_late_by_how_much(self):
        people = {"a": Says(1.0), "c": Says(1.0)}
        fed = co.Collaboration(co.FedAvg(MODEL), people, deadline=1.0, **LATE)
        run = fed.run(rounds=3, engine=clocked(a=1.0, c=2.5))
        facts = rounds_of(run)[2]
        assert (facts["asked"], facts["accepted"].tolist()) == ("a\nc", [True, True])
        assert (facts["round"], facts["late"]["round"].tolist(), facts["late"]["attempt"].tolist()) == (2, [0], [0])
        assert run.ledger.bytes_of("c")[0] == run.ledger.bytes_of("a")[0] / 3

    def test_who_is_too_late_is_asked_anew(self):
        people = {"a": Says(1.0), "c": Says(1.0)}
        fed = co.Collaboration(co.FedAvg(MODEL), people, deadline=1.0, oldest=2, **LATE)
        run = fed.run(rounds=7, engine=clocked(a=1.0, c=9.0))
        assert heard(run) == [["a"]] * 7
        asked = [f["down"].tolist()[f["asked"].split("\n").index("c")] > 0 for f in rounds_of(run)]
        assert asked == [True, False, False, True, False, False, True]
        assert run.local("c") == {}

    def test_whoever_owes_is_not_scored(self):
        sites = {n: co.Trainer(LINEAR, d) for n, d in DATA.items()}
        fed = co.Collaboration(co.FedAvg(LINEAR), sites, deadline=1.0, late="next", evaluate=co.every(1))
        run = fed.run(rounds=3, engine=clocked(a=1.0, b=0.2, c=2.5, d=0.1))
        scored = [e.facts["asked"].split("\n") for e in run.ledger if e.kind == "score"]
        assert scored == [["a", "b", "d"], ["a", "b", "d"], ["a", "b", "c", "d"]]

    def test_an_error_that_comes_late_is_a_reason_and_not_a_debt(self):
        people = {"a": Says(1.0), "c": Fails()}
        fed = co.Collaboration(co.FedAvg(MODEL), people, deadline=1.0, **LATE)
        run = fed.run(rounds=4, engine=clocked(a=1.0, c=1.5))
        assert [(r.round, r.sender) for r in run.ledger.dropped] == [(1, "c"), (3, "c")]
        assert "burnt" in run.ledger.dropped[0].reason

    def test_a_lie_that_comes_late_is_refused_once(self):
        people = {"a": Says(1.0), "c": Says(np.inf)}
        fed = co.Collaboration(co.FedAvg(MODEL), people, deadline=1.0, **LATE)
        run = fed.run(rounds=3, engine=clocked(a=1.0, c=1.5))
        assert [(r.round, r.sender) for r in run.ledger.refused] == [(1, "c")]
        assert np.isfinite(moved(run))

    def test_where_all_owe_and_nobody_comes_the_round_says_so(self):
        people = {"a": Says(1.0), "c": Says(1.0)}
        fed = co.Collaboration(co.FedAvg(MODEL), people, deadline=1.0, retries=2, **LATE)
        with pytest.raises(co.TooFewParticipants, match="No answer from a, c"):
            fed.run(rounds=1, engine=clocked(a=9.0, c=9.0))

    def test_several_processes_come_to_the_same_bits(self):
        sites = {n: co.Trainer(LINEAR, d) for n, d in DATA.items()}
        fed = co.Collaboration(co.FedAvg(LINEAR), sites, deadline=1.0, late="next")
        work = {"a": 0.1, "b": 1.2, "c": 2.5}
        one = fed.run(rounds=4, engine=co.Simulated(compute=work))
        two = fed.run(rounds=4, engine=co.Simulated(co.Local(workers=2), compute=work))
        assert heard(one) == heard(two)
        assert any("late" in f for f in rounds_of(one))
        for name, value in one.shared.items():
            assert np.array_equal(value, two.shared[name])

    def test_what_is_recalled_at_once_is_in_the_order_of_asking(self):
        """A run that goes on reads all entries before it asks what is due; one left alone asks after each."""
        parts = co.Collaboration(co.FedAvg(MODEL), {}, late="next", oldest=1).parts
        orders = []
        for asks in (True, False):
            owing = Owing(parts, co.Round("r", 0), "", patient=True)
            for number, asked in enumerate((["z"], ["a"], ["z"])):
                owing.note(co.Round("r", 0, number), Heard("hub", asked, turn=(number, 0), owed={}), True)
                if asks:
                    owing.due(number + 1)
            orders.append(list(owing.due(3) or {}))
        assert orders[0] == orders[1] == ["z"]
        owing = Owing(parts, co.Round("r", 0), "", patient=True)
        for number, asked in enumerate((["z", "a"], ["z"])):
            owing.note(co.Round("r", 0, number), Heard("hub", asked, turn=(number, 0), owed={}), True)
        assert list(owing.due(2) or {}) == ["z"]


@dataclass(frozen=True)
class Fails:
    """Its house burns."""

    def contribute(self, shared, local, round, secret):
        raise RuntimeError("burnt")


@dataclass(frozen=True)
class Veiled:
    """Adds randomness of the round at the site and takes it off at the hub: it must be that of the same round."""

    decodes: ClassVar[str] = "each"
    contracts: ClassVar[bool] = False
    seen: list[int] = field(default_factory=list)

    def init(self):
        return {}

    def encode(self, c, public, local, round, secret):
        value = {k: v + self.veil(round, v) for k, v in c.value.items()}
        return replace(c, value=value), local

    def decode(self, c, state, round, secret):
        self.seen.append(round.asked)
        return replace(c, value={k: (v - self.veil(round, v)).astype(v.dtype) for k, v in c.value.items()}), state

    def veil(self, round, v):
        return round.rng("veil").integers(1, 9, v.shape).astype(v.dtype)


class TestDecoding:
    def test_it_is_undone_as_of_the_round_in_which_it_was_made(self):
        people = {"a": Says(1.0), "b": Says(8.0), "c": Says(2.0)}
        fed = co.Collaboration(co.FedAvg(MODEL), people, deadline=1.0, quorum=0.3, **LATE)
        engine = clocked(a=1.0, b=1.5, c=2.5)
        veil = Veiled()
        plain, veiled = fed.run(3, engine=engine), fed.replace(transforms=[veil]).run(3, engine=engine)
        assert moved(veiled) == pytest.approx(moved(plain), rel=1e-6)
        assert veil.seen == [3, 1, 3, 2, 3]

    @pytest.mark.parametrize(
        "transform", [co.TopK(0.5, feedback=True), co.QSGD(4), co.Half()], ids=lambda t: type(t).__name__
    )
    def test_transforms_one_by_one(self, transform, tmp_path):
        sites = {n: co.Trainer(LINEAR, d) for n, d in DATA.items()}
        more = {"transforms": [transform], "deadline": 1.0, "seed": 5}
        fed = co.Collaboration(co.FedAvg(LINEAR), sites, **more, **LATE)
        engine = clocked(a=1.0, b=1.2, c=2.5)
        run = fed.run(rounds=8, engine=engine)
        assert not run.ledger.refused
        assert sum("c" in who for who in heard(run)) == 2
        for rounds in (3, 8):
            again = fed.run(rounds=rounds, engine=engine, folder=tmp_path / "run")
        for name, value in run.shared.items():
            assert np.array_equal(value, again.shared[name])


class TestRefused:
    @pytest.mark.parametrize(
        ("parts", "says"),
        [
            (
                {"channel": co.SecAgg(), "transforms": [co.FixedPoint(bound=1.0)], "combine": co.Mean(uniform=True)},
                "SecAgg seals for one cohort",
            ),
            ({"transforms": [co.Gaussian(1.0, 1.0)], "combine": co.Mean(public=True)}, "Gaussian acts on the sum"),
            ({"transforms": [co.Laplace(1.0, 1.0)], "combine": co.Mean(uniform=True)}, "Laplace acts on the sum"),
            ({"method": co.FedAvg(LINEAR, send="model")}, "FedAvg takes no change"),
            ({"method": co.FedAvg(LINEAR, send="model"), "select": co.ring()}, "nobody may be late"),
            ({"method": co.Scaffold(LINEAR)}, "Scaffold takes no change"),
            ({"method": co.Query({"x": 1.0}), "combine": co.Vote()}, "Query takes no change"),
        ],
        ids=lambda x: x if isinstance(x, str) else "",
    )
    def test_what_cannot_be_late(self, parts, says):
        with pytest.raises(co.ConfigError, match=says) as error:
            co.Collaboration(**{"method": co.FedAvg(LINEAR), **parts}, late="next")
        assert 'late="drop"' in str(error.value)

    @pytest.mark.parametrize(
        "method",
        [co.FedAvg(LINEAR), co.FedSGD(LINEAR), co.IFCA(LINEAR), co.FedRep(LINEAR, head=("0.bias",))],
        ids=lambda m: type(m).__name__,
    )
    def test_what_can_be(self, method):
        assert co.Collaboration(method, late="next").parts.late == 10


def test_an_engine_may_bring_a_late_answer_again():
    """What is owed is admitted for its own turn only, and no more once it was taken."""
    turn = co.Round("r", 0, 1, hub="hub")
    owing = Owing(co.Collaboration(co.FedAvg(MODEL), {}, late="next").parts, turn, "", patient=True)
    first = Heard("hub", ["a", "b"], turn=(1, 0), owed={})
    first.accepted = {"a"}
    owing.note(turn, first, True)
    assert owing.due(2) == {"b": Owed(replace(turn, asked=2, me="b"), "")}
    second = Heard("hub", ["a", "b"], turn=(2, 0), owed=owing.due(2))
    second.accepted = {"a", "b"}
    owing.note(replace(turn, number=2), second, False)
    assert list(owing.due(2) or {}) == ["b"], "the round did not close"
    owing.note(replace(turn, number=2, attempt=1), second, True)
    assert owing.due(3) == {}
