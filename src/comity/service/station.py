"""A hub that lives: one port, one database, one run after the other."""

import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from comity.core.envelope import Envelope
from comity.core.errors import ComityError, ConfigError
from comity.core.parts import Engine, Roster, Secret
from comity.engines.network import Carried
from comity.ledger import copies
from comity.ledger import folder as files
from comity.ledger.blobs import Blobs, Bodies, StoreAway
from comity.service.database import NAME, Database
from comity.service.hub import Hub
from comity.service.network import Network
from comity.service.posting import Desk, Halted, Work, surely
from comity.service.registry import Registry
from comity.service.serving import Served
from comity.service.settings import HubSettings
from comity.service.versions import check
from comity.service.waking import Ear

LOOK, MOMENT = 0.2, 0.3
_LOOPBACK = re.compile(r"127\.\d+\.\d+\.\d+|localhost|\[?::1\]?")


class Station:
    """A hub at work: sites may dial from now on, and runs be carried one after the other.

    With PostgreSQL several processes may be stations of one hub: whichever a site asks, it is answered, and what one
    process writes wakes the others. A run is carried by the process that holds its folder (see `holding`).

    Args:
        settings: where and how; its `minimum` is not looked at.
        routes: more of them, see `hub.app`.
        name: the hub's.
        gate: a file of certificates, PEM: only callers with a certificate of theirs get through TLS. "" for all.
        blobs: URL of a store for large bodies, see `Objects`; "" for the folder.

    Attributes:
        db: everything that must not be lost.
        registry: who belongs to the hub; None where the parties are given by their keys.
        hub: what is served.
        ending: set it, and what is carried ends after the round that is open, to go on another time.

    Raises:
        ConfigError: the folder is in use, the port is taken, no `url` is set and others than this machine may call, or
            the store of large bodies cannot be used.

    Example:
        >>> import tempfile
        >>> from comity.ledger.keys import SideSecret
        >>> hub, ada = SideSecret(bytes(32)), SideSecret(bytes(range(32)))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     settings = Network("127.0.0.1:0", folder, identity=hub, parties={"ada": ada.public_key()})
        ...     with Station(settings) as station:
        ...         station.approved, station.runs.all()
        (['ada'], [])
    """

    def __init__(
        self, settings: Network, routes: Sequence[Any] = (), *, name: str = "hub", gate: str = "", blobs: str = ""
    ) -> None:
        """Open the door."""
        self.settings, self.folder, self.ending = settings, Path(settings.folder), False
        self._files = (*settings.files, gate) if gate else settings.files
        host = settings.bind.rpartition(":")[0]
        if not settings.url and not _LOOPBACK.fullmatch(host):
            raise ConfigError(
                f"A hub that others than this machine can call must have a url, which is what they sign. It listens on "
                f'{host}. Use url="https://HOST:PORT", as they call it.'
            )
        self._shut: list[Callable[[], Any]] = []
        self._over: list[tuple[str, Sequence[str]]] = []
        try:
            self._open(settings, routes, name, blobs)
        except BaseException:
            self.close()
            raise
        if settings.tell is not None:
            settings.tell(self._served.at)

    def _open(self, settings: Network, routes: Sequence[Any], name: str, blobs: str) -> None:
        parties = settings.parties
        self.registry = parties if isinstance(parties, Registry) else None
        shared = self.registry is not None and _shared(self.registry.db, self.folder)
        alone = not (shared and self.registry is not None and self.registry.db.url)
        if alone:
            lock = files.take(self.folder)  # of a folder; PostgreSQL may have several processes
            self._shut.append(lambda: os.close(lock))
        if shared and self.registry is not None:
            self.db = self.registry.db
        else:
            self.db = Database.open(self.folder)
            self._shut.append(self.db.close)
        check(self.db)
        bodies = _bodies(self.folder, blobs, settings.identity)
        self.hub = Hub(self.db, bodies, settings.identity, doors=settings.doors, most=settings.most,
                       url=settings.url)  # fmt: skip
        self.hub.name = name
        self._shut.append(self.hub.close)
        _swept(self.hub, alone)
        self._served = Served(self.hub, settings.bind, self._files, routes)
        self._shut.append(self._served.close)
        if self.db.url:
            self._shut.append(Ear(self.db).close)

    @classmethod
    def open(
        cls, settings: HubSettings, routes: Sequence[Any] = (), *, tell: Callable[[str], None] | None = None
    ) -> "Station":
        """That of a hub's folder, as `hub.toml` says.

        Args:
            settings: of the hub.
            routes: more of them, see `hub.app`.
            tell: is given the address once questions are taken.

        Raises:
            ConfigError: see above; or the hub's key cannot be read.
        """
        secret, registry = settings.secret(), Registry.open(settings.database or settings.folder)
        try:
            at = f"[{settings.host}]" if ":" in settings.host else settings.host
            named: dict[str, Any] = {"certificate": settings.certificate or "", "key": settings.certificate_key or ""}
            network = Network(f"{at}:{settings.port}", settings.folder, identity=secret, parties=registry, tell=tell,
                              url=settings.url, **named)  # fmt: skip
            made = cls(network, routes, name=settings.name, gate=str(settings.mutual_tls or ""),
                       blobs=settings.blobs)  # fmt: skip
        except BaseException:
            registry.close()
            raise
        made._shut.insert(0, registry.close)
        return made

    @property
    def runs(self) -> Any:
        """The runs of the hub: `Runs`."""
        return self.hub.runs

    @property
    def box(self) -> Any:
        """Questions and answers: `Mailbox`."""
        return self.hub.box

    @property
    def blobs(self) -> Bodies:
        """Large bodies."""
        return self.hub.blobs

    @property
    def identity(self) -> Any:
        """The hub's secret."""
        return self.hub.identity

    @property
    def url(self) -> str:
        """As parties call it."""
        return self.settings.url or self._served.at

    @property
    def approved(self) -> list[str]:
        """Who may take part, sorted."""
        return self.settings.names

    def carrying(
        self,
        *,
        title: str = "",
        about: Mapping[str, Any] | None = None,
        folder: str | Path = "",
        parties: Sequence[str] | None = None,
        minimum: int | None = None,
    ) -> "Carrying":
        """An engine for one run: `fed.run(rounds, folder=folder, engine=station.carrying(folder=folder))`.

        It offers the run, waits for agreements, pins who takes part, and carries it. While an operator wishes it to
        pause it waits between rounds; wished to stop, it ends after the round that is open, or within it (`Halted`).

        Args:
            title: what people call the run.
            about: what else parties are told, JSON.
            folder: where the run's ledger lies, so that parties can fetch it.
            parties: who is invited; None for all that are approved, those too that come while it waits.
            minimum: how many must agree before it begins, >= 1; None for all that are invited.

        Raises:
            ConfigError: `minimum` is less than 1.
        """
        if minimum is not None and minimum < 1:
            raise ConfigError(f"A run must wait for at least 1 party. Got {minimum}. Use None for all.")
        invited = None if parties is None else tuple(sorted(set(parties)))
        return Carrying(self, Work(title, dict(about or {}), str(folder), invited, minimum))

    @contextmanager
    def holding(self, folder: str | Path) -> Iterator[None]:
        """Wait until no other process carries the run of this folder, then hold it: where one dies, another goes on.

        Raises:
            Halted: the hub is ending.
        """
        while True:
            with suppress(ConfigError):
                lock = files.take(Path(folder) / "carried")
                break
            self.check()
            if self.ending:
                raise Halted(f"{folder} is carried by another process. The hub ended before it was this one's turn.")
            time.sleep(LOOK)
        try:
            yield
        finally:
            os.close(lock)

    def check(self) -> None:
        """Does it serve?

        Raises:
            ConfigError: it does not any more.
        """
        self._served.check()

    def let_go(self, run: str, names: Sequence[str]) -> None:
        """A run is over: they are told when they ask, see `farewell`."""
        if names:
            self._over.append((run, names))

    def farewell(self) -> None:
        """Before the end: wait a moment until all know what is over, and have signed for the whole ledger."""
        ends = time.monotonic() + self.settings.linger
        for run, names in self._over:
            everybody = {(run, name) for name in names}
            while time.monotonic() < ends and not self.hub.told.issuperset(everybody):
                time.sleep(0.02)
            whole = _entries(self.hub, run)
            while time.monotonic() < ends and not _signed(self.hub, run, names, whole):
                time.sleep(0.02)
        self._over.clear()
        time.sleep(min(MOMENT, self.settings.linger))  # the last answers are on their way

    def close(self) -> None:
        """Close the door, let go of everything."""
        while self._shut:
            self._shut.pop()()

    def __enter__(self) -> "Station":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True)
class Carrying:
    """An engine for one run at a station, see `Station.carrying`."""

    station: Station
    work: Work
    remote: ClassVar[bool] = True

    @property
    def choice(self) -> Mapping[str, Any]:
        """How the work is done: a fact for the ledger."""
        parties = self.work.parties
        workers = len(surely(self.station, lambda: self.station.approved) if parties is None else parties)
        return {"executor": "sites", "workers": workers, "reason": "asked for", "engine": "network"}

    def connect(self, roster: Roster, answer: Callable[[Envelope], Envelope]) -> Engine:
        """The engine.

        Args:
            roster: of the collaboration, without anybody: the participants are at the sites.
            answer: the door of sites in this process: there are none.
        """
        nobody(roster)
        engine: Engine = Carried(Desk(self.station, self.work), [])
        return engine


@dataclass(frozen=True)
class Once:
    """A station that carries one run, and closes after it."""

    station: Station

    @property
    def hub(self) -> Hub:
        """What it serves."""
        return self.station.hub

    @property
    def ending(self) -> bool:
        """Is it to end after the round that is open?"""
        return self.station.ending

    @property
    def approved(self) -> list[str]:
        """Who may take part, sorted."""
        return self.station.approved

    def check(self) -> None:
        """Does it serve?"""
        self.station.check()

    def let_go(self, run: str, names: Sequence[str]) -> None:
        """All are told; then it closes."""
        self.station.let_go(run, names)
        try:
            self.station.farewell()
        finally:
            self.station.close()


def once(settings: Network, minimum: int) -> Engine:
    """An engine with a station of its own."""
    engine: Engine = Carried(Desk(Once(Station(settings)), Work(minimum=minimum, kept=False)), [])
    return engine


def _entries(hub: Hub, run: str) -> int:
    """How long the ledger of a run is; 0 where it is not kept, or cannot be read now."""
    with suppress(ComityError, OSError):
        row = hub.runs.find(run)
        if row is not None and row.folder:
            return len(copies.entries_after(Path(row.folder), 0, 2**31)[1])
    return 0


def _signed(hub: Hub, run: str, names: Sequence[str], whole: int) -> bool:
    """Has everybody signed for so many entries?"""
    if not whole:
        return True
    try:
        heads = hub.runs.heads(run)
    except ComityError:
        return True
    return all(name in heads and heads[name].entries >= whole for name in names)


def _bodies(folder: Path, url: str, identity: Secret) -> Bodies:
    """Where large bodies lie."""
    if not url:
        return Blobs(folder)
    from comity.ledger.objects import Objects

    return Objects(folder, url, identity.public_key().hex()[:16])


def _swept(hub: Hub, alone: bool) -> None:
    """What a hub that was killed left behind is removed."""
    try:
        hub.blobs.sweep(hub.box.needed, alone=alone)
    except StoreAway as away:
        raise ConfigError(f"{away} Check 'blobs' in hub.toml, and who may use it.") from None


def nobody(roster: Roster) -> None:
    """A hub has no participants of its own.

    Raises:
        ConfigError: it has.
    """
    if len(roster):
        raise ConfigError(
            f"The hub of a Network must have no participants of its own. Got {len(roster)}. "
            "Use fed.replace(participants={}); each site brings its own by co.join."
        )


def _shared(db: Database, folder: Path) -> bool:
    """Is this database that of the hub in this folder?"""
    return bool(db.url) or Path(db.where).resolve() == (folder / NAME).resolve()
