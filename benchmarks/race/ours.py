"""One workload through the public face: first it must be right, then it is timed, then the bare loop beside it."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from rich.console import Console

import comity as co
from race.bare import Bare
from race.tree import Tree
from race.work import SEED, Work

CLOSE = {"rtol": 1e-4, "atol": 1e-5}
BARE_MS, FEW = 500.0, 64
"""So long the bare loop is timed; so many clients at most are in the round that must be right."""


class Clock:
    """A listener: when each round closed, by the wall, by this process' CPU and by that of it and its workers."""

    def __init__(self, rounds: int) -> None:
        self.half, self.wall, self.cpu, self.tree = rounds // 2, [], [], {}
        self._tree = Tree(os.getpid())

    def __call__(self, event: Any) -> None:
        """Note the time."""
        if event.kind == "round":
            self.wall.append(time.perf_counter())
            self.cpu.append(time.process_time())
            if len(self.wall) in (self.half, 2 * self.half):
                self.tree[len(self.wall)] = self._tree.seconds()

    def round_ms(self) -> dict[str, float]:
        """Of the later half: the median by wall, and by CPU; the mean by CPU where there are workers."""
        wall, cpu = (np.diff(t[self.half - 1 :]) * 1e3 for t in (self.wall, self.cpu))
        everyone = (self.tree[2 * self.half] - self.tree[self.half]) / self.half * 1e3
        alone = len(self._tree.cpu) == 1
        return {"wall": float(np.median(wall)), "cpu": float(np.median(cpu)) if alone else everyone}


def engine(workers: int, executor: str | None = None) -> co.Local:
    """The default one, or with something pinned."""
    return co.Local(executor=executor, workers=workers or co.Local().workers)


def cohorts(ledger: Any) -> dict[int, list[str]]:
    """Who was asked, by round."""
    return {e.facts["round"]: e.facts["asked"].split("\n") for e in ledger if e.kind == "round"}


@contextmanager
def one_thread() -> Iterator[None]:
    """For the bare loop; the library sees to its own."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def right(work: Work, fed: co.Collaboration, how: Any) -> dict[str, Any]:
    """One round, of few enough, must give what the bare loop gives: the executor, and the largest differences.

    A ReLU at its kink can turn on a rounding, and the loop itself may then be the one that is off. So a round that
    differs from the loop in float32 must agree with the same loop in float64, within the same tolerance.
    """
    run = fed.replace(select=co.sample(min(work.asked, FEW))).run(1, engine=how)
    found: dict[str, Any] = {"executor": chosen(run.ledger)["executor"]}
    for dtype in (torch.float32, torch.float64):
        bare = work.bare(dtype)
        with one_thread():
            bare.round(0, cohorts(run.ledger)[0])
        wanted = bare.tree()
        assert run.shared.keys() == wanted.keys(), (run.shared.keys(), wanted.keys())
        found[str(dtype)[6:]] = float(max(np.abs(value - wanted[name]).max() for name, value in run.shared.items()))
        if all(np.allclose(run.shared[name], wanted[name], **CLOSE) for name in wanted):
            return found
    raise AssertionError(f"{work.name} with {how} differs from the bare loop by {found}.")


def timed_bare(bare: Bare, asked: dict[int, list[str]], first: int) -> float:
    """CPU milliseconds of a round of the bare loop, over the rounds of a run from `first` on: their median."""
    found: list[float] = []
    with one_thread():
        for number in range(first, len(asked)):
            began = time.process_time()
            bare.round(number, asked[number])
            found.append((time.process_time() - began) * 1e3)
            if sum(found) > BARE_MS:
                break
    return float(np.median(found))


def chosen(ledger: Any) -> dict[str, Any]:
    """How the work was done: the last choice in the ledger, or how the run began."""
    return dict(next((e.facts for e in reversed(list(ledger)) if e.kind == "choice"), ledger[0].facts["choice"]))


def measured(work: Work, workers: int) -> dict[str, Any]:
    """The figures of one workload with one engine; 0 workers is the default one."""
    fed = work.collaboration()
    off = {executor or "default": right(work, fed, engine(workers, executor)) for executor in (None, "batched")}
    clock, quiet = Clock(work.rounds), co.Progress(Console(file=open(os.devnull, "w"), force_terminal=True))  # noqa: SIM115
    run = fed.run(work.rounds, engine=engine(workers), listen=[clock, quiet])
    bare = timed_bare(work.bare(), cohorts(run.ledger), work.rounds // 2)
    return {**clock.round_ms(), "bare": bare, "off": off, "choice": chosen(run.ledger)}


def whole(work: Work, rounds: int) -> None:
    """A script that does so many rounds and ends."""
    quiet = co.Progress(Console(file=open(os.devnull, "w"), force_terminal=True))  # noqa: SIM115
    run = work.collaboration().run(rounds, listen=quiet)
    assert run.ledger.rounds == rounds, SEED
