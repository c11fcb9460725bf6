"""The hub as a web application: parties fetch their questions and leave their answers.

    GET  /v1/health                                     200
    GET  /v1/run?after=RUN&wait=25                      the run that wants something of the asker; 204 where none does
    GET  /v1/tasks?run=RUN&wait=25                      a packet; 204 when there is nothing to do; it changes nothing
    GET  /v1/blob/SHA256                                what the asker is asked, by Range
    GET  /v1/upload/SHA256                              {"offset"}: how much of an upload is there
    PUT  /v1/upload/SHA256  (Upload-Offset, -Length)    201 it is whole, 204 go on, 409 the true offset, 413, 422
    POST /v1/reply                                      {"outcome"}, or 409 with the reason

and those of `agreeing` and `enrolling`. Every request but those to join and the first is signed. Every write may be
repeated: it is answered the same way. Whatever goes wrong is a short text: 503 where the same may be asked again.
"""

import asyncio
import errno
import json
import re
import sqlite3
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeAlias

from comity.core.errors import ComityError, WireError
from comity.ledger.blobs import Bodies
from comity.ledger.mailbox import Mailbox
from comity.service import packets
from comity.service.database import Database
from comity.service.doors import Doors
from comity.service.enrolling import ENROL, HELLO, MOST, ROTATE, answer_enrol, answer_hello, answer_rotate
from comity.service.registry import Registry
from comity.service.runs import RunRow, Runs
from comity.service.signatures import Request, SignatureRefused, claimed, content_digest, verify

WAIT, SILENCE, SLOWEST = 25.0, 30.0, 1024
"""Seconds of a poll at most, and without a byte; bytes a second below which a body is given up after that."""
SMALL, CHUNK = packets.HEADER + packets.INLINE + 4, 2**24
"""The most bytes of a packet and of a chunk."""
TYPE = "application/x-comity"
ROOM, EACH = 2**28, 4
"""Bytes of all bodies that may be on their way at once; bodies of one party that may."""
LARGE = 2**16
"""Bytes of a body whose digest is computed beside the loop."""
THREADS = 8
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_LOOPBACK = re.compile(r"(127\.\d+\.\d+\.\d+|localhost|\[::1\])(:\d+)?")
Handler: TypeAlias = Callable[["Hub", "Asked"], Awaitable[Any]]
Extra: TypeAlias = tuple[str, str, Handler, int]
"""A route: path, method, who answers, and the most bytes of a body; `LATER` where whoever answers asks for it."""
LATER = -1


class Refused(Exception):
    """What a request is told: status and a short text."""

    def __init__(self, status: int, text: str, **more: Any) -> None:
        super().__init__(text)
        self.status, self.told = status, {"reason": text, **more}


class Hub:
    """What the application and the engines share.

    Args:
        db: where everything is kept.
        blobs: large bodies.
        identity: the hub's, which signs questions.
        doors: who may ask, and who is taken in.
        most: bytes of an answer at most.
        url: what precedes the path in the URLs that parties sign, "https://hub.example" for one; "" takes the Host of
            each request, where that is this machine.
    """

    def __init__(self, db: Database, blobs: Bodies, identity: Any, *, doors: Doors, most: int, url: str = "") -> None:
        """Nothing is open yet."""
        self.db, self.blobs, self.identity, self.doors, self.most, self.url = db, blobs, identity, doors, most, url
        self.box, self.runs = Mailbox(db), Runs(db)
        self.name = "hub"
        self.came = threading.Condition()
        self.heard = 0.0
        self.news = 0
        self.told: set[tuple[str, str]] = set()
        self.closing = False
        self.inside = False  # is a round open?
        self.loop: asyncio.AbstractEventLoop | None = None
        self.polls: dict[tuple[str, str], asyncio.Event] = {}
        self.bodies: dict[str, int] = {}
        self.rows: dict[str, RunRow] = {}
        self.changes = 0  # of runs, as far as they were announced
        self.room = ROOM
        self.pool = ThreadPoolExecutor(THREADS, "comity hub") if db.url else None
        db.hear(self._told)

    async def off(self, do: Callable[..., Any], *given: Any) -> Any:
        """Ask the database: beside the loop, where it is asked over a line."""
        if self.pool is None:
            return do(*given)
        return await asyncio.get_running_loop().run_in_executor(self.pool, lambda: do(*given))

    async def row(self, run: str) -> RunRow | None:
        """A run, as it was when one was last announced to have changed."""
        return None if len(run) > 64 else self.rows.get(run) or await self.off(self.read, run)

    def read(self, run: str) -> RunRow | None:
        """As `row`, in any thread; what changes while it is read is read again the next time."""
        before, found = self.changes, self.rows.get(run) or self.runs.find(run)
        if found is not None:
            self.rows[run] = found
        if before != self.changes:
            self.rows.pop(run, None)
        return found

    def renewed(self) -> None:
        """Runs have changed."""
        self.changes += 1
        self.rows.clear()

    def wake(self) -> None:
        """There are questions, or the end: from any thread."""
        if (loop := self.loop) is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._awake)

    def _awake(self) -> None:
        for event in self.polls.values():
            event.set()

    def _told(self, what: str) -> None:
        """Something was announced."""
        if what == "run":
            self.renewed()
        if what in ("task", "run"):
            self.wake()
        if what in ("reply", "run", "bytes"):
            self.arrived(what != "bytes")

    def arrived(self, whole: bool) -> None:
        """Bytes came; something was committed."""
        with self.came:
            self.heard = time.monotonic()
            if whole:
                self.news += 1
                self.came.notify_all()

    @contextmanager
    def carrying(self, who: str, size: int) -> Any:
        """Room for a body on its way."""
        if size > self.room or self.bodies.get(who, 0) >= EACH:
            raise Refused(503, "Too much is on its way. Try again.")
        self.room -= size
        self.bodies[who] = self.bodies.get(who, 0) + 1
        try:
            yield
        finally:
            self.room += size
            self.bodies[who] -= 1
            if not self.bodies[who]:
                del self.bodies[who]

    def close(self) -> None:
        """Let go of its threads."""
        if self.pool is not None:
            self.pool.shutdown()


class Asked:
    """One request, its sender verified.

    Attributes:
        who: the party.
        body: what it sent.
        request: starlette's.
        said: what of it is signed.
    """

    def __init__(self, who: str, body: bytes, request: Any, said: Request) -> None:
        self.who, self.body, self.request, self.said = who, body, request, said


def app(hub: Hub, routes: Sequence[Extra | Any] = ()) -> Any:
    """The application.

    Args:
        hub: what it serves.
        routes: more of them: as `Extra`, whose requests are signed by a party; or starlette's, as they are.

    Raises:
        ConfigError: starlette is not installed.
    """
    from comity.service import agreeing, mail, openapi, polls, replies, uploads
    from comity.service.helper import library
    from comity.service.lines import Guard

    lib = library()
    signed = [*polls.ROUTES, *uploads.ROUTES, *replies.ROUTES, *agreeing.ROUTES, *mail.routes(hub)]
    signed += [route for route in routes if isinstance(route, tuple)]
    joining = (HELLO, ENROL, ROTATE) if isinstance(hub.doors, Registry) else ()
    made = [lib.route("/v1/health", _health, methods=["GET"])]
    once = {route[2] for route in (*agreeing.ROUTES, *routes) if isinstance(route, tuple)}
    made += [
        lib.route(p, safely(hub, what, most, once=verb != "GET" and what in once), methods=[verb])
        for p, verb, what, most in signed
    ]
    made += [lib.route(p, _joining(hub, p), methods=["GET" if p == HELLO else "POST"]) for p in joining]
    made += openapi.routes()
    return Guard(lib.starlette(routes=[*made, *(route for route in routes if not isinstance(route, tuple))]))


def safely(hub: Hub, what: Handler, most: int, *, once: bool) -> Callable[[Any], Awaitable[Any]]:
    """A route: who asks is verified first, and whatever goes wrong is a short text.

    Args:
        hub: that is asked.
        what: answers.
        most: bytes of a body at most.
        once: a request counts once; False where the same again changes nothing.
    """

    async def answer(request: Any) -> Any:
        try:
            return await what(hub, await _verified(hub, request, most, once))
        except Exception as error:  # noqa: BLE001  nobody is shown what went wrong
            return refusal(error)

    return answer


def refusal(error: Exception) -> Any:
    """What whoever asked is told."""
    if isinstance(error, Refused):
        return answer_json(error.status, error.told)
    if isinstance(error, SignatureRefused):
        kinds: dict[str, dict[str, Any]] = {"clock": {"now": int(time.time())}, "replay": {"again": True}}
        more = kinds.get(error.reason, {})
        return answer_json(401, {"reason": str(error), **more})
    if isinstance(error, WireError):
        return answer_json(422, {"reason": str(error)})
    if full(error):
        return answer_json(507, {"reason": "The disk of the hub is full. Try again later."})
    if not isinstance(error, ComityError | OSError):
        sys.stderr.write(f"hub: {type(error).__name__} in an answer\n")
    return answer_json(503, {"reason": "The hub cannot do this now. Try again."})


def full(error: BaseException | None) -> bool:
    """Is there no room on the disk?"""
    while error is not None:
        said = getattr(error, "orig", None) or error
        if isinstance(said, OSError) and said.errno in _FULL:
            return True
        if getattr(said, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL:
            return True
        error = error.__cause__
    return False


def _joining(hub: Hub, path: str) -> Callable[[Any], Awaitable[Any]]:
    """A route by which somebody is taken in, or changes a key: see `enrolling`."""
    registry: Any = hub.doors

    async def answer(request: Any) -> Any:
        try:
            with hub.carrying("", _size(request, MOST)):
                asked = _said(hub, request, b"".join([x async for x in pieces(request, MOST, lambda: None)]))
            if path == HELLO:
                challenge = request.query_params.get("challenge", "")
                status, body = answer_hello(hub.name, hub.identity, challenge, time.time())
            elif path == ENROL:
                status, body = await hub.off(answer_enrol, asked, registry, hub.identity, time.time())
            else:
                status, body = await hub.off(answer_rotate, asked.body, registry, hub.identity)
        except Exception as error:  # noqa: BLE001  nobody is shown what went wrong
            return refusal(error)
        return _raw(status, body)

    return answer


async def _health(request: Any) -> Any:
    return answer_json(200, {"comity": 1})


def answer_json(status: int, told: Mapping[str, Any]) -> Any:
    """JSON."""
    return _raw(status, json.dumps(dict(told)).encode())


def _raw(status: int, body: bytes) -> Any:
    from starlette.responses import Response

    more = {"retry-after": "2"} if status == 503 else {}
    return Response(body, status, more, media_type="application/json")


def answer_bytes(data: bytes, status: int = 200) -> Any:
    """A packet, or nothing."""
    from starlette.responses import Response

    return Response(data, status, media_type=TYPE)


def _said(hub: Hub, request: Any, body: bytes = b"") -> Request:
    """A request as its sender signed it."""
    headers = [(k.decode("latin-1"), v.decode("latin-1")) for k, v in request.scope["headers"]]
    path = request.scope["raw_path"].decode("latin-1").split("?")[0]
    query = request.scope["query_string"].decode("latin-1")
    return Request(request.method, f"{hub.url or _here(request)}{path}{'?' + query if query else ''}", headers, body)


def _here(request: Any) -> str:
    """Where no URL is set: the Host, if it is this machine; else a signature for another hub would do for this one."""
    host = request.headers.get("host", "")
    if not _LOOPBACK.fullmatch(host):
        raise Refused(400, "This hub is asked on its own machine alone: no URL is set for it.")
    return f"{request.scope['scheme']}://{host}"


async def _verified(hub: Hub, request: Any, most: int, once: bool) -> Asked:
    said = _said(hub, request)
    if not most:
        return Asked((await hub.off(lambda: hub.doors.admit(said, write=once))).keyid, b"", request, said)
    who = claimed(said).keyid
    key = await hub.off(hub.doors.key_of, who)
    verify(said, key, now=time.time(), whole=False)  # before a stranger's body is read, or counts as a party's
    asked = Asked(who, b"", request, said)
    return asked if most == LATER else await received(hub, asked, most, once=once)


async def admitted(hub: Hub, asked: Asked, digest: str) -> Asked:
    """The same, where its body is to come and has this digest: that it has must be seen then.

    Raises:
        SignatureRefused: its sender signed another digest.
    """
    said = replace(asked.said, digest=digest)
    await hub.off(lambda: hub.doors.admit(said, write=False))
    return asked


async def received(hub: Hub, asked: Asked, most: int, *, once: bool = False) -> Asked:
    """The same with its body, of so many bytes at most.

    Raises:
        Refused: it is too much, or was cut.
        SignatureRefused: it is not what its sender signed.
    """
    from starlette.concurrency import run_in_threadpool

    with hub.carrying(asked.who, _size(asked.request, most)):
        body = b"".join([piece async for piece in pieces(asked.request, most, lambda: hub.arrived(False))])
    digest = await run_in_threadpool(content_digest, body) if len(body) > LARGE else ""
    said = replace(asked.said, body=body, digest=digest)
    await hub.off(lambda: hub.doors.admit(said, write=once))
    return Asked(asked.who, body, asked.request, said)


def _size(request: Any, most: int) -> int:
    """Bytes that a body may have: what is declared.

    Raises:
        Refused: it is too much.
    """
    declared = request.headers.get("content-length", "")
    if not declared.isdecimal():
        return most
    if len(declared) > 15 or int(declared) > most:
        raise Refused(413, f"A body must have at most {most} bytes here.", most=most)
    return int(declared)


async def pieces(request: Any, most: int, heard: Callable[[], None]) -> AsyncIterator[bytes]:
    """A body as it comes. `heard` is called then: a deadline is extended by a fixed multiple at most, whoever sends.

    Raises:
        Refused: it is too much, or was cut.
    """
    size, stream, begun = 0, request.stream().__aiter__(), time.monotonic()
    while True:
        left = begun + SILENCE + size / SLOWEST - time.monotonic()
        try:
            async with asyncio.timeout(min(SILENCE, left)):
                piece = await anext(stream, None)
        except TimeoutError:
            raise Refused(408, "Nothing came for too long.") from None
        except Exception as gone:
            if type(gone).__name__ != "ClientDisconnect":
                raise
            raise Refused(400, "The request was cut.") from None
        if piece is None:
            return
        heard()
        size += len(piece)
        if size > most:
            raise Refused(413, f"A body must have at most {most} bytes here.", most=most)
        yield piece
