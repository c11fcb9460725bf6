"""Here the hub computes with two threads, and a process that it starts is told nothing of threads but by the engine."""

import os
from collections.abc import Iterator

import pytest

THREADS = "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"


@pytest.fixture(scope="module", autouse=True)
def two_threads() -> Iterator[None]:
    from threadpoolctl import threadpool_limits

    with pytest.MonkeyPatch.context() as patch, threadpool_limits(2):
        for name in THREADS:
            if os.environ.get(name) == "1":
                patch.delenv(name)
        yield
