"""The hub's side of joining, as plain functions from what came to what is answered.

    GET  /v1/hub?challenge=HEX   who is the hub: its key, and a signature that it holds it
    POST /v1/enrol               {"secret", "key"} in hex, signed by that key: the party waits for approval
    POST /v1/rotate              {"name", "old", "new", "by_old", "by_new"}: says for itself who said it

Every answer is {"said": text of JSON, "by": signature}: whoever knows the hub's key can check it.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from comity.channels.identity import signed
from comity.core.errors import ConfigError
from comity.core.rng import digest
from comity.ledger.keys import SideSecret
from comity.service.parties import EnrolmentRefused, Rotation
from comity.service.registry import Registry
from comity.service.signatures import Request, SignatureRefused, claimed, verify

PROTOCOL, MOST = 1, 4096
"""The version of the routes; bytes of a question at most."""
HELLO, ENROL, ROTATE = "/v1/hub", "/v1/enrol", "/v1/rotate"
_HEX = re.compile("(?:[0-9a-f]{2}){16,64}")
_WRONG = "The request must be one of joining a hub. It is not understood."


def answer_hello(name: str, secret: SideSecret, challenge: str, now: float) -> tuple[int, bytes]:
    """Who the hub is.

    Args:
        name: the hub's.
        secret: the hub's.
        challenge: 16 to 64 bytes in hex that the asker drew: the answer is signed with it.
        now: seconds since 1970.

    Returns:
        Status and body.
    """
    if not _HEX.fullmatch(challenge):
        return _plain(400, _WRONG)
    key = secret.public_key().hex()
    return 200, said(secret, {"protocol": PROTOCOL, "name": name, "key": key, "challenge": challenge, "time": now})


def answer_enrol(request: Request, registry: Registry, secret: SideSecret, now: float) -> tuple[int, bytes]:
    """Take a key in that signed the request and brings an invitation.

    Args:
        request: as it came; the keyid of its signature is the party's name.
        registry: of the hub.
        secret: the hub's.
        now: seconds since 1970.

    Returns:
        Status and body: 200 and the party's status; 400, 401 and a short text that says nothing to a stranger.
    """
    try:
        name, rows = claimed(request).keyid, _rows(request.body, {"secret", "key"})
        verify(request, rows["key"], now=now)
        party = registry.enrol(rows["secret"], name, rows["key"])
    except (SignatureRefused, EnrolmentRefused) as error:
        return _plain(401, str(error))
    except ConfigError:
        return _plain(400, _WRONG)
    return 200, said(secret, {"name": name, "status": party.status, "key": rows["key"].hex()})


def answer_rotate(body: bytes, registry: Registry, secret: SideSecret) -> tuple[int, bytes]:
    """Put a new key in the place of the old one.

    Returns:
        Status and body, as `answer_enrol`.
    """
    try:
        rows = _rows(body, {"name", "old", "new", "by_old", "by_new"})
        party = registry.rotate(Rotation(**rows))
    except EnrolmentRefused as error:
        return _plain(401, str(error))
    except ConfigError:
        return _plain(400, _WRONG)
    return 200, said(secret, {"name": party.name, "status": party.status, "key": rows["new"].hex()})


def said(secret: SideSecret, rows: Mapping[str, Any]) -> bytes:
    """What a hub says, signed."""
    text = json.dumps(rows, sort_keys=True)
    return json.dumps({"said": text, "by": secret.sign(_digest(text)).hex()}).encode()


def heard(body: bytes, key: bytes | None = None) -> dict[str, Any]:
    """What a hub said.

    Args:
        body: as it came.
        key: the hub's; None for the one that it names itself.

    Raises:
        ConfigError: it is not signed by this key.
    """
    try:
        outer = json.loads(body)
        rows = json.loads(outer["said"])
        by, own = bytes.fromhex(outer["by"]), bytes.fromhex(rows["key"]) if key is None else key
        if isinstance(rows, dict) and signed(own, by, _digest(outer["said"])):
            return rows
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    raise ConfigError("The answer must be signed by the hub. It is not: something else answers. Check the URL.")


def _digest(text: str) -> bytes:
    return digest("comity hub says 1", text)


def _rows(body: bytes, names: set[str]) -> dict[str, Any]:
    """Hex as bytes, and the name as text.

    Raises:
        ConfigError: the body is something else.
    """
    try:
        rows = json.loads(body) if len(body) <= MOST else None
    except (ValueError, RecursionError):
        rows = None
    if not isinstance(rows, dict) or set(rows) != names or not all(isinstance(v, str) for v in rows.values()):
        raise ConfigError(_WRONG)
    if not all(name == "name" or _HEX.fullmatch(value) for name, value in rows.items()):
        raise ConfigError(_WRONG)
    return {name: value if name == "name" else bytes.fromhex(value) for name, value in rows.items()}


def _plain(status: int, text: str) -> tuple[int, bytes]:
    return status, json.dumps({"error": text}).encode()
