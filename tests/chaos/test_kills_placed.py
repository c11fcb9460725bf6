"""Killed at a place: each named point of a run, at its n-th pass. What a site and the hub saved never come apart."""

import importlib
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))
made = importlib.import_module("collaborations")
points = importlib.import_module("faults")
Mother = importlib.import_module("mother").Mother

ROUNDS = 8
OF_A_RUN = ("opening", "agreeing", "agreed", "opened")
USUAL = [
    ("opened", 1),
    ("half written", 5),
    ("syncing", 12),
    ("synced", 11),
    ("renaming", 5),
    ("renamed", 5),
    ("committing", 5),
    *(("statement", n) for n in range(24, 30)),
    ("before the commit", 5),
    ("committed", 5),
    ("removing", 7),
    ("removed", 4),
    ("swept", 5),
    ("opening the channel", 5),
    ("gathering", 15),
    ("gathered", 5),
    ("fitting", 15),
    ("worked", 17),
    ("sealed", 17),
    ("admitted", 21),
    ("combined", 5),
    ("noted", 5),
    ("scored", 2),
]
MORE = (1, 3, 8, 19)


@pytest.fixture(scope="module")
def mother() -> Iterator[Mother]:
    process = Mother.start()
    yield process
    process.close()


@pytest.fixture(scope="module")
def alone(mother, tmp_path_factory):
    """What a run of so many rounds leaves when it is left alone."""

    @cache
    def run(work: str, rounds: int = ROUNDS):
        folder = made.fresh(tmp_path_factory.mktemp("alone") / "run")
        assert mother.run(work, folder, rounds=rounds).ended
        return made.kept(folder)

    return run


def struck_and_resumed(mother, alone, work: str, folder: Path, *places: tuple[str, int]) -> int:
    """How often a kill struck; at the end all is as in the run that was left alone."""
    made.fresh(folder)
    struck = 0
    for point, n in places:
        fate = mother.run(work, folder, rounds=ROUNDS, point=point, n=n)
        assert fate.ended or (fate.killed and fate.place == f"{point} {n}"), fate
        struck += fate.killed
        assert made.one_moment(made.kept(folder), alone(work).bits(), work)
    assert mother.run(work, folder, rounds=ROUNDS).ended
    assert made.kept(folder).bits() == alone(work).bits()
    assert not list(folder.rglob(".*.tmp"))
    assert len(list((folder / "states").iterdir())) == len(set(made.kept(folder).states.values()))
    return struck


@pytest.mark.parametrize(("point", "n"), USUAL)
def test_killed_at_a_place_as_in_one(point, n, mother, alone, tmp_path):
    assert struck_and_resumed(mother, alone, "feedback", tmp_path / "run", (point, n)) == 1


@pytest.mark.slow
@pytest.mark.parametrize("work", made.WORKS)
@pytest.mark.parametrize("point", points.NAMES)
def test_killed_at_a_place_again_and_again(work, point, mother, alone, tmp_path):
    """Fresh runs at many passes; and one run that is killed there every time it is started again."""
    struck = 0
    for n in MORE:
        struck += struck_and_resumed(mother, alone, work, tmp_path / str(n), (point, n))
    again = [(point, n) for n in (2, 1, 1, 3, 5)]
    struck += struck_and_resumed(mother, alone, work, tmp_path / "again", *again)
    assert struck >= (2 if point in OF_A_RUN else 3)


@pytest.mark.parametrize(
    ("point", "n"),
    [("renamed", 6), ("before the commit", 6), ("committed", 4), ("combined", 5)],
)
@pytest.mark.parametrize("work", ["ditto", "feedback"])
def test_hub_and_sites_are_saved_in_one_moment(work, point, n, mother, alone, tmp_path):
    """Killed around the fifth save, or in the fifth round: the folder holds all of the fourth round and no more."""
    fate = mother.run(work, made.fresh(tmp_path / "run"), rounds=ROUNDS, point=point, n=n)
    assert (fate.killed, fate.place) == (True, f"{point} {n}")
    found = made.kept(tmp_path / "run")
    assert found.bits() == alone(work, 4).bits()
    assert found.drawers
    assert found.hub()


def test_the_check_sees_hub_and_sites_that_came_apart(alone):
    older, newer = alone("feedback", 4), alone("feedback", 5)
    assert made.disagreements(older) == made.disagreements(newer) == []
    assert made.disagreements(replace(newer, drawers=older.drawers))
    assert made.disagreements(replace(older, drawers=newer.drawers))
    assert made.disagreements(replace(newer, states=older.states))
