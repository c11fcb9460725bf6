"""A hub as `comity serve` runs it, in this process, with sites in threads: what its tests share."""

import io
import json
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import comity as co
from comity.core.wire import encode_tree
from comity.ledger.keys import SideSecret
from comity.running import left_behind
from comity.service import site, versions
from comity.service.conducting import Conductor, Job, Stop
from comity.service.invitations import Invitation
from comity.service.joining import Pinned
from comity.service.logs import Log
from comity.service.offers import Offer, Taken
from comity.service.opening import opened
from comity.service.registry import Registry
from comity.service.runs import RunRow, Runs
from comity.service.settings import HubSettings
from comity.service.studies import Study

NAMES = ("ada", "bob")
STUDY = """import numpy as np
import comity as co

rounds = {rounds}
title = "{title}"
model = co.Linear(inputs=4, classes=2, rate=0.5)
fed = co.Collaboration(co.FedAvg(model), seed={seed}, retries=0)


def participant(data):
    rng = np.random.default_rng(len(data))
    X = rng.normal(size=(12, {inputs})).astype("float32")
    return co.Trainer(model, (X, rng.integers(0, 2, 12)))
"""


def secret(name: str) -> SideSecret:
    return SideSecret(sha256(name.encode()).digest())


def study(folder: Path, name: str = "first", *, rounds: int = 3, seed: int = 1, inputs: int = 4) -> Path:
    path = folder / f"{name}.py"
    path.write_text(STUDY.format(rounds=rounds, title=name.title(), seed=seed, inputs=inputs))
    return path


def local(path: Path, rounds: int) -> bytes:
    """What one process gives."""
    one = Study.load(path)
    fed = one.fed.replace(participants={n: one.participant(n) for n in NAMES})
    return encode_tree({"state": fed.run(rounds=rounds).state})


def kept(folder: Path, path: Path) -> bytes:
    """What lies in a run's folder."""
    return encode_tree({"state": left_behind(folder, "last")[0]["hub"].method})


@dataclass
class Place:
    """A hub's folder, and the sites that dial to it."""

    folder: Path
    port: int
    stop: threading.Event = field(default_factory=threading.Event)
    threads: list[threading.Thread] = field(default_factory=list)
    said: io.StringIO = field(default_factory=io.StringIO)
    failed: list[BaseException] = field(default_factory=list)

    @property
    def settings(self) -> HubSettings:
        return HubSettings.read(self.folder)

    def sites(self, *paths: Path, stay: bool = True) -> None:
        """Sites of both parties, each with all studies; they stay until they are told to stop, or to the end of one."""
        for name in NAMES:
            taken = [Taken(one.fed, one.participant(name)) for one in map(Study.load, paths)]
            agenda = Many(taken, stay)
            key = self.settings.secret().public_key()
            to = Pinned(self.settings.url, "Hub", name, key, "")
            where = self.folder.parent / name
            self.threads.append(threading.Thread(target=self._site, args=(agenda, to, name, where)))
            self.threads[-1].start()

    def _site(self, agenda: Any, to: Pinned, name: str, where: Path) -> None:
        try:
            site.take_part(agenda, to, identity=secret(name), folder=where, stop=self.stop)
        except BaseException as error:  # noqa: BLE001
            self.failed.append(error)

    def carry(
        self, jobs: Sequence[Job], *, again: bool = False, during: Callable[[Any, Stop], None] | None = None
    ) -> int:
        """A hub process that ends when all is carried."""
        log = Log("json", self.said)
        stop = Stop(lambda: None)
        with opened(self.settings, log) as station:
            stop.station = station
            beside = threading.Thread(target=during, args=(station, stop)) if during else None
            if beside is not None:
                beside.start()
            try:
                return Conductor(station, log, again).carry(jobs)
            finally:
                if beside is not None:
                    beside.join(20)

    def rows(self) -> list[RunRow]:
        db = versions.opened(self.folder, "")
        try:
            return Runs(db).all()
        finally:
            db.close()

    def events(self, event: str) -> list[dict[str, Any]]:
        return [row for row in map(json.loads, self.said.getvalue().splitlines()) if row["event"] == event]

    def close(self) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join(20)
        assert not any(thread.is_alive() for thread in self.threads)
        assert not self.failed


@dataclass
class Many:
    """Takes part in whatever recipe it knows."""

    taken: list[Taken]
    stay: bool = True

    def find(self, offer: Offer) -> Taken | None:
        return next((t for t in self.taken if co.recipe(t.fed)["hash"] == offer.recipe["hash"]), None)


def free() -> int:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        port: int = door.getsockname()[1]
        return port


def made(folder: Path) -> Place:
    """A hub on this machine, over plain HTTP, with two parties that are approved."""
    port = free()
    HubSettings.make(folder, name="Hub", host="localhost", port=port)
    text = "\n".join(
        ['name = "Hub"', f'url = "http://127.0.0.1:{port}"', 'host = "127.0.0.1"', f"port = {port}", 'log = "json"', ""]
    )
    (folder / "hub.toml").write_text(text)
    with Registry.open(folder) as registry:
        for name in NAMES:
            token = registry.invite(name, bytes(32))
            registry.enrol(Invitation.read(token).secret, name, secret(name).public_key())
            registry.approve(name)
    return Place(folder, port)
