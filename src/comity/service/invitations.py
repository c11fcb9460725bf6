"""What an operator gives to a party once: a token that names the hub by its fingerprints."""

import hashlib
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass

from comity.core.errors import ConfigError

PREFIX, SHA, CHECK = "comity-", 32, 4
_TEXT = re.compile(r"comity-([A-Za-z0-9_-]{40,1600})")


@dataclass(frozen=True, slots=True, repr=False)
class Invitation:
    """A one-time secret, for whom it is, and how to know the hub before it is sent.

    Attributes:
        secret: 32 bytes of OS entropy; the hub keeps its sha256 alone.
        hub: sha256 of the hub's Ed25519 public key, 32 bytes.
        certificate: sha256 of the hub's TLS certificate (DER), 32 bytes; zeros where an authority of the system
            vouches for it.
        name: the party's.

    Example:
        >>> given = Invitation(bytes(32), bytes(32), bytes(32), "ada")
        >>> Invitation.read(given.text()).name
        'ada'
        >>> given
        Invitation(of 'ada', ...)
    """

    secret: bytes
    hub: bytes
    certificate: bytes
    name: str

    def __repr__(self) -> str:
        return f"Invitation(of {self.name!r}, ...)"

    def text(self) -> str:
        """One word to copy; its end shows whether it was copied whole."""
        data = self.secret + self.hub + self.certificate + self.name.encode()
        return PREFIX + urlsafe_b64encode(data + _check(data)).decode().rstrip("=")

    @classmethod
    def read(cls, text: str) -> "Invitation":
        """From its text.

        Raises:
            ConfigError: it is none, or was not copied whole. The text is not shown.
        """
        found = _TEXT.fullmatch(text.strip()) if isinstance(text, str) else None
        try:
            data = urlsafe_b64decode(found[1] + "=" * (-len(found[1]) % 4)) if found else b""
            data, check = data[:-CHECK], data[-CHECK:]
            if len(data) <= 3 * SHA or check != _check(data):
                raise ValueError
            return cls(data[:SHA], data[SHA : 2 * SHA], data[2 * SHA : 3 * SHA], data[3 * SHA :].decode())
        except ValueError:
            raise ConfigError(
                "A token must be what comity hub invite printed. Got another, or a part of it. Copy all of it."
            ) from None


def _check(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()[:CHECK]
