"""A party's side: it dials its hub, answers what it agreed to, and keeps what it said before it says it.

    FOLDER/RUN/     what belongs to a run, see `answering`
    FOLDER/secret   of masks and noise, drawn at first use
    FOLDER/lock     one process at a time

The folder must last as long as the run, and is never put back from a copy: a site that forgot what it answered could be
asked for it again.
"""

import os
import threading
from collections.abc import Sequence
from pathlib import Path

from comity.core.checks import part, path
from comity.core.fits import contributes, data_fits, frozen_fits
from comity.core.parts import Participant, Secret
from comity.ledger import folder as files
from comity.service.answering import WAIT, Answering
from comity.service.client import Client, Stopped
from comity.service.joining import Pinned
from comity.service.limits import Limits as Limits
from comity.service.offers import Agenda, Offer, One, Taken, own

MOST = 20
"""Runs of others that are passed over at once."""
PAUSE = 0.5
"""Seconds before the hub is asked again for a run, where it did not keep the question open."""


def join(
    fed: object,
    to: Pinned,
    participant: Participant,
    *,
    identity: Secret,
    folder: str | Path,
    limits: Limits | None = None,
) -> None:
    """Take part in a hub's run, until it is over.

    The site answers for its own copy of the collaboration and no other: it never runs what a hub sends, and refuses a
    hub that runs another recipe. Nothing is open to the outside: it dials. While the hub is away it tries again.

    It tells the hub what it agrees to: the recipe, its limits, and what one round costs its examples, where the
    participant spends privacy. It keeps a copy of the hub's ledger, signs how far it has seen it, and ends if what was
    written before is changed: `comity audit FOLDER/RUN`, and `--against` it.

    Killed at any moment, the same again goes on; a question is answered once, whoever asks it again.

    Args:
        fed: the collaboration, as the hub has it; its participants are not looked at.
        to: whom this party joined: `Pinned.read(identity)`, after `comity join URL TOKEN`.
        participant: this party's own, with its data.
        identity: this party's secret: `read_identity(file)`; the hub knows its public key.
        folder: where this site keeps what it must not forget. It must last as long as the run.
        limits: beyond which it does not answer.

    `take_part(One(Taken(fed, participant)), ..., stop=event)` is the same, to be ended by another thread.

    Raises:
        ConfigError: the recipe is another one (the difference is said), the hub does not know this party, its
            certificate is not trusted, or another process uses the folder.
        LedgerError: the hub changed its ledger, or a file of the folder is damaged.

    Example:
        >>> import comity as co
        >>> from comity.ledger.keys import SideSecret
        >>> from comity.service.joining import Pinned
        >>> hub, me = Pinned("https://hub.example", "hub", "ada", bytes(32), ""), SideSecret(bytes(range(32)))
        >>> model = co.Linear(inputs=2, classes=2)
        >>> fed, site, agreed = co.Collaboration(co.FedAvg(model)), co.Trainer(model, ([[0, 1]], [1])), "0" * 64
        >>> try:
        ...     co.join(fed, hub, site, identity=me, folder="here", limits=co.Limits(recipe=agreed))
        ... except co.ConfigError as error:
        ...     print(str(error)[:42])
        The recipe must be the approved one, 00000
    """
    runner(fed, to, participant, identity=identity, folder=folder, limits=limits).run()


def take_part(
    agenda: Agenda, to: Pinned, *, identity: Secret, folder: str | Path, stop: threading.Event | None = None
) -> None:
    """Take part in a hub's runs, as an agenda says: `join` for more than one.

    Args:
        agenda: in which, and with what.
        to: as of `join`, like the others.
        identity: this party's secret.
        folder: of this site, for all runs.
        stop: set by another thread, it ends this call within a second or the work in hand.

    Raises:
        ConfigError: as of `join`, or the agenda refuses.
        LedgerError: as of `join`.
    """
    if stop is not None:
        part("stop", "take_part", stop, ("wait()", "is_set()"), "threading.Event()")
    one = TakingPart(agenda, to, identity, path("folder", "take_part", folder))
    one.watched_by(stop)
    one.run()


def runner(
    fed: object,
    to: Pinned,
    participant: Participant,
    *,
    identity: Secret,
    folder: str | Path,
    limits: Limits | None = None,
) -> "TakingPart":
    """As `join`, not begun."""
    given = Limits() if limits is None else limits
    part("fed", "join", fed, ("replace()", "described()", "parts"), "a co.Collaboration")
    part("limits", "join", given, ("check()", "recipe"), "co.Limits()")
    where = path("folder", "join", folder)
    _fits(to, identity)
    contributes(to.name, participant)
    taken = Taken(fed, participant, given)
    own(taken)
    _data_fits(to.name, taken)
    return TakingPart(One(taken), to, identity, where)


class TakingPart:
    """A site and its agenda.

    Args:
        agenda: in which runs, and with what.
        to: the hub.
        identity: this party's.
        folder: of this site.
    """

    def __init__(self, agenda: Agenda, to: Pinned, identity: Secret, folder: Path) -> None:
        """Nothing is asked yet."""
        part("agenda", "take_part", agenda, ("find()", "stay"), "an Agenda")
        _fits(to, identity)
        self.agenda, self.to, self.identity, self.folder = agenda, to, identity, folder
        self.client = Client(to.url.rstrip("/"), to.name, identity, to.certificate)
        self._watched = False

    def watched_by(self, stop: threading.Event | None) -> None:
        """Another thread may end it."""
        if stop is not None:
            self.client.stop, self._watched = stop, True

    def run(self) -> None:
        """Until there is no more to do, or somebody says stop.

        Raises:
            ConfigError: the hub runs another recipe, or does not know this party; or the folder is in use.
            LedgerError: the hub changed its ledger, or a file is damaged.
        """
        lock = files.take(self.folder)
        try:
            if not self._watched:
                self._take_part()
            else:
                with self.client.stoppable():
                    self._take_part()
        except Stopped:
            return
        finally:
            self.client.close()
            os.close(lock)

    def _take_part(self) -> None:
        skipped: list[str] = []
        before = ""
        while True:
            offer = self._offer(skipped)
            taken = self.agenda.find(offer)
            if taken is None:
                skipped = [*skipped[-MOST:], offer.run]
                continue
            if before == offer.run and self.client.stop.wait(PAUSE):  # its end and the next word of it may cross
                raise Stopped
            before = offer.run
            if self._one(offer, taken) and not self.agenda.stay:
                return

    def _offer(self, skipped: Sequence[str]) -> Offer:
        """Wait for a run, other than these."""
        query = f"?wait={WAIT}" + "".join(f"&after={run}" for run in skipped)
        while True:
            got = self.client.ask("GET", f"/v1/run{query}", wait=WAIT)
            if got.status == 200:
                return Offer.read(got.told)
            if self.client.stop.wait(PAUSE if got.status != 204 else 0.0):
                raise Stopped

    def _one(self, offer: Offer, taken: Taken) -> bool:
        """Take part in one run. Returns: did it come to its end?"""
        contributes(self.to.name, taken.participant)
        _data_fits(self.to.name, taken)
        one = Answering(self.client, offer, taken, self.identity, hub=self.to.key, folder=self.folder)
        if not one.agree():
            return False
        while one.step():
            pass
        return one.over


def _fits(to: Pinned, identity: Secret) -> None:
    part("to", "join", to, ("url", "name", "key", "certificate"), "Pinned.read(identity)")
    part("identity", "join", identity, ("sign()", "public_key()", "key()", "rng()"), "read_identity(file)")


def _data_fits(name: str, taken: Taken) -> None:
    data_fits(name, taken.participant)
    frozen_fits(taken.fed.method, name, taken.participant)
