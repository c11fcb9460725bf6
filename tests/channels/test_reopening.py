"""A round is opened for one set of survivors: contributions may be the same again, and sums then differ by one."""

from dataclasses import replace

import numpy as np
import pytest

import comity as co
from comity.core.contribution import Contribution
from comity.core.errors import ChannelError
from comity.testing.walk import Walk

KEYS = "secagg", "two servers"


def cohort(kind="delta"):
    return [Contribution(kind, {"w": np.arange(5) + 7 * i}, 2.0, {}, f"p{i}") for i in range(6)]


def channel(name):
    return co.SecAgg() if name == "secagg" else co.TwoServer(co.Helper())


def walked(channel, before=None, *, without=None, turn=(0, 0), hub="hub", kind="delta"):
    """One turn to its end; whoever is left out answers until it is to seal."""
    probe = Walk(channel, cohort(kind))
    asks = 2 if isinstance(channel, co.SecAgg) else 0
    walk = Walk(channel, cohort(kind), turn=turn, silent={without: asks} if without else {})
    walk.turn = replace(probe.turn, number=turn[0], attempt=turn[1], hub=hub)
    walk.memories = dict(before.memories) if before else walk.memories
    return walk, walk.through()


@pytest.mark.parametrize("name", KEYS)
@pytest.mark.parametrize(
    "again",
    [
        {"turn": (0, 1), "without": "p5"},
        {"turn": (0, 1), "hub": "another", "without": "p5"},
        {"turn": (0, 0), "hub": "another", "without": "p2"},
    ],
    ids=["attempt", "attempt of another hub", "another hub"],
)
def test_it_is_not_opened_again_without_one_of_them(name, again):
    told = channel(name)
    first, (total,) = walked(told)
    assert total.value["w"].tolist() == sum(c.value["w"] for c in cohort()).tolist()
    with pytest.raises(ChannelError):
        walked(told, first, **again)


@pytest.mark.parametrize("name", KEYS)
def test_nor_with_one_more(name):
    told = channel(name)
    first, _ = walked(told, without="p5")
    with pytest.raises(ChannelError):
        walked(told, first, turn=(0, 1))


@pytest.mark.parametrize("name", KEYS)
def test_the_same_set_may_be_opened_again(name):
    told = channel(name)
    first, _ = walked(told, without="p5")
    _, (total,) = walked(told, first, without="p5", turn=(0, 1))
    assert total.value["w"].tolist() == sum(c.value["w"] for c in cohort()[:5]).tolist()


@pytest.mark.parametrize("name", KEYS)
def test_the_next_round_has_whoever_comes(name):
    told = channel(name)
    first, _ = walked(told)
    _, (total,) = walked(told, first, without="p5", turn=(1, 0))
    assert total.weight == 10.0


def test_scores_are_a_round_of_their_own():
    told = co.SecAgg()
    scored, _ = walked(told, hub="hub (scores)", kind="score")
    trained, _ = walked(told, scored, without="p5")
    with pytest.raises(ChannelError):
        walked(told, trained, hub="hub (more scores)", kind="score", without="p1")


def test_an_earlier_round_is_not_opened_for_a_hub_of_another_name():
    told = co.SecAgg()
    later, _ = walked(told, turn=(3, 0))
    with pytest.raises(ChannelError):
        walked(told, later, turn=(2, 0), hub="another")


def test_the_members_say_why():
    told, why = co.SecAgg(), []
    first, _ = walked(told)
    plain = type(told).answer

    class Listens(co.SecAgg):
        def answer(self, message, memory, round, secret):
            try:
                return plain(self, message, memory, round, secret)
            except ChannelError as error:
                why.append(str(error))
                raise

    with pytest.raises(ChannelError):
        walked(Listens(), first, without="p5", turn=(0, 1))
    assert len(why) == 5
    assert all("one set of survivors, whatever the attempt" in said for said in why)
