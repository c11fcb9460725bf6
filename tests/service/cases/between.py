"""Somebody between sites and hub who reads HTTP: proxies that fail, portals, inspectors of TLS."""

import http.client
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Came(NamedTuple):
    """A request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Give(NamedTuple):
    """An answer of its own, not the hub's."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


class Cut(NamedTuple):
    """The hub's answer, of whose body so many bytes arrive; -1 for nothing at all, not even a status."""

    after: int = -1


class Changed(NamedTuple):
    """The hub's answer, its body changed."""

    by: Callable[[bytes], bytes]


Rule = Callable[[Came], Give | Cut | Changed | None]
"""What is done with a request: None passes it on."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _any(self) -> None:
        between: Between = self.server.between  # type: ignore[attr-defined]
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        came = Came(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body)
        with between.lock:
            between.came.append(came)
            what = between.rule(came)
        if isinstance(what, Give):
            self._give(what)
            return
        status, headers, data = between.forward(came)
        if isinstance(what, Cut) and what.after < 0:
            self.close_connection = True
            return
        if isinstance(what, Changed):
            data = what.by(data)
        self._give(Give(status, data, headers), what.after if isinstance(what, Cut) else None)

    def _give(self, what: Give, after: int | None = None) -> None:
        self.send_response(what.status)
        for name, value in what.headers:
            self.send_header(name, value)
        if what.status != 204:
            self.send_header("content-length", str(len(what.body)))
        self.end_headers()
        self.wfile.write(what.body[:after])
        self.close_connection = self.close_connection or after is not None

    do_GET = do_POST = do_PUT = do_HEAD = _any  # noqa: N815

    def log_message(self, *_: object) -> None: ...


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Who hangs up is no error here."""


@dataclass
class Between:
    """A middle box: it takes requests, and passes them on to "host:port" as the rule says.

    Attributes:
        to: where the hub is; "" until it is known.
        rule: what happens to each request.
        tls: of its own door; None for plain HTTP.
        trust: TLS towards the hub; None for plain HTTP.
        came: all requests.
    """

    to: str = ""
    rule: Rule = lambda came: None
    tls: ssl.SSLContext | None = None
    trust: ssl.SSLContext | None = None
    came: list[Came] = field(default_factory=list)
    lock: Any = field(default_factory=threading.Lock)

    def __enter__(self) -> "Between":
        self.server = _Server(("127.0.0.1", 0), _Handler)
        self.server.between = self  # type: ignore[attr-defined]
        if self.tls is not None:
            self.server.socket = self.tls.wrap_socket(
                self.server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.thread.join(10)
        self.server.server_close()

    @property
    def url(self) -> str:
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self.server.server_address[1]}"

    def paths(self) -> list[str]:
        with self.lock:
            return [f"{came.method} {came.path.split('?')[0]}" for came in self.came]

    def forward(self, came: Came) -> tuple[int, tuple[tuple[str, str], ...], bytes]:
        if self.trust is None:
            line = http.client.HTTPConnection(self.to, timeout=40)
        else:
            line = http.client.HTTPSConnection(self.to, timeout=40, context=self.trust)
        try:
            line.putrequest(came.method, came.path, skip_host=True, skip_accept_encoding=True)
            for name, value in came.headers.items():
                if name != "connection":
                    line.putheader(name, value)
            line.endheaders(came.body)
            got = line.getresponse()
            kept = [(k, v) for k, v in got.getheaders() if k.lower() not in ("content-length", "connection", "date")]
            return got.status, tuple(kept), got.read()
        except OSError:
            return 502, (), b"<html>Bad Gateway</html>"
        finally:
            line.close()
