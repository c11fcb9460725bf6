"""`co.testing.LinkProxy`: bytes arrive as they were sent, when the link says, or not at all."""

import math
import socket
import threading
import time
from collections.abc import Iterator

import pytest

import comity as co


@pytest.fixture
def echo() -> Iterator[str]:
    """A server that says what it hears."""
    with socket.create_server(("127.0.0.1", 0)) as door:

        def one(line: socket.socket) -> None:
            with line:
                try:
                    while data := line.recv(65536):
                        line.sendall(data)
                except OSError:
                    return

        def run() -> None:
            while True:
                try:
                    line, _ = door.accept()
                except OSError:
                    return
                threading.Thread(target=one, args=(line,), daemon=True).start()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield f"127.0.0.1:{door.getsockname()[1]}"
        door.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def there_and_back(relay: co.testing.LinkProxy, data: bytes) -> tuple[bytes, float]:
    """What comes back, and after how many seconds."""
    began, got = time.monotonic(), b""
    with socket.create_connection(relay.address, timeout=20) as line:
        sending = threading.Thread(target=lambda: (line.sendall(data), line.shutdown(socket.SHUT_WR)))
        sending.start()
        while piece := line.recv(65536):
            got += piece
        sending.join(5)
    return got, time.monotonic() - began


def test_bytes_arrive_as_they_were_sent(echo):
    data = bytes(range(256)) * 20_000
    with co.testing.LinkProxy(echo) as relay:
        assert there_and_back(relay, data)[0] == data
        assert (relay.up, relay.down, relay.accepted) == (len(data), len(data), 1)


@pytest.mark.parametrize(
    ("link", "size", "least"),
    [
        (co.Link(1e6, math.inf), 50_000, 0.4),
        (co.Link(math.inf, 1e6), 50_000, 0.4),
        (co.Link(math.inf, math.inf, delay=0.3), 10, 0.3),
        (co.Link(1e7, 1e7, loss=0.05), 100_000, 0.8),
    ],
    ids=["up", "down", "delay", "loss"],
)
def test_it_takes_as_long_as_the_link_says(link, size, least, echo):
    with co.testing.LinkProxy(echo, link) as relay:
        got, took = there_and_back(relay, bytes(size))
    assert len(got) == size
    assert took >= least
    assert took >= link.seconds(size, size) * 0.5


def test_losses_are_those_of_the_seed(echo):
    took = []
    for seed in (1, 1):
        with co.testing.LinkProxy(echo, co.Link(math.inf, math.inf, loss=0.3), seed=seed) as relay:
            took.append(there_and_back(relay, bytes(1000))[1])
    assert abs(took[0] - took[1]) < 0.15


def test_cut_pause_and_lead(echo):
    with co.testing.LinkProxy(echo) as relay, socket.create_connection(relay.address, timeout=0.3) as line:
        line.sendall(b"a")
        assert line.recv(1) == b"a"
        relay.pause()
        line.sendall(b"b")
        with pytest.raises(TimeoutError):
            line.recv(1)
        relay.resume()
        line.settimeout(5)
        assert line.recv(1) == b"b"
        relay.cut()
        with pytest.raises(ConnectionResetError):
            line.recv(1)
        relay.lead("127.0.0.1:1")
        with socket.create_connection(relay.address, timeout=5) as nobody, pytest.raises(ConnectionResetError):
            nobody.recv(1)
        relay.lead(echo)
        assert there_and_back(relay, b"again")[0] == b"again"
    with pytest.raises(OSError, match=r"refused|reset"):
        socket.create_connection(relay.address, timeout=5)


def test_a_silent_line_is_cut(echo):
    with co.testing.LinkProxy(echo, idle=0.3) as relay, socket.create_connection(relay.address, timeout=5) as line:
        began = time.monotonic()
        with pytest.raises(ConnectionResetError):
            line.recv(1)
        assert 0.25 < time.monotonic() - began < 3.0


@pytest.mark.parametrize(
    "make",
    [
        lambda to: co.testing.LinkProxy("nowhere"),
        lambda to: co.testing.LinkProxy("a:99999"),
        lambda to: co.testing.LinkProxy(to, "dsl"),
        lambda to: co.testing.LinkProxy(to, idle=0),
        lambda to: co.testing.LinkProxy(to, bind=to),
        lambda to: co.testing.LinkProxy(to, seed=0.5),
    ],
)
def test_what_does_not_fit_is_refused(make, echo):
    with pytest.raises(co.ConfigError, match="Got"):
        make(echo)
