"""Standard streams that can be closed, full, left by their reader, or too old for the signs that are written."""

import codecs
import io
import os
import sys
from typing import Any

PLAIN = {"−": "-", "–": "-", "±": "+/-", "…": "...", "→": "->", "·": ".", "×": "x", "²": "2", "≥": ">=", "≤": "<="}
PLAIN |= {bar: str(height) for height, bar in enumerate("▁▂▃▄▅▆▇█", 1)}
"""Signs of ours to what an encoding without them can show; `?` would hide a minus."""


class Pipe(io.RawIOBase):
    """A stream that may end before the command does: what comes after is dropped, the reason is kept."""

    def __init__(self, number: int) -> None:
        """Args: the file descriptor."""
        self._number = number
        self.fault: OSError | None = None

    def writable(self) -> bool:
        """It is for writing."""
        return True

    def fileno(self) -> int:
        """The file descriptor."""
        return self._number

    def isatty(self) -> bool:
        """Is a person looking at it?"""
        return os.isatty(self._number)

    def write(self, data: Any) -> int:
        """Write what can be written."""
        if self.fault is None:
            try:
                return os.write(self._number, data)
            except OSError as error:
                self.fault = error
        return len(data)


def ready() -> None:
    """Make the standard streams such that writing to them never fails. Those that a test put there stay."""
    codecs.register_error("comity.plain", _plain)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        stream = getattr(sys, name)
        if stream is None:  # closed: without this the next file that is opened would take its number
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), "w" if number else "r", encoding="utf-8"))
        elif number and stream is getattr(sys, f"__{name}__"):
            setattr(sys, name, _lasting(number, stream.encoding or "utf-8"))


def _lasting(number: int, encoding: str) -> io.TextIOWrapper:
    out = io.BufferedWriter(Pipe(number))
    return io.TextIOWrapper(out, encoding, "comity.plain", line_buffering=number == 2 or out.isatty())


def taken() -> Pipe | None:
    """What standard output goes through; None where somebody else's stream stands there."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw if isinstance(raw, Pipe) else None


def fault() -> OSError | None:
    """Why standard output took no more; None where it took everything."""
    sys.stdout.flush()
    pipe = taken()
    return pipe.fault if pipe is not None else None


def _plain(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    return "".join(PLAIN.get(c, "?") for c in error.object[error.start : error.end]), error.end
