"""A site's line to its hub: it only dials out, signs every request, and asks again until it is answered."""

import json
import random
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from comity.core.errors import ChannelError, ConfigError
from comity.core.parts import Secret
from comity.service.hub import TYPE
from comity.service.keys import trusting
from comity.service.signatures import Request, sign

CHUNK, LEAST = 2**22, 2**16
"""Bytes of a chunk at first and at least: it is halved where a proxy refuses it."""
AGAIN = (408, 425, 429, 500, 502, 503, 504, 507)
"""Statuses after which the same is asked again."""


class Stopped(Exception):
    """Somebody said stop."""


class Answer(NamedTuple):
    """What the hub said."""

    status: int
    body: bytes

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
    """

    url: str
    name: str
    secret: Secret = field(repr=False)
    certificate: str = field(default="", repr=False)
    pause: float = 30.0
    silence: float = 30.0
    stop: threading.Event = field(default_factory=threading.Event, repr=False)
    chunk: int = CHUNK
    _clock: float = 0.0
    _http: Any = field(default=None, repr=False)

    def ask(
        self, method: str, path: str, body: bytes = b"", *, headers: Mapping[str, str] | None = None, wait: float = 0.0
    ) -> Answer:
        """Ask until there is an answer.

        Raises:
            ConfigError: the hub does not know this party, or its certificate is not trusted.
            Stopped: `stop` was set.
        """
        tries = skewed = 0
        while True:
            if self.stop.is_set():
                raise Stopped
            try:
                got = self._once(method, path, body, headers or {}, wait)
            except self._httpx.TransportError as error:
                self._check(error)
                got = None
            if got is not None and got.status == 401:
                now = got.told.get("now")
                if isinstance(now, int) and not skewed:
                    self._clock, skewed = now - time.time(), 1
                    continue
                raise ConfigError(f"The hub must know '{self.name}' by its key. It refused. Ask its operator.")
            if got is not None and got.status not in AGAIN:
                return got
            tries += 1
            self._rest(tries)

    def fetch(self, sha: str, size: int, folder: Path) -> bytes:
        """A body by its sha256; what was fetched before a cut is not fetched again.

        Raises:
            ChannelError: the hub gives something else, or nothing.
        """
        part = folder / f"{sha}.part"
        while True:
            have = part.stat().st_size if part.exists() else 0
            if have < size:
                self._more(sha, have, size, part)
                continue
            data = part.read_bytes()
            part.unlink()
            if len(data) == size and sha256(data).hexdigest() == sha:
                return data
            raise ChannelError("What the hub gives must be what it named. It is not. It is asked for again.")

    def _more(self, sha: str, have: int, size: int, part: Path) -> None:
        tries = 0
        headers = {"Range": f"bytes={have}-"} if have else {}
        while not self.stop.is_set():
            try:
                with self._stream("GET", f"/v1/blob/{sha}", headers) as given:
                    if given.status_code == (206 if have else 200):
                        with part.open("ab" if have else "wb") as f:
                            for piece in given.iter_bytes(2**20):
                                if f.tell() + len(piece) > size:
                                    raise ChannelError("The hub must give as many bytes as it named. Got more.")
                                f.write(piece)
                        return
                    if given.status_code not in AGAIN:
                        raise ChannelError("A body that is asked about must be there. It is not. Ask again.")
            except self._httpx.TransportError:
                if part.exists() and part.stat().st_size > have:
                    return
            tries += 1
            self._rest(tries)
        raise Stopped

    def send(self, sha: str, data: bytes) -> None:
        """An upload, from where an earlier one was cut.

        Raises:
            ChannelError: the hub does not take it, and why.
        """
        at = int(self.ask("GET", f"/v1/upload/{sha}").told.get("offset", 0))
        while True:
            piece = data[at : at + self.chunk]
            said = {"Upload-Offset": str(at), "Upload-Length": str(len(data))}
            got = self.ask("PUT", f"/v1/upload/{sha}", piece, headers=said)
            if got.status == 201:
                return
            if got.status == 204:
                at += len(piece)
            elif got.status in (409, 422) and "offset" in got.told:
                at = int(got.told["offset"])
            elif got.status == 413 and self.chunk > LEAST and got.told.get("most") is None:
                self.chunk //= 2
            else:
                raise ChannelError(f"The hub must take the answer. It said: {got.told.get('reason', got.status)}")

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
            self._http = self._httpx.Client(verify=trust, timeout=self.silence, headers={"accept": TYPE})
        return self._http

    def _signed(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> dict[str, str]:
        asked = Request(method, self.url + path, headers, body)
        made = int(time.time() + self._clock)
        return {**headers, **sign(asked, self.secret, keyid=self.name, created=made, nonce=secrets.token_urlsafe(18))}

    def _once(self, method: str, path: str, body: bytes, headers: Mapping[str, str], wait: float) -> Answer:
        signed = self._signed(method, path, body, headers)
        given = self._line.request(
            method, self.url + path, content=body or None, headers=signed, timeout=self.silence + wait
        )
        return Answer(given.status_code, given.content)

    def _stream(self, method: str, path: str, headers: Mapping[str, str]) -> Any:
        signed = self._signed(method, path, b"", headers)
        return self._line.stream(method, self.url + path, headers={**signed, "accept-encoding": "identity"})

    def _check(self, error: Exception) -> None:
        """A certificate that is not trusted does not come right by itself."""
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise ConfigError(
                f"The certificate of {self.url} must be trusted. It is not. Join it again, or ask its operator."
            ) from None

    def _rest(self, tries: int) -> None:
        """Longer each time, and never all at once."""
        longest = min(self.pause, 0.05 * 2 ** min(tries, 16))
        if self.stop.wait(longest * random.uniform(0.5, 1.0)):
            raise Stopped
