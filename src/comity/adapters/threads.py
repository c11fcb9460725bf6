"""One thread for small models: on busy cores the default of one per core costs many times more."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def one_thread() -> Iterator[None]:
    """Numerical libraries use one thread inside the block, and what they used before after it."""
    import sklearn.ensemble  # noqa: F401  its OpenMP must be loaded to be limited
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1):
        yield
