"""A hub and its parties as processes of one machine: they end with the block, and what goes wrong is said."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import comity as co
from comity.service.trial import organisations

STUDY = """
import comity as co

rounds = 2
model = co.Linear(inputs=2, classes=2)
fed = co.Collaboration(co.FedAvg(model), evaluate=False)


def participant(path):
    if path == "bad":
        raise ValueError("no such ward")
    return co.Trainer(model, ([[0.0, 1.0], [1.0, 0.0]], [0, int(path)]))
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    path = tmp_path / "small.py"
    path.write_text(STUDY, encoding="utf-8")
    return path


def test_they_take_part_and_end_with_the_block(study: Path, tmp_path: Path) -> None:
    with organisations(tmp_path, study, {"ada": "1", "bob": "0"}) as trial:
        trial.wait(60)
        assert trial.hub.poll() is None
    assert trial.hub.returncode is not None
    (copy,) = (tmp_path / "ada").glob("*/ledger.jsonl")
    found = co.audit(trial.run, against=copy.parent)
    assert (found.ok, found.rounds, sorted(found.parties)) == (True, 2, ["ada", "bob"])


def test_a_party_that_fails_is_named_with_what_it_said(study: Path, tmp_path: Path) -> None:
    with (
        pytest.raises(co.ConfigError, match=r"(?s)bob must take part to the end.*no such ward"),
        organisations(tmp_path, study, {"bob": "bad"}) as trial,
    ):
        trial.wait(60)
    assert trial.hub.returncode is not None


def test_a_port_that_is_taken_is_named(study: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as door:
        port = door.getsockname()[1]
        with pytest.raises(co.ConfigError, match=f"Port {port} must be free"), organisations(
            tmp_path, study, {}, port=port
        ):  # fmt: skip
            pass


@pytest.mark.slow
def test_the_demonstration_ends_by_ctrl_c_and_leaves_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as door:
        port = door.getsockname()[1]
    command = [sys.executable, "-m", "comity.service.demo", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as demo:
        assert demo.stdout is not None
        said = []
        while not (said and said[-1].startswith("end ")):
            said.append(demo.stdout.readline())
            assert said[-1], said
        folder = Path(next(line for line in said if line.startswith("hospitals")).split()[-1])
        ends = time.monotonic() + 60
        while "closed" not in (folder / "hub.log").read_text():
            assert time.monotonic() < ends
            time.sleep(0.2)
        os.kill(demo.pid, signal.SIGINT)
        assert demo.wait(30) == 0
    assert not folder.exists()
    assert "/login/" in "".join(said)
    left = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(folder) not in left
