"""A cohort cut for several workers: every block once, most of it at once, and bounded sums that wait."""

from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comity.engines.lots import BLOCKS, Costs, Lot, block_size, by_block, cut
from comity.loop import fold


def blocks(lots):
    return list(chain.from_iterable(range(lot.first, lot.last + 1) for lot in lots))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.floats(0.001, 100), min_size=1, max_size=64), st.integers(1, 9), st.integers(0, 64), st.booleans()
)  # fmt: skip
def test_every_block_is_handed_out_once(costs, workers, room, seconds):
    lots = cut(costs, workers, room=room, seconds=seconds)
    assert sorted(blocks(lots)) == list(range(len(costs)))
    assert lots[0].first == 0
    assert len(costs) - lots[0].last - 1 <= room or workers == 1 or lots == [Lot(i, i) for i in range(len(costs))]


@pytest.mark.parametrize("workers", [2, 3, 8])
def test_the_runs_cost_alike_and_the_rest_is_small(workers):
    costs = list(np.random.default_rng(workers).uniform(1, 5, 64))
    lots = cut(costs, workers, room=99)
    each = [sum(costs[lot.first : lot.last + 1]) for lot in lots]
    share = 0.8 * sum(costs) / workers
    assert all(abs(c - share) <= max(costs) for c in each[:workers])
    assert each[workers:] == sorted(each[workers:], reverse=True)
    assert len(lots) >= 2 * workers
    assert max(each[workers:]) <= share / 2 + max(costs)


def test_what_takes_no_time_is_one_run_for_each():
    assert cut([1e-4] * 10, 2, room=99, seconds=True) == [Lot(0, 4), Lot(5, 9)]
    assert len(cut([1e-2] * 10, 2, room=99, seconds=True)) == 4


@pytest.mark.parametrize("asked", [1, 63, 64, 65, 128, 129, 1000])
def test_blocks_are_those_of_the_fold(asked):
    assert (BLOCKS, block_size(asked)) == (fold.BLOCKS, fold.Fold(asked).size)
    assert len(by_block([1.0] * asked)) == fold.Fold(asked).blocks


def test_costs_come_to_what_members_take():
    costs, takes = Costs(), {"a": 1.0, "b": 3.0, "c": 9.0}
    assert costs.of("abc") == [1.0, 1.0, 1.0]
    rng = np.random.default_rng(0)
    for _ in range(40):
        two = [str(n) for n in rng.choice(list(takes), 2, replace=False)]
        costs.learn(two, sum(takes[n] for n in two))
    assert costs.of("abc") == pytest.approx([1.0, 3.0, 9.0], rel=0.4)
    assert 1.0 < costs.of("d")[0] < 9.0
