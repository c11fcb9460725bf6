"""Two servers that do not work together: the hub adds masked vectors, the helper adds the masks.

member    one message: its vector plus a mask, and the seed of the mask, sealed so that the helper alone reads it
hub       adds the masked vectors as they come, carries the sealed seeds to the helper, takes away what it answers
helper    opens the seeds of those who are listed, adds their masks, once for a round
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar
from urllib.parse import urlsplit

import numpy as np
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from comity.channels.helper import Helper, ask
from comity.channels.identity import KEY, derived
from comity.channels.layout import WORD, Form, lay
from comity.channels.masks import mask
from comity.channels.records import field as held
from comity.channels.remote import Remote, library
from comity.channels.seeds import PROTOCOL, SEED, SealedSeed, Turn
from comity.core.checks import number, part, refusal, whole
from comity.core.contribution import Array, Contribution, Tree, View
from comity.core.errors import ChannelError, ConfigError, TooFewParticipants
from comity.core.parts import Ask, Secret, Until
from comity.core.rng import digest
from comity.core.round import Round

_TAGGED = 2**22


@dataclass(frozen=True)
class TwoServer:
    """Additive shares to two servers that do not work together: the hub has masked vectors, the helper the masks.

    **What each learns.** The hub alone: who takes part, and the sum. The helper alone: who takes part, and how long a
    vector is. Both together: every contribution. So the helper must be run by somebody who gains nothing by helping
    the hub. Neither can be caught at adding something wrong: the sum is as honest as the two are.

    A member sends one message and can be gone; nobody has to come back for the sum to be opened. A mask is tied to
    what it hides: whoever has a member contribute twice in one turn gets two masks, and no difference.

    Additive secret sharing among two servers as in Prio (Corrigan-Gibbs & Boneh, NSDI 2017, section 2), without its
    proofs that contributions are well formed: with a ring of 2^32, shares from a keystream, and the share of the
    second server as a seed of 16 bytes.

    Attributes:
        helper: its URL, or a `Helper` in this process, which protects nothing and is for trials.
        key: its public key, 32 bytes or as hex; it prints it when it starts. Of a `Helper` it need not be given.
        minimum: members in a sum, >= 2. A member refuses a smaller cohort, the hub and the helper (by its own
            minimum) a smaller sum.
        seconds: how long to wait for the helper.

    Raises:
        ConfigError: no helper, no key, or a number that is none.

    Example:
        >>> import comity as co
        >>> channel = co.TwoServer(co.Helper())
        >>> channel.reveals, channel.minimum
        ('sum', 3)
    """

    helper: Any
    key: bytes | str | None = None
    minimum: int = 3
    seconds: float = field(default=60.0, kw_only=True)
    ring: ClassVar[bool] = True
    reveals: ClassVar[View] = "sum"

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", self._checked())
        object.__setattr__(self, "minimum", whole("minimum", "TwoServer", self.minimum, 2))
        object.__setattr__(self, "seconds", number("seconds", "TwoServer", self.seconds, "(0, inf)"))

    def _checked(self) -> bytes:
        given = self.key
        if isinstance(self.helper, str):
            if urlsplit(self.helper).scheme not in ("http", "https"):
                raise refusal("helper", "TwoServer", "a URL or a co.Helper", self.helper, "Use https://...")
            library()
        else:
            part("helper", "TwoServer", self.helper, ("key", "masks()", "public_key()"), "co.Helper(), or a URL")
            given = self.helper.key if given is None else given
        if isinstance(given, str):
            try:
                given = bytes.fromhex(given)
            except ValueError:
                given = b""
        if not isinstance(given, bytes) or len(given) != KEY:
            raise ConfigError(
                f"The 'key' of TwoServer must be the helper's public key, {KEY} bytes or {2 * KEY} hex digits. "
                f"Got {'none' if self.key is None else 'something else'}. comity helper prints it when it starts."
            )
        return given

    @property
    def warning(self) -> str:
        """Who could see single contributions, in a sentence for reports."""
        return "Whoever runs the hub and the helper both, or has them work together, can read every contribution."

    def setup(self, cohort: Sequence[str], ask: Ask, round: Round) -> "Turned":
        """Is the helper there, and is it the one whose key everybody has?

        Raises:
            ChannelError: it is down, or another.
        """
        if len(cohort) < self.minimum:
            raise TooFewParticipants(f"A cohort must have at least {self.minimum} members. Got {len(cohort)}.")
        if self._helper.public_key() != self.key:
            raise ChannelError(
                "The helper must have the key that the channel was given. It has another: it was swapped, or lost "
                "its folder. Start it with the same --folder, or agree on the new key."
            )
        return Turned(Turn.of(round))

    def answer(self, message: Contribution, memory: Tree, round: Round, secret: Secret) -> tuple[Contribution, Tree]:
        """A member is asked nothing but to contribute.

        Raises:
            ChannelError: always.
        """
        raise ChannelError(f"TwoServer has no phase '{message.kind}'. The hub runs another channel than this site.")

    def seal(
        self, c: Contribution, view: Tree, memory: Tree, round: Round, secret: Secret
    ) -> tuple[Contribution, Tree]:
        """The contribution's words under a mask, and the mask's seed for the helper.

        Raises:
            ChannelError: the cohort is too small.
            ContributionError: no integers, or such as could overflow the sum.
        """
        if round.asked < self.minimum:
            raise ChannelError(f"A cohort must have at least {self.minimum} members. Got {round.asked}.")
        form, words = lay(c, round.asked)
        turn = Turn.of(round)
        context = turn.context(form, self._key)
        own = secret.key("two servers", turn.digest.hex())
        tied = digest(PROTOCOL, "tied", context.hex(), _tag(derived(own, context, b"tag"), words).hex())
        seed = derived(own, tied, b"seed")
        once = derived(own, tied, b"once, first half") + derived(own, tied, b"once, second half")
        mask(words, form, [seed])
        sealed = SealedSeed.seal(seed, once, context, round.me, self._key, secret)
        return Contribution("masked", {"form": form.tree(), "words": words, "seed": sealed.packed()}), memory

    def open(self, sealed: Iterator[Contribution], session: "Turned", ask: Ask, until: Until) -> Iterator[Contribution]:
        """The sum of those who sealed: masked vectors are added as they come, into one.

        Raises:
            TooFewParticipants: the sum would be of fewer than the minimum; the helper is not asked.
            ChannelError: the helper is down, or refuses.
        """
        adding = _Adding(session, self._key)
        for c in sealed:
            adding.take(c)
        least = max(self.minimum, until.quorum)
        if adding.form is None or len(adding.members) < least:
            raise TooFewParticipants(f"A sum must be of at least {least} members. Got {len(adding.members)}.")
        yield adding.opened(self._helper.masks(_question(session.turn, adding.form, adding.members)))

    @property
    def _key(self) -> bytes:
        assert isinstance(self.key, bytes)
        return self.key

    @property
    def _helper(self) -> "Helper | Remote":
        return Remote(self.helper, self.seconds) if isinstance(self.helper, str) else self.helper


_question = ask


@dataclass(frozen=True)
class Turned:
    """What the hub knows of a cohort.

    Attributes:
        turn: run, round, attempt and hub.
        left_out: once it was opened, who is not in the sum, and why.
    """

    turn: Turn
    left_out: dict[str, str] = field(default_factory=dict)

    def view(self, member: str) -> Tree:
        """Nothing travels: a member has the helper's key."""
        return None


class _Adding:
    """The sum of masked vectors, and the seeds of their masks."""

    def __init__(self, session: Turned, key: bytes) -> None:
        self.turn, self.left_out, self.key = session.turn, session.left_out, key
        self.members: dict[str, SealedSeed] = {}
        self.form: Form | None = None
        self._first: Array | None = None
        self._total: Array | None = None
        self._context = b""

    def take(self, c: Contribution) -> None:
        """Add what was sealed; what was not, or has another form than the first, is left out."""
        try:
            self._add(c.sender, c.value)
        except ChannelError as error:
            self.left_out[c.sender] = str(error)

    def _add(self, name: str, value: Any) -> None:
        seed = SealedSeed.read(held(value, "seed", SEED))
        form = Form.read(value.get("form")) if self.form is None else self.form
        words: Any = value.get("words")
        if not form.fits(words) or not _is_of(form, value) or name in self.members:
            raise ChannelError(f"What {name} sealed must have the form of what others did. Got another.")
        context = self._context or self.turn.context(form, self.key)
        seed.check(context, name)
        self.form, self._context = form, context
        if (first := self._first) is not None:
            self._first, self._total = None, _sum_of(form, first, words)
        elif self._total is not None:
            form.add(self._total, words)
        else:
            self._first = words
        self.members[name] = seed

    def opened(self, masks: Array) -> Contribution:
        """The sum, once the masks are taken away."""
        form, total = self.form, self._total
        assert form is not None
        assert total is not None
        if not form.fits(masks):
            raise ChannelError("The helper must answer with a vector of the length it was asked for. Got another.")
        form.subtract(total, masks)
        return form.sum(total)


def _sum_of(form: Form, a: Array, b: Array) -> Array:
    """A fresh sum of two vectors: the first is not copied."""
    out = np.empty(form.size, WORD)
    for x, y, into in zip(form.parts(a), form.parts(b), form.parts(out), strict=True):
        np.add(x, y, out=into)
    return out


def _is_of(form: Form, value: Mapping[str, Any]) -> bool:
    """Does it say that it has this form?"""
    return form.same(Form.read(value.get("form")))


def _tag(key: bytes, words: Array) -> bytes:
    """What no other vector has: GMAC of its pieces, the number of the piece for a nonce, to be hashed under a key."""
    data, cipher = words.view(np.uint8).data, AESGCM(key)
    pieces = range(0, max(1, len(data)), _TAGGED)
    return b"".join(cipher.encrypt((i // _TAGGED).to_bytes(12, "big"), b"", data[i : i + _TAGGED]) for i in pieces)
