"""A party's side: it dials its hub, answers what it agreed to, and keeps what it said before it says it.

    FOLDER/RUN/drawer   what the site keeps between rounds, the last answer included where it changed something
    FOLDER/RUN/said     the last answer, where it changed nothing
    FOLDER/lock         one process at a time

A question is answered once: asked again after a restart, of either side, it is given the same bytes.
"""

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from comity.channels.identity import signed
from comity.core.checks import part, path, refusal, whole
from comity.core.contribution import Contribution
from comity.core.envelope import Envelope
from comity.core.errors import ChannelError, ConfigError, ContributionError, WireError
from comity.core.fits import contributes, data_fits, frozen_fits
from comity.core.parts import Participant, Secret
from comity.core.recipe import differences, recipe
from comity.core.wire import decode_tree, encode, encode_tree
from comity.ledger import folder as files
from comity.loop.site import EMPTY, Drawer, Site, drawer_tree, failure, tree_drawer
from comity.service import packets
from comity.service.client import Client, Stopped
from comity.service.joining import Pinned

WAIT = 25
"""Seconds of a poll."""
_HASH = re.compile("(sha256:)?[0-9a-f]{16,64}")


@dataclass(frozen=True)
class Limits:
    """What a site agrees to; beyond it, it answers with a refusal, and the run goes on without it.

    Attributes:
        recipe: the hash of the recipe that was approved, "sha256:..." or its first 16 digits or more; "" for that of
            the site's own copy.
        cohort: the fewest that are asked together, >= 1.
        rounds: how many at most; None for any number.

    Raises:
        ConfigError: a number out of range.

    Example:
        >>> import comity as co
        >>> co.Limits(cohort=5).cohort
        5
    """

    recipe: str = ""
    cohort: int = 1
    rounds: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.recipe, str) or (self.recipe and not _HASH.fullmatch(self.recipe)):
            hint = "Give 16 to 64 digits, as co.recipe(fed) says."
            raise refusal("recipe", "Limits", "the sha256 of a recipe in hex, or its beginning", self.recipe, hint)
        object.__setattr__(self, "cohort", whole("cohort", "Limits", self.cohort, 1))
        if self.rounds is not None:
            object.__setattr__(self, "rounds", whole("rounds", "Limits", self.rounds))

    def check(self, asked: Envelope) -> None:
        """Is this within the limits?

        Raises:
            ContributionError: it is not; the hub is told.
        """
        turn = asked.round
        if turn.asked < self.cohort:
            raise ContributionError(f"This site answers in cohorts of at least {self.cohort}. Got {turn.asked}.")
        last = turn.number - (asked.phase == "score")
        if self.rounds is not None and last >= self.rounds:
            raise ContributionError(f"This site takes part in at most {self.rounds} rounds.")


def join(
    fed: Any,
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

    Args:
        fed: the collaboration, as the hub has it; its participants are not looked at.
        to: whom this party joined: `Pinned.read(identity)`, after `comity join URL TOKEN`.
        participant: this party's own, with its data.
        identity: this party's secret: `read_identity(file)`; the hub knows its public key.
        folder: where this site keeps what it must not forget. It must last as long as the run.
        limits: beyond which it does not answer.

    Raises:
        ConfigError: the recipe is another one (the difference is said), the hub does not know this party, its
            certificate is not trusted, or another process uses the folder.

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


def runner(
    fed: Any,
    to: Pinned,
    participant: Participant,
    *,
    identity: Secret,
    folder: str | Path,
    limits: Limits | None = None,
) -> "Runner":
    """As `join`, not begun: its `client.stop` ends it from another thread."""
    given = Limits() if limits is None else limits
    part("fed", "join", fed, ("replace()", "described()", "parts"), "a co.Collaboration")
    part("to", "join", to, ("url", "name", "key", "certificate"), "Pinned.read(identity)")
    part("identity", "join", identity, ("sign()", "public_key()", "key()", "rng()"), "read_identity(file)")
    part("limits", "join", given, ("check()", "recipe"), "co.Limits()")
    where = path("folder", "join", folder)
    contributes(to.name, participant)
    ours, approved = recipe(fed.replace(participants={})), given.recipe.removeprefix("sha256:")
    if not ours["hash"].startswith(approved):
        raise ConfigError(f"The recipe must be the approved one, {approved:.64}. Got {ours['hash']}. Read it again.")
    if hasattr(participant, "spend"):
        raise ConfigError(
            "A participant must not spend privacy of its own over a network yet: the hub could not charge it. "
            f"Got {type(participant).__name__}. Use noise on the sum, such as co.DiscreteGaussian, or one process."
        )
    data_fits(to.name, participant)
    frozen_fits(fed.method, to.name, participant)
    client = Client(to.url.rstrip("/"), to.name, identity, to.certificate)
    site = Site(to.name, participant, fed.parts, identity)
    return Runner(client, site, ours, hub=to.key, folder=where, limits=given)


class Runner:
    """Asks, answers, and keeps.

    Args:
        client: the line.
        site: who answers.
        agreed: the recipe of this site's own copy.
        hub: the hub's public key.
        folder: of this site.
        limits: beyond which it does not answer.
    """

    def __init__(
        self,
        client: Client,
        site: Site,
        agreed: Mapping[str, Any],
        *,
        hub: bytes,
        folder: Path,
        limits: Limits,
    ) -> None:
        """Nothing is asked yet."""
        self.client, self.site, self.agreed, self.hub = client, site, agreed, hub
        self.folder, self.limits = folder, limits
        self._drawers: dict[str, Drawer] = {}

    def run(self) -> None:
        """Until the run is over, or somebody says stop.

        Raises:
            ConfigError: the hub runs another recipe, or does not know this party; or the folder is in use.
        """
        lock = files.take(self.folder)
        try:
            self._agree()
            while self.step():
                pass
        except Stopped:
            return
        finally:
            self.client.close()
            os.close(lock)

    def step(self) -> bool:
        """One poll, and the answer to what it brought. Returns: is there more to come?"""
        got = self.client.ask("GET", f"/v1/tasks?wait={WAIT}", wait=WAIT)
        if got.status == 204:
            return True
        try:
            packet = packets.read(got.body)
            self._check(packet)
            if packet.said.phase == "over":
                return False
            self._answer(packet)
        except (WireError, ChannelError) as error:
            sys.stderr.write(f"{self.site.name}: {error}\n")
            if self.client.stop.wait(1.0):
                raise Stopped from None
        return True

    def _agree(self) -> None:
        """Wait for a run; is it the one that was agreed?"""
        while (got := self.client.ask("GET", "/v1/recipe")).status == 404:
            if self.client.stop.wait(0.5):
                raise Stopped
        theirs = got.told.get("recipe")
        self._same(theirs if isinstance(theirs, Mapping) else {})

    def _same(self, theirs: Mapping[str, Any]) -> None:
        if theirs.get("hash") != self.agreed["hash"] or differences(dict(self.agreed), dict(theirs)):
            lines = differences(dict(self.agreed), dict(theirs)) or [f"hash: {theirs.get('hash')!s:.64}"]
            raise ConfigError(
                "The hub must run the recipe of this site. It differs (ours → theirs): " + "; ".join(lines[:10])
            )

    def _check(self, packet: packets.Packet) -> None:
        """Did the hub say this, and to me?

        Raises:
            ChannelError: it did not.
            ConfigError: it asks under another recipe.
        """
        said = packet.said
        if not signed(self.hub, said.signature, packets.bare(said)) or said.round.me != self.site.name:
            raise ChannelError(
                "What is asked must be signed by the hub, for this site. It is not, and is not answered."
            )
        if said.phase != "over" and said.recipe != self.agreed["hash"]:
            self._agree()
            raise ChannelError("The hub must ask under the recipe that it shows. It does not.")

    def _answer(self, packet: packets.Packet) -> None:
        """What was said before, or the site's answer, kept before it is sent."""
        place = self.folder / packet.said.round.run[:64]
        said = self._said(place, packet)
        if said is None:
            said = self._new(place, packet)
        self._deliver(*said)

    def _said(self, place: Path, packet: packets.Packet) -> tuple[bytes, packets.Ref, bytes] | None:
        path = place / "said"
        if not path.exists():
            return None
        size = int.from_bytes((data := path.read_bytes())[:4], "little")
        head, body = data[4 : 4 + size], data[4 + size :]
        known = packets.read(packets.joined(head, packets.Ref("", len(body), ""), body))
        same = known.said.key == packet.said.key and known.said.round.hub == packet.said.round.hub
        return (head, known.ref, body) if same and known.ref.asked == packet.ref.sha else None

    def _new(self, place: Path, packet: packets.Packet) -> tuple[bytes, packets.Ref, bytes]:
        place.mkdir(parents=True, exist_ok=True)
        body = packet.body
        if body is None:
            body = self.client.fetch(packet.ref.sha, packet.ref.size, place)
        asked, drawer = packets.opened(packet.said, body), self._drawer(place)
        try:
            self.limits.check(asked)
            reply, after = self.site.answer(replace(asked, signature=b""), drawer)
        except ContributionError as error:
            reply, after = Envelope(asked.round, asked.phase, self.site.name, asked.recipe, failure(error)), drawer
        laid = _laid(reply.body)
        head, ref = packets.header(reply, laid, asked=packet.ref.sha)
        if after is not drawer:
            files.write(place / "drawer", encode_tree(drawer_tree(after)), 0o600)
            self._drawers[place.name] = after
        if after.pending is None or after.pending.key != asked.key:
            files.write(place / "said", len(head).to_bytes(4, "little") + head + laid, 0o600)
        return head, ref, laid

    def _drawer(self, place: Path) -> Drawer:
        if place.name not in self._drawers:
            path = place / "drawer"
            self._drawers[place.name] = tree_drawer(decode_tree(path.read_bytes())) if path.exists() else EMPTY
        return self._drawers[place.name]

    def _deliver(self, head: bytes, ref: packets.Ref, body: bytes) -> None:
        """Until the hub has it, or does not want it."""
        for _ in range(3):
            if ref.size > packets.INLINE:
                self.client.send(ref.sha, body)
            got = self.client.ask("POST", "/v1/reply", packets.joined(head, ref, body))
            if got.status == 200:
                return
            if not got.told.get("missing"):
                raise ChannelError(f"The hub did not take the answer. It said: {got.told.get('reason', got.status)}")


def _laid(body: Contribution) -> bytes:
    """An answer as bytes; what cannot travel is a refusal."""
    try:
        return encode(body)
    except ConfigError as error:
        return encode(failure(error))
