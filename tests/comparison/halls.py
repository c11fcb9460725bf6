"""A comparison over a wall, with a hub that carries through bytes in this process."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars

from comity.comparison.agenda import Agenda
from comity.comparison.away import conduct
from comity.comparison.compare import Comparison
from comity.comparison.settings import Settings
from comity.comparison.terms import Terms
from comity.core.envelope import Envelope
from comity.core.errors import ContributionError
from comity.core.parts import Until
from comity.core.recipe import recipe
from comity.core.wire import decode, encode
from comity.ledger.keys import SideSecret
from comity.loop.site import EMPTY, Site, failure

FAST: dict[str, Any] = {"model": "linear", "rounds": 3, "repeats": 2}
NAMES = ("Ayr", "Bern", "Cork")
TRIAL = {"family": "linear", "server": "FedAvg", "rate": 0.005}


def tables(n: int = 80, seed: int = 1) -> dict[str, polars.DataFrame]:
    """Three parties, numbers and words."""
    rng, out = np.random.default_rng(seed), {}
    for shift, name in enumerate(NAMES):
        x = rng.normal(size=(n, 3)) + 0.3 * shift
        y = x @ [1.0, -1.0, 0.5] + rng.normal(size=n) > 0
        words = rng.choice(["red", "green", "blue"], n)
        sex = rng.choice(["f", "m"], n)
        out[name] = polars.DataFrame(
            {"u": x[:, 0], "v": x[:, 1], "w": x[:, 2], "colour": words, "sex": sex, "y": y.astype(int)}
        )
    return out


@dataclass
class Hall:
    """A hub and its sites: what a Station and take_part do, without a line; every message goes as bytes.

    `lost(name, about)` says that a site hears nothing now.
    """

    agendas: dict[str, Agenda]
    lost: Callable[[str, Mapping[str, Any]], bool] = lambda name, about: False
    offered: list[dict[str, Any]] = field(default_factory=list)
    remote: bool = True
    choice: Mapping[str, Any] = field(default_factory=lambda: {"executor": "sites", "workers": 1, "reason": "asked"})

    def carrying(self, *, title: str, about: Any, folder: str, parties: Any, minimum: Any) -> Any:
        about = json.loads(json.dumps(about))
        self.offered.append(about)
        names = sorted(parties if parties is not None else self.agendas)
        assert minimum is None or minimum <= len(names)
        return SimpleNamespace(remote=True, choice=self.choice, connect=lambda roster, answer: Line(self, about, names))


class Line:
    """The engine of one run."""

    def __init__(self, hall: Hall, about: Any, names: list[str]) -> None:
        self.hall, self.about, self.names = hall, about, names
        self.sites: dict[str, tuple[Site, Any]] = {}
        self.drawers: dict[str, Any] = {}
        self.people: dict[str, Any] = {}

    def begin(self, base: Any, agreed: Mapping[str, Any]) -> None:
        offer = SimpleNamespace(run=base.run, title="", recipe=agreed, about=self.about, minimum=1)
        for name in self.names:
            if self.hall.lost(name, self.about):
                continue
            taken = self.hall.agendas[name].find(offer)
            assert recipe(taken.fed)["hash"] == agreed["hash"], "a site builds what the hub runs"
            assert not taken.fed.participants
            self.sites[name] = (Site(name, taken.participant, taken.fed.parts, SideSecret(name.encode() * 16)), taken)
            if hasattr(taken.participant, "spend"):
                self.people[name] = SimpleNamespace(spend=taken.participant.spend)

    def roster(self) -> Sequence[str]:
        return self.names

    def ask(self, cohort: Sequence[str], message: Callable[[str], Envelope], until: Until) -> Iterator[Envelope]:
        for name in cohort:
            if name not in self.sites:
                continue
            site, taken = self.sites[name]
            asked = message(name)
            asked = replace(asked, body=decode(encode(asked.body)))
            if asked.round.number >= taken.rounds and asked.phase == "contribute":
                yield replace(asked, sender=name, body=failure(ContributionError("too many rounds")), receipt=None)
                continue
            reply, self.drawers[name] = site.answer(asked, self.drawers.get(name, EMPTY))
            yield replace(reply, body=decode(encode(reply.body)))


def took(fed: Any, participant: Any, *, rounds: int, **spends: float) -> Any:
    return SimpleNamespace(fed=fed, participant=participant, rounds=rounds, spends=spends)


def sites(folder: Path, parts: Mapping[str, Any], terms: Terms, **more: Any) -> dict[str, Agenda]:
    return {name: Agenda(name, table, terms, folder / name, take=took, **more) for name, table in parts.items()}


def far(folder: Path, parts: Mapping[str, Any], **settings: Any) -> tuple[Comparison, Hall]:
    terms = Terms(Settings("y", **{**FAST, **settings}))
    hall = Hall(sites(folder / "sites", parts, terms))
    return conduct(hall, terms, folder=folder / "hub"), hall
