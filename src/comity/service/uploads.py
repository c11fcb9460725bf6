"""Large bodies: what a party is asked, by Range; what it answers, in one piece or in chunks, from where it was cut.

The whole in one request is written as it arrives: its digest, which is signed, is its name, and is compared once all
is there. A chunk is held until its own digest is compared.
"""

from typing import Any

from comity.core.errors import LedgerError
from comity.ledger.blobs import Offset
from comity.service import packets
from comity.service.hub import (
    CHUNK,
    LATER,
    TYPE,
    Asked,
    Extra,
    Hub,
    Refused,
    admitted,
    answer_bytes,
    answer_json,
    full,
    pieces,
    received,
)
from comity.service.signatures import named_digest

PIECE, BLOCK = 2**20, 2**22
"""Bytes that are read from a file at once, and that are written to one."""


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
    """An upload, or its next chunk."""
    from starlette.concurrency import run_in_threadpool

    sha, (at, total) = _sha(asked), declared(hub, asked.request)
    name, heads = named_digest(sha), asked.request.headers
    whole = not at and (heads.get("content-length"), heads.get("content-digest")) == (str(total), name)
    asked = await admitted(hub, asked, name) if whole else await received(hub, asked, CHUNK)
    if not await hub.off(hub.box.asks, asked.who):
        raise Refused(409, "You are not asked anything.")
    if not at:
        counted = await hub.off(hub.box.answers, asked.who)
        await run_in_threadpool(hub.blobs.tidy, asked.who, counted)
    try:
        if whole:
            now = await _streamed(hub, asked, sha, total)
        else:
            now = await run_in_threadpool(hub.blobs.add, asked.who, sha, at, total, asked.body)
    except Offset as there:
        raise Refused(409, "These bytes do not follow those that are there.", offset=there.at) from None
    except LedgerError as error:
        if full(error):
            raise
        raise Refused(422, str(error), offset=0) from None
    hub.arrived(False)
    return answer_bytes(b"", 201 if now == total else 204)


async def _streamed(hub: Hub, asked: Asked, sha: str, total: int) -> int:
    """Written as it comes; where it is cut, what came is kept."""
    from starlette.concurrency import run_in_threadpool

    at, block = 0, bytearray()
    with hub.carrying(asked.who, min(total, BLOCK)):
        try:
            async for piece in pieces(asked.request, total, lambda: hub.arrived(False)):
                block += piece
                if len(block) >= BLOCK:
                    at = await run_in_threadpool(hub.blobs.add, asked.who, sha, at, total, block)
                    block = bytearray()
        except Refused:
            if block:
                await run_in_threadpool(hub.blobs.add, asked.who, sha, at, total, block)
            raise
        if not block and at == total != 0:
            return at
        return await run_in_threadpool(hub.blobs.add, asked.who, sha, at, total, block)


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
    ("/v1/upload/{sha}", "PUT", upload, LATER),
)
