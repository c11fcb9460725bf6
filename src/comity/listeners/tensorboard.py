"""A run in TensorBoard: its metrics, bytes and who was accepted, as scalars by round."""

from importlib import import_module
from pathlib import Path
from typing import Any

from comity.core.checks import path
from comity.core.errors import ConfigError
from comity.listeners.numbers import counts, steps, values
from comity.loop.hub import Event


class TensorBoard:
    """Writes a run for TensorBoard: `listen=co.TensorBoard("boards/first")`.

    Scalars by round, counted from 1: `score/<metric>`, `round/<metric>` (of training), `round/asked`,
    `round/accepted`, and `bytes/up` and `bytes/down` of that event. Failed attempts add to `bytes/...` under the number
    of the round before. The file is closed at the end of the run; a later run goes on in the same folder.

    Args:
        folder: where the event files lie; best not the folder of the run.

    Raises:
        ConfigError: no path; or neither torch with tensorboard, nor tensorboardX is installed.

    Example:
        >>> fed.run(rounds=100, listen=[co.Progress(), co.TensorBoard("boards/first")])  # doctest: +SKIP
    """

    def __init__(self, folder: str | Path) -> None:
        self._folder, self._make = path("folder", "TensorBoard", folder), _writer()
        self._open: Any = None

    def __call__(self, event: Event) -> None:
        """Write the scalars of an event."""
        if event.kind == "end":
            self._close()
        if event.kind not in ("round", "score"):
            return
        if self._open is None:
            self._open = self._make(log_dir=str(self._folder))
        said, step = counts(event), steps(event)
        scalars = {f"{event.kind}/{name}": value for name, value in values(event).items()}
        scalars |= {"bytes/up": said["bytes_up"], "bytes/down": said["bytes_down"]}
        if event.kind == "round":
            scalars |= {f"round/{name}": float(said[name]) for name in ("asked", "accepted")}
        for name, value in scalars.items():
            self._open.add_scalar(name, value, step)

    def _close(self) -> None:
        if self._open is not None:
            self._open.close()
        self._open = None


def _writer() -> Any:
    """The class that writes, of whichever library is there."""
    try:
        return import_module("torch.utils.tensorboard").SummaryWriter
    except ImportError:
        pass
    try:
        return import_module("tensorboardX").SummaryWriter
    except ImportError:
        must = "TensorBoard must find torch and tensorboard, or tensorboardX"
        raise ConfigError(f"{must}. Got neither. Use pip install tensorboardX.") from None
