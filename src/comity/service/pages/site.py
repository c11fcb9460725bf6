"""What the routes of the pages share, and what stands around each of them."""

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from comity.core.errors import ComityError, ConfigError
from comity.service.pages import guard
from comity.service.pages.board import Boards
from comity.service.pages.front import sees
from comity.service.pages.guard import Denied, guarded
from comity.service.pages.live import Live
from comity.service.pages.rendering import render
from comity.service.pages.sessions import Sessions, Who
from comity.service.runs import RunRow

NOWHERE = "There is no such page, or it is not for you."


class Site:
    """What the routes share.

    Args:
        station: the hub: `registry`, `runs`, `box`, `url`.
    """

    def __init__(self, station: Any) -> None:
        """Nothing is kept but what was read."""
        self.station = station
        self.sessions, self.boards = Sessions(station.registry), Boards(station)
        self.live = Live(lambda: bool(getattr(station, "closing", False)))

    def run(self, request: Any, who: Who) -> RunRow:
        """The run that a path names.

        Raises:
            Denied: there is none, or it does not concern whoever asks.
        """
        row: RunRow | None = self.station.runs.find(request.path_params["run"])
        if row is None or not sees(row, who):
            raise Denied(404, "Nothing here.", NOWHERE)
        return row

    def page(self, request: Any, template: str, who: Who | None, status: int = 200, **shown: Any) -> Any:
        """A page."""
        from starlette.responses import HTMLResponse

        place = guard.origin(self.station, request).partition("://")[2]
        return HTMLResponse(render(template, who=who, now=time.time(), place=place, **shown), status)


def answered(site: Site, what: Callable[[Site, Any], Awaitable[Any]]) -> Callable[[Any], Awaitable[Any]]:
    """A route: whatever goes wrong is a short page, and every answer has the same headers."""

    async def answer(request: Any) -> Any:
        try:
            return guarded(await what(site, request))
        except Denied as no:
            return guarded(site.page(request, "message.html.j2", None, no.status, head=no.head, text=str(no)))
        except (ComityError, OSError) as error:
            status, more = (409, {}) if isinstance(error, ConfigError) else (503, {"Retry-After": "5"})
            head = "Not done." if status == 409 else "Not now."
            text = str(error) if status == 409 else "The hub cannot read its database now. Try again."
            return guarded(site.page(request, "message.html.j2", None, status, head=head, text=text), more)

    return answer


async def thread(do: Callable[..., Any], *given: Any) -> Any:
    """Beside the loop, which others wait for."""
    from starlette.concurrency import run_in_threadpool

    return await run_in_threadpool(do, *given)


async def looked(what: Callable[[Site, Any, Who], Any], site: Site, request: Any) -> Any:
    """A page for somebody who is logged in; others are told how to."""
    from starlette.responses import RedirectResponse

    url = guard.origin(site.station, request)
    who = await thread(guard.who_asks, site.sessions, url, request)
    if who is None:
        return RedirectResponse("/login", 303)
    return await thread(what, site, request, who)


async def acted(what: Callable[[Site, Any, Who, Mapping[str, str]], str], site: Site, request: Any) -> Any:
    """Something is done, then the page is shown again."""
    from starlette.responses import RedirectResponse

    url = guard.origin(site.station, request)
    guard.check_origin(url, request)
    fields = await guard.form(request)
    who = guard.check_act(await thread(guard.who_asks, site.sessions, url, request), fields)
    return RedirectResponse(await thread(what, site, request, who, fields), 303)
