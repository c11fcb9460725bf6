"""The page of threats names the test of each promise, and every test that it names is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "guides" / "threats.md"
NAMED = re.compile(r"`((?:tests/)?[\w/]+\.py)(?:::(\w+))?`|`(test_\w+)`")
WHO = ("hub", "operator", "proxy", "database", "stranger", "fellow party")
TITLE = "## Between organisations"


def missing(text: str) -> list[str]:
    """Files and tests that a page names and that are not there."""
    wrong, file = [], Path()
    for path, inside, alone in NAMED.findall(text):
        if path:
            file = ROOT / (path if path.startswith("tests/") else f"{file.parent.relative_to(ROOT)}/{path}")
        name = inside or alone
        there = file.is_file() and (
            not name or re.search(rf"^ *(?:async )?def {name}\(", file.read_text("utf-8"), re.M)
        )
        wrong += [] if there else [f"{path or file.name}::{name}".removesuffix("::")]
    return wrong


def lines(text: str) -> dict[str, list[str]]:
    """Who stands in the table between organisations, and in which cells."""
    section = text.split(TITLE)[1].split("\n## ")[0]
    cells = [re.split(r" *\| *", row.strip("| ")) for row in section.splitlines() if row.startswith("|")]
    return {row[0]: row[1:] for row in cells[2:]}


def test_every_test_that_is_named_is_there() -> None:
    assert not missing(PAGE.read_text(encoding="utf-8"))


@pytest.mark.parametrize("who", WHO)
def test_each_threat_has_a_promise_its_limit_and_its_test(who: str) -> None:
    promised, not_promised, shown = lines(PAGE.read_text(encoding="utf-8"))[who]
    assert promised
    assert not_promised
    assert "test_" in shown


def test_what_is_not_there_is_told() -> None:
    text = "`tests/docs/test_threats.py::missing` `test_none` `tests/docs/test_no.py` and `test_words.py::test_nothing`"
    assert missing(text) == ["test_threats.py::test_none", "tests/docs/test_no.py", "test_words.py::test_nothing"]
