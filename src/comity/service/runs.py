"""The runs of a hub: what is offered, who agreed to it, where it stands, and what an operator wishes.

    runs          what is to be run, who is invited, who takes part, its state, and what is wished
    agreements    what each party said when it agreed
    heads         how much of a run's ledger each party holds, signed

Every method is one transaction and may be repeated; what an operator does is in the audit log.
"""

import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias

import sqlalchemy as sa

from comity.core.errors import ConfigError
from comity.service.database import Database
from comity.service.parties import SCHEMA as PARTIES
from comity.service.parties import told

State: TypeAlias = Literal["gathering", "running", "paused", "over", "stopped", "failed"]
Wish: TypeAlias = Literal["go", "pause", "stop", "stop now"]
STATES = ("gathering", "running", "paused", "over", "stopped", "failed")
ENDED = ("over", "stopped", "failed")
WISHES = ("go", "pause", "stop", "stop now")
STOPS = ("stop", "stop now")
CHANGED = "run"
"""What is announced when a run changes."""

SCHEMA = sa.MetaData()
RUNS = sa.Table(
    "runs",
    SCHEMA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("run", sa.Text, nullable=False, unique=True),
    *(sa.Column(name, sa.Text, nullable=False) for name in ("title", "recipe", "about", "folder", "invited", "roster")),
    sa.Column("minimum", sa.Integer, nullable=False),
    *(sa.Column(name, sa.Text, nullable=False) for name in ("state", "wish", "why")),
    sa.Column("begun", sa.Float, nullable=False),
    sa.Column("ended", sa.Float),
)
AGREEMENTS = sa.Table(
    "agreements",
    SCHEMA,
    sa.Column("run", sa.Text, primary_key=True),
    sa.Column("party", sa.Text, primary_key=True),
    sa.Column("time", sa.Float, nullable=False),
    sa.Column("said", sa.Text, nullable=False),
)
HEADS = sa.Table(
    "heads",
    SCHEMA,
    sa.Column("run", sa.Text, primary_key=True),
    sa.Column("party", sa.Text, primary_key=True),
    sa.Column("entries", sa.BigInteger, nullable=False),
    sa.Column("head", sa.Text, nullable=False),
    sa.Column("time", sa.Float, nullable=False),
    sa.Column("proof", sa.Text, nullable=False),
)
R, A, H = RUNS.c, AGREEMENTS.c, HEADS.c


@dataclass(frozen=True, slots=True)
class RunRow:
    """A run, as the hub knows it.

    Attributes:
        run: its identity.
        title: what people call it; may be "".
        recipe: what is to be agreed to, with its "hash".
        about: what else a party is told, JSON.
        roster: who takes part, from the first round on; () while it gathers.
        minimum: how many agreements it waits for, >= 1.
        folder: where its ledger lies, on the machine that carries it.
        state: "gathering" (waits for agreements), "running", "paused", "over", "stopped" or "failed".
        wish: of an operator: "go", "pause", "stop" (after the round that is open) or "stop now".
        begun: when it was first offered, seconds since 1970.
        ended: when it came to its end; None while it has not.
        why: of a failure, or of a stop.
        invited: who may agree.
    """

    run: str
    title: str
    recipe: Mapping[str, Any]
    about: Mapping[str, Any]
    roster: tuple[str, ...]
    minimum: int
    folder: str
    state: State
    wish: Wish
    begun: float
    ended: float | None
    why: str
    invited: tuple[str, ...]

    @property
    def live(self) -> bool:
        """Has it not come to its end?"""
        return self.state not in ENDED

    def concerns(self, party: str) -> bool:
        """Does it want something of this party?"""
        return party in self.roster or (not self.roster and party in self.invited)


class Head(NamedTuple):
    """How much of a ledger a party holds: entries, the hash of the last, when it said so, and its signature."""

    entries: int
    head: str
    time: float
    proof: Mapping[str, Any]


@dataclass(frozen=True)
class Offering:
    """What is to be carried, and who may take part.

    Attributes:
        recipe: what parties agree to.
        invited: who may agree.
        title: what people call it.
        about: what else they are told, JSON.
        folder: where its ledger lies.
        minimum: how many must agree, >= 1.
    """

    recipe: Mapping[str, Any]
    invited: Sequence[str]
    title: str = ""
    about: Mapping[str, Any] = field(default_factory=dict)
    folder: str = ""
    minimum: int = 1


class Runs:
    """The runs of one hub; its processes and threads may use them at once.

    Args:
        db: the hub's database.
        clock: seconds since 1970.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     db = Database.open(folder, SCHEMA)
        ...     runs = Runs(db)
        ...     row = runs.offer("r1", Offering({"hash": "ab"}, ["a", "b"], minimum=2))
        ...     runs.agree("r1", "a", {"recipe": "ab"}), runs.agree("r1", "a", {"recipe": "ab"})
        ...     row.state, runs.start("r1", ["a"]), runs.start("r1", ["a", "b"]), runs.find("r1").state
        ...     db.close()
        (True, False)
        ('gathering', ('a',), ('a',), 'running')
    """

    def __init__(self, db: Database, clock: Callable[[], float] = time.time) -> None:
        """The tables are made where they are missing."""
        self.db, self._clock = db, clock
        for tables in (PARTIES, SCHEMA):
            db.make(tables)

    def offer(self, run: str, given: Offering) -> RunRow:
        """A run is to be carried.

        One that is known goes on as it is; it gathers, or runs, again where it had come to an end. What it is called,
        how many it waits for and who is invited may change until it has started.

        Args:
            run: its identity, which stands for one recipe.
            given: what is offered, and to whom.
        """
        said = {"title": given.title, "about": _json(given.about), "folder": given.folder, "minimum": given.minimum}
        said |= {"invited": _json(sorted(set(given.invited)))}
        with self.db.writing() as db:
            found = _found(db, run)
            if found is None:
                new = {"run": run, "recipe": _json(given.recipe), "roster": "[]", "state": "gathering", "wish": "go"}
                db.execute(RUNS.insert(), {**said, **new, "why": "", "begun": self._clock(), "ended": None})
            else:
                again = {"state": "running" if found.roster else "gathering", "wish": "go", "why": "", "ended": None}
                here = {"folder": given.folder} if found.roster else said
                db.execute(RUNS.update().where(R.run == run), here | ({} if found.live else again))
            self.db.announce(db, CHANGED)
        return self._sure(run)

    def agree(self, run: str, party: str, said: Mapping[str, Any]) -> bool:
        """A party agrees to a run. Said once, it stays; it may say something else until the run has started.

        Args:
            run: to which.
            party: who.
            said: {"recipe": hash, "limits", "spends", "time", "proof"}, JSON.

        Returns:
            Is it new?

        Raises:
            ConfigError: there is no such run, the party is not invited, or it spends privacy of its own and comes late.
        """
        text, own = _json(said), (A.run == run, A.party == party)
        with self.db.writing() as db:
            found = _found(db, run)
            if found is None or party not in (*found.invited, *found.roster):
                raise ConfigError("A party must be invited to the run to which it agrees. It is not. Ask the operator.")
            known = db.execute(sa.select(A.said).where(*own)).scalar_one_or_none()
            if known is not None and (found.roster or _same(json.loads(known), said)):
                return False
            if found.roster and said.get("spends"):
                raise ConfigError(
                    "A party that spends privacy of its own must agree before the run starts: what it spends would "
                    "not be charged. This run has started. Wait for another."
                )
            if known is not None:
                db.execute(AGREEMENTS.delete().where(*own))
            db.execute(AGREEMENTS.insert(), {"run": run, "party": party, "time": self._clock(), "said": text})
            self.db.announce(db, CHANGED)
        return True

    def agreements(self, run: str) -> dict[str, dict[str, Any]]:
        """What each party said when it agreed, by name."""
        query = sa.select(A.party, A.said).where(A.run == run).order_by(A.party)
        with self.db.reading() as db:
            return {row.party: json.loads(row.said) for row in db.execute(query)}

    def start(self, run: str, roster: Sequence[str]) -> tuple[str, ...]:
        """Who takes part, pinned: the first call counts, and every later one gives the same.

        Args:
            run: which.
            roster: who, sorted.
        """
        with self.db.writing() as db:
            found = _known(_found(db, run), run)
            if found.roster:
                return found.roster
            state = "paused" if found.state == "paused" else "running"
            db.execute(RUNS.update().where(R.run == run), {"roster": _json(list(roster)), "state": state})
            self.db.announce(db, CHANGED)
        return tuple(roster)

    def become(self, run: str, state: State, why: str = "") -> None:
        """The run stands otherwise now."""
        assert state in STATES
        with self.db.writing() as db:
            ended = self._clock() if state in ENDED else None
            db.execute(RUNS.update().where(R.run == run), {"state": state, "why": why, "ended": ended})
            self.db.announce(db, CHANGED)

    def wish(self, run: str, what: Wish, by: str) -> RunRow:
        """An operator wishes: the run does so after the round that is open; but "stop now" ends it within the round.

        Raises:
            ConfigError: there is no such run, it has come to its end, or the wish is none of `WISHES`.
        """
        if what not in WISHES:
            raise ConfigError(f"A wish must be one of {', '.join(WISHES)}. Got {what!r:.30}.")
        with self.db.writing() as db:
            found = _known(_found(db, run), run)
            if not found.live:
                raise ConfigError(f"A run must go on for something to be wished. This one is {found.state}.")
            if found.wish == what:
                return found
            db.execute(RUNS.update().where(R.run == run), {"wish": what})
            told(db, self._clock(), f"{what} {run}", by)
            self.db.announce(db, CHANGED)
        return self._sure(run)

    def find(self, run: str) -> RunRow | None:
        """A run by its identity."""
        with self.db.reading() as db:
            return _found(db, run)

    def all(self) -> list[RunRow]:
        """Every run, the newest first."""
        with self.db.reading() as db:
            return [_read(row) for row in db.execute(sa.select(RUNS).order_by(R.id.desc()))]

    def current(self, party: str, but: Collection[str] = ()) -> RunRow | None:
        """The oldest run that has not ended and wants something of a party: its agreement, or its answers.

        Args:
            party: who.
            but: runs that are left aside.
        """
        query = sa.select(RUNS).where(R.state.not_in(ENDED)).order_by(R.id)
        with self.db.reading() as db:
            live = [_read(row) for row in db.execute(query)]
        return next((row for row in live if row.concerns(party) and row.run not in but), None)

    def marks(self) -> list[tuple[str, str, str]]:
        """The runs that go on: each with its state and wish, by which it shows whether something changed."""
        query = sa.select(R.run, R.state, R.wish).where(R.state.not_in(ENDED)).order_by(R.id)
        with self.db.reading() as db:
            return [(row.run, row.state, row.wish) for row in db.execute(query)]

    def note(self, run: str, party: str, entries: int, head: str, proof: Mapping[str, Any]) -> bool:
        """A party holds so much of a ledger.

        Args:
            run: of which.
            party: who.
            entries: how many, >= 0.
            head: the hash of the last one.
            proof: its signature.

        Returns:
            Was it written down? What says less than what was said before is not.
        """
        own = (H.run == run, H.party == party)
        with self.db.writing() as db:
            known = db.execute(sa.select(H.entries).where(*own)).scalar_one_or_none()
            if known is not None and known >= entries:
                return False
            db.execute(HEADS.delete().where(*own))
            row = {"run": run, "party": party, "entries": entries, "head": head, "time": self._clock()}
            db.execute(HEADS.insert(), row | {"proof": _json(proof)})
        return True

    def heads(self, run: str) -> dict[str, Head]:
        """How much of a run's ledger each party holds, by name."""
        query = sa.select(HEADS).where(H.run == run).order_by(H.party)
        with self.db.reading() as db:
            return {r.party: Head(r.entries, r.head, r.time, json.loads(r.proof)) for r in db.execute(query)}

    def _sure(self, run: str) -> RunRow:
        return _known(self.find(run), run)


def _found(db: sa.Connection, run: str) -> RunRow | None:
    row = db.execute(sa.select(RUNS).where(R.run == run)).one_or_none()
    return None if row is None else _read(row)


def _known(row: RunRow | None, run: str) -> RunRow:
    if row is None:
        raise ConfigError(f"{run!r:.60} must be a run of this hub. There is none.")
    return row


def _read(row: Any) -> RunRow:
    named: dict[str, Any] = {name: tuple(json.loads(getattr(row, name))) for name in ("roster", "invited")}
    named |= {name: json.loads(getattr(row, name)) for name in ("recipe", "about")}
    plain = ("run", "title", "minimum", "folder", "state", "wish", "begun", "ended", "why")
    return RunRow(**named, **{name: getattr(row, name) for name in plain})


def _same(known: Mapping[str, Any], said: Mapping[str, Any]) -> bool:
    """Is this the same agreement, but for when it was said and signed?"""
    aside = ("time", "proof")
    return {k: v for k, v in known.items() if k not in aside} == {k: v for k, v in said.items() if k not in aside}


def _json(what: Any) -> str:
    return json.dumps(dict(what) if isinstance(what, Mapping) else what, sort_keys=True)
