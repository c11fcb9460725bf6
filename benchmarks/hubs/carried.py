"""A hub of the benchmark in this process, with its sites as other processes."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

import comity as co
from comity.service.keys import make_certificate
from hubs import work

BENCHMARKS = Path(__file__).parents[1]
ENV = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
ENV["PYTHONPATH"] = os.pathsep.join([str(BENCHMARKS), *filter(None, [os.environ.get("PYTHONPATH")])])


@dataclass(frozen=True)
class Watched:
    """An engine, and when it asked and had every answer.

    Attributes:
        engine: that carries.
        asked: (round, phase, begun, ended) of each question.
        before: is told the round and the phase before a question is put.
    """

    engine: Any
    asked: list[tuple[int, str, float, float]] = field(default_factory=list)
    before: Callable[[int, str], None] = lambda number, phase: None
    remote: ClassVar[bool] = True

    @property
    def choice(self) -> Any:
        return self.engine.choice

    def connect(self, roster: Any, answer: Any) -> Any:
        return _Watched(self.engine.connect(roster, answer), self)


class _Watched:
    def __init__(self, inner: Any, settings: Watched) -> None:
        self._inner, self._settings = inner, settings

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def ask(self, cohort: Sequence[str], message: Any, until: Any) -> Iterator[Any]:
        if not len(cohort):
            return
        first = message(cohort[0])
        self._settings.before(first.round.number, first.phase)
        began = time.perf_counter()
        yield from self._inner.ask(cohort, message, until)
        self._settings.asked.append((first.round.number, first.phase, began, time.perf_counter()))


@dataclass
class Told:
    """What a run took.

    Attributes:
        state: the hash of its last state.
        rounds: wall seconds from one closed round to the next.
        asks: wall seconds of the questions of each round.
        hub: CPU seconds of the hub for a round.
        sites: CPU seconds of all sites for a round.
    """

    state: str
    rounds: list[float]
    asks: list[float]
    hub: float
    sites: float


def certified(folder: Path) -> dict[str, str]:
    """A certificate for loopback: its two files."""
    key, certificate = make_certificate(["127.0.0.1"])
    found = {"certificate": folder / "tls.crt", "key": folder / "tls.key"}
    for name, data in (("certificate", certificate), ("key", key)):
        found[name].write_bytes(data)
    return {name: str(path) for name, path in found.items()}


def carry(kind: str, size: int, *, count: int, processes: int, rounds: int, folder: Path) -> Told:
    """Run it over TLS, signed, with so many sites in so many processes."""
    folder.mkdir(parents=True)
    begun: list[subprocess.Popen[str]] = []
    tls, times = certified(folder), []
    people = {name: work.secret(name).public_key() for name in work.names(count)}

    def tell(url: str) -> None:
        at = "https://127.0.0.1:" + url.rpartition(":")[2]
        for i in range(processes):
            order = {"url": at, "certificate": tls["certificate"], "names": work.names(count)[i::processes]}
            order |= {"work": kind, "size": size, "folder": str(folder / "sites")}
            begun.append(started("hubs.sites", order))

    network = co.Network("127.0.0.1:0", folder / "hub", identity=work.HUB, parties=people, tell=tell, linger=60, **tls)
    engine = Watched(network)
    try:
        run = work.collaboration(kind, size).run(
            rounds=rounds,
            folder=folder / "run",
            engine=engine,
            listen=lambda e: times.append((time.perf_counter(), time.process_time())) if e.kind == "round" else None,
        )
        spent = sum(told(process)["cpu"] for process in begun)
    finally:
        for process in begun:
            process.kill()
            process.communicate()
    assert not run.ledger.dropped
    assert not run.ledger.refused
    walls, cpus = np.diff(np.array(times), axis=0).T
    asks: dict[int, float] = {}
    for number, _, began, ended in engine.asked:
        asks[number] = asks.get(number, 0.0) + ended - began
    later = [asks[number] for number in sorted(asks)[1:]]
    return Told(work.bits(run.state), walls.tolist(), later, float(cpus.mean()), spent)


def started(module: str, order: Any) -> "subprocess.Popen[str]":
    """A process of this benchmark."""
    command = [sys.executable, "-m", module, json.dumps(order)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | ENV)


def told(process: "subprocess.Popen[str]") -> Any:
    """What it printed last."""
    out, _ = process.communicate(timeout=120)
    return json.loads(out.splitlines()[-1])


def bare(size: int, *, count: int, times: int, folder: Path) -> tuple[list[float], float]:
    """Wall seconds until all have got a file of so many bytes and put it back; CPU seconds of both sides for a time."""
    from hubs import files

    folder.mkdir(parents=True)
    tls = certified(folder)
    (folder / "given").write_bytes(np.random.default_rng(0).bytes(size))
    with files.served(folder, count, **tls) as url:
        order = {"url": url, "certificate": tls["certificate"], "folder": str(folder / "clients"), "times": times}
        here = time.process_time()
        clients = [started("hubs.files", {**order, "names": [name]}) for name in work.names(count)]
        try:
            said = [told(process) for process in clients]
        finally:
            for process in clients:
                process.kill()
                process.communicate()
        spent = time.process_time() - here + sum(one["cpu"] for one in said)
    moments = np.array([one["moments"] for one in said])
    spans: list[float] = (moments[:, :, 1].max(0) - moments[:, :, 0].min(0)).tolist()
    return spans, spent / times


@dataclass
class Waited:
    """What many waiting sites cost.

    Attributes:
        share: of a core that the hub used while nothing happened, over the window.
        memory: bytes of the hub's process by then (PSS).
        first: bytes of it before the first site came.
        woken: seconds until the last had its question.
        answered: seconds until the last knew that its answer was taken.
        state: the hash of the last state.
    """

    share: float
    memory: int
    first: int
    woken: float
    answered: float
    state: str


def waiting(count: int, *, seconds: float, folder: Path) -> Waited:
    """Two rounds of many sites; between them, all wait for so long."""
    folder.mkdir(parents=True)
    tls, begun, idle = certified(folder), [], {}
    people = {name: work.secret(name).public_key() for name in work.names(count)}

    def tell(url: str) -> None:
        idle["first"] = pss()
        at = "https://127.0.0.1:" + url.rpartition(":")[2]
        begun.append(started("hubs.idle", {"url": at, "certificate": tls["certificate"], "count": count}))

    def before(number: int, phase: str) -> None:
        if number == 1:
            time.sleep(3.0)  # until all poll again
            cpu, wall = time.process_time(), time.perf_counter()
            time.sleep(seconds)
            idle["share"] = (time.process_time() - cpu) / (time.perf_counter() - wall)
            idle["memory"] = pss()

    network = co.Network("127.0.0.1:0", folder / "hub", identity=work.HUB, parties=people, tell=tell, linger=60, **tls)
    engine = Watched(network, before=before)
    try:
        run = work.collaboration("plain", 1).run(rounds=2, folder=folder / "run", engine=engine)
        moments = np.array(told(begun[0]))
    finally:
        for process in begun:
            process.kill()
            process.communicate()
    assert not run.ledger.dropped
    assert not run.ledger.refused
    zero = next(began for number, _, began, _ in engine.asked if number == 1)
    came, taken = (moments[1] - zero).tolist()
    return Waited(idle["share"], int(idle["memory"]), int(idle["first"]), came, taken, work.bits(run.state))


def pss() -> float:
    """Bytes of memory of this process: what is shared counts in part."""
    rows = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(row.split()[1]) * 1024 for row in rows if row.startswith("Pss:"))
