"""Frequent words from sums of sketches."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comity.data import sketch

SALT = bytes(range(16))


def found(parts, least=10, *, salt=SALT, most=2**31 - 1):
    """The words of several parties' counts, or None where too many buckets are full."""
    buckets = sketch.buckets_for(sum(sum(p.values()) for p in parts), least)
    full = sketch.full(sum(sketch.counted("w", p, salt, buckets) for p in parts), least, 500)
    if full is None:
        return None
    rng, each = np.random.default_rng(0), most // len(parts)
    tables = [sketch.coded("w", p, full, salt, most=each, rng=rng) for p in parts]
    assert max(int(np.abs(t[..., 1:]).max()) for t in tables) <= each
    return sketch.read("w", sum(tables))


def pooled(parts):
    return {w: sum(p.get(w, 0) for p in parts) for w in {w for p in parts for w in p}}


@pytest.mark.parametrize("many", [0, 1, 7, 60, 450])
def test_all_frequent_words_and_hardly_a_rare_one(many):
    rng = np.random.default_rng(many)
    parts = [
        {**{f"wört {i}": int(rng.integers(4, 60)) for i in range(many)}, **{f"rare {k} {i}": 1 for i in range(2000)}}
        for k in range(3)
    ]
    want = {w: n for w, n in pooled(parts).items() if n >= 10}
    assert found(parts) == want


def test_where_words_are_too_many_none_is_told():
    words = {f"w{i}": 11 for i in range(400)}
    assert found([words], 10) == words
    counts = sketch.counted("w", words, SALT, 2**10)
    assert (counts >= 10).mean() > sketch.FULLEST
    assert sketch.full(counts, 10, 500) is None


def test_only_the_most_frequent_where_there_are_many():
    words = {f"w{i}": 10 + i for i in range(60)}
    counts = sketch.counted("w", words, SALT, 2**14)
    full = sketch.full(counts, 10, 20)
    told = sketch.read("w", sketch.coded("w", words, full, SALT, most=2**20, rng=np.random.default_rng(0)))
    assert set(told) == {f"w{i}" for i in range(40, 60)}


def test_a_word_that_is_too_long_is_not_named():
    long, short = "x" * (sketch.LONGEST + 1), "ü" * (sketch.LONGEST // 2)
    assert found([{long: 50, short: 20, "": 15}]) == {short: 20, "": 15}


def test_the_table_does_not_tell_how_many_parties_have_a_word():
    full = sketch.full(sketch.counted("w", {"a": 30}, SALT, 2**10), 10, 500)
    drawn = [
        sketch.coded("w", {"a": 30}, full, SALT, most=2**20, rng=np.random.default_rng(seed))[..., 1].max()
        for seed in range(20)
    ]
    assert len(set(drawn)) > 15


def test_a_cell_of_two_words_is_not_taken_for_one():
    full = np.ones((3, 16), bool)
    words = {f"w{i}": 10 for i in range(400)}  # far more than the cells can tell apart
    told = sketch.read("w", sketch.coded("w", words, full, SALT, most=2**28, rng=np.random.default_rng(0)))
    assert told.items() <= words.items()


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(st.dictionaries(st.text(max_size=20), st.integers(1, 50), max_size=8), min_size=1, max_size=4))
def test_any_words(parts):
    got, want = found(parts), pooled(parts)
    assert got is not None
    assert {w: n for w, n in want.items() if n >= 10}.items() <= got.items() <= want.items()


def test_a_word_in_a_cell_where_it_does_not_belong_is_not_taken():
    full = sketch.full(sketch.counted("w", {"a": 30}, SALT, 2**10), 10, 500)
    table = sketch.coded("w", {"a": 30}, full, SALT, most=2**20, rng=np.random.default_rng(0))
    assert sketch.read("w", table) == {"a": 30}
    assert sketch.read("w", np.roll(table, 1, axis=1)) == {}
