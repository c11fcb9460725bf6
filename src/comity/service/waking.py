"""Who waits at one process of a hub is woken by what another does: LISTEN and NOTIFY, and a look every few seconds.

A notice is lost while its line is down: when it is back everybody looks again. Nothing depends on a notice but time.
"""

import asyncio
import threading
from contextlib import suppress
from typing import Any

from comity.core.errors import ComityError
from comity.service.database import CHANNEL, Database
from comity.service.hub import Hub

AGAIN = 5.0
"""Seconds between looks, where nothing was announced."""
WORDS = ("task", "reply", "run")


class Ear:
    """Listens to the other processes on one PostgreSQL, in a thread, on a line of its own."""

    def __init__(self, db: Database) -> None:
        """It begins at once."""
        self._db, self._stop = db, threading.Event()
        self._thread = threading.Thread(target=self._run, name="comity ear", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Listen no more."""
        self._stop.set()
        self._thread.join(10.0)

    def _run(self) -> None:
        from sqlalchemy.exc import SQLAlchemyError

        while not self._stop.is_set():
            line: Any = None
            try:
                line = self._line()
                for what in WORDS:  # what was announced meanwhile is not known
                    self._db.tell(what)
                while not self._stop.is_set():
                    self._hear(line)
            except (SQLAlchemyError, OSError, self._db.engine.dialect.dbapi.Error):  # type: ignore[union-attr]
                self._stop.wait(1.0)
            finally:
                if line is not None:
                    line.close()

    def _line(self) -> Any:
        """A connection outside of the pool."""
        pooled = self._db.engine.raw_connection()
        line: Any = pooled.driver_connection
        pooled.detach()
        line.autocommit = True
        line.execute(f"LISTEN {CHANNEL}")
        return line

    def _hear(self, line: Any) -> None:
        for notice in line.notifies(timeout=0.5):
            token, _, what = notice.payload.partition(" ")
            if token != self._db.token:
                self._db.tell(what)


async def look_again(hub: Hub) -> None:
    """Wake whoever waits for what is there already: nobody, where every notice came."""
    before: Any = None
    while True:
        await asyncio.sleep(AGAIN)
        try:
            wanting, marks = await hub.off(hub.box.wanting), await hub.off(hub.runs.marks)
        except ComityError:
            continue
        if flush := getattr(hub.doors, "flush", None):
            with suppress(ComityError):
                await hub.off(flush)
        if marks != before:
            before = marks
            hub.renewed()
            hub.wake()
        for (who, run), event in hub.polls.items():
            if (run, who) in wanting:
                event.set()
