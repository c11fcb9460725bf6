"""A hub that asks (see test_network_hostile.py), for all cases."""

import importlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

for here in (Path(__file__).parent, Path(__file__).parents[1]):
    if str(here) not in sys.path:
        sys.path.append(str(here))

made, hostile = importlib.import_module("actors"), importlib.import_module("test_network_hostile")
packets = importlib.import_module("comity.service.packets")


class Asked(hostile.Asked):  # type: ignore[misc, name-defined]
    """As there, of one run."""

    def poll(self, name: str) -> Any:
        ends = time.monotonic() + 10.0
        while time.monotonic() < ends:
            got = self.line(name).ask("GET", "/v1/tasks?run=run&wait=1")
            if got.status == 200:
                return packets.read(got.body)
        raise AssertionError("nothing was asked")


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Any]:
    urls: list[str] = []
    engine = made.network(tmp_path, tell=urls.append, most=2**23, linger=0.0).connect([], None)
    engine.begin(hostile.BASE, {"hash": hostile.RECIPE})
    asked = Asked(engine, urls[0], [])
    yield asked
    if asked.thread is not None:
        asked.thread.join(30)
    for one in asked.lines:
        one.close()
    engine.close()
