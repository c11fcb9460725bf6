"""Secure aggregation: the hub sees the sum of a cohort's contributions, and nothing else of any of them.

    keys       each member  → hub   fresh X25519 keys c and s, sha256 of a nonce and of a seed b; all signed
    nonce      (only where the order decides who is tied to whom) each reveals its nonce
    shares     each member  → hub   Shamir shares of b and of the private s, sealed for each neighbour under c
    contribute each member  → hub   words + PRG(b) + Σ ± PRG(s with each neighbour who shared), in the ring
    survivors  each member  → hub   a signature of the list of those whose contributions arrived
    unmask     each signer  → hub   for each neighbour a share of b if it survived, else of s: of one list only

It costs 224 bytes for keys, 82 for shares, 33 for reveals with each neighbour and 64 for a signature; beside that
4 bytes a number, as float32 does.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from comity.channels.circle import Terms
from comity.channels.graph import Odds
from comity.channels.hub import SharedSession, opened, shared
from comity.channels.identity import KEY
from comity.channels.member import Member
from comity.core.checks import flag, number, refusal, shown, whole
from comity.core.contribution import Contribution, Tree, View
from comity.core.errors import ChannelError, ConfigError
from comity.core.parts import Ask, Secret, Until
from comity.core.round import Round

PHASES = ("keys", "nonce", "shares", "survivors", "unmask")


@dataclass(frozen=True)
class SecAgg:
    """SecAgg+ (Bonawitz et al., CCS 2017, figure 4; Bell et al., CCS 2020): the hub opens only the sum of a cohort.

    It withstands members that drop out at any step while enough remain, and, where `malicious`, a hub that leaves the
    protocol and works together with a share of the members: it may spoil a sum, and learns nothing but sums of at least
    `minimum` and of the honest among the survivors. A wrong contribution is not noticed: bound them by a transform at
    the sites. Sums are exact, in integers modulo 2^32, so `FixedPoint` is put last among the transforms.

    Keys are fresh in every run, round and attempt and of each hub. From 30 participants on each is tied to some
    neighbours only, by an order to which all commit before any of it is known; how many, and how many shares give back
    a secret, is computed for `corrupt` and `dropout` so that privacy fails with at most 2^-40 and a sum with 2^-30. It
    departs from the papers in that: what is put together of shares is held against a commitment, so that no wrong share
    gives a wrong sum; the graph is of one order for all, with bounds of our own where the hub may lie, which also
    charge what it could grind by keeping nonces back; shares are held by their owner as well.

    A site keeps the identity with which it first met each peer and refuses another. Give `identities` where they are
    known from elsewhere: the first meeting is otherwise taken on trust, and a hub that invents most of a cohort learns
    the sum of the rest.

    Attributes:
        threshold: the share of those asked, or of a group, who must remain, in (0, 1]; where the hub may lie above
            (1 + corrupt) / 2.
        groups: reveal sums of groups of this many to twice as many less one, cut from the order, in place of one sum.
        minimum: the fewest in a sum, >= 2. Members refuse fewer.
        degree: neighbours of each, even; None for as many as are needed.
        corrupt: the share of participants who may work together with the hub, in [0, 1).
        dropout: the share that may drop out once keys are shared, in [0, 1).
        malicious: may the hub leave the protocol? Else it only looks at what it sees.
        identities: the Ed25519 public key of each participant, 32 bytes or their 64 hex digits.

    Raises:
        ConfigError: a setting out of range, or a threshold that cannot hold.

    Example:
        >>> import comity as co
        >>> co.SecAgg().reveals, co.SecAgg(groups=8).reveals
        ('sum', 'groups')
    """

    threshold: float = 0.7
    groups: int | None = None
    minimum: int = 3
    degree: int | None = None
    corrupt: float = 0.1
    dropout: float = 0.1
    malicious: bool = True
    identities: Mapping[str, bytes | str] | None = None
    ring: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name, within in (("threshold", "(0, 1]"), ("corrupt", "[0, 1)"), ("dropout", "[0, 1)")):
            object.__setattr__(self, name, number(name, "SecAgg", getattr(self, name), within))
        object.__setattr__(self, "malicious", flag("malicious", "SecAgg", self.malicious))
        object.__setattr__(self, "minimum", whole("minimum", "SecAgg", self.minimum, 2))
        object.__setattr__(self, "identities", _identities(self.identities))
        self._whole_numbers()
        least = (1 + self.corrupt) / 2 if self.malicious else self.corrupt
        if self.threshold <= least:
            sums = "(1 + corrupt) / 2" if self.malicious else "corrupt"
            raise refusal(
                "threshold", "SecAgg", f"above {sums} = {least:.3g}, so that no hub has both secrets of anybody",
                self.threshold, f"Use threshold={min(1.0, round(least + 0.15, 2))}, or a smaller 'corrupt'.",
            )  # fmt: skip

    def _whole_numbers(self) -> None:
        if self.groups is not None:
            groups = whole("groups", "SecAgg", self.groups, 2, hint="Use groups=None for one sum.")
            object.__setattr__(self, "groups", groups)
            if groups < self.minimum:
                hint = f"Use groups={self.minimum}, or a smaller minimum if everybody agrees."
                raise refusal("groups", "SecAgg", f"at least its minimum of {self.minimum}", groups, hint)
        if self.degree is not None:
            degree = whole("degree", "SecAgg", self.degree, 2, hint="Use degree=None for as many as are needed.")
            object.__setattr__(self, "degree", degree)
            if degree % 2:
                raise refusal("degree", "SecAgg", "even", degree, f"Use degree={degree + 1}.")

    @property
    def reveals(self) -> View:
        """The sum, or sums of groups."""
        return "sum" if self.groups is None else "groups"

    @property
    def _terms(self) -> Terms:
        odds = Odds(self.corrupt, self.dropout, self.malicious)
        return Terms(self.threshold, self.groups, self.minimum, self.degree, odds, self.identities)  # type: ignore[arg-type]

    def setup(self, cohort: Sequence[str], ask: Ask, round: Round) -> SharedSession:
        """At the hub: keys, the order, shares.

        Raises:
            TooFewParticipants: too few for a sum that hides each.
        """
        return shared(self._terms, cohort, ask, round)

    def answer(self, message: Contribution, memory: Tree, round: Round, secret: Secret) -> tuple[Contribution, Tree]:
        """At the site: one phase.

        Raises:
            ChannelError: what would show more than sums; the reason.
        """
        if message.kind not in PHASES:
            raise ChannelError(f"SecAgg has no phase '{message.kind}'. The hub runs another channel than this site.")
        value, after = getattr(self._member(memory, round, secret), message.kind)(message.value)
        return Contribution(message.kind, value), after

    def seal(
        self, c: Contribution, view: Tree, memory: Tree, round: Round, secret: Secret
    ) -> tuple[Contribution, Tree]:
        """At the site: the contribution under its masks.

        Raises:
            ChannelError: too few shared, this member was left out, or it was sealed before in this round.
            ContributionError: numbers that are no integers, or that could wrap around.
        """
        return self._member(memory, round, secret).seal(c, view)

    def open(
        self, sealed: Iterator[Contribution], session: SharedSession, ask: Ask, until: Until
    ) -> Iterator[Contribution]:
        """At the hub: the sum, or the sum of each group that can be opened.

        Raises:
            TooFewParticipants: too few contributions, signatures or shares.
            BadShare: shares that do not give back what was committed to.
        """
        return opened(sealed, session, ask, until)

    def _member(self, memory: Any, round: Round, secret: Secret) -> Member:
        return Member(self._terms, round, secret, memory)


def _identities(given: Any) -> dict[str, bytes] | None:
    """Names to public keys."""
    if given is None:
        return None
    if not isinstance(given, Mapping):
        raise refusal("identities", "SecAgg", "a mapping of names to public keys", given, "Use identities=None.")
    return {str(name): _public(name, key) for name, key in given.items()}


def _public(name: Any, key: Any) -> bytes:
    try:
        data = bytes.fromhex(key) if isinstance(key, str) else key
    except ValueError:
        data = None
    if isinstance(data, bytes) and len(data) == KEY:
        return data
    raise ConfigError(
        f"The 'identities' of SecAgg must be 32 bytes for each name, or their 64 hex digits. Got {shown(key)} for "
        f"{shown(name)}. It is what `public_key()` of the participant's secret gives."
    )
