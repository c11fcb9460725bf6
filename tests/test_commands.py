"""The commands for what was kept: predict, show, report, audit, check; and the manual that names them all."""

import io
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest
import typer

import comity as co
from comity.cli import commands
from comity.comparison.saved import files_of
from comity.comparison.shown import LONGEST, runs_of, sparkline

MANUAL = Path(__file__).parents[1] / "docs" / "reference" / "commands.md"
COMITY = [sys.executable, "-c", "from comity.cli import main; main()"]


@pytest.fixture(scope="module")
def kept(patients: Path) -> Path:
    """The folder of a comparison."""
    runs = patients.with_name("runs")
    co.compare(patients, "outcome", party="hospital", model="linear", rounds=3, repeats=2, runs=runs)
    return next(runs.iterdir())


@pytest.fixture
def joint(kept: Path, tmp_path: Path) -> Path:
    """A run of several rounds that a test may damage."""
    averaged = next(run for run in runs_of(kept) if "FedAvg" in (run / "recipe.json").read_text("utf-8"))
    return Path(shutil.copytree(averaged, tmp_path / "joint"))


def wrong(ended: Any, *words: str, code: int = 2) -> None:
    """One clear message on stderr, no traceback, nothing on stdout."""
    assert (ended.code, ended.out) == (code, "")
    assert ended.err.startswith("error      ")
    assert ended.err.count("\n") == 1
    for word in words:
        assert word in ended.err


def table_of(text: str) -> polars.DataFrame:
    return polars.read_csv(io.StringIO(text))


def test_predictions_are_csv(run: Any, kept: Path, patients: Path, tmp_path: Path) -> None:
    ended = run("predict", kept, patients)
    assert (ended.code, ended.err) == (0, "")
    found = table_of(ended.out)
    assert found.columns == ["row", "probability_no", "probability_yes", "predicted"]
    assert found.height == 120
    assert found.equals(co.predict(kept, patients))
    ended = run("predict", kept, patients, "--party", "Bern", "--way", "alone", "--out", tmp_path / "new" / "p.csv")
    assert (ended.code, ended.out, ended.err) == (0, "", "")
    own = polars.read_csv(tmp_path / "new" / "p.csv")
    assert own.equals(co.predict(kept, patients, party="Bern", way="alone"))
    assert not own.equals(found)
    assert run("predict", kept, patients, "--party", "Bern").out == run(
        "predict", files_of(kept)["Bern"]["personal"], patients
    ).out  # fmt: skip


def test_predictions_of_what_does_not_fit(run: Any, kept: Path, patients: Path, tmp_path: Path) -> None:
    wrong(run("predict", kept, patients, "--party", "Ayrr"), "no party 'Ayrr'", "Did you mean 'Ayr'?")
    wrong(run("predict", kept, patients, "--way", "jiont"), "joint, personal or alone")
    two = tmp_path / "two"
    for name in ("a", "b"):
        shutil.copytree(kept, two / name)
    wrong(run("predict", two, patients), "no finished comparison", f"Name one of {two / 'a'}")
    wrong(run("predict", kept, patients.with_name("patient.csv")), "There is no", "Did you mean 'patients.csv'?")
    wrong(run("predict", kept, patients, "--out", tmp_path), "can be written")
    (tmp_path / "new.csv").write_text("age,outcome\n1,yes\n")
    wrong(run("predict", kept, tmp_path / "new.csv"), "new.csv lacks 1: 'dose'")


def test_a_damaged_model_ends_with_1(run: Any, kept: Path, patients: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(kept, tmp_path / "copy"))
    path = files_of(folder)[""]["joint"]
    path.write_bytes(path.read_bytes()[:-1])
    wrong(run("predict", folder, patients), path.name, "does not match its hash", code=1)
    assert run("predict", folder, patients, "--party", "Ayr").code == 0


def test_show_of_a_comparison(run: Any, kept: Path) -> None:
    ended = run("show", kept)
    assert (ended.code, ended.err) == (0, "")
    assert "gain from joining" in ended.out
    assert "joint      linear, 72 B, 18 parameters, float32" in ended.out
    own = files_of(kept)["Ayr"]["personal"]
    assert f"Ayr, personal: models/{own.name}" in ended.out
    runs = list(kept.rglob("run.db"))
    assert f"{len(runs)} joint trainings" in ended.out
    for command in ("predict", "report", "audit"):
        assert f"comity {command} " in ended.out


def test_the_chosen_run_comes_first(kept: Path) -> None:
    first = runs_of(kept)[0]
    recipe = co.audit(first).recipe
    assert first.parent.name == "repeat-0"  # the models that are kept are those of the first split
    assert (kept / "results.json").read_text("utf-8").count(recipe) == 1
    assert len({co.audit(folder).recipe for folder in runs_of(kept)}) > 1


def test_show_of_a_run(run: Any, joint: Path) -> None:
    ended = run("show", joint)
    assert (ended.code, ended.err) == (0, "")
    found = co.audit(joint)
    assert ended.out.startswith("joint   3 rounds closed   last written ")
    assert re.search(r"^score      \d\.\d{3} accuracy, validation rows   [▁▂▃▄▅▆▇█]{3}$", ended.out, re.M)
    assert re.search(r"^state      \d+ B, 18 parameters, float32$", ended.out, re.M)
    assert re.search(r"^Ayr     3 / 3      .* kB   .* kB   none$", ended.out, re.M)
    assert f"comity audit {joint}" in ended.out
    assert found.parties["Ayr"].answered == 3
    with sqlite3.connect(joint / "run.db") as db:
        db.execute("UPDATE entries SET time = 0 WHERE number = 2")
    db.close()
    ended = run("show", joint)
    assert ended.code == 1
    assert "entry 2 does not match the hash in entry 3" in ended.out


def test_show_says_who_failed(run: Any, tmp_path: Path) -> None:
    class Failing:
        def contribute(self, shared: Any, local: Any, round: Any, secret: Any) -> Any:
            raise RuntimeError("connection reset \x1b[31m")

    model = co.Linear(inputs=2, classes=2, rate=0.1)
    data = np.eye(2, dtype="float32"), np.array([0, 1])
    sites = {"ada": co.Trainer(model, data), "bob": Failing()}
    co.Collaboration(co.FedAvg(model), sites, evaluate=False).run(2, folder=tmp_path / "r")
    said = run("show", tmp_path / "r").out
    assert re.search(r"^bob     0 / 2 .*   round 2: RuntimeError: connection reset \?\[31m$", said, re.M)
    assert "score      none was taken" not in said  # training reports its loss
    said = run("audit", tmp_path / "r").out
    assert re.search(r"^bob .* never +never$", said, re.M)
    assert re.search(r"^dropped    2   bob, round 1: RuntimeError", said, re.M)


def test_a_report_of_what_was_kept(run: Any, kept: Path, joint: Path, tmp_path: Path) -> None:
    ended = run("report", kept, "--out", tmp_path / "new" / "r.html")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == f"report     {tmp_path / 'new' / 'r.html'}\n"
    assert (tmp_path / "new" / "r.html").read_text("utf-8").startswith("<!doctype html>")
    wrong(run("report", joint, "--out", tmp_path / "r.html"), "holds a run, not a comparison")
    wrong(run("report", kept, "--out", tmp_path), "can be written")


def test_an_audit(run: Any, joint: Path, tmp_path: Path) -> None:
    ended = run("audit", joint)
    assert (ended.code, ended.err) == (0, "")
    found = co.audit(joint)
    assert f"ledger     {found.entries} entries, chain intact, " in ended.out
    assert f"head       {found.head}\n" in ended.out
    assert f"recipe     sha256:{found.recipe[:8]}   FedAvg, Mean, Plain, Everyone" in ended.out
    assert "refused    none\ndropped    none\n" in ended.out
    assert "privacy    no privacy mechanism in this recipe" in ended.out
    assert "revealed   to the hub: each party's contribution" in ended.out
    (tmp_path / "kept.txt").write_text(ended.out, "utf-8")
    again = run("audit", joint, "--against", tmp_path / "kept.txt")
    assert again.code == 0
    assert f"kept       the kept head is that of entry {found.entries} of {found.entries}" in again.out


def test_an_audit_of_a_broken_chain_ends_with_1(run: Any, joint: Path) -> None:
    with sqlite3.connect(joint / "run.db") as db:
        db.execute("UPDATE entries SET time = 0 WHERE number = 3")
    db.close()
    ended = run("audit", joint)
    assert (ended.code, ended.err) == (1, "")
    assert ended.out.startswith(
        "ledger     entry 3 does not match the hash in entry 4. Entries 1 to 2 are intact.\n"
        f"           Compare with the copy of another party: comity audit {joint} --against FILE\n"
    )
    assert "chain intact" not in ended.out


def test_the_folder_that_was_named_to_runs_will_do(run: Any, kept: Path, patients: Path, tmp_path: Path) -> None:
    """There is one comparison in it."""
    assert run("predict", kept.parent, patients).out == run("predict", kept, patients).out
    assert run("show", kept.parent).out == run("show", kept).out
    assert run("report", kept.parent, "--out", tmp_path / "r.html").code == 0


def test_an_audit_of_a_comparison_is_of_the_run_that_was_chosen(run: Any, kept: Path) -> None:
    chosen = runs_of(kept)[0]
    assert chosen.parent.name == "repeat-0"
    ended = run("audit", kept)
    assert ended.code == 0
    assert ended.out == f"run        {chosen}\n" + run("audit", chosen).out


def test_an_audit_of_something_else(run: Any, kept: Path, joint: Path, tmp_path: Path) -> None:
    wrong(run("audit", tmp_path / "nowhere"), "must be the folder of a run")
    wrong(run("audit", joint, "--against", tmp_path / "none.txt"), "must be in a file or a run's folder")


def test_a_table_is_checked(run: Any, patients: Path, tmp_path: Path) -> None:
    schema = tmp_path / "new" / "schema.toml"
    ended = run("check", patients, "--write-schema", schema, "--target", "outcome", "--party", "hospital")
    assert (ended.code, ended.err) == (0, "")
    assert f"schema     {schema}" in ended.out
    assert 'target = "outcome"' in schema.read_text("utf-8")
    ended = run("check", patients, "--schema", schema)
    assert (ended.code, ended.err) == (0, "")
    other = tmp_path / "other.csv"
    other.write_text(patients.read_text("utf-8").replace(",yes,", ",ja,").replace("dose", "Dose"), "utf-8")
    ended = run("check", other, "--schema", schema)
    assert (ended.code, ended.err) == (1, "")
    assert re.search(r"^error      dose: the column is missing", ended.out, re.M)
    assert "'ja'" in ended.out
    wrong(run("check", patients), "--schema FILE")
    wrong(run("check", patients, "--schema", tmp_path / "none.toml"), "none.toml")
    wrong(run("check", patients, "--write-schema", tmp_path / "s.toml", "--target", "outcom"), "Did you mean 'outcome'")


def test_output_is_plain_in_a_pipe(kept: Path, joint: Path, patients: Path) -> None:
    for args in (["show", kept], ["show", joint], ["audit", joint], ["predict", kept, patients]):
        got = subprocess.run(
            [*COMITY, *map(str, args)], capture_output=True, env={**os.environ, "PYTHONIOENCODING": "utf-8"}
        )
        assert (got.returncode, got.stderr) == (0, b"")
        assert b"\x1b" not in got.stdout
        assert b"\r" not in got.stdout


def test_a_sparkline_is_no_longer_than_it_may_be() -> None:
    assert len(sparkline([float(i) for i in range(1000)])) == LONGEST
    assert sparkline([float(i) for i in range(1000)])[::13] == "▁▃▆█"


def options(command: Any) -> set[str]:
    return {o for p in command.params if p.param_type_name == "option" for o in (*p.opts, *p.secondary_opts)} - {
        "--help"
    }


def missing(group: Any, text: str, name: str = "comity") -> list[str]:
    """What a manual lacks of the commands of a group and of those below them, or has too much."""
    level = "#" * (len(name.split()) + 1)
    sections = dict(re.findall(rf"^{level} {name} ([\w-]+)\n(.*?)(?=^{level} |\Z)", text, re.M | re.S))
    wrong = [f"{name} {other}" for other in sorted(set(sections) ^ set(group.commands))]
    for other in sorted(set(sections) & set(group.commands)):
        command, own = group.commands[other], re.split(r"^#", sections[other], maxsplit=1, flags=re.M)[0]
        named = set(re.findall(r"`(--[a-z-]+)`", own))
        wrong += [f"{name} {other} {option}" for option in sorted(named ^ options(command))]
        wrong += missing(command, sections[other], f"{name} {other}") if hasattr(command, "commands") else []
    return wrong


def test_every_command_and_option_is_in_the_manual() -> None:
    text = MANUAL.read_text("utf-8")
    group: Any = typer.main.get_command(commands.app)
    assert not missing(group, text)
    assert options(group) == {"--version", "--traceback"}
    assert all(f"`{o}`" in text.split("## ")[0] for o in options(group))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("## comity page", "## comity pages", ["comity page", "comity pages"]),
        ("### comity hub prune", "### comity hub prunes", ["comity hub prune", "comity hub prunes"]),
        ("| `--dry-run` |", "| `--dry` |", ["comity hub prune --dry", "comity hub prune --dry-run"]),
        ("| `--salt` |", "| salt |", ["comity compare --salt"]),
    ],
)
def test_what_the_manual_lacks_is_told(old: str, new: str, said: list[str]) -> None:
    text = MANUAL.read_text("utf-8")
    assert text.count(old) == 1
    group: Any = typer.main.get_command(commands.app)
    assert missing(group, text.replace(old, new)) == said


def named(group: Any) -> list[list[str]]:
    """The words of each command, and of those below it."""
    below = {name: named(command) if hasattr(command, "commands") else [] for name, command in group.commands.items()}
    return [words for name in below for words in [[name], *([name, *rest] for rest in below[name])]]


def test_help_of_each_command(run: Any) -> None:
    found = named(typer.main.get_command(commands.app))
    assert ["hub", "restore"] in found
    for words in found:
        ended = run(*words, "--help")
        assert ended.code == 0
        assert f"comity {' '.join(words)}" in ended.out
