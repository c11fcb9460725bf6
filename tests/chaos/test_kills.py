"""Killed at random moments, again and again, and started again: every bit as in a run left alone."""

import importlib
import random
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from comity import running
from comity.ledger.store import Store

sys.path.append(str(Path(__file__).parent))
made = importlib.import_module("collaborations")
Mother = importlib.import_module("mother").Mother
INTERRUPTED = importlib.import_module("mother").INTERRUPTED

ROUNDS = 24
SAVES = (0.0, 0.0, 0.01, 0.03)
FEW, MANY = 6, 40


@pytest.fixture(scope="module")
def mother() -> Iterator[Mother]:
    process = Mother.start()
    yield process
    process.close()


@dataclass
class Campaign:
    """Runs that are ended by a signal at a random moment until one is done, and then the next.

    Attributes:
        mother: who forks them.
        work: which collaboration.
        folder: where they lie.
        struck: where each was that a signal ended.
        done: runs that came to their end.
    """

    mother: Mother
    work: str
    folder: Path
    seed: int = 0
    signal: int = signal.SIGKILL
    struck: list[str] = field(default_factory=list)
    done: int = 0

    def __post_init__(self) -> None:
        self.pick = random.Random(f"{self.work} {self.seed}")
        self.bits, _ = self._alone("one save", 1e9)
        bits, self.seconds = self._alone("every round saved", 0.0)
        assert bits == self.bits

    def _alone(self, name: str, save: float) -> tuple[dict[str, str], float]:
        fate = self.mother.run(self.work, made.fresh(self.folder / name), rounds=ROUNDS, save=save)
        assert fate.ended, fate
        return made.kept(self.folder / name).bits(), fate.seconds

    def until(self, strikes: int) -> None:
        """Go on until so many runs were struck, and the last one is done."""
        while len(self.struck) < strikes:
            folder = made.fresh(self.folder / f"broken {self.done}")
            tried = 1
            while not self._again(folder, 1.1**tried * self.seconds):
                tried += 1
            assert made.kept(folder).bits() == self.bits
            self.done += 1

    def _again(self, folder: Path, most: float) -> bool:
        """One more run, struck within so many seconds or done; each is given a little longer, as machines differ."""
        after = self.pick.uniform(0.05, 0.6) * most
        order = {"rounds": ROUNDS, "save": self.pick.choice(SAVES), "after": after, "signal": self.signal}
        fate = self.mother.run(self.work, folder, **order)
        if not fate.ended:
            assert fate.killed or (self.signal == signal.SIGINT and fate.code == INTERRUPTED), fate
            self.struck.append(fate.place)
            assert made.one_moment(made.kept(folder), self.bits, self.work)
        return fate.ended


def killed(mother: Mother, work: str, folder: Path, strikes: int) -> None:
    campaign = Campaign(mother, work, folder)
    campaign.until(strikes)
    assert len(campaign.struck) >= strikes
    assert len(set(campaign.struck)) > strikes // 2, "they must strike at different places"


@pytest.mark.parametrize("work", made.WORKS)
def test_a_few_kills(work, mother, tmp_path):
    killed(mother, work, tmp_path, FEW)


@pytest.mark.slow
@pytest.mark.parametrize("work", made.WORKS)
def test_many_kills(work, mother, tmp_path):
    killed(mother, work, tmp_path, MANY)


@pytest.mark.parametrize("strikes", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_ctrl_c_at_a_random_moment(strikes, mother, tmp_path):
    campaign = Campaign(mother, "feedback", tmp_path, signal=signal.SIGINT)
    campaign.until(strikes)
    assert len(campaign.struck) >= strikes


@pytest.mark.parametrize("strikes", [5, pytest.param(200, marks=pytest.mark.slow)])
def test_ctrl_c_again_and_again_in_one_process(strikes, mother, tmp_path):
    """As in a notebook: an interrupted run has let go of its folder, whatever it was doing."""
    campaign, pick = Campaign(mother, "feedback", tmp_path), random.Random(5)
    for n in range(strikes // 5):
        folder = made.fresh(tmp_path / str(n))
        alarms = [pick.uniform(0.001, 0.25) * campaign.seconds for _ in range(5)]
        fate = mother.run("feedback", folder, rounds=ROUNDS, alarms=alarms)
        assert fate.ended, fate
        assert made.kept(folder).bits() == campaign.bits


@pytest.mark.parametrize("n", [1, 2, 5])
def test_ctrl_c_when_the_commit_is_done(n, mother, tmp_path, monkeypatch):
    """The states that the new generation points to are not taken for what a broken save left behind."""
    monkeypatch.setattr(running, "SAVE_SECONDS", 0.0)
    commit, left = Store._commit, [n]

    def late(self, *args):
        out = commit(self, *args)
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        return out

    monkeypatch.setattr(Store, "_commit", late)
    folder = made.fresh(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        made.feedback().run(rounds=8, folder=folder)
    found, alone = made.kept(folder), Campaign(mother, "feedback", tmp_path)
    assert sum(e.kind == "round" for e in found.entries) == n
    made.feedback().run(rounds=ROUNDS, folder=folder)
    assert made.kept(folder).bits() == alone.bits


def test_the_check_sees_one_bit(mother, tmp_path):
    """What is compared is everything: another round, drawer or state is another end."""
    for rounds in (4, 5):
        assert mother.run("ditto", made.fresh(tmp_path / str(rounds)), rounds=rounds).ended
    a, b = (made.kept(tmp_path / str(n)) for n in (4, 5))
    differ = {name for name in a.bits() if a.bits()[name] != b.bits()[name]}
    assert {"state last", "meta"} <= differ
    assert any(name.startswith("drawer") for name in differ)
    assert set(b.drawers) == set(made.NAMES)
