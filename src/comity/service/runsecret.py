"""A site's secret for one run: drawn in its folder at first use, so that no name of a run gives the same keys twice."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from comity.core.errors import LedgerError
from comity.core.parts import Secret, Stream
from comity.core.rng import Rng, digest
from comity.ledger import folder as files
from comity.ledger.keys import SideSecret

NAME, ROOT = "secret", 32


@dataclass(frozen=True)
class RunSecret:
    """Keys and randomness of one folder and run; the signature stays that of the identity.

    A hub that offers a run of the same name again, to a folder that knows nothing of the first, gets other masks and
    other noise.

    Attributes:
        identity: signs.
        own: everything else.
    """

    identity: Secret = field(repr=False)
    own: SideSecret

    @classmethod
    def of(cls, identity: Secret, folder: Path, run: str) -> "RunSecret":
        """Of a site's folder, which is held, and a run.

        Raises:
            LedgerError: the folder's secret is damaged.
        """
        path = folder / NAME
        if not path.exists():
            files.write(path, os.urandom(ROOT), 0o600)
        root = path.read_bytes()
        if len(root) != ROOT:
            raise LedgerError(f"{path} must hold {ROOT} bytes. It is damaged. Take another folder for another run.")
        return cls(identity, SideSecret(root).side(identity.key("comity site", run).hex()).side(run))

    def side(self, name: str) -> Secret:
        """That of one member, where this site stands for several: a `Region`."""
        identity = getattr(self.identity, "side", None)
        return self.own.side(name) if identity is None else RunSecret(identity(name), self.own.side(name))

    def rng(self, *purpose: str) -> Rng:
        """See `Secret`."""
        return self.own.rng(*purpose)

    def key(self, *purpose: str) -> bytes:
        """See `Secret`."""
        return self.own.key(*purpose)

    def stream(self, *purpose: str) -> Stream:
        """See `Secret`."""
        return self.own.stream(*purpose)

    def sign(self, data: bytes) -> bytes:
        """See `Secret`."""
        return self.identity.sign(data)

    def public_key(self) -> bytes:
        """See `Secret`."""
        return self.identity.public_key()


def said(identity: Secret, *what: str) -> str:
    """What a party signs so that it can be shown later, in hex."""
    return identity.sign(statement(*what)).hex()


def statement(*what: str) -> bytes:
    """The bytes that are signed."""
    return digest("comity party says 1", *what)
