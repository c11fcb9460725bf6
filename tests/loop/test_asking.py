"""A question is measured once for all who are told the same, and still to the byte."""

import itertools

import pytest

from comity.core.contribution import Contribution
from comity.core.envelope import Envelope, Receipt
from comity.core.round import Round
from comity.core.wire import encode
from comity.loop.asking import _Measure

NUMBERS = (0, 1, 127, 128, 255, 256, 65_535, 65_536, 2**32 - 1, 2**32)
BODIES = [Contribution("question", {"a": 1}), Contribution("question", {"a": "longer"})]


@pytest.mark.parametrize("names", [("a", "b"), ("a", "bb"), ("é", "e")])
def test_the_size_is_that_of_the_bytes(names):
    measure = _Measure()
    receipts = [None, *(Receipt(n, a, ok) for n, a, ok in itertools.product(NUMBERS, (0, 200), (True, False)))]
    for body, receipt, name in itertools.product(BODIES, receipts, names):
        out = Envelope(Round("r", 0, me=name), "contribute", "hub", "recipe", body, receipt)
        assert measure(out) == len(encode(out))


def test_what_is_alike_is_measured_once(monkeypatch):
    from comity.loop import asking

    calls = []
    plain = asking.size
    monkeypatch.setattr(asking, "size", lambda m: calls.append(m) or plain(m))
    measure = _Measure()
    for i in range(100):
        measure(Envelope(Round("r", 0, me=f"p{i:02}"), "contribute", "hub", "recipe", BODIES[0], Receipt(i, 0, True)))
    assert len(calls) == 1
