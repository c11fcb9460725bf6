"""The party's side of joining: know the hub before the token is sent, register a key, remember whom to trust.

FILE        the party's identity, mode 0600
FILE.hub    whom it joined: URL, names, the hub's key and certificate
FILE.new    while a key is being changed
"""

import json
import os
import secrets
import ssl
import time
from dataclasses import asdict, dataclass
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from comity.core.errors import ComityError, ConfigError
from comity.ledger.folder import sync
from comity.ledger.keys import SideSecret
from comity.service.enrolling import ENROL, HELLO, PROTOCOL, ROTATE, heard
from comity.service.invitations import SHA, Invitation
from comity.service.keys import (
    certificate_der,
    fingerprint,
    make_identity,
    read_identity,
    read_private,
    trusting,
    write_private,
)
from comity.service.parties import Rotation
from comity.service.signatures import WINDOW, Request, sign

SECONDS = 20.0
"""How long to wait for the hub."""
MOST = 2**16


class JoinRefused(ComityError):
    """A hub that does not take the party in, or cannot be reached; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Pinned:
    """Whom a party joined, and how it knows it again.

    Attributes:
        url: the hub's.
        hub: its name.
        name: the party's name there.
        key: the hub's Ed25519 public key, 32 bytes: it signs every task.
        certificate: the hub's TLS certificate, PEM; "" where an authority vouches for it.
    """

    url: str
    hub: str
    name: str
    key: bytes
    certificate: str

    @classmethod
    def read(cls, identity: str | Path) -> "Pinned":
        """What lies beside an identity.

        Raises:
            ConfigError: it never joined, or the file is damaged or open to others.
        """
        path = _beside(identity, ".hub")
        if not path.exists():
            raise ConfigError(f"{identity} must have joined a hub. It has not. Run: comity join URL TOKEN.")
        try:
            rows = json.loads(read_private(path))
            return cls(**{**rows, "key": bytes.fromhex(rows["key"])})
        except (ValueError, TypeError, KeyError) as error:
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(f"{path} must be what joining wrote. It is damaged. Join again, or restore it.") from None

    def context(self) -> ssl.SSLContext | bool:
        """TLS that trusts this hub; False for plain HTTP."""
        return trusting(self.certificate) if self.url.startswith("https:") else False


@dataclass(frozen=True, slots=True)
class Joined:
    """What came of joining.

    Attributes:
        pinned: whom.
        status: "waiting" for approval, or "approved".
        fingerprint: of the party's key, as people compare it.
    """

    pinned: Pinned
    status: str
    fingerprint: str


def join(url: str, token: str, identity: str | Path, *, certificate: str | Path | None = None) -> Joined:
    """Register a key at a hub. The same again gives the same: an answer may have been lost.

    The token leaves this machine only once the hub has proved that it holds the key that the token names, over TLS
    under the certificate that the token names.

    Args:
        url: the hub's, https; plain http is for this machine alone.
        token: what the operator gave.
        identity: the party's key file; it is made if there is none.
        certificate: a PEM file of the hub's certificate, where it cannot be fetched (behind a proxy).

    Raises:
        ConfigError: an argument does not fit.
        JoinRefused: the hub is another, cannot be reached, or does not take the party in.
    """
    invitation, url = Invitation.read(token), _checked(url)
    pem = _certificate(url, invitation, certificate)
    secret = make_identity(identity)
    pinned = _met(Pinned(url, "", invitation.name, b"", pem), invitation)
    key = secret.public_key()
    body = json.dumps({"secret": invitation.secret.hex(), "key": key.hex()}).encode()
    told = _asked(pinned, ENROL, body, secret)
    if (told.get("name"), told.get("key")) != (invitation.name, key.hex()):
        raise JoinRefused(f"The hub must answer for {invitation.name}. It answers for another. Ask its operator.")
    rows = {**asdict(pinned), "key": pinned.key.hex()}
    write_private(_beside(identity, ".hub"), json.dumps(rows).encode())
    return Joined(pinned, str(told.get("status")), fingerprint(key))


def rotate(identity: str | Path) -> str:
    """Put a new key in the place of the old one, at the hub and here. Killed at any moment, the same again ends it.

    Args:
        identity: the party's key file.

    Returns:
        The fingerprint of the new key.

    Raises:
        ConfigError: the party joined no hub, or a file does not fit.
        JoinRefused: the hub cannot be reached, or refuses.
    """
    path, pinned = Path(identity), Pinned.read(identity)
    old, new = read_identity(path), make_identity(_beside(path, ".new"))
    change = Rotation.of(pinned.name, old, new)
    rows = {n: v if isinstance(v, str) else v.hex() for n, v in asdict(change).items()}
    told = _asked(pinned, ROTATE, json.dumps(rows).encode())
    if told.get("key") != change.new.hex():
        raise JoinRefused("The hub must answer for the new key. It answers for another. Ask its operator.")
    _beside(path, ".new").replace(path)
    sync(path.parent)
    return fingerprint(change.new)


def _met(pinned: Pinned, invitation: Invitation) -> Pinned:
    """The hub's key, proved."""
    challenge = secrets.token_hex(32)
    told = heard(_sent(pinned, "GET", f"{HELLO}?challenge={challenge}"))
    key = bytes.fromhex(told["key"])
    if told.get("challenge") != challenge or sha256(key).digest() != invitation.hub:
        raise JoinRefused(
            f"The hub at {pinned.url} must be the one that the token names. It is another. The token was not sent. "
            "Ask the operator for the URL."
        )
    if told.get("protocol") != PROTOCOL:
        raise JoinRefused(f"The hub must speak version {PROTOCOL}. It speaks {told.get('protocol')!r:.20}. Update one.")
    off = time.time() - float(told.get("time", 0.0))
    if abs(off) > WINDOW / 2:
        raise JoinRefused(f"The clock of this machine must be right. It is {off:+.0f} s from the hub's. Set it.")
    return Pinned(pinned.url, str(told.get("name", "")), pinned.name, key, pinned.certificate)


def _asked(pinned: Pinned, path: str, body: bytes, secret: SideSecret | None = None) -> dict[str, Any]:
    """What the hub says to a POST, verified."""
    return heard(_sent(pinned, "POST", path, body, secret), pinned.key)


def _sent(pinned: Pinned, verb: str, path: str, body: bytes = b"", secret: SideSecret | None = None) -> bytes:
    httpx = library()
    url, headers = pinned.url + path, {"content-type": "application/json"}
    if secret is not None:
        request = Request(verb, url, headers, body)
        headers |= sign(request, secret, keyid=pinned.name, created=int(time.time()), nonce=secrets.token_urlsafe(18))
    try:
        given = httpx.request(verb, url, headers=headers, content=body, timeout=SECONDS, verify=pinned.context())
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        raise JoinRefused(
            f"The hub at {pinned.url} must be there. Got: {type(error).__name__}. Check the URL and the network, "
            "and run the same again."
        ) from None
    if given.status_code == 401:
        raise JoinRefused(
            f"The hub at {pinned.url} must take {pinned.name} in. It refuses: the token was used, has expired or was "
            "replaced, or the key is no longer a party's. Ask the operator for a new token."
        )
    if given.status_code != 200 or len(given.content) > MOST:
        raise JoinRefused(f"The hub at {pinned.url} must answer. Got status {given.status_code}. Check the URL.")
    answer: bytes = given.content
    return answer


def library() -> Any:
    """The library that speaks HTTP.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import httpx
    except ImportError:
        raise ConfigError(
            "httpx must be installed to call a hub. It is missing. Run: pip install comity[service]."
        ) from None
    return httpx


def _checked(url: str) -> str:
    """A hub's URL without its last slash; plain http for this machine alone."""
    try:
        parts = urlsplit(url)
        host, fits = parts.hostname or "", parts.port != 0
    except ValueError:
        raise ConfigError(f"A hub must be called by a URL. Got {url!r:.80}. Use https://HOST:PORT.") from None
    bare = not (parts.query or parts.fragment or parts.username or parts.path.strip("/"))
    if parts.scheme not in ("https", "http") or not host or not fits or not bare:
        raise ConfigError(f"A hub must be called by a URL. Got {url!r:.80}. Use https://HOST:PORT.")
    if parts.scheme == "http" and not _here(host):
        raise ConfigError(f"A hub elsewhere must be called over TLS. Got {url!r:.80}. Use https.")
    return f"{parts.scheme}://{parts.netloc}"


def _here(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _certificate(url: str, invitation: Invitation, given: str | Path | None) -> str:
    """The hub's own certificate, PEM, if the token names one: fetched, held against the token and then trusted."""
    if invitation.certificate == bytes(SHA) or url.startswith("http:"):
        return ""
    parts = urlsplit(url)
    try:
        if given is not None:
            pem = Path(given).read_text(encoding="utf-8", errors="replace")
        else:
            pem = ssl.get_server_certificate((parts.hostname or "", parts.port or 443), timeout=SECONDS)
    except (OSError, ValueError) as error:
        raise JoinRefused(
            f"The certificate of {url} must be there. Got: {type(error).__name__}. Check the URL; behind a proxy, get "
            "the file tls.crt from the operator and name it with --certificate."
        ) from None
    if sha256(certificate_der(pem)).digest() != invitation.certificate:
        raise JoinRefused(
            f"The certificate of {url} must be the one that the token names. It is another: somebody is in between, or "
            "it was renewed. The token was not sent. Ask the operator for a new token."
        )
    return pem


def _beside(identity: str | Path, end: str) -> Path:
    return Path(os.fspath(identity) + end)
