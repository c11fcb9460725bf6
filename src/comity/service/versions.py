"""The schema of a hub's database: which it is, and how it becomes the one that this version of comity wants.

A table `schema` holds one number. A step that adds tables, or columns that may be empty, needs no code: what is
missing is made. One that changes what is there is a function in `STEPS`. A database of a later version is refused, and
so is one that is behind: nothing is guessed while a hub runs.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import sqlalchemy as sa

from comity.core.errors import ConfigError
from comity.service.database import Database

STEPS: Sequence[tuple[int, str, Callable[[sa.Connection], None]]] = ()
"""(the version after it, what it does, how), in their order."""
SCHEMA = 2
"""The version that this code wants. 1: parties alone, questions and answers in mailbox.db. 2: one database."""
_ABOUT = sa.MetaData()
_VERSION = sa.Table(
    "schema",
    _ABOUT,
    sa.Column("version", sa.Integer, primary_key=True),
    sa.Column("since", sa.Float, nullable=False),
)


def tables() -> tuple[sa.MetaData, ...]:
    """All that a hub keeps in its database."""
    from comity.ledger import mailbox
    from comity.service import mail, parties, runs
    from comity.service.pages import sessions

    found = [_ABOUT, parties.SCHEMA, runs.SCHEMA, sessions.SCHEMA]
    found += [getattr(module, name) for module in (mailbox, mail) for name in ("SCHEMA", "_SCHEMA")
              if hasattr(module, name)]  # fmt: skip
    return tuple(found)


def missing(db: Database) -> list[str]:
    """What the database lacks: tables, and columns as `table.column`."""
    with db.reading() as on:
        look = sa.inspect(on)
        there = {name: {c["name"] for c in look.get_columns(name)} for name in look.get_table_names()}
    lacks = []
    for table in (table for schema in tables() for table in schema.sorted_tables):
        if table.name not in there:
            lacks.append(table.name)
        else:
            lacks += [f"{table.name}.{c.name}" for c in table.columns if c.name not in there[table.name]]
    return lacks


def version(db: Database) -> int:
    """Which schema a database has: 0 where it is empty."""
    with db.reading() as on:
        names = set(sa.inspect(on).get_table_names())
        said = on.scalar(sa.select(sa.func.max(_VERSION.c.version))) if "schema" in names else None
        return int(said) if said is not None else int("parties" in names)


def check(db: Database) -> None:
    """Refuse a database that this version cannot carry on with; a new one, or one that lacks tables only, is made so.

    Raises:
        ConfigError: it is that of a later version, or must be migrated first.
    """
    has = version(db)
    if has > SCHEMA:
        raise ConfigError(
            f"{db.where} must have schema {SCHEMA} or an earlier one. It has {has}: a later comity wrote it. Update "
            "comity, or restore a backup that was made before."
        )
    columns = [name for name in missing(db) if "." in name]
    if columns or (0 < has < SCHEMA and any(has < n for n, *_ in STEPS)):
        raise ConfigError(
            f"{db.where} must have schema {SCHEMA}. It has {has}{', without ' + columns[0] if columns else ''}. Stop "
            "every hub on it, make a backup, and run: comity hub migrate FOLDER."
        )
    _made(db)


def migrate(db: Database) -> list[str]:
    """Bring a database to this version, in one transaction.

    Returns:
        What was done, a line each; [] where it fitted.

    Raises:
        ConfigError: it is that of a later version, or lacks what cannot be made.
    """
    has = version(db)
    if has > SCHEMA:
        check(db)
    lacks, done = missing(db), [f"step {n}: {what}" for n, what, _ in STEPS if n > has]
    with db.writing(ConfigError) as on:
        for n, _, step in STEPS:
            if n > has:
                step(on)
        for schema in tables():
            schema.create_all(on)
        for name in lacks:
            table, _, column = name.partition(".")
            if column and column not in {c["name"] for c in sa.inspect(on).get_columns(table)}:
                _add(on, table, column)
        _write(on)
    return [*done, *(f"made {name}" for name in lacks if not name.startswith("schema"))]


def _add(on: sa.Connection, table: str, name: str) -> None:
    """A column that may be empty."""
    column = next(t.columns[name] for s in tables() for t in s.sorted_tables if t.name == table)
    if not column.nullable or column.primary_key:
        raise ConfigError(f"{table}.{name} must be there already: it cannot be empty. Restore a backup of its version.")
    kind = column.type.compile(on.dialect)
    on.execute(sa.text(f'ALTER TABLE "{table}" ADD COLUMN "{name}" {kind}'))


def _made(db: Database) -> None:
    with db.writing(ConfigError) as on:
        for schema in tables():
            schema.create_all(on)
        _write(on)


def _write(on: sa.Connection) -> None:
    if on.scalar(sa.select(sa.func.max(_VERSION.c.version))) != SCHEMA:
        on.execute(_VERSION.delete())
        on.execute(_VERSION.insert(), {"version": SCHEMA, "since": time.time()})


def opened(folder: Path, database: str) -> Database:
    """A hub's database as it is: nothing is made in it."""
    return Database.open(database or folder)
