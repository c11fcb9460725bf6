"""What the guides show with its output runs: the blocks of one page in order, in one namespace."""

import doctest
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

GUIDES = sorted((Path(__file__).parents[2] / "docs" / "guides").glob("*.md"))
FENCE = re.compile(r"^(?:<!-- needs: (\w+) -->\n)?```python\n(.*?)^```", re.M | re.S)
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


def shown(page: Path) -> list[tuple[str, str]]:
    """(library that it needs or "", source) of each block that shows what comes of it; others are fragments."""
    return [(m[1] or "", m[2]) for m in FENCE.finditer(page.read_text(encoding="utf-8")) if ">>>" in m[2]]


@pytest.mark.parametrize("page", [p for p in GUIDES if shown(p)], ids=lambda p: p.stem)
def test_a_guide_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = shown(page)
    if missing := [needs for needs, _ in blocks if needs and find_spec(needs) is None]:
        pytest.skip(f"needs {missing[0]}")
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=FLAGS, verbose=False)
    names: dict = {"__name__": "__main__"}
    for i, (_, source) in enumerate(blocks):
        block = doctest.DocTestParser().get_doctest(source, {}, f"{page.stem} {i}", str(page), 0)
        block.globs = names
        runner.run(block, out=said.append, clear_globs=False)
    assert runner.tries > 0
    assert not said, "".join(said)


def test_the_guide_that_shows_most_is_found() -> None:
    assert [len(shown(p)) for p in GUIDES if p.stem == "fast-simulation"] == [3]
