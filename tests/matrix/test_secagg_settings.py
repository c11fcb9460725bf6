"""What SecAgg may be set to."""

import numpy as np
import pytest
from matrix_law import NO_WHOLE, Thing, hold, rows

import comity as co

NO_SHARE = (None, "0.7", float("nan"), float("inf"), -0.1, 1.5, [], Thing())
KEY = bytes(range(32))


def secagg(name):
    return lambda v: co.SecAgg(**{name: v})


ROWS = (
    *rows("SecAgg", "threshold", secagg("threshold"), bad=(*NO_SHARE, 0, 0.5, 0.55),
          good=(0.56, 0.7, 1, np.float32(0.75))),
    *rows("SecAgg", "groups", secagg("groups"), bad=(*(x for x in NO_WHOLE if x is not None), 0, 1, 2, -8),
          good=(None, 3, 8, np.int64(100))),
    *rows("SecAgg", "minimum", secagg("minimum"), bad=(*NO_WHOLE, 0, 1, -1), good=(2, 3, np.int8(50))),
    *rows("SecAgg", "degree", secagg("degree"), bad=(*(x for x in NO_WHOLE if x is not None), 0, 1, 3, -2),
          good=(None, 2, 20, np.int64(44))),
    *rows("SecAgg", "corrupt", secagg("corrupt"), bad=(*NO_SHARE, 1), good=(0, 0.1, 0.3, np.float64(0.2))),
    *rows("SecAgg", "threshold for that many who are corrupt", secagg("corrupt"), says="threshold", bad=(0.4, 0.9)),
    *rows("SecAgg", "dropout", secagg("dropout"), bad=(*NO_SHARE, 1), good=(0, 0.1, 0.5)),
    *rows("SecAgg", "malicious", secagg("malicious"), bad=(None, 0, 1, "yes", [], Thing()),
          good=(True, False, np.True_)),
    *rows("SecAgg", "identities", secagg("identities"),
          bad=(1, "ab", [KEY], KEY, {"a": 1}, {"a": None}, {"a": KEY[:-1]}, {"a": "zz"}, {"a": KEY.hex()[1:]}, Thing()),
          good={"none": None, "empty": {}, "bytes": {"a": KEY}, "hex": {"ü b": KEY.hex()}}),
)  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_secagg(row, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hold(row, tmp_path)
