"""Files of other kinds, and several of them."""

import gzip
import time

import numpy as np
import polars as pl
import pytest

from comity.core.errors import ConfigError
from comity.data.files import several
from comity.data.tables import parties_of, read_table


@pytest.mark.parametrize("name", ["t.tsv", "t.tsv.gz", "t.TAB"])
def test_tabs_separate_whatever_commas_say(tmp_path, name):
    text = b"note, long, rest\tdose\na, b, c\t15\nd, e, f\t25\n"
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    table = read_table(tmp_path / name)
    assert table.to_dict(as_series=False) == {"note, long, rest": ["a, b, c", "d, e, f"], "dose": [15, 25]}


@pytest.mark.parametrize("name", ["t.jsonl", "t.ndjson", "t.jsonl.gz"])
def test_json_lines(tmp_path, name):
    text = (
        '\ufeff{"age": 61, "sex": "f", "seen": "2024-03-05", "fit": true, "mixed": 1}\n\n'
        '{"age": 47.5, "fit": null, "mixed": "x", "late": "?"}\r\n'
        '{"age": null, "sex": " m ", "fit": false, "late": "7"}\n'
    ).encode()
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    assert read_table(tmp_path / name).to_dict(as_series=False) == {
        "age": [61.0, 47.5, None],
        "sex": ["f", None, "m"],
        "seen": [19787.0, None, None],
        "fit": ["true", None, "false"],
        "mixed": ["1", "x", None],
        "late": [None, None, 7],
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": 1}\n\n{"a": \n', r"Line 3 is none: .* Mend that line"),
        ('{"a": 1}\n[1]\n', "Line 2 is a list"),
        ('{"a": 1}\n{"a": {"b": 1}}\n', "'a' in line 2 of t.jsonl holds more"),
        ('{"a": {"b": 1}}\n', "'a' holds Struct"),
        ("  \n", "t.jsonl is empty"),
    ],
)
def test_bad_json_lines_name_the_line(tmp_path, text, said):
    (tmp_path / "t.jsonl").write_text(text)
    with pytest.raises(ConfigError, match=said):
        read_table(tmp_path / "t.jsonl")


@pytest.fixture
def folder(tmp_path):
    sites = tmp_path / "sites"
    sites.mkdir()
    (sites / "Bern.csv").write_text("age\n61\n")
    (sites / "St. Gallen.tsv.gz").write_bytes(gzip.compress(b"age\tsex\n47\tf\n"))
    (sites / "basel.JSONL").write_text('{"age": 52}\n')
    pl.DataFrame({"age": [70]}).write_parquet(sites / "chur.parquet")
    (sites / "README.txt").write_text("no table")
    (sites / "schema.toml").write_text("")
    (sites / ".hidden.csv").write_text("age\n1\n")
    return sites


def test_a_folder_a_pattern_and_a_list_are_one_file_for_each_party(folder):
    want = {"Bern": 61, "St. Gallen": 47, "basel": 52, "chur": 70}
    listed = [folder / n for n in ("chur.parquet", "Bern.csv", "St. Gallen.tsv.gz", "basel.JSONL")]
    for source in (folder, str(folder), listed, tuple(map(str, listed))):
        tables, aside = parties_of(source, None)
        assert {name: t["age"][0] for name, t in tables.items()} == want
        assert aside == 0
    assert list(parties_of(str(folder / "[BS]*"))[0]) == ["Bern", "St. Gallen"]
    assert list(parties_of(folder / "*.csv")[0]) == ["Bern"]


def test_bad_sources_of_several_files(folder, tmp_path):
    (folder / "chur.csv").write_text("age\n1\n")
    (tmp_path / "empty").mkdir()
    for source, party, said in [
        (folder, None, "'chur' stands for two"),
        (folder / "Bern.csv", None, r"give one file for each party \(a folder"),
        (folder, "hospital", r"One file for each party already says .*Leave it out"),
        (tmp_path / "empty", None, "0 files and no table. Tables end in .csv"),
        (str(tmp_path / "*.csv"), None, "a pattern that files match. None matches"),
        ([folder / "Brn.csv"], None, r"Did you mean 'Bern.csv'"),
    ]:
        with pytest.raises(ConfigError, match=said):
            parties_of(source, party)
    assert several([1, 2]) is None
    assert several(pl.DataFrame()) is None


def test_many_rows_with_dates_take_seconds(tmp_path):
    rng, n = np.random.default_rng(0), 200_000
    day = pl.Series(rng.integers(0, 20000, n)).cast(pl.Date)
    frame = pl.DataFrame({"iso": day.cast(pl.String), "us": day.dt.strftime("%m/%d/%Y"), "x": rng.normal(size=n)})
    frame.write_csv(tmp_path / "t.csv")
    frame.write_ndjson(tmp_path / "t.jsonl")
    start = time.process_time()
    a, b = read_table(tmp_path / "t.csv"), read_table(tmp_path / "t.jsonl")
    assert time.process_time() - start < 8
    assert a.equals(b)
    assert a["iso"].equals(a["us"].alias("iso"))
