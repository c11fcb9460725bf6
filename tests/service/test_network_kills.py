"""Hub and sites as processes that are killed at random moments: no round lost, nothing counted twice, bits equal."""

import importlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parent))
made, kills = importlib.import_module("actors"), importlib.import_module("kills")


@pytest.fixture(scope="module")
def mother() -> Iterator[Any]:
    process = made.Mother.start()
    yield process
    process.close()


def struck(mother: Any, folder: Path, work: str, strikes: int, *, rounds: int) -> None:
    first = ("hub", "cyd") if work == "late" else ("hub", "ada")
    victims = kills.drawn(work, strikes, ("hub", "hub", *made.NAMES), first=first)
    checked = kills.check_late if work == "late" else kills.check

    def make(where: Path) -> Any:
        return kills.Campaign(mother, where, work, rounds)

    kills.killed(make, folder, victims, seed=f"{work} {strikes}", checked=checked)


FEW = [("fedavg", 8, 60), ("masked", 6, 12), ("memory", 8, 60), ("large", 6, 12), ("late", 4, 30)]
MANY = [("fedavg", 40, 500), ("masked", 40, 120), ("memory", 40, 500), ("large", 30, 120), ("late", 30, 150)]


@pytest.mark.parametrize(("work", "strikes", "rounds"), FEW)
def test_a_few_kills(work, strikes, rounds, mother, tmp_path):
    struck(mother, tmp_path, work, strikes, rounds=rounds)


@pytest.mark.slow
@pytest.mark.parametrize(("work", "strikes", "rounds"), MANY)
def test_many_kills(work, strikes, rounds, mother, tmp_path):
    struck(mother, tmp_path, work, strikes, rounds=rounds)


def test_the_hub_comes_later(mother, tmp_path):
    campaign = kills.Campaign(mother, tmp_path, "fedavg", 2)
    try:
        for who in made.NAMES:
            campaign.begin(who)
        time.sleep(0.3)
        assert all(made.alive(pid) for pid in campaign.pids.values())
        campaign.begin("hub")
        kills.check(campaign, campaign.end())
        ends = time.monotonic() + 10.0
        while any(made.alive(campaign.pids[n]) for n in made.NAMES) and time.monotonic() < ends:
            time.sleep(0.01)
        assert not any(made.alive(campaign.pids[n]) for n in made.NAMES), "they must go when the run is over"
    finally:
        campaign.close()
