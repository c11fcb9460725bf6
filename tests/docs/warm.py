"""A warm parent that forks examples: what most of them load is loaded once, not for every one of them.

As a script it reads one order a line (JSON) and answers with the status that the example ended with. It loads nothing
that works in threads of its own (polars): these do not live on in a fork.
"""

import json
import os
import resource
import runpy
import subprocess
import sys
import traceback
import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

COMMON = "sklearn.datasets", "sklearn.linear_model", "torch"


@dataclass
class Warm:
    """The parent, seen from the test."""

    process: "subprocess.Popen[str]"

    @classmethod
    def start(cls) -> "Warm":
        """Start it, with warnings as errors."""
        command = [sys.executable, "-W", "error", str(Path(__file__))]
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        warm = cls(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env))
        assert warm._said() == "ready"
        return warm

    def run(self, path: Path, folder: Path, *, rounds: int, seconds: int) -> tuple[int, str, str, list[Path]]:
        """Run an example in a process of its own, with at most so many rounds and so many seconds on a core.

        Returns:
            the status it ended with (below 0 for a signal), its output, its errors, and what it left behind.
        """
        assert self.process.stdin is not None
        here = folder / "here"
        here.mkdir()
        order = {"path": str(path), "here": str(here), "out": str(folder), "rounds": rounds, "seconds": seconds}
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        code = int(self._said())
        return code, *((folder / name).read_text("utf-8") for name in ("out", "err")), list(here.iterdir())

    def close(self) -> None:
        self.process.communicate(timeout=30)

    def _said(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


def shortened(most: int) -> None:
    """All of an example is run, but of the rounds the first few."""
    from comity.collaboration import Collaboration

    run = Collaboration.run
    Collaboration.run = lambda self, rounds, **rest: run(self, min(rounds, most), **rest)  # type: ignore


def child(order: dict[str, str | int]) -> NoReturn:
    """The example itself."""
    code = 1
    try:
        for fd, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(Path(str(order["out"])) / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), fd)
        os.chdir(order["here"])
        resource.setrlimit(resource.RLIMIT_CPU, (int(order["seconds"]), resource.RLIM_INFINITY))
        sys.argv = [str(order["path"])]
        sys.path[0] = str(Path(sys.argv[0]).parent)
        shortened(int(order["rounds"]))
        runpy.run_path(sys.argv[0], run_name="__main__")
        code = 0
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else int(left.code is not None)
    except BaseException:  # noqa: BLE001  the test reads what is printed, and the code
        traceback.print_exc()
    with suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def main() -> None:
    for name in COMMON:
        with suppress(ImportError):
            __import__(name)
    print("ready", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        with warnings.catch_warnings(action="ignore"):  # a library's sleeping thread is no danger
            pid = os.fork()
        if pid == 0:
            child(order)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
