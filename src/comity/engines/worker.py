"""What runs in a worker process: the sites of a run, asked over a pipe by the process that started it.

A message is a pickle with its arrays beside it, uncopied. Both ends are one owner's and one program; nothing that is
read here ever crossed a trust boundary.
"""

import copyreg
import mmap
import os
import pickle
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from queue import SimpleQueue
from typing import Any, BinaryIO, NamedTuple, TypeAlias, cast

import numpy as np

from comity.core.contribution import Contribution
from comity.core.envelope import Envelope
from comity.core.together import Task
from comity.core.tree import leaves

Frame: TypeAlias = tuple[Any, list[memoryview]]
Span: TypeAlias = tuple[int, int]
HEAD, BUFFER = struct.Struct("<QI"), struct.Struct("<Q")
ALIGNED = 64
SAID, SOON = 2**16, 0.01
"""Bytes of sums, and seconds, after which they are worth a message."""


class Told(NamedTuple):
    """The first message to a worker: where the door lies, and the block in which questions will."""

    door: int
    spans: list[Span]
    block: int


class Hold(NamedTuple):
    """Arrays that messages will refer to lie in the block of questions."""

    pickled: bytes
    spans: list[Span]


class Ask(NamedTuple):
    """Questions to answer, and the drawers that their sites hold."""

    questions: list[Envelope]
    drawers: Mapping[str, Any]


class Total(NamedTuple):
    """A run of neighbours to ask and add, and the drawers that their sites hold."""

    task: Task
    drawers: Mapping[str, Any]


class Did(NamedTuple):
    """Answers, or neighbouring parts of a total, and the drawers that changed. After the last the worker is free."""

    made: list[Any]
    touched: Mapping[str, Any]
    seconds: float
    last: bool = True


class Ended(NamedTuple):
    """Nothing more comes of this message: it is done, or something was raised (`how` is not "done")."""

    how: str
    error: bytes = b""
    said: str = ""


def send(pipe: BinaryIO, pickled: Any, buffers: Sequence[memoryview] = ()) -> None:
    """Write a message; whoever writes flushes."""
    pipe.write(HEAD.pack(len(pickled), len(buffers)))
    pipe.write(b"".join(BUFFER.pack(b.nbytes) for b in buffers))
    for piece in (pickled, *buffers):
        pipe.write(piece)


def receive(pipe: BinaryIO) -> Frame | None:
    """Read a message; None when the other end is gone."""
    head = pipe.read(HEAD.size)
    if len(head) < HEAD.size:
        return None
    length, count = HEAD.unpack(head)
    told = pipe.read(BUFFER.size * count)
    pieces = []
    for size in (length, *(size for (size,) in BUFFER.iter_unpack(told))):
        piece = memoryview(cast(Any, np.empty(size, np.uint8)))
        if size and not _filled(pipe, piece):
            return None
        pieces.append(piece)
    return pieces[0], pieces[1:]


def _filled(pipe: BinaryIO, piece: memoryview) -> bool:
    at = 0
    while at < len(piece):
        n = pipe.readinto(piece[at:])  # type: ignore[attr-defined]
        if not n:
            return False
        at += n
    return True


def dumps(x: Any, held: Mapping[Any, int] | None = None) -> Frame:
    """A pickle and the arrays beside it (read only if they were); those that the other end holds are only named."""
    buffers: list[memoryview] = []
    out = _Bytes()
    pickler = pickle.Pickler(out, 5, buffer_callback=lambda b: buffers.append(b.raw()))
    if held:
        table = copyreg.dispatch_table.copy()

        def reduced(x: np.ndarray) -> Any:
            at = None if x.flags.writeable else held.get(place(x))
            return x.__reduce_ex__(5) if at is None else (there, (at,))

        table[np.ndarray] = reduced
        pickler.dispatch_table = table
    pickler.dump(x)
    return b"".join(out.pieces), buffers


class _Bytes:
    """Where a pickle is written to."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def write(self, piece: bytes) -> None:
        self.pieces.append(bytes(piece))


def loads(frame: Frame) -> Any:
    """What a message says."""
    return pickle.loads(frame[0], buffers=frame[1])


def place(x: np.ndarray) -> Any:
    """Where an array lies, and what it looks like."""
    return x.__array_interface__["data"][0], x.shape, x.strides, x.dtype.str


def on_disk(x: np.ndarray) -> Any:
    """How an array that lies in a file is opened anew; any other is pickled as ever."""
    root: Any = x
    while isinstance(root, np.ndarray) and not (isinstance(root, np.memmap) and isinstance(root.base, mmap.mmap)):
        root = root.base
    if not isinstance(root, np.memmap) or root.filename is None or not x.flags.c_contiguous or not x.size:
        return x.__reduce_ex__(5)
    at = root.offset + place(x)[0] - place(root)[0]
    mode = root.mode if x.flags.writeable and root.mode != "w+" else "r+" if x.flags.writeable else "r"
    return np.memmap, (os.path.abspath(root.filename), x.dtype, mode, at, x.shape)


_held: list[np.ndarray] = []


def there(at: int) -> np.ndarray:
    """An array that this process holds."""
    return _held[at]


def laid(fd: int, buffers: Iterable[memoryview]) -> list[Span]:
    """Write buffers into a block, one after the other: where each begins, and its bytes."""
    at, spans = 0, []
    for buffer in buffers:
        spans.append((at, buffer.nbytes))
        done = 0
        while done < buffer.nbytes:
            done += os.pwrite(fd, buffer[done:], at + done)
        at += -(-buffer.nbytes // ALIGNED) * ALIGNED
    return spans


def _read(fd: int, spans: Iterable[Span]) -> Iterator[memoryview]:
    """Buffers of a block, as copies that stay as they are when the block is written anew."""
    for at, size in spans:
        piece = memoryview(cast(Any, np.empty(size, np.uint8)))
        done = 0
        while done < size and (n := os.preadv(fd, [piece[done:]], at + done)):
            done += n
        yield piece


def _mapped(fd: int, spans: Sequence[Span]) -> list[memoryview]:
    """Buffers of a block that all workers share: a page is copied only by whoever writes into it."""
    whole = memoryview(mmap.mmap(fd, 0, access=mmap.ACCESS_COPY))
    return [whole[at : at + size] for at, size in spans]


class Worker:
    """Answers messages until the pipe ends."""

    def __init__(self, messages: Callable[[], Frame], out: BinaryIO) -> None:
        """Args: gives the next message, and where answers go."""
        self.messages, self.out = messages, out

    def run(self) -> None:
        """Work. It ends with the process."""
        told: Told = loads(self.messages())
        try:
            pickled, *buffers = _mapped(told.door, told.spans)
            door = pickle.loads(pickled, buffers=buffers)
        except BaseException as error:  # noqa: BLE001  user modules may raise anything; the hub is told
            self._say(_raised(error, "unready"))
            return
        while True:
            frame = self.messages()
            try:
                self._do(door, loads(frame), told.block)
            except KeyboardInterrupt:
                self._say(Ended("interrupt"))
            except BaseException as error:  # noqa: BLE001  user code may raise anything; the hub is told
                self._say(_raised(error, "error"))

    def _do(self, door: Any, message: Any, block: int) -> None:
        if isinstance(message, Hold):
            _held[:] = pickle.loads(message.pickled, buffers=_read(block, message.spans))
            return
        visit = getattr(door, "visit", None)
        if visit:
            visit(message.drawers)
        if isinstance(message, Ask):
            self._answer(door, message)
        elif not self._add(door, message):
            self._say(Ended("done"))
        if visit:
            visit({})

    def _answer(self, door: Any, ask: Ask) -> None:
        begun = time.perf_counter()
        many = getattr(door, "many", None)
        answers = list(many(ask.questions) if many else map(door, ask.questions))
        did = Did(answers, _touched(door), time.perf_counter() - begun)
        try:
            self._say(did)
        except (pickle.PicklingError, TypeError, AttributeError, ValueError):
            self._say(did._replace(made=[a if _travels(a) else _silent(a) for a in answers]))

    def _add(self, door: Any, total: Total) -> bool:
        """Was the last part of it said?"""
        begun, task, last = time.perf_counter(), total.task, False
        at, made, held = 0, [], 0
        for part in door.total(task):
            end = part.start - task.start + len(part.up)
            last = end == len(task.names)
            made.append(part)
            held += sum(getattr(x, "nbytes", 0) for _, x in leaves(part.sum.value)) if part.sum else 0
            if last or held >= SAID or time.perf_counter() - begun >= SOON:
                touched = _touched(door)
                mine = frozenset(task.names[at:end]) if touched else ()
                touched = {name: drawer for name, drawer in touched.items() if name in mine}
                self._say(Did(made, touched, time.perf_counter() - begun, last))
                begun, at, made, held = time.perf_counter(), end, [], 0
        return last

    def _say(self, said: Any) -> None:
        frame = dumps(said)
        try:
            send(self.out, *frame)
            self.out.flush()
        except BrokenPipeError:  # nobody hears it
            os._exit(0)


def _touched(door: Any) -> Mapping[str, Any]:
    changed: Mapping[str, Any] = door.touched() if hasattr(door, "touched") else {}
    return changed


def _travels(x: Any) -> bool:
    try:
        dumps(x)
    except (pickle.PicklingError, TypeError, AttributeError, ValueError):
        return False
    return True


def _silent(answer: Envelope) -> Envelope:
    """In place of an answer that cannot leave the process."""
    reason = f"{answer.sender} answered with what cannot leave its worker process."
    body = Contribution("error", {"reason": reason})
    return Envelope(answer.round, answer.phase, answer.sender, answer.recipe, body)


def _raised(error: BaseException, how: str) -> Ended:
    """What was raised, as an object where it survives the way, and as text."""
    try:
        pickled = pickle.dumps(error)
        pickle.loads(pickled)
    except Exception:  # noqa: BLE001  an exception is user code too
        pickled = b""
    said = "".join(traceback.format_exception(error)) if how == "error" else f"{type(error).__name__}: {error}"
    return Ended(how, pickled, said)


def _listen(pipe: BinaryIO, messages: "SimpleQueue[Frame]") -> None:
    """Pass messages on; when the hub's end is gone, so is this process, whatever it was doing."""
    while (frame := receive(pipe)) is not None:
        messages.put(frame)
    os._exit(0)


def main() -> None:
    """Serve the process that started this one: over stdin and stdout, which user code then no longer has."""
    out = os.fdopen(os.dup(1), "wb")
    pipe = os.fdopen(os.dup(0), "rb")
    os.dup2(2, 1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    messages: SimpleQueue[Frame] = SimpleQueue()
    threading.Thread(target=_listen, args=(pipe, messages), daemon=True).start()
    Worker(messages.get, out).run()
    out.flush()
    os._exit(1)
