"""A peer over a hub that cannot read: what it sends to each neighbour is sealed for that neighbour alone.

hello    round -1: the peer's X25519 public key, made anew in each folder; Ed25519 by its identity, of sha256 of
         (protocol, "hello", session, name, key)
letter   sha256 of (protocol, "letter", session, round, sender, receiver) is the statement
key      HKDF-SHA256 of X25519(mine, theirs), salt: sha256 of (protocol, session), info: the statement, 16 bytes
box      a nonce of 12 bytes, then AES-128-GCM of the message, tied to the statement

Whoever knows the key of neither peer can neither read a letter nor write one; the hub can delay or lose them, and sees
who writes to whom, when, and how much.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from comity.channels.identity import KEY, agreed, signed, usable
from comity.core.checks import part, path, refusal, text, whole
from comity.core.errors import ChannelError, ConfigError, WireError
from comity.core.parts import Participant, Secret
from comity.core.rng import digest
from comity.engines.peers import LOOK, Peers
from comity.ledger import folder as files
from comity.service.client import Client
from comity.service.joining import Pinned
from comity.service.mail import PIECE

PROTOCOL = "comity peers 1"
NONCE, HELLO = 12, -1


@dataclass(frozen=True)
class Session:
    """What peers agree on before they begin.

    Attributes:
        name: a word of their own, used once.
        peers: name to Ed25519 public key, 32 bytes, of all peers: not from the hub, or the hub could stand between any
            two of them. Their order is that of the ring.
        rounds: closed rounds at the end.

    Raises:
        ConfigError: a name that is none, a key of another length, or rounds < 0.
    """

    name: str
    peers: Mapping[str, bytes]
    rounds: int

    def __post_init__(self) -> None:
        text("name", "Session", self.name, what="a word that all peers use")
        object.__setattr__(self, "rounds", whole("rounds", "Session", self.rounds))
        keys = isinstance(self.peers, Mapping) and self.peers
        if not keys or not all(isinstance(key, bytes) and len(key) == KEY for key in self.peers.values()):
            raise refusal("peers", "Session", "names with Ed25519 public keys of 32 bytes", self.peers)


def peer(
    fed: Any,
    to: Pinned,
    participant: Participant,
    *,
    identity: Secret,
    session: Session,
    folder: str | Path,
) -> Any:
    """Take part among peers who hear each other directly: the hub carries sealed letters, and learns nothing.

    Each peer runs its own rounds over what its neighbours send it, as in one process with the same selection, and to
    the same bits. All begin with the same collaboration and session, in any order and at any time; a peer that was
    killed goes on when it is run again.

    Args:
        fed: the collaboration, as the others have it; its participants are not looked at.
        to: whom this party joined: `Pinned.read(identity)`.
        participant: this party's own, with its data.
        identity: this party's secret.
        session: what all peers agreed on.
        folder: where this peer keeps its run and the key of this session.

    Returns:
        The run, as `Collaboration.run` gives it; its state is that of this peer's own hub.

    Raises:
        ConfigError: who hears whom is not among peers, the channel hides what a neighbour sends, this party is not
            among the peers, or its key is another.
        ChannelError: a neighbour's key is not signed by the one that was given for it.

    Example:
        >>> import comity as co
        >>> from comity.ledger.keys import SideSecret
        >>> me, hub = SideSecret(bytes(32)), Pinned("https://hub.example", "hub", "ada", bytes(32), "")
        >>> model = co.Linear(inputs=2, classes=2)
        >>> fed, site = co.Collaboration(co.FedAvg(model)), co.Trainer(model, ([[0, 1]], [1]))
        >>> try:
        ...     peer(fed, hub, site, identity=me, session=Session("spring", {"ada": me.public_key()}, 3), folder="here")
        ... except co.ConfigError as error:
        ...     print(str(error)[:52])
        The 'select' must make each peer its own hub. Got Ev
    """
    part("fed", "peer", fed, ("replace()", "described()", "parts"), "a co.Collaboration")
    part("to", "peer", to, ("url", "name", "certificate"), "Pinned.read(identity)")
    part("session", "peer", session, ("name", "peers", "rounds"), "Session(name, peers, rounds)")
    where = path("folder", "peer", folder)
    _check(fed, to.name, identity, session.peers)
    mine = fed.replace(participants={to.name: participant})
    client = Client(to.url.rstrip("/"), to.name, identity, to.certificate)
    try:
        mail = SealedMail(client, session, identity=identity, folder=where)
        engine: Any = Peers(to.name, tuple(session.peers), mail, fed.select)
        return mine.run(session.rounds, folder=where / "run", engine=engine)
    finally:
        client.close()


def _check(fed: Any, me: str, identity: Secret, peers: Mapping[str, bytes]) -> None:
    if not getattr(fed.select, "peers", False):
        name = getattr(fed.select, "__name__", type(fed.select).__name__)
        raise ConfigError(f"The 'select' must make each peer its own hub. Got {name}. Use co.ring() or co.graph(...).")
    if fed.channel.reveals != "each":
        raise ConfigError(
            f"A peer sees what each neighbour sends. {type(fed.channel).__name__} hides that. Use channel=co.Plain()."
        )
    if peers.get(me) != identity.public_key():
        raise ConfigError(f"The 'peers' must hold '{me}' with this identity's public key. They do not. Add it.")


@dataclass(frozen=True)
class SealedMail:
    """A `Mail` over a hub's routes.

    Attributes:
        client: the line.
        session: what the peers agreed on.
        identity: of this peer.
        folder: where the key of this session lies.
    """

    client: Client
    session: Session
    identity: Secret = field(repr=False, kw_only=True)
    folder: Path = field(kw_only=True)
    _known: dict[str, bytes] = field(default_factory=dict, init=False, repr=False)
    _greeted: set[str] = field(default_factory=set, init=False, repr=False)

    def send(self, to: str, number: int, data: bytes) -> None:
        """Seal and send; what was sent first stays."""
        said = self._statement(number, self.client.name, to)
        nonce = os.urandom(NONCE)
        self._put(to, number, nonce + AESGCM(self._key(to, said)).encrypt(nonce, data, said))

    def there(self, senders: Sequence[str], number: int, seconds: float) -> Sequence[str]:
        """Whose letters are there."""
        for name in senders:
            self._greet(name)  # who only sends to me waits for it
        asked = [("session", self.session.name), ("round", str(number)), *(("from", name) for name in senders)]
        wait = int(min(LOOK, max(0.0, seconds)))
        got = self.client.ask("GET", f"/v1/mail?{urlencode([*asked, ('wait', str(wait))])}", wait=wait)
        found = got.told.get("there", [])
        return [name for name in senders if name in found]

    def fetch(self, sender: str, number: int) -> bytes:
        """Fetch and open.

        Raises:
            WireError: it was not sealed by this peer for me.
        """
        box, said = self._get(sender, number), self._statement(number, sender, self.client.name)
        try:
            return AESGCM(self._key(sender, said)).decrypt(box[:NONCE], box[NONCE:], said)
        except (InvalidTag, ValueError):
            raise WireError(f"A letter must be sealed by {sender} for this peer and round. It is not.") from None

    def _statement(self, number: int, sender: str, receiver: str) -> bytes:
        return digest(PROTOCOL, "letter", self.session.name, str(number), sender, receiver)

    def _key(self, other: str, said: bytes) -> bytes:
        if other not in self._known:
            self._known[other] = self._met(other)
        return agreed(self._private, self._known[other], digest(PROTOCOL, self.session.name), said)

    @property
    def _private(self) -> X25519PrivateKey:
        """The key of this session, made once in this folder: another folder never seals under the same."""
        place = self.folder / "peer.key"
        if not place.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            files.write(place, os.urandom(KEY), 0o600)
        return X25519PrivateKey.from_private_bytes(place.read_bytes())

    def _met(self, other: str) -> bytes:
        """The other's key of this session, once both have said hello."""
        while other not in self.there([other], HELLO, LOOK):
            pass
        said = self._get(other, HELLO)
        key, by = said[:KEY], said[KEY:]
        if not signed(self.session.peers[other], by, self._hello(other, key)) or not usable(key):
            raise ChannelError(
                f"The key of {other} must be signed by the identity that was given for it. It is not: the hub, or "
                "somebody else, stands between. Compare the fingerprints with each other, not by this network."
            )
        return key

    def _greet(self, other: str) -> None:
        if other not in self._greeted:
            self._greeted.add(other)
            mine = self._private.public_key().public_bytes_raw()
            self._put(other, HELLO, mine + self.identity.sign(self._hello(self.client.name, mine)))

    def _hello(self, name: str, key: bytes) -> bytes:
        return digest(PROTOCOL, "hello", self.session.name, name, key.hex())

    def _put(self, to: str, number: int, data: bytes) -> None:
        pieces = range(0, max(1, len(data)), PIECE)
        for i, at in enumerate(pieces):
            place = {"session": self.session.name, "to": to, "round": number, "piece": i, "pieces": len(pieces)}
            got = self.client.ask("POST", "/v1/mail", json.dumps(place).encode() + b"\n" + data[at : at + PIECE])
            if got.status != 200:
                raise ChannelError(f"The hub must take a letter to {to}. It said: {got.told.get('reason', got.status)}")

    def _get(self, sender: str, number: int) -> bytes:
        data, piece, pieces = bytearray(), 0, 1
        while piece < pieces:
            asked = {"session": self.session.name, "round": str(number), "from": sender, "piece": str(piece)}
            got = self.client.ask("GET", f"/v1/letter?{urlencode(asked)}")
            if got.status != 200 or not got.body:
                raise WireError(f"The letter of {sender} must be there whole. It is not.")
            head, data = got.body[:4], data + got.body[4:]
            pieces, piece = int.from_bytes(head, "little"), piece + 1
        return bytes(data)
