"""The laws of journals hold for comity's own, and any sequence of calls is answered as a plain dict would."""

import shutil
import tempfile

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from comity.core.errors import LedgerError
from comity.ledger.journal import SqlJournal
from comity.testing import check_journal


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def test_it_keeps_the_laws_of_journals(tmp_path):
    numbers = iter(range(99))
    check_journal(lambda clock: SqlJournal.open(tmp_path / str(next(numbers)), clock=clock))


class Forgetful:
    """A journal that breaks one law: see `broken`."""

    def __init__(self, journal, broken):
        self._journal, self._broken = journal, broken

    def offer(self, key, spec):
        try:
            return self._journal.offer(key, spec)
        except LedgerError:
            if self._broken != "offer":
                raise

    def claim(self, key, who, lease):
        return self._journal.claim(key, who, lease if self._broken != "lease" else lease / 100)

    def commit(self, key, token, data):
        said = self._journal.commit(key, token, data)
        return "duplicate" if self._broken == "fence" and said == "stale" else said

    def read(self, key):
        found = self._journal.read(key)
        return None if self._broken == "commit" and found == b"" else found


@pytest.mark.parametrize("law", ["offer", "lease", "fence", "commit"])
def test_a_journal_that_breaks_a_law_is_found(tmp_path, law):
    numbers = iter(range(99))
    with pytest.raises(AssertionError, match=rf"Forgetful breaks the law of '{law}'"):
        check_journal(lambda clock: Forgetful(SqlJournal.open(tmp_path / str(next(numbers)), clock=clock), law))


class AgainstADict(RuleBasedStateMachine):
    """Any sequence of calls, against the simplest thing that could be right."""

    keys = st.sampled_from([("r", n, 0, "x", p) for n in range(2) for p in "ab"])
    whos = st.sampled_from(["one", "two", "three"])
    data = st.sampled_from([b"", b"x", b"y"])

    def __init__(self):
        super().__init__()
        self.folder, self.clock, self.rows = tempfile.mkdtemp(), Clock(), {}
        self.journal = SqlJournal.open(self.folder, clock=self.clock)

    def teardown(self):
        self.journal.close()
        shutil.rmtree(self.folder)

    @rule(key=keys, task=st.integers(0, 1))
    def offer(self, key, task):
        row = self.rows.setdefault(key, {"task": task, "token": 0, "who": "", "until": 0.0, "data": None})
        if row["task"] == task:
            assert self.journal.offer(key, {"task": task}) is None
        else:
            with pytest.raises(LedgerError):
                self.journal.offer(key, {"task": task})

    @rule(key=keys, who=whos, lease=st.sampled_from([1.0, 3.0]))
    def claim(self, key, who, lease):
        row = self.rows.get(key)
        if row is None:
            with pytest.raises(LedgerError):
                self.journal.claim(key, who, lease)
            return
        free = row["data"] is None and (row["token"] == 0 or row["who"] == who or self.clock.now >= row["until"])
        if free:
            row.update(token=row["token"] + 1, who=who, until=self.clock.now + lease)
        assert self.journal.claim(key, who, lease) == (row["token"] if free else None)

    @precondition(lambda self: self.rows)
    @rule(key=keys, back=st.integers(-1, 2), data=data)
    def commit(self, key, back, data):
        row = self.rows.get(key, {"token": 0, "data": None})
        token = max(row["token"] - back, 1)
        if token > row["token"]:
            with pytest.raises(LedgerError):
                self.journal.commit(key, token, data)
            return
        if row["data"] is not None:
            told = "duplicate" if row["data"] == data else "stale"
        else:
            told = "accepted" if token == row["token"] else "stale"
        if told == "accepted":
            row["data"] = data
        assert self.journal.commit(key, token, data) == told

    @rule(seconds=st.sampled_from([-2.0, 0.5, 1.0, 3.0]))
    def wait(self, seconds):
        self.clock.now += seconds

    @rule()
    def open_again(self):
        self.journal.close()
        self.journal = SqlJournal.open(self.folder, clock=self.clock)

    @invariant()
    def the_same_to_every_reader(self):
        free = [
            k for k, r in self.rows.items() if r["data"] is None and (not r["token"] or self.clock.now >= r["until"])
        ]
        assert self.journal.waiting("r") == sorted(free)
        assert all(self.journal.read(k) == r["data"] for k, r in self.rows.items())


AgainstADict.TestCase.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
TestAgainstADict = AgainstADict.TestCase
