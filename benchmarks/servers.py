"""Two servers beside plain averaging, and CKKS: CPU seconds of one thread, ratios in one run, the sum checked.

    OMP_NUM_THREADS=1 python benchmarks/servers.py [--quick] [--write]

`plain` adds float32 vectors as they arrive and divides, turn and turn about with the hub's additions; before each the
caches are swept. The helper is a process of its own, asked over HTTP, and its CPU time is what the system counted for
it from the first question on. Of five rounds the one in the middle is shown. Vectors are made one at a time and never
held. Prints tables, and one JSON line.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import cryptography
import numpy as np
import tenseal
from race import table

import comity as co
from comity.channels import ckks_vectors as vectors
from comity.core.contribution import Contribution
from comity.core.parts import Until
from comity.core.wire import size

PAGE, BOUND, REPEATS = Path(__file__).parents[1] / "docs" / "benchmarks.md", 1.0, 5
SECRET = co.testing.fixed_secret(0)
HEAD = ("participants x numbers", "participant: quantise", "mask and seal", "hub", "helper", "plain averaging",
        "hub / plain", "helper / plain", "upload / float32")  # fmt: skip
HE = ("participants x numbers", "participant: encrypt", "hub: add all", "holder: open", "bytes a number", "x float32",
      "largest error", "with the holder's noise")  # fmt: skip


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What it gives, and its CPU seconds."""
    began = time.thread_time()
    made = work()
    return made, time.thread_time() - began


@contextmanager
def helper(folder: str) -> Iterator[tuple[str, str, int]]:
    """The helper as a process: its URL, its key, its number."""
    command = [Path(sys.executable).with_name("comity"), "helper", "--folder", folder, "--port", "0"]
    env = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as process:
        assert process.stdout is not None
        url, key = (process.stdout.readline().split()[1] for _ in range(2))
        try:
            yield url, key, process.pid
        finally:
            process.kill()


def spent(pid: int) -> float:
    """CPU seconds of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Cohort:
    """Members whose vectors are made when it is their turn; none of their time is the hub's."""

    def __init__(self, channel: Any, n: int, d: int) -> None:
        self.channel, self.n, self.d = channel, n, d
        self.turn = co.Round("bench", 0, roster=n, asked=n, expected=float(n))
        self.base = np.random.default_rng(0).normal(size=d).astype("float32") * np.float32(0.1)
        self.fixed = co.FixedPoint(BOUND, metrics=("loss",))
        self.want, self.total = np.zeros(d, np.int64), np.zeros(d, np.float32)
        self.sweep = np.zeros(2**24, np.float64)
        self.quantising, self.sealing, self.plain, self.up = [], [], 0.0, 0
        self.outside, self.last = 0.0, []

    def seals(self, session: Any) -> Iterator[Contribution]:
        """What arrives at the hub."""
        for i in range(self.n):
            began = time.thread_time()
            self.last = self.last[-1:]  # what the hub has let go of is freed here
            c = self._made(f"p{i:05d}", self.base * np.float32(1 + 0.01 * i))
            self.last.append(c)
            self.outside += time.thread_time() - began
            yield c

    def _made(self, name: str, x: np.ndarray) -> Contribution:
        here, secret = replace(self.turn, me=name), SECRET.side(name)
        given = Contribution("delta", {"w": x}, 1.0, {"loss": (0.5, 1.0)})
        (c, _), seconds = timed(lambda: self.fixed.encode(given, None, {}, here, secret))
        self.quantising.append(seconds)
        self.want += c.value["fixed"]["w"]
        (sealed, _), seconds = timed(lambda: self.channel.seal(c, None, {}, here, secret))
        self.sealing.append(seconds)
        self.up = size(sealed)
        np.add(self.sweep, 1, out=self.sweep)
        self.plain += timed(lambda: np.add(self.total, x, out=self.total))[1]
        np.add(self.sweep, 1, out=self.sweep)
        return replace(sealed, sender=name)


def two_servers(n: int, d: int) -> dict[str, Any]:
    """One round of so many participants."""
    with tempfile.TemporaryDirectory() as folder, helper(folder) as (url, key, pid):
        cohort = Cohort(channel := co.TwoServer(url, key), n, d)
        before, began = spent(pid), time.thread_time()
        session = channel.setup([f"p{i:05d}" for i in range(n)], None, cohort.turn)  # type: ignore[arg-type]
        (got,) = channel.open(cohort.seals(session), session, None, Until(1))  # type: ignore[arg-type]
        hub, other = time.thread_time() - began - cohort.outside, spent(pid) - before
    assert (got.value["fixed"]["w"] == cohort.want).all(), "It must be the fixed-point sum, bit by bit."  # type: ignore[index, call-overload]
    assert got.weight == n
    cohort.plain += timed(lambda: np.divide(cohort.total, np.float32(n), out=cohort.total))[1]
    return {
        "participants": n, "numbers": d, "quantise s": float(np.median(cohort.quantising)),
        "seal s": float(np.median(cohort.sealing)), "hub s": hub, "helper s": other, "plain s": cohort.plain,
        "hub / plain": hub / cohort.plain, "helper / plain": other / cohort.plain,
        "upload / float32": cohort.up / (4 * d),
    }  # fmt: skip


def ckks(n: int, d: int) -> dict[str, Any]:
    """The sum of so many vectors under one key."""
    (public, secret), making = timed(vectors.keys)
    base, total, want = np.random.default_rng(0).normal(size=d) * 0.1, [], np.zeros(d)
    encrypting, adding, up = [], 0.0, 0
    for i in range(n):
        x = base * (1 + 0.01 * i)
        want += x
        sent, seconds = timed(lambda x=x: vectors.encrypted(public, x))
        encrypting.append(seconds)
        up = sum(map(len, sent.values()))
        read, seconds = timed(lambda sent=sent: vectors.read(sent, d))
        adding += seconds
        adding += timed(lambda all=total, read=read: vectors.add(all, read))[1] if total else 0.0
        total = total or read
    sent, seconds = timed(lambda: vectors.written(total))
    out, opening = timed(lambda: vectors.decrypted(secret, sent, d))
    noised, more = timed(lambda: noise(out))
    error = float(np.abs(out - want).max())
    assert error < 1e-9
    assert np.abs(noised - want).max() < co.CKKS.tolerance
    return {
        "participants": n, "numbers": d, "key s": making, "encrypt s": float(np.median(encrypting)),
        "hub s": adding + seconds, "open s": opening + more, "bytes a number": up / d, "x float32": up / d / 4,
        "error": error, "error with noise": float(np.abs(noised - want).max()), "public key bytes": len(public),
    }  # fmt: skip


def middle(found: list[dict[str, Any]]) -> dict[str, Any]:
    """The round of which the slower server is in the middle."""
    order = sorted(found, key=lambda r: max(r["hub / plain"], r["helper / plain"]))
    all_of = {k: sorted(round(r[k], 3) for r in found) for k in ("hub / plain", "helper / plain", "plain s")}
    return {**order[len(found) // 2], "all": all_of}


def noise(numbers: np.ndarray) -> np.ndarray:
    """As the holder does."""
    from comity.channels.ckks import _noised

    return _noised(numbers, SECRET, "bench", b"")


def rows(pairs: list[dict[str, Any]], he: list[dict[str, Any]]) -> tuple[list[list[str]], list[list[str]]]:
    """As tables."""
    s, of = "{:.3f} s".format, "{participants} x {numbers:,}".format_map
    first = [
        [of(r), *(s(r[k]) for k in ("quantise s", "seal s", "hub s", "helper s", "plain s")),
         *(f"{r[k]:.2f}" for k in ("hub / plain", "helper / plain")), f"{r['upload / float32']:.5f}"]
        for r in pairs
    ]  # fmt: skip
    second = [
        [of(r), *(s(r[k]) for k in ("encrypt s", "hub s", "open s")), f"{r['bytes a number']:.1f}",
         f"{r['x float32']:.1f}", f"{r['error']:.1e}", f"{r['error with noise']:.1e}"]
        for r in he
    ]  # fmt: skip
    return first, second


def main() -> None:
    ask = argparse.ArgumentParser()
    ask.add_argument("--quick", action="store_true", help="small vectors")
    ask.add_argument("--write", action="store_true", help="into docs/benchmarks.md")
    given = ask.parse_args()
    sizes = [(20, 100_000)] if given.quick else [(100, 1_000_000), (100, 10_000_000)]
    pairs = [middle([two_servers(n, d) for _ in range(REPEATS)]) for n, d in sizes]
    he = [ckks(5, 50_000 if given.quick else 1_000_000)]
    first, second = rows(pairs, he)
    print(table.text(HEAD, first), table.text(HE, second), sep="\n\n")
    versions = {"comity": co.__version__, "cryptography": cryptography.__version__, "tenseal": tenseal.__version__,
                "numpy": np.__version__, "python": platform.python_version()}  # fmt: skip
    print(json.dumps({"two servers": pairs, "ckks": he, "seed": 0, "versions": versions, "date": str(date.today())}))
    if given.write:
        said = ", ".join(f"{k} {v}" for k, v in {"date": date.today(), **versions}.items())
        parts = [table.markdown(HEAD, first), table.markdown(HE, second), f"Measured: {said}."]
        table.write(PAGE, {"servers": "\n\n".join(parts)})


if __name__ == "__main__":
    main()
