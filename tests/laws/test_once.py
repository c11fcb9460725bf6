"""Once: what a site holds does not travel again, whatever is lost; values are the same to the bit."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

import comity as co
from comity.core.contribution import Contribution
from comity.core.tree import tree_map
from comity.core.wire import decode, encode, encode_tree, size

HERE = co.Round("once", 0)
BIG = np.arange(2000.0)


@dataclass(frozen=True)
class Echo:
    """Answers with what it was told, so that nothing can differ unnoticed; may fail in a round."""

    fails: tuple[int, ...] = ()

    def contribute(self, shared: Any, local: Any, round: Any, secret: Any) -> Any:
        if shared.kind == "score":
            return Contribution("score", None, metrics={"asked": (1.0, 1.0)}), local
        if round.number in self.fails and not round.attempt:
            raise RuntimeError("not today")
        return Contribution("prediction", {"x": shared.value["x"], "n": shared.value["n"]}), local


@dataclass(frozen=True)
class Telling:
    """Shares two large leaves, one the same in every round, one of them changing every `every` rounds, and a number."""

    every: int = 10**6
    combiner: co.Mean = field(default_factory=co.Mean)

    def init(self, round: Any) -> Any:
        return {"x": np.zeros(3000)}

    def share(self, state: Any, to: str, round: Any) -> Contribution:
        tree = {"x": BIG, "deep": {"y": np.full((40, 30), round.number // self.every, "float32")}, "n": round.number}
        return Contribution("model", tree if to else state)

    def expect(self, state: Any, to: str, round: Any) -> Any:
        return co.Spec(co.Leaf(), weights="any")

    def update(self, state: Any, combined: Any, round: Any) -> Any:
        return {"x": combined.value["x"] + combined.value["n"]}


@dataclass(frozen=True)
class Losing:
    """A local engine that loses the reply of a member in the first attempt of a round, after the site has answered."""

    lost: tuple[tuple[str, int], ...]
    choice: Any = None

    def connect(self, roster: Any, answer: Any) -> Any:
        return _Lossy(co.Local().connect(roster, answer), self.lost)


@dataclass(frozen=True)
class _Lossy:
    inner: Any
    lost: Any

    def roster(self) -> Any:
        return self.inner.roster()

    def ask(self, cohort: Any, message: Any, until: Any) -> Any:
        for reply in self.inner.ask(cohort, message, until):
            if (reply.sender, reply.round.number) not in self.lost or reply.round.attempt:
                yield reply


def ran(transforms: Any = (), rounds: int = 6, *, method: Any = None, **settings: Any) -> co.Run:
    run = {name: settings.pop(name) for name in ("folder", "engine") if name in settings}
    people = settings.pop("people", {name: Echo() for name in "abc"})
    fed = co.Collaboration(method or Telling(), people, transforms=transforms, evaluate=False, **settings)
    return fed.run(rounds=rounds, **run)


def down(run: co.Run) -> list[dict[str, int]]:
    facts = [e.facts for e in run.ledger if e.kind == "round"]
    return [dict(zip(f["asked"].split("\n"), f["down"].tolist(), strict=True)) for f in facts]


def laid(method: Any = None, number: int = 1) -> int:
    """The bytes of the large leaves of a question."""
    shared = (method or Telling()).share({}, "a", replace(HERE, number=number)).value
    return sum(np.asarray(x).nbytes for x in (shared["x"], shared["deep"]["y"]))


@pytest.mark.parametrize("once", [co.Once(), co.Once(least=64, keep=3)], ids=repr)
@pytest.mark.parametrize("value", [{"a": {"b": np.ones((40, 40))}, "c": np.float32(3)}, np.ones(900, "float32")])
def test_the_laws_of_transforms_hold(once, value):
    co.testing.check_transform(once)
    co.testing.check_transform(once, Contribution("delta", value, 2.0))


def test_bytes_in_the_ledger_fall_by_the_large_leaves_and_results_do_not_change():
    plain, once = ran(), ran([co.Once()])
    assert np.array_equal(plain.state["x"], once.state["x"])
    first, *later = down(once)
    for before, after in zip(down(plain)[1:], later, strict=True):
        assert all(before[w] - after[w] >= laid() - 2 * 32 - 60 for w in "abc")
    assert all(first[w] >= laid() for w in "abc")
    assert once.ledger.bytes_down < plain.ledger.bytes_down / 4


def test_what_changes_travels_again_and_only_that():
    spent = [asked["a"] for asked in down(ran([co.Once()], method=Telling(every=3)))]
    full, new, none = BIG.nbytes + 4800, 4800, 0
    for got, leaves in zip(spent, [full, none, none, new, none, none], strict=True):
        assert leaves <= got < leaves + 1200


def test_two_questions_ago_is_held_only_where_asked_for():
    def alternating(keep: int) -> list[int]:
        once, drawer, entry, out = co.Once(keep=keep), {}, co.Once().init(), []
        for n in range(4):
            told = Contribution("query", {"x": BIG + n % 2})
            packed = decode(encode(once.pack(told, entry, "a", HERE)))
            out.append(size(packed))
            got, drawer = once.unpack(packed, drawer, HERE)
            assert np.array_equal(got.value["x"], told.value["x"])
            reply, drawer = once.encode(Contribution("prediction", 1.0), None, drawer, HERE, None)
            entry = once.decode(reply, entry, HERE, None)[1]
        return [n > BIG.nbytes for n in out]

    assert alternating(1) == [True] * 4
    assert alternating(2) == [True, True, False, False]


def test_what_a_site_no_longer_holds_is_forgotten_at_the_hub():
    once, drawer, entry, large = co.Once(), {}, co.Once().init(), []
    for x in (BIG, BIG[:3], BIG, BIG):
        packed = once.pack(Contribution("query", {"x": x}), entry, "a", HERE)
        large.append(size(packed) > BIG.nbytes)
        got, drawer = once.unpack(packed, drawer, HERE)
        assert np.array_equal(got.value["x"], x)
        entry = once.decode(once.encode(Contribution("p", 1.0), None, drawer, HERE, None)[0], entry, HERE, None)[1]
    assert large == [True, False, True, False]


def test_after_a_lost_reply_the_leaf_itself_comes_again():
    engine = Losing((("b", 0), ("c", 3)), {"executor": "losing"})
    run = ran([co.Once()], engine=engine, quorum=0.6)
    assert np.array_equal(run.state["x"], ran(engine=engine, quorum=0.6).state["x"])
    sent = down(run)
    assert sent[1]["a"] < laid() <= sent[1]["b"]
    assert sent[2]["b"] < laid()
    assert sent[4]["c"] < laid(), "c still holds what its reply of round 2 proved"
    assert not run.ledger.refused


def test_a_round_that_is_tried_again_proves_nothing():
    engine = Losing((("b", 0),), {"executor": "losing"})
    run = ran([co.Once()], engine=engine, quorum=1.0)
    sent = down(run)
    assert len(sent) == 7
    assert min(sent[1].values()) >= laid(), "no reply of the first attempt counts"
    assert max(sent[2].values()) < laid()


def test_a_member_that_fails_is_told_what_it_lacks():
    run = ran([co.Once()], people={"a": Echo(), "b": Echo(fails=(0, 1)), "c": Echo()})
    assert [asked["b"] >= laid() for asked in down(run)] == [True, True, True, False, False, False]


def test_a_resumed_run_goes_on_where_it_was(tmp_path):
    straight = ran([co.Once()])
    ran([co.Once()], rounds=2, folder=tmp_path / "run")
    resumed = ran([co.Once()], folder=tmp_path / "run")
    assert down(resumed) == down(straight)
    assert encode_tree(resumed.state) == encode_tree(straight.state)


def test_leaves_differ_by_type_and_shape_as_well():
    told = [BIG, BIG.reshape(40, 50), BIG.view("int64"), BIG.tobytes(), np.asfortranarray(BIG.reshape(40, 50))]
    once, drawer = co.Once(), {}
    _, drawer = once.unpack(once.pack(Contribution("q", {"x": told[0]}), once.init(), "a", HERE), drawer, HERE)
    entry = once.decode(once.encode(Contribution("p", 1.0), None, drawer, HERE, None)[0], {}, HERE, None)[1]
    held = [bool(once.pack(Contribution("q", {"x": x}), entry, "a", HERE).value["held"]) for x in told]
    assert held == [True, False, False, False, False]
    packed = once.pack(Contribution("q", {"n": None, "x": BIG, "small": b"1"}), entry, "a", HERE)
    assert list(packed.value["held"]) == ["1"]
    back = once.unpack(packed, drawer, HERE)[0].value
    assert back["n"] is None
    assert back["small"] == b"1"
    assert np.array_equal(back["x"], BIG)


def test_a_hash_that_is_not_held_is_refused_and_a_strange_reply_too():
    once = co.Once()
    packed = once.pack(Contribution("q", {"x": BIG}), {"holds": b""}, "a", HERE)
    lying = replace(packed, value={"value": {"x": None}, "held": {"0": b"1" * 32}})
    with pytest.raises(co.ContributionError, match="takes for held what is not"):
        once.unpack(lying, {}, HERE)
    for value in ({"value": 1.0}, {"value": 1.0, "holds": 3}, 1.0):
        with pytest.raises(co.ContributionError, match="must be"):
            once.decode(Contribution("p", value), {}, HERE, None)


def test_it_needs_a_channel_that_shows_each_reply():
    @dataclass(frozen=True)
    class Sums(co.Plain):
        reveals = "sum"

    with pytest.raises(co.ConfigError, match="Once is decoded one by one; Sums reveals only the sum"):
        co.Collaboration(Telling(), {"a": Echo()}, transforms=[co.Once()], channel=Sums())


@pytest.mark.parametrize("settings", [{"least": 3}, {"keep": 0}, {"least": 4096.5}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(co.ConfigError, match=next(iter(settings))):
        co.Once(**settings)


def test_nothing_large_leaves_no_drawer():
    told = Contribution("q", tree_map(lambda x: x, {"x": np.ones(3)}))
    assert co.Once().unpack(co.Once().pack(told, {"holds": b""}, "a", HERE), {}, HERE)[1] == {}
