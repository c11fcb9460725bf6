"""Wall time, CPU time and peak memory of a command and of everything that it starts, read from /proc (Linux)."""

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TICK, EVERY, LONGEST = os.sysconf("SC_CLK_TCK"), 0.1, 300.0


class Tree:
    """A process and its descendants; who was seen as one stays one, even when its parent ends."""

    def __init__(self, pid: int) -> None:
        self.root, self.peak = pid, 0
        self.cpu: dict[tuple[int, int], float] = {}  # by pid and start

    def look(self, *, memory: bool = False) -> None:
        """Note CPU seconds, and memory if wanted: the sum of PSS, in which shared pages count once."""
        all_ = _processes()
        known = {pid for pid, start in self.cpu if pid in all_ and all_[pid][1] == start} | {self.root}
        while more := {p for p, (parent, *_) in all_.items() if parent in known} - known:
            known |= more
        self.cpu |= {(p, all_[p][1]): all_[p][2] for p in known if p in all_}
        if memory:
            self.peak = max(self.peak, sum(map(_pss, known)))

    def seconds(self) -> float:
        """CPU seconds of all, those that ended included as they were last seen."""
        self.look()
        return sum(self.cpu.values())

    def end(self) -> None:
        """Kill whoever is left."""
        all_ = _processes()
        for pid, start in self.cpu:
            if pid in all_ and all_[pid][1] == start and pid != os.getpid():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def _processes() -> dict[int, tuple[int, int, float]]:
    """pid to parent, start and CPU seconds."""
    found = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            f = Path("/proc", name, "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        found[int(name)] = (int(f[1]), int(f[19]), (int(f[11]) + int(f[12])) / TICK)
    return found


def _pss(pid: int) -> int:
    try:
        lines = Path("/proc", str(pid), "smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


@dataclass(frozen=True)
class Outcome:
    """What a command did.

    Attributes:
        said: its last JSON line.
        wall: seconds.
        cpu: seconds, of all its processes.
        peak: bytes, of all together.
    """

    said: Mapping[str, Any]
    wall: float
    cpu: float
    peak: int


def watched(command: Sequence[str], folder: str | Path, env: Mapping[str, str], *, json_line: bool = True) -> Outcome:
    """Run a command to its end, and leave nothing running.

    Raises:
        RuntimeError: it failed, took more than five minutes, or printed no JSON line where one is wanted.
    """
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        began = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=folder, env=dict(env), stdout=out, stderr=err, stdin=subprocess.DEVNULL, text=True
        )
        tree = Tree(process.pid)
        try:
            while process.poll() is None and time.perf_counter() - began < LONGEST:
                tree.look(memory=True)
                time.sleep(EVERY)
            wall = time.perf_counter() - began
        finally:
            tree.end()
            process.wait()
        out.seek(0), err.seek(0)
        lines = [line for line in out.read().splitlines() if line.startswith("{")]
        if process.returncode or (json_line and not lines):
            raise RuntimeError(f"{' '.join(command)}\nended with {process.returncode}:\n{err.read()[-2000:]}")
        return Outcome(json.loads(lines[-1]) if lines else {}, wall, sum(tree.cpu.values()), tree.peak)
