"""Names say what a thing is: no scaffolding words, and both halves of a technique in one file."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).parents[2] / "src" / "comity"
FORBIDDEN = {"base", "abstract", "manager", "handler", "utils", "util", "helpers"}
HALVES = ("server_", "client_")


def words(name: str) -> list[str]:
    """`FedAvgManager` and `fed_avg_manager` in their words."""
    return [w.lower() for w in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)]


def names(tree: ast.AST) -> Iterator[str]:
    """The names of functions, arguments and attributes that a file gives."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
            yield from (a.arg for a in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs])
        elif isinstance(node, ast.AnnAssign | ast.Assign):
            targets = [node.target] if isinstance(node, ast.AnnAssign) else node.targets
            yield from (getattr(t, "id", getattr(t, "attr", "")) for t in targets)


def complaints(source: str) -> list[str]:
    tree = ast.parse(source)
    classes = [node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    wrong = [f"class {name}" for name in classes if FORBIDDEN & set(words(name))]
    return wrong + [name for name in names(tree) if name.lstrip("_").startswith(HALVES)]


@pytest.mark.parametrize("path", sorted(SRC.rglob("*.py")), ids=lambda p: p.relative_to(SRC).as_posix())
def test_no_scaffolding_words(path: Path) -> None:
    assert not FORBIDDEN & set(words(path.stem))
    assert not complaints(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "source",
    [
        "class BaseMethod: ...",
        "class RoundManager: ...",
        "class HTTPHandler: ...",
        "def f(server_rate): ...",
        "class A:\n    client_state: int",
        "def client_update(): ...",
    ],
)
def test_what_is_refused(source: str) -> None:
    assert complaints(source)


def test_what_is_not_refused() -> None:
    assert not complaints("class Based: ...\ndef f(server, basement): ...")
