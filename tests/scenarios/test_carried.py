"""The same collaborations over bytes and threads, and in pieces: every bit is the same."""

import pytest
import scenario_collaborations as chaos
import scenario_protecting as toys
import scenario_shards as s

WORKS = {
    "plain": s.fed,
    "noise on a masked sum": lambda: s.fed(**toys.PRIVATE),
    "sparse": lambda: s.fed(transforms=[chaos.TopK(0.1)]),
    "tickets": lambda: toys.tickets(s),
}


@pytest.fixture(params=WORKS)
def make(request):
    return WORKS[request.param]


def left(folder):
    return chaos.kept(folder).bits()


def test_over_bytes_from_threads_in_any_order_as_in_one_process(make, tmp_path):
    """What was counted as well; the folders have one secret, so that noise is the same."""
    here, there = tmp_path / "here", tmp_path / "there"
    make().run(6, folder=chaos.fresh(here))
    make().run(6, folder=chaos.fresh(there), engine=toys.Post())
    differ = {name for name, bits in left(here).items() if bits != left(there)[name]}
    assert differ == {"entry 1"}, "the entry that says who carries"
    assert left(here).keys() == left(there).keys()


def test_resumed_is_straight_through(make, tmp_path):
    straight, pieces = tmp_path / "straight", chaos.fresh(tmp_path / "pieces")
    make().run(8, folder=chaos.fresh(straight))
    for rounds in (3, 3, 8):
        make().run(rounds, folder=pieces)
    assert left(straight) == left(pieces)


def test_each_party_is_asked_once_a_round(make):
    """And once for each phase of the channel."""
    asked, rounds = [], 3

    class Counting(toys.Post):
        def connect(self, roster, answer, *rest):
            def counted(question):
                asked.append((question.round.number, question.phase, question.round.me))
                return answer(question)

            return super().connect(roster, counted, *rest)

    make().run(rounds, engine=Counting())
    assert len(asked) == len(set(asked)) == rounds * len(s.DATA) * len({phase for _, phase, _ in asked})
