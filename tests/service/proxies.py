"""nginx and tinyproxy of the tests: processes of their own, in temporary folders, on ports of this machine."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

SBIN = "/usr/sbin:/usr/local/sbin:/opt/homebrew/bin"

NGINX = """
{user}
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 512; }}
http {{
  access_log {folder}/access.log;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  upstream hubs {{ {hubs} }}
  server {{
    listen 127.0.0.1:{port}{ssl};
    {certificate}
    location / {{ proxy_pass http://hubs; {settings} }}
  }}
}}
"""
TUNED = "client_max_body_size 0; proxy_request_buffering off; proxy_buffering off; proxy_http_version 1.1;"

TINYPROXY = """
Port {port}
Listen 127.0.0.1
Timeout 600
MaxClients 100
LogFile "{folder}/tinyproxy.log"
LogLevel Connect
PidFile "{folder}/tinyproxy.pid"
{connect}
"""


def free_port() -> int:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return int(door.getsockname()[1])


@contextmanager
def nginx(
    folder: Path, hubs: Sequence[str], *, port: int, tls: tuple[Path, Path] | None = None, settings: str = ""
) -> Iterator[None]:
    """A terminator in front of hubs ("host:port"), with Debian's defaults but for what is given.

    Args:
        folder: for its files; it is made.
        hubs: which take turns.
        port: where it listens.
        tls: files of certificate and key.
        settings: of the location, TUNED for one.
    """
    program = _program("nginx", "nginx-light")
    folder.mkdir()
    certificate = f"ssl_certificate {tls[0]}; ssl_certificate_key {tls[1]};" if tls else ""
    (folder / "nginx.conf").write_text(
        NGINX.format(
            user="user root;" if os.getuid() == 0 else "",
            folder=folder,
            hubs=" ".join(f"server {hub} max_fails=0;" for hub in hubs),
            port=port,
            ssl=" ssl" if tls else "",
            certificate=certificate,
            settings=settings,
        )
    )
    command = [program, "-c", str(folder / "nginx.conf"), "-p", str(folder), "-e", str(folder / "first.log")]
    with _running(command, folder, port):
        yield


@contextmanager
def tinyproxy(folder: Path, *, connect: Sequence[int] = ()) -> Iterator[int]:
    """A proxy that takes CONNECT, to these ports alone where some are given. Gives its own port."""
    program = _program("tinyproxy", "tinyproxy")
    folder.mkdir()
    port = free_port()
    allowed = "\n".join(f"ConnectPort {n}" for n in connect)
    (folder / "tinyproxy.conf").write_text(TINYPROXY.format(port=port, folder=folder, connect=allowed))
    with _running([program, "-d", "-c", str(folder / "tinyproxy.conf")], folder, port):
        yield port


def _program(name: str, package: str) -> str:
    found = shutil.which(name, path=f"{os.environ['PATH']}:{SBIN}")
    if found is None:
        pytest.skip(f"{name} is not installed here: apt install {package}")
    return found


@contextmanager
def _running(command: list[str], folder: Path, port: int) -> Iterator[None]:
    """Until it takes connections; gone at the end, its workers too."""
    with (folder / "out").open("wb") as out:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=folder)
        try:
            _wait(process, port, folder)
            yield
        finally:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(5)


def _wait(process: "subprocess.Popen[bytes]", port: int, folder: Path) -> None:
    ends = time.monotonic() + 10.0
    while time.monotonic() < ends and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1.0).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise AssertionError([path.read_text()[-500:] for path in folder.glob("*") if path.is_file()])
