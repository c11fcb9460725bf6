"""A data dictionary as TOML text: read with messages that name the line, written without a library."""

import datetime as dt
import json
import math
import re
import tomllib
from collections.abc import Callable, Mapping
from typing import Any

from comity.core.errors import ConfigError, nearest

FIRST_DAY, LAST_DAY = -719_162.0, 2_932_896.0
"""Of the years 1 to 9999, in days since 1970."""
_EPOCH = dt.datetime(1970, 1, 1)
_TOPS = ("title", "target", "party")
_KEYS = ("type", "unit", "range", "codes", "required")


def read_dictionary(text: str, where: str, types: tuple[str, ...]) -> tuple[dict[str, str], dict[str, dict[str, Any]]]:
    """What a dictionary's text says: its title, target and party, and each column's entry as keywords.

    Raises:
        ConfigError: with the line of what does not fit.
    """
    try:
        said = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        why, _, place = str(error).rstrip(")").partition(" (at ")
        line = place.partition(",")[0] if place.startswith("line") else f"line {len(text.splitlines())}"
        raise ConfigError(f"{where} must be TOML. In {line}: {why}. Mend that line.") from None
    fault = _Fault(text, where)
    columns = said.pop("columns", {})
    if not isinstance(columns, dict):
        raise fault("columns", None, "'columns' must be tables such as [columns.age]")
    for key, value in said.items():
        if key not in _TOPS:
            raise fault(key, None, f"A dictionary has {', '.join(_TOPS)} and columns. Got '{key}'", nearest(key, _TOPS))
        if not isinstance(value, str):
            raise fault(key, None, f"'{key}' must be text. Got {value!r}", " Put it in quotes.")
    return said, {name: _entry(name, own, types, fault) for name, own in columns.items()}


def write_dictionary(dictionary: Any) -> str:
    """The text of a `Dictionary`; empty values are left out."""
    tops = [f"{key} = {_text(getattr(dictionary, key))}" for key in _TOPS if getattr(dictionary, key)]
    parts = ["\n".join(tops)] if tops else []
    return "\n\n".join([*parts, *(_written(entry) for entry in dictionary.columns)]) + "\n"


def date_of(day: float) -> dt.datetime:
    """Days since 1970 as a date and time, held within the years 1 to 9999."""
    return _EPOCH + dt.timedelta(days=min(max(day, FIRST_DAY), LAST_DAY))


class _Fault:
    """Makes errors that say in which line the fault is."""

    def __init__(self, text: str, where: str) -> None:
        self.lines, self.where = text.splitlines(), where

    def __call__(self, name: str, key: str | None, wrong: str, todo: str = "") -> ConfigError:
        line = self._line(name, key)
        return ConfigError(f"{wrong}, in {f'line {line} of ' if line else ''}{self.where}.{todo or ' Mend that line.'}")

    def _line(self, name: str, key: str | None) -> int:
        bare = rf"(?:{re.escape(name)}|{re.escape(json.dumps(name, ensure_ascii=False))}|'{re.escape(name)}')"
        header = re.compile(
            rf"\s*(?:\[\s*columns\s*\.\s*{bare}\s*[.\]]|(?:columns\s*\.\s*)?{bare}\s*[.=]|\[\s*{bare}\b)"
        )
        start = next((i for i, line in enumerate(self.lines, 1) if header.match(line)), 0)
        if not start or key is None:
            return start
        own = re.compile(rf"(?:.*[\[{{.,]\s*)?\s*[\"']?{re.escape(key)}[\"']?\s*[\]=]")
        return next((i for i, line in enumerate(self.lines, 1) if i >= start and own.match(line)), start)


def _entry(name: str, said: Any, types: tuple[str, ...], fault: _Fault) -> dict[str, Any]:
    if not isinstance(said, dict):
        raise fault(name, None, f"Column '{name}' must be a table [columns.{_key(name)}]. Got {said!r}")
    for key in said:
        if key not in _KEYS:
            raise fault(name, key, f"A column has {', '.join(_KEYS)}. '{name}' has '{key}'", nearest(key, _KEYS))
    kind = said.get("type")
    if kind not in types:
        known = nearest(str(kind), types)
        raise fault(name, "type", f"The type of '{name}' must be one of {', '.join(types)}. Got {kind!r}", known)
    checks: dict[str, tuple[Callable[[Any], Any], str]] = {
        "unit": (_as_text, 'text, such as "mg/dL"'),
        "required": (_as_truth, "true or false"),
        "range": (_as_dates if kind == "date" else _as_numbers, "two dates" if kind == "date" else "two numbers"),
        "codes": (_as_codes, 'words, ["f", "m"], or words with their meanings, {"1" = "male"}'),
    }
    out = {"type": kind}
    for key, (made, must) in checks.items():
        if key in said:
            out[key] = made(said[key])
            if out[key] is None:
                must += ", [low, high] with low <= high" if key == "range" else ""
                raise fault(name, key, f"The {key} of '{name}' must be {must}. Got {said[key]!r}")
    return out


def _as_text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _as_truth(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _as_numbers(value: Any) -> tuple[float, float] | None:
    good = isinstance(value, list) and len(value) == 2
    if not good or not all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in value):
        return None
    return (float(value[0]), float(value[1])) if value[0] <= value[1] else None


def _as_dates(value: Any) -> tuple[float, float] | None:
    if not isinstance(value, list) or not all(isinstance(v, dt.date) for v in value):
        return None
    return _as_numbers([_day(v) for v in value])


def _as_codes(value: Any) -> dict[str, str] | None:
    pairs = dict.fromkeys(value, "") if isinstance(value, list) and all(isinstance(v, str) for v in value) else value
    if not isinstance(pairs, Mapping) or not all(isinstance(v, str) for v in pairs.values()):
        return None
    return dict(pairs)


def _day(value: dt.date) -> float:
    moment = value if isinstance(value, dt.datetime) else dt.datetime.combine(value, dt.time())
    moment = moment.astimezone(dt.UTC).replace(tzinfo=None) if moment.tzinfo else moment
    return (moment - _EPOCH) / dt.timedelta(days=1)


def _written(entry: Any) -> str:
    lines = [f"[columns.{_key(entry.name)}]", f"type = {_text(entry.type)}"]
    lines += [f"unit = {_text(entry.unit)}"] if entry.unit else []
    if entry.range is not None:
        ends = [_date(v) if entry.type == "date" else _number(v) for v in entry.range]
        lines.append(f"range = [{', '.join(ends)}]")
    lines += ["required = true"] if entry.required else []
    meant = any(entry.codes.values())
    if entry.codes and not meant:
        lines.append(f"codes = [{', '.join(_text(word) for word in entry.codes)}]")
    if meant:
        lines += ["", f"[columns.{_key(entry.name)}.codes]"]
        lines += [f"{_key(word)} = {_text(meaning)}" for word, meaning in entry.codes.items()]
    return "\n".join(lines)


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _text(name)


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(float(value))


def _date(day: float) -> str:
    moment = date_of(day)
    return moment.date().isoformat() if day == int(day) else moment.isoformat()
