"""What a hub says of itself: measurements, its health, its log. None of it holds a secret."""

import asyncio
import dataclasses
import io
import json
import logging
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette

import comity as co
from comity.service import metrics, versions
from comity.service.logs import Log, caller, redacted, taken_over
from comity.service.metrics import TOKEN, Watched
from comity.service.registry import Registry
from comity.service.runs import Offering, Runs
from comity.service.settings import HubSettings

DATA = np.eye(4, dtype="float32"), np.array([0, 0, 1, 1])
MODEL = co.Linear(inputs=4, classes=2, rate=0.5)
LIVE = {"title": 'a "b" \\', "about": {}, "minimum": 2, "invited": ["ada", "bob"], "recipe": {"hash": "ab"}}


@pytest.fixture
def watched(tmp_path: Path) -> Any:
    settings = HubSettings.make(tmp_path / "hub", name="Registry", host="hub.example", port=8443)
    db = versions.opened(settings.folder, "")
    versions.check(db)
    registry, runs = Registry(db), Runs(db)
    for name in ("ada", "bob"):
        registry.invite(name, bytes(32))
    runs.offer("r1", Offering(folder=str(tmp_path / "run"), **LIVE))
    yield Watched(settings, registry, runs, lambda run: [SimpleNamespace(state="open", since=5.0)], lambda: 7)
    db.close()


def read(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """What Prometheus makes of it; each measurement once."""
    found = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        for s in family.samples:
            assert (s.name, frozenset(s.labels.items())) not in found
            found[s.name, frozenset(s.labels.items())] = s.value
    return found


def value(found: Any, name: str, **labels: str) -> float:
    return found[name, frozenset(labels.items())]


def test_prometheus_reads_what_is_measured(watched: Watched, tmp_path: Path) -> None:
    people = {n: co.Trainer(MODEL, DATA) for n in ("ada", "bob")}
    run = co.Collaboration(co.FedAvg(MODEL), people).run(rounds=3, folder=tmp_path / "run")
    got = read(watched.measured())
    assert value(got, "comity_database_up") == 1
    assert value(got, "comity_polls_open") == 7
    assert value(got, "comity_parties", status="invited") == 2
    assert value(got, "comity_runs", state="gathering") == 1
    assert value(got, "comity_run_state", run="r1", title='a "b" \\', state="gathering") == 1
    assert value(got, "comity_run_minimum", run="r1") == 2
    assert value(got, "comity_run_agreements", run="r1") == 0
    assert value(got, "comity_run_rounds_total", run="r1") == 3
    assert value(got, "comity_run_ledger_intact", run="r1") == 1
    assert value(got, "comity_run_answered_total", run="r1", party="bob") == 3
    up = [value(got, "comity_run_bytes_total", run="r1", party=n, direction="up") for n in ("ada", "bob")]
    assert sum(up) == run.ledger.bytes_up
    assert value(got, "comity_run_open_questions", run="r1") == 1
    assert value(got, "comity_run_oldest_question_timestamp_seconds", run="r1") == 5.0
    assert value(got, "comity_certificate_expires_timestamp_seconds") > 1.7e9
    assert value(got, "comity_disk_free_bytes") > 0
    assert value(got, "comity_process_resident_bytes") > 1e6


def test_a_database_that_is_away_is_measured_too(watched: Watched) -> None:
    broken = SimpleNamespace(reading=lambda: (_ for _ in ()).throw(co.LedgerError("away")))
    watched.registry.db, kept = broken, watched.registry.db  # type: ignore[assignment]
    assert value(read(watched.measured()), "comity_database_up") == 0
    assert watched.health() == {"database": "away", "disk": "ok"}
    watched.registry.db = kept
    assert watched.health()["database"] == "away"  # it is not asked again at once
    watched._last = (-10.0, {})
    assert watched.health()["database"] == "ok"


def asked(watched: Watched, path: str, host: str = "203.0.113.9", **headers: str) -> httpx.Response:
    """What somebody at an address is answered; a header's name has _ for -."""

    async def ask() -> httpx.Response:
        app = Starlette(routes=metrics.routes(watched))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app, client=(host, 5)), base_url="http://hub") as c:
            return await c.get(path, headers={name.replace("_", "-"): value for name, value in headers.items()})

    return asyncio.run(ask())


def test_health_is_for_everybody(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    got = asked(watched, "/healthz")
    assert (got.status_code, got.json()) == (200, {"database": "ok", "disk": "ok"})
    monkeypatch.setattr(metrics, "LEAST", 2**70)
    watched._last = (-10.0, {})
    got = asked(watched, "/healthz")
    assert (got.status_code, got.json()) == (503, {"database": "ok", "disk": "full"})


def test_health_looks_at_the_object_store_where_there_is_one(watched: Watched) -> None:
    answers = [True]
    watched.store = lambda: answers[0]
    assert asked(watched, "/healthz").json() == {"database": "ok", "disk": "ok", "store": "ok"}
    answers[0], watched._last = False, (-10.0, {})
    got = asked(watched, "/healthz")
    assert (got.status_code, got.json()["store"]) == (503, "away")


def test_measurements_are_for_this_machine_and_for_who_brings_the_token(watched: Watched) -> None:
    assert asked(watched, "/metrics").status_code == 401
    assert asked(watched, "/metrics", "127.0.0.1").status_code == 200
    for header in ("x_forwarded_for", "x_real_ip", "forwarded", "via"):
        assert asked(watched, "/metrics", "127.0.0.1", **{header: "127.0.0.1"}).status_code == 401
    path = watched.settings.folder / TOKEN
    path.write_text("0f" * 16 + "\n")
    path.chmod(0o600)
    assert asked(watched, "/metrics", authorization="Bearer " + "0f" * 16).status_code == 200
    assert asked(watched, "/metrics", authorization="Bearer " + "00" * 16).status_code == 401
    assert asked(watched, "/metrics", authorization="Bearer ").status_code == 401
    path.chmod(0o644)
    with pytest.raises(co.ConfigError, match="mode 0600"):
        asked(watched, "/metrics")


def test_behind_a_server_that_ends_tls_this_machine_is_nobody(watched: Watched) -> None:
    plain = dataclasses.replace(watched.settings, certificate=None, certificate_key=None)
    assert asked(dataclasses.replace(watched, settings=plain), "/metrics", "127.0.0.1").status_code == 401


@pytest.mark.parametrize(
    ("said", "trusted", "who"),
    [
        ("", (), "203.0.113.9"),
        ("198.51.100.7", (), "203.0.113.9"),
        ("198.51.100.7", ("203.0.113.9",), "198.51.100.7"),
        ("127.0.0.1, 198.51.100.7", ("203.0.113.0/24",), "198.51.100.7"),
        ("198.51.100.7, 203.0.113.8", ("203.0.113.0/24",), "198.51.100.7"),
        ("nonsense", ("203.0.113.0/24",), "203.0.113.9"),
    ],
)
def test_who_calls_is_believed_of_named_proxies_alone(said: str, trusted: tuple[str, ...], who: str) -> None:
    request = SimpleNamespace(client=SimpleNamespace(host="203.0.113.9"), headers={"x-forwarded-for": said})
    assert caller(request, trusted) == who


def test_a_log_is_one_line_for_each_event() -> None:
    out = io.StringIO()
    log = Log("json", out, clock=lambda: 0.0)
    log("joined", "Basel\njoined.\x1b[2J", {"party": "a\nb", "n": 3}, level="warning")
    assert json.loads(out.getvalue()) == {
        "time": "1970-01-01T00:00:00.000Z", "level": "warning", "event": "joined", "text": "Basel joined.?[2J",
        "party": "a b", "n": 3,
    }  # fmt: skip
    text = io.StringIO()
    Log("text", text)("joined", "Basel joined.", {"party": "Basel"}, level="error")
    assert text.getvalue()[8:] == "   error: Basel joined.\n"
    with pytest.raises(co.ConfigError, match="'log'"):
        Log("xml")


SECRETS = [
    ("postgresql+psycopg://hub:hidden@db/x", "postgresql+psycopg://hub:[hidden]@db/x"),
    (f"comity-{'hidden' * 10}", "[hidden]"),
    ("Authorization: Bearer hidden", "Authorization: Bearer [hidden]"),
    ("/login?once=hidden&x=1", "/login?once=[hidden]&x=1"),
    ('{"secret": "hidden"}', '{"secret": "[hidden]"}'),
    ("password=hidden host=db", "password=[hidden] host=db"),
]


@pytest.mark.parametrize(("text", "shown"), SECRETS)
def test_no_secret_is_written(text: str, shown: str) -> None:
    assert redacted(text) == shown
    out = io.StringIO()
    Log("json", out)("said", text, {"also": text})
    assert "hidden" not in out.getvalue().replace("[hidden]", "")


def test_what_libraries_say_is_a_line_too(capsys: pytest.CaptureFixture[str]) -> None:
    log, before = Log("json"), sys.stderr
    logger = logging.getLogger("uvicorn.error")
    kept = logger.handlers[:], logger.propagate
    with taken_over(log):
        try:
            raise ValueError("comity-" + "x" * 50)
        except ValueError:
            logger.exception("Exception in ASGI application\n")
        logger.info("nobody needs this")
        sys.stderr.write("executor   sequential: asked for\nhalf a ")
        sys.stderr.write("line\n")
    assert sys.stderr is before
    assert (logger.handlers[:], logger.propagate) == kept
    rows = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [row["text"] for row in rows] == [
        "Exception in ASGI application ValueError: [hidden]", "executor sequential: asked for", "half a line",
    ]  # fmt: skip


class Gone(io.StringIO):
    """A stream whose reader left."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_a_log_that_nobody_reads_stops_nothing() -> None:
    Log("text", Gone())("said", "x")
