"""Statistics with a channel: every setting, wrong and right."""

import polars as pl
import pytest
from matrix_law import NO_PATH, NO_WHOLE, Thing, hold, rows

import comity as co
from comity.data.dictionary import Dictionary, Entry

TABLE = pl.DataFrame({"age": [*range(20)], "sex": ["f", "m"] * 10})
THREE = dict.fromkeys("abc", TABLE)
KNOWN = Dictionary((Entry("age", "number", range=(0, 100)), Entry("sex", "category", codes={"f": "", "m": ""})))
SECURE = co.SecAgg()

ROWS = (
    *rows(
        "stats",
        "channel",
        lambda v: co.stats(THREE, channel=v),
        bad=(0, 1, True, "SecAgg", b"x", [], {}, Thing(), co.SecAgg, co.SecAgg(groups=3), co.SecAgg(minimum=4)),
        good=(None, co.Plain(), SECURE, co.TwoServer(co.Helper())),
        says="channel|at least 4",
    ),
    *rows("stats", "channel", lambda v: co.stats(v, channel=SECURE), bad=({"a": TABLE}, {"a": TABLE, "b": TABLE}),
          says="at least 3"),
    *rows(
        "stats",
        "dictionary",
        lambda v: co.stats(THREE, channel=SECURE, dictionary=v),
        bad=(*NO_PATH, "nowhere.toml", KNOWN.to_toml(), Dictionary(())),
        good=(None, KNOWN),
        says="dictionary|column",
    ),
    *rows("stats", "dictionary", lambda v: co.stats(THREE, dictionary=v), bad=(KNOWN, "schema.toml", 1), good=(None,)),
    *rows("stats", "least", lambda v: co.stats(THREE, channel=SECURE, least=v), bad=NO_WHOLE[:4], good=(0, 1, 10**9)),
    *rows("stats", "quantiles", lambda v: co.stats(THREE, channel=SECURE, quantiles=v), bad=([0.0],), good=((), [1.0])),
    *rows("stats", "seed", lambda v: co.stats(THREE, channel=SECURE, seed=v), bad=(*NO_WHOLE, 2**64), good=(-1, 3)),
)  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_secure_stats(row, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hold(row, tmp_path)


def test_ckks_adds_about_right_and_is_refused():
    pytest.importorskip("tenseal")
    (row,) = rows("stats", "channel", lambda v: co.stats(THREE, channel=v), bad=(co.CKKS("a"),))
    assert row.refused
    with pytest.raises(co.ConfigError, match="adds whole numbers exactly"):
        row.call()
