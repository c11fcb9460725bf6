"""Frequent words of a column from sums alone: counts of hashed words, then sums of the codes of the frequent ones.

1. Each party counts its rows by bucket of three keyed hashes. The counts are added.
2. A word all of whose three buckets hold the minimum is **admitted**. Of each, a party adds to four cells of a table
   its rows, a random number r, and r times the bytes of the word. The tables are added.
3. A cell that holds one word gives it back: everything in it is divided by the sum of r. What was read is taken out of
   its other cells, until nothing is left (an invertible Bloom lookup table: Goodrich and Mitzenmacher, Allerton 2011).
   Two words that share all four cells are not named: about one column in 30,000 has such.

The random numbers stand for rows in step 2, so that codes fit a ring whatever the rows are, and that nothing but a word
and its rows is told: not how many parties have it.
"""

from collections.abc import Mapping
from hashlib import blake2b

import numpy as np

from comity.core.contribution import Array
from comity.core.rng import Rng

HASHES, CELLS = 3, 4
"""Buckets, and cells, of each word."""
LONGEST = 64
"""Bytes (UTF-8) of a word that can be named; longer ones are counted only."""
FULLEST = 0.1
"""Where more than this share of the buckets is full, rare words would be admitted by chance: one in a thousand."""
_SMALLEST, _LARGEST, _CHECKS = 2**10, 2**18, 3
_ROWS, _TIMES, _LENGTH, _CHECK = 0, 1, 2, 3
_WORD = _CHECK + _CHECKS
WIDTH = _WORD + LONGEST


def buckets_for(rows: int, least: int) -> int:
    """Buckets enough that at most a tenth can be full: a power of two, unless that is too many. 12 bytes for each."""
    wanted = 10 * rows // max(least, 1)
    return min(max(1 << wanted.bit_length(), _SMALLEST), _LARGEST)


def counted(column: str, found: Mapping[str, int], salt: bytes, buckets: int) -> Array:
    """A party's rows by bucket of each hash.

    Args:
        column: the column's name.
        found: word to rows.
        salt: the parties' own, 16 to 64 bytes; the hub does not know it and cannot try words.
        buckets: of each hash.

    Returns:
        (3, buckets) int64. They add.
    """
    out = np.zeros((HASHES, buckets), np.int64)
    places, rows = _places(column, found, salt, buckets), np.array(list(found.values()), np.int64)
    for own, at in zip(out, places, strict=True):
        np.add.at(own, at, rows)
    return out


def full(counts: Array, least: int, most: int) -> Array | None:
    """Which buckets hold the minimum, (3, buckets) bool; None where too many do for a word to be told by them.

    Args:
        counts: (3, buckets), added over the parties.
        least: the minimum of rows.
        most: buckets of one hash that may be full; beyond, the minimum is raised to those of the fullest.
    """
    enough = max(least, 1)
    if (counts >= enough).mean() > FULLEST:
        return None
    highest = np.sort(counts, axis=1)[:, -min(most, counts.shape[1])].max()
    return np.asarray(counts >= max(enough, int(highest)))


def cells_for(admitted: Array) -> int:
    """Cells of each fourth of the table: in all twice as many as words, and some."""
    return int(admitted.sum(axis=1).max()) // 2 + 32


def coded(column: str, found: Mapping[str, int], admitted: Array, salt: bytes, *, most: int, rng: Rng) -> Array:
    """What a party adds to the table of admitted words.

    Args:
        column: the column's name.
        found: word to rows.
        admitted: of `full`.
        salt: as for `counted`.
        most: the largest number that may stand in a cell but for rows.
        rng: the party's own; nobody else may know what it draws.

    Returns:
        (4, cells, WIDTH) int64: rows, r, r times length, check and bytes. They add.
    """
    cells = cells_for(admitted)
    out = np.zeros((CELLS, cells, WIDTH), np.int64)
    places = _places(column, found, salt, admitted.shape[1])
    ours = np.logical_and.reduce([own[at] for own, at in zip(admitted, places, strict=True)])
    words = {w: n for (w, n), may in zip(found.items(), ours, strict=True) if may and len(w.encode()) <= LONGEST}
    if not words:
        return out
    at = _places(column, words, b"", cells, CELLS)
    together = max(int(np.bincount(own).max()) for own in at)
    codes = np.array([_code(column, word) for word in words], np.int64)
    times = rng.integers(1, max(most // (255 * together), 1), len(words), endpoint=True)
    codes[:, _TIMES:] *= times[:, None]
    codes[:, _ROWS] = list(words.values())
    for own, where in zip(out, at, strict=True):
        np.add.at(own, where, codes)
    return out


def read(column: str, table: Array) -> dict[str, int]:
    """The words of the added tables, with their rows.

    Example:
        >>> found, salt = {"often": 30, "rare": 1}, bytes(16)
        >>> buckets = full(counted("w", found, salt, 1024), 10, 500)
        >>> read("w", coded("w", found, buckets, salt, most=2**20, rng=np.random.default_rng(0)))
        {'often': 30}
    """
    left, out = table.copy(), dict[str, int]()
    waiting = [(i, j) for i in range(CELLS) for j in np.flatnonzero(left[i, :, _TIMES] > 0).tolist()]
    while waiting:
        i, j = waiting.pop()
        own = left[i, j].copy()
        word = _word(column, own)
        at = _places(column, [word], b"", left.shape[1], CELLS)[:, 0] if word is not None else None
        if word is None or at is None or word in out or at[i] != j:
            continue
        out[word] = int(own[_ROWS])
        for k, place in enumerate(at.tolist()):
            left[k, place] -= own
            waiting.append((k, place))
    return out


def _code(column: str, word: str) -> list[int]:
    said = word.encode()
    check = blake2b(f"{column}\0{word}".encode(), digest_size=_CHECKS).digest()
    return [0, 1, len(said), *check, *said, *bytes(LONGEST - len(said))]


def _word(column: str, cell: Array) -> str | None:
    """The one word of a cell; None where there is none or several."""
    times = int(cell[_TIMES])
    if times < 1 or cell[_ROWS] < 1 or (cell[_TIMES:] % times).any():
        return None
    code = [0, *(cell[_TIMES:] // times).tolist()]
    length = code[_LENGTH]
    if not 0 <= length <= LONGEST or min(code) < 0 or max(code) > 255:
        return None
    try:
        word = bytes(code[_WORD : _WORD + length]).decode()
    except UnicodeDecodeError:
        return None
    return word if _code(column, word) == code else None


def _places(
    column: str, found: Mapping[str, int] | list[str], salt: bytes, buckets: int, hashes: int = HASHES
) -> Array:
    """The bucket of each word under each hash, (hashes, words)."""
    keyed = blake2b(column.encode() + b"\0", digest_size=8 * hashes, key=salt)
    out = np.empty((hashes, len(found)), np.int64)
    for i, word in enumerate(found):
        one = keyed.copy()
        one.update(word.encode())
        out[:, i] = np.frombuffer(one.digest(), "<u8") % np.uint64(buckets)
    return out
