"""One run at one site: every question is written down before it is answered, and answered once.

FOLDER/RUN/agreed.json    what the site agreed to
FOLDER/RUN/spends.jsonl   what it was asked, what it spent (see `diary`)
FOLDER/RUN/drawer         what it keeps between rounds, the last answer included where it changed something
FOLDER/RUN/said           the last answer, where it changed nothing
FOLDER/RUN/ledger.jsonl   its copy of the hub's ledger (see `watching`)
"""

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from comity.channels.identity import signed
from comity.charging import Charging
from comity.core.envelope import Envelope
from comity.core.errors import ChannelError, ConfigError, ContributionError, LedgerError, WireError
from comity.core.parts import Secret
from comity.core.recipe import canonical
from comity.core.wire import Data, decode_tree, encode, encode_tree
from comity.ledger import folder as files
from comity.loop.site import EMPTY, Drawer, Site, drawer_tree, failure, tree_drawer
from comity.service import packets
from comity.service.client import Client, Stopped, plain
from comity.service.diary import NAME as DIARY
from comity.service.diary import Asked, Diary
from comity.service.limits import Meter, declared
from comity.service.offers import Offer, Taken, same
from comity.service.runsecret import RunSecret, said
from comity.service.watching import Watch

AGREED = "agreed.json"
WAIT = 25
"""Seconds of a poll."""
_OLD = "This was answered before, and its answer is no longer kept: it is answered once. Ask in another attempt."
_OTHER = "Something else was asked for the same round and attempt, and answered: nothing is answered twice."


class _Changed(ContributionError):
    """What was answered before would be answered otherwise now."""


class Laid(NamedTuple):
    """An answer as it travels: header, what it names, body."""

    head: bytes
    ref: packets.Ref
    body: bytes


class Answering:
    """Asks, answers, and keeps.

    Args:
        client: the line.
        offer: of the run.
        taken: with what the site takes part.
        identity: the site's.
        hub: the hub's public key.
        folder: of the site, which is held.
    """

    def __init__(
        self, client: Client, offer: Offer, taken: Taken, identity: Secret, *, hub: bytes, folder: Path
    ) -> None:
        """Nothing is asked yet.

        Raises:
            ConfigError: the hub offers another recipe, or the participant spends otherwise than it can say.
            LedgerError: what the folder holds is damaged.
        """
        self.client, self.offer, self.taken, self.identity, self.hub = client, offer, taken, identity, hub
        self.name, self.place = client.name, folder / offer.run
        self.agreed = same(taken, offer)
        self._fed, person = taken.fed, taken.participant
        self.spends = declared(person, offer.run, self._fed.seed, self.name)
        self.place.mkdir(parents=True, exist_ok=True)
        self.site = Site(self.name, person, self._fed.parts, RunSecret.of(identity, folder, offer.run))
        self.diary = Diary.open(self.place)
        self.said = self._saying(self._since())
        self._charging = Charging(self._fed.parts, {self.name: person})
        since, before = self.said["time"], () if taken.apart else _others(self.place)
        elapsed = partial(_elapsed, since)
        self.meter = Meter(taken.limits, self._charging, self.name, diary=self.diary, elapsed=elapsed, before=before)
        self.watch = Watch(client, self.place, offer.run, self.agreed, spends=bool(self.spends))
        self._drawer: Drawer | None = None
        self.over = False

    def agree(self) -> bool:
        """Tell the hub. Returns: is there such a run?

        Raises:
            ConfigError: it does not want this agreement, or this folder forgot that the site took part.
        """
        self._keep_agreed()
        got = self.client.ask("POST", "/v1/agree", json.dumps({"run": self.offer.run, **self.said}).encode())
        if got.status == 404:
            return False
        if got.status != 200:
            raise ConfigError(f"The hub must take this site's agreement. It said: {_why(got)}.")
        first = got.told.get("time", self.said["time"])
        if first != self.said["time"] and got.told.get("began"):
            raise ConfigError(
                f"{self.place.parent} must be the folder with which {self.name} began this run: it holds what was "
                "answered and spent. It is another. Use that folder, or wait for another run."
            )
        if first != self.said["time"]:  # agreed from another folder, before anything was asked
            self.said = self._saying(float(first))
            self._keep_agreed()
        return True

    def _keep_agreed(self) -> None:
        files.write(self.place / AGREED, json.dumps(self.said, sort_keys=True).encode(), 0o600)

    def _saying(self, since: float) -> dict[str, Any]:
        """What is agreed to, with the limits of today."""
        saying = {"recipe": self.agreed["hash"], "limits": self.taken.limits.told(), "spends": self.spends}
        saying |= {"time": since}
        by = said(self.identity, "agree", self.offer.run, self.name, canonical(saying))
        return {**saying, "proof": {"by": by}}

    def _since(self) -> float:
        """When the site first agreed.

        Raises:
            ConfigError: to something else.
            LedgerError: the file is damaged.
        """
        path = self.place / AGREED
        if not path.exists():
            return time.time()
        try:
            before = json.loads(path.read_bytes())
            was, since = (before["recipe"], before["spends"]), float(before["time"])
        except (ValueError, KeyError, TypeError):
            raise LedgerError(f"{path} must hold what this site agreed to. It is damaged. Restore it.") from None
        if was != (self.agreed["hash"], self.spends):
            raise ConfigError(
                "A participant must spend what this site declared when it agreed to the run. It spends otherwise "
                "now. Use the participant of before, or another run."
            )
        return since

    def step(self) -> bool:
        """One poll, and the answer to what it brought. Returns: is there more to come?

        Raises:
            LedgerError: the hub changed what it had written before.
        """
        got = self.client.ask("GET", f"/v1/tasks?run={self.offer.run}&wait={WAIT}", wait=WAIT)
        if got.status == 204:
            self.watch.look()
            return True
        if got.status == 404:
            return False
        try:
            packet = packets.read(got.body)
            self.check(packet)
            if packet.said.phase == "over":
                self.watch.look(last=True)
                self.over = True
                return False
            self._deliver(*self.answer(packet))
        except (WireError, ChannelError) as error:
            self.tell(str(error))
            if self.client.stop.wait(1.0):
                raise Stopped from None
            return True
        self.watch.look()
        return True

    def tell(self, text: str) -> None:
        """Say it to whoever looks after this site."""
        sys.stderr.write(f"{self.name}: {plain(text)}\n")

    def check(self, packet: packets.Packet) -> None:
        """Did the hub say this, to me, in this run?

        Raises:
            ChannelError: it did not.
        """
        asked = packet.said
        if not signed(self.hub, asked.signature, packets.bare(asked)) or asked.round.me != self.name:
            raise ChannelError(
                "What is asked must be signed by the hub, for this site. It is not, and is not answered."
            )
        if asked.round.run != self.offer.run:
            raise ChannelError("What is asked must be of the run that was agreed to. It is of another.")
        if asked.phase != "over" and (asked.recipe, asked.round.seed) != (self.agreed["hash"], self._fed.seed):
            raise ChannelError("The hub must ask under the recipe that it shows. It does not.")

    def answer(self, packet: packets.Packet) -> Laid:
        """What was said before, or the site's answer, kept before it is sent."""
        kept = self._kept(packet)
        return self._new(packet) if kept is None else kept

    def _kept(self, packet: packets.Packet) -> Laid | None:
        """The answer in `said`, where it is to this; its body, which may be large, is read for that alone."""
        path = self.place / "said"
        if not path.exists():
            return None
        with path.open("rb") as f:
            head = f.read(int.from_bytes(f.read(4), "little"))
            left = path.stat().st_size - f.tell()
            body = f.read() if left <= packets.INLINE else b""
            known = packets.read(packets.joined(head, packets.Ref("", left, ""), body))
            same_turn = known.said.key == packet.said.key and known.said.round.hub == packet.said.round.hub
            if not same_turn or known.ref.asked != packet.ref.sha:
                return None
            return Laid(head, known.ref, body or f.read())

    def _new(self, packet: packets.Packet) -> Laid:
        body: Data | None = packet.body
        which = Asked.of(packet.said)
        if body is None and which not in self.diary.notes:
            try:
                self.meter.check_bytes(packet.ref.size)
            except ContributionError as error:
                return self._refused(packet.said, packet, error)
        if body is None:
            body = self.client.fetch(packet.ref.sha, packet.ref.size, self.place)
        asked, drawer = packets.opened(packet.said, body), self.drawer
        size = len(packet.header) + packet.ref.size
        known = self.diary.known(which, packet.ref.sha)
        if known == "other" or (known == "past" and not self._pends(asked)):
            return self._refused(asked, packet, ContributionError(_OTHER if known == "other" else _OLD))
        try:
            if known == "new":
                self._admit(which, packet.ref.sha, asked, size)
            reply, after = self.site.answer(replace(asked, signature=b""), drawer)
            laid = self._within(which, _laid(reply, packet.ref.sha))
        except _Changed as error:
            return self._refused(asked, packet, error)
        except ContributionError as error:
            laid, after = self._refused(asked, packet, error), drawer
        self._keep(asked, laid, drawer, after)
        self.diary.say(which, laid.ref.sha, len(laid.head) + laid.ref.size)
        return laid

    def _refused(self, asked: Envelope, packet: packets.Packet, error: ContributionError) -> Laid:
        """An answer that says why there is none."""
        self.tell(str(error))
        return _laid(Envelope(asked.round, asked.phase, self.name, asked.recipe, failure(error)), packet.ref.sha)

    def _admit(self, which: Asked, sha: str, asked: Envelope, size: int) -> None:
        """May this be answered? Written down is that it was asked, and what it spends if it may.

        Raises:
            ContributionError: it may not.
        """
        owed: list[dict[str, Any]] = []
        try:
            proper(asked, self._charging.spends or self._fed.evaluate is False, self._fed.parts.channel.reveals)
            owed = self.meter.owed(asked)
            self.meter.check(asked, size, owed)
        except ContributionError:
            self.diary.take(which, sha, size, [])
            raise
        self.diary.take(which, sha, size, owed)

    def _pends(self, asked: Envelope) -> bool:
        """Is the answer to this kept in the drawer?"""
        pending = self.drawer.pending
        return pending is not None and pending.key == asked.key

    def _within(self, which: Asked, laid: Laid) -> Laid:
        """An answer, if it is small enough, and the one that was given before.

        Raises:
            ContributionError: it is not.
        """
        before = self.diary.notes[which].said
        if before and before != laid.ref.sha:
            raise _Changed(_OLD)
        if not before:
            self.meter.check_bytes(len(laid.head) + laid.ref.size)
        return laid

    @property
    def drawer(self) -> Drawer:
        """What the site keeps between rounds."""
        if self._drawer is None:
            path = self.place / "drawer"
            self._drawer = tree_drawer(decode_tree(path.read_bytes())) if path.exists() else EMPTY
        return self._drawer

    def _keep(self, asked: Envelope, laid: Laid, before: Drawer, after: Drawer) -> None:
        if after is not before:
            files.write(self.place / "drawer", encode_tree(drawer_tree(after)), 0o600)
            self._drawer = after
        if after.pending is None or after.pending.key != asked.key:
            files.write(self.place / "said", (len(laid.head).to_bytes(4, "little"), laid.head, laid.body), 0o600)

    def _deliver(self, head: bytes, ref: packets.Ref, body: bytes) -> None:
        """Until the hub has it, or does not want it."""
        for _ in range(3):
            if ref.size > packets.INLINE:
                self.client.send(ref.sha, body)
            got = self.client.ask("POST", "/v1/reply", packets.joined(head, ref, body))
            if got.status == 200:
                return
            if not got.told.get("missing"):
                raise ChannelError(f"The hub did not take the answer. It said: {_why(got)}")


def _elapsed(since: float) -> float:
    """Seconds from a moment of the clock until now."""
    return time.time() - since


def _others(place: Path) -> list[Any]:
    """What was spent in the other runs of a site's folder."""
    paths = sorted(path for path in place.parent.glob(f"*/{DIARY}") if path.parent != place)
    return [entry for path in paths for entry in Diary.open(path.parent).spent]


def proper(asked: Envelope, unscored: bool, reveals: str) -> None:
    """Is this a question that the loop asks? What leaves is protected only where it goes the way of a contribution.

    Args:
        asked: the question.
        unscored: are scores off in this recipe, since they would be released without noise?
        reveals: what the channel lets the hub see.

    Raises:
        ContributionError: it is none.
    """
    body = asked.body
    told: Any = body.value if body.kind == "question" and isinstance(body.value, Mapping) else {}
    shared = told.get("shared")
    kind = shared.get("kind") if isinstance(shared, Mapping) else None
    if asked.phase == "contribute" and (body.kind != "question" or kind in (None, "score")):
        raise ContributionError("A contribution must be asked for with something to learn from. It was not.")
    if asked.phase != "score":
        return
    if unscored:
        raise ContributionError("This recipe has no scores: they would be released without noise. They were asked for.")
    if (kind or body.kind) != "score" or (reveals != "each" and not told.get("views")):
        raise ContributionError("A score must be asked for as one, and sealed where the channel hides it. It was not.")


def _laid(reply: Envelope, question: str) -> Laid:
    """An answer as bytes; what cannot travel is a refusal."""
    try:
        body = encode(reply.body)
    except ConfigError as error:
        body = encode(failure(error))
    head, ref = packets.header(reply, body, asked=question)
    return Laid(head, ref, body)


def _why(got: Any) -> str:
    return str(got.told.get("reason", got.status))[:300]
