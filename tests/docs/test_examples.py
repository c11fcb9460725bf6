"""What the documentation shows runs: every doctest of the package, and the README."""

import doctest
import re
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SRC = ROOT / "src"
MODULES = sorted(".".join(path.relative_to(SRC).with_suffix("").parts) for path in SRC.rglob("*.py"))
MODULES = [name.removesuffix(".__init__") for name in MODULES if not name.endswith("__main__")]
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.M | re.S)


def examples(module: str) -> list[doctest.DocTest]:
    return [t for t in doctest.DocTestFinder(exclude_empty=True).find(import_module(module)) if t.examples]


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_of_a_module_run(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=FLAGS, verbose=False)
    for example in examples(module):
        runner.run(example, out=said.append)
    assert not runner.failures, "".join(said)


def test_the_examples_are_found() -> None:
    assert sum(len(t.examples) for module in ("comity.core.contribution", "comity.core.rng") for t in examples(module))


def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    block = blocks("python")[0]
    assert len([line for line in block.splitlines() if line.strip()]) <= 12
    names: dict = {}
    exec(compile(block, "README.md", "exec"), names)
    run = names["run"]
    assert run.metrics["accuracy"] > 0.8
    assert run.ledger.rounds == 20
    assert (tmp_path / "runs" / "digits" / "recipe.json").exists()


def test_the_readme_shows_three_commands_that_exist() -> None:
    commands = [line.split("#")[0].split() for line in "".join(blocks("sh")).splitlines() if line.strip()]
    assert commands == [["make", "demo"], ["make", "test"], ["make", "hub-demo"]]
    rules = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert all(re.search(rf"^{target}:", rules, re.M) for _, target in commands)
