"""Collaborations in which some are late by a simulated clock: what `test_late_kills.py` kills and resumes."""

import importlib
import sys
from pathlib import Path

import comity as co

sys.path.append(str(Path(__file__).parent))
made = importlib.import_module("collaborations")

SECONDS = {"p0": 2.6, "p1": 1.3, "p2": 1.1, "p3": 20.0}
"""Where the deadline is 1: p0 is two or three rounds late, p1 one, p2 sometimes, p3 too late to count."""


def work(round: co.Round) -> float:
    """A little else each time."""
    return SECONDS.get(round.me, 0.4) * float(round.mine("compute").uniform(0.8, 1.2))


ENGINE = co.Simulated(links=co.Link(up=1e5, down=1e6, delay=0.02), compute=work)


def exact() -> co.Collaboration:
    """Every sum is exact, what is held back too; scores are taken between."""
    late = {"late": "next", "staleness": 0.0, "oldest": 4, "deadline": 1.0}
    return made.lossy().replace(select=co.everyone(), quorum=0.4, **late)


def buffered() -> co.Collaboration:
    """As in FedBuff: a round ends with its third answer."""
    return made.fedavg().replace(select=co.everyone(), quorum=0.5, late="next", oldest=5)


def tried() -> co.Collaboration:
    """Rounds that need more than come in time are tried again: late answers then count in a later attempt."""
    return exact().replace(quorum=0.8, retries=9, staleness=0.5)


WORKERS = made.WORKERS
WORKS = {name: (make, ENGINE) for name, make in {"exact": exact, "buffered": buffered, "tried": tried}.items()}
