"""A party as the hub knows it, and the tables of the registry."""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Literal, TypeAlias

import sqlalchemy as sa

from comity.core.errors import ComityError, ConfigError
from comity.core.rng import digest

Status: TypeAlias = Literal["invited", "waiting", "approved", "suspended", "removed"]
ROLES = ("party", "auditor", "operator")
REFUSED = "The invitation must be one of this hub that was not used and has not expired. It is refused."

SCHEMA = sa.MetaData()
PARTIES = sa.Table(
    "parties",
    SCHEMA,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("key", sa.LargeBinary, unique=True),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("roles", sa.Text, nullable=False),
    sa.Column("last_seen", sa.Float),
)
INVITATIONS = sa.Table(
    "invitations",
    SCHEMA,
    sa.Column("sha256", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("expires", sa.Float, nullable=False),
    sa.Column("used", sa.Float),
)
NONCES = sa.Table(
    "nonces",
    SCHEMA,
    sa.Column("keyid", sa.Text, primary_key=True),
    sa.Column("nonce", sa.Text, primary_key=True),
    sa.Column("until", sa.Float, nullable=False, index=True),
)
RETIRED = sa.Table(
    "retired", SCHEMA, sa.Column("key", sa.LargeBinary, primary_key=True), sa.Column("name", sa.Text, nullable=False)
)
AUDIT = sa.Table(
    "audit",
    SCHEMA,
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("time", sa.Float, nullable=False),
    sa.Column("what", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("key", sa.Text, nullable=False),
)
P, T = PARTIES.c, INVITATIONS.c


class EnrolmentRefused(ComityError):
    """A key that is not taken in; its text is the same whatever was wrong.

    Attributes:
        reason: for the hub's own log.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(REFUSED)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Party:
    """A party, as the hub knows it.

    Attributes:
        name: by which its requests are signed.
        key: its Ed25519 public key, 32 bytes; None while it has none.
        status: "invited", "waiting" (for approval), "approved", "suspended" or "removed".
        roles: of `ROLES`.
        last_seen: seconds since 1970, to a few seconds; None for never.
    """

    name: str
    key: bytes | None
    status: Status
    roles: tuple[str, ...]
    last_seen: float | None


@dataclass(frozen=True, slots=True)
class Rotation:
    """A new key, said by the old one and by itself.

    Attributes:
        name: whose.
        old: public key, 32 bytes.
        new: public key, 32 bytes.
        by_old: signature, 64 bytes.
        by_new: signature, 64 bytes.
    """

    name: str
    old: bytes
    new: bytes
    by_old: bytes
    by_new: bytes

    @classmethod
    def of(cls, name: str, old: Any, new: Any) -> "Rotation":
        """From two secrets (`SideSecret`)."""
        keys = old.public_key(), new.public_key()
        said = rotated(name, *keys)
        return cls(name, *keys, old.sign(said), new.sign(said))


def read(row: Any) -> Party:
    """A party from its row."""
    return Party(row.name, row.key, row.status, tuple(row.roles.split(",")), row.last_seen)


def party_of(db: sa.Connection, name: str) -> Party | None:
    """A party by its name."""
    row = db.execute(sa.select(PARTIES).where(P.name == name)).one_or_none()
    return None if row is None else read(row)


def put(db: sa.Connection, name: str, row: Mapping[str, Any]) -> None:
    """Change a party, or add it."""
    if not db.execute(PARTIES.update().where(P.name == name), row).rowcount:
        db.execute(PARTIES.insert(), {"name": name, **row})


def taken(db: sa.Connection, key: bytes) -> bool:
    """Is it, or was it ever, somebody's?"""
    own = db.execute(sa.select(P.name).where(P.key == key)).first()
    return own is not None or db.execute(sa.select(RETIRED.c.name).where(RETIRED.c.key == key)).first() is not None


def told(db: sa.Connection, now: float, what: str, name: str, key: bytes | None = None) -> None:
    """Write down what was done."""
    shown = "" if key is None else sha256(key).hexdigest()
    db.execute(AUDIT.insert(), {"time": now, "what": what, "name": name, "key": shown})


def rotated(name: str, old: bytes, new: bytes) -> bytes:
    """What both keys of a rotation sign."""
    return digest("comity rotate 1", name, old.hex(), new.hex())


def check_name(name: str) -> None:
    """Refuse what is no name.

    Raises:
        ConfigError: it is none.
    """
    fits = isinstance(name, str) and 0 < len(name) <= 255 and name.isprintable() and name == name.strip()
    if not fits:
        raise ConfigError(f"The name of a party must be 1 to 255 characters that can be printed. Got {name!r:.60}.")
