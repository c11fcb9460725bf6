"""A hub that lives: one run after the other, paused, stopped, and without those who were removed."""

import importlib
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

import comity as co
from comity.service import site
from comity.service.client import Client
from comity.service.database import Away
from comity.service.invitations import Invitation
from comity.service.limits import Limits
from comity.service.offers import Offer, Taken
from comity.service.posting import Halted
from comity.service.registry import Registry
from comity.service.station import Station

sys.path.append(str(Path(__file__).parent))
made = importlib.import_module("actors")
TWO = ("ada", "bob")


@dataclass(frozen=True)
class Open:
    """An agenda that takes part in whatever of these is offered, and stays."""

    name: str
    works: tuple[str, ...]
    limits: Any = field(default_factory=Limits)
    stay: bool = True

    def find(self, offer: Offer) -> Taken | None:
        for work in self.works:
            make, participant = made.WORKS[work]
            if co.recipe(make())["hash"] == offer.recipe.get("hash"):
                return Taken(make(), participant(self.name), self.limits)
        return None


@contextmanager
def house(folder: Path, names: tuple[str, ...] = made.NAMES, **more: Any) -> Iterator[Station]:
    with Registry.open(folder / "hub") as registry:
        for name in names:
            token = registry.invite(name, made.HUB.public_key())
            registry.enrol(Invitation.read(token).secret, name, made.KEYS[name])
            registry.approve(name)
        settings = co.Network("127.0.0.1:0", folder / "hub", identity=made.HUB, parties=registry, **more)
        with Station(settings) as station:
            yield station


@contextmanager
def sites(
    station: Station, folder: Path, names: tuple[str, ...] = made.NAMES, *works: str, **more: Any
) -> Iterator[None]:
    stop, errors = threading.Event(), []

    def one(name: str) -> None:
        agenda, to = Open(name, works or ("fedavg",), **more), made.pinned(station.url, name)
        runner = site.TakingPart(agenda, to, made.secret(name), folder / name)
        runner.watched_by(stop)
        runner.client.pause = 0.2
        try:
            runner.run()
        except co.ConfigError as error:
            errors.append(error)

    threads = [threading.Thread(target=one, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        station.hub.closing = True
        station.hub.wake()
        for thread in threads:
            thread.join(35)
        assert not any(thread.is_alive() for thread in threads)


def carry(station: Station, folder: Path, work: str = "fedavg", rounds: int = 2, **more: Any) -> Any:
    listen = {"listen": more.pop("listen")} if "listen" in more else {}
    engine: Any = station.carrying(folder=folder / work, **more)
    return made.WORKS[work][0]().run(rounds=rounds, folder=folder / work, engine=engine, **listen)


def until(met: Callable[[], Any], seconds: float = 15.0) -> None:
    ends = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < ends
        time.sleep(0.01)


def test_one_run_after_the_other(tmp_path):
    with house(tmp_path) as station, sites(station, tmp_path, made.NAMES, "fedavg", "memory"):
        first = carry(station, tmp_path, "fedavg", title="one")
        second = carry(station, tmp_path, "memory", title="two")
        further = carry(station, tmp_path, "fedavg", 3, title="one")
        rows = station.runs.all()
        assert [(row.title, row.state, row.roster) for row in rows] == [
            ("two", "over", made.NAMES),
            ("one", "over", made.NAMES),
        ]
        assert station.box.progress(rows[0].run) == [], "what is saved is let go"
    assert made.bits(first.state) == made.bits(made.local("fedavg", 2).state)
    assert made.bits(second.state) == made.bits(made.local("memory", 2).state)
    assert made.bits(further.state) == made.bits(made.local("fedavg", 3).state)


def test_it_waits_for_as_many_as_must_agree(tmp_path):
    with house(tmp_path) as station, sites(station, tmp_path, TWO):
        run = carry(station, tmp_path, minimum=2)
        row = station.runs.all()[0]
        assert (row.roster, row.minimum, set(row.invited)) == (TWO, 2, set(made.NAMES))
        assert set(station.runs.agreements(row.run)) == set(TWO)
    two = {n: made.trainer(n) for n in TWO}
    assert made.bits(run.state) == made.bits(made.fedavg().replace(participants=two).run(rounds=2).state)


def test_paused_and_stopped_after_the_round(tmp_path):
    waited: list[float] = []
    with house(tmp_path) as station, sites(station, tmp_path):

        def listen(event: Any) -> None:
            run = station.runs.all()[0].run
            if event.kind == "round" and event.round.number == 0:
                station.runs.wish(run, "pause", "olga")
                threading.Thread(target=resume, args=(run,)).start()
            if event.kind == "round" and event.round.number == 2:
                station.runs.wish(run, "stop", "olga")

        def resume(run: str) -> None:
            until(lambda: station.runs.find(run).state == "paused")
            waited.append(time.monotonic())
            station.runs.wish(run, "go", "olga")

        run = carry(station, tmp_path, rounds=9, listen=listen)
        assert station.runs.all()[0].state == "stopped"
    assert run.ledger.rounds == 3
    assert len(waited) == 1
    assert made.bits(run.state) == made.bits(made.local("fedavg", 3).state)


def test_a_hub_that_ends_leaves_the_run_to_go_on(tmp_path):
    with house(tmp_path) as station, sites(station, tmp_path):

        def listen(event: Any) -> None:
            station.ending |= event.kind == "round"

        with pytest.raises(Halted, match="goes on when it is carried again"):
            carry(station, tmp_path, rounds=4, listen=listen)
        assert station.runs.all()[0].state == "running"
        station.ending = False
        run = carry(station, tmp_path, rounds=4)
    assert made.bits(run.state) == made.bits(made.local("fedavg", 4).state)


@dataclass(frozen=True)
class Held:
    """A participant that answers once it may."""

    inner: Any
    gate: threading.Event

    def contribute(self, *given: Any) -> Any:
        assert self.gate.wait(30)
        return self.inner.contribute(*given)


def test_stopped_within_a_round(tmp_path, monkeypatch):
    """That round does not count; carried again, it is closed by its last answer, as if nothing had been."""
    gate = threading.Event()
    people = {**dict.fromkeys(TWO, made.trainer), "cyd": lambda name: Held(made.trainer(name), gate)}
    monkeypatch.setitem(made.WORKS, "fedavg", (made.fedavg, lambda name: people[name](name)))

    def stop() -> None:
        until(station.runs.all)
        run = station.runs.all()[0].run
        until(lambda: [row.state for row in station.box.progress(run)].count("done") == 2)
        station.runs.wish(run, "stop now", "olga")

    with house(tmp_path) as station, sites(station, tmp_path):
        beside = threading.Thread(target=stop)
        beside.start()
        with pytest.raises(Halted, match="within a round"):
            carry(station, tmp_path)
        beside.join(20)
        row = station.runs.all()[0]
        assert (row.state, row.why[:15]) == ("stopped", "Within a round,")
        assert co.audit(tmp_path / "fedavg").rounds == 0
        gate.set()
        run = carry(station, tmp_path)
        assert station.runs.all()[0].state == "over"
    assert made.bits(run.state) == made.bits(made.local("fedavg", 2).state)


def test_stopped_before_it_began(tmp_path):
    with house(tmp_path) as station:
        asked = threading.Thread(
            target=lambda: (until(station.runs.all), station.runs.wish(station.runs.all()[0].run, "stop", "olga"))
        )
        asked.start()
        with pytest.raises(Halted, match="stopped"):
            carry(station, tmp_path)
        asked.join(10)
        assert station.runs.all()[0].state == "stopped"


def test_who_is_suspended_is_not_waited_for(tmp_path):
    """There is no deadline: it would be waited for without end."""
    with house(tmp_path) as station, sites(station, tmp_path, TWO):
        registry: Any = station.registry
        late = threading.Thread(target=_agreeing, args=(station, tmp_path))
        late.start()
        began = threading.Timer(1.0, lambda: registry.suspend("cyd"))
        began.start()
        run = carry(station, tmp_path, parties=made.NAMES, minimum=3)
        late.join(10)
    assert run.ledger.rounds == 2
    assert [e.facts["accepted"].tolist() for e in run.ledger if e.kind == "round"] == [[True, True, False]] * 2


def _agreeing(station: Station, folder: Path) -> None:
    """cyd agrees, and never answers."""
    until(station.runs.all)
    row = station.runs.all()[0]
    said = {"recipe": row.recipe["hash"], "limits": {}, "spends": [], "time": 0.0, "proof": {}}
    station.runs.agree(row.run, "cyd", said)


def test_a_run_that_fails_says_why_and_the_hub_goes_on(tmp_path):
    limits = co.Limits(rounds=1)
    with house(tmp_path) as station, sites(station, tmp_path, made.NAMES, "fedavg", "memory", limits=limits):
        with pytest.raises(co.TooFewParticipants):
            carry(station, tmp_path)
        row = station.runs.all()[0]
        assert row.state == "failed"
        assert "takes part in at most 1 round" in row.why
        assert carry(station, tmp_path, "memory", 1).ledger.rounds == 1
        assert [row.state for row in station.runs.all()] == ["over", "failed"]


def test_a_hub_that_others_can_call_must_have_a_url(tmp_path):
    settings = co.Network("0.0.0.0:0", tmp_path, identity=made.HUB, parties=made.KEYS)
    with pytest.raises(co.ConfigError, match="must have a url"):
        Station(settings)


def test_without_a_url_the_host_must_be_this_machine(tmp_path):
    """Else what was signed for another hub would be taken here."""
    settings = co.Network("127.0.0.1:0", tmp_path, identity=made.HUB, parties=made.KEYS)
    with Station(settings) as station, httpx.Client(trust_env=False) as line:
        for host, status in (("hub.example", 400), ("[", 400), ("127.0.0.1:1", 401)):
            got = line.get(f"{station.url}/v1/run", headers={"host": host, **_signed()})
            assert got.status_code == status, host


def _signed() -> dict[str, str]:
    from comity.service.signatures import Request, sign

    asked = Request("GET", "http://127.0.0.1/v1/run")
    return sign(asked, made.secret("mallory"), keyid="ada", created=int(time.time()), nonce="a" * 20)


def test_versions_and_heads(tmp_path):
    settings = co.Network("127.0.0.1:0", tmp_path, identity=made.HUB, parties=made.KEYS)
    with Station(settings) as station, httpx.Client(trust_env=False) as line:
        good = line.get(f"{station.url}/v1/health")
        assert (good.status_code, good.headers["comity-protocol"]) == (200, "1")
        other = line.get(f"{station.url}/v1/health", headers={"Comity-Protocol": "2"})
        assert (other.status_code, other.json()["hub"]) == (426, {"version": co.__version__, "protocol": 1})
        assert line.get(f"{station.url}/v1/health", headers={"x": "y" * 40_000}).status_code == 431


def test_what_goes_wrong_inside_is_never_500(tmp_path, capsys):
    async def broken(hub: Any, asked: Any) -> Any:
        raise RuntimeError("pass-word")

    async def plain(request: Any) -> Any:
        raise RuntimeError("pass-word")

    from starlette.routing import Route

    settings = co.Network("127.0.0.1:0", tmp_path, identity=made.HUB, parties=made.KEYS)
    routes = [("/v1/broken", "GET", broken, 0), Route("/plain", plain)]
    with Station(settings, routes) as station, httpx.Client(trust_env=False) as line:
        asked = Client(station.url, "ada", made.secret("ada"))
        signed = asked._signed("GET", "/v1/broken", b"", {})
        for path, headers in (("/v1/broken", signed), ("/plain", {})):
            got = line.get(station.url + path, headers=headers)
            assert (got.status_code, got.headers["retry-after"]) == (503, "2")
            assert "pass-word" not in got.text
    assert "pass-word" not in "".join(capsys.readouterr())


def test_two_hubs_do_not_share_a_sqlite_folder(tmp_path):
    settings = co.Network("127.0.0.1:0", tmp_path, identity=made.HUB, parties=made.KEYS)
    with Station(settings), pytest.raises(co.ConfigError, match="already has"):
        Station(settings)


def test_one_process_carries_a_folder(tmp_path):
    settings = co.Network("127.0.0.1:0", tmp_path / "hub", identity=made.HUB, parties=made.KEYS)
    with Station(settings) as station:
        turns: list[str] = []

        def second() -> None:
            with station.holding(tmp_path / "run"):
                turns.append("second")

        with station.holding(tmp_path / "run"):
            other = threading.Thread(target=second)
            other.start()
            time.sleep(0.4)
            turns.append("first")
        other.join(10)
    assert turns == ["first", "second"]


def test_the_log_of_the_process_is_its_own(tmp_path):
    """To serve closes no handler of whoever else writes to a log."""

    class Kept(logging.NullHandler):
        closed = False

        def close(self) -> None:
            self.closed = True
            super().close()

    kept = Kept()
    with house(tmp_path):
        assert not kept.closed


def test_a_database_that_is_away_when_a_run_begins_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = iter([Away("It is away."), Away("It is away."), ["ada"]])

    def approved(station: Station) -> Any:
        if isinstance(said := next(answers), Away):
            raise said
        return said

    with house(tmp_path) as station:
        monkeypatch.setattr(Station, "approved", property(approved))
        monkeypatch.setattr("comity.service.posting.LOOK", 0.01)
        assert station.carrying(folder=tmp_path / "run").choice["workers"] == 1
    assert capsys.readouterr().err.count("It is waited for.") == 1


def test_a_request_that_a_proxy_repeats_is_signed_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first hub was killed after it had used the nonce up: the second refuses it, and the site asks again."""
    body = b'{"run": "none", "entries": 0, "head": "", "by": ""}'
    with house(tmp_path) as station:
        line = Client(station.url, "ada", made.secret("ada"), pause=0.05)
        once = line._signed("POST", "/v1/head", body, {})
        fresh, given = line._signed, iter([once, once])
        monkeypatch.setattr(line, "_signed", lambda *said: next(given, None) or fresh(*said))
        assert line._once("POST", "/v1/head", body, {}, 1.0).status == 404
        assert line.ask("POST", "/v1/head", body).status == 404
        line.close()
        repeated = httpx.post(f"{station.url}/v1/head", content=body, headers=once, trust_env=False)
        other = httpx.post(f"{station.url}/v1/head", content=body + b" ", headers=once, trust_env=False)
    assert (repeated.status_code, repeated.json()["again"]) == (401, True)
    assert (other.status_code, set(other.json())) == (401, {"reason"})
