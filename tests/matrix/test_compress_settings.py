"""The settings of what makes messages short."""

import numpy as np
import pytest
from matrix_law import NO_FLAG, NO_WHOLE, NO_WORD, NONE_NUMBERS, WHOLE, hold, rows

import comity as co

INF = float("inf")
BITS = (2, 4, 8, np.int64(8), np.uint8(3))

ROWS = (
    *rows("Quantize", "up", lambda v: co.Quantize(up=v), bad=(*NO_WHOLE, -1, 1, 9, 16), good=(0, *BITS)),
    *rows("Quantize", "down", lambda v: co.Quantize(down=v), bad=(*NO_WHOLE, -1, 1, 9, 16), good=(0, *BITS)),
    *rows("Quantize", "block", lambda v: co.Quantize(block=v), bad=(*NO_WHOLE, 0, -1), good=(*WHOLE, 10**9)),
    *rows("Quantize", "least", lambda v: co.Quantize(least=v), bad=(*NO_WHOLE, 0, -1), good=(*WHOLE, 10**30)),
    *rows("Half", "kind", co.Half, bad=NO_WORD, good=("bfloat16", "float16")),
    *rows("QSGD", "levels", co.QSGD, bad=(*NO_WHOLE, 0, -1, 32768), good=(*WHOLE, 127, 128, 32767)),
    *rows("QSGD", "bucket", lambda v: co.QSGD(bucket=v), bad=(*NO_WHOLE, 0, -1), good=(*WHOLE, 10**9)),
    *rows("Deflate", "level", co.Deflate, bad=(*NO_WHOLE, -1, 10), good=(0, 9, np.int64(6))),
    *rows("Deflate", "most", lambda v: co.Deflate(most=v), bad=(*NO_WHOLE, 0, -1), good=(*WHOLE, 10**30)),
    *rows(
        "TopK",
        "keep",
        co.TopK,
        bad=(*NONE_NUMBERS, 0, -0.1, 1.1, 2, 100, INF, -INF),
        good=(1, 0.01, 1.0, np.float32(0.5), np.int64(1)),
    ),
    *rows("FixedPoint", "bound", co.FixedPoint, bad=(*NONE_NUMBERS, 0, -1, INF), good=(1, 0.5, np.float32(0.5), 10**9)),
    *rows(
        "FixedPoint",
        "heaviest",
        lambda v: co.FixedPoint(1, heaviest=v),
        bad=(*NONE_NUMBERS, 0, -1, INF),
        good=(1, 0.5, np.float32(0.5), 10**9),
    ),
    *rows(
        "FixedPoint",
        "metrics",
        lambda v: co.FixedPoint(1, metrics=v),
        bad=(None, 1, "loss", b"x", {}, [1], [""], ["a", "a"], [None]),
        good=((), ("loss",), ["loss", "accuracy"]),
    ),
    *rows("TopK", "feedback", lambda v: co.TopK(0.1, feedback=v), bad=NO_FLAG, good=(True, False, np.True_)),
    *rows("TopK", "most", lambda v: co.TopK(0.1, most=v), bad=(*NO_WHOLE, 0, -1), good=(*WHOLE, 10**30)),
)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_settings(row, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hold(row, tmp_path)


@pytest.mark.parametrize(
    ("plain", "scalar"),
    [
        (
            co.Quantize(4, 8, block=32, least=9),
            co.Quantize(np.int64(4), np.int8(8), block=np.uint8(32), least=np.int64(9)),
        ),
        (co.QSGD(3, 9), co.QSGD(np.int64(3), np.int64(9))),
        (co.Deflate(3, 99), co.Deflate(np.int64(3), np.int64(99))),
        (co.TopK(0.5, feedback=False, most=9), co.TopK(np.float32(0.5), feedback=np.False_, most=np.int64(9))),
    ],
    ids=lambda x: type(x).__name__,
)
def test_a_numpy_scalar_is_as_good_as_a_plain_number(plain, scalar):
    assert repr(plain) == repr(scalar)
