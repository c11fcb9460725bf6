"""A run in MLflow: its metrics, bytes and who was accepted, by round."""

import re
from importlib import import_module
from typing import Any

from comity.core.checks import refusal
from comity.core.errors import ConfigError
from comity.listeners.numbers import counts, steps, values
from comity.loop.hub import Event

_STRANGE = re.compile(r"[^\w\-. /]", re.ASCII)


class MLflow:
    """Logs a run to a run of MLflow: `listen=co.MLflow(mlflow.start_run())`.

    Metrics by round, counted from 1: `<metric>` of scores, `round.<metric>` of training, `round.asked`,
    `round.accepted`, `<kind>.bytes_up` and `<kind>.bytes_down`. What MLflow does not take in a name becomes "_".
    Whoever began the run of MLflow ends it. A server that does not answer is reported, and the run goes on without it.

    Args:
        run: a run of MLflow, or its id.

    Raises:
        ConfigError: neither, or mlflow is not installed.

    Example:
        >>> with mlflow.start_run() as run:  # doctest: +SKIP
        ...     fed.run(rounds=100, listen=co.MLflow(run))
    """

    def __init__(self, run: Any) -> None:
        found = run if isinstance(run, str) else getattr(getattr(run, "info", None), "run_id", None)
        if not isinstance(found, str) or not found:
            raise refusal("run", "MLflow", "a run of MLflow, or its id", run, "Use mlflow.start_run().")
        try:
            self._client = import_module("mlflow").MlflowClient()
        except ImportError as missing:
            raise ConfigError(
                "MLflow must find mlflow. It is not installed: there is no 'mlflow'. Use pip install mlflow."
            ) from missing
        self._run = found

    def __call__(self, event: Event) -> None:
        """Log the numbers of an event."""
        if event.kind not in ("round", "score"):
            return
        said, kind = counts(event), event.kind
        own = "" if kind == "score" else "round."
        numbers = {f"{own}{name}": value for name, value in values(event).items()}
        numbers |= {f"{kind}.{name}": said[name] for name in ("bytes_up", "bytes_down")}
        if kind == "round":
            numbers |= {f"round.{name}": said[name] for name in ("asked", "accepted")}
        for name, value in numbers.items():
            self._client.log_metric(self._run, _STRANGE.sub("_", name), float(value), step=steps(event))
