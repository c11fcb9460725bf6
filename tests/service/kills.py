"""A hub of one or two processes, its database and its sites, struck at random moments while a run goes on."""

import importlib
import json
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent))
made, proxies = importlib.import_module("actors"), importlib.import_module("proxies")

PATIENCE = 90.0
DATABASE, CARRIER = "database", "carrier"
"""Whom one may strike beside hubs and sites: the server of the database; the hub that carries the run."""
AGAIN = "Nothing is lost: run the same again"
"""After these last words of a hub it is begun again."""
TURNS = "proxy_next_upstream error timeout http_503 non_idempotent; proxy_http_version 1.1;"
"""Of nginx: whoever asks is passed on to the other hub where one does not answer."""


def free_port() -> int:
    """Below those that systems give to lines that go out: one of them would hold a dead hub's port."""
    while True:
        port = random.SystemRandom().randrange(15_000, 30_000)
        with socket.socket() as door, suppress(OSError):
            door.bind(("127.0.0.1", port))
            return port


@dataclass
class Campaign:
    """One run.

    Attributes:
        server: PostgreSQL; None where the hub's database is a file.
        hubs: names of its processes.
        turns: do sites dial nginx, which asks the hubs in turn? Else each dials one of them.
    """

    mother: Any
    folder: Path
    work: str
    rounds: int
    server: Any = None
    hubs: tuple[str, ...] = ("hub",)
    turns: bool = False
    ports: dict[str, int] = field(default_factory=dict)
    pids: dict[str, int] = field(default_factory=dict)
    struck: list[str] = field(default_factory=list)
    _database: str = ""
    _shut: ExitStack = field(default_factory=ExitStack)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.ports |= {hub: free_port() for hub in self.hubs}
        if self.server is not None:
            self._database = self.server.url()
            importlib.import_module("test_postgres").approved(self._database).close()
        if self.turns:
            self.ports["front"] = free_port()
            backs = [f"127.0.0.1:{self.ports[hub]}" for hub in self.hubs]
            front = proxies.nginx(self.folder / "nginx", backs, port=self.ports["front"], settings=TURNS)
            self._shut.enter_context(front)

    def all(self) -> None:
        """Begin."""
        for who in (*self.hubs, *made.NAMES):
            self.begin(who)

    def begin(self, who: str) -> None:
        order: dict[str, Any] = {"folder": self.folder, "work": self.work}
        if who in made.NAMES:
            order |= {"name": who, "port": self.ports["front" if self.turns else self._dials(who)]}
        else:
            order |= {"hub": who, "port": self.ports[who], "rounds": self.rounds}
            if self._database:
                url = f"http://127.0.0.1:{self.ports['front']}" if self.turns else ""
                order |= {"database": self._database, "url": url}
        self.pids[who] = self.mother.begin(**order)

    def _dials(self, who: str) -> str:
        return self.hubs[made.NAMES.index(who) % len(self.hubs)]

    def strike(self, who: str) -> None:
        """Kill, and begin again."""
        if who == DATABASE:
            strike_database(self.server, brutal=len(self.struck) % 2 == 0)
        elif who == CARRIER:
            self._carrier()
        else:
            made.kill(self.pids[who])
            self.begin(who)
        self.struck.append(who)

    def _carrier(self) -> None:
        """It is begun again once another has taken over."""
        first = self._carries()
        if first is None:
            return
        made.kill(self.pids[first])
        ends = time.monotonic() + PATIENCE
        while not self.done and self._carries() in (None, first):
            assert time.monotonic() < ends, self.logs
            time.sleep(0.005)
        self.begin(first)

    def _carries(self) -> str | None:
        lock = self.folder / "run" / "carried" / "lock"
        said = lock.read_text() if lock.exists() else ""
        return next((hub for hub in self.hubs if str(self.pids[hub]) == said), None)

    def _until(self, true: Any, seconds: float = PATIENCE) -> None:
        """A hub that found nobody in time is begun again, as a supervisor does."""
        ends = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < ends, self.logs
            for hub in self.hubs:
                if not self.done and not made.alive(self.pids[hub]):
                    log = (self.folder / f"{hub}.log").read_text()
                    assert AGAIN in log[-400:], self.logs
                    self.begin(hub)
            time.sleep(0.01)

    @property
    def done(self) -> bool:
        return (self.folder / "done").exists()

    @property
    def logs(self) -> dict[str, str]:
        return {p.name: p.read_text()[-2000:] for p in self.folder.glob("*.log")}

    def end(self) -> Any:
        """Wait for the end of the run; where its hub stays, for that of its sites too."""
        self._until(lambda: self.done)
        if self._database:
            self._until(lambda: not any(made.alive(self.pids[name]) for name in made.NAMES), 40.0)
        return json.loads((self.folder / "done").read_text())

    def close(self) -> None:
        for pid in self.pids.values():
            made.kill(pid)
        self._shut.close()


def hurried(server: Any) -> None:
    """A server that does not wait for its disk: what a killed process wrote is with the system, and is not lost."""
    with (server.data / "postgresql.conf").open("a") as conf:
        conf.write("\nfsync = off\nfull_page_writes = off\n")
    os.kill(_first(server), signal.SIGHUP)


def _first(server: Any) -> int:
    """The process that began all others."""
    return int((server.data / "postmaster.pid").read_text().split()[0])


def strike_database(server: Any, *, brutal: bool) -> None:
    """All at once, or the first of its processes alone; and start it again."""
    if not brutal:
        server.stop()
        server.start()
        return
    os.kill(_first(server), signal.SIGKILL)
    for attempt in range(100):
        time.sleep(0.05)
        try:
            server.start()
        except AssertionError:  # its children are not gone yet
            if attempt == 99:
                raise
        else:
            return


def check(campaign: Campaign, end: Any) -> None:
    """Each round once, everybody in it, and the state that one process comes to."""
    want = made.local(campaign.work, campaign.rounds)
    everybody = [[n, "\n".join(made.NAMES), [True] * len(made.NAMES)] for n in range(campaign.rounds)]
    assert end["counted"] == everybody
    assert end["bits"] == made.bits(want.state)
    assert end["up"] == want.ledger.bytes_up
    assert not end["refused"]


def check_late(campaign: Campaign, end: Any) -> None:
    """Each round once, each contribution once at most, and the model that the ledger says."""
    rounds = [
        (*said, late) for said, late, closed in zip(end["counted"], end["late"], end["closed"], strict=True) if closed
    ]
    assert [number for number, *_ in rounds] == list(range(campaign.rounds)), end
    taken: list[tuple[int, str]] = []
    bias = float(made.MODEL.init(made.co.Round("", 1))["0.bias"][0])
    for number, asked, accepted, late in rounds:
        names = asked.split("\n")
        began = [number] * (len(names) - len(late)) + late
        here = [(b, n) for b, n, ok in zip(began, names, accepted, strict=True) if ok]
        taken += here
        each = [made.NUMBERS[n] * (1.0 + number - b) ** -0.5 for b, n in here]
        bias += sum(each) / len(each) if each else 0.0
    assert len(taken) == len(set(taken)), "counted twice"
    assert abs(end["bias"] - bias) < 1e-4 * abs(bias)
    heard = [ok for _, _, accepted, late in rounds for ok in accepted[len(accepted) - len(late) :]]
    assert any(heard), f"who was late is heard: {rounds}"
    assert not end["refused"]


def killed(make: Any, folder: Path, victims: Sequence[str], *, seed: str, checked: Any = check) -> None:
    """Strike them all; where a machine is quick, a run may be over before the last, and another one is begun.

    Args:
        make: a campaign, given its folder.
        folder: for all of them.
        victims: in this order.
        seed: of the moments.
        checked: looks at each end.
    """
    pick, done = random.Random(seed), 0
    for number in range(len(victims)):
        done += _struck(make(folder / str(number)), victims[done:], pick, checked)
        if done == len(victims):
            return
    raise AssertionError("the runs must be longer than the strikes")


def _struck(campaign: Campaign, victims: Sequence[str], pick: random.Random, checked: Any) -> int:
    """How many of them were struck in one run, which ends as if nobody had been."""
    try:
        campaign.all()
        for who in victims:
            time.sleep(pick.uniform(0.02, 0.35))
            if campaign.done:
                break
            campaign.strike(who)
        checked(campaign, campaign.end())
        return len(campaign.struck)
    finally:
        campaign.close()


def drawn(seed: str, strikes: int, among: Sequence[str], *, first: Sequence[str] = ()) -> list[str]:
    """Whom to strike: these, and then others by chance."""
    pick = random.Random(f"{seed} {strikes}")
    return [*first, *(pick.choice(among) for _ in range(strikes - len(first)))]
