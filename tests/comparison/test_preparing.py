"""One preparation for all: where words come from, what fills a gap, and what travels for it."""

from typing import Any

import numpy as np
import polars
import pytest

import comity as co
from comity.comparison.desk import Desk
from comity.comparison.families import bent, width
from comity.comparison.hub import Hub
from comity.comparison.preparing import Preparing, full, thin
from comity.core.errors import ConfigError
from comity.data.prepare import Preparation, merge_moments, merge_vocabularies, moments, vocabulary
from comity.data.vocabularies import Hashed, Open


def tables() -> dict[str, Any]:
    out = {}
    for i, party in enumerate(("Ayr", "Bern", "Como")):
        rng = np.random.default_rng(i)
        dose = np.where(rng.random(120) < 0.2, None, rng.lognormal(size=120).round(3))
        word = rng.choice(["red", "green", "blue", f"only {party}"], 120, p=[0.4, 0.3, 0.28, 0.02])
        columns = {"dose": dose.tolist(), "age": rng.integers(20, 90, 120), "word": word, "y": rng.integers(0, 2, 120)}
        out[party] = polars.DataFrame(columns)
    return out


def prepared(preparing: Preparing) -> tuple[Hub, Any, Preparation, Any]:
    hub = Hub({p: Desk(p, t, "y", 0) for p, t in tables().items()}, 0, preparing=preparing)
    schema, _, _ = hub.describe("y")
    made, traffic = hub.prepare(schema, 0)
    return hub, schema, made, traffic


def train_rows(hub: Hub, schema: Any) -> Any:
    return polars.concat([desk.known[desk._indices(schema, 0)[0]] for desk in hub.desks.values()])


def test_means_and_open_words_are_those_of_the_pooled_training_rows() -> None:
    hub, schema, made, _ = prepared(Preparing())
    rows = train_rows(hub, schema)
    want = Preparation.of(
        schema, merge_moments([moments(rows, schema)]), merge_vocabularies([vocabulary(rows, schema)])
    )
    assert made.names == want.names
    np.testing.assert_allclose(made.mean, want.mean, rtol=1e-9)
    np.testing.assert_allclose(made.scale, want.scale, rtol=1e-9)


def test_columns_far_from_zero_are_prepared_by_their_own_spread() -> None:
    far = {
        p: t.with_columns(age=polars.Series(1e9 + np.random.default_rng(7).normal(size=120)))
        for p, t in tables().items()
    }
    hub = Hub({p: Desk(p, t, "y", 0) for p, t in far.items()}, 0)
    schema, _, _ = hub.describe("y")
    made, _ = hub.prepare(schema, 0)
    rows, i = train_rows(hub, schema), schema.numbers.index("age")
    np.testing.assert_allclose(made.scale[i], rows["age"].to_numpy().std(), rtol=1e-6)
    z = made.inputs(rows)[:, made.names.index("age")]
    np.testing.assert_allclose([z.mean(), z.std()], [0, 1], atol=1e-3)


def test_a_gap_is_filled_with_the_pooled_median() -> None:
    hub, schema, made, _ = prepared(Preparing(fill="median"))
    known = train_rows(hub, schema)["dose"].drop_nulls().to_numpy()
    median = float(np.quantile(known, 0.5, method="inverted_cdf"))
    i = schema.numbers.index("dose")
    gap, placed = (
        made.inputs(polars.DataFrame({"dose": [value], "age": [50], "word": ["red"]}))[0, made.names.index("dose")]
        for value in (None, median)
    )
    assert gap == pytest.approx(placed, abs=1e-3)
    assert not made.logged[i] or gap != 0


def test_words_that_are_rare_over_all_are_never_named() -> None:
    _, _, made, _ = prepared(Preparing(words=Hashed(minimum=10)))
    _, _, openly, _ = prepared(Preparing(words=Open()))
    assert not any("only" in name for name in made.names)
    assert {n for n in openly.names if n.startswith("word=")} >= {n for n in made.names if n.startswith("word=")}


def test_hashed_counts_travel_by_what_is_not_zero() -> None:
    _, _, _, hashed = prepared(Preparing(words=Hashed(minimum=10)))
    assert max(hashed.up.values()) < 10_000


@pytest.mark.parametrize("x", [np.zeros(100, bool), np.eye(1, 300, 7)[0], np.arange(5), np.ones(64)])
def test_thin_arrays_come_back_bit_for_bit(x: Any) -> None:
    got = full(thin({"at": x, "value": x, "size": x}))["at"]
    assert got.dtype == x.dtype
    np.testing.assert_array_equal(got, x)


def test_another_fill_is_refused() -> None:
    with pytest.raises(ConfigError, match="'mean' or 'median'"):
        Preparing(fill="zero")
    with pytest.raises(ConfigError, match="Did you mean 'hashed'"):
        co.compare(tables(), "y", words_from="hashd")


def test_what_it_reveals_is_reported() -> None:
    answer = co.compare(
        tables(),
        "y",
        model="linear",
        rounds=2,
        repeats=2,
        unseen=False,
        words_from="hashed",
        fill="median",
        pooled=False,
    )
    told = {row["what"]: row["how_much"] for row in answer.results["revealed"]}
    assert "bucket" in told["Words in category columns"]
    assert "rounds of counts" in told["Medians"]
    assert any("Medians" in leaf["what"] for leaf in answer.results["protection"]["leaves"])


def test_inputs_bend_at_the_mean_and_a_deviation_on_either_side() -> None:
    _, schema, made, _ = prepared(Preparing())
    assert schema.numbers == ("age", "dose")
    i = made.names.index("age")
    x = np.zeros((3, len(made.names)), np.float32)
    x[:, i] = (-2.0, 0.5, 9.0)
    got = bent(made, x)
    assert got.shape == (3, width(made))
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got[:, : x.shape[1]], x)
    hinges = got[:, x.shape[1] :].reshape(3, 3, 2)[:, :, 0]
    np.testing.assert_array_equal(hinges, [[0, 0, 0], [1.5, 0.5, 0], [3, 3, 3]])
