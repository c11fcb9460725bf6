"""Late answers, and the engine with a simulated clock."""

from pathlib import Path

import numpy as np
import pytest
from matrix_law import NO_WHOLE, NONE_NUMBERS, WHOLE, Thing, hold, rows

import comity as co

MODEL = co.Linear(inputs=2, classes=2)
SITE = co.Trainer(MODEL, (np.eye(2, dtype="float32"), np.array([0, 1])))
FED = co.Collaboration(co.FedAvg(MODEL), {"a": SITE}, evaluate=False)
LINK = co.Link(up=1e6, down=1e6)
NO_SECONDS = (*(v for v in NONE_NUMBERS if not isinstance(v, dict) and not callable(v)), {"a": "x"}, -1.0, float("inf"))


def later(name):
    return lambda v: FED.replace(**{"late": "next", name: v})


def timed(v):
    return FED.run(1, engine=co.Simulated(compute=v))


ROWS = (
    *rows(
        "Collaboration",
        "late",
        lambda v: FED.replace(late=v),
        bad=(None, 1, True, "", "late", b"next", [], ["next"], Thing(), "Next", len),
        good=("drop", "next"),
    ),
    *rows(
        "Collaboration",
        "staleness",
        later("staleness"),
        bad=(*NONE_NUMBERS, -0.1, float("inf")),
        good=(0, 0.5, 3, np.float32(1)),
    ),
    *rows("Collaboration", "oldest", later("oldest"), bad=(*NO_WHOLE, 0, -1), good=(1, *WHOLE)),
    *rows(
        "Simulated",
        "engine",
        co.Simulated,
        bad=(None, 1, True, "local", [], Thing(), co.Local, FED, len, Path("x"), co.Simulated()),
        good=(co.Local(), co.Local(workers=2)),
    ),
    *rows(
        "Simulated",
        "links",
        lambda v: co.Simulated(links=v),
        bad=(None, 1, True, "dsl", [LINK], Thing(), co.Link, {"a": "dsl"}, {"a": None}, len),
        good=({}, LINK, {"a": LINK}),
    ),
    *rows(
        "Simulated",
        "compute",
        timed,
        bad={
            **{f"setting {i}": v for i, v in enumerate(NO_SECONDS)},
            "gives None": lambda r: None,
            "gives text": lambda r: "long",
            "gives less than nothing": lambda r: -1.0,
            "gives NaN": lambda r: float("nan"),
            "gives no end": lambda r: float("inf"),
        },
        good=(0, 2.5, np.float32(1), {}, {"a": 3}, lambda r: 0.5, lambda r: np.float32(1)),
        says="compute",
    ),
)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_late_settings(row, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hold(row, tmp_path)


def test_a_remote_engine_has_links_of_its_own():
    far = type("Far", (), {"remote": True, "choice": {}, "connect": len})()
    with pytest.raises(co.ConfigError, match=r"without a clock\. Got Far"):
        co.Simulated(far)
