"""What a comparison keeps is what it computed, is whole or absent, and says which file is damaged."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest

from comity.comparison.compare import compare
from comity.comparison.predict import predict
from comity.comparison.saved import (
    Outcome,
    files_of,
    holds_outcome,
    read,
    read_model,
    read_results,
    write,
)
from comity.comparison.sheet import metrics, sheet
from comity.core.errors import ConfigError, LedgerError
from comity.data.split import split

PARTIES = ("Ayr", "Bern")


def table(task: str) -> Any:
    """Numbers and words, some missing; hospitals that differ."""
    rng = np.random.default_rng(3)
    n = 240
    at = np.arange(n) % 2
    age, ward = rng.normal(60, 10, n) + 5 * at, rng.choice(["a", "b", "c"], n)
    z = (age - 60) / 10 + (ward == "b") * (2 * at - 1) + rng.normal(size=n)
    target = np.where(z > 0, "yes", "no") if task == "classes" else 100 + 20 * z
    missing = [None if i % 17 == 0 else float(x) for i, x in enumerate(age)]
    words = [None if i % 13 == 0 else str(x) for i, x in enumerate(ward)]
    return polars.DataFrame({"age": missing, "ward": words, "y": target, "hospital": [PARTIES[i] for i in at]})


@pytest.fixture(scope="module", params=["classes", "regression"])
def kept(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, Path]:
    """A table, its comparison's results, and the folder where it lies."""
    runs = tmp_path_factory.mktemp("runs")
    rows = table(request.param)
    answer = compare(rows, "y", party="hospital", rounds=4, repeats=1, seed=5, runs=runs, pooled=False)
    return rows, answer.results, next(runs.iterdir())


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    compare(table("classes"), "y", party="hospital", model="linear", rounds=2, repeats=1, runs=runs, pooled=False)
    return next(runs.iterdir())


@pytest.fixture
def copy(small: Path, tmp_path: Path) -> Path:
    """A folder that a test may damage."""
    shutil.copytree(small, tmp_path / "copy")
    return tmp_path / "copy"


def outcome(**more: Any) -> Outcome:
    return Outcome({"version": 1, "title": "Zürich"}, {"schema": {"target": "y"}}, **more)


JOINT = {"family": "linear", "rate": 0.1, "params": {"0.weight": np.arange(6, dtype="float32").reshape(2, 3)}}


def test_predictions_are_those_of_the_comparison(kept: tuple[Any, Any, Path]) -> None:
    rows, results, folder = kept
    for party in PARTIES:
        own = rows.filter(polars.col("hospital") == party)
        y = own["y"].to_numpy()
        keys = np.unique(y.astype(str), return_inverse=True)[1] if y.dtype == object else y.astype(float)
        test = split(keys, 5, repeat=0, party=party)[2]
        for way in ("joint", "personal", "alone"):
            new = predict(folder, own.drop("y", "hospital"), party=party, way=way)
            assert new["row"].to_list() == list(range(1, own.height + 1))
            classes = [c for c in new.columns if c.startswith("probability_")]
            said = new[test].select(classes).to_numpy() if classes else new[test]["predicted"].to_numpy()
            scored = metrics(sheet(said, keys[test]))
            told = results["parties"][party]["ways"][way]
            assert len(scored) >= 3
            for name, value in scored.items():
                assert value == pytest.approx(told[name]["mean"], rel=1e-6), (party, way, name)
            if classes:
                assert classes == ["probability_no", "probability_yes"]
                best = said.argmax(axis=1)
                assert new[test]["predicted"].to_list() == [["no", "yes"][i] for i in best]


def test_the_way_is_personal_for_a_party_and_joint_for_nobody(small: Path) -> None:
    rows = table("classes")
    by = {
        (party, way): predict(small, rows, party=party, way=way)["probability_yes"].to_list()
        for party in (None, "Ayr")
        for way in (None, "joint", "personal", "alone")
        if party or way in (None, "joint")
    }
    assert by[None, None] == by[None, "joint"] == by["Ayr", "joint"]
    assert by["Ayr", None] == by["Ayr", "personal"]
    assert by["Ayr", "alone"] != by["Ayr", "joint"]
    assert (read_model(small, "Ayr").way, read_model(small).way) == ("personal", "joint")


def test_a_model_file_can_be_handed_out_alone(small: Path, tmp_path: Path) -> None:
    rows = table("classes")
    file = files_of(small)["Bern"]["personal"]
    for name in (file.name, "bern.model"):
        alone = Path(shutil.copy(file, tmp_path / name))
        assert predict(alone, rows).equals(predict(small, rows, party="Bern"))
    with pytest.raises(ConfigError, match=r"The party of .* is 'Bern'. Got 'Ayr'"):
        predict(tmp_path / file.name, rows, party="Ayr")
    (tmp_path / file.name).write_bytes(file.read_bytes() + b"\0")
    with pytest.raises(LedgerError, match=file.stem[:12]):
        predict(tmp_path / file.name, rows)
    (tmp_path / "bern.model").write_bytes(b"nothing")
    with pytest.raises(LedgerError, match=r"bern\.model must hold a model"):
        predict(tmp_path / "bern.model", rows)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    own = {"Köln": {"family": "trees", "preparation": {"a": 1}, "params": {"estimator": b"\0\1" * 900}}}
    given = outcome(joint=JOINT, personal={"Köln": {"w": np.ones(2)}, "Bern": {"w": np.zeros(2)}}, alone=own)
    got = read(write(tmp_path / "new" / "x", given))
    assert got.results == given.results == json.loads((tmp_path / "new" / "x" / "results.json").read_text("utf-8"))
    assert got.preparation == given.preparation
    assert got.joint is not None
    assert got.joint["params"]["0.weight"].tolist() == JOINT["params"]["0.weight"].tolist()  # type: ignore[index]
    assert {p: t["w"].tolist() for p, t in got.personal.items()} == {"Köln": [1, 1], "Bern": [0, 0]}
    assert got.alone == own
    assert read(write(tmp_path / "bare", outcome())).joint is None


def test_a_second_outcome_replaces_the_first_and_leaves_other_things_alone(tmp_path: Path) -> None:
    write(tmp_path, outcome(joint=JOINT, personal={"Ayr": {"w": np.ones(2)}}))
    (tmp_path / "repeat-0").mkdir()
    (tmp_path / "repeat-0" / "run.db").write_bytes(b"run")
    write(tmp_path, outcome(joint=JOINT))
    assert read(tmp_path).personal == {}
    assert len(list((tmp_path / "models").iterdir())) == 2
    assert (tmp_path / "repeat-0" / "run.db").read_bytes() == b"run"


@pytest.mark.parametrize("at", range(6))
def test_a_write_that_is_cut_short_leaves_a_whole_outcome_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    from comity.ledger import folder as files

    first = outcome(joint=JOINT)
    write(tmp_path, first)
    writes = []

    def cut(path: Path, data: bytes, mode: int = 0o666) -> None:
        writes.append(path)
        if len(writes) > at:
            raise OSError(28, "No space left on device")
        files.write(path, data, mode)

    monkeypatch.setattr("comity.comparison.saved.write_file", cut)
    second = Outcome({"version": 1, "title": "other"}, {"b": 2}, joint=JOINT, personal={"Ayr": {"w": np.ones(1)}})
    if at < 5:
        with pytest.raises(LedgerError, match="must have room"):
            write(tmp_path, second)
    else:
        write(tmp_path, second)
    if holds_outcome(tmp_path):
        got = read(tmp_path)
        assert got.results == (second if at >= 5 else first).results
        assert len(got.personal) == (at >= 5)
    else:
        assert at in (3, 4)


def test_every_file_is_verified_and_named(copy: Path) -> None:
    read(copy)
    damaged = [copy / "results.json", copy / "index.json", *sorted((copy / "models").iterdir())]
    assert len(damaged) == 8  # joint, preparation, and two of each party
    for path in damaged:
        whole = path.read_bytes()
        for wrong in (whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:], whole[:-1], b""):
            path.write_bytes(wrong)
            with pytest.raises(LedgerError, match=path.name):
                read(copy)
        path.unlink()
        with pytest.raises(ConfigError if path.name == "index.json" else LedgerError):
            read(copy)
        path.write_bytes(whole)
    read(copy)


def test_a_name_in_the_index_cannot_be_changed(copy: Path) -> None:
    index = json.loads((copy / "index.json").read_text("utf-8"))
    index["parties"]["Ayr"], index["parties"]["Bern"] = index["parties"]["Bern"], index["parties"]["Ayr"]
    (copy / "index.json").write_text(json.dumps(index), "utf-8")
    with pytest.raises(LedgerError, match=r"index\.json does not match its hash"):
        read_results(copy)


def test_only_what_is_asked_for_is_read(copy: Path) -> None:
    files_of(copy)["Ayr"]["alone"].unlink()
    predict(copy, table("classes"), party="Bern")
    with pytest.raises(LedgerError, match="cannot be read"):
        predict(copy, table("classes"), party="Ayr", way="alone")


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"party": "Ayrr"}, r"no party 'Ayrr' in .*Did you mean 'Ayr'\? It has: Ayr, Bern"),
        ({"party": "Ayrr", "way": "joint"}, "no party 'Ayrr'"),
        ({"way": "personal"}, "belongs to a party"),
        ({"way": "jiont"}, r"must be joint, personal or alone. Got 'jiont'. Did you mean 'joint'"),
    ],
)
def test_what_is_not_there_is_refused(small: Path, asked: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        predict(small, table("classes"), **asked)


def test_without_a_joint_model(tmp_path: Path) -> None:
    write(tmp_path, outcome(alone={"Ayr": {"family": "trees", "preparation": {}, "params": {}}}))
    with pytest.raises(ConfigError, match=r"A joint model must have been trained. .* holds: none. Name a party, too"):
        read_model(tmp_path)
    with pytest.raises(ConfigError, match=r"A joint model .* holds for 'Ayr': alone"):
        read_model(tmp_path, "Ayr")
    assert read_model(tmp_path, "Ayr", "alone").family == "trees"
    with pytest.raises(ConfigError, match="tuned from a joint one"):
        outcome(personal={"Ayr": {}})


def test_new_rows_that_do_not_fit(small: Path, tmp_path: Path) -> None:
    rows = table("classes")
    with pytest.raises(ConfigError, match=r"lacks 1: 'age'. Did you mean 'Age'"):
        predict(small, rows.rename({"age": "Age"}))
    with pytest.raises(ConfigError, match=r"have the 2 columns .*lacks 2: 'age', 'ward'"):
        predict(small, polars.DataFrame({"zzz": [1]}))
    with pytest.raises(ConfigError, match=r"'age' must hold numbers.* has 'old' there, and 1 row like it"):
        predict(small, polars.DataFrame({"age": ["61", "old", None], "ward": ["a", "b", "c"]}))
    (tmp_path / "new.csv").write_text("ward;age\na;61,5\nnever seen;\n;47,0\n", "utf-8")
    found = predict(small, tmp_path / "new.csv")
    assert found["row"].to_list() == [1, 2, 3]
    assert found["probability_yes"].is_finite().all()
    assert found[0].equals(predict(small, polars.DataFrame({"age": [61.5], "ward": ["a"]})))


def test_a_folder_without_an_outcome(small: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds no finished comparison. Name the folder"):
        read(tmp_path)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "index.json").write_text("{}")
    with pytest.raises(ConfigError, match="Name one of "):
        read(tmp_path)
    assert read(small.parent).results == read(small).results
    run = next(small.rglob("run.db")).parent
    with pytest.raises(ConfigError, match="holds a run, not a comparison"):
        predict(run, table("classes"))
