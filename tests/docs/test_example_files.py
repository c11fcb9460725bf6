"""The examples run, are short, and print a line of result; examples/README.md lists them.

python tests/docs/test_example_files.py    write examples/README.md anew
"""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.docs.warm import Warm

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
README = ROOT / "examples" / "README.md"
KNOWN = {"comity", "numpy", "torch", "sklearn", "scipy", "polars", "pandas", "pettingzoo", "matplotlib"}
LINES, SECONDS, HANGS = 60, 60, 600
"""Lines of an example; seconds that it may take on a core (others may use the cores too); seconds until it hangs."""
FIRST = {"03_tickets": 20}
"""Rounds that are run by default, where four are too few: everybody must have been asked once."""
LEARNT = ("methods", "crowd", "comparison", "summary", "adapters.torch.lora", "adapters.ensemble")
"""Rooms whose names say what an example is about."""
OPENING = """# Examples

Each runs by itself in some seconds, on data that come with scikit-learn, and prints one line: the result beside its
baseline. Some use data sets in the folder that `COMITY_DATA` names, and say so where it is not there.

```sh
python examples/ensemble.py
```

| file | what it shows | with |
|---|---|---|
"""


def slow(path: Path) -> Any:
    return pytest.param(path, marks=pytest.mark.slow)


def imports(source: str) -> set[str]:
    """The libraries that a file imports, by their first name."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or ".").split(".")[0] if not node.level else ".")
    return found


def complaints(source: str) -> list[str]:
    """What is wrong with an example before it runs."""
    tree, lines = ast.parse(source), len(source.splitlines())
    wrong = [f"{lines} lines: it must have fewer than {LINES}"] if lines >= LINES else []
    strange = sorted(n for n in imports(source) - KNOWN if n not in sys.stdlib_module_names)
    wrong += [f"imports {name}" for name in strange]
    wrong += [] if "comity" in imports(source) else ["does not import comity"]
    texts = {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    wrong += [f"an absolute path: {t[:40]}" for t in sorted(texts) if re.match(r"(/\w+/|~/|[A-Za-z]:\\)", t)]
    doc = ast.get_docstring(tree) or ""
    first = doc.splitlines()[0] if doc else ""
    wrong += (
        [] if first.endswith((".", "?", "!")) else [f"its docstring must begin with a sentence in one line: {first!r}"]
    )
    return wrong


def row(path: Path) -> str:
    """The line of an example in the table."""
    import comity as co

    tree = ast.parse(path.read_text(encoding="utf-8"))
    doc = (ast.get_docstring(tree) or "").split("\n\n")[0].replace("\n", " ").replace("|", "\\|")
    used = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and getattr(n.value, "id", "") == "co"}
    named = sorted(n for n in used if co._HOME.get(n, "").removeprefix("comity.").startswith(LEARNT))
    return f"| [{path.name}]({path.name}) | {doc} | {', '.join(f'`{n}`' for n in named)} |\n"


def table() -> str:
    """What examples/README.md must hold."""
    return OPENING + "".join(map(row, EXAMPLES))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_an_example_is_short_and_needs_little(path: Path) -> None:
    assert not complaints(path.read_text(encoding="utf-8"))


def needed(path: Path) -> None:
    """Skip where a library is missing that an example needs."""
    for library in sorted(imports(path.read_text(encoding="utf-8")) & {"torch", "polars", "pandas", "pettingzoo"}):
        pytest.importorskip(library)


def judged(code: int, out: str, err: str, left: list[Path]) -> None:
    """It ended well, printed its result last, and left nothing behind."""
    assert code == 0, err[-2000:]
    said = [line for line in out.splitlines() if line.strip()]
    assert said, "It must print its result."
    if said[-1].startswith("skipped"):
        pytest.skip(said[-1])
    assert re.search(r"\d", said[-1]), f"Its last line must hold the result. Got {said[-1]!r}."
    assert not left, "It must leave nothing behind."


@pytest.fixture(scope="module")
def warm() -> Iterator[Warm]:
    process = Warm.start()
    yield process
    process.close()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_the_first_rounds_of_an_example(path: Path, warm: Warm, tmp_path: Path) -> None:
    """All its lines, warnings as errors, in a process of its own where libraries are loaded already."""
    needed(path)
    judged(*warm.run(path, tmp_path, rounds=FIRST.get(path.stem, 4), seconds=SECONDS))


@pytest.mark.parametrize("path", [p if p.stem == "crowd_labels" else slow(p) for p in EXAMPLES], ids=lambda p: p.stem)
def test_an_example_runs_and_says_what_came_of_it(path: Path, tmp_path: Path) -> None:
    needed(path)
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    before = os.times()
    done = subprocess.run(
        [sys.executable, "-W", "error", path], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=HANGS
    )
    after = os.times()
    seconds = after.children_user + after.children_system - before.children_user - before.children_system
    print(f"{path.name}: {seconds:.1f} s")
    judged(done.returncode, done.stdout, done.stderr, list(tmp_path.iterdir()))
    assert seconds < SECONDS


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("print(1 / 0)", "ZeroDivisionError"),
        ("import warnings; warnings.warn('old')\nprint(1)", "UserWarning: old"),
        ("open('left', 'w').close()\nprint(1)", "leave nothing behind"),
        ("print('done')", "must hold the result"),
        ("", "must print its result"),
        ("import sys; print(1); sys.exit(3)", "assert 3 == 0"),
    ],
)
def test_an_example_that_goes_wrong_is_told(code: str, says: str, warm: Warm, tmp_path: Path) -> None:
    (tmp_path / "wrong.py").write_text(code, encoding="utf-8")
    ended = warm.run(tmp_path / "wrong.py", tmp_path, rounds=4, seconds=SECONDS)
    with pytest.raises(AssertionError, match=says):
        judged(*ended)


def test_the_table_of_examples_is_current() -> None:
    again = "Write it anew: python tests/docs/test_example_files.py"
    assert README.exists(), again
    assert README.read_text(encoding="utf-8") == table(), again


FINE = '"""It shows something."""\nimport comity as co\n'


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (FINE + "x = 1\n" * 58, "60 lines"),
        (FINE + "import jax\n", "imports jax"),
        (FINE + "from .other import x\n", "imports ."),
        ('"""It shows something."""\n', "does not import comity"),
        (FINE + "open('/data/x.csv')\n", "an absolute path"),
        (FINE + "open('C:\\\\data')\n", "an absolute path"),
        ("import comity as co\n", "must begin with a sentence"),
        ('"""It shows\nsomething."""\nimport comity as co\n', "must begin with a sentence"),
    ],
)
def test_what_is_wrong_with_an_example_is_told(source: str, says: str) -> None:
    (wrong,) = complaints(source)
    assert says in wrong


def test_what_is_right_with_an_example_is_not_told() -> None:
    assert not complaints(FINE + "import numpy as np\nfrom pathlib import Path\nx = 'a / b', '/'\n" + "y = 1\n" * 54)


if __name__ == "__main__":
    README.write_text(table(), encoding="utf-8")
