"""A collaboration that is running: the loop with its ledger, its drawers and its folder."""

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from comity.charging import Charging
from comity.core.errors import BudgetExceeded, ConfigError, LedgerError, TooFewParticipants
from comity.core.parts import Participant, Roster
from comity.core.recipe import recipe
from comity.core.round import Round
from comity.core.together import Plan, Wish
from comity.core.wire import decode_tree, encode_tree
from comity.engines.local import Local, Population
from comity.engines.local import Names as Names
from comity.ledger.history import scored, tried
from comity.ledger.keys import SideSecret
from comity.ledger.record import Entry, Ledger, check_chain
from comity.listeners.telling import Listener, Telling
from comity.loop.asking import Asking
from comity.loop.hub import Event, HubState
from comity.loop.plans import Plans, choice, chosen
from comity.loop.rounds import Rounds
from comity.loop.select import Every
from comity.loop.site import Drawer, drawer_tree, tree_drawer
from comity.loop.sites import Sites
from comity.noting import facts_of, heard_in

SAVE_SECONDS = 1.0
BEST_BY = "valid_log_loss", "valid_mse"


@dataclass
class Saved:
    """Where a run is kept: a folder, or nowhere."""

    store: Any = None
    root: bytes = field(default_factory=lambda: os.urandom(32))
    at: float = field(default_factory=time.monotonic)
    names: frozenset[str] | None = None

    @classmethod
    def open(cls, folder: str | Path | None, agreed: Mapping[str, Any]) -> "Saved":
        """Open the folder; without one, nothing is kept."""
        if folder is None:
            return cls()
        from comity.ledger.store import Store

        store = Store.open(folder, json.dumps(agreed, indent=1, sort_keys=True, ensure_ascii=False))
        try:
            return cls(store, store.secret())
        except BaseException:
            store.close()
            raise

    def __enter__(self) -> "Saved":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        if self.store is not None:
            self.store.close()

    def load(self) -> Any:
        """The last generation, or None."""
        return self.store.load() if self.store is not None else None

    def due(self) -> bool:
        """Is it a second since the last save?"""
        return self.store is not None and time.monotonic() - self.at >= SAVE_SECONDS

    def drawer(self, name: str) -> Drawer | None:
        """A drawer kept earlier."""
        if self.names is None:
            self.names = frozenset(self.store.drawer_names() if self.store is not None else ())
        return tree_drawer(decode_tree(self.store.drawer(name))) if name in self.names else None


class Running:
    """Holds everything that changes while a collaboration runs."""

    def __init__(self, fed: Any, engine: Local, saved: Saved, agreed: str, listeners: Sequence[Listener] = ()) -> None:
        """Begin, or go on from what was saved."""
        self.fed, self.saved, self.recipe, self._tell = fed, saved, agreed, Telling(listeners)
        self.parts, self.method = fed.parts, fed.method
        self.ledger = Ledger()
        self.metrics: dict[str, float] = {}
        self.best: Mapping[str, HubState] | None = None
        self._best_loss = float("inf")
        secret = SideSecret(saved.root)
        roster, find = _people(fed.participants)
        self._engine, self._careful = engine, getattr(engine, "each_round", False)
        remote = getattr(engine, "remote", False)
        own = secret.key("run", agreed).hex() if remote else agreed  # far away, another folder is another run
        base = Round(run=own[:16], seed=fed.seed)
        generation = saved.load()
        if generation is not None:
            self.ledger = Ledger.restore(generation.entries)
        self.charging = Charging(self.parts, fed.participants)
        find = self.charging.guarded(find)
        self.sites = Sites(find, self.parts, secret.side, saved.drawer, Plans(chosen(self.ledger), self._planned))
        connected = engine.connect(roster, self.sites)
        if saved.store is not None and (kept := getattr(connected, "kept", None)):
            kept(str(saved.store.folder.absolute()))
        if begin := getattr(connected, "begin", None):
            begin(base, recipe(fed))
        if declared := getattr(connected, "people", None):  # far away, each says of itself what it spends
            self.charging = Charging(self.parts, declared)
        self.asking = asking = Asking(self.parts, connected, agreed)
        self.rounds = Rounds(asking, base, secret=secret.side(""), past=self.ledger, listen=self._heard)
        self.states: Mapping[str, HubState] = {}
        spends: Any = [e.facts for e in self.ledger if e.kind == "spend"]
        self._charged = {(facts["round"], facts["attempt"]) for facts in spends}
        self._kept = len(self.ledger)
        self._written: dict[str, Any] = {}
        self._saving = False
        if generation is None:
            self._begin(engine)
        else:
            self._go_on(generation)
        self._point = self._now()

    def until(self, rounds: int) -> None:
        """Close rounds until there are so many, scoring and saving on the way.

        What closed and was scored is saved whatever ends it: the last round, an error, or Ctrl-C.
        """
        done = False
        ahead = int((rounds - self.ledger.rounds) * self.rounds.base.expected)
        executor, chunk = (getattr(self._engine, name, None) for name in ("executor", "chunk"))
        self.sites.plans.wish = Wish(executor, max(1, ahead), chunk)
        try:
            wanted = getattr(self.asking.engine, "wanted", _always)
            while self.ledger.rounds < rounds and wanted() and not self._ended(rounds):
                self._step(rounds)
                if self.saved.due() or getattr(self._engine, "remote", False) or self._careful:
                    self._save()
            if not self._scored():
                self._evaluate(last=True)
                self._point = self._now()
            done = True
        finally:
            try:
                self._save()
            finally:
                self._tell(self._event("end", done))
                if done and (over := getattr(self.asking.engine, "over", None)):
                    over()
                if close := getattr(self.asking.engine, "close", None):
                    close()

    def _planned(self, label: str, plan: Plan) -> None:
        """A choice was made: a fact for the ledger, and one line for whoever looks on."""
        self._append("choice", choice(label, plan))
        sys.stderr.write(f"executor   {plan.executor}: {plan.reason}\n")

    def _step(self, rounds: int) -> None:
        """One round and its scores; only when both are done can the run be taken up again after them."""
        try:
            self.states = self.rounds.round(self.states, self.ledger.rounds, tried(self.ledger))
        except TooFewParticipants:
            self._point = self._now()
            raise
        self._evaluate(last=self.ledger.rounds == rounds)
        self._point = self._now()

    def _now(self) -> "Point":
        named = {"last": self.states} if self.best is None else {"last": self.states, "best": self.best}
        meta = {"metrics": dict(self.metrics), "best_loss": self._best_loss}
        drawers = self.sites.touched() if self.saved.store else {}
        return Point(len(self.ledger), self.ledger.rounds, named, meta, drawers)

    def _begin(self, engine: Local) -> None:
        self.states = self.rounds.start()
        first = {hub: _digest(state) for hub, state in self.states.items()}
        threads = getattr(getattr(self.method, "model", None), "threads", None)
        if self.charging.spends and self.fed.evaluate is not False:
            sys.stderr.write("scores     off: they would be released without noise\n")
        choice = {**engine.choice, "threads": threads}
        facts = {"recipe": self.recipe, "seed": self.fed.seed, "states": first, "choice": choice}
        self._append("start", {**facts, "buffers": self._buffers()})

    def _buffers(self) -> dict[str, str]:
        """The policy of each buffer of the model, said aloud: a wrong one spoils a model without an error."""
        policy = getattr(getattr(self.method, "model", None), "buffers_policy", None)
        buffers: dict[str, str] = dict(policy()) if policy is not None else {}
        if buffers:
            said = ", ".join(f"{name} {word}" for name, word in buffers.items())
            sys.stderr.write(f"buffers    {said}\n")
        return buffers

    def _go_on(self, generation: Any) -> None:
        self.states = _states(decode_tree(generation.states["last"]))
        self._written["last"] = self.states
        if "best" in generation.states:
            self.best = self._written["best"] = _states(decode_tree(generation.states["best"]))
        self.metrics = dict(generation.meta["metrics"])
        self._best_loss = generation.meta["best_loss"]
        for entry in generation.entries:
            self._recall(entry)

    def _recall(self, entry: Entry) -> None:
        facts: Any = entry.facts
        if entry.kind == "score":
            self.rounds.owing.passed(facts.get("seconds"))
        if entry.kind == "round":
            heard = heard_in(facts, self.rounds.base)
            turn = replace(self.rounds.base, number=facts["round"], attempt=facts["attempt"])
            self.rounds.settle(turn, {heard.hub: heard}, facts["closed"])

    def _ended(self, rounds: int) -> bool:
        """Does `stop` end the run here? Said where more was to come: a model hardly trained looks like any other."""
        if (ended := self._stopped()) and not getattr(self.fed.stop, "complete", False):
            who = type(self.fed.stop).__name__
            sys.stderr.write(f"stopped    by {who} after {self.ledger.rounds} of {rounds} rounds\n")
        return ended

    def _stopped(self) -> bool:
        if self.fed.stop is None:
            return False
        turn = replace(self.rounds.base, number=self.ledger.rounds)
        return bool(self.fed.stop(self.ledger, self.charging.ahead(turn)))

    def _charge(self, event: Event) -> None:
        """Write what an attempt spends, for good, before its noise is drawn.

        An attempt that was charged before a kill draws the same noise again, and is not charged twice.
        """
        turn = event.round
        asked = [who for heard in event.heard.values() for who in heard.asked]
        spends = self.charging.of(turn, asked)
        if not spends or (turn.number, turn.attempt) in self._charged:
            return
        if turn.attempt and self._stopped():
            raise BudgetExceeded(
                f"Round {turn.number + 1} did not close, and trying it again would pass the budget: each attempt is "
                "charged. Raise the budget, or end here."
            )
        self._charged.add((turn.number, turn.attempt))
        for facts in spends:
            self._append("spend", facts)
        self._point = replace(self._point, entries=len(self.ledger))
        self._save()

    @property
    def _scores(self) -> bool:
        """Are scores taken? Not where what is released is noised: they are not."""
        return self.fed.evaluate is not False and not self.charging.spends

    def _scored(self) -> bool:
        """Are the newest states scored already, or are there no scores to take?"""
        return not self._scores or scored(self.ledger)

    def _evaluate(self, *, last: bool) -> None:
        when = self.fed.evaluate
        if not self._scores or not (last or (isinstance(when, Every) and when.due(self.ledger.rounds))):
            return
        select = (when if isinstance(when, Every) else Every(0)).chosen(len(self.rounds.roster))
        sums = self.rounds.score(self.states, self.ledger.rounds, select)
        self.metrics = {name: s / n for name, (s, n) in sums.items() if n}
        loss = next((self.metrics[name] for name in BEST_BY if name in self.metrics), None)
        if loss is not None and loss < self._best_loss:
            self._best_loss, self.best = loss, self.states

    def _heard(self, event: Event) -> None:
        if event.kind == "begin":
            return self._charge(event)
        for heard in event.heard.values():
            self._append(event.kind, facts_of(event, heard))
        return self._tell(event)

    def _event(self, kind: str, closed: bool = True) -> Event:
        """Something of the run itself: its round is the number of those that are closed."""
        return Event(kind, replace(self.rounds.base, number=self.ledger.rounds), closed, {})

    def _append(self, kind: str, facts: Mapping[str, Any]) -> None:
        self.ledger.append(kind, facts, time=time.time())

    def _save(self) -> None:
        """Write the last point as one generation, or none where a save was cut short: the one before it stands."""
        point, store = self._point, self.saved.store
        if store is None or self._saving or self._kept == point.entries:
            return
        from comity.ledger.store import Generation

        states = {k: encode_tree(_tree(s)) for k, s in point.states.items() if s is not self._written.get(k)}
        drawers = {name: encode_tree(drawer_tree(d)) for name, d in point.drawers.items()}
        self._saving = True
        store.save(Generation(self.ledger[self._kept : point.entries], states, drawers, point.meta))
        self._kept, self._written, self.saved.at = point.entries, dict(point.states), time.monotonic()
        self.sites.forget()
        self._saving = False
        self._tell(Event("saved", replace(self.rounds.base, number=point.rounds), True, {}))


@dataclass(frozen=True)
class Point:
    """Where a run can be taken up again: all of it belongs to the same moment.

    Attributes:
        entries: how long the ledger was.
        rounds: how many were closed.
        states: the hub states by name.
        meta: what else is needed to go on.
        drawers: those that changed since the last save.
    """

    entries: int
    rounds: int
    states: Mapping[str, Mapping[str, HubState]]
    meta: Mapping[str, Any]
    drawers: Mapping[str, Drawer]


def _always() -> bool:
    return True


def _people(participants: Any) -> tuple[Roster, Callable[[str], Participant]]:
    if isinstance(participants, Population):
        return participants.names, participants.find
    return Names(dict.fromkeys(participants)), participants.__getitem__


def left_behind(folder: Path, name: str) -> tuple[dict[str, HubState], Round, Any]:
    """What a run left in its folder: hub states, where its rounds stood, and its recipe. Nothing is held or written.

    Args:
        folder: of the run; a process may be using it.
        name: "last", or "best", which is "last" where there was no validation.

    Raises:
        ConfigError: there is no run in it, or one that never saved.
        LedgerError: what it holds does not match its hashes.
    """
    from comity.ledger.peek import peek

    seen = peek(folder)
    if not seen.files:
        raise ConfigError(f"{folder} must hold a run that was saved. There is no state in it. Run it first.")
    check_chain(seen.entries, seen.head)
    facts: Any = seen.entries[0].facts
    states = _states(decode_tree(seen.state(name if name in seen.files else "last")))
    base = Round(run=str(facts["recipe"])[:16], seed=int(facts["seed"]), number=Ledger.restore(seen.entries).rounds)
    try:
        return states, base, json.loads(seen.recipe)
    except ValueError:
        raise LedgerError(f"{folder / 'recipe.json'} cannot be read. Restore it from a copy.") from None


def _tree(states: Mapping[str, HubState]) -> dict[str, Any]:
    return {
        hub: {
            "method": s.method,
            "combiner": s.combiner,
            "transforms": {str(i): t for i, t in enumerate(s.transforms)},
        }
        for hub, s in states.items()
    }


def _states(tree: Any) -> dict[str, HubState]:
    return {
        hub: HubState(s["method"], s["combiner"], tuple(s["transforms"][str(i)] for i in range(len(s["transforms"]))))
        for hub, s in tree.items()
    }


def _digest(state: HubState) -> str:
    return hashlib.sha256(encode_tree(_tree({"": state})[""])).hexdigest()
