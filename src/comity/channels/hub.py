"""The hub's side of secure aggregation: it relays keys, shares and signatures, adds, and takes the masks away."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from comity.channels.circle import Circle, Roster, Terms
from comity.channels.identity import ADVERT, KEY, SIGNATURE, Advert, pinned, sha256, usable
from comity.channels.layout import Form
from comity.channels.member import SEALED_SHARE
from comity.channels.records import bitmap, field, pack
from comity.channels.shamir import SHARE
from comity.channels.unmasking import unmasked
from comity.core.contribution import Array, Contribution, Tree
from comity.core.errors import ChannelError, TooFewParticipants
from comity.core.parts import Ask, Until
from comity.core.round import Round


@dataclass(frozen=True)
class Shared:
    """A circle whose members have shared their secrets.

    Attributes:
        circle: the order, and who is tied to whom.
        adverts: by position.
        shares: by position, sealed for each neighbour; of who shared.
    """

    circle: Circle
    adverts: tuple[Advert, ...]
    shares: Mapping[int, bytes]

    def view(self, i: int) -> Tree:
        """What member `i` seals with: who shared, and what they have for it."""
        graph = self.circle.graph
        sealed = []
        for j in graph.neighbours(i):
            at = SEALED_SHARE * graph.neighbours(j).index(i)
            sealed.append(self.shares[j][at : at + SEALED_SHARE] if j in self.shares else bytes(SEALED_SHARE))
        return {"who": bitmap(self.shares, graph.n), "shares": b"".join(sealed)}


@dataclass(frozen=True)
class SharedSession:
    """A cohort that is ready to seal.

    Attributes:
        circles: those that are large enough.
        places: name to its circle and its position there.
        least: contributions without which nothing is opened.
        left_out: once it was opened, who is in no sum, and why.
    """

    circles: tuple[Shared, ...]
    places: Mapping[str, tuple[int, int]]
    least: int
    left_out: dict[str, str] = dataclasses.field(default_factory=dict)

    def view(self, member: str) -> Tree:
        """What travels with the question; nothing for who did not share."""
        if member not in self.places:
            return None
        at, i = self.places[member]
        return self.circles[at].view(i)


def shared(terms: Terms, cohort: Sequence[str], ask: Ask, round: Round) -> SharedSession:
    """Ask for keys, for nonces where the order decides something, and for shares.

    Raises:
        TooFewParticipants: too few answered.
    """
    adverts = _adverts(terms, cohort, ask, round)
    names = tuple(sorted(adverts))
    least = terms.least(round.asked)
    if len(names) < least:
        raise TooFewParticipants(
            f"At least {least} participants must make keys known. Got {len(names)} of {len(cohort)}. Ask more of "
            "them, or lower the 'threshold' or 'minimum' of SecAgg if everybody agrees."
        )
    roster = Roster(names, tuple(adverts[name].nonce for name in names))
    told: dict[str, Any] = {"names": pack(names), "commits": b"".join(roster.commits)}
    nonces = dict.fromkeys(names, b"")
    if terms.orders(len(names)):
        nonces = _nonces(roster, told, ask)
        revealed = [i for i, name in enumerate(names) if name in nonces]
        told["revealed"] = bitmap(revealed, len(names))
        told["nonces"] = b"".join(nonces[names[i]] for i in revealed)
    circles = terms.circles(roster, nonces, round)
    return _ready(_shares(circles, adverts, told, ask), circles, adverts, least)


def _adverts(terms: Terms, cohort: Sequence[str], ask: Ask, round: Round) -> dict[str, Advert]:
    """The keys of those who signed them for this round; of an identity that two claim, the first."""
    context, found, seen = terms.context(round), dict[str, Advert](), set()
    for c in ask(cohort, lambda _: Contribution("keys", None), Until(len(cohort))):
        try:
            advert = Advert.read(field(c.value, "advert", ADVERT))
            advert.check(c.sender, context)
            pinned(c.sender, advert.identity, {}, terms.identities)
        except ChannelError:
            continue
        if c.sender in found or advert.identity in seen or not usable(advert.c, advert.s):
            continue
        if c.sender in cohort:
            found[c.sender] = advert
            seen.add(advert.identity)
    return found


def _nonces(roster: Roster, told: Mapping[str, Any], ask: Ask) -> dict[str, bytes]:
    committed = dict(zip(roster.names, roster.commits, strict=True))
    found = {}
    for c in ask(roster.names, lambda _: Contribution("nonce", told), Until(len(roster.names))):
        try:
            nonce = field(c.value, "nonce", KEY)
        except ChannelError:
            continue
        if sha256(nonce) == committed.get(c.sender):
            found[c.sender] = nonce
    return found


def _shares(
    circles: Sequence[Circle], adverts: Mapping[str, Advert], told: Mapping[str, Any], ask: Ask
) -> dict[str, bytes]:
    places = {name: (circle, i) for circle in circles for i, name in enumerate(circle.names)}

    def body(to: str) -> Contribution:
        circle, i = places[to]
        return Contribution("shares", {**told, "adverts": b"".join(adverts[n].packed() for n in circle.near(i))})

    found = {}
    for c in ask(list(places), body, Until(len(places))):
        try:
            size = len(places[c.sender][0].graph.neighbours(places[c.sender][1]))
            found[c.sender] = field(c.value, "shares", SEALED_SHARE * size)
        except (ChannelError, KeyError):
            continue
    return found


def _ready(
    shares: Mapping[str, bytes], circles: Sequence[Circle], adverts: Mapping[str, Advert], least: int
) -> SharedSession:
    made = []
    for circle in circles:
        given = {i: shares[name] for i, name in enumerate(circle.names) if name in shares}
        if len(given) >= circle.need:
            made.append(Shared(circle, tuple(adverts[name] for name in circle.names), given))
    if not made:
        raise TooFewParticipants(f"At least {circles[0].need} participants must share keys. Got {len(shares)}.")
    places = {name: (at, i) for at, s in enumerate(made) for i, name in enumerate(s.circle.names) if i in s.shares}
    return SharedSession(tuple(made), places, least)


class Sum:
    """The one running sum of a circle, and whose contributions are in it."""

    def __init__(self) -> None:
        """Empty."""
        self.form: Form | None = None
        self.words: Array | None = None
        self.alive: set[int] = set()

    def add(self, i: int, c: Contribution) -> None:
        """Add a sealed contribution; one that is none, or of another form than the first, is left out."""
        if i in self.alive or not isinstance(c.value, Mapping):
            return
        words = c.value.get("words")
        try:
            form = Form.read(c.value.get("form"))
        except ChannelError:
            return
        if form.kind != c.kind or words is None or not form.fits(words):
            return
        if self.form is None or self.words is None:
            self.form, self.words = form, words.copy()
        elif self.form.same(form):
            self.form.add(self.words, words)
        else:
            return
        self.alive.add(i)


def opened(sealed: Iterator[Contribution], session: SharedSession, ask: Ask, until: Until) -> Iterator[Contribution]:
    """Add as they come; agree on who survived; take the masks away.

    Raises:
        TooFewParticipants: too few contributions, signatures or shares to open anything.
        BadShare: shares that do not give back what was committed to.
    """
    sums = [Sum() for _ in session.circles]
    for c in sealed:
        if c.sender in session.places:
            at, i = session.places[c.sender]
            sums[at].add(i, c)
    came = sum(len(s.alive) for s in sums)
    live = [at for at, s in enumerate(sums) if len(s.alive) >= session.circles[at].circle.need]
    least = max(session.least, until.quorum)
    if not live or came < least:
        raise TooFewParticipants(
            f"At least {least} contributions must arrive. Got {came}. Nothing was revealed: the next attempt "
            "begins with fresh keys."
        )
    lists = {at: bitmap(sums[at].alive, session.circles[at].circle.graph.n) for at in live}
    signatures = _signatures(session, sums, lists, ask, until)
    reveals = _reveals(session, lists, signatures, ask, until)
    failed: list[ChannelError] = []
    inside: set[str] = set()
    for at in live:
        try:
            total = unmasked(session.circles[at], sums[at], reveals[at])
        except ChannelError as error:
            failed.append(error)
            continue
        inside.update(session.circles[at].circle.names[i] for i in sums[at].alive)
        yield total
    said = "what came was no contribution of the form of the others', or its group was too small or could not be opened"
    session.left_out.update(dict.fromkeys(session.places.keys() - inside, said))
    if len(failed) == len(live):
        raise failed[0]


def _signatures(
    session: SharedSession, sums: Sequence[Sum], lists: Mapping[int, bytes], ask: Ask, until: Until
) -> dict[str, bytes]:
    """Who signed which list: each of those whose contribution arrived is asked."""
    cohort = [session.circles[at].circle.names[i] for at in lists for i in sorted(sums[at].alive)]
    found = {}
    for c in ask(cohort, lambda to: Contribution("survivors", {"who": lists[session.places[to][0]]}), until):
        try:
            found[c.sender] = field(c.value, "signature", SIGNATURE)
        except ChannelError:
            continue
    return found


def _reveals(
    session: SharedSession, lists: Mapping[int, bytes], signatures: Mapping[str, bytes], ask: Ask, until: Until
) -> dict[int, dict[int, bytes]]:
    """What shares the signers reveal, by circle and position."""

    def body(to: str) -> Contribution:
        at, i = session.places[to]
        near = session.circles[at].circle.near(i)
        shown = b"".join(signatures.get(name, bytes(SIGNATURE)) for name in near)
        return Contribution("unmask", {"who": lists[at], "signatures": shown})

    found: dict[int, dict[int, bytes]] = {at: {} for at in lists}
    if not signatures:
        return found
    for c in ask(list(signatures), body, until):
        at, i = session.places[c.sender]
        try:
            size = len(session.circles[at].circle.graph.holders(i))
            found[at][i] = field(c.value, "shares", SHARE * size)
        except ChannelError:
            continue
    return found
