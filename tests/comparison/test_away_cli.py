"""What a party types: refused before the hub is dialled, where it cannot be meant."""

import json
from pathlib import Path
from typing import Any

import pytest

from comity.cli import away
from comity.comparison.settings import Settings
from comity.comparison.terms import Terms
from comity.core.errors import ConfigError
from comity.data.dictionary import Dictionary
from comity.privacy.budget import Budget
from comity.service.keys import make_identity, write_private

GIVEN: dict[str, Any] = {
    "model": "linear", "rounds": 4, "repeats": 2, "seed": 3, "unseen": False, "words_from": "open", "fill": "mean",
    "private": None, "groups": ["sex"], "fair": "age", "dictionary": None,
}  # fmt: skip


@pytest.fixture
def joined(tmp_path: Path) -> Path:
    """An identity that joined a hub."""
    make_identity(tmp_path / "ayr.key")
    rows = {"url": "https://hub.example:8443", "hub": "Demo", "name": "Ayr", "key": "00" * 32, "certificate": ""}
    write_private(tmp_path / "ayr.key.hub", json.dumps(rows).encode())
    (tmp_path / "ayr.csv").write_text("x,y\n1,0\n")
    return tmp_path / "ayr.key"


def test_what_fits_is_taken(joined: Path) -> None:
    for url in ("https://hub.example:8443", "https://hub.example:8443/"):
        assert away.checked([joined.with_suffix(".csv")], url, joined, None, (None, None)) == joined


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hub": "https://other.example"}, "the one that this identity joined, https://hub.example:8443"),
        ({"identity": None}, "--identity FILE"),
        ({"tables": 2}, "one table"),
        ({"party": "hospital"}, "one table"),
        ({"outputs": ("ayr.csv", None)}, "ayr.csv"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], said: str, joined: Path) -> None:
    table = joined.with_suffix(".csv")
    outputs = [name and table.with_name(name) for name in change.get("outputs", (None, None))]
    url, who = change.get("hub", "https://hub.example:8443"), change.get("identity", joined)
    with pytest.raises(ConfigError, match=said):
        away.checked([table] * change.get("tables", 1), url, who, change.get("party"), outputs)


def test_an_identity_that_joined_nothing_is_refused(tmp_path: Path) -> None:
    make_identity(tmp_path / "new.key")
    (tmp_path / "t.csv").write_text("x\n")
    with pytest.raises(ConfigError, match="comity join"):
        away.checked([tmp_path / "t.csv"], "https://hub.example", tmp_path / "new.key", None, ())


def test_what_goes_with_a_hub_does_not_go_alone(tmp_path: Path) -> None:
    away.unused({"identity": None, "salt": None})
    with pytest.raises(ConfigError, match="--salt goes with --hub URL"):
        away.unused({"identity": None, "salt": tmp_path})


def test_the_terms_are_those_of_the_options(tmp_path: Path) -> None:
    made = away.terms_of("y", GIVEN)
    same = Settings("y", model="linear", rounds=4, repeats=2, seed=3, unseen=False, groups=("sex", "age"), fair="age")
    assert made.plain == Terms(same).plain
    assert not made.settings.pooled
    assert made.hash == Terms(same).hash
    folder = away.folder_of(tmp_path / "ayr.key", made)
    assert folder == tmp_path / "ayr.key.compare" / made.hash[:16]
    assert away.folder_of(tmp_path / "ayr.key", made, tmp_path / "here") == tmp_path / "here"


def test_whatever_would_change_the_results_is_in_the_terms(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("x,y\n1,a\n2,b\n")
    changes: list[dict[str, Any]] = [
        {"model": "mlp"}, {"rounds": 5}, {"repeats": 3}, {"seed": 4}, {"unseen": True}, {"words_from": "hashed"},
        {"fill": "median"}, {"groups": []}, {"fair": None},
        {"dictionary": Dictionary.draft(tmp_path / "t.csv", "y", None)},
    ]  # fmt: skip
    hashes = {away.terms_of("y", {**GIVEN, **change}).hash for change in changes}
    assert len(hashes | {away.terms_of("y", GIVEN).hash, away.terms_of("z", GIVEN).hash}) == len(changes) + 2


@pytest.mark.slow
def test_so_is_the_budget() -> None:
    pytest.importorskip("dp_accounting")
    budgets = (None, Budget(8.0, 1e-5), Budget(4.0, 1e-5), Budget(8.0, 1e-6))
    assert len({away.terms_of("y", {**GIVEN, "private": budget}).hash for budget in budgets}) == len(budgets)


def test_a_salt_is_shown_by_its_hash_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "salt").write_bytes(b"not to be seen, by anybody")
    assert away._salt(tmp_path / "salt") == b"not to be seen, by anybody"
    said = capsys.readouterr().err
    assert "seen, by" not in said
    away._salt(tmp_path / "salt")
    assert capsys.readouterr().err == said
    (tmp_path / "salt").write_bytes(b"not to be seen, by anyone..")
    away._salt(tmp_path / "salt")
    assert capsys.readouterr().err != said
    assert away._salt(None) == b""
    with pytest.raises(ConfigError, match="file of a salt"):
        away._salt(tmp_path / "none")


def test_limits_are_those_of_the_step() -> None:
    from comity.adapters.numpy import Linear
    from comity.collaboration import Collaboration
    from comity.methods.fedavg import FedAvg

    taken = away._taken(Collaboration(FedAvg(Linear(2, 2))), None, rounds=7, epsilon=2.0, delta=1e-6)
    assert (taken.limits.rounds, taken.limits.epsilon, taken.limits.delta) == (7, 2.0, 1e-6)
    assert away._taken(taken.fed, None, rounds=1).limits.epsilon is None
