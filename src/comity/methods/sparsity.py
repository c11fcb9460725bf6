"""Masks: which weights of a model may be pruned, which are kept, and what a sparse participant sends.

participant  `sparse_delta`: a change at the kept coordinates, with a weight for each of them
hub          nothing: the methods that use this say what it does
never leaves nothing by itself: a mask shows in the weights of a contribution
bytes        dense, until a transform such as `Sparse` leaves the zeros out

A mask is a Tree {name: bool array} over the prunable leaves of a flat Tree of parameters: True is kept. Prunable are
float leaves of two dimensions or more that are no running statistics: the weights of linear, convolution and embedding
layers. Biases, the weights of normalisation and statistics are never pruned.
"""

from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from comity.core.checks import number, refusal, shown, whole, word
from comity.core.contribution import Array, Contribution
from comity.core.errors import ConfigError, WireError
from comity.core.nodes import Nodes
from comity.core.positions import decode_mask

SCOPES = ("global", "layer")
PRUNES = ("weights", "nodes")


def prunable(params: Mapping[str, Any], statistics: Collection[str] = ()) -> tuple[str, ...]:
    """The names of the leaves that may be pruned, sorted.

    Args:
        params: {name: array}.
        statistics: names that are running statistics, as `Model.statistics`.

    Example:
        >>> prunable({"0.weight": np.ones((2, 3)), "0.bias": np.ones(2), "ids": np.ones((2, 2), int)})
        ('0.weight',)
    """
    return tuple(
        sorted(
            name
            for name, leaf in params.items()
            if name not in statistics and np.ndim(leaf) >= 2 and np.asarray(leaf).dtype.kind == "f"
        )
    )


def everything(params: Mapping[str, Any], statistics: Collection[str] = ()) -> dict[str, Array]:
    """The mask that keeps all."""
    return {name: np.ones(np.shape(params[name]), bool) for name in prunable(params, statistics)}


def magnitude_mask(
    params: Mapping[str, Any],
    density: float,
    *,
    within: Mapping[str, Any] | None = None,
    scope: str = "global",
    statistics: Collection[str] = (),
) -> dict[str, Array]:
    """The mask that keeps the weights of largest magnitude.

    Of equal magnitudes the first are kept, in the order of sorted names and then of positions. At least one weight is
    kept, of the model ("global") or of each layer ("layer").

    Args:
        params: {name: array}; what is not prunable is passed over.
        density: share of all prunable weights to keep, in [0, 1]; rounded up to whole weights.
        within: a mask that the new one stays inside of; its names are those that are pruned. None is everything.
        scope: "global" compares all weights with each other; "layer" keeps the share in each leaf.
        statistics: names that are running statistics.

    Returns:
        {name: bool array}; with `within`, never True where that is False.

    Raises:
        ConfigError: a density outside [0, 1], or another scope.

    Example:
        >>> mask = magnitude_mask({"a": np.array([[3.0, -1.0]]), "b": np.array([[-2.0, 0.5]])}, 0.5)
        >>> mask["a"], mask["b"]
        (array([[ True, False]]), array([[ True, False]]))
    """
    density = number("density", "magnitude_mask", density, "[0, 1]")
    word("scope", "magnitude_mask", scope, SCOPES)
    before = _before(params, within, statistics)
    names = sorted(before)
    groups = [names] if scope == "global" else [[name] for name in names]
    return {name: leaf for group in groups if group for name, leaf in _largest(params, density, before, group).items()}


def _before(
    params: Mapping[str, Any], within: Mapping[str, Any] | None, statistics: Collection[str]
) -> dict[str, Array]:
    return everything(params, statistics) if within is None else {k: np.asarray(v) != 0 for k, v in within.items()}


def node_mask(
    params: Mapping[str, Any],
    density: float,
    nodes: Sequence[Nodes],
    *,
    within: Mapping[str, Any] | None = None,
    scope: str = "global",
    statistics: Collection[str] = (),
) -> dict[str, Array]:
    """The mask without the weakest nodes: whole channels and neurons, with what leads to them and what reads them.

    As many of the weakest go as it takes to keep at most `density` of the weights; the strongest of each layer stays
    in any case. What a node that is gone still puts out, through its bias or its normalisation, nothing reads.

    The strength of a node is the mean of w^2 over the weights that lead to it ("minimum weight", Molchanov et al., ICLR
    2017, section 2.2), divided by the L2 norm of these numbers over its layer, so that layers can be compared (ibid.,
    layer-wise l2-normalisation). They prune feature maps one at a time by a Taylor criterion; the magnitude needs no
    data at the hub.

    Args:
        params: {name: array}; what is not prunable is passed over.
        density: the share of all prunable weights to keep at most, in [0, 1]; at 0 one node of each layer is left.
        nodes: of the model: `model.nodes`.
        within: as of `magnitude_mask`.
        scope: "global" compares all nodes with each other; "layer" by their ranks, so that each layer loses about the
            same share of its nodes.
        statistics: names that are running statistics.

    Returns:
        {name: bool array}; with `within`, never True where that is False.

    Raises:
        ConfigError: a density outside [0, 1], or another scope.

    Example:
        >>> from comity.core.nodes import chained
        >>> params = {"0.weight": np.array([[3.0], [1.0]]), "2.weight": np.array([[1.0, 9.0]])}
        >>> node_mask(params, 0.5, chained([("0", 0), ("2", 1)]))
        {'0.weight': array([[ True],
               [False]]), '2.weight': array([[ True, False]])}
    """
    density = number("density", "node_mask", density, "[0, 1]")
    word("scope", "node_mask", scope, SCOPES)
    before = _before(params, within, statistics)
    weakest, most = _weakest(params, nodes, scope), density * kept(before)[1] + 1e-9
    fits = bisect_left(range(len(weakest)), True, key=lambda n: kept(_without(before, nodes, weakest[:n]))[0] <= most)
    return _without(before, nodes, weakest[:fits])


def _weakest(params: Mapping[str, Any], nodes: Sequence[Nodes], scope: str) -> Array:
    """(nodes, 2) int64: group and number of the nodes that may go, the weakest first."""
    out = [np.empty((0, 3))]
    for i, group in enumerate(nodes):
        strength = _strength(group, params)
        rank = np.argsort(np.argsort(strength, kind="stable"), kind="stable")
        scale = rank / len(rank) if scope == "layer" else strength
        out.append(np.stack([scale, np.full(len(rank), i), np.arange(len(rank))], 1)[rank < len(rank) - 1])
    found = np.concatenate(out)
    return found[np.argsort(found[:, 0], kind="stable"), 1:].astype("int64")


def _strength(group: Nodes, params: Mapping[str, Any]) -> Array:
    """(nodes,) float64; a node with a NaN is the strongest, so that whoever checks the values finds it."""
    mean = np.square(group.weights(params, led=True)[0].astype("float64")).mean(1)
    whole = np.sqrt(np.square(mean).sum())
    return np.asarray(np.nan_to_num(mean / whole if whole else mean, nan=np.inf))


def _without(mask: Mapping[str, Array], nodes: Sequence[Nodes], gone: Array) -> dict[str, Array]:
    """A mask without these nodes."""
    out = {name: leaf.copy() for name, leaf in mask.items()}
    for i, group in enumerate(nodes):
        out_of = np.zeros(group.count(out), bool)
        out_of[gone[gone[:, 0] == i, 1]] = True
        group.cut(out, out_of)
    return out


def pruned(who: Any, params: Mapping[str, Any], density: float, within: Mapping[str, Any]) -> dict[str, Array]:
    """The mask of a method after it has pruned on, weights or nodes, to a density."""
    if who.prune == "weights":
        return magnitude_mask(params, density, within=within, scope=who.scope)
    return node_mask(params, density, getattr(who.model, "nodes", ()), within=within, scope=who.scope)


def pruning_fits(who: Any, params: Mapping[str, Any]) -> None:
    """Refuse a method that prunes nodes where there are none, or more than leave one in each layer.

    Raises:
        ConfigError: says which.
    """
    if who.prune == "weights":
        return
    name = type(who).__name__
    if not getattr(who.model, "nodes", ()):
        raise ConfigError(
            f"The 'model' of {name} must have hidden nodes for prune='nodes', as MLP(...) and a TorchModel of a chain "
            f"of layers have. Got {shown(who.model)}, which has none. Use prune='weights'."
        )
    least = density(pruned(who, params, 0.0, everything(params, who.model.statistics)))
    if who.density < least:
        must = f">= {least:.4f}, so that a node of each layer is left"
        raise refusal("density", name, must, who.density, "Keep more, or use prune='weights'.")


def _largest(
    params: Mapping[str, Any], density: float, before: Mapping[str, Array], names: list[str]
) -> dict[str, Array]:
    inside = np.concatenate([before[n].ravel() for n in names])
    size = np.abs(np.concatenate([np.asarray(params[n]).ravel() for n in names]))
    size[np.isnan(size)] = np.inf  # a NaN is kept, so that whoever checks the values finds it
    size[~inside] = -1.0
    count = min(max(1, int(np.ceil(density * len(size) - 1e-9))), int(inside.sum()))
    kept = inside
    if count < inside.sum():
        least = np.partition(size, len(size) - count)[len(size) - count]
        kept = size > least
        kept[np.flatnonzero(size == least)[: count - int(kept.sum())]] = True
    ends = np.cumsum([before[n].size for n in names])[:-1]
    return {n: part.reshape(before[n].shape) for n, part in zip(names, np.split(kept, ends), strict=True)}


def kept(mask: Mapping[str, Any]) -> tuple[int, int]:
    """(weights that the mask keeps, weights that it speaks of)."""
    return sum(int(np.count_nonzero(m)) for m in mask.values()), sum(int(np.size(m)) for m in mask.values())


def density(mask: Mapping[str, Any]) -> float:
    """The share of prunable weights that a mask keeps, in [0, 1]; 1 for a mask that speaks of none.

    Example:
        >>> density({"a": np.array([[True, False]]), "b": np.array([[True, True]])})
        0.75
    """
    some, all_ = kept(mask)
    return some / all_ if all_ else 1.0


def masked(params: Mapping[str, Any], mask: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters with 0 where the mask is False; leaves that it does not name stay as they are.

    Example:
        >>> masked({"w": np.array([[1.0, -2.0]]), "b": np.array([3.0])}, {"w": np.array([[True, False]])})
        {'w': array([[1., 0.]]), 'b': array([3.])}
    """
    return {k: np.where(mask[k], v, np.zeros((), np.asarray(v).dtype)) if k in mask else v for k, v in params.items()}


def cubic(round: int, until: int, final: float, *, first: float = 1.0) -> float:
    """The density after so many rounds: quick at first, slow at the end (Zhu & Gupta, arXiv 1710.01878, eq. 1).

    Args:
        round: rounds done, >= 0.
        until: the round from which on it is `final`, >= 0.
        final: in [0, 1].
        first: before the first round, in [0, 1].

    Raises:
        ConfigError: a value outside.

    Example:
        >>> [round(cubic(t, 4, 0.2), 4) for t in range(6)]
        [1.0, 0.5375, 0.3, 0.2125, 0.2, 0.2]
    """
    done = whole("round", "cubic", round) / max(whole("until", "cubic", until), 1e-12)
    final, first = number("final", "cubic", final, "[0, 1]"), number("first", "cubic", first, "[0, 1]")
    return final + (first - final) * (1.0 - min(1.0, done if until else 1.0)) ** 3


def schedule_fits(who: Any) -> None:
    """Refuse, of a method that prunes by a schedule, `rounds`, `density`, `begin`, `by` or `scope` out of range.

    Raises:
        ConfigError: names the setting.
    """
    of = type(who).__name__
    object.__setattr__(who, "rounds", whole("rounds", of, who.rounds, 1))
    for name, interval in (("density", "(0, 1]"), ("begin", "[0, 1)"), ("by", "[0, 1]")):
        object.__setattr__(who, name, number(name, of, getattr(who, name), interval))
    word("scope", of, who.scope, SCOPES)
    if who.by < who.begin:
        raise refusal("by", of, f"a number >= begin, which is {who.begin}", who.by)


def scheduled(who: Any, closed: int) -> float:
    """The density after so many closed rounds, by the schedule of a method that `schedule_fits`."""
    begin, until = round(who.begin * who.rounds), round(who.by * who.rounds)
    return cubic(max(closed - begin, 0), until - begin, who.density) if closed > begin else 1.0


def to_prune(who: Any, params: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of what a method may prune of its model.

    Raises:
        ConfigError: there is nothing.
    """
    names = prunable(params, who.model.statistics)
    if not names:
        raise ConfigError(
            f"The 'model' of {type(who).__name__} must have a weight of two dimensions or more to prune. "
            f"Got {shown(who.model)} with {', '.join(sorted(params)[:5])}. Use FedAvg."
        )
    return names


def decoded(given: Any, own: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Array]:
    """Masks as they travel, {name: bytes of core.positions}, as bool arrays of the shapes of `own`.

    Raises:
        ConfigError: not exactly these names, or bytes that are no mask of this size.
    """
    if not isinstance(given, Mapping) or given.keys() != set(names):
        raise unlike(f"a mask of {', '.join(names)}", given)
    try:
        return {name: decode_mask(given[name], own[name].size).reshape(own[name].shape) for name in names}
    except WireError as error:
        raise ConfigError(f"A ticket must fit the model. {error} Use one of the same model.") from error


def unlike(must: str, got: Any) -> ConfigError:
    """The refusal of a ticket of another model."""
    return ConfigError(f"A ticket must fit the model: {must}. Got {shown(got)}. Use one of the same model.")


def sparse_delta(
    c: Contribution, after: Mapping[str, Any], before: Mapping[str, Any], mask: Mapping[str, Any]
) -> Contribution:
    """A change that counts only where it was kept: a coordinate is then averaged over those who kept it.

    Args:
        c: gives kind, metrics and the weight n, a number.
        after: parameters after the work; its names may be more than those of `before`.
        before: parameters as they were shared.
        mask: over the prunable leaves among them.

    Returns:
        As value after - before, 0 where the mask is False; as weight a Tree, for each prunable leaf float32 of its
        shape, n where kept and 0 elsewhere, and n for each other leaf.
    """
    n = float(c.weight)  # type: ignore[arg-type]
    value = masked({name: np.subtract(after[name], leaf) for name, leaf in before.items()}, mask)
    weight = {name: np.asarray(mask[name], np.float32) * np.float32(n) if name in mask else n for name in before}
    return replace(c, value=value, weight=weight)
