"""Each kind of finding on a table made by hand, and none where there should be none."""

import datetime as dt

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comity.checking import Finding, check_table, report
from comity.data.dictionary import Dictionary, Entry
from comity.data.tables import read_table
from comity.data.units import COMMON, guess


def found(entry, values, **others):
    return check_table(pl.DataFrame({entry.name: values, **others}, strict=False), Dictionary((entry,)))


def only(entry, values):
    n = len(values)
    columns = pl.DataFrame({entry.name: values, "row": list(range(n))}, strict=False)
    (finding,) = check_table(columns, Dictionary((entry, Entry("row", "identifier"))))
    return finding


AGE = Entry("age", "number", "years", (0, 120))
SEX = Entry("sex", "category", codes={"1": "male", "2": "female"})


def test_a_table_that_fits():
    assert found(AGE, [0, 61.5, 120, None]) == []
    assert found(SEX, [1.0, 2.0, None]) == []
    assert report([]).startswith("fits ")


def test_missing_and_unknown_columns():
    d = Dictionary((AGE, SEX, Entry("pid", "identifier")), target="outcome", party="hospital")
    table = pl.DataFrame({"Age": [1, 2], "outcom": ["a", "b"], "hospital": ["x", "y"]})
    got = [(f.column, f.problem, f.what_to_do, f.severity) for f in check_table(table, d)]
    assert got == [
        ("age", "the column is missing", "Is it 'Age'? Rename it.", "error"),
        ("sex", "the column is missing", "Add it.", "error"),
        ("outcome", "the column is missing", "Is it 'outcom'? Rename it.", "error"),
        ("Age", "the dictionary has no such column", "Leave it out, or ask to add it to the dictionary.", "warning"),
        ("outcom", "the dictionary has no such column", "Leave it out, or ask to add it to the dictionary.", "warning"),
    ]
    wide = check_table(pl.DataFrame({f"g{i}": [0] for i in range(3000)}), Dictionary(()))
    assert [(f.column, f.problem, f.example) for f in wide] == [
        ("", "the dictionary does not have 3,000 of the columns", "'g0', 'g1', 'g2'")
    ]


def test_words_that_are_no_codes():
    f = only(SEX, ["1"] * 6 + ["Male", "x", "Male", "male", "y", "z"])
    assert f.problem == "6 of 12 values (50 %) are none of the 2 codes"
    assert f.example == "'Male', 'male', 'x'"
    assert (f.what_to_do, f.severity) == ("Write '1' for 'Male', '1' for 'male'.", "error")
    ward = Entry("ward", "category", codes=dict.fromkeys(["surgery", "medicine"], ""))
    assert only(ward, ["surgery", "Surgry", "medicine"]).what_to_do == "Write 'surgery' for 'Surgry'."
    assert "Write one of 'surgery', 'medicine', or ask" in only(ward, ["surgery", "qqq"]).what_to_do


def test_truth_values():
    fit = Entry("fit", "boolean")
    assert found(fit, [True, False, None]) == []
    assert only(fit, ["yes", "no", "true"]).what_to_do == "Write 'false' for 'no', 'true' for 'yes'."
    assert only(fit, [0, 1, 1]).problem == "numbers where words are expected, 2 different"


def test_wrong_types():
    ward = Entry("ward", "category", codes={"a": "", "b": ""})
    f = only(ward, [3, 1, 2])
    assert (f.problem, f.example, f.severity) == ("numbers where words are expected, 3 different", "3, 1, 2", "error")
    assert f.what_to_do == "Write one of 'a', 'b' in this column."
    free = only(Entry("ward", "category"), [3, 1, 2])
    assert (free.problem, free.severity) == ("numbers where words are expected", "warning")
    day = dt.date(2024, 3, 5)
    assert only(AGE, [day, day]).problem == "dates where numbers are expected"
    assert only(Entry("ward", "category"), [day, day]).problem == "dates where words are expected"
    f = only(AGE, ["61", "old", "unknown", "47", "old", "9 years", "young"])
    assert (f.problem, f.example) == ("5 of 7 values (71 %) are no numbers", "'old', 'unknown', '9 years'")
    seen = Entry("seen", "date")
    assert only(seen, ["soon", "later"]).problem == "words where dates are expected"
    assert only(seen, [20240305, 20240306]).problem == "numbers where dates are expected"
    f = only(seen, ["03/02/2024", "01/12/2024"])
    assert (f.problem, f.what_to_do) == ("day and month cannot be told apart", "Write dates as 2024-03-05.")


def test_numbers_outside_the_range():
    f = only(AGE, [50] * 97 + [121, -1, 430])
    assert f.problem == "3 of 100 values (3.0 %) lie outside 0 to 120"
    assert (f.example, f.severity) == ("121, -1, 430", "warning")
    assert f.what_to_do == "Correct them, or ask the others to widen the range in years."
    f = only(AGE, [50] * 9 + [999])
    assert (f.problem, f.severity) == ("1 of 10 values (10 %) lies outside 0 to 120", "error")
    assert f.what_to_do == "999 looks like a code for a missing value. Leave these cells empty."
    assert only(AGE, [50, 999, -1]).what_to_do.startswith("999, -1 look like codes for missing values")
    assert only(AGE, [*range(50), 200, 201, 202, 203]).example == "200, 201, 202"


def test_dates_outside_the_range():
    days = tuple(float((d - dt.date(1970, 1, 1)).days) for d in (dt.date(2019, 1, 1), dt.date(2024, 1, 1)))
    seen = Entry("seen", "date", range=days)
    values = ["2020-05-03", "2024-01-01", "1900-01-01", "2024-01-01T06:30"]
    f = only(seen, values)
    assert f.problem == "2 of 4 values (50 %) lie outside 2019-01-01 to 2024-01-01"
    assert f.example == "1900-01-01, 2024-01-01 06:30"
    plain = read_table(pl.DataFrame({"seen": values}))["seen"]
    assert only(seen, plain).problem == f.problem


def test_missing_values():
    need = Entry("age", "number", range=(0, 120), required=True)
    f = only(need, [50, None, 60, None])
    assert (f.problem, f.severity) == ("a value is required and missing in 2 rows (50 %)", "error")
    assert only(need, [None, None]) == Finding(
        "age", "every value is missing", "", "Fill the column, or leave it out.", "error"
    )
    assert only(AGE, [None, None]).severity == "warning"
    assert found(AGE, [50, None]) == []


def test_repeated_rows():
    (f,) = found(AGE, [50, 60, 50, 50, 60])
    assert (f.column, f.severity) == ("", "warning")
    assert f.problem == "3 rows (60 %) repeat another in every column"
    assert "1 row (50 %) repeats another" in found(AGE, [50, 50])[0].problem


rng = np.random.default_rng(0)
UNITS = [
    ("creatinine", "µmol/L", (20, 1500), rng.lognormal(-0.1, 0.3, 300), "× 88.4 (mg/dL to µmol/L)"),
    ("creatinine", "mg/dL", (0.2, 15), rng.lognormal(4.4, 0.3, 300), "× 0.0113 (µmol/L to mg/dL)"),
    ("glucose", "mg/dL", (20, 800), rng.normal(7, 1.2, 300), "× 18 (mmol/L to mg/dL)"),
    ("Glucose fasting", "mmol/l", (1, 40), rng.normal(126, 20, 300), "× 0.0555 (mg/dL to mmol/L)"),
    ("temperature", "°C", (30, 45), rng.normal(98.6, 1, 300), "× 0.5556 − 17.78 (°F to °C)"),
    ("temp", "F", (86, 113), rng.normal(37, 0.5, 300), "× 1.8 + 32 (°C to °F)"),
    ("height", "cm", (100, 230), rng.normal(67, 4, 300), "× 2.54 (in to cm)"),
    ("weight", "kg", (60, 100), rng.normal(176, 12, 300), "× 0.4536 (lb to kg)"),
    ("weight", "lb", (130, 230), rng.normal(80, 6, 300), "× 2.205 (kg to lb)"),
    ("dose", "mg", (500, 4000), rng.uniform(0.6, 3.5, 300), "× 1000"),
    ("haemoglobin", "g/L", (60, 220), rng.normal(13.5, 1.5, 300), "× 10"),
]


@pytest.mark.parametrize(("name", "unit", "ends", "x", "said"), UNITS)
def test_other_units_are_guessed(name, unit, ends, x, said):
    f = only(Entry(name, "number", unit, ends), x)
    assert f"another unit: {said} would fit" in f.what_to_do
    assert f"Give them in {unit}." in f.what_to_do
    assert f.severity == "error"


def test_no_unit_is_guessed_from_a_few_odd_values():
    x = np.array([50.0] * 60 + [500.0] * 40)
    assert guess(x, AGE) is None
    assert guess(np.array([1e9, 1.0, -5.0, 1e4] * 5), Entry("a", "number", range=(10, 20))) is None
    assert guess(x, Entry("a", "number")) is None
    assert len({str(c) for c in COMMON}) == len(COMMON)


def test_a_report_is_lines_with_errors_first():
    findings = [
        Finding("a", "1 row is odd", "", "Leave it out.", "warning"),
        Finding("b", "the column is missing", "'x'", "Add it.", "error"),
    ]
    assert report(findings).splitlines() == [
        "error      b: the column is missing, such as 'x'.",
        "           Add it.",
        "warning    a: 1 row is odd.",
        "           Leave it out.",
        "checked    1 error, 1 warning",
    ]


column = st.one_of(
    st.lists(st.none() | st.floats(-1e12, 1e12), min_size=30, max_size=30),
    st.lists(st.none() | st.integers(-(10**12), 10**12), min_size=30, max_size=30),
    st.lists(
        st.none() | st.sampled_from(["a", "B", "true", "false", "7", "x, y", "2024-03-05"]), min_size=30, max_size=30
    ),
    st.lists(st.none() | st.booleans(), min_size=30, max_size=30),
    st.lists(st.none() | st.dates(), min_size=30, max_size=30),
    st.lists(st.dates().map(lambda d: f"{d.day:02d}/{d.month:02d}/{d.year:04d}"), min_size=30, max_size=30),
)


@settings(max_examples=100)
@given(st.lists(column, min_size=1, max_size=4), st.integers(0, 3))
def test_a_table_fits_the_dictionary_drafted_from_it(columns, which):
    table = pl.DataFrame({f"c{i}": values for i, values in enumerate(columns)}, strict=False)
    target = f"c{which}" if which < len(columns) else None
    dictionary = Dictionary.of(Dictionary.draft(table, target).to_toml())
    assert [f for f in check_table(table, dictionary) if f.severity == "error"] == []
    again = read_table(table)
    plain = Dictionary.draft(again, target)
    assert [f for f in check_table(again, plain) if f.severity == "error"] == []
