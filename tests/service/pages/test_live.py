"""Server-sent events: what changed, to those who may see it, with one look for all."""

import asyncio
import json
from dataclasses import dataclass
from typing import Any

from comity.core.errors import LedgerError
from comity.service.pages.live import EACH, Live
from comity.service.pages.sessions import Who

ADA, BOB, CYD = Who("ada", "operator", "t-ada"), Who("bob", "auditor", "t-bob"), Who("cyd", "party", "t-cyd")


@dataclass(frozen=True)
class Shown:
    text: str
    live: bool = True


class Watched:
    """What is watched, and how often it was looked at and rendered."""

    def __init__(self) -> None:
        self.now: Any = Shown("one")
        self.looks = self.renders = 0
        self.welcome, self.away = True, False

    def look(self) -> Any:
        self.looks += 1
        if self.away:
            raise LedgerError("The database must answer.")
        return self.now

    def parts(self, shown: Any, who: Who) -> dict[str, str]:
        self.renders += 1
        return {"a": f"{shown.text} for {who.role} {who.token}", "b": "same"}

    def stream(self, live: Live, who: Who) -> Any:
        return live.stream("k", who, look=self.look, parts=self.parts, still=lambda: self.welcome)


async def parts(stream: Any) -> dict[str, str]:
    """The next parts that come."""
    async for event in stream:
        if event.startswith(b"event: parts"):
            return dict(json.loads(event.partition(b"data: ")[2]))
    return {}


def test_each_is_told_what_changed_with_its_own_token() -> None:
    async def main() -> None:
        live, it = Live(lambda: False, every=0.01), Watched()
        one, two = it.stream(live, ADA), it.stream(live, CYD)
        assert await parts(one) == {"a": "one for operator t-ada", "b": "same"}
        assert await parts(two) == {"a": "one for party t-cyd", "b": "same"}
        it.now = Shown("two")
        assert await parts(one) == {"a": "two for operator t-ada"}
        assert await parts(two) == {"a": "two for party t-cyd"}
        await one.aclose()
        await two.aclose()
        assert live._watches == {}
        assert live._streams == {}

    asyncio.run(main())


def test_many_who_watch_the_same_share_a_look_and_a_page() -> None:
    async def main() -> None:
        live, it = Live(lambda: False, every=10.0), Watched()
        streams = [it.stream(live, Who(f"n{i}", "auditor", f"t{i}")) for i in range(20)]
        told = await asyncio.gather(*map(parts, streams))
        assert [t["a"] for t in told] == [f"one for auditor t{i}" for i in range(20)]
        assert it.looks == 1
        assert it.renders <= 3
        for stream in streams:
            await stream.aclose()

    asyncio.run(main())


def test_there_is_a_limit() -> None:
    async def main() -> None:
        live, it = Live(lambda: False, most=EACH + 2, every=0.01), Watched()
        mine = [it.stream(live, ADA) for _ in range(EACH)]
        await asyncio.gather(*map(parts, mine))
        assert not live.room(ADA)
        assert live.room(BOB)
        more = [it.stream(live, who) for who in (BOB, CYD)]
        await asyncio.gather(*map(parts, more))
        assert not live.room(Who("dan", "party"))
        await mine[0].aclose()
        assert live.room(Who("dan", "party"))
        assert live.room(ADA)
        for stream in (*mine, *more):
            await stream.aclose()

    asyncio.run(main())


def test_a_stream_ends_with_the_session_the_run_and_the_hub() -> None:
    async def main() -> None:
        closing: list[bool] = []
        live, it = Live(lambda: bool(closing), every=0.01), Watched()
        it.welcome = False
        assert [e async for e in it.stream(live, ADA)][-1].startswith(b"event: end")
        it.welcome, it.now = True, Shown("last", live=False)
        events = [e async for e in it.stream(live, ADA)]
        assert b"last" in events[-2]
        assert events[-1].startswith(b"event: done")
        it.now = Shown("one")
        stream = it.stream(live, ADA)
        await parts(stream)
        closing.append(True)
        assert await asyncio.wait_for(parts(stream), 5) == {}

    asyncio.run(main())


def test_while_the_database_is_away_what_was_shown_stays() -> None:
    async def main() -> None:
        live, it = Live(lambda: False, every=0.01), Watched()
        stream = it.stream(live, ADA)
        await parts(stream)
        it.away, before = True, it.looks
        while it.looks < before + 5:
            await asyncio.sleep(0.01)
        it.away, it.now = False, Shown("back")
        assert (await asyncio.wait_for(parts(stream), 5))["a"] == "back for operator t-ada"
        await stream.aclose()

    asyncio.run(main())
