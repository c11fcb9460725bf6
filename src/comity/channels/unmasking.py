"""From shares to secrets, from secrets to masks, and from a masked sum to the sum."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, islice
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from comity.channels.circle import Circle
from comity.channels.identity import agreed, derived, sha256
from comity.channels.masks import mask
from comity.channels.shamir import SECRET, SHARE, join
from comity.core.contribution import Contribution
from comity.core.errors import BadShare, TooFewParticipants

if TYPE_CHECKING:
    from comity.channels.hub import Shared, Sum

_TRIES = 500
_NONE = bytes(SHARE)


@dataclass(frozen=True, repr=False)
class Revealed:
    """Shares that holders revealed, by position of the holder: its own first, then those of its neighbours."""

    circle: Circle
    reveals: Mapping[int, bytes]

    def of(self, owner: int) -> list[tuple[int, bytes]]:
        """Where the owner's polynomial is known, and its value there."""
        graph, out = self.circle.graph, []
        for holder in graph.holders(owner):
            if holder in self.reveals:
                at = SHARE * graph.holders(holder).index(owner)
                share = self.reveals[holder][at : at + SHARE]
                if share != _NONE:
                    out.append((graph.x(owner, holder), share))
        return out

    def secret(self, owner: int, right: Callable[[bytes], bool]) -> bytes:
        """The secret that the shares of an owner give, checked against what it committed to.

        Where a share is wrong and there are more than enough, others are tried.

        Raises:
            TooFewParticipants: too few shares.
            BadShare: they do not give back what was committed to.
        """
        name, t, points = self.circle.names[owner], self.circle.graph.threshold, self.of(owner)
        if len(points) < t:
            raise TooFewParticipants(
                f"{t} shares of {name} must be revealed. Got {len(points)}. The sum is not opened."
            )
        for tried in islice(_choices(points, t), _TRIES):
            secret = join([x for x, _ in tried], [share for _, share in tried])
            if secret[0] == 0 and right(secret[-SECRET:]):
                return secret[-SECRET:]
        raise BadShare(
            f"{t} shares of {name} must give back what it committed to. Got {len(points)} that do not: {name} or "
            "holders of its shares sent wrong ones. The sum is not opened."
        )


def _choices(points: Sequence[tuple[int, bytes]], t: int) -> Iterator[Sequence[tuple[int, bytes]]]:
    """The first `t`, then any others."""
    yield points[:t]
    yield from combinations(points, t)


def unmasked(shared: "Shared", total: "Sum", reveals: Mapping[int, bytes]) -> Contribution:
    """Take the masks away from a sum, in place: those of survivors themselves, and those shared with who dropped out.

    Args:
        shared: the circle.
        total: the sum of what arrived.
        reveals: shares by holder.

    Raises:
        TooFewParticipants: too few shares of somebody.
        BadShare: shares that do not fit.
    """
    circle, adverts, known = shared.circle, shared.adverts, Revealed(shared.circle, reveals)
    assert total.form is not None
    assert total.words is not None
    plus: list[bytes] = []
    minus: list[bytes] = []
    for i in sorted(total.alive):
        seed = known.secret(i, lambda s, i=i: sha256(s) == adverts[i].seed)  # type: ignore[misc]
        minus.append(derived(seed, circle.bond, b"self"))
    for j in sorted(set(shared.shares) - total.alive):
        near = [i for i in circle.graph.neighbours(j) if i in total.alive]
        if not near:
            continue
        s = X25519PrivateKey.from_private_bytes(known.secret(j, lambda s, j=j: _public(s) == adverts[j].s))  # type: ignore[misc]
        for i in near:
            key = agreed(s, adverts[i].s, circle.bond, b"pair")
            (minus if i < j else plus).append(key)
    mask(total.words, total.form, plus, minus)
    return total.form.sum(total.words)


def _public(s: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(s).public_key().public_bytes_raw()
