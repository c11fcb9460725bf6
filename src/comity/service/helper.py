"""The helper of `TwoServer` as a process: `GET /key` and `POST /masks`, over HTTP.

It speaks plain HTTP and listens on this machine alone unless told otherwise: put it behind a server that ends TLS
where the hub is elsewhere. What travels is sealed for it (seeds) or hides nothing alone (the sum of masks).
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

from comity.channels.helper import Helper
from comity.channels.seeds import PROTOCOL
from comity.core.contribution import Contribution
from comity.core.errors import ComityError, ConfigError, TooFewParticipants
from comity.core.wire import decode

LIMIT, PIECE = 2**26, 2**18
"""The most bytes of a question: some 300,000 members; and of what is sent at once."""


class Library(NamedTuple):
    """What speaks HTTP."""

    starlette: Any
    route: Any
    json: Any
    stream: Any
    in_thread: Any
    uvicorn: Any


def library() -> Library:
    """starlette and uvicorn.

    Raises:
        ConfigError: they are not installed.
    """
    try:
        import uvicorn
        from starlette.applications import Starlette
        from starlette.concurrency import run_in_threadpool
        from starlette.responses import JSONResponse, StreamingResponse
        from starlette.routing import Route
    except ImportError:
        raise ConfigError(
            "starlette and uvicorn must be installed to run a helper. They are missing. "
            "Run: pip install comity[service]."
        ) from None
    return Library(Starlette, Route, JSONResponse, StreamingResponse, run_in_threadpool, uvicorn)


def app(helper: Helper) -> Any:
    """The helper as an ASGI application, for a server of one's own.

    `GET /key` gives {"key": hex, "minimum": int}; `POST /masks` takes a question as bytes and gives the words of the
    sum, little-endian; a refusal is status 409 with {"kind", "reason"}.
    """
    lib, one = library(), asyncio.Lock()

    async def key(request: Any) -> Any:
        return lib.json({"protocol": PROTOCOL, "key": helper.key.hex(), "minimum": helper.minimum})

    async def masks(request: Any) -> Any:
        try:
            question = await _body(request)
            async with one:  # one vector is held at a time
                words = await lib.in_thread(_answered, helper, question)
            said = {"content-length": str(len(words)), "content-type": "application/octet-stream"}
            return lib.stream(_pieces(words), headers=said)
        except ComityError as error:
            kind = "TooFewParticipants" if isinstance(error, TooFewParticipants) else "ChannelError"
            return lib.json({"kind": kind, "reason": str(error)}, status_code=409)

    return lib.starlette(routes=[lib.route("/key", key), lib.route("/masks", masks, methods=["POST"])])


async def _body(request: Any) -> bytes:
    """What was sent, while it is no more than a question may have."""
    got = bytearray()
    async for piece in request.stream():
        got += piece
        if len(got) > LIMIT:
            raise ConfigError(f"A question must have at most {LIMIT} bytes. Got more.")
    return bytes(got)


async def _pieces(words: memoryview) -> AsyncIterator[memoryview]:
    for i in range(0, len(words), PIECE):
        yield words[i : i + PIECE]


def _answered(helper: Helper, question: bytes) -> memoryview:
    asked: Any = decode(question, limit=LIMIT)
    if not isinstance(asked, Contribution):
        raise ConfigError("A question must be a contribution. Got an envelope.")
    return helper.masks(asked).view("u1").data


def serve(helper: Helper, host: str, port: int, tell: Callable[[str], None]) -> None:
    """Answer until the process is stopped.

    Args:
        helper: who answers.
        host: where to listen.
        port: 0 for any that is free.
        tell: is given the URL once questions are taken.

    Raises:
        ConfigError: the port is taken, or the libraries are missing.
    """
    lib = library()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as door:  # named, else Nagle stays on
        try:
            door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            door.bind((host, port))
            door.listen(128)
        except (OSError, OverflowError) as error:
            why = str(getattr(error, "strerror", None) or error).removeprefix("bind(): ").rstrip(".")
            raise ConfigError(
                f"The helper must be able to listen on {host}, port {port}. Got: {why}. Name another."
            ) from None
        tell(f"http://{f'[{host}]' if ':' in host else host}:{door.getsockname()[1]}")
        settings = lib.uvicorn.Config(app(helper), log_level="warning", access_log=False, lifespan="off")
        lib.uvicorn.Server(settings).run(sockets=[door])
