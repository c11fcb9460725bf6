"""The engine between organisations, with its hub: a server in this process to which sites dial."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from comity.core.checks import number, part, path, refusal, text, whole
from comity.core.envelope import Envelope
from comity.core.errors import ConfigError
from comity.core.parts import Engine, Roster, Secret
from comity.service.doors import Doors, Known
from comity.service.registry import Registry

KEY = 32


@dataclass(frozen=True)
class Network:
    """Carries between organisations: a hub in this process, to which sites dial out (`join`).

    What is asked and answered lies in a database before anybody is told, so that hub and sites may be killed at any
    moment: run the same again and it goes on, with no round lost and nothing counted twice. The hub gives what `Local`
    gives for the same contributions, to the bit. The collaboration that it runs has no participants of its own.

    Attributes:
        bind: where to listen, "host:port"; port 0 for any that is free.
        folder: where questions and answers are kept; one hub at a time uses it, and one run after the other.
        identity: the hub's secret, which signs what is asked: `SideSecret`, for one.
        parties: a `Registry` of the hub, whose approved parties may ask; or name to Ed25519 public key, 32 bytes or
            64 hex digits. Those take part who are here when a run begins.
        url: as sites call it, "https://hub.example:8443", which is what they sign; "" on this machine alone.
        certificate: a file of PEM certificates, with `key`; "" for plain HTTP, behind a server that ends TLS.
        key: the file of its private key, PEM.
        most: bytes of an answer at most, >= 1.
        minimum: how many must have agreed before the first round: those who did take part. 0: all take part at once;
            then no site can bring a participant that spends privacy of its own.
        linger: seconds to wait at the end of a run until everybody knows that it is over, >= 0.
        tell: is given the URL once questions are taken.

    Raises:
        ConfigError: a setting does not fit; and when it is run, the folder is in use, or the port is taken.

    Example:
        >>> import comity as co
        >>> from comity.ledger.keys import SideSecret
        >>> hub, ada = SideSecret(bytes(32)), SideSecret(bytes(range(32)))
        >>> co.Network("127.0.0.1:0", "hub", identity=hub, parties={"ada": ada.public_key()}).names
        ['ada']
    """

    bind: str
    folder: str | Path
    identity: Secret = field(repr=False, kw_only=True)
    parties: Registry | Mapping[str, bytes | str] = field(kw_only=True, repr=False)
    url: str = field(default="", kw_only=True)
    certificate: str | Path = field(default="", kw_only=True)
    key: str | Path = field(default="", kw_only=True)
    most: int = field(default=2**31, kw_only=True)
    minimum: int = field(default=0, kw_only=True)
    linger: float = field(default=10.0, kw_only=True)
    tell: Callable[[str], None] | None = field(default=None, kw_only=True, repr=False)
    remote: ClassVar[bool] = True

    def __post_init__(self) -> None:
        text("bind", "Network", self.bind, hint='Use "0.0.0.0:8443", for one.')
        object.__setattr__(self, "folder", path("folder", "Network", self.folder))
        part("identity", "Network", self.identity, ("sign()", "public_key()"), "read_identity(file)")
        for name in ("url", "certificate", "key"):
            if not isinstance(getattr(self, name), str | Path):
                raise refusal(name, "Network", "text", getattr(self, name), 'Use "" for none.')
        object.__setattr__(self, "linger", number("linger", "Network", self.linger, "[0, inf)"))
        if self.tell is not None:
            part("tell", "Network", self.tell, ("()",), "print, for one")
        if not self.bind.rpartition(":")[2].isdecimal() or not self.bind.rpartition(":")[0]:
            raise refusal("bind", "Network", "host:port", self.bind, 'Use "0.0.0.0:8443", for one.')
        if isinstance(self.parties, Mapping):
            object.__setattr__(self, "parties", {str(n): _public(str(n), k) for n, k in self.parties.items()})
        elif not isinstance(self.parties, Registry):
            raise refusal("parties", "Network", "a Registry, or a mapping of names to public keys", self.parties)
        object.__setattr__(self, "minimum", whole("minimum", "Network", self.minimum))
        object.__setattr__(self, "most", whole("most", "Network", self.most, 1))
        if bool(self.certificate) != bool(self.key):
            raise ConfigError("The 'certificate' and the 'key' of Network go together. Got one of them. Give both.")

    @property
    def names(self) -> list[str]:
        """Who may take part, sorted."""
        if isinstance(self.parties, Registry):
            return [party.name for party in self.parties.parties("approved") if "party" in party.roles]
        return sorted(self.parties)

    @property
    def files(self) -> tuple[str, ...]:
        """Certificate and key; () for none."""
        return (str(self.certificate), str(self.key)) if self.certificate else ()

    @property
    def doors(self) -> Doors:
        """Who may ask."""
        known: Any = self.parties
        return known if isinstance(known, Registry) else Known(known)

    @property
    def choice(self) -> Mapping[str, Any]:
        """How the work is done: a fact for the ledger."""
        return {"executor": "sites", "workers": len(self.names), "reason": "asked for", "engine": "network"}

    def connect(self, roster: Roster, answer: Callable[[Envelope], Envelope]) -> Engine:
        """The engine, its hub listening.

        Args:
            roster: of the collaboration, without anybody: the participants are at the sites.
            answer: the door of sites in this process: there are none.
        """
        from comity.service.station import nobody, once

        nobody(roster)
        return once(self, self.minimum)


def _public(name: str, key: Any) -> bytes:
    try:
        data = bytes.fromhex(key) if isinstance(key, str) else key
    except ValueError:
        data = None
    if isinstance(data, bytes) and len(data) == KEY:
        return data
    raise ConfigError(f"The public key of '{name}' must be 32 bytes or 64 hex digits. Got something else.")
