import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comity.core.errors import ConfigError
from comity.data.split import split


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.integers(0, 6), max_size=80),
    st.integers(0, 5),
    st.sampled_from([(0.6, 0.2, 0.2), (0.9, 0.05, 0.05), (0.5, 0.5)]),
)
def test_parts_are_disjoint_complete_ordered_and_not_empty(y, seed, parts):
    got = split(np.array(y, int), seed, parts=parts)
    assert sorted(np.concatenate(got).tolist()) == list(range(len(y)))
    assert all((np.diff(part) > 0).all() for part in got)
    if len(y) >= 10:
        assert all(len(part) for part in got)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=10, max_size=80), st.integers(0, 5))
def test_classes_are_shared_out_alike(y, seed):
    y = np.array(y)
    train, valid, test = split(y, seed)
    counts = np.bincount(y)
    ordinary = counts[counts > 1]
    for part, share in ((train, 0.6), (valid, 0.2), (test, 0.2)):
        got = np.bincount(y[part], minlength=len(counts))[counts > 1]
        assert (np.abs(got - share * ordinary) < 2.5).all()
    if len(ordinary) == len(counts[counts > 0]):
        assert abs(len(train) - 0.6 * len(y)) < 3
        assert set(np.unique(y)) <= set(y[train])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), max_size=60), st.integers(0, 5))
def test_measured_targets_are_cut_into_bins(y, seed):
    got = split(np.array(y, float), seed)
    assert sorted(np.concatenate(got).tolist()) == list(range(len(y)))


def test_sizes_by_hand():
    assert [len(p) for p in split(np.zeros(10, int), 0)] == [6, 2, 2]
    train, valid, test = split(np.repeat([0, 1], [50, 5]), 0)
    assert [len(train), len(valid), len(test)] == [33, 11, 11]
    assert [np.sum(p >= 50) for p in (train, valid, test)] == [3, 1, 1]


def test_a_class_of_one_row_is_trained_on():
    y = np.array([0] * 4 + [1, 2, 3, 4] + [5] * 4 + [6, 7, 8, 9])
    for seed in range(20):
        assert {4, 5, 6, 7, 12, 13, 14, 15} <= set(split(y, seed)[0].tolist())


def test_classes_of_one_row_do_not_cost_others_their_share():
    train, valid, test = split(np.array([*range(50), *[50] * 10]), 0)
    assert [len(train), len(valid), len(test)] == [56, 2, 2]


def test_what_rounding_leaves_is_carried_on_to_the_next_class():
    y = np.repeat(np.arange(10), 2)
    train, valid, test = split(y, 0)
    assert [len(train), len(valid), len(test)] == [12, 4, 4]


def test_every_class_is_trained_on():
    for sizes in ([2] * 30, [2, 3, 4] * 10, [3, 2, 2] * 10):
        y = np.repeat(np.arange(30), sizes)
        for parts in ((0.6, 0.2, 0.2), (0.2, 0.4, 0.4)):
            assert set(y[split(y, 0, parts=parts)[0]]) == set(range(30))


def test_each_part_has_a_row_even_when_every_class_has_one():
    assert [len(p) for p in split(np.arange(10), 0)] == [8, 1, 1]


def test_bins_of_a_measured_target_are_in_every_part():
    y = np.random.default_rng(0).exponential(size=500)
    for part, share in zip(split(y, 3), (60, 20, 20), strict=True):
        assert np.histogram(y[part], np.quantile(y, np.linspace(0, 1, 6)))[0].tolist() == [share] * 5


def test_the_key_decides():
    y = np.arange(200) % 2
    first = split(y, 0, repeat=1, party="Bern")
    again = split(y, 0, repeat=1, party="Bern")
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    for other in (
        split(y, 1, repeat=1, party="Bern"),
        split(y, 0, repeat=2, party="Bern"),
        split(y, 0, repeat=1, party="Basel"),
    ):
        assert not np.array_equal(first[0], other[0])


def test_a_known_split_stays():
    assert split(np.arange(12) % 2, 7)[2].tolist() == [3, 8]


def test_bad_arguments():
    for y, parts in [
        ([0, 1], (0.6, 0.6)),
        ([0, 1], (1.2, -0.2)),
        ([0, 1], ()),
        ([0.0, float("nan")], (0.5, 0.5)),
        ([[0], [1]], (0.5, 0.5)),
        (["a", "b"], (0.5, 0.5)),
    ]:
        with pytest.raises(ConfigError):
            split(np.array(y), 0, parts=parts)
