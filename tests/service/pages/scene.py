"""A hub for the tests of its pages: real registry, runs, mailbox and ledgers, without anybody who trains."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from comity.core.wire import encode_tree
from comity.ledger.keys import SideSecret
from comity.ledger.mailbox import Mailbox, Question, Reply
from comity.ledger.record import Ledger
from comity.ledger.store import Store
from comity.ledger.tables import Generation
from comity.service.invitations import Invitation
from comity.service.pages.sessions import Sessions
from comity.service.registry import Registry
from comity.service.runs import Offering, Runs

HASH = "9f2c41d7" * 8
NAMES = ("Basel", "Bern", "Lyon", "Zurich")
RECIPE = {"hash": HASH, "version": 1, "parts": {"quorum": 0.5, "stop": None}}
BUDGET = {"class": "comity.privacy.budget.Budget", "epsilon": 8, "delta": 1e-5, "accountant": "pld"}
SPEND = {
    "mechanism": "gaussian",
    "noise": 4.0,
    "rate": 1.0,
    "count": 1,
    "unit": "example",
    "sampling": "none",
    "who": "",
}


def secret(name: str) -> SideSecret:
    """Whose identity it is."""
    return SideSecret(hashlib.sha256(name.encode()).digest())


class Scene:
    """A hub in a folder."""

    def __init__(self, folder: Path, url: str = "http://hub.example") -> None:
        self.folder, self.url, self.identity, self.closing = folder, url, secret("hub"), False
        self.registry = Registry.open(folder / "hub")
        self.runs, self.box = Runs(self.registry.db), Mailbox(self.registry.db)
        self.sessions = Sessions(self.registry)

    def close(self) -> None:
        self.registry.close()

    def party(self, name: str, status: str = "approved", role: str = "party") -> None:
        """One that enrolled."""
        token = self.registry.invite(name, self.identity.public_key(), role=role)
        if status != "invited":
            self.registry.enrol(Invitation.read(token).secret, name, secret(name).public_key())
        if status == "approved":
            self.registry.approve(name)
            self.registry.seen(name)

    def run(self, run: str = "r1", names: Sequence[str] = NAMES, *, title: str = "Readmission", **more: Any) -> Path:
        """A run that has begun; gives its folder."""
        folder = self.folder / "runs" / run
        stop = more.pop("stop", None)
        recipe = {**RECIPE, "parts": {**RECIPE["parts"], "stop": stop}}
        given = {"about": {"rounds": 100}, "minimum": len(names), "invited": names, "folder": str(folder), **more}
        self.runs.offer(run, Offering(title=title, recipe=recipe, **given))
        self.runs.start(run, sorted(names))
        return folder

    def ask(self, number: int, names: Sequence[str] = NAMES, run: str = "r1") -> tuple[Any, ...]:
        """Everybody is asked."""
        turn = (run, number, 0, "hub", "contribute")
        self.box.offer(turn, [Question(n, "ab12", b"?") for n in names], {})
        return turn

    def answer(self, turn: tuple[Any, ...], name: str) -> None:
        assert self.box.commit(turn, name, "ab12", Reply(hashlib.sha256(name.encode()).hexdigest(), b"!")) == "accepted"

    def logged_in(self, name: str = "Keller", role: str = "operator", source: str = "folder") -> tuple[str, str]:
        """A cookie, and the token of its forms."""
        cookie = self.sessions.redeem(self.sessions.link(name, role, source=source))
        assert cookie is not None
        who = self.sessions.find(cookie)
        assert who is not None
        return cookie, who.token

    def state(self) -> Any:
        """The hub as a bare object."""
        names = ("registry", "runs", "box", "url", "folder", "identity", "closing")
        return SimpleNamespace(**{name: getattr(self, name) for name in names})


class Written:
    """A run's ledger on the disk, to which rounds are added."""

    def __init__(self, folder: Path, names: Sequence[str] = NAMES, *, spends: bool = False) -> None:
        self.names, self.spends, self.ledger, self.saved = list(names), spends, Ledger(), 0
        self.store = Store.open(folder, f'{{"hash": "{HASH}", "seed": 0}}')
        self.rounds, self.clock = 0, 1_790_000_000.0
        self.ledger.append("start", {"recipe": HASH, "seed": 0, "states": {}, "choice": {}}, time=self.clock)

    def round(
        self, *, dropped: Sequence[tuple[str, str]] = (), score: float | None = None, seconds: float = 20.0
    ) -> None:
        """One more round that closed."""
        n, gone = len(self.names), dict(dropped)
        ok = np.array([name not in gone for name in self.names])
        up = np.where(ok, 17_600, 0) + np.arange(n)
        named = {str(i): {"sender": w, "reason": why} for i, (w, why) in enumerate(dropped)}
        value = score if score is not None else 0.84 - 0.14 * 0.8**self.rounds
        self.clock += seconds
        if self.spends:
            self.ledger.append("spend", {**SPEND, "round": self.rounds, "attempt": 0}, time=self.clock - 1)
        facts = {"round": self.rounds, "attempt": 0, "hub": "hub", "closed": True, "asked": "\n".join(self.names)}
        facts |= {
            "accepted": ok,
            "up": up,
            "down": np.full(n, 18_800),
            "strangers": "",
            "refused": {},
            "dropped": named,
        }
        self.ledger.append("round", {**facts, "metrics": {"roc_auc": np.array([value * n, n])}}, time=self.clock)
        self.rounds += 1

    def save(self) -> None:
        states = {"last": encode_tree({"w": np.arange(4.0) + self.rounds})}
        self.store.save(Generation(self.ledger.since(self.saved), states, {}, {"round": self.rounds}))
        self.saved = len(self.ledger)

    def close(self) -> None:
        self.store.close()
