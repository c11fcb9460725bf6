import time

import numpy as np
import polars as pl
import pytest

from comity.core.errors import ConfigError
from comity.data.prepare import (
    Codes,
    Preparation,
    merge_moments,
    merge_vocabularies,
    moment_weights,
    moments,
    vocabulary,
)
from comity.data.schema import Column, Schema, agree, describe
from comity.data.statistics import rounded, spread
from comity.data.tables import read_table

MIXED = Schema(
    (Column("a", "number"), Column("c", "category"), Column("b", "number")), "y", "classification", ("n", "p")
)


def mixed(rows, seed=0):
    rng = np.random.default_rng(seed)
    a = rng.normal(50, 10, rows)
    b = rng.exponential(1, rows) ** 3 * 100
    c = rng.choice(["u", "v", "w", "rare"], rows, p=[0.5, 0.3, 0.195, 0.005])
    hide = rng.random((2, rows)) < 0.1
    return pl.DataFrame({"a": a, "b": b, "c": c, "y": rng.choice(["n", "p"], rows)}).with_columns(
        pl.when(pl.Series(~hide[0])).then("a").alias("a"), pl.when(pl.Series(~hide[1])).then("c").alias("c")
    )


def prepared(table, schema=MIXED, **options):
    return Preparation.of(schema, moments(table, schema), vocabulary(table, schema), **options)


def test_moments_of_a_small_table_by_hand():
    m = moments(pl.DataFrame({"a": [0.0, 3.0, None], "b": [None, None, None], "y": ["n"] * 3}), MIXED)
    assert m["count"].tolist() == [2, 0]
    assert m["missing"].tolist() == [1, 3]
    assert m["mean"].tolist() == [1.5, 0]
    assert m["square"].tolist() == [4.5, 0]
    assert m["cube"].tolist() == [13.5, 0]
    np.testing.assert_allclose(m["log"], [np.log(4) / 2, 0])
    np.testing.assert_allclose(m["log_square"], [np.log(4) ** 2 / 2, 0])


def test_merged_statistics_equal_pooled_ones():
    table = mixed(1000)
    parts = [table[:100], table[100:107], table[107:]]
    empty = table[:3].with_columns(a=pl.lit(None))
    parts[0] = pl.concat([parts[0], empty.cast({"a": pl.Float64})])
    pooled = pl.concat(parts)
    merged, want = merge_moments(moments(p, MIXED) for p in parts), moments(pooled, MIXED)
    for k in want:
        np.testing.assert_allclose(merged[k], want[k], rtol=1e-9)
    words = merge_vocabularies(vocabulary(p, MIXED) for p in parts)
    assert words == vocabulary(pooled, MIXED)


def test_averaging_with_the_weights_serves_as_well_as_merging():
    table = mixed(400)
    parts = [moments(p, MIXED) for p in (table[:50], table[50:])]
    weights = [moment_weights(p) for p in parts]
    mean = {
        k: sum(p[k] * w[k] for p, w in zip(parts, weights, strict=True)) / sum(w[k] for w in weights) for k in parts[0]
    }
    said = vocabulary(table, MIXED)
    one, two = Preparation.of(MIXED, mean, said), prepared(table)
    np.testing.assert_allclose(one.transform(table)[0], two.transform(table)[0], rtol=1e-6)


def test_transform_of_merged_equals_transform_of_pooled():
    table = mixed(600)
    parts = [table[:40], table[40:300], table[300:]]
    merged = Preparation.of(
        MIXED,
        merge_moments(moments(p, MIXED) for p in parts),
        merge_vocabularies(vocabulary(p, MIXED) for p in parts),
    )
    pooled = prepared(table)
    assert merged.names == pooled.names
    np.testing.assert_allclose(merged.transform(table)[0], pooled.transform(table)[0], atol=1e-6)
    np.testing.assert_array_equal(merged.ordinal(table), pooled.ordinal(table))


def test_numbers_are_standardised_and_gaps_are_told():
    table = mixed(2000)
    p = prepared(table)
    x, y = p.transform(table)
    assert (x.dtype, y.dtype, x.shape) == (np.float32, np.int64, (2000, len(p.names)))
    assert p.names == ("a", "a missing", "b", "c=rare", "c=u", "c=v", "c=w", "c missing")
    place = {name: i for i, name in enumerate(p.names)}
    gap = table["a"].is_null().to_numpy()
    np.testing.assert_allclose([x[~gap, 0].mean(), x[~gap, 0].std()], [0, 1], atol=1e-5)
    assert not x[gap, 0].any()
    np.testing.assert_array_equal(x[:, place["a missing"]], gap)
    assert "b missing" not in p.names
    assert p.logged.tolist() == [False, True]
    np.testing.assert_allclose([x[:, place["b"]].mean(), x[:, place["b"]].std()], [0, 1], atol=1e-5)
    words = [i for n, i in place.items() if n.startswith("c")]
    np.testing.assert_array_equal(x[:, words].sum(1), 1)


def test_far_values_are_clipped_and_constant_ones_are_zero():
    table = pl.DataFrame({"a": [1.0, -1.0], "b": [7.0, 7.0], "c": ["u", "u"], "y": ["n", "p"]})
    p = prepared(table)
    x = p.inputs(pl.DataFrame({"a": [1e30, -1e30], "b": [7.0, 7.0], "c": ["u", "u"]}))
    assert x[:, 0].tolist() == [10, -10]
    assert x[:, p.names.index("b")].tolist() == [0, 0]


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e9])
def test_a_column_far_from_zero_is_still_standardised(scale):
    x = scale * (1e4 + np.random.default_rng(0).normal(size=500))
    schema = Schema((Column("a", "number"),), "y", "classification", ("n", "p"))
    z = prepared(pl.DataFrame({"a": x}), schema).inputs(pl.DataFrame({"a": x}))
    np.testing.assert_allclose([z.mean(), z.std()], [0, 1], atol=1e-4)


def test_rounding_in_the_sums_is_not_taken_for_spread():
    schema = Schema((Column("a", "number"),), "y", "classification", ("n", "p"))
    table = pl.DataFrame({"a": np.full(1000, 123456.7)})
    p = Preparation.of(schema, merge_moments(moments(t, schema) for t in (table[:7], table[7:300], table[300:])), {})
    assert np.abs(p.inputs(table)).max() < 1e-6


def test_only_spread_that_is_large_beside_the_mean_is_logged():
    schema = Schema((Column("a", "number"),), "y", "classification", ("n", "p"))
    heavy = np.random.default_rng(0).lognormal(0, 1, 2000)
    assert prepared(pl.DataFrame({"a": heavy}), schema).logged.tolist() == [True]
    assert prepared(pl.DataFrame({"a": heavy + 1e3}), schema).logged.tolist() == [False]
    assert prepared(pl.DataFrame({"a": -heavy}), schema).logged.tolist() == [False]


def test_words_rare_unseen_and_missing():
    said = {"values": {"u": 9, "v": 5, "w": 4, "x": 7}, "missing": 0, "other": 0}
    codes = Codes.of(said, rare=5, most=2)
    assert codes == Codes(("u", "x"), other=True, missing=False)
    assert codes.names("c") == ["c=u", "c=x", "c other"]
    series = pl.Series(["x", "u", "w", "new", None])
    assert codes.places(series).tolist() == [1, 0, 2, 2, -1]
    assert codes.indices(series).tolist() == [1, 0, 2, 2, -1]
    whole = Codes(("u",), other=False, missing=True)
    assert whole.places(series).tolist() == [-1, 0, -1, -1, 1]
    assert Codes.of({"values": {"u": 1}, "missing": 2, "other": 0}, rare=2, most=9) == Codes((), True, True)
    assert Codes((), True, True).places(series).tolist() == [0, 0, 0, 0, 1]


def test_equally_frequent_words_are_kept_in_order_of_their_names():
    assert Codes.of({"values": dict.fromkeys("dcba", 5), "missing": 0, "other": 0}, rare=1, most=2).values == ("a", "b")


def test_a_party_names_its_500_most_frequent_words():
    table = pl.DataFrame({"c": [f"w{i:03d}" for i in range(600)] + ["w599"] * 3 + [None]})
    said = vocabulary(table, Schema((Column("c", "category"),), "y", "classification", ("n", "p")))["c"]
    assert len(said["values"]) == 500
    assert (said["values"]["w599"], said["missing"], said["other"]) == (4, 1, 100)
    assert "w498" in said["values"]
    assert "w499" not in said["values"]


def test_numbers_and_words_of_another_party_fit():
    schema = Schema((Column("c", "category"), Column("n", "number")), "y", "classification", ("0", "1"))
    there = pl.DataFrame({"c": [1.0, 2.0, None], "n": ["4", "six", None], "y": [1.0, 0.0, 1.0]})
    here = pl.DataFrame({"c": ["1", "x", "2"], "n": [4, 6, 5], "y": ["1", "0", "1"]})
    p = prepared(here, schema, rare=1)
    x, y = p.transform(there)
    assert p.names == ("c=1", "c=2", "c=x", "n")
    np.testing.assert_array_equal(x[:, :3], [[1, 0, 0], [0, 1, 0], [0, 0, 0]])
    np.testing.assert_allclose(x[:, 3], [-np.sqrt(1.5), 0, 0], rtol=1e-6)
    assert y.tolist() == [1, 0, 1]


def test_a_column_wholly_missing_at_one_party():
    table = read_table(pl.DataFrame({"a": [None, None], "c": [None, None], "b": [1, 2], "y": ["n", "p"]}))
    p = prepared(mixed(300))
    x = p.inputs(table)
    assert not x[:, 0].any()
    assert x[:, p.names.index("a missing")].all()
    assert x[:, p.names.index("c missing")].all()
    assert np.isnan(p.ordinal(table)[:, [0, 2]]).all()
    alone = prepared(table)
    assert np.isfinite(alone.inputs(table)).all()


def test_inputs_for_trees():
    table = pl.DataFrame({"a": [1.5, None], "c": ["v", "new"], "b": [2, 3], "y": ["n", "p"]})
    p = prepared(
        pl.DataFrame({"a": [1.0], "c": ["u"], "b": [1], "y": ["n"]}).vstack(table.cast({"b": pl.Int64}))[:2], rare=1
    )
    x = p.ordinal(table)
    assert p.categorical == (False, False, True)
    np.testing.assert_array_equal(x, np.array([[1.5, 2, 1], [np.nan, 3, 2]], np.float32))


def test_regression_trains_on_a_standardised_target():
    schema = Schema((Column("a", "number"),), "y", "regression")
    table = pl.DataFrame({"a": [1, 2, 3, 4], "y": [10.0, 20.0, 30.0, 40.0]})
    p = Preparation.of(schema, merge_moments([moments(table[:1], schema), moments(table[1:], schema)]), {})
    y = p.targets(table)
    assert (y.dtype, y.tolist()) == (np.float32, [10, 20, 30, 40])
    z = p.to_standard(y)
    np.testing.assert_allclose([z.mean(), z.std()], [0, 1], atol=1e-6)
    np.testing.assert_allclose(p.to_target(z), y, rtol=1e-6)
    assert p.names == ("a",)
    assert Preparation.from_tree(p.to_tree()).target_scale == p.target_scale


def test_targets_that_do_not_fit():
    p = prepared(mixed(100))
    with pytest.raises(ConfigError, match=r"one of n, p in every row\. It is 'q' in 1 rows"):
        p.targets(pl.DataFrame({"y": ["n", "q"]}))
    with pytest.raises(ConfigError, match="It is missing in 2 rows"):
        p.targets(pl.DataFrame({"y": ["n", None, None]}))
    with pytest.raises(ConfigError, match="no column 'b'"):
        p.inputs(mixed(10).drop("b"))
    with pytest.raises(ConfigError, match=">= 1"):
        prepared(mixed(10), rare=0)
    numbers = Preparation.of(
        Schema((), "y", "regression"), moments(pl.DataFrame({"y": [0.5, 1]}), Schema((), "y", "regression")), {}
    )
    with pytest.raises(ConfigError, match=r"a number in every row\. It is 'low' in 1 rows"):
        numbers.targets(pl.DataFrame({"y": ["0.5", "low"]}))


def test_the_preparation_is_a_tree_in_any_order():
    def backwards(tree):
        return {k: backwards(tree[k]) for k in reversed(tree)} if isinstance(tree, dict) else tree

    table = mixed(500)
    p = prepared(table)
    again = Preparation.from_tree(backwards(p.to_tree()))
    assert again.names == p.names
    np.testing.assert_array_equal(again.inputs(table), p.inputs(table))
    np.testing.assert_array_equal(again.ordinal(table), p.ordinal(table))
    assert all(isinstance(k, str) for k in p.to_tree())


def test_a_large_table_takes_seconds():
    rng, n = np.random.default_rng(0), 200_000
    table = pl.DataFrame(
        {f"x{i}": rng.normal(size=n) for i in range(7)}
        | {f"c{i}": rng.choice([f"v{j}" for j in range(20)], n) for i in range(7)}
        | {"y": rng.choice(["n", "p"], n)}
    )
    start = time.process_time()
    table = read_table(table)
    schema = agree({"A": describe(table, "y")}, "y")
    x, _ = prepared(table, schema).transform(table)
    assert x.shape == (n, 7 + 7 * 20)
    assert time.process_time() - start < 10


@pytest.mark.parametrize("centre", [1e9, -3e12])
def test_a_spread_that_is_lost_in_the_squares_is_found_around_the_common_mean(centre):
    schema = Schema((Column("a", "number"),), "y", "classification", ("n", "p"))
    rng = np.random.default_rng(1)
    parts = [pl.DataFrame({"a": centre + shift + rng.normal(size=n)}) for shift, n in ((0, 50), (3, 700), (-2, 400))]
    merged = merge_moments(moments(t, schema) for t in parts)
    assert rounded(merged)
    told = [spread(t, schema, merged["mean"]) for t in parts]
    total = sum(square * count for square, count in told) / sum(count for _, count in told)
    z = Preparation.of(schema, {**merged, "variance": total}, {}).inputs(pl.concat(parts))
    np.testing.assert_allclose([z.mean(), z.std()], [0, 1], atol=1e-3)
    flat = pl.DataFrame({"a": np.full(300, centre + 0.7)})
    m = moments(flat, schema)
    still = Preparation.of(schema, {**m, "variance": spread(flat, schema, m["mean"])[0]}, {})
    assert np.abs(still.inputs(flat)).max() < 1e-6
