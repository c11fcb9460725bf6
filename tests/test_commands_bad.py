"""Every command with whatever can be wrong: it says what, where and what to do, ends with 1 or 2, leaves nothing."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import comity as co
from comity.comparison.shown import runs_of

COMITY = [sys.executable, "-c", "from comity.cli import main; main()"]
COMPARE = ["--target", "outcome", "--party", "hospital", "--model", "linear", "--rounds", "2", "--repeats", "1"]
COMMANDS = ["demo", "compare", "predict", "show", "report", "audit", "check"]


@pytest.fixture(scope="module")
def place(patients: Path) -> Path:
    """A folder of things that are not what they should be, beside a table `t.csv` and a comparison `kept`."""
    import polars

    here = patients.parent / "bad"
    (here / "folder.csv").mkdir(parents=True)
    table = polars.read_csv(patients)
    table.write_csv(here / "t.csv")
    table.write_parquet(here / "whole.parquet")
    for name, data in {
        "empty.csv": b"",
        "empty.toml": b"",
        "noise.csv": bytes(range(256)) * 4,
        "noise.toml": bytes(range(256)) * 4,
        "noise.parquet": b"PAR1" + bytes(range(256)) * 4,
        "cut.parquet": (here / "whole.parquet").read_bytes()[:400],
        "cut.jsonl": b'{"age": 1, "dose": 2, "outc',
        "cut.json": b'{"age": [1, 2',
        "other.csv": b"a,b\n1,2\n3,4\n" * 20,
    }.items():
        (here / name).write_bytes(data)
    answer = co.compare(
        here / "t.csv", "outcome", party="hospital", model="linear", rounds=2, repeats=1, runs=here / "kept"
    )
    answer.json(here / "results.json")
    return here


@pytest.fixture
def told(run: Any, place: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """What the command says when it refuses, run in `place`; nothing there may have changed."""
    monkeypatch.chdir(place)

    def refused(*args: object, code: int = 2) -> str:
        before = snapshot(place)
        ended = run(*args)
        assert ended.code == code, ended
        assert ended.out == ""
        assert ended.err.startswith("error      ")
        assert ended.err.count("\n") <= 3
        assert len(ended.err) < 600
        assert "Traceback" not in ended.err
        assert "defect of comity" not in ended.err
        assert snapshot(place) == before
        return str(ended.err)

    return refused


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else b"" for p in folder.rglob("*")}


TABLES = {
    "none.csv": "There is no none.csv",
    "folder.csv": "folder.csv",
    "empty.csv": "empty.csv is empty",
    "noise.csv": "noise.csv is neither",
    "noise.parquet": "noise.parquet",
    "cut.parquet": "cut.parquet cannot",
    "cut.jsonl": "Line 1 is none",
    "cut.json": "cut.json",
    "other.csv": "",
    "/dev/null": "null is empty",
}


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("command", ["compare", "predict", "check"])
def test_tables_that_are_none(told: Any, place: Path, command: str, table: str) -> None:
    args = {"compare": [*COMPARE], "predict": [], "check": ["--write-schema", "new.toml", "--target", "outcome"]}[
        command
    ]
    assert TABLES[table] in told(command, *(["kept"] if command == "predict" else []), table, *args)


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ("none.toml", "none.toml"),
        ("folder.csv", "folder.csv"),
        ("noise.toml", "noise.toml"),
        ("empty.toml", "must describe columns"),
        ("t.csv", "must be TOML. In line 1"),
        ("cut.parquet", "cut.parquet"),
    ],
)
def test_dictionaries_that_are_none(told: Any, schema: str, says: str) -> None:
    assert says in told("check", "t.csv", "--schema", schema)
    assert says in told("compare", "t.csv", *COMPARE, "--schema", schema)


FOLDERS = {
    "none": "no such folder",
    "nop/there": "no such folder",
    "t.csv": "t.csv",
    "empty.csv": "empty.csv",
    "folder.csv": "folder.csv",
}


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("args", [["show"], ["audit"], ["report", "--out", "new.html"]], ids=lambda a: a[0])
def test_folders_that_are_none(told: Any, folder: str, args: list[str]) -> None:
    assert FOLDERS[folder] in told(args[0], folder, *args[1:])


def test_the_nearest_folder_is_named(told: Any) -> None:
    for args in (
        ["show", "kpet"],
        ["audit", "kpet"],
        ["report", "kpet", "--out", "r.html"],
        ["predict", "kpet", "t.csv"],
    ):
        assert "Did you mean 'kept'?" in told(*args)


@pytest.mark.parametrize(
    ("run_", "code"), [("none", 2), ("folder.csv", 2), ("t.csv", 1), ("empty.csv", 1), ("noise.csv", 1)]
)
def test_models_that_are_none(told: Any, run_: str, code: int) -> None:
    assert run_ in told("predict", run_, "t.csv", code=code)


OPTIONS: list[tuple[list[str], str]] = [
    (["--rounds", "x"], "'--rounds': It must be a whole number. Got 'x'"),
    (["--rounds", "2.5"], "Got '2.5'"),
    (["--rounds", "0"], "'rounds' must be an int >= 1. Got 0"),
    (["--repeats", "-1"], "'repeats' must be an int >= 1. Got -1"),
    (["--repeats", ""], "'--repeats': It must be a whole number. Got ''"),
    (["--seed", "one"], "'--seed'"),
    (["--seed"], "'--seed' requires an argument"),
    (["--model", "lienar"], "'lienar'"),
    (["--words", "opne"], "'opne'"),
    (["--fill", "mode"], "'mode'"),
    (["--fair", "nowhere"], "no column 'nowhere'"),
    (["--group", "nowhere"], "no column 'nowhere'"),
    (["--group", "age"], "at most 12 different words"),
    (["--party", "outcome"], "two columns"),
    (["--target", "outcom"], "Did you mean 'outcome'?"),
    (["--pooled=yes"], "does not take a value"),
    (["--tarrget", "y"], "No such option: --tarrget. Did you mean '--target'?"),
    (["--nothing-like-it"], "No such option: --nothing-like-it. See comity compare --help."),
    (["--json", "folder.csv"], "folder.csv"),
    (["--json", "t.csv/r.json"], "t.csv/r.json"),
    (["--json", "t.csv"], "must not go over what is read"),
    (["--report", "./t.csv"], "must not go over what is read"),
    (["--json", "new", "--report", "new"], "new twice"),
    (["--runs", "t.csv"], "Runs must go to a folder"),
    (["--runs", "t.csv/deeper"], "Runs must go to a folder"),
]


@pytest.mark.parametrize(("more", "says"), OPTIONS, ids=lambda v: "_".join(v) if isinstance(v, list) else "")
def test_options_of_compare(told: Any, more: list[str], says: str) -> None:
    assert says in told("compare", "t.csv", *COMPARE, *more)


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["demo", "--rounds", "x"], "'--rounds': It must be a whole number. Got 'x'"),
        (["demo", "--seed", "1.5"], "Got '1.5'"),
        (["demo", "--folder", "t.csv"], "can be written"),
        (["demo", "extra"], "extra"),
        (["predict", "kept"], "Missing argument 'table'"),
        (["predict", "kept", "t.csv", "--way", "jiont"], "'jiont'. Did you mean 'joint'?"),
        (["predict", "kept", "t.csv", "--way", "alone"], "Name the party"),
        (["predict", "kept", "t.csv", "--party", "Brn"], "Did you mean 'Bern'?"),
        (["predict", "kept", "t.csv", "--out", "t.csv"], "must not go over what is read"),
        (["predict", "kept", "t.csv", "--out", "folder.csv"], "can be written"),
        (["show", "kept", "kept"], "unexpected extra argument"),
        (["report", "kept"], "Missing option '--out'"),
        (["report", "kept", "--out", "folder.csv"], "can be written"),
        (["report", "kept", "--ot", "x"], "Did you mean '--out'?"),
        (["audit", "kept", "--against", "none.txt"], "none.txt"),
        (["audit", "kept", "--against", "noise.csv"], "holds 0"),
        (["check", "t.csv"], "--schema FILE"),
        (["check", "t.csv", "--write-schema", "t.csv"], "must not go over what is read"),
        (["check", "t.csv", "--write-schema", "folder.csv"], "can be written"),
        (["check", "t.csv", "--write-schema", "s.toml", "--target", "outcom"], "Did you mean 'outcome'"),
        (["comapre"], "Did you mean 'compare'?"),
        (["--vresion"], "Did you mean '--version'?"),
    ],
    ids=lambda v: "_".join(v) if isinstance(v, list) else "",
)  # fmt: skip
def test_wrong_command_lines(told: Any, args: list[str], says: str) -> None:
    assert says in told(*args)


@pytest.mark.parametrize("command", [c for c in COMMANDS if c != "demo"])
def test_a_command_without_arguments_says_what_it_wants(told: Any, command: str) -> None:
    said = told(command)
    assert "Missing argument" in said
    assert f"comity {command} --help" in said


def test_without_a_command_the_help_is_shown(run: Any) -> None:
    ended = run()
    assert (ended.code, ended.out) == (2, "")
    assert all(f"\n  {command} " in ended.err for command in COMMANDS)


@pytest.fixture
def nobody(place: Path, tmp_path: Path) -> Any:
    """Be somebody whom file modes hold back, once it is called: root is held back by nothing."""
    import comity.checking
    import comity.demo
    import comity.report.page  # noqa: F401  another user may not be able to load them

    for folder in {place, *place.parents, tmp_path, *tmp_path.parents} if os.geteuid() == 0 else ():
        if not folder.stat().st_mode & 0o001:
            folder.chmod(folder.stat().st_mode | 0o011)
    was = os.geteuid()
    yield lambda: os.seteuid(was or 65534)
    os.seteuid(was)


def test_files_and_folders_that_are_closed(run: Any, place: Path, tmp_path: Path, nobody: Any) -> None:
    (closed := tmp_path / "closed").mkdir()
    (secret := tmp_path / "secret.csv").write_text((place / "t.csv").read_text())
    secret.chmod(0)
    closed.chmod(0o555)
    nobody()
    for args in (
        ["compare", secret, *COMPARE],
        ["predict", place / "kept", secret],
        ["check", secret, "--write-schema", "/dev/null"],
        ["compare", place / "t.csv", *COMPARE, "--json", closed / "r.json"],
        ["compare", place / "t.csv", *COMPARE, "--report", closed / "new" / "r.html"],
        ["compare", place / "t.csv", *COMPARE, "--runs", closed / "runs"],
        ["report", place / "kept", "--out", closed / "r.html"],
        ["demo", "--folder", closed / "demo"],
        ["show", closed / "x"],
    ):
        ended = run(*args)
        assert (ended.code, ended.out) == (2, ""), (args, ended)
        assert str(tmp_path) in ended.err
        assert ended.err.count("\n") == 1
    assert list(closed.iterdir()) == []


@pytest.mark.parametrize(
    "args",
    [
        ["compare", "--json", "F"],
        ["compare", "--report", "F"],
        ["predict", "--out", "F"],
        ["check", "--write-schema", "F"],
        ["report", "--out", "F"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_disk_that_is_full_when_the_result_is_written(
    run: Any, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: list[str], call: str
) -> None:
    """What lay there stays; no half file, no temporary one."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    target = tmp_path / "result"
    target.write_bytes(b"the old one")
    monkeypatch.setattr(*((os, "fsync") if call == "fsync" else (Path, "replace")), full)
    given = {"compare": [place / "t.csv", *COMPARE], "predict": [place / "kept", place / "t.csv"],
             "check": [place / "t.csv"], "report": [place / "kept"]}[args[0]]  # fmt: skip
    ended = run(args[0], *given, *(target if a == "F" else a for a in args[1:]))
    assert (ended.code, ended.out) == (1, "")
    assert "It is full. Free some space" in ended.err
    assert [p.name for p in tmp_path.iterdir()] == ["result"]
    assert target.read_bytes() == b"the old one"


def test_a_link_stays_one_and_a_device_a_device(run: Any, place: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real.csv")
    assert run("predict", place / "kept", place / "t.csv", "--out", tmp_path / "link").code == 0
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real.csv").stat().st_size > 100
    assert run("predict", place / "kept", place / "t.csv", "--out", os.devnull).code == 0
    assert Path(os.devnull).is_char_device()


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (ZeroDivisionError("division by zero"), 1, "ZeroDivisionError: division by zero. This is a defect of comity"),
        (MemoryError(), 1, "enough memory"),
        (OSError(28, "No space left on device", "x.db"), 1, "It is full (x.db)"),
        (OSError(5, "Input/output error", "x.db"), 1, "x.db must be open"),
        (type("Panic", (BaseException,), {})("index out of bounds"), 1, "Panic: index out of bounds"),
    ],
    ids=lambda v: type(v).__name__,
)
def test_what_nobody_foresaw_is_one_line(
    run: Any, place: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, says: str
) -> None:
    def fails(*args: object, **settings: object) -> None:
        raise error

    monkeypatch.setattr("comity.comparison.compare.compare", fails)
    ended = run("compare", place / "t.csv", *COMPARE)
    assert (ended.code, ended.out, ended.err.count("\n")) == (code, "", 1)
    assert says in ended.err
    assert "Traceback (most recent call last)" in run("--traceback", "compare", place / "t.csv", *COMPARE).err


def shell(line: str, place: Path, **more: str) -> Any:
    """A line of a real shell in which $comity is the command: its exit code, output and errors."""
    env = {**os.environ, "python": sys.executable, "OMP_NUM_THREADS": "1", **more}
    line = 'comity() { "$python" -c "from comity.cli import main; main()" "$@"; }\n' + line
    done = subprocess.run(["bash", "-c", line], cwd=place, env=env, capture_output=True, timeout=60)
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr
    return done


def test_a_reader_that_leaves_early_is_no_failure(place: Path) -> None:
    for command in ("show kept", "predict kept t.csv", "--help"):
        done = shell(f"set -o pipefail; comity {command} | head -1", place)
        assert (done.returncode, done.stderr, done.stdout.count(b"\n")) == (0, b"", 1)
    done = shell(f"comity audit {runs_of(place / 'kept')[0].parent / 'none'} | true; echo ${{PIPESTATUS[0]}}", place)
    assert done.stdout == b"2\n"


def test_output_that_cannot_be_written_is_said(place: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    for command in ("show kept", "--version"):
        done = shell(f"comity {command} > /dev/full", place)
        assert done.returncode == 1
        assert b"Got: No space left on device." in done.stderr
    assert shell("comity show none 2> /dev/full", place).returncode == 2


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("comity show kept >&-", 0),
        ("comity predict kept t.csv >&-", 2),
        ("comity show kept <&- 2>&-", 0),
        ("comity show none >&- 2>&- <&-", 2),
    ],
)
def test_streams_that_are_closed(place: Path, line: str, code: int) -> None:
    before = snapshot(place)
    done = shell(line, place)
    assert done.returncode == code
    assert snapshot(place) == before


OLD = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.parametrize(
    "more",
    [
        OLD,
        {"PYTHONIOENCODING": "ascii:strict"},
        {"NO_COLOR": "1", "TERM": "dumb"},
        {"HOME": "/proc/none"},
        {"COLUMNS": "20"},
    ],
    ids=lambda m: next(iter(m)),
)
def test_poor_surroundings(place: Path, more: dict[str, str]) -> None:
    done = shell("comity show kept", place, **more)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"\x1b" not in done.stdout
    if "LC_ALL" in more or "PYTHONIOENCODING" in more:
        assert done.stdout.isascii()


def test_an_old_encoding_keeps_signs_that_matter() -> None:
    code = "from comity.cli.streams import ready; ready(); print('−4.2 ± 1 ▁█ é', end='', flush=True)"
    env = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True)
    assert done.stdout == b"-4.2 +/- 1 18 ?"
