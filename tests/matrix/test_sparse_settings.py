"""Sparse: its settings, and values and weights of every kind that it is given."""

import numpy as np
import pytest
from matrix_law import NO_FLAG, NO_WHOLE, Thing, hold, rows

import comity as co

HERE = co.Round("matrix", 0)
MASK = np.arange(4000) % 40 == 0
GIVEN = co.Contribution("delta", {"w": 1.0 * MASK}, {"w": 2.0 * MASK})
REPLY, DRAWER = co.Sparse().encode(GIVEN, None, {}, HERE, None)
PACKED = co.Sparse().pack(co.Contribution("model", GIVEN.value), DRAWER, "a", HERE)


def there_and_back(value, weight=1.0):
    reply, _ = co.Sparse().encode(co.Contribution("delta", value, weight), None, {}, HERE, None)
    back, _ = co.Sparse().decode(reply, co.Sparse().init(), HERE, None)
    assert str(back.value) == str(value)
    assert str(back.weight) == str(weight)


def read(value):
    return co.Sparse().decode(co.Contribution("delta", value, REPLY.weight), {}, HERE, None)


def unpacked(value):
    return co.Sparse().unpack(co.Contribution("model", value), DRAWER, HERE)


VALUES = {
    "None": None,
    "number": 1.0,
    "text": "a",
    "bytes": b"a",
    "nothing": {},
    "0-d": np.float32(3),
    "empty": np.zeros((0, 4)),
    "sparse": 1.0 * MASK,
    "NaN": np.where(MASK, np.nan, 0),
    "halves": {"a": MASK.astype("float16"), "b": {"c": MASK.astype("int8"), "d": [1]}},
}
STRANGE = {"None": None, "number": 1.0, "text": "a", "array": np.ones(3), "nothing": {}, "thing": Thing()}
ROWS = (
    *rows("Sparse", "down", lambda v: co.Sparse(down=v), bad=NO_FLAG, good=(True, False, np.bool_(True))),
    *rows("Sparse", "most", lambda v: co.Sparse(most=v), bad=(*NO_WHOLE, 0, -1), good=(1, 2**40, np.int64(10))),
    *rows("Sparse", "value", there_and_back, good=VALUES),
    *rows(
        "Sparse",
        "weight",
        lambda w: there_and_back({"w": 1.0 * MASK}, w),
        good={
            "one": 2.0,
            "below": {"w": 3},
            "same": GIVEN.weight,
            "row": {"w": np.ones(1)},
            "other": {"w": np.eye(40)},
        },
    ),
    *rows("Sparse", "reply", read, bad=STRANGE, good={"its own": REPLY.value}, says="must be"),
    *rows("Sparse", "told", unpacked, bad=STRANGE, good={"its own": PACKED.value}, says="must be"),
)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_sparse(row, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hold(row, tmp_path)
