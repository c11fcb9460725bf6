"""A run whose folder is damaged: the run, what it should hold, and what may become of it."""

import atexit
import contextlib
import functools
import hashlib
import io
import re
import shutil
import sqlite3
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

import comity as co
from comity import running
from comity.core.contribution import Contribution
from comity.core.errors import ConfigError, LedgerError
from comity.core.wire import encode_tree

ROUNDS = 5
NAMES = ("ada", "bob", "cyd", "dan")
RNG = np.random.default_rng(7)
DATA = {n: (RNG.normal(size=(8, 3)).astype("float32"), RNG.integers(0, 2, 8)) for n in NAMES}
MODEL = co.Linear(3, 2, rate=0.3, batch=4)
SECRET = bytes(range(32))
WORDS = re.compile(r"Restore it|delete the folder|other version|holds a run with another recipe|[Cc]hoose another")


@dataclass(frozen=True)
class Keeper:
    """Keeps a bias, a count and a long history in its drawer; its answers depend on them and on its secret."""

    data: Any = field(metadata={"data": True}, repr=False)

    def contribute(self, shared, local, round, secret):
        mine = local.get("bias", np.zeros(2, "float32"))
        if shared.kind == "score":
            least_at_four = 1e-3 * float(np.abs(mine).sum()) + abs(round.number - 4)
            return Contribution("score", None, metrics={"valid_mse": (least_at_four, 1.0)}), {}
        c, _ = co.Trainer(MODEL, self.data).contribute(shared, {}, round, secret)
        noise = secret.rng("noise", str(round.number)).normal(size=2).astype("float32")
        bias = mine + c.value["0.bias"] * np.float32(0.5) + noise * np.float32(1e-3)
        past = np.concatenate([local.get("past", np.zeros(0)), np.full(300, bias[0], float)])
        value = {**c.value, "0.bias": c.value["0.bias"] + bias}
        return Contribution("delta", value, c.weight, c.metrics), {
            "bias": bias,
            "n": local.get("n", 0) + 1,
            "past": past,
        }


def collaboration(seed=3):
    sites = {n: Keeper(d) for n, d in DATA.items()}
    return co.Collaboration(
        co.FedAvg(MODEL, co.Momentum(0.5, 0.9)), sites, select=co.sample(0.75), seed=seed, evaluate=co.every(2)
    )


def go(folder, rounds=ROUNDS, listen=None, seed=3):
    """Run, or go on, saving after every round."""
    with mock.patch.object(running, "SAVE_SECONDS", 0.0):
        return collaboration(seed).run(rounds, folder=folder, listen=listen)


def bits(run):
    """Everything that came of a run but times."""
    facts = {str(i): {"kind": e.kind, "facts": e.facts} for i, e in enumerate(run.ledger)}
    drawers = {n: run.local(n) for n in NAMES}
    tree = {"state": run.state, "best": run.best, "drawers": drawers, "metrics": dict(run.metrics), "facts": facts}
    return hashlib.sha256(encode_tree(tree)).hexdigest()


def fresh(folder):
    folder.mkdir(parents=True)
    (folder / "secret").write_bytes(SECRET)
    return folder


@dataclass(frozen=True)
class Samples:
    """Folders to copy, and what runs should come to.

    Attributes:
        whole: a run that is over.
        early: the same after two rounds.
        other: another run.
        killed: one whose process is gone, its write-ahead log left behind.
        good: what a run of so many rounds comes to, and one that goes on after them.
    """

    whole: Path
    early: Path
    other: Path
    killed: Path
    good: dict[int, str]


@functools.cache
def samples():
    home = Path(tempfile.mkdtemp(prefix="comity-damage-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    early, whole, other, killed = (home / n for n in ("early", "whole", "other", "killed"))
    go(fresh(early), 2)
    shutil.copytree(early, whole)
    go(whole)
    go(fresh(other), seed=4)

    def copied(event):
        """Some of the log is in the database already when the process is gone."""
        if event.kind == "round" and event.round.number == 2:
            with contextlib.closing(sqlite3.connect(home / "living" / "run.db")) as db:
                db.execute("PRAGMA wal_checkpoint(PASSIVE)")
        if event.kind == "round" and event.round.number == ROUNDS - 1:
            shutil.copytree(home / "living", killed)

    go(fresh(home / "living"), listen=copied)
    straight = fresh(home / "straight")
    good = {n: bits(go(straight, n)) for n in (ROUNDS, ROUNDS + 1)}
    return Samples(whole, early, other, killed, good)


def sql(folder, *statements):
    db = sqlite3.connect(folder / "run.db")
    with db:
        for statement, *values in (s if isinstance(s, tuple) else (s,) for s in statements):
            db.execute(statement, values)
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()


def said(command, folder):
    """What a command prints, and its status."""
    from comity.cli import main

    out = io.StringIO()
    argv = mock.patch.object(sys, "argv", ["comity", command, str(folder)])
    with argv, contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            main()
        except SystemExit as left:
            return left.code, out.getvalue()
    return 0, out.getvalue()


def audited(folder):
    """The faults that an audit finds; nothing but LedgerError and ConfigError may come of it."""
    try:
        return list(co.audit(folder).faults)
    except (LedgerError, ConfigError) as error:
        return [str(error)]


def resumed(folder, rounds=ROUNDS):
    """What the run holds when it is taken up and brought to so many rounds, or why it cannot be."""
    try:
        return bits(go(folder, rounds)), ""
    except LedgerError as error:
        return None, str(error)
    except ConfigError as error:
        why = str(error)
    assert "holds a run with another recipe" in why, why
    return None, why


def judged(folder, *, commands=False):
    """Damage is found by audit and by opening, or nothing that is loaded is touched. Returns what they say.

    A damage that only an audit sees may lie where a run reads nothing.
    """
    faults = audited(folder)
    if commands:
        for command in ("show", "audit"):
            status, text = said(command, folder)
            assert status == (1 if faults else 0) or (status == 2 and re.search("Name (the|another) folder", text)), (
                status,
                text,
            )
            assert "Traceback" not in text, text
            assert not faults or any(f[:30].removeprefix("ledger ") in text for f in faults) or "damaged" in text, (
                faults,
                text,
            )
    goal = samples().good
    found, why = resumed(folder)
    assert found in (None, goal[ROUNDS]), "damaged content was loaded"
    if found is None:
        assert WORDS.search(why), why
        assert re.search(r"run\.db|recipe|\.state|secret|entry \d|drawer of", why), why
    else:
        more, again = resumed(folder, ROUNDS + 1)
        assert more == goal[ROUNDS + 1] or again, "what was loaded did not go on as it should"
        if again:
            why = again
    return faults, why
