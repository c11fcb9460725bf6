"""The routes of the pages.

    GET  /                            all runs; who asks to join; parties         everybody, each what concerns it
    GET  /runs/RUN                    one run: progress, parties, curve, budget, ledger
    GET  /runs/RUN/live, /live        the same as server-sent events
    GET  /runs/RUN/entries?before=N   the ledger, a page of it
    GET  /runs/RUN/audit              is everything whole?                        operator, auditor
    GET  /runs/RUN/recipe.json, ledger.jsonl, report.html
    GET  /runs/RUN/state/NAME         the model                                   operator, auditor
    POST /runs/RUN/pause, resume, stop                                            operator
    POST /parties/approve, /parties/deny                                          operator
    GET  /log?before=N                what was done                               operator, auditor
    GET  /login, /login/SECRET; POST /login, /logout
    POST /v1/login                    a link for the party that signed for it

Only a POST changes anything, and only with a session, the token of its forms, and an Origin of this hub. What is shown
comes from the database and the ledgers: any process of the hub shows the same.
"""

from functools import partial
from typing import Any

from comity.service.pages import done, shown, taken
from comity.service.pages.rendering import render
from comity.service.pages.site import Site, acted, answered, looked

ASKS = 256
"""Bytes of a request to log in, at most."""
WISHES = {"pause": "pause", "resume": "go", "stop": "stop", "stop-now": "stop now"}


def pages(station: Any) -> list[Any]:
    """The routes of the pages, for the application of a hub.

    Args:
        station: has `registry`, `runs`, `box` and `url`; "" for the Host of each request.

    Returns:
        Routes of starlette, and one for parties that sign (path, method, handler, bytes at most).

    Raises:
        ConfigError: starlette or jinja2 is not installed.
    """
    from comity.service.helper import library

    site, lib = Site(station), library()
    looks = {
        "/": shown.all_runs,
        "/live": shown.all_live,
        "/log": shown.log,
        "/runs/{run}": shown.one_run,
        "/runs/{run}/live": shown.one_live,
        "/runs/{run}/entries": shown.entries,
        "/runs/{run}/audit": shown.audited,
        "/runs/{run}/recipe.json": taken.recipe,
        "/runs/{run}/ledger.jsonl": taken.ledger,
        "/runs/{run}/report.html": taken.report,
        "/runs/{run}/state/{name}": taken.state,
    }
    acts = {f"/runs/{{run}}/{word}": partial(done.wish, wish) for word, wish in WISHES.items()}
    acts |= {"/parties/approve": partial(done.party, True), "/parties/deny": partial(done.party, False)}
    routes = [lib.route(p, answered(site, partial(looked, what)), methods=["GET"]) for p, what in looks.items()]
    routes += [lib.route(p, answered(site, partial(acted, what)), methods=["POST"]) for p, what in acts.items()]
    plain = (("/login", "GET", done.how), ("/login/{secret}", "GET", done.link), ("/login", "POST", done.enter),
             ("/logout", "POST", done.leave), ("/static/{name}", "GET", done.given))  # fmt: skip
    routes += [lib.route(p, answered(site, what), methods=[verb]) for p, verb, what in plain]
    render("message.html.j2", who=None, now=0.0, place="", head="", text="")  # what is missing is missed now
    return [*routes, ("/v1/login", "POST", partial(done.signed, site), ASKS)]
