"""The command `comity`: how it starts, how it ends, and what it says when something is wrong.

Nothing but the standard library is loaded before it can be stopped; the commands are in `commands.py`.
"""

import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import FrameType
from typing import Any

DONE, FAILED, WRONG = 0, 1, 2
STOPPED = 128
"""And the number of the signal: 130 for Ctrl-C, 143 for SIGTERM."""
_SIGNALS = {signal.SIGINT: "Interrupted", signal.SIGTERM: "Terminated", signal.SIGHUP: "The terminal was closed"}
_AGAIN = 3.0
"""Seconds after which an interrupt that somebody swallowed comes again."""


def main() -> None:
    """Run the command: 0 done, 1 ran but failed, 2 wrong input, 130 interrupted, 143 terminated."""
    try:
        code = _run()
    except KeyboardInterrupt:  # before it was ready for one
        code = STOPPED + signal.SIGINT
        _say("stopped", f"Interrupted. {_again(sys.argv)}")
    sys.exit(code)


def _run() -> int:
    """The exit status, everything said and written."""
    before: dict[int, Any] = {number: signal.getsignal(number) for number in (*_SIGNALS, signal.SIGALRM)}
    code = FAILED
    hook, came = sys.unraisablehook, _stoppable()
    with suppress(KeyboardInterrupt):
        code = _flushed(_status(came))
    _set(dict.fromkeys((*_SIGNALS, signal.SIGALRM), signal.SIG_IGN))  # what is left takes a moment
    signal.setitimer(signal.ITIMER_REAL, 0)
    if came or code == STOPPED + signal.SIGINT:
        number = signal.Signals(came[0]) if came else signal.SIGINT
        code = STOPPED + number
        _say("stopped", f"{_SIGNALS[number]}. {_again(sys.argv)}")
    sys.unraisablehook = hook
    if not _lasting():  # called from a program that goes on
        _set(before)
    return code


def _lasting() -> bool:
    """Is this a process of its own, whose streams were taken over?"""
    streams = sys.modules.get("comity.cli.streams")
    return streams is not None and streams.taken() is not None


def _status(came: list[int]) -> int:
    """The exit status; what is wrong was said."""
    try:
        return _ended()
    except BaseException as error:  # noqa: BLE001  a person gets a line or two, never a traceback
        return FAILED if came else _complained(error)


def _ended() -> int:
    """The exit status of the command that was asked for."""
    from comity.cli.streams import ready

    ready()
    from comity.cli.commands import app

    args = [arg for arg in sys.argv[1:] if arg != "--traceback"]  # it may stand anywhere
    return int(app(args, prog_name="comity", standalone_mode=False) or DONE)


def _stoppable() -> list[int]:
    """Let Ctrl-C, SIGTERM and SIGHUP end what runs, wherever they land; gives the signals that came, as they come."""
    came: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        if number != signal.SIGALRM:
            came.append(number)
        signal.setitimer(signal.ITIMER_REAL, _AGAIN)
        raise KeyboardInterrupt

    usual = (signal.SIG_DFL, signal.default_int_handler)  # others (nohup) stay
    _set({number: stop for number in (*_SIGNALS, signal.SIGALRM) if signal.getsignal(number) in usual})
    sys.unraisablehook = _rearmed(sys.unraisablehook)
    return came


def _set(handlers: Mapping[int, Any]) -> None:
    """Set handlers of signals; only the main thread may."""
    with suppress(ValueError):
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _rearmed(hook: Callable[[Any], object]) -> Callable[[Any], None]:
    """An interrupt that fell into a place where errors are dropped (a destructor) comes again a moment later."""

    def dropped(fault: Any) -> None:
        if issubclass(fault.exc_type, KeyboardInterrupt):
            signal.setitimer(signal.ITIMER_REAL, 0.01)
        else:
            hook(fault)

    return dropped


def _complained(error: BaseException) -> int:
    """Say what is wrong, and give the exit status."""
    from comity.cli.messages import status, told

    if "--traceback" in sys.argv:
        import traceback

        traceback.print_exception(error)
    if text := told(error):
        _say("error", text)
    return status(error)


def _again(argv: list[str]) -> str:
    """How to go on after a stop."""
    if argv[1:2] == ["serve"] or any(arg == "--runs" or arg.startswith("--runs=") for arg in argv):
        return "What was saved is intact. Run the same command to go on."
    return "Run the same command to start again."


def _flushed(code: int) -> int:
    """The exit status once everything is written; a reader that left early is no failure."""
    from comity.cli.streams import fault

    wrong = fault()
    if wrong is None or isinstance(wrong, BrokenPipeError):
        return code
    got = os.strerror(wrong.errno or 0)
    _say("error", f"Standard output must take what is written. Got: {got}. Free some space, or write elsewhere.")
    return code or FAILED


def _say(label: str, text: str) -> None:
    from rich.console import Console
    from rich.text import Text

    first, *rest = text.splitlines() or [""]
    console = Console(stderr=True)
    console.print(Text(f"{label:<11}", "#B33D00") + Text(first), highlight=False, soft_wrap=True)
    for line in rest:
        console.print(Text(" " * 11 + line), highlight=False, soft_wrap=True)
