"""Joining over TLS: the hub is known before the token is sent, lost answers do no harm, keys are changed."""

import json
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

import comity as co
from comity.ledger.keys import SideSecret
from comity.service import joining
from comity.service.enrolling import ENROL, HELLO, ROTATE, answer_enrol, answer_hello, answer_rotate, heard, said
from comity.service.keys import make_identity, read_identity
from comity.service.registry import Registry
from comity.service.settings import HubSettings
from comity.service.signatures import Request, sign


class Door(BaseHTTPRequestHandler):
    """The three routes, without a framework."""

    protocol_version = "HTTP/1.0"

    def do_GET(self) -> None:
        hub: Any = self.server
        asked = parse_qs(urlsplit(self.path).query).get("challenge", [""])[0]
        self._say(answer_hello("Registry", hub.secret, asked, hub.clock()))

    def do_POST(self) -> None:
        hub: Any = self.server
        body = self.rfile.read(int(self.headers["content-length"]))
        hub.came.append((self.path, body))
        request = Request("POST", hub.url + self.path, list(self.headers.items()), body)
        if self.path == ROTATE:
            answer = answer_rotate(body, hub.registry, hub.secret)
        else:
            answer = answer_enrol(request, hub.registry, hub.secret, hub.clock())
        if hub.lose:
            hub.lose -= 1
            return
        self._say(hub.instead or answer)

    def _say(self, answer: tuple[int, bytes]) -> None:
        self.send_response(answer[0])
        self.end_headers()
        self.wfile.write(answer[1])

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> HubSettings:
    return HubSettings.make(tmp_path_factory.mktemp("hub"), name="Registry", host="localhost", port=1)


@pytest.fixture
def hub(place: HubSettings, tmp_path: Path) -> Iterator[Any]:
    """A hub behind TLS, with what came in, and ways to go wrong."""
    with Registry.open(tmp_path / "db") as registry, ThreadingHTTPServer(("127.0.0.1", 0), Door) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(str(place.certificate), str(place.certificate_key))
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        facts = {"registry": registry, "secret": place.secret(), "came": [], "lose": 0, "instead": None}
        facts |= {"clock": registry._clock, "url": f"https://localhost:{server.server_address[1]}"}
        server.__dict__.update(facts)
        running = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        running.start()
        try:
            yield server
        finally:
            server.shutdown()
            running.join(30)


def token_of(hub: Any, place: HubSettings, name: str = "ada", **more: Any) -> str:
    key = more.pop("key", hub.secret.public_key())
    return str(hub.registry.invite(name, key, certificate=place.certificate_der(), **more))


def test_a_party_joins_and_waits(hub: Any, place: HubSettings, tmp_path: Path) -> None:
    token = token_of(hub, place, "Klinik Köln")
    came = joining.join(hub.url + "/", token, tmp_path / "ada.key")
    assert (came.status, came.pinned.hub, came.pinned.name) == ("waiting", "Registry", "Klinik Köln")
    assert came.pinned.key == place.secret().public_key()
    assert joining.Pinned.read(tmp_path / "ada.key") == came.pinned
    assert (tmp_path / "ada.key.hub").stat().st_mode & 0o777 == 0o600
    assert hub.registry.party("Klinik Köln").key == read_identity(tmp_path / "ada.key").public_key()
    hub.registry.approve("Klinik Köln")
    assert joining.join(hub.url, token, tmp_path / "ada.key").status == "approved"  # again
    with pytest.raises(joining.JoinRefused, match="new token"):
        joining.join(hub.url, token, tmp_path / "mallory.key")


def test_an_answer_that_was_lost_is_asked_for_again(hub: Any, place: HubSettings, tmp_path: Path) -> None:
    token, hub.lose = token_of(hub, place), 1
    with pytest.raises(joining.JoinRefused, match="run the same again"):
        joining.join(hub.url, token, tmp_path / "ada.key")
    assert not (tmp_path / "ada.key.hub").exists()
    assert joining.join(hub.url, token, tmp_path / "ada.key").status == "waiting"


def test_another_hub_never_sees_the_token(hub: Any, place: HubSettings, tmp_path: Path) -> None:
    other = token_of(hub, place, key=SideSecret(b"o" * 32).public_key())
    with pytest.raises(joining.JoinRefused, match="was not sent"):
        joining.join(hub.url, other, tmp_path / "ada.key")
    elsewhere = HubSettings.make(tmp_path / "other", name="other", host="localhost", port=1)
    with pytest.raises(joining.JoinRefused, match="was not sent"):
        joining.join(hub.url, token_of(hub, elsewhere), tmp_path / "ada.key")
    with pytest.raises(joining.JoinRefused, match="was not sent"):
        joining.join(hub.url, token_of(hub, place), tmp_path / "ada.key", certificate=elsewhere.certificate)
    with pytest.raises(joining.JoinRefused, match="must be there"):  # the certificate is for other names
        joining.join(hub.url.replace("localhost", "localhost.localdomain"), token_of(hub, place), tmp_path / "k")
    assert hub.came == []


def test_a_clock_that_is_wrong_is_said(hub: Any, place: HubSettings, tmp_path: Path) -> None:
    now, hub.clock = hub.clock, lambda: now() + 600
    with pytest.raises(joining.JoinRefused, match="-600 s"):
        joining.join(hub.url, token_of(hub, place), tmp_path / "ada.key")
    assert hub.came == []


@pytest.mark.parametrize(
    "instead",
    [(200, b"<html>Please log in</html>"), (200, b"{}"), (200, b"[" * 10**5), (302, b""), (500, b""), (401, b"{}")],
)
def test_what_else_may_answer_is_refused(hub: Any, place: HubSettings, tmp_path: Path, instead: Any) -> None:
    hub.instead = instead
    with pytest.raises(co.ComityError):
        joining.join(hub.url, token_of(hub, place), tmp_path / "ada.key")
    assert not (tmp_path / "ada.key.hub").exists()


def test_an_answer_of_another_hub_or_for_another_is_refused(hub: Any, place: HubSettings, tmp_path: Path) -> None:
    rows = {"name": "ada", "status": "approved", "key": make_identity(tmp_path / "ada.key").public_key().hex()}
    for instead in (said(SideSecret(b"o" * 32), rows), said(hub.secret, rows | {"name": "bob"})):
        hub.instead = (200, instead)
        with pytest.raises(co.ComityError):
            joining.join(hub.url, token_of(hub, place), tmp_path / "ada.key")


@pytest.mark.parametrize(
    "url", ["", "hub", "ftp://h", "http://hub.example", "https://h/path", "https://u:p@h", "https://h:0", "https://["]
)
def test_a_url_that_is_none_is_refused(tmp_path: Path, hub: Any, place: HubSettings, url: str) -> None:
    with pytest.raises(co.ConfigError):
        joining.join(url, token_of(hub, place), tmp_path / "ada.key")
    assert not (tmp_path / "ada.key").exists()


def test_a_key_is_changed_though_answers_are_lost(hub: Any, place: HubSettings, tmp_path: Path) -> None:
    file = tmp_path / "ada.key"
    joining.join(hub.url, token_of(hub, place), file)
    hub.registry.approve("ada")
    old, hub.lose = file.read_bytes(), 1
    with pytest.raises(joining.JoinRefused):
        joining.rotate(file)
    assert file.read_bytes() == old
    shown = joining.rotate(file)
    assert file.read_bytes() != old
    assert hub.registry.key_of("ada") == read_identity(file).public_key()
    assert [row[1] for row in hub.registry.audit()].count("rotated") == 1
    assert joining.rotate(file) != shown
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == ["ada.key", "ada.key.hub"]


def test_strangers_get_a_short_text_and_no_more(hub: Any, place: HubSettings) -> None:
    ada, registry = SideSecret(b"a" * 32), hub.registry
    good = {"secret": "00" * 32, "key": ada.public_key().hex()}
    bodies: list[Any] = [b"", b"[]", b"{", b"\xff", b"[" * 3000, good | {"more": "1"}, good | {"key": "zz"}, good]
    bodies += [good | {"secret": 3}, good | {"key": "00" * 33}, b" " * 5000]
    for body in (x if isinstance(x, bytes) else json.dumps(x).encode() for x in bodies):
        asked = Request("POST", hub.url + ENROL, {}, body)
        headers = sign(asked, ada, keyid="ada", created=int(hub.clock()), nonce="0" * 16)
        for request in (asked, Request("POST", asked.url, headers, body)):
            status, answer = answer_enrol(request, registry, hub.secret, hub.clock())
            assert status in (400, 401)
            assert len(answer) < 150
        assert answer_rotate(body, registry, hub.secret)[0] == 400
    unsigned = {"name": "a"} | dict.fromkeys(("old", "new", "by_old", "by_new"), "00" * 32)
    assert answer_rotate(json.dumps(unsigned).encode(), registry, hub.secret)[0] == 401
    for challenge in ("", "zz", "00" * 65, "00" * 15, "AB" * 16):
        assert answer_hello("Registry", hub.secret, challenge, 0.0)[0] == 400
    assert registry.parties() == []
    assert HELLO == "/v1/hub"


def test_what_a_hub_says_is_held_against_its_key() -> None:
    hub, other = SideSecret(b"h" * 32), SideSecret(b"o" * 32)
    told = said(hub, {"status": "approved"})
    assert heard(told, hub.public_key()) == {"status": "approved"}
    for body, key in ((told, other.public_key()), (told.replace(b"approved", b"removed!"), hub.public_key())):
        with pytest.raises(co.ConfigError, match="signed by the hub"):
            heard(body, key)
    with pytest.raises(co.ConfigError):
        heard(told)
