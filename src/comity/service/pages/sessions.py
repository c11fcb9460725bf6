"""Who looks at the pages of a hub: links that log in once, and sessions.

    logins      sha256 of a one-time link, for whom, until when
    sessions    sha256 of a cookie, whose, until when

A link is made for somebody who may use the hub's folder ("folder"), or for a party that signed for it ("key").
Nothing that lets somebody in is in a row, a message or a repr.
"""

import hmac
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import sqlalchemy as sa

from comity.core.checks import word
from comity.core.errors import ConfigError
from comity.service.parties import AUDIT, ROLES, check_name, told
from comity.service.registry import Registry

LINK, SESSION = 600.0, 12 * 3600.0
"""Seconds for which a link, and a session, count."""
OFTEN = 12
"""Links that one who signs for them gets in that time: each is a row of the audit log for ever."""

SCHEMA = sa.MetaData()
_FACTS = [("name", sa.Text), ("role", sa.Text), ("source", sa.Text), ("until", sa.Float)]
_TABLES = [
    sa.Table(
        name,
        SCHEMA,
        sa.Column("sha256", sa.Text, primary_key=True),
        *(sa.Column(fact, kind, nullable=False) for fact, kind in _FACTS),
    )
    for name in ("logins", "sessions")
]
LOGINS, SESSIONS = _TABLES


@dataclass(frozen=True, slots=True)
class Who:
    """Somebody who is logged in.

    Attributes:
        name: whose actions are written down under it.
        role: "operator" may do everything, "auditor" sees everything, "party" sees the runs in which it takes part.
        token: what every form of this session must bring back; "" before login.
    """

    name: str
    role: str
    token: str = field(default="", repr=False)

    @property
    def all(self) -> bool:
        """Does it see everything?"""
        return self.role in ("operator", "auditor")

    @property
    def acts(self) -> bool:
        """May it change something?"""
        return self.role == "operator"


class Sessions:
    """Links and sessions in the database of a hub, for all its processes.

    Args:
        registry: of the hub. A session of a party ends with its approval.
        clock: seconds since 1970.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, Registry.open(folder) as registry:
        ...     sessions = Sessions(registry)
        ...     secret = sessions.link("ada", "operator")
        ...     cookie = sessions.redeem(secret)
        ...     sessions.find(cookie), sessions.redeem(secret)
        (Who(name='ada', role='operator'), None)
    """

    def __init__(self, registry: Registry, clock: Callable[[], float] = time.time) -> None:
        """The tables are made where they are missing."""
        self._registry, self._db, self._clock = registry, registry.db, clock
        registry.db.make(SCHEMA)

    def link(self, name: str, role: str, *, source: str = "folder") -> str:
        """What logs somebody in, once, within ten minutes.

        Args:
            name: who.
            role: "operator", "auditor" or "party".
            source: "folder" where whoever asks may use the hub's folder, "key" where a party signed for it.

        Raises:
            ConfigError: no name or role; it is for a party that is not approved, or for one that asks too often.
        """
        check_name(name)
        word("role", "a login", role, ROLES)
        if not self._admitted(name, role, source):
            raise ConfigError(
                f"A login as {role} must be for one that is approved. {name!r:.60} is not. Approve it first."
            )
        secret, now = secrets.token_urlsafe(32), self._clock()
        row = {"sha256": _hash(secret), "name": name, "role": role, "source": source, "until": now + LINK}
        with self._db.writing() as db:
            if source == "key" and _many(db, name, now - LINK):
                raise ConfigError(f"A login must be asked for at most {OFTEN} times in ten minutes. Use one, or wait.")
            db.execute(LOGINS.delete().where(LOGINS.c.until < now))
            db.execute(SESSIONS.delete().where(SESSIONS.c.until < now))
            db.execute(LOGINS.insert(), row)
            told(db, now, f"login link as {role}", name)
        return secret

    def offered(self, secret: str) -> Who | None:
        """For whom a link is, while it counts. It is not used up: mail scanners and previews look too."""
        with self._db.reading() as db:
            row = db.execute(sa.select(LOGINS).where(LOGINS.c.sha256 == _hash(secret))).one_or_none()
        return None if row is None or row.until < self._clock() else Who(row.name, row.role)

    def redeem(self, secret: str) -> str | None:
        """Use a link up: gives the cookie of a new session, or None where the link is none, used or expired."""
        now, cookie = self._clock(), secrets.token_urlsafe(32)
        with self._db.writing() as db:
            row = db.execute(sa.select(LOGINS).where(LOGINS.c.sha256 == _hash(secret))).one_or_none()
            if row is None or row.until < now:
                return None
            db.execute(LOGINS.delete().where(LOGINS.c.sha256 == row.sha256))
            new = {"name": row.name, "role": row.role, "source": row.source, "until": now + SESSION}
            db.execute(SESSIONS.insert(), {"sha256": _hash(cookie), **new})
            told(db, now, f"logged in as {row.role}", row.name)
        return cookie

    def find(self, cookie: str) -> Who | None:
        """Whose session a cookie is, while it counts and its party, if it is one's, is approved."""
        if not cookie:
            return None
        with self._db.reading() as db:
            row = db.execute(sa.select(SESSIONS).where(SESSIONS.c.sha256 == _hash(cookie))).one_or_none()
        if row is None or row.until < self._clock() or not self._admitted(row.name, row.role, row.source):
            return None
        return Who(row.name, row.role, _token(cookie))

    def end(self, cookie: str) -> None:
        """End one session."""
        with self._db.writing() as db:
            db.execute(SESSIONS.delete().where(SESSIONS.c.sha256 == _hash(cookie)))

    def end_all(self, name: str) -> int:
        """End the sessions of somebody, and the links that were not used; gives how many there were."""
        with self._db.writing() as db:
            count = sum(db.execute(t.delete().where(t.c.name == name)).rowcount for t in (SESSIONS, LOGINS))
            told(db, self._clock(), "logged out everywhere", name)
        return int(count)

    def note(self, what: str, who: Who) -> None:
        """Write down what somebody does."""
        with self._db.writing() as db:
            told(db, self._clock(), what, who.name)

    def log(self, before: int, most: int) -> tuple[int, list[Mapping[str, Any]]]:
        """What was done at this hub.

        Args:
            before: the largest number that is wanted.
            most: how many.

        Returns:
            The largest number there is; and number, time, what, name and key of each, the newest first.
        """
        query = sa.select(AUDIT).where(AUDIT.c.number <= before).order_by(AUDIT.c.number.desc()).limit(most)
        with self._db.reading() as db:
            total = db.scalar(sa.select(sa.func.max(AUDIT.c.number))) or 0
            return int(total), [dict(row) for row in db.execute(query).mappings()]

    def _admitted(self, name: str, role: str, source: str) -> bool:
        if source == "folder" and role != "party":
            return True
        party = self._registry.party(name)
        return party is not None and party.status == "approved" and role in party.roles


def _many(db: sa.Connection, name: str, since: float) -> bool:
    a = AUDIT.c
    asked = sa.select(sa.func.count()).where(a.name == name, a.time > since, a.what.like("login link as %"))
    return bool((db.scalar(asked) or 0) >= OFTEN)


def same(one: str, other: str) -> bool:
    """Are two tokens the same? Takes as long where they are not."""
    return hmac.compare_digest(one.encode(), other.encode())


def _hash(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()


def _token(cookie: str) -> str:
    return hmac.new(cookie.encode(), b"comity form", sha256).hexdigest()
