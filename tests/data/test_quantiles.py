import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comity.core.errors import ConfigError
from comity.data.dictionary import Dictionary, Entry
from comity.data.prepare import LIMIT, Preparation, moments, vocabulary
from comity.data.quantiles import (
    around,
    first_edges,
    median_bounds,
    merge_bounds,
    merge_counts,
    middle,
    open_bounds,
    quantile_counts,
    refine,
)
from comity.data.schema import Column, Schema

AB = Schema((Column("a", "number"), Column("b", "number")), "y", "classification", ("n", "p"))


def narrowed(parts, bounds, rounds, q=0.5, bins=64):
    edges = first_edges(bounds, bins)
    for _ in range(rounds):
        edges = refine(merge_counts(quantile_counts(p, AB, edges) for p in parts), edges, q)
    return edges


values = st.lists(st.one_of(st.integers(-100, 100).map(float), st.floats(-100, 100)), min_size=1, max_size=40)


@settings(max_examples=150)
@given(st.lists(values, min_size=1, max_size=5), st.sampled_from([0.5, 0.25, 0.75, 1.0]), st.data())
def test_the_merged_median_is_the_pooled_one_however_rows_are_split(parts, q, data):
    pooled = np.concatenate(parts)
    order = data.draw(st.permutations(range(len(pooled))))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(pooled)), max_size=3)))
    again = np.split(pooled[order], cuts)
    want = np.quantile(pooled, q, method="inverted_cdf")
    for split in (parts, again):
        tables = [
            pl.DataFrame({"a": x, "b": np.asarray(x) * 2}, schema={"a": pl.Float64, "b": pl.Float64}) for x in split
        ]
        edges = narrowed(tables, [[-100, 100], [-200, 200]], 4, q)
        assert np.abs(middle(edges) - [want, 2 * want]).max() <= 400 / 64**4 / 2 + 1e-12
        assert edges[0, 0] <= want <= edges[0, -1]


@settings(max_examples=50)
@given(values, st.integers(1, 30))
def test_many_rounds_never_lose_the_median(x, rounds):
    table = pl.DataFrame({"a": x, "b": x})
    edges = narrowed([table], [[-100, 100]] * 2, rounds, bins=3)
    want = np.quantile(x, 0.5, method="inverted_cdf")
    assert edges[0, 0] <= want <= edges[0, -1]
    assert edges[0, -1] - edges[0, 0] <= 200 / 3**rounds + 1e-12  # rounding of the edges
    assert (np.diff(edges) >= 0).all()


@settings(max_examples=80)
@given(values, st.sampled_from([0.01, 0.25, 0.5, 0.75, 1.0]), st.integers(0, 50), st.integers(2, 9))
def test_the_bins_around_a_quantile_hold_enough_and_no_end_bin_could_be_left_out(x, q, least, bins):
    table, edges = pl.DataFrame({"a": x, "b": x}), first_edges([[-100, 100]] * 2, bins)
    counts = quantile_counts(table, AB, edges)["counts"]
    low, high = around(counts, edges, q, least=least)[0]
    want, last = np.quantile(x, q, method="inverted_cdf"), edges[0, -1]
    inside = [v for v in x if low <= v < high or v == high == last]
    assert low <= want <= high
    assert len(inside) >= min(least, len(x))
    run = edges[0][(edges[0] >= low) & (edges[0] <= high)]
    if len(run) > 2:
        for a, b in ((run[1], high), (low, run[-2])):
            held = [v for v in x if a <= v < b or v == b == last]
            assert len(held) < least or want not in held


def test_counts_by_hand():
    table = pl.DataFrame({"a": [-1.0, 0.0, 24.9, 25.0, 50.0, 100.0, 100.5, None], "b": [None] * 8})
    edges = first_edges([[0, 100], [0, 1]], 4)
    assert edges[0].tolist() == [0, 25, 50, 75, 100]
    counts = quantile_counts(table, AB, edges)["counts"]
    assert counts.dtype == np.int64
    assert counts.tolist() == [[1, 2, 1, 1, 1, 1], [0] * 6]
    finer = refine(counts, edges)
    assert finer[0].tolist() == [25, 31.25, 37.5, 43.75, 50]
    assert finer[1].tolist() == edges[1].tolist()
    np.testing.assert_array_equal(refine(counts / 3, edges), finer)


def test_a_median_outside_the_bounds_is_the_nearer_bound():
    table = pl.DataFrame({"a": [5.0, 6.0, 7.0], "b": [-5.0, -6.0, -7.0]})
    edges = narrowed([table], [[0, 1], [0, 1]], 3)
    assert middle(edges).tolist() == [1.0, 0.0]


def test_a_bin_of_few_is_not_cut():
    edges = first_edges([[0, 100], [0, 100]], 4)
    counts = np.array([[0, 9, 0, 0, 0, 0], [0, 10, 0, 0, 0, 0]])
    finer = refine(counts, edges, least=10)
    assert finer[0].tolist() == edges[0].tolist()
    assert finer[1].tolist() == [0, 6.25, 12.5, 18.75, 25]


def test_bounds_from_the_dictionary_or_openly_rounded():
    d = Dictionary((Entry("a", "number", range=(0, 120)), Entry("b", "number")))
    public = median_bounds(d, AB)
    np.testing.assert_array_equal(public, [[0, 120], [np.nan, np.nan]])
    parts = [
        open_bounds(pl.DataFrame({"a": [18.4, 93.7], "b": [None, None]}), AB),
        open_bounds(pl.DataFrame({"a": [7.0, None], "b": [None, None]}), AB),
    ]
    np.testing.assert_array_equal(parts[0], [[10, 100], [np.nan, np.nan]])
    np.testing.assert_array_equal(merge_bounds(parts), [[6, 100], [0, 1]])
    assert open_bounds(pl.DataFrame({"x": [1]}), Schema((), "y", "classification")).shape == (0, 2)


def test_what_does_not_fit():
    edges = first_edges([[0, 1], [0, 1]], 4)
    for call, said in [
        (lambda: first_edges([[1, 0]]), "low <= high"),
        (lambda: first_edges([[0, np.nan]]), "with NaN. Add ranges"),
        (lambda: first_edges([[0, 1]], 1), "'bins' must be"),
        (lambda: refine(np.zeros((2, 6)), edges, 0.0), "Got 0.0. The median is 0.5"),
        (lambda: refine(np.zeros((2, 5)), edges), "must fit the edges"),
        (lambda: quantile_counts(pl.DataFrame({"a": [1]}), AB, edges[:1]), "a row for each of 2"),
    ]:
        with pytest.raises(ConfigError, match=said):
            call()


def test_missing_numbers_become_the_median():
    table = pl.DataFrame({"a": [1.0, 2.0, 9.0, None], "b": [10.0] * 4, "y": list("npnp")})
    table = pl.concat([table] * 30).with_columns(
        b=pl.Series([None, 5000.0, 4000.0, 3000.0] + [10.0 + i for i in range(116)])
    )
    said = moments(table, AB), vocabulary(table, AB)
    plain, filled = Preparation.of(AB, *said), Preparation.of(AB, *said, centre=np.array([2.0, 100.0]))
    assert plain.logged.tolist() == [False, True]
    there = pl.DataFrame({"a": [2.0], "b": [100.0]})
    gone = pl.DataFrame({"a": [None], "b": [None]}, schema={"a": pl.Float64, "b": pl.Float64})
    np.testing.assert_allclose(filled.inputs(gone)[0, [0, 2]], plain.inputs(there)[0, [0, 2]], rtol=1e-6)
    assert filled.inputs(gone)[0].tolist() != plain.inputs(gone)[0].tolist()
    assert plain.inputs(gone)[0].tolist() == [0, 1, 0, 1]
    np.testing.assert_array_equal(filled.inputs(there), plain.inputs(there))
    again = Preparation.from_tree(filled.to_tree())
    np.testing.assert_array_equal(again.inputs(gone), filled.inputs(gone))
    assert "fill" not in plain.to_tree()["numbers"]
    unknown = Preparation.of(AB, *said, centre=np.array([np.nan, 1e300]))
    np.testing.assert_allclose(unknown.inputs(gone)[0, [0, 2]], [0, LIMIT])
    with pytest.raises(ConfigError, match="one number for each of 2 columns"):
        Preparation.of(AB, *said, centre=np.array([1.0]))
