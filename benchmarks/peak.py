"""The physical limit: what the processor can do at best, and how much of that each workload of speed.py needs.

One thread, CPU time. The floating-point operations are those of forward and backward passes, as torch counts them; the
bare loop is one that does nothing but the steps. Prints one table, and one JSON line for machines.
"""

import json
import platform
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from race.work import WORK, Work
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode


def best(work: Callable[[], Any], times: int) -> float:
    """CPU seconds of one call, the least of five series."""
    work()
    found = []
    for _ in range(5):
        began = time.process_time()
        for _ in range(times):
            work()
        found.append((time.process_time() - began) / times)
    return min(found)


@cache
def gemm(rows: int, inner: int, columns: int) -> float:
    """GFLOP/s of a matrix product in float32."""
    a, b = torch.randn(rows, inner), torch.randn(inner, columns)
    flops = 2.0 * rows * inner * columns
    return flops / best(lambda: a @ b, max(3, int(2e9 / flops / 10))) / 1e9


def machine() -> dict[str, float]:
    """Rates of this machine on one thread."""
    small, big, other = torch.zeros(4), torch.zeros(25_000_000), torch.ones(25_000_000)
    return {
        "gemm_1024_gflops": gemm(1024, 1024, 1024),
        "gemm_16x64x64_gflops": gemm(16, 64, 64),
        "one_operation_us": best(lambda: small.add_(1), 5000) * 1e6,
        "add_25M_gb_per_s": 3 * big.nbytes / best(lambda: big.add_(other, alpha=0.1), 3) / 1e9,
    }


def examples(work: Work) -> float:
    """Rows that a round trains on, in the mean."""
    if work.total is not None:
        return work.asked * float(np.mean([len(work.clients(i)[1]) for i in range(50)]))  # type: ignore[call-arg, arg-type, index]
    return work.asked * float(np.mean([n for n in (len(y) for _, y in work.clients()) if n]))  # type: ignore[call-arg]


def gflop(work: Work) -> float:
    """Billions of floating-point operations of a round."""
    rows = work.clients(0)[0] if work.total is not None else next(x for x, y in work.clients() if len(y))  # type: ignore[call-arg]
    x = torch.from_numpy(rows[:1]).repeat(work.batch, *[1] * (rows.ndim - 1))
    with FlopCounterMode(display=False) as counter:
        cross_entropy(work.module()(x), torch.zeros(work.batch, dtype=torch.int64)).backward()
    return counter.get_total_flops() / work.batch * examples(work) / 1e9


def limit(work: Work) -> float:
    """Milliseconds of a round at the peak."""
    return gflop(work) / gemm(1024, 1024, 1024) * 1e3


def bare(work: Work) -> float:
    """CPU milliseconds of a round of the bare loop."""
    loop, rng = work.bare(), np.random.default_rng(0)
    held = getattr(work.rows, "__self__", None)
    names = list(held) if held else [str(i) for i in range(work.total or 0)]
    cohorts = iter([rng.choice(names, work.asked, replace=False).tolist() for _ in range(100)])
    times = max(1, int(60 / work.asked)) if work.network is WORK["digits"].network else 1
    return best(lambda: loop.round(0, next(cohorts)), times) * 1e3


def main() -> None:
    torch.set_num_threads(1)
    known = machine()
    for name, value in known.items():
        print(f"{name:<24}{value:>12.2f}")
    print(f"{'a round of':<18}{'GFLOP':>10}{'at peak ms':>12}{'bare ms':>10}{'distance':>10}")
    found = {}
    for name, work in WORK.items():
        found[name] = {"gflop": gflop(work), "peak_ms": limit(work), "bare_ms": bare(work)}
        ratio = found[name]["bare_ms"] / found[name]["peak_ms"]
        print(
            f"{name:<18}{found[name]['gflop']:>10.4f}{limit(work):>12.3f}{found[name]['bare_ms']:>10.2f}{ratio:>10.1f}"
        )
    about = {"python": platform.python_version(), "torch": torch.__version__, "date": time.strftime("%Y-%m-%d")}
    print(json.dumps({**known, "work": found, **about}))


if __name__ == "__main__":
    main()
