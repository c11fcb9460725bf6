"""The hub as a web application: parties fetch their questions and leave their answers.

    GET  /v1/health                                     200
    GET  /v1/recipe                                     the run in which the asker takes part, and its recipe
    GET  /v1/tasks?wait=25                              a packet; 204 when there is nothing to do; it changes nothing
    GET  /v1/blob/SHA256                                what the asker is asked, by Range
    GET  /v1/upload/SHA256                              {"offset"}: how much of an upload is there
    PUT  /v1/upload/SHA256  (Upload-Offset, -Length)    201 it is whole, 204 go on, 409 the true offset, 413, 422
    POST /v1/reply                                      {"outcome"}, or 409 with the reason

Every request but the first is signed. Every write may be repeated: it is answered the same way.
"""

import asyncio
import json
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from comity.core.errors import ComityError, LedgerError, WireError
from comity.ledger.blobs import Blobs, Offset
from comity.ledger.mailbox import Mailbox, Reply
from comity.service import packets
from comity.service.doors import Doors
from comity.service.enrolling import ENROL, HELLO, MOST, ROTATE, answer_enrol, answer_hello, answer_rotate
from comity.service.registry import Registry
from comity.service.signatures import Request, SignatureRefused, claimed, verify

WAIT, SILENCE = 25.0, 30.0
"""Seconds of a poll at most, and without a byte."""
SMALL, CHUNK = packets.HEADER + packets.INLINE + 4, 2**24
"""The most bytes of a packet and of a chunk."""
TYPE = "application/x-comity"


class Refused(Exception):
    """What a request is told: status and a short text."""

    def __init__(self, status: int, text: str, **more: Any) -> None:
        super().__init__(text)
        self.status, self.told = status, {"reason": text, **more}


@dataclass
class Current:
    """The run that this process carries.

    Attributes:
        run: its identity.
        recipe: what was agreed.
        roster: who takes part.
        over: has it reached its end?
    """

    run: str
    recipe: Mapping[str, Any]
    roster: frozenset[str]
    over: bool = False


class Hub:
    """What the application and the engine share.

    Args:
        box: questions and answers.
        blobs: large bodies.
        identity: the hub's, which signs questions.
        doors: who may ask, and who is taken in.
        most: bytes of an answer at most.
        url: what precedes the path in the URLs that parties sign, "https://hub.example" for one; "" takes the Host of
            each request.
    """

    def __init__(self, box: Mailbox, blobs: Blobs, identity: Any, *, doors: Doors, most: int, url: str = "") -> None:
        """Nothing is open yet."""
        self.box, self.blobs, self.identity, self.doors, self.most, self.url = box, blobs, identity, doors, most, url
        self.name = "hub"
        self.current: Current | None = None
        self.came = threading.Condition()
        self.heard = 0.0
        self.news = 0
        self.told: set[str] = set()
        self.closing = False
        self.loop: asyncio.AbstractEventLoop | None = None
        self.polls: dict[str, asyncio.Event] = {}

    def wake(self) -> None:
        """There are questions, or the end: from any thread."""
        if self.loop is not None:
            self.loop.call_soon_threadsafe(self._awake)

    def _awake(self) -> None:
        for event in self.polls.values():
            event.set()

    def arrived(self, whole: bool) -> None:
        """Bytes came; an answer was committed."""
        with self.came:
            self.heard = time.monotonic()
            if whole:
                self.news += 1
                self.came.notify_all()


class _Asked:
    """One request, its sender verified."""

    def __init__(self, who: str, body: bytes, request: Any) -> None:
        self.who, self.body, self.request = who, body, request


def app(hub: Hub) -> Any:
    """The application.

    Raises:
        ConfigError: starlette is not installed.
    """
    from comity.service.helper import library

    lib = library()
    routes: list[tuple[str, str, Any, int]] = [
        ("/v1/recipe", "GET", _recipe, 0),
        ("/v1/tasks", "GET", _tasks, 0),
        ("/v1/blob/{sha}", "GET", _blob, 0),
        ("/v1/upload/{sha}", "GET", _offset, 0),
        ("/v1/upload/{sha}", "PUT", _upload, CHUNK),
        ("/v1/reply", "POST", _reply, SMALL),
    ]
    if isinstance(hub.doors, Registry):
        routes_of_joining = [
            lib.route(path, _joining(hub, path), methods=["GET" if path == HELLO else "POST"])
            for path in (HELLO, ENROL, ROTATE)
        ]
    else:
        routes_of_joining = []
    made = [lib.route(path, _safely(hub, what, most), methods=[verb]) for path, verb, what, most in routes]
    return lib.starlette(routes=[lib.route("/v1/health", _health, methods=["GET"]), *made, *routes_of_joining])


def _joining(hub: Hub, path: str) -> Callable[[Any], Awaitable[Any]]:
    """A route by which somebody is taken in, or changes a key: see `enrolling`."""
    registry: Any = hub.doors

    async def answer(request: Any) -> Any:
        try:
            asked = _said(hub, request, await _body(request, MOST))
            if path == HELLO:
                challenge = request.query_params.get("challenge", "")
                status, body = answer_hello(hub.name, hub.identity, challenge, time.time())
            elif path == ENROL:
                status, body = answer_enrol(asked, registry, hub.identity, time.time())
            else:
                status, body = answer_rotate(asked.body, registry, hub.identity)
        except Refused as no:
            return _json(no.status, no.told)
        except (ComityError, OSError):
            return _json(503, {"reason": "The hub cannot do this now. Try again."})
        return _raw(status, body)

    return answer


async def _health(request: Any) -> Any:
    return _json(200, {"comity": 1})


def _json(status: int, told: Mapping[str, Any]) -> Any:
    return _raw(status, json.dumps(dict(told)).encode())


def _raw(status: int, body: bytes) -> Any:
    from starlette.responses import Response

    return Response(body, status, media_type="application/json")


def _bytes(data: bytes, status: int = 200) -> Any:
    from starlette.responses import Response

    return Response(data, status, media_type=TYPE)


def _safely(hub: Hub, what: Callable[[Hub, _Asked], Awaitable[Any]], most: int) -> Callable[[Any], Awaitable[Any]]:
    """A route: who asks is verified first, and whatever goes wrong is a short text."""

    async def answer(request: Any) -> Any:
        try:
            return await what(hub, await _verified(hub, request, most))
        except Refused as no:
            return _json(no.status, no.told)
        except SignatureRefused as no:
            clock = {"now": int(time.time())} if no.reason == "clock" else {}
            return _json(401, {"reason": str(no), **clock})
        except WireError as error:
            return _json(422, {"reason": str(error)})
        except (ComityError, OSError):
            return _json(503, {"reason": "The hub cannot do this now. Try again."})

    return answer


def _said(hub: Hub, request: Any, body: bytes = b"") -> Request:
    """A request as its sender signed it."""
    headers = [(k.decode("latin-1"), v.decode("latin-1")) for k, v in request.scope["headers"]]
    path = request.scope["raw_path"].decode("latin-1").split("?")[0]
    query = request.scope["query_string"].decode("latin-1")
    base = hub.url or f"{request.url.scheme}://{request.headers.get('host', '')}"
    return Request(request.method, f"{base}{path}{'?' + query if query else ''}", headers, body)


async def _verified(hub: Hub, request: Any, most: int) -> _Asked:
    asked = _said(hub, request)
    if hub.doors.key_of(claimed(asked).keyid) is None:  # before a stranger's body is read; in as much time as another's
        verify(asked, None, now=time.time())
    body = await _body(request, most)
    whole = Request(asked.method, asked.url, asked.headers, body)
    return _Asked(hub.doors.admit(whole, write=request.method != "GET").keyid, body, request)


async def _body(request: Any, most: int) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > most:
        raise Refused(413, f"A body must have at most {most} bytes here.", most=most)
    got, stream = bytearray(), request.stream().__aiter__()
    while True:
        try:
            got += await asyncio.wait_for(anext(stream), SILENCE)
        except StopAsyncIteration:
            return bytes(got)
        except TimeoutError:
            raise Refused(408, "Nothing came for too long.") from None
        except Exception as gone:
            if type(gone).__name__ != "ClientDisconnect":
                raise
            raise Refused(400, "The request was cut.") from None
        if len(got) > most:
            raise Refused(413, f"A body must have at most {most} bytes here.", most=most)


async def _recipe(hub: Hub, asked: _Asked) -> Any:
    if hub.current is None or asked.who not in hub.current.roster:
        raise Refused(404, "There is no run in which you take part.")
    return _json(200, {"run": hub.current.run, "recipe": hub.current.recipe})


async def _tasks(hub: Hub, asked: _Asked) -> Any:
    """The oldest question, as soon as there is one. A newer poll of the same party ends this one."""
    event, who = asyncio.Event(), asked.who
    if older := hub.polls.get(who):
        older.set()
    hub.polls[who] = event
    ends = time.monotonic() + _seconds(asked.request.query_params.get("wait", ""))
    try:
        while True:
            event.clear()  # before the look: what comes after it wakes
            if (now := hub.current) is not None and now.over:
                hub.told.add(who)
                return _bytes(_end(hub, who, now.run))
            if now is not None and (found := hub.box.waiting(now.run, who)) is not None:
                return _bytes(_packet(hub, *found))
            left = ends - time.monotonic()
            if left <= 0 or hub.closing or hub.polls.get(who) is not event:
                return _bytes(b"", 204)
            try:
                await asyncio.wait_for(event.wait(), left)
            except TimeoutError:
                continue
    finally:
        if hub.polls.get(who) is event:
            del hub.polls[who]


def _seconds(said: str) -> float:
    return min(WAIT, float(said)) if said.isdecimal() and len(said) < 5 else WAIT


def _packet(hub: Hub, sha: str, head: bytes) -> bytes:
    body = hub.box.body(sha) or b""
    return packets.joined(head, packets.Ref(sha, len(body), ""), body)


def _end(hub: Hub, who: str, run: str) -> bytes:
    """Signed: the run is over."""
    from comity.core.contribution import Contribution
    from comity.core.envelope import Envelope
    from comity.core.round import Round
    from comity.core.wire import encode

    body = encode(Contribution("over", None))
    head, ref = packets.header(Envelope(Round(run, 0, me=who), "over", "hub", "", Contribution("over", None)), body,
                               secret=hub.identity)  # fmt: skip
    return packets.joined(head, ref, body)


def _sha(asked: _Asked) -> str:
    sha: str = asked.request.path_params["sha"]
    if not packets.is_sha(sha):
        raise Refused(404, "There is no such body.")
    return sha


async def _blob(hub: Hub, asked: _Asked) -> Any:
    from starlette.responses import FileResponse

    sha = _sha(asked)
    path = hub.blobs.given(sha) if hub.box.may_read(asked.who, sha) else None
    if path is None:
        raise Refused(404, "There is no such body.")
    hub.arrived(False)
    answer = FileResponse(path, media_type=TYPE)
    answer.chunk_size = 2**20
    return answer


async def _offset(hub: Hub, asked: _Asked) -> Any:
    return _json(200, {"offset": hub.blobs.offset(asked.who, _sha(asked))})


async def _upload(hub: Hub, asked: _Asked) -> Any:
    sha, said = _sha(asked), asked.request.headers
    at, total = said.get("upload-offset", ""), said.get("upload-length", "")
    if not all(x.isascii() and x.isdecimal() and len(x) < 16 for x in (at, total)):
        raise Refused(400, "Upload-Offset and Upload-Length must be given.")
    if int(total) > hub.most:
        raise Refused(413, f"An answer must have at most {hub.most} bytes.", most=hub.most)
    if hub.current is None:
        raise Refused(503, "The run has not begun.")
    if hub.box.waiting(hub.current.run, asked.who) is None:
        raise Refused(409, "You are not asked anything.")
    from starlette.concurrency import run_in_threadpool

    try:
        now = await run_in_threadpool(hub.blobs.add, asked.who, sha, int(at), int(total), asked.body)
    except Offset as there:
        raise Refused(409, "These bytes do not follow those that are there.", offset=there.at) from None
    except LedgerError as error:
        raise Refused(422, str(error), offset=0) from None
    hub.arrived(False)
    return _bytes(b"", 201 if now == int(total) else 204)


async def _reply(hub: Hub, asked: _Asked) -> Any:
    packet = packets.read(asked.body)
    said, who = packet.said, asked.who
    if (said.sender, said.round.me) != (who, who):
        raise Refused(403, "An answer must be the sender's own.")
    if packet.body is None and hub.blobs.size(who, packet.ref.sha) != packet.ref.size:
        raise Refused(409, "Send the body first.", missing=True)
    if hub.current is None:
        raise Refused(503, "The run has not begun.")
    if hub.current.recipe["hash"] != said.recipe:
        raise Refused(409, "This hub runs another recipe.")
    r = said.round
    if not (0 <= r.number < 2**63 and 0 <= r.attempt < 2**63):
        raise Refused(409, _WHY["unknown"])
    turn = (r.run, r.number, r.attempt, r.hub, said.phase)
    reply = Reply(packet.ref.sha, asked.body)
    outcome = hub.box.commit(turn, who, packet.ref.asked, reply)
    if outcome not in ("accepted", "duplicate"):
        raise Refused(409, _WHY[outcome])
    hub.arrived(True)
    return _json(200, {"outcome": outcome})


_WHY = {
    "late": "No more answers to this are taken.",
    "answered": "This was answered before, with something else.",
    "unknown": "You were not asked this.",
}
