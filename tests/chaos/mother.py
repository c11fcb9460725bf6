"""A warm parent that forks runs and kills them: an interpreter is started once, not for every kill.

As a script it reads one order a line (JSON) and answers what became of the run. It has one thread and
opens no folder itself: the run that is killed is the process that holds the lock.
"""

import importlib
import json
import mmap
import os
import signal
import subprocess
import sys
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__)
ENV = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
INTERRUPTED = 130


class Fate(NamedTuple):
    """What became of a run.

    Attributes:
        signal: that ended it, 0 for none.
        code: that it ended with.
        place: the last point that it passed, and for which time.
        seconds: that it lived.
        passes: of all points together.
    """

    signal: int
    code: int
    place: str
    seconds: float
    passes: int

    @property
    def killed(self) -> bool:
        return self.signal == signal.SIGKILL

    @property
    def ended(self) -> bool:
        return (self.signal, self.code) == (0, 0)


@dataclass
class Mother:
    """The parent, seen from the test."""

    process: "subprocess.Popen[str]"

    @classmethod
    def start(cls, module: str = "collaborations") -> "Mother":
        """Start it; `module` of this folder has the WORKS and WORKERS."""
        command = [sys.executable, "-W", "error", str(HERE), module]
        pipe = subprocess.PIPE
        mother = cls(subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=os.environ | ENV))
        assert mother._said() == "ready"
        return mother

    def run(self, work: str, folder: Path, **order: Any) -> Fate:
        """Run in a process of its own.

        Args:
            work: one of the module's WORKS.
            folder: of the run.
            order: `rounds`; `save`, the seconds between saves; `point` and `n`, where to be killed;
                `after`, the seconds after which to be sent `signal`; `alarms`, the seconds after which each
                of so many runs in one process is interrupted, before the last.
        """
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"work": work, "folder": str(folder), **order}) + "\n")
        self.process.stdin.flush()
        return Fate(*json.loads(self._said()))

    def close(self) -> None:
        self.process.communicate(timeout=30)

    def _said(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


def works() -> Any:
    """The module of the collaborations that are run."""
    return importlib.import_module(sys.argv[1])


def run(order: dict[str, Any]) -> None:
    make, engine = works().WORKS[order["work"]]
    make().run(rounds=order.get("rounds", 12), folder=order["folder"], engine=engine)


def alarmed(after: float, order: dict[str, Any]) -> None:
    """A run that Ctrl-C ends after so many seconds, in a process that lives on (a notebook)."""
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    with suppress(KeyboardInterrupt):
        signal.setitimer(signal.ITIMER_REAL, after)
        run(order)
        signal.setitimer(signal.ITIMER_REAL, 0)


def child(order: dict[str, Any], board: mmap.mmap) -> int:
    """The run itself. Returns the code to end with."""
    from faults import Points

    from comity import running

    code = 1
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests may ignore it
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        running.SAVE_SECONDS = order.get("save", 0.0)
        Points(board, order.get("point"), order.get("n", 1)).install(*works().WORKERS)
        for after in order.get("alarms", ()):
            alarmed(after, order)
        run(order)
        code = 0
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BaseException:  # noqa: BLE001  the parent hears the code
        traceback.print_exc()
    return code


def obey(order: dict[str, Any]) -> Fate:
    """Fork a run, and send it a signal where that was ordered."""
    board = mmap.mmap(-1, mmap.PAGESIZE)
    began = time.monotonic()
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(child(order, board))
        finally:
            os._exit(1)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    if "after" in order:
        time.sleep(order["after"])
        os.kill(pid, order.get("signal", signal.SIGKILL))
    _, status = os.waitpid(pid, 0)
    place, passes = bytes(board[:64]).decode().strip("\0 "), int.from_bytes(board[64:72], "little")
    ended = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    return Fate(ended, 0 if ended else os.WEXITSTATUS(status), place, time.monotonic() - began, passes)


def main() -> None:
    sys.path.insert(0, str(HERE.parent))
    import faults  # noqa: F401  warm before the first fork

    assert works().WORKS
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(obey(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
