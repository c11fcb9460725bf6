"""One thread, as inside `co.compare`: pieces of it that are called by themselves would start one for each core."""

from collections.abc import Iterator

import pytest

from comity.adapters.threads import one_thread


@pytest.fixture(scope="module", autouse=True)
def thread() -> Iterator[None]:
    with one_thread():
        yield
