"""Hubs and sites of the tests: what they run, and a warm parent that forks them so that they can be killed.

As a script it reads one order a line (JSON) and answers with the pid of the process that it forked.
"""

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import comity as co
from comity.core.wire import encode_tree
from comity.ledger.keys import SideSecret
from comity.methods.ditto import Ditto
from comity.service.joining import Pinned

HERE = Path(__file__)
ENV = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
NAMES = ("ada", "bob", "cyd")
RNG = np.random.default_rng(4)
DATA = {n: (RNG.normal(size=(12, 3)).astype("float32"), RNG.integers(0, 2, 12)) for n in NAMES}
MODEL = co.Linear(3, 2, rate=0.3, batch=4)


def secret(name: str) -> SideSecret:
    """Whose identity it is."""
    return SideSecret(hashlib.sha256(name.encode()).digest())


HUB = secret("the hub")
KEYS = {name: secret(name).public_key() for name in NAMES}


def fedavg() -> co.Collaboration:
    return co.Collaboration(co.FedAvg(MODEL, co.Adam(0.1)), seed=3, evaluate=co.every(3))


def masked() -> co.Collaboration:
    method = co.FedAvg(MODEL, bound=1.0)
    return co.Collaboration(method, channel=co.SecAgg(), combine=co.Mean(cap=100.0), seed=3, evaluate=False)


def memory() -> co.Collaboration:
    """The drawer of the transform (what it held back) and that of the participant (its own model) matter."""
    return co.Collaboration(co.FedAvg(MODEL), transforms=[co.TopK(0.4, feedback=True)], seed=3, evaluate=co.every(4))


def trainer(name: str) -> Any:
    return co.Trainer(MODEL, DATA[name])


def ditto(name: str) -> Any:
    return Ditto(MODEL, DATA[name], strength=0.1)


WORKS = {"fedavg": (fedavg, trainer), "masked": (masked, trainer), "memory": (memory, ditto)}


def local(work: str, rounds: int) -> Any:
    """The same in one process."""
    make, participant = WORKS[work]
    return make().replace(participants={n: participant(n) for n in NAMES}).run(rounds=rounds)


def bits(state: Any) -> str:
    return hashlib.sha256(encode_tree({"state": state})).hexdigest()


def network(folder: Path, port: int = 0, **more: Any) -> co.Network:
    more = {"linger": 1.0, **more}
    return co.Network(f"127.0.0.1:{port}", folder / "hub", identity=HUB, parties=KEYS, **more)


def hub(order: dict[str, Any]) -> None:
    """Run to the end, and say what came of it."""
    folder, make = Path(order["folder"]), WORKS[order["work"]][0]
    engine = network(folder, order["port"])
    run = make().run(rounds=order["rounds"], folder=folder / "run", engine=engine)
    counted = [
        (e.facts["round"], e.facts["asked"], e.facts["accepted"].tolist()) for e in run.ledger if e.kind == "round"
    ]
    (folder / "done.tmp").write_text(
        json.dumps({"bits": bits(run.state), "counted": counted, "up": run.ledger.bytes_up})
    )
    (folder / "done.tmp").rename(folder / "done")


def site(order: dict[str, Any]) -> None:
    make, participant = WORKS[order["work"]]
    name, url = order["name"], f"http://127.0.0.1:{order['port']}"
    where = Path(order["folder"]) / name
    co.join(make(), pinned(url, name), participant(name), identity=secret(name), folder=where)


def pinned(url: str, name: str, certificate: str = "") -> Pinned:
    """Whom a party of the tests joined."""
    return Pinned(url, "hub", name, HUB.public_key(), certificate)


def free_port() -> int:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return int(door.getsockname()[1])


@dataclass
class Mother:
    """The parent, seen from a test."""

    process: "subprocess.Popen[str]"

    @classmethod
    def start(cls) -> "Mother":
        pipe = subprocess.PIPE
        command = [sys.executable, "-W", "error", str(HERE)]
        mother = cls(subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=os.environ | ENV))
        assert mother.process.stdout is not None
        assert mother.process.stdout.readline() == "ready\n"
        return mother

    def begin(self, **order: Any) -> int:
        """Fork a process. Returns: its pid."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(order, default=str) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def close(self) -> None:
        self.process.communicate(timeout=30)


def alive(pid: int) -> bool:
    """Is it there? Of those that ended, nothing is left behind."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def kill(pid: int) -> None:
    """By its own pid, and wait until it is gone."""
    if alive(pid):
        os.kill(pid, signal.SIGKILL)
    while alive(pid):
        time.sleep(0.001)


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # who ends is gone
    import httpx
    import starlette.routing
    import uvicorn

    import comity.ledger.mailbox
    import comity.service.network
    import comity.service.site

    assert all((comity.ledger.mailbox, comity.service.network, comity.service.site, httpx, starlette.routing, uvicorn))
    local("masked", 1)
    print("ready", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        if pid := os.fork():
            print(pid, flush=True)
            continue
        code = 1
        try:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(
                os.open(f"{order['folder']}/{order.get('name', 'hub')}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2
            )
            os.dup2(2, 1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            (site if "name" in order else hub)(order)
            code = 0
        except BaseException:  # noqa: BLE001  it is read in the log
            import traceback

            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)


if __name__ == "__main__":
    main()
