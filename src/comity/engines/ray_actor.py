"""What runs in an actor of Ray: the door of the sites, and the work that is asked of it."""

import contextlib
import os
import pickle
import socket
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

from comity.core.contribution import Contribution
from comity.core.envelope import Envelope, Receipt
from comity.core.errors import ComityError


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What came of a piece of work.

    Attributes:
        given: Parts or answers.
        touched: the drawers that changed, by name.
        seconds: how long it took, without the way.
        error: what ended it; None where nothing did.
    """

    given: list[Any]
    touched: Mapping[str, Any]
    seconds: float
    error: BaseException | None = None


class Worker:
    """Holds the door of the sites; drawers are lent with each piece of work and go back with what came of it."""

    def __init__(self) -> None:
        """Begin without a door."""
        self._door: Any = None
        self._held: tuple[Any, Any] = (None, None)

    def open(self, sent: list[Any]) -> Outcome:
        """Take the door, and work as urgently as any process: Ray's workers are as nice as 15 by default.

        Args:
            sent: a reference to what `packed` gave.
        """

        def work() -> list[Any]:
            with contextlib.suppress(AttributeError, OSError):
                os.setpriority(os.PRIO_PROCESS, 0, 0)
            data, buffers, paths = import_module("ray").get(sent[0])
            sys.path += [p for p in paths if p not in sys.path]
            self._door = pickle.loads(data, buffers=[bytearray(b) for b in buffers])
            return [os.getpid()]

        return self._outcome(work, None)

    def total(
        self, head: list[Any], names: Sequence[str], start: int, receipts: Mapping[str, Receipt], drawers: Any
    ) -> Outcome:
        """Ask a run of neighbours and add what they give.

        Args:
            head: a reference to the task of the whole cohort, without names and receipts.
            names: the run's members.
            start: the position of the first.
            receipts: theirs.
            drawers: theirs.
        """

        def work() -> list[Any]:
            task = replace(self._got(head[0]), names=names, start=start, receipts=receipts)
            return list(self._door.total(task))

        return self._outcome(work, drawers)

    def answers(self, body: list[Any], asked: Sequence[Envelope], drawers: Any) -> Outcome:
        """Answer some questions.

        Args:
            body: a reference to the body of all of them, or nothing where each has its own.
            asked: the questions.
            drawers: of those who are asked.
        """

        def work() -> list[Any]:
            questions = [replace(a, body=self._got(body[0])) for a in asked] if body else asked
            many = getattr(self._door, "many", None)
            return _travelling(list(many(questions) if many else map(self._door, questions)))

        return self._outcome(work, drawers)

    def _got(self, ref: Any) -> Any:
        """What a reference stands for, fetched once where it is asked for again and again."""
        if self._held[0] != ref:
            self._held = (ref, import_module("ray").get(ref))
        return self._held[1]

    def _outcome(self, work: Callable[[], list[Any]], drawers: Any) -> Outcome:
        start, given, error = time.perf_counter(), [], None
        try:
            if drawers is not None:
                self._door.visit(drawers)
            given = work()
        except BaseException as raised:  # noqa: BLE001  an interrupt too: whoever asked is to be told
            error = _portable(raised)
        touched: Mapping[str, Any] = {}
        if drawers is not None:
            touched = self._door.touched()
            self._door.visit({})
        return Outcome(given, touched, time.perf_counter() - start, error)


def packed(door: Any) -> tuple[bytes, list[Any], list[str]]:
    """A door as bytes and the buffers of its arrays, and where its modules may lie.

    A worker makes its own copy of each array, which may be written into.
    """
    buffers: list[Any] = []
    dumps = import_module("ray.cloudpickle").dumps
    data: bytes = dumps(door, protocol=5, buffer_callback=buffers.append)
    array = import_module("numpy").frombuffer
    return data, [array(b.raw(), "uint8") for b in buffers], [p for p in sys.path if p]


def _travelling(answers: list[Envelope]) -> list[Envelope]:
    """Answers, with an error in place of each that cannot be sent."""
    if _travels(answers):
        return answers
    said = "answered with what cannot be sent from an actor."
    told = [replace(a, body=Contribution("error", {"reason": f"{a.sender} {said}"})) for a in answers]
    return [a if _travels(a) else error for a, error in zip(answers, told, strict=True)]


def _travels(x: Any) -> bool:
    try:
        import_module("ray.cloudpickle").dumps(x, protocol=5, buffer_callback=lambda b: None)
    except Exception:  # noqa: BLE001  whatever keeps it from travelling
        return False
    return True


def _portable(error: BaseException) -> BaseException:
    """The same error if it can travel, else its text; either says where it was raised."""
    where = f"Raised in an actor on {socket.gethostname()}:\n{''.join(traceback.format_exception(error))}"
    try:
        pickle.loads(import_module("ray.cloudpickle").dumps(error))
    except Exception:  # noqa: BLE001  whatever keeps it from travelling
        error = ComityError(f"{type(error).__name__}: {error}")
    error.add_note(where)
    return error
