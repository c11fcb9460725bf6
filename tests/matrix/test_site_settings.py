"""What a site agrees to."""

from typing import Any

import pytest
from matrix_law import NONE_NUMBERS, Thing, hold, rows

import comity as co

NUMBERS = tuple(x for x in NONE_NUMBERS if x is not None)
ROWS = (
    *rows("Limits", "epsilon", lambda v: co.Limits(epsilon=v), bad=(*NUMBERS, 0, -1, float("inf")), good=(None, 0.5)),
    *rows("Limits", "delta", lambda v: co.Limits(delta=v), bad=(*NONE_NUMBERS, -1, 1), good=(0, 1e-5)),
    *rows("Limits", "bytes", lambda v: co.Limits(bytes=v), bad=("x", -1, 1.5, Thing()), good=(None, 0, 2**40)),
    *rows("Limits", "hours", lambda v: co.Limits(hours=v), bad=(*NUMBERS, 0, -1, float("inf")), good=(None, 0.5)),
)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_site(row: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    hold(row, tmp_path)
