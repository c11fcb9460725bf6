"""What a round spends of privacy: facts for the ledger, written before any noise is drawn."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from comity.core.errors import ConfigError
from comity.core.parts import Spend
from comity.core.round import Round
from comity.core.rules import Parts


class Charging:
    """What the parts and the participants of a collaboration spend.

    A participant that spends says so by `spend(round)`; what is released about its examples is charged to it, whoever
    else is asked. Spends of a transform are everybody's: they are of participants or parties. Whoever is heard by
    several hubs is released by each. Sampling is credited where the selection says how it really draws (`sampling` and
    `rate`), for noise that is added at the hub (`central`), and only where the sum is divided by what is expected: what
    hides from the hub itself gains nothing by a draw that the hub makes, and who divides by those who answered tells
    how many were drawn.
    """

    def __init__(self, parts: Parts, people: Any) -> None:
        """Args: the parts, and the participants by name (a Mapping or a Population)."""
        self.parts, self._people = parts, people
        self._named = isinstance(people, Mapping)
        some = people.values() if self._named else map(people.find, people.names[:1])
        self._own = any(hasattr(p, "spend") for p in some)
        self._hubs = 1

    @property
    def spends(self) -> bool:
        """Does anything that is released cost privacy?"""
        return self._own or any(hasattr(t, "spend") for t in self.parts.transforms)

    def guarded(self, find: Callable[[str], Any]) -> Callable[[str], Any]:
        """How participants are found: of a population whose first spends nothing, nobody else may."""
        return find if self._named or self._own else Unspending(find)

    def ahead(self, turn: Round) -> list[Spend]:
        """What the next round would spend, whoever is asked; by as many hubs as ever heard one."""
        own = self._people if self._named else self._people.names[:1]
        return [
            *self._everybody(turn),
            *(replace(s, who="") for s in dict.fromkeys(s for s, _ in self._each(own, turn))),
        ]

    def of(self, turn: Round, asked: Sequence[str]) -> list[dict[str, Any]]:
        """The facts of one attempt at a round; of participants who spend the same, one for all of them.

        Args:
            turn: the attempt.
            asked: who is asked; whom several hubs hear as often as they are.
        """
        heard = Counter(asked)
        self._hubs = max(self._hubs, *heard.values(), 1)
        same: dict[Spend, list[str]] = {}
        for spend, name in self._each(heard, turn):
            same.setdefault(spend, []).append(name)
        found = [*self._everybody(turn), *(replace(s, who="\n".join(names)) for s, names in same.items())]
        return [{**asdict(s), "round": turn.number, "attempt": turn.attempt} for s in found]

    def _everybody(self, turn: Round) -> Sequence[Spend]:
        """Of noise that the hub adds, with the sampling that it keeps to itself; it knows who else is in a cohort."""
        select = self.parts.select
        how, rate = getattr(select, "sampling", "none"), getattr(select, "rate", 1.0)
        drawn: dict[str, Any] = {"sampling": how, "rate": float(rate)} if self.parts.hides_draw else {}
        spending = [t for t in self.parts.transforms if hasattr(t, "spend")]
        each = [replace(t.spend(turn), **(drawn if getattr(t, "central", False) else {})) for t in spending]
        return [_by(s, self._hubs) for s in each]

    def _each(self, names: Iterable[str], turn: Round) -> Iterable[tuple[Spend, str]]:
        """A participant has one kind of spend, or a list of them."""
        if self._own:
            find = self._people.__getitem__ if self._named else self._people.find
            for name in names:
                if spend := getattr(find(name), "spend", None):
                    given = spend(turn.to(name))
                    yield from ((s, name) for s in ([given] if isinstance(given, Spend) else given))


@dataclass(frozen=True)
class Unspending:
    """Finds participants of a population whose first spends nothing, so that nobody else does without being charged.

    Attributes:
        find: name to participant.
    """

    find: Callable[[str], Any]

    def __call__(self, name: str) -> Any:
        """The participant of this name.

        Raises:
            ConfigError: it spends privacy.
        """
        person = self.find(name)
        if hasattr(person, "spend"):
            raise ConfigError(
                f"All participants of a population must spend privacy, or none. Got {type(person).__name__} for "
                f"'{name}', and one without noise first. Use participants of one kind."
            )
        return person


def _by(spend: Spend, hubs: int) -> Spend:
    """What so many hubs spend who release the same independently: as many releases, or trees."""
    if spend.mechanism == "tree":
        return replace(spend, noise=spend.noise / math.sqrt(hubs))
    return replace(spend, count=spend.count * hubs)
