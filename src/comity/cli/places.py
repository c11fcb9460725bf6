"""Where a command reads from and writes to: refused before the work what would end it after the work."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from comity.core.errors import ConfigError, nearest
from comity.data.files import several


def writable(path: Path | None) -> None:
    """Refuse a file that could not be written.

    Raises:
        ConfigError: a folder lies there, or a file in the place of its folder, or it may not be written.
    """
    if path is None:
        return
    if path.is_dir() or not _open(path):
        raise ConfigError(f"Results must go to a file that can be written. Got {path}. Name another file.")


def writable_folder(path: Path | None) -> None:
    """Refuse a folder that could not be made or written.

    Raises:
        ConfigError: as `writable`.
    """
    if path is not None and not _open(path, folder=True):
        raise ConfigError(f"Runs must go to a folder that can be made and written. Got {path}. Name another folder.")


def _open(path: Path, *, folder: bool = False) -> bool:
    path = path.resolve()  # where a link leads
    there = next(p for p in (path, *path.parents) if os.path.lexists(p))
    return (there.is_dir() or (there == path and not folder)) and os.access(there, os.W_OK, effective_ids=True)


def apart(outputs: Sequence[Path | None], inputs: Iterable[Path | None]) -> None:
    """Refuse to write over what is read, or two things into one file.

    Raises:
        ConfigError: names the file.
    """
    read = [file for path in inputs if path is not None for file in _files(path) if file.exists()]
    written = [path for path in outputs if path is not None]
    for i, path in enumerate(written):
        if path.resolve() in [p.resolve() for p in written[:i]] and not path.is_char_device():
            raise ConfigError(f"Each result must go to a file of its own. Got {path} twice. Name two files.")
        if path.exists() and any(path.samefile(file) for file in read):
            raise ConfigError(f"Results must not go over what is read. Got {path} for both. Name another file.")


def _files(path: Path) -> list[Path]:
    try:
        return several(path) or [path]
    except (ConfigError, OSError):
        return [path]


def there(path: Path, what: str = "folder of a run or a comparison") -> None:
    """Refuse a folder or file that does not exist, and name the nearest that does.

    Raises:
        ConfigError: there is nothing.
    """
    if os.path.lexists(path):
        return
    parent = path.absolute().parent
    try:
        beside = sorted(os.listdir(parent))
    except OSError:
        beside = []
    hint = nearest(path.name, beside) or " Name another."
    raise ConfigError(f"{path} must be the {what}. There is no such {what.split()[0]}.{hint}")
