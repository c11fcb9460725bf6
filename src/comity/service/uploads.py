"""Large bodies: what a party is asked, by Range; what it answers, in chunks that go on where they were cut."""

from typing import Any

from comity.core.errors import LedgerError
from comity.ledger.blobs import Offset
from comity.service import packets
from comity.service.hub import CHUNK, TYPE, Asked, Extra, Hub, Refused, answer_bytes, answer_json, full

PIECE = 2**20


async def blob(hub: Hub, asked: Asked) -> Any:
    """What the asker is asked."""
    from starlette.concurrency import run_in_threadpool
    from starlette.responses import FileResponse

    sha = _sha(asked)
    path = await run_in_threadpool(hub.blobs.given, sha) if await hub.off(hub.box.may_read, asked.who, sha) else None
    if path is None:
        raise Refused(404, "There is no such body.")
    hub.arrived(False)
    answer = FileResponse(path, media_type=TYPE)
    answer.chunk_size = PIECE
    return answer


async def offset(hub: Hub, asked: Asked) -> Any:
    """How much of an upload is there."""
    from starlette.concurrency import run_in_threadpool

    return answer_json(200, {"offset": await run_in_threadpool(hub.blobs.offset, asked.who, _sha(asked))})


async def upload(hub: Hub, asked: Asked) -> Any:
    """The next chunk of an upload."""
    from starlette.concurrency import run_in_threadpool

    sha, (at, total) = _sha(asked), declared(hub, asked.request)
    if not await hub.off(hub.box.asks, asked.who):
        raise Refused(409, "You are not asked anything.")
    if not at:
        counted = await hub.off(hub.box.answers, asked.who)
        await run_in_threadpool(hub.blobs.tidy, asked.who, counted)
    try:
        now = await run_in_threadpool(hub.blobs.add, asked.who, sha, at, total, asked.body)
    except Offset as there:
        raise Refused(409, "These bytes do not follow those that are there.", offset=there.at) from None
    except LedgerError as error:
        if full(error):
            raise
        raise Refused(422, str(error), offset=0) from None
    hub.arrived(False)
    return answer_bytes(b"", 201 if now == total else 204)


def declared(hub: Hub, request: Any) -> tuple[int, int]:
    """Where a chunk belongs, and the bytes of the whole.

    Raises:
        Refused: they are not said, or it is too much.
    """
    at, total = (request.headers.get(name, "") for name in ("upload-offset", "upload-length"))
    if not all(x.isascii() and x.isdecimal() and len(x) < 16 for x in (at, total)):
        raise Refused(400, "Upload-Offset and Upload-Length must be given.")
    if int(total) > hub.most:
        raise Refused(413, f"An answer must have at most {hub.most} bytes.", most=hub.most)
    return int(at), int(total)


def _sha(asked: Asked) -> str:
    sha: str = asked.request.path_params["sha"]
    if not packets.is_sha(sha):
        raise Refused(404, "There is no such body.")
    return sha


ROUTES: tuple[Extra, ...] = (
    ("/v1/blob/{sha}", "GET", blob, 0),
    ("/v1/upload/{sha}", "GET", offset, 0),
    ("/v1/upload/{sha}", "PUT", upload, CHUNK),
)
