"""Nodes: which weights belong to one channel of a convolution or one neuron of a hidden layer.

A model that can tell offers `nodes`, a tuple of `Nodes`, one for each hidden layer. A node whose weights are all 0 has
no influence: nothing reads what its bias and its normalisation still put out.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from comity.core.contribution import Array


@dataclass(frozen=True)
class Nodes:
    """The nodes of one hidden layer: where their weights lie in the leaves of a model.

    Attributes:
        name: of the layer.
        into: (leaf, axis) of the weights that lead to them; the axis has an entry for each node.
        out: (leaf, axis, repeat) of the weights that read them; the axis has `repeat` neighbouring entries for each
            node, which is more than 1 where a channel was flattened.

    Example:
        >>> Nodes("0", ("0.weight", 0), (("3.weight", 1, 9),)).weights({"0.weight": np.ones((4, 2))}, led=True)[0].shape
        (4, 2)
    """

    name: str
    into: tuple[str, int]
    out: tuple[tuple[str, int, int], ...]

    @property
    def places(self) -> tuple[tuple[str, int, int], ...]:
        """(leaf, axis, repeat) of all their weights, those that lead to them first."""
        return ((*self.into, 1), *self.out)

    def count(self, tree: Mapping[str, Any]) -> int:
        """How many nodes there are."""
        leaf, axis = self.into
        return int(np.shape(tree[leaf])[axis])

    def weights(self, tree: Mapping[str, Any], *, led: bool = False) -> list[Array]:
        """The weights of each node, one array for each place: (nodes, weights).

        Args:
            tree: {name: array}.
            led: only those that lead to them.
        """
        n, places = self.count(tree), self.places[:1] if led else self.places
        return [np.moveaxis(np.asarray(tree[leaf]), axis, 0).reshape(n, -1) for leaf, axis, _ in places]

    def alive(self, tree: Mapping[str, Any]) -> Array:
        """(nodes,) bool: has the node a weight that is not 0? Of a mask: one that is kept."""
        return np.asarray(np.any([(part != 0).any(1) for part in self.weights(tree)], axis=0))

    def cut(self, mask: dict[str, Array], gone: Array) -> None:
        """Put False into a mask, in place, for all weights of the nodes that are gone: (nodes,) bool."""
        for leaf, axis, repeat in self.places:
            np.moveaxis(mask[leaf], axis, 0)[np.repeat(gone, repeat)] = False


def chained(layers: Iterable[tuple[str, int]]) -> tuple[Nodes, ...]:
    """The nodes of a chain of layers whose weights, "name.weight", are (outputs, inputs, ...).

    Args:
        layers: of each layer with weights, in order, its name and how many of its inputs each output of the layer
            before makes; the first number is not looked at.

    Example:
        >>> chained([("conv", 0), ("out", 9)])[0].out
        (('out.weight', 1, 9),)
    """
    return tuple(
        Nodes(name, (f"{name}.weight", 0), ((f"{after}.weight", 1, each),))
        for (name, _), (after, each) in pairwise(layers)
    )
