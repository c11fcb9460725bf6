"""`co.stats` against numpy on the pooled table that it never sees."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas
import polars
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import comity as co
from comity.figures import Number, Words, joined

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
    x = got.columns["x"]
    assert (x.count, x.missing, x.mean, x.variance, sum(x.histogram.counts)) == (2, 2, 2.0, 1.0, 2)


@pytest.mark.parametrize("columns", [{"w": ["a", "b"]}, {"x": [1.0, 2.0]}])
def test_only_words_or_only_numbers(columns: dict[str, Any]) -> None:
    assert list(co.stats({"a": polars.DataFrame(columns), "b": polars.DataFrame(columns)}).columns) == list(columns)


def test_one_table_with_a_party_column(tmp_path: Path) -> None:
    frame = polars.DataFrame({"x": [1.0, 2.0, 6.0, 9.0], "who": ["a", "a", "b", None]})
    frame.write_csv(tmp_path / "t.csv")
    ways = [frame, tmp_path / "t.csv", pandas.DataFrame(frame.to_dict(as_series=False))]
    found = [co.stats(way, party="who") for way in ways]
    assert found[0] == found[1] == found[2]
    x: Any = found[0].columns["x"]
    assert (x.count, x.missing, x.mean, x.variance) == (3, 0, 3.0, pytest.approx(14 / 3))
    assert found[0].bytes_up > 0


SHARES = (0.01, 0.25, 0.5, 0.9, 1.0)


@pytest.mark.parametrize("seed", range(3))
def test_quantiles_are_the_pooled_ones_within_the_error_that_is_told(seed: int) -> None:
    parts = tables(seed)
    found, pooled = co.stats(parts, quantiles=SHARES), polars.concat(parts.values())
    for name in CENTRES:
        x, got = pooled[name].drop_nulls().to_numpy(), found.columns[name]
        assert isinstance(got, Number)
        for q in SHARES:
            told = got.quantiles[q]
            assert abs(told.value - np.quantile(x, q, method="inverted_cdf")) <= told.error
            assert told.error <= 64 * (x.max() - x.min()) / 64**4 + 6 * np.spacing(abs(CENTRES[name]))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.one_of(st.integers(-9, 9), st.floats(-1e6, 1e6)), max_size=12), min_size=1, max_size=4))
def test_quantiles_and_bins_of_any_values(parts: list[list[float]]) -> None:
    if not any(parts):
        return
    x = np.concatenate(parts)
    named = {f"p{i}": polars.DataFrame({"x": [*map(float, p), None]}) for i, p in enumerate(parts)}
    got: Any = co.stats(named, quantiles=SHARES, bins=7).columns["x"]
    for q, told in got.quantiles.items():
        assert abs(told.value - np.quantile(x, q, method="inverted_cdf")) <= told.error
    bins = got.histogram
    assert bins.counts == tuple(np.histogram(x, bins.edges)[0]) if bins.edges[0] < bins.edges[-1] else (len(x),)
    assert (bins.edges[0], bins.edges[-1]) <= (x.min(), np.inf)


def test_histograms_are_the_pooled_ones() -> None:
    parts = tables()
    found, pooled = co.stats(parts, bins=33), polars.concat(parts.values())
    for name in ("plain", "far", "small"):
        got: Any = found.columns[name]
        x = pooled[name].drop_nulls().to_numpy()
        assert len(got.histogram.counts) == 33
        assert got.histogram.counts == tuple(np.histogram(x, got.histogram.edges)[0])
        assert got.histogram.edges[0] <= x.min() < x.max() <= got.histogram.edges[-1]


def test_small_groups_are_hidden_where_that_is_asked() -> None:
    rng = np.random.default_rng(0)
    names = ["often"] * 60 + ["some"] * 25 + ["few"] * 6 + ["alone"]
    x = [*rng.normal(size=90), 40.0, None]
    whole = polars.DataFrame({"word": rng.permutation(names), "x": x, "rare": [1.0] * 4 + [None] * 88})
    parts = {"a": whole[:30], "b": whole[30:50], "c": whole[50:]}
    shown = co.stats(parts)
    found = co.stats(parts, least=10)
    word: Any = found.columns["word"]
    assert (dict(word.values), word.other) == ({"often": 60}, 32)  # 7 alone would tell of few and alone
    assert dict(shown.columns["word"].values) == {"often": 60, "some": 25, "few": 6, "alone": 1}  # type: ignore[union-attr]
    assert (found.left_out["rare"], "rare" in shown.columns) == ("fewer than 10 values", True)
    got: Any = found.columns["x"]
    full: Any = shown.columns["x"]
    assert min(got.histogram.counts) >= 10 > min(full.histogram.counts)
    assert sum(got.histogram.counts) == 91
    assert set(got.histogram.edges) <= set(full.histogram.edges)
    assert (got.histogram.edges[0], got.histogram.edges[-1]) == (full.histogram.edges[0], full.histogram.edges[-1])
    values = np.array(x[:-1])
    for q, told in got.quantiles.items():
        assert abs(told.value - np.quantile(values, q, method="inverted_cdf")) <= told.error
        low, high = told.value - told.error, told.value + told.error
        assert ((values >= low) & (values <= high)).sum() >= 10
        assert told.error > full.quantiles[q].error
    assert (got.count, got.missing) == (91, 1)


def test_bins_are_joined_until_each_holds_enough() -> None:
    edges = np.arange(7.0)
    for counts, least, want in (
        ([3, 0, 9, 1, 1, 2], 4, ((0, 3, 6), (12, 4))),
        ([9, 0, 0, 0, 0, 1], 4, ((0, 6), (10,))),
        ([1, 0, 0, 0, 0, 1], 4, ((), ())),
        ([1, 0, 0, 0, 0, 1], 0, (tuple(range(7)), (1, 0, 0, 0, 0, 1))),
    ):
        got = joined(edges, np.array(counts), least)
        assert (got.edges, got.counts) == want


def test_top_values_and_how_far_their_counts_may_be_off() -> None:
    some = polars.DataFrame({"w": [w for i in range(600) for w in [f"w{i:03}"] * (2 if i < 300 else 1)]})
    more = polars.DataFrame({"w": ["w599"] * 5 + ["w000"]})
    got: Any = co.stats({"a": some, "b": more}).columns["w"]
    assert got.top(2) == {"w599": 5, "w000": 3}
    assert (got.other, got.error, got.count) == (100, 1, 906)
    pooled = dict(polars.concat([some, more])["w"].value_counts().iter_rows())
    assert max(pooled[w] - n for w, n in got.values.items()) == got.error
    exact: Any = co.stats({"b": more}).columns["w"]
    assert (exact.error, exact.other, exact.top(0)) == (0, 0, {})


@pytest.mark.parametrize(
    "bad",
    [
        *({"quantiles": q} for q in (0.5, "0.5", (0.0,), (1.1,), ("a",), (None,), None)),
        *({"bins": b} for b in (1, 2.5, None, "x")),
        *({"least": n} for n in (-1, 1.5, None, "x")),
    ],
)
def test_settings_have_a_range(bad: dict[str, Any]) -> None:
    with pytest.raises(co.ConfigError, match=f"The '{next(iter(bad))}' of stats must be"):
        co.stats({"a": polars.DataFrame({"x": [1, 2]})}, **bad)


def test_no_quantiles_ask_for_none() -> None:
    few: Any = co.stats(tables(), quantiles=())
    assert few.columns["plain"].quantiles == {}
    assert few.bytes_up < co.stats(tables()).bytes_up


def test_wrong_input() -> None:
    with pytest.raises(co.ConfigError, match=r"no column 'wh'.*Did you mean 'who'"):
        co.stats(polars.DataFrame({"x": [1], "who": ["a"]}), party="wh")
    with pytest.raises(co.ConfigError, match="that all 2 parties have"):
        co.stats({"a": polars.DataFrame({"x": [1]}), "b": polars.DataFrame({"y": [1]})})
