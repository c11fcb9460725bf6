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
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import comity as co
from comity.core.contribution import Contribution
from comity.core.wire import encode_tree
from comity.ledger.keys import SideSecret
from comity.methods.ditto import Ditto
from comity.service.database import awaited
from comity.service.joining import Pinned
from comity.service.registry import Registry
from comity.service.station import Station

HERE = Path(__file__)
ENV = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
NAMES = ("ada", "bob", "cyd")
RNG = np.random.default_rng(4)
DATA = {n: (RNG.normal(size=(12, 3)).astype("float32"), RNG.integers(0, 2, 12)) for n in NAMES}
MODEL = co.Linear(3, 2, rate=0.3, batch=4)
LARGE = co.Linear(40_000, 2, rate=0.01, batch=4)
NUMBERS = {"ada": 1.0, "bob": 4.0, "cyd": 10.0}


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


def large() -> co.Collaboration:
    """What is asked and answered lies in files beside the database."""
    return co.Collaboration(co.FedAvg(LARGE), seed=3, evaluate=False)


def late() -> co.Collaboration:
    """One of them is slower than the deadline: each of its answers counts in a later round."""
    after: Any = {"late": "next", "deadline": 0.1, "quorum": 0.6, "oldest": 1000}
    return co.Collaboration(co.FedAvg(MODEL), evaluate=False, seed=1, **after)


def trainer(name: str) -> Any:
    return co.Trainer(MODEL, DATA[name])


def large_trainer(name: str) -> Any:
    rng = np.random.default_rng(sum(name.encode()))
    return co.Trainer(LARGE, (rng.normal(size=(4, 40_000)).astype("float32"), np.array([0, 1, 0, 1])))


def ditto(name: str) -> Any:
    return Ditto(MODEL, DATA[name], strength=0.1)


@dataclass(frozen=True)
class Says:
    """Sends one number; whoever is slow takes a while for it."""

    number: float
    seconds: float

    def contribute(self, shared: Any, local: Any, round: Any, secret: Any) -> tuple[Contribution, Any]:
        time.sleep(self.seconds)
        value = {k: np.full_like(v, self.number) for k, v in shared.value.items()}
        return Contribution("delta", value, 1.0), {"said": local.get("said", 0) + 1}


def says(name: str) -> Says:
    return Says(NUMBERS[name], 0.25 if name == "cyd" else 0.06)


WORKS: dict[str, Any] = {
    "fedavg": (fedavg, trainer), "masked": (masked, trainer), "memory": (memory, ditto), "late": (late, says),
    "large": (large, large_trainer),
}  # fmt: skip


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
    say(folder, run)


def station(order: dict[str, Any]) -> None:
    """One process of a hub on PostgreSQL: it serves, and carries the run when its turn comes."""
    folder, make = Path(order["folder"]), WORKS[order["work"]][0]
    with awaited(lambda: Registry.open(order["database"]), print) as registry:
        given: Any = {"identity": HUB, "parties": registry, "url": order["url"]}
        settings = co.Network(f"127.0.0.1:{order['port']}", folder / "hub", **given)
        with awaited(lambda: Station(settings), print) as one, one.holding(folder / "run"):
            if not (folder / "done").exists():
                engine: Any = one.carrying(folder=folder / "run")
                say(folder, make().run(rounds=order["rounds"], folder=folder / "run", engine=engine))
            time.sleep(3600)  # until it is killed


def say(folder: Path, run: Any) -> None:
    """What came of it."""
    rounds = [e.facts for e in run.ledger if e.kind == "round"]
    said = {
        "bits": bits(run.state),
        "counted": [[f["round"], f["asked"], f["accepted"].tolist()] for f in rounds],
        "closed": [f["closed"] for f in rounds],
        "late": [f["late"]["round"].tolist() if "late" in f else [] for f in rounds],
        "up": run.ledger.bytes_up,
        "bias": float(run.shared["0.bias"][0]),
        "refused": len(run.ledger.refused),
    }
    (folder / "done.tmp").write_text(json.dumps(said))
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
    with suppress(ImportError):
        import sqlalchemy.dialects.postgresql.psycopg

        assert sqlalchemy.dialects.postgresql.psycopg
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
            log = f"{order['folder']}/{order.get('name') or order.get('hub', 'hub')}.log"
            os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
            os.dup2(2, 1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            (site if "name" in order else station if "database" in order else hub)(order)
            code = 0
        except BaseException:  # noqa: BLE001  it is read in the log
            import traceback

            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)


if __name__ == "__main__":
    main()
