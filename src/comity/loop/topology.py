"""Who hears whom: peers on a ring or a graph, agents in turns, steps as soon as those before them are done."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any, ClassVar, TypeAlias

from comity.core.checks import flag, number, part, refusal, shown, text, whole
from comity.core.errors import ConfigError, nearest
from comity.core.parts import Past, Roster, Secret
from comity.core.round import Round
from comity.loop.select import HUB

Members: TypeAlias = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Ring:
    """Each peer its own hub, which hears itself and its `k` neighbours on either side."""

    k: int = 1
    peers: ClassVar[bool] = True

    def __call__(self, roster: Roster, round: Round, past: Past, secret: Secret) -> Members:
        """A hub for each peer, in the order of the roster."""
        n = len(roster)
        steps = range(-self.k, self.k + 1)
        return {roster[i]: [roster[j] for j in sorted({(i + s) % n for s in steps})] for i in range(n)}

    def expected(self, roster: int) -> float:
        """Whom a peer hears, itself included."""
        return float(min(2 * self.k + 1, roster))


@dataclass(frozen=True)
class Graph:
    """Each peer its own hub, which hears itself and its neighbours.

    Attributes:
        neighbours: peer to those whom it hears beside itself.
    """

    neighbours: Mapping[str, tuple[str, ...]]
    peers: ClassVar[bool] = True

    def __call__(self, roster: Roster, round: Round, past: Past, secret: Secret) -> Members:
        """A hub for each peer, in the order of the roster.

        Raises:
            ConfigError: the graph has a peer who takes no part, or lacks one who does.
        """
        names = roster[:]
        place = {name: i for i, name in enumerate(names)}
        _known(self.neighbours, place, "graph")
        for name in names:
            if name not in self.neighbours:
                raise ConfigError(
                    f"Each peer must stand in the graph. Got one in which '{name}' does not. Give it an edge."
                )
        return {name: sorted({name, *self.neighbours[name]}, key=place.__getitem__) for name in names}

    def expected(self, roster: int) -> float:
        """Whom a peer hears on average, itself included."""
        return 1.0 + sum(map(len, self.neighbours.values())) / max(1, len(self.neighbours))


@dataclass(frozen=True)
class OneOf:
    """Which of several agents takes a turn, learnt from what was measured in closed rounds."""

    names: tuple[str, ...]
    metric: str
    explore: float

    def choose(self, past: Past, attempt: int) -> str:
        """The agent with the largest index; after a failed attempt the next one."""
        seen = [past.metric(f"{self.metric}.{name}") for name in self.names]
        total = max(1, sum(map(len, seen)))
        index = [
            sum(x) / len(x) + self.explore * math.sqrt(2 * math.log(total) / len(x)) if x else math.inf for x in seen
        ]
        order = sorted(range(len(index)), key=lambda j: -index[j])
        return self.names[order[attempt % len(order)]]


@dataclass(frozen=True)
class Turns:
    """Round n asks the n-th agent, group or choice, and begins again after the last. All must answer."""

    stages: tuple[tuple[str, ...] | OneOf, ...]
    quorum: ClassVar[float] = 1.0

    def __len__(self) -> int:
        return len(self.stages)

    def __call__(self, roster: Roster, round: Round, past: Past, secret: Secret) -> Members:
        """One hub hears those whose turn it is.

        Raises:
            ConfigError: somebody who has a turn takes no part.
        """
        for stage in self.stages:
            _known(_names(stage), roster, "turns")
        stage = self.stages[round.number % len(self.stages)]
        return {HUB: [stage.choose(past, round.attempt)] if isinstance(stage, OneOf) else list(stage)}

    def expected(self, roster: int) -> float:
        """Whom a round asks on average."""
        return sum(1 if isinstance(s, OneOf) else len(s) for s in self.stages) / len(self.stages)


@dataclass(frozen=True)
class Ready:
    """Round n asks the n-th generation: all steps whose predecessors are done by then. All must answer.

    Attributes:
        before: step to the steps before it.
    """

    before: Mapping[str, tuple[str, ...]]
    quorum: ClassVar[float] = 1.0

    @property
    def generations(self) -> list[list[str]]:
        """The steps of each round, in the order in which they were given."""
        order = TopologicalSorter(self.before)
        order.prepare()
        place = {step: i for i, step in enumerate(self.before)}
        found = []
        while order.is_active():
            now = sorted(order.get_ready(), key=place.__getitem__)
            found.append(now)
            order.done(*now)
        return found

    def __len__(self) -> int:
        return len(self.generations)

    def __call__(self, roster: Roster, round: Round, past: Past, secret: Secret) -> Members:
        """One hub hears the steps that are ready; nobody once all are done.

        Raises:
            ConfigError: nobody takes part who has the name of a step.
        """
        _known(self.before, roster, "ready")
        found = self.generations
        return {HUB: found[round.number] if round.number < len(found) else []}

    def expected(self, roster: int) -> float:
        """Whom a round asks on average."""
        return len(self.before) / len(self)


def ring(k: int = 1) -> Ring:
    """Gossip on a ring: each peer mixes its model with those of its `k` neighbours on either side.

    Peers send whole models: `FedAvg(model, send="model")` with `Trainer(..., send="model")`. With
    `combine=Mean(uniform=True)` every peer hears equally many, the mixing matrix is doubly stochastic, and all peers
    go to the plain mean; the distance to it shrinks by the second largest absolute eigenvalue λ of the mixing matrix
    in each round (Boyd, Ghosh, Prabhakar & Shah, IEEE Trans. Inf. Theory 2006). For k = 1 and n peers
    λ = (1 + 2·cos(2π/n)) / 3. Under FedAvg's own `Mean()` a peer counts by its examples.

    Args:
        k: neighbours on either side, >= 1. Where 2k + 1 >= n everybody hears everybody.

    Raises:
        ConfigError: `k` is no int >= 1.

    Example:
        >>> import comity as co
        >>> co.ring()(["a", "b", "c", "d"], co.Round("r", 0), None, None)["a"]
        ['a', 'b', 'd']
    """
    return Ring(whole("k", "ring", k, 1))


def graph(edges: Mapping[str, Iterable[str]] | Iterable[tuple[str, str]], *, directed: bool = False) -> Graph:
    """Gossip on a graph: each peer mixes its model with those of its neighbours.

    As `ring`, for any graph. Where peers have unlike numbers of neighbours, a uniform mean weighs a peer in the end by
    the number of those whom it hears; `combine=Metropolis(graph.neighbours)` goes to the plain mean. A graph of
    several pieces is allowed: each piece goes to its own mean.

    Args:
        edges: pairs of names, each heard by the other; or name to the names that it hears, which must then be so
            both ways. All participants must stand in it.
        directed: (a, b) lets only b hear a; a mapping need not be symmetric.

    Raises:
        ConfigError: no edges, a peer that hears itself, or one that is not heard back.

    Example:
        >>> import comity as co
        >>> star = co.graph([("hub", "a"), ("hub", "b"), ("hub", "c")])
        >>> star.neighbours["hub"], star.neighbours["b"]
        (('a', 'b', 'c'), ('hub',))
    """
    flag("directed", "graph", directed)
    hears = _mapped(edges) if isinstance(edges, Mapping) else _paired(edges, directed)
    if not hears:
        raise refusal("edges", "graph", "at least one", edges, "Give pairs of names.")
    for name, heard in list(hears.items()):
        for other in heard:
            if other == name:
                raise ConfigError(f"A peer always hears itself. Got an edge from '{name}' to '{name}'. Leave it out.")
            if not directed and name not in hears.get(other, ()):
                raise ConfigError(
                    f"The 'edges' of graph must go both ways. Got: '{name}' hears '{other}', not the other way round. "
                    "Add that, or use directed=True."
                )
            hears.setdefault(other, {})
    return Graph({name: tuple(heard) for name, heard in hears.items()})


def turns(*stages: Any) -> Turns:
    """Ask agents one after the other: round n asks the n-th, and begins again after the last.

    A round closes when all of its turn have answered: work that was done before is never silently lost.
    `len(turns(...))` is the number of rounds of one pass.

    Args:
        stages: names, groups of names that are asked together, or `one_of(...)`.

    Raises:
        ConfigError: none, or something else; a name twice in a group.

    Example:
        >>> import comity as co
        >>> flow, names = co.turns("clean", ("p1", "p2")), ["clean", "p1", "p2"]
        >>> [flow(names, co.Round("r", 0, number=n), None, None)["hub"] for n in range(3)]
        [['clean'], ['p1', 'p2'], ['clean']]
    """
    if not stages:
        raise ConfigError('turns must have at least one stage. Got none. Use turns("clean", "train"), for one.')
    return Turns(tuple(s if isinstance(s, OneOf) else _group(s) for s in stages))


def ready(before: Mapping[str, Iterable[str]]) -> Ready:
    """Ask each step when all steps before it are done: round n asks the n-th generation of the graph of steps.

    A round closes when all of its steps have answered. `len(ready(...))` is the number of rounds that do every step
    once; later rounds ask nobody.

    Args:
        before: step to the steps before it; steps that stand only on the right have none. Steps are participants.

    Raises:
        ConfigError: no steps, or steps in a circle, which are named.

    Example:
        >>> import comity as co
        >>> co.ready({"train": ["left", "right"], "left": ["clean"], "right": ["clean"]}).generations
        [['clean'], ['left', 'right'], ['train']]
    """
    if not isinstance(before, Mapping) or not before:
        raise refusal("before", "ready", "{step: [steps before it]}, at least one", before)
    found: dict[str, tuple[str, ...]] = {
        _name(step, "ready"): _group(b, "ready", least=0) for step, b in before.items()
    }
    for first in [f for b in found.values() for f in b]:
        found.setdefault(first, ())
    try:
        TopologicalSorter(found).prepare()
    except CycleError as error:
        circle = " -> ".join(error.args[1])
        raise ConfigError(f"Steps must not wait for each other. Got the circle {circle}. Cut it.") from None
    return Ready(found)


def one_of(*names: str, metric: str = "quality", explore: float = 1.0) -> OneOf:
    """A turn that one of several agents takes: who does it well is asked more often.

    The choice is UCB1 (Auer, Cesa-Bianchi & Fischer, Machine Learning 2002, figure 1): the largest
    mean + explore·√(2·ln t / n), each agent once to begin with. Agents report `<metric>.<name>`, from 0 to 1 and
    larger for better (see `Agent(measure=...)`): quality, or speed such as 1 / (1 + seconds). After a failed
    attempt the next best is asked. What is measured should not be up to the measured where that matters.

    Args:
        names: two agents or more, each able to do it.
        metric: the name before the dot.
        explore: 1.0 as in the paper, >= 0; less trusts the first impressions more.

    Raises:
        ConfigError: fewer than two names, or `explore` < 0.

    Example:
        >>> import comity as co
        >>> co.turns(co.one_of("ann", "bob"), "train").stages[0].names
        ('ann', 'bob')
    """
    group = _group(names, "one_of", least=2)
    explored = float(number("explore", "one_of", explore, "[0, inf)"))
    return OneOf(group, text("metric", "one_of", metric), explored)


def _name(x: Any, of: str) -> str:
    return text("name", of, x, what="the name of a participant")


def _group(x: Any, of: str = "turns", *, least: int = 1) -> tuple[str, ...]:
    if isinstance(x, str):
        return (_name(x, of),)
    part("names", of, x, ("__iter__()",), "a name, or names in a tuple")
    found = tuple(_name(n, of) for n in x)
    if len(set(found)) < len(found) or len(found) < least:
        raise ConfigError(f"Names in {of} must be {least} or more, all different. Got {shown(found)}.")
    return found


def _names(stage: "tuple[str, ...] | OneOf") -> tuple[str, ...]:
    return stage.names if isinstance(stage, OneOf) else stage


def _mapped(edges: Mapping[str, Iterable[str]]) -> dict[str, dict[str, None]]:
    return {_name(who, "graph"): dict.fromkeys(_group(heard, "graph", least=0)) for who, heard in edges.items()}


def _paired(edges: Iterable[tuple[str, str]], directed: bool) -> dict[str, dict[str, None]]:
    hears: dict[str, dict[str, None]] = {}
    if isinstance(edges, str | bytes) or not isinstance(edges, Iterable):
        raise refusal("edges", "graph", "pairs of names, or name to names", edges)
    for edge in edges:
        if isinstance(edge, str) or not isinstance(edge, Sequence) or len(edge) != 2:
            raise refusal("edges", "graph", "pairs of names, or name to names", edge)
        a, b = (_name(end, "graph") for end in edge)
        hears.setdefault(a, {})
        hears.setdefault(b, {})[a] = None
        if not directed:
            hears[a][b] = None
    return hears


def _known(names: Iterable[str], roster: Any, of: str) -> None:
    for name in names:
        if name not in roster:
            known = roster if isinstance(roster, Mapping) else roster[:]
            raise ConfigError(f"There is no participant '{name}', whom {of} names.{nearest(name, list(known))}")
