"""What stands before every page: who asks, whether it comes from a page of this hub, and what the browser may do."""

import asyncio
import base64
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

from comity.service.pages.sessions import SESSION, Sessions, Who, same

MOST, PATIENCE = 65536, 20.0
"""Bytes of a form at most, and seconds in which it comes: whoever sends it may not be logged in."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # "no-referrer" would take the Origin away from the forms
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}
FILE = {"Content-Security-Policy": "default-src 'none'; sandbox"}
"""What is taken away is never shown as a page of the hub."""


class Denied(Exception):
    """A request that is not answered with what it asks for: status, and what must hold."""

    def __init__(self, status: int, head: str, text: str) -> None:
        super().__init__(text)
        self.status, self.head = status, head


def guarded(answer: Any, more: Mapping[str, str] | None = None) -> Any:
    """An answer with the headers that every one has; what it says of itself stays."""
    for name, value in {**HEADERS, **(more or {})}.items():
        answer.headers.setdefault(name, value)
    return answer


def origin(station: Any, request: Any) -> str:
    """Where the pages of this hub are: from its settings, never from a request where they name it."""
    url = str(getattr(station, "url", "") or "")
    return url.rstrip("/") if url else f"{request.url.scheme}://{request.headers.get('host', '')}"


def cookie_name(url: str) -> str:
    """Under TLS the name is one that only this host may set."""
    return "__Host-comity" if url.startswith("https:") else "comity"


def remember(answer: Any, url: str, cookie: str) -> None:
    """Give the browser its session; an empty one takes it away."""
    more = {"max_age": int(SESSION) if cookie else 0, "httponly": True, "samesite": "strict", "path": "/"}
    answer.set_cookie(cookie_name(url), cookie, secure=url.startswith("https:"), **more)


def who_asks(sessions: Sessions, url: str, request: Any) -> Who | None:
    """Whose session it is."""
    return sessions.find(request.cookies.get(cookie_name(url), ""))


def check_origin(url: str, request: Any) -> None:
    """Refuse what another site made the browser send.

    Raises:
        Denied: it does not come from a page of this hub.
    """
    if request.headers.get("origin", "") != url:
        raise Denied(
            403, "Not from here.", f"This must be asked from a page of {url}. Open the page there, and try again."
        )


async def form(request: Any) -> dict[str, str]:
    """The fields of a form, each once.

    Raises:
        Denied: it is none, too long, or too slow.
    """
    got = bytearray()
    try:
        async with asyncio.timeout(PATIENCE):
            async for piece in request.stream():
                got += piece
                if len(got) > MOST:
                    raise Denied(413, "Too long.", f"A form must have at most {MOST} bytes.")
    except TimeoutError:
        raise Denied(408, "Too slow.", "A form must come at once. It did not. Try again.") from None
    try:
        fields = parse_qs(got.decode("utf-8"), keep_blank_values=True, max_num_fields=20)
    except ValueError:
        raise Denied(400, "Not understood.", "A form must be sent as the page sends it.") from None
    return {name: values[0] for name, values in fields.items()}


def check_act(who: Who | None, fields: Mapping[str, str]) -> Who:
    """Refuse whoever may not change anything.

    Raises:
        Denied: nobody is logged in, the form is of another session, or the role does not allow it.
    """
    if who is None:
        raise Denied(
            403, "Not logged in.", "Somebody must be logged in to do this. The session has ended. Log in again."
        )
    if not same(who.token, fields.get("token", "")):
        raise Denied(403, "An old form.", "The form must be of this session. Open the page again, and try again.")
    if not who.acts:
        raise Denied(403, "Not allowed.", f"Only an operator may do this. {who.name} is logged in as {who.role}.")
    return who


def named(data: bytes) -> str:
    """A short name for what a file holds."""
    from hashlib import sha256

    return base64.urlsafe_b64encode(sha256(data).digest()[:12]).decode()
