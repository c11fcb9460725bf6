"""Others who do the same work: commands from a TOML file, whose JSON lines tell the time of a warm round."""

import os
import shlex
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from race.tree import Outcome, watched

MS = {"ms": 1.0, "s": 1000.0}
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Peer:
    """One command of a peer.

    Attributes:
        name: of the peer, with its version.
        run: the command line.
        wall: the key of the wall time of a warm round in its JSON line.
        cpu: that of the CPU time, all its processes together.
        unit: "ms" or "s".
        folder: where it is run.
        env: added to the environment.
    """

    name: str
    run: str
    wall: str = "wall"
    cpu: str = "cpu"
    unit: str = "ms"
    folder: str = "."
    env: Mapping[str, str] | None = None

    def __call__(self) -> Outcome:
        """Run it once."""
        return watched(shlex.split(self.run), self.folder, {**plain_environment(), **(self.env or {})})

    def round_ms(self, outcome: Outcome) -> tuple[float, float]:
        """Wall and CPU milliseconds of a warm round."""
        times = MS[self.unit]
        return float(outcome.said[self.wall]) * times, float(outcome.said[self.cpu]) * times


def plain_environment() -> dict[str, str]:
    """This one without the numbers of threads: everybody's defaults are compared."""
    return {k: v for k, v in os.environ.items() if k not in THREADS}


def read(path: Path) -> dict[str, dict[str, Peer]]:
    """Workload to the name of each peer that does it, and how."""
    found: dict[str, dict[str, Peer]] = {}
    for name, entry in tomllib.loads(path.read_text(encoding="utf-8")).items():
        common = {k: entry[k] for k in ("wall", "cpu", "unit", "folder", "env") if k in entry}
        for work, own in entry["work"].items():
            peer = Peer(f"{name} {entry.get('version', '')}".strip(), **{**common, **own})
            found.setdefault(work, {})[name] = peer
    return found
