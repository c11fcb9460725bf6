"""A hub and its parties on one machine, each a process of its own: to try a study before anybody else is asked.

They are the commands that operators and parties type, over HTTPS, each with a folder of its own:

FOLDER/hub        the hub's, with the run in runs/STUDY
FOLDER/NAME       a party's, with its copy of the ledger
FOLDER/NAME.key   its identity
FOLDER/NAME.log   what it said; hub.log: what the hub said
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comity.core.errors import ConfigError
from comity.service.joining import join
from comity.service.registry import Registry
from comity.service.settings import HubSettings

COMITY = (sys.executable, "-c", "from comity.cli import main; main()")
PATIENCE = 60.0
"""Seconds that a hub may take to begin."""


@dataclass(frozen=True)
class Trial:
    """Processes that run.

    Attributes:
        settings: of the hub.
        run: the folder of the run, at the hub.
        hub: its process.
        sites: a process for each party; it ends when the run is over, but with `stay`.
    """

    settings: HubSettings
    run: Path
    hub: "subprocess.Popen[bytes]"
    sites: Mapping[str, "subprocess.Popen[bytes]"]

    def wait(self, seconds: float) -> None:
        """Until every site has ended.

        Raises:
            ConfigError: one did not, or did not end well; what it said is told.
        """
        ends = time.monotonic() + seconds
        for name, site in self.sites.items():
            with suppress(subprocess.TimeoutExpired):
                site.wait(max(0.1, ends - time.monotonic()))
            if site.returncode != 0:
                raise ConfigError(f"{name} must take part to the end. It did not. It said: {self._said(name)}")

    def _said(self, name: str) -> str:
        return _text(self.settings.folder.parent / f"{name}.log")


@contextmanager
def organisations(
    folder: str | Path, study: str | Path, data: Mapping[str, str | Path], *, port: int = 0, stay: bool = False
) -> Iterator[Trial]:
    """Start a hub and its parties, who take part in a study; with the block, all of them end.

    Args:
        folder: of all of them.
        study: the file that each of them loads, see `Study`.
        data: party to what its `participant` is given, a path.
        port: of the hub, on this machine alone; 0 for any that is free.
        stay: sites wait for the next run.

    Raises:
        ConfigError: the port is taken, or a process did not begin.
    """
    at, begun = Path(folder).absolute(), list[subprocess.Popen[bytes]]()
    number = _free(port)
    settings = HubSettings.make(at / "hub", name="Hub", host="localhost", port=number)
    try:
        begun += [_begin(at, "hub", ["serve", settings.folder, study, "--minimum", len(data)])]
        _listening(number, begun[0], at / "hub.log")
        sites = {}
        with Registry.open(settings.folder) as registry:
            for name, path in data.items():
                _join(at, name, settings, registry)
                words = ["site", study, "--identity", at / f"{name}.key", "--data", path, "--folder", at / name]
                sites[name] = _begin(at, name, [*words, "--yes", *(["--stay"] if stay else [])])
                begun += [sites[name]]
        yield Trial(settings, settings.folder / "runs" / Path(study).stem, begun[0], sites)
    finally:
        for sent, seconds in ((signal.SIGTERM, 2.0), (signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
            _end(begun, sent, seconds)  # at the second one a hub no longer waits for its round


def _join(at: Path, name: str, settings: HubSettings, registry: Registry) -> None:
    """As by comity hub invite, join and hub approve."""
    token = registry.invite(name, settings.secret().public_key(), certificate=settings.certificate_der())
    join(settings.url, token, at / f"{name}.key")
    registry.approve(name)


def _begin(at: Path, name: str, words: Sequence[Any]) -> "subprocess.Popen[bytes]":
    """A command as a process, out of the reach of the terminal's Ctrl-C."""
    env = {"OMP_NUM_THREADS": "1", **os.environ}
    with (at / f"{name}.log").open("ab") as log:
        return subprocess.Popen(
            [*COMITY, *map(str, words)], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env,
            start_new_session=True,
        )  # fmt: skip


def _end(begun: Sequence["subprocess.Popen[bytes]"], number: signal.Signals, seconds: float) -> None:
    """Send a signal to those that are there, and wait for them so long."""
    ends = time.monotonic() + seconds
    for process in begun:
        if process.poll() is None:
            process.send_signal(number)
    for process in begun:
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0.05, ends - time.monotonic()))


def _free(port: int) -> int:
    with socket.socket() as door:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            door.bind(("127.0.0.1", port))
        except (OSError, OverflowError) as error:
            raise ConfigError(f"Port {port} must be free. It is not: {error}. Name another one.") from None
        return int(door.getsockname()[1])


def _listening(port: int, hub: "subprocess.Popen[bytes]", log: Path) -> None:
    ends = time.monotonic() + PATIENCE
    while hub.poll() is None and time.monotonic() < ends:
        with socket.socket() as line:
            if line.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise ConfigError(f"The hub must listen on port {port}. It does not. It said: {_text(log)}")


def _text(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-1000:] if log.exists() else "nothing"
