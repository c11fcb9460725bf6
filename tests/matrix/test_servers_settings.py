"""Two servers and encryption: every setting, wrong and right."""

from pathlib import Path

import numpy as np
import pytest
from matrix_law import NO_PATH, NO_WHOLE, NONE_NUMBERS, WHOLE, Thing, hold, rows

import comity as co

HELPER = co.Helper()
KEY = HELPER.key
URL = "http://127.0.0.1:8471"
NO_NAMES = (1, True, 1.5, b"a", {"a": KEY}, Thing(), str, ["a", 1], [""], ["a", "a"], "")
NO_KEYS = (
    1,
    "x",
    b"x",
    [],
    ["a"],
    {},
    {"a": 1},
    {"a": b"short"},
    {1: KEY},
    {"a": "zz"},
    {"a": KEY.hex()[:-1]},
    Thing(),
)

ROWS = (
    *rows(
        "TwoServer",
        "helper",
        lambda v: co.TwoServer(v, KEY),
        bad=(None, 1, "", "localhost:1", "ftp://x", b"http://x", [], {}, Thing(), co.Helper, Path("http://x")),
        good=(HELPER, URL, "https://helper.example/at"),
    ),
    *rows(
        "TwoServer",
        "key",
        lambda v: co.TwoServer(URL, v),
        bad=(None, 1, "", "zz", KEY[:-1], KEY.hex()[2:], [], [KEY], {}, Thing(), bytearray(KEY)),
        good=(KEY, KEY.hex(), KEY.hex().upper()),
    ),
    *rows(
        "TwoServer",
        "minimum",
        lambda v: co.TwoServer(HELPER, minimum=v),
        bad=(*NO_WHOLE, 0, 1, -3),
        good=(2, *(v for v in WHOLE if v > 1)),
    ),
    *rows(
        "TwoServer",
        "seconds",
        lambda v: co.TwoServer(HELPER, seconds=v),
        bad=(*NONE_NUMBERS, 0, -1.0, float("inf")),
        good=(1, 0.5, np.float32(2)),
    ),
    *rows(
        "Helper",
        "folder",
        lambda v: co.Helper(v),
        bad=(*(v for v in NO_PATH if v is not None), "/proc/none", __file__),
        good=(None, "a", Path("b") / "c"),
    ),
    *rows(
        "Helper",
        "minimum",
        lambda v: co.Helper(minimum=v),
        bad=(*NO_WHOLE, 0, 1, -3),
        good=(2, *(v for v in WHOLE if v > 1)),
    ),
    *rows(
        "Helper",
        "identities",
        lambda v: co.Helper(identities=v),
        bad=NO_KEYS,
        good=(None, {"a": KEY}, {"a": KEY.hex(), "b": KEY}),
    ),
    *rows("CKKS", "holder", co.CKKS, bad=(None, [], (), *NO_NAMES), good=("a", ["a", "b"], ("a",))),
    *rows(
        "CKKS",
        "minimum",
        lambda v: co.CKKS("a", v),
        bad=(*NO_WHOLE, 0, 1, -3),
        good=(2, *(v for v in WHOLE if v > 1)),
    ),
    *rows(
        "CKKS",
        "identities",
        lambda v: co.CKKS("a", identities=v),
        bad=NO_KEYS,
        good=(None, {"a": KEY}),
    ),
    *rows(
        "CKKS",
        "metrics",
        lambda v: co.CKKS("a", metrics=v),
        bad=(None, "loss", *(v for v in NO_NAMES if v != "")),
        good=((), ("loss",), ["loss", "auc"]),
    ),
)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_setting(row, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hold(row, tmp_path)
