"""The engine between organisations, with its hub: a server in this process to which sites dial."""

import os
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

from comity.core.checks import number, part, path, refusal, text, whole
from comity.core.contribution import Contribution
from comity.core.envelope import Envelope
from comity.core.errors import ConfigError, LedgerError, WireError
from comity.core.parts import Engine, Roster, Secret
from comity.core.recipe import canonical
from comity.core.round import Round
from comity.core.wire import encode
from comity.engines.network import Carried, Turn
from comity.ledger import folder as files
from comity.ledger.blobs import Blobs
from comity.ledger.mailbox import Mailbox, Question
from comity.service import packets
from comity.service.doors import Doors, Known
from comity.service.helper import library
from comity.service.hub import Current, Hub, app
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
        url: as sites call it, "https://hub.example:8443"; "" for whatever address they used.
        certificate: a file of PEM certificates, with `key`; "" for plain HTTP, behind a server that ends TLS.
        key: the file of its private key, PEM.
        most: bytes of an answer at most, >= 1.
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
    linger: float = field(default=3.0, kw_only=True)
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
        object.__setattr__(self, "most", whole("most", "Network", self.most, 1))
        if bool(self.certificate) != bool(self.key):
            raise ConfigError("The 'certificate' and the 'key' of Network go together. Got one of them. Give both.")

    @property
    def names(self) -> list[str]:
        """Who may take part, sorted."""
        if isinstance(self.parties, Registry):
            return [party.name for party in self.parties.parties("approved")]
        return sorted(self.parties)

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
        if len(roster):
            raise ConfigError(
                f"The hub of a Network must have no participants of its own. Got {len(roster)}. "
                "Use fed.replace(participants={}); each site brings its own by co.join."
            )
        engine: Engine = Carried(_Post(self), [])
        return engine


def _public(name: str, key: Any) -> bytes:
    try:
        data = bytes.fromhex(key) if isinstance(key, str) else key
    except ValueError:
        data = None
    if isinstance(data, bytes) and len(data) == KEY:
        return data
    raise ConfigError(f"The public key of '{name}' must be 32 bytes or 64 hex digits. Got something else.")


class _Post:
    """The mailbox and the server that lets sites reach it."""

    def __init__(self, settings: Network) -> None:
        """Hold the folder, open the door."""
        self._settings, self._folder = settings, Path(settings.folder)
        self._lock = files.take(self._folder)
        try:
            box = Mailbox.open(self._folder)
            identity, blobs = settings.identity, Blobs(self._folder)
            hub = Hub(box, blobs, identity, doors=settings.doors, most=settings.most, url=settings.url)
            self._hub, self._server = hub, Served(hub, settings)
        except BaseException:
            os.close(self._lock)
            raise
        self._seen = 0
        self._names: list[str] = []
        self._last: tuple[Contribution | None, bytes, packets.Ref] = (None, b"", packets.Ref("", 0, ""))

    def begin(self, base: Round, recipe: Mapping[str, Any]) -> Sequence[str]:
        """Pin who takes part."""
        self._names = self._hub.box.begin(base.run, canonical(dict(recipe)), self._settings.names)
        if not self._names:
            raise ConfigError("A run needs parties. Got none that is approved. Invite some, and approve them.")
        self._hub.current = Current(base.run, recipe, frozenset(self._names))
        self._hub.wake()
        return self._names

    def put(self, turn: Turn, asked: Sequence[Envelope]) -> None:
        """Lay out the bodies, each once; sign the headers; one transaction."""
        questions, small = [], {}
        for message in asked:
            body, ref = self._laid(message.body)
            if ref.size <= packets.INLINE:
                small[ref.sha] = body
            else:
                self._hub.blobs.give(ref.sha, body)
            head = packets.header_of(message, ref, self._settings.identity)
            questions.append(Question(message.round.me, ref.sha, head))
        self._last = (None, b"", packets.Ref("", 0, ""))
        self._hub.blobs.forget(self._hub.box.offer(turn, questions, small))
        self._hub.wake()

    def _laid(self, body: Contribution) -> tuple[bytes, packets.Ref]:
        """The bytes of a body: of one that many are told, once."""
        known, data, ref = self._last
        if known is not body:
            data = encode(body)
            ref = packets.Ref(sha256(data).hexdigest(), len(data), "")
            self._last = (body, data, ref)
        return data, ref

    def replies(self, turn: Turn, after: int) -> Sequence[tuple[int, Envelope]]:
        """What was committed."""
        with self._hub.came:
            self._seen = self._hub.news
        return [(seq, self._opened(data)) for seq, data in self._hub.box.replies(turn, after)]

    def _opened(self, data: bytes) -> Envelope:
        """An answer whole; where its body is none, the member failed."""
        packet = packets.read(data)
        body = packet.body if packet.body is not None else self._hub.blobs.sent(packet.said.sender, packet.ref.sha)
        if body is None:
            raise LedgerError(f"An answer in {self._folder} must have its body. It is missing. Restore it from a copy.")
        try:
            return packets.opened(packet.said, body)
        except WireError as error:
            return replace(packet.said, body=Contribution("error", {"reason": f"It sent no contribution. {error}"}))

    def shut(self, turn: Turn) -> None:
        """Take no more answers."""
        self._hub.box.shut(turn)

    def wait(self, seconds: float) -> None:
        """Until something new was committed."""
        with self._hub.came:
            self._hub.came.wait_for(lambda: self._hub.news != self._seen, seconds)
        self._server.check()

    def heard(self) -> float:
        """When bytes last arrived."""
        return self._hub.heard

    def over(self) -> None:
        """Tell everybody who asks within a moment."""
        if self._hub.current is not None:
            self._hub.current.over = True
        self._hub.wake()
        ends = time.monotonic() + self._settings.linger
        while time.monotonic() < ends and not self._hub.told.issuperset(self._names):
            time.sleep(0.02)

    def close(self) -> None:
        """Close the door, let go of the folder."""
        self._server.close()
        self._hub.box.close()
        os.close(self._lock)


class Served:
    """A server in a thread of its own.

    Args:
        hub: what it serves.
        settings: where and how.
    """

    def __init__(self, hub: Hub, settings: Network) -> None:
        """Listen, and return once questions are taken."""
        lib, self._hub = library(), hub
        host, _, port = settings.bind.rpartition(":")
        self._door = _listening(host.strip("[]"), int(port))
        named = {"ssl_certfile": str(settings.certificate), "ssl_keyfile": str(settings.key)}
        tls: dict[str, Any] = dict(named) if settings.certificate else {}
        config = lib.uvicorn.Config(
            app(hub), log_level="warning", access_log=False, lifespan="off", proxy_headers=False, server_header=False,
            timeout_graceful_shutdown=1, timeout_keep_alive=75, **tls,
        )  # fmt: skip
        self._server, self._failed = lib.uvicorn.Server(config), ""
        self._server.capture_signals = _nothing  # they are the owner's
        self._thread = threading.Thread(target=self._run, name="comity hub", daemon=True)
        self._thread.start()
        while not self._server.started and self._thread.is_alive():
            time.sleep(0.005)
        self.check()
        if settings.tell is not None:
            at = f"[{host.strip('[]')}]" if ":" in host else host
            settings.tell(f"http{'s' if tls else ''}://{at}:{self._door.getsockname()[1]}")

    def check(self) -> None:
        """Is it there?"""
        if not self._thread.is_alive():
            raise ConfigError(f"The hub must be able to serve. It ended{self._failed}. Check certificate and port.")

    def close(self) -> None:
        """Answer what is open, and end."""
        self._hub.closing = True
        self._hub.wake()
        self._server.should_exit = True
        self._thread.join(10.0)
        self._door.close()

    def _run(self) -> None:
        import asyncio

        async def main() -> None:
            self._hub.loop = asyncio.get_running_loop()
            await self._server.serve(sockets=[self._door])

        try:
            asyncio.run(main())
        except (Exception, SystemExit) as error:  # noqa: BLE001  it is told by `check`
            self._failed = f": {error}"
        finally:
            self._hub.loop = None


def _nothing() -> Any:
    return nullcontext()


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    door = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # named, else asyncio leaves Nagle on: 40 ms
    try:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        door.bind((host, port))
        door.listen(2048)
    except (OSError, OverflowError) as error:
        door.close()
        raise ConfigError(
            f"The hub must be able to listen on {host}, port {port}. Got: {error}. Name another."
        ) from None
    return door
