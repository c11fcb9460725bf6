"""Killed or interrupted at any moment and started again: every bit as in a run left alone."""

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import comity as co
from comity import running
from comity.core.contribution import Contribution
from comity.core.wire import encode_tree

RNG = np.random.default_rng(1)
DATA = {f"p{i}": (RNG.normal(size=(10, 3)).astype("float32"), RNG.integers(0, 2, 10)) for i in range(6)}
MODEL = co.Linear(3, 2, rate=0.3, batch=4)


@dataclass(frozen=True)
class Personal:
    """Keeps a bias of its own in its drawer; its contributions and scores depend on it."""

    data: Any = field(metadata={"data": True}, repr=False)
    slow: float = 0.0

    def contribute(self, shared, local, round, secret):
        mine = local.get("bias", np.zeros(2, "float32"))
        if shared.kind == "score":
            return Contribution("score", None, metrics={"valid_mse": (float(np.abs(mine).sum()), 1.0)}), {"x": 1}
        time.sleep(self.slow)
        c, _ = co.Trainer(MODEL, self.data).contribute(shared, {}, round, secret)
        bias = mine + c.value["0.bias"] * np.float32(0.5)
        noisy = secret.rng("noise", str(round.number)).normal(size=2).astype("float32")
        value = {**c.value, "0.bias": c.value["0.bias"] + mine + noisy * np.float32(1e-3)}
        return Contribution("delta", value, c.weight, c.metrics), {"bias": bias, "n": local.get("n", 0) + 1}


SERVERS = {"plain": co.Momentum(), "momentum": co.Momentum(0.5, 0.9), "adam": co.Adam(0.1)}
SELECTS = {"everyone": co.everyone(), "sample": co.sample(0.5), "poisson": co.poisson(0.6)}


def collaboration(server="momentum", select="sample", slow=0.0, evaluate=2):
    sites = {n: Personal(d, slow) for n, d in DATA.items()}
    method = co.FedAvg(MODEL, SERVERS[server])
    return co.Collaboration(method, sites, select=SELECTS[select], evaluate=co.every(evaluate), seed=3, quorum=0.1)


def bits(run):
    """Everything that came of a run but times: states, drawers, metrics and the facts of the ledger."""
    drawers = {n: run.local(n) for n in DATA}
    facts = {str(i): {"kind": e.kind, "facts": e.facts} for i, e in enumerate(run.ledger)}
    tree = {"state": run.state, "best": run.best, "drawers": drawers, "metrics": dict(run.metrics), "facts": facts}
    return {k: hashlib.sha256(encode_tree(v)).hexdigest() for k, v in tree.items()}


@pytest.fixture
def same_secret(monkeypatch, tmp_path):
    """Folders draw their secrets from the OS; here each new one gets the same."""
    from comity.ledger.store import Store

    monkeypatch.setattr(Store, "secret", lambda self: bytes(range(32)))


@pytest.fixture
def often(monkeypatch):
    monkeypatch.setattr(running, "SAVE_SECONDS", 0.0)


class Stop:
    """Interrupts at the n-th event."""

    def __init__(self, n):
        self.left = n

    def __call__(self, event):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("select", SELECTS)
def test_in_pieces_as_in_one(server, select, tmp_path, same_secret):
    fed = collaboration(server, select)
    straight = bits(fed.run(rounds=8, folder=tmp_path / "straight"))
    for rounds in (2, 4, 8):
        run = fed.run(rounds=rounds, folder=tmp_path / "pieces")
    assert bits(run) == straight
    run.ledger.verify()


@pytest.mark.parametrize("saving", ["never", "often"])
@pytest.mark.parametrize("events", [(1,), (2,), (3,), (4, 1, 2), (7,), (1, 1, 1, 5), (11,), (12,)])
def test_interrupted_at_an_event_as_in_one(events, saving, tmp_path, same_secret, monkeypatch):
    monkeypatch.setattr(running, "SAVE_SECONDS", 0.0 if saving == "often" else 1e9)
    fed = collaboration()
    straight = bits(fed.run(rounds=8, folder=tmp_path / "straight"))
    for n in events:
        with pytest.raises(KeyboardInterrupt):
            fed.run(rounds=8, folder=tmp_path / "broken", listen=Stop(n))
    run = fed.run(rounds=8, folder=tmp_path / "broken")
    assert bits(run) == straight
    run.ledger.verify()


class Interrupted(Personal):
    """Ctrl-C while it works, once."""

    when: list

    def contribute(self, shared, local, round, secret):
        INTERRUPT[0] -= 1
        if INTERRUPT[0] == 0:
            raise KeyboardInterrupt
        return super().contribute(shared, local, round, secret)


INTERRUPT = [0]


@pytest.mark.parametrize("call", [1, 2, 4, 7, 9, 14, 20, 26, 33, 40])
def test_interrupted_in_the_middle_of_a_round_or_a_score(call, tmp_path, same_secret, often):
    fed = collaboration()
    fed = fed.replace(participants={n: Interrupted(d) for n, d in DATA.items()})
    INTERRUPT[0] = 0
    straight = bits(fed.run(rounds=8, folder=tmp_path / "straight"))
    INTERRUPT[0] = call
    with pytest.raises(KeyboardInterrupt):
        fed.run(rounds=8, folder=tmp_path / "broken")
    assert bits(fed.run(rounds=8, folder=tmp_path / "broken")) == straight


def test_an_interrupted_save_is_not_tried_again(tmp_path, same_secret, often, monkeypatch):
    from comity.ledger.store import Store

    fed = collaboration()
    straight = bits(fed.run(rounds=6, folder=tmp_path / "straight"))
    save, left = Store.save, [3]

    def late(self, generation):
        save(self, generation)
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt

    monkeypatch.setattr(Store, "save", late)
    with pytest.raises(KeyboardInterrupt):
        fed.run(rounds=6, folder=tmp_path / "broken")
    assert bits(fed.run(rounds=6, folder=tmp_path / "broken")) == straight


def test_without_a_folder_nothing_is_kept_and_the_public_part_is_the_same():
    sites = {n: co.Trainer(MODEL, d) for n, d in DATA.items()}
    fed = collaboration().replace(participants=sites)
    a, b = fed.run(rounds=3), fed.run(rounds=3)
    assert encode_tree(a.state) == encode_tree(b.state)


def test_a_folder_that_could_not_be_opened_is_let_go(tmp_path):
    fed = collaboration()
    fed.run(rounds=2, folder=tmp_path)
    secret = (tmp_path / "secret").read_bytes()
    (tmp_path / "secret").write_bytes(b"short")
    for _ in range(2):
        with pytest.raises(co.LedgerError, match="must hold 32 bytes"):
            fed.run(rounds=3, folder=tmp_path)
    (tmp_path / "secret").write_bytes(secret)
    assert fed.run(rounds=3, folder=tmp_path).ledger.rounds == 3


CHILD = """
import sys
sys.path.insert(0, {here!r})
import test_resume as t
from comity import running
running.SAVE_SECONDS = 0.0
print("ready", flush=True)
run = t.collaboration(slow=0.002).run(rounds=25, folder={folder!r})
import json
print(json.dumps(t.bits(run)), flush=True)
"""


def child(folder):
    code = CHILD.format(here=str(Path(__file__).parent), folder=str(folder))
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-W", "ignore", "-c", code], stdout=subprocess.PIPE, text=True, env=env)


def test_killed_at_any_moment_as_in_one(tmp_path):
    broken, straight = tmp_path / "broken", tmp_path / "straight"
    for folder in (broken, straight):
        folder.mkdir()
        (folder / "secret").write_bytes(bytes(range(32)))
        (folder / "secret").chmod(0o600)
    alone = child(straight)
    pick = random.Random(7)
    for _ in range(5):
        process = child(broken)
        process.stdout.readline()
        time.sleep(pick.uniform(0.05, 0.45))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    last = child(broken)
    (want, _), (got, _) = alone.communicate(timeout=60), last.communicate(timeout=60)
    assert got.splitlines()[-1] == want.splitlines()[-1]
    assert len(want.splitlines()) == 2
