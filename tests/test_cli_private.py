"""`comity compare --private`: what it prints and writes, and what it says when it is asked for something else."""

import json
from pathlib import Path
from typing import Any

import pytest

FAST = ["--model", "linear", "--rounds", "2", "--repeats", "1", "--no-pooled", "--no-unseen"]


def compared(path: Path, private: str, *more: object) -> list[object]:
    return ["compare", path, "--target", "outcome", "--party", "hospital", *FAST, "--private", private, *more]


def test_the_price_is_printed_and_written(run: Any, patients: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    ended = run(*compared(patients, "epsilon=8,delta=1e-5,unit=example", "--json", out))
    assert (ended.code, ended.err) == (0, "")
    assert "private (ε 8)" in ended.out
    given = json.loads(out.read_text(encoding="utf-8"))["private"]
    assert given["guarantee"] in " ".join(ended.out.split())
    assert 7.9 < given["spent"] <= 8.0
    assert "unit=example" in json.loads(out.read_text(encoding="utf-8"))["settings"]["command"]


@pytest.mark.parametrize(
    ("private", "words"),
    [
        ("8", ("must name epsilon, delta and unit. Got '8'", "Use epsilon=8,delta=1e-5,unit=example")),
        ("epsilon=8,delta=1e-5,unit=party", ("Got 'party'", "noise of several times", "Use unit=example")),
        ("epsilon=0,delta=1e-5,unit=example", ("The epsilon of --private", "Got 0. Use epsilon=8")),
        ("epsilon=8,delta=2,unit=example", ("'delta'", "Got 2.0")),
    ],
)
def test_what_is_refused(run: Any, patients: Path, private: str, words: tuple[str, ...]) -> None:
    ended = run(*compared(patients, private))
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("error      ")
    assert ended.err.count("\n") == 1
    for word in words:
        assert word in ended.err


def test_trees_are_refused(run: Any, patients: Path) -> None:
    ended = run(*compared(patients, "epsilon=8,delta=1e-5,unit=example", "--model", "trees"))
    assert ended.code == 2
    assert "Use model='linear' or 'mlp'" in ended.err
