"""`co.stats(..., channel=...)`, by sums alone, against numpy on the pooled table."""

from typing import Any

import numpy as np
import polars
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import comity as co
from comity.data.dictionary import Dictionary, Entry
from comity.figures import Histogram, Number
from comity.secure_stats import party
from comity.secure_stats.hub import told

CENTRES = {"plain": (3.0, 1.0), "far": (1e9, 1.0), "small": (-1e-6, 1e-7), "heavy": (0.0, 1.0)}
SHARES = (0.001, 0.1, 0.5, 0.9, 1.0)
CHANNELS = {
    "Plain": co.Plain,
    "SecAgg": co.SecAgg,
    "TwoServer": lambda: co.TwoServer(co.Helper()),
}


def table(seed: int, rows: int) -> polars.DataFrame:
    rng, columns = np.random.default_rng(seed), dict[str, Any]()
    for name, (centre, spread) in CENTRES.items():
        x = rng.normal(size=rows)
        x = np.exp(3 * x) if name == "heavy" else centre + spread * (x + seed % 3)
        columns[name] = [np.nan if gap else float(v) for v, gap in zip(x, rng.random(rows) < 0.1, strict=True)]
    columns["word"] = [None if u < 0.1 else ["a", "b", "ü"][int(3 * u)] for u in rng.random(rows)]
    columns["often"] = [f"w{v}" for v in rng.zipf(1.6, rows)]
    columns["name"] = [f"Miss {seed}.{i}" for i in range(rows)]
    return polars.DataFrame(columns).with_columns(polars.selectors.float().fill_nan(None))


def tables() -> dict[str, polars.DataFrame]:
    return {f"party {i}": table(i, rows) for i, rows in enumerate((1, 60, 400, 500))}


def pooled(parts: dict[str, polars.DataFrame]) -> polars.DataFrame:
    return polars.concat(parts.values(), how="vertical_relaxed")


def held(got: Any, x: Any, *, least: int = 10) -> None:
    """Is a column what numpy says of its values?"""
    assert isinstance(got, Number)
    assert got.count == len(x)
    reach = np.ptp(x) + 8 * np.spacing(np.abs(x).max())
    assert abs(got.mean - x.mean()) <= 1e-6 * reach
    assert got.variance == pytest.approx(x.var(), rel=1e-6, abs=1e-18 * reach**2)
    for q, known in got.quantiles.items():
        assert abs(known.value - np.quantile(x, q, method="inverted_cdf")) <= known.error
    bins = got.histogram
    assert isinstance(bins, Histogram)
    cut = np.clip(x, bins.edges[0], bins.edges[-1]) if bins.edges else x
    if bins.edges and bins.edges[0] < bins.edges[-1]:
        assert bins.counts == tuple(np.histogram(cut, bins.edges)[0])
        assert (x < bins.edges[0]).sum() < least > (x > bins.edges[-1]).sum()
    assert all(n >= least for n in bins.counts)


@pytest.mark.parametrize("channel", CHANNELS)
def test_figures_are_those_of_the_pooled_table(channel: str) -> None:
    parts = tables()
    found, whole = co.stats(parts, channel=CHANNELS[channel](), quantiles=SHARES), pooled(parts)
    assert (found.parties, found.rows, found.left_out) == (4, 961, {})
    for name in CENTRES:
        x = whole[name].drop_nulls().to_numpy()
        held(found.columns[name], x)
        assert set(found.columns[name].quantiles) == {0.1, 0.5, 0.9}  # type: ignore[union-attr]
        assert found.columns[name].missing == 961 - len(x)
    for name in ("word", "often", "name"):
        rows: Any = dict(whole[name].drop_nulls().value_counts().iter_rows())
        got: Any = found.columns[name]
        assert (got.count, got.error) == (sum(rows.values()), 0)
        often = {w for w, n in rows.items() if n >= 10}
        assert {w: rows[w] for w in got.values} == dict(got.values)
        assert often >= set(got.values) >= {w for w in often if rows[w] > 10 * (got.other < 20)}
        assert got.other == got.count - sum(got.values.values())
        assert got.other == 0 or got.other >= 10
    assert list(found.columns["often"].values)[:2] == ["w1", "w2"]  # type: ignore[union-attr]
    assert min(found.bytes_up, found.bytes_down) > 0


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.lists(st.lists(st.one_of(st.integers(-9, 9), st.floats(-1e6, 1e6)), max_size=12), min_size=2, max_size=4))
def test_any_values(values: list[list[float]]) -> None:
    parts = {f"p{i}": polars.DataFrame({"x": [*map(float, v), None], "y": 0.0}) for i, v in enumerate(values)}
    found = co.stats(parts, channel=co.Plain(), quantiles=SHARES, bins=7, least=2)
    x = np.concatenate(values)
    if len(x) < 2:
        assert "x" in found.left_out
    else:
        held(found.columns["x"], x, least=2)


def test_nobodys_smallest_or_largest_value_is_told() -> None:
    rng = np.random.default_rng(3)
    parts = {p: polars.DataFrame({"x": rng.normal(50, 10, size=200)}) for p in "abc"}
    parts["c"] = polars.concat([parts["c"], polars.DataFrame({"x": [7_654_321.0, -1234.5]})])
    got: Any = co.stats(parts, channel=co.SecAgg(), quantiles=(0.5, 1.0)).columns["x"]
    assert got.histogram.edges[0] > 0
    assert got.histogram.edges[-1] < 100
    assert sum(got.histogram.counts) == got.count == 602
    assert set(got.quantiles) == {0.5}
    held(got, polars.concat(parts.values())["x"].to_numpy())


def test_no_bin_of_few_values_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    edges: dict[str, list[Any]] = {}
    plain = party.Teller._counts

    def counts(self: Any, asked: Any) -> Any:
        for name, own in asked["edges"].items():
            edges.setdefault(name, []).append(own[0])
        return plain(self, asked)

    monkeypatch.setattr(party.Teller, "_counts", counts)
    rng = np.random.default_rng(5)
    parts = {p: polars.DataFrame({"x": rng.standard_cauchy(60)}) for p in "abc"}
    co.stats(parts, channel=co.SecAgg(), quantiles=(0.1, 0.5))
    x = polars.concat(parts.values())["x"].to_numpy()
    assert edges.keys() == {"low", "high", "histogram", "first", "0.1", "0.5"}
    for name in ("low", "high", "0.1", "0.5"):
        assert all(((x >= e[0]) & (x <= e[-1])).sum() >= 10 for e in edges[name])


def test_a_range_far_wider_than_its_values_costs_no_digits() -> None:
    known = Dictionary((Entry("x", "number", range=(-1e16, 1e16)),))
    rng = np.random.default_rng(2)
    parts = {p: polars.DataFrame({"x": rng.normal(5, 1, size=80)}) for p in "abc"}
    got: Any = co.stats(parts, channel=co.SecAgg(), dictionary=known, quantiles=()).columns["x"]
    x = polars.concat(parts.values())["x"].to_numpy()
    assert (got.mean, got.variance) == (pytest.approx(x.mean(), rel=1e-12), pytest.approx(x.var(), rel=1e-12))


def test_a_dictionary_gives_columns_ranges_and_codes(asked: list[str]) -> None:
    known = Dictionary(
        (
            Entry("age", "number", range=(0, 100)),
            Entry("sick", "boolean"),
            Entry("sex", "category", codes={"f": "", "m": "", "x": ""}),
            Entry("patient", "identifier"),
            Entry("none", "number", range=(0, 1)),
        )
    )
    rng = np.random.default_rng(1)
    parts = {
        p: polars.DataFrame(
            {
                "age": rng.uniform(20, 130, 80),
                "sick": rng.random(80) < 0.3,
                "sex": rng.choice(["f", "m", "?x"], 80),
                "patient": range(80),
                "own": 1,
                **({"none": 0.5} if p == "c" else {}),
            }
        )
        for p in "abc"
    }
    found, whole = co.stats(parts, channel=co.SecAgg(), dictionary=known), polars.concat(parts.values(), how="diagonal")
    assert found.left_out == {"patient": "an identifier", "none": "in 1 of 3 parties"}
    assert list(found.columns) == ["age", "sex", "sick"]
    age: Any = found.columns["age"]
    held(age, np.clip(whole["age"].to_numpy(), 0, 100))
    assert (age.histogram.edges[0], age.histogram.edges[-1]) == (0, 100)
    rows = dict(whole["sex"].value_counts().iter_rows())
    assert dict(found.columns["sex"].values) == {k: rows[k] for k in sorted("fm", key=lambda w: -rows[w])}  # type: ignore[union-attr]
    assert found.columns["sex"].other == rows["?x"]  # type: ignore[union-attr]
    assert found.columns["sick"].values["true"] == whole["sick"].sum()  # type: ignore[union-attr]
    assert not {"names", "codes"} & set(asked)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What parties are asked; "step by party" of those who are gone by then may be put in."""
    seen: list[str] = []
    plain = party.Teller.contribute

    def contribute(self: Any, shared: Any, local: Any, round: Any, secret: Any) -> Any:
        step = shared.value["step"]
        if f"{step} by {round.me}" in seen:
            raise RuntimeError("gone")
        seen.append(step)
        return plain(self, shared, local, round, secret)

    monkeypatch.setattr(party.Teller, "contribute", contribute)
    return seen


@pytest.mark.parametrize("channel", CHANNELS)
@pytest.mark.parametrize("step", ["names", "columns"])
def test_who_is_gone_before_any_figure_is_left_out(channel: str, step: str, asked: list[str]) -> None:
    parts = tables()
    asked.append(f"{step} by party 3")
    found = co.stats(parts, channel=CHANNELS[channel]())
    parts.pop("party 3")
    assert (found.parties, found.rows) == (3, 461)
    held(found.columns["plain"], pooled(parts)["plain"].drop_nulls().to_numpy())


@pytest.mark.parametrize("channel", CHANNELS)
@pytest.mark.parametrize("step", ["rows", "sums", "counts", "away", "words"])
def test_who_is_gone_later_is_not_summed_without(channel: str, step: str, asked: list[str]) -> None:
    asked.append(f"{step} by party 3")
    with pytest.raises(co.TooFewParticipants, match="The same 4 parties must answer"):
        co.stats(tables(), channel=CHANNELS[channel]())


def test_nothing_is_opened_of_a_cohort_that_lacks_one(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    plain = co.SecAgg.open

    def open_(self: Any, sealed: Any, session: Any, ask: Any, until: Any) -> Any:
        for c in plain(self, sealed, session, ask, until):
            opened.append(c.kind)
            yield c

    monkeypatch.setattr(co.SecAgg, "open", open_)
    asked.append("rows by party 3")
    with pytest.raises(co.TooFewParticipants):
        co.stats(tables(), channel=co.SecAgg())
    assert opened == ["columns"]


def test_columns_that_not_all_have() -> None:
    parts: Any = {p: polars.DataFrame({"x": range(20), "e": None, "w": "a"}) for p in "abc"}
    parts["b"] = parts["b"].with_columns(own=polars.lit(1.0))
    parts["c"] = parts["c"].with_columns(x=polars.lit(None, polars.Float64), w=polars.lit(2))
    found = co.stats(parts, channel=co.SecAgg())
    assert found.left_out == {"own": "in 1 of 3 parties", "e": "empty"}
    assert (found.columns["x"].count, found.columns["x"].missing) == (40, 20)
    assert found.columns["w"].values == {"a": 40, "2": 20}  # type: ignore[union-attr]


def test_small_counts_are_words() -> None:
    few: Any = {
        p: polars.DataFrame({"x": [*range(30), *[None] * gap], "rare": [1.0, 2.0, *[None] * (28 + gap)]})
        for p, gap in (("a", 1), ("b", 0), ("c", 2))
    }
    found = co.stats(few, channel=co.SecAgg())
    assert found.left_out == {"rare": "fewer than 10 values"}
    assert (found.rows, found.columns["x"].missing, found.columns["x"].count) == (90, "<10", 90)
    one = co.stats({p: polars.DataFrame({"x": [1.0]}) for p in "abc"}, channel=co.SecAgg())
    assert (one.rows, one.columns, one.left_out) == ("<10", {}, {"x": "fewer than 10 values"})
    assert co.stats({p: polars.DataFrame({"x": [1.0]}) for p in "abc"}, channel=co.SecAgg(), least=1).rows == 3


def test_what_another_column_lacks_does_not_give_a_small_number_away() -> None:
    assert told(961, {"a": 0, "b": 100}, 10) == (961, {"a": 0, "b": 100})
    rows, missing = told(961, {"a": 0, "b": 104, "c": 7}, 10)
    assert (rows, missing) == (960, {"a": "<10", "b": 100, "c": "<10"})


def test_values_that_no_bin_takes() -> None:
    parts = {p: polars.DataFrame({"x": [1.0] * 9 + [1e39], "y": 2.0}) for p in "abc"}
    found = co.stats(parts, channel=co.SecAgg())
    assert (list(found.columns), found.left_out) == (["y"], {"x": "values beyond 1e38, and no range is declared"})


def test_two_parties_are_refused_before_anything_is_asked(asked: list[str]) -> None:
    two = {p: polars.DataFrame({"x": [1.0]}) for p in "ab"}
    with pytest.raises(co.ConfigError, match=r"at least 3; of fewer, a sum less one's own is somebody else's\. Got 2"):
        co.stats(two, channel=co.SecAgg())
    with pytest.raises(co.ConfigError, match="at least 5"):
        co.stats({**two, "c": two["a"]}, channel=co.SecAgg(minimum=5))
    assert not asked
    assert co.stats(two, channel=co.Plain(), least=1).columns["x"].count == 2


def test_what_does_not_fit() -> None:
    parts = {p: polars.DataFrame({p: [1.0], "x": 1}) for p in "abc"}
    for bad, says in (({"channel": co.SecAgg(groups=3)}, "one that reveals one sum"), ({"channel": 1}, "channel")):
        with pytest.raises(co.ConfigError, match=says):
            co.stats(parts, **bad)  # type: ignore[arg-type]
    with pytest.raises(co.ConfigError, match="where there is no channel"):
        co.stats(parts, dictionary=Dictionary(()))
    with pytest.raises(co.ConfigError, match="a column that all 3 parties have"):
        co.stats({p: t.drop("x") for p, t in parts.items()}, channel=co.SecAgg())
    with pytest.raises(co.ConfigError, match="There must be a column to tell of"):
        co.stats(parts, channel=co.SecAgg(), dictionary=Dictionary(()))


def test_the_same_channel_answers_again() -> None:
    parts = {p: polars.DataFrame({"x": range(10)}) for p in "abc"}
    channel = co.TwoServer(co.Helper())
    first, second = co.stats(parts, channel=channel), co.stats(parts, channel=channel)
    assert first.columns == second.columns


@pytest.mark.slow
def test_a_cohort_so_large_that_neighbours_are_some_only() -> None:
    rng = np.random.default_rng(0)
    parts = {f"p{i:02}": polars.DataFrame({"x": rng.normal(size=5), "w": rng.choice(["a", "b"], 5)}) for i in range(32)}
    found, whole = co.stats(parts, channel=co.SecAgg()), polars.concat(parts.values())
    held(found.columns["x"], whole["x"].to_numpy())
    assert dict(found.columns["w"].values) == dict(whole["w"].value_counts().iter_rows())  # type: ignore[union-attr]
