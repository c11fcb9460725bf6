"""The network of the table, and the random changes of its images while it trains."""

from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import affine_grid, cross_entropy, grid_sample

import comity as co

WIDTH, HIDDEN, CLASSES = 16, 64, 10
EPOCHS, BATCH, RATE = 5, 10, 0.02


@dataclass(frozen=True)
class Changes:
    """How much images are changed at random.

    Attributes:
        turn: largest rotation, in radians.
        scale: largest change of size, as a share.
        move: largest shift, as a share of half the image.
        flip: mirror half of them.
        gain: the contrast is multiplied by 1 - gain to 1 + gain; half of the images are inverted too.
        offset: largest change of brightness, in standard deviations.
    """

    turn: float = 0.0
    scale: float = 0.0
    move: float = 0.0
    flip: bool = False
    gain: float = 0.0
    offset: float = 0.0


DIGITS = Changes(turn=0.07, scale=0.05, move=0.1, gain=0.3, offset=0.3)
PHOTOS = Changes(turn=0.14, scale=0.1, move=0.2, flip=True, gain=0.3, offset=0.3)


class Changed(nn.Module):
    """Changes images in training, where gradients are taken: statistics that are taken anew see the real ones."""

    def __init__(self, how: Changes) -> None:
        super().__init__()
        self.how = how

    def extra_repr(self) -> str:
        """What enters the recipe."""
        return str(self.how)

    def forward(self, x: Tensor) -> Tensor:
        return self._light(self._shape(x)) if self.training and torch.is_grad_enabled() else x

    def _shape(self, x: Tensor) -> Tensor:
        how, n = self.how, len(x)
        angle, size = _spread(n, how.turn), 1 + _spread(n, how.scale)
        side = torch.where(torch.rand(n) < 0.5, -1.0, 1.0) if how.flip else torch.ones(n)
        at = torch.zeros(n, 2, 3)
        at[:, 0, 0], at[:, 0, 1] = side * size * angle.cos(), -size * angle.sin()
        at[:, 1, 0], at[:, 1, 1] = side * size * angle.sin(), size * angle.cos()
        at[:, :, 2] = _spread(n * 2, how.move).reshape(n, 2)
        grid = affine_grid(at, list(x.shape), align_corners=False)
        return grid_sample(x, grid, padding_mode="border", align_corners=False)

    def _light(self, x: Tensor) -> Tensor:
        n = len(x)
        gain = torch.where(torch.rand(n) < 0.5, -1.0, 1.0) * (1 + _spread(n, self.how.gain))
        middle = x.mean((1, 2, 3), keepdim=True)
        return (x - middle) * gain[:, None, None, None] + middle + _spread(n, self.how.offset)[:, None, None, None]


def _spread(n: int, most: float) -> Tensor:
    return (2 * torch.rand(n) - 1) * most


def network(shape: tuple[int, ...], seed: int, changes: Changes | None = None) -> nn.Sequential:
    """Three convolutions and two linear layers with BatchNorm: 61,050 parameters and 352 statistics for 14x14 grey.

    Args:
        shape: channels, height, width.
        seed: of the first values, normal with variance 2 / inputs.
        changes: of the images in training.
    """
    channels, height, width = shape
    layers: OrderedDict[str, nn.Module] = OrderedDict() if changes is None else OrderedDict(changed=Changed(changes))
    for i, outputs in enumerate((WIDTH, 2 * WIDTH, 4 * WIDTH), 1):
        layers[f"conv{i}"] = nn.Conv2d(channels, outputs, 3, padding=1, bias=False)
        layers[f"norm{i}"], layers[f"relu{i}"] = nn.BatchNorm2d(outputs), nn.ReLU()
        if i < 3:
            layers[f"pool{i}"] = nn.MaxPool2d(2)
        channels = outputs
    layers["flat"] = nn.Flatten()
    layers["hidden"] = nn.Linear(channels * (height // 4) * (width // 4), HIDDEN, bias=False)
    layers["norm4"], layers["relu4"], layers["out"] = nn.BatchNorm1d(HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, CLASSES)
    return _begun(nn.Sequential(layers), seed)


def _begun(net: nn.Sequential, seed: int) -> nn.Sequential:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, values in net.named_parameters():
            if values.ndim > 1:
                values.normal_(0, (2 / values[0].numel()) ** 0.5, generator=generator)
            elif name == "out.bias":
                values.zero_()
    return net


def model(shape: tuple[int, ...], seed: int, *, changes: Changes | None = None, rate: float = RATE) -> Any:
    """The network with its way of training: SGD with momentum 0.9 and weight decay 1e-4, 5 epochs of batches of 10."""
    sgd = partial(torch.optim.SGD, lr=rate, momentum=0.9, weight_decay=1e-4)
    return co.TorchModel(network(shape, seed, changes), cross_entropy, optimizer=sgd, batch=BATCH, epochs=EPOCHS)
