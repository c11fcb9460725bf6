"""What hub and sites of the benchmark run: vectors that are fixed, so that only the carrying is timed."""

import hashlib
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

import comity as co
from comity.core.contribution import Contribution
from comity.core.wire import encode_tree
from comity.ledger.keys import SideSecret
from comity.service.joining import Pinned

MARKS: list[tuple[float, float]] = []
"""(wall, CPU) seconds of this process whenever a participant was asked."""


def secret(name: str) -> SideSecret:
    """An identity for a benchmark, of a name that everybody knows."""
    return SideSecret(hashlib.sha256(name.encode()).digest())


HUB = secret("the hub")


def names(count: int) -> list[str]:
    return [f"site {i:04d}" for i in range(count)]


@dataclass(frozen=True)
class Zeros:
    """As much of a model as a vector."""

    size: int
    statistics: ClassVar[frozenset[str]] = frozenset()

    def init(self, round: Any) -> Any:
        return {"w": np.zeros(self.size, np.float32)}

    def fit(self, params: Any, data: Any, round: Any, step: Any = None) -> Any:
        raise NotImplementedError

    def predict(self, params: Any, x: Any) -> Any:
        raise NotImplementedError


@dataclass(frozen=True)
class Fixed:
    """Gives the same vector in each round."""

    size: int
    name: str
    made: dict[str, Any] = field(default_factory=dict, metadata={"data": True}, repr=False, compare=False)

    def contribute(self, shared: Contribution, local: Any, round: Any, secret: Any) -> tuple[Contribution, Any]:
        MARKS.append((time.perf_counter(), time.process_time()))
        if not self.made:
            seed = int.from_bytes(hashlib.sha256(self.name.encode()).digest()[:4], "little")
            whole = np.random.default_rng(seed).integers(-(2**20), 2**20, self.size, np.int32)
            self.made["w"] = (whole / np.float32(2**21)).astype(np.float32)
        return Contribution("delta", {"w": self.made["w"]}, 1.0), local


def collaboration(work: str, size: int) -> co.Collaboration:
    """Without participants, as a hub has it."""
    channel = co.SecAgg() if work == "secagg" else co.Plain()
    method = co.FedAvg(Zeros(size), bound=1.0)
    return co.Collaboration(method, combine=co.Mean(uniform=True), channel=channel, evaluate=False, seed=0)


def local(work: str, size: int, count: int, rounds: int) -> str:
    """The same in one process: the hash of its state."""
    people = {name: Fixed(size, name) for name in names(count)}
    return bits(collaboration(work, size).replace(participants=people).run(rounds=rounds).state)


def bits(state: Any) -> str:
    return hashlib.sha256(encode_tree({"state": state})).hexdigest()


def pinned(url: str, name: str, certificate: str) -> Pinned:
    """Whom a site of the benchmark joined."""
    return Pinned(url, "hub", name, HUB.public_key(), Path(certificate).read_text() if certificate else "")
