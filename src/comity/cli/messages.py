"""What the command says of an error, and with which status it ends."""

import errno
from typing import Any

from comity.cli import FAILED, WRONG
from comity.core.errors import ComityError, ConfigError, nearest

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_EXTRAS = {
    "cryptography": "ledger",
    "sqlalchemy": "ledger",
    "polars": "tables",
    "narwhals": "tables",
    "skops": "tables",
}
_EXTRAS |= {"sklearn": "tables", "scipy": "tables", "jinja2": "report", "torch": "torch", "httpx": "service"}
"""Packages that only some commands need, and with what they come."""


def status(error: BaseException) -> int:
    """2 for usage and refused input, 1 for a failure."""
    if hasattr(error, "format_message"):
        return int(getattr(error, "exit_code", WRONG))
    return WRONG if isinstance(error, ConfigError) else FAILED


def told(error: BaseException) -> str:
    """One or a few lines for a person; "" where everything was said."""
    if isinstance(error, ComityError):
        return str(error)
    if hasattr(error, "format_message"):
        return _usage(error)
    if isinstance(error, MemoryError):
        return "There must be enough memory. There is not. Use fewer rows or columns, or a larger machine."
    if isinstance(error, OSError):
        return _system(error)
    if isinstance(error, ModuleNotFoundError) and (package := str(error.name).partition(".")[0]) in _EXTRAS:
        return f"{package} must be installed. It is missing. Run: pip install comity[{_EXTRAS[package]}]."
    return f"{_kind(error)}. This is a defect of comity: report it with what --traceback prints."


def _usage(error: Any) -> str:
    """What is wrong in the command line, and where its help is."""
    ctx = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        return ""
    path = ctx.command_path if ctx is not None else "comity"
    text = error.format_message().rstrip(".")
    if (name := getattr(error, "option_name", "")) and ctx is not None and text.startswith("No such option"):
        known = [o for p in ctx.command.params for o in (*p.opts, *p.secondary_opts) if o.startswith("--")]
        text = f"No such option: {name}.{nearest(name, [*known, '--help'])}"
    stop = "" if text.endswith(("?", ".")) else "."
    return f"{text}{stop} See {path} --help."


def _system(error: OSError) -> str:
    where = f"{error.filename} " if error.filename else "A file "
    if error.errno in _FULL:
        return f"The disk must have room. It is full ({where.strip()}). Free some space and run the same command again."
    return f"{where}must be open to reading and writing. Got: {error.strerror or error}. Name another, or allow it."


def _kind(error: BaseException) -> str:
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said[:200]}" if said else type(error).__name__
