"""Links and minutes."""

import numpy as np
import pytest
from matrix_law import NONE_NUMBERS, Thing, hold, rows

import comity as co

LINK = co.Link(up=5e6, down=50e6)
LEDGER = co.Ledger()
LEDGER.append("round", {"round": 0, "asked": "a\nb", "up": np.ones(2), "down": np.ones(2)}, time=0.0)
RATES = (1, 5e6, np.float32(5e6), np.int64(3), float("inf"))
BYTES = (*NONE_NUMBERS, -1, float("inf"))
NO_SECONDS = (*(v for v in NONE_NUMBERS if v is not None and not isinstance(v, dict)), -1, float("inf"))


def took(**more):
    return co.minutes(LEDGER, **{"links": LINK, **more})


ROWS = (
    *rows("Link", "up", lambda v: co.Link(v, 1), bad=(*NONE_NUMBERS, 0, -1.0), good=RATES),
    *rows("Link", "down", lambda v: co.Link(1, v), bad=(*NONE_NUMBERS, 0, -1.0), good=RATES),
    *rows(
        "Link",
        "delay",
        lambda v: co.Link(1, 1, delay=v),
        bad=(*NONE_NUMBERS, -0.1, float("inf")),
        good=(0, 0.5, np.float32(0.5)),
    ),
    *rows("Link", "loss", lambda v: co.Link(1, 1, loss=v), bad=(*NONE_NUMBERS, -0.1, 1, 2), good=(0, 0.5, 0.999)),
    *rows("Link", "bytes_up", LINK.seconds, bad=BYTES, good=(0, 5, 1e9, np.int64(3))),
    *rows("Link", "bytes_down", lambda v: LINK.seconds(1, v), bad=BYTES, good=(0, 5, 1e9, np.int64(3))),
    *rows(
        "Link",
        "text",
        co.Link.of,
        bad=(None, 1, True, "", "zzz", b"dsl", [], ["dsl"], Thing(), str, "up", "up=", "=5", "up=5", "up=5,down=0"),
        good=("dsl", "lte", "up=5,down=inf", "up=1, down=2, delay=0, loss=0.5"),
        says="text|link|Link",
    ),
    *rows(
        "minutes",
        "ledger",
        lambda v: co.minutes(v, LINK),
        bad=(None, 1, "x", b"x", {}, [1], [None], Thing(), co.Ledger, LINK),
        good=(LEDGER, list(LEDGER), (), iter(LEDGER)),
    ),
    *rows(
        "minutes",
        "links",
        lambda v: took(links=v),
        bad=(None, 1, "dsl", [LINK], {}, {"a": LINK}, {"a": LINK, "b": None}, {"a": LINK, "b": 5e6}, Thing(), co.Link),
        good=(LINK, {"a": LINK, "b": LINK}, {"a": LINK, "b": LINK, "c": None}),
        says="links|link",
    ),
    *rows(
        "minutes",
        "compute",
        lambda v: took(compute=v),
        bad=(
            *(v for v in NONE_NUMBERS if v is not None and not isinstance(v, dict)),
            -1,
            float("inf"),
            {"b": -1},
            {"b": None},
        ),
        good=(None, 0, 1.5, np.float32(2), {}, {"a": 1}, {"z": 3}),
    ),
    *rows(
        "minutes",
        "default",
        lambda v: took(links={"a": LINK}, default=v),
        bad=(None, 1, "dsl", {}, {"b": LINK}, Thing(), co.Link),
        good=(LINK,),
    ),
)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_links(row, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hold(row, tmp_path)
