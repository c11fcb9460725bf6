"""The law of every cell: it works, or a ComityError says what must hold and what was got, and nothing was written."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import comity as co

LONGEST = 500
GOT = re.compile(
    r"Got:? |There is (no|a) |\bholds? |\blacks? |\bhas (no|\d)\b|is empty|cannot|is none|Missing: |more than once"
    r"|says: |is neither|is a |stands |the same|is missing|is damaged|[Ii]n line \d|is '"
)
STRAY = re.compile(r"0x[0-9a-f]{5,}|NoneType|Traceback|<class |<function|object at 0x|errno", re.IGNORECASE)


class Thing:
    """An object that fits nowhere."""


NONE_NUMBERS = (
    None,
    "x",
    "1",
    b"1",
    [],
    [1],
    {},
    {"a": 1},
    True,
    1j,
    float("nan"),
    np.array([1.0, 2.0]),
    Thing(),
    int,
    len,
)
NO_WHOLE = (*NONE_NUMBERS, 1.5, 2.0, float("inf"), np.float64(2))
NO_FLAG = (None, 0, 1, "True", [], 1.0, Thing(), bool)
NO_WORD = (None, 1, True, "", "zzz", b"mean", [], ["mean"], Thing(), str)
NO_PATH = (1, True, 1.5, b"x", [], ["x"], {}, Thing(), Path, "", "a\0b")
WHOLE = (1, 3, np.int64(2), np.uint8(2), np.int32(1))
NUMBERS = (1, 0.5, np.float32(0.5), np.float64(0.5), np.int64(1))


@dataclass(frozen=True)
class Row:
    """A cell: what is called with what, whether it must be refused (None: either), and what the message must say."""

    name: str
    parameter: str
    label: str
    call: Callable[[], Any]
    refused: bool | None
    says: str

    def __str__(self) -> str:
        return f"{self.name}-{self.parameter}-{self.label}"


SEEN: set[tuple[str, str]] = set()
"""Name and parameter of every row that was made."""
Cases = Iterable[Any] | Mapping[str, Any]


def rows(
    name: str, parameter: str, call: Callable[[Any], Any], *, bad: Cases = (), good: Cases = (), either: Cases = (),
    says: str = "",
) -> list[Row]:  # fmt: skip
    """One row for each value, given to `call`; a message must hold `says`, by default the parameter's name."""
    out = []
    SEEN.add((name, parameter))
    for refused, cases in ((True, bad), (False, good), (None, either)):
        named = cases.items() if isinstance(cases, Mapping) else ((label(v), v) for v in cases)
        for said, value in named:
            text = says or rf"\b{re.escape(parameter)}\b"
            out.append(Row(name, parameter, said, lambda value=value: call(value), refused, text))
    return out


def label(value: Any) -> str:
    said = repr(value) if isinstance(value, int | float | str | bytes | type(None) | list | dict) else ""
    if isinstance(value, np.generic):
        return f"{type(value).__name__}({value})"
    if isinstance(value, np.ndarray):
        return f"{value.dtype}{list(value.shape)}"
    return said[:30] if said and "0x" not in said else getattr(value, "__name__", type(value).__name__)


def hold(row: Row, folder: Path) -> None:
    """Hold a row to the law; `folder` is the current one."""
    before, error = listing(folder), raised(row.call)
    if error is None:
        assert not row.refused, "It must be refused."
        return
    assert row.refused is not False, f"It must work. Got: {error}"
    assert listing(folder) == before, "Something was written."
    assert re.search(row.says, str(error)), f"The message must say {row.says!r}. Got: {error}"
    grammar(str(error))


def raised(call: Callable[[], Any]) -> co.ComityError | None:
    """What is raised on purpose; anything else is a defect, and goes on."""
    try:
        call()
    except co.ComityError as error:
        return error
    return None


def grammar(message: str) -> None:
    """One to four sentences, in words that a person understands."""
    assert message[-1] in ".?", f"It must end with a full stop. Got: {message}"
    assert GOT.search(message), f"It must say what was got. Got: {message}"
    assert not STRAY.search(message), f"It must be in plain words. Got: {message}"
    assert len(message) < LONGEST, f"It must be short. Got {len(message)}: {message[:200]}"
    assert "\0" not in message, "It must be printable."
    assert len(re.findall(r"[.?](?= [A-Z]|$)", message)) <= 4, f"It must be a few sentences. Got: {message}"


def listing(folder: Path) -> dict[str, Any]:
    """All files; a lock tells nothing."""
    found = [p for p in sorted(folder.rglob("*")) if p.name != "lock"]
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in found}
