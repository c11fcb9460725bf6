"""Doors for worker processes: what a member does is what the question tells it to do."""

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from comity.core.contribution import Contribution
from comity.core.envelope import Envelope
from comity.core.rng import keyed
from comity.core.round import Round
from comity.core.spec import Leaf, Spec
from comity.core.together import Part, Task

NAMES = tuple(f"p{i:03}" for i in range(200))


def delta(who):
    """Numbers whose sum depends on the order in which they are added."""
    rng = keyed("delta", who)
    value = (rng.normal(size=300) * 10.0 ** rng.integers(-6, 6, 300)).astype("float32")
    return Contribution("delta", {"w": value}, float(rng.integers(1, 9)), {"loss": (float(rng.random()), 1.0)})


def added(total, c):
    if total is None:
        return Contribution(c.kind, {"w": c.value["w"].astype(float)}, c.weight, dict(c.metrics))
    s, n = (a + b for a, b in zip(total.metrics["loss"], c.metrics["loss"], strict=True))
    return replace(total, value={"w": total.value["w"] + c.value["w"]}, weight=total.weight + c.weight,
                   metrics={"loss": (s, n)})  # fmt: skip


class Adder:
    """Counts in each drawer how often it was asked; `told["do"]` says what else happens to whom."""

    def __init__(self, drawers=None):
        self.drawers, self.changed, self.home = drawers or {}, set(), os.getpid()

    def __call__(self, asked):
        me, told = asked.round.me, asked.body.value
        self._act(me, told)
        self.drawers[me] = self.drawers.get(me, 0) + 1
        self.changed.add(me)
        said = Contribution("said", {"me": me, "times": self.drawers[me], "heard": told["x"].sum()})
        odd = told["do"] == "odd" and me == told["who"]
        return Envelope(
            asked.round, asked.phase, me, asked.recipe, Contribution("odd", (i for i in "ab")) if odd else said
        )

    def many(self, asked):
        return map(self, asked)

    def total(self, task):
        size = -(-task.question.round.asked // 64)
        blocks = [task.names[i : i + size] for i in range(0, len(task.names), size)]
        first = task.start // size
        parts = (self._block(task, first + i, names) for i, names in enumerate(blocks))
        return iter([joined(list(parts))]) if task.start == 0 and task.names else one_later(parts)

    def _block(self, task, number, names):
        total = None
        for name in names:
            asked = replace(task.question, round=task.question.round.to(name))
            assert self(asked).sender == name
            total = added(total, delta(name))
        size = -(-task.question.round.asked // 64)
        return Part(number, number, total, number * size, [9] * len(names), [True] * len(names))

    def _act(self, me, told):
        do = told["do"]
        time.sleep(0.002 if do == "die once" else 0.0)
        if me != told["who"] or os.getpid() == self.home:
            return
        flag = Path(told["flag"])
        if do == "die" or (do == "die once" and not flag.exists()):
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        elif do == "sleep":
            flag.write_text(str(os.getpid()))
            time.sleep(60)
        elif do == "doze":
            time.sleep(0.2)
        elif do == "raise":
            raise ZeroDivisionError(me)
        elif do == "interrupt":
            raise KeyboardInterrupt
        elif do == "write":
            told["x"][0] = 1.0

    def away(self):
        home = Adder()
        home.home = self.home
        return home

    def lend(self, names):
        return {name: self.drawers[name] for name in names if name in self.drawers}

    def visit(self, drawers):
        self.drawers, self.changed = dict(drawers), set()

    def touched(self):
        return {name: self.drawers[name] for name in sorted(self.changed)}

    def keep(self, drawers):
        self.drawers.update(drawers)
        self.changed.update(drawers)


def one_later(parts):
    """The next block is done already when one is given."""
    held = next(parts)
    for part in parts:
        yield held
        held = part
    yield held


def joined(parts):
    """Parts in the order of their blocks, as one."""
    parts = sorted(parts, key=lambda part: part.first)
    total = None
    for part in parts:
        total = added(total, part.sum)
    up, accepted = ([x for p in parts for x in column(p)] for column in (lambda p: p.up, lambda p: p.accepted))
    return Part(0, parts[-1].last, total, 0, up, accepted)


def body(do="", who="", flag="", floats=40_000):
    """What is asked: large enough to lie in the block of questions."""
    x = np.arange(floats, dtype="float32")
    x.flags.writeable = False
    return Contribution("question", {"do": do, "who": who, "flag": str(flag), "x": x})


def question(asked, said, number=0):
    return Envelope(Round("r", 0, number, roster=len(NAMES), asked=asked), "contribute", "hub", "ab" * 32, said)


def task(cohort, said=None, number=0):
    return Task(question(len(cohort), said or body(), number), cohort, 0, {}, Spec({"w": Leaf((300,))}))


def messages(cohort, said=None, number=0):
    asked = question(len(cohort), said or body(), number)
    return lambda name: replace(asked, round=asked.round.to(name))


def children():
    """The processes that this one started and that still run."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == os.getpid() and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found
