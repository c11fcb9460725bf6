"""What a step costs in the journal: offer, claim, commit, read, each durable before it answers.

Results are asserted before anything is timed: every step committed once, also by four processes that want
the same ones. Figures are seconds on the clock of the wall, for waiting for the disk is what a step does; a
plain write and sync of as many bytes stands beside them. Prints one table, and one JSON line for machines.
"""

import json
import os
import platform
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from statistics import median, quantiles

import sqlalchemy

import comity as co
from comity.core.envelope import Key
from comity.ledger.journal import SqlJournal

STEPS, SHARED, PROCESSES = 500, 200, 4
SMALL, LARGE = 2_000, 1_000_000
MOST_MS = 15.0


def key(n: int) -> Key:
    return ("benchmark", n, 0, "step", "")


def result(n: int, size: int) -> bytes:
    return sha256(b"%d" % n).digest() * (size // 32)


def step(journal: SqlJournal, n: int, size: int) -> list[float]:
    """Milliseconds of each verb, its answer checked."""
    data = result(n, size)
    verbs: list[tuple[Callable[[], object], object]] = [
        (lambda: journal.offer(key(n), {"task": n}), None),
        (lambda: journal.claim(key(n), "me", 60.0), 1),
        (lambda: journal.commit(key(n), 1, data), "accepted"),
        (lambda: journal.read(key(n)), data),
    ]
    times = []
    for call, right in verbs:
        start = time.perf_counter()
        said = call()
        times.append((time.perf_counter() - start) * 1e3)
        assert said == right
    return times


def alone(folder: Path, steps: int, size: int) -> list[list[float]]:
    """One process, one step after another."""
    with SqlJournal.open(folder) as journal:
        times = [step(journal, n, size) for n in range(steps)]
        assert [journal.read(key(n)) for n in range(steps)] == [result(n, size) for n in range(steps)]
        assert journal.commit(key(0), 1, result(0, size)) == "duplicate"
        assert journal.commit(key(0), 1, b"other") == "stale"
        return times


WORKER = """
import sys, time
from comity.ledger.journal import SqlJournal
folder, me, steps = sys.argv[1], sys.argv[2], int(sys.argv[3])
with SqlJournal.open(folder) as journal:
    print("ready", flush=True)
    sys.stdin.readline()
    told = []
    for n in range(steps):
        key = ("benchmark", n, 0, "step", "")
        journal.offer(key, {"task": n})
        token = journal.claim(key, me, 60.0)
        told += [n] if token and journal.commit(key, token, me.encode() * 1000) == "accepted" else []
        journal.read(key)
print(*told)
"""


def together(folder: Path) -> float:
    """Milliseconds for each step while several processes go through the same ones."""
    command = [sys.executable, "-c", WORKER, str(folder)]
    pipe = subprocess.PIPE
    names = [f"w{i}" for i in range(PROCESSES)]
    workers = [subprocess.Popen([*command, n, str(SHARED)], stdin=pipe, stdout=pipe, text=True) for n in names]
    assert all(w.stdout and w.stdout.readline() == "ready\n" for w in workers)
    start = time.perf_counter()
    for w in workers:
        assert w.stdin
        w.stdin.write("\n")
        w.stdin.flush()
    told = [w.communicate(timeout=300)[0].split() for w in workers]
    seconds = time.perf_counter() - start
    assert sorted(int(n) for mine in told for n in mine) == list(range(SHARED)), "a step was lost or done twice"
    with SqlJournal.open(folder) as journal:
        assert all(journal.read(key(int(n))) == b"w%d" % i * 1000 for i, mine in enumerate(told) for n in mine)
    return seconds / SHARED * 1e3


def disk(folder: Path, size: int) -> float:
    """Median milliseconds to append so many bytes to a file and sync it."""
    times = []
    with open(folder / "plain", "ab", buffering=0) as f:
        for _ in range(100):
            start = time.perf_counter()
            f.write(bytes(size))
            os.fsync(f.fileno())
            times.append((time.perf_counter() - start) * 1e3)
    return median(times)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small, large = alone(folder / "small", STEPS, SMALL), alone(folder / "large", STEPS // 10, LARGE)
        figures = {"step_ms": median(map(sum, small)), "step_p99_ms": quantiles(map(sum, small), n=100)[-1]}
        verbs = zip(("offer", "claim", "commit", "read"), zip(*small, strict=True), strict=True)
        figures |= {f"{verb}_ms": median(times) for verb, times in verbs}
        figures |= {"step_of_1_MB_ms": median(map(sum, large)), f"step_of_{PROCESSES}_ms": together(folder / "shared")}
        figures |= {"disk_2_kB_ms": disk(folder, SMALL), "disk_1_MB_ms": disk(folder, LARGE)}
    for told, value in figures.items():
        print(f"{told:<24}{value:>12.3f}")
    about = {"python": platform.python_version(), "sqlalchemy": sqlalchemy.__version__, "comity": co.__version__}
    about |= {"sqlite": sqlite3.sqlite_version, "date": time.strftime("%Y-%m-%d")}
    print(json.dumps({**figures, "steps": STEPS, "bytes": SMALL, **about}))
    assert figures["step_ms"] <= MOST_MS, f"A step must take at most {MOST_MS} ms."


if __name__ == "__main__":
    main()
