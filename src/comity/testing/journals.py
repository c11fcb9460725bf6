"""The laws of journals."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from comity.core.envelope import Key
from comity.core.errors import ConfigError, LedgerError
from comity.core.journal import Journal
from comity.testing.common import broken, said

_KEY: Key = ("check", 0, 0, "contribute", "a")
_THREADS = 8


class _Clock:
    """A clock that is told the time."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def check_journal(make: Callable[[Callable[[], float]], Journal]) -> None:
    """Hold a journal to its laws.

    An offer can be repeated but not changed; a lease keeps others away until it runs out, never its holder;
    tokens rise; a commit with an overtaken token changes nothing, one whose lease ran out counts as long as
    nobody claimed after it; the first accepted bytes stay, to the bit, also empty ones; of threads that
    claim or commit at the same time one succeeds; keys do not touch each other; a clock that jumps back
    breaks none of this; bad input is a ConfigError.

    Args:
        make: gives an empty journal that asks the given clock, in seconds, each time it is called.

    Raises:
        AssertionError: names the journal, the law and what was found.

    Example:
        >>> import tempfile
        >>> from comity.ledger.journal import SqlJournal
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     numbers = iter(range(99))
        ...     check_journal(lambda clock: SqlJournal.open(f"{folder}/{next(numbers)}", clock=clock))
    """
    for law in (_offers, _leases, _fences, _keeps, _keys, _clocks, _races, _refuses):
        clock = _Clock()
        journal = said(make, "make", partial(make, clock))
        try:
            law(journal, clock)
        finally:
            getattr(journal, "close", lambda: None)()


def _holds(journal: Journal, law: str, found: Any, wanted: Any, must: str) -> None:
    if found != wanted or type(found) is not type(wanted):
        broken(journal, law, f"{must} Got {found!r}, not {wanted!r}.")


def _raises(journal: Journal, law: str, call: Callable[[], Any], error: type[Exception]) -> None:
    try:
        found = call()
    except error:
        return
    except Exception as other:  # noqa: BLE001  whatever else it raises breaks the law
        found = repr(other)
    broken(journal, law, f"It must raise {error.__name__}. Got {found!r}.")


def _token(journal: Journal, key: Key = _KEY, who: str = "one", lease: float = 10.0) -> int:
    token = said(journal, "claim", lambda: journal.claim(key, who, lease))
    if isinstance(token, bool) or not isinstance(token, int) or token < 1:
        broken(journal, "claim", f"Free work must give a token >= 1. Got {token!r}.")
    return int(token)


def _offers(journal: Journal, _: _Clock) -> None:
    law = "offer"
    _raises(journal, law, lambda: journal.claim(_KEY, "one", 1.0), LedgerError)
    _raises(journal, law, lambda: journal.commit(_KEY, 1, b""), LedgerError)
    _holds(journal, law, journal.read(_KEY), None, "Work that was never offered has no result.")
    for _repeat in range(2):
        said(journal, law, lambda: journal.offer(_KEY, {"task": 1}))
    _raises(journal, law, lambda: journal.offer(_KEY, {"task": 2}), LedgerError)
    _raises(journal, law, lambda: journal.commit(_KEY, 1, b""), LedgerError)
    token = _token(journal)
    journal.offer(_KEY, {"task": 1})
    _holds(journal, law, journal.commit(_KEY, token, b"x"), "accepted", "Another offer must not undo a claim.")
    journal.offer(_KEY, {"task": 1})
    _holds(journal, law, journal.read(_KEY), b"x", "Another offer must not undo a commit.")


def _leases(journal: Journal, clock: _Clock) -> None:
    law = "lease"
    journal.offer(_KEY, None)
    first = _token(journal)
    clock.now += 9.0
    _holds(journal, law, journal.claim(_KEY, "two", 10.0), None, "A lease must keep others away.")
    again = _token(journal)
    clock.now += 9.0
    _holds(journal, law, journal.claim(_KEY, "two", 10.0), None, "To claim again must make the lease longer.")
    clock.now += 1.0
    other = _token(journal, who="two")
    _holds(journal, law, first < again < other, True, "Tokens must rise.")
    _holds(journal, law, journal.claim(_KEY, "one", 10.0), None, "Who lost a lease is an other.")


def _fences(journal: Journal, clock: _Clock) -> None:
    law = "fence"
    journal.offer(_KEY, None)
    old = _token(journal)
    clock.now += 10.0
    new = _token(journal, who="two")
    _holds(journal, law, journal.commit(_KEY, old, b"old"), "stale", "An overtaken token must not commit.")
    _holds(journal, law, journal.read(_KEY), None, "What is stale must change nothing.")
    clock.now += 1000.0
    _holds(journal, law, journal.commit(_KEY, new, b"new"), "accepted", "Nobody overtook this token.")
    _holds(journal, law, journal.commit(_KEY, old, b"new"), "duplicate", "These very bytes are the result.")
    _raises(journal, law, lambda: journal.commit(_KEY, new + 1, b"new"), LedgerError)


def _keeps(journal: Journal, clock: _Clock) -> None:
    law = "commit"
    for data in (b"", bytes(range(256)), b"\0" * 5000):
        key = ("check", len(data), 0, "contribute", "a")
        journal.offer(key, {"bytes": len(data)})
        token = _token(journal, key)
        _holds(journal, law, journal.commit(key, token, data), "accepted", "The first commit must be accepted.")
        _holds(journal, law, journal.commit(key, token, data), "duplicate", "The same bytes are a duplicate.")
        _holds(journal, law, journal.commit(key, token, data + b"!"), "stale", "Other bytes must be stale.")
        _holds(journal, law, journal.read(key), data, "What was accepted must be read, to the bit.")
        clock.now += 1000.0
        _holds(journal, law, journal.claim(key, "one", 1.0), None, "What is committed cannot be claimed.")


def _keys(journal: Journal, _: _Clock) -> None:
    others: list[Key] = [("check ", 0, 0, "contribute", "a"), ("check", 1, 0, "contribute", "a")]
    others += [("check", 0, 1, "contribute", "a"), ("check", 0, 0, "score", "a"), ("check", 0, 0, "contribute", "A")]
    others += [("check", 0, 0, "contribute", ""), ("check", 0, 0, "contribute", "ä\n'%_")]
    for key in (_KEY, *others):
        journal.offer(key, {"for": key[4]})
    journal.commit(_KEY, _token(journal), b"mine")
    for key in others:
        _holds(journal, "keys", journal.read(key), None, f"{key} is not {_KEY}.")
        _token(journal, key)


def _clocks(journal: Journal, clock: _Clock) -> None:
    journal.offer(_KEY, None)
    old = _token(journal)
    clock.now -= 10_000.0
    new = _token(journal)
    clock.now += 1e9
    last = _token(journal, who="two")
    _holds(journal, "clock", old < new < last, True, "Tokens must rise whatever the clock says.")
    found = [journal.commit(_KEY, token, b"%d" % token) for token in (old, new, last, old)]
    _holds(journal, "clock", found, ["stale", "stale", "accepted", "stale"], "Tokens decide, not the clock.")


def _races(journal: Journal, _: _Clock) -> None:
    journal.offer(_KEY, None)
    with ThreadPoolExecutor(_THREADS) as pool:
        tokens = list(pool.map(lambda i: journal.claim(_KEY, f"w{i}", 10.0), range(_THREADS)))
        won = [token for token in tokens if token is not None]
        _holds(journal, "race", len(won), 1, "Of claims at the same time one must succeed.")
        told = list(pool.map(lambda i: journal.commit(_KEY, won[0], b"%d" % i), range(_THREADS)))
    _holds(journal, "race", sorted(told), ["accepted", *["stale"] * (_THREADS - 1)], "One commit must be accepted.")
    _holds(journal, "race", journal.read(_KEY), b"%d" % told.index("accepted"), "It must be the accepted one.")


def _refuses(journal: Journal, _: _Clock) -> None:
    journal.offer(_KEY, None)
    token = _token(journal)
    for call in _bad(journal, token):
        _raises(journal, "refusal", call, ConfigError)
    _holds(journal, "refusal", journal.commit(_KEY, token, b"x"), "accepted", "What is refused must change nothing.")


def _bad(journal: Any, token: int) -> Iterator[Callable[[], Any]]:
    """Calls with an argument that does not fit."""
    keys: list[Any] = [None, "key", (), list(_KEY), _KEY[:4], (*_KEY, 1), ("check", -1, 0, "contribute", "a")]
    keys += [("check", "0", 0, "contribute", "a"), ("check", 0, 0.0, "contribute", "a"), (1, 0, 0, "x", "a")]
    for key in keys:
        yield partial(journal.offer, key, None)
        yield partial(journal.claim, key, "one", 1.0)
        yield partial(journal.commit, key, token, b"")
        yield partial(journal.read, key)
    yield partial(journal.offer, ("check", 9, 0, "x", ""), object())
    yield from (partial(journal.claim, _KEY, who, 1.0) for who in ("", None, 7))
    leases = (0, -1.0, float("nan"), float("inf"), "1", None, True)
    yield from (partial(journal.claim, _KEY, "one", lease) for lease in leases)
    yield from (partial(journal.commit, _KEY, t, b"") for t in (0, -1, 1.0, "1", None, True))
    yield from (partial(journal.commit, _KEY, token, data) for data in ("text", None, bytearray(b"x"), 7))
