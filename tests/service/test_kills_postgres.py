"""A hub on PostgreSQL, of one process or two: it, its database and its sites are killed at random moments."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parent))
made, servers = importlib.import_module("actors"), importlib.import_module("postgres")
kills = importlib.import_module("kills")

TWO = ("one", "two")


@pytest.fixture(scope="module")
def mother() -> Iterator[Any]:
    process = made.Mother.start()
    yield process
    process.close()


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    """One that is killed."""
    with servers.running() as one:
        kills.hurried(one)
        yield one


def struck(given: Any, folder: Path, work: str, strikes: int, *, rounds: int, hubs: Any = ("hub",)) -> None:
    """Args: given, (mother, server, turns)."""
    mother, server, turns = given
    among = ("hub", kills.DATABASE, *made.NAMES) if hubs == ("hub",) else (kills.CARRIER, kills.CARRIER, *hubs)
    first = ("hub", kills.DATABASE, "ada") if hubs == ("hub",) else (kills.CARRIER,)
    everybody = among if hubs == ("hub",) else (*among, kills.DATABASE, *made.NAMES)
    victims = kills.drawn(f"{work} {turns}", strikes, everybody, first=first[:strikes])

    def make(where: Path) -> Any:
        return kills.Campaign(mother, where, work, rounds, server, hubs, turns)

    kills.killed(make, folder, victims, seed=f"{work} {strikes} {turns}")


@pytest.mark.parametrize(("work", "strikes", "rounds"), [("fedavg", 6, 30), ("memory", 6, 30), ("masked", 4, 6)])
def test_hub_database_and_sites(work, strikes, rounds, mother, server, tmp_path):
    struck((mother, server, False), tmp_path, work, strikes, rounds=rounds)


@pytest.mark.parametrize(("work", "turns", "rounds"), [("fedavg", False, 20), ("large", True, 10)])
def test_two_hubs(work, turns, rounds, mother, server, tmp_path):
    """The one that carries is killed, and the other goes on; sites dial one of them, or each in turn."""
    struck((mother, server, turns), tmp_path, work, 6, rounds=rounds, hubs=TWO)


@pytest.mark.slow
@pytest.mark.parametrize(("work", "rounds"), [("fedavg", 200), ("memory", 200), ("masked", 50)])
def test_many_of_hub_database_and_sites(work, rounds, mother, server, tmp_path):
    struck((mother, server, False), tmp_path, work, 20, rounds=rounds)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("work", "turns", "rounds"), [("fedavg", False, 150), ("large", True, 80), ("masked", True, 40)]
)
def test_many_of_two_hubs(work, turns, rounds, mother, server, tmp_path):
    struck((mother, server, turns), tmp_path, work, 20, rounds=rounds, hubs=TWO)
