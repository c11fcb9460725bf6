"""Between organisations: what a hub and its sites cost, over TLS with signed requests, in ratios of one run.

    OMP_NUM_THREADS=1 python benchmarks/network.py [--quick] [--write] [--flower PYTHON] [--only empty files ...]

All on one machine over loopback, hub and sites as processes of their own: nothing here shows what a long line does.

empty    3 sites, a model of one number: what a round costs where nothing is computed. With `--flower PYTHON`, where
         flwr is installed: empty messages to three of its SuperNodes, by its deployment engine, in the same run.
files    3 sites, 45 MB down and up: beside bare files by the same libraries (httpx, Starlette, uvicorn, TLS, sha256 at
         both ends, on disk), before and after.
secagg   30 sites in 2 processes, 1 million numbers: sums that are masked beside plain ones.
waiting  1,000 sites in one process that only wait, then all are asked.

What the hub makes is checked to the bit against the same in one process. Each section is a process of its own. CPU
seconds are those of the hub's process, and of all sites together. Prints one table, and one JSON line.
"""

import argparse
import json
import os
import platform
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from race import table

import comity as co

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
SECONDS = 400.0
"""That a section may take."""
HEAD = ("what", "figure", "beside", "ratio", "wanted")


def median(found: Any) -> float:
    return float(np.median(found))


def carried(kind: str, size: int, folder: Path, **more: int) -> dict[str, float]:
    """A run over the network, and its figures for a round; its result is that of one process."""
    from hubs import carried, work

    told = carried.carry(kind, size, folder=folder, **more)
    same = work.local(kind, size, more["count"], more["rounds"])
    assert told.state == same, "The hub must make what one process makes, to the bit."
    walls = {
        "round s": median(told.rounds),
        "asking s": median(told.asks),
        "p90 s": float(np.quantile(told.rounds, 0.9)),
    }
    return {**walls, "hub CPU s": told.hub, "sites CPU s": told.sites}


def empty(quick: bool, folder: Path) -> dict[str, Any]:
    return carried("plain", 1, folder / "a", count=3, processes=3, rounds=20 if quick else 300)


def files(quick: bool, folder: Path) -> dict[str, Any]:
    """Bare, ours, bare: what is bare is the median of both."""
    from hubs.carried import bare

    numbers, times = (250_000, 2) if quick else (11_250_000, 6)
    before, cpu = bare(4 * numbers, count=3, times=times, folder=folder / "before")
    ours = carried("plain", numbers, folder / "ours", count=3, processes=3, rounds=times)
    after, more = bare(4 * numbers, count=3, times=times, folder=folder / "after")
    spans = before[1:] + after[1:]
    beside = median(spans)
    ratios = {"bare / asking": beside / ours["asking s"], "bare / round": beside / ours["round s"]}
    return {
        **ours,
        "bytes": 4 * numbers,
        "bare s": beside,
        "bare range s": [min(spans), max(spans)],
        "bare CPU s": (cpu + more) / 2,
        **ratios,
    }


def secagg(quick: bool, folder: Path) -> dict[str, Any]:
    """Plain, masked, plain."""
    numbers, rounds = (20_000, 3) if quick else (1_000_000, 8)
    more = {"count": 30, "processes": 2, "rounds": rounds}
    first = carried("plain", numbers, folder / "first", **more)
    masked = carried("secagg", numbers, folder / "masked", **more)
    last = carried("plain", numbers, folder / "last", **more)
    plain = {name: (first[name] + last[name]) / 2 for name in first}
    ratios = {"ratio": masked["round s"] / plain["round s"], "hub CPU ratio": masked["hub CPU s"] / plain["hub CPU s"]}
    return {"plain": plain, "secagg": masked, "plain s": [first["round s"], last["round s"]], **ratios}


def waiting(quick: bool, folder: Path) -> dict[str, Any]:
    from hubs import carried, work

    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    count = 50 if quick else 1000
    told = carried.waiting(count, seconds=5.0 if quick else 60.0, folder=folder / "a")
    assert told.state == work.local("plain", 1, count, 2), "The hub must make what one process makes, to the bit."
    rows = {"sites": count, "share of a core": told.share, "MB": told.memory / 1e6, "MB before": told.first / 1e6}
    return {**rows, "woken s": told.woken, "answered s": told.answered}


SECTIONS: Mapping[str, Callable[[bool, Path], dict[str, Any]]] = {
    "empty": empty,
    "files": files,
    "secagg": secagg,
    "waiting": waiting,
}


def measured(name: str, quick: bool) -> dict[str, Any]:
    """A section, in a process of its own; whatever it started ends with it."""
    command = [sys.executable, __file__, "--section", name, *(["--quick"] if quick else [])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as section:
        try:
            out, _ = section.communicate(timeout=SECONDS)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(section.pid, signal.SIGKILL)
    if section.returncode:
        raise ChildProcessError(f"{name} failed.")
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found


def peer(python: str, quick: bool) -> dict[str, Any]:
    """Flower's deployment engine: its seconds for an exchange."""
    from hubs import flower

    with tempfile.TemporaryDirectory() as folder:
        took = flower.measured(python, Path(folder), exchanges=3 if quick else 10)["seconds"]
    return {"version": flower.version(python), "exchange s": median(took), "range s": [min(took), max(took)]}


def rows(found: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """As a table."""
    made: list[tuple[str, ...]] = []
    if e := found.get("empty"):
        cpu = f"CPU: hub {e['hub CPU s'] * 1e3:.1f}, sites {e['sites CPU s'] * 1e3:.1f} ms"
        made.append(
            (
                "empty round, 3 sites",
                f"{e['round s'] * 1e3:.1f} ms, 9 of 10 below {e['p90 s'] * 1e3:.1f}",
                cpu,
                "",
                "<= 15 ms",
            )
        )
    if f := found.get("flower"):
        ratio = f["exchange s"] / e["round s"] if e else 0.0
        said = f"{f['exchange s']:.1f} s ({f['range s'][0]:.1f} to {f['range s'][1]:.1f})"
        made.append((f"empty exchange, Flower {f['version']}, 3 nodes", said, "", f"{ratio:,.0f}", ">= 300"))
    if f := found.get("files"):
        beside = f"bare files {f['bare s']:.2f} s"
        name = f"{f['bytes'] / 1e6:.0f} MB down and up, 3 sites"
        made.append((f"{name}: asking", f"{f['asking s']:.2f} s", beside, f"{f['bare / asking']:.2f}", ">= 0.7"))
        made.append((f"{name}: the whole round", f"{f['round s']:.2f} s", beside, f"{f['bare / round']:.2f}", ""))
        spent = f["hub CPU s"] + f["sites CPU s"]
        beside = f"bare files {f['bare CPU s']:.2f} s"
        made.append((f"{name}: CPU of all", f"{spent:.2f} s", beside, f"{f['bare CPU s'] / spent:.2f}", ""))
    if s := found.get("secagg"):
        plain, masked = s["plain"], s["secagg"]
        name = "30 sites, SecAgg"
        made.append(
            (name, f"{masked['round s']:.2f} s", f"plain {plain['round s']:.2f} s", f"{s['ratio']:.2f}", "<= 3")
        )
        beside = f"plain {plain['hub CPU s']:.2f} s"
        made.append((f"{name}: hub CPU", f"{masked['hub CPU s']:.2f} s", beside, f"{s['hub CPU ratio']:.2f}", ""))
    if w := found.get("waiting"):
        name = f"{w['sites']:,} sites wait"
        made.append((name, f"{100 * w['share of a core']:.2f} % of a core", "", "", "<= 2 %"))
        made.append(
            (f"{name}: memory of the hub", f"{w['MB']:.0f} MB", f"before {w['MB before']:.0f} MB", "", "<= 200 MB")
        )
        made.append((f"{name}: all woken", f"{w['woken s']:.2f} s", "", "", "<= 0.5 s"))
        made.append((f"{name}: all answered", f"{w['answered s']:.2f} s", "", "", "<= 2 s"))
    return made


def main() -> None:
    ask = argparse.ArgumentParser()
    ask.add_argument("--quick", action="store_true", help="small and short")
    ask.add_argument("--write", action="store_true", help="into docs/benchmarks.md")
    ask.add_argument("--flower", default="", help="a Python that has flwr")
    ask.add_argument("--only", nargs="*", default=list(SECTIONS), choices=list(SECTIONS))
    ask.add_argument("--section", default="", choices=list(SECTIONS), help=argparse.SUPPRESS)
    given = ask.parse_args()
    if given.section:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(SECTIONS[given.section](given.quick, Path(folder))))
        return
    found = {name: measured(name, given.quick) for name in given.only}
    if given.flower:
        found["flower"] = peer(given.flower, given.quick)
    body = rows(found)
    print(table.text(HEAD, body))
    about = {"cores": len(os.sched_getaffinity(0)), "comity": co.__version__, "python": platform.python_version()}
    about |= {name: version(name) for name in ("uvicorn", "uvloop", "starlette", "httpx", "numpy")}
    print(json.dumps({"benchmark": "network", **found, "seed": 0, "date": str(date.today()), **about}))
    if given.write:
        said = ", ".join(f"{k} {v}" for k, v in {"date": date.today(), **about}.items())
        table.write(PAGE, {"network": f"{table.markdown(HEAD, body)}\n\nMeasured: {said}."})


if __name__ == "__main__":
    main()
