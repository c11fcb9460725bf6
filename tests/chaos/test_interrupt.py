"""Stopped by Ctrl-C or SIGTERM at any moment: it says how to go on, and the same again ends as if nothing had been."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest
from tests.chaos.test_folders import ROUNDS, bits, collaboration

ROOT = Path(__file__).parents[2]
UP = """
import comity.cli as cli
run = cli._run
def up():
    print("up", flush=True)
    return run()
cli._run = up
cli.main()
"""
"""The command, which says from inside when it can be stopped."""
COMITY = [sys.executable, "-c", UP]
SCRIPT = """
import sys
sys.path.insert(0, {root!r})
import tests.chaos.test_folders as t
try:
    print("up", flush=True)
    run = t.collaboration(0.01).run({rounds}, folder={folder!r})
except KeyboardInterrupt:
    sys.exit(130)
print(t.bits(run))
"""
OURS = "seconds", "settings", "cost"
"""What differs between two comparisons of the same: times."""


def as_usual() -> None:
    """Signals as they are at a terminal: whoever runs the tests may ignore them (nohup does)."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def started(command: list[str]) -> subprocess.Popen[str]:
    """A process that can be interrupted, once it is up."""
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, preexec_fn=as_usual
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    return process


def worked(process: subprocess.Popen[str]) -> float:
    """Seconds that it had a core: on a busy machine it comes less far in the same time."""
    if sys.platform != "linux":
        return time.monotonic()
    try:
        return time.clock_gettime(~process.pid << 3 | 2)  # as clock_getcpuclockid(3) has it
    except OSError:
        return 0.0


def stopped(command: list[str], after: float, number: int = signal.SIGINT) -> tuple[int, str, str] | None:
    """Status, output and errors of a process told to stop after so many seconds of its work; None if it was over."""
    process = started(command)
    begun = worked(process)
    while worked(process) - begun < after and process.poll() is None:
        time.sleep(0.002)
    over = process.poll() is not None
    process.send_signal(number)
    try:
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert "Traceback" not in err, err
    assert "Exception ignored" not in err, err
    return None if over else (process.returncode, out, err)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(150, 3))
    y = np.where(x.sum(axis=1) + rng.normal(size=150) > 0, "yes", "no")
    columns: dict[str, Any] = {"a": x[:, 0], "b": x[:, 1], "c": x[:, 2], "y": y, "p": ["Ayr", "Bern", "Chur"] * 50}
    path = tmp_path_factory.mktemp("table") / "t.csv"
    polars.DataFrame(columns).write_csv(path)
    return path


def compare(table: Path, folder: Path) -> list[str]:
    said = ["compare", str(table), "--target", "y", "--party", "p", "--model", "linear", "--rounds", "6"]
    return [
        *COMITY,
        *said,
        "--repeats",
        "1",
        "--no-unseen",
        "--runs",
        str(folder / "runs"),
        "--json",
        str(folder / "r.json"),
    ]


@pytest.fixture(scope="module")
def straight(table: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], float]:
    """The comparison that nothing happens to, and how long it works."""
    folder = tmp_path_factory.mktemp("straight")
    process = started(compare(table, folder))
    begun = spent = worked(process)
    while process.poll() is None:
        spent = max(spent, worked(process))
        time.sleep(0.002)
    _, err = process.communicate()
    assert err == ""
    return results(folder), spent - begun


def results(folder: Path) -> dict[str, Any]:
    found = json.loads((folder / "r.json").read_text("utf-8"))
    return {k: v for k, v in found.items() if k not in OURS}


@pytest.mark.parametrize("times", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_a_comparison_stopped_at_random_moments(
    table: Path, straight: tuple[dict[str, Any], float], tmp_path: Path, times: int
) -> None:
    rng, (want, whole), told = random.Random(6 + times), straight, 0
    for _ in range(times):
        ended = stopped(compare(table, tmp_path), rng.uniform(0.0, 0.8 * whole))
        if ended is not None and ended[0] != 0:  # 0: it was past its end when the signal came
            told += 1
            assert ended[0] == 130
            assert ended[2] == "stopped    Interrupted. What was saved is intact. Run the same command to go on.\n"
            assert not list(tmp_path.glob(".*"))
    assert told >= times // 2
    _, err = started(compare(table, tmp_path)).communicate(timeout=120)
    assert err == ""
    assert results(tmp_path) == want


@pytest.mark.parametrize(
    ("number", "code", "says"), [(signal.SIGTERM, 143, "Terminated."), (signal.SIGHUP, 129, "closed.")]
)
def test_told_to_end_it_ends_as_by_ctrl_c(table: Path, tmp_path: Path, number: int, code: int, says: str) -> None:
    ended = stopped(compare(table, tmp_path), 0.8, number)
    assert ended is not None
    assert ended[0] == code
    assert f"{says} What was saved is intact. Run the same command to go on." in ended[2]


@pytest.mark.parametrize("after", [0.0, 0.02, 0.05, 0.1, 0.2])
def test_stopped_while_it_starts(after: float) -> None:
    ended = stopped([*COMITY, "demo", "--folder", "/nowhere/to/be/made"], after)
    assert ended is not None
    assert ended[0] in (130, 2 if os.geteuid() else 130)
    if ended[0] == 130:
        assert ended[2] == "stopped    Interrupted. Run the same command to start again.\n"


def test_who_ignores_ctrl_c_goes_on(table: Path, tmp_path: Path) -> None:
    """As nohup and the shell's & have it."""
    ignored = lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)  # noqa: E731
    command = [*COMITY, "check", str(table), "--write-schema", str(tmp_path / "s.toml")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=ignored)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert (tmp_path / "s.toml").exists()


@pytest.mark.parametrize("times", [4, pytest.param(20, marks=pytest.mark.slow)])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_script_stopped_at_random_moments(tmp_path: Path, times: int, number: int) -> None:
    """Ctrl-C saves the last round; SIGTERM is not caught by the library, and what was saved stays."""
    want = bits(collaboration().run(ROUNDS, folder=tmp_path / "straight"))
    code = SCRIPT.format(root=str(ROOT), rounds=ROUNDS, folder=str(tmp_path / "r"))
    rng = random.Random(number)
    for _ in range(times):
        ended = stopped([sys.executable, "-W", "ignore", "-c", code], rng.uniform(0.0, 0.5), number)
        if ended is not None and not ended[1]:  # with its result printed it was past its end
            assert ended[0] == (130 if number == signal.SIGINT else -number)
    assert bits(collaboration().run(ROUNDS, folder=tmp_path / "r")) == want
