"""The journal in a folder: what each verb answers, what it refuses, what is damaged, and many at once."""

import errno
import os
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from comity.core.errors import ConfigError, LedgerError
from comity.ledger import journal as room
from comity.ledger.journal import SqlJournal

KEY = ("run", 3, 0, "contribute", "ada")


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "runs" / "x"


@pytest.fixture
def journal(folder, clock):
    with SqlJournal.open(folder, clock=clock) as journal:
        yield journal


@pytest.fixture
def claimed(journal):
    journal.offer(KEY, {"task": 7})
    return journal.claim(KEY, "one", 10.0)


def sql(folder, statement, *values):
    db = sqlite3.connect(folder / "journal.db")
    with db:
        db.execute(statement, values)
    db.close()


def test_all_of_it_is_there_after_it_was_opened_again(journal, claimed, folder, clock):
    journal.offer(("run", 3, 0, "contribute", "bob"), None)
    assert journal.commit(KEY, claimed, b"seven") == "accepted"
    journal.close()
    with SqlJournal.open(folder, clock=clock) as again:
        assert (again.read(KEY), again.spec(KEY)) == (b"seven", {"task": 7})
        assert again.commit(KEY, claimed, b"seven") == "duplicate"
        assert again.commit(KEY, claimed, b"eight") == "stale"
        assert again.claim(("run", 3, 0, "contribute", "bob"), "one", 1.0) == 1


def test_what_was_answered_survives_a_power_cut(journal):
    with journal._engine.connect() as db:
        found = [db.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous")]
    assert found == ["wal", 2]


def test_what_waits_is_what_can_be_claimed(journal, clock):
    keys = [("run", n, 0, "step", name) for n in (2, 10) for name in ("ada", "bob")]
    for key in reversed(keys):
        journal.offer(key, None)
    journal.offer(("other", 0, 0, "step", "ada"), None)
    assert journal.waiting("run") == keys
    assert journal.waiting("run", most=3) == keys[:3]
    token = journal.claim(keys[0], "one", 10.0)
    journal.claim(keys[1], "one", 5.0)
    assert journal.waiting("run") == keys[2:]
    clock.now += 5.0
    assert journal.waiting("run") == keys[1:]
    journal.commit(keys[0], token, b"")
    clock.now += 100.0
    assert journal.waiting("run") == keys[1:]
    assert journal.waiting("nobody") == []


def test_limits(journal, claimed, monkeypatch):
    monkeypatch.setattr(room, "SPEC_LIMIT", 100)
    monkeypatch.setattr(room, "DATA_LIMIT", 100)
    other = ("run", 4, 0, "contribute", "ada")
    with pytest.raises(ConfigError, match=r"spec of .* must be at most 100 bytes. Got \d+. Name a file"):
        journal.offer(other, {"long": "x" * 200})
    with pytest.raises(ConfigError, match=r"result of .* must be at most 100 bytes. Got 101. Commit its hash"):
        journal.commit(KEY, claimed, b"x" * 101)
    assert journal.commit(KEY, claimed, b"x" * 100) == "accepted"


BAD = [
    (lambda j: j.offer(["run", 0, 0, "x", ""], None), r"A key must be a tuple \(run, round, attempt, phase, part"),
    (lambda j: j.offer(("", 0, 0, "x", ""), None), r"'run' must be text of at most 1000 characters, not empty. Got ''"),
    (lambda j: j.offer(("r" * 1001, 0, 0, "x", ""), None), r"'run' must be text of at most 1000 characters"),
    (
        lambda j: j.offer(("r", 0, 0, "x", "\ud800"), None),
        r"'participant' must be text of at most 1000 characters. Got",
    ),
    (lambda j: j.offer(("r", 0, 0, "x", "a\0b"), None), r"'participant' must be text"),
    (lambda j: j.offer(("r", 2**63, 0, "x", ""), None), r"'round' must be an integer >= 0 of 63 bits. Got 9223"),
    (lambda j: j.offer(("r", True, 0, "x", ""), None), r"'round' must be an integer >= 0"),
    (lambda j: j.offer(("r", 0, -1, "x", ""), None), r"'attempt' must be an integer >= 0 .*Got -1"),
    (lambda j: j.offer(KEY, {"f": print}), r"A leaf must be .*Got builtin_function_or_method at 'value.f'"),
    (lambda j: j.claim(KEY, "", 1.0), r"'who' must be text of at most 1000 characters, not empty. Got ''. Use a plain"),
    (lambda j: j.claim(KEY, "one", 0), r"'lease' must be seconds > 0 and < 1e12. Got 0. Use 60.0"),
    (lambda j: j.claim(KEY, "one", 10**400), r"'lease' must be seconds > 0"),
    (lambda j: j.commit(KEY, 0, b""), r"'token' must be an integer >= 1 .*Got 0"),
    (lambda j: j.commit(KEY, 1, "text"), r"result of .* must be at most \d+ bytes. Got str"),
    (lambda j: j.waiting("", most=1), r"'run' must be text"),
    (lambda j: j.waiting("run", most=0), r"'most' must be an integer >= 1"),
    (lambda j: j.spec("run"), r"A key must be a tuple"),
]


@pytest.mark.parametrize(("call", "said"), BAD, ids=range(len(BAD)))
def test_what_does_not_fit_is_refused_with_what_to_do(journal, call, said):
    with pytest.raises(ConfigError, match=said):
        call(journal)
    assert journal.waiting("run") == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"folder": 7}, r"must be opened on a folder, with a function for a clock. Got 7"),
        ({"clock": 7.0}, r"with a function for a clock"),
        ({"wait": 0}, r"'wait' must be seconds > 0"),
    ],
)
def test_what_it_cannot_be_opened_with(folder, arguments, said):
    with pytest.raises(ConfigError, match=said):
        SqlJournal.open(**{"folder": folder, **arguments})


@pytest.mark.parametrize("now", [float("nan"), float("inf"), None, "noon", True, 10**400])
def test_a_clock_that_gives_no_time(journal, claimed, clock, now):
    clock.now = now
    with pytest.raises(ConfigError, match=r"The 'clock' of a journal must give seconds. Got .*Use time.time"):
        journal.claim(KEY, "two", 1.0)
    assert journal.commit(KEY, claimed, b"who needs a clock") == "accepted"


def test_what_was_never_offered_or_given(journal, claimed):
    other = ("run", 3, 1, "contribute", "ada")
    for call in (lambda: journal.claim(other, "one", 1.0), lambda: journal.spec(other)):
        with pytest.raises(LedgerError, match=r"\('run', 3, 1, .*\) must be offered first. There is no such work"):
            call()
    assert journal.read(other) is None
    with pytest.raises(LedgerError, match=r"must be one that was given. Got 2. Claim it again"):
        journal.commit(KEY, claimed + 1, b"")
    with pytest.raises(LedgerError, match=r"must be offered with one spec. Got another than before"):
        journal.offer(KEY, {"task": 8})
    assert journal.spec(KEY) == {"task": 7}


DAMAGES = {
    "UPDATE work SET data = x'00'": r"the result of \('run', 3, .* does not match its hash. Restore journal.db",
    "UPDATE work SET data = 'other'": r"the result of .* does not match",
    "UPDATE work SET data_sha256 = 'x'": r"the result of .* does not match",
    "UPDATE work SET participant = 'eve' WHERE participant = 'ada'": r"the result of .*'eve'.* does not match",
}


@pytest.mark.parametrize("statement", DAMAGES)
def test_a_damaged_result_is_named(journal, claimed, folder, statement):
    journal.commit(KEY, claimed, b"seven")
    sql(folder, statement)
    key = (*KEY[:4], "eve" if "eve" in statement else "ada")
    for call in (lambda: journal.read(key), lambda: journal.commit(key, 1, b"seven")):
        with pytest.raises(LedgerError, match=DAMAGES[statement]):
            call()


def test_a_damaged_spec_is_named(journal, claimed, folder):
    sql(folder, "UPDATE work SET spec = x'00'")
    for call in (lambda: journal.spec(KEY), lambda: journal.offer(KEY, {"task": 7})):
        with pytest.raises(
            LedgerError, match=r"the spec of \('run', 3, .* does not match its hash. Restore journal.db"
        ):
            call()


def test_half_a_result_cannot_be_written(journal, claimed, folder):
    with pytest.raises(sqlite3.IntegrityError):
        sql(folder, "UPDATE work SET data = x'00'")


def test_a_damaged_database_is_named(journal, folder):
    journal.close()
    (folder / "journal.db").write_bytes(b"no database, and long enough to be read as one" * 100)
    with pytest.raises(LedgerError, match=r"journal.db is damaged .*Restore"):
        SqlJournal.open(folder)


def test_a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "x").write_text("a file")
    with pytest.raises(ConfigError, match=r"x must be a folder. There is a file in its place"):
        SqlJournal.open(tmp_path / "x")


def test_a_folder_that_cannot_be_written(journal, claimed):
    with journal._engine.connect() as db:
        db.exec_driver_sql("PRAGMA query_only=1")
    with pytest.raises(LedgerError, match=r"must be a folder that can be written.*Choose another, or allow writing"):
        journal.commit(KEY, claimed, b"seven")
    assert journal.read(KEY) is None


def test_a_full_disk_loses_nothing(journal, claimed):
    with journal._engine.connect() as db:
        db.exec_driver_sql("PRAGMA max_page_count=1")
    with pytest.raises(LedgerError, match=r"It is full. Free some space"):
        journal.commit(KEY, claimed, b"y" * 10**6)
    assert journal.read(KEY) is None
    with journal._engine.connect() as db:
        db.exec_driver_sql("PRAGMA max_page_count=1000000")
    assert journal.commit(KEY, claimed, b"y" * 10**6) == "accepted"


def test_a_disk_that_fails_while_it_is_opened(folder, monkeypatch):
    def broken(_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(room.files, "sync", broken)
    with pytest.raises(ConfigError, match=r"x must be a folder that can be read and written"):
        SqlJournal.open(folder)


def test_the_write_lock_of_another_is_waited_for_and_named(journal, claimed, folder):
    other = sqlite3.connect(folder / "journal.db", isolation_level=None)
    with SqlJournal.open(folder, wait=0.05) as hasty:
        other.execute("BEGIN IMMEDIATE")
        assert hasty.read(KEY) is None
        with pytest.raises(LedgerError, match=r"journal.db must be free to write. Another process .* Try again"):
            hasty.commit(KEY, claimed, b"now")
        with pytest.raises(LedgerError, match=r"must be free to write"):
            SqlJournal.open(folder, wait=0.05)
        other.execute("ROLLBACK")
        assert hasty.commit(KEY, claimed, b"now") == "accepted"
    other.close()


def test_closed_or_of_a_parent_it_says_so(journal):
    child = os.fork()
    if not child:
        try:
            journal.read(KEY)
        except ConfigError as e:
            os._exit(7 if "Got that of another process. Open it" in str(e) else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    journal.close()
    with pytest.raises(ConfigError, match=r"must be open, .* Got a closed one. Open it"):
        journal.read(KEY)


OPENERS = """
import sys
from comity.ledger.journal import SqlJournal
print("ready", flush=True)
sys.stdin.readline()
for n in range(5):
    with SqlJournal.open(f"{sys.argv[1]}/{n}") as journal:
        journal.offer(("run", 0, 0, "step", "a"), None)
        print(journal.claim(("run", 0, 0, "step", "a"), sys.argv[2], 100.0), flush=True)
"""


def test_processes_that_make_one_journal_at_the_same_moment(tmp_path):
    command = [sys.executable, "-c", OPENERS, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    children = [subprocess.Popen([*command, str(i)], **pipes) for i in range(4)]
    assert all(child.stdout.readline() == "ready\n" for child in children)
    for child in children:
        child.stdin.write("\n")
        child.stdin.flush()
    told = [child.communicate(timeout=60)[0].split() for child in children]
    assert [child.returncode for child in children] == [0] * 4
    assert all(sorted(one) == ["1", "None", "None", "None"] for one in zip(*told, strict=True))


def test_threads_share_work_and_none_is_done_twice(journal):
    keys = [("run", n, 0, "step", "") for n in range(40)]
    for key in keys:
        journal.offer(key, None)

    def worker(who):
        tokens = {key: journal.claim(key, who, 100.0) for key in keys}
        return [
            key for key, token in tokens.items() if token and journal.commit(key, token, who.encode()) == "accepted"
        ]

    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(worker, [f"w{i}" for i in range(8)]))
    assert sorted(key for mine in done for key in mine) == keys
    assert all(journal.read(key) == b"w%d" % i for i, mine in enumerate(done) for key in mine)
