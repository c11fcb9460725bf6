"""Metropolis weights: peers on any graph go to the plain mean."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from comity.combine.mean import added
from comity.core.checks import refusal
from comity.core.contribution import Contribution, View
from comity.core.errors import ConfigError, ContributionError
from comity.core.round import Round
from comity.core.tree import tree_map


@dataclass(frozen=True)
class Metropolis:
    """What a peer of a graph makes of its own model and those of its neighbours.

    Peer i gives neighbour j the weight 1 / (1 + max(d_i, d_j)), d being numbers of neighbours, and keeps the rest
    itself (Xiao, Boyd & Lall, IPSN 2005: Metropolis weights; Xiao & Boyd, Systems & Control Letters 2004, section
    4.2, have 1 / max(d_i, d_j), under which two peers only swap). The mixing matrix is symmetric and doubly stochastic,
    so the mean over all peers never moves and all go to it, whatever the graph; a uniform mean goes to one in which
    who hears many counts more. On a ring both are the same.

    Weights hang on who hears, which a contribution that is weighed once for all its hubs cannot carry: it needs each.
    Weights by data do not count. Who did not answer in a round is kept for by the peer itself; where a peer's own
    contribution is missing, the others' weights are divided by their sum.

    Attributes:
        neighbours: peer to those whom it hears beside itself, the same both ways: `graph(...).neighbours`.

    Raises:
        ConfigError: no such mapping, or one that is not the same both ways.

    Example:
        >>> import numpy as np, comity as co
        >>> star = co.graph([("hub", "a"), ("hub", "b")])
        >>> said = [co.Contribution("model", np.array([x]), sender=n) for n, x in (("hub", 0.0), ("a", 3.0))]
        >>> co.Metropolis(star.neighbours).lower(said, None, co.Round("r", 0, hub="a"))[0].value
        array([2.])
    """

    neighbours: Mapping[str, Sequence[str]]
    needs: ClassVar[View] = "each"

    def __post_init__(self) -> None:
        named = isinstance(self.neighbours, Mapping) and all(map(_are_names, self.neighbours.values()))
        if not named or not self.neighbours:
            raise refusal(
                "neighbours", "Metropolis", "peer to a list of others", self.neighbours, "Use graph(...).neighbours."
            )
        for name, heard in self.neighbours.items():
            for other in heard:
                if name not in self.neighbours.get(other, ()):
                    raise ConfigError(
                        f"The 'neighbours' of Metropolis must be the same both ways. '{name}' hears '{other}', not the "
                        "other way round. Use Mean(uniform=True) on a directed graph."
                    )

    def init(self) -> None:
        """No state."""

    def lift(self, c: Contribution) -> Contribution:
        """As it is."""
        return c

    def lower(self, gathered: Sequence[Contribution], state: None, round: Round) -> tuple[Contribution, None]:
        """The weighted mean at the hub `round.hub`; leaves in float64.

        Raises:
            ContributionError: somebody who is no neighbour, or contributions that do not add.
        """
        shares = self._shares([c.sender for c in gathered], round.hub)
        try:
            value = tree_map(lambda x: np.asarray(x) * shares[0], gathered[0].value)
            for share, c in zip(shares[1:], gathered[1:], strict=True):
                value = tree_map(lambda total, x, w=share: total + np.asarray(x) * w, value, c.value)
        except (TypeError, KeyError, ValueError) as error:
            raise ContributionError(f"Contributions of peers must add. Got other names or shapes ({error}).") from error
        metrics = added([c.metrics for c in gathered])
        return replace(gathered[0], value=value, weight=float(len(gathered)), metrics=metrics, sender=""), state

    def _shares(self, senders: Sequence[str], me: str) -> list[Any]:
        for name in (me, *senders):
            if name != me and name not in self.neighbours.get(me, ()):
                raise ContributionError(f"'{me}' must hear itself and its neighbours only. Got '{name}'.")
        degree = {name: len(heard) for name, heard in self.neighbours.items()}
        given = {j: 1 / (1 + max(degree[me], degree[j])) for j in senders if j != me}
        others = sum(given.values())
        own = {me: 1 - others} if me in senders else {}
        total = 1.0 if own else others
        return [np.float64({**given, **own}[name] / total) for name in senders]


def _are_names(heard: Any) -> bool:
    several = isinstance(heard, Sequence) and not isinstance(heard, str | bytes)
    return several and all(isinstance(name, str) for name in heard)
