"""The worker processes of an engine, as seen by the process that started them."""

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections import ChainMap, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from importlib import import_module
from io import BytesIO
from queue import Empty, SimpleQueue
from typing import Any, BinaryIO, Protocol, cast

import numpy as np

from comity.core.checks import shown
from comity.core.errors import ConfigError
from comity.core.tree import leaves
from comity.engines import worker
from comity.engines.worker import Did, Ended, Frame, Hold, Told, on_disk

BEGIN = (
    "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); import json, sys; "
    "sys.path[:] = json.loads(sys.argv.pop()); from comity.engines.worker import main; main()"
)
THREADS = "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"
AHEAD, PIPE, LARGE = 2, 2**20, 2**16
"""Messages of a worker that may wait to be taken; bytes of its pipe; bytes of arrays that are worth a block."""
PATIENCE = 2.0


class Job(Protocol):
    """A piece of work for one worker."""

    def message(self, door: Any) -> Any:
        """What the worker is told."""
        ...


class Owner:
    """Whoever handed out jobs: what came of them waits here."""

    def __init__(self, door: Any) -> None:
        """Args: the sites that are asked."""
        self.door = door
        self.inbox: deque[tuple[Any, Did | Ended]] = deque()
        self.held: dict[Any, int] = {}


class Hand:
    """One worker process, and the thread that hears it."""

    def __init__(self, told: Told, workers: int, events: "SimpleQueue[tuple[Hand, Frame | None]]") -> None:
        """Start it."""
        self.job: Any = None
        self.owner: Owner | None = None
        self.holds: Mapping[Any, int] | None = None
        self.room = threading.Semaphore(AHEAD)
        self._ending = False
        path = [p for p in sys.path if isinstance(p, str)]
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", BEGIN, json.dumps(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=_environment(workers),
            pass_fds=(told.door, told.block),
        )
        self.pipe, self._heard = cast(BinaryIO, self.process.stdin), cast(BinaryIO, self.process.stdout)
        _widen(self._heard)
        self._thread = threading.Thread(target=self._listen, args=(events,), daemon=True)
        self._thread.start()
        self.say(told)

    def say(self, message: Any, held: Mapping[Any, int] | None = None) -> None:
        """Send a message. That it may have died is known when its pipe ends."""
        frame = worker.dumps(message, held)
        with suppress(BrokenPipeError):
            worker.send(self.pipe, *frame)
            self.pipe.flush()

    def _listen(self, events: "SimpleQueue[tuple[Hand, Frame | None]]") -> None:
        frame: Frame | None = None
        while True:
            if not self._ending:
                self.room.acquire()
            try:
                frame = worker.receive(self._heard)
            except (OSError, ValueError):
                frame = None
            events.put((self, frame))
            if frame is None:
                self._heard.close()
                return

    def end(self, *, at_once: bool) -> None:
        """End it: what is idle ends by itself."""
        if at_once:
            self.process.kill()
        with suppress(OSError, ValueError):
            self.pipe.close()
        self._ending = True
        self.room.release()
        self._thread.join(PATIENCE)
        if self._thread.is_alive():
            self.process.kill()
        self.process.wait()

    def how(self) -> str:
        """How it ended, once it has."""
        code = self.process.wait()
        return f"killed by signal {-code}" if code < 0 else f"exit code {code}"


class Crew:
    """Up to `workers` processes, started when there is work for them, and replaced when they die."""

    def __init__(self, workers: int) -> None:
        """Args: how many there may be."""
        self.workers = workers
        self.hands: list[Hand] = []
        self._told: Told | None = None
        self._events: SimpleQueue[tuple[Hand, Frame | None]] = SimpleQueue()
        self._pid = os.getpid()
        self._holder: Owner | None = None

    def give(self, job: Job, owner: Owner) -> bool:
        """Hand a job to whoever is free; False where nobody is."""
        hand = next((h for h in self.hands if h.job is None), None)
        if hand is None:
            if len(self.hands) >= self.workers:
                return False
            self._told = self._told or _told(owner.door)
            hand = Hand(self._told, self.workers, self._events)
            self.hands.append(hand)
        hand.owner, hand.job = owner, job
        held = owner.held if self._holder is owner else {}
        if held and hand.holds is not held:
            hand.say(self._hold)
            hand.holds = held
        hand.say(job.message(owner.door), held)
        return True

    def free(self) -> bool:
        """Is there anybody to give a job to?"""
        return len(self.hands) < self.workers or any(h.job is None for h in self.hands)

    def hold(self, owner: Owner, tree: Any) -> None:
        """Put the arrays of a Tree where all workers can read them: messages of this owner then only name them.

        Nobody may be at work: who is may still have to read what lies there now.
        """
        arrays = [x for _, x in leaves(tree) if isinstance(x, np.ndarray) and not x.flags.writeable]
        if sum(x.nbytes for x in arrays) < LARGE:
            return
        assert all(h.job is None for h in self.hands)
        self._told = self._told or _told(owner.door)
        pickled, buffers = worker.dumps(arrays)
        self._hold = Hold(pickled, worker.laid(self._told.block, buffers))
        self._kept = arrays  # alive as long as their places are known by
        self._holder, owner.held = owner, {worker.place(x): i for i, x in enumerate(arrays)}

    def at_work(self, owner: Owner | None = None) -> list[Hand]:
        """Who has a job, of this owner or of any."""
        return [h for h in self.hands if h.job is not None and (owner is None or h.owner is owner)]

    def pump(self, *, wait: bool) -> bool:
        """Take what a worker said next, and put it where its owner finds it."""
        try:
            hand, frame = self._events.get(block=wait)
        except Empty:
            return False
        if hand not in self.hands:
            return True
        hand.room.release()
        if frame is None:
            self._lost(hand)
            return True
        said, job, owner = worker.loads(frame), hand.job, hand.owner
        assert owner is not None
        if isinstance(said, Did):
            hand.job = None if said.last else job
            if said.touched:
                owner.door.keep(said.touched)
        else:
            hand.job = None
            if said.how == "unready":
                self._leave(hand)
        owner.inbox.append((job, said))
        return True

    def _lost(self, hand: Hand) -> None:
        job, owner = hand.job, hand.owner
        self._leave(hand)
        if job is not None and owner is not None:
            owner.inbox.append((job, Ended("died", said=hand.how())))

    def _leave(self, hand: Hand) -> None:
        self.hands.remove(hand)
        hand.end(at_once=True)

    def drain(self) -> None:
        """Wait until nobody is at work."""
        while self.at_work():
            self.pump(wait=True)

    def drop(self, owner: Owner) -> None:
        """Nobody waits for these any more: whoever is still at work on them is ended."""
        if os.getpid() == self._pid:
            for hand in self.at_work(owner):
                self._leave(hand)

    def close(self) -> None:
        """End all of them. A process that was forked off since leaves them alone."""
        if os.getpid() != self._pid:
            return
        for hand in self.hands:
            with suppress(OSError, ValueError):
                hand.process.kill() if hand.job is not None else hand.pipe.close()
        while self.hands:
            self.hands.pop().end(at_once=False)
        if self._told is not None:
            os.close(self._told.door)
            os.close(self._told.block)
            self._told = None


def _environment(workers: int) -> dict[str, str]:
    """That of this process, with threads so that all workers together have one for each core."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    most = max(1, cores // workers)
    set_ = {name: os.environ.get(name, "") for name in THREADS}
    return os.environ | {k: str(min(most, int(v))) if v.isdecimal() and int(v) else str(most) for k, v in set_.items()}


def _widen(pipe: Any) -> None:
    """A larger pipe, where there is such a thing: fewer turns for large messages."""
    with suppress(ImportError, AttributeError, OSError):
        fcntl: Any = import_module("fcntl")
        fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, PIPE)


def _block() -> int:
    """Memory without a name, of which only its holders know: it is gone with the last of them."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("comity")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _told(door: Any) -> Told:
    """Lay the door where every worker finds it.

    Raises:
        ConfigError: it cannot be sent, or cloudpickle is not installed, or there are no such processes here.
    """
    if sys.platform == "win32":
        raise ConfigError("Worker processes need Linux or macOS. Got Windows. Use workers=1.")
    try:
        cloudpickle: Any = import_module("cloudpickle")
    except ImportError as missing:
        raise ConfigError(
            "Worker processes need cloudpickle. It is not installed. "
            "Install it: pip install 'comity[processes]', or use workers=1."
        ) from missing
    away = door.away() if hasattr(door, "away") else door
    buffers: list[memoryview] = []
    out = BytesIO()
    table = ChainMap({np.memmap: on_disk, np.ndarray: on_disk}, cloudpickle.Pickler.dispatch_table)
    kind: Any = type("Pickler", (cloudpickle.Pickler,), {"dispatch_table": table})
    try:
        kind(out, 5, buffer_callback=lambda b: buffers.append(b.raw())).dump(away)
    except Exception as error:
        who = shown(away)
        with suppress(Exception):
            who = _culprit(away, cloudpickle.dumps)
        said = f"{type(error).__name__}: {error}".rstrip(".")[:200]
        raise ConfigError(
            f"Worker processes need participants that can be pickled. Got {who} ({said}). Use workers=1."
        ) from error
    fd = _block()
    return Told(fd, worker.laid(fd, [out.getbuffer(), *buffers]), _block())


def _culprit(x: Any, dumps: Any, path: Sequence[str] = ()) -> str:
    """Where in an object lies what cannot be pickled, and what it is."""
    for name, part in _inside(x) if len(path) < 12 else ():
        try:
            dumps(part)
        except Exception:  # noqa: BLE001  that is what is looked for
            return _culprit(part, dumps, [*path, name])
    said = "".join(name for name in path if not name.startswith("._")).lstrip(".")
    return f"{said}, {shown(x)}" if said else shown(x)


def _inside(x: Any) -> Iterator[tuple[str, Any]]:
    """What an object holds, with the words that lead there."""
    if isinstance(x, Mapping):
        yield from ((f"[{key!r}]", value) for key, value in x.items())
    elif isinstance(x, partial):
        yield from (("", x.func), *_inside(x.args), *_inside(x.keywords))
    elif isinstance(x, list | tuple):
        yield from ((f"[{i}]", value) for i, value in enumerate(x))
    elif hasattr(x, "__self__") and not isinstance(x.__self__, type(os)):
        yield "._self", x.__self__
    elif hasattr(x, "__closure__"):
        cells = zip(x.__code__.co_freevars, x.__closure__ or (), strict=False)
        yield from ((f".{name}", cell.cell_contents) for name, cell in cells)
        names = [n for n in x.__code__.co_names if n in x.__globals__]
        yield from ((f".{name}", x.__globals__[name]) for name in names)
    else:
        slots = [name for kind in type(x).__mro__ for name in getattr(kind, "__slots__", ())]
        named = {n: getattr(x, n) for n in slots if isinstance(n, str) and hasattr(x, n)} | getattr(x, "__dict__", {})
        yield from ((f".{name}", value) for name, value in named.items())
