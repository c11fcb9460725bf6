"""Which files a folder, a pattern or a list stands for, and whose each is."""

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from comity.core.checks import path as path_of
from comity.core.errors import ConfigError

SUFFIXES = (".csv", ".tsv", ".tab", ".jsonl", ".ndjson", ".parquet", ".pq")
"""What a table in a folder is called by, with or without `.gz`; other files there are left alone."""


def place(source: str | Path) -> Path:
    """A path to a table, "~" spelt out.

    Raises:
        ConfigError: empty, with a NUL in it, of nobody's home, or too long for this system.
    """
    path = path_of("source", "", source)
    try:
        path = path.expanduser()
        path.exists()
    except (OSError, RuntimeError) as error:
        got = f"{str(path)[:100]}: {getattr(error, 'strerror', None) or error}".rstrip(".")
        raise ConfigError(f"A table must be a file that exists. Got {got}.") from None
    return path


def bare(path: Path) -> str:
    """The last suffix of a file, in small letters, not counting `.gz`.

    Example:
        >>> bare(Path("Bern.TSV.gz"))
        '.tsv'
    """
    return Path(path.name.lower().removesuffix(".gz")).suffix


def owner(path: Path) -> str:
    """Whose table a file holds: its name without what says how it is written.

    Example:
        >>> owner(Path("sites/St. Gallen.csv.gz")), owner(Path("Basel"))
        ('St. Gallen', 'Basel')
    """
    name = path.name[:-3] if path.name.lower().endswith(".gz") else path.name
    return name[: -len(Path(name).suffix)] if Path(name).suffix.lower() in (*SUFFIXES, ".txt", ".data") else name


def several(source: Any) -> list[Path] | None:
    """The files that a folder, a glob pattern or a list of paths stands for; None where it is one table.

    Raises:
        ConfigError: no file at all, or a list with something else in it.
    """
    if isinstance(source, str | Path):
        return _matching(place(source))
    if not isinstance(source, Sequence) or not source or not all(isinstance(p, str | Path) for p in source):
        return None
    return [place(p) for p in source]


def _matching(path: Path) -> list[Path] | None:
    if path.is_dir():
        there = sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith("."))
        found = [p for p in there if bare(p) in SUFFIXES]
        lacks = f"a folder with one table for each party. {path} has {len(there)} files and no table"
    elif not path.exists() and glob.has_magic(str(path)):
        found = sorted(p for p in map(Path, glob.glob(str(path), recursive=True)) if p.is_file())
        lacks = f"a pattern that files match. None matches {path}"
    else:
        return None
    if not found:
        raise ConfigError(f"Several tables must be {lacks}. Tables end in {', '.join(SUFFIXES)}, and .gz after that.")
    return found
