"""What was agreed: a collaboration as JSON with a hash. It holds settings, never data, names or source."""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any

import numpy as np

from comity.core.checks import part

_ABSENT = object()


def recipe(collaboration: Any) -> dict[str, Any]:
    """Describe a collaboration so that a site can compare it with its own copy, line by line.

    Parts enter with their qualified name and settings; functions, modules and estimators as a fingerprint
    (qualified name, never source); of participants only class and settings, each sort once. What lives in
    `__main__` or is a lambda is marked "local only": another process cannot find it.

    Args:
        collaboration: anything with a `described()` Tree of parts.

    Returns:
        A JSON-able dict; `hash` is the sha256 (hex) of the rest.

    Raises:
        ConfigError: it is none.

    Example:
        >>> import comity as co
        >>> fed = co.Collaboration(co.FedAvg(co.Linear(inputs=4, classes=2)), {})
        >>> co.recipe(fed)["parts"]["method"]["class"]
        'comity.methods.fedavg.FedAvg'
    """
    part("collaboration", "recipe", collaboration, ("described()",), "a co.Collaboration")
    body: dict[str, Any] = {"version": 1, "parts": describe(collaboration.described())}
    body["hash"] = hashlib.sha256(canonical(body).encode()).hexdigest()
    return body


def canonical(body: Any) -> str:
    """JSON with sorted names and no spaces: the bytes that are hashed."""
    return json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False)


def kinds(participants: Sequence[Any]) -> list[Any]:
    """The sorts of participant there are, each described once, without their data."""
    seen: dict[str, Any] = {}
    cache: dict[int, Any] = {}
    for p in participants:
        said = {"class": _qualified(type(p)), **_settings(p, cache)}
        seen[canonical(said)] = said
    return [seen[k] for k in sorted(seen)]


def describe(x: Any) -> Any:
    """One setting as JSON."""
    if isinstance(x, float) and not math.isfinite(x):
        return str(x)
    if x is None or isinstance(x, bool | int | float | str):
        return x
    if isinstance(x, bytes):
        return {"bytes": hashlib.sha256(x).hexdigest()}
    if isinstance(x, set | frozenset):
        return {"set": sorted((describe(v) for v in x), key=canonical)}
    if isinstance(x, np.generic):
        return describe(x.item())
    if isinstance(x, Mapping):
        return {str(k): describe(v) for k, v in x.items()}
    if isinstance(x, tuple | list):
        return [describe(v) for v in x]
    if isinstance(x, np.ndarray):
        data = canonical(describe(x.tolist())).encode() if x.dtype.hasobject else x.tobytes()
        return {"array": [x.dtype.name, list(x.shape), hashlib.sha256(data).hexdigest()]}
    return _object(x)


def _object(x: Any) -> Any:
    if callable(fingerprint := getattr(x, "fingerprint", None)):
        return {"class": _qualified(type(x)), **describe(fingerprint())}
    if is_dataclass(x) and not isinstance(x, type):
        return {"class": _qualified(type(x)), **{f.name: describe(getattr(x, f.name)) for f in fields(x)}}
    if isinstance(x, partial):
        return {"partial": describe(x.func), "args": describe(x.args), "keywords": describe(x.keywords)}
    if callable(x):
        return {"function": _qualified(x)}
    return {"class": _qualified(type(x)), **_plain(x)}


def _plain(x: Any) -> dict[str, Any]:
    """The numbers, strings and switches that an ordinary object keeps."""
    known = getattr(x, "__dict__", {})
    kept = {k: v for k, v in known.items() if v is None or isinstance(v, bool | int | float | str)}
    return {k: describe(v) for k, v in kept.items() if not k.startswith("_")}


def _qualified(x: Callable[..., Any] | type) -> str:
    name = f"{getattr(x, '__module__', '?')}.{getattr(x, '__qualname__', type(x).__qualname__)}"
    local = name.startswith("__main__") or "<lambda>" in name or "<locals>" in name
    return f"{name} (local only)" if local else name


def _settings(p: Any, cache: dict[int, Any]) -> dict[str, Any]:
    """A participant's settings: its fields that are parts, functions or plain numbers, never arrays or tables."""
    if not is_dataclass(p):
        return {}
    out = {}
    for f in fields(p):
        value = getattr(p, f.name)
        if f.metadata.get("data") or not _is_setting(value):
            continue
        if is_dataclass(value) and hasattr(value, "contribute"):
            out[f.name] = {"class": _qualified(type(value)), **_settings(value, cache)}
        else:
            if id(value) not in cache:
                cache[id(value)] = describe(value)
            out[f.name] = cache[id(value)]
    return out


def _is_setting(value: Any) -> bool:
    if isinstance(value, bool | int | float) or value is None:
        return True
    return is_dataclass(value) or hasattr(value, "fingerprint") or callable(value)


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """What differs between two recipes, a line each: `parts.method.lr: 1.0 → 0.5`. Their hashes are left out."""
    if isinstance(old, list) and isinstance(new, list):
        old, new = dict(enumerate(old)), dict(enumerate(new))
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        out = []
        for k in [*old, *(k for k in new if k not in old)]:
            if path or k != "hash":
                out += differences(old.get(k, _ABSENT), new.get(k, _ABSENT), f"{path}.{k}" if path else str(k))
        return out
    same = type(old) is type(new) and old == new
    return [] if same else [f"{path or 'recipe'}: {_short(old)} → {_short(new)}"]


def _short(x: Any) -> str:
    text = "(absent)" if x is _ABSENT else json.dumps(x, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
