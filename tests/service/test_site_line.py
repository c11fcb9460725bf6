"""A site's line: what answers in the hub's place, other versions, proxies, and how it is stopped."""

import gzip
import importlib
import json
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import comity as co
from comity.service.client import Client, Stopped, plain
from comity.service.offers import One, Taken
from comity.service.site import TakingPart, take_part

sys.path.append(str(Path(__file__).parent))
made = importlib.import_module("actors")


class Door(ThreadingHTTPServer):
    """Answers what it is told to, in order; the last again and again. A number is seconds of silence first."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answering)
        self.answers: list[Any] = []
        self.asked: list[tuple[str, Any]] = []
        self.done = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Answering(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: Door

    def do_GET(self) -> None:
        self.server.asked.append((self.path, dict(self.headers)))
        answers = self.server.answers
        silent, status, kind, body, *more = answers.pop(0) if len(answers) > 1 else answers[0]
        self.server.done.wait(silent)
        try:
            self.send_response(status)
            for name, value in {"content-type": kind, "content-length": str(len(body)), **dict(more)}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)
        except OSError:
            self.close_connection = True

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def door() -> Iterator[Door]:
    with Door() as one:
        thread = threading.Thread(target=one.serve_forever, args=(0.01,))
        thread.start()
        yield one
        one.done.set()
        one.shutdown()
        thread.join()


@pytest.fixture
def line(door: Door) -> Iterator[Client]:
    one = Client(door.url, "ada", made.secret("ada"), pause=0.05)
    yield one
    one.close()


GOOD = (0, 200, "application/json", b'{"run": "r"}')


def test_it_says_which_version_it_speaks(door, line):
    door.answers = [GOOD]
    assert line.ask("GET", "/v1/run").told == {"run": "r"}
    assert door.asked[0][1]["Comity-Protocol"] == "1"


def test_another_version_is_named(door, line):
    told = {"reason": "x", "hub": {"version": "9.9", "protocol": 7}}
    door.answers = [(0, 426, "application/json", json.dumps(told).encode())]
    with pytest.raises(
        co.ConfigError, match=rf"comity 9\.9, protocol 7; this site comity {co.__version__}, protocol 1"
    ):
        line.ask("GET", "/v1/run")


def test_a_captive_portal_is_not_read(door, line, capsys):
    page = (0, 200, "text/html; charset=utf-8", b'{"run": "<html>log in</html>"}')
    door.answers = [page, page, GOOD]
    assert line.ask("GET", "/v1/run").told == {"run": "r"}
    assert capsys.readouterr().err.count("must be the hub") == 1


def test_an_answer_that_is_packed_is_not_unpacked(door, line):
    bomb = gzip.compress(bytes(10_000_000))
    packed = (0, 200, "application/json", bomb, ("content-encoding", "gzip"))
    door.answers = [packed, GOOD]
    assert line.ask("GET", "/v1/run").told == {"run": "r"}
    assert {k.lower(): v for k, v in door.asked[0][1].items()}["accept-encoding"] == "identity"


def test_an_answer_without_end_is_not_read_to_its_end(door, line, monkeypatch):
    monkeypatch.setattr("comity.service.client.MOST", 1000)
    door.answers = [(0, 200, "application/json", b" " * 100_000), GOOD]
    assert line.ask("GET", "/v1/run").told == {"run": "r"}


def test_words_of_others_do_not_move_the_terminal():
    assert plain("no\x1b[2J\r\nmore é") == "no?[2J??more é"


def test_it_waits_as_long_as_the_hub_asks_for(door, line):
    door.answers = [(0, 503, "application/json", b"{}", ("retry-after", "1")), GOOD]
    begun = time.monotonic()
    line.ask("GET", "/v1/run")
    assert 1.0 <= time.monotonic() - begun < 3.0


def test_a_clock_that_is_wrong_is_corrected_once(door, line):
    def no(off: int) -> tuple[Any, ...]:
        return 0, 401, "application/json", json.dumps({"reason": "x", "now": int(time.time()) + off}).encode()

    door.answers = [no(86400), GOOD]
    assert line.ask("GET", "/v1/run").status == 200
    created = [int(headers["Signature-Input"].split("created=")[1].split(";")[0]) for _, headers in door.asked]
    assert 86300 < created[1] - created[0] < 86500
    door.answers = [no(600)]
    with pytest.raises(co.ConfigError, match=r"clock of this machine .* -\d+ s"):
        line.ask("GET", "/v1/run")


def test_a_proxy_that_refuses_is_named(door, monkeypatch):
    """By its address alone: a name and a password in the variable are not shown."""
    proxy = door.url.replace("http://", "http://me:secret@")
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    monkeypatch.setattr(Answering, "do_CONNECT", _refuse, raising=False)
    one = Client("https://hub.example:8443", "ada", made.secret("ada"), pause=0.05)
    with pytest.raises(co.ConfigError, match=r"proxy 127\.0\.0\.1:\d+ must let .* hub\.example, port 8443") as said:
        one.ask("GET", "/v1/run")
    one.close()
    assert "secret" not in str(said.value)


def _refuse(self: Any) -> None:
    self.send_response(403)
    self.send_header("content-length", "0")
    self.end_headers()
    self.close_connection = True


def test_another_thread_ends_a_poll(door, line):
    door.answers = [(20, *GOOD[1:])]
    ended: list[float] = []

    def ask() -> None:
        with pytest.raises(Stopped), line.stoppable():
            line.ask("GET", "/v1/run?wait=25", wait=25)
        ended.append(time.monotonic())

    thread = threading.Thread(target=ask)
    thread.start()
    time.sleep(0.3)
    begun = time.monotonic()
    line.stop.set()
    thread.join(10)
    assert ended[0] - begun < 1.0


def test_another_thread_ends_a_site(door, tmp_path):
    """And its folder is free again."""
    door.answers = [(20, *GOOD[1:])]
    for _ in range(2):
        stop = threading.Event()
        thread = threading.Thread(target=_site, args=(door.url, tmp_path, stop))
        thread.start()
        time.sleep(0.2)
        assert thread.is_alive()
        stop.set()
        thread.join(5)
        assert not thread.is_alive()
    assert not [t for t in threading.enumerate() if t.name == "comity stop"]


def _site(url: str, folder: Path, stop: threading.Event) -> None:
    agenda, to = One(Taken(made.fedavg(), made.trainer("ada"))), made.pinned(url, "ada")
    take_part(agenda, to, identity=made.secret("ada"), folder=folder, stop=stop)


def test_what_is_no_offer_is_refused(door, tmp_path):
    fed = made.fedavg()
    for told in ({"run": "../x"}, {"run": ""}, {"run": 1}, {"run": "r", "recipe": "x"}, {"run": "r", "minimum": "2"}):
        door.answers = [(0, 200, "application/json", json.dumps(told).encode())]
        one = TakingPart(
            One(Taken(fed, made.trainer("ada"))), made.pinned(door.url, "ada"), made.secret("ada"), tmp_path
        )
        with pytest.raises(co.ConfigError, match="must offer a run"):
            one.run()


def test_an_agenda_passes_over_what_is_not_its_own(door, tmp_path):
    recipe = co.recipe(made.fedavg())
    offers = [json.dumps({"run": run, "recipe": recipe}).encode() for run in ("r1", "r2")]
    door.answers = [(0, 200, "application/json", body) for body in offers]

    class Choosy:
        stay = False
        seen: list[str] = []

        def find(self, offer: Any) -> Any:
            self.seen.append(offer.run)
            if offer.run == "r2":
                raise co.ConfigError("enough")

    with pytest.raises(co.ConfigError, match="enough"):
        take_part(Choosy(), made.pinned(door.url, "ada"), identity=made.secret("ada"), folder=tmp_path)
    assert Choosy.seen == ["r1", "r2"]
    assert [path.partition("&")[2] for path, _ in door.asked] == ["", "after=r1"]
