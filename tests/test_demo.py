"""The demo's parties: real records, unequal shares, the same every time."""

from typing import Any

import numpy as np
import polars
import pytest

from comity.adapters.datasets import breast_cancer, digits
from comity.demo import comparisons, hospitals, writers


def test_hospitals_share_out_all_records_unequally() -> None:
    tables = hospitals()
    sizes = [t.height for t in tables.values()]
    assert len(tables) == 4
    assert sum(sizes) == 569
    assert max(sizes) > 3 * min(sizes) >= 3 * 10


def test_hospitals_differ_in_labels_and_in_instruments() -> None:
    tables = hospitals()
    shares = {p: float((t["diagnosis"] == "malignant").mean()) for p, t in tables.items()}
    assert max(shares.values()) - min(shares.values()) > 0.2
    assert shares["Northgate"] > 0.373 + 0.05 > 0.373 - 0.05 > shares["Lakeside"]  # 212 of the 569 are malignant
    assert all(0.02 < s < 0.98 for s in shares.values())
    columns = breast_cancer()
    ratios = [sorted(t["mean radius"])[0] / np.asarray(columns["mean radius"]) for t in tables.values()]
    scales = [min(abs(r - s).min() for r in [ratio]) for ratio, s in zip(ratios, (1.0, 1.06, 0.94, 1.1), strict=True)]
    assert max(scales) < 1e-9


def test_smoothness_is_no_length_and_is_left_as_it_is() -> None:
    pooled = np.sort(polars.concat(hospitals().values())["mean smoothness"].to_numpy())
    np.testing.assert_array_equal(pooled, np.sort(breast_cancer()["mean smoothness"]))


def test_writers_hold_three_to_five_digits_each() -> None:
    tables = writers()
    assert len(tables) == 10
    assert sum(t.height for t in tables.values()) == 1797
    assert all(3 <= t["digit"].n_unique() <= 5 for t in tables.values())
    assert {d for t in tables.values() for d in t["digit"]} == set(map(str, range(10)))
    assert min(t.height for t in tables.values()) >= 20


def test_writers_differ_in_ink_and_paper() -> None:
    tables = writers()
    paper = [t.drop("digit").min_horizontal().min() for t in tables.values()]
    assert len({round(float(p), 3) for p in paper}) == 10  # type: ignore[arg-type]
    assert all(0 <= t.drop("digit").to_numpy().min() <= t.drop("digit").to_numpy().max() <= 16 for t in tables.values())
    assert digits()["x00"].shape == (1797,)


@pytest.mark.parametrize("make", [hospitals, writers])
def test_the_same_every_time_and_another_with_another_seed(make: Any) -> None:
    first, again, other = make(), make(), make(seed=1)
    assert all(first[p].equals(again[p]) for p in first)
    assert any(first[p].height != other[p].height for p in first)


def test_what_the_command_compares() -> None:
    made = comparisons()
    assert {title: (target, called) for title, (_, target, called) in made.items()} == {
        "breast cancer": ("diagnosis", "hospital"),
        "digits": ("digit", "writer"),
    }
