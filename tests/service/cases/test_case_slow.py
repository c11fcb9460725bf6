"""Cases 1, 22, 23 and 29: lines that are slow, silent or many."""

import importlib
import math
import random
import socket
import threading
import time
from typing import Any

import pytest

import comity as co

made, carry, proxies = map(importlib.import_module, ("actors", "carry", "proxies"))


def held(place: tuple[str, int], data: bytes, every: float, most: float) -> float:
    """Seconds until the hub hangs up on somebody who sends a byte every so often."""
    began = time.monotonic()
    with socket.create_connection(place, timeout=every) as line:
        sent = 0
        while time.monotonic() - began < most:
            try:
                if sent < len(data):
                    line.sendall(data[sent : sent + 1])
                    sent += 1
                if not line.recv(4096):
                    break
            except TimeoutError:
                continue
            except OSError:
                break
    return time.monotonic() - began


@pytest.mark.parametrize("data", [b"", b"GET /v1/health HTTP/1.1\r\nHost: x\r\nX-Slow: " + b"x" * 200])
def test_22_who_says_nothing_or_a_byte_at_a_time_is_hung_up_on(hub, data, monkeypatch):
    """At the limit, here a second; others are served meanwhile."""
    monkeypatch.setattr("comity.service.hub.SILENCE", 1.0)
    host, port = hub.url.removeprefix("http://").split(":")
    took: list[float] = []
    slow = threading.Thread(target=lambda: took.append(held((host, int(port)), data, 0.1, 12.0)))
    slow.start()
    hub.ask("ada")
    assert hub.say("ada", hub.poll("ada")).status == 200
    assert hub.wait() == ["ada"]
    slow.join(15)
    assert took[0] < 8.0


def test_22_a_line_that_is_half_open_holds_up_nobody(hub):
    """Its poll stays open at the hub, which cannot know; a new poll of the same site gets what is asked (case 9)."""
    with co.testing.LinkProxy(hub.url.removeprefix("http://")) as relay:
        dead = hub.line("ada")
        dead.url, stopped = f"http://{relay.place}", importlib.import_module("comity.service.client").Stopped

        def asks() -> None:
            with pytest.raises(stopped):
                dead.ask("GET", "/v1/tasks?run=run&wait=20", wait=20)

        old = threading.Thread(target=asks)
        old.start()
        time.sleep(0.3)
        relay.pause()
        hub.ask("ada")
        began = time.monotonic()
        task = hub.poll("ada")
        assert time.monotonic() - began < 1.0
        assert hub.say("ada", task).status == 200
        dead.stop.set()
        relay.cut()
        old.join(10)
    assert hub.wait() == ["ada"]


def over(tmp_path: Any, link: co.Link, work: str, rounds: int, **more: Any) -> float:
    """Seconds of a run over such a link, for all sites together."""
    port = proxies.free_port()
    began = time.monotonic()
    with co.testing.LinkProxy(f"127.0.0.1:{port}", link) as relay:
        carry.through(tmp_path, f"http://{relay.place}", port, work, rounds, **more)
        assert relay.up > 0 < relay.down
    return time.monotonic() - began


@pytest.mark.slow
def test_23_a_slow_and_lossy_line(tmp_path):
    """300 ms there and back, 2 % lost, 1 Mbit/s: a run ends, the same to the bit."""
    assert over(tmp_path, co.Link(1e6, 1e6, delay=0.3, loss=0.02), "fedavg", 1) > 1.0


@pytest.mark.slow
def test_23_and_large_bodies(tmp_path):
    over(tmp_path, co.Link(10e6, 10e6, delay=0.3, loss=0.001), "wide", 2)


def test_23_who_still_sends_is_not_dropped(hub):
    """A deadline is extended while bytes arrive, within a chunk too: here 0.6 s, and the upload takes longer."""
    import os
    from hashlib import sha256

    data = os.urandom(200_000)
    hub.ask("ada", "bob", seconds=0.6)
    task = hub.poll("ada")
    with co.testing.LinkProxy(hub.url.removeprefix("http://"), co.Link(1e6, math.inf)) as relay:
        line = hub.line("ada")
        line.url = f"http://{relay.place}"
        began = time.monotonic()
        line.send(sha256(data).hexdigest(), data)
        assert time.monotonic() - began > 1.2
        line.close()
    assert hub.say("ada", task).status == 200
    assert "ada" in hub.wait()


def test_1_sites_come_back_spread_out():
    """Each waits longer after each try, 30 s at most, and no two alike."""
    waits: list[float] = []

    class Stop:
        def wait(self, seconds: float) -> bool:
            waits.append(seconds)
            return False

    random.seed(3)
    for tries in range(1, 21):
        for _ in range(50):
            line: Any = importlib.import_module("comity.service.client").Client("http://x", "ada", made.secret("ada"))
            line.stop = Stop()
            line._rest(tries)
    late = sorted(waits[-50:])
    assert max(waits) <= 30.0
    assert late[0] >= 15.0
    assert late[-1] - late[0] > 10.0
    assert len(set(late)) == 50
    assert waits[0] < 0.2


@pytest.mark.slow
def test_29_a_thousand_polls(tmp_path):
    """All wait; all are woken and answered, in seconds."""
    import asyncio

    from comity.core.parts import Until
    from comity.service import packets
    from comity.service.client import Client

    asking = importlib.import_module("asking")
    names = [f"p{i:04}" for i in range(1000)]
    secrets = {name: made.secret(name) for name in names}
    keys = {name: secret.public_key() for name, secret in secrets.items()}
    body = asking.encode(asking.Contribution("said", {"x": 1}))
    urls: list[str] = []
    network = co.Network("127.0.0.1:0", tmp_path, identity=made.HUB, parties=keys, tell=urls.append, linger=0.0)
    engine: Any = network.connect([], None)  # type: ignore[arg-type]
    place = urls[0].removeprefix("http://")
    base = importlib.import_module("dataclasses").replace(asking.BASE, roster=1000, asked=1000, expected=1000.0)
    engine.begin(base, {"hash": asking.RECIPE})
    asked_at, answered = [0.0], []

    def message(to: str) -> Any:
        question = asking.Contribution("question", {"x": 1})
        return asking.Envelope(base.to(to), "contribute", "hub", asking.RECIPE, question)

    def asks() -> None:
        asked_at[0] = time.monotonic()
        answered.extend(engine.ask(names, message, Until(1000, 60.0)))

    async def told(reader: Any) -> bytes:
        head = await reader.readuntil(b"\r\n\r\n")
        (size,) = (
            int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")
        )
        assert head.startswith(b"HTTP/1.1 200"), head
        return bytes(await reader.readexactly(size))

    def request(me: Client, method: str, path: str, body: bytes = b"") -> bytes:
        headers = {**me._signed(method, path, body, {}), "Host": place, "Content-Length": str(len(body))}
        lines = [f"{method} {path} HTTP/1.1", *(f"{k}: {v}" for k, v in headers.items()), "", ""]
        return "\r\n".join(lines).encode() + body

    async def one(name: str, waiting: Any) -> float:
        me = Client(urls[0], name, secrets[name])
        reader, writer = await asyncio.open_connection(*place.split(":"))
        writer.write(request(me, "GET", "/v1/tasks?run=run&wait=25"))
        waiting.release()
        task = packets.read(await told(reader))
        came = time.monotonic()
        said = asking.Envelope(task.said.round, "contribute", name, task.said.recipe, asking.Contribution("said", None))
        head, ref = packets.header(said, body, asked=task.ref.sha)
        writer.write(request(me, "POST", "/v1/reply", packets.joined(head, ref, body)))
        await told(reader)
        writer.close()
        return came

    async def all_of_them() -> list[float]:
        waiting = asyncio.Semaphore(0)
        polls = [asyncio.create_task(one(name, waiting)) for name in names]
        for _ in names:
            await waiting.acquire()
        await asyncio.sleep(3.0)
        threading.Thread(target=asks).start()
        return await asyncio.gather(*polls)

    try:
        woken = max(asyncio.run(all_of_them())) - asked_at[0]
        took = time.monotonic() - asked_at[0]
        print(f"woken in {woken:.2f} s, answered in {took:.2f} s")
        assert len(answered) == 1000 or _within(lambda: len(answered) == 1000)
        assert took < 15.0
    finally:
        engine.close()


def _within(done: Any, seconds: float = 10.0) -> bool:
    ends = time.monotonic() + seconds
    while not done() and time.monotonic() < ends:
        time.sleep(0.05)
    return bool(done())


def test_23_a_far_line(tmp_path):
    """60 ms there and back, 1 % lost."""
    over(tmp_path, co.Link(20e6, 20e6, delay=0.06, loss=0.01), "fedavg", 1)
