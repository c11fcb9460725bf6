"""A run's folder on a full disk, a closed one, beside another process: refused with a reason, and nothing is lost."""

import errno
import fcntl
import hashlib
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import comity as co
from comity import running
from comity.core.errors import ComityError
from comity.core.wire import encode_tree

RNG = np.random.default_rng(5)
DATA = {f"p{i}": (RNG.normal(size=(10, 3)).astype("float32"), RNG.integers(0, 2, 10)) for i in range(4)}
MODEL = co.Linear(3, 2, rate=0.3, batch=4)
ROUNDS = 6


@dataclass(frozen=True)
class Keeper:
    """Trains, and keeps in its drawer a bias on which its next answer depends."""

    data: Any = field(metadata={"data": True}, repr=False)
    slow: float = field(default=0.0, metadata={"data": True})

    def contribute(self, shared, local, round, secret):
        time.sleep(self.slow)
        c, _ = co.Trainer(MODEL, self.data).contribute(shared, {}, round, secret)
        if shared.kind == "score":
            return c, {}
        bias = local.get("bias", np.zeros(2, "float32")) + c.value["0.bias"] * np.float32(0.5)
        return replace(c, value={**c.value, "0.bias": c.value["0.bias"] + bias}), {"bias": bias}


@dataclass(frozen=True)
class Half:
    """Sends half of everything, and doubles the sum."""

    by: float = 2.0
    decodes: ClassVar[str] = "sum"
    contracts: ClassVar[bool] = True

    def init(self):
        return None

    def encode(self, c, public, local, round, secret):
        return replace(c, value={k: (v / self.by).astype(v.dtype) for k, v in c.value.items()}), local

    def decode(self, c, state, round, secret):
        return replace(c, value={k: v * self.by for k, v in c.value.items()}), state


def collaboration(slow=0.0, **more):
    sites = {n: Keeper(d, slow) for n, d in DATA.items()}
    return co.Collaboration(co.FedAvg(MODEL, co.Adam(0.1)), sites, evaluate=co.every(2), **{"seed": 3, **more})


def bits(run):
    """Everything that came of a run but times: states, drawers, metrics and the facts of the ledger."""
    drawers = {n: run.local(n) for n in DATA}
    facts = {str(i): {"kind": e.kind, "facts": e.facts} for i, e in enumerate(run.ledger)}
    tree = {"state": run.state, "best": run.best, "drawers": drawers, "metrics": dict(run.metrics), "facts": facts}
    return hashlib.sha256(encode_tree(tree)).hexdigest()


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """What comes of a run that nothing happens to."""
    return bits(collaboration().run(ROUNDS, folder=tmp_path_factory.mktemp("straight") / "r"))


@pytest.fixture
def often(monkeypatch):
    monkeypatch.setattr(running, "SAVE_SECONDS", 0.0)


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    """A disk of its own, 512 kB in memory."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "comity-test", place]
    if os.geteuid() != 0 or shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a disk can be mounted by root only")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True, capture_output=True)


def fill(place: Path, left: int) -> Path:
    """Leave so many bytes free."""
    ballast = place / "ballast"
    free = os.statvfs(place)
    with ballast.open("wb") as f:
        f.write(b"\0" * (free.f_bavail * free.f_frsize - left))
    return ballast


@pytest.mark.parametrize("left", [0, 8_192, 40_960, 53_248])
def test_a_disk_that_really_is_full(disk, straight, often, left):
    collaboration().run(2, folder=disk / "r")
    ballast = fill(disk, left)
    with pytest.raises(ComityError, match=r"full\. Free some space and run again\. What was saved before is intact"):
        collaboration().run(ROUNDS, folder=disk / "r")
    ballast.unlink()
    found = co.audit(disk / "r")
    assert found.ok
    assert 2 <= found.rounds <= ROUNDS
    assert bits(collaboration().run(ROUNDS, folder=disk / "r")) == straight


CHILD = """
import sys
sys.path.insert(0, {here!r})
import tests.chaos.test_folders as t
from comity.core.errors import ComityError
t.running.SAVE_SECONDS = 0.0
print("up", flush=True)
try:
    print(t.bits(t.collaboration({slow}).run({rounds}, folder={folder!r})))
except ComityError as error:
    print(type(error).__name__, error)
    sys.exit(2)
"""


def child(folder, slow=0.0, rounds=ROUNDS, **more):
    code = CHILD.format(here=str(Path(__file__).parents[2]), folder=str(folder), slow=slow, rounds=rounds)
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-c", code]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, **more)
    CHILDREN.append(process)
    return process


CHILDREN: list[Any] = []


@pytest.fixture(autouse=True)
def nothing_is_left_running() -> Iterator[None]:
    yield
    while CHILDREN:
        process = CHILDREN.pop()
        if process.poll() is None:
            process.kill()
            process.communicate()


def ended(process):
    """Its status and what it said after it was up."""
    out, err = process.communicate(timeout=60)
    assert "Traceback" not in err, err
    return process.returncode, out.removeprefix("up\n").strip()


@pytest.mark.parametrize("limit", [40, 2_000, 30_000])
def test_files_that_may_not_grow(tmp_path, straight, limit):
    def held():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    code, said = ended(child(tmp_path / "r", preexec_fn=held))
    assert (code, said.split()[0]) in {(2, "ConfigError"), (2, "LedgerError")}
    assert str(tmp_path / "r") in said
    assert bits(collaboration().run(ROUNDS, folder=tmp_path / "r")) == straight


@pytest.mark.parametrize("name", ["open", "fsync", "replace"])
@pytest.mark.parametrize("call", [1, 2, 3, 4, 5, 6, 7, 8])
def test_full_at_each_write_in_turn(tmp_path, straight, often, monkeypatch, name, call):
    honest, calls = getattr(os, name), []

    def full(*args, **settings):
        if str(tmp_path) in str(args[0]) or name == "fsync":
            calls.append(args)
            if len(calls) >= call:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return honest(*args, **settings)

    with monkeypatch.context() as m:
        m.setattr(os, name, full)
        if name == "replace":
            m.setattr(Path, "replace", lambda self, target: full(self, target))
        with pytest.raises(ComityError, match=r"It is full. Free some space and run again"):
            collaboration().run(ROUNDS, folder=tmp_path / "r")
    if (tmp_path / "r" / "run.db").exists():
        assert co.audit(tmp_path / "r").intact == co.audit(tmp_path / "r").entries
    assert bits(collaboration().run(ROUNDS, folder=tmp_path / "r")) == straight


def test_a_disk_that_is_read_only(disk, straight):
    collaboration().run(2, folder=disk / "r")
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    try:
        for folder in (disk / "r", disk / "new"):
            with pytest.raises(co.ConfigError, match=rf"{folder} must be a folder that can be written.*Choose another"):
                collaboration().run(ROUNDS, folder=folder)
        assert co.audit(disk / "r").ok
    finally:
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
    assert bits(collaboration().run(ROUNDS, folder=disk / "r")) == straight


def test_a_folder_that_one_may_only_read(tmp_path):
    (tmp_path / "closed").mkdir(mode=0o555)
    for folder in (tmp_path, *tmp_path.parents):
        if os.geteuid() == 0 and not folder.stat().st_mode & 0o001:
            folder.chmod(folder.stat().st_mode | 0o011)
    was = os.geteuid()
    os.seteuid(was or 65534)  # root is held back by nothing
    try:
        with pytest.raises(co.ConfigError, match=r"closed/r must be a folder that can be written.*Choose another"):
            collaboration().run(1, folder=tmp_path / "closed" / "r")
    finally:
        os.seteuid(was)
    assert list((tmp_path / "closed").iterdir()) == []


HALF = f"{Half.__module__}.Half"


@pytest.mark.parametrize(
    ("other", "lines"),
    [
        (lambda fed: fed.replace(seed=4), ["  parts.seed: 3 → 4"]),
        (lambda fed: fed.replace(method=co.FedAvg(MODEL, co.Adam(0.2))), ["  parts.method.optimizer.rate: 0.1 → 0.2"]),
        (
            lambda fed: fed.replace(method=co.FedAvg(co.Linear(3, 2, rate=0.1, batch=4), co.Adam(0.1))),
            ["  parts.method.model.rate: 0.3 → 0.1"],
        ),
        (
            lambda fed: fed.replace(transforms=[Half(4.0)]),
            [f'  parts.transforms.0: (absent) → {{"by": 4.0, "class": "{HALF}"}}'],
        ),
    ],
    ids=["seed", "rate", "model", "transforms"],
)
def test_another_recipe_line_by_line(tmp_path, other, lines):
    fed = collaboration()
    fed.run(1, folder=tmp_path / "r")
    before = {p.name: p.read_bytes() for p in (tmp_path / "r").iterdir() if p.is_file() and p.name != "lock"}
    with pytest.raises(co.ConfigError) as told:
        other(fed).run(1, folder=tmp_path / "r")
    first, *middle, last = str(told.value).splitlines()
    assert first == f"{tmp_path / 'r'} holds a run with another recipe (there → here):"
    assert [re.sub(r"\{.*\}", _sorted, line) for line in middle] == lines
    assert last == "Choose another folder, or go back to the settings of this one, or delete it to start again."
    assert before == {p.name: p.read_bytes() for p in (tmp_path / "r").iterdir() if p.is_file() and p.name != "lock"}
    assert fed.run(2, folder=tmp_path / "r").ledger.rounds == 2


def _sorted(match: re.Match[str]) -> str:
    import json

    return json.dumps(json.loads(match[0]), sort_keys=True)


def test_something_else_lies_there(tmp_path):
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "file", tmp_path / "file" / "deeper"):
        with pytest.raises(co.ConfigError, match=r"must be a folder. There is a file in its place"):
            collaboration().run(1, folder=folder)
    assert (tmp_path / "file").read_text() == "mine"
    (tmp_path / "r" / "lock").mkdir(parents=True)
    with pytest.raises(co.ConfigError, match=r"lock must be a file. There is a folder in its place"):
        collaboration().run(1, folder=tmp_path / "r")


def test_a_lock_that_cannot_be_had(tmp_path, monkeypatch):
    def none(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    with monkeypatch.context() as m:
        m.setattr(fcntl, "flock", none)
        with pytest.raises(co.ConfigError, match=r"must be on a disk where files can be locked.*Choose another"):
            collaboration().run(1, folder=tmp_path / "r")
    assert collaboration().run(1, folder=tmp_path / "r").ledger.rounds == 1


def test_a_second_process_is_refused_and_the_first_ends_unharmed(tmp_path, straight):
    first = child(tmp_path / "r", slow=0.02)
    wait_for(tmp_path / "r" / "run.db", first)
    first.send_signal(signal.SIGSTOP)
    code, said = ended(child(tmp_path / "r"))
    assert code == 2
    assert f"another process is using {tmp_path / 'r'} (pid {first.pid}). Wait for it, or choose another" in said
    with pytest.raises(co.ConfigError, match=rf"pid {first.pid}"):
        collaboration().run(ROUNDS, folder=tmp_path / "r")
    first.send_signal(signal.SIGCONT)
    assert ended(first) == (0, straight)


def test_when_the_first_is_killed_the_next_goes_on_at_once(tmp_path, straight):
    first = child(tmp_path / "r", slow=0.02)
    wait_for(tmp_path / "r" / "run.db", first)
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=60)
    assert bits(collaboration().run(ROUNDS, folder=tmp_path / "r")) == straight


def wait_for(path: Path, process: Any) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


RACE = """
import os, sys
sys.path.insert(0, {here!r})
import tests.chaos.test_folders as t
from comity.core.errors import ConfigError
fed = t.collaboration(0.01)
t.bits(fed.run(1, folder={folder!r} + "/warm"))
for i in range({times}):
    folder, (ready, go) = {folder!r} + f"/new/{{i}}", os.pipe()
    pids = []
    for _ in range(3):
        pid = os.fork()
        if not pid:
            os.close(go)
            os.read(ready, 1)
            try:
                os._exit(0 if t.bits(fed.run(t.ROUNDS, folder=folder)) == {straight!r} else 9)
            except ConfigError as error:
                os._exit(2 if "another process is using" in str(error) else 8)
            finally:
                os._exit(7)
        pids.append(pid)
    os.close(go)
    os.close(ready)
    print(*sorted(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids), flush=True)
"""


@pytest.mark.parametrize("times", [4, pytest.param(60, marks=pytest.mark.slow)])
def test_of_those_who_make_a_folder_at_once_exactly_one_wins(tmp_path, straight, times):
    code = RACE.format(here=str(Path(__file__).parents[2]), folder=str(tmp_path), times=times, straight=straight)
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.stdout.splitlines() == ["0 2 2"] * times, done.stderr
