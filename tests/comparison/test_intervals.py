"""Intervals against hand-computed cases of Nadeau and Bengio (2003) and scipy's quantiles."""

import math

import pytest

from comity.comparison.intervals import TEST, TRAIN, VALID, Interval, interval, quantile


def test_three_repeats_by_hand() -> None:
    """Values 1, 2, 3: S = 1, 1/J + test/train = 1/3 + 1/4, t(2) = 4.303."""
    got = interval([1.0, 2.0, 3.0])
    assert got is not None
    half = 4.302653 * math.sqrt(1 / 3 + 1 / 4)
    assert (got.low, got.mean, got.high) == pytest.approx((2 - half, 2.0, 2 + half))


def test_five_repeats_by_hand() -> None:
    """Mean 0.8, squares 4 + 1 + 0 + 1 + 4 = 10 (in 1e-4), S² = 2.5e-4, factor 0.2 + 0.25, t(4) = 2.776."""
    got = interval([0.78, 0.79, 0.80, 0.81, 0.82])
    assert got is not None
    assert got.high - got.mean == pytest.approx(2.776445 * math.sqrt(0.45 * 2.5e-4))  # type: ignore[operator]


def test_the_correction_is_test_rows_over_those_learnt_from() -> None:
    assert (TRAIN, VALID, TEST) == (0.6, 0.2, 0.2)
    ratio = TEST / (TRAIN + VALID)
    assert ratio == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("df", "together", "published"), [(1, 1, 12.706), (4, 1, 2.776), (30, 1, 2.042), (4, 5, 4.604)]
)
def test_quantiles_are_those_of_the_tables(df: int, together: int, published: float) -> None:
    """5 % two-sided; shared by five it is 1 %, of which tables have 4.604 for four degrees."""
    assert quantile(df, together) == pytest.approx(published, abs=6e-4)


def test_intervals_that_hold_together_are_wider() -> None:
    one, all_ = interval([1.0, 2.0, 4.0]), interval([1.0, 2.0, 4.0], together=4)
    assert one is not None
    assert all_ is not None
    assert all_.low < one.low < one.high < all_.high  # type: ignore[operator]


def test_one_repeat_says_nothing_of_the_spread() -> None:
    assert interval([0.5], grain=0.1) == Interval(0.5, None, None)


def test_undefined_repeats_are_left_out() -> None:
    assert interval([None, 1.0, None, 3.0]) == interval([1.0, 3.0])
    assert interval([None, 2.0]) == Interval(2.0, None, None)
    assert interval([None, None]) is None
    assert interval([]) is None


def test_equal_values_are_no_certainty() -> None:
    got = interval([0.5] * 4, grain=0.02)
    assert got is not None
    assert got.high == pytest.approx(0.5 + 3.182446 * math.sqrt(0.5) * 0.02)
    wide = [0.1, 0.5, 0.9]
    assert interval(wide, grain=0.02) == interval(wide)


def test_ends_stay_where_values_can_be() -> None:
    got = interval([0.9, 1.0, 1.0], 0.0, 1.0)
    assert got is not None
    assert got.high == 1.0
    assert got.low is not None
    assert 0.0 < got.low < got.mean
    low = interval([0.0, 0.1], 0.0, 1.0)
    assert low is not None
    assert low.low == 0.0


def test_a_mean_outside_the_range_stays_inside_its_interval() -> None:
    """R² has no lower end but rounding may carry a score past its upper one."""
    got = interval([1.0 + 1e-12, 1.0 + 1e-12], 0.0, 1.0)
    assert got is not None
    assert got.low is not None
    assert got.high is not None
    assert got.low <= got.mean <= got.high
