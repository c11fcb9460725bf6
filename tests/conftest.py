"""What all tests share: one thread for small arrays, no deadlines; the command in this process, and a table for it."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import settings

THREADS = "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"
"""Where arrays are small, threads that wait for each other take most of the time. Read when numpy is loaded."""
for name in THREADS:
    os.environ.setdefault(name, "1")

settings.register_profile("comity", deadline=None)
settings.load_profile("comity")
"""A deadline is a wall time: where others use the same cores, a sound example misses it."""


class Ended(NamedTuple):
    """How the command ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """The command in this process: its exit code and what it wrote."""
    from comity import cli

    def ended(*args: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["comity", *map(str, args)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        return Ended(int(left.value.code or 0), *capsys.readouterr())

    return ended


@pytest.fixture(scope="module")
def patients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of two hospitals."""
    import numpy as np
    import polars

    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 2))
    y = np.where(x[:, 0] + x[:, 1] + rng.normal(size=120) > 0, "yes", "no")
    frame = polars.DataFrame({"age": x[:, 0], "dose": x[:, 1], "outcome": y, "hospital": ["Ayr", "Bern"] * 60})
    path = tmp_path_factory.mktemp("data") / "patients.csv"
    frame.write_csv(path)
    return path
