"""What changes is told to those who watch: server-sent events, one look a second for all who watch the same."""

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from comity.core.errors import ComityError
from comity.service.pages.sessions import Who

MOST, EACH, EVERY, BEAT = 128, 8, 1.0, 10.0
"""Streams at once, streams of one name, seconds between looks, and seconds after which the line is shown to be open."""


class Live:
    """The streams of one process.

    Args:
        closing: is the hub about to end?
        most: streams at once.
        every: seconds between two looks at the database for one thing that is watched.
    """

    def __init__(self, closing: Callable[[], bool], *, most: int = MOST, every: float = EVERY) -> None:
        """Nobody watches."""
        self._closing, self.most, self.every = closing, most, every
        self._watches: dict[str, _Watch] = {}
        self._streams: dict[str, int] = {}

    def room(self, who: Who) -> bool:
        """Is there room for one more stream?"""
        return sum(self._streams.values()) < self.most and self._streams.get(who.name, 0) < EACH

    async def stream(
        self,
        key: str,
        who: Who,
        *,
        look: Callable[[], Any],
        parts: Callable[[Any, Who], Mapping[str, str]],
        still: Callable[[], bool],
    ) -> AsyncIterator[bytes]:
        """The events for one watcher.

        Args:
            key: what is watched: those with the same key share one `look`.
            who: watches.
            look: gives what there is; None ends the stream.
            parts: gives HTML by name, for a role; `who.token` in it is replaced by the watcher's own.
            still: may the watcher still see it?
        """
        self._streams[who.name] = self._streams.get(who.name, 0) + 1
        watch = self._watches.get(key) or _Watch(look, self.every)
        self._watches[key] = watch
        try:
            async for event in self._events(watch.joined(), who, parts, still):
                yield event
        finally:
            self._streams[who.name] -= 1
            if not self._streams[who.name]:
                del self._streams[who.name]
            if watch.left() and self._watches.get(key) is watch:
                del self._watches[key]

    async def _events(
        self,
        watch: "_Watch",
        who: Who,
        parts: Callable[[Any, Who], Mapping[str, str]],
        still: Callable[[], bool],
    ) -> AsyncIterator[bytes]:
        sent: dict[str, str] = {}
        version, beat = 0, 0.0
        yield b"retry: 3000\n\n"
        while not self._closing():
            if time.monotonic() - beat >= BEAT:
                beat = time.monotonic()
                if not await _thread(still):
                    yield _event("end", "")
                    return
                yield _event("now", f"{time.time():.3f}")
            if watch.version != version:
                version, shown = watch.version, await watch.rendered(who, parts)
                new = {name: html for name, html in shown.items() if sent.get(name) != html}
                sent |= new
                if new:
                    yield _event("parts", json.dumps(new))
                if watch.over:
                    yield _event("done", "")
                    return
            await watch.news(version, 1.0)


class _Watch:
    """One thing that is watched by some."""

    def __init__(self, look: Callable[[], Any], every: float) -> None:
        self._look, self._every = look, every
        self.version, self.over = 0, False
        self._shown: Any = None
        self._count = 0
        self._rendered: dict[tuple[str, str], asyncio.Task[Mapping[str, str]]] = {}
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._token = secrets.token_hex(16)  # nobody who names himself can know it

    def joined(self) -> "_Watch":
        """One more."""
        self._count += 1
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._poll())
        return self

    def left(self) -> bool:
        """One less. Returns: was it the last?"""
        self._count -= 1
        if self._count == 0 and self._task is not None:
            self._task.cancel()
        return self._count == 0

    async def news(self, version: int, seconds: float) -> None:
        """Until there is something newer."""
        if self.version == version:
            try:
                await asyncio.wait_for(self._changed.wait(), seconds)
            except TimeoutError:
                return

    async def rendered(self, who: Who, parts: Callable[[Any, Who], Mapping[str, str]]) -> Mapping[str, str]:
        """What one who watches is shown, made once for all to whom the same is shown."""
        key = (who.role, who.name if not who.all else "")
        if key not in self._rendered:
            blank = Who(who.name, who.role, self._token)
            self._rendered[key] = asyncio.create_task(_thread(parts, self._shown, blank))
        shown = await asyncio.shield(self._rendered[key])
        return {name: html.replace(self._token, who.token) for name, html in shown.items()}

    async def _poll(self) -> None:
        while not self.over:
            try:
                now = await _thread(self._look)
            except (ComityError, OSError):  # the database is away: what was shown stays
                now = self._shown
            if now != self._shown or (now is None and not self.version):
                self._shown, self._rendered = now, {}
                self.version += 1
                self.over = now is None or not getattr(now, "live", True)
                self._changed.set()
                self._changed = asyncio.Event()
            await asyncio.sleep(self._every)


async def _thread(do: Callable[..., Any], *given: Any) -> Any:
    from starlette.concurrency import run_in_threadpool

    return await run_in_threadpool(do, *given)


def _event(name: str, data: str) -> bytes:
    """One event; its data has no line breaks."""
    return f"event: {name}\ndata: {data}\n\n".encode()
