"""What guards a hub before a request is read: the size of headers, silent lines, versions, and answers that fail."""

import json
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from comity import __version__
from comity.service.enrolling import PROTOCOL

NAMED = "comity-protocol"
"""The header of every request and every answer that says which version of the routes is spoken."""
HEAD = 2**15
"""The most bytes of a request's head."""
_OWN = NAMED.encode()
_TOLD = {"reason": "The hub cannot do this now. Try again."}


class Guard:
    """An application whose answers carry the version, and are never a traceback."""

    def __init__(self, inner: Any) -> None:
        """Args: inner, the application."""
        self.inner = inner

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.inner(scope, receive, send)
            return None
        if sum(len(k) + len(v) + 4 for k, v in scope["headers"]) + len(scope["raw_path"]) > HEAD:
            return await _say(send, 431, {"reason": f"The head of a request must have at most {HEAD} bytes."})
        theirs = next((v for k, v in scope["headers"] if k == _OWN), None)
        if theirs is not None and theirs != str(PROTOCOL).encode():
            return await _say(send, 426, _other())
        return await self._answered(scope, receive, send)

    async def _answered(self, scope: Any, receive: Any, send: Any) -> None:
        begun = failed = False

        async def marked(message: Any) -> None:
            nonlocal begun, failed
            if message["type"] == "http.response.start":
                begun, failed = True, message["status"] == 500
                if failed:
                    return await _say(send, 503, _TOLD)
                message = {**message, "headers": [*message.get("headers", ()), (_OWN, str(PROTOCOL).encode())]}
            if not failed:
                await send(message)
            return None

        try:
            await self.inner(scope, receive, marked)
        except Exception as error:
            sys.stderr.write(f"hub: {type(error).__name__} in an answer\n")
            if begun and not failed:
                raise
            if not begun:
                await _say(send, 503, _TOLD)


def _other() -> dict[str, Any]:
    return {
        "reason": f"This hub speaks protocol {PROTOCOL} (comity {__version__}). Install a comity that speaks the same.",
        "hub": {"version": __version__, "protocol": PROTOCOL},
    }


async def _say(send: Callable[[Any], Awaitable[None]], status: int, told: dict[str, Any]) -> None:
    body = json.dumps(told).encode()
    named = {"content-type": "application/json", "content-length": str(len(body)), NAMED: str(PROTOCOL)}
    named |= {"retry-after": "2"} if status == 503 else {"connection": "close"}
    headers = [(k.encode(), v.encode()) for k, v in named.items()]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def protocol() -> Any:
    """How a line is read: by httptools where it is installed, its heads bounded; else by h11, which bounds them."""
    try:
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
    except ImportError:
        return "h11"

    class Line(HttpToolsProtocol):
        """One line of somebody who asks."""

        heading, head, since = True, 0, 0.0

        def connection_made(self, transport: Any) -> None:
            self.since = time.monotonic()
            super().connection_made(transport)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.heading:
                self.head += len(data)
                if self.head > HEAD and not self.transport.is_closing():
                    self.transport.write(b"HTTP/1.1 431 \r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
                    self.transport.close()

        def on_message_begin(self) -> None:
            self.heading, self.head, self.since = True, 0, time.monotonic()
            super().on_message_begin()

        def on_headers_complete(self) -> None:
            self.heading = False
            super().on_headers_complete()

    return Line


def hang_up(lines: Iterable[Any], silence: float) -> None:
    """Close those whose head has not come for too long."""
    now = time.monotonic()
    for line in tuple(lines):
        if getattr(line, "heading", False) and now - line.since > silence and line.transport is not None:
            line.transport.close()
