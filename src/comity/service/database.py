"""A hub's database: SQLite in its folder, or PostgreSQL by URL where several processes serve.

Whatever was answered is on the disk: SQLite in WAL mode with synchronous=FULL, PostgreSQL with its defaults. Killed
at any moment, a transaction is there whole or not at all.
"""

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa

from comity.core.errors import ConfigError, LedgerError
from comity.ledger.store import database, explained

NAME, CHANNEL = "hub.db", "comity"
"""The file, and the channel of PostgreSQL by which processes wake one another."""
WAIT = 30.0
"""Seconds to wait for another process that writes."""
PATIENCE = 60.0
"""Seconds for which a hub that begins waits for a database that does not answer."""
_LOCK = 0x636F6D697479
"""The number of the lock under which writes to PostgreSQL follow one another."""
Given = TypeVar("Given")


class Away(LedgerError):
    """A database that does not answer now. What was committed is there; ask again."""


def awaited(do: Callable[[], Given], tell: Callable[[str], object], seconds: float = PATIENCE) -> Given:
    """Do it once the database answers.

    Args:
        do: what needs the database; begun anew each time.
        tell: is told once why it takes long.
        seconds: to wait at most.

    Raises:
        Away: it did not answer in time.
    """
    ends, told = time.monotonic() + seconds, False
    while True:
        try:
            return do()
        except Away as away:
            if time.monotonic() > ends:
                raise
            if not told:
                tell(f"{away} It is waited for, {seconds:.0f} s at most.")
            told = True
            time.sleep(0.5)


class Database:
    """Where a hub keeps its rows. Made with `open`; several processes may open the same.

    Attributes:
        where: the file, or the URL without its password.
        engine: SQLAlchemy's.
        token: by which this process knows what it announced itself.
        url: of PostgreSQL, with its password; "" for SQLite.
    """

    def __init__(self, where: str, engine: sa.Engine, url: str = "") -> None:
        self.where = where
        self.engine = engine
        self.token = secrets.token_hex(8)
        self.url = url
        self._hearers: list[Callable[[str], None]] = []

    def __repr__(self) -> str:
        return f"Database({self.where!r})"

    @classmethod
    def open(cls, where: str | Path, *tables: sa.MetaData) -> "Database":
        """Open it, and make the tables that are missing.

        Args:
            where: a folder, for its `hub.db`; or a URL such as "postgresql+psycopg://hub@/comity".
            tables: which must be there.

        Raises:
            Away: it does not answer now.
            ConfigError: it cannot be opened.
            LedgerError: it is damaged.
        """
        named = str(where)
        if "://" in named:
            made = _by_url(named)
        else:
            folder = Path(where)
            with explained(folder, ConfigError, NAME):
                folder.mkdir(parents=True, exist_ok=True)
                made = cls(str(folder / NAME), database(folder / NAME, WAIT))
        try:
            for some in tables:
                made.make(some)
            if not tables:
                made.make(sa.MetaData())
        except BaseException:
            made.close()
            raise
        return made

    def make(self, tables: sa.MetaData) -> None:
        """Make the tables that are missing.

        Raises:
            Away: the database does not answer now.
            ConfigError: it cannot be written.
        """
        with self.writing(ConfigError) as db:
            tables.create_all(db)

    def hear(self, told: Callable[[str], None]) -> None:
        """Call this with what is announced, whichever thread or process did; it must return at once."""
        self._hearers.append(told)

    def tell(self, what: str) -> None:
        """Tell those of this process who listen."""
        for told in tuple(self._hearers):
            told(what)

    def announce(self, db: sa.Connection, what: str) -> None:
        """Say, once the transaction is committed, that something changed: to this process, and by PostgreSQL to others.

        Args:
            db: the transaction.
            what: a word.
        """
        if self.url and what not in db.info.get("announced", ()):
            db.execute(sa.select(sa.func.pg_notify(CHANNEL, f"{self.token} {what}")))
        db.info.setdefault("announced", set()).add(what)

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A connection to look with.

        Raises:
            LedgerError: the database cannot be read.
        """
        with self._explained(LedgerError), self.engine.connect() as db:
            yield db

    @contextmanager
    def writing(self, error: type[ConfigError] | type[LedgerError] = LedgerError) -> Iterator[sa.Connection]:
        """A transaction, alone among all processes from its first look on; durable when the block ends.

        Raises:
            LedgerError: the database cannot be written; nothing was.
        """
        with self._explained(error), self.engine.connect() as db:
            if db.dialect.name == "sqlite":
                db.exec_driver_sql("BEGIN IMMEDIATE")
            else:
                db.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
            db.info.pop("announced", None)
            yield db
            said = db.info.pop("announced", ())
            db.commit()
        for what in said:
            self.tell(what)

    def close(self) -> None:
        """Let go of it."""
        self.engine.dispose()

    @contextmanager
    def _explained(self, error: type[ConfigError] | type[LedgerError]) -> Iterator[None]:
        if self.engine.dialect.name == "sqlite":
            with explained(Path(self.where).parent, error, NAME):
                yield
            return
        try:
            yield
        except sa.exc.SQLAlchemyError as fault:
            said = type(getattr(fault, "orig", None) or fault).__name__
            gone = isinstance(fault, sa.exc.OperationalError | sa.exc.InterfaceError | sa.exc.TimeoutError)
            raise (Away if gone else error)(
                f"{self.where} must be a database that answers. Got: {said}. Start it, or correct it."
            ) from None


def _by_url(text: str) -> Database:
    """One that is asked over a line; a URL may hold a password, which is not shown."""
    try:
        url = sa.make_url(text)
        if url.get_backend_name() != "postgresql":
            raise ConfigError(f"A database must be a folder or a URL of PostgreSQL. Got {url.get_backend_name()!r}.")
        patient = {"connect_timeout": 5, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
        options: dict[str, Any] = {"hide_parameters": True, "pool_size": 10, "pool_timeout": 10.0}
        options |= {"pool_pre_ping": True, "connect_args": patient}
        shown, whole = (url.render_as_string(hide_password=hidden) for hidden in (True, False))
        return Database(shown, sa.create_engine(url, **options), whole)
    except (sa.exc.ArgumentError, ImportError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(
            f"The URL of a database must be one that SQLAlchemy opens. Got: {type(error).__name__}. "
            "Use postgresql+psycopg://USER@HOST/NAME, and pip install psycopg."
        ) from None
