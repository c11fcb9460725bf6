"""TreeGaussian: noise of a binary tree, so that the sum over all rounds has little, without any sampling."""

from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import numpy as np

from comity.core.checks import whole
from comity.core.contribution import Array, Contribution, Tree, View
from comity.core.errors import ContributionError
from comity.core.parts import Secret, Spend
from comity.core.round import Round
from comity.core.spec import Spec
from comity.core.tree import Layout, ravel, tree_map
from comity.privacy.clipping import anonymous, clipped, idle, keep_numbers, narrowed, released
from comity.privacy.noise import normals


@dataclass(frozen=True)
class TreeGaussian:
    """Each contribution is clipped to an L2 norm; the sum over t rounds gets the noise of at most log2 t + 1 nodes.

    DP-FTRL (Kairouz, McMahan, Song, Thakkar, Thakurta and Xu, ICML 2021). What is added in round t is the difference
    of the noise of two prefixes: that of one new node, less that of the nodes that it closes. So the noise of rounds
    cancels out, and the error of the sum over T rounds grows with √log T in place of √T, which a step of constant
    length (`FedAvg` without momentum) profits from. No sampling is needed, and none is credited: whoever is there takes
    part. The tree is one for the whole run: it is not begun anew, and variance is not reduced (Honaker 2015).

    Privacy rests on how often a participant takes part, not on who is asked when. A site counts its accepted
    contributions in its drawer and refuses after `participations`: ask each of them no more often, or raise it. In T
    rounds what one participant gives is in floor(log2 T) + 1 nodes for each time; the ledger has one step of a
    "tree" for each round, whose noise is that of a node over all that it may give, participations · clip.

    It drops metrics and weights, as `Gaussian` does, and wants the same denominators. The hub sees the exact sums.

    Attributes:
        clip: the largest L2 norm of a contribution over all leaves, > 0.
        noise: standard deviation of a node's noise over clip, >= 0; 0 only clips, and has no privacy.
        participations: how often one participant contributes in the whole run, >= 1.

    Raises:
        ConfigError: a setting out of range.

    Example:
        >>> import numpy as np, comity as co
        >>> tree, c = co.TreeGaussian(clip=1.0, noise=1.0), co.Contribution("delta", np.zeros(1))
        >>> state, noises, secret = tree.init(), [], co.testing.fixed_secret()
        >>> for number in range(64):
        ...     told, state = tree.decode(c, state, co.Round(run="", seed=0, number=number), secret)
        ...     noises.append(float(told.value[0]))
        >>> len(state["open"]), bool(abs(sum(noises)) < 4), bool(np.abs(noises).max() > 1)
        (1, True, True)
    """

    clip: float
    noise: float
    _: KW_ONLY
    participations: int = 1
    decodes: ClassVar[View] = "sum"
    contracts: ClassVar[bool] = True

    def __post_init__(self) -> None:
        keep_numbers(self, clip="(0, inf)", noise="[0, inf)")
        times = whole("participations", "TreeGaussian", self.participations, 1)
        object.__setattr__(self, "participations", times)

    def init(self) -> Any:
        """The open nodes of the tree: (nodes, 3) int64, of each its level, and the round and attempt that opened it."""
        return {"open": np.zeros((0, 3), np.int64)}

    def bounds(self, spec: Spec) -> Spec:
        """No number beyond the clip."""
        return narrowed(spec, self.clip)

    def spend(self, round: Round) -> Spend:
        """One step of the tree."""
        return Spend("tree", self.noise / self.participations)

    def encode(
        self, c: Contribution, public: Tree, local: Any, round: Round, secret: Secret
    ) -> tuple[Contribution, Any]:
        """At the site: clip, and count.

        Raises:
            ContributionError: it has taken part often enough; NaN, infinity, or what is no number.
        """
        if idle(c):
            return anonymous(c, tree_map(lambda x: x * 0, clipped(c.value, self.clip)[0])), local
        before = int(local.get("taken", 0))
        if before >= self.participations:
            raise ContributionError(
                f"It must take part {self.participations} times at most. Got another question. "
                "Ask others, or use TreeGaussian(participations=...) of more."
            )
        return anonymous(c, clipped(c.value, self.clip)[0]), {"taken": before + 1}

    def decode(self, c: Contribution, state: Any, round: Round, secret: Secret) -> tuple[Contribution, Any]:
        """At the hub: the noise of the new node, less that of the nodes that it closes."""
        step = round.number + 1
        level = (step & -step).bit_length() - 1
        new = np.array([level, round.number, round.attempt], np.int64)
        before = np.asarray(state["open"], np.int64).reshape(-1, 3)
        closed = before[:, 0] < level
        after = {"open": np.concatenate([before[~closed], new[None]])}
        if not self.noise:
            return released(c, c.value, round), after
        layout = Layout.of(c.value, "float64")
        total = self._node(new, layout.size, round, secret)
        for node in before[closed]:
            total -= self._node(node, layout.size, round, secret)
        total += ravel(c.value, layout)
        return released(c, layout.tree(total), round), after

    def _node(self, node: Array, size: int, round: Round, secret: Secret) -> Array:
        """The noise of a node: drawn anew from the same stream whenever it is wanted, and never kept."""
        _, number, attempt = (str(int(x)) for x in node)
        noise = normals(secret.stream("tree", number, attempt, round.hub), size)
        noise *= self.noise * self.clip
        return noise
