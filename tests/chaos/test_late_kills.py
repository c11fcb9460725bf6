"""Late answers count once, whatever is killed: every bit as in a run left alone, and hub and sites agree."""

import importlib
import random
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))
made = importlib.import_module("collaborations")
works = importlib.import_module("late_works")
points = importlib.import_module("faults")
Mother = importlib.import_module("mother").Mother

ROUNDS, FEW, MANY = 12, 4, 60


@pytest.fixture(scope="module")
def mother() -> Iterator[Mother]:
    process = Mother.start("late_works")
    yield process
    process.close()


@pytest.fixture(scope="module", params=works.WORKS)
def alone(request, mother, tmp_path_factory):
    folder = made.fresh(tmp_path_factory.mktemp(request.param) / "run")
    fate = mother.run(request.param, folder, rounds=ROUNDS)
    assert fate.ended, fate
    return request.param, made.kept(folder), fate.passes


def late_and_taken(found) -> list[tuple[str, int]]:
    """Who was late, by how many rounds."""
    rounds = [e.facts for e in found.entries if e.kind == "round" and e.facts["closed"]]
    pairs = [
        (f, who, turn, ok)
        for f in rounds
        for who, turn, ok in zip(f["asked"].split("\n"), made.turns(f), f["accepted"], strict=True)
    ]
    return [(who, f["round"] - turn[0]) for f, who, turn, ok in pairs if ok and turn != (f["round"], f["attempt"])]


def struck(mother, alone, folder: Path, strikes: int) -> set[str]:
    name, whole, passes = alone
    bits, pick, places, tried = whole.bits(), random.Random(f"{name} {strikes}"), [], 0
    while len(places) < strikes:
        here, ahead, ended = made.fresh(folder / str(tried)), passes, False
        tried += 1
        while not ended and len(places) < strikes:
            n = pick.randint(1, max(ahead, 30))
            fate = mother.run(name, here, rounds=ROUNDS, point=points.ANYWHERE, n=n)
            assert fate.ended or fate.killed, fate
            ended, ahead = fate.ended, ahead - n
            places += [fate.place] if fate.killed else []
            found = made.kept(here)
            if found is not None:
                assert all(bits[k] == b for k, b in found.bits().items() if k.startswith("entry"))
                assert name != "exact" or made.disagreements(found) == []
        assert ended or mother.run(name, here, rounds=ROUNDS).ended
        assert made.kept(here).bits() == bits
    return set(places)


def test_a_few_kills(alone, mother, tmp_path):
    struck(mother, alone, tmp_path, FEW)


@pytest.mark.slow
def test_many_kills(alone, mother, tmp_path):
    assert len(struck(mother, alone, tmp_path, MANY)) > 10


def test_what_is_killed_has_late_answers_that_count_once(alone):
    name, found, _ = alone
    late = late_and_taken(found)
    assert len(late) > 5
    assert name == "tried" or max(n for _, n in late) > 1
    assert max(Counter(found.accepted()).values()) == 1
    if name == "exact":
        assert made.disagreements(found) == []
        assert {who for who, _ in late} >= {"p0", "p1"}
        assert "p3" not in {who for who, *_ in found.accepted()}


def test_in_pieces_as_in_one(alone, tmp_path):
    name, found, _ = alone
    make, engine = works.WORKS[name]
    folder = made.fresh(tmp_path / "run")
    for n in (0, 2, 4, 10, ROUNDS):
        make().run(rounds=n, folder=folder, engine=engine)
    assert made.kept(folder).bits() == found.bits()
