"""`co.stats` against numpy on the pooled table that it never sees."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas
import polars
import pytest

import comity as co
from comity.summary import Number, Words

CENTRES = {"plain": 3.0, "far": 1e9, "small": -1e-6, "farther": -1e12}


def tables(seed: int = 0) -> dict[str, Any]:
    """Three tables of unlike size, each column with missing values."""
    rng = np.random.default_rng(seed)
    out = {}
    for i, rows in enumerate((7, 400, 1000)):
        columns = {}
        for name, centre in CENTRES.items():
            x = centre + rng.normal(size=rows) * (1e-7 if name == "small" else 1.0) + i * (0 if name == "small" else 1)
            columns[name] = [None if gap else float(v) for v, gap in zip(x, rng.random(rows) < 0.1, strict=True)]
        columns["word"] = [None if u < 0.1 else ["a", "b", "c"][int(3 * u)] for u in rng.random(rows)]
        out[f"party {i}"] = polars.DataFrame(columns)
    return out


@pytest.mark.parametrize("seed", range(3))
def test_numbers_are_those_of_the_pooled_table(seed: int) -> None:
    parts = tables(seed)
    found, pooled = co.stats(parts), polars.concat(parts.values())
    assert (found.parties, found.rows) == (3, 1407)
    for name in CENTRES:
        x = pooled[name].drop_nulls().to_numpy()
        got = found.columns[name]
        assert isinstance(got, Number)
        assert (got.count, got.missing) == (len(x), pooled[name].null_count())
        assert got.mean == pytest.approx(x.mean(), rel=1e-9)
        assert got.variance == pytest.approx(x.var(), rel=1e-9 if name != "farther" else 1e-6)


def test_a_large_mean_does_not_swallow_the_variance() -> None:
    rng = np.random.default_rng(4)
    parts = {p: polars.DataFrame({"x": 1e9 + rng.normal(size=5000)}) for p in "abc"}
    x = polars.concat(parts.values())["x"].to_numpy()
    got: Any = co.stats(parts).columns["x"]
    assert abs((x * x).mean() - x.mean() ** 2 - x.var()) > 0.01  # the way that does lose it
    assert got.mean == pytest.approx(x.mean(), rel=1e-12)
    assert got.variance == pytest.approx(x.var(), rel=1e-9)


def test_words_are_counted() -> None:
    parts = tables()
    got, pooled = co.stats(parts).columns["word"], polars.concat(parts.values())["word"]
    assert isinstance(got, Words)
    assert dict(got.values) == dict(pooled.drop_nulls().value_counts().iter_rows())
    assert list(got.values.values()) == sorted(got.values.values(), reverse=True)
    assert (got.count, got.missing) == (len(pooled) - pooled.null_count(), pooled.null_count())


def test_words_beyond_those_that_a_party_names_are_counted_still() -> None:
    many = polars.DataFrame({"id": [f"w{i}" for i in range(700)]})
    got: Any = co.stats({"a": many, "b": many}).columns["id"]
    assert got.count == 1400
    assert len(got.values) == 500


def test_what_not_all_have_is_left_out() -> None:
    a = polars.DataFrame({"x": [1.0], "only": [1], "empty": [None]})
    b = polars.DataFrame({"x": [3.0], "empty": [None]})
    found = co.stats({"a": a, "b": b})
    assert list(found.columns) == ["x"]
    assert found.left_out == {"only": "in 1 of 2 parties", "empty": "empty"}


def test_numbers_at_one_party_and_words_at_another_are_words() -> None:
    found: Any = co.stats({"a": polars.DataFrame({"x": [1, 2]}), "b": polars.DataFrame({"x": ["1", "z"]})})
    assert dict(found.columns["x"].values) == {"1": 2, "2": 1, "z": 1}


def test_a_column_that_is_empty_at_one_party() -> None:
    got: Any = co.stats({"a": polars.DataFrame({"x": [1.0, 3.0]}), "b": polars.DataFrame({"x": [None, None]})})
    assert got.columns["x"] == Number(2, 2, 2.0, 1.0)


@pytest.mark.parametrize("columns", [{"w": ["a", "b"]}, {"x": [1.0, 2.0]}])
def test_only_words_or_only_numbers(columns: dict[str, Any]) -> None:
    assert list(co.stats({"a": polars.DataFrame(columns), "b": polars.DataFrame(columns)}).columns) == list(columns)


def test_one_table_with_a_party_column(tmp_path: Path) -> None:
    frame = polars.DataFrame({"x": [1.0, 2.0, 6.0, 9.0], "who": ["a", "a", "b", None]})
    frame.write_csv(tmp_path / "t.csv")
    ways = [frame, tmp_path / "t.csv", pandas.DataFrame(frame.to_dict(as_series=False))]
    found = [co.stats(way, party="who") for way in ways]
    assert found[0] == found[1] == found[2]
    assert found[0].columns["x"] == Number(3, 0, 3.0, pytest.approx(14 / 3))
    assert found[0].bytes_up > 0


def test_wrong_input() -> None:
    with pytest.raises(co.ConfigError, match=r"no column 'wh'.*Did you mean 'who'"):
        co.stats(polars.DataFrame({"x": [1], "who": ["a"]}), party="wh")
    with pytest.raises(co.ConfigError, match="that all 2 parties have"):
        co.stats({"a": polars.DataFrame({"x": [1]}), "b": polars.DataFrame({"y": [1]})})
