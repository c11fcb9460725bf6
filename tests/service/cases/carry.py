"""Whole runs, in this process, with somebody between hub and sites."""

import importlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import comity as co

made = importlib.import_module("actors")
joined = importlib.import_module("test_network").joined

WIDE = co.Linear(150_000, 2, rate=0.01, batch=4)
"""1.2 MB: more than nginx takes at once, by default."""


def wide() -> co.Collaboration:
    return co.Collaboration(co.FedAvg(WIDE), seed=3, evaluate=False)


def wide_trainer(name: str) -> Any:
    rng = np.random.default_rng(sum(name.encode()))
    return co.Trainer(WIDE, (rng.normal(size=(4, 150_000)).astype("float32"), np.array([0, 1, 0, 1])))


made.WORKS["wide"] = (wide, wide_trainer)


@contextmanager
def sites(
    folder: Path, url: str, work: str = "fedavg", *, names: Sequence[str] = made.NAMES, **more: Any
) -> Iterator[list[BaseException]]:
    """Sites that dial a URL, each in a thread; they are stopped where the block fails. Gives: what they died of."""
    stop, died = threading.Event(), []

    def one(name: str) -> None:
        try:
            joined(folder, url, name, work, stop=stop, **more)
        except BaseException as error:  # noqa: BLE001  it is given to the test
            died.append(error)

    threads = [threading.Thread(target=one, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    try:
        yield died
    except BaseException:
        stop.set()
        raise
    finally:
        for thread in threads:
            thread.join(20)
        stop.set()
        for thread in threads:
            thread.join(10)
        assert not any(thread.is_alive() for thread in threads)


def run_of(fed: Any, rounds: int, folder: Path, engine: Any, seconds: float = 60.0) -> Any:
    """What a run comes to; one that hangs fails."""
    came: list[Any] = []

    def run() -> None:
        try:
            came.append(fed.run(rounds=rounds, folder=folder, engine=engine))
        except BaseException as error:  # noqa: BLE001  it is raised below
            came.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert came, f"The run must end within {seconds} s."
    if isinstance(came[0], BaseException):
        raise came[0]
    return came[0]


def through(folder: Path, url: str, port: int, work: str = "fedavg", rounds: int = 2, **more: Any) -> Any:
    """A run whose sites dial `url`, behind which the hub listens on `port`; the same as in one process, to the bit.

    Args:
        folder: of all of them.
        url: what sites dial and sign.
        port: of the hub.
        work: which.
        rounds: how many.
        more: for the sites; `hub`, for the hub.
    """
    settings = {"url": url, "linger": 3.0, **more.pop("hub", {})}
    with sites(folder, url, work, **more) as died:
        engine = made.network(folder, port, **settings)
        run = run_of(made.WORKS[work][0](), rounds, folder / "run", engine)
    assert died == []
    assert made.bits(run.state) == made.bits(made.local(work, rounds).state)
    assert (run.ledger.dropped, run.ledger.refused) == ([], [])
    return run
