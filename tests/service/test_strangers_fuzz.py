"""A hub whose every route is tried from its own description, by strangers and by a party: no 5xx, nothing written."""

import importlib
import json
import secrets
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import hypothesis
import pytest

from comity.core.errors import ConfigError
from comity.service import openapi
from comity.service.client import Client
from comity.service.hub import app
from comity.service.invitations import Invitation
from comity.service.registry import Registry
from comity.service.signatures import Request, sign

schemathesis = pytest.importorskip("schemathesis")
sys.path.append(str(Path(__file__).parent))
made = importlib.import_module("actors")


@schemathesis.serializer("application/x-comity")
def packet(context: Any, value: Any) -> bytes:
    """Bytes as they are; anything else is as good as noise."""
    return value if isinstance(value, bytes) else repr(value).encode()


class Tried:
    """A hub with a registry, in whose run ada takes part, and its rows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.registry = Registry.open(folder / "hub")
        for name in made.NAMES:
            token = self.registry.invite(name, made.HUB.public_key())
            self.registry.enrol(Invitation.read(token).secret, name, made.KEYS[name])
            self.registry.approve(name)
        urls: list[str] = []
        network = importlib.import_module("comity.service.network").Network
        settings = {"identity": made.HUB, "parties": self.registry, "tell": urls.append, "linger": 0.0, "most": 2**22}
        self.engine = network("127.0.0.1:0", folder / "hub", **settings).connect([], None)
        asking = importlib.import_module("asking")
        self.engine.begin(asking.BASE, {"hash": asking.RECIPE})
        self.url = urls[0]

    def rows(self) -> dict[str, list[Any]]:
        """All rows of all tables, but who was heard when."""
        db = sqlite3.connect(self.folder / "hub" / "hub.db")
        try:
            names = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            found = {name: sorted(map(repr, db.execute(f'SELECT * FROM "{name}"'))) for name in names}
        finally:
            db.close()
        return found

    def files(self) -> set[str]:
        return {str(p) for p in (self.folder / "hub").rglob("*") if p.is_file() and "hub.db" not in p.name}

    def close(self) -> None:
        self.engine.close()
        self.registry.close()


@pytest.fixture(scope="module")
def tried(tmp_path_factory: Any) -> Iterator[Tried]:
    hub = Tried(tmp_path_factory.mktemp("fuzz"))
    yield hub
    hub.close()


def sent(hub: Tried, case: Any, headers: dict[str, str]) -> httpx.Response | None:
    """What the hub says to a case; None where it is no request that HTTP could carry."""
    said = case.as_transport_kwargs(base_url=hub.url)
    params = {k: v for k, v in (said.get("params") or {}).items() if k != "wait"} | {"wait": "0"}
    body = said.get("data")
    if said.get("json") is not None:
        body = json.dumps(said["json"]).encode()
    try:
        request = httpx.Request(said["method"], said["url"], params=params, content=body, headers=said["headers"])
        data = request.read()
    except (httpx.InvalidURL, ValueError, TypeError, UnicodeError):
        return None
    if headers:
        asked = Request(request.method, str(request.url), dict(request.headers), data)
        try:
            own = sign(
                asked, made.secret("ada"), keyid="ada", created=int(time.time()), nonce=secrets.token_urlsafe(18)
            )
        except ConfigError:
            return None
        request.headers.update(own)
    with httpx.Client(trust_env=False, timeout=20.0) as line:
        try:
            return line.send(request)
        except (httpx.LocalProtocolError, UnicodeError, httpx.UnsupportedProtocol):
            return None


def operations() -> list[Any]:
    schema = schemathesis.openapi.from_dict(openapi.description())
    return [found.ok() for found in schema.get_all_operations()]


def tries(hub: Tried, operation: Any, examples: int, signed: bool) -> list[int]:
    """Each example that was made of an operation, sent; gives the statuses."""
    statuses: list[int] = []

    @hypothesis.settings(
        max_examples=examples, deadline=None, database=None, derandomize=True, phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )  # fmt: skip
    @hypothesis.given(case=operation.as_strategy())
    def one(case: Any) -> None:
        got = sent(hub, case, {"signed": "yes"} if signed else {})
        if got is None:
            return
        statuses.append(got.status_code)
        assert got.status_code < 500, (operation.label, got.status_code, got.content[:300])
        assert len(got.content) < 2000 or got.request.url.path == openapi.PATH
        if got.status_code >= 400 and got.request.url.path.startswith("/v1/") and got.status_code not in (404, 405):
            assert set(got.json()) & {"reason", "error"}
        if not signed and operation.path not in FREE:
            assert got.status_code in (400, 401, 404, 405, 413), (operation.label, got.status_code)

    one()
    return statuses


FREE = ("/v1/health", openapi.PATH, "/v1/hub", "/v1/enrol", "/v1/rotate")


@pytest.mark.parametrize("examples", [6, pytest.param(200, marks=pytest.mark.slow)])
@pytest.mark.parametrize("operation", operations(), ids=lambda o: o.label)
def test_strangers_write_nothing(operation: Any, examples: int, tried: Tried) -> None:
    before, files = tried.rows(), tried.files()
    assert tries(tried, operation, examples, signed=False)
    assert tried.rows() == before
    assert tried.files() == files


@pytest.mark.parametrize("examples", [6, pytest.param(200, marks=pytest.mark.slow)])
@pytest.mark.parametrize("operation", operations(), ids=lambda o: o.label)
def test_a_party_cannot_make_it_fail(operation: Any, examples: int, tried: Tried) -> None:
    assert tries(tried, operation, examples, signed=True)


def test_the_description_is_that_of_what_is_served(tried: Tried) -> None:
    """Every route is described, and every description is of a route."""
    hub = tried.engine.post._hub
    inner = app(hub).inner
    served = {(route.path, verb) for route in inner.routes for verb in route.methods - {"HEAD"}}
    said = {(path, verb.upper()) for path, verbs in openapi.description()["paths"].items() for verb in verbs}
    assert said == served


def test_it_is_served_to_everybody(tried: Tried) -> None:
    got = httpx.get(tried.url + openapi.PATH, trust_env=False)
    assert (got.status_code, got.json()) == (200, openapi.description())
    line = Client(tried.url, "ada", made.secret("ada"))
    assert line.ask("GET", openapi.PATH).told == openapi.description()
    line.close()
