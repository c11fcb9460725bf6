"""A study is a file of one's own; what is wrong in it is said with its file and line."""

import sys
from pathlib import Path

import numpy as np
import pytest

import comity as co
from comity.service.settings import HubSettings
from comity.service.studies import Study

GOOD = """import numpy as np
import comity as co

rounds = 3
model = co.Linear(inputs=4, classes=2, rate=0.5)
fed = co.Collaboration(co.FedAvg(model))


def participant(data):
    table = np.load(data)
    return co.Trainer(model, (table["X"], table["y"]))
"""


@pytest.fixture(autouse=True)
def _path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", sys.path[:])


def written(folder: Path, text: str, name: str = "study.py") -> Path:
    (folder / name).write_text(text)
    return folder / name


def refused(folder: Path, text: str) -> str:
    with pytest.raises(co.ConfigError) as found:
        Study.load(written(folder, text))
    assert str(folder / "study.py") in str(found.value)
    return str(found.value)


def test_a_study_is_read_and_takes_part(tmp_path: Path) -> None:
    study = Study.load(written(tmp_path, GOOD))
    assert (study.name, study.title, study.rounds) == ("study", "study", 3)
    np.savez(tmp_path / "data.npz", X=np.eye(4, dtype="float32"), y=np.array([0, 0, 1, 1]))
    sites = {name: study.participant(tmp_path / "data.npz") for name in ("ada", "bob")}
    run = study.fed.replace(participants=sites).run(rounds=study.rounds)
    assert run.ledger.rounds == 3


def test_the_recipe_is_the_same_whatever_the_file_is_called_and_wherever_it_lies(tmp_path: Path) -> None:
    own = "from dataclasses import dataclass\n@dataclass(frozen=True)\nclass Own(co.FedAvg):\n    more: int = 1\n"
    text = GOOD.replace("rounds = 3", f"rounds = 3\n{own}").replace("co.FedAvg(model)", "Own(model)")
    (tmp_path / "b").mkdir()
    first, second = Study.load(written(tmp_path, text)), Study.load(written(tmp_path / "b", text, "other.py"))
    assert first.hash == second.hash == co.recipe(first.fed)["hash"]
    assert "local only" not in str(co.recipe(first.fed))
    assert Study.load(written(tmp_path, text.replace("int = 1", "int = 2"))).hash != first.hash


def test_a_module_beside_the_study_is_found(tmp_path: Path) -> None:
    (tmp_path / "beside_this_study.py").write_text("INPUTS = 4\n")
    text = "from beside_this_study import INPUTS\n" + GOOD.replace("inputs=4", "inputs=INPUTS")
    assert Study.load(written(tmp_path, text)).rounds == 3
    del sys.modules["beside_this_study"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a = 1\nfed = (\n", ", line 2 must run. It fails: SyntaxError"),
        ("a = 1\n\nb = a / 0\n", ", line 3 must run. It fails: ZeroDivisionError: division by zero"),
        ("import comity as co\nco.Momentum(rate=-1.0)\n", ", line 2 must run. It fails: The 'rate' of Momentum"),
        ("raise SystemExit\n", ", line 1 must run. It fails: SystemExit: it ends"),
        (GOOD.replace("fed =", "feds ="), "must define fed, a co.Collaboration without participants. It does not. Did"),
        (GOOD.replace("rounds = 3", ""), "must define rounds, a whole number, 20 for one. It does not. Add it."),
        (GOOD.replace("rounds = 3", "rounds = 0"), "The 'rounds' of a study must be an int >= 1. Got 0"),
        (GOOD.replace("rounds = 3", "rounds = 3\ntitle = ''"), "The 'title' of a study must be text"),
        (GOOD + "\nfed = model\n", "'fed' must be a co.Collaboration. Got a Linear"),
        (
            GOOD + "\nfed = fed.replace(participants={'a': co.Trainer(model, (np.eye(4), [0, 0, 1, 1]))})\n",
            "Got 1. Make",
        ),
        (GOOD.replace("(data):", "():"), "'participant' must be a function of one argument"),
        (GOOD + "\nparticipant = 3\n", "'participant' must be a function of one argument"),
    ],
)
def test_what_is_wrong_is_said_with_file_and_line(tmp_path: Path, text: str, says: str) -> None:
    assert says in refused(tmp_path, text)


def test_what_fails_at_the_party_is_said_with_file_and_line(tmp_path: Path) -> None:
    study = Study.load(written(tmp_path, GOOD))
    with pytest.raises(co.ConfigError, match=r"study\.py, line 10 must run. It fails: FileNotFoundError"):
        study.participant(tmp_path / "absent.npz")
    nothing = Study.load(written(tmp_path, GOOD.replace("return ", "")))
    np.savez(tmp_path / "data.npz", X=np.eye(4, dtype="float32"), y=np.array([0, 0, 1, 1]))
    with pytest.raises(co.ConfigError, match=r"study\.py: The 'participant' of a study must have contribute"):
        nothing.participant(tmp_path / "data.npz")
    none = Study.load(written(tmp_path, GOOD.split("def participant")[0]))
    with pytest.raises(co.ConfigError, match="must define participant"):
        none.participant("data")


def test_a_file_that_is_not_there_or_cannot_name_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(co.ConfigError, match="Got: No such file or directory"):
        Study.load(tmp_path / "absent.py")
    with pytest.raises(co.ConfigError, match="must be called by letters"):
        Study.load(written(tmp_path, GOOD, "my study.py"))


TOML = 'name="a"\nurl="https://a"\nhost="x"\nport=1\n'


def settings(folder: Path, more: str) -> HubSettings:
    (folder / "hub.toml").write_text(TOML + more)
    return HubSettings.read(folder)


def test_what_a_hub_carries_stands_in_its_settings(tmp_path: Path) -> None:
    more = 'log="json"\ntrusted_proxies=["10.0.0.0/8"]\nblobs="s3://key:hidden@x"\n'
    found = settings(tmp_path, more + '[[study]]\nfile="a.py"\nrounds=5\n[[study]]\nfile="/b.py"\nminimum=2\n')
    assert [(s.file, s.rounds, s.minimum) for s in found.studies] == [
        (tmp_path / "a.py", 5, None),
        (Path("/b.py"), None, 2),
    ]
    assert (found.log, found.trusted_proxies, found.mutual_tls) == ("json", ("10.0.0.0/8",), None)
    assert "hidden" not in repr(found)
    plain = settings(tmp_path, "")
    assert (plain.studies, plain.compare, plain.log, plain.blobs) == ((), {}, "text", "")
    assert settings(tmp_path, '[compare]\ntarget="readmitted"\n').compare == {"target": "readmitted"}


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ('log="xml"', "'log'"),
        ('trusted_proxies=["nobody"]', "'trusted_proxies'"),
        ('mutual_tls="ca.pem"', "'mutual_tls'"),
        ("[[study]]\nrounds=3", "must have a file"),
        ('[[study]]\nfile="a.py"\nrounds=0', "must be >= 1"),
        ('[[study]]\nfile="a.py"\nround=3', "Did you mean 'rounds'"),
        ('[[study]]\nfile="a.py"\nparties=[]', "must be names"),
        ('study="a.py"', "'study' in"),
        ('databse=""', "Did you mean 'database'"),
    ],
)
def test_settings_that_do_not_fit_are_named(tmp_path: Path, more: str, says: str) -> None:
    with pytest.raises(co.ConfigError, match=says) as found:
        settings(tmp_path, more)
    assert "hub.toml" in str(found.value)
