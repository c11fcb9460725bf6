"""What is done from a page: wishes for a run, approvals, logging in and out."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from comity.core.errors import ConfigError
from comity.service.pages import guard
from comity.service.pages.guard import Denied
from comity.service.pages.rendering import static
from comity.service.pages.sessions import Who, same
from comity.service.pages.site import NOWHERE, Site, thread

OLD = "A link logs in once, within ten minutes. Ask for another."


def wish(wish: Any, site: Site, request: Any, who: Who, fields: Mapping[str, str]) -> str:
    """An operator wishes something of a run."""
    row = site.run(request, who)
    site.station.runs.wish(row.run, wish, who.name)
    return _back(row.run)


def party(approve: bool, site: Site, request: Any, who: Who, fields: Mapping[str, str]) -> str:
    """Approve or deny a party that waits, with the key that was shown."""
    from comity.service.keys import same_fingerprint

    name, registry = fields.get("name", ""), site.station.registry
    party = registry.party(name)
    if party is None or party.key is None or party.status != "waiting":
        raise Denied(
            409, "Not done.", "A party must be waiting for this. It is not, or no longer. Open the page again."
        )
    if not same_fingerprint(fields.get("key", ""), party.key):
        raise Denied(409, "Not done.", "The key must be the one that was shown. It is another. Compare it again.")
    if approve and fields.get("compared") != "yes":
        raise Denied(400, "Not compared.", "The fingerprint must be compared first. Tick the box when it is the same.")
    site.sessions.note(f"{'approves' if approve else 'denies'} {name}", who)
    registry.approve(name, party.key) if approve else registry.remove(name)
    run = fields.get("back", "")
    return _back(run) if run and site.station.runs.find(run) is not None else "/"


def _back(run: str) -> str:
    """To the page of a run: never anywhere else."""
    return f"/runs/{quote(run, safe='')}"


async def how(site: Site, request: Any) -> Any:
    """How to log in."""
    return site.page(request, "login.html.j2", None, link=None, secret="")


async def link(site: Site, request: Any) -> Any:
    """Somebody follows a link: it is used up by the button, not by looking."""
    secret = request.path_params["secret"]
    found = await thread(site.sessions.offered, secret)
    if found is None:
        raise Denied(410, "This link no longer works.", OLD)
    return site.page(request, "login.html.j2", None, link=found, secret=secret)


async def enter(site: Site, request: Any) -> Any:
    """A link becomes a session."""
    from starlette.responses import RedirectResponse

    url = guard.origin(site.station, request)
    guard.check_origin(url, request)
    cookie = await thread(site.sessions.redeem, (await guard.form(request)).get("link", ""))
    if cookie is None:
        raise Denied(410, "This link no longer works.", OLD)
    answer = RedirectResponse("/", 303)
    guard.remember(answer, url, cookie)
    return answer


async def leave(site: Site, request: Any) -> Any:
    """A session ends."""
    from starlette.responses import RedirectResponse

    url = guard.origin(site.station, request)
    guard.check_origin(url, request)
    fields = await guard.form(request)
    who = await thread(guard.who_asks, site.sessions, url, request)
    if who is not None and same(who.token, fields.get("token", "")):
        await thread(site.sessions.end, request.cookies.get(guard.cookie_name(url), ""))
    answer = RedirectResponse("/login", 303)
    guard.remember(answer, url, "")
    return answer


async def given(site: Site, request: Any) -> Any:
    """A file that goes with every page."""
    from starlette.responses import Response

    found = static().get(request.path_params["name"])
    if found is None:
        raise Denied(404, "Nothing here.", NOWHERE)
    return Response(found[0], 200, {"Cache-Control": "public, max-age=31536000, immutable"}, media_type=found[1])


async def signed(site: Site, hub: Any, asked: Any) -> Any:
    """A link for a party, an auditor or an operator whose key the registry knows."""
    from comity.service.hub import answer_json

    def made() -> tuple[str, str]:
        party = site.station.registry.party(asked.who)
        role = party.roles[0]
        return role, site.sessions.link(asked.who, role, source="key")

    try:
        role, secret = await thread(made)
    except ConfigError as error:
        return answer_json(409, {"reason": str(error)})
    return answer_json(200, {"path": f"/login/{secret}", "role": role})
