"""Bare files over the same libraries: httpx to Starlette on uvicorn, TLS, sha256 at both ends, kept on disk.

    python -m hubs.files '{"url": ..., "certificate": ..., "names": [...], "folder": ..., "times": 3, "count": 3}'

is one client: it gets a file and puts it back, and prints the moments at which it began and ended, and its CPU time.
Nothing is signed, nothing is asked for first, and nothing is resumed.
"""

import asyncio
import json
import os
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

PIECE = 2**20


def app(folder: Path, count: int) -> Any:
    """Gives `given`, takes files, and lets all clients begin together."""
    from starlette.applications import Starlette
    from starlette.responses import FileResponse, PlainTextResponse
    from starlette.routing import Route

    gates: dict[str, asyncio.Event] = {}
    there: dict[str, int] = {}

    async def ready(request: Any) -> Any:
        """Answers once all are here."""
        turn = request.path_params["turn"]
        gate = gates.setdefault(turn, asyncio.Event())
        there[turn] = there.get(turn, 0) + 1
        if there[turn] == count:
            gate.set()
        await gate.wait()
        return PlainTextResponse("go")

    async def give(request: Any) -> Any:
        answer = FileResponse(folder / "given")
        answer.chunk_size = PIECE
        return answer

    async def take(request: Any) -> Any:
        digest, path = sha256(), folder / request.path_params["name"]
        with path.open("wb") as f:
            async for piece in request.stream():
                digest.update(piece)
                f.write(piece)
            f.flush()
            os.fsync(f.fileno())
        return PlainTextResponse(digest.hexdigest())

    return Starlette(
        routes=[Route("/ready/{turn}", ready), Route("/given", give), Route("/{name}", take, methods=["PUT"])]
    )


@contextmanager
def served(folder: Path, count: int, certificate: str, key: str) -> Iterator[str]:
    """A server in a thread: its URL."""
    import uvicorn

    named = {"ssl_certfile": certificate, "ssl_keyfile": key}
    config = uvicorn.Config(app(folder, count), port=0, log_level="warning", access_log=False, lifespan="off", **named)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"https://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(10)


def client(order: dict[str, Any]) -> dict[str, Any]:
    """Get and put, so many times: when, and for how many CPU seconds in all."""
    import httpx

    (name,), folder = order["names"], Path(order["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    moments, here, spent = [], folder / name, time.process_time()
    with httpx.Client(verify=ssl.create_default_context(cafile=order["certificate"]), timeout=60) as line:
        for turn in range(order["times"]):
            line.get(f"{order['url']}/ready/{turn}")
            began, digest = time.perf_counter(), sha256()
            with line.stream("GET", f"{order['url']}/given") as given, here.open("wb") as f:
                for piece in given.iter_bytes(PIECE):
                    digest.update(piece)
                    f.write(piece)
            data = here.read_bytes()
            own = sha256(data).hexdigest()
            pieces = (data[i : i + PIECE] for i in range(0, len(data), PIECE))
            got = line.put(f"{order['url']}/{name}", content=pieces, headers={"content-length": str(len(data))})
            moments.append((began, time.perf_counter()))
            assert digest.hexdigest() == own == got.text, "What came must be what was sent."
    return {"moments": moments, "cpu": time.process_time() - spent}


if __name__ == "__main__":
    print(json.dumps(client(json.loads(sys.argv[1]))))
