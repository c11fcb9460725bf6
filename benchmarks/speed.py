"""Rounds through the public face, beside the same work in other systems, against the bare steps and as they grow.

    python benchmarks/speed.py                              the figures of this library alone
    python benchmarks/speed.py --peers peers.toml           beside others, turn and turn about
    python benchmarks/speed.py --peers peers.toml --write   and into the tables of docs/benchmarks.md
    python benchmarks/speed.py --only digits,cnn,growth     some of it: workloads, whole, growth, ground

Each figure comes from a process of its own, which first asserts that one round gives what the bare loop gives. Times
are medians over the later half of the rounds. docs/benchmarks.md says what peers.toml holds and what is compared.
Prints tables, and one JSON line for machines. Linux.
"""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from race import table
from race.peers import Peer, plain_environment, read
from race.tree import watched
from race.work import ASKED, TOTALS, WORK, find

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
ROUNDS, SHORT = 50, 64


def asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, help="TOML file of commands")
    parser.add_argument("--only", default="", help="comma-separated: workloads, whole, growth, ground")
    parser.add_argument("--repeats", type=int, default=0, help="default 2 beside peers, else 1")
    parser.add_argument("--write", action="store_true", help="into docs/benchmarks.md")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--workers", type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args()


def child(*arguments: str) -> dict[str, Any]:
    """This file in a process of its own: what it says, and the peak of its memory."""
    command = [sys.executable, str(Path(__file__).resolve()), *arguments]
    got = watched(command, ".", plain_environment(), json_line=arguments[1] != "whole")
    return {**got.said, "peak": got.peak, **({} if got.said else {"wall": got.wall, "cpu": got.cpu})}


@dataclass
class Turns:
    """Everybody once, then everybody again; who fails is reported and left out.

    Attributes:
        repeats: how often.
        failed: whose turn failed.
    """

    repeats: int
    failed: list[str] = field(default_factory=list)

    def __call__(self, ways: Mapping[str, Callable[[], dict[str, Any]]], what: str) -> dict[str, dict[str, Any]]:
        """The median of each figure, by who."""
        found: dict[str, list[dict[str, Any]]] = {}
        for _ in range(self.repeats):
            for who, way in ways.items():
                began = time.perf_counter()
                try:
                    found.setdefault(who, []).append(way())
                except RuntimeError as error:
                    self.failed.append(f"{what} {who}")
                    print(f"{what} {who}: {str(error).strip().splitlines()[-1]}", file=sys.stderr)
                print(f"{what} {who} {time.perf_counter() - began:.1f} s", file=sys.stderr, flush=True)
        return {who: _middle(got) for who, got in found.items() if got}


def _middle(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    numbers = [k for k, v in found[0].items() if isinstance(v, int | float)]
    return {**found[-1], **{k: median(f[k] for f in found) for k in numbers}}


def raced(name: str, peers: Mapping[str, Peer], turns: Turns) -> dict[str, dict[str, Any]]:
    """One workload: peers, ours, and the bare loop that ran beside ours."""

    def warm(peer: Peer) -> dict[str, Any]:
        wall, cpu = peer.round_ms(peer())
        return {"wall": wall, "cpu": cpu, "label": peer.name}

    ways: dict[str, Callable[[], dict[str, Any]]] = {who: lambda p=p: warm(p) for who, p in peers.items()}  # type: ignore[misc]
    ways["comity"] = lambda: child("--one", name)
    for n in WORK[name].workers:
        ways[f"comity, {n} processes"] = lambda n=n: child("--one", name, "--workers", str(n))  # type: ignore[misc]
    found = turns(ways, name)
    for who, got in found.items():
        if "choice" in got:
            how = got["choice"]
            got["label"] = f"{who}, {how['executor']} {how.get('chunk') or ''}".strip()
    return {**found, "bare loop": {"cpu": found["comity"]["bare"]}} if "comity" in found else {}


def wholes(peers: Mapping[str, Peer], turns: Turns) -> dict[str, dict[str, Any]]:
    """Whole processes, from start to end."""

    def seen(peer: Peer) -> dict[str, Any]:
        got = peer()
        return {"wall": got.wall, "cpu": got.cpu, "peak": got.peak, "label": peer.name}

    ways: dict[str, Callable[[], dict[str, Any]]] = {who: lambda p=p: seen(p) for who, p in peers.items()}  # type: ignore[misc]
    return turns({**ways, "comity": lambda: child("--one", "whole")}, "whole")


def growth(turns: Turns) -> list[dict[str, Any]]:
    """More clients in all, then more of them in a round."""
    sizes = [*((t, SHORT) for t in TOTALS), *((TOTALS[-1], a) for a in ASKED)]
    ways = {f"{t}-{a}": lambda t=t, a=a: child("--one", f"population-{t}-{a}") for t, a in sizes}
    found = turns(ways, "growth")
    return [{"total": t, "asked": a, **found[f"{t}-{a}"]} for t, a in sizes if f"{t}-{a}" in found]


def ground() -> dict[str, float]:
    """What the loop and the fold cost, measured where that is done."""
    import ground as own

    return {**own.loop(), **own.fold()}


def limits(names: Iterable[str]) -> dict[str, float]:
    """Milliseconds of a round at the peak of this machine."""
    import peak
    import torch

    torch.set_num_threads(1)
    return {name: peak.limit(WORK[name]) for name in names}


def about() -> dict[str, Any]:
    import numpy as np
    import torch

    import comity as co

    info = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    cpu = next((line.split(":")[1].strip() for line in info if line.startswith("model name")), "")
    versions = {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
    return {"date": time.strftime("%Y-%m-%d"), "cores": os.cpu_count(), "cpu": cpu, "comity": co.__version__} | versions


def everything(given: argparse.Namespace) -> dict[str, Any]:
    peers = read(given.peers) if given.peers else {}
    wanted = set(filter(None, given.only.split(","))) or {*WORK, "whole", "growth", "ground"}
    turns = Turns(given.repeats or (2 if peers else 1))
    names = [name for name in WORK if name in wanted]
    found: dict[str, Any] = {"work": {n: raced(n, peers.get(n, {}), turns) for n in names}, "limits": limits(names)}
    found["whole"] = wholes(peers.get("whole", {}), turns) if "whole" in wanted else {}
    found["growth"] = growth(turns) if "growth" in wanted else []
    found["ground"] = ground() if "ground" in wanted else {}
    return {**found, "failed": turns.failed, **about()}


def tables(found: Mapping[str, Any]) -> dict[str, tuple[Sequence[str], Sequence[Sequence[str]]]]:
    """Those for which something was measured, by the name of their place in the page."""
    ground_rows = [(k, table.number(v)) for k, v in found["ground"].items()]
    all_ = {
        "rounds": (table.HEAD, table.work_rows(found["work"], found["limits"])),
        "whole": (table.WHOLE, table.whole_rows(found["whole"]) if found["whole"] else []),
        "growth": (table.GROWTH, table.growth_rows(found["growth"])),
        "ground": (("loop and fold", "value"), ground_rows),
    }
    return {name: made for name, made in all_.items() if made[1]}


def main() -> None:
    given = asked()
    if given.one:
        from race import ours

        if given.one == "whole":
            ours.whole(WORK["digits-least-2"], ROUNDS)
        else:
            print(json.dumps(ours.measured(find(given.one), given.workers), default=str))
        return
    found = everything(given)
    made = tables(found)
    for head, rows in made.values():
        print(table.text(head, rows), end="\n\n")
    print(json.dumps(found, default=float))
    if given.write:
        measured = ", ".join(f"{k} {found[k]}" for k in ("date", "cpu", "cores", "comity", "python", "torch", "numpy"))
        table.write(PAGE, {name: f"{table.markdown(*m)}\n\nMeasured: {measured}." for name, m in made.items()})
    if found["failed"]:
        sys.exit(f"failed: {', '.join(found['failed'])}")


if __name__ == "__main__":
    main()
