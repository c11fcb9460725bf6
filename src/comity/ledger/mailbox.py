"""Where a hub keeps questions and answers until both sides know that they were counted.

One row for each (run, round, attempt, hub, phase, member). A look changes nothing; only a committed answer does, and
a row takes one answer for ever. Every call is one transaction, on the disk when it returns (SQLite: WAL,
synchronous=FULL). Killed at any moment, a row is as before the call or as after it.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa

from comity.core.errors import LedgerError
from comity.ledger.store import database, explained

NAME = "mailbox.db"
KEPT = 2
"""Rounds for which answers are kept: the one that is open, and the one before, until it is saved."""

_SCHEMA = sa.MetaData()
_RUNS = sa.Table(
    "runs",
    _SCHEMA,
    sa.Column("run", sa.Text, primary_key=True),
    sa.Column("recipe", sa.Text, nullable=False),
    sa.Column("roster", sa.Text, nullable=False),
)
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
    sa.UniqueConstraint("run", "number", "attempt", "hub", "phase", "member"),
    sa.Index("waiting", "member", "state", "id"),
    sa.Index("order", "seq"),
)
_BODIES = sa.Table(
    "bodies",
    _SCHEMA,
    sa.Column("sha256", sa.Text, primary_key=True),
    sa.Column("data", sa.LargeBinary, nullable=False),
)
_C = _TASKS.c


class Question(NamedTuple):
    """What one member is asked: the sha256 (hex) of the body, and the signed header that names it."""

    member: str
    asked: str
    header: bytes


class Reply(NamedTuple):
    """What one member answered: the sha256 (hex) of its body; the header, and the body where it is small."""

    answered: str
    data: bytes


class Mailbox:
    """Questions and answers of one hub, used by the threads of one process.

    Example:
        >>> import tempfile
        >>> turn = ("run", 0, 0, "hub", "contribute")
        >>> with tempfile.TemporaryDirectory() as folder, Mailbox.open(folder) as box:
        ...     box.begin("run", "{}", ["ada"])
        ...     gone = box.offer(turn, [Question("ada", "ab12", b"what?")], {})
        ...     first = box.commit(turn, "ada", "ab12", Reply("cd34", b"that"))
        ...     first, box.commit(turn, "ada", "ab12", Reply("cd34", b"that")), box.replies(turn, 0)
        ['ada']
        ('accepted', 'duplicate', [(1, b'that')])
    """

    def __init__(self, folder: Path, engine: sa.Engine) -> None:
        self.folder, self._engine = folder, engine

    @classmethod
    def open(cls, folder: str | Path) -> "Mailbox":
        """Open the mailbox of a folder, or make it.

        Raises:
            LedgerError: its database is damaged, or cannot be written.
        """
        path = Path(folder)
        with explained(path, LedgerError, NAME):
            path.mkdir(parents=True, exist_ok=True)
            box = cls(path, database(path / NAME, 60.0))
            with box._writing() as db:
                _SCHEMA.create_all(db)
        return box

    def begin(self, run: str, recipe: str, roster: Sequence[str]) -> list[str]:
        """A run begins or goes on.

        Args:
            run: its identity.
            recipe: JSON.
            roster: who is there now.

        Returns:
            Who takes part: those who were there when it first began.
        """
        with self._writing() as db:
            row = db.execute(sa.select(_RUNS.c.roster).where(_RUNS.c.run == run)).one_or_none()
            if row is not None:
                kept: list[str] = json.loads(row.roster)
                return kept
            new = {"run": run, "recipe": recipe, "roster": json.dumps(list(roster))}
            db.execute(_RUNS.insert(), new)
            return list(roster)

    def offer(self, turn: Sequence[Any], questions: Sequence[Question], bodies: Mapping[str, bytes]) -> set[str]:
        """Make questions known, all or none; those that are known stay as they are.

        Args:
            turn: (run, round, attempt, hub, phase).
            questions: one for each member.
            bodies: sha256 to small bodies that are kept here.

        Returns:
            The sha256 of bodies that nobody is asked any more: those of the rounds that were closed and saved.

        Raises:
            LedgerError: a question was asked before with another body.
        """
        with self._writing() as db:
            known = {r.member: r.asked for r in db.execute(sa.select(_C.member, _C.asked).where(*_of(turn)))}
            for q in questions:
                if known.get(q.member, q.asked) != q.asked:
                    said = f"{q.member} was asked something else in {tuple(turn)[1:]}"
                    raise LedgerError(f"What is asked again must be the same. {said}. Restore {self.folder}.")
            gone = self._sweep(db, turn) if not known else set()
            new = [{**_named(turn), **_row(q)} for q in questions if q.member not in known]
            if new:
                db.execute(_TASKS.insert(), new)
            rows = [{"sha256": sha, "data": data} for sha, data in bodies.items()]
            if rows:
                db.execute(_BODIES.insert().prefix_with("OR IGNORE"), rows)
        return gone

    def waiting(self, run: str, member: str) -> tuple[str, bytes] | None:
        """What a member is asked in a run, and has not answered: the oldest question's body (sha256) and header."""
        mine = (_C.member == member, _C.state == "open", _C.run == run)
        query = sa.select(_C.asked, _C.question).where(*mine).order_by(_C.id).limit(1)
        with self._reading() as db:
            row = db.execute(query).one_or_none()
        return None if row is None else (row.asked, row.question)

    def may_read(self, member: str, sha: str) -> bool:
        """Is a member asked something with this body, and has not answered?"""
        mine = sa.select(_C.id).where(_C.member == member, _C.state == "open", _C.asked == sha).limit(1)
        with self._reading() as db:
            return db.execute(mine).one_or_none() is not None

    def body(self, sha: str) -> bytes | None:
        """A small body that was kept here."""
        with self._reading() as db:
            data: bytes | None = db.scalar(sa.select(_BODIES.c.data).where(_BODIES.c.sha256 == sha))
            return data

    def state(self, turn: Sequence[Any], member: str) -> str | None:
        """ "open", "done" or "shut"; None where there is no such question."""
        with self._reading() as db:
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
        with self._writing() as db:
            query = sa.select(_C.id, _C.state, _C.asked, _C.answered).where(*_of(turn), _C.member == member)
            row = db.execute(query).one_or_none()
            if row is None or row.asked != asked:
                return "unknown"
            if row.state != "open":
                return "late" if row.state == "shut" else "duplicate" if row.answered == reply.answered else "answered"
            seq = (db.scalar(sa.select(sa.func.max(_C.seq))) or 0) + 1
            done = {"state": "done", "seq": seq, "answered": reply.answered, "reply": reply.data}
            db.execute(_TASKS.update().where(_C.id == row.id), done)
        return "accepted"

    def replies(self, turn: Sequence[Any], after: int) -> list[tuple[int, bytes]]:
        """The answers with a number above `after`, in the order in which they were taken."""
        query = sa.select(_C.seq, _C.reply).where(*_of(turn), _C.seq > after).order_by(_C.seq)
        with self._reading() as db:
            return [(row.seq, row.reply) for row in db.execute(query)]

    def shut(self, turn: Sequence[Any]) -> None:
        """Take no more answers."""
        with self._writing() as db:
            db.execute(_TASKS.update().where(*_of(turn), _C.state == "open"), {"state": "shut"})

    def close(self) -> None:
        """Let go of the file."""
        self._engine.dispose()

    def __enter__(self) -> "Mailbox":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _sweep(self, db: sa.Connection, turn: Sequence[Any]) -> set[str]:
        """Forget the rounds that were closed and saved."""
        old = (_C.run == turn[0], _C.number <= turn[1] - KEPT)
        rows = db.execute(sa.select(_C.asked, _C.answered).where(*old)).all()
        if not rows:
            return set()
        db.execute(_TASKS.delete().where(*old))
        here = {sha for row in rows for sha in row if sha}
        still = set(db.scalars(sa.select(_C.asked).distinct()))
        gone = here - still - set(db.scalars(sa.select(_C.answered).where(_C.answered.is_not(None))))
        db.execute(_BODIES.delete().where(_BODIES.c.sha256 == sa.bindparam("s")), [{"s": sha} for sha in gone])
        return gone

    @contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        with explained(self.folder, LedgerError, NAME), self._engine.connect() as db:
            yield db

    @contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        with explained(self.folder, LedgerError, NAME), self._engine.connect() as db:
            db.exec_driver_sql("BEGIN IMMEDIATE")
            yield db
            db.commit()


def _named(turn: Sequence[Any]) -> dict[str, Any]:
    return dict(zip(("run", "number", "attempt", "hub", "phase"), turn, strict=True))


def _of(turn: Sequence[Any]) -> list[sa.ColumnElement[bool]]:
    return [_C[name] == value for name, value in _named(turn).items()]


def _row(q: Question) -> dict[str, Any]:
    return {"member": q.member, "asked": q.asked, "question": q.header, "state": "open"}
