"""What can be taken away from a run: recipe, ledger, report, model."""

import json
from typing import Any

from comity.ledger import copies
from comity.ledger.peek import peek
from comity.service.pages import guard
from comity.service.pages.board import report_of
from comity.service.pages.guard import Denied
from comity.service.pages.sessions import Who
from comity.service.pages.site import Site
from comity.service.runs import RunRow


def recipe(site: Site, request: Any, who: Who) -> Any:
    """What was agreed to."""
    row = site.run(request, who)
    return _file(json.dumps(row.recipe, indent=2, sort_keys=True).encode(), f"{_plain(row)}-recipe.json")


def ledger(site: Site, request: Any, who: Who) -> Any:
    """The ledger as a site keeps its copy: a line for each entry."""
    row = site.run(request, who)
    read = site.boards.readings.of(row.folder)
    rows = (json.dumps(copies.line_of(entry), sort_keys=True) + "\n" for entry in read.entries)
    return _file("".join(rows).encode(), f"{_plain(row)}-ledger.jsonl", "application/x-ndjson")


def report(site: Site, request: Any, who: Who) -> Any:
    """The page of a comparison."""
    row = site.run(request, who)
    path = report_of(row)
    if path is None:
        raise Denied(404, "Nothing here.", "There is no report. A comparison writes one at its end.")
    return _file(path.read_bytes(), f"{_plain(row)}-report.html", "text/html")


def state(site: Site, request: Any, who: Who) -> Any:
    """What the hub has learnt, as it keeps it."""
    row = site.run(request, who)
    if not who.all:
        raise Denied(403, "Not for you.", "A party has the model that it was given. This one is for operators.")
    name = request.path_params["name"]
    seen = peek(row.folder) if row.folder else None
    if seen is None or name not in seen.files:
        raise Denied(404, "Nothing here.", "There is no such model.")
    return _file(seen.state(name), f"{_plain(row)}-{name}.state", "application/octet-stream")


def _plain(row: RunRow) -> str:
    """A name for files, of a run."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in row.title or row.run)
    return kept.strip("-")[:60] or "run"


def _file(data: bytes, name: str, kind: str = "application/json") -> Any:
    from starlette.responses import Response

    return Response(data, 200, {"Content-Disposition": f'attachment; filename="{name}"', **guard.FILE}, media_type=kind)
