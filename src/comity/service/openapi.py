"""What a hub answers, as an OpenAPI 3.1 description: `GET /v1/openapi.json`, for people, generators and fuzzers."""

import json
from collections.abc import Mapping
from typing import Any

from comity import __version__
from comity.service.enrolling import PROTOCOL

PATH = "/v1/openapi.json"
_TYPE = "application/x-comity"
_HEX = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_COUNT = {"type": "integer", "minimum": 0}
_REASONS = {
    "400": "The request is not understood, or was cut.",
    "401": "Not signed by a party that may ask, or signed for something else.",
    "404": "There is nothing of the kind for the asker.",
    "408": "Nothing came for too long.",
    "409": "It does not fit what is there; the reason says why.",
    "413": "The body is too large.",
    "422": "The body is not what it must be.",
    "426": "Hub and site speak other versions; both are named.",
    "431": "The head of the request is too large.",
    "503": "Not now: the same may be asked again, after Retry-After seconds.",
    "507": "The disk of the hub is full.",
}
_REASON = {
    "type": "object",
    "required": ["reason"],
    "properties": {"reason": {"type": "string", "maxLength": 300}},
}


def description() -> dict[str, Any]:
    """The routes that parties use, their parameters, bodies and answers.

    Those who write a client in another language find in `signatures` how a request is signed (RFC 9421).

    Example:
        >>> made = description()
        >>> made["openapi"], sorted(made["paths"])[:2]
        ('3.1.0', ['/v1/agree', '/v1/blob/{sha}'])
    """
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "comity hub",
            "version": __version__,
            "description": "Parties dial in; every request but those to join is signed (RFC 9421, Ed25519). "
            f"Comity-Protocol: {PROTOCOL}.",
        },
        "paths": _PATHS,
        "components": {
            "schemas": {"Reason": _REASON},
            "securitySchemes": {"signature": {"type": "apiKey", "in": "header", "name": "Signature"}},
        },
    }


def answer() -> bytes:
    """The description as it is served."""
    return json.dumps(description()).encode()


def routes() -> list[Any]:
    """The route that serves it, for `hub.app`; it is no secret and needs no signature."""
    from starlette.responses import Response

    from comity.service.helper import library

    async def said(request: Any) -> Any:
        return Response(answer(), media_type="application/json")

    return [library().route(PATH, said, methods=["GET"])]


def _does(about: str, good: Mapping[str, str], more: Mapping[str, Any] | None = None, *, free: bool = False) -> Any:
    """An operation. `good`: status to the type of its body, "" for none."""
    answers: dict[str, Any] = {
        status: {"description": about, **({"content": {kind: {"schema": {}}}} if kind else {})}
        for status, kind in good.items()
    }
    said = {"application/json": {"schema": {"$ref": "#/components/schemas/Reason"}}}
    answers |= {status: {"description": why, "content": said} for status, why in _REASONS.items()}
    return {
        "summary": about,
        "responses": answers,
        **({} if free else {"security": [{"signature": []}]}),
        **(more or {}),
    }


def _asks(**named: Any) -> dict[str, Any]:
    """Parameters of the query."""
    return {"parameters": [{"name": name.rstrip("_"), "in": "query", "schema": kind} for name, kind in named.items()]}


def _sends(*required: str, **named: Any) -> dict[str, Any]:
    """A body of JSON."""
    schema = {"type": "object", "required": list(required), "properties": named, "additionalProperties": False}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _bytes(kind: str = _TYPE) -> dict[str, Any]:
    """A body of bytes."""
    return {"requestBody": {"required": True, "content": {kind: {"schema": {"type": "string", "format": "binary"}}}}}


_SHA = {"parameters": [{"name": "sha", "in": "path", "required": True, "schema": _HEX}]}
_RANGE = {"name": "Range", "in": "header", "schema": {"type": "string", "pattern": "^bytes=[0-9]{1,12}-$"}}
_CHUNK = [
    {"name": name, "in": "header", "required": True, "schema": _COUNT} for name in ("Upload-Offset", "Upload-Length")
]
_TEXT, _WAIT, _RUN = (
    {"type": "string"},
    {"type": "integer", "minimum": 0, "maximum": 25},
    {"type": "string", "maxLength": 64},
)
_JSON = "application/json"
_PATHS: dict[str, Any] = {
    "/v1/health": {"get": _does("Is there a hub?", {"200": _JSON}, free=True)},
    PATH: {"get": _does("This description.", {"200": _JSON}, free=True)},
    "/v1/hub": {
        "get": _does(
            "Who is the hub: its key, and a signature over a challenge.",
            {"200": _JSON},
            _asks(challenge={"type": "string", "pattern": "^[0-9a-f]{32,128}$"}),
            free=True,
        )
    },
    "/v1/enrol": {
        "post": _does(
            "Register a key under an invitation, signed by that key.",
            {"200": _JSON},
            _sends("secret", "key", secret=_HEX, key=_HEX),
            free=True,
        )
    },
    "/v1/rotate": {
        "post": _does(
            "Put a new key in the place of the old one.",
            {"200": _JSON},
            _sends(
                *("name", "old", "new", "by_old", "by_new"), name=_TEXT, old=_HEX, new=_HEX, by_old=_TEXT, by_new=_TEXT
            ),
            free=True,
        )
    },
    "/v1/run": {
        "get": _does(
            "The run that wants something of the asker.", {"200": _JSON, "204": ""}, _asks(after=_RUN, wait=_WAIT)
        )
    },
    "/v1/tasks": {
        "get": _does(
            "What the asker is asked; it changes nothing.", {"200": _TYPE, "204": ""}, _asks(run=_RUN, wait=_WAIT)
        )
    },
    "/v1/blob/{sha}": {
        "get": _does(
            "A large body that is asked about.",
            {"200": _TYPE, "206": _TYPE, "416": ""},
            {"parameters": [*_SHA["parameters"], _RANGE]},
        )
    },
    "/v1/upload/{sha}": {
        "get": _does("How much of an upload is there.", {"200": _JSON}, _SHA),
        "put": _does(
            "The whole, or the next chunk: 204 go on, 201 it is whole.",
            {"201": "", "204": ""},
            {"parameters": [*_SHA["parameters"], *_CHUNK], **_bytes("application/octet-stream")},
        ),
    },
    "/v1/reply": {"post": _does("An answer to a question.", {"200": _JSON, "403": _JSON}, _bytes())},
    "/v1/agree": {
        "post": _does(
            "Agree to a run.",
            {"200": _JSON},
            _sends(
                *("run", "recipe", "limits", "spends", "time", "proof"),
                run=_RUN,
                recipe=_HEX,
                limits={"type": "object"},
                spends={"type": "array"},
                time={"type": "number"},
                proof={"type": "object"},
            ),
        )
    },
    "/v1/ledger": {
        "get": _does("What follows an entry of a run's ledger.", {"200": _JSON}, _asks(run=_RUN, after=_COUNT))
    },
    "/v1/head": {
        "post": _does(
            "How much of a ledger the asker holds, signed.",
            {"200": _JSON},
            _sends("run", "entries", "head", "by", run=_RUN, entries=_COUNT, head=_HEX, by=_TEXT),
        )
    },
    "/v1/mail": {
        "get": _does(
            "Whose letters are there.",
            {"200": _JSON},
            _asks(session=_RUN, round=_COUNT, from_=_TEXT, wait=_WAIT),
        ),
        "post": _does("A piece of a letter to a peer.", {"200": _JSON}, _bytes("application/octet-stream")),
    },
    "/v1/letter": {
        "get": _does(
            "A piece of a letter.", {"200": _TYPE}, _asks(session=_RUN, round=_COUNT, from_=_TEXT, piece=_COUNT)
        )
    },
}
