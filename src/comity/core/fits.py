"""What each part of a collaboration must have, and what a participant must hold, looked at before anything moves."""

from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from comity.core.checks import part, refusal, shown, word
from comity.core.contribution import RANK
from comity.core.errors import ConfigError

NEEDS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "method": (("combiner", "init()", "share()", "expect()", "update()"), "co.FedAvg(model)"),
    "combine": (("needs", "init()", "lift()", "lower()"), "co.Mean()"),
    "transforms": (("decodes", "init()", "encode()", "decode()"), "objects with both halves, in a list"),
    "channel": (("reveals", "setup()", "answer()", "seal()", "open()"), "co.Plain()"),
    "select": (("()", "expected()"), "co.everyone()"),
    "stop": (("()",), "a function of the past and of what is spent next"),
    "engine": (("connect()", "choice"), "co.Local()"),
    "listen": (("()",), "a function of one event, or a list of them"),
}
DATA = ("data", "test", "valid")
"""What the participants that train call theirs."""
VIEWS = {"combine": "needs", "transforms": "decodes", "channel": "reveals"}


def fits(name: str, value: Any, *, called: str = "") -> None:
    """Refuse what cannot be this part of a collaboration, `called` what the setting is called elsewhere.

    Raises:
        ConfigError: says what such a part has, what was got, and what to use.
    """
    part(called or name, "", value, *NEEDS[name])
    if name in VIEWS:
        word(VIEWS[name], type(value).__name__, getattr(value, VIEWS[name]), tuple(RANK))


def listed(name: str, value: Any) -> tuple[Any, ...]:
    """Several parts as a tuple: a generator would be empty at its second use.

    Raises:
        ConfigError: no list, or one of them does not fit.
    """
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise refusal(name, "", f"a list of {name}", value, "Put it into a list.")
    found = tuple(value)
    for one in found:
        fits(name, one)
    return found


def participants_fit(participants: Any) -> None:
    """Refuse participants that cannot take part.

    Raises:
        ConfigError: names the participant.
    """
    if not isinstance(participants, Mapping):
        raise refusal("participants", "", "{name: participant} or a Population", participants, "Give each a name.")
    for name, participant in participants.items():
        if not (isinstance(name, str) and name and name.isprintable()):
            raise ConfigError(f"A participant's name must be printable text. Got {shown(name)}.")
        contributes(name, participant)


def contributes(name: str, participant: Any) -> None:
    """Refuse what has no `contribute`.

    Raises:
        ConfigError: names the participant.
    """
    if not isinstance(participant, type) and callable(getattr(participant, "contribute", None)):
        return
    plain = participant is None or isinstance(participant, type)
    got = shown(participant) if plain else type(participant).__name__
    raise ConfigError(f"Participant '{name}' must have a contribute method. Got {got}. Use co.Trainer.")


def data_fits(name: str, participant: Any) -> None:
    """Let a participant's model look at its data, where the model can `check` them.

    Raises:
        ConfigError: names the participant and what does not fit.
    """
    check = getattr(getattr(participant, "model", None), "check", None)
    if not callable(check) or not is_dataclass(participant):
        return
    for field in (f for f in fields(participant) if f.name in DATA and f.metadata.get("data")):
        data = getattr(participant, field.name)
        if field.name != "data" and _is_nothing(data):
            continue
        try:
            check(data)
        except ConfigError as error:
            raise ConfigError(f"The {field.name} of participant '{name}' cannot be used. {error}") from error


def frozen_fits(method: Any, name: str, participant: Any) -> None:
    """Refuse a participant whose model has other frozen values than the method's: they are never sent.

    A model may say what it holds by `frozen`, name to hash.

    Raises:
        ConfigError: names the participant and the first value that differs.
    """
    ours, theirs = getattr(method, "model", None), getattr(participant, "model", None)
    if ours is theirs or not is_dataclass(participant) or "data" not in {f.name for f in fields(participant)}:
        return
    held, own = getattr(ours, "frozen", None), getattr(theirs, "frozen", None)
    if not isinstance(held, Mapping) or not isinstance(own, Mapping):
        return
    if wrong := sorted(k for k in held.keys() | own.keys() if held.get(k) != own.get(k)):
        raise ConfigError(
            f"The model of participant '{name}' must hold the frozen values of the method's: they are not sent. "
            f"Got another '{wrong[0]}'{f' and {len(wrong) - 1} more' if wrong[1:] else ''}. Give all the same module."
        )


def listeners(value: Any) -> tuple[Any, ...]:
    """Who is told the events of a run: nobody, one function or several.

    Raises:
        ConfigError: something that cannot be called with an event.
    """
    several = list(value) if isinstance(value, list | tuple) else [] if value is None else [value]
    for one in several:
        fits("listen", one)
    return tuple(several)


def _is_nothing(data: Any) -> bool:
    """None, or a pair without rows: nothing is held out."""
    pair = data if isinstance(data, tuple | list) and len(data) == 2 else None
    return data is None or (pair is not None and hasattr(pair[1], "__len__") and len(pair[1]) == 0)


class Unchanged:
    """A class attribute that holds for those who inherit it only as long as they leave some methods as they are.

    Args:
        methods: their names.
        yes: its value where they are as in the class that has it.
        no: its value where one of them is another.
    """

    def __init__(self, *methods: str, yes: Any = True, no: Any = False) -> None:
        """Note what must stay."""
        self._methods, self._yes, self._no = methods, yes, no
        self._owner: type = object

    def __set_name__(self, owner: type, name: str) -> None:
        self._owner = owner

    def __get__(self, part: object, kind: type) -> Any:
        same = all(getattr(kind, m, None) is getattr(self._owner, m, None) for m in self._methods)
        return self._yes if same else self._no


def has_many(part: object, many: str, plain: str) -> bool:
    """Has it the second method, and made for the plain one that it has: not inherited from whoever had another?"""
    if many in getattr(part, "__dict__", {}) or not hasattr(part, many):
        return hasattr(part, many)
    lines = type(part).__mro__
    first = {name: next((i for i, c in enumerate(lines) if name in vars(c)), len(lines)) for name in (many, plain)}
    return first[many] <= first[plain]
