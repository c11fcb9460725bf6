"""Hub and sites as processes that are killed at random moments: no round lost, nothing counted twice, bits equal."""

import importlib
import json
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parent))
made = importlib.import_module("actors")

PATIENCE = 90.0


@pytest.fixture(scope="module")
def mother() -> Iterator[Any]:
    process = made.Mother.start()
    yield process
    process.close()


@dataclass
class Campaign:
    """A hub and its sites, struck again and again."""

    mother: Any
    folder: Path
    work: str
    rounds: int
    port: int = field(default_factory=made.free_port)
    pids: dict[str, int] = field(default_factory=dict)
    struck: list[str] = field(default_factory=list)

    def begin(self, who: str) -> None:
        order = {"folder": self.folder, "work": self.work, "port": self.port}
        more = {"rounds": self.rounds} if who == "hub" else {"name": who}
        self.pids[who] = self.mother.begin(**order, **more)

    def strike(self, who: str) -> None:
        made.kill(self.pids[who])
        self.struck.append(who)

    @property
    def done(self) -> bool:
        return (self.folder / "done").exists()

    def end(self) -> Any:
        """Wait for the end of the run."""
        ends = time.monotonic() + PATIENCE
        while not self.done and time.monotonic() < ends and made.alive(self.pids["hub"]):
            time.sleep(0.01)
        assert self.done, {p.name: p.read_text()[-2000:] for p in self.folder.glob("*.log")}
        return json.loads((self.folder / "done").read_text())

    def close(self) -> None:
        for pid in self.pids.values():
            made.kill(pid)


def check(campaign: Campaign, end: Any) -> None:
    """Each round once, everybody in it, and the state that one process comes to."""
    want = made.local(campaign.work, campaign.rounds)
    everybody = [[n, "\n".join(made.NAMES), [True] * len(made.NAMES)] for n in range(campaign.rounds)]
    assert end["counted"] == everybody
    assert end["bits"] == made.bits(want.state)
    assert end["up"] == want.ledger.bytes_up


def killed(mother: Any, folder: Path, work: str, strikes: int, *, rounds: int) -> None:
    """So many strikes; where a machine is quick, a run may be over before the last, and another one is begun."""
    pick, done = random.Random(f"{work} {strikes}"), 0
    victims = ["hub", made.NAMES[0], *(pick.choice(("hub", "hub", *made.NAMES)) for _ in range(strikes - 2))]
    for number in range(strikes):
        (folder / str(number)).mkdir()
        done += _struck(Campaign(mother, folder / str(number), work, rounds), victims[done:], pick)
        if done == strikes:
            return
    raise AssertionError("the runs must be longer than the strikes")


def _struck(campaign: Campaign, victims: list[str], pick: random.Random) -> int:
    """How many of them were struck in one run, which ends as if nobody had been."""
    try:
        for who in ("hub", *made.NAMES):
            campaign.begin(who)
        for who in victims:
            time.sleep(pick.uniform(0.02, 0.35))
            if campaign.done or not made.alive(campaign.pids[who]):
                break
            campaign.strike(who)
            campaign.begin(who)
        check(campaign, campaign.end())
        return len(campaign.struck)
    finally:
        campaign.close()


@pytest.mark.parametrize(("work", "rounds"), [("fedavg", 50), ("masked", 10), ("memory", 50)])
def test_a_few_kills(work, rounds, mother, tmp_path):
    killed(mother, tmp_path, work, 4, rounds=rounds)


@pytest.mark.slow
@pytest.mark.parametrize(("work", "rounds"), [("fedavg", 500), ("masked", 120), ("memory", 500)])
def test_many_kills(work, rounds, mother, tmp_path):
    killed(mother, tmp_path, work, 40, rounds=rounds)


def test_the_hub_comes_later(mother, tmp_path):
    campaign = Campaign(mother, tmp_path, "fedavg", 2)
    try:
        for who in made.NAMES:
            campaign.begin(who)
        time.sleep(0.3)
        assert all(made.alive(pid) for pid in campaign.pids.values())
        campaign.begin("hub")
        check(campaign, campaign.end())
        ends = time.monotonic() + 10.0
        while any(made.alive(campaign.pids[n]) for n in made.NAMES) and time.monotonic() < ends:
            time.sleep(0.01)
        assert not any(made.alive(campaign.pids[n]) for n in made.NAMES), "they must go when the run is over"
    finally:
        campaign.close()
