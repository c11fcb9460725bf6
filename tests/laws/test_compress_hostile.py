"""Codecs and strangers: whatever does not come from the codec is refused, and takes no memory that it only declares."""

import re
import struct
import tracemalloc
import zlib
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import comity as co
from comity.core.contribution import Contribution
from comity.core.positions import encode_mask
from comity.core.wire import decode, encode

HERE = co.Round("hostile", 0, me="eve")
C = Contribution("delta", {"b": np.ones(3, "float32"), "w": np.linspace(-1, 1, 700, dtype="float32"), "n": 3}, 2.0)
QUANTIZE, HALF, QSGD, TOPK, DEFLATE = co.Quantize(up=4), co.Half(), co.QSGD(4), co.TopK(0.1), co.Deflate()
ALL = (QUANTIZE, co.Quantize(), HALF, co.Half("float16"), QSGD, co.QSGD(300), TOPK, DEFLATE)
GRAMMAR = r"must .*Got .*[.?]$"


def sent(codec: Any) -> Contribution:
    return decode(encode(codec.encode(C, None, {}, HERE, None)[0]))


def read(codec: Any, c: Contribution) -> Contribution:
    return codec.decode(c, codec.init(), HERE, None)[0]


def told(codec: Any, **changes: Any) -> Contribution:
    """What the codec sends, with some entries changed; "w" and "b" are leaves."""
    c = sent(codec)
    value: Any = dict(c.value)
    leaf = {k: changes.pop(k) for k in ("w", "b") if k in changes}
    return replace(c, value={**value, "value": {**value["value"], **leaf}, **changes})


Z = np.zeros(700, "int8")
WRONG = [
    (QUANTIZE, {"w": Z.astype("int16")}, "hold int8 in 'w'. Got an array of int16"),
    (QUANTIZE, {"w": Z.astype("float32")}, "hold int8 in 'w'"),
    (QUANTIZE, {"w": None}, "hold int8 in 'w'. Got None"),
    (QUANTIZE, {"w": Z + 8}, "lie from -7 to 7 in 'w'. Got 8 to 8"),
    (QUANTIZE, {"w": np.full(700, -128, "int8")}, "lie from -7 to 7"),
    (QUANTIZE, {"w": Z[:600]}, "have 10 scales. Got"),
    (QUANTIZE, {"w": np.zeros(800, "int8")}, "have 13 scales or more"),
    (QUANTIZE, {"b": np.ones(3, "float32")}, "hold uint16 in 'b'"),
    (QUANTIZE, {"top": np.zeros(11, "float32")}, "hold uint16 in 'top'"),
    (QUANTIZE, {"top": np.zeros((11, 1), "uint16")}, "have one axis in 'top'"),
    (QUANTIZE, {"top": np.array(3, "uint16")}, "have one axis in 'top'"),
    (QSGD, {"norm": np.array(3, "float32")}, "have one axis in 'norm'"),
    (TOPK, {"kept": np.ones((71, 1), "float32")}, "have one axis in 'kept'"),
    (QUANTIZE, {"marks": "F.q"}, "a mark of .efdEFD for each of its 3 leaves"),
    (QUANTIZE, {"marks": "F."}, "for each of its 3 leaves"),
    (QUANTIZE, {"marks": b"F.f"}, "be a Tree with marks, top, value"),
    (QUANTIZE, {"more": 1}, "be a Tree with marks, top, value"),
    (HALF, {"w": np.zeros(700, "float16")}, "hold uint16 in 'w'"),
    (co.Half("float16"), {"w": np.zeros(700, "uint16")}, "hold float16 in 'w'"),
    (HALF, {"marks": "f"}, "for each of its 3 leaves"),
    (QSGD, {"w": Z + 5}, "at most 4 levels in 'w'"),
    (QSGD, {"w": Z.astype("int16")}, "hold int8 in 'w'"),
    (co.QSGD(300), {"w": Z}, "hold int16 in 'w'"),
    (QSGD, {"norm": np.zeros(2, "float32")}, "have 3 norms or more"),
    (QSGD, {"norm": np.zeros(4, "float32")}, "have 3 norms. Got"),
    (QSGD, {"norm": np.zeros(3)}, "hold float32 in 'norm'"),
    (TOPK, {"w": "800"}, "hold 81 of 803 numbers"),
    (TOPK, {"w": "-7"}, "say the shape of 'w'"),
    (TOPK, {"w": "07"}, "say the shape of 'w'"),
    (TOPK, {"w": "7,"}, "say the shape of 'w'"),
    (TOPK, {"w": "7" * 5000}, "say the shape of 'w'"),
    (TOPK, {"w": "99999999999"}, r"at most 67108864 numbers. Got 100000000002. Use TopK\(most=...\)"),
    (TOPK, {"w": "0,99999999999999999,99999999999999999"}, "hold 1 of 3 numbers"),
    (TOPK, {"w": "1," * 99 + "700"}, "shapes that numpy can hold"),
    (TOPK, {"w": 700}, "say the shape of 'w'"),
    (TOPK, {"kept": np.ones(70, "float32")}, "hold 71 of 703 numbers"),
    (TOPK, {"kept": np.ones(71)}, "hold float32 in 'kept'"),
    (TOPK, {"at": b""}, "1 to 89 bytes"),
    (TOPK, {"at": None}, "1 to 89 bytes"),
    (TOPK, {"at": encode_mask(np.arange(703) < 70)}, "say where 71 numbers stand. Got 70 places"),
    (TOPK, {"at": b"\x00" + b"\xff" * 88}, "mask of 703 positions"),
]


@pytest.mark.parametrize(("codec", "changes", "says"), WRONG, ids=lambda x: str(x)[:30])
def test_what_the_codec_does_not_write_is_refused(codec, changes, says):
    with pytest.raises(co.ContributionError, match=says) as caught:
        read(codec, told(codec, **changes))
    assert re.search(GRAMMAR, str(caught.value)), caught.value


@pytest.mark.parametrize("codec", ALL, ids=repr)
@pytest.mark.parametrize("value", [None, 3.0, "x", b"", b"x" * 40, np.ones(4), {}, {"value": 1.0}, C.value], ids=str)
def test_another_tree_is_refused(codec, value):
    with pytest.raises(co.ContributionError, match=GRAMMAR):
        read(codec, replace(C, value=value))


@pytest.mark.parametrize("codec", ALL[:-1], ids=repr)
def test_weights_that_do_not_stand_where_they_were_put_are_refused(codec):
    c = sent(codec)
    names = dict.fromkeys(c.value, 1.0)
    for weight in ({"w": 1.0}, {**names, "value": 2.0, "marks": 2.0}, {**names, "marks": {}}, {"value": 1.0}):
        with pytest.raises(co.ContributionError, match="have weights for"):
            read(codec, replace(c, weight=weight))
    assert read(codec, replace(c, weight={**names, "value": {"w": 3.0}})).weight == {"w": 3.0}


def blob(plain: bytes, *, width: int = 1, length: int | None = None, tail: bytes = b"") -> Contribution:
    head = struct.pack("<BQ", width, len(plain) if length is None else length)
    return replace(C, value=head + zlib.compress(plain, 9) + tail, weight=1.0)


PLAIN = encode(Contribution("", {"x": 1.0}))
BLOBS = {
    "another length": (blob(PLAIN, length=len(PLAIN) + 1), "hold the .* bytes that it declares"),
    "longer than said": (blob(PLAIN, length=len(PLAIN) - 1), "hold the .* bytes that it declares"),
    "more behind": (blob(PLAIN, tail=b"x"), "hold the .* bytes that it declares"),
    "no width": (blob(PLAIN, width=3), "say how long it is"),
    "no zlib": (replace(C, value=struct.pack("<BQ", 1, 50) + b"x" * 50), "be zlib bytes"),
    "cut": (replace(C, value=blob(PLAIN).value[:-3]), "hold the .* bytes that it declares"),
    "no message": (blob(b"nothing of the kind"), "hold a message"),
    "an envelope": (blob(encode(co.Contribution("delta", 1.0))), "a value and a weight and nothing else"),
    "a sender": (blob(encode(co.Contribution("", 1.0, sender="eve"))), "a value and a weight and nothing else"),
    "too short": (blob(b"cmy"), "say how long it is"),
    "too long": (blob(PLAIN, length=2**40), r"at most 268435456 bytes. Got 1099511627776. Use Deflate\(most=...\)"),
    "beyond what zlib can": (blob(PLAIN, length=10**8), "say how long it is. Got 100000000 bytes"),
}


@pytest.mark.parametrize("name", BLOBS)
def test_what_deflate_does_not_write_is_refused(name):
    c, says = BLOBS[name]
    with pytest.raises(co.ContributionError, match=says) as caught:
        read(DEFLATE, c)
    assert re.search(GRAMMAR, str(caught.value)), caught.value


def peak(work: Any) -> int:
    tracemalloc.start()
    try:
        with pytest.raises(co.ContributionError):
            work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_bomb_takes_no_more_than_is_allowed():
    bomb = blob(bytes(10**7))
    small = co.Deflate(most=10**6)
    assert peak(lambda: read(small, bomb)) < 10**5
    lying = replace(bomb, value=struct.pack("<BQ", 1, 10**6) + bomb.value[9:])
    assert peak(lambda: read(small, lying)) < 4 * 10**6
    few = told(co.TopK(1e-7), w="60000000", kept=np.ones(7, "float32"))
    assert peak(lambda: read(co.TopK(1e-7, most=10**6), few)) < 10**5
    header = blob(encode(Contribution("", {f"{i}": None for i in range(300_000)})))
    assert peak(lambda: read(co.Deflate(most=10**6), header)) < 10**5


def test_a_site_says_what_is_too_large_before_it_sends():
    with pytest.raises(co.ContributionError, match=r"at most 1000 bytes. Got .* Use Deflate\(most=...\)"):
        co.Deflate(most=1000).encode(C, None, {}, HERE, None)
    with pytest.raises(co.ContributionError, match=r"at most 700 numbers. Got 703. Use TopK\(most=...\)"):
        co.TopK(0.1, most=700).encode(C, None, {}, HERE, None)
    with pytest.raises(co.ContributionError, match=r"Got none for 'w'\. Put TopK first"):
        TOPK.encode(replace(C, weight={"b": 1.0}), None, {"held": {"b": C.value["b"], "w": C.value["w"]}}, HERE, None)


@pytest.mark.parametrize("codec", ALL, ids=repr)
@given(data=st.data())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_damaged_bytes_decode_to_something_or_are_refused(codec, data):
    whole = bytearray(encode(sent(codec)))
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with suppress(co.WireError, co.ContributionError):
        c: Any = decode(bytes(whole))
        read(codec, c)


@pytest.mark.parametrize("codec", [co.Quantize(down=4), HALF, DEFLATE], ids=repr)
def test_a_site_refuses_what_the_hub_did_not_pack(codec):
    with pytest.raises(co.ContributionError, match=GRAMMAR):
        codec.unpack(replace(C, value={"value": 1.0}), {}, HERE)


def test_a_liar_is_refused_and_the_round_goes_on():
    x = np.eye(8, dtype="float32")
    model = co.Linear(8, 2, rate=0.1)

    class Big(co.Trainer):
        def contribute(self, shared: Any, local: Any, round: Any, secret: Any) -> Any:
            return Contribution("delta", {"0.bias": np.zeros(2, "f4"), "0.weight": np.zeros((99, 99), "f4")}), local

    sites = {"a": co.Trainer(model, (x, np.arange(8) % 2)), "eve": Big(model, (x, np.arange(8) % 2))}
    for codec in (co.Quantize(down=8), HALF, QSGD, TOPK, co.Deflate(most=5000)):
        run = co.Collaboration(co.FedAvg(model), sites, transforms=[codec], evaluate=False).run(rounds=2)
        assert run.ledger.rounds == 2
        bad = [*run.ledger.refused, *run.ledger.dropped]
        assert {who for _, who, _ in bad} == {"eve"}
