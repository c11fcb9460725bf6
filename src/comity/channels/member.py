"""A member's side of secure aggregation: what it answers, what it seals, and what it refuses."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from comity.channels.circle import Circle, Roster, Terms
from comity.channels.graph import Graph
from comity.channels.identity import (
    ADVERT,
    KEY,
    PROTOCOL,
    SIGNATURE,
    Advert,
    Keys,
    agreed,
    derived,
    pinned,
    signed,
)
from comity.channels.layout import lay
from comity.channels.masks import mask
from comity.channels.records import bitmap, field, members, pack, rows, unpack
from comity.channels.shamir import DRAWN, SHARE, split
from comity.core.contribution import Contribution, Tree
from comity.core.errors import ChannelError, TooFewParticipants
from comity.core.parts import Secret
from comity.core.rng import digest
from comity.core.round import Round

SEALED_SHARE = 2 * SHARE + 16
NONE = bytes(SHARE)


class Place(NamedTuple):
    """A member's place in its circle, as it remembers it."""

    graph: Graph
    me: int
    need: int
    bond: bytes
    near: dict[int, tuple[str, Advert]]


@dataclass(frozen=True)
class Member:
    """One member in one turn.

    What it remembers is public or sealed: its keys are derived again. For each run and hub it goes on to later turns
    only; in a turn it takes one roster, seals once, signs one list of survivors, and reveals for that one. And it helps
    to open a round for one set of survivors, in whatever attempt and for whatever hub: contributions may be the same in
    each, and the difference of two sums somebody's. Scores are a round of their own.
    """

    terms: Terms
    round: Round
    secret: Secret
    memory: Mapping[str, Any]

    def keys(self, value: Any) -> tuple[Tree, Tree]:
        """Fresh keys, made known and signed."""
        return {"advert": self._advert.packed()}, self._kept(self._turn)

    def nonce(self, value: Any) -> tuple[Tree, Tree]:
        """The nonce, once it is seen what all the others committed to."""
        roster = self._roster(value)
        return {"nonce": self._keys.nonce}, self._kept({**self._turn, "roster": roster.sha256})

    def shares(self, value: Any) -> tuple[Tree, Tree]:
        """Shares of both secrets for each neighbour, sealed for it."""
        roster = self._roster(value)
        circle = self._circle(roster, value)
        i = circle.names.index(self.round.me)
        if self._turn.get("bond", circle.bond) != circle.bond:
            raise ChannelError("Shares must be asked for once in a round. Got a second, other roster.")
        near = self._near(circle, i, roster, field(value, "adverts"))
        place = Place(
            circle.graph, i, circle.need, circle.bond, dict(zip(circle.graph.neighbours(i), near, strict=True))
        )
        b, s = self._split(place, "b"), self._split(place, "s")
        sealed = [self._cipher(place, i, j).encrypt(bytes(12), b[j] + s[j], b"") for j in place.near]
        held = {"roster": roster.sha256, "bond": place.bond, "n": circle.graph.n, "degree": circle.graph.degree}
        held |= {"t": circle.graph.threshold, "me": i, "need": circle.need, "near": pack(circle.near(i))}
        held |= {"names": pack(circle.names)}
        held |= {"adverts": b"".join(a.packed() for _, a in near)}
        pins = {**self.memory.get("pins", {}), **{name: a.identity for name, a in near}}
        return {"shares": b"".join(sealed)}, {**self._kept({**self._turn, **held}), "pins": pins}  # type: ignore[dict-item]

    def seal(self, c: Contribution, view: Any) -> tuple[Contribution, Tree]:
        """The contribution under its own mask and those that it shares with its neighbours."""
        place, turn = self._place, self._turn
        if "who" in turn:
            raise ChannelError("A contribution must be sealed once in a round. Got a second under the same masks.")
        who = members(field(view, "who"), place.graph.n)
        shares = field(view, "shares", SEALED_SHARE * len(place.near))
        self._enough(place, who, "shared")
        form, words = lay(c, max(self.round.asked, place.graph.n))
        plus = [derived(self._keys.seed, place.bond, b"self")]
        minus: list[bytes] = []
        for j, (_, advert) in place.near.items():
            if j in who:
                key = agreed(self._keys.s, advert.s, place.bond, b"pair")
                (plus if place.me < j else minus).append(key)
        mask(words, form, plus, minus)
        words.flags.writeable = False
        sort = "score" if c.kind == "score" else "value"
        memory = self._kept({**turn, "who": bitmap(who, place.graph.n), "shares": shares, "sort": sort})
        return Contribution(c.kind, {"words": words, "form": form.tree()}), memory

    def survivors(self, value: Any) -> tuple[Tree, Tree]:
        """A signature of the list of those whose contributions arrived: of one list in a round."""
        place = self._place
        who = self._list(place, value)
        if self._turn.get("signed", who) != who:
            raise ChannelError("One list of survivors is signed in a round. Got a second, other one.")
        self._opens(place, members(who, place.graph.n))
        signature = self.secret.sign(said(place.bond, who))
        return {"signature": signature}, self._kept({**self._turn, "signed": who})

    def unmask(self, value: Any) -> tuple[Tree, Tree]:
        """For each neighbour a share of its own mask's seed, where it survived, else of its key of pairwise masks."""
        place = self._place
        who = self._list(place, value)
        if self._turn.get("signed") != who:
            raise ChannelError("Shares are revealed for the list of survivors that was signed. Got another.")
        alive = members(who, place.graph.n)
        self._consistent(place, alive, said(place.bond, who), rows(field(value, "signatures"), SIGNATURE))
        mine = self._split(place, "b")[place.me]
        shared = members(self._turn["who"], place.graph.n)
        sealed = rows(self._turn["shares"], SEALED_SHARE)
        out = [mine]
        for j, data in zip(place.near, sealed, strict=True):
            b, s = self._opened(place, j, data) if j in shared else (NONE, NONE)
            out.append(b if j in alive else s)
        return {"shares": b"".join(out)}, {**self.memory, "opened": self._opens(place, alive)}

    def _opens(self, place: Place, alive: frozenset[int]) -> Tree:
        """What was opened so far, with this set of survivors.

        Raises:
            ChannelError: the round was opened for another, or a later one was.
        """
        names, opened = unpack(self._turn["names"]), self.memory.get("opened", {})
        mine = {"number": self.round.number, "who": digest("survivors", *sorted(names[i] for i in alive))}
        before = opened.get(self._turn["sort"], mine)
        if before != mine and before["number"] >= self.round.number:
            raise ChannelError(
                f"A round is opened for one set of survivors, whatever the attempt. Got another for round "
                f"{self.round.number + 1}: the difference of two sums would be somebody's contribution. Ask the same "
                "again, or go on from the last state in a new run."
            )
        return {**opened, self._turn["sort"]: mine}

    @cached_property
    def _keys(self) -> Keys:
        return Keys.of(self.secret, self.round)

    @cached_property
    def _context(self) -> bytes:
        return self.terms.context(self.round)

    @cached_property
    def _advert(self) -> Advert:
        return self._keys.advert(self.round.me, self._context)

    @cached_property
    def _turn(self) -> dict[str, Any]:
        """What is remembered of this turn; nothing where it begins."""
        here = self.round.number, self.round.attempt
        held = self.memory.get("turns", {}).get(self._at, {})
        then = (held["number"], held["attempt"]) if held else here
        if then > here or (then == here and held.get("left")):
            raise ChannelError(
                f"A round that was left is not gone back to. Got round {here[0] + 1}, attempt {here[1] + 1} after "
                f"round {held['number'] + 1}, attempt {held['attempt'] + 1}."
            )
        return dict(held) if held and then == here else {"number": here[0], "attempt": here[1]}

    @property
    def _at(self) -> str:
        return digest(self.round.run, self.round.hub).hex()

    def _kept(self, turn: Mapping[str, Any]) -> Tree:
        """The memory with this turn; of turns before it only which they were."""
        here = turn["number"], turn["attempt"]
        turns = {
            at: t
            if (t["number"], t["attempt"]) == here
            else {"number": t["number"], "attempt": t["attempt"], "left": 1}
            for at, t in self.memory.get("turns", {}).items()
        }
        return {**self.memory, "turns": {**turns, self._at: dict(turn)}}

    @cached_property
    def _place(self) -> Place:
        turn = self._turn
        if "bond" not in turn:
            raise ChannelError("Shares must be asked for first in a round. It was not: this member was left out of it.")
        graph = Graph(turn["n"], turn["degree"], turn["t"])
        adverts = (Advert.read(a) for a in rows(turn["adverts"], ADVERT))
        near = dict(zip(graph.neighbours(turn["me"]), zip(unpack(turn["near"]), adverts, strict=True), strict=True))
        return Place(graph, turn["me"], turn["need"], turn["bond"], near)

    def _roster(self, value: Any) -> Roster:
        """The roster of a message, with this member in it as it made itself known."""
        roster = Roster.read(unpack(field(value, "names")), field(value, "commits"))
        if dict(zip(roster.names, roster.commits, strict=True)).get(self.round.me) != self._advert.nonce:
            raise ChannelError(f"The roster must name {self.round.me} with the keys that it made known. It does not.")
        if len(roster.names) < max(2, self.terms.minimum):
            raise TooFewParticipants(
                f"A cohort must be of {self.terms.minimum} at least, so that a sum hides each. Got {len(roster.names)}."
            )
        if self._turn.get("roster", roster.sha256) != roster.sha256:
            raise ChannelError("A round has one roster. Got a second, other one.")
        return roster

    def _circle(self, roster: Roster, value: Any) -> Circle:
        """The circle that this member is in, by the order."""
        if self.terms.orders(len(roster.names)):
            if "roster" not in self._turn:
                raise ChannelError("Nonces must be asked for before the order is made. They were not.")
            revealed = members(field(value, "revealed"), len(roster.names))
            given = rows(field(value, "nonces", KEY * len(revealed)), KEY)
            nonces = {roster.names[i]: nonce for i, nonce in zip(sorted(revealed), given, strict=True)}
            if nonces.get(self.round.me) != self._keys.nonce:
                raise ChannelError(f"The order must be made with the nonce of {self.round.me}. It is not.")
        else:
            nonces = dict.fromkeys(roster.names, b"")
        return next(c for c in self.terms.circles(roster, nonces, self.round) if self.round.me in c.names)

    def _near(self, circle: Circle, i: int, roster: Roster, data: bytes) -> list[tuple[str, Advert]]:
        """The neighbours' advertisements: signed for this round, by whom they are known to be."""
        names = circle.near(i)
        adverts = [Advert.read(a) for a in rows(data, ADVERT)]
        if len(adverts) != len(names):
            raise ChannelError(f"Keys of {len(names)} neighbours must be shown. Got {len(adverts)}.")
        committed = dict(zip(roster.names, roster.commits, strict=True))
        known = self.memory.get("pins", {})
        for name, advert in zip(names, adverts, strict=True):
            pinned(name, advert.identity, known, self.terms.identities)
            advert.check(name, self._context)
            if advert.nonce != committed[name]:
                raise ChannelError(f"{name} must have one nonce. Got two: its keys were swapped.")
        own = self.secret.public_key()
        if len({own, *(a.identity for a in adverts)}) <= len(adverts):
            raise ChannelError("Each member must have an identity of its own. Got one for two of them.")
        return list(zip(names, adverts, strict=True))

    def _split(self, place: Place, which: str) -> dict[int, bytes]:
        """Shares of a secret by holder. The coefficients are tied to the bond: one polynomial for one roster."""
        secret = self._keys.seed if which == "b" else self._keys.s.private_bytes_raw()
        t, holders = place.graph.threshold, place.graph.holders(place.me)
        drawn = self._keys.drawn(f"{which} {place.bond.hex()}", DRAWN * (t - 1))
        xs = [place.graph.x(place.me, j) for j in holders]
        return dict(zip(holders, split(secret, t, xs, drawn), strict=True))

    def _cipher(self, place: Place, sender: int, receiver: int) -> AESGCM:
        """Under a key for one message: between two members of a circle, one way."""
        other = receiver if sender == place.me else sender
        return AESGCM(agreed(self._keys.c, place.near[other][1].c, place.bond, f"share {sender}>{receiver}".encode()))

    def _opened(self, place: Place, j: int, data: bytes) -> tuple[bytes, bytes]:
        """The shares of a neighbour; none where it sent none that can be opened."""
        try:
            plain = self._cipher(place, j, place.me).decrypt(bytes(12), data, b"")
        except (InvalidTag, ChannelError):
            return NONE, NONE
        return plain[:SHARE], plain[SHARE:]

    def _list(self, place: Place, value: Any) -> bytes:
        """A list of survivors that is enough, with this member, and with nobody who did not share."""
        who = field(value, "who")
        alive = members(who, place.graph.n)
        if "who" not in self._turn:
            raise ChannelError("A contribution must be sealed before survivors are listed. It was not.")
        if alive - members(self._turn["who"], place.graph.n):
            raise ChannelError("A survivor must be one of those who shared. The list names a stranger.")
        self._enough(place, alive, "survived")
        return who

    def _enough(self, place: Place, who: frozenset[int], did: str) -> None:
        if place.me not in who:
            raise ChannelError(f"A list of those who {did} must name {self.round.me}. It does not.")
        if len(who) < place.need:
            raise TooFewParticipants(f"{place.need} must have {did}, so that a sum hides each. Got {len(who)}.")
        near = 1 + sum(j in who for j in place.near)
        if near < place.graph.threshold:
            raise TooFewParticipants(f"{place.graph.threshold} holders of shares must have {did}. Got {near}.")

    def _consistent(self, place: Place, alive: frozenset[int], data: bytes, signatures: list[bytes]) -> None:
        """Did enough holders sign the same list? No two lists then have enough."""
        if not self.terms.odds.malicious:
            return
        if len(signatures) != len(place.near):
            raise ChannelError(f"Signatures of {len(place.near)} neighbours must be shown. Got {len(signatures)}.")
        need = place.graph.threshold - 1
        for (j, (_, advert)), signature in zip(place.near.items(), signatures, strict=True):
            if need and j in alive and signed(advert.identity, signature, data):
                need -= 1
        if need:
            t = place.graph.threshold
            raise ChannelError(
                f"{t} holders of shares must have signed the list of survivors. Got {t - need}: others saw another."
            )


def said(bond: bytes, who: bytes) -> bytes:
    """What is signed of a list of survivors."""
    return digest(PROTOCOL, "survivors", bond.hex(), who.hex())
