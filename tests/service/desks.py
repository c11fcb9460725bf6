"""A hub in the tests' own process: what a site's line would bring, without HTTP; and an engine over such lines."""

import importlib
import json
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import comity as co
from comity.core.contribution import Contribution
from comity.core.envelope import Envelope
from comity.core.parts import Until
from comity.core.round import Round
from comity.core.wire import encode
from comity.ledger.copies import line_of
from comity.service import agreeing, packets
from comity.service.answering import Answering
from comity.service.client import Answer
from comity.service.offers import Offer, Taken

sys.path.append(str(Path(__file__).parent))
made = importlib.import_module("actors")


@dataclass
class Line:
    """What `Client` is, to one hub of the tests.

    Attributes:
        name: of the party.
        hub: whose answers it brings.
        replies: what was delivered, in order.
    """

    name: str
    hub: "Desk"
    replies: list[packets.Packet] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    @property
    def secret(self) -> Any:
        return made.secret(self.name)

    def ask(self, method: str, path: str, body: bytes = b"", **_: Any) -> Answer:
        route, _, query = path.partition("?")
        params = dict(p.split("=") for p in query.split("&") if p)
        status, told = getattr(self.hub, "on_" + route.removeprefix("/v1/"))(self.name, body, params)
        if route == "/v1/reply" and status == 200:
            self.replies.append(packets.read(body))
        return Answer(status, told if isinstance(told, bytes) else json.dumps(told).encode())

    def fetch(self, sha: str, size: int, folder: Path) -> bytes:
        return self.hub.bodies[sha]

    def send(self, sha: str, data: bytes) -> None:
        self.hub.bodies[sha] = data

    def close(self) -> None:
        pass


@dataclass
class Desk:
    """A hub: one run, one question at a time for each party."""

    fed: Any
    run: str = "run1"
    ledger: Any = field(default_factory=co.Ledger)
    agreements: dict[str, Any] = field(default_factory=dict)
    heads: dict[str, Any] = field(default_factory=dict)
    waiting: dict[str, bytes] = field(default_factory=dict)
    bodies: dict[str, bytes] = field(default_factory=dict)
    began: bool = False

    @property
    def recipe(self) -> dict[str, Any]:
        return co.recipe(self.fed.replace(participants={}))

    @property
    def offer(self) -> Offer:
        return Offer(self.run, recipe=self.recipe)

    def start(self) -> None:
        """The ledger's first entry."""
        self.ledger.append("start", {"recipe": self.recipe["hash"]}, time=0.0)

    def site(self, folder: Path, participant: Any, *, name: str = "ada", fed: Any = None, **limits: Any) -> Answering:
        """A site as it begins, agreed."""
        taken = Taken(fed or self.fed, participant, co.Limits(**limits))
        line: Any = Line(name, self)
        one = Answering(line, self.offer, taken, made.secret(name), hub=made.HUB.public_key(), folder=folder)
        assert one.agree()
        return one

    def packet(self, to: str, phase: str, body: Contribution, **turn: Any) -> packets.Packet:
        """A question, signed."""
        facts = {"hub": "hub", "roster": 3, "asked": 3, "expected": 3.0, **turn}
        round_ = Round(facts.pop("run", self.run), facts.pop("seed", self.fed.seed), me=to, **facts)
        return packed(Envelope(round_, phase, "hub", self.recipe["hash"], body))

    def on_agree(self, who: str, body: bytes, _: Any) -> tuple[int, Any]:
        said = json.loads(body)
        assert agreeing.agreed(made.secret(who).public_key(), said.pop("run"), who, said)
        new = who not in self.agreements
        if new or not self.began:
            self.agreements[who] = {**said, "time": self.agreements.get(who, said)["time"]}
        return 200, {"new": new, "began": self.began, "time": self.agreements[who]["time"]}

    def on_tasks(self, who: str, _: bytes, __: Any) -> tuple[int, Any]:
        return (200, self.waiting[who]) if who in self.waiting else (204, b"")

    def on_reply(self, who: str, body: bytes, _: Any) -> tuple[int, Any]:
        self.waiting.pop(who, None)
        return 200, {"outcome": "accepted"}

    def on_head(self, who: str, body: bytes, _: Any) -> tuple[int, Any]:
        said = json.loads(body)
        facts = (said[k] for k in ("entries", "head", "by"))
        assert agreeing.held(made.secret(who).public_key(), self.run, who, *facts)
        self.heads[who] = said
        return 200, {}

    def on_ledger(self, _: str, __: bytes, params: Mapping[str, str]) -> tuple[int, Any]:
        after = int(params["after"])
        if after > len(self.ledger):
            return 200, {"at": None, "entries": [], "more": False}
        at = self.ledger[after - 1].hash if after else "0" * 64
        new = self.ledger[after : after + agreeing.MOST]
        return 200, {"at": at, "entries": [line_of(e) for e in new], "more": len(new) == agreeing.MOST}


def packed(message: Envelope) -> packets.Packet:
    """A question as the hub lays it out."""
    body = encode(message.body)
    head, _ = packets.header(message, body, secret=made.HUB)
    return packets.read(packets.joined(head, packets.Ref("", len(body), ""), body))


def opened(one: Answering, laid: Any) -> Envelope:
    """An answer, whole."""
    return packets.opened(packets.read(packets.joined(laid.head, laid.ref, laid.body)).said, laid.body)


@dataclass
class Direct:
    """An engine whose sites are asked by what would travel, in this thread."""

    desk: Desk
    sites: Mapping[str, Answering]
    base: Round | None = None
    remote: ClassVar[bool] = True
    choice: ClassVar[dict[str, Any]] = {"executor": "sites", "workers": 1, "reason": "asked for", "engine": "direct"}

    def connect(self, roster: Any, answer: Any) -> "Direct":
        return self

    def begin(self, base: Round, recipe: Mapping[str, Any]) -> None:
        self.base = base

    @property
    def people(self) -> dict[str, Any]:
        said = {name: self.desk.agreements[name]["spends"] for name in self.sites}
        return {name: Declared(spends) for name, spends in said.items()} if any(said.values()) else {}

    def roster(self) -> Sequence[str]:
        return sorted(self.sites)

    def ask(self, cohort: Sequence[str], message: Callable[[str], Envelope], until: Until) -> Iterator[Envelope]:
        for name in cohort:
            asked = message(name)
            turn = replace(asked.round, run=self.desk.run)
            laid = self.sites[name].answer(packed(replace(asked, round=turn)))
            yield opened(self.sites[name], laid)


class Declared:
    """Who spends what was declared."""

    def __init__(self, spends: Sequence[Mapping[str, Any]]) -> None:
        self._spends = [co.Spend(**s) for s in spends]

    def spend(self, round: Round) -> list[co.Spend]:
        return self._spends
