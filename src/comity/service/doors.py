"""Who may ask a hub."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from comity.service.signatures import Request, Signed, claimed, verify


class Doors(Protocol):
    """Who may ask. `Registry` is one; see `Known` for another."""

    def key_of(self, keyid: str) -> bytes | None:
        """The key of who may ask; None for any other name."""
        ...

    def admit(self, request: Request, *, write: bool) -> Signed:
        """Who asks; where it writes, once only.

        Raises:
            SignatureRefused: nobody who may.
        """
        ...


@dataclass(frozen=True)
class Known:
    """Doors for names and keys that are known from elsewhere. Nonces are not kept: every write here may be repeated.

    Attributes:
        keys: name to Ed25519 public key, 32 bytes.
    """

    keys: Mapping[str, bytes]

    def key_of(self, keyid: str) -> bytes | None:
        """The key of a name."""
        return self.keys.get(keyid)

    def admit(self, request: Request, *, write: bool) -> Signed:
        """Who asks.

        Raises:
            SignatureRefused: nobody who may.
        """
        return verify(request, self.key_of(claimed(request).keyid), now=time.time())
