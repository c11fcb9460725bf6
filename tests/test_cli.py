"""The command: what it writes, what it says when something is wrong, and how it ends."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest

from comity.core.errors import ConfigError, TooFewParticipants

FAST = ["--model", "linear", "--rounds", "3", "--repeats", "2"]
COMITY = [sys.executable, "-m", "comity"]


def compared(path: Path, *more: object, target: str = "outcome", party: str = "hospital") -> list[object]:
    return ["compare", path, "--target", target, "--party", party, *FAST, *more]


def wrong(ended: Any, *words: str) -> None:
    """One clear message on stderr, exit code 2, no traceback, nothing on stdout."""
    assert ended.code == 2
    assert ended.out == ""
    assert ended.err.startswith("error      ")
    assert ended.err.count("\n") == 1
    assert "Traceback" not in ended.err
    for word in words:
        assert word in ended.err


def test_everything_is_written(run: Any, patients: Path, tmp_path: Path) -> None:
    ended = run(*compared(patients, "--json", tmp_path / "new" / "r.json", "--report", tmp_path / "r.html"))
    assert (ended.code, ended.err) == (0, "")
    results = json.loads((tmp_path / "new" / "r.json").read_text(encoding="utf-8"))
    assert results["title"] == "patients.csv"
    assert results["settings"]["command"].startswith("comity compare ")
    assert "--party hospital --model linear" in results["settings"]["command"]
    assert (tmp_path / "r.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert results["verdict"].split(". ")[0] in ended.out
    assert f"report     {tmp_path / 'r.html'}" in ended.out


@pytest.fixture(scope="module")
def elsewhere(patients: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A comparison by another process, through a pipe: the folder of a.json and runs, and how it ended."""
    folder = tmp_path_factory.mktemp("elsewhere")
    args = compared(patients, "--runs", folder / "runs", "--json", folder / "a.json")
    return folder, subprocess.run([*COMITY, *map(str, args)], capture_output=True, text=True, encoding="utf-8")


def test_output_is_plain_in_a_pipe(elsewhere: tuple[Path, Any]) -> None:
    _, got = elsewhere
    assert (got.returncode, got.stderr) == (0, "")
    assert "\x1b" not in got.stdout
    assert "\r" not in got.stdout
    assert max(len(line) for line in got.stdout.splitlines() if " /" not in line) <= 100  # paths are not cut
    assert "gain from joining" in got.stdout


def test_a_terminal_that_has_no_minus_sign(patients: Path, elsewhere: tuple[Path, Any]) -> None:
    env = {**os.environ, "PYTHONIOENCODING": "ascii"}
    args = compared(patients, "--runs", elsewhere[0] / "runs")
    got = subprocess.run([*COMITY, *map(str, args)], capture_output=True, env=env)
    assert (got.returncode, got.stderr) == (0, b"")
    assert b"gain from joining" in got.stdout
    assert got.stdout.isascii()


def test_a_missing_file(run: Any, patients: Path) -> None:
    wrong(run(*compared(patients.with_name("patient.csv"))), "There is no", "Did you mean 'patients.csv'?")


def test_a_wrong_column(run: Any, patients: Path) -> None:
    wrong(run(*compared(patients, target="outcom")), "no column 'outcom' in patients.csv", "Did you mean 'outcome'?")
    wrong(run(*compared(patients, party="hosp")), "no column 'hosp' in patients.csv", "Did you mean 'hospital'?")
    wrong(run(*compared(patients, target="hospital")), "two columns")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        ("age,outcome,hospital\n", "0 rows"),
        ("age,outcome,hospital\n" + "1,yes,Ayr\n2,yes,Bern\n" * 20, "at least two classes"),
        ("age,outcome,hospital\n" + "1,yes,Ayr\n2,no,Ayr\n" * 20, "two parties"),
        ("age,outcome,hospital\n" + "1,yes,\n2,no,\n" * 20, "at least one party"),
        ("age,outcome,hospital\n1,2\n1,2,3,4,5\n", "as many values"),
        ("\0\1\2" * 50, "neither"),
    ],
)
def test_tables_of_no_use(run: Any, tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    wrong(run(*compared(path)), says)


def test_a_wrong_setting(run: Any, patients: Path) -> None:
    wrong(run(*compared(patients, "--model", "lienar")), "auto, linear, mlp, trees", "'lienar'")
    wrong(run(*compared(patients, "--repeats", 0)), "'repeats' must be an int >= 1. Got 0.")
    wrong(run(*compared(patients, "--rounds", -1)), "'rounds' must be an int >= 1. Got -1.")
    ended = run("demo", "--repeats", 0)
    assert (ended.code, ended.err) == (2, "error      The 'repeats' must be an int >= 1. Got 0.\n")


@pytest.mark.parametrize("option", ["--json", "--report"])
def test_what_cannot_be_written_is_said_before_the_work(
    run: Any, patients: Path, tmp_path: Path, option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*args: object, **settings: object) -> None:
        raise AssertionError("the work began")

    monkeypatch.setattr("comity.comparison.compare.compare", never)
    wrong(run(*compared(patients, option, tmp_path)), "can be written", str(tmp_path))
    wrong(run(*compared(patients, option, patients / "r")), "can be written")


def test_a_demo_that_has_nowhere_to_go(run: Any, patients: Path) -> None:
    wrong(run("demo", "--folder", patients), "can be written")


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["compare", "t.csv", "--target", "y", "--party", "p", "--modle", "mlp"], "No such option: --modle"),
        (["compare", "t.csv", "--target", "y"], "--party"),
        (["compare", "--target", "y", "--party", "p"], "table"),
        (["compare", "t.csv", "--target", "y", "--party", "p", "--repeats", "many"], "--repeats"),
        (["comapre"], "No such command 'comapre'"),
    ],
)
def test_a_wrong_command_line(run: Any, args: list[str], says: str) -> None:
    ended = run(*args)
    assert (ended.code, ended.out) == (2, "")
    assert says in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("place", [0, 1, 4, 99])
def test_a_traceback_when_asked_for_anywhere(run: Any, patients: Path, place: int) -> None:
    args = compared(patients, target="outcom")
    args.insert(place, "--traceback")
    ended = run(*args)
    assert ended.code == 2
    assert ended.err.startswith("Traceback (most recent call last)")
    assert "\nerror      There is no column 'outcom'" in ended.err


@pytest.mark.parametrize(
    ("error", "code"), [(ConfigError("Wrong."), 2), (TooFewParticipants("Failed."), 1), (KeyboardInterrupt(), 130)]
)
def test_exit_codes(run: Any, patients: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int) -> None:
    def fails(*args: object, **settings: object) -> None:
        raise error

    monkeypatch.setattr("comity.comparison.compare.compare", fails)
    ended = run(*compared(patients))
    assert (ended.code, ended.out) == (code, "")
    assert ended.err == {
        2: "error      Wrong.\n",
        1: "error      Failed.\n",
        130: "stopped    Interrupted. Run the same command to start again.\n",
    }[code]  # fmt: skip


def test_ctrl_c(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "t.csv"
    frame = polars.DataFrame({f"x{i}": rng.normal(size=4_000) for i in range(10)})
    frame.with_columns(polars.Series("y", [0, 1] * 2000), polars.Series("p", ["a", "a", "b", "b"] * 1000)).write_csv(
        path
    )
    args = [*COMITY, "compare", str(path), "--target", "y", "--party", "p", "--runs", str(tmp_path / "runs")]
    process = subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "runs").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err == "stopped    Interrupted. What was saved is intact. Run the same command to go on.\n"


def test_runs_are_found_again_by_another_process(run: Any, patients: Path, elsewhere: tuple[Path, Any]) -> None:
    here, _ = elsewhere
    written = {p: p.stat().st_mtime_ns for p in (here / "runs").rglob("*") if p.name == "recipe.json"}
    assert run(*compared(patients, "--runs", here / "runs", "--json", here / "b.json")).code == 0
    assert len(list((here / "runs").iterdir())) == 1
    assert written == {p: p.stat().st_mtime_ns for p in written}
    a, b = (json.loads((here / f"{name}.json").read_text(encoding="utf-8")) for name in "ab")
    assert {k: v for k, v in a.items() if k not in ("seconds", "settings", "cost")} == {
        k: v for k, v in b.items() if k not in ("seconds", "settings", "cost")
    }


@pytest.mark.parametrize("encoding", ["utf-8-sig", "latin-1", "utf-16"])
def test_a_table_as_people_export_it(run: Any, tmp_path: Path, encoding: str) -> None:
    """Semicolons, decimal commas, spaces and signs in names, other encodings."""
    rng = np.random.default_rng(0)
    lines = ["größe [cm];Ge wicht;Erkrankt? (ja/nein);Spital"]
    for i in range(60):
        a, b = rng.normal(size=2)
        word = "ja" if a + b > 0 else "nein"
        lines.append(f"{a:.2f};{b:.2f};{word};{['Köln', 'Zürich'][i % 2]}".replace(".", ","))
    (tmp_path / "export.csv").write_bytes("\r\n".join(lines).encode(encoding))
    args = compared(
        tmp_path / "export.csv", "--json", tmp_path / "r.json", target="Erkrankt? (ja/nein)", party="Spital"
    )
    assert run(*args).code == 0
    results = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert set(results["parties"]) == {"Köln", "Zürich"}
    assert results["question"]["inputs"] == 2
    assert results["ways"]["pooled"]["roc_auc"]["mean"] > 0.8  # the decimal commas were read as numbers


def test_help_names_every_option(run: Any) -> None:
    said = run("compare", "--help").out
    options = [
        "--target",
        "--party",
        "--model",
        "--rounds",
        "--repeats",
        "--seed",
        "--no-pooled",
        "--json",
        "--report",
        "--runs",
    ]
    assert [o for o in options if o not in said] == []
    said = run("demo", "--help").out
    assert [o for o in ["--folder", "--repeats", "--rounds", "--seed"] if o not in said] == []
    said = run("--help").out
    assert [o for o in ["--version", "--traceback", "demo", "compare"] if o not in said] == []
    assert run("--version").out.startswith("comity 0.")


def test_help_is_quick() -> None:
    times = []
    for _ in range(7):  # the least of several, and of what it worked: another process may be busy on these cores
        start = os.times()
        subprocess.run([*COMITY, "--help"], check=True, capture_output=True)
        end = os.times()
        times.append(end.children_user - start.children_user + end.children_system - start.children_system)
        if times[-1] < 0.6:
            return
    raise AssertionError(f"comity --help must answer in under 0.6 s. Got {min(times):.2f} s.")


@pytest.mark.slow
def test_the_demo(tmp_path: Path) -> None:
    start = time.perf_counter()
    args = [*COMITY, "demo", "--folder", str(tmp_path / "out")]
    got = subprocess.run(args, capture_output=True, text=True, encoding="utf-8")
    assert (got.returncode, got.stderr) == (0, "")
    assert time.perf_counter() - start < 60
    for title, name in (("breast cancer", "breast-cancer"), ("digits", "digits")):
        assert title in got.stdout
        assert (tmp_path / "out" / f"{name}.html").stat().st_size < 1.5e6
    assert got.stdout.count("Mean gain") == 2
