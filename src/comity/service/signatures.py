"""Requests that are signed: RFC 9421 (HTTP message signatures) with Ed25519, and RFC 9530 (Content-Digest).

Only what a hub and its parties need: one signature, under the label `comity`, over

    "@method" "@authority" "@path" "@query" "content-digest", and every header that begins with comity- or upload-

with the parameters created, nonce, keyid, alg="ed25519" and tag="comity-1". The digest is of the whole body, an
empty one too. `@target-uri` is left out on purpose: it holds the scheme, and a server that ends TLS passes http on
where https was signed. Authority, path and query hold the rest of it. A proxy may also rewrite the Host: a hub gives
`verify` the URL that its settings name, with the path and query of the request byte by byte, never the Host header.

What is not covered (User-Agent, Accept, Forwarded) means nothing to a hub.
"""

import re
from base64 import b64encode
from binascii import a2b_base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from hmac import compare_digest
from typing import Protocol
from urllib.parse import quote, unquote

from comity.channels.identity import signed
from comity.core.errors import ComityError, ConfigError

LABEL, TAG = "comity", "comity-1"
WINDOW = 300.0
"""Seconds by which the clocks of two sides may differ."""
COVERED = ("@method", "@authority", "@path", "@query", "content-digest")
TOLD = "The request must be signed by a party of this hub. It is refused."
LONGEST = 4096
"""Characters of a signature's header at most."""
_PREFIXES = ("comity-", "upload-")
_PORTS = {"http": ":80", "https": ":443"}
_URL = re.compile(r"(https?)://([A-Za-z0-9.\-:\[\]_]+)(/[!-\"$->@-~]*)?(\?[!-\"$-~]*)?")
_INPUT = re.compile(r"comity=(\(((?:\"[a-z@][a-z0-9-]*\"(?: |(?=\))))*)\)((?:;[a-z]+=(?:[0-9]+|\"[^\"\\]*\"))*))")
_SIGNATURE = re.compile(r"comity=:([A-Za-z0-9+/]{86}==):")
_DIGEST = re.compile(r"sha-256=:([A-Za-z0-9+/]{43}=):")
_NONCE = re.compile(r"[A-Za-z0-9_-]{16,64}")
_NAME = re.compile(r"[a-z0-9-]+")
_KNOWN = {"created", "nonce", "keyid", "alg", "tag"}


class Signer(Protocol):
    """Whoever signs: `comity.ledger.keys.SideSecret` for one."""

    def sign(self, data: bytes) -> bytes:
        """An Ed25519 signature of `data`, 64 bytes."""
        ...


class SignatureRefused(ComityError):
    """A request that is not what a party of this hub signed.

    Its text is the same whatever was wrong, and may be sent to anybody.

    Attributes:
        reason: for the hub's own log: "malformed", "unknown", "changed", "clock", "replay", or the status of a party
            that may not ask now. "clock", "replay" and a status are said only once the signature was right: that the
            sender may be told.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(TOLD)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Request:
    """What is signed of a request.

    Attributes:
        method: "GET", "POST" and so on.
        url: absolute, as the sender wrote it on the line: percent-encoded, no fragment.
        headers: name to value, in any case; or pairs, where a name may come twice.
        body: all of it.
        digest: `content_digest` of the body, where it was computed already; never what a header says.
    """

    method: str
    url: str
    headers: Mapping[str, str] | Sequence[tuple[str, str]] = ()
    body: bytes = field(default=b"", repr=False)
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Signed:
    """What a signature says.

    Attributes:
        keyid: whose key it is, a party's name.
        nonce: what is used once: 16 to 64 letters of base64url.
        created: when it was signed, seconds since 1970 of the signer's clock.
    """

    keyid: str
    nonce: str
    created: int


def sign(request: Request, secret: Signer, *, keyid: str, created: int, nonce: str) -> dict[str, str]:
    """Sign a request.

    Args:
        request: with all its headers that begin with comity- or upload-.
        secret: whose Ed25519 key signs.
        keyid: under which name the verifier knows the key; 1 to 255 characters that can be printed, sent
            percent-encoded.
        created: the time, seconds since 1970.
        nonce: used once; `secrets.token_urlsafe(18)`.

    Returns:
        The headers to add: Content-Digest, Signature-Input and Signature.

    Raises:
        ConfigError: an argument does not fit, or a covered header comes twice.

    Example:
        >>> from comity.ledger.keys import SideSecret
        >>> secret = SideSecret(bytes(32))
        >>> asked = Request("GET", "https://hub.example/v1/tasks?after=3")
        >>> more = sign(asked, secret, keyid="ada", created=1_700_000_000, nonce="a-nonce-of-16-or-more")
        >>> given = Request(asked.method, asked.url, more)
        >>> verify(given, secret.public_key(), now=1_700_000_010.0)
        Signed(keyid='ada', nonce='a-nonce-of-16-or-more', created=1700000000)
    """
    _check(request, keyid, created, nonce)
    digest = request.digest or content_digest(request.body)
    try:
        headers = _lower(request.headers) | {"content-digest": digest}
        names = [*COVERED, *_own(headers)]
        covered = " ".join(f'"{name}"' for name in names)
        said = f'({covered});created={created};nonce="{nonce}";keyid="{quote(keyid, safe="")}"'
        said += f';alg="ed25519";tag="{TAG}"'
        base = signature_base(request, headers, names, said)
    except SignatureRefused:
        raise ConfigError(
            f"A request to be signed must have an absolute http or https URL and plain headers, each once. "
            f"Got {request.method!r:.20} {request.url!r:.100}. Percent-encode what is not ASCII."
        ) from None
    signature = b64encode(secret.sign(base)).decode()
    return {"Content-Digest": digest, "Signature-Input": f"{LABEL}={said}", "Signature": f"{LABEL}=:{signature}:"}


def claimed(request: Request) -> Signed:
    """What a signature says, not verified: whose key to look up. Never act on it before `verify`.

    Raises:
        SignatureRefused: there is none that could be verified.
    """
    return _read(_lower(request.headers))[0]


def verify(
    request: Request, public_key: bytes | None, *, now: float, window: float = WINDOW, whole: bool = True
) -> Signed:
    """Is this what the owner of a key signed, within the last minutes?

    Whether the nonce was used before is for the caller to remember (`Registry.admit`).

    Args:
        request: as it came: raw path and query, whole body, all headers.
        public_key: Ed25519, 32 bytes; None for a key that is not known, which takes as long to refuse.
        now: seconds since 1970.
        window: seconds by which `created` may lie before or after `now`.
        whole: is the body there? False to look at the head alone, before a body is read: its digest is not compared.

    Returns:
        Whose it is, its nonce and its time.

    Raises:
        SignatureRefused: it is not. It raises nothing else, whatever the request holds.
    """
    headers = _lower(request.headers)
    said, names, params, signature = _read(headers)
    if not set(COVERED) | set(_own(headers)) <= set(names):
        raise SignatureRefused("malformed")
    base = signature_base(request, headers, names, params)
    digest = "" if not whole else request.digest or content_digest(request.body)
    right = not whole or compare_digest(headers["content-digest"].encode(), digest.encode())
    right &= signed(public_key or bytes(32), signature, base)
    if public_key is None or not right:
        raise SignatureRefused("unknown" if public_key is None else "changed")
    if not abs(now - said.created) <= window:
        raise SignatureRefused("clock")
    return said


def content_digest(body: bytes) -> str:
    """The value of Content-Digest (RFC 9530, section 2), SHA-256.

    Example:
        >>> content_digest(b'{"hello": "world"}')
        'sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:'
    """
    return f"sha-256=:{b64encode(sha256(body).digest()).decode()}:"


def named_digest(sha: str) -> str:
    """The Content-Digest of what has this sha256, in hex.

    Example:
        >>> named_digest(sha256(b"x").hexdigest()) == content_digest(b"x")
        True
    """
    return f"sha-256=:{b64encode(bytes.fromhex(sha)).decode()}:"


def signature_base(request: Request, headers: Mapping[str, str], names: Iterable[str], params: str) -> bytes:
    """What is signed (RFC 9421, section 2.5).

    Args:
        request: for what begins with @.
        headers: name in lower case to value, for the rest.
        names: the covered components in their order.
        params: the value of "@signature-params", as it stands in Signature-Input.

    Raises:
        SignatureRefused: a component is not there, or is none of those that are known here.
    """
    derived = _derived(request)
    lines = []
    for name in names:
        value = derived.get(name) if name.startswith("@") else headers.get(name)
        if value is None:
            raise SignatureRefused("malformed")
        lines.append(f'"{name}": {value}\n')
    return f'{"".join(lines)}"@signature-params": {params}'.encode()


def _derived(request: Request) -> dict[str, str]:
    """The components of the request line (RFC 9421, section 2.2)."""
    found = _URL.fullmatch(request.url) if isinstance(request.url, str) and len(request.url) <= 2**16 else None
    if found is None or not isinstance(request.method, str) or not re.fullmatch("[A-Z]{1,20}", request.method):
        raise SignatureRefused("malformed")
    scheme, authority, path, query = found.groups()
    whose = authority.lower().removesuffix(_PORTS[scheme])
    return {"@method": request.method, "@authority": whose, "@path": path or "/", "@query": query or "?"}


def _lower(headers: Mapping[str, str] | Sequence[tuple[str, str]]) -> dict[str, str]:
    """By name in lower case, those that count; each once."""
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    found: dict[str, str] = {}
    for name, value in pairs:
        low = name.lower()
        if low in found and _counts(low):
            raise SignatureRefused("malformed")
        plain = value.strip(" \t")
        if _counts(low) and not (plain.isascii() and plain.isprintable() and _NAME.fullmatch(low)):
            raise SignatureRefused("malformed")
        found[low] = plain
    return found


def _counts(name: str) -> bool:
    return name.startswith(_PREFIXES) or name in ("content-digest", "signature", "signature-input")


def _own(headers: Mapping[str, str]) -> list[str]:
    """The headers that mean something to a hub, sorted."""
    return sorted(name for name in headers if name.startswith(_PREFIXES))


def _read(headers: Mapping[str, str]) -> tuple[Signed, list[str], str, bytes]:
    """What is signed, by whom: the components, the value of "@signature-params" and the signature."""
    given, proof = headers.get("signature-input", ""), _SIGNATURE.fullmatch(headers.get("signature", ""))
    found = _INPUT.fullmatch(given) if len(given) <= LONGEST else None
    if found is None or proof is None or not _DIGEST.fullmatch(headers.get("content-digest", "")):
        raise SignatureRefused("malformed")
    params = _pieces(found[3])
    names, of = [name.strip('"') for name in found[2].split()], dict(pair.split("=", 1) for pair in params)
    if len(of) != len(params) or of.keys() != _KNOWN or len(set(names)) != len(names):
        raise SignatureRefused("malformed")
    return _said(of), names, found[1], a2b_base64(proof[1])


def _pieces(params: str) -> list[str]:
    """Parameters one by one: a semicolon may stand in a quoted value."""
    return re.findall(r";([a-z]+=(?:[0-9]+|\"[^\"]*\"))", params)


def _said(of: Mapping[str, str]) -> Signed:
    """What the parameters say."""
    created, texts = of["created"], {name: of[name] for name in _KNOWN - {"created"}}
    if not re.fullmatch("[0-9]{1,15}", created) or not all(text.startswith('"') for text in texts.values()):
        raise SignatureRefused("malformed")
    nonce, keyid, algorithm, tag = (texts[name].strip('"') for name in ("nonce", "keyid", "alg", "tag"))
    name = unquote(keyid, errors="replace")
    if not _NONCE.fullmatch(nonce) or not _is_name(name) or quote(name, safe="") != keyid:
        raise SignatureRefused("malformed")
    if (algorithm, tag) != ("ed25519", TAG):
        raise SignatureRefused("malformed")
    return Signed(name, nonce, int(created))


def _is_name(keyid: object) -> bool:
    return isinstance(keyid, str) and 0 < len(keyid) <= 255 and keyid.isprintable()


def _check(request: Request, keyid: str, created: int, nonce: str) -> None:
    whole = isinstance(created, int) and not isinstance(created, bool) and 0 <= created < 10**15
    if not whole or not _is_name(keyid) or not isinstance(nonce, str) or not _NONCE.fullmatch(nonce):
        raise ConfigError(
            "A signature must have a name of 1 to 255 characters that can be printed, whole seconds and a nonce of 16 "
            f"to 64 letters of base64url. Got {keyid!r:.60}, {created!r:.30} and {nonce!r:.70}."
        )
    if not isinstance(request.body, bytes):
        raise ConfigError(f"The body of a request must be bytes. Got {type(request.body).__name__}. Encode it.")
