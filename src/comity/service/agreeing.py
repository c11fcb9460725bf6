"""The hub's side of what parties agree to and keep: routes beside those of `hub`.

    POST /v1/agree                     {"run", "recipe", "limits", "spends", "time", "proof"}: {"new", "began", "time"}
    GET  /v1/ledger?run=RUN&after=N    {"at": hash of entry N, "entries": [...], "more"}: what follows entry N
    POST /v1/head                      {"run", "entries", "head", "by"}: how much of a ledger a party holds, signed

What is signed can be checked with the party's key for ever: see `agreed` and `held`.
"""

import json
import math
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from comity.channels.identity import signed
from comity.core.errors import ComityError, ConfigError
from comity.core.recipe import canonical
from comity.ledger import copies
from comity.ledger.record import GENESIS
from comity.privacy.releases import Purse
from comity.service import packets
from comity.service.hub import SMALL, Refused, answer_json
from comity.service.offers import RUN
from comity.service.runsecret import statement

MOST = 64
"""Entries in one answer at most."""
SPENDS, COUNT = 8, 10**5
"""What a party may declare for one round: kinds of spend, and releases of each. Work of accountants grows with both."""
_SAID = {"recipe", "limits", "spends", "time", "proof"}
_SPEND = {"mechanism", "noise", "rate", "count", "unit", "sampling", "who"}
_LIMITS = {"recipe", "cohort", "rounds", "epsilon", "delta", "bytes", "hours"}
Handler = Callable[[Any, Any], Awaitable[Any]]


def agreed(key: bytes, run: str, party: str, said: Mapping[str, Any]) -> bool:
    """Did the owner of this key agree to that?"""
    bare = {name: said[name] for name in sorted(_SAID - {"proof"})}
    try:
        text = canonical(bare)
    except (ValueError, RecursionError):
        return False
    return _by(key, str(said["proof"]["by"]), "agree", run, party, text)


def held(key: bytes, run: str, party: str, entries: int, head: str, by: str) -> bool:
    """Did the owner of this key say that it holds so much of a ledger?"""
    return _by(key, by, "head", run, party, str(entries), head)


async def agree(hub: Any, asked: Any) -> Any:
    """A party agrees to a run."""
    rows = _rows(asked.body, {"run", *_SAID})
    run, said = str(rows.pop("run")), rows
    found = await _open(hub, run, asked.who)
    _check(said)
    if said["recipe"] != found.recipe.get("hash"):
        raise Refused(409, "The run has another recipe than the one that is agreed to.")
    key = await hub.off(hub.doors.key_of, asked.who)
    if key is None or not agreed(key, run, asked.who, said):
        raise Refused(422, "An agreement must be signed by the party. It is not.")

    def write() -> dict[str, Any]:
        if found.roster and said["spends"] and asked.who not in hub.runs.agreements(run):
            raise Refused(
                409,
                "The run began before this party said what it spends, and would not charge it. Begin one that waits "
                "for agreements: minimum=1 or more.",
            )
        new = hub.runs.agree(run, asked.who, said)
        known = hub.runs.agreements(run)[asked.who]
        return {"new": new, "began": bool(hub.runs.find(run).roster), "time": known["time"]}

    return answer_json(200, await hub.off(write))


async def ledger(hub: Any, asked: Any) -> Any:
    """What follows an entry."""
    params = asked.request.query_params
    run, after = params.get("run", ""), params.get("after", "0")
    if not (after.isascii() and after.isdecimal() and len(after) < 16):
        raise Refused(400, "The number of an entry must be given.")
    found = await _open(hub, run, asked.who)
    if not found.folder:
        raise Refused(404, "The ledger of this run is not kept.")

    def look() -> dict[str, Any]:
        at, new = copies.entries_after(Path(found.folder), int(after), MOST)
        return {"at": at, "entries": [copies.line_of(entry) for entry in new], "more": len(new) == MOST}

    from starlette.concurrency import run_in_threadpool

    try:
        return answer_json(200, await run_in_threadpool(look))
    except (ComityError, OSError):
        if after == "0":
            return answer_json(200, {"at": GENESIS, "entries": [], "more": False})
        raise Refused(404, "The ledger of this run cannot be read now.") from None


async def head(hub: Any, asked: Any) -> Any:
    """A party holds so much of a ledger."""
    rows = _rows(asked.body, {"run", "entries", "head", "by"})
    run, entries, last = str(rows["run"]), rows["entries"], str(rows["head"])
    await _open(hub, run, asked.who)
    if type(entries) is not int or not 0 <= entries < 2**63 or not packets.is_sha(last):
        raise Refused(422, "A head must be a whole number of entries and a hash.")
    key = await hub.off(hub.doors.key_of, asked.who)
    if key is None or not held(key, run, asked.who, entries, last, str(rows["by"])):
        raise Refused(422, "A head must be signed by the party. It is not.")
    new = await hub.off(hub.runs.note, run, asked.who, entries, last, {"by": rows["by"]})
    return answer_json(200, {"new": bool(new)})


ROUTES: tuple[tuple[str, str, Handler, int], ...] = (
    ("/v1/agree", "POST", agree, SMALL),
    ("/v1/ledger", "GET", ledger, 0),
    ("/v1/head", "POST", head, 4096),
)
"""Path, method, handler, and the most bytes of a body: for `hub.app`."""


async def _open(hub: Any, run: str, who: str) -> Any:
    """A run in which somebody may take part, or does; others learn nothing of it."""
    found = await hub.off(hub.runs.find, run) if RUN.fullmatch(run) else None
    if found is None or who not in (*found.invited, *found.roster):
        raise Refused(404, "There is no run in which you take part.")
    return found


def _check(said: Mapping[str, Any]) -> None:
    """Is it an agreement that can be accounted for?"""
    spends, since, proof, limits = said["spends"], said["time"], said["proof"], said["limits"]
    fits: tuple[bool, ...] = (
        isinstance(spends, list) and len(spends) <= SPENDS,
        isinstance(spends, list) and all(isinstance(s, dict) and set(s) == _SPEND for s in spends),
        type(since) is float and math.isfinite(since),
        isinstance(proof, dict) and set(proof) == {"by"} and isinstance(proof["by"], str),
        isinstance(limits, dict) and set(limits) == _LIMITS,
    )  # fmt: skip
    if not all(fits) or any(s["who"] for s in spends):
        raise Refused(422, "An agreement must have limits, spends, a time and a signature. It has not.")
    try:
        Purse(spends)
        heavy = any(s["count"] > COUNT for s in spends)
    except (ConfigError, OverflowError):
        heavy = True
    if heavy:
        raise Refused(422, "What is declared must be spends that can be accounted for. It is not.")


def _rows(body: bytes, names: set[str]) -> dict[str, Any]:
    try:
        rows = json.loads(body)
    except (ValueError, RecursionError):
        rows = None
    if not isinstance(rows, dict) or set(rows) != names:
        raise Refused(422, f"The body must be JSON with {', '.join(sorted(names))}.")
    return rows


def _by(key: bytes, signature: str, *what: str) -> bool:
    try:
        return signed(key, bytes.fromhex(signature), statement(*what))
    except ValueError:
        return False
