"""A hub and four hospitals on one machine, its page open on a port: `make hub-demo`.

    python -m comity.service.demo [PORT]

Hub and hospitals are processes of their own that talk over HTTPS, each with a folder of its own; the records are
those of `comity demo`. Ctrl-C ends all of them, and removes what they kept.
"""

import signal
import sys
import tempfile
from pathlib import Path

from comity.core.errors import ConfigError
from comity.demo import hospitals
from comity.service.pages.sessions import Sessions
from comity.service.registry import Registry
from comity.service.trial import organisations

PORT = 8443
SIGNALS = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
STUDY = '''
"""Benign or malignant? Hub and hospitals each run their own copy of this file."""

import time
from dataclasses import dataclass

import numpy as np

import comity as co

title = "Tumours: benign or malignant"
rounds = 120
LARGEST = {
    "mean radius": 30, "mean texture": 40, "mean perimeter": 200, "mean area": 2600, "mean smoothness": 0.2,
    "mean compactness": 0.4, "mean concavity": 0.5, "mean concave points": 0.25, "mean symmetry": 0.35,
    "mean fractal dimension": 0.12,
}
model = co.MLP(inputs=len(LARGEST), classes=2, hidden=(16,), rate=0.1)
fed = co.Collaboration(
    co.FedAvg(model, bound=10.0), combine=co.Mean(uniform=True), channel=co.SecAgg(), evaluate=co.every(2), quorum=0.75
)


@dataclass(frozen=True)
class Unhurried:
    """Takes as long as a larger model would, so that there is something to watch."""

    trainer: co.Trainer

    def contribute(self, shared, local, round, secret):
        time.sleep(0.5)
        return self.trainer.contribute(shared, local, round, secret)


def participant(path):
    table = co.read_table(path)
    x = np.column_stack([table[name] / most for name, most in LARGEST.items()]).astype("float32")
    y = (table["diagnosis"] == "malignant").to_numpy().astype(int)
    held = np.arange(len(y)) % 4 == 0
    return Unhurried(co.Trainer(model, (x[~held], y[~held]), test=(x[held], y[held])))
'''


def show(port: int = PORT) -> None:
    """Start a hub and four hospitals, say where they are, and wait for Ctrl-C.

    Args:
        port: of the hub, on this machine.

    Raises:
        ConfigError: the port is taken, or the hub ended by itself.
    """
    with tempfile.TemporaryDirectory(prefix="comity-hub-demo-") as name:
        at, tables = Path(name), {_file(who): table for who, table in hospitals().items()}
        for who, table in tables.items():
            table.write_csv(at / f"{who}.csv")
        (at / "tumours.py").write_text(STUDY.lstrip(), encoding="utf-8")
        data = {who: at / f"{who}.csv" for who in tables}
        with organisations(at, at / "tumours.py", data, port=port, stay=True) as trial:
            with Registry.open(trial.settings.folder) as registry:
                link = f"{trial.settings.url}/login/{Sessions(registry).link('you', 'operator')}"
            _say("hub", f"{trial.settings.url}   its certificate signs itself: the browser asks once")
            _say("page", f"{link}   once, within ten minutes")
            _say("again", f"comity hub login {trial.settings.folder} you")
            _say("hospitals", f"{', '.join(tables)}   each a process; logs and ledgers in {at}")
            _say("end", "Ctrl-C")
            trial.hub.wait()
            raise ConfigError(f"The hub ended by itself. It said: {(at / 'hub.log').read_text()[-1000:]}")


def _file(name: str) -> str:
    return name.lower().replace(" ", "-")


def _say(label: str, text: str) -> None:
    print(f"{label:<11}{text}", flush=True)  # noqa: T201  it is a command


def _stop(*_: object) -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C would leave some of them
    raise KeyboardInterrupt


def main() -> None:
    """Until Ctrl-C, or whoever else ends it: nothing is left running."""
    for number in SIGNALS:
        signal.signal(number, _stop)
    try:
        show(int(sys.argv[1]) if len(sys.argv) > 1 else PORT)
    except KeyboardInterrupt:
        _say("ended", "all of them")
    except (ConfigError, ValueError) as error:
        sys.exit(f"{'error':<11}{error}")


if __name__ == "__main__":
    main()
