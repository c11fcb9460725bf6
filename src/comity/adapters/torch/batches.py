"""Data as tensors, and the batches of an epoch: gathered many at a time, without a DataLoader."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset, TensorDataset, default_collate

from comity.adapters.rows import numbers, pair
from comity.core.contribution import Array
from comity.core.errors import ConfigError

_BLOCK = 64


def tensor(values: Any, dtype: torch.dtype, device: str) -> Tensor:
    """An array or tensor where the module is; floats in its dtype, other dtypes as they are.

    Raises:
        ConfigError: no numbers.
    """
    if not isinstance(values, Tensor):
        plain = type(values) is np.ndarray and values.dtype.kind in "fiub"
        array = values if plain else numbers("data", "TorchModel", values)
        if not array.flags.writeable or any(s < 0 for s in array.strides):
            array = array.copy()
        values = torch.from_numpy(array)
    values = values.detach()
    out: Tensor = values.to(device, dtype if values.is_floating_point() else values.dtype)
    return out


def target(values: Any, dtype: torch.dtype, device: str) -> Tensor:
    """The targets: whole numbers as int64, floats in the module's dtype."""
    y = tensor(values, dtype, device)
    return y if y.is_floating_point() else y.long()


class Ready(NamedTuple):
    """Examples as the module takes them."""

    x: Tensor
    y: Tensor


def tensors(data: Any, dtype: torch.dtype, device: str) -> tuple[Tensor, Tensor] | Dataset[Any]:
    """(X, y) as tensors; or, where rows exist only one by one, the Dataset itself.

    Raises:
        ConfigError: neither a pair nor a Dataset with a length.
    """
    if isinstance(data, Ready):
        return data
    whole = _whole(data)
    if isinstance(whole, Dataset):
        if not hasattr(whole, "__getitem__") or not hasattr(whole, "__len__") or len(whole) == 0:
            raise ConfigError(
                f"A Dataset must have a length >= 1 and rows by number. Got {type(whole).__name__}. Use (X, y)."
            )
        return whole
    x, y = pair(whole, "TorchModel")
    return Ready(tensor(x, dtype, device), target(y, dtype, device))


def _whole(data: Any) -> Any:
    if isinstance(data, TensorDataset):
        return data.tensors
    if isinstance(data, Subset):
        inner, rows = _whole(data.dataset), torch.as_tensor(data.indices, dtype=torch.long)
        return data if isinstance(inner, Dataset) else tuple(torch.as_tensor(part)[rows] for part in inner)
    return data


def sizes(n: int, batch: int, pairs: bool) -> list[int]:
    """How many rows each batch has; with `pairs` a last batch of one joins the one before (BatchNorm needs two)."""
    out = [batch] * (n // batch) + ([n % batch] if n % batch else [])
    if pairs and len(out) > 1 and out[-1] == 1:
        out[-2:] = [out[-2] + 1]
    return out


def batches(
    data: tuple[Tensor, Tensor] | Dataset[Any], orders: Iterable[Array], batch: int, *, pairs: bool, like: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches of all epochs.

    Args:
        data: from `tensors`.
        orders: one order of the samples for each epoch.
        batch: rows in a batch.
        pairs: no last batch of one.
        like: gives dtype and device.
    """
    for order in orders:
        widths, at = sizes(len(order), batch, pairs), 0
        if len(widths) == 1 and isinstance(data, tuple):
            where = torch.from_numpy(order).to(like.device)
            yield data[0][where], data[1][where]
            continue
        for i in range(0, len(widths), _BLOCK):
            block = widths[i : i + _BLOCK]
            rows = order[at : at + sum(block)]
            at += len(rows)
            if isinstance(data, tuple):
                where = torch.from_numpy(rows).to(like.device)
                yield from zip(*(part[where].split_with_sizes(block) for part in data), strict=True)
            else:
                yield from collated(data, rows, block, like)


def collated(data: Dataset[Any], rows: Array, block: list[int], like: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """These rows of a Dataset, in batches of so many."""
    for part in np.split(rows, np.cumsum(block)[:-1]):
        items = default_collate([data[int(i)] for i in part])
        if not isinstance(items, list | tuple) or len(items) != 2:
            raise ConfigError(
                f"The rows of a Dataset must be pairs (x, y). Got {type(items).__name__}. Wrap the Dataset."
            )
        device = str(like.device)
        yield tensor(items[0], like.dtype, device), target(items[1], like.dtype, device)
