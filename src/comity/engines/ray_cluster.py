"""Joining a cluster of Ray, or starting one on this machine; leaving it as it was found."""

import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any
from weakref import WeakSet

from comity.core.errors import ConfigError

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}


@dataclass
class _Ours:
    """What this process is connected to, where it was us who connected it."""

    users: "WeakSet[Any]" = field(default_factory=WeakSet)
    joined: bool = False
    handler: Any = None


_OURS = _Ours()


def library() -> Any:
    """Ray.

    Raises:
        ConfigError: it is not installed.
    """
    os.environ.setdefault("RAY_TQDM_PATCH_PRINT", "0")  # it would put a print of its own in the place of Python's
    try:
        return import_module("ray")
    except ImportError as missing:
        raise ConfigError("ray is needed for co.Ray(). Install it: pip install 'comity[ray]'") from missing


def join(user: Any, address: str | None, actors: int | None) -> None:
    """Connect this process, unless it is connected already; then that is used, whatever the address.

    Args:
        user: for whom; it is to `leave`.
        address: of a cluster; None starts one on this machine, for this process alone.
        actors: how many there will be; None for one per core.

    Raises:
        ConfigError: there is no such cluster, or no Ray.
    """
    with _quietly() if address is None else nullcontext():
        ray = library()
        if not ray.is_initialized():
            _OURS.handler = _handler()
            _connect(ray, address, actors)
            _OURS.joined = True
            _handle(_ended if _OURS.handler is signal.SIG_DFL else _OURS.handler)
    if _OURS.joined:
        _OURS.users.add(user)


def leave(user: Any) -> None:
    """Disconnect, or shut down what was started, once nobody uses it. What others connected stays."""
    _OURS.users.discard(user)
    if _OURS.joined and not _OURS.users:
        _OURS.joined = False
        library().shutdown()
        if _OURS.handler is signal.SIG_DFL:
            _handle(_OURS.handler)


def _handler() -> Any:
    """What becomes of SIGTERM, which Ray takes for itself."""
    return signal.getsignal(signal.SIGTERM) if threading.current_thread() is threading.main_thread() else None


def _ended(number: int, frame: Any) -> None:
    """Whoever is told to end, and would at once, ends what was started as well."""
    sys.exit(128 + number)


def _handle(handler: Any) -> None:
    if handler is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


def _connect(ray: Any, address: str | None, actors: int | None) -> None:
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address is None:
        settings |= {"num_cpus": actors or cores(), "include_dashboard": False}
        settings["_system_config"] = {"worker_niceness": 0}
    try:
        ray.init(address or "local", **settings)
    except (ConnectionError, RuntimeError, ValueError) as error:
        if address is None:
            raise
        said = str(error).split("\n")[0].rstrip(".")[:200]
        must = f"The 'address' of Ray must be of a cluster that runs. Got '{address}' ({said})."
        raise ConfigError(f"{must} Start one with: ray start --head") from error


@contextmanager
def _quietly() -> Iterator[None]:
    """Ray's own settings, for as long as it starts: on loopback, one thread a worker, no report to its makers."""
    before = {k: os.environ.get(k) for k in _QUIET}
    os.environ.update(_QUIET)
    try:
        with _loopback():
            yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


@contextmanager
def _loopback() -> Iterator[None]:
    """Without this Ray would listen on every network card, and obey whoever calls; it reads its environment once."""
    library()
    constants: Any = import_module("ray._private.ray_constants")
    before = getattr(constants, "ENABLE_RAY_CLUSTER", True)
    constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = before


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def places(actors: int | None, gpus: float | None) -> tuple[list[str], float]:
    """On which node each actor goes, and its share of a GPU.

    Args:
        actors: how many; None for one a device: a GPU where there are some, else a core.
        gpus: the share of each; None is 1 where there are some, else 0.

    Returns:
        The id of a node for each actor, nodes in turn, and the share.

    Raises:
        ConfigError: there are not so many GPUs.
    """
    nodes: list[tuple[str, Mapping[str, float]]] = [
        (n["NodeID"], n["Resources"]) for n in library().nodes() if n["Alive"]
    ]
    share = float(any(r.get("GPU") for _, r in nodes)) if gpus is None else gpus
    kind, each = ("GPU", share) if share else ("CPU", 1.0)
    slots = sorted((i, node) for node, r in nodes for i in range(int(r.get(kind, 0) / each)))
    if share and len(slots) < (actors or 1):
        got = f"Got {share} for each of {actors or 1}, and room for {len(slots)}."
        raise ConfigError(f"The 'gpus' of Ray must be there. {got} Use gpus=0, or fewer actors.")
    here = [node for _, node in slots] or [node for node, _ in nodes]
    return [here[i % len(here)] for i in range(actors or len(here))], share
