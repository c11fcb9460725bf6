"""The examples of many participants end to end, in memory or mapped from files: one array, many views."""

import errno
import hashlib
import mmap
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from comity.core.checks import flag, refusal, shown
from comity.core.checks import path as path_of
from comity.core.contribution import Array
from comity.core.errors import ConfigError, LedgerError
from comity.data.partition import array_of

FILES = ("X.npy", "y.npy", "sizes.npy")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_WRITTEN, _PAGE, _PAGES = 2**24, 4096, 16
"""Bytes written at once; bytes of a page and how many pages are looked at, to know a file again."""


@dataclass(frozen=True, eq=False, repr=False)
class Shards:
    """The examples of many participants, end to end: participant i has the rows after those of 0 to i - 1.

    Nothing is copied: what `shards[i]` gives are views. With arrays that are mapped from files (`open`) only the rows
    in use are in memory, and what is sent to another process is where the files lie, not what they hold: they must
    then lie at the same place for it.

    Attributes:
        X: (examples, ...) numbers.
        y: (examples, ...) labels or targets.
        sizes: (participants,) int64, how many examples each has, >= 0.

    Raises:
        ConfigError: no arrays of numbers or words, or sizes whose sum is not the number of examples.

    Example:
        >>> import numpy as np, comity as co
        >>> X, y = np.arange(12.0).reshape(6, 2), np.array([0, 1, 0, 1, 1, 0])
        >>> shards = co.Shards(X, y, [1, 3, 2])
        >>> len(shards), shards[1][1].tolist()
        (3, [1, 0, 1])
        >>> model = co.Linear(inputs=2, classes=2)
        >>> people = co.Population(len(shards), lambda i: co.Trainer(model, shards[i]))
        >>> co.Collaboration(co.FedAvg(model), people).run(rounds=2).ledger.rounds
        2
    """

    X: Array
    y: Array
    sizes: Any

    def __post_init__(self) -> None:
        for name, array in (("X", self.X), ("y", self.y)):
            if not isinstance(array, np.ndarray) or array.ndim == 0 or array.dtype.kind in "OV":
                hint = "Use np.asarray(...), or Shards.of for one pair for each participant."
                raise refusal(name, "Shards", "an array of numbers or words with rows", array, hint)
        if len(self.X) != len(self.y):
            raise ConfigError(
                f"The 'y' of Shards must have as many rows as X. Got {len(self.y)} for {len(self.X)}. Look at both."
            )
        object.__setattr__(self, "sizes", _sizes(self.sizes, len(self.y)))

    @classmethod
    def of(cls, pairs: Any) -> "Shards":
        """The examples of each participant, copied one behind the other.

        Args:
            pairs: (X, y) for each, as a sequence or as name to (X, y); their order is kept, their names are not.

        Raises:
            ConfigError: nobody, or rows that are not alike.

        Example:
            >>> len(Shards.of({"a": ([[1.0]], [0]), "b": ([[2.0], [3.0]], [1, 0])}))
            2
        """
        named = _named("pairs", pairs, "(X, y) for each participant", "Use [(X, y), ...].")
        found = [_pair(name, pair) for name, pair in named]
        if not found:
            raise refusal("pairs", "Shards.of", "those of at least one participant", pairs, "Use [(X, y), ...].")
        X, y = (_joined(column, [x[i] for x in found], [n for n, _ in named]) for i, column in enumerate("Xy"))
        return cls(X, y, [len(pair[1]) for pair in found])

    @classmethod
    def cut(cls, X: Any, y: Any, rows: Any) -> "Shards":
        """Examples cut among participants: the rows of each are copied, one participant behind the other.

        Args:
            X: (examples, ...).
            y: (examples, ...).
            rows: name to row numbers, as `dirichlet`, `iid` and the other partitions give them, or a sequence of row
                numbers. Rows that nobody has are left out; one that several have is copied for each.

        Raises:
            ConfigError: numbers of rows that are not there.

        Example:
            >>> import numpy as np, comity as co
            >>> X, y = np.eye(6), np.array([0, 0, 0, 1, 1, 1])
            >>> len(co.Shards.cut(X, y, co.dirichlet(y, 2)))
            2
        """
        X, y = array_of("X", X), array_of("y", y)
        whole = cls(X, y, [len(X) if X.ndim else 0])
        given = _named("rows", rows, "row numbers for each participant", "Use co.dirichlet(y, 10).")
        own = [_known(name, numbers, len(y)) for name, numbers in given]
        order = np.concatenate([np.zeros(0, np.int64), *own])
        return cls(np.asarray(whole.X)[order], np.asarray(whole.y)[order], [len(x) for x in own])

    @classmethod
    def open(cls, folder: str | Path, *, memory: bool = False) -> "Shards":
        """What `save` wrote, mapped: read only, and read from the disk when it is used.

        Args:
            folder: where it lies.
            memory: read all of it into memory instead.

        Raises:
            ConfigError: a file is missing, damaged, or does not go with the others.
        """
        place, memory = path_of("folder", "Shards.open", folder), flag("memory", "Shards.open", memory)
        X, y, sizes = (_mapped(place / name) for name in FILES)
        if memory:
            X, y = np.array(X), np.array(y)
        try:
            return cls(X, y, sizes)
        except ConfigError as error:
            fault = str(error).rsplit(". ", 1)[0]
            raise ConfigError(f"The files in {place} do not go together. {fault}. Save them again.") from None

    def save(self, folder: str | Path) -> None:
        """Write X.npy, y.npy and sizes.npy, to be opened with `open`.

        All are complete on the disk before the first takes its name, and there is no moment at which new and old ones
        could be taken for a whole.

        Raises:
            ConfigError: the folder cannot be written.
            LedgerError: the disk is full; what lay there is intact.
        """
        place = path_of("folder", "Shards.save", folder)
        try:
            place.mkdir(parents=True, exist_ok=True)
            _write(place, dict(zip(FILES, (self.X, self.y, self.sizes), strict=True)))
        except OSError as error:
            if error.errno in _FULL:
                said = f"The disk must have room for {place}. It is full. Free some space and save again."
                raise LedgerError(said) from error
            got = error.strerror or type(error).__name__
            raise ConfigError(f"{place} must be a folder that can be written. Got: {got}. Name another.") from error

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, i: int) -> tuple[Array, Array]:
        """(X, y) of participant i: views."""
        if isinstance(i, bool) or not isinstance(i, int | np.integer):
            raise refusal("i", "Shards", "the number of a participant", i, "Use shards[0].")
        if not -len(self) <= i < len(self):
            raise IndexError(f"There are {len(self)} participants, from 0. Got {i}.")
        X, y, ends = self._plain
        end, at = int(ends[i]), int(self.sizes[i])
        return X[end - at : end], y[end - at : end]

    def __iter__(self) -> Iterator[tuple[Array, Array]]:
        """(X, y) of each."""
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        where = "mapped" if isinstance(self.X, np.memmap) else "in memory"
        return f"Shards({len(self)} participants, {len(self.y)} examples of {self.X.shape[1:]}, {where})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (_place_of(self.X), _place_of(self.y), _place_of(self.sizes))

    @cached_property
    def _plain(self) -> tuple[Array, Array, Array]:
        """The arrays as numpy's own type, which is quicker to cut, and where each participant ends."""
        return np.asarray(self.X), np.asarray(self.y), np.cumsum(self.sizes, dtype=np.int64)


class _File(NamedTuple):
    """A file that an array is mapped from, and how it is known again."""

    path: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    order: Any
    mark: str

    def array(self) -> Array:
        """Map it.

        Raises:
            ConfigError: it is not there, or is another one.
        """
        do = "Put it there, or use Shards.open(folder, memory=True)."
        try:
            found = np.memmap(self.path, self.dtype, "r", self.offset, self.shape, self.order)
        except (OSError, ValueError) as error:
            got = getattr(error, "strerror", None) or "a smaller one"
            raise ConfigError(f"{self.path} must be the file that was mapped. Got: {got}. {do}") from None
        if _mark(found) != self.mark:
            raise ConfigError(f"{self.path} must be the file that was mapped. Got one that holds something else. {do}")
        return found


def _again(*given: Any) -> Shards:
    return Shards(*(x.array() if isinstance(x, _File) else x for x in given))


def _place_of(x: Any) -> Any:
    """Where an array is mapped from; the array itself where it is not, or is a part, or has changes of its own."""
    whole = isinstance(x, np.memmap) and isinstance(x.base, mmap.mmap)
    if not whole or x.filename is None or x.mode == "c":
        return np.asarray(x)
    order = "C" if x.flags.c_contiguous else "F"
    return _File(os.path.abspath(x.filename), x.dtype.str, x.shape, x.offset, order, _mark(x))


def _mark(x: Any) -> str:
    """A hash of some pages of an array, and of all of a small one."""
    flat = np.asarray(x).ravel(order="K").view(np.uint8)
    if flat.size <= _PAGE * _PAGES:
        return hashlib.sha256(flat.tobytes()).hexdigest()
    starts = np.linspace(0, flat.size - _PAGE, _PAGES).astype(np.int64)
    return hashlib.sha256(b"".join(flat[a : a + _PAGE].tobytes() for a in starts)).hexdigest()


def _sizes(sizes: Any, n: int) -> Array:
    found = sizes if isinstance(sizes, np.memmap) else np.array(array_of("sizes", sizes))
    fine = found.ndim == 1 and (found.dtype.kind in "iu" or not found.size)
    low, high = (int(found.min()), int(found.max())) if fine and found.size else (0, 0)
    if not fine or low < 0 or high > n or int(found.sum()) != n:
        said = shown(sizes) if not fine else str(low) if low < 0 else f"a sum of {found.sum(dtype=object)}"
        must = f"whole numbers >= 0 whose sum is the number of examples, {n}"
        raise ConfigError(f"The 'sizes' of Shards must be {must}. Got {said}. Say how many examples each has.")
    return found if found.dtype == np.int64 else found.astype(np.int64)


def _named(name: str, given: Any, must: str, hint: str) -> list[tuple[str, Any]]:
    """Name, or number, and what is given for it."""
    if isinstance(given, Mapping):
        return [(repr(str(key)), value) for key, value in given.items()]
    if isinstance(given, str | bytes) or not isinstance(given, Sequence):
        raise refusal(name, "Shards", must, given, hint)
    return [(f"number {i}", value) for i, value in enumerate(given)]


def _pair(name: str, pair: Any) -> tuple[Array, Array]:
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise ConfigError(f"The 'pairs' of Shards.of must be (X, y). Got {shown(pair)} for {name}. Use (X, y).")
    X, y = array_of("X", pair[0]), array_of("y", pair[1])
    if not X.ndim or not y.ndim or len(X) != len(y):
        got = f"{shown(pair[0])} and {shown(pair[1])}"
        raise ConfigError(f"The 'pairs' of Shards.of must have a y for each row of X. Got {got} for {name}. Mend it.")
    return X, y


def _joined(column: str, arrays: Sequence[Array], names: Sequence[str]) -> Array:
    first = arrays[0]
    for name, x in zip(names, arrays, strict=True):
        numbers = {kind in "biufc" for kind in (first.dtype.kind, x.dtype.kind)}
        if x.shape[1:] != first.shape[1:] or len(numbers) > 1:
            raise ConfigError(
                f"The rows of {column} must be alike for all participants. Got {x.dtype} of shape {x.shape[1:]} for "
                f"{name}, and {first.dtype} of shape {first.shape[1:]} for {names[0]}. Prepare all in one way."
            )
    return np.concatenate(arrays)


def _known(name: str, rows: Any, n: int) -> Array:
    own = array_of("rows", rows)
    if own.ndim != 1 or (own.size and (own.dtype.kind not in "iu" or own.min() < 0 or own.max() >= n)):
        raise ConfigError(
            f"The 'rows' of Shards.cut must be row numbers from 0 to {n - 1}. Got {shown(rows)} for {name}. "
            "Use a partition of these rows."
        )
    return own.astype(np.int64)


def _mapped(path: Path) -> Any:
    """Map a file of numpy; such a file holds no objects, so nothing is unpickled.

    Raises:
        ConfigError: it is missing or damaged.
    """
    try:
        found: Any = np.lib.format.open_memmap(path, mode="r")
        size, expected = path.stat().st_size, found.offset + found.nbytes
        fault = f"{size} bytes in place of {expected}" if size != expected else ""
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigError(f"{path} is missing. Write the folder with Shards.save.") from None
    except Exception as error:  # noqa: BLE001  numpy reads a damaged header in many ways
        fault = (getattr(error, "strerror", None) or str(error).strip().splitlines()[0])[:120].rstrip(".")
    if fault:
        raise ConfigError(f"{path} must be a file of numpy, written by Shards.save. Got: {fault}. Save it again.")
    return found


def _write(place: Path, arrays: Mapping[str, Array]) -> None:
    """Write all beside their places; then the last of the old ones goes, and the last of the new ones comes last."""
    new = {name: place / f".{name}.tmp" for name in arrays}
    try:
        for name, array in arrays.items():
            new[name].unlink(missing_ok=True)
            _write_one(new[name], np.asarray(array))
        (place / FILES[-1]).unlink(missing_ok=True)
        _sync(place)
        for name in FILES[:-1]:
            new[name].replace(place / name)
        _sync(place)
        new[FILES[-1]].replace(place / FILES[-1])
        _sync(place)
    except BaseException:
        for path in new.values():
            with suppress(OSError):
                path.unlink(missing_ok=True)
        raise


def _write_one(path: Path, array: Array) -> None:
    """As np.save does, but an error says what it is, and the file is on the disk afterwards."""
    header = {"descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": False, "shape": array.shape}
    step = max(1, _WRITTEN // max(1, array[:1].nbytes))
    with path.open("xb") as f:
        np.lib.format.write_array_header_1_0(f, header)
        for i in range(0, len(array), step):
            f.write(array[i : i + step].tobytes())
        f.flush()
        os.fsync(f.fileno())


def _sync(folder: Path) -> None:
    """Make the names in a folder durable."""
    at = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(at)
    finally:
        os.close(at)
