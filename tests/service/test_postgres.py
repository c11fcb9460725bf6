"""A hub on PostgreSQL: of one process or several, while its database is there, and while it is away."""

import importlib
import io
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import comity as co
from comity.service import site
from comity.service.database import Away, awaited
from comity.service.invitations import Invitation
from comity.service.logs import Log
from comity.service.opening import opened
from comity.service.registry import Registry
from comity.service.station import Station

sys.path.append(str(Path(__file__).parent))
made, servers = importlib.import_module("actors"), importlib.import_module("postgres")
houses = importlib.import_module("houses")


def approved(url: str) -> Registry:
    """The three of the tests, taken in."""
    registry = Registry.open(url)
    for name in made.NAMES:
        if registry.party(name) is None:
            token = registry.invite(name, made.HUB.public_key())
            registry.enrol(Invitation.read(token).secret, name, made.KEYS[name])
            registry.approve(name)
    return registry


@contextmanager
def station(url: str, folder: Path) -> Iterator[Station]:
    with approved(url) as registry:
        settings = co.Network("127.0.0.1:0", folder / "hub", identity=made.HUB, parties=registry)
        with Station(settings) as one:
            yield one


@contextmanager
def sites(folder: Path, url: str, work: str) -> Iterator[list[threading.Thread]]:
    stop, (make, participant) = threading.Event(), made.WORKS[work]

    def one(name: str) -> None:
        settings = {"identity": made.secret(name), "folder": folder / name}
        runner = site.runner(make(), made.pinned(url, name), participant(name), **settings)
        runner.client.stop, runner.client.pause = stop, 0.5
        runner.run()

    threads = [threading.Thread(target=one, args=(name,)) for name in made.NAMES]
    for thread in threads:
        thread.start()
    try:
        yield threads
    finally:
        ends = time.monotonic() + 15
        while any(t.is_alive() for t in threads) and time.monotonic() < ends:
            time.sleep(0.02)
        stop.set()
        for thread in threads:
            thread.join(35)
        assert not any(thread.is_alive() for thread in threads)


def carried(at: Station, folder: Path, work: str, rounds: int, listen: Callable[[Any], None] | None = None) -> Any:
    engine: Any = at.carrying(title="ours", folder=folder / "run")
    more = {} if listen is None else {"listen": listen}
    return made.WORKS[work][0]().run(rounds=rounds, folder=folder / "run", engine=engine, **more)


def test_two_processes_are_one_hub(postgres, tmp_path):
    """Sites dial the one, the other carries: what it asks wakes them, though they wait elsewhere."""
    url = postgres.url()
    with station(url, tmp_path) as ours, station(url, tmp_path) as theirs:
        with sites(tmp_path, theirs.url, "fedavg"):
            began = time.monotonic()
            run = carried(ours, tmp_path, "fedavg", 6)
            took = time.monotonic() - began
        row = ours.runs.all()[0]
        assert theirs.runs.find(row.run) == row
    assert made.bits(run.state) == made.bits(made.local("fedavg", 6).state)
    assert (row.state, row.title, row.roster) == ("over", "ours", made.NAMES)
    assert took < 6.0, "by notices, not by looks every five seconds"


def test_the_database_goes_away_and_comes_back(tmp_path):
    """As if all its processes were killed, in the middle of a run: who waits goes on waiting, and nothing is lost."""
    struck: list[int] = []
    with servers.running() as server, station(server.url(), tmp_path) as ours:

        def strike(event: Any) -> None:
            if event.kind == "round" and event.round.number == 1:
                server.stop()
                struck.append(event.round.number)
                threading.Timer(1.0, server.start).start()

        with sites(tmp_path, ours.url, "memory"):
            run = carried(ours, tmp_path, "memory", 4, strike)
        assert ours.runs.all()[0].state == "over"
    assert struck == [1]
    assert made.bits(run.state) == made.bits(made.local("memory", 4).state)
    assert (run.ledger.dropped, run.ledger.refused) == ([], [])


def test_a_hub_that_begins_before_its_database(tmp_path):
    """`comity serve` says what it waits for, and goes on once the database is there."""
    said = io.StringIO()
    with servers.running() as server:
        place = houses.made(tmp_path / "hub")
        settings = place.folder / "hub.toml"
        settings.write_text(settings.read_text() + f'database = "{server.url()}"\n')
        server.stop()
        threading.Timer(1.5, server.start).start()
        with opened(place.settings, Log("text", said)) as one:
            assert one.registry.parties() == []
    assert said.getvalue().count("It is waited for, 60 s at most.") == 1


def test_a_url_without_its_password(postgres):
    shown = postgres.url().replace("hub@", "hub:pass-word@")
    with Registry.open(shown) as registry:
        assert "pass-word" not in repr(registry.db) + registry.db.where
        assert "pass-word" in registry.db.url


def test_a_database_that_is_not_there():
    said = []
    with pytest.raises(Away, match="must be a database that answers") as refused:
        awaited(lambda: Registry.open("postgresql+psycopg://hub:pass-word@127.0.0.1:9/none"), said.append, 0.6)
    assert "pass-word" not in str(refused.value)
    assert len(said) == 1
    assert said[0].endswith("It is waited for, 1 s at most.")
