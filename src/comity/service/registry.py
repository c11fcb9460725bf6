"""Who belongs to a hub: parties, their keys, invitations, nonces that were used, and what the operator did.

    parties       name, Ed25519 key, status, roles, when it was last heard
    invitations   sha256 of a one-time secret, for whom, until when, whether it was used
    nonces        of writes, until they are too old to be accepted anyway
    retired       keys that were given up: they never come back
    audit         what was done, when, to whom, with which key (its sha256)

Everything is one transaction and may be repeated: a process that is killed has done it or not, and the same again
gives the same. A secret is in no row, no message and no repr.
"""

import os
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import sqlalchemy as sa

from comity.channels.identity import signed
from comity.core.checks import word
from comity.core.errors import ComityError, ConfigError, nearest
from comity.service.database import Database
from comity.service.invitations import Invitation
from comity.service.parties import (
    AUDIT,
    INVITATIONS,
    NONCES,
    PARTIES,
    RETIRED,
    ROLES,
    SCHEMA,
    EnrolmentRefused,
    P,
    Party,
    Rotation,
    Status,
    T,
    check_name,
    party_of,
    put,
    read,
    rotated,
    taken,
    told,
)
from comity.service.signatures import WINDOW, Request, SignatureRefused, Signed, claimed, verify

HEARD = 5.0
"""Seconds between the times at which it is written down who was heard: all of them at once."""


class Registry:
    """Who belongs to a hub. Several processes and threads may use the same database.

    Example:
        >>> import tempfile
        >>> from comity.ledger.keys import SideSecret
        >>> ada, hub = SideSecret(bytes(32)), SideSecret(b"h" * 32)
        >>> with tempfile.TemporaryDirectory() as folder, Registry.open(folder) as registry:
        ...     token = registry.invite("ada", hub.public_key())
        ...     enrolled = registry.enrol(Invitation.read(token).secret, "ada", ada.public_key())
        ...     approved = registry.approve("ada")
        ...     enrolled.status, approved.status, registry.key_of("ada") == ada.public_key()
        ('waiting', 'approved', True)
    """

    def __init__(self, db: Database, clock: Callable[[], float] = time.time) -> None:
        self.db = db
        self._clock = clock
        self._heard: dict[str, float] = {}
        self._written = -HEARD

    @classmethod
    def open(cls, where: str | Path, *, clock: Callable[[], float] = time.time) -> "Registry":
        """Open it, or make it.

        Args:
            where: the hub's folder, or the URL of its database.
            clock: seconds since 1970.

        Raises:
            Away: its database does not answer now.
            ConfigError: it cannot be opened.
            LedgerError: it is damaged.
        """
        return cls(Database.open(where, SCHEMA), clock)

    def invite(
        self, name: str, hub_key: bytes, *, certificate: bytes = b"", hours: float = 24.0, role: str = "party"
    ) -> str:
        """Invite a party: a token that is shown once; an earlier one that was not used no longer counts.

        Args:
            name: the party's, 1 to 255 characters.
            hub_key: the hub's Ed25519 public key, by whose sha256 the party will know it.
            certificate: the hub's TLS certificate (DER), where no authority vouches for it.
            hours: until the token expires, > 0.
            role: "party", "auditor" or "operator".

        Raises:
            ConfigError: the party has a key already, or an argument does not fit.
        """
        check_name(name)
        if isinstance(hours, bool) or not isinstance(hours, int | float) or not 0 < hours <= 10_000:
            raise ConfigError(f"An invitation must last for 0 to 10000 hours. Got {hours!r:.30}. Use 24.")
        word("role", "an invitation", role, ROLES)
        pin = sha256(certificate).digest() if certificate else bytes(32)
        token = Invitation(os.urandom(32), sha256(hub_key).digest(), pin, name)
        now = self._clock()
        with self.db.writing() as db:
            party = party_of(db, name)
            if party is not None and party.status not in ("invited", "removed"):
                raise ConfigError(
                    f"A party that is invited must have no key. {name} is {party.status}. Remove it first."
                )
            put(db, name, {"key": None, "status": "invited", "roles": role})
            db.execute(INVITATIONS.delete().where(T.name == name, T.used.is_(None)))
            row = {"sha256": sha256(token.secret).hexdigest(), "name": name, "expires": now + 3600 * hours}
            db.execute(INVITATIONS.insert(), row)
            told(db, now, "invited", name)
        return token.text()

    def enrol(self, secret: bytes, name: str, key: bytes) -> Party:
        """Take a key in, once for each invitation. The same again gives the same: the answer may have been lost.

        That the sender holds the key is for the caller to verify first: its request is signed with it.

        Args:
            secret: `Invitation.secret`, 32 bytes.
            name: the party's.
            key: its Ed25519 public key, 32 bytes.

        Raises:
            EnrolmentRefused: another key was taken in, or the invitation is none, expired or for another.
        """
        now = self._clock()
        with self.db.writing() as db:
            found = db.execute(sa.select(INVITATIONS).where(T.sha256 == sha256(secret).hexdigest())).one_or_none()
            party = party_of(db, name)
            if found is None or party is None or found.name != name:
                raise EnrolmentRefused("unknown")
            if found.used is not None:
                if party.key != key:
                    raise EnrolmentRefused("used")
                return party
            if now > found.expires or party.status != "invited":
                raise EnrolmentRefused("expired")
            if len(key) != 32 or taken(db, key):
                raise EnrolmentRefused("key")
            db.execute(INVITATIONS.update().where(T.sha256 == found.sha256), {"used": now})
            put(db, name, {"key": key, "status": "waiting"})
            told(db, now, "enrolled", name, key)
        return self._sure(name)

    def approve(self, name: str, key: bytes | None = None) -> Party:
        """Let a party that waits, or was suspended, take part.

        Args:
            name: the party's.
            key: the one that was compared: another one, which came meanwhile, is refused. None for whichever it is.

        Raises:
            ConfigError: there is no such party, it has no key, or another one.
        """
        return self._become(name, "approved", {"waiting", "suspended"}, key)

    def suspend(self, name: str) -> Party:
        """Refuse a party until it is approved again.

        Raises:
            ConfigError: there is no such party, or it is not approved.
        """
        return self._become(name, "suspended", {"approved"})

    def remove(self, name: str) -> Party:
        """Take a party out: its key and its invitation count no more, from its next request on.

        Raises:
            ConfigError: there is no such party.
        """
        return self._become(name, "removed", {"invited", "waiting", "approved", "suspended"})

    def rotate(self, rotation: Rotation) -> Party:
        """Put a new key in the place of the old one, which signed it. The same again changes nothing.

        Raises:
            EnrolmentRefused: a signature is wrong, the old key is not the party's, the new one was used before, or the
                party is suspended: whoever took its key would be approved with the next one.
        """
        now, said = self._clock(), rotated(rotation.name, rotation.old, rotation.new)
        if not signed(rotation.old, rotation.by_old, said) or not signed(rotation.new, rotation.by_new, said):
            raise EnrolmentRefused("changed")
        with self.db.writing() as db:
            party = party_of(db, rotation.name)
            if party is not None and party.key == rotation.new:
                return party
            if party is None or party.key != rotation.old or party.status in ("removed", "suspended"):
                raise EnrolmentRefused("unknown")
            if taken(db, rotation.new):
                raise EnrolmentRefused("key")
            db.execute(RETIRED.insert(), {"key": rotation.old, "name": party.name})
            put(db, party.name, {"key": rotation.new})
            told(db, now, "rotated", party.name, rotation.new)
        return self._sure(rotation.name)

    def key_of(self, keyid: str) -> bytes | None:
        """The key of an approved party; None for any other name."""
        party = self.party(keyid)
        return party.key if party is not None and party.status == "approved" else None

    def party(self, name: str) -> Party | None:
        """A party by its name."""
        with self.db.reading() as db:
            return party_of(db, name)

    def parties(self, *statuses: Status) -> list[Party]:
        """All parties, or those of some statuses, sorted by name."""
        query = sa.select(PARTIES).order_by(P.name)
        with self.db.reading() as db:
            return [read(row) for row in db.execute(query.where(P.status.in_(statuses)) if statuses else query)]

    def admit(self, request: Request, *, write: bool, statuses: Collection[str] = ("approved",)) -> Signed:
        """Is this a request of a party that may ask? Once only, where it writes; then the party is noted as heard.

        Args:
            request: as it came, see `signatures.verify`.
            write: it changes something: its nonce is used up. A poll changes nothing and may come again.
            statuses: of those who may ask.

        Raises:
            SignatureRefused: it is not. Whether a name is known does not show.
        """
        said = claimed(request)
        party = self.party(said.keyid)
        said = verify(request, party.key if party is not None else None, now=self._clock())
        assert party is not None
        if party.status not in statuses:
            raise SignatureRefused(party.status)
        if write:
            self.spend(said)
        self.seen(said.keyid)
        return said

    def spend(self, said: Signed) -> None:
        """Use a nonce up, durably, in whichever process.

        Raises:
            SignatureRefused: it was used.
        """
        row = {"keyid": said.keyid, "nonce": said.nonce}
        with self.db.writing() as db:
            db.execute(NONCES.delete().where(NONCES.c.until < self._clock() - WINDOW))
            known = sa.select(NONCES.c.until).where(NONCES.c.keyid == said.keyid, NONCES.c.nonce == said.nonce)
            if db.execute(known).one_or_none() is not None:
                raise SignatureRefused("replay")
            db.execute(NONCES.insert(), row | {"until": said.created + WINDOW})

    def seen(self, name: str) -> None:
        """Note that a party was heard; it is written down within some seconds."""
        self._heard[name] = now = self._clock()
        if abs(now - self._written) >= HEARD:
            self.flush()

    def flush(self) -> None:
        """Write down who was heard."""
        heard, self._heard, self._written = self._heard, {}, self._clock()
        if heard:
            rows = [{"who": name, "last_seen": now} for name, now in heard.items()]
            with self.db.writing() as db:
                db.execute(PARTIES.update().where(P.name == sa.bindparam("who")), rows)

    def audit(self) -> list[tuple[float, str, str, str]]:
        """What was done: (seconds since 1970, what, to whom, sha256 of the key or ""), in its order."""
        c = AUDIT.c
        with self.db.reading() as db:
            return [tuple(row) for row in db.execute(sa.select(c.time, c.what, c.name, c.key).order_by(c.number))]

    def close(self) -> None:
        """Let go of the database."""
        with suppress(ComityError):
            self.flush()
        self.db.close()

    def __enter__(self) -> "Registry":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _become(self, name: str, status: Status, before: Collection[str], key: bytes | None = None) -> Party:
        now = self._clock()
        with self.db.writing() as db:
            party = party_of(db, name)
            if party is None:
                hint = nearest(name, db.scalars(sa.select(P.name))) or " Invite it first."
                raise ConfigError(f"{name!r:.60} must be a party of this hub. There is none.{hint}")
            if key is not None and party.key is not None and party.key != key:
                raise ConfigError(f"The key of {name} must be the one that was compared. It is another. Compare again.")
            if party.status == status:
                return party
            if party.status not in before:
                raise ConfigError(
                    f"A party that becomes {status} must be {' or '.join(sorted(before))}. {name} is {party.status}. "
                    f"{'Invite it, and let it join.' if party.key is None else 'Approve it first, or remove it.'}"
                )
            gone = status == "removed"
            if gone and party.key is not None:
                db.execute(RETIRED.insert(), {"key": party.key, "name": name})
            if gone:
                db.execute(INVITATIONS.delete().where(T.name == name))
            put(db, name, {"key": None if gone else party.key, "status": status})
            told(db, now, status, name, party.key)
        return self._sure(name)

    def _sure(self, name: str) -> Party:
        party = self.party(name)
        assert party is not None
        return party
