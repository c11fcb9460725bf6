"""What the tests of the command share: the command in this process, and a table to try it on."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars
import pytest
from hypothesis import settings

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
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 2))
    y = np.where(x[:, 0] + x[:, 1] + rng.normal(size=120) > 0, "yes", "no")
    frame = polars.DataFrame({"age": x[:, 0], "dose": x[:, 1], "outcome": y, "hospital": ["Ayr", "Bern"] * 60})
    path = tmp_path_factory.mktemp("data") / "patients.csv"
    frame.write_csv(path)
    return path
