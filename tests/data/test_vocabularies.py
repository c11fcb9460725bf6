import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comity.core.errors import ConfigError
from comity.data.dictionary import Dictionary, Entry
from comity.data.prepare import Preparation, moments
from comity.data.schema import Column, Schema
from comity.data.statistics import merge_vocabularies, vocabulary
from comity.data.vocabularies import (
    Hashed,
    Listed,
    Open,
    allowed,
    hashed_counts,
    merge_hashed,
    respond,
    reveal,
    source_of,
)

CD = Schema((Column("c", "category"), Column("d", "category")), "y", "classification", ("n", "p"))
SALT = bytes(range(32))


def table(c, d=None):
    return pl.DataFrame({"c": c, "d": d or c}, schema={"c": pl.String, "d": pl.String})


def asking(parts, salt=SALT):
    return lambda step, question: [respond(p, CD, step, question, salt) for p in parts]


words = st.lists(st.sampled_from(["", "a", "b", "é", "long word", None, *"cdefgh"]), max_size=30)


@settings(max_examples=100)
@given(st.lists(words, min_size=1, max_size=4), st.integers(2, 8))
def test_hashed_words_are_the_open_ones_that_reach_the_minimum(parts, minimum):
    tables = [table(c) for c in parts]
    opened = Open().collect(CD, asking(tables))
    hashed = Hashed(minimum).collect(CD, asking(tables))  # 2**16 buckets: these words do not collide under this salt
    for name in ("c", "d"):
        often = {w: n for w, n in opened[name]["values"].items() if n >= minimum}
        assert hashed[name]["values"] == often
        assert hashed[name]["missing"] == opened[name]["missing"]
        assert hashed[name]["other"] == sum(opened[name]["values"].values()) - sum(often.values())


@settings(max_examples=100)
@given(st.lists(words, min_size=1, max_size=4), st.integers(2, 8), st.integers(2, 5))
def test_a_collision_reveals_only_words_whose_bucket_reached_the_minimum(parts, minimum, buckets):
    tables = [table(c) for c in parts]
    pooled = pl.concat(tables)
    counts = merge_hashed(hashed_counts(t, CD, SALT, buckets) for t in tables)
    np.testing.assert_array_equal(counts["c"], hashed_counts(pooled, CD, SALT, buckets)["c"])
    named = Hashed(minimum, buckets).collect(CD, asking(tables))["c"]["values"]
    for word, times in vocabulary(pooled, CD)["c"]["values"].items():
        bucket = hashed_counts(table([word]), CD, SALT, buckets)["c"].argmax()
        assert (word in named) == (counts["c"][bucket] >= minimum)
        assert named.get(word, times) == times


def test_counts_of_buckets_by_hand():
    one = table(["a", "a", "b", None], ["a", None, None, None])
    counts = hashed_counts(one, CD, SALT, 1000)
    assert counts["c"].dtype == np.int64
    assert sorted(counts["c"][counts["c"] > 0].tolist()) == [1, 2]
    assert counts["d"].sum() == 1
    # the same word lies elsewhere in another column, and under another salt
    assert counts["c"].argmax() != counts["d"].argmax()
    assert counts["c"].argmax() != hashed_counts(one, CD, SALT[::-1], 1000)["c"].argmax()


def test_rare_words_of_one_party_may_be_frequent_together_and_are_then_named_by_all():
    parts = [table(["x"] * 4 + ["rare"]), table(["x"] * 3 + ["y"]), table(["y"] * 2 + ["z"])]
    out = Hashed(3).collect(CD, asking(parts))
    assert out["c"] == {"values": {"x": 7, "y": 3}, "missing": 0, "other": 2}
    may = allowed(merge_hashed(hashed_counts(p, CD, SALT) for p in parts), 3)
    assert may["c"].dtype == bool
    said = [reveal(p, CD, SALT, may) for p in parts]
    assert said[0]["c"] == {"values": {"x": 4}, "missing": 0, "other": 1}
    assert merge_vocabularies(said) == out


def test_numbers_as_words_hash_alike():
    parts = [pl.DataFrame({"c": [1.0, 2.0], "d": ["1", "2"]}), pl.DataFrame({"c": ["1", "x"], "d": [1, 2]})]
    assert Hashed(2).collect(CD, asking(parts))["c"]["values"] == {"1": 2}


def test_the_dictionary_asks_nobody():
    d = Dictionary((Entry("c", "category", codes={"b": "", "a": "x"}, required=True), Entry("d", "boolean")))

    def nobody(step, question):
        raise AssertionError(step)

    said = Listed(d).collect(CD, nobody)
    assert {k: (sorted(v["values"]), v["missing"], v["other"]) for k, v in said.items()} == {
        "c": (["a", "b"], 0, 0),
        "d": (["false", "true"], 1, 0),
    }
    one = table(["a", "q", None], ["true", None, "maybe"])
    p = Preparation.of(CD, moments(one, CD), said)
    assert p.names == ("c=a", "c=b", "d=false", "d=true", "d missing")
    assert p.inputs(one).tolist() == [[1, 0, 0, 1, 0], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0]]
    with pytest.raises(ConfigError, match=r"none for d\. Add codes"):
        Listed(Dictionary(d.columns[:1])).collect(CD, nobody)


def test_a_source_by_name():
    d = Dictionary(())
    assert source_of("open") == Open()
    assert source_of("hashed", minimum=7) == Hashed(7)
    assert source_of("dictionary", d) == Listed(d)
    assert len({source.reveals for source in (Open(), Hashed(), Listed(d))}) == 3


def test_what_does_not_fit():
    one = table(["a"])
    for call, said in [
        (lambda: source_of("hashd"), "Did you mean 'hashed'"),
        (lambda: source_of("dictionary"), "Got None. Give the schema.toml"),
        (lambda: Hashed(1), "'minimum' must be a whole number from 2"),
        (lambda: Hashed(5, 1), "'buckets' must be a whole number from 2"),
        (lambda: hashed_counts(one, CD, b"short"), "16 to 64 bytes. Got 5"),
        (lambda: hashed_counts(one, CD, SALT, 1), "'buckets'"),
        (lambda: reveal(one, CD, SALT, {"c": np.ones(8, bool)}), "'d' is not there"),
        (lambda: respond(one, CD, "words", {}), "Got 'words'"),
    ]:
        with pytest.raises(ConfigError, match=said):
            call()
