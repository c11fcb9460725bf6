"""Tables and the files that hold them: read, cut into parties, summed up."""

import gzip
import os
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from matrix_law import NO_WHOLE, WHOLE, Thing, hold, rows

import comity as co

TABLE = pl.DataFrame({"age": [61, 47, 52, 70], "who": ["a", "b", "a", "b"]})
CSV = b"age,who\n61,a\n47,b\n52,a\n70,b\n"
PARQUET = Path(__file__).with_name("nothing.parquet")
NO_TABLE = {
    "None": None,
    "number": 5,
    "True": True,
    "list": [1, 2],
    "empty list": [],
    "dict": {},
    "array": np.ones((2, 2)),
    "series": pl.Series([1]),
    "Thing": Thing(),
    "class": pl.DataFrame,
    "function": len,
    "bytes": CSV,
    "no rows": TABLE.clear(),
    "no columns": pl.DataFrame(),
    "pandas no rows": pd.DataFrame({"a": []}),
    "twice": pd.DataFrame([[1, 2]], columns=["a", "a"]),
    "twice but for spaces": pl.DataFrame({"a": [1], " a": [2]}),
    "lists": pl.DataFrame({"l": [[1], [2]]}),
    "structs": pl.DataFrame({"s": [{"a": 1}]}),
    "bytes column": pl.DataFrame({"b": [b"x"]}),
}
GOOD_TABLE = {
    "polars": TABLE,
    "lazy": TABLE.lazy(),
    "pandas": TABLE.to_pandas(),
    "arrow": TABLE.to_arrow(),
    "categories": TABLE.to_pandas().astype("category"),
    "NaN": pd.DataFrame({"a": [np.nan, 1.0]}),
    "all missing": pl.DataFrame({"a": [None, None], "b": [1, 2]}),
    "mixed": pd.DataFrame({"a": [1, "x", None, 2.5]}),
    "dates": pd.DataFrame({"d": pd.to_datetime(["2024-03-05"])}),
    "decimals": pl.DataFrame({"a": ["1.5"]}).cast(pl.Decimal(9, 2)),
}


def parquet(to):
    TABLE.write_parquet(to)
    return to.read_bytes()


FILES = {
    "empty.csv": b"",
    "blank.csv": b" \n\n",
    "names.csv": b"age,who\n",
    "ragged.csv": b"a,b\n1,2\n3,4,5\n",
    "nul.csv": b"a,b\n1,\x002\n",
    "nul late.csv": b"a,b\n" + b"1,2\n" * 30000 + b"1,\x00\n",
    "garbage.csv": bytes(range(256)) * 40,
    "twice.csv": b"a,a\n1,2\n",
    "cut.parquet": b"PAR1" + b"\x00" * 40,
    "head.parquet": b"PAR1",
    "cut.csv.gz": gzip.compress(CSV * 99)[:-20],
    "garbage.csv.gz": b"\x1f\x8b" + b"\xff" * 50,
    "no object.jsonl": b'{"a": 1}\n[2]\n',
    "cut.jsonl": b'{"a": 1}\n{"a": \n',
    "deep.jsonl": b'{"a": {"b": 1}}\n',
    "empty.jsonl": b"",
    "quote.csv": b'a,b\n1,"2\n3,4\n',
    "text.parquet": b"",
    "zip.xlsx": b"PK\x03\x04" + b"\x00" * 60,
}
FINE = {
    "plain.csv": CSV,
    "semicolon.csv": CSV.replace(b",", b";"),
    "tab.tsv": CSV.replace(b",", b"\t"),
    "packed.csv.gz": gzip.compress(CSV),
    "mark.csv": b"\xef\xbb\xbf" + CSV,
    "sixteen.csv": CSV.decode().encode("utf-16"),
    "latin.csv": "name\nMüller\n".encode("latin-1"),
    "crlf.csv": CSV.replace(b"\n", b"\r\n"),
    "mac.csv": CSV.replace(b"\n", b"\r"),
    "lines.jsonl": b'{"a": 1}\n{"a": 2}\n',
    "no end.csv": CSV.rstrip(),
    "spaces.csv": b"a, b\n1, 2\n",
    "blank line.csv": b"a,b\n1,2\n\n3,4\n",
    "one column.csv": b"a\n1\n2\n",
}


def read(v):
    return co.read_table(v)


PLACES = {
    "missing": lambda p: p / "nothing.csv",
    "near": lambda p: (p / "table.csv").write_bytes(CSV) and p / "tabel.csv",
    "folder": lambda p: (p / "x").mkdir() or p / "x",
    "in a file": lambda p: (p / "f").write_bytes(CSV) and p / "f" / "x.csv",
    "broken link": lambda p: (p / "l.csv").symlink_to("gone") or p / "l.csv",
    "long": lambda p: p / ("x" * 300 + ".csv"),
    "link to itself": lambda p: (p / "s.csv").symlink_to("s.csv") or p / "s.csv",
    "not readable": lambda p: Path("/proc/self/mem"),
    "empty name": lambda p: "",
    "nul": lambda p: "a\0b.csv",
    "home": lambda p: "~nobody-at-all/x.csv",
}

ROWS = (
    *rows("read_table", "source", co.read_table, bad=NO_TABLE, good=GOOD_TABLE, says="table|[Cc]olumn"),
    *rows(
        "by_column",
        "table",
        lambda v: co.by_column(v, "who"),
        bad=NO_TABLE,
        good={"polars": TABLE, "pandas": TABLE.to_pandas()},
        says="table|[Cc]olumn|part|whose|says",
    ),
    *rows(
        "by_column",
        "column",
        lambda v: co.by_column(TABLE, v),
        bad=(None, 1, True, "", "wh", b"who", [], ["who"], Thing(), str),
        good=("who", "age"),
        says="column",
    ),
    *rows(
        "by_column",
        "nobody",
        lambda v: co.by_column(v, "who"),
        bad={"nulls": TABLE.with_columns(who=pl.lit(None, pl.String))},
        says="party",
    ),
    *rows(
        "stats",
        "source",
        co.stats,
        says="table|[Cc]olumn|[Pp]art|whose|says",
        bad={
            **NO_TABLE,
            "no party": TABLE,
            "a bad one": {"a": TABLE, "b": 5},
            "one name": {"a": TABLE, " a ": TABLE},
            "no name": {"": TABLE},
            "none alike": {"a": TABLE.select("age"), "b": TABLE.select("who")},
        },
        good={"two": {"a": TABLE, "b": TABLE}, "numbers for names": {1: TABLE, 2: TABLE}},
    ),
    *rows(
        "stats",
        "party",
        lambda v: co.stats(TABLE, party=v),
        bad=(None, 1, True, "", "wh", b"who", [], ["who"], Thing(), str),
        good=("who",),
        says="party|column",
    ),
    *rows("stats", "seed", lambda v: co.stats({"a": TABLE}, seed=v), bad=(*NO_WHOLE, 2**64), good=(0, -1, *WHOLE)),
    *rows(
        "stats", "bins", lambda v: co.stats({"a": TABLE}, bins=v), bad=(*NO_WHOLE, 1, 0, -1), good=(2, 9, np.int64(3))
    ),
    *rows("stats", "least", lambda v: co.stats({"a": TABLE}, least=v), bad=(*NO_WHOLE, -1), good=(0, *WHOLE)),
    *rows(
        "stats",
        "quantiles",
        lambda v: co.stats({"a": TABLE}, quantiles=v),
        bad=(None, 0.5, "x", True, [None], ["0.5"], [0.0], [-0.1], [1.1], [float("nan")], [True], Thing(), {0.5: 1}),
        good=((), (0.5,), [0.25, 1.0], np.array([0.1, 0.9]), [np.float32(0.5)]),
    ),
)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_tables(row, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hold(row, tmp_path)


def asked(file):
    """Whoever reads tables reads files."""
    yield from rows("read_table", "file", co.read_table, bad={file.name: file, "text": str(file)}, says=".")
    yield from rows("by_column", "file", lambda v: co.by_column(v, "who"), bad={file.name: file}, says=".")
    yield from rows("stats", "file", lambda v: co.stats({"a": v}), bad={file.name: file}, says=".")


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_no_table(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / name
    file.write_bytes(FILES[name])
    for row in asked(file):
        hold(row, tmp_path)


@pytest.mark.parametrize("name", ["a.parquet", "b.csv"])
def test_a_parquet_file_cut_anywhere(name, tmp_path):
    whole = parquet(tmp_path / name)
    for end in range(4, len(whole), len(whole) // 12):
        (tmp_path / name).write_bytes(whole[:end])
        (row,) = rows("read_table", "cut", co.read_table, bad={str(end): tmp_path / name}, says=name)
        hold(row, tmp_path)


@pytest.mark.parametrize("name", FINE)
def test_a_file_that_is_a_table(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(FINE[name])
    assert co.read_table(tmp_path / name).height
    assert co.stats({"a": name}).rows


@pytest.mark.parametrize("where", PLACES)
def test_a_place_without_a_table(where, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = PLACES[where](tmp_path)
    for row in asked(file if isinstance(file, Path) else Path(file) if "\0" not in file and file else _Odd(file)):
        hold(row, tmp_path)


class _Odd(str):
    """Text that is no path, with the name of a path."""

    @property
    def name(self):
        return "odd"


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read(tmp_path):
    file = tmp_path / "secret.csv"
    file.write_bytes(CSV)
    file.chmod(0)
    for row in asked(file):
        hold(row, tmp_path / "nothing")
