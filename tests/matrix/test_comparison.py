"""What a comparison is asked, what is predicted with it, where it is written."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from matrix_law import NO_FLAG, NO_PATH, NO_WHOLE, NO_WORD, Thing, hold, rows

import comity as co

RNG = np.random.default_rng(0)
A = RNG.normal(size=80)
TABLE = pl.DataFrame({"x": A, "y": (A > 0).astype(int), "who": ["a", "b"] * 40, "sex": ["f", "m", "m", "f"] * 20})
FAST = {"model": "linear", "rounds": 1, "repeats": 1, "pooled": False, "unseen": False}
NO_NAME = (1, True, "", "zzz", b"y", [], ["y"], Thing(), str)


def compare(name):
    return lambda v: co.compare(**{"source": TABLE, "target": "y", "party": "who", **FAST, name: v})


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A comparison that was kept."""
    runs = tmp_path_factory.mktemp("runs")
    return co.compare(TABLE, "y", party="who", **FAST, runs=runs), next(runs.iterdir())


ASKED = (
    *rows(
        "compare",
        "source",
        compare("source"),
        says="table|[Cc]olumn|[Pp]art|whose|says|two",
        bad={
            "None": None,
            "number": 5,
            "list": [1],
            "empty": {},
            "array": np.ones((3, 3)),
            "Thing": Thing(),
            "class": pl.DataFrame,
            "no rows": TABLE.clear(),
            "few rows": TABLE[:12],
            "mapping too": {"a": TABLE, "b": TABLE},
            "nothing": "nothing.csv",
            "folder": ".",
            "target only": TABLE.select("y", "who"),
            "one party": TABLE.with_columns(who=pl.lit("a")),
        },
    ),
    *rows(
        "compare",
        "class",
        lambda v: co.compare(v, "y", party="who", **FAST),
        says="class",
        bad={"one class": TABLE.with_columns(y=pl.lit(1)), "one class in words": TABLE.with_columns(y=pl.lit("no"))},
    ),
    *rows("compare", "target", compare("target"), bad=(None, *NO_NAME, "who"), says="target|column"),
    *rows("compare", "party", compare("party"), bad=(None, *NO_NAME, "y"), says="party|column|whose"),
    *rows("compare", "model", compare("model"), bad=NO_WORD),
    *rows("compare", "rounds", compare("rounds"), bad=(*NO_WHOLE, 0, -1), good=(np.int64(1),)),
    *rows("compare", "repeats", compare("repeats"), bad=(*NO_WHOLE, 0, -1)),
    *rows("compare", "seed", compare("seed"), bad=(*NO_WHOLE, 2**64), good=(np.int64(3),)),
    *rows("compare", "pooled", compare("pooled"), bad=NO_FLAG),
    *rows("compare", "unseen", compare("unseen"), bad=NO_FLAG),
    *rows(
        "compare",
        "groups",
        compare("groups"),
        bad=(None, 1, True, "sex", [1], ["zzz"], ["x"], {"sex"}, Thing(), str),
        says="groups|column",
    ),
    *rows("compare", "words_from", compare("words_from"), bad=(*NO_WORD, "dictionary"), says="[Ww]ords"),
    *rows("compare", "fill", compare("fill"), bad=NO_WORD),
    *rows(
        "compare",
        "fair",
        compare("fair"),
        bad=(1, True, "zzz", "x", b"sex", [], ["sex"], Thing(), str),
        says="fair|column",
    ),
    *rows("compare", "dictionary", compare("dictionary"), bad=(*NO_PATH, "nothing.toml", "."), says="dictionary"),
    *rows("compare", "runs", compare("runs"), bad=NO_PATH),
    *rows("compare", "title", compare("title"), bad=(1, True, b"x", [], Thing(), str)),
    *rows("compare", "called", compare("called"), bad=(1, True, b"x", [], Thing(), str)),
    *rows("compare", "command", compare("command"), bad=(None, 1, True, b"x", [], Thing(), str)),
    *rows("compare", "tell", compare("tell"), bad=(1, True, "x", [], Thing(), str), good=(lambda what, share: None,)),
    *rows("Comparison", "results", co.Comparison, bad=(None, 1, "x", [], Thing(), dict), good=({"verdict": "x"},)),
    *rows(
        "Comparison",
        "page",
        lambda v: co.Comparison(v).report("page.html"),
        says="[Rr]esults",
        bad=({}, {"version": 0}, {"version": 1}, {"version": "1"}, {"version": []}),
    ),
)


@pytest.mark.parametrize("row", ASKED, ids=str)
def test_comparison(row, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hold(row, tmp_path)


def test_dictionaries(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    texts = {
        "garbage": bytes(range(256)),
        "no toml": b"= = =",
        "no table": b"columns = 3",
        "type": b"[columns.x]\ntype = 'colour'\n",
        "range": b"[columns.x]\ntype = 'number'\nrange = 'wide'\n",
        "key": b"[columns.x]\ntype = 'number'\nsize = 3\n",
    }
    for name, text in texts.items():
        Path("schema.toml").write_bytes(text)
        (row,) = rows(
            "compare", "dictionary", compare("dictionary"), bad={name: "schema.toml"}, says=r"schema\.toml|dictionary"
        )
        hold(row, tmp_path)


def written(answer):
    """Both ways to write an answer."""
    for name in ("report", "json"):
        method = getattr(answer, name, None)
        yield from rows("Comparison", name, method, bad=(None, *NO_PATH), says="path")
        yield from rows(
            "Comparison",
            name,
            method,
            bad={"a folder": ".", "in a file": "file/x", "long": "x" * 300},
            says="path|file",
        )


def test_places_to_write_to(done, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("x")
    for row in written(done[0]):
        hold(row, tmp_path)
    assert done[0].json("deep/er/a.json").is_file()
    assert json.loads(Path("deep/er/a.json").read_text())["version"] == 1


def predicted(folder):
    """Rows for each parameter of predict."""
    new = pl.DataFrame({"x": [0.5], "sex": ["f"]})
    yield from rows(
        "predict",
        "folder",
        lambda v: co.predict(v, new),
        bad=(None, *NO_PATH, ".", "nothing", "x" * 300),
        good=(folder, str(folder)),
    )
    yield from rows(
        "predict",
        "source",
        lambda v: co.predict(folder, v),
        says="table|column|x",
        bad={
            "None": None,
            "number": 5,
            "no columns": pl.DataFrame({"z": [1]}),
            "no rows": new.clear(),
            "nothing": "nothing.csv",
            "words": pl.DataFrame({"x": ["many"], "sex": ["f"]}),
            "one lacks": new.select("x"),
            "Thing": Thing(),
        },
        good={"fits": new, "more": new.with_columns(z=pl.lit(1)), "new word": new.with_columns(sex=pl.lit("d"))},
    )
    yield from rows("predict", "party", lambda v: co.predict(folder, new, party=v), bad=NO_NAME, good=(None, "a"))
    yield from rows(
        "predict",
        "way",
        lambda v: co.predict(folder, new, party="a", way=v),
        bad=NO_WORD[1:],
        good=(None, "joint", "alone"),
    )
    yield from rows(
        "predict", "whose", lambda v: co.predict(folder, new, way=v), bad=("alone", "personal"), says="party"
    )


LATER = (written, predicted)
"""Rows that want a comparison that is done."""


def test_predict(done, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for row in predicted(done[1]):
        try:
            hold(row, tmp_path)
        except AssertionError as error:
            raise AssertionError(f"{row}: {error}") from error
