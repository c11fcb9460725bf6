"""A process that enrols, approves and changes keys is killed again and again: nothing is lost, nothing comes twice."""

import json
import os
import random
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from comity.ledger.keys import SideSecret
from comity.service.registry import Registry

# A parent that imports once, forks one life after another, and kills each after so many seconds.
MOTHER = """
import json, os, signal, sys, time
from pathlib import Path
from comity.ledger.keys import SideSecret
from comity.service.invitations import Invitation
from comity.service.parties import Rotation
from comity.service.registry import Registry

folder, steps = Path(sys.argv[1]), ["invite", "enrol", "approve", "rotate"]
hub = SideSecret(b"h" * 32).public_key()

def secret_of(i, n):
    return SideSecret(b"%016d%016d" % (i, n))

def step(registry, i, what):
    name, token = f"p{i}", folder / f"token-{i}"
    if what == "invite":
        said = registry.invite(name, hub)
        token.with_suffix(".tmp").write_text(said)
        token.with_suffix(".tmp").replace(token)
    elif what == "enrol":
        registry.enrol(Invitation.read(token.read_text()).secret, name, secret_of(i, 0).public_key())
    elif what == "approve":
        registry.approve(name)
    else:
        registry.rotate(Rotation.of(name, secret_of(i, 0), secret_of(i, 1)))

def live(ready):
    log = os.open(folder / "log", os.O_RDWR | os.O_CREAT | os.O_APPEND)
    lines = (folder / "log").read_text().splitlines()
    at = json.loads(lines[-1])[1] if lines else 0  # the last that was tried is tried again, done or not
    with Registry.open(folder) as registry:
        os.write(ready, b"r")
        while True:
            i, what = at // 4, steps[at % 4]
            os.write(log, (json.dumps(["try", at]) + "\\n").encode())
            step(registry, i, what)
            os.write(log, (json.dumps(["done", at]) + "\\n").encode())
            at += 1

print("ready", flush=True)
for line in sys.stdin:
    at_once, after = json.loads(line)
    a, b = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            live(b)
        finally:
            os._exit(3)
    os.close(b)
    if not at_once:
        os.read(a, 1)
    os.close(a)
    time.sleep(after)
    os.kill(pid, signal.SIGKILL)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


def killed(folder: Path, kills: int) -> list[int]:
    """The statuses with which the lives ended."""
    rng, pipe, ended = random.Random(kills), subprocess.PIPE, []
    command = [sys.executable, "-c", MOTHER, str(folder)]
    mother = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert mother.stdin is not None
    assert mother.stdout is not None
    try:
        assert mother.stdout.readline() == "ready\n"
        for n in range(kills):
            mother.stdin.write(json.dumps([n % 5 == 0, rng.uniform(0.0, 0.06)]) + "\n")
            mother.stdin.flush()
            ended.append(int(mother.stdout.readline()))
    finally:
        mother.kill()
        mother.wait(60)
        mother.stdin.close()
        mother.stdout.close()
    return ended


def key_of(i: int, n: int) -> bytes:
    return SideSecret(b"%016d%016d" % (i, n)).public_key()


@pytest.mark.parametrize("kills", [25, pytest.param(300, marks=pytest.mark.slow)])
def test_nothing_is_lost_and_nothing_is_done_twice(tmp_path: Path, kills: int) -> None:
    assert killed(tmp_path, kills) == [-9] * kills
    log = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    done = max(at for what, at in log if what == "done")
    tried = max(at for what, at in log if what == "try")
    assert done >= 8, "the lives were too short to do anything"
    with Registry.open(tmp_path) as registry:
        rows, parties = registry.audit(), {party.name: party for party in registry.parties()}
    for i in range(tried // 4 + 1):
        name = f"p{i}"
        told = [what for _, what, of, _ in rows if of == name and what != "invited"]
        least, most = (min(max(at + 1 - 4 * i, 0), 4) for at in (done, tried))
        expected = ["enrolled", "approved", "rotated"]
        assert told in [expected[: max(n - 1, 0)] for n in range(least, most + 1)], name
        if least == 4:
            assert (parties[name].status, parties[name].key) == ("approved", key_of(i, 1))
        elif told == ["enrolled"]:
            assert (parties[name].status, parties[name].key) == ("waiting", key_of(i, 0))
    assert set(parties) <= {f"p{i}" for i in range(tried // 4 + 1)}
    with sqlite3.connect(tmp_path / "hub.db") as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()
