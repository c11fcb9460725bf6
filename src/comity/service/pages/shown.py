"""The pages that are looked at, and the same as events while they are open."""

import time
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from comity.ledger.audit import audit
from comity.service.pages import guard
from comity.service.pages.board import Board, seen_by, title_of
from comity.service.pages.front import Front, front
from comity.service.pages.guard import Denied
from comity.service.pages.lines import line
from comity.service.pages.rendering import render
from comity.service.pages.sessions import Who
from comity.service.pages.site import Site

LEAF = 100
"""Entries of a page of the ledger, and of the audit log."""
PARTS = ("head", "notice", "stop", "parties", "learning", "asking", "budget", "files", "ledger")
_Parts: TypeAlias = Callable[[Any, Who], Mapping[str, str]]
FRONT = {"asking": "everyone_asking", "runs": "runs", "people": "people"}


def all_runs(site: Site, request: Any, who: Who) -> Any:
    """All runs, who asks to join, and the parties."""
    return site.page(request, "runs.html.j2", who, f=front(site.station, site.boards, who))


def one_run(site: Site, request: Any, who: Who) -> Any:
    """One run."""
    board = seen_by(site.boards.of(site.run(request, who)), who)
    return site.page(request, "run.html.j2", who, b=board)


def all_live(site: Site, request: Any, who: Who) -> Any:
    """All runs, as events."""

    def parts(shown: Front, who: Who) -> dict[str, str]:
        named = FRONT if who.all else {"runs": "runs"}
        return {n: render(f"parts/{t}.html.j2", f=shown, who=who, now=time.time()) for n, t in named.items()}

    key = "" if who.all else f"party {who.name}"
    return _streamed(site, request, who, key=key, look=lambda: front(site.station, site.boards, who), parts=parts)


def one_live(site: Site, request: Any, who: Who) -> Any:
    """One run, as events."""
    row = site.run(request, who)

    def look() -> Board | None:
        now = site.station.runs.find(row.run)
        return None if now is None else site.boards.of(now)

    def parts(shown: Board | None, who: Who) -> dict[str, str]:
        if shown is None:
            return {}
        own = seen_by(shown, who)
        return {n: render(f"parts/{n}.html.j2", b=own, who=who, now=time.time()) for n in PARTS}

    return _streamed(site, request, who, key=f"run {row.run}", look=look, parts=parts)


def _streamed(site: Site, request: Any, who: Who, *, key: str, look: Callable[[], Any], parts: _Parts) -> Any:
    from starlette.responses import Response, StreamingResponse

    if not site.live.room(who):
        return Response("Too many watch. The page works by reloading.", 503, {"Retry-After": "30"})
    url = guard.origin(site.station, request)

    def still() -> bool:
        return guard.who_asks(site.sessions, url, request) == who

    stream = site.live.stream(key, who, look=look, parts=parts, still=still)
    return StreamingResponse(stream, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})


def _before(request: Any, most: int) -> int:
    """Up to which number a page goes."""
    said = request.query_params.get("before", "")
    return min(most, int(said)) if said.isascii() and said.isdecimal() and len(said) < 10 and int(said) else most


def _turned(total: int, end: int, here: str) -> dict[str, Any]:
    """The links to the pages before and after one."""
    newer = None if end >= total else (0 if end + LEAF >= total else end + LEAF)
    return {"older": max(0, end - LEAF), "newer": newer, "here": here}


def entries(site: Site, request: Any, who: Who) -> Any:
    """The ledger of a run, a page of it."""
    row = site.run(request, who)
    read = site.boards.readings.of(row.folder)
    end = _before(request, len(read.entries))
    rows = [line(e) for e in reversed(read.entries[max(0, end - LEAF) : end])]
    shown = {"row": row, "title": title_of(row), "fault": read.fault, "entries": len(read.entries)}
    turn = _turned(len(read.entries), end, f"/runs/{request.path_params['run']}/entries")
    return site.page(request, "entries.html.j2", who, b={**shown, "lines": rows}, **turn)


def log(site: Site, request: Any, who: Who) -> Any:
    """What was done at this hub."""
    if not who.all:
        raise Denied(403, "Not for you.", f"The audit log is for operators and auditors. {who.name} is {who.role}.")
    total, rows = site.sessions.log(_before(request, 10**9), LEAF)
    return site.page(request, "log.html.j2", who, rows=rows, **_turned(total, rows[0]["number"] if rows else 0, "/log"))


def audited(site: Site, request: Any, who: Who) -> Any:
    """Is everything whole?"""
    row = site.run(request, who)
    if not who.all:
        raise Denied(403, "Not for you.", "A party audits its own copy of the ledger: comity audit FOLDER.")
    read = site.boards.readings.of(row.folder)
    if not read.entries:
        raise Denied(404, "Nothing here.", "There is no ledger yet. It begins with the first round.")
    heads = site.station.runs.heads(row.run)
    known = {e.number: e.hash for e in read.entries}
    held = [{"name": n, "entries": h.entries, "head": h.head, "time": h.time,
             "fits": not h.entries or known.get(h.entries) == h.head} for n, h in heads.items()]  # fmt: skip
    shown = {"row": row, "title": title_of(row)}
    return site.page(request, "audit.html.j2", who, b=shown, a=audit(row.folder), copies=held)
