"""A comparison over a wall against one in one process: the same, to the bit; and what goes wrong over a wall."""

import importlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from comity.comparison.agenda import Agenda
from comity.comparison.away import Gone, conduct
from comity.comparison.compare import Comparison, compare
from comity.comparison.saved import read, read_results
from comity.comparison.settings import Settings
from comity.comparison.terms import Terms
from comity.core.contribution import Contribution
from comity.core.errors import ConfigError, ContributionError, LedgerError
from comity.core.round import Round
from comity.data.dictionary import Dictionary
from comity.ledger.keys import SideSecret

sys.path.append(str(Path(__file__).parent))
halls = importlib.import_module("halls")
FAST, NAMES, TRIAL, Hall = halls.FAST, halls.NAMES, halls.TRIAL, halls.Hall
far, sites, tables, took = halls.far, halls.sites, halls.tables, halls.took


def core(results: Mapping[str, Any]) -> dict[str, Any]:
    """Everything but names, times, bytes (headers are signed and recipes name no participants) and disclosures."""
    kept = {k: v for k, v in results.items() if k not in ("title", "seconds", "cost", "bytes", "private")}
    kept["settings"] = {k: v for k, v in kept["settings"].items() if k not in ("date", "recipe", "command", "cores")}
    return kept


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Comparison, Hall, Path]:
    folder = tmp_path_factory.mktemp("away")
    return *far(folder, tables()), folder


def test_it_gives_what_one_process_gives_to_the_bit(once: tuple[Comparison, Hall, Path]) -> None:
    here = compare(tables(), "y", pooled=False, **FAST)
    assert core(once[0].results) == core(here.results)
    assert once[0].verdict == here.verdict
    assert list(once[0].results["ways"]) == ["alone", "ensemble", "joint", "personal"]
    assert once[0].results["unseen"].keys() == set(NAMES), "each is left out once"


@pytest.mark.parametrize(
    "more",
    [
        {"model": "mlp", "repeats": 1, "fill": "median"},
        {"model": "trees", "repeats": 1, "unseen": False},
        {"model": "auto", "repeats": 1, "groups": ("sex",), "fair": "sex", "unseen": False},
    ],
    ids=["mlp", "trees", "fair"],
)
def test_every_family_and_way_is_the_same(more: dict[str, Any], tmp_path: Path) -> None:
    parts = tables(60)
    here = compare(parts, "y", pooled=False, **{**FAST, **more})
    away, _ = far(tmp_path, parts, **more)
    assert core(away.results) == core(here.results)


def test_measured_targets_are_the_same(tmp_path: Path) -> None:
    parts = {p: t.with_columns(y=t["u"] * 2 + t["v"]) for p, t in tables(60).items()}
    here = compare(parts, "y", pooled=False, **{**FAST, "repeats": 1})
    assert core(far(tmp_path, parts, repeats=1)[0].results) == core(here.results)


def test_everybody_gets_the_results_and_keeps_its_own_models(once: tuple[Comparison, Hall, Path]) -> None:
    answer, hall, folder = once
    for name, agenda in hall.agendas.items():
        assert not agenda.stay
        assert agenda.answer().results == json.loads(json.dumps(answer.results))
        kept = read(folder / "sites" / name / "outcome")
        assert (set(kept.alone), set(kept.personal)) == ({name}, {name})
    hub = read(folder / "hub")
    assert hub.joint is not None
    assert (hub.alone, hub.personal) == ({}, {}), "what a party keeps is not at the hub"
    mine = read(folder / "sites" / "Ayr" / "outcome")
    assert mine.joint is not None
    for leaf, x in hub.joint["params"].items():
        np.testing.assert_array_equal(mine.joint["params"][leaf], x)


def test_models_kept_at_home_are_those_of_one_process(once: tuple[Comparison, Hall, Path], tmp_path: Path) -> None:
    compare(tables(), "y", pooled=False, **FAST, runs=tmp_path)
    here = read(next(tmp_path.iterdir()))
    for name in NAMES:
        kept = read(once[2] / "sites" / name / "outcome")
        for leaf, x in here.personal[name].items():
            np.testing.assert_array_equal(kept.personal[name][leaf], x)


def test_rows_are_refused(once: tuple[Comparison, Hall, Path], tmp_path: Path) -> None:
    terms = Terms(Settings("y", **FAST))
    agenda = Agenda("Ayr", tables()["Ayr"], terms, tmp_path, take=took)
    about = {**once[1].offered[0], "step": "rows"}
    with pytest.raises(ConfigError, match="Rows never leave"):
        agenda.find(SimpleNamespace(run="r", about=about))
    assert all(about["step"] != "rows" for about in once[1].offered)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"step": "dance"}, "steps of its own comparison"),
        ({"step": "private"}, "steps of its own comparison"),
        ({"step": "train"}, "preparation of repeat 0 was not sent"),
        ({"step": ["moments"]}, "steps of its own comparison"),
        ({"step": "hashed"}, "steps of its own comparison"),
        ({"step": "counts"}, "steps of its own comparison"),
        ({"step": "groups"}, "steps of its own comparison"),
        ({"repeat": 2}, "one of 2 splits"),
        ({"repeat": "0"}, "one of 2 splits"),
        ({"without": None}, "one of 2 splits"),
        ({"id": ""}, "name of its own"),
        ({"id": "another"}, "another comparison"),
        ({"patience": float("inf")}, "how long"),
        ({"step": "train", "repeat": 1, "trial": {"family": "linear"}}, "must be one of"),
        ({"step": "train", "repeat": 1, "trial": TRIAL, "weights": {"f": 2.0}}, "Weights of groups"),
        ({"comparison": {}}, "differs"),
        ({"step": "alone", "without": "Bern"}, "without a party"),
        ({"step": "moments", "without": "Bern", "repeat": 1}, "without a party"),
    ],
)
def test_what_was_not_agreed_is_refused(
    change: dict[str, Any], said: str, once: tuple[Comparison, Hall, Path], tmp_path: Path
) -> None:
    agenda = once[1].agendas["Ayr"]
    about = {**once[1].offered[0], **change}
    with pytest.raises(ConfigError, match=said):
        agenda.find(SimpleNamespace(run="new", about=about))


def test_other_settings_are_refused_line_by_line(once: tuple[Comparison, Hall, Path], tmp_path: Path) -> None:
    other = Terms(Settings("y", **{**FAST, "rounds": 4, "seed": 1}))
    agenda = Agenda("Ayr", tables()["Ayr"], other, tmp_path, take=took)
    with pytest.raises(ConfigError, match="rounds: 4 → 3; seed: 1 → 0"):
        agenda.find(SimpleNamespace(run="r", about=once[1].offered[0]))


def test_a_run_that_is_no_comparison_is_left_alone(once: tuple[Comparison, Hall, Path]) -> None:
    assert once[1].agendas["Ayr"].find(SimpleNamespace(run="r", about={})) is None


def test_a_question_is_answered_once(once: tuple[Comparison, Hall, Path], tmp_path: Path) -> None:
    """A hub that asks other bins again and again would find single values."""
    hall = once[1]
    about = next(a for a in hall.offered if a["step"] == "prepare")
    taken = hall.agendas["Ayr"].find(SimpleNamespace(run="again", about=about))
    asked = Contribution("query", {"step": "prepare", "repeat": 0, "without": "", "preparation": {}})
    with pytest.raises(ContributionError, match="answered before"):
        taken.participant.contribute(asked, {}, Round("r", 0), SideSecret(b"x" * 32))
    other = Contribution("query", {"step": "rows", "repeat": 0, "without": ""})
    with pytest.raises(ContributionError, match="agreed to the step 'prepare'"):
        taken.participant.contribute(other, {}, Round("r", 0), SideSecret(b"x" * 32))
    train = next(a for a in hall.offered if a["step"] == "train" and a["repeat"] == 1 and not a["without"])
    with pytest.raises(ConfigError, match="answered before"):
        hall.agendas["Ayr"].find(SimpleNamespace(run="another", about=train))


def test_a_hub_cannot_name_ever_more_parties_or_weights(tmp_path: Path, once: tuple[Comparison, Hall, Path]) -> None:
    """Each name would be another set of questions, and other weights another training."""
    hall, terms = once[1], Terms(Settings("y", **FAST))
    agenda = Agenda("Ayr", tables()["Ayr"], terms, tmp_path, take=took)
    about = {**hall.offered[0], "step": "moments"}
    for i in range(20):
        agenda.find(SimpleNamespace(run=f"r{i}", about={**about, "without": f"nobody {i}"}))
    with pytest.raises(ConfigError, match="'without' was answered before"):
        agenda.find(SimpleNamespace(run="more", about={**about, "without": "one more"}))


def test_a_fair_training_is_had_once_whatever_the_weights(tmp_path: Path) -> None:
    _, hall = far(tmp_path, tables(60), repeats=1, fair="sex", groups=("sex",), unseen=False)
    about = next(a for a in hall.offered if a["step"] == "train" and a["weights"])
    with pytest.raises(ConfigError, match="'train' was answered before"):
        hall.agendas["Ayr"].find(SimpleNamespace(run="new", about={**about, "weights": {"f": 9.0, "m": 1.0}}))


def test_with_a_dictionary_no_words_are_told(once: tuple[Comparison, Hall, Path], tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("colour,y\nred,0\n")
    listed = Dictionary.draft(tmp_path / "t.csv", "y", None)
    terms = Terms(Settings("y", **{**FAST, "words_from": "dictionary"}), listed)
    agenda = Agenda("Ayr", tables()["Ayr"], terms, tmp_path, take=took)
    about = {**once[1].offered[0], "comparison": terms.plain}
    agenda.find(SimpleNamespace(run="first", about={**about, "step": "moments"}))
    for step in ("vocabulary", "hashed", "reveal"):
        with pytest.raises(ConfigError, match="refuses"):
            agenda.find(SimpleNamespace(run=step, about={**about, "step": step}))


def test_hashed_words_want_a_salt_that_the_hub_does_not_have(tmp_path: Path) -> None:
    parts, settings = tables(60), {**FAST, "repeats": 1, "words_from": "hashed", "unseen": False}
    terms = Terms(Settings("y", **settings))
    with pytest.raises(ConfigError, match="--salt FILE"):
        sites(tmp_path, parts, terms)
    hall = Hall(sites(tmp_path / "sites", parts, terms, salt=b"known to parties"))
    answer = conduct(hall, terms, folder=tmp_path / "hub")
    here = compare(parts, "y", pooled=False, **settings)
    assert core(answer.results) == core(here.results), "the words are the same, and so is the rest"
    assert "known to parties" not in repr(hall.agendas["Ayr"].desk)


def test_a_party_with_few_rows_leaves_and_gets_the_results(tmp_path: Path) -> None:
    parts = tables(60)
    parts["Cork"] = parts["Cork"].head(9)
    more: dict[str, Any] = {"repeats": 1, "unseen": False}
    answer, hall = far(tmp_path, parts, **more)
    assert core(answer.results) == core(compare(parts, "y", pooled=False, **{**FAST, **more}).results)
    assert answer.results["parties"].keys() == {"Ayr", "Bern"}
    assert hall.agendas["Cork"].answer().verdict == answer.verdict


def test_too_few_parties_is_told_to_all(tmp_path: Path) -> None:
    parts = {"Ayr": tables()["Ayr"], "Bern": tables()["Bern"].head(3)}
    terms = Terms(Settings("y", **FAST))
    hall = Hall(sites(tmp_path / "sites", parts, terms))
    with pytest.raises(ConfigError, match="needs two parties"):
        conduct(hall, terms, folder=tmp_path / "hub")
    for agenda in hall.agendas.values():
        assert not agenda.stay
        with pytest.raises(ConfigError, match=r"ended without results.*needs two parties"):
            agenda.answer()


def test_a_party_that_is_away_is_asked_again_and_then_named(tmp_path: Path) -> None:
    terms, gone = Terms(Settings("y", **{**FAST, "repeats": 1, "unseen": False})), {"n": 1}

    def lost(name: str, about: Mapping[str, Any]) -> bool:
        here = name == "Bern" and about["step"] in ("alone", "train")
        gone["n"] -= here
        return here and gone["n"] >= 0

    hall = Hall(sites(tmp_path / "a", tables(), terms), lost)
    answer = conduct(hall, terms, folder=tmp_path / "hub")
    assert [a["step"] for a in hall.offered].count("alone") == 2
    assert core(answer.results) == core(far(tmp_path / "b", tables(), repeats=1, unseen=False)[0].results)

    hall = Hall(sites(tmp_path / "c", tables(), terms), lambda name, about: name == "Bern" and about["step"] == "alone")
    with pytest.raises(Gone, match=r"'alone' of the comparison.*No answer from Bern"):
        conduct(hall, terms, folder=tmp_path / "other")
    assert all(agenda.stay for agenda in hall.agendas.values()), "they wait for it to go on"
    hall.lost = lambda name, about: False
    assert core(conduct(hall, terms, folder=tmp_path / "other").results) == core(answer.results)
    assert [a["step"] for a in hall.offered].count("describe") == 1, "what was answered is not asked again"


class Killed(Exception):
    """As a kill: nothing after it."""


@pytest.mark.parametrize("at", [5, 20, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 9, 13, 26, 33, 40))])
def test_hub_and_sites_that_are_killed_go_on(at: int, tmp_path: Path, once: tuple[Comparison, Hall, Path]) -> None:
    """All are made anew after every seventh step or so, from what lies in their folders."""
    terms = Terms(Settings("y", **FAST))
    left = {"n": at}

    def tear(name: str, about: Mapping[str, Any]) -> bool:
        if name == "Cork":
            left["n"] -= 1
            if left["n"] == 0:
                raise Killed
        return False

    for _ in range(20):
        hall = Hall(sites(tmp_path / "sites", tables(), terms), tear)
        try:
            answer = conduct(hall, terms, folder=tmp_path / "hub")
            break
        except Killed:
            left["n"] = 13
    assert core(answer.results) == core(once[0].results)


@pytest.mark.slow
def test_a_private_model_spends_at_the_parties(tmp_path: Path) -> None:
    pytest.importorskip("dp_accounting")
    from comity.privacy.budget import Budget

    more = {"repeats": 1, "unseen": False, "private": Budget(8.0, 1e-3)}
    answer, hall = far(tmp_path, tables(60), **more)
    here = compare(tables(60), "y", pooled=False, **{**FAST, **more})
    private, same = answer.results["private"], here.results["private"]
    assert "private" in answer.results["ways"]
    for key in ("epsilon", "delta", "unit", "spent", "guarantee", "how", "together"):
        assert private[key] == same[key], key
    assert private["spent"] <= 8.0
    assert any(a["step"] == "private" for a in hall.offered)


def test_a_folder_is_of_one_comparison(once: tuple[Comparison, Hall, Path]) -> None:
    other = Terms(Settings("y", **{**FAST, "rounds": 9}))
    with pytest.raises(ConfigError, match="other settings"):
        conduct(once[1], other, folder=once[2] / "hub")
    with pytest.raises(ConfigError, match="other settings"):
        Agenda("Ayr", tables()["Ayr"], other, once[2] / "sites" / "Ayr", take=took)
    n = len(once[1].offered)
    again = conduct(once[1], Terms(Settings("y", **FAST)), folder=once[2] / "hub")
    assert again.verdict == once[0].verdict
    assert len(once[1].offered) == n, "it is over: nobody is asked"


def test_damage_is_told(once: tuple[Comparison, Hall, Path], tmp_path: Path) -> None:
    terms = Terms(Settings("y", **FAST))
    for name in ("comparison.json", "asked.jsonl", "desk/own-0-all"):
        where = tmp_path / name.replace("/", "-")
        (where / name).parent.mkdir(parents=True, exist_ok=True)
        (where / name).write_bytes(b"{]\n")
        with pytest.raises(LedgerError, match="damaged"):
            Agenda("Ayr", tables()["Ayr"], terms, where, take=took)


def test_results_that_are_none_are_refused(tmp_path: Path) -> None:
    agenda = Agenda("Ayr", tables()["Ayr"], Terms(Settings("y", **FAST)), tmp_path, take=took)
    for said in ({}, {"results": "[]"}, {"results": "{"}, {"results": '{"version": 2}'}):
        with pytest.raises(ContributionError, match="results"):
            agenda.end(said)
    assert agenda.stay


def test_the_hub_reads_what_it_ended(once: tuple[Comparison, Hall, Path]) -> None:
    assert read_results(once[2] / "hub")["verdict"] == once[0].verdict
