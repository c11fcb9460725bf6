"""The plain files of a run's folder: one holder at a time, writes that are whole or absent, one recipe for ever."""

import errno
import fcntl
import json
import mmap
import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeAlias

from comity.core.errors import ConfigError, LedgerError
from comity.core.recipe import differences

Data: TypeAlias = bytes | mmap.mmap
"""What a file holds."""
LARGE = 2**20
"""Bytes from which on a file is mapped, not copied."""
_LINES = 10
_ROOM = 65_536
"""Bytes that the log of a database and its index want at least."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_CLOSED = (errno.EACCES, errno.EPERM, errno.EROFS)
_NO_FOLDER = (errno.EEXIST, errno.ENOTDIR, errno.EISDIR)
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


def take(folder: Path) -> int:
    """Make the folder and hold it until the returned descriptor is closed (or the process ends, however it ends).

    Raises:
        ConfigError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)
    except BlockingIOError:
        pid = os.pread(lock, 20, 0).decode(errors="replace") or "unknown"
        os.close(lock)
        who = "this process already has" if pid == str(os.getpid()) else "another process is using"
        hint = "Close it first" if pid == str(os.getpid()) else "Wait for it"
        raise ConfigError(f"{who} {folder} (pid {pid}). {hint}, or choose another folder.") from None
    except BaseException:
        os.close(lock)
        raise
    return lock


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Wait for a turn, among the threads and processes that take the same lock; it ends with the block."""
    held = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)


def write(path: Path, data: bytes | Iterable[bytes], mode: int = 0o666) -> None:
    """Write bytes, or pieces of them, so that the file is there whole, after a power cut too, or not there at all."""
    new = path.with_name(f".{path.name}.tmp")
    new.unlink(missing_ok=True)
    try:
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb") as f:
            f.writelines([data] if isinstance(data, bytes) else data)
            f.flush()
            os.fsync(f.fileno())
        new.replace(path)
    except BaseException:
        with suppress(OSError):
            new.unlink(missing_ok=True)
        raise
    sync(path.parent)


def mapped(path: Path) -> Data:
    """What a file holds that nobody changes any more: a large one as it lies in memory. It may be unlinked then."""
    with path.open("rb") as f:
        if os.fstat(f.fileno()).st_size < LARGE:
            return f.read()
        return mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)


def put(path: Path, data: bytes) -> None:
    """Write what somebody asked for: a file whole or not at all, its folder made; into a device or a pipe as it is.

    Raises:
        ConfigError: it cannot be written, and why.
        LedgerError: the disk is full; what lay there is intact.
    """
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(data)
            return
        target = path.resolve()  # a link stays one
        target.parent.mkdir(parents=True, exist_ok=True)
        write(target, data)
    except OSError as error:
        if error.errno in _FULL:
            raise LedgerError(
                f"The disk must have room for {path}. It is full. Free some space and run again."
            ) from error
        raise ConfigError(f"{path} must be a file that can be written. Got: {error.strerror}. Name another.") from error


def sync(folder: Path) -> None:
    """Make the names in a folder durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sweep(folder: Path, keep: Collection[Path]) -> None:
    """Remove temporary files, and the state files that are not in `keep`. What cannot be removed stays."""
    states = folder / "states"
    for path in (*folder.glob(".*.tmp"), *states.glob(".*.tmp"), *states.glob("*.state")):
        if path not in keep:
            with suppress(OSError):
                path.unlink()


def agree(path: Path, recipe_json: str) -> None:
    """Write the recipe where there is none; refuse one that says something else.

    Raises:
        ConfigError: the folder holds another recipe; the difference is in the message.
        LedgerError: the recipe there is not JSON.
    """
    if not path.exists():
        return write(path, recipe_json.encode())
    try:
        text = path.read_text(encoding="utf-8")
        old = json.loads(text)
    except (ValueError, RecursionError):
        raise LedgerError(
            f"{path} must be JSON. It is damaged. Restore it from a copy, or delete the folder."
        ) from None
    lines = [] if text == recipe_json else differences(old, json.loads(recipe_json))
    if lines:
        more = [f"  and {len(lines) - _LINES} more"] if len(lines) > _LINES else []
        shown = "\n".join([*(f"  {line}" for line in lines[:_LINES]), *more])
        what = "Choose another folder, or go back to the settings of this one, or delete it to start again."
        raise ConfigError(f"{path.parent} holds a run with another recipe (there → here):\n{shown}\n{what}")
    return None


def complaint(folder: Path, error: OSError) -> str:
    """What a person can do about a folder that cannot be used."""
    safe = "What was saved before is intact."
    named = f" ({error.filename})" if error.filename and str(error.filename) != str(folder) else ""
    got = f"{error.strerror or error}{named}"
    if error.errno in _FULL or (error.errno == errno.EIO and _crowded(folder)):
        return f"The disk that holds {folder} must have room. It is full. Free some space and run again. {safe}"
    if error.errno in _CLOSED:
        return f"{folder} must be a folder that can be written. Got: {got}. Choose another, or allow writing. {safe}"
    if error.errno in _NO_FOLDER and not named:
        return f"{folder} must be a folder. There is a file in its place. Choose another folder."
    if error.errno == errno.EISDIR:
        return f"{error.filename} must be a file. There is a folder in its place. Move it away, or choose another."
    if error.errno in _NO_LOCKS:
        return f"{folder} must be on a disk where files can be locked. Got: {got}. Choose another disk. {safe}"
    return f"{folder} must be a folder that can be read and written. Got: {got}. Choose another. {safe}"


def _crowded(folder: Path) -> bool:
    """Has the disk too little room for a database, which then speaks of I/O errors?"""
    try:
        disk = os.statvfs(folder)
    except OSError:
        return False
    return disk.f_bavail * disk.f_frsize < _ROOM
