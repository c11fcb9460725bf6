"""A PostgreSQL of the tests: made in a folder of its own, on a port of this machine, gone at the end."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

PLACES = ("/usr/lib/postgresql/*/bin", "/usr/local/pgsql/bin", "/opt/homebrew/opt/postgresql*/bin")


def tool(name: str) -> str | None:
    """Where a program of PostgreSQL lies."""
    found = [str(p / name) for place in PLACES for p in sorted(Path("/").glob(place[1:])) if (p / name).exists()]
    return shutil.which(name) or (found[-1] if found else None)


def _owner() -> str | None:
    """Who runs it: not root, whom it refuses."""
    if os.getuid() != 0:
        return None
    known = {row.pw_name for row in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody") if name in known)


@dataclass
class Postgres:
    """A server that can be stopped, killed and started again."""

    folder: Path
    port: int
    made: list[str] = field(default_factory=list)

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self.folder}"
        _run("pg_ctl", "-D", self.data, "-l", self.folder / "log", "-o", options, "-w", "-t", "30", "start")

    def stop(self, mode: str = "immediate") -> None:
        """ "immediate" is as a kill -9 of all its processes."""
        _run("pg_ctl", "-D", self.data, "-m", mode, "-w", "-t", "30", "stop")

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def url(self, name: str = "") -> str:
        """Of a database that is empty: its name, or a new one."""
        name = name or f"hub{len(self.made)}"
        if name not in self.made:
            _run("createdb", "-h", "127.0.0.1", "-p", self.port, "-U", "hub", name)
            self.made.append(name)
        return f"postgresql+psycopg://hub@127.0.0.1:{self.port}/{name}"


@contextmanager
def running() -> Iterator[Postgres]:
    """A server of one's own, for a test that kills it."""
    if tool("pg_ctl") is None or tool("initdb") is None:
        pytest.skip("PostgreSQL is not installed here: apt install postgresql")
    pytest.importorskip("psycopg")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as made:
        folder = Path(made)
        if (owner := _owner()) is not None:
            shutil.chown(folder, owner)
        _run("initdb", "-D", folder / "data", "-U", "hub", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C")
        server = Postgres(folder, _free())
        with _ended_at_last(server):
            server.start()
            yield server


@contextmanager
def _ended_at_last(server: Postgres) -> Iterator[None]:
    """It is stopped when the block ends, and also when this process is killed: a line to a shell breaks then."""
    stop = 'read -r _; "$0" -D "$1" -m immediate stop; [ -e "$1/postmaster.pid" ] || rm -rf "$2"'
    command = ["sh", "-c", stop, tool("pg_ctl"), server.data, server.folder]
    with subprocess.Popen(
        command, user=_owner(), cwd="/", stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True,
    ) as shell:  # fmt: skip
        try:
            yield
        finally:
            assert shell.stdin is not None
            shell.stdin.close()
            shell.wait(40)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One server for all tests; each takes a database of its own by `url()`."""
    with running() as server:
        yield server


def _run(name: str, *said: Any) -> None:
    command = [tool(name) or name, *map(str, said)]
    env = {"PATH": os.environ["PATH"], "LC_ALL": "C"}
    done = subprocess.run(
        command, user=_owner(), cwd="/", env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-500:]


def _free() -> int:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return int(door.getsockname()[1])
