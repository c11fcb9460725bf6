"""What a hub says while it runs: one line for each event, for people or for machines, and never a secret.

    13:44:10   Basel joined. ...
    {"time": "2026-11-21T13:44:10.000Z", "level": "info", "event": "joined", "text": "Basel joined. ..."}

Whatever is written passes `redacted`: invitations, passwords in URLs and bearer tokens are taken out, and a line
stays one line, whoever chose its words.
"""

import io
import json
import logging
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from ipaddress import ip_address, ip_network
from typing import Any, TextIO

from comity.core.checks import word

FORMS = ("text", "json")
LOGGERS = ("uvicorn", "uvicorn.error", "uvicorn.access", "asyncio")
"""Loggers of libraries whose warnings become lines of ours."""
_NOISE = ("Cancel 0 running", "Cancel 1 running")
"""Of a server that ends while parties are on the line: they call again."""
_HIDDEN = "[hidden]"
_SECRETS = (
    (re.compile(r"comity-[A-Za-z0-9_-]{40,}"), _HIDDEN),
    (re.compile(r"(://[^/@:\s]*):[^/@\s]+@"), rf"\1:{_HIDDEN}@"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]+"), rf"\1 {_HIDDEN}"),
    (re.compile(r"(?i)\b(password|passwd|pwd|secret|token|once|session|api_key|signature)(\"?\s*[=:]\s*\"?)[^\s,;&\"]+"),
     rf"\1\2{_HIDDEN}"),
)  # fmt: skip


class Log:
    """Writes lines; from any thread.

    Args:
        form: "text" or "json".
        stream: where to; None for standard error as it is when a line is written.
        clock: seconds since 1970.

    Example:
        >>> log = Log("json", sys.stdout, clock=lambda: 0.0)
        >>> log("joined", "It is in.", {"party": "Basel"})
        {"time": "1970-01-01T00:00:00.000Z", "level": "info", "event": "joined", "text": "It is in.", "party": "Basel"}
    """

    def __init__(
        self, form: str = "text", stream: TextIO | None = None, *, clock: Callable[[], float] = time.time
    ) -> None:
        self.form = word("log", "a hub", form, FORMS)
        self._stream, self._clock, self._one = stream, clock, threading.Lock()

    def __call__(self, event: str, text: str, facts: Mapping[str, Any] | None = None, *, level: str = "info") -> None:
        """Write a line.

        Args:
            event: a word that stays the same.
            text: for people.
            facts: for machines: plain JSON.
            level: "info", "warning" or "error".
        """
        line = self._line(event, redacted(text), facts or {}, level)
        with self._one, suppress(OSError, ValueError):  # nobody reads any more: the hub goes on
            stream = sys.stderr if self._stream is None else self._stream
            stream.write(line + "\n")
            stream.flush()

    def _line(self, event: str, text: str, facts: Mapping[str, Any], level: str) -> str:
        now = self._clock()
        if self.form == "json":
            when = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            row = {"time": when, "level": level, "event": event, "text": text, **_plain(facts)}
            return json.dumps(row, ensure_ascii=False, default=str)
        mark = "" if level == "info" else f"{level}: "
        return f"{time.strftime('%H:%M:%S', time.localtime(now))}   {mark}{text}"


def redacted(text: str) -> str:
    """Text without secrets, on one line.

    Example:
        >>> redacted("cannot open postgresql://hub:s3cret@db/comity\\nagain")
        'cannot open postgresql://hub:[hidden]@db/comity again'
    """
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))


def _plain(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {key: redacted(value) if isinstance(value, str) else value for key, value in facts.items()}


@contextmanager
def taken_over(log: Log) -> Iterator[None]:
    """While this holds, what libraries log, and what is written to standard error in JSON form, are lines of `log`."""
    kept = [(logger, logger.handlers[:], logger.propagate, logger.level) for logger in map(logging.getLogger, LOGGERS)]
    bridge, stderr = _Bridge(log), sys.stderr
    for logger, *_ in kept:
        logger.handlers[:], logger.propagate = [bridge], False
        logger.setLevel(logging.WARNING)
    if log.form == "json" and log._stream is None:
        log._stream = stderr
        sys.stderr = _Lines(log)
    try:
        yield
    finally:
        if sys.stderr is not stderr:
            sys.stderr, log._stream = stderr, None
        for logger, handlers, propagate, level in kept:
            logger.handlers[:], logger.propagate = handlers, propagate
            logger.setLevel(level)


class _Bridge(logging.Handler):
    """A record of a library as a line: a traceback as its last words."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(Exception):
            text = record.getMessage()
            if text.startswith(_NOISE):
                return
            if record.exc_info and record.exc_info[1] is not None:
                text = f"{text.splitlines()[0]} {type(record.exc_info[1]).__name__}: {record.exc_info[1]}"
            level = "error" if record.levelno >= logging.ERROR else "warning"
            self._log("library", text, {"of": record.name}, level=level)


class _Lines(io.TextIOBase):
    """Standard error whose lines become lines of a log."""

    def __init__(self, log: Log) -> None:
        self._log, self._rest = log, ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in filter(str.strip, lines):
            self._log("said", line)
        return len(text)


def caller(request: Any, trusted: tuple[str, ...]) -> str:
    """The address from which a request came, for a log and for what only this machine may see. Nobody's identity.

    Args:
        request: Starlette's.
        trusted: addresses and networks of proxies whose X-Forwarded-For counts: its last entry that is no proxy's.
    """
    at = request.client.host if request.client else ""
    said = request.headers.get("x-forwarded-for", "")
    for hop in reversed([*(h.strip() for h in said.split(",") if h.strip()), at]):
        if not _among(hop, trusted):
            return hop if _is_address(hop) else at
    return at


def _among(host: str, networks: tuple[str, ...]) -> bool:
    return _is_address(host) and any(ip_address(host) in ip_network(n) for n in networks)


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
