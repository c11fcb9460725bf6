"""Ticket: a sparse network as it is kept, carried and put to use."""

import copy
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from comity.compress.coding import from_bfloat16
from comity.core.checks import is_number, part, refusal, shown, whole, word
from comity.core.checks import path as path_of
from comity.core.contribution import Array, Tree
from comity.core.errors import ConfigError, WireError
from comity.core.round import Round
from comity.deploy.coding import LARGEST, WIDTHS
from comity.deploy.format import LIMIT, Contents, decode, encode
from comity.ledger.folder import put

KINDS = tuple(WIDTHS)
_MOST = float(from_bfloat16(np.array([LARGEST], np.uint16))[0])
_SEEN = ("module", "modules", "tensors", "frozen")
"""What of a model's fingerprint says which network it is."""


@dataclass(frozen=True, eq=False, repr=False)
class Ticket:
    """A sparse network: its parameters, and which of them are kept (Frankle & Carbin, ICLR 2019).

    It makes a file short. In memory and in use a network with zeros is as large and as slow as a dense one: what makes
    a device faster is `co.shrink`.

    In a file the positions are Rice-coded for each leaf, the kept numbers are int8 with a scale for each block of 64,
    or bfloat16, or float32, and all is deflated. A damaged file is refused.

    Attributes:
        params: {name: float array}, kept as float32 (float64 is rounded), finite; 0 where the mask is False.
        mask: {name: bool array} of the leaves that are pruned; the others are kept whole.
        model: sha256 of the network's layers, tensors and frozen values, hex; "" where it is not held to one.
        metrics: what is known of it, such as {"accuracy": 0.81}; finite numbers.

    Raises:
        ConfigError: parameters, masks or metrics that are none.

    Example:
        >>> import tempfile
        >>> w = np.where(np.arange(1000) % 20 == 0, 0.5, 0.0).reshape(10, 100)
        >>> ticket = Ticket.of({"0.weight": w, "0.bias": np.ones(10)}, metrics={"accuracy": 0.81})
        >>> ticket
        Ticket(1,010 numbers, 5.0 % of the prunable kept)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     size = ticket.save(f"{folder}/a.ticket")
        ...     again = Ticket.load(f"{folder}/a.ticket")
        >>> size < 4 * w.size / 9, bool((again.mask["0.weight"] == (w != 0)).all()), again.metrics
        (True, True, {'accuracy': 0.81})
    """

    params: Mapping[str, Array]
    mask: Mapping[str, Array]
    model: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        params = _numbers(self.params)
        mask = _masks(self.mask, params)
        kept = {name: np.where(mask[name], x, np.float32(0)) if name in mask else x for name, x in params.items()}
        if not isinstance(self.model, str):
            raise refusal("model", "Ticket", "text", self.model, "Use Ticket.of(params, model=...).")
        for values in (*kept.values(), *mask.values()):
            values.flags.writeable = False
        for name, value in (("params", kept), ("mask", mask), ("metrics", _metrics(self.metrics))):
            object.__setattr__(self, name, value)

    @classmethod
    def of(
        cls, params: Tree, mask: Tree = None, *, model: Any = None, metrics: Mapping[str, float] | None = None
    ) -> "Ticket":
        """The ticket of trained parameters.

        Args:
            params: {name: float array}, the averaged or the site's own running statistics among them.
            mask: {name: bool array}; None for the numbers that are not 0, of all leaves of two axes or more.
            model: with a `fingerprint()`, such as a TorchModel: `densify` then refuses other networks.
            metrics: what is known of it, such as {"accuracy": 0.81}.

        Raises:
            ConfigError: parameters, masks, a model or metrics that are none.
        """
        if mask is None:
            mask = {name: x != 0 for name, x in _numbers(params).items() if x.ndim > 1}
        if model is not None:
            part("model", "Ticket", model, ("fingerprint()",), "a co.TorchModel")
        return cls(params, mask, "" if model is None else _digest(model), metrics or {})  # type: ignore[arg-type]

    def __repr__(self) -> str:
        numbers = sum(x.size for x in self.params.values())
        return f"Ticket({numbers:,} numbers, {100 * self.density:.1f} % of the prunable kept)"

    @property
    def density(self) -> float:
        """The kept share of all numbers that a mask covers, [0, 1]; 1 where there is no mask."""
        every = sum(m.size for m in self.mask.values())
        return float(sum(int(m.sum()) for m in self.mask.values()) / every) if every else 1.0

    def densities(self) -> dict[str, float]:
        """The kept share of each leaf that has a mask, [0, 1]."""
        return {name: float(m.mean()) if m.size else 1.0 for name, m in sorted(self.mask.items())}

    def size(self, values: str = "int8", *, rest: str | None = None) -> int:
        """The bytes of its file, written as `save` would."""
        return len(self._encoded(values, rest))

    def save(self, path: str | Path, values: str = "int8", *, rest: str | None = None) -> int:
        """Write it to a file, whole or not at all; one that lies there is replaced.

        Args:
            path: of the file; its folder is made.
            values: of the kept numbers: "int8" (each within half the scale of its block of 64, which is its greatest
                magnitude over 127, rounded up to a bfloat16), "bfloat16" (the nearest) or "float32" (exactly).
            rest: of the leaves without a mask: "bfloat16" or "float32"; None for "float32" where the values are, else
                "bfloat16".

        Returns:
            The bytes of the file.

        Raises:
            ConfigError: an unknown kind, or a file that cannot be written.
            LedgerError: the disk is full.
        """
        data = self._encoded(values, rest)
        put(path_of("path", "Ticket.save", path), data)
        return len(data)

    @classmethod
    def load(cls, path: str | Path, *, limit: int = LIMIT) -> "Ticket":
        """The ticket in a file, which may come from anybody.

        Args:
            path: of the file.
            limit: the most bytes that the dense parameters may take, at 4 for each number.

        Raises:
            ConfigError: a file that cannot be read.
            WireError: no ticket, damaged, forged, of another version, or larger than `limit`.
        """
        limit = whole("limit", "Ticket.load", limit, 1)
        return made(opened(path_of("path", "Ticket.load", path), limit))

    def densify(self, net: Any) -> Any:
        """A copy of a network with these parameters in it, zeros where nothing was kept, in evaluation mode.

        Args:
            net: the nn.Module that was trained, or one of the same layers; it is not changed.

        Raises:
            ConfigError: no nn.Module, or one of other layers, names or shapes.
        """
        from comity.adapters.torch.model import TorchModel

        model = TorchModel(net, _no_loss)
        if self.model and _digest(model) != self.model:
            raise ConfigError(
                "The 'net' of densify must have the layers of the network that the ticket is of. Got others. "
                "Build it with the code that was trained."
            )
        asked = model.init(Round("ticket", 0))
        for name in sorted(set(asked) ^ set(self.params)):  # type: ignore[arg-type]
            only = "the ticket" if name in self.params else "the net"
            raise ConfigError(
                f"The 'net' of densify must have the parameters of the ticket. Got '{name}' only in {only}. "
                "Build the same network; put what a site kept for itself, such as norms, beside what was shared."
            )
        dense = copy.deepcopy(net)
        model.load(dense, self.params)
        return dense.eval()

    def _encoded(self, values: str, rest: str | None) -> bytes:
        word("values", "Ticket", values, KINDS)
        rest = ("float32" if values == "float32" else "bfloat16") if rest is None else rest
        word("rest", "Ticket", rest, KINDS[1:])
        return encode(Contents(self.params, self.mask, self.model, self.metrics, values, rest))


def opened(path: Path, limit: int = LIMIT) -> Contents:
    """What a ticket file holds, and how it is written.

    Raises:
        ConfigError: a file that cannot be read.
        WireError: as `Ticket.load`.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} must be a ticket file. Got: {error.strerror}. Name another.") from error
    try:
        return decode(data, limit)
    except WireError as error:
        raise WireError(f"{path}: {error}") from error


def made(found: Contents) -> Ticket:
    """The ticket of what a file holds.

    Raises:
        WireError: it is none.
    """
    try:
        return Ticket(found.params, found.mask, found.model, found.metrics)
    except ConfigError as error:
        raise WireError(f"A ticket file must hold a ticket. Got this: {error}") from error


def _numbers(params: Any) -> dict[str, Array]:
    """Copies of the parameters as float32, in order of their names."""
    if not isinstance(params, Mapping) or not params or not all(isinstance(name, str) for name in params):
        raise refusal("params", "Ticket", "{name: float array}", params, "Use those of a model.")
    out = {}
    for name in sorted(params):
        x = params[name]
        if not isinstance(x, np.ndarray) or x.dtype.kind != "f":
            raise ConfigError(
                f"The leaf '{name}' in the params of Ticket must be a float array. Got {shown(x)}. "
                "Use those of a model."
            )
        with np.errstate(over="ignore", invalid="ignore"):
            out[name] = np.array(x, np.float32, order="C")
        if not (np.abs(out[name]) <= _MOST).all():
            raise ConfigError(
                f"The leaf '{name}' in the params of Ticket must be finite, to {_MOST:.2e}. Got other numbers. "
                "Look at the training."
            )
    return out


def _masks(mask: Any, params: Mapping[str, Array]) -> dict[str, Array]:
    if not isinstance(mask, Mapping) or not set(mask) <= set(params):
        raise refusal("mask", "Ticket", "{name: bool array} of names in params", mask, "Use mask=None for the zeros.")
    for name, m in mask.items():
        if not isinstance(m, np.ndarray) or m.dtype != bool or m.shape != params[name].shape:
            raise ConfigError(
                f"The leaf '{name}' in the mask of Ticket must be bool, of shape {params[name].shape}. "
                f"Got {shown(m)}. Use mask != 0."
            )
    return {name: np.array(mask[name], order="C") for name in sorted(mask)}


def _metrics(metrics: Any) -> dict[str, float]:
    if not isinstance(metrics, Mapping):
        raise refusal("metrics", "Ticket", "{name: number}", metrics)
    for name, value in metrics.items():
        if not isinstance(name, str) or not is_number(value) or not np.isfinite(value):
            got = f"{shown(name)}: {shown(value)}"
            raise ConfigError(f"The 'metrics' of Ticket must be finite numbers by name. Got {got}. Leave it out.")
    return {name: float(metrics[name]) for name in sorted(metrics)}


def _digest(model: Any) -> str:
    """The sha256, hex, of what makes a model that network and no other."""
    told = model.fingerprint()
    seen = {name: told[name] for name in _SEEN if name in told} or told
    return hashlib.sha256(json.dumps(seen, sort_keys=True, default=str).encode()).hexdigest()


def _no_loss(outputs: Any, targets: Any) -> Any:
    raise AssertionError("what is put to use is not trained")
