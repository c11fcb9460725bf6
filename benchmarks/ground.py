"""What the ground costs beyond the participants' own work: the loop, the fold, the wire.

Each part asserts that results are equal before it times anything; figures are CPU time, as ratios where
two ways are compared in one run. Prints one table, and one JSON line for machines.
"""

import json
import platform
import resource
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np

import comity as co
from comity.core.contribution import Contribution
from comity.core.together import Plan, Stack, Together, Works
from comity.core.tree import Layout
from comity.core.wire import decode, encode, size
from comity.loop.fold import Fold

PARTICIPANTS, FLOATS, ROUNDS = 1_000, 5_000, 5
UPDATES, PARAMETERS = 1_000, 1_000_000


class Nothing:
    """A participant whose own work costs nothing: what is left is the loop."""

    def __init__(self) -> None:
        self.value = {"a": np.zeros(FLOATS - 50, np.float32), "b": np.zeros(50, np.float32)}

    def contribute(self, shared: Contribution, local: Any, round: Any, secret: Any) -> tuple[Contribution, Any]:
        return Contribution("delta", self.value, 3.0), local


class Stacked(Nothing):
    """One whose kind does its work together: its contributions come as one matrix, and so does their sum."""

    alike = "stacked"

    def contribute_many(self, works: Works, plan: Plan) -> Together:
        rows = np.zeros((len(works), FLOATS), np.float32)
        return Together(Stack("delta", rows, Layout.of(self.value), np.full(len(works), 3.0)), works.local)


class Fixed:
    """A model of so many floats; the participants train it by doing nothing."""

    statistics = ()

    def init(self, round: Any) -> Any:
        return {"a": np.zeros(FLOATS - 50, np.float32), "b": np.zeros(50, np.float32)}


def cpu(work: Callable[[], Any], repeats: int = 3) -> float:
    """The least CPU seconds of a few runs."""
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return best


def loop() -> dict[str, float]:
    """Microseconds for each contribution, and for each round of ten, ledger on: asked one by one, and stacked."""
    found = {}
    for kind, name in ((Nothing, ""), (Stacked, "_stacked")):
        people = {f"p{i:04}": kind() for i in range(PARTICIPANTS)}
        many = co.Collaboration(co.FedAvg(Fixed()), people, evaluate=False)
        few = many.replace(participants={f"p{i}": kind() for i in range(10)})
        run = many.run(1)
        assert all((x == 0).all() for x in run.shared.values())
        assert run.ledger.bytes_up > PARTICIPANTS * FLOATS * 4
        start = cpu(lambda many=many: many.run(0))  # type: ignore[misc]
        each = (cpu(lambda many=many: many.run(ROUNDS)) - start) / (ROUNDS * PARTICIPANTS)  # type: ignore[misc]
        fixed = cpu(lambda few=few: few.run(100)) / 100 - 10 * each  # type: ignore[misc]
        found |= {f"us_per_contribution{name}": each * 1e6, f"us_per_round{name}": fixed * 1e6}
    return found


def fold() -> dict[str, float]:
    """Adding 1,000 updates of 1M float32, against numpy's stack and mean; and the memory above the updates."""
    rng = np.random.default_rng(0)
    updates = [rng.standard_normal(PARAMETERS, dtype=np.float32) for _ in range(8)]

    def ours(n: int) -> np.ndarray:
        total = Fold(n)
        for i in range(n):
            total.add(i, Contribution("delta", {"w": updates[i % 8]}))
        return total.total().value["w"] / n  # type: ignore[union-attr, index, call-overload]

    def theirs(n: int) -> np.ndarray:
        return np.mean(np.stack([updates[i % 8] for i in range(n)]), axis=0)

    assert np.allclose(ours(64), theirs(64), atol=1e-5)
    tracemalloc.start()
    ours(256)
    models = tracemalloc.get_traced_memory()[1] / (4 * PARAMETERS)
    tracemalloc.stop()
    own = cpu(lambda: ours(UPDATES), 1)
    times = cpu(lambda: theirs(UPDATES), 1) / own
    return {"fold_s": own, "numpy_stack_over_fold": times, "fold_models_of_memory": models}


def wire() -> dict[str, float]:
    """Encoding and decoding 45 MB against copying it."""
    big = Contribution("delta", {"w": np.zeros(11_250_000, np.float32)})
    data = encode(big)
    assert len(data) == size(big)
    assert (decode(data).value["w"] == big.value["w"]).all()  # type: ignore[union-attr, index, call-overload]
    copy = cpu(lambda: bytes(memoryview(data)))
    return {"encode_over_copy": cpu(lambda: encode(big)) / copy, "decode_over_copy": cpu(lambda: decode(data)) / copy}


def main() -> None:
    figures = {**loop(), **fold(), **wire()}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    for name, value in figures.items():
        print(f"{name:<28}{value:>12.3f}")
    about = {"python": platform.python_version(), "numpy": np.__version__, "comity": co.__version__}
    print(json.dumps({**figures, "peak_mb": peak, "date": time.strftime("%Y-%m-%d"), **about}))


if __name__ == "__main__":
    main()
