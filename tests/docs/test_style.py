"""Files, functions and parameter lists stay small enough to be read at once."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).parents[2] / "src" / "comity"
FILE, FUNCTION, PARAMETERS = 400, 40, 6
OPTIONS = ("cli", "comparison", "summary")  # parameters by keyword there are options and settings of the main job


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    yield from (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))


def body_lines(f: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function, its docstring left out."""
    doc = f.body[0] if ast.get_docstring(f, clean=False) is not None else None
    return f.end_lineno - f.lineno + 1 - (doc.end_lineno - doc.lineno + 1 if doc else 0)


def parameters(f: ast.FunctionDef | ast.AsyncFunctionDef, *, settings: bool) -> int:
    """How many parameters; those by keyword are not counted where they are `settings`."""
    given = [a.arg for a in [*f.args.posonlyargs, *f.args.args]]
    own = len(given) - (bool(given) and given[0] in ("self", "cls"))
    return own + (0 if settings else len(f.args.kwonlyargs))


def complaints(source: str, file: str) -> list[str]:
    room, tree = file.split("/")[0].removesuffix(".py"), ast.parse(source)
    wrong = [f"{file}: {n} lines" for n in [len(source.splitlines())] if n > FILE]
    for f in functions(tree):
        lines, count = body_lines(f), parameters(f, settings=room in OPTIONS)
        wrong += [f"{file}:{f.lineno} {f.name}: {lines} lines"] if lines > FUNCTION else []
        if count > PARAMETERS and room != "cli":
            wrong.append(f"{file}:{f.lineno} {f.name}: {count} parameters")
        if f.args.kwarg and f.args.kwarg.arg in ("kwargs", "kw", "options"):
            wrong.append(f"{file}:{f.lineno} {f.name}: **{f.args.kwarg.arg} rides through")
    return wrong


@pytest.mark.parametrize("path", sorted(SRC.rglob("*.py")), ids=lambda p: p.relative_to(SRC).as_posix())
def test_a_file_can_be_read_at_once(path: Path) -> None:
    assert not complaints(path.read_text(encoding="utf-8"), path.relative_to(SRC).as_posix())


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("core/a.py", "x = 1\n" * 401),
        ("core/a.py", "def f():\n" + "    x = 1\n" * 40),
        ("core/a.py", "def f(a, b, c, d, e, f, g): ..."),
        ("core/a.py", "def f(a, *, b, c, d, e, f, g): ..."),
        ("core/a.py", "def f(**kwargs): ..."),
    ],
)
def test_what_is_refused(file: str, source: str) -> None:
    assert len(complaints(source, file)) == 1


def test_what_is_not_refused() -> None:
    long_docstring = 'def f():\n    """Gives.\n' + "    line\n" * 60 + '    """\n' + "    x = 1\n" * 35
    assert not complaints(long_docstring, "core/a.py")
    assert not complaints("def compare(a, *, b, c, d, e, f, g): ...", "comparison/compare.py")
    assert not complaints("class A:\n    def f(self, a, b, c, d, e, f): ...", "core/a.py")
