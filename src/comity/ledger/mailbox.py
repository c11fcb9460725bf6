"""Where a hub keeps questions and answers until both sides know that they were counted.

One row for each (run, round, attempt, hub, phase, member). A look changes nothing; only a committed answer does, and
a row takes one answer for ever. Every call is one transaction, on the disk when it returns. Killed at any moment, a
row is as before the call or as after it.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

import sqlalchemy as sa

from comity.core.errors import LedgerError

TASK, REPLY = "task", "reply"
"""What is announced: a question, an answer."""

_SCHEMA = sa.MetaData()
_TASKS = sa.Table(
    "tasks",
    _SCHEMA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("run", sa.Text, nullable=False),
    sa.Column("number", sa.BigInteger, nullable=False),
    sa.Column("attempt", sa.BigInteger, nullable=False),
    *(sa.Column(name, sa.Text, nullable=False) for name in ("hub", "phase", "member", "state", "asked")),
    sa.Column("question", sa.LargeBinary, nullable=False),
    sa.Column("seq", sa.BigInteger),
    sa.Column("answered", sa.Text),
    sa.Column("reply", sa.LargeBinary),
    sa.Column("since", sa.Float, nullable=False),
    sa.UniqueConstraint("run", "number", "attempt", "hub", "phase", "member"),
    sa.Index("tasks_waiting", "member", "state", "id"),
    sa.Index("tasks_order", "seq"),
)
_BODIES = sa.Table(
    "bodies",
    _SCHEMA,
    sa.Column("sha256", sa.Text, primary_key=True),
    sa.Column("data", sa.LargeBinary, nullable=False),
)
_C = _TASKS.c
_TURN = [_C[name] == sa.bindparam(name) for name in ("run", "number", "attempt", "hub", "phase")]
_MINE = (_C.member == sa.bindparam("member"), _C.state == "open")
_WAITING = (  # made once: to make a query takes longer than to ask it
    sa.select(_C.asked, _C.question, _BODIES.c.data)
    .select_from(_TASKS.outerjoin(_BODIES, _BODIES.c.sha256 == _C.asked))
    .where(*_MINE, _C.run == sa.bindparam("run"))
    .order_by(_C.id)
    .limit(1)
)
_ROW = sa.select(_C.id, _C.state, _C.asked, _C.answered).where(*_TURN, _C.member == sa.bindparam("member"))
_LAST = sa.select(sa.func.max(_C.seq))
_DONE = _TASKS.update().where(_C.id == sa.bindparam("i"))
_REPLIES = (
    sa.select(_C.seq, _C.reply).where(*_TURN, _C.seq > sa.bindparam("after"), _C.reply.is_not(None)).order_by(_C.seq)
)
_KNOWN = sa.select(_C.member, _C.asked).where(*_TURN)
_NEEDED = sa.select(_C.asked, _C.answered).where(
    sa.or_(_C.state == "open", sa.and_(_C.state == "done", _C.reply.is_not(None)))
)


class Rows(Protocol):
    """A database: what is read, and transactions that are alone."""

    def make(self, tables: sa.MetaData) -> None:
        """Make the tables that are missing."""
        ...

    def reading(self) -> AbstractContextManager[sa.Connection]:
        """A connection to look with."""
        ...

    def writing(self) -> AbstractContextManager[sa.Connection]:
        """A transaction, alone from its first look on; durable when the block ends."""
        ...

    def announce(self, db: sa.Connection, what: str) -> None:
        """Say, once it is committed, that something changed."""
        ...


class Question(NamedTuple):
    """What one member is asked: the sha256 (hex) of the body, and the signed header that names it."""

    member: str
    asked: str
    header: bytes


class Reply(NamedTuple):
    """What one member answered: the sha256 (hex) of its body; the header, and the body where it is small."""

    answered: str
    data: bytes


class Asked(NamedTuple):
    """How far one member is with a question: since when (seconds since 1970) "open", "done" or "shut"."""

    member: str
    phase: str
    number: int
    attempt: int
    state: str
    since: float


class Mailbox:
    """Questions and answers of one hub, used by its threads, and by all processes that share its database.

    Args:
        db: the hub's database.
        clock: seconds since 1970.

    Example:
        >>> import tempfile
        >>> from comity.service.database import Database
        >>> turn = ("run", 0, 0, "hub", "contribute")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     db = Database.open(folder)
        ...     box = Mailbox(db)
        ...     gone = box.offer(turn, [Question("ada", "ab12", b"what?")], {})
        ...     first = box.commit(turn, "ada", "ab12", Reply("cd34", b"that"))
        ...     first, box.commit(turn, "ada", "ab12", Reply("cd34", b"that")), box.replies(turn, 0)
        ...     db.close()
        ('accepted', 'duplicate', [(1, b'that')])
    """

    def __init__(self, db: Rows, clock: Callable[[], float] = time.time) -> None:
        """The tables are made where they are missing."""
        self._db, self._clock = db, clock
        db.make(_SCHEMA)

    def offer(
        self,
        turn: Sequence[Any],
        questions: Sequence[Question],
        bodies: Mapping[str, bytes],
        *,
        settled: bool = False,
        keep: Collection[tuple[int, int, str]] = (),
    ) -> set[str]:
        """Make questions known, all or none; those that are known stay as they are.

        Args:
            turn: (run, round, attempt, hub, phase).
            questions: one for each member.
            bodies: sha256 to small bodies that are kept here.
            settled: whatever this run asked before is counted and saved: it is closed, and its bytes are let go;
            keep: but for these questions of (round, attempt, member), which stay as they are.

        Returns:
            The sha256 of bodies that nobody is asked any more.

        Raises:
            LedgerError: a question was asked before with another body.
        """
        with self._db.writing() as db:
            known = {r.member: r.asked for r in db.execute(_KNOWN, _named(turn))}
            for q in questions:
                if known.get(q.member, q.asked) != q.asked:
                    said = f"{q.member} was asked something else in {tuple(turn)[1:]}"
                    raise LedgerError(f"What is asked again must be the same. {said}. Restore the hub from a copy.")
            gone = _let_go(db, turn[0], turn[1] - 1, keep) if settled and not known else set()
            new = [{**_named(turn), **_row(q), "since": self._clock()} for q in questions if q.member not in known]
            if new:
                db.execute(_TASKS.insert(), new)
                _keep(db, bodies)
                self._db.announce(db, TASK)
        return gone - {q.asked for q in questions}  # the same body may be asked again

    def waiting(self, run: str, member: str) -> tuple[str, bytes, bytes] | None:
        """What a member is asked in a run, and has not answered.

        Returns:
            Of the oldest question the sha256 of its body, its header, and the body, b"" where it is a large one.
        """
        with self._db.reading() as db:
            row = db.execute(_WAITING, {"member": member, "run": run}).one_or_none()
        return None if row is None else (row.asked, row.question, row.data or b"")

    def wanting(self) -> set[tuple[str, str]]:
        """Who is asked something, and in which run: (run, member)."""
        with self._db.reading() as db:
            return {(r.run, r.member) for r in db.execute(sa.select(_C.run, _C.member).where(_C.state == "open"))}

    def progress(self, run: str) -> list[Asked]:
        """How far each member is with the newest question of a run, sorted by name."""
        last = sa.select(_C.number, _C.attempt, _C.hub, _C.phase).where(_C.run == run).order_by(_C.id.desc()).limit(1)
        names = (_C.member, _C.phase, _C.number, _C.attempt, _C.state, _C.since)
        with self._db.reading() as db:
            if (turn := db.execute(last).one_or_none()) is None:
                return []
            return [Asked(*row) for row in db.execute(sa.select(*names).where(*_of((run, *turn))).order_by(_C.member))]

    def asks(self, member: str) -> bool:
        """Is a member asked anything that it has not answered?"""
        mine = sa.select(_C.id).where(_C.member == member, _C.state == "open").limit(1)
        with self._db.reading() as db:
            return db.execute(mine).first() is not None

    def answers(self, member: str) -> set[str]:
        """The sha256 of what a member answered, as far as it is kept."""
        mine = sa.select(_C.answered).where(_C.member == member, _C.state == "done", _C.reply.is_not(None))
        with self._db.reading() as db:
            return {sha for sha in db.scalars(mine) if sha}

    def may_read(self, member: str, sha: str) -> bool:
        """Is a member asked something with this body, and has not answered?"""
        mine = sa.select(_C.id).where(_C.member == member, _C.state == "open", _C.asked == sha).limit(1)
        with self._db.reading() as db:
            return db.execute(mine).one_or_none() is not None

    def needed(self) -> set[str]:
        """The sha256 of all bodies that somebody is asked, or answered and that are not counted yet."""
        with self._db.reading() as db:
            return {sha for row in db.execute(_NEEDED) for sha in row if sha}

    def state(self, turn: Sequence[Any], member: str) -> str | None:
        """ "open", "done" or "shut"; None where there is no such question."""
        with self._db.reading() as db:
            found: str | None = db.scalar(sa.select(_C.state).where(*_of(turn), _C.member == member))
            return found

    def commit(self, turn: Sequence[Any], member: str, asked: str, reply: Reply) -> str:
        """Take an answer.

        Args:
            turn: (run, round, attempt, hub, phase).
            member: who answers.
            asked: the sha256 of the question that is answered.
            reply: the answer.

        Returns:
            "accepted"; "duplicate" when this very answer was taken before; "answered" when another was; "late" when
            no more answers are taken; "unknown" when nothing of the kind was asked.
        """
        with self._db.writing() as db:
            row = db.execute(_ROW, {**_named(turn), "member": member}).one_or_none()
            if row is None or row.asked != asked:
                return "unknown"
            if row.state != "open":
                return "late" if row.state == "shut" else "duplicate" if row.answered == reply.answered else "answered"
            seq = (db.scalar(_LAST) or 0) + 1
            done = {"state": "done", "seq": seq, "answered": reply.answered, "reply": reply.data}
            db.execute(_DONE, done | {"since": self._clock(), "i": row.id})
            self._db.announce(db, REPLY)
        return "accepted"

    def replies(self, turn: Sequence[Any], after: int) -> list[tuple[int, bytes]]:
        """The answers with a number above `after`, in the order in which they were taken."""
        with self._db.reading() as db:
            return [(row.seq, row.reply) for row in db.execute(_REPLIES, {**_named(turn), "after": after})]

    def shut(self, turn: Sequence[Any]) -> None:
        """Take no more answers."""
        with self._db.writing() as db:
            now = {"state": "shut", "since": self._clock()}
            db.execute(_TASKS.update().where(*_of(turn), _C.state == "open"), now)

    def forget(self, run: str) -> set[str]:
        """A run is at its end, and saved. Returns: the sha256 of bodies that nobody is asked any more."""
        with self._db.writing() as db:
            return _let_go(db, run, 2**63 - 1, ())

    def late(self, run: str) -> dict[tuple[int, int, str], bytes]:
        """All answers of a run that are kept, by (round, attempt, member)."""
        query = sa.select(_C.number, _C.attempt, _C.member, _C.reply).where(_C.run == run, _C.reply.is_not(None))
        with self._db.reading() as db:
            rows = db.execute(query.where(_C.phase == "contribute")).all()
        return {(row.number, row.attempt, row.member): row.reply for row in rows}


def _let_go(db: sa.Connection, run: str, before: int, keep: Collection[tuple[int, int, str]]) -> set[str]:
    """Forget what was asked in rounds before this one; of later ones only the bytes, so that they are known."""
    rows = db.execute(sa.select(_C.id, _C.number, _C.attempt, _C.member, _C.asked, _C.answered).where(_C.run == run))
    here: set[str] = set()
    old: list[dict[str, int]] = []
    stripped: list[dict[str, int]] = []
    for row in rows:
        if (row.number, row.attempt, row.member) not in keep:
            (old if row.number < before else stripped).append({"i": row.id})
            here |= {sha for sha in (row.asked, row.answered) if sha}
    if old:
        db.execute(_TASKS.delete().where(_C.id == sa.bindparam("i")), old)
    if stripped:
        which = _TASKS.update().where(_C.id == sa.bindparam("i"))
        shut = sa.case((_C.state == "open", "shut"), else_=_C.state)
        db.execute(which.values(reply=None, question=b"", state=shut), stripped)
    return _unused(db, here)


def _unused(db: sa.Connection, here: set[str]) -> set[str]:
    """Which of these bodies nobody needs; they are removed."""
    gone = here - {sha for row in db.execute(_NEEDED) for sha in row if sha}
    if gone:
        db.execute(_BODIES.delete().where(_BODIES.c.sha256 == sa.bindparam("s")), [{"s": sha} for sha in gone])
    return gone


def _keep(db: sa.Connection, bodies: Mapping[str, bytes]) -> None:
    for sha, data in bodies.items():
        if db.scalar(sa.select(_BODIES.c.sha256).where(_BODIES.c.sha256 == sha)) is None:
            db.execute(_BODIES.insert(), {"sha256": sha, "data": data})


def _named(turn: Sequence[Any]) -> dict[str, Any]:
    return dict(zip(("run", "number", "attempt", "hub", "phase"), turn, strict=True))


def _of(turn: Sequence[Any]) -> list[sa.ColumnElement[bool]]:
    return [_C[name] == value for name, value in _named(turn).items()]


def _row(q: Question) -> dict[str, Any]:
    return {"member": q.member, "asked": q.asked, "question": q.header, "state": "open"}
