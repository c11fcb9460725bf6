"""Flower's deployment engine beside ours: a SuperLink and three SuperNodes on this machine, empty messages to and fro.

Without TLS and without signed messages, which spares it work. Its processes are started with the Python that is given,
which must have flwr; they end with the measurement.
"""

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "empty"
version = "1.0.0"
dependencies = []
[tool.flwr.app]
publisher = "bench"
[tool.flwr.app.components]
serverapp = "empty.server:app"
clientapp = "empty.client:app"
[tool.flwr.app.config]
"""
CLIENT = """
from flwr.app import Message, RecordDict
from flwr.clientapp import ClientApp
app = ClientApp()

@app.query()
def query(message, context):
    return Message(RecordDict(), reply_to=message)
"""
SERVER = """
import json, time
from flwr.app import Message, RecordDict
from flwr.serverapp import ServerApp
app = ServerApp()

@app.main()
def main(grid, context):
    while len(nodes := list(grid.get_node_ids())) < {nodes}:
        time.sleep(0.1)
    took = []
    for _ in range({exchanges}):
        began = time.perf_counter()
        asked = [Message(RecordDict(), message_type="query", dst_node_id=n) for n in nodes]
        got = list(grid.send_and_receive(asked))
        took.append(time.perf_counter() - began)
        assert len(got) == {nodes} and not any(m.has_error() for m in got)
    with open({out!r}, "w") as f:
        json.dump(took, f)
"""


def measured(python: str, folder: Path, *, nodes: int = 3, exchanges: int = 5) -> dict[str, Any]:
    """Seconds of each exchange after the first."""
    out = _app(folder, nodes, exchanges)
    bin_ = Path(python).parent
    env = {**os.environ, "FLWR_HOME": str(folder / "home"), "FLWR_TELEMETRY_ENABLED": "0"}
    env |= {"FLWR_DISABLE_UPDATE_CHECK": "1", "PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}"}
    port = _free()
    link = [bin_ / "flower-superlink", "--insecure", "--port", str(port), "--disable-runtime-dependency-installation"]
    node = [bin_ / "flower-supernode", "--insecure", "--superlink", f"127.0.0.1:{port}"]
    (folder / "home").mkdir()
    settings = f'[superlink]\ndefault = "here"\n[superlink.here]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
    (folder / "home" / "config.toml").write_text(settings)
    commands = [link, *([*node, "--port", str(_free())] for _ in range(nodes))]
    with _running(commands, env, folder / "log"):
        _listening(port)
        _submit([bin_ / "flwr", "run", str(folder / "empty"), "here"], env)
        ends = time.monotonic() + 60.0 * (exchanges + 2)
        while not out.exists() or not out.read_text():
            if time.monotonic() > ends:
                raise TimeoutError(f"Flower did not finish: {(folder / 'log').read_text()[-2000:]}")
            time.sleep(0.2)
        time.sleep(0.2)
    took = json.loads(out.read_text())
    return {"seconds": took[1:], "first": took[0]}


def version(python: str) -> str:
    """Of flwr."""
    code = "from importlib.metadata import version; print(version('flwr'))"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def _app(folder: Path, nodes: int, exchanges: int) -> Path:
    code = folder / "empty" / "empty"
    code.mkdir(parents=True)
    out = folder / "took.json"
    (code.parent / "pyproject.toml").write_text(PROJECT)
    (code / "__init__.py").write_text("")
    (code / "client.py").write_text(CLIENT)
    (code / "server.py").write_text(SERVER.format(nodes=nodes, exchanges=exchanges, out=str(out)))
    return out


def _submit(command: list[Any], env: dict[str, str]) -> None:
    for _ in range(10):
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode == 0:
            return
        time.sleep(2)
    raise ChildProcessError(done.stdout[-1000:] + done.stderr[-1000:])


@contextmanager
def _running(commands: list[Any], env: dict[str, str], log: Path) -> Iterator[None]:
    """Processes, each with a group of its own, that end with the block."""
    begun = []
    with log.open("w") as said:
        try:
            for command in commands:
                begun.append(
                    subprocess.Popen(command, env=env, stdout=said, stderr=subprocess.STDOUT, start_new_session=True)
                )
            yield
        finally:
            for process in begun:
                _stop(process)


def _stop(process: "subprocess.Popen[Any]") -> None:
    """A process and what it started."""
    for what in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, what)
        except ProcessLookupError:
            break
        time.sleep(1.0 if what == signal.SIGTERM else 0.0)
    process.wait(20)


def _free() -> int:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return int(door.getsockname()[1])


def _listening(port: int) -> None:
    for _ in range(600):
        with socket.socket() as line:
            if line.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise TimeoutError("Flower's SuperLink does not listen.")
