"""The loss of a batch as a sum over its rows, so that rows can be added that count for nothing.

A loss is taken for a mean over the rows. Where torch has a `reduction`, each row's own is asked for; cross-entropy with
class numbers becomes a sum of log-probabilities times given weights, in which class weights, smoothing and labels to be
ignored are contained; any other loss is asked row by row. Whether that is the user's loss is found by comparing.
"""

import copy
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from comity.adapters.torch.fit import ELEMENTWISE, aligned, loss_name

_CLASSES = 256
"""Up to so many classes the targets are spread over the classes."""
_WEIGHED = ("cross_entropy", "CrossEntropyLoss", "nll_loss", "NLLLoss")


class Unbatched(Exception):
    """Why this cannot be done for many at once, in one line."""


@dataclass(frozen=True, eq=False)
class Labels:
    """How class numbers count in cross-entropy: `weight[y]`, and not at all where y is `ignored`."""

    weight: Tensor | None
    ignored: int
    smoothing: float

    def counts(self, y: Tensor) -> Tensor:
        """How much each label counts in the mean."""
        kept = y != self.ignored
        return kept if self.weight is None else kept * self.weight[y.where(kept, 0)]

    def even(self, y: Tensor) -> bool:
        """Do all of these labels count the same?"""
        return self.weight is None and (self.ignored >= 0 or int(y.min()) >= 0) and not self._ignores(y)

    def _ignores(self, y: Tensor) -> bool:
        return self.ignored >= 0 and bool((y == self.ignored).any())

    def spread(self, y: Tensor, share: Tensor, classes: int) -> Tensor:
        """What each log-probability is multiplied by, for the loss to be their sum.

        Args:
            y: (rows, ...) class numbers.
            share: (rows, ...) one over what the mean is divided by; 0 for rows that do not count.
            classes: how many there are.

        Returns:
            (rows, classes, ...), of the dtype of `share`.
        """
        out = share.new_zeros((len(y), classes, *y.shape[1:]))
        if self.even(y) and not self.smoothing:
            return out.scatter_(1, y.unsqueeze(1), -share.unsqueeze(1))
        kept = y != self.ignored
        share = share * kept
        sure = out.scatter_(1, y.where(kept, 0).unsqueeze(1), share.unsqueeze(1))
        mixed = (1 - self.smoothing) * sure + (self.smoothing / classes) * share.unsqueeze(1)
        weight = 1 if self.weight is None else self.weight.reshape(-1, *[1] * (y.ndim - 1))
        return -mixed * weight


def labels_of(loss: Any) -> Labels | None:
    """What cross-entropy and nll of torch do with class numbers; None for any other loss."""
    if loss_name(loss) not in _WEIGHED or _reduction(loss) != "mean" or (isinstance(loss, partial) and loss.args):
        return None
    given = vars(loss) | loss._buffers if isinstance(loss, nn.Module) else getattr(loss, "keywords", {})
    known = {"reduction", "weight", "ignore_index", "label_smoothing"}
    if not isinstance(loss, nn.Module) and not given.keys() <= known:
        return None
    return Labels(given.get("weight"), given.get("ignore_index", -100), given.get("label_smoothing", 0.0))


def spreads(loss: Any, outputs: torch.Size, y: Tensor) -> bool:
    """Can the targets be spread over the classes?"""
    few = len(outputs) == y.ndim + 1 and outputs[1] <= _CLASSES and outputs[2:] == y.shape[1:]
    cross = loss_name(loss) in _WEIGHED[:2] and labels_of(loss) is not None
    return cross and few and not y.is_floating_point()


def of_spread(outputs: Tensor, spread: Tensor) -> Tensor:
    """Cross-entropy with targets from `Labels.spread`."""
    return (functional.log_softmax(outputs, 1) * spread).sum()


def of_rows(loss: Any) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """The loss as a sum of `share` times each row's own.

    Returns:
        (outputs, targets, share (rows,)) -> a number.

    Raises:
        Unbatched: it says of itself that it is no mean.
    """
    elementwise, how = loss_name(loss) in ELEMENTWISE, _reduction(loss)
    if how not in (None, "mean", "batchmean"):
        raise Unbatched(f"the loss with reduction={how!r} is no mean over rows")
    alone = _by_row(loss) if how is None else _unreduced(loss)
    added = labels_of(loss) is not None

    def summed(outputs: Tensor, y: Tensor, share: Tensor) -> Tensor:
        each: Tensor = alone(outputs, aligned(outputs, y, elementwise))
        if each.ndim == 0 or each.shape[0] != share.shape[0]:
            raise Unbatched("the loss gives no number for each row")
        each = each.reshape(each.shape[0], -1)
        return (
            (each.sum(1) if (added and not y.is_floating_point()) or how == "batchmean" else each.mean(1)) * share
        ).sum()

    return summed


def _by_row(loss: Callable[..., Any]) -> Callable[[Tensor, Tensor], Tensor]:
    def one(output: Tensor, y: Tensor) -> Any:
        return loss(output[None], y[None])

    each: Callable[[Tensor, Tensor], Tensor] = torch.vmap(one)
    return each


def _unreduced(loss: Any) -> Callable[..., Any]:
    if not isinstance(loss, nn.Module):
        return partial(loss, reduction="none")
    twin = copy.copy(loss)
    twin.reduction = "none"  # type: ignore[assignment]
    return twin


def _reduction(loss: Any) -> str | None:
    """Its `reduction`; None where it has none."""
    if isinstance(loss, nn.Module):
        return getattr(loss, "reduction", None)
    try:
        known = inspect.signature(loss).parameters.get("reduction")
    except (TypeError, ValueError):
        return None
    return known.default if known is not None and isinstance(known.default, str) else None
