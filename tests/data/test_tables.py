import datetime as dt
import gzip
import re
import sys
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest

from comity.core.errors import ConfigError
from comity.data.delimited import sniff
from comity.data.extras import need
from comity.data.tables import column, labelled, numbers, parties_of, read_table, words

PLAIN = "age,sex,dose\n61,f,1.5\n47,m,2\n"


def written(tmp_path, text, name="patients.csv", encoding="utf-8"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return path


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (PLAIN, "utf-8"),
        (PLAIN, "utf-8-sig"),
        (PLAIN, "utf-16"),
        (PLAIN.replace(",", ";"), "utf-8"),
        (PLAIN.replace(",", ";").replace(".", ","), "utf-8-sig"),
        (PLAIN.replace(",", "\t").replace(".", ","), "utf-8"),
        (PLAIN.replace(",", "|"), "utf-8"),
        (PLAIN.replace(",", ", "), "utf-8"),
        (PLAIN.replace("\n", "\r\n") + "\r\n\r\n", "utf-8"),
        (PLAIN.replace("\n", "\r"), "utf-8"),
        ('"age","sex","dose"\n"61","f","1.5"\n"47","m","2"', "utf-8"),
    ],
)
def test_exports_of_many_kinds_read_alike(tmp_path, text, encoding):
    table = read_table(written(tmp_path, text, encoding=encoding))
    assert table.to_dict(as_series=False) == {"age": [61, 47], "sex": ["f", "m"], "dose": [1.5, 2.0]}
    assert table.dtypes == [pl.Int64, pl.String, pl.Float64]


def test_a_wide_table(tmp_path):
    names = [f"a-gene-with-a-name-{i}" for i in range(3000)]
    text = ";".join(names) + "\n" + ";".join(["1,5"] * 3000) + "\n"
    table = read_table(written(tmp_path, text))
    assert table.columns == names
    assert table.row(0) == (1.5,) * 3000


def test_a_quote_that_never_ends(tmp_path):
    with pytest.raises(ConfigError, match=r"q\.csv must have as many values"):
        read_table(written(tmp_path, 'a,"b\n' + "1,2\n" * 50_000, "q.csv"))


def test_latin1_and_gzip(tmp_path):
    path = tmp_path / "städte.csv.gz"
    path.write_bytes(gzip.compress("stadt;wert\nZürich;1\nGenève;2\n".encode("latin-1")))
    assert read_table(str(path))["stadt"].to_list() == ["Zürich", "Genève"]
    odd = read_table(written(tmp_path, b"a,b\n\xfc\x81,1\n"))
    assert odd["a"].to_list() == ["ü\N{REPLACEMENT CHARACTER}"]


def test_parquet_and_csv_and_frames_read_alike(tmp_path):
    frame = pl.DataFrame({"n": [1, 2, None], "x": [0.5, None, 2.5], "w": ["a", "b", None], "b": [True, None, False]})
    frame.write_parquet(tmp_path / "t.parquet")
    frame.write_csv(tmp_path / "t.csv")
    want = read_table(frame)
    for source in (tmp_path / "t.parquet", tmp_path / "t.csv", frame.lazy(), frame.to_pandas(), frame.to_arrow()):
        got = read_table(source)
        assert words(got["n"]).to_list() == ["1", "2", None]
        assert got.drop("n").equals(want.drop("n"))
    assert want["b"].to_list() == ["true", None, "false"]


def test_every_null_token_is_missing_and_words_are_stripped(tmp_path):
    tokens = ["", " ", "NA", "N/A", "n/a", "<NA>", "NaN", "nan", "NULL", "null", "None", "?", " ? "]
    path = written(tmp_path, "i,w,x\n" + "".join(f"{i},{t},{t}\n" for i, t in enumerate(tokens)) + "99, a b ,7\n")
    table = read_table(path)
    assert table["w"].to_list() == [None] * len(tokens) + ["a b"]
    assert table["x"].to_list() == [None] * len(tokens) + [7]
    assert table.schema["x"] == pl.Int64


def test_a_column_is_numeric_only_if_every_value_is(tmp_path):
    table = read_table(written(tmp_path, "a,b,c,d,e\n1,1,1.5,inf,TRUE\n2,x,1e3,1,false\n?,3,-.5,2,True\n"))
    assert table.dtypes == [pl.Int64, pl.String, pl.Float64, pl.Float64, pl.String]
    assert table["d"].to_list() == [None, 1.0, 2.0]
    assert table["e"].to_list() == ["true", "false", "true"]


def test_an_empty_column_is_null_and_a_decimal_comma_needs_a_semicolon(tmp_path):
    assert read_table(written(tmp_path, "a,b\n1,\n2,?\n")).schema["b"] == pl.Null
    assert read_table(pl.DataFrame({"a": ["1,5", "2,5"]})).schema["a"] == pl.String


def test_frames_of_mixed_python_objects(monkeypatch):
    frame = pd.DataFrame({"o": ["a", 1, None, 2.5], "n": ["1", 2, None, "3"], "t": [True, None, False, True]})
    table = read_table(frame)
    assert table["o"].to_list() == ["a", "1", None, "2.5"]
    assert table["n"].to_list() == [1, 2, None, 3]
    assert table["t"].to_list() == ["true", None, "false", "true"]


def test_pandas_without_pyarrow(monkeypatch):
    frame = pd.DataFrame({"w": pd.Series(["a", None], dtype=object), "x": [1.5, np.nan], "i": [1, 2]})
    monkeypatch.setattr(pl, "from_pandas", lambda *a, **k: (_ for _ in ()).throw(ImportError("pyarrow")))
    assert read_table(frame).to_dict(as_series=False) == {"w": ["a", None], "x": [1.5, None], "i": [1, 2]}


def test_dtypes_of_frames():
    day = dt.date(1970, 1, 3)
    frame = pl.DataFrame(
        {
            "day": [day],
            "moment": [dt.datetime(1970, 1, 2, 12)],
            "span": [dt.timedelta(hours=6)],
            "noon": [dt.time(12)],
            "code": pl.Series(["7"], dtype=pl.Categorical),
            "small": pl.Series([3], dtype=pl.UInt8),
            "money": pl.Series(["1.25"]).cast(pl.Decimal(10, 2)),
            "odd": [float("inf")],
        }
    )
    row = read_table(frame).row(0, named=True)
    assert row == {
        "day": 2.0, "moment": 1.5, "span": 0.25, "noon": 0.5, "code": "7", "small": 3, "money": 1.25, "odd": None,
    }  # fmt: skip
    with pytest.raises(ConfigError, match="'l' holds List"):
        read_table(pl.DataFrame({"l": [[1, 2]]}))


def test_bad_sources_say_what_to_do(tmp_path):
    written(tmp_path, PLAIN)
    for source, said in [
        (tmp_path / "patient.csv", r"There is no .*patient\.csv\. Did you mean 'patients\.csv'\?"),
        (tmp_path, "cannot"),
        (written(tmp_path, b"PK\3\4\0\0\0rest", "t.xlsx"), "neither. Save it as CSV or Parquet"),
        (written(tmp_path, b"PAR1 no", "t.parquet"), "cannot"),
        (written(tmp_path, b"\x1f\x8bno", "t.csv.gz"), "whole gzip"),
        (written(tmp_path, "", "e.csv"), "e.csv is empty"),
        (written(tmp_path, "a,b\n", "h.csv"), "h.csv has 0 rows and 2 columns"),
        (
            written(tmp_path, "a,b\n1,2\n3,4,5\n6,7\n", "r.csv"),
            "as many values .* separated by ','. The reader says: found more",
        ),
        (written(tmp_path, "a, a\n1,2\n", "d.csv"), "'a' stands more than once in d.csv"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "Column names must differ"),
        (pl.DataFrame(), "has 0 rows and 0 columns"),
        (pl.DataFrame({"a": []}), "has 0 rows and 1 columns"),
        ([1, 2], r"Got \[1, 2\]"),
        (np.zeros((2, 2)), "Got an array"),
        (None, "Got None"),
    ]:
        with pytest.raises(ConfigError, match=said):
            read_table(source)


def test_names_are_made_clean(tmp_path):
    table = read_table(written(tmp_path, ',"a\nb", c \n1,2,3\n'))
    assert table.columns == ["column 1", "a b", "c"]
    assert read_table(pd.DataFrame([[1, 2]])).columns == ["0", "1"]


def test_reading_does_not_change_the_frame_given():
    frame = pl.DataFrame({" a ": [" x "]})
    read_table(frame)
    assert frame.to_dict(as_series=False) == {" a ": [" x "]}


def test_sniff_looks_into_quotes():
    assert sniff('"a, b, c";"d"\n"1, 2, 3";"4"\n') == ";"
    assert sniff("only\n1\n2\n") == ","
    assert sniff("a;b\n1,5;2,5\n3,5;4,5\n") == ";"


def test_a_wrong_column_names_the_nearest_and_lists_them():
    table = pl.DataFrame({"age": [1], "outcome": [2]})
    with pytest.raises(ConfigError) as raised:
        column(table, "outcom", "patients.csv")
    assert str(raised.value) == (
        "There is no column 'outcom' in patients.csv. Did you mean 'outcome'? It has 2 columns: age, outcome."
    )
    wide = pl.DataFrame({f"c{i}": [0] for i in range(38)})
    with pytest.raises(ConfigError, match=r"It has 38 columns: c0, .*c19, \.\.\.\.$"):
        column(wide, "zzz")


def test_parties_by_column_set_rows_without_a_party_aside(tmp_path):
    path = written(tmp_path, "who,x\n zurich,1\nbasel ,2\n,3\nbasel,4\nNA,5\n")
    tables, aside = parties_of(path, "who")
    assert list(tables) == ["basel", "zurich"]
    assert aside == 2
    assert tables["basel"].to_dict(as_series=False) == {"x": [2, 4]}


def test_parties_by_a_numeric_column_are_words():
    tables, _ = parties_of(pl.DataFrame({"who": [2.0, 1.0, None], "x": [1, 2, 3]}), "who")
    assert list(tables) == ["1", "2"]


def test_parties_of_a_mapping(tmp_path):
    path = written(tmp_path, PLAIN)
    tables, aside = parties_of({" b\x07b ": path, 3: pl.DataFrame({"age": ["5"]})})
    assert list(tables) == ["3", "b b"]
    assert aside == 0
    assert tables["3"]["age"].to_list() == [5]


def test_bad_parties(tmp_path):
    frame = pl.DataFrame({"who": [None, "?"], "x": [1, 2]})
    for source, party, said in [
        (frame, "who", "at least one party"),
        (frame, "woh", "Did you mean 'who'"),
        (frame, None, "must be named"),
        ({}, None, "at least one party"),
        ({"a": frame}, "who", "Leave it out"),
        ({"a": frame, " a": frame}, None, "'a' stands for two"),
        ({"\n": frame}, None, "must have a name"),
    ]:
        with pytest.raises(ConfigError, match=re.escape(said)):
            parties_of(source, party)


def test_labelled_counts_rows_without_target():
    table, unknown = labelled(pl.DataFrame({"y": ["a", None, "b"], "x": [1, 2, 3]}), "y")
    assert (table["x"].to_list(), unknown) == ([1, 3], 1)


def test_words_and_numbers():
    assert words(pl.Series([1.0, None, -3.0])).to_list() == ["1", None, "-3"]
    assert words(pl.Series([1.0, 0.5])).to_list() == ["1", "0.5"]
    assert words(pl.Series([1e300, 2.0])).to_list() == ["1e+300", "2"]
    assert words(pl.Series([None, None])).to_list() == [None, None]
    assert numbers(pl.Series(["1.5", "x", None, "inf"])).to_list() == [1.5, None, None, None]


def test_a_missing_library_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "polars", None)
    with warnings.catch_warnings(), pytest.raises(ConfigError, match=re.escape("pip install 'comity[tables]'")):
        need("polars", "tables")
