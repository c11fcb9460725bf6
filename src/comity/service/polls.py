"""How a party learns of a run, and of what it is asked in it: polls, which change nothing."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from comity.service import packets
from comity.service.database import Away
from comity.service.hub import WAIT, Asked, Extra, Hub, Refused, answer_bytes, answer_json
from comity.service.runs import RunRow

Found = TypeVar("Found")


async def run(hub: Hub, asked: Asked) -> Any:
    """The run that wants something of the asker, but for those that it has seen (`after`, once or more)."""
    seen = frozenset(asked.request.query_params.getlist("after"))

    def look() -> RunRow | None:
        return hub.runs.current(asked.who, seen)

    found = await _poll(hub, asked, "", look)
    if found is None:
        return answer_bytes(b"", 204)
    named = ("run", "title", "recipe", "about", "state", "minimum")
    return answer_json(200, {name: getattr(found, name) for name in named})


async def tasks(hub: Hub, asked: Asked) -> Any:
    """The oldest question of a run, as soon as there is one; or that the run is at its end."""
    said, who = asked.request.query_params.get("run", ""), asked.who
    row = await (hub.row(said) if said else hub.off(hub.runs.current, who))
    if row is None or not row.concerns(who):
        raise Refused(404, "There is no run in which you take part.")
    number = row.run

    def look() -> bytes | None:
        found = hub.box.waiting(number, who)
        if found is not None:
            sha, head, body = found
            return packets.joined(head, packets.Ref(sha, len(body), ""), body)
        now = hub.read(number)
        if now is None or now.live:
            return None
        return _end(hub, who, number, now.state)

    packet = await _poll(hub, asked, number, look)
    return answer_bytes(b"", 204) if packet is None else answer_bytes(packet)


async def _poll(hub: Hub, asked: Asked, about: str, look: Callable[[], Found | None]) -> Found | None:
    """What `look` finds, as soon as it does. A newer poll of the same party ends this one."""
    ends = time.monotonic() + seconds(asked.request.query_params.get("wait", ""))
    with _waiting(hub, (asked.who, about)) as event:
        while True:
            event.clear()  # before the look: what comes after it wakes
            try:
                found: Found | None = await hub.off(look)
            except Away:
                found = None
                asyncio.get_running_loop().call_later(1.0, event.set)
            left = ends - time.monotonic()
            if found is not None or left <= 0 or hub.closing or hub.polls.get((asked.who, about)) is not event:
                return found
            try:
                await asyncio.wait_for(event.wait(), left)
            except TimeoutError:
                return None


@contextmanager
def _waiting(hub: Hub, which: tuple[str, str]) -> Iterator[asyncio.Event]:
    event = asyncio.Event()
    if older := hub.polls.get(which):
        older.set()
    hub.polls[which] = event
    try:
        yield event
    finally:
        if hub.polls.get(which) is event:
            del hub.polls[which]


def seconds(said: str) -> float:
    """How long a poll waits."""
    return min(WAIT, float(said)) if said.isdecimal() and said.isascii() and len(said) < 5 else WAIT


def _end(hub: Hub, who: str, number: str, state: str) -> bytes:
    """Signed: the run is at its end."""
    from comity.core.contribution import Contribution
    from comity.core.envelope import Envelope
    from comity.core.round import Round
    from comity.core.wire import encode

    end = Contribution("over", {"state": state})
    body = encode(end)
    head, ref = packets.header(Envelope(Round(number, 0, me=who), "over", "hub", "", end), body, secret=hub.identity)
    hub.told.add((number, who))
    return packets.joined(head, ref, body)


ROUTES: tuple[Extra, ...] = (("/v1/run", "GET", run, 0), ("/v1/tasks", "GET", tasks, 0))
