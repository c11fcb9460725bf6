"""`comity show --link`: how long a run would take."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import comity as co
from comity.ledger.minutes import figure


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three rounds with scores."""
    model = co.Linear(inputs=4, classes=2, rate=0.1)
    data = np.eye(4, dtype="float32"), np.array([0, 0, 1, 1])
    sites = {name: co.Trainer(model, data, test=data) for name in ("ada", "bob")}
    place = tmp_path_factory.mktemp("runs") / "run"
    co.Collaboration(co.FedAvg(model), sites).run(3, folder=place)
    return place


@pytest.mark.parametrize("link", ["up=1e4,down=4e4", " up = 1e4 , down=inf, delay=0.5,loss=0.1", "DSL"])
def test_show_tells_the_minutes_over_a_link(run: Any, folder: Path, link: str) -> None:
    from comity.ledger.peek import peek

    ended = run("show", folder, "--link", link)
    assert (ended.code, ended.err) == (0, "")
    took = co.minutes(peek(folder).entries, co.Link.of(link))
    line = f"minutes    {figure(took.mean)} a round   {figure(took.total)} in all, {figure(took.scores)} of them for"
    assert f"{line} scores" in ended.out.splitlines()
    assert took.scores > 0
    plain = run("show", folder).out.splitlines()
    assert [said for said in ended.out.splitlines() if not said.startswith("minutes")] == plain


@pytest.mark.parametrize(
    ("link", "says"),
    [
        ("", "figures such as up=5e6"),
        ("5g", "one of 2g, 3g, 4g, lte, dsl, cable. Got '5g'."),
        ("up=5e6", "Got no down in 'up=5e6'. Use up=5e6,down=50e6."),
        ("dls", "Got 'dls'. Did you mean 'dsl'?"),
        ("up=5e6,down=0", "'down' of Link"),
        ("up=5e6,up=5e6,down=1", "each once. Got twice"),
        ("up=5e6,down=1,speed=3", "Got 'speed'"),
        ("up=5e6,down=fast", "figures such as up=5e6"),
        ("up=nan,down=1", "'up' of Link"),
    ],
)
def test_a_link_that_is_none_is_refused(run: Any, folder: Path, link: str, says: str) -> None:
    ended = run("show", folder, "--link", link)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("error      ")
    assert says in ended.err


def test_a_link_is_of_a_run(run: Any, tmp_path: Path) -> None:
    co.Ticket.of({"w": np.eye(3)}).save(tmp_path / "x.ticket")
    ended = run("show", tmp_path / "x.ticket", "--link", "dsl")
    assert (ended.code, ended.out) == (2, "")
    assert "--link must be of a run's folder. Got " in ended.err
