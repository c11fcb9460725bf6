"""Combining the parties' own models: the textbook's formulas by hand, chosen on validation rows only."""

from typing import Any

import numpy as np
import pytest

from comity.comparison import jury
from comity.comparison.jury import SHARPNESS, combined
from comity.comparison.sheet import loss, sheet


def classes(skill: list[float], rows: int = 200, seed: int = 0) -> tuple[Any, Any]:
    """(members, rows, 2) probabilities whose log-odds follow the truth as far as the member's skill goes."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, rows)
    z = np.stack([s * (2 * y - 1) + rng.normal(size=rows) for s in skill])
    p = 1 / (1 + np.exp(-z))
    return np.stack([1 - p, p], axis=2), y


def numbers(off: list[float], rows: int = 200, seed: int = 0) -> tuple[Any, Any]:
    """(members, rows) numbers, each off by its own noise."""
    rng = np.random.default_rng(seed)
    y = rng.normal(size=rows)
    return np.stack([y + s * rng.normal(size=rows) for s in off]), y


def test_the_average_by_hand() -> None:
    said = np.array([[[0.9, 0.1]], [[0.6, 0.4]], [[0.0, 1.0]]])
    np.testing.assert_allclose(jury._average(said), [[0.5, 0.5]])
    np.testing.assert_allclose(jury._average(np.array([[1.0, 2.0], [3.0, 8.0]])), [2.0, 5.0])


def test_the_vote_by_hand() -> None:
    """Two of three say class 1; one vote more is spread over two classes: (1 + 1/2)/4 and (2 + 1/2)/4."""
    said = np.array([[[0.99, 0.01]], [[0.4, 0.6]], [[0.4, 0.6]]])
    np.testing.assert_allclose(jury._vote(said), [[0.375, 0.625]])
    three = np.array([[[0.2, 0.7, 0.1]], [[0.1, 0.8, 0.1]]])
    np.testing.assert_allclose(jury._vote(three), [[1 / 9, 7 / 9, 1 / 9]])


def test_exponential_weights_by_hand() -> None:
    """Losses -ln 0.8 and -ln 0.4 differ by ln 2: with k = 2 the weights are as 1 to 2^-2."""
    valid = np.array([[[0.8, 0.2]], [[0.4, 0.6]]])
    together = jury._ways(valid, np.array([0]))["weighted 2"]
    np.testing.assert_allclose(together(valid), [[0.8 * 0.8 + 0.2 * 0.4, 0.8 * 0.2 + 0.2 * 0.6]])


def test_exponential_weights_of_numbers_by_hand() -> None:
    """Var(y) = 1, squared errors 0 and 1: with k = 8 the weights are as 1 to e^-8."""
    valid, y = np.array([[-1.0, 1.0], [0.0, 2.0]]), np.array([-1.0, 1.0])
    together, w = jury._ways(valid, y)["weighted 8"], np.exp(-8.0)
    np.testing.assert_allclose(together(valid), (valid[0] + w * valid[1]) / (1 + w))


@pytest.mark.parametrize("of", [classes, numbers])
def test_what_does_best_on_the_validation_rows_is_taken(of: Any) -> None:
    for seed in range(5):
        said, y = of([0.2, 1.0, 0.5], seed=seed)
        tried = {name: loss(sheet(way(said), y)) for name, way in jury._ways(said, y).items()}
        names = {"average", "vote", *(f"weighted {k:g}" for k in SHARPNESS)}
        assert set(tried) == (names if of is classes else names - {"vote"})
        how, together = combined(said, y)
        assert tried[how] == min(tried.values()) == loss(sheet(together(said), y))


def test_each_way_is_taken_where_it_does_best() -> None:
    """Like members: the average. Shy right ones beside a loud wrong one: the vote. One good one: sharp weights."""
    like, y = numbers([1.0] * 4, rows=4000)
    assert combined(like, y)[0] in ("average", "weighted 2")
    shy = np.stack([np.where(np.arange(2) == y01[:, None], 0.51, 0.49) for y01 in [np.tile([0, 1], 20)] * 5])
    loud = np.where(np.arange(2) == np.tile([0, 1], 20)[:, None], 0.02, 0.98)
    assert combined(np.stack([*shy, loud, loud]), np.tile([0, 1], 20))[0] == "vote"
    assert combined(*numbers([0.1, 3.0, 3.0]))[0].startswith("weighted")


def test_other_rows_are_combined_as_the_validation_rows_said() -> None:
    """Weights are kept: where a bad member on the validation rows is right on others, it still has no say."""
    valid, y = numbers([0.1, 3.0])
    how, together = combined(valid, y)
    assert how.startswith("weighted")
    np.testing.assert_allclose(together(np.array([[5.0], [9.0]])), [5.0], atol=1e-6)
    np.testing.assert_allclose(together(np.zeros((2, 0))), np.zeros(0))


@pytest.mark.parametrize("unit", [1e-9, 1e-3, 1.0, 1e6, 1e12])
def test_the_unit_of_the_target_does_not_matter(unit: float) -> None:
    said, y = numbers([0.5, 0.8, 1.5])
    (how, together), (same, scaled) = combined(said, y), combined(said * unit, y * unit)
    assert how == same
    for name, way in jury._ways(said * unit, y * unit).items():
        np.testing.assert_allclose(way(said), jury._ways(said, y)[name](said), rtol=1e-9)
    np.testing.assert_allclose(scaled(said * unit), together(said) * unit, rtol=1e-9)


@pytest.mark.parametrize("of", [classes, numbers])
def test_one_member_is_what_it_says(of: Any) -> None:
    said, y = of([0.7])
    how, together = combined(said, y)
    if how != "vote":  # a vote of one is its class
        np.testing.assert_allclose(together(said), said[0])
    np.testing.assert_allclose(jury._ways(said, y)["weighted 8"](said), said[0])


@pytest.mark.parametrize("of", [classes, numbers])
def test_a_bad_member_gets_little_weight(of: Any) -> None:
    bad = -3.0 if of is classes else 3.0
    good = 2.0 if of is classes else 0.2
    said, y = of([good, bad])
    for k in SHARPNESS:
        together = jury._ways(said, y)[f"weighted {k:g}"]
        says = np.array([0.0, 1.0]).reshape(2, 1) * np.ones((2, 1))
        assert 0 <= together(says)[0] < 0.01
    how, _ = combined(said, y)
    assert how.startswith("weighted")


@pytest.mark.parametrize("value", [0.0, 0.1, 1e9])
def test_a_target_that_does_not_vary(value: float) -> None:
    said = np.stack([np.full(7, value), np.full(7, value + 1.0)])
    how, together = combined(said, np.full(7, value))
    assert how.startswith("weighted")
    np.testing.assert_allclose(together(said), value, atol=1e-2 * max(value, 1e-3))
    assert combined(said[:1], np.full(7, value))[0] == "average"


@pytest.mark.parametrize("said", [np.full((3, 6, 2), 0.5), np.full((3, 6, 3), 1 / 3), np.ones((3, 6))])
def test_like_members_are_averaged(said: Any) -> None:
    assert combined(said, np.arange(6) % 2)[0] == "average"
