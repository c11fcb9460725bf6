"""A site's line to its hub: it only dials out, signs every request, and asks again until it is answered."""

import json
import math
import random
import secrets
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from urllib.request import getproxies

from comity import __version__
from comity.core.errors import ChannelError, ConfigError
from comity.core.parts import Secret
from comity.ledger import folder as files
from comity.service.enrolling import PROTOCOL
from comity.service.hub import TYPE
from comity.service.keys import trusting
from comity.service.signatures import Request, named_digest, sign

CHUNK, LEAST = 2**22, 2**16
"""Bytes of a chunk at first and at least: it is halved where a proxy refuses it."""
MOST = 2**26
"""Bytes of an answer at most, but for bodies that are fetched by their sha256."""
MOST_WAIT = 300
"""Seconds that a hub may ask for, at most."""
VERSION = "Comity-Protocol"
"""The header that says which version of the protocol is spoken."""
HELD = 1.0
"""Seconds after which a line that is cut was a good one: the next try is as the first."""
AGAIN = (408, 425, 429, 500, 502, 503, 504, 507)
"""Statuses after which the same is asked again."""


class Stopped(Exception):
    """Somebody said stop."""


class Whole(NamedTuple):
    """A body whose Content-Digest is known."""

    data: bytes
    digest: str


class Answer(NamedTuple):
    """What the hub said; where it cannot now, after how many seconds to ask again."""

    status: int
    body: bytes
    after: float = 0.0

    @property
    def told(self) -> Mapping[str, Any]:
        """Its JSON; nothing where there is none."""
        try:
            said = json.loads(self.body)
        except ValueError:
            return {}
        return said if isinstance(said, Mapping) else {}


@dataclass
class Client:
    """Speaks for one party.

    Attributes:
        url: of the hub.
        name: of the party.
        secret: its identity.
        certificate: PEM of the hub's, or of who vouches for it; "" for those that the system trusts.
        pause: seconds between tries, at most.
        silence: seconds without a byte after which a line is given up.
        stop: ends every waiting.
        chunk: bytes that are sent at once, where the whole is not taken.
        whole: is a body sent whole first?
    """

    url: str
    name: str
    secret: Secret = field(repr=False)
    certificate: str = field(default="", repr=False)
    pause: float = 30.0
    silence: float = 30.0
    stop: threading.Event = field(default_factory=threading.Event, repr=False)
    chunk: int = CHUNK
    whole: bool = True
    _clock: float = 0.0
    _noted: set[str] = field(default_factory=set, repr=False)
    _sockets: deque[socket.socket] | None = field(default=None, repr=False)
    _http: Any = field(default=None, repr=False)

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | Whole = b"",
        *,
        headers: Mapping[str, str] | None = None,
        wait: float = 0.0,
        patience: float = math.inf,
    ) -> Answer:
        """Ask until there is an answer; after so many seconds of `patience` that is one with status 503.

        Raises:
            ConfigError: the hub does not know this party, or its certificate is not trusted.
            Stopped: `stop` was set.
        """
        tries, skewed, ends = 0, False, time.monotonic() + patience
        while True:
            if self.stop.is_set():
                raise Stopped
            began = time.monotonic()
            try:
                got = self._once(method, path, body, headers or {}, wait)
            except self._httpx.TransportError as error:
                self._check(error)
                got = None
                if time.monotonic() - began > HELD and not isinstance(error, self._httpx.ConnectTimeout):
                    tries = 0
            if got is not None and got.status == 401 and got.told.get("again") is not True:
                self._corrected(got, skewed)
                skewed = True
                continue
            if got is not None and got.status == 426:
                raise ConfigError(_versions(got.told))
            if got is not None and (got.status not in (*AGAIN, 401) and not 300 <= got.status < 400):
                return got
            if time.monotonic() >= ends:
                return Answer(503, b"")
            tries += 1
            self._rest(tries, 0.0 if got is None else got.after)

    def _corrected(self, got: Answer, before: bool) -> None:
        """Take the hub's time, once; whoever is refused otherwise is not known."""
        now = got.told.get("now")
        if not isinstance(now, int):
            raise ConfigError(f"The hub must know '{self.name}' by its key. It refused. Ask its operator.")
        if before:
            raise ConfigError(
                f"The clock of this machine must be right. It is {time.time() - now:+.0f} s from the hub's. Set it."
            )
        self._clock = now - time.time()

    def fetch(self, sha: str, size: int, folder: Path) -> files.Data:
        """A body by its sha256; what was fetched before a cut is not fetched again.

        Raises:
            ChannelError: the hub gives something else, or nothing.
        """
        part = folder / f"{sha}.part"
        there = part.read_bytes() if part.exists() else b""
        have, hashed = len(there), sha256(there)
        while have < size:
            have = self._more(sha, have, size, part, hashed)
        data = files.mapped(part)
        part.unlink()
        if len(data) == size and hashed.hexdigest() == sha:
            return data
        raise ChannelError("What the hub gives must be what it named. It is not. It is asked for again.")

    def _more(self, sha: str, have: int, size: int, part: Path, hashed: Any) -> int:
        """How many bytes there are then; those that came are hashed."""
        tries = 0
        headers = {"Range": f"bytes={have}-"} if have else {}
        while not self.stop.is_set():
            at = have
            try:
                with self._stream("GET", f"/v1/blob/{sha}", headers) as given:
                    if given.status_code == (206 if have else 200):
                        with part.open("ab" if have else "wb") as f:
                            for piece in given.iter_raw():  # as it comes: whole pieces are lost where a line is cut
                                at += len(piece)
                                if at > size:
                                    raise ChannelError("The hub must give as many bytes as it named. Got more.")
                                f.write(piece)
                                hashed.update(piece)
                        return at
                    if given.status_code not in AGAIN:
                        raise ChannelError("A body that is asked about must be there. It is not. Ask again.")
            except self._httpx.TransportError:
                if at > have:
                    return at
            tries += 1
            self._rest(tries)
        raise Stopped

    def send(self, sha: str, data: bytes) -> None:
        """An upload, from where an earlier one was cut.

        Raises:
            ChannelError: the hub does not take it, and why.
        """
        path, total = f"/v1/upload/{sha}", {"Upload-Length": str(len(data))}
        at, tries = self._there(path), 0
        if not at and self.whole:
            told = {"Upload-Offset": "0", **total}
            got = self.ask("PUT", path, Whole(data, named_digest(sha)), headers=told, patience=0.0)
            if got.status == 201:
                return
            self.whole = got.status != 413  # what is before the hub takes no more at once
            at = self._there(path)
        while True:
            piece = data[at : at + self.chunk]
            got = self.ask("PUT", path, piece, headers={"Upload-Offset": str(at), **total})
            if got.status == 201:
                return
            if got.status == 204:
                at += len(piece)
            elif got.status in (409, 422) and "offset" in got.told:
                at, tries = int(got.told["offset"]), tries + 1
                self._rest(tries)
            elif got.status == 413 and self.chunk > LEAST and got.told.get("most") is None:
                self.chunk //= 2
            else:
                raise ChannelError(f"The hub must take the answer. It said: {got.told.get('reason', got.status)}")

    def _there(self, path: str) -> int:
        """How many bytes of an upload are at the hub."""
        return int(self.ask("GET", path).told.get("offset", 0))

    @contextmanager
    def stoppable(self) -> Iterator[None]:
        """While this lasts, `stop` also ends a poll that is open: other threads may set it."""
        done = threading.Event()
        guard = threading.Thread(target=self._guard, args=(done,), name="comity stop", daemon=True)
        self._sockets = deque(maxlen=4)
        guard.start()
        try:
            yield
        finally:
            done.set()
            guard.join()
            self._sockets = None

    def _guard(self, done: threading.Event) -> None:
        while not done.is_set():
            if self.stop.wait(0.1):
                for line in tuple(self._sockets or ()):
                    with suppress(OSError):
                        socket.socket.shutdown(line, socket.SHUT_RDWR)
                done.wait(0.1)

    def _trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Remember the sockets that were opened."""
        if event in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            line = info["return_value"].get_extra_info("socket")
            if self._sockets is not None and isinstance(line, socket.socket):
                self._sockets.append(line)

    def close(self) -> None:
        """Hang up."""
        if self._http is not None:
            self._http.close()
        self._http = None

    @property
    def _httpx(self) -> Any:
        try:
            import httpx
        except ImportError:
            raise ConfigError("httpx must be installed to join a hub. Run: pip install comity[service].") from None
        return httpx

    @property
    def _line(self) -> Any:
        if self._http is None:
            trust = trusting(self.certificate) if self.url.startswith("https:") else False
            headers = {"accept": TYPE, "accept-encoding": "identity"}
            self._http = self._httpx.Client(verify=trust, timeout=self.silence, headers=headers)
        return self._http

    def _signed(self, method: str, path: str, body: bytes | Whole, headers: Mapping[str, str]) -> dict[str, str]:
        said = {**headers, VERSION: str(PROTOCOL)}
        data, digest = body if isinstance(body, Whole) else (body, "")
        asked = Request(method, self.url + path, said, data, digest)
        made = int(time.time() + self._clock)
        signed = sign(asked, self.secret, keyid=self.name, created=made, nonce=secrets.token_urlsafe(18))
        return {**said, **signed}

    def _once(self, method: str, path: str, body: bytes | Whole, headers: Mapping[str, str], wait: float) -> Answer:
        signed = self._signed(method, path, body, headers)
        data = body.data if isinstance(body, Whole) else body
        with self._line.stream(
            method, self.url + path, content=data or None, headers=signed, timeout=self.silence + wait,
            extensions=self._traced,
        ) as given:  # fmt: skip
            said = _bounded(given)
        if said is None or (given.status_code == 200 and not _is_ours(given.headers)):
            self._note(
                f"What answers at {self.url} must be the hub. It is something else (a page to log in, a proxy?). "
                "It is not read; asking goes on."
            )
            return Answer(503, b"")
        return Answer(given.status_code, said, _seconds(given.headers.get("retry-after", "")))

    def _stream(self, method: str, path: str, headers: Mapping[str, str]) -> Any:
        signed = self._signed(method, path, b"", headers)
        return self._line.stream(method, self.url + path, headers=signed, extensions=self._traced)

    @property
    def _traced(self) -> dict[str, Any]:
        return {} if self._sockets is None else {"trace": self._trace}

    def _check(self, error: Exception) -> None:
        """A certificate that is not trusted does not come right by itself, nor does a proxy that refuses."""
        if isinstance(error, self._httpx.ProxyError) and str(error)[:3] in ("403", "407"):
            place = urlsplit(self.url)
            port = place.port or (443 if place.scheme == "https" else 80)
            raise ConfigError(
                f"The proxy {_proxy(place.scheme)} must let this site through to {place.hostname}, port {port}. It "
                f"refused: {str(error)[:60]}. Ask who runs it, or name the hub in NO_PROXY."
            ) from None
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise ConfigError(
                f"The certificate of {self.url} must be trusted. It is not. Join it again, or ask its operator."
            ) from None

    def _rest(self, tries: int, least: float = 0.0) -> None:
        """Longer each time, and never all at once; as long as the hub asks for."""
        longest = min(self.pause, 0.05 * 2 ** min(tries, 16))
        if self.stop.wait(max(least, longest * random.uniform(0.5, 1.0))):
            raise Stopped

    def _note(self, text: str) -> None:
        """Say it once."""
        if text not in self._noted:
            self._noted.add(text)
            sys.stderr.write(f"{self.name}: {plain(text)}\n")


def plain(text: str) -> str:
    """What others said, without what a terminal would obey."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _bounded(given: Any) -> bytes | None:
    """The bytes of an answer; None where they are packed, though nobody asked for that, or too many."""
    if given.headers.get("content-encoding", "identity") != "identity":
        return None
    pieces, size = [], 0
    for piece in given.iter_raw():
        pieces.append(piece)
        size += len(piece)
        if size > MOST:
            return None
    return b"".join(pieces)


def _is_ours(headers: Mapping[str, str]) -> bool:
    """Is it a hub that answers?"""
    return headers.get("content-type", "").split(";")[0].strip() in (TYPE, "application/json")


def _seconds(said: str) -> float:
    return float(min(int(said), MOST_WAIT)) if said.isascii() and said.isdecimal() and len(said) < 6 else 0.0


def _proxy(scheme: str) -> str:
    """The proxy of the environment, without a name or a password."""
    parts = urlsplit(getproxies().get(scheme) or getproxies().get("all") or "")
    return f"{parts.hostname}:{parts.port}" if parts.hostname else "of this network"


def _versions(told: Mapping[str, Any]) -> str:
    hub = told.get("hub")
    theirs = hub if isinstance(hub, Mapping) else {}
    return (
        f"Hub and site must speak one version of the protocol. The hub has comity {theirs.get('version')!s:.20}, "
        f"protocol {theirs.get('protocol')!s:.20}; this site comity {__version__}, protocol {PROTOCOL}. "
        "Update the older."
    )
