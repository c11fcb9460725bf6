"""A hub's server, in a thread of its own."""

import asyncio
import resource
import socket
import ssl
import sys
import threading
import time
from collections.abc import Coroutine, Sequence
from contextlib import nullcontext, suppress
from typing import Any

from comity.core.errors import ConfigError
from comity.service import hub as hubs
from comity.service.helper import library
from comity.service.hub import Hub, app
from comity.service.lines import hang_up, protocol
from comity.service.waking import look_again

FILES = 65_536
"""Open files that a hub asks for: two for each party that waits."""


class Served:
    """A hub that answers.

    Args:
        hub: what it serves.
        bind: "host:port".
        files: of the certificate and its key, and of the authority whose certificates callers must show, if any; ()
            for plain HTTP.
        routes: beside the hub's own.

    Attributes:
        at: the URL, by the address where it listens.
    """

    def __init__(self, hub: Hub, bind: str, files: Sequence[str] = (), routes: Sequence[Any] = ()) -> None:
        """Listen, and return once questions are taken.

        Raises:
            ConfigError: the port is taken, or the certificate cannot be used.
        """
        lib, self._hub = library(), hub
        host, _, port = bind.rpartition(":")
        self._door = _listening(host.strip("[]"), int(port))
        _many_files()
        tls: dict[str, Any] = dict(zip(("ssl_certfile", "ssl_keyfile", "ssl_ca_certs"), files, strict=False))
        if "ssl_ca_certs" in tls:
            tls["ssl_cert_reqs"] = ssl.CERT_REQUIRED
        self.at = f"http{'s' if tls else ''}://{host}:{self._door.getsockname()[1]}"
        try:
            config = lib.uvicorn.Config(
                app(hub, routes), log_level="warning", access_log=False, lifespan="off", proxy_headers=False,
                server_header=False, timeout_graceful_shutdown=1, timeout_keep_alive=75, http=protocol(), ws="none",
                log_config=None, **tls,
            )  # fmt: skip
        except BaseException:
            self._door.close()
            raise
        self._server, self._failed = lib.uvicorn.Server(config), ""
        self._server.capture_signals = nullcontext  # they are the owner's
        self._thread = threading.Thread(target=self._run, name="comity hub", daemon=True)
        self._thread.start()
        while not self._server.started and self._thread.is_alive():
            time.sleep(0.005)
        if not self._thread.is_alive():
            self._door.close()
        self.check()

    def check(self) -> None:
        """Is it there?

        Raises:
            ConfigError: it ended.
        """
        if not self._thread.is_alive():
            raise ConfigError(f"The hub must be able to serve. It ended{self._failed}. Check certificate and port.")

    def close(self) -> None:
        """Answer what is open, and end."""
        self._hub.closing = True
        self._hub.wake()
        self._server.should_exit = True
        self._thread.join(10.0)
        self._door.close()

    def _run(self) -> None:
        try:
            _loop(self._main(), self._server.config.get_loop_factory())  # uvloop's, where it is installed
        except (Exception, SystemExit) as error:  # noqa: BLE001  it is told by `check`
            self._failed = f": {error}"
        finally:
            self._hub.loop = None

    async def _main(self) -> None:
        self._hub.loop = asyncio.get_running_loop()
        beside = [asyncio.create_task(look_again(self._hub)), asyncio.create_task(self._watch())]
        try:
            await self._server.serve(sockets=[self._door])
        finally:
            for task in beside:
                task.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.gather(*beside)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(min(2.0, hubs.SILENCE))
            hang_up(self._server.server_state.connections, hubs.SILENCE)


def _loop(main: Coroutine[Any, Any, None], made: Any) -> None:
    with asyncio.Runner(loop_factory=made) as runner:
        runner.run(main)


def _many_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        if wanted < 4096:
            sys.stderr.write(f"hub: this system lets it open {wanted} files: enough for {wanted // 2} parties\n")


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    door = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # named, else asyncio leaves Nagle on: 40 ms
    try:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        door.bind((host, port))
        door.listen(2048)
    except (OSError, OverflowError) as error:
        door.close()
        raise ConfigError(
            f"The hub must be able to listen on {host}, port {port}. Got: {error}. Name another."
        ) from None
    return door
