"""Every link in a page leads to a file that is there, and to a heading that is in it."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"(?<!!)\[[^\]\n]*(?:\n[^\]\n]*)?\]\(([^)\s]+)\)")


def anchors(text: str) -> set[str]:
    """The anchors of the headings, as Markdown sites make them."""
    titles = re.findall(r"^#{1,6} (.*)$", _bare(text), re.M)
    plain = [re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", t).lower()).strip() for t in titles]
    found: list[str] = []
    for title in (t.replace(" ", "-") for t in plain):
        n = sum(1 for f in found if f == title or re.fullmatch(rf"{re.escape(title)}-\d+", f))
        found.append(f"{title}-{n}" if n else title)
    return set(found)


def _bare(text: str) -> str:
    """Without fenced code."""
    return re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)


def dead(page: Path) -> list[str]:
    """The links of a page that lead nowhere."""
    wrong = []
    text = _bare(page.read_text(encoding="utf-8"))
    for link in LINK.findall(re.sub(r"`[^`\n]*`", "`", text)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, heading = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        there = target.exists() and target.is_relative_to(ROOT)
        if not there or (heading and heading not in anchors(target.read_text(encoding="utf-8"))):
            wrong.append(link)
    return wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_no_dead_link(page: Path) -> None:
    assert not dead(page)


def test_a_dead_link_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(dead.__globals__, "ROOT", tmp_path)
    (tmp_path / "b.md").write_text("# One, two\n\n## One\n\n## One\n\n```\n# no heading\n```\n")
    links = ["b.md", "b.md#one-two", "b.md#one-1", "b.md#no-heading", "c.md", "#nothing", "https://example.org/x"]
    (tmp_path / "a.md").write_text("# A\n\n" + "\n".join(f"[x]({link})" for link in links))
    assert dead(tmp_path / "a.md") == ["b.md#no-heading", "c.md", "#nothing"]


def test_every_guide_can_be_reached_from_the_front() -> None:
    front = "".join((ROOT / page).read_text(encoding="utf-8") for page in ("README.md", "docs/tour.md"))
    assert not [g.name for g in (ROOT / "docs" / "guides").glob("*.md") if f"guides/{g.name}" not in front]
