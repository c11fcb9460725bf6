"""A site's copy of its hub's ledger: it grows, it is never rewritten, and the site signs how far it has seen it."""

import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from comity.core.errors import LedgerError
from comity.ledger import copies
from comity.ledger import folder as files
from comity.ledger.record import GENESIS, Entry
from comity.service.client import Client
from comity.service.runsecret import said

EVERY = 1.0
"""Seconds between looks at least; at the end of a run it is looked at whatever the time."""
LAST = 5.0
"""Seconds of trying to reach the hub for that: it may be gone with its run."""


class Watch:
    """Follows the ledger of one run. What is kept was verified.

    Args:
        client: the line; its secret signs.
        place: of the copy.
        run: which.
        agreed: the recipe that the ledger must begin with.
        spends: did the site declare that its rounds spend? Then each in which it is counted must be charged.
        clock: seconds.
    """

    def __init__(
        self,
        client: Client,
        place: Path,
        run: str,
        agreed: Mapping[str, Any],
        *,
        spends: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Go on with the copy that is there.

        Raises:
            LedgerError: it is damaged.
        """
        self._client, self._place, self._run = client, place, run
        self._agreed, self._spends, self._clock, self._next = agreed, spends, clock, 0.0
        self._charged: set[tuple[str, str]] = set()
        if not (place / copies.RECIPE).exists():
            text = json.dumps(dict(agreed), indent=1, sort_keys=True, ensure_ascii=False)
            files.write(place / copies.RECIPE, text.encode())
        self.count, self._last = 0, None
        for entry in copies.read(place, mend=True):
            self._follow(entry, "the copy of this site")
        self.signed = self._signed()

    count: int
    _last: Entry | None

    @property
    def head(self) -> str:
        """The hash of the last entry that is here."""
        return GENESIS if self._last is None else self._last.hash

    def look(self, *, last: bool = False) -> None:
        """Take what is new, and sign it.

        Args:
            last: whenever it was looked at before.

        Raises:
            LedgerError: the hub changed what it had written before.
        """
        if not last and self._clock() < self._next:
            return
        patience = LAST if last else math.inf
        while self._more(patience):
            pass
        if self.signed != (self.count, self.head):
            self._tell(patience)
        self._next = self._clock() + EVERY

    def _more(self, patience: float) -> bool:
        """Some entries. Returns: are there more?"""
        got = self._client.ask("GET", f"/v1/ledger?run={self._run}&after={self.count}", patience=patience)
        if got.status != 200:
            return False
        told = got.told
        if told.get("at") != self.head:
            raise self._rewritten(f"entry {self.count}")
        entries = told.get("entries")
        if not isinstance(entries, list):
            raise LedgerError("The hub's ledger must come as a list of entries. Got something else.")
        new = [copies.entry_of(line) for line in entries]
        for entry in new:
            self._follow(entry, "the hub's ledger")
        if new:
            copies.append(self._place, new)
        return bool(new) and bool(told.get("more"))

    def _follow(self, entry: Entry, where: str) -> None:
        if not copies.follows(self._last, entry):
            raise self._rewritten(f"entry {entry.number} of {where}")
        facts: Any = entry.facts
        if self._last is None and facts.get("recipe") != self._agreed["hash"]:
            raise LedgerError(f"{where} must begin with the recipe that was agreed to. It begins with another.")
        if self._spends:
            self._charge(entry.kind, facts)
        self.count, self._last = self.count + 1, entry

    def _charge(self, kind: str, facts: Any) -> None:
        """Is what this site spends written there, before what it gave is counted?"""
        me, turn = self._client.name, (str(facts.get("round")), str(facts.get("attempt")))
        if kind == "spend" and me in str(facts.get("who", "")).split("\n"):
            self._charged.add(turn)
        asked = str(facts.get("asked") or "").split("\n")
        if kind != "round" or me not in asked or not _counted(facts, asked.index(me)):
            return
        if turn not in self._charged:
            raise LedgerError(
                f"The hub's ledger must charge what {me} spends. It does not in round {_round(facts)}. This "
                "site answers no more. Ask the operator to begin the run once all have agreed."
            )

    def _rewritten(self, which: str) -> LedgerError:
        return LedgerError(
            f"The hub's ledger must go on from the {self.count} entries that this site keeps. It does not: {which} "
            f"is another. This site answers no more. Show the operator the copy in {self._place}."
        )

    def _signed(self) -> tuple[int, str]:
        path = self._place / copies.HEAD
        try:
            told = json.loads(path.read_bytes()) if path.exists() else {}
            return int(told.get("entries", 0)), str(told.get("head", GENESIS))
        except (ValueError, TypeError, AttributeError):
            raise LedgerError(f"{path} must hold the head that this site signed. It is damaged. Restore it.") from None

    def _tell(self, patience: float) -> None:
        """Sign how far it was seen, keep that, and tell the hub."""
        by = said(self._client.secret, "head", self._run, self._client.name, str(self.count), self.head)
        rows = {"entries": self.count, "head": self.head, "by": by}
        files.write(self._place / copies.HEAD, json.dumps(rows, sort_keys=True).encode())
        body = json.dumps({"run": self._run, **rows}).encode()
        self._client.ask("POST", "/v1/head", body, patience=patience)
        self.signed = (self.count, self.head)


def _counted(facts: Any, place: int) -> bool:
    """Was what this member gave counted? Where a ledger does not say that it was not, it was."""
    try:
        return bool(facts["accepted"][place])
    except (KeyError, IndexError, TypeError):
        return True


def _round(facts: Any) -> Any:
    number = facts.get("round")
    return number + 1 if isinstance(number, int) else "?"
