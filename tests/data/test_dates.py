import datetime as dt

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.data.dates import ambiguous_dates, dated
from comity.data.tables import read_table, read_typed


def read(*words):
    return dated(pl.Series("d", words))


@pytest.mark.parametrize(
    ("word", "day"),
    [
        ("1970-01-02", 1.0),
        ("1970-1-2", 1.0),
        ("1970/01/02", 1.0),
        ("1970.01.02", 1.0),
        ("02.01.1970", 1.0),
        ("2.1.1970", 1.0),
        ("13/01/1970", 12.0),
        ("13-01-1970", 12.0),
        ("01/13/1970", 12.0),
        ("02/02/1970", 32.0),
        ("1969-12-31", -1.0),
        ("2000-02-29", 11016.0),
        ("1970-01-02T12:00", 1.5),
        ("1970-01-02 12:00:00", 1.5),
        ("1970-01-02T12:00:00Z", 1.5),
        ("1970-01-02T12:00:00+02:00", 1.5 - 2 / 24),
        ("1970-01-02T12:00:00-0130", 1.5 + 1.5 / 24),
        ("1970-01-02T00:00:00.5", 1 + 0.5 / 86400),
        ("01/13/1970 12:00:00 AM", 12.0),
        ("01/13/1970 12:30 pm", 12.5 + 0.5 / 24),
        ("01/13/1970 6:00 PM", 12.75),
    ],
)
def test_dates_are_days_since_1970(word, day):
    got = read_table(pl.DataFrame({"d": [word, None]}))["d"]
    assert got.dtype == pl.Float64
    assert got[1] is None
    assert got[0] == pytest.approx(day, abs=1e-9)


@pytest.mark.parametrize(
    "words",
    [
        ["2023-02-29"], ["2023-13-01"], ["2023-00-10"], ["2023-01-00"], ["0000-01-01"], ["2024-01-01T24:00"],
        ["2024-01-01T10:60"], ["2024-01-01 13:00 PM"], ["01/02/24"], ["2024-01/05"], ["10:30"], ["2024-01-05 x"],
        ["13/01/2024", "01/13/2024"], ["13/13/2024"], ["2024-01-05", "tomorrow"], ["2024-01-05", "05.01.2024"],
        ["٢٠٢٤-01-05"], ["1.2.3"], ["2024-01"],
    ],
)  # fmt: skip
def test_what_is_no_date_stays_words(words):
    table = read_table(pl.DataFrame({"d": words}))
    assert table["d"].to_list() == words
    assert not ambiguous_dates(table)


def test_one_wrong_value_far_down_keeps_a_column_words():
    words = ["2024-01-05"] * 500
    assert read(*words) is not None
    assert read(*words, "2024-01-32") is None
    assert read(*words, "soon") is None


def test_the_order_is_that_of_the_whole_column():
    assert read("03/02/2024", "13/02/2024").to_list() == [dt.datetime(2024, 2, 3), dt.datetime(2024, 2, 13)]
    assert read("03/02/2024", "02/13/2024").to_list() == [dt.datetime(2024, 3, 2), dt.datetime(2024, 2, 13)]
    assert read("03/02/2024", "12/11/2024") is None


def test_dates_of_two_readings_are_words_with_a_note():
    table = read_table(pl.DataFrame({"seen": ["03/02/2024", "01/12/2024"], "ward": ["a", "b"], "age": [1, 2]}))
    assert table["seen"].to_list() == ["03/02/2024", "01/12/2024"]
    assert list(ambiguous_dates(table)) == ["seen"]
    assert "Write them as 2024-03-05" in ambiguous_dates(table)["seen"]


def test_typed_tables_keep_dates_and_reading_twice_changes_nothing():
    frame = pl.DataFrame({"d": ["2024-03-05"], "day": [dt.date(2024, 3, 5)], "span": [dt.timedelta(days=2)]})
    typed = read_typed(frame)
    assert typed.dtypes == [pl.Datetime("us"), pl.Date, pl.Float64]
    assert read_typed(typed).equals(typed)
    table = read_table(typed)
    assert table.row(0) == (19787.0, 19787.0, 2.0)
    assert read_table(table).equals(table)


@given(st.lists(st.datetimes(dt.datetime(1, 1, 1), dt.datetime(9999, 12, 31)), min_size=1, max_size=20))
def test_iso_round_trip(moments):
    got = dated(pl.Series([m.isoformat() if m.microsecond else m.isoformat(" ") for m in moments]))
    np.testing.assert_array_equal(got.to_list(), moments)
    assert dated(pl.Series([f"{m:%d.%m.}{m.year:04d}" for m in moments])).dt.date().to_list() == [
        m.date() for m in moments
    ]
