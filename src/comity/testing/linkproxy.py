"""A line between two programs that is as slow and as bad as one says."""

import asyncio
import math
import random
import socket
import struct
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from comity.core.checks import number, seeded
from comity.core.errors import ConfigError
from comity.ledger.links import Link

SEGMENT, WINDOW, RESENT = 1460, 2**20, 0.2
"""Bytes of a TCP segment over Ethernet; bytes under way at most; seconds until what was lost is sent again, at least
(Linux, TCP_RTO_MIN)."""
FREE = Link(math.inf, math.inf)


class LinkProxy:
    """Passes TCP connections on to a server, over a link that is declared: for tests, and to see how a run would be.

    What a participant sends and receives shares one link: `link.up` and `link.down` bits per second in all, `delay`
    seconds for the way there and back. TCP hides loss: programs never miss a byte, they wait. So each segment of 1460
    bytes that is lost (with the probability `link.loss`, independently) holds up what follows it on its connection
    until it was sent again, for one round trip and 0.2 s at least. Slow start, congestion control and reordering are
    left out: a real line with such loss is slower still. Loss that TCP does not survive is a connection that ends
    (`cut`, `idle`) or that stays open and silent (`pause`).

    It listens at once, in a thread of its own, and stops with `close` or at the end of a `with`.

    Args:
        to: the server, "host:port".
        link: from the participant's side; none is without delay and bounds.
        bind: where to listen; port 0 for any that is free.
        idle: seconds without a byte in either direction after which a connection is cut, as proxies and firewalls do.
        seed: of the losses: the first connection loses the same segments each time, and so does each later one.

    Raises:
        ConfigError: an address or a figure does not fit, or the port is taken.

    Example:
        >>> import comity as co
        >>> with socket.create_server(("127.0.0.1", 0)) as server:
        ...     relay = co.testing.LinkProxy(f"127.0.0.1:{server.getsockname()[1]}", co.Link(1e6, 1e6, delay=0.1))
        ...     with relay, socket.create_connection(relay.address) as client:
        ...         client.sendall(b"hello")
        ...         line, _ = server.accept()
        ...         with line:
        ...             line.recv(5), relay.up
        (b'hello', 5)
    """

    def __init__(
        self, to: str, link: Link = FREE, *, bind: str = "127.0.0.1:0", idle: float = math.inf, seed: int = 0
    ) -> None:
        if not isinstance(link, Link):
            raise ConfigError(
                f"The 'link' of LinkProxy must be a Link. Got {type(link).__name__}. Use co.Link(1e6, 1e6)."
            )
        self.to, self.link, self.idle = _address(to), link, math.inf
        if idle != math.inf:
            self.idle = number("idle", "LinkProxy", idle, "(0, inf)")
        self.up = self.down = self.accepted = 0
        self._seed, self._free = seeded("LinkProxy", seed), {True: 0.0, False: 0.0}
        self._lines: set[asyncio.Task[None]] = set()
        self._flows: asyncio.Event | None = None
        self._door = _listening(_address(bind))
        self.address: tuple[str, int] = self._door.getsockname()[:2]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="comity relay", daemon=True)
        self._thread.start()

    @property
    def place(self) -> str:
        """Where it listens, "host:port"."""
        return f"{self.address[0]}:{self.address[1]}"

    def cut(self) -> None:
        """End all connections that are open, at once and without a word (a TCP reset); later ones are taken."""
        self._do(self._cut)

    def pause(self) -> None:
        """Let nothing pass: connections stay open, and new ones are taken, but no byte arrives."""
        self._do(lambda: self._flowing.clear())

    def resume(self) -> None:
        """Let pass what waits, and what comes."""
        self._do(lambda: self._flowing.set())

    def lead(self, to: str) -> None:
        """Lead connections that come from now on to another server, "host:port"."""
        self.to = _address(to)

    def close(self) -> None:
        """End all connections and stop listening. Again does nothing."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10.0)
        self._door.close()

    def __enter__(self) -> "LinkProxy":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def _flowing(self) -> asyncio.Event:
        assert self._flows is not None
        return self._flows

    def _do(self, what: Callable[[], None]) -> None:
        """In the relay's thread; done when it returns."""
        done = threading.Event()

        def run() -> None:
            try:
                what()
            finally:
                done.set()

        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(run)
            done.wait(10.0)

    def _run(self) -> None:
        self._flows = asyncio.Event()
        self._flows.set()
        taking = self._loop.create_task(self._take())
        try:
            self._loop.run_forever()
        finally:
            left = [taking, *self._lines]
            for task in left:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            self._loop.close()

    async def _take(self) -> None:
        while True:
            near, _ = await self._loop.sock_accept(self._door)
            task = self._loop.create_task(self._line(near, self.accepted))
            self.accepted += 1
            self._lines.add(task)
            task.add_done_callback(self._lines.discard)

    def _cut(self) -> None:
        for task in self._lines:
            task.cancel()

    async def _line(self, near: socket.socket, which: int) -> None:
        """One connection, until both sides are through or one breaks."""
        far, heard = None, [time.monotonic()]
        try:
            near.setblocking(False)
            await self._flowing.wait()
            far = _socket()
            await asyncio.wait_for(self._loop.sock_connect(far, self.to), 10.0)
            async with asyncio.TaskGroup() as group:
                watch = group.create_task(self._watch(heard))
                up, down = _Way(True, heard, self._seed, which), _Way(False, heard, self._seed, which)
                ways = [group.create_task(self._pass(near, far, up)), group.create_task(self._pass(far, near, down))]
                await asyncio.wait(ways)
                watch.cancel()
        except (OSError, TimeoutError, ExceptionGroup, asyncio.CancelledError):
            for side in (near, far):
                _reset(side)
        finally:
            near.close()
            if far is not None:
                far.close()

    async def _watch(self, heard: list[float]) -> None:
        """Until nothing came for too long."""
        while (left := heard[0] + self.idle - time.monotonic()) > 0:
            await asyncio.sleep(min(left, 3600.0))
        raise TimeoutError

    async def _pass(self, source: socket.socket, sink: socket.socket, way: "_Way") -> None:
        """One direction: read as fast as the link sends, hand on when it arrives."""
        piece = self._piece(way.up)
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(max(1, WINDOW // piece))
        async with asyncio.TaskGroup() as group:
            group.create_task(self._hand_on(under_way, sink))
            last = 0.0
            while True:
                data = await self._loop.sock_recv(source, piece)
                way.heard[0] = time.monotonic()
                sent = self._sent(len(data), way.up)
                last = max(last, sent + self.link.delay / 2) + way.held_up(len(data), self.link)
                await asyncio.sleep(max(0.0, sent - time.monotonic()))
                await under_way.put((last, data))
                if not data:
                    return

    async def _hand_on(self, under_way: "asyncio.Queue[tuple[float, bytes]]", sink: socket.socket) -> None:
        while True:
            due, data = await under_way.get()
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            await self._flowing.wait()
            if not data:
                sink.shutdown(socket.SHUT_WR)
                return
            await self._loop.sock_sendall(sink, data)

    def _piece(self, up: bool) -> int:
        """Bytes at once: those of some milliseconds."""
        rate = self.link.up if up else self.link.down
        return 2**16 if rate > 2**27 else max(SEGMENT, int(rate / 8 * 0.005))

    def _sent(self, size: int, up: bool) -> float:
        """When so many more bytes are on the line, after those that came before."""
        if up:
            self.up += size
        else:
            self.down += size
        rate = self.link.up if up else self.link.down
        self._free[up] = max(self._free[up], time.monotonic()) + 8 * size / rate
        return self._free[up]


class _Way:
    """One direction of one connection, and its luck."""

    def __init__(self, up: bool, heard: list[float], seed: int, which: int) -> None:
        self.up, self.heard, self._rng = up, heard, random.Random(f"{seed} {which} {up}")

    def held_up(self, size: int, link: Link) -> float:
        """Seconds by which losses hold up what follows."""
        segments = math.ceil(size / SEGMENT) if link.loss else 0
        return sum(self._rng.random() < link.loss for _ in range(segments)) * max(RESENT, link.delay)


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":") if isinstance(text, str) else ("", "", "")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ConfigError(
            f'An address of LinkProxy must be "host:port". Got {text!r:.80}. Use "127.0.0.1:8443", for one.'
        )
    return host.strip("[]"), int(port)


def _socket(family: int = socket.AF_INET) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    made.setblocking(False)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def _listening(at: tuple[str, int]) -> socket.socket:
    door = _socket()
    try:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        door.bind(at)
        door.listen(512)
    except OSError as error:
        door.close()
        raise ConfigError(
            f"LinkProxy must be able to listen on {at[0]}:{at[1]}. Got: {error.strerror}. Name another."
        ) from None
    return door


def _reset(side: Any) -> None:
    if side is not None and side.fileno() >= 0:
        side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
