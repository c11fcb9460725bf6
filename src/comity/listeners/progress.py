"""Progress in a terminal: one line for a run."""

import time
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from comity.core.checks import part
from comity.listeners.numbers import counts, steps, values
from comity.loop.hub import Event

MOST = 4
"""So many metrics are shown; all are in `run.history`."""
SECONDS = 0.05
"""The line is written no more often than this, but for a round that did not close, and at the end."""


class Progress:
    """Shows a run as one line that is written anew: round, who was accepted of whom, bytes, metrics.

    `listen=co.Progress()`. Where standard error is no terminal, nothing is written. One object may watch several runs,
    one after the other. Metrics are those of the last scores; before the first, those of training.

    Args:
        console: of rich; standard error by default.

    Raises:
        ConfigError: no console.

    Example:
        >>> import io, numpy as np, comity as co
        >>> from rich.console import Console
        >>> data, model = (np.eye(4, dtype="float32"), np.array([0, 0, 1, 1])), co.Linear(inputs=4, classes=2, rate=0.5)
        >>> seen = io.StringIO()
        >>> console = Console(file=seen, force_terminal=True, width=80)
        >>> fed = co.Collaboration(co.FedAvg(model), {name: co.Trainer(model, data) for name in ("a", "b")})
        >>> run = fed.run(rounds=3, listen=co.Progress(console))
        >>> "round 3   2/2 accepted" in seen.getvalue(), "train_accuracy 1" in seen.getvalue()
        (True, True)
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = Console(stderr=True) if console is None else console
        part("console", "Progress", self._console, ("is_terminal", "show_cursor()"), "rich.console.Console()")
        self._begin()

    def _begin(self) -> None:
        self._live: Live | None = None
        self._up = self._down = 0
        self._scores: dict[str, float] = {}
        self._trained: dict[str, float] = {}
        self._round = ""
        self._written = -SECONDS

    def __call__(self, event: Event) -> None:
        """Count the event in, and write the line."""
        if not self._console.is_terminal:
            return
        if event.kind == "end":
            self._end()
            return
        if event.kind not in ("round", "score"):
            return
        if self._live is None:
            self._live = Live(console=self._console, auto_refresh=False)
            self._live.start()
        self._count(event)
        if not event.closed or time.monotonic() - self._written >= SECONDS:
            self._write()

    def _write(self) -> None:
        if self._live is not None:
            self._live.update(Text(self.line(), no_wrap=True, overflow="ellipsis"), refresh=True)
        self._written = time.monotonic()

    def _count(self, event: Event) -> None:
        said: dict[str, Any] = counts(event)
        self._up, self._down = self._up + said["bytes_up"], self._down + said["bytes_down"]
        if event.kind == "score":
            self._scores = dict(values(event))
            return
        failed = "" if event.closed else f" did not close (attempt {event.round.attempt + 1})"
        number = steps(event) if event.closed else event.round.number + 1
        self._round = f"round {number}{failed}   {said['accepted']}/{said['asked']} accepted"
        self._trained = dict(values(event)) or self._trained

    def line(self) -> str:
        """What stands in the terminal now."""
        shown = list((self._scores or self._trained).items())[:MOST]
        metrics = "   ".join(f"{name} {value:.4g}" for name, value in shown)
        traffic = f"{_size(self._up)} up, {_size(self._down)} down"
        return "   ".join(part for part in (self._round, traffic, metrics) if part)

    def _end(self) -> None:
        if self._live is not None:
            self._write()
            self._live.stop()
        self._begin()


def _size(n: float) -> str:
    """Bytes in three digits."""
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.3g} {unit}"
        n /= 1000
    return f"{n:.3g} TB"
