"""However a program with a Ray of its own ends, nothing that it started is left running."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("ray")
pytestmark = [pytest.mark.ray, pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")]

PROGRAM = """
import os, signal, sys, threading, time
from pathlib import Path
from test_ray_ends import below
from comity.core.contribution import Contribution
from comity.engines.ray import Ray
import comity as co
import ray


class Slow:
    def __init__(self, seconds, begun):
        self.seconds, self.begun = seconds, begun

    def contribute(self, shared, local, round, secret):
        Path(self.begun).touch()
        time.sleep(self.seconds)
        return Contribution("delta", {k: v * 0 for k, v in shared.value.items()}), local


def run(seconds, begun):
    people = {str(i): Slow(seconds, f"{begun}-{i}") for i in range(4)}
    fed = co.Collaboration(co.FedAvg(co.Linear(2, 2)), people, evaluate=False)
    assert fed.run(2, engine=Ray(actors=2)).ledger.rounds == 2


def tell():
    while len(list(Path(sys.argv[1]).glob("work-*"))) < 2:
        time.sleep(0.05)
    print(*below(), flush=True)


before = signal.getsignal(signal.SIGTERM)
if sys.argv[2] == "after another's":
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    run(0, sys.argv[1] + "/once")
    assert ray.is_initialized() and ray.get(ray.put(3)) == 3
    ray.shutdown()
    signal.signal(signal.SIGTERM, before)
if sys.argv[2] == "after one of ours":
    run(0, sys.argv[1] + "/once")
    assert not below() and signal.getsignal(signal.SIGTERM) == before and not ray.is_initialized()
threading.Thread(target=tell, daemon=True).start()
try:
    run(60, sys.argv[1] + "/work")
finally:
    print("ended", below(), signal.getsignal(signal.SIGTERM) == before, flush=True)
"""
AGENTS = "ray::DashboardAgent", "ray::RuntimeEnvAgent"
"""Helpers of Ray who, where it was killed, look for it in vain for up to a minute."""


def below(pid=None):
    """The processes below one, by number."""
    pid = os.getpid() if pid is None else pid
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(parent) == pid and state != "Z":
            found.append(int(stat.parent.name))
    return found + [q for p in found for q in below(p)]


def alive(pid):
    try:
        name = Path(f"/proc/{pid}/cmdline").read_bytes().decode().strip("\0 ")
        return name not in AGENTS and Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(
    ("how", "ended_by", "codes"),
    [
        ("after another's", signal.SIGINT, {-signal.SIGINT}),
        pytest.param("after one of ours", signal.SIGTERM, {1, 128 + signal.SIGTERM}, marks=pytest.mark.slow),
        pytest.param("at first", signal.SIGKILL, {-signal.SIGKILL}, marks=pytest.mark.slow),
    ],
)
def test_nothing_is_left_running(how, ended_by, codes, tmp_path):
    """After Ctrl-C, of which a terminal tells all processes; told to end; killed: in a first run or a second one."""
    run = [sys.executable, "-c", PROGRAM, str(tmp_path), how]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(run, env=env, start_new_session=True, **pipes) as program:
        try:
            started = list(map(int, program.stdout.readline().split()))
            assert len(started) >= 4, "raylet, its helper and two actors at least"
            (os.killpg if ended_by == signal.SIGINT else os.kill)(program.pid, ended_by)
            out, err = program.communicate(timeout=30)
        finally:
            program.kill()
    assert program.returncode in codes, err
    assert out == ("" if ended_by == signal.SIGKILL else "ended [] True\n")
    patience = time.monotonic() + 10
    while any(map(alive, started)) and time.monotonic() < patience:
        time.sleep(0.1)
    assert not [pid for pid in started if alive(pid)]
