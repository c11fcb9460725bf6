"""Every public name imports, says what it is, and has its line in the reference."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import comity as co

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


@pytest.mark.parametrize("name", co.__all__)
def test_a_public_name_is_in_the_reference(name: str) -> None:
    assert f"| `{name}` |" in INDEX.read_text(encoding="utf-8"), "Write it anew: make docs"


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


@pytest.mark.parametrize("name", sorted({"compare", "stats"} & set(co.__all__)))
def test_a_name_is_the_same_thing_whoever_loaded_its_module_first(name: str) -> None:
    home = getattr(co, name).__module__
    code = f"import {home}, comity; assert callable(comity.{name}), type(comity.{name})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
