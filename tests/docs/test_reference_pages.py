"""What the reference makes of a docstring: signatures from the source, sections as lists, examples as fenced code."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parents[2] / "docs" / "reference"


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The modules of docs/reference by name."""
    monkeypatch.syspath_prepend(HERE)

    def one(name: str) -> Any:
        spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    return one


DOC = """Do it.

More of *it*, and <b>.

Args:
    source: a path, or
        a frame.
    *names: others.

Returns:
    What came (float64).

Raises:
    ConfigError: nothing there.

Example:
    >>> 1 + 1
    2

    And then

        a | b
"""


def test_a_docstring_as_markdown(loaded: Any) -> None:
    text = "\n".join(loaded("writing").body(DOC))
    assert text.startswith(
        "Do it.\n\nMore of \\*it\\*, and \\<b>.\n\n**Arguments**\n\n- `source`: a path, or\n  a frame.\n"
    )
    assert "- `*names`: others.\n\n**Returns**\n\nWhat came (float64).\n" in text
    assert "**Raises**\n\n- `ConfigError`: nothing there.\n" in text
    assert "**Example**\n\n```python\n>>> 1 + 1\n2\n```\n\nAnd then\n\n```text\na | b\n```" in text


@pytest.mark.parametrize(
    ("name", "signature"),
    [
        ("every", "every(rounds: int, select: Select | None = None) -> Every"),
        ("Vote", None),
        (
            "Until",
            "Until(\n    quorum: int,\n    seconds: float | None = None,\n    grace: float = 0.0,\n"
            "    owed: Mapping[str, Owed] | None = None,\n)",
        ),
        ("ConfigError", ""),
    ],
)
def test_a_signature_as_it_is_called(loaded: Any, name: str, signature: str | None) -> None:
    found = loaded("reading").thing_of(name)
    assert found.doc
    assert found.file.startswith("src/comity/")
    assert "self" not in found.signature
    if signature is not None:
        assert found.signature == signature


def test_hidden_fields_and_class_variables_are_in_no_signature(loaded: Any) -> None:
    reading = loaded("reading")
    shown = [reading.thing_of(name).signature for name in ("Mean", "Krum", "Collaboration", "Trainer")]
    assert not [s for s in shown if "ClassVar" in s or "\n    _" in s or "field(" in s]
    assert "    seed: int = 0," in shown[2]


def test_links_in_the_index_lead_to_headings(loaded: Any) -> None:
    loaded("reading")
    writing, make = loaded("writing"), loaded("make")
    pages = make.pages()
    for name in make.comity.__all__:
        group = make.page_of(name)
        assert name == "testing" or f"\n## {name}\n" in pages[HERE / f"{group.file}.md"]
    assert writing.anchor("Run.best") == "runbest"
