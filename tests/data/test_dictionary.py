import datetime as dt

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comity.core.errors import ConfigError
from comity.data.dictionary import Dictionary, Entry, outwards, without_codes

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
number = st.floats(allow_nan=False, allow_infinity=False)
day = st.floats(-700_000, 2_900_000).map(lambda v: round(v * 86_400) / 86_400)


@st.composite
def entries(draw, name):
    kind = draw(st.sampled_from(["number", "category", "date", "boolean", "identifier"]))
    ends = st.tuples(day, day) if kind == "date" else st.tuples(number, number)
    return Entry(
        name,
        kind,
        draw(text),
        draw(st.none() | ends.map(lambda pair: (min(pair), max(pair)))),
        draw(st.dictionaries(text, text, max_size=3) | st.dictionaries(text, st.just(""), max_size=3)),
        draw(st.booleans()),
    )


@st.composite
def dictionaries(draw):
    names = draw(st.lists(text, max_size=4, unique=True))
    return Dictionary(tuple(draw(entries(name)) for name in names), draw(text), draw(text), draw(text))


@settings(max_examples=150)
@given(dictionaries())
def test_what_is_written_reads_the_same(dictionary):
    again = Dictionary.of(dictionary.to_toml())
    assert (again.title, again.target, again.party) == (dictionary.title, dictionary.target, dictionary.party)
    for got, want in zip(again.columns, dictionary.columns, strict=True):
        same = (got.name, got.type, got.unit, dict(got.codes), got.required)
        assert same == (want.name, want.type, want.unit, dict(want.codes), want.required)
        assert list(got.codes) == list(want.codes)
        if want.type == "date" and want.range is not None:
            assert got.range == pytest.approx(want.range, abs=1e-6)
        else:
            assert got.range == want.range


def test_a_file_as_people_write_it(tmp_path):
    path = tmp_path / "schema.toml"
    path.write_text(
        """title = "Readmission"
target = "outcome"
party = "hospital"
[columns.outcome]
type = "category"
codes = ["no", "yes"]
required = true
[columns."blood pressure"]
type = "number"
unit = "mmHg"
range = [40, 260.5]
[columns.sex]
type = "category"
codes = {"1" = "male", 2 = "female"}
[columns.seen]
type = 'date'
range = [1970-01-02, 1970-01-03T12:00:00Z]
""",
        encoding="utf-8-sig",
    )
    d = Dictionary.load(str(path))
    assert (d.title, d.target, d.party) == ("Readmission", "outcome", "hospital")
    assert d.entry("blood pressure") == Entry("blood pressure", "number", "mmHg", (40.0, 260.5))
    assert d.entry("sex").codes == {"1": "male", "2": "female"}
    assert d.entry("seen").range == (1.0, 2.5)
    assert d.entry("outcome") == Entry("outcome", "category", codes={"no": "", "yes": ""}, required=True)
    assert d.entry("age") is None
    assert without_codes(d, ["sex", "seen", "ward"]) == ["seen", "ward"]


COLUMN = '[columns.age]\ntype = "number"\n'


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ('title = "x"\ntarget = \n', "In line 2: Invalid value. Mend"),
        ('title = "x"\n\ntarget = "y', "In line 3: "),
        (COLUMN + COLUMN, "In line 3: "),
        ("title = 1\n", "'title' must be text. Got 1, in line 1 of schema.toml"),
        ('\ntaget = "x"\n', "in line 2 of schema.toml. Did you mean 'target'"),
        ("columns = 3\n", "must be tables .* in line 1"),
        ("[columns]\nage = 3\n", "must be a table .* Got 3, in line 2"),
        ('[columns.age]\n\ntype = "numbr"\n', "Got 'numbr', in line 3 of schema.toml. Did you mean 'number'"),
        ('[columns.age]\nunit = "y"\n', "Got None, in line 1"),
        (COLUMN + "units = 3\n", "'age' has 'units', in line 3 of schema.toml. Did you mean 'unit'"),
        (COLUMN + "unit = 3\n", "unit of 'age' must be text.* in line 3"),
        (COLUMN + 'unit = "y"\n[columns.b]\ntype = "number"\nunit = 3\n', "unit of 'b' must be text.* in line 6"),
        (COLUMN + "required = 1\n", "must be true or false. Got 1, in line 3"),
        (COLUMN + "range = [3, 1]\n", r"low <= high. Got \[3, 1\], in line 3"),
        (COLUMN + "range = [1]\n", "two numbers.* in line 3"),
        (COLUMN + "range = [true, 3]\n", "two numbers"),
        (COLUMN + "range = [0, inf]\n", "two numbers"),
        (COLUMN + 'range = "0-3"\n', "two numbers"),
        ('[columns."a b"]\ntype = "date"\nrange = [1, 2]\n', "range of 'a b' must be two dates.* in line 3"),
        (COLUMN + "codes = [1, 2]\n", "codes of 'age' must be words.* in line 3"),
        (COLUMN + "[columns.age.codes]\n1 = 2\n", "codes of 'age' .* in line 3"),
        (COLUMN + '[columns.sex]\ntype = "category"\ncodes = 3\n', "codes of 'sex' .* in line 5"),
    ],
)
def test_what_does_not_fit_names_the_line(toml, said):
    with pytest.raises(ConfigError, match=said):
        Dictionary.of(toml)


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "latin.toml").write_bytes(b'title = "\xfc"\n')
    for name in ("none.toml", "latin.toml"):
        with pytest.raises(ConfigError, match="must be a file of UTF-8 text"):
            Dictionary.load(tmp_path / name)


def mixed(n=60):
    return pl.DataFrame(
        {
            "patient_id": range(1000, 1000 + n),
            "age": [18 + i * 37 % n for i in range(n)],
            "kids": [1 + i % 5 for i in range(n)],
            "albumin": [1.5 + i / 17 for i in range(n)],
            "sex": [("f", "m", None)[i % 3] for i in range(n)],
            "code": [f"c{i % 51}" for i in range(n)],
            "fit": [bool(i % 2) for i in range(n)],
            "seen": [dt.date(2019, 5, 3) + dt.timedelta(days=9 * (i % 50)) for i in range(n)],
            "born": [f"{1931 + i}-02-03" for i in range(n)],
            "empty": [None] * n,
            "hospital": ["Bern"] * n,
            "stage": [i % 3 for i in range(n)],
        }
    )


def test_a_draft_by_hand():
    d = Dictionary.draft(mixed(), target="stage", party="hospital")
    got = {e.name: (e.type, e.range, list(e.codes), e.required) for e in d.columns}
    assert (d.target, d.party) == ("stage", "hospital")
    jan = {y: float((dt.date(y, 1, 1) - dt.date(1970, 1, 1)).days) for y in (1930, 2000, 2019, 2021)}
    assert got == {
        "patient_id": ("identifier", None, [], False),
        "age": ("number", (10.0, 80.0), [], False),
        "kids": ("number", (0.0, 6.0), [], False),
        "albumin": ("number", (1.0, 5.0), [], False),
        "sex": ("category", None, ["f", "m"], False),
        "code": ("category", None, [], False),
        "fit": ("boolean", None, [], False),
        "seen": ("date", (jan[2019], jan[2021]), [], False),
        "born": ("date", (jan[1930], jan[2000]), [], False),
        "empty": ("category", None, [], False),
        "stage": ("category", None, ["0", "1", "2"], True),
    }
    assert not Dictionary.draft(mixed().with_columns(stage=pl.lit(None))).columns[-1].required
    with pytest.raises(ConfigError, match="Did you mean 'hospital'"):
        Dictionary.draft(mixed(), party="hospitl")


def test_a_draft_of_dates_on_new_years_day_and_at_the_end_of_time():
    (seen,) = Dictionary.draft(pl.DataFrame({"seen": [dt.date(2020, 1, 1), dt.date(2021, 1, 1)]})).columns
    assert [dt.date(1970, 1, 1) + dt.timedelta(days=d) for d in seen.range] == [
        dt.date(2019, 1, 1),
        dt.date(2022, 1, 1),
    ]
    (seen,) = Dictionary.draft(pl.DataFrame({"seen": [dt.date(2020, 1, 1), dt.date(9999, 12, 31)]})).columns
    assert dt.date(1970, 1, 1) + dt.timedelta(days=seen.range[1]) == dt.date(9999, 12, 31)


finite = st.floats(-1e300, 1e300)


@given(finite, finite, st.booleans())
def test_a_drafted_range_holds_the_values_and_does_not_name_them(a, b, whole):
    low, high = (float(round(v)) if whole else v for v in sorted((a, b)))
    first, last = outwards(low, high, least=1.0 if whole else 0.0)
    assert first <= low <= high <= last
    assert first < last
    assert first < low or low == 0
    assert high < last or high == 0


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_a_drafted_range_is_not_much_wider_than_needed(low, span):
    first, last = outwards(low, low + span)
    assert last - first <= 1.6 * span + 1e-9 * abs(low)


def test_tables_whose_ends_differ_within_a_step_draft_alike():
    rng = np.random.default_rng(0)
    body = rng.uniform(30, 70, 50)
    drafts = {Dictionary.draft(pl.DataFrame({"x": [*body, low, high]})) for low, high in [(11.2, 98.8), (18.9, 91.3)]}
    assert len(drafts) == 1
