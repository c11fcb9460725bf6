"""A hub and three parties as people run them, by their commands and over TLS; hub and a party are killed on the way."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest

from comity.comparison.compare import compare

COMITY = [sys.executable, "-c", "from comity.cli import main; main()"]
NAMES = ("Ayr", "Bern", "Cork")
pytestmark = pytest.mark.slow


def free() -> int:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        port: int = door.getsockname()[1]
    return port


class Place:
    """A folder in which commands run."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.running = folder, {}  # type: Path, dict[str, subprocess.Popen[bytes]]
        self.env = {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}

    def do(self, *args: str) -> str:
        done = subprocess.run(
            [*COMITY, *args], cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def begin(self, name: str, *args: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                [*COMITY, *args], cwd=self.folder, env=self.env, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )

    def kill(self, name: str) -> None:
        self.running[name].send_signal(signal.SIGKILL)
        self.running.pop(name).wait(20)

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def wait(self, what: Any, seconds: float = 120.0) -> None:
        ends = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < ends, {name: self.log(name)[-1500:] for name in self.running}
            time.sleep(0.05)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    for process in made.running.values():
        process.kill()
        process.wait(20)


def tables(n: int = 80) -> dict[str, polars.DataFrame]:
    rng, out = np.random.default_rng(5), {}
    for shift, name in enumerate(NAMES):
        x = rng.normal(size=(n, 2)) + 0.3 * shift
        y = x @ [1.0, -1.0] + rng.normal(size=n) > 0
        out[name] = polars.DataFrame({"u": x[:, 0], "v": x[:, 1], "c": rng.choice(["r", "g"], n), "y": y.astype(int)})
    return out


def test_everybody_types_one_command_and_a_kill_loses_nothing(place: Place) -> None:
    port, asked = free(), ["--target", "y", "--model", "linear", "--rounds", "3", "--repeats", "2"]
    for name, table in tables().items():
        table.write_csv(place.folder / f"{name}.csv")
    place.do("hub", "init", "hub", "--host", "127.0.0.1", "--name", "Demo", "--port", str(port))
    with (place.folder / "hub" / "hub.toml").open("a") as f:
        f.write('\n[compare]\ntarget = "y"\nmodel = "linear"\nrounds = 3\nrepeats = 2\n')
    tokens = {name: place.do("hub", "invite", "hub", name).split()[-3] for name in NAMES}
    place.begin("serve", "serve", "hub", "--once")
    url = f"https://127.0.0.1:{port}"
    place.wait(lambda: "begins" in place.log("serve"))
    for name in NAMES:
        place.do("join", url, tokens[name], "--identity", f"{name}.key")
        place.do("hub", "approve", "hub", name)

    def party(name: str) -> None:
        told = ["--hub", url, "--identity", f"{name}.key", "--json", f"{name}.json", "--report", f"{name}.html"]
        place.begin(name, "compare", f"{name}.csv", *asked, *told)

    for name in NAMES:
        party(name)
    steps = place.folder / "hub" / "runs" / "compare-y" / "steps"
    place.wait(lambda: steps.is_dir() and len(list(steps.iterdir())) >= 12)
    place.kill("Bern")
    party("Bern")
    place.wait(lambda: len(list(steps.iterdir())) >= 20)
    place.kill("serve")
    place.begin("serve", "serve", "hub", "--once")
    place.wait(lambda: all(place.running[name].poll() is not None for name in (*NAMES, "serve")))
    assert {name: process.returncode for name, process in place.running.items()} == dict.fromkeys((*NAMES, "serve"), 0)

    here = compare(tables(), "y", pooled=False, model="linear", rounds=3, repeats=2).results
    told = [json.loads((place.folder / f"{name}.json").read_text()) for name in NAMES]
    assert told[0] == told[1] == told[2], "everybody has the same results"
    for key in ("verdict", "ways", "parties", "gain", "unseen", "influence", "learning", "left_out", "card"):
        assert told[0][key] == json.loads(json.dumps(here))[key], key
    pages = {(place.folder / f"{name}.html").read_bytes() for name in NAMES}
    assert len(pages) == 1, "and the same report"
    assert b"Pooled is not available: the data stay." in pages.pop()
    assert "Pooled is not available" in " ".join(place.log("Ayr").split())
