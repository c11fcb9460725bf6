"""What actors of Ray cost on one machine beyond the work itself: rounds whose participants do next to nothing.

With each number of actors the sum is first seen to be that of Local, to the bit; then rounds are timed, the engines by
turns, and reported beside those of Local in this run. CPU time is the hub's. Prints one table, and one JSON line for
machines.
"""

import json
import platform
import resource
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np

import comity as co
from comity.core.contribution import Contribution
from comity.core.envelope import Envelope
from comity.core.parts import Until
from comity.core.round import Round
from comity.core.spec import Leaf, Spec
from comity.core.together import Task
from comity.core.wire import as_tree, encode_tree
from comity.engines.ray import Ray
from comity.ledger.keys import SideSecret
from comity.loop.fold import Fold
from comity.loop.sites import Sites

COHORT, FLOATS, ACTORS, ROUNDS = 100, (5_000, 110_000), (1, 2), 30
NAMES = tuple(f"p{i:03}" for i in range(COHORT))


class Nothing:
    """A participant whose own work costs next to nothing."""

    def __init__(self, number: int, floats: int) -> None:
        self.value = {"w": np.full(floats, number / 7, np.float32)}

    def contribute(self, shared: Contribution, local: Any, round: Any, secret: Any) -> tuple[Contribution, Any]:
        return Contribution("delta", self.value, 3.0), local


class Fixed:
    """A model of so many floats."""

    statistics = ()

    def __init__(self, floats: int) -> None:
        self.floats = floats

    def init(self, round: Any) -> Any:
        return {"w": np.zeros(self.floats, np.float32)}


def door(floats: int) -> Sites:
    """The sites of as many participants as a cohort has."""
    people = {name: Nothing(i, floats) for i, name in enumerate(NAMES)}
    fed = co.Collaboration(co.FedAvg(Fixed(floats)), people, evaluate=False)
    return Sites(people.__getitem__, fed.parts, SideSecret(bytes(32)).side, lambda name: None)


def task(floats: int, number: int) -> Task:
    """The question of a round to the whole cohort."""
    told = as_tree(Contribution("model", {"w": np.full(floats, number, np.float32)}))
    body = Contribution("question", {"shared": told, "public": {}, "views": {"hub": None}})
    turn = Round("bench", 0, number, roster=COHORT, asked=COHORT, expected=float(COHORT))
    spec = Spec({"w": Leaf((floats,), "float32")}, kind="delta")
    return Task(Envelope(turn, "contribute", "hub", "ab" * 32, body), NAMES, 0, {}, spec)


def folded(connected: Any, asked: Task) -> Contribution:
    """A round: ask, and fold what comes."""
    fold = Fold(COHORT)
    for part in connected.total(NAMES, asked, Until(COHORT)):
        fold.take(part.first, part.last, part.sum)
    total = fold.total()
    assert total is not None
    return total


def timed(work: Callable[[], Any]) -> tuple[float, float]:
    """Wall and CPU milliseconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return 1e3 * (time.perf_counter() - wall), 1e3 * (time.process_time() - cpu)


def overhead(floats: int) -> dict[str, float]:
    """Milliseconds of a round with Local, and with so many actors."""
    sites = door(floats)
    engines = {"local": co.Local("sequential"), **{f"actors_{n}": Ray(actors=n, executor="sequential") for n in ACTORS}}
    connected: dict[str, Any] = {name: engine.connect(NAMES, sites) for name, engine in engines.items()}
    out: dict[str, float] = {}
    try:
        want = encode_tree(folded(connected["local"], task(floats, 0)).value)
        for name, one in connected.items():
            began, _ = timed(lambda one=one: folded(one, task(floats, 0)))
            assert encode_tree(folded(one, task(floats, 0)).value) == want, name
            out[f"{name}_begin_ms"] = began
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in connected}
        for number in range(ROUNDS):
            for name, one in connected.items():
                times[name].append(timed(lambda one=one, n=number: folded(one, task(floats, n))))
    finally:
        for one in connected.values():
            getattr(one, "close", lambda: None)()
    for name, both in times.items():
        out[f"{name}_ms"], out[f"{name}_hub_cpu_ms"] = (median(column) for column in zip(*both, strict=True))
    return out


def figures(floats: int) -> dict[str, float]:
    """Milliseconds, and what Ray adds to a round: in all, for a second actor, and against Local."""
    out = overhead(floats)
    local, one, two = (out[f"{name}_ms"] for name in ("local", "actors_1", "actors_2"))
    out |= {"added_ms": one - local, "added_by_an_actor_ms": two - one}
    return out | {"actors_1_over_local": one / local, "actors_2_over_local": two / local}


def main() -> None:
    started, _ = timed(lambda: Ray(actors=2).connect(NAMES, None).close())  # type: ignore[attr-defined, arg-type]
    found = {floats: figures(floats) for floats in FLOATS}
    print(f"{'':<26}" + "".join(f"{floats:>12,} floats" for floats in FLOATS))
    for name in found[FLOATS[0]]:
        print(f"{name:<26}" + "".join(f"{found[floats][name]:>19.2f}" for floats in FLOATS))
    print(f"{'ray_start_and_end_ms':<26}{started:>19.0f}")
    flat = {f"{name}_{floats}": value for floats, column in found.items() for name, value in column.items()}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    about = {"python": platform.python_version(), "ray": Ray().choice["ray"], "comity": co.__version__}
    more = {"cohort": COHORT, "peak_mb": peak, "date": time.strftime("%Y-%m-%d")}
    print(json.dumps({**flat, "ray_start_and_end_ms": started, **more, **about}))


if __name__ == "__main__":
    main()
