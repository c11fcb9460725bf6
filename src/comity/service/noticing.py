"""What a hub says of itself while it runs: who joined, who agreed, how runs stand, whether its database is there.

It looks at the database once a second, so that what other processes, the pages and the command did is said as well.
"""

import threading
from contextlib import suppress
from typing import Any

import sqlalchemy as sa

from comity.core.errors import ComityError
from comity.service.logs import Log
from comity.service.parties import AUDIT
from comity.service.runs import ENDED, R, RunRow, Runs

LOOK = 1.0
"""Seconds between looks."""


class Noticed(threading.Thread):
    """Says who joined, who agreed, and how runs stand: what other processes, and the pages, did as well.

    Args:
        registry: of the hub.
        runs: of the hub.
        log: is told.
    """

    def __init__(self, registry: Any, runs: Runs, log: Log) -> None:
        super().__init__(name="comity notices", daemon=True)
        self._registry, self._runs, self._log = registry, runs, log
        self._ended = threading.Event()
        self._audit = len(registry.audit())
        self._agreed = {row.run: set(runs.agreements(row.run)) for row in runs.all() if row.live}
        self._states = {row.run: row.state for row in runs.all() if not row.live}
        self._away = False

    def run(self) -> None:
        """Look once a second."""
        while not self._ended.wait(LOOK):
            try:
                self.look()
                self._back(True)
            except (ComityError, OSError):
                self._back(False)

    def close(self) -> None:
        """Look once more, and then no more."""
        self._ended.set()
        if self.is_alive():
            self.join(5.0)
        with suppress(ComityError, OSError):
            self.look()

    def look(self) -> None:
        """Say what is new. What has not changed is not read."""
        with self._registry.db.reading() as db:
            count = int(db.scalar(sa.select(sa.func.count()).select_from(AUDIT)) or 0)
            now = {row.run: row.state for row in db.execute(sa.select(R.run, R.state).order_by(R.id))}
        if count > self._audit:
            for _, what, name, key in self._registry.audit()[self._audit :]:
                shown = f"   key sha256 {key[:16]}..." if key else ""
                self._log("audit", _WORDS.get(what, "{name}: {what}.").format(name=name, what=what) + shown,
                          {"what": what, "name": name, "key": key})  # fmt: skip
        self._audit = count
        for run, state in now.items():
            if (state != self._states.get(run) or state not in ENDED) and (row := self._runs.find(run)) is not None:
                self._run(row)

    def _run(self, row: RunRow) -> None:
        title, facts = row.title or row.run, {"run": row.run, "title": row.title}
        if self._states.get(row.run) != row.state:
            self._states[row.run] = row.state
            with_whom = f" with {', '.join(row.roster)}" if row.state == "running" and row.roster else ""
            why = f": {row.why}" if row.why else ""
            text = f"{title}: {_STATES[row.state].format(n=row.minimum)}{with_whom}{why}"
            self._log("state", text, {**facts, "state": row.state, "why": row.why})
        if row.live:
            agreed, known = set(self._runs.agreements(row.run)), self._agreed.setdefault(row.run, set())
            for name in sorted(agreed - known):
                text = f"{title}: {name} agreed ({len(agreed)} of {row.minimum} that it waits for)"
                self._log("agreed", text, {**facts, "party": name})
            known |= agreed

    def _back(self, there: bool) -> None:
        if there == self._away:
            self._away = not there
            text = "The database answers again." if there else "The database does not answer. The hub waits for it."
            self._log("database", text, {"up": there}, level="info" if there else "error")


_STATES = {
    "gathering": "waits until {n} have agreed",
    "running": "runs",
    "paused": "paused",
    "over": "is over",
    "stopped": "stopped",
    "failed": "failed",
}
_WORDS = {
    "invited": "{name} was invited.",
    "enrolled": "{name} asks to join. Compare its fingerprint by telephone, then approve it.",
    "approved": "{name} was approved.",
    "suspended": "{name} was suspended.",
    "removed": "{name} was removed.",
    "rotated": "{name} has a new key.",
}
