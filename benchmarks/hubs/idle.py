"""Many sites in one process that only wait: each holds a line of its own, signs what it asks, answers what it is asked.

    python -m hubs.idle '{"url": ..., "certificate": ..., "count": 1000, "folder": ...}'

HTTP/1.1 by hand over asyncio, so that the clients are cheap and the hub is what is measured. Nothing is kept on disk.
Prints, for each round, the moments at which the last site had its question and knew that its answer was taken.
"""

import asyncio
import json
import resource
import secrets
import ssl
import sys
import time
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from comity.core.recipe import canonical, recipe
from comity.core.wire import encode
from comity.loop.site import EMPTY, Drawer, Site
from comity.service import packets
from comity.service.enrolling import PROTOCOL
from comity.service.limits import Limits
from comity.service.runsecret import said
from comity.service.signatures import Request, sign
from hubs import work

HEADS = {"accept": "application/x-comity", "comity-protocol": str(PROTOCOL)}


@dataclass
class Line:
    """A connection that is kept.

    Attributes:
        url: of the hub.
        name: of the site.
        tls: whom it trusts.
    """

    url: str
    name: str
    tls: ssl.SSLContext
    _streams: Any = field(default=None, repr=False)

    async def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """What the hub says."""
        if self._streams is None:
            host, _, port = self.url.removeprefix("https://").rpartition(":")
            self._streams = await asyncio.open_connection(host, int(port), ssl=self.tls)
        reader, writer = self._streams
        asked = Request(method, self.url + path, HEADS, body)
        signed = sign(asked, work.secret(self.name), keyid=self.name, created=int(time.time()),
                      nonce=secrets.token_urlsafe(18))  # fmt: skip
        host = self.url.removeprefix("https://")
        rows = {"host": host, "content-length": str(len(body)), **HEADS, **signed}
        head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in rows.items()) + "\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        answer = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = next((int(x[15:]) for x in answer.split("\r\n") if x.startswith("content-length:")), 0)
        return int(answer[9:12]), await reader.readexactly(length)

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()


@dataclass
class Waiting:
    """One site.

    Attributes:
        line: to its hub.
        site: who answers.
        recipe: the hash of what it agrees to.
    """

    line: Line
    site: Site
    recipe: str
    drawer: Drawer = EMPTY
    moments: list[tuple[float, float]] = field(default_factory=list)

    async def run(self) -> list[tuple[float, float]]:
        """Until the run is over."""
        run = await self._agreed()
        while True:
            status, data = await self.line.ask("GET", f"/v1/tasks?run={run}&wait=25")
            if status == 204:
                continue
            came = time.perf_counter()
            packet = packets.read(data)
            if packet.said.phase == "over":
                self.line.close()
                return self.moments
            status, told = await self.line.ask("POST", "/v1/reply", self._answer(packet))
            assert status == 200, told
            self.moments.append((came, time.perf_counter()))

    async def _agreed(self) -> str:
        """The run that is offered, agreed to."""
        status = 204
        while status == 204:
            status, data = await self.line.ask("GET", "/v1/run?wait=25")
        run: str = json.loads(data)["run"]
        name, saying = self.line.name, {"recipe": self.recipe, "limits": Limits().told(), "spends": []}
        saying |= {"time": time.time()}
        by = said(work.secret(name), "agree", run, name, canonical(saying))
        status, data = await self.line.ask(
            "POST", "/v1/agree", json.dumps({"run": run, **saying, "proof": {"by": by}}).encode()
        )
        assert status == 200, data
        return run

    def _answer(self, packet: packets.Packet) -> bytes:
        assert packet.body is not None
        asked = replace(packets.opened(packet.said, packet.body), signature=b"")
        reply, self.drawer = self.site.answer(asked, self.drawer)
        laid = encode(reply.body)
        head, ref = packets.header(reply, laid, asked=packet.ref.sha)
        return packets.joined(head, ref, laid)


async def wait(order: dict[str, Any]) -> Any:
    """All of them."""
    tls, fed = ssl.create_default_context(cafile=order["certificate"]), work.collaboration("plain", 1)
    sites = []
    for name in work.names(order["count"]):
        site = Site(name, work.Fixed(1, name), fed.parts, work.secret(name))
        sites.append(Waiting(Line(order["url"], name, tls), site, recipe(fed)["hash"]))
    return await asyncio.gather(*(site.run() for site in sites))


def main() -> None:
    import uvloop

    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    moments = np.array(uvloop.run(wait(json.loads(sys.argv[1]))))
    print(json.dumps(moments.max(0).tolist()))


if __name__ == "__main__":
    main()
