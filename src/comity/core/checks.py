"""Checks of settings that many parts share: a plain number, a whole one, a switch, a word, a part.

Each gives the value as plain Python has it (numpy's scalars are as good as plain ones; a bool is no number), or
raises a ConfigError: *The 'rate' of Momentum must be a finite number > 0. Got -1.0.*
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from comity.core.errors import ConfigError, nearest

MOST_SHOWN, LONGEST_NAME = 60, 255


def number(name: str, of: str, value: Any, within: str = "(-inf, inf)", *, hint: str = "") -> float:
    """A number of an interval.

    Args:
        name: of the setting.
        of: whose it is; "" for nobody's.
        value: what was given.
        within: an interval such as "(0, 1]"; "(0, inf]" lets infinity pass, "(0, inf)" does not. NaN never passes.
        hint: what to do instead.

    Raises:
        ConfigError: it is none.

    Example:
        >>> number("rate", "Momentum", np.float32(0.5), "(0, inf)")
        0.5
        >>> number("beta", "Momentum", 1.0, "[0, 1)")
        Traceback (most recent call last):
            ...
        comity.core.errors.ConfigError: The 'beta' of Momentum must be a number in [0, 1). Got 1.0.
    """
    low, high = _ends(within)
    if is_number(value):
        plain: float = value.item() if isinstance(value, np.generic) else value
        above = bool(low < plain or (within[0] == "[" and plain == low))
        if above and (plain < high or (within[-1] == "]" and plain == high)):
            return float(plain) if isinstance(plain, float) else int(plain)
    raise refusal(name, of, _interval(within), value, hint)


def whole(name: str, of: str, value: Any, least: int | None = 0, *, hint: str = "") -> int:
    """A whole number from `least` on; None for any.

    Raises:
        ConfigError: it is none.

    Example:
        >>> whole("rounds", "", np.int64(3), 1)
        3
    """
    if is_number(value, whole=True) and (least is None or value >= least):
        return int(value)
    raise refusal(name, of, "an int" if least is None else f"an int >= {least}", value, hint)


def seeded(of: str, value: Any) -> int:
    """A `seed`: a whole number that travels.

    Raises:
        ConfigError: no int, or of more than 64 bits.
    """
    if is_number(value, whole=True) and -(2**63) <= value < 2**63:
        return int(value)
    raise refusal("seed", of, "an int of 64 bits", value, "Use seed=0, for one.")


def flag(name: str, of: str, value: Any) -> bool:
    """True or False.

    Raises:
        ConfigError: it is neither.
    """
    if isinstance(value, bool | np.bool_):
        return bool(value)
    raise refusal(name, of, "True or False", value)


def word(name: str, of: str, value: Any, known: Sequence[str]) -> str:
    """One of the words that are known.

    Raises:
        ConfigError: it is none; names the nearest.
    """
    if isinstance(value, str) and value in known:
        return value
    near = nearest(value, known).strip() if isinstance(value, str) else ""
    raise refusal(name, of, f"one of {', '.join(map(repr, known))}", value, near)


def text(name: str, of: str, value: Any, *, what: str = "text", hint: str = "") -> str:
    """Text that can be printed and is not empty.

    Raises:
        ConfigError: it is none.
    """
    if isinstance(value, str) and value and value.isprintable():
        return value
    raise refusal(name, of, what, value, hint)


def path(name: str, of: str, value: Any) -> Path:
    """A path.

    Raises:
        ConfigError: neither text nor a path, empty, with a NUL in it, or with a name longer than any system takes.
    """
    if isinstance(value, str | os.PathLike):
        said = os.fspath(value)
        if isinstance(said, str) and said and "\0" not in said:
            found = Path(said)
            if max(map(len, found.parts), default=0) <= LONGEST_NAME:
                return found
    raise refusal(name, of, "a path", value)


def part(name: str, of: str, value: Any, needs: Iterable[str], use: str) -> None:
    """Refuse what lacks something that a part must have.

    Args:
        name: of the setting.
        of: whose it is; "" for nobody's.
        value: what was given: an object, and not its class.
        needs: names of attributes; "()" after a name if it must be callable, "()" alone if the part itself must.
        use: one that fits.

    Raises:
        ConfigError: says what is lacking.

    Example:
        >>> part("combine", "", int, ("needs", "lift()"), "co.Mean()")
        Traceback (most recent call last):
            ...
        comity.core.errors.ConfigError: The 'combine' must have needs and lift(). Got the class int. Use co.Mean().
    """
    needs = list(needs)
    lacking = next((n for n in needs if not _has(value, n)), None)
    if lacking is None and not isinstance(value, type):
        return
    *most, last = [n for n in needs if n != "()"] or [""]
    must = "be callable" if not last else f"have {', '.join(most)}{' and ' if most else ''}{last}"
    why = "" if lacking in (None, "()") or isinstance(value, type) else f", which has no {lacking}"
    whose = f" of {of}" if of else ""
    raise ConfigError(f"The '{name}'{whose} must {must}. Got {shown(value)}{why}. Use {use}.")


def _has(value: Any, need: str) -> bool:
    if need == "()":
        return callable(value)
    found = getattr(value, need.removesuffix("()"), None)
    return found is not None and (not need.endswith("()") or callable(found))


def is_number(value: Any, *, whole: bool | None = None) -> bool:
    """Is it a number, plain or of numpy: a whole one, one with a fraction, or either? A bool is none."""
    if isinstance(value, bool):
        return False
    integer = isinstance(value, int | np.integer)
    return integer if whole else isinstance(value, float | np.floating) or (whole is None and integer)


def refusal(name: str, of: str, must: str, value: Any, hint: str = "") -> ConfigError:
    """The error to raise, in the grammar of all messages."""
    whose = f" of {of}" if of else ""
    return ConfigError(f"The '{name}'{whose} must be {must}. Got {shown(value)}.{' ' + hint if hint else ''}")


def shown(value: Any) -> str:
    """What was got, in a few words: never an address, never a page.

    Example:
        >>> shown(None), shown(np.float32(0.5)), shown([1, 2]), shown(object()), shown(int)
        ('None', '0.5', '[1, 2]', 'an object', 'the class int')
    """
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(value, np.generic | os.PathLike):
        value = os.fspath(value) if isinstance(value, os.PathLike) else value.item()
    if isinstance(value, int) and value.bit_length() > 100:
        return f"an int of {value.bit_length()} bits"
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        said = repr(value)
        return said if len(said) <= MOST_SHOWN else f"{said[: MOST_SHOWN - 3]}..."
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype.name} and shape {value.shape}"
    if isinstance(value, list | tuple | set | frozenset | Mapping):
        return _collection(value)
    kind = type(value).__name__
    return f"{'an' if kind[0] in 'aeiouAEIOU' else 'a'} {kind}"


def _collection(value: Any) -> str:
    held = [*value.keys(), *value.values()] if isinstance(value, Mapping) else list(value)
    said = repr(value) if len(held) <= 10 and all(_is_plain(v) for v in held) else ""
    return said if 0 < len(said) <= MOST_SHOWN else f"a {type(value).__name__} of {len(value)}"


def _is_plain(value: Any) -> bool:
    return value is None or type(value) in (bool, float, str) or (type(value) is int and value.bit_length() <= 100)


@lru_cache(maxsize=64)
def _ends(within: str) -> tuple[float, float]:
    low, high = within[1:-1].split(",")
    return float(low), float(high)


@lru_cache(maxsize=64)
def _interval(within: str) -> str:
    """An interval in words."""
    low, high = (end.strip() for end in within[1:-1].split(","))
    finite = "a number" if within[-1] == "]" else "a finite number"
    if high != "inf":
        return f"a number in {within}"
    if low == "-inf":
        return finite
    return f"{finite} {'>' if within[0] == '(' else '>='} {low}"
