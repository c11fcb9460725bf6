"""Cases 15 to 21: what arrives is what was sent, whole, once, within its limits."""

import hashlib
import importlib
import os
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

import comity as co
from comity.service import packets

made = importlib.import_module("actors")
between = importlib.import_module("between")

CHUNK = 2**16


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def asking(hub: Any) -> None:
    """Somebody is asked, and knows."""
    hub.ask("ada", seconds=120.0)
    hub.poll("ada")


def put(hub: Any, data: bytes, piece: bytes, at: int, **more: Any) -> Any:
    """One chunk, by hand."""
    said = {"Upload-Offset": str(at), "Upload-Length": str(len(data))}
    return hub.line("ada").ask("PUT", f"/v1/upload/{sha(data)}", piece, headers=said, **more)


def offset(hub: Any, data: bytes, who: str = "ada") -> int:
    return int(hub.line(who).ask("GET", f"/v1/upload/{sha(data)}").told["offset"])


def finish(hub: Any) -> None:
    assert hub.say("ada", hub.poll("ada")).status == 200
    assert hub.wait() == ["ada"]


def test_15_a_chunk_that_was_changed_on_its_way(hub):
    """Its digest is signed: who changed it cannot have sent it, so the answer is that to a stranger."""
    asking(hub)
    data = os.urandom(3000)
    path = f"/v1/upload/{sha(data)}"
    said = {"Upload-Offset": "0", "Upload-Length": "3000"}
    signed = hub.line("ada")._signed("PUT", path, data[:1000], said)
    got = httpx.put(hub.url + path, content=data[1000:2000], headers=signed, trust_env=False)
    assert got.status_code in (401, 422)
    assert offset(hub, data) == 0
    hub.line("ada").send(sha(data), data)
    finish(hub)


def test_15_a_whole_that_was_changed_on_its_way(hub):
    """It is written as it comes, under the digest that is its name: once all is there, none of it is kept."""
    asking(hub)
    data = os.urandom(5 * 2**20)
    path, said = f"/v1/upload/{sha(data)}", {"Upload-Offset": "0", "Upload-Length": str(len(data))}
    changed = data[:-1] + bytes([data[-1] ^ 1])
    line = hub.line("ada")
    got = httpx.put(hub.url + path, content=changed, headers=line._signed("PUT", path, data, said), trust_env=False)
    assert (got.status_code, got.json()["offset"], offset(hub, data)) == (422, 0, 0)
    line.send(sha(data), data)
    finish(hub)


def test_15_the_whole_is_wrong(hub):
    """Then it begins anew, and the right bytes are taken."""
    asking(hub)
    data, wrong = os.urandom(3000), os.urandom(2000)
    assert put(hub, data, data[:1000], 0).status == 204
    got = put(hub, data, wrong, 1000)
    assert (got.status, got.told["offset"], offset(hub, data)) == (422, 0, 0)
    hub.line("ada").send(sha(data), data)
    assert offset(hub, data) == 3000
    finish(hub)


def test_16_a_gap_an_overlap_and_a_repeat(hub):
    asking(hub)
    data = os.urandom(3000)
    assert put(hub, data, data[:1000], 0).status == 204
    for at, piece in ((1500, data[1500:2000]), (500, data[500:1500]), (0, data[:1000]), (1000, data[1000:] + b"more")):
        got = put(hub, data, piece, at)
        assert (got.status, got.told["offset"]) == (409, 1000)
    assert put(hub, data, data[1000:], 1000).status == 201
    assert put(hub, data, data[1000:], 1000).status == 201, "the answer to the last chunk may have been lost"
    finish(hub)


def raw(hub: Any, data: bytes, wait: float = 5.0) -> bytes:
    """What the hub says to these bytes on a line of their own, until it hangs up or is silent."""
    host, port = hub.url.removeprefix("http://").split(":")
    got = b""
    with socket.create_connection((host, int(port)), timeout=wait) as line:
        line.sendall(data)
        try:
            while b"\r\n\r\n" not in got or not got.partition(b"\r\n\r\n")[2]:
                piece = line.recv(65536)
                if not piece:
                    break
                got += piece
        except TimeoutError:
            pass
    return got


def head(hub: Any, method: str, path: str, headers: dict[str, str]) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", f"Host: {hub.url.removeprefix('http://')}"]
    return "\r\n".join([*lines, *(f"{k}: {v}" for k, v in headers.items()), "", ""]).encode()


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer else 0


def test_17_too_much_is_refused_before_it_is_read(hub):
    """By what is declared, where it is declared; and of a stranger nothing is read."""
    asking(hub)
    body = b"x" * 100
    signed = hub.line("ada")._signed("POST", "/v1/reply", body, {})
    declared = raw(hub, head(hub, "POST", "/v1/reply", {**signed, "Content-Length": str(2**40)}) + body)
    assert status(declared) == 413
    stranger = raw(hub, head(hub, "POST", "/v1/reply", {"Content-Length": str(2**40)}) + body)
    assert status(stranger) == 401
    endless = {**signed, "Transfer-Encoding": "chunked"}
    pieces = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    assert status(raw(hub, head(hub, "POST", "/v1/reply", endless) + 8 * pieces)) == 413
    finish(hub)


def test_17_more_bytes_than_declared_are_another_request(hub):
    """The declared ones are judged; the rest is no request, and the line is closed."""
    asking(hub)
    body = b"x" * 100
    signed = hub.line("ada")._signed("POST", "/v1/reply", body, {})
    got = raw(hub, head(hub, "POST", "/v1/reply", {**signed, "Content-Length": "100"}) + body + b"y" * 50, 3.0)
    assert status(got) in (400, 422)
    finish(hub)


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 2**22, 2**22 + 1, 2**23])
def test_18_any_size_arrives(hub, size, whole, tmp_path):
    asking(hub)
    data, line = os.urandom(size), hub.line("ada")
    line.whole, line.chunk = whole, CHUNK if size < 2**20 else 2**22
    line.send(sha(data), data)
    assert offset(hub, data) == size
    kept = [path for path in tmp_path.rglob(sha(data)) if path.is_file()]
    assert [path.read_bytes() for path in kept] == [data]
    line.send(sha(data), data)
    finish(hub)


@pytest.mark.parametrize("size", [packets.INLINE - 200, packets.INLINE + 200])
def test_18_questions_and_answers_around_the_border_of_what_travels_inline(hub, size, tmp_path):
    import numpy as np

    value = np.arange(size, dtype="uint8")
    hub.ask("ada", value=value)
    task = hub.poll("ada")
    body = task.body
    if body is None:
        body = hub.line("ada").fetch(task.ref.sha, task.ref.size, tmp_path)
    assert np.array_equal(packets.opened(task.said, body).body.value["x"], value)
    assert (task.body is None) == (size > packets.INLINE)
    hub.say("ada", task)
    assert hub.wait() == ["ada"]


def test_18_a_whole_that_is_cut_goes_on_where_it_was(hub):
    """What came before the cut is kept, and only the rest is sent again."""
    asking(hub)
    data, line = os.urandom(7 * 2**20), hub.line("ada")
    path, said = f"/v1/upload/{sha(data)}", {"Upload-Offset": "0", "Upload-Length": str(len(data))}
    signed = line._signed("PUT", path, data, said) | {"Content-Length": str(len(data))}
    host, port = hub.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5.0) as cut:
        cut.sendall(head(hub, "PUT", path, signed) + data[: 5 * 2**20])
    ends = time.monotonic() + 10
    while offset(hub, data) < 5 * 2**20 and time.monotonic() < ends:
        time.sleep(0.01)
    assert offset(hub, data) == 5 * 2**20
    sent: list[str] = []
    once = line._once

    def counted(method: str, path: str, body: Any, headers: Any, wait: float) -> Any:
        if method == "PUT":
            sent.append(headers["Upload-Offset"])
        return once(method, path, body, headers, wait)

    line._once = counted
    line.send(sha(data), data)
    assert sent == [str(5 * 2**20)]
    finish(hub)


MEMORY = """
import importlib, sys, threading, time
sys.path.append(sys.argv[1])
made, asking = importlib.import_module("actors"), importlib.import_module("asking")
from comity.running import Names
urls = []
from pathlib import Path
engine = made.network(Path(sys.argv[2]), tell=urls.append, most=2**30, linger=0.0).connect(Names({}), None)
engine.begin(asking.BASE, {"hash": asking.RECIPE})
hub = asking.Asked(engine, urls[0], [])
hub.ask("ada", seconds=300.0)
hub.poll("ada")
print(hub.url, flush=True)
sys.stdin.readline()
import os
os._exit(0)
"""


@pytest.mark.slow
def test_18_500_megabytes_in_little_memory(tmp_path):
    """The hub, a process of its own, writes it as it comes: less than two blocks of 4 MiB more. Seen: 1 MB."""
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", MEMORY, str(Path(made.__file__).parent), str(tmp_path)]
    hub = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
    assert hub.stdin is not None
    assert hub.stdout is not None
    try:
        url = hub.stdout.readline().strip()
        line = importlib.import_module("comity.service.client").Client(url, "ada", made.secret("ada"))
        small = os.urandom(2**23)
        line.send(sha(small), small)
        before = most_memory(hub.pid)
        data = os.urandom(2**20) * 500
        line.send(sha(data), data)
        assert int(line.ask("GET", f"/v1/upload/{sha(data)}").told["offset"]) == len(data)
        line.close()
        assert most_memory(hub.pid) - before < 2**23
    finally:
        hub.communicate("\n", timeout=30)


def most_memory(pid: int) -> int:
    """The most memory that a process ever had, in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024


@pytest.mark.parametrize("whole", [True, False])
def test_19_two_uploads_of_one_body_at_once(hub, whole, tmp_path):
    """One file; both are told that it is there."""
    asking(hub)
    data = os.urandom(100 * CHUNK)
    lines = [hub.line("ada") for _ in range(4)]
    for line in lines:
        line.whole, line.chunk = whole, CHUNK
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda line: line.send(sha(data), data), lines))
    assert [p.read_bytes() == data for p in tmp_path.rglob(f"{sha(data)}*") if p.is_file()] == [True]
    finish(hub)


def test_20_without_a_length(hub):
    """In pieces as HTTP knows them: taken like any other."""
    asking(hub)
    data = os.urandom(5000)
    path, said = f"/v1/upload/{sha(data)}", {"Upload-Offset": "0", "Upload-Length": "5000"}
    signed = hub.line("ada")._signed("PUT", path, data, said)
    got = httpx.put(hub.url + path, content=iter((data[:10], data[10:])), headers=signed, trust_env=False)
    assert "content-length" not in got.request.headers
    assert got.status_code == 201
    finish(hub)


def test_20_expect_continue(hub):
    """It is told to go on before it sends a body; a stranger is told that it may not."""
    asking(hub)
    body = b"no packet"
    more = {"Content-Length": str(len(body)), "Expect": "100-continue"}
    signed = hub.line("ada")._signed("POST", "/v1/reply", body, {})
    host, port = hub.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5.0) as line:
        line.sendall(head(hub, "POST", "/v1/reply", {**signed, **more}))
        assert line.recv(4096).startswith(b"HTTP/1.1 100")
        line.sendall(body)
        assert status(line.recv(4096)) == 422
    assert status(raw(hub, head(hub, "POST", "/v1/reply", more))) == 401
    finish(hub)


def test_21_a_download_that_is_cut_again_and_again(hub, tmp_path):
    """Each time it goes on where it was; what is used in the end is what was named."""
    import numpy as np

    value = np.arange(packets.INLINE, dtype="float32")
    hub.ask("ada", value=value)
    task = hub.poll("ada")
    with between.Between(hub.url.removeprefix("http://"), lambda came: between.Cut(2**18)) as bad:
        line = hub.line("ada")
        line.url = bad.url
        data = line.fetch(task.ref.sha, task.ref.size, tmp_path)
        line.close()
    asked = [came.headers.get("range") for came in bad.came]
    assert asked[0] is None
    assert len(set(asked)) == len(asked) > 3, "it asked for the same again"
    assert sha(data) == task.ref.sha
    assert np.array_equal(packets.opened(task.said, data).body.value["x"], value)
    hub.say("ada", task)
    assert hub.wait() == ["ada"]


def test_21_a_download_that_was_changed_is_not_used(hub, tmp_path):
    import numpy as np

    hub.ask("ada", value=np.zeros(packets.INLINE))
    task = hub.poll("ada")
    change = between.Changed(lambda data: data[:-1] + b"!")
    with between.Between(hub.url.removeprefix("http://"), lambda came: change) as bad:
        line = hub.line("ada")
        line.url = bad.url
        with pytest.raises(co.ChannelError, match="what it named"):
            line.fetch(task.ref.sha, task.ref.size, tmp_path)
        line.close()
    hub.say("ada", task)
    assert hub.wait() == ["ada"]


def test_a_body_that_stops_is_given_up(hub, monkeypatch):
    """And what others ask is answered meanwhile."""
    monkeypatch.setattr("comity.service.hub.SILENCE", 0.4)
    asking(hub)
    signed = hub.line("ada")._signed("POST", "/v1/reply", b"x" * 100, {})
    said: list[bytes] = []
    slow = threading.Thread(
        target=lambda: said.append(raw(hub, head(hub, "POST", "/v1/reply", {**signed, "Content-Length": "100"}) + b"x"))
    )
    slow.start()
    began = time.monotonic()
    finish(hub)
    assert time.monotonic() - began < 2.0
    slow.join(10)
    assert status(said[0]) == 408
