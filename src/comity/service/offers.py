"""What a hub offers, and what a site makes of it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from comity.core.errors import ConfigError
from comity.core.parts import Participant
from comity.core.recipe import differences, recipe
from comity.service.limits import Limits

RUN = re.compile("[A-Za-z0-9_-]{1,64}")
"""What a run may be called: it names a folder at each site."""


@dataclass(frozen=True)
class Offer:
    """A run in which a party may take part, as its hub tells of it. Only what the site itself has counts.

    Attributes:
        run: its identity.
        title: as people call it.
        recipe: what the hub runs, with its "hash".
        about: what else the hub says.
        minimum: it begins with so many.
    """

    run: str
    title: str = ""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)
    minimum: int = 1

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> "Offer":
        """From what a hub said.

        Raises:
            ConfigError: it is no offer.
        """
        run, minimum = told.get("run"), told.get("minimum", 1)
        named = {name: told.get(name) or {} for name in ("recipe", "about")}
        fits = isinstance(run, str) and RUN.fullmatch(run) and all(isinstance(x, Mapping) for x in named.values())
        if not fits or type(minimum) is not int:
            raise ConfigError("A hub must offer a run with a name and a recipe. Got something else. Update one side.")
        return cls(str(run), str(told.get("title") or ""), minimum=minimum, **named)


@dataclass(frozen=True)
class Taken:
    """How a site takes part in a run.

    Attributes:
        fed: its own copy of the collaboration; its participants are not looked at.
        participant: its own, with its data.
        limits: beyond which it does not answer.
        apart: is a limit of epsilon of this run alone? For an agenda that itself takes part only so often; else a hub
            that begins anew would get it anew.
    """

    fed: Any
    participant: Participant
    limits: Limits = field(default_factory=Limits)
    apart: bool = False


class Agenda(Protocol):
    """In which runs a site takes part."""

    @property
    def stay(self) -> bool:
        """After a run's end: wait for the next, or leave?"""
        ...

    def find(self, offer: Offer) -> Taken | None:
        """What to take part with; None where a run is not for this agenda: another one is waited for.

        Raises:
            ConfigError: to refuse, and end.
        """
        ...


@dataclass(frozen=True)
class One:
    """An agenda of one collaboration: a hub that offers another is refused.

    Attributes:
        taken: what to take part with.
        stay: wait for another run of it after its end?
    """

    taken: Taken
    stay: bool = False

    def find(self, offer: Offer) -> Taken:
        """This one, where the hub offers the same.

        Raises:
            ConfigError: the recipe is another one, with the difference.
        """
        same(self.taken, offer)
        return self.taken


def own(taken: Taken) -> dict[str, Any]:
    """The recipe of a site's own copy.

    Raises:
        ConfigError: it is not the approved one, or its noise would be as the hub says.
    """
    _noise_fits(taken.fed.parts)
    ours, approved = recipe(taken.fed.replace(participants={})), taken.limits.recipe.removeprefix("sha256:")
    if not ours["hash"].startswith(approved):
        raise ConfigError(f"The recipe must be the approved one, {approved:.64}. Got {ours['hash']}. Read it again.")
    return ours


def same(taken: Taken, offer: Offer) -> dict[str, Any]:
    """The recipe of a site's own copy, which a hub must offer.

    Raises:
        ConfigError: it offers another, with the difference; or it is not the approved one.
    """
    ours, theirs = own(taken), offer.recipe
    if theirs.get("hash") != ours["hash"] or differences(ours, dict(theirs)):
        lines = differences(ours, dict(theirs)) or [f"hash: {theirs.get('hash')!s:.64}"]
        raise ConfigError(
            "The hub must run the recipe of this site. It differs (ours → theirs): " + "; ".join(lines[:10])
        )
    return ours


def _noise_fits(parts: Any) -> None:
    """A share of noise is for so many as the hub says are asked: only a channel that opens nothing of fewer holds it
    to that.

    Raises:
        ConfigError: this one does not.
    """
    channel = parts.channel
    if not hasattr(channel, "threshold") and any(getattr(t, "hides", "") == "sum" for t in parts.transforms):
        raise ConfigError(
            f"Shares of noise over a network want a channel whose members count who is asked. {type(channel).__name__} "
            "takes the hub's word. Use channel=co.SecAgg(threshold=0.9), for one."
        )
