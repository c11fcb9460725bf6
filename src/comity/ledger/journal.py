"""A journal in a folder: work that many processes and threads may try, and exactly one commits.

    journal.db    SQLite: a row for each piece of work, with its spec, the last token and lease, and the result

Every write begins with the write lock (BEGIN IMMEDIATE) and is on the disk when it answers (WAL,
synchronous=FULL). Killed at any moment, a row is as before the call or as after it.
"""

import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from comity.core.contribution import Tree
from comity.core.envelope import Key
from comity.core.errors import ConfigError, LedgerError, WireError
from comity.core.journal import Outcome
from comity.core.wire import decode_tree, encode_tree
from comity.ledger import folder as files
from comity.ledger.store import database, explained

SPEC_LIMIT, DATA_LIMIT, NAME_LIMIT = 2**20, 2**26, 1000
"""The most bytes of a spec and of a result, and characters of a name."""
WAIT = 60.0
"""How many seconds a call waits for others to finish writing."""
NAME = "journal.db"

_SCHEMA = sa.MetaData()
_WORK = sa.Table(
    "work",
    _SCHEMA,
    sa.Column("run", sa.Text, primary_key=True),
    *(sa.Column(name, sa.BigInteger, primary_key=True, autoincrement=False) for name in ("number", "attempt")),
    *(sa.Column(name, sa.Text, primary_key=True) for name in ("phase", "participant")),
    sa.Column("token", sa.BigInteger, nullable=False),
    sa.Column("who", sa.Text, nullable=False),
    sa.Column("until", sa.Float, nullable=False),
    sa.Column("spec_sha256", sa.Text, nullable=False),
    sa.Column("data_sha256", sa.Text),
    sa.Column("spec", sa.LargeBinary, nullable=False),
    sa.Column("data", sa.LargeBinary),
    sa.CheckConstraint("(data IS NULL) = (data_sha256 IS NULL)"),
)
_C = _WORK.c
_KEY = (_C.run, _C.number, _C.attempt, _C.phase, _C.participant)
_DAMAGED = f"Restore {NAME} from a copy, or delete it to have its work done again."


class SqlJournal:
    """A `Journal` that several processes and threads share, in a folder on one host.

    **Time** is only asked whether a lease has run out. A clock that is ahead, or jumps forward, lets work be
    claimed while another still does it: it is done twice, for nothing. One that is behind, or jumps back,
    leaves work of a dead worker lying for longer. Neither can lose a result, or let two be accepted: that
    hangs on tokens alone, and they are counted in the database.

    Each process opens its own; a fork must not use that of its parent. WAL needs shared memory and working
    locks: not a network file system.

    Example:
        >>> import tempfile
        >>> key, now = ("run", 0, 0, "contribute", "ada"), [0.0]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with SqlJournal.open(folder, clock=lambda: now[0]) as journal:
        ...         journal.offer(key, {"task": 7})
        ...         slow = journal.claim(key, "worker 1", lease=10.0)
        ...         early = journal.claim(key, "worker 2", lease=10.0)
        ...         now[0] = 10.0
        ...         quick = journal.claim(key, "worker 2", lease=10.0)
        ...         journal.commit(key, quick, b"seven"), journal.commit(key, slow, b"SEVEN"), journal.read(key)
        ...         slow, early, quick
        ('accepted', 'stale', b'seven')
        (1, None, 2)
    """

    def __init__(self, folder: Path, engine: sa.Engine, clock: Callable[[], float]) -> None:
        self.folder = folder
        self._engine = engine
        self._clock = clock
        self._process: int | None = os.getpid()

    @classmethod
    def open(cls, folder: str | Path, *, clock: Callable[[], float] = time.time, wait: float = WAIT) -> "SqlJournal":
        """Open the journal of a folder, or make it.

        Args:
            folder: where `journal.db` lies.
            clock: gives seconds, the same for all who share the folder.
            wait: seconds to wait at most for another's write, > 0.

        Raises:
            ConfigError: the folder cannot be used, or an argument does not fit.
            LedgerError: its database is damaged, or locked for longer than `wait`.
        """
        if not isinstance(folder, str | Path) or not callable(clock):
            got = f"{folder!r:.60} and {clock!r:.60}"
            raise ConfigError(f"A journal must be opened on a folder, with a function for a clock. Got {got}.")
        path, longest = Path(folder), min(_seconds(wait, "wait"), 1e6)
        with explained(path, ConfigError, NAME):
            path.mkdir(parents=True, exist_ok=True)
            journal = cls(path, database(path / NAME, longest), clock)
        try:
            with explained(path, ConfigError, NAME), journal._writing(ConfigError) as db:
                _SCHEMA.create_all(db)
            with explained(path, ConfigError, NAME):
                files.sync(path)
        except BaseException:
            journal.close()
            raise
        return journal

    def offer(self, key: Key, spec: Tree) -> None:
        """Make a piece of work known, see `Journal.offer`.

        Args:
            key: (run, round, attempt, phase, participant).
            spec: at most 1 MiB on the wire.

        Raises:
            LedgerError: the key was offered before with another spec, or is damaged.
            ConfigError: the key or the spec does not fit.
        """
        named, data = _named(key), encode_tree(spec)
        if len(data) > SPEC_LIMIT:
            raise ConfigError(
                f"The spec of {key} must be at most {SPEC_LIMIT} bytes. Got {len(data)}. Name a file in it instead."
            )
        with self._writing() as db:
            row = self._row(db, key, (_C.spec, _C.spec_sha256))
            if row is None:
                nothing = {"token": 0, "who": "", "until": 0.0}
                new = {**named, **nothing, "spec": data, "spec_sha256": _digest(key, data)}
                db.execute(_WORK.insert(), new)
            elif self._whole(key, "spec", row) != data:
                raise LedgerError(f"{key} must be offered with one spec. Got another than before. Choose another key.")

    def claim(self, key: Key, who: str, lease: float) -> int | None:
        """Take a piece of work for `lease` seconds, see `Journal.claim`.

        Raises:
            LedgerError: the key was never offered.
            ConfigError: the key, `who` or `lease` does not fit.
        """
        _text(who, "who")
        seconds = _seconds(lease, "lease")
        with self._writing() as db:
            row = self._offered(db, key, (_C.token, _C.who, _C.until, _C.data_sha256))
            now = self._now()
            held = row.token > 0 and row.who != who and now < row.until
            if held or row.data_sha256 is not None:
                return None
            token = int(row.token) + 1
            db.execute(_WORK.update().where(*_is(key)), {"token": token, "who": who, "until": now + seconds})
        return token

    def commit(self, key: Key, token: int, data: bytes) -> Outcome:
        """Record the result durably before answering, see `Journal.commit`.

        Args:
            key: what was claimed.
            token: what `claim` gave.
            data: at most 64 MiB; of more, commit the sha256 and keep the rest in a file.

        Raises:
            LedgerError: the key was never offered, the token never given, or what was committed is damaged.
            ConfigError: an argument does not fit.
        """
        _whole_number(token, "token", 1)
        if not isinstance(data, bytes) or len(data) > DATA_LIMIT:
            got = len(data) if isinstance(data, bytes) else type(data).__name__
            raise ConfigError(f"The result of {key} must be at most {DATA_LIMIT} bytes. Got {got}. Commit its hash.")
        with self._writing() as db:
            row = self._offered(db, key, (_C.token, _C.data_sha256))
            if token > row.token:
                raise LedgerError(f"A token of {key} must be one that was given. Got {token}. Claim it again.")
            if row.data_sha256 is not None:
                return "duplicate" if self._result(db, key) == data else "stale"
            if token < row.token:
                return "stale"
            db.execute(_WORK.update().where(*_is(key)), {"data": data, "data_sha256": _digest(key, data)})
        return "accepted"

    def read(self, key: Key) -> bytes | None:
        """The committed bytes, their hash checked; None while there are none.

        Raises:
            LedgerError: names the key whose bytes do not match their hash.
            ConfigError: the key does not fit.
        """
        _named(key)
        with self._reading() as db:
            return self._result(db, key)

    def spec(self, key: Key) -> Any:
        """What is to be done, its hash checked.

        Raises:
            LedgerError: the key was never offered, or its spec does not match its hash.
            ConfigError: the key does not fit.
        """
        with self._reading() as db:
            row = self._offered(db, key, (_C.spec, _C.spec_sha256))
        try:
            return decode_tree(self._whole(key, "spec", row))
        except WireError as e:
            raise LedgerError(f"the spec of {key} in {self.folder / NAME} cannot be read ({e}). {_DAMAGED}") from e

    def waiting(self, run: str, *, most: int = 1000) -> list[Key]:
        """What a worker of the run could claim now: not committed, and under nobody's unexpired lease.

        Args:
            run: the first part of the keys.
            most: give so many at most, >= 1.

        Returns:
            Keys, sorted; when one is claimed, another may have been quicker.
        """
        _text(run, "run")
        _whole_number(most, "most", 1)
        free = sa.or_(_C.token == 0, _C.until <= self._now())
        query = sa.select(*_KEY).where(_C.run == run, _C.data_sha256.is_(None), free).order_by(*_KEY).limit(most)
        with self._reading() as db:
            return [(r.run, r.number, r.attempt, r.phase, r.participant) for r in db.execute(query)]

    def close(self) -> None:
        """Let go of the file; what was answered is on the disk already."""
        self._engine.dispose()
        self._process = None

    def __enter__(self) -> "SqlJournal":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _now(self) -> float:
        now = self._clock()
        if isinstance(now, bool) or not isinstance(now, int | float) or not abs(now) < 1e12:
            raise ConfigError(f"The 'clock' of a journal must give seconds. Got {now!r:.60}. Use time.time.")
        return float(now)

    def _offered(self, db: sa.Connection, key: Key, columns: Sequence[sa.Column[Any]]) -> sa.Row[Any]:
        row = self._row(db, key, columns)
        if row is None:
            raise LedgerError(f"{key} must be offered first. There is no such work in {self.folder / NAME}. Offer it.")
        return row

    def _row(self, db: sa.Connection, key: Key, columns: Sequence[sa.Column[Any]]) -> sa.Row[Any] | None:
        return db.execute(sa.select(*columns).where(*_is(key))).one_or_none()

    def _result(self, db: sa.Connection, key: Key) -> bytes | None:
        row = self._row(db, key, (_C.data, _C.data_sha256))
        if row is None or (row.data is None and row.data_sha256 is None):
            return None
        return self._whole(key, "result", row)

    def _whole(self, key: Key, what: str, row: Any) -> bytes:
        """Data that match their hash."""
        data, sha = row
        if not isinstance(data, bytes) or _digest(key, data) != sha:
            raise LedgerError(f"the {what} of {key} in {self.folder / NAME} does not match its hash. {_DAMAGED}")
        return data

    @contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        with self._explained(LedgerError), self._engine.connect() as db:
            yield db

    @contextmanager
    def _writing(self, error: type[ConfigError] | type[LedgerError] = LedgerError) -> Iterator[sa.Connection]:
        """Alone among all processes, from the first look to the commit on the disk."""
        with self._explained(error), self._engine.connect() as db:
            db.exec_driver_sql("BEGIN IMMEDIATE")
            yield db
            db.commit()

    @contextmanager
    def _explained(self, error: type[ConfigError] | type[LedgerError]) -> Iterator[None]:
        if self._process != os.getpid():
            got = "a closed one" if self._process is None else "that of another process"
            raise ConfigError(f"A journal must be open, and opened by the process that uses it. Got {got}. Open it.")
        with explained(self.folder, error, NAME):
            try:
                yield
            except sa.exc.OperationalError as e:
                if getattr(e.orig, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_BUSY:
                    raise
                said = "Another process was writing for longer than `wait`"
                raise LedgerError(f"{self.folder / NAME} must be free to write. {said}. Try again.") from e


def _is(key: Key) -> list[sa.ColumnElement[bool]]:
    return [_C[name] == value for name, value in _named(key).items()]


def _named(key: Key) -> dict[str, Any]:
    """A key by column."""
    if not isinstance(key, tuple) or len(key) != len(_KEY):
        raise ConfigError(f"A key must be a tuple (run, round, attempt, phase, participant). Got {key!r:.100}.")
    run, number, attempt, phase, participant = key
    for value, what in ((run, "run"), (phase, "phase"), (participant, "participant")):
        _text(value, what, empty=what == "participant")
    for count, what in ((number, "round"), (attempt, "attempt")):
        _whole_number(count, what, 0)
    return {"run": run, "number": number, "attempt": attempt, "phase": phase, "participant": participant}


def _text(x: Any, what: str, *, empty: bool = False) -> None:
    fits = isinstance(x, str) and (empty or x) and len(x) <= NAME_LIMIT
    if not fits or x.encode(errors="replace").decode() != x or "\0" in x:
        least = "" if empty else ", not empty"
        raise ConfigError(
            f"'{what}' must be text of at most {NAME_LIMIT} characters{least}. Got {x!r:.60}. Use a plain name."
        )


def _whole_number(x: Any, what: str, least: int) -> None:
    if isinstance(x, bool) or not isinstance(x, int) or not least <= x < 2**63:
        raise ConfigError(f"'{what}' must be an integer >= {least} of 63 bits. Got {x!r:.60}. Use int(...).")


def _seconds(x: Any, what: str) -> float:
    if isinstance(x, bool) or not isinstance(x, int | float) or not 0 < x < 1e12:
        raise ConfigError(f"'{what}' must be seconds > 0 and < 1e12. Got {x!r:.60}. Use 60.0, for one.")
    return float(x)


def _digest(key: Key, data: bytes) -> str:
    """Bound to the key, so that two rows cannot change places."""
    return sha256(json.dumps(key).encode() + b"\0" + data).hexdigest()
