"""Every public name imports, says what it is, and has its place in the reference."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import comity as co
from comity.core.fits import Unchanged

INDEX = Path(__file__).parents[2] / "docs" / "reference" / "index.md"


@pytest.mark.parametrize("name", co.__all__)
def test_a_public_name_imports_and_is_documented(name: str) -> None:
    text = inspect.getdoc(getattr(co, name)) or ""
    assert len(text.splitlines()) > 1, f"The docstring of {name} must have more than one line. Got {text!r}."
    assert text.splitlines()[0].endswith("."), f"The first line of {name} must be a sentence."


@pytest.mark.parametrize("name", co.__all__)
def test_a_public_class_says_what_its_methods_give(name: str) -> None:
    thing = getattr(co, name)
    if not inspect.isclass(thing):
        return
    own = {k: v for k, v in vars(thing).items() if not k.startswith("_") and inspect.isroutine(v)}
    assert not [k for k, v in own.items() if not inspect.getdoc(v)]


HEADINGS = {
    page.name: re.findall(r"^## (.*)$", page.read_text(encoding="utf-8"), re.M) for page in INDEX.parent.glob("*.md")
}


@pytest.mark.parametrize("name", [n for n in co.__all__ if n != "testing"])
def test_a_public_name_has_a_heading_on_exactly_one_page(name: str) -> None:
    pages = [page for page, headings in HEADINGS.items() for heading in headings if heading == name]
    assert len(pages) == 1, f"{name} is on {pages}. Write the pages anew: make docs"
    link = f"| [`{name}`]({pages[0]}#{name.lower()}) |"
    assert link in INDEX.read_text(encoding="utf-8"), "Write the pages anew: make docs"


@pytest.mark.parametrize("name", co.__all__)
def test_the_page_of_a_public_class_has_its_methods(name: str) -> None:
    thing = getattr(co, name)
    if not inspect.isclass(thing) or issubclass(thing, Exception):
        return
    members = {k: v for k, v in vars(thing).items() if k[0] != "_" and not isinstance(v, Unchanged)}
    own = [k for k, v in members.items() if inspect.isroutine(v) or isinstance(v, property)]
    text = "".join(p.read_text(encoding="utf-8") for p in INDEX.parent.glob("*.md"))
    assert not [k for k in own if f"\n### {name}.{k}\n" not in text], "Write the pages anew: make docs"


def test_whoever_writes_a_part_finds_its_protocol_and_its_law() -> None:
    shown = HEADINGS["parts.md"]
    protocols = [
        "Participant",
        "Method",
        "Combiner",
        "Transform",
        "Channel",
        "Engine",
        "Select",
        "Stop",
        "Model",
        "Secret",
    ]
    assert set(protocols) <= set(shown)
    assert {name for name in dir(co.testing) if name.startswith("check_")} <= set(shown)


def test_the_reference_is_current() -> None:
    make = [sys.executable, INDEX.with_name("make.py"), "--check"]
    done = subprocess.run(make, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_all_is_sorted_and_exact() -> None:
    assert co.__all__ == sorted(set(co.__all__))
    code = "import comity, types; v = vars(comity); print(*[k for k in v if k[0] != '_' and k not in comity.__all__"
    code += " and not isinstance(v[k], types.ModuleType)])"
    extra = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not extra, f"Public but not in __all__: {extra}. Put an underscore before them."


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(AttributeError, match="Did you mean 'FedAvg'"):
        co.FedAgv  # noqa: B018  to look it up is the test


@pytest.mark.parametrize("name", sorted({"compare", "race", "stats"} & set(co.__all__)))
def test_a_name_is_the_same_thing_whoever_loaded_its_module_first(name: str) -> None:
    home = getattr(co, name).__module__
    code = f"import {home}, comity; assert callable(comity.{name}), type(comity.{name})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
