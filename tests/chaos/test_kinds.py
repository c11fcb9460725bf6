"""Every kind of collaboration, killed at random places and resumed: every bit as in a run left alone."""

import importlib
import random
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from comity import running

sys.path += [str(Path(__file__).parent), str(Path(__file__).parents[1] / "laws")]
made = importlib.import_module("collaborations")
kinds = importlib.import_module("kinds")
points = importlib.import_module("faults")
public_parts = importlib.import_module("public_parts").public_parts
Mother = importlib.import_module("mother").Mother

FEW, MANY = 1, 10
ENGINES = {"Local", "Network", "Ray", "Simulated"}
"""All of them run with the first; what becomes of lost actors is tried in tests/engines, of killed hubs and sites in
tests/service."""
SECRET = {"CKKS", "DiscreteGaussian", "Laplace", "RandomisedResponse"}
"""Two runs draw other noise, or other randomness of a cipher: nothing to compare to the bit. That a run that was killed
draws the same again is tried in tests/loop/test_private_rounds.py."""


@pytest.fixture(scope="module")
def mother() -> Iterator[Mother]:
    process = Mother.start("kinds")
    yield process
    process.close()


@pytest.fixture(scope="module")
def alone(mother, tmp_path_factory):
    """What a run that saves every round leaves when it is left alone, and how many points it passes."""

    @cache
    def run(kind: str):
        folder = made.fresh(tmp_path_factory.mktemp("alone") / "run")
        fate = mother.run(kind, folder, rounds=kinds.KINDS[kind].rounds)
        assert fate.ended, fate
        return made.kept(folder), fate.passes

    return run


def struck(mother, alone, kind: str, folder: Path, strikes: int) -> list[str]:
    """Where it was killed: at passes drawn from all that lie ahead, in one run after the other until it is enough."""
    found, passes = alone(kind)
    bits, rounds = found.bits(), kinds.KINDS[kind].rounds
    pick, places, tried = random.Random(f"{kind} {strikes}"), [], 0
    while len(places) < strikes:
        here = made.fresh(folder / str(tried))
        ahead, tried, ended = passes, tried + 1, False
        while not ended and len(places) < strikes:
            n = pick.randint(1, max(ahead, 30))
            fate = mother.run(kind, here, rounds=rounds, point=points.ANYWHERE, n=n)
            assert fate.ended or (fate.killed and fate.passes == n), fate
            ended, ahead = fate.ended, ahead - n
            places += [fate.place] if fate.killed else []
            assert made.one_moment(made.kept(here), bits, kind)
        assert ended or mother.run(kind, here, rounds=rounds).ended
        assert made.kept(here).bits() == bits
        assert not list(here.rglob(".*.tmp"))
    return places


@pytest.mark.parametrize("kind", kinds.KINDS)
def test_killed_and_resumed_as_in_one(kind, mother, alone, tmp_path):
    assert len(struck(mother, alone, kind, tmp_path, FEW)) == FEW


@pytest.mark.slow
@pytest.mark.parametrize("kind", kinds.KINDS)
def test_killed_again_and_again_as_in_one(kind, mother, alone, tmp_path):
    places = struck(mother, alone, kind, tmp_path, MANY)
    assert len(places) == MANY
    assert len(set(places)) > MANY // 2, "they must strike at different places"


@pytest.mark.parametrize("kind", kinds.KINDS)
def test_in_pieces_as_in_one(kind, alone, tmp_path, monkeypatch):
    """In one process that lives on; a piece may be no round at all. They end where scores are taken anyhow."""
    make, rounds = kinds.KINDS[kind]
    folder = made.fresh(tmp_path / "run")
    for n in sorted({0, min(2, rounds), rounds // 4 * 2, rounds}):
        monkeypatch.setattr(running, "SAVE_SECONDS", 0.0 if n else 1e9)
        make().run(rounds=n, folder=folder)
    assert made.kept(folder).bits() == alone(kind)[0].bits()


@pytest.mark.parametrize("kind", kinds.KINDS)
def test_what_is_killed_does_something(kind, alone):
    """All rounds close, and everybody who is asked is heard."""
    found, _ = alone(kind)
    rounds = [e.facts for e in found.entries if e.kind == "round"]
    assert {f["round"] for f in rounds} == set(range(kinds.KINDS[kind].rounds))
    assert all(f["closed"] and f["accepted"].all() for f in rounds)


def test_every_public_part_is_killed():
    seen = {name for kind in kinds.KINDS.values() for name in kinds.parts_in(kind.make())}
    assert set(public_parts()) - seen == ENGINES | SECRET
