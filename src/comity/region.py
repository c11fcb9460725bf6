"""Region: a collaboration as a participant of another, so that a hub may stand under a hub.

What is shared from above goes down to the members; their combined contribution goes up. Member names, drawers and
what a single member sent stay in the region.
"""

import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from comity.charging import Charging
from comity.collaboration import Collaboration
from comity.core.checks import part
from comity.core.contribution import Contribution, Metrics, Tree
from comity.core.errors import ConfigError, ContributionError
from comity.core.parts import Combiner, Method, Past, Roster, Secret, Spend
from comity.core.round import Round
from comity.core.spec import Spec
from comity.core.tree import is_branch
from comity.engines.local import Local, Population
from comity.loop.asking import Asking
from comity.loop.attempt import Attempt
from comity.loop.hub import Event, Heard, HubState
from comity.loop.rounds import Rounds
from comity.loop.site import Drawer, drawer_tree, tree_drawer
from comity.loop.sites import Sites
from comity.running import Names

UNUSED = ("seed", "retries", "evaluate", "stop")
"""What a collaboration decides only where it runs by itself."""


@dataclass(frozen=True)
class Region:
    """A collaboration that takes part in another one: hospitals under a country, sensors under a gateway.

    A round of the outer collaboration is one round inside: the region's members are told what the outer hub shared and
    answer as they would have answered it; the region combines their contributions and answers with the result, whose
    weight is the sum of theirs. With `Mean()` inside and outside, two levels give what one gives, up to rounding.
    Scores are asked of all members and add. Regions may hold regions (client-edge-cloud: Liu et al., ICC 2020,
    Algorithm 1, with one edge round in each cloud round).

    Inside, the collaboration's own `combine`, `transforms`, `channel`, `select`, `quorum` and `deadline` hold; its
    method says what the members' contributions must look like. Round numbers, attempts, seed, scoring and stopping are
    the outer one's, so that its `seed`, `retries` and `evaluate` are not used. What is spent inside, by its
    transforms or its members, is charged to the region in the ledger of the outer run.

    The members' drawers, and what the region's combiner and transforms remember, lie in the region's own drawer: if
    the outer hub refuses or loses the region's answer, all that is dropped with it. What goes up is the combined
    contribution, a metric "members" (accepted, asked: how many, at all levels below) and, where a round fails, how
    many answered; never a member's name.

    Attributes:
        collaboration: the members and how they are heard.
        listen: is told every event inside ("round", "score"), names and reasons included, at the region.

    Raises:
        ConfigError: no participants, a `stop`, or members who hear each other.

    Example:
        >>> import numpy as np, comity as co
        >>> X, y, model = np.eye(4, dtype="float32"), np.array([0, 0, 1, 1]), co.Linear(inputs=4, classes=2, rate=0.5)
        >>> members = {name: co.Trainer(model, (X, y)) for name in ("a", "b")}
        >>> north = co.Region(co.Collaboration(co.FedAvg(model), members))
        >>> run = co.Collaboration(co.FedAvg(model), {"north": north, "c": co.Trainer(model, (X, y))}).run(rounds=3)
        >>> run.metrics["train_accuracy"], run.ledger.metric("members")
        (1.0, [1.0, 1.0, 1.0])
    """

    collaboration: Collaboration = field(metadata={"data": True})
    listen: Callable[[Event], None] | None = field(default=None, metadata={"data": True}, repr=False)
    inside: "Inside" = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        use = "co.Collaboration(method, participants)"
        part("collaboration", "Region", self.collaboration, ("parts", "participants", "described()"), use)
        if self.listen is not None:
            part("listen", "Region", self.listen, ("()",), "a function of one event")
        fed = self.collaboration
        if not len(fed.participants):
            raise ConfigError("A region needs participants. Got none. Give its collaboration {name: co.Trainer(...)}.")
        if fed.stop is not None:
            raise ConfigError("A region does not stop by itself. Got a 'stop'. Give it to the outer collaboration.")
        if getattr(fed.select, "peers", False):
            raise ConfigError("The members of a region must have one hub. Got peers. Use select=co.everyone().")
        object.__setattr__(self, "inside", Inside(fed))
        if Charging(fed.parts, fed.participants).spends:
            object.__setattr__(self, "spend", self._spend)

    def _spend(self, round: Round) -> list[Spend]:
        """What a round costs inside; of members who spend differently, each kind as if it were everybody's."""
        fed = self.collaboration
        return Charging(fed.parts, fed.participants).ahead(replace(round, hub=round.me, me=""))

    def fingerprint(self) -> dict[str, Any]:
        """What enters the recipe of the outer run: the parts inside and the sorts of members, no names."""
        return self.inside.fingerprint()

    def contribute(self, shared: Contribution, local: Tree, round: Round, secret: Secret) -> tuple[Contribution, Tree]:
        """The members' combined contribution; or the sum of their scores.

        Raises:
            ConfigError: the secret cannot give each member its own, or the members' names stand in the answer.
            ContributionError: fewer members than the quorum were accepted, or something failed inside.
        """
        if not callable(getattr(secret, "side", None)):
            got = type(secret).__name__
            raise ConfigError(
                f"The secret of a region must have side(name), for its members. Got {got}. Use SideSecret."
            )
        level = _Level(self, shared, local, round, secret)
        try:
            if shared.kind == "score":
                return Contribution("score", None, metrics=level.scores()), local
            return level.contribution()
        except _Refused as error:
            raise ContributionError(str(error)) from error
        except Exception as error:
            at = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{at.filename.rpartition('/')[2]}:{at.lineno}"
            raise ContributionError(f"The region cannot answer ({type(error).__name__} in {where}).") from error


@dataclass(frozen=True)
class Inside:
    """What a recipe holds of a region: a participant enters it by its settings."""

    collaboration: Collaboration

    def fingerprint(self) -> dict[str, Any]:
        """The parts and the sorts of members, without what a region does not use."""
        return {k: v for k, v in self.collaboration.described().items() if k not in UNUSED}


class _Refused(Exception):
    """The region's own words, in which no member is named."""


@dataclass(frozen=True)
class _Passing:
    """Passes on what came from above, and keeps what came of it."""

    method: Method
    shared: Contribution
    first: Any = None

    @property
    def combiner(self) -> Combiner:
        return self.method.combiner

    def init(self, round: Round) -> Any:
        return None

    def share(self, state: Any, to: str, round: Round) -> Contribution:
        return self.shared

    def expect(self, state: Any, to: str, round: Round) -> Spec:
        return self.method.expect(self.first, to, round)

    def update(self, state: Any, combined: Contribution, round: Round) -> Any:
        return combined


@dataclass(frozen=True)
class _All:
    def __call__(self, roster: Roster, round: Round, past: Past, secret: Secret) -> Mapping[str, Sequence[str]]:
        return {round.hub: [roster[i] for i in range(len(roster))]}

    def expected(self, roster: int) -> float:
        return float(roster)


@dataclass(frozen=True)
class _NoPast:
    """A region keeps no ledger."""

    rounds: int

    def metric(self, name: str) -> Sequence[float]:
        return ()


class _Level:
    """One round inside a region."""

    def __init__(self, region: Region, shared: Contribution, local: Any, round: Round, secret: Any) -> None:
        fed, self.local, self.shared = region.collaboration, local, shared
        self.fed, self.listen, self.secret = fed, region.listen or _nobody, secret.side("")
        roster, find = _people(fed.participants)
        expected = fed.select.expected(len(roster))
        self.turn = replace(round, hub=round.me, me="", roster=len(roster), expected=expected, answered=None)
        first = None if shared.kind == "score" else fed.method.init(self.turn)
        self.parts = replace(fed.parts, method=_Passing(fed.method, shared, first))
        self.roster, self.past = roster, _NoPast(round.number)
        self.sites = Sites(find, self.parts, secret.side, self._drawer)
        self.asking = Asking(self.parts, Local().connect(roster, self.sites), round.run)

    def scores(self) -> Metrics:
        """The sum of all members' scores."""
        rounds = Rounds(self.asking, self.turn, secret=self.secret, past=self.past, listen=self.listen)
        return rounds.score({self.turn.hub: self._state()}, self.turn.number, _All())

    def contribution(self) -> tuple[Contribution, Tree]:
        """The combined contribution, and the region's drawer after it."""
        hub, chosen = self.turn.hub, self.fed.select(self.roster, self.turn, self.past, self.secret)
        if len(chosen) != 1:
            raise _Refused(f"The members of a region must have one hub. Got {len(chosen)} from its 'select'.")
        members = {hub: next(iter(chosen.values()))}
        closed, heard, after = Attempt(self.asking, self.secret, self.turn, members).run({hub: self._state()})
        self.listen(Event("round", self.turn, closed, heard))
        h, combined = heard[hub], after[hub].method
        if combined is None:
            need = max(1, self.parts.needed(len(h.asked)))
            raise _Refused(f"{len(h.accepted)} of {len(h.asked)} members of the region were accepted; it needs {need}.")
        return self._upwards(combined, h), self._kept(h, after[hub])

    def _upwards(self, combined: Contribution, h: Heard) -> Contribution:
        """The combined contribution as the outer hub expects one."""
        if is_branch(combined.value) and is_branch(combined.weight) and set(combined.value) == h.accepted:
            kind = type(self.parts.combiner).__name__
            raise _Refused(f"What goes up must not name members. {kind} keeps them side by side. Use combine=Mean().")
        spec = self.parts.method.expect(None, "", self.turn)
        below = combined.metrics.get("members", (0.0, 0.0))
        members = below[0] + len(h.accepted), below[1] + len(h.asked)
        metrics = {**combined.metrics, "members": members}
        with np.errstate(over="ignore", invalid="ignore"):
            return replace(combined, value=_cast(combined.value, spec.value), metrics=metrics, sender="")

    def _kept(self, h: Heard, state: HubState) -> Tree:
        """The region's drawer: the members' drawers, settled, and what the parts at its hub remember."""
        sites = dict(self.local.get("sites", {}))
        for name, drawer in self.sites.touched().items():
            p = drawer.pending
            settled = drawer_tree(Drawer(p.local if p is not None and name in h.accepted else drawer.local))
            if name in sites or settled != {"local": {}}:
                sites[name] = settled
        out: dict[str, Any] = {"sites": sites} if sites else {}
        if state.combiner is not None or state.transforms:
            transforms = {str(i): t for i, t in enumerate(state.transforms)}
            out["hub"] = {"combiner": state.combiner, "transforms": transforms}
        return out

    def _drawer(self, name: str) -> Drawer | None:
        sites = self.local.get("sites", {})
        return tree_drawer(sites[name]) if name in sites else None

    def _state(self) -> HubState:
        """What the parts at the region's hub remember."""
        if "hub" in self.local:
            kept = self.local["hub"]
            return HubState(
                None, kept["combiner"], tuple(kept["transforms"][str(i)] for i in range(len(kept["transforms"])))
            )
        inits = tuple({} if t.decodes == "each" else t.init() for t in self.parts.transforms)
        return HubState(None, self.parts.combiner.init(), inits)


def _people(participants: Any) -> tuple[Roster, Callable[[str], Any]]:
    if isinstance(participants, Population):
        return participants.names, participants.find
    return Names(dict.fromkeys(participants)), participants.__getitem__


def _nobody(event: Event) -> None:
    """Nobody listens."""


def _cast(value: Any, spec: Any) -> Any:
    """Sums are float64; a method expects its own dtypes."""
    if is_branch(spec) and is_branch(value):
        return {k: _cast(v, spec.get(k)) for k, v in value.items()}
    dtype = getattr(spec, "dtype", None)
    if dtype is None or isinstance(value, str | bytes) or value is None:
        return value
    x = np.asarray(value)
    whole = np.dtype(dtype).kind in "iub" and x.dtype.kind == "f"
    return (np.rint(x) if whole else x).astype(dtype)
