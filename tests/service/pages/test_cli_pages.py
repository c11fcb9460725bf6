"""The commands that let somebody see a hub's pages."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scene import Scene

from comity.ledger.blobs import Blobs
from comity.service.hub import Hub
from comity.service.joining import join
from comity.service.pages import pages
from comity.service.pages.sessions import Sessions
from comity.service.registry import Registry
from comity.service.serving import Served
from comity.service.settings import HubSettings


def test_an_operator_gets_a_link_and_is_logged_out(run: Any, tmp_path: Path) -> None:
    hub = tmp_path / "hub"
    HubSettings.make(hub, name="Example", host="hub.example", port=8443)
    got = run("hub", "login", hub, "A. Keller")
    url = got.out.strip()
    assert (got.code, url.startswith("https://hub.example:8443/login/")) == (0, True), got
    assert "once" in got.err
    with Registry.open(hub) as registry:
        sessions = Sessions(registry)
        cookie = sessions.redeem(url.rpartition("/")[2])
        assert cookie
        who = sessions.find(cookie)
        assert who
        assert (who.name, who.role) == ("A. Keller", "operator")
        assert "1 session or link ended" in run("hub", "logout", hub, "A. Keller").out
        assert sessions.find(cookie) is None
    got = run("hub", "login", hub, "Basel", "--role", "party")
    assert (got.code, "approved" in got.err, got.out) == (2, True, "")
    got = run("hub", "login", hub, "Basel", "--role", "king")
    assert (got.code, got.out) == (2, "")


@pytest.fixture
def served(scene: Scene) -> Iterator[str]:
    """The hub on a port of this machine."""
    hub = Hub(scene.registry.db, Blobs(scene.folder / "hub"), scene.identity, doors=scene.registry, most=1 << 20)
    scene.url = ""
    server = Served(hub, "127.0.0.1:0", (), pages(scene))
    yield server.at
    server.close()
    hub.close()


def test_a_party_gets_a_link_by_its_key(scene: Scene, served: str, run: Any, tmp_path: Path) -> None:
    key = tmp_path / "geneva.key"
    join(served, scene.registry.invite("Geneva", scene.identity.public_key()), key)
    got = run("page", "--identity", key)
    assert (got.code, got.out) == (2, ""), got
    scene.registry.approve("Geneva")
    got = run("page", "--identity", key)
    assert (got.code, got.out.startswith(f"{served}/login/")) == (0, True), got
    who = scene.sessions.offered(got.out.strip().rpartition("/")[2])
    assert who is not None
    assert (who.name, who.role) == ("Geneva", "party")
