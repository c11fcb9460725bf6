"""Workers that share a journal are killed again and again: every step is committed once, and in its order."""

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from hashlib import sha256
from select import select

import pytest

from comity.ledger.journal import SqlJournal

CHAINS, WORKERS, LEASE = 4, 3, 0.15

WORKER = """
import bisect, json, os, random, sys, time
from hashlib import sha256
from pathlib import Path
from comity.ledger.journal import SqlJournal

folder, who, life, chains, lease = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]), float(sys.argv[5])
rng, journal = random.Random(who + life), SqlJournal.open(folder)
out = os.open(folder / f"log-{who}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

def step(n, c):
    return ("run", n, 0, "step", str(c))

def first_open(c):
    most = 1
    while journal.read(step(most, c)):
        most *= 2
    return bisect.bisect_left(range(most + 1), True, key=lambda n: journal.read(step(n, c)) is None)

def log(what, key, token, data):
    line = json.dumps([what, key, token, sha256(data).hexdigest()])
    os.write(out, line.encode() + b"\\n")

def work(key, last):
    journal.offer(key, {"after": sha256(last).hexdigest()})
    token = journal.claim(key, who, lease)
    if token is None:
        return time.sleep(0.001)
    log("claimed", key, token, b"")
    time.sleep(2 * lease if rng.random() < 0.02 else rng.uniform(0, 0.004))
    data = json.dumps({"after": sha256(last).hexdigest(), "who": who, "token": token, "luck": rng.random()}).encode()
    log("tried", key, token, data)
    told = journal.commit(key, token, data)
    log(told, key, token, data)
    if rng.random() < 0.2:
        log("again " + journal.commit(key, token, data), key, token, data)
    return data if told == "accepted" else None

def goal():
    return int((folder / "goal").read_text()) if (folder / "goal").exists() else 10**9

at = [first_open(c) for c in range(chains)]
before = [journal.read(step(n - 1, c)) if n else b"start" for c, n in enumerate(at)]
print("ready", flush=True)
while todo := [c for c in range(chains) if at[c] < goal()]:
    c = rng.choice(todo)
    key = step(at[c], c)
    found = journal.read(key) or work(key, before[c])
    if found:
        at[c], before[c] = at[c] + 1, found
journal.close()
"""


class Crew:
    """Worker processes; who is killed comes back under the same name."""

    def __init__(self, folder):
        self.folder, self.lives, self.children = folder, Counter(), {}
        for n in range(WORKERS):
            self.start(f"w{n}")

    def start(self, who):
        self.lives[who] += 1
        command = [sys.executable, "-c", WORKER, str(self.folder), who, str(self.lives[who]), str(CHAINS), str(LEASE)]
        self.children[who] = subprocess.Popen(command, stdout=subprocess.PIPE)

    def kill(self, rng):
        """Kill one that is at work, at a random moment."""
        ready = select([child.stdout for child in self.children.values()], [], [], 60)[0]
        who = rng.choice([who for who, child in self.children.items() if child.stdout in ready])
        child = self.children[who]
        assert child.stdout.readline() == b"ready\n"
        time.sleep(rng.uniform(0.0, 0.3))
        child.kill()
        code = child.wait(60)
        child.stdout.close()
        self.start(who)
        return code

    def finish(self, goal):
        (self.folder / "goal.tmp").write_text(str(goal))
        (self.folder / "goal.tmp").rename(self.folder / "goal")
        return [child.wait(120) for child in self.children.values()]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for child in self.children.values():
            child.kill()
            child.wait(60)
            child.stdout.close()


def step(n, c):
    return ("run", n, 0, "step", str(c))


def chain_of(journal, c):
    """The results of a chain, from its first to its last."""
    found = []
    while (data := journal.read(step(len(found), c))) is not None:
        found.append(data)
    return found


def logged(folder):
    """What the workers wrote down: (what, key, token, sha256 of the result)."""
    lines = [line for path in sorted(folder.glob("log-*")) for line in path.read_text().splitlines()]
    return [(what, tuple(key), token, sha) for what, key, token, sha in map(json.loads, lines)]


def assert_exactly_once(folder, kills):
    """Journal and logs tell one story; gives how many steps it has."""
    with SqlJournal.open(folder) as journal:
        chains = [chain_of(journal, c) for c in range(CHAINS)]
        results = {step(n, c): data for c, chain in enumerate(chains) for n, data in enumerate(chain)}
        specs = {key: journal.spec(key) for key in results}
    with sqlite3.connect(folder / "journal.db") as db:
        assert db.execute("SELECT count(*), count(data) FROM work").fetchone() == (len(results), len(results))
    db.close()
    for c, chain in enumerate(chains):
        for n, data in enumerate(chain):
            after = sha256(chain[n - 1] if n else b"start").hexdigest()
            assert json.loads(data)["after"] == specs[step(n, c)]["after"] == after
    told = logged(folder)
    accepted = {key: (token, sha) for what, key, token, sha in told if what == "accepted"}
    assert len(accepted) == sum(what == "accepted" for what, *_ in told), "a step was accepted twice"
    tried = {entry for entry in told if entry[0] == "tried"}
    for key, data in results.items():
        mine = json.loads(data)["token"], sha256(data).hexdigest()
        assert accepted.get(key, mine) == mine, f"another result of {key} was accepted"
        assert ("tried", key, *mine) in tried
    assert set(accepted) <= set(results), "an accepted step is lost"
    assert len(results) - len(accepted) <= kills, "more answers were lost than workers killed"
    assert_tokens(told, results)
    return len(results)


def assert_tokens(told, results):
    """No token twice; the last one of each step committed it; what was asked again was answered right."""
    tokens = Counter((key, token) for what, key, token, _ in told if what == "claimed")
    assert set(tokens.values()) == {1}
    last = {key: json.loads(data)["token"] for key, data in results.items()}
    assert all(token <= last[key] for key, token in tokens)
    for what, key, token, sha in told:
        right = sha == sha256(results[key]).hexdigest()
        assert what not in ("accepted", "again duplicate") or right
        assert what not in ("stale", "again stale") or not right
        assert what != "stale" or token <= last[key]
        assert what != "again accepted"


@pytest.mark.parametrize(
    ("kills", "overtaken"), [(10, 0), pytest.param(200, 10, marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_killed_again_and_again_every_step_is_committed_exactly_once(tmp_path, kills, overtaken):
    rng = random.Random(kills)
    with Crew(tmp_path) as crew:
        codes = [crew.kill(rng) for _ in range(kills)]
        with SqlJournal.open(tmp_path) as journal:
            done = [len(chain_of(journal, c)) for c in range(CHAINS)]
        ended = crew.finish(max(done) + 10)
    assert codes == [-signal.SIGKILL] * kills
    assert ended == [0] * WORKERS
    steps = assert_exactly_once(tmp_path, kills)
    assert steps >= CHAINS * (max(done) + 10)
    claims = [token for what, _, token, _ in logged(tmp_path) if what == "claimed"]
    assert sum(token > 1 for token in claims) >= overtaken
    print(f"{kills} kills, {steps} steps, {sum(t > 1 for t in claims)} claimed after another")


KEY, RESULT = step(0, 0), b"mine" * 5000
STOPPED = """
import os, signal, sys
from sqlalchemy.engine.default import DefaultDialect
from comity.ledger.journal import SqlJournal

folder, verb, where = sys.argv[1:]
key, now = ("run", 0, 0, "step", "0"), ""
honest = DefaultDialect.do_commit
def do_commit(self, connection):
    if (now, where) == (verb, "before"):
        os.kill(os.getpid(), signal.SIGKILL)
    honest(self, connection)
    if (now, where) == (verb, "after"):
        os.kill(os.getpid(), signal.SIGKILL)
DefaultDialect.do_commit = do_commit
journal = SqlJournal.open(folder, clock=lambda: 0.0)
now = "offer"
journal.offer(key, {"task": 1})
now = "claim"
token = journal.claim(key, "one", 10.0)
now = "commit"
journal.commit(key, token, b"mine" * 5000)
"""


def stopped(folder, verb, where):
    """A worker that is killed just before or just after a verb's transaction is committed."""
    done = subprocess.run([sys.executable, "-c", STOPPED, str(folder), verb, where], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL


@pytest.mark.parametrize("where", ["before", "after"])
def test_killed_inside_an_offer_or_a_claim_nothing_is_half_done(tmp_path, where):
    stopped(tmp_path / "offer", "offer", where)
    with SqlJournal.open(tmp_path / "offer") as journal:
        assert journal.waiting("run") == ([KEY] if where == "after" else [])
        journal.offer(KEY, {"task": 1})
        assert journal.claim(KEY, "two", 10.0) == 1
    stopped(tmp_path / "claim", "claim", where)
    with SqlJournal.open(tmp_path / "claim", clock=lambda: 5.0) as journal:
        assert journal.claim(KEY, "two", 10.0) == (None if where == "after" else 1)
        assert journal.claim(KEY, "one", 10.0) == (2 if where == "after" else None)


def test_killed_before_the_commit_of_a_commit_another_does_the_work(tmp_path):
    stopped(tmp_path, "commit", "before")
    with SqlJournal.open(tmp_path, clock=lambda: 9.0) as journal:
        assert journal.read(KEY) is None
        assert journal.claim(KEY, "two", 10.0) is None
    with SqlJournal.open(tmp_path, clock=lambda: 10.0) as journal:
        assert journal.claim(KEY, "two", 10.0) == 2
        assert journal.commit(KEY, 1, RESULT) == "stale"
        assert journal.commit(KEY, 2, b"other") == "accepted"
        assert journal.commit(KEY, 1, RESULT) == "stale"
        assert journal.read(KEY) == b"other"


def test_killed_after_the_commit_of_a_commit_it_is_done_though_nobody_was_told(tmp_path):
    stopped(tmp_path, "commit", "after")
    with SqlJournal.open(tmp_path, clock=lambda: 10.0) as journal:
        assert journal.read(KEY) == RESULT
        assert journal.claim(KEY, "one", 10.0) is None
        assert journal.commit(KEY, 1, RESULT) == "duplicate"
        assert journal.commit(KEY, 1, b"other") == "stale"


def test_wherever_the_last_write_broke_off_a_result_is_whole_or_absent(tmp_path):
    stopped(tmp_path / "whole", "commit", "after")
    log = tmp_path / "whole" / "journal.db-wal"
    size, found = log.stat().st_size, []
    for n, length in enumerate([*range(0, size, size // 30), size - 1, size]):
        copy = tmp_path / str(n)
        shutil.copytree(tmp_path / "whole", copy)
        (copy / "journal.db-shm").unlink()
        os.truncate(copy / "journal.db-wal", length)
        with SqlJournal.open(copy, clock=lambda: 10.0) as journal:
            found.append(journal.read(KEY))
            journal.offer(KEY, {"task": 1})
            token = journal.claim(KEY, "two", 10.0)
            assert token is None or journal.commit(KEY, token, RESULT) == "accepted"
            assert journal.read(KEY) == RESULT
    assert set(found[:-1]) == {None}
    assert found[-1] == RESULT
