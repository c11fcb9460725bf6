"""comity inspect and comity site: what they print and refuse, and that a site that is stopped goes on."""

import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest

import comity as co
from comity.ledger.keys import SideSecret
from comity.service.joining import Pinned
from comity.service.keys import make_identity, write_private
from comity.service.station import Station

sys.path.append(str(Path(__file__).parent / "service"))
made = importlib.import_module("actors")

COMITY = [sys.executable, "-W", "error", "-c", "from comity.cli import main; main()"]
NAMES = ("ada", "bob")
LONG = 800
"""Passes over the data: a round then takes a while."""
STUDY = """
import numpy as np
import comity as co

title, rounds = "Readmission", 6
model = co.Linear(3, 2, rate=0.3, batch=4)
fed = co.Collaboration(co.FedAvg(model), seed=3)

def participant(data):
    rows = np.loadtxt(data, delimiter=",", dtype="float32")
    X, y = rows[:, :3], rows[:, 3].astype(int)
    return co.PrivateTrainer(model, (X, y), clip=1.0, noise=2.0, rate=0.5, epochs={epochs})
"""


@dataclass
class Place:
    """A hub to be, and the files of two parties.

    Attributes:
        folder: of everything.
        port: of the hub.
        ran: what came of the run.
    """

    folder: Path
    port: int
    keys: dict[str, bytes]
    ran: list[Any] = field(default_factory=list)
    threads: list[threading.Thread] = field(default_factory=list)
    begun: list["subprocess.Popen[str]"] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def study(self) -> Path:
        return self.folder / "study.py"

    def hub(self, rounds: int) -> None:
        """Run it in a thread."""
        from comity.service.studies import Study

        fed = Study.load(self.study).fed
        network = co.Network(f"127.0.0.1:{self.port}", self.folder / "hub", identity=made.HUB, parties=self.keys)
        folder = self.folder / "run"

        def run() -> None:
            with Station(network) as station:
                self.ran.append(fed.run(rounds=rounds, folder=folder, engine=station.carrying(folder=folder)))
                known = {(station.runs.all()[0].run, name) for name in NAMES}
                _wait(lambda: station.hub.told.issuperset(known))

        self.threads.append(threading.Thread(target=run))
        self.threads[-1].start()

    def command(self, name: str, *more: str) -> list[str]:
        files = ["--identity", str(self.folder / f"{name}.key"), "--data", str(self.folder / f"{name}.csv")]
        return ["site", str(self.study), *files, *more]

    def begin(self, name: str, *more: str) -> "subprocess.Popen[str]":
        pipe = subprocess.PIPE
        command = [*COMITY, *self.command(name, *more)]
        begun = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=os.environ | made.ENV)
        self.begun.append(begun)
        return begun


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    keys = {}
    one = Place(tmp_path, made.free_port(), keys)
    one.study.write_text(STUDY.format(epochs=1))
    for name in NAMES:
        identity = tmp_path / f"{name}.key"
        keys[name] = make_identity(identity).public_key()
        to = Pinned(one.url, "hub", name, made.HUB.public_key(), "")
        write_private(tmp_path / f"{name}.key.hub", json.dumps({**asdict(to), "key": to.key.hex()}).encode())
        X, y = made.DATA[name]
        lines = [",".join(map(str, [*x, label])) for x, label in zip(X.tolist(), y.tolist(), strict=True)]
        (tmp_path / f"{name}.csv").write_text("\n".join(lines))
    yield one
    for process in one.begun:
        process.kill()
        process.communicate(timeout=30)
    for thread in one.threads:
        thread.join(30)
        assert not thread.is_alive()


def ended(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def test_a_run_from_beginning_to_end(place, run):
    """One site in this process, one in another; a hub that shows what it runs first."""
    place.hub(3)
    shown = _until(lambda: run("inspect", place.url, "-", "--identity", place.folder / "ada.key"), "run ")
    assert "as the hub says" in shown.out
    files = ("--identity", place.folder / "ada.key", "--study", place.study, "--data", place.folder / "ada.csv")
    shown = run("inspect", place.url, "-", *files)
    assert (shown.code, shown.err) == (0, "")
    for word in ("the same as this copy", "12 examples", "6 rounds: ε", "approve    sha256:"):
        assert word in shown.out, shown.out
    approve = shown.out.rsplit("sha256:", 1)[1].strip()
    bob = place.begin("bob", "--approve", approve, "--epsilon", "50")
    ada = run(*place.command("ada", "--yes"))
    assert (ada.code, "error" in ada.err) == (0, False), ada.err
    assert f"comity audit {place.folder / 'ada.site'}" in ada.out
    assert ended(bob)[0] == 0
    place.threads[0].join(30)
    assert place.ran[0].ledger.rounds == 3
    _audited(run, place, ada.out.split("comity audit ")[1].strip())


def _audited(run: Any, place: Place, copy: str) -> None:
    """Both ledgers, against each other, and what was spent is what one process spends."""
    theirs, ours = run("audit", place.folder / "run", "--against", copy), run("audit", copy)
    assert (theirs.code, ours.code) == (0, 0), theirs.out + ours.out
    assert "are the first of" in theirs.out
    hub, site = co.audit(place.folder / "run"), co.audit(copy)
    assert (hub.head, hub.epsilon) == (site.head, site.epsilon)
    people = {n: co.PrivateTrainer(made.MODEL, made.DATA[n], clip=1.0, noise=2.0, rate=0.5) for n in NAMES}
    co.Collaboration(co.FedAvg(made.MODEL), people, seed=3).run(rounds=3, folder=place.folder / "local")
    assert co.audit(place.folder / "local").epsilon == hub.epsilon < float("inf")


def _until(look: Any, word: str) -> Any:
    """Ask again, for as long as the hub is on its way."""
    ends = time.monotonic() + 20.0
    while True:
        found = look()
        if word in found.out or time.monotonic() > ends:
            return found
        time.sleep(0.1)


SLOW = pytest.mark.slow


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=SLOW), signal.SIGKILL])
def test_a_site_that_is_stopped_goes_on(place, number):
    place.study.write_text(STUDY.format(epochs=LONG))
    place.hub(6)
    bob, ada = place.begin("bob", "--yes"), place.begin("ada", "--yes")
    path = place.folder / "ada.site"
    _wait(lambda: [*path.glob("*/spends.jsonl")] and len(_charged(path)) >= 2)
    ada.send_signal(number)
    code, _, err = ended(ada)
    assert code == (-9 if number == signal.SIGKILL else 128 + number)
    assert "Traceback" not in err
    again = place.begin("ada", "--yes")
    assert ended(again)[0] == 0
    assert ended(bob)[0] == 0
    place.threads[0].join(30)
    ledger = place.ran[0].ledger
    rounds = [e.facts for e in ledger if e.kind == "round"]
    assert [f["accepted"].tolist() for f in rounds if f["closed"]] == [[True, True]] * 6
    assert _charged(path) == [(n, 0) for n in range(6)], "once each, and none without"


def _charged(folder: Path) -> list[tuple[int, int]]:
    lines = [json.loads(x) for p in folder.glob("*/spends.jsonl") for x in p.read_text().splitlines()]
    return [(s["round"], s["attempt"]) for line in lines for s in line.get("spends", ())]


def _wait(what: Any) -> None:
    ends = time.monotonic() + 30.0
    while not what():
        assert time.monotonic() < ends
        time.sleep(0.005)


def test_it_is_approved_or_refused(place, run, monkeypatch):
    place.hub(1)
    wrong = run(*place.command("ada"))
    assert wrong.code == 2
    assert "must be approved" in wrong.err
    assert wrong.err.count("sha256:") == 1
    other = run(*place.command("ada", "--approve", "sha256:" + "0" * 64))
    assert (other.code, "must be the approved one" in other.err) == (2, True)
    monkeypatch.setattr("sys.stdin", Terminal("n\n"))
    no = run(*place.command("ada"))
    assert (no.code, "It was not. Nothing was sent." in no.err) == (2, True)
    assert "leaves     delta of FedAvg" in no.out
    place.study.write_text(STUDY.format(epochs=1).replace("seed=3", "seed=4"))
    differs = run(*place.command("ada", "--yes"))
    assert (differs.code, "seed: 4 → 3" in differs.err) == (2, True)
    files = ("--identity", place.folder / "ada.key", "--study", place.study)
    assert run("inspect", place.url, "-", *files).code == 1
    gone = run("inspect", place.url, "no-such-run", *files)
    assert (gone.code, "must have the run 'no-such-run'" in gone.err) == (2, True)
    there = run("inspect", "https://another.example", "-", *files)
    assert (there.code, "must be the one that" in there.err) == (2, True)
    place.study.write_text(STUDY.format(epochs=1))
    threads = [threading.Thread(target=_answer, args=(place, name)) for name in NAMES]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)


def _answer(place: Place, name: str) -> None:
    """Take part, so that the hub comes to its end."""
    from comity.service.keys import read_identity
    from comity.service.studies import Study

    study, identity = Study.load(place.study), place.folder / f"{name}.key"
    to, me = Pinned.read(identity), read_identity(identity)
    co.join(
        study.fed, to, study.participant(place.folder / f"{name}.csv"), identity=me, folder=place.folder / f"{name}.x"
    )


class Terminal:
    """A person at a keyboard."""

    def __init__(self, said: str) -> None:
        self._said = said

    def isatty(self) -> bool:
        return True

    def readline(self, *_: Any) -> str:
        return self._said

    def fileno(self) -> int:
        raise OSError


def test_who_never_joined_is_told_how(run, tmp_path):
    (tmp_path / "study.py").write_text(STUDY.format(epochs=1))
    write_private(tmp_path / "ada.key", SideSecret(bytes(32)).root)
    wrong = run("site", tmp_path / "study.py", "--identity", tmp_path / "ada.key")
    assert (wrong.code, "comity join URL TOKEN" in wrong.err) == (2, True)
