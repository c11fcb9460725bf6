"""Each tour runs, in one namespace and in order; commands that they and the guides show exist with their options."""

import doctest
import os
import re
import shlex
from importlib.util import find_spec
from math import inf
from pathlib import Path

import pytest
import typer

from comity.cli.commands import app
from comity.comparison.intervals import interval
from comity.report.numbers import points

ROOT = Path(__file__).parents[2]
TOUR = ROOT / "docs" / "tour.md"
SILENT = [ROOT / "docs" / "guides" / "secagg-vectors.md"]
"""What is for those who write another implementation."""
TOURS = [TOUR, *sorted((ROOT / "docs" / "tours").glob("*.md"))]
PAGES = [TOUR, *sorted((ROOT / "docs" / "guides").glob("*.md"))]
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
FENCE = re.compile(r"^(?:<!-- needs: (\w+) -->\n)?```python\n(.*?)^```", re.M | re.S)


def blocks(text: str) -> list[tuple[int, str, str]]:
    """(line, library that it needs or "", source) of each Python block."""
    return [(text[: m.start(2)].count("\n"), m[1] or "", m[2]) for m in FENCE.finditer(text)]


def played(text: str, page: Path = TOUR) -> tuple[str, list[str]]:
    """Run the blocks in order in one namespace: what went wrong, and the libraries that were missing."""
    said: list[str] = []
    names: dict = {"__name__": "__main__"}
    runner = doctest.DocTestRunner(optionflags=FLAGS, verbose=False)
    missing = []
    for line, needs, source in blocks(text):
        if needs and find_spec(needs) is None:
            missing.append(needs)
            continue
        block = doctest.DocTestParser().get_doctest(source, {}, page.stem, str(page), line)
        assert block.examples, f"line {line + 1}: a block without an example checks nothing"
        block.globs = names
        runner.run(block, out=said.append, clear_globs=False)
    return "".join(said), missing


@pytest.mark.parametrize("page", TOURS, ids=lambda p: p.stem)
def test_a_tour_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    wrong, missing = played(page.read_text(encoding="utf-8"), page)
    assert not wrong, wrong
    assert os.path.exists("runs/tumours/recipe.json") == (page == TOUR)
    if missing:
        pytest.skip(f"all but the blocks that need {', '.join(missing)} ran")


@pytest.mark.parametrize("page", TOURS, ids=lambda p: p.stem)
def test_every_python_block_of_a_tour_is_found(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert len(blocks(text)) == len(re.findall(r"^```python", text, re.M)) > 8


def test_the_tour_leads_to_every_other_one() -> None:
    text = TOUR.read_text(encoding="utf-8")
    assert len(TOURS) > 2
    assert not [page.name for page in TOURS[1:] if f"](tours/{page.name})" not in text]


def test_a_wrong_output_and_a_missing_library_are_told() -> None:
    wrong, missing = played("```python\n>>> x = 1\n\n```\n\n```python\n>>> x + 1\n3\n\n```\n")
    assert "Got:\n    2" in wrong
    assert not missing
    assert played("<!-- needs: no_such_library -->\n```python\n>>> 1\n2\n\n```\n") == ("", ["no_such_library"])


def test_the_worked_example_of_the_guide_is_what_comity_computes() -> None:
    text = (ROOT / "docs" / "guides" / "worth-joining.md").read_text(encoding="utf-8")
    gains = [0.03, 0.05, 0.02, 0.06, 0.04]
    for together, words in ((1, "the only gain looked\nat, {}: gains"), (4, "one of four hospitals, {}: within noise")):
        found = interval(gains, grain=1 / 60, together=together)
        assert found is not None
        assert words.format(points(found.to_json())) in text
    assert "gains of 3, 5, 2, 6 and 4 points in five splits, 60 test records" in text


def commands(text: str) -> list[str]:
    """The lines of shell blocks, those typed in sessions, and what stands inline, that begin with comity."""
    shell = "\n".join(re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S)).splitlines()
    shell += re.findall(r"^\$ (.*)", "\n".join(re.findall(r"^```console\n(.*?)^```", text, re.M | re.S)), re.M)
    inline = re.findall(r"(?<!`)`(comity [a-z][^`]*)`(?!`)", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))
    return [re.split(r" [#>]", line)[0].strip() for line in [*shell, *inline] if line.startswith("comity ")]


def complaints(line: str) -> list[str]:
    """What the command does not know: itself, an option, an argument too many, an option without its value."""
    known = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    _, name, *rest = shlex.split(line.removesuffix("&"))
    if rest and hasattr(known.get(name), "commands"):
        known, name, rest = known[name].commands, rest[0], rest[1:]
    if name not in known:
        return [f"no command {name}"]
    params = known[name].params
    options = {o: p for p in params for o in [*p.opts, *p.secondary_opts] if o.startswith("--")} | {"--help": None}
    wrong, free = [], 0
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            free += 1
        elif word not in options:
            wrong.append(f"{name} has no {word}")
        elif options[word] is not None and not options[word].is_flag:
            wrong += [] if rest and not rest.pop(0).startswith("--") else [f"{word} without a value"]
    takes = sum(inf if p.nargs < 0 else 1 for p in params if p.param_type_name == "argument")
    return wrong + ([f"{name} takes {takes} arguments"] if free > takes and not wrong else [])


@pytest.mark.parametrize("page", [*PAGES, *TOURS[1:]], ids=lambda p: p.stem)
def test_commands_that_are_shown_exist(page: Path) -> None:
    shown = commands(page.read_text(encoding="utf-8"))
    assert shown or page in [*TOURS[1:], *SILENT]
    assert not [wrong for line in shown for wrong in complaints(line)]


@pytest.mark.parametrize(
    "line",
    [
        *("comity comparee", "comity compare t.csv --tarrget y", "comity compare t.csv --target", "comity show a b"),
        *("comity compare t.csv --target y --hub", "comity hub inviet hub ada", "comity hub init hub --hosst h"),
        *("comity hub approve hub ada eve", "comity hub prune hub --days"),
    ],
)
def test_commands_that_do_not_exist_are_told(line: str) -> None:
    assert len(complaints(line)) == 1


@pytest.mark.parametrize(
    "line",
    [
        "comity compare basel.csv --target y --hub https://hub.example:8443 --identity basel.key",
        *("comity hub init hub --host localhost --name Hub", "comity hub approve hub ada --key 12ab", "comity hub"),
        *("comity serve hub a.py b.py --minimum 2 --once", "comity page --identity ada.key --no-open &"),
    ],
)
def test_commands_that_exist_are_not(line: str) -> None:
    assert not complaints(line)


def test_commands_are_found_in_shells_sessions_and_lines() -> None:
    text = "```sh\ncomity demo > x\n```\n`comity hub` and\n```console\n$ comity show r  # it\nsaid comity\n```\n"
    assert sorted(commands(text)) == ["comity demo", "comity hub", "comity show r"]
