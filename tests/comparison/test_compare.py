"""`co.compare` from end to end on small tables."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import polars
import pytest

import comity as co
from comity.comparison import families
from comity.comparison.compare import compare
from comity.comparison.trials import grows
from comity.data.schema import Column, Schema
from comity.methods.fedavg import Trainer

DOC = (Path(__file__).parents[2] / "docs/reference/compare-json.md").read_text(encoding="utf-8")
WAYS = ["alone", "ensemble", "joint", "personal", "pooled"]
FOR_CLASSES = {"accuracy", "balanced_accuracy", "roc_auc", "pr_auc", "log_loss", "brier"}
FAST: dict[str, Any] = {"model": "linear", "rounds": 5, "repeats": 2}


def slow(*case: Any) -> Any:
    return pytest.param(*case, marks=pytest.mark.slow)


def table(n: int = 240, seed: int = 0, names: tuple[str, ...] = ("Ayr", "Bern", "Cork")) -> polars.DataFrame:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3))
    y = x @ [1.0, -1.0, 0.5] + rng.normal(size=n) > 0
    words = rng.choice(["red", "green", "blue"], n)
    return polars.DataFrame(
        {
            "u": x[:, 0],
            "v": x[:, 1],
            "w": x[:, 2],
            "colour": words,
            "y": y.astype(int),
            "hospital": rng.choice(names, n),
        }
    )


def results(source: Any, target: str = "y", party: str | None = "hospital", **settings: Any) -> dict[str, Any]:
    got = dict(compare(source, target, party=party, **{**FAST, **settings}).results)
    json.dumps(got, allow_nan=False)
    return got


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Equal but for what names the source and the time."""
    strip = [{k: v for k, v in r.items() if k not in ("title", "seconds", "cost")} for r in (a, b)]
    for r in strip:
        r["settings"] = {k: v for k, v in r["settings"].items() if k != "date"}
    return bool(strip[0] == strip[1])


def intervals(node: Any) -> list[dict[str, float]]:
    if isinstance(node, dict):
        own = [node] if {"mean", "low", "high"} <= node.keys() and not isinstance(node["mean"], list) else []
        return own + [i for v in node.values() for i in intervals(v)]
    return []


@pytest.fixture(scope="module")
def base() -> dict[str, Any]:
    return results(table())


def test_the_keys_are_those_documented(base: dict[str, Any]) -> None:
    named = set(re.findall(r"`([a-z_0-9]+)", DOC))
    assert base.keys() <= named
    for key in ("question", "settings", "learning"):
        assert base[key].keys() - {"pooled", "splits"} <= named, key
    assert list(base["ways"]) == list(base["parties_mean"]) == WAYS
    assert set(base["parties"]) == {"Ayr", "Bern", "Cork"}
    for party in base["parties"].values():
        assert party.keys() == {"rows", "share", "ways", "against", "gain", "verdict", "why"}
        assert party["gain"].keys() == {"mean", "low", "high", "way"}
        assert party["gain"]["way"] in ("joint", "personal", "ensemble")
        assert all(scores.keys() == FOR_CLASSES for scores in party["ways"].values())
    assert base["gain"].keys() == {"mean", "low", "high", "way"}
    assert base["bytes"]["up"] == sum(b["up"] for b in base["bytes"]["parties"].values()) > 0
    assert base["bytes"]["down"] == sum(b["down"] for b in base["bytes"]["parties"].values()) > 0
    assert {r["what"] for r in base["revealed"]} >= {"Model changes", "Scores", "Records"}
    assert base["learning"]["rounds"] == [1, 2, 3, 4, 5]
    assert all(len(base["learning"][k]) == 5 for k in ("mean", "low", "high"))


def test_means_lie_in_their_intervals(base: dict[str, Any]) -> None:
    found = intervals(base)
    assert len(found) == 5 * 6 * 5 + 4 + 3 * 4 + 6 + 1  # scores, gains, against alone, the card, the way to pooled
    assert all(i["low"] <= i["mean"] <= i["high"] for i in found)
    for way in WAYS:
        for metric in FOR_CLASSES - {"log_loss"}:
            assert 0 <= base["ways"][way][metric]["low"] <= base["ways"][way][metric]["high"] <= 1


def test_the_question_is_told(base: dict[str, Any]) -> None:
    question = base["question"]
    assert (question["rows"], question["inputs"], question["parties"]) == (240, 4, 3)
    assert (question["task"], question["classes"], question["noun"]) == ("classes", ["0", "1"], "hospital")
    assert sum(p["rows"] for p in base["parties"].values()) == 240


def test_parties_stand_by_gain(base: dict[str, Any]) -> None:
    gains = [p["gain"]["mean"] for p in base["parties"].values()]
    assert gains == sorted(gains, reverse=True)


def test_the_gain_is_the_chosen_way_minus_alone() -> None:
    got = results(table(), repeats=1)
    for party in got["parties"].values():
        way, scores = party["gain"]["way"], party["ways"]
        assert party["gain"]["mean"] == pytest.approx(
            scores[way]["roc_auc"]["mean"] - scores["alone"]["roc_auc"]["mean"]
        )
        assert (party["verdict"], party["gain"]["low"]) == ("undefined", None)
        assert party["why"] == "one repeat has no interval"


def test_frames_and_paths_and_mappings_give_the_same(base: dict[str, Any], tmp_path: Path) -> None:
    frame = table()
    frame.write_csv(tmp_path / "t.csv")
    frame.write_parquet(tmp_path / "t.parquet")
    sources = [tmp_path / "t.csv", str(tmp_path / "t.parquet"), pandas.DataFrame(frame.to_dict(as_series=False))]
    for source in sources:
        assert same(results(source), base)
    own = {str(k[0]): part for k, part in frame.partition_by("hospital", as_dict=True, include_key=False).items()}
    mapped = results(own, party=None, called="hospital")
    assert mapped["question"]["party"] is None
    mapped["question"]["party"] = "hospital"
    assert same(mapped, base)


def test_the_same_seed_gives_the_same_and_another_does_not(base: dict[str, Any]) -> None:
    assert same(results(table()), base)
    other = results(table(), seed=1)
    assert other["ways"] != base["ways"]


@pytest.mark.parametrize(("model", "repeats"), [("auto", 1), slow("auto", 2), slow("mlp", 2)])
def test_all_families_are_reproducible(model: str, repeats: int) -> None:
    once, again = (results(table(), model=model, rounds=2, repeats=repeats) for _ in range(2))
    assert same(once, again)


def test_many_classes() -> None:
    z = polars.col("u") + polars.col("v")
    thirds = polars.when(z < -0.6).then(polars.lit("a")).when(z < 0.6).then(polars.lit("b")).otherwise(polars.lit("c"))
    frame = table(360).with_columns(thirds.alias("y"))
    got = results(frame)
    assert (got["metric"], got["question"]["classes"]) == ("accuracy", ["a", "b", "c"])
    assert 1 / 3 <= got["question"]["no_skill"] < 0.4
    assert got["ways"]["joint"]["accuracy"]["mean"] > 0.6


def test_a_number() -> None:
    frame = table().with_columns((3 * polars.col("u") - polars.col("v") + 100).alias("y"))
    got = results(frame, rounds=20)
    assert (got["metric"], got["question"]["task"], got["learning"]) == ("r2", "regression", {})
    assert set(got["ways"]["joint"]) == {"r2", "rmse", "mae"}
    assert got["ways"]["pooled"]["r2"]["mean"] > 0.9
    assert got["ways"]["pooled"]["rmse"]["mean"] < 1.0  # in the target's own unit


@pytest.mark.parametrize(("task", "unseen"), [("classes", True), ("number", False), slow("number", True)])
def test_untidy_tables_are_ordinary(task: str, unseen: bool) -> None:
    """Missing values, words, a column missing at one party, constant columns, one class at one party: all families."""
    rng = np.random.default_rng(0)
    frame = table(300)
    n, at = frame.height, polars.col("hospital")
    holes = [polars.when(polars.Series(rng.random(n) < 0.2)).then(None).otherwise(polars.col(c)).alias(c) for c in "vw"]
    frame = frame.with_columns(
        *holes,
        polars.when(at == "Ayr").then(None).otherwise(polars.col("u")).alias("u"),
        polars.when(at == "Bern").then(1.0).otherwise(polars.col("u")).alias("flat at one"),
        polars.lit(7).alias("flat"),
        polars.when(polars.Series(rng.random(n) < 0.3)).then(None).otherwise(polars.col("colour")).alias("colour"),
    )
    y = polars.col("y") if task == "classes" else polars.col("w").fill_null(0.0) * 2 + polars.col("y") * 0.01
    frame = frame.with_columns(polars.when(at == "Cork").then(1).otherwise(y).alias("y"))
    got = results(frame, model="auto", unseen=unseen)
    assert list(got["ways"]) == WAYS
    cork = got["parties"]["Cork"]
    assert cork["verdict"] == "undefined"
    assert cork["ways"]["alone"][got["metric"]] is None
    assert cork["why"] in ("one class only in the test rows", "the target does not vary in the test rows")
    assert got["left_out"] == [{"name": "flat", "why": "constant (7)"}]
    assert "For Cork it cannot be told." in got["verdict"]


def test_rows_without_a_party_and_small_parties_are_left_out() -> None:
    rng = np.random.default_rng(1)
    frame = table().with_columns(
        polars.when(polars.Series(np.arange(240) < 12)).then(None).otherwise(polars.col("hospital")).alias("hospital")
    )
    few = table(10, seed=3).with_columns(polars.Series("hospital", ["Dijon"] * 9 + ["Essen"]))
    unknown = table(30, seed=4, names=("Fano",)).with_columns(
        polars.when(polars.Series(np.arange(30) < 8)).then(polars.col("y")).otherwise(None).alias("y")
    )
    got = results(polars.concat([frame, few, unknown])[rng.permutation(280)])
    assert set(got["parties"]) == {"Ayr", "Bern", "Cork"}
    assert got["question"]["set_aside"] == 12
    assert got["question"]["rows"] == 228
    assert got["left_out"] == [
        {"name": "Dijon", "why": "9 rows, fewer than 10"},
        {"name": "Essen", "why": "1 row, fewer than 10"},
        {"name": "Fano", "why": "8 rows, fewer than 10"},
    ]


@pytest.mark.parametrize("names", [("hub", "a.b/c"), ("1", "2"), ('Zürich | "x" <script>x', "données; 'y'")])
def test_any_name_will_do(names: tuple[str, str], tmp_path: Path) -> None:
    answer = compare(
        table(names=names).rename({"u": "u [cm] = 5 %", "y": "out come?"}), "out come?", party="hospital", **FAST
    )
    assert set(answer.results["parties"]) == set(names)
    html = answer.report(tmp_path / "deep" / "r.html").read_text(encoding="utf-8")
    assert "<script>x" not in html
    assert json.loads(answer.json(tmp_path / "r.json").read_text(encoding="utf-8")) == answer.results


def test_numbers_and_truth_values_name_parties_too() -> None:
    frame = table()
    floats = frame.with_columns(polars.Series("hospital", [1.0, 2.0, None] * 80))
    assert set(results(floats)["parties"]) == {"1", "2"}
    truth = frame.with_columns(polars.Series("hospital", [True, False] * 120), (polars.col("y") == 1).alias("y"))
    got = results(truth)
    assert set(got["parties"]) == {"true", "false"}
    assert got["question"]["classes"] == ["false", "true"]


def test_runs_are_kept_and_taken_up(tmp_path: Path, base: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    trained = []
    contribute = Trainer.contribute

    def counted(self: Any, shared: Any, *rest: Any) -> Any:
        trained.append(shared.kind)
        return contribute(self, shared, *rest)

    monkeypatch.setattr(Trainer, "contribute", counted)
    once = results(table(), runs=tmp_path)
    work = trained.count("model")
    again = results(table(), runs=tmp_path)
    assert work == 2 * 4 * 5 * 3 + 3 * 2 * 5  # repeats, trials, rounds, parties; and without each party in turn
    assert trained.count("model") == work
    assert same(once, base)
    assert same(again, base)
    assert len(list(tmp_path.iterdir())) == 1
    changed = table().with_columns(
        polars.when(polars.int_range(polars.len()) == 0).then(9.0).otherwise(polars.col("u")).alias("u")
    )
    assert not same(results(changed, runs=tmp_path), base)
    assert len(list(tmp_path.iterdir())) == 2
    results(table(), runs=tmp_path, rounds=4)
    assert len(list(tmp_path.iterdir())) == 3


def test_without_the_way_that_moves_rows(base: dict[str, Any]) -> None:
    got = results(table(), pooled=False)
    assert list(got["ways"]) == WAYS[:-1]
    assert {w: got["ways"][w] for w in WAYS[:-1]} == {w: base["ways"][w] for w in WAYS[:-1]}
    assert {r["what"]: r["hub"] for r in got["revealed"]}["Records"] == "nothing"
    assert {r["what"]: r["hub"] for r in base["revealed"]}["Records"] == "each"


@pytest.mark.parametrize(
    ("task", "unseen"),
    [("two", True), ("three", False), ("number", False), slow("three", True), slow("number", True)],
)
def test_trees_are_grown_jointly(task: str, unseen: bool) -> None:
    frame = table(600)
    score = polars.col("u") * polars.col("v") + 0.1 * polars.col("w")
    rule = {"two": (score > 0).cast(int), "three": (score > -0.3).cast(int) + (score > 0.3).cast(int), "number": score}
    frame = frame.with_columns(rule[task].alias("y"))
    got = results(frame, model="trees", repeats=1, unseen=unseen)
    assert list(got["ways"]) == WAYS
    assert got["settings"]["chosen"]["joint"].startswith("trees, summed histograms, rate 0.")
    metric = got["metric"]
    alone, joint, pooled = (got["ways"][way][metric]["mean"] for way in ("alone", "joint", "pooled"))
    assert joint > alone + 0.01
    assert joint > pooled - 0.05
    assert {r["what"] for r in got["revealed"]} >= {"Histograms of gradients", "Counts of values in bins"}
    assert "Model changes" not in {r["what"] for r in got["revealed"]}
    assert set(got["unseen"]) == ({"Ayr", "Bern", "Cork"} if unseen else set())
    if task != "number":
        rounds, curve = got["learning"]["rounds"], got["learning"]["mean"]
        assert rounds == sorted(set(rounds))
        assert curve == sorted(curve, reverse=True)


def test_joint_trees_are_not_tried_beside_others_where_they_are_too_many() -> None:
    few = Schema(tuple(Column(f"x{i}", "number") for i in range(120)), "y", "classification", ("0", "1"))
    many = Schema((*few.columns, Column("one more", "number")), "y", "classification", ("0", "1"))
    ten = Schema(few.columns[:31], "y", "classification", tuple("0123456789"))
    assert [grows(("linear", "trees"), schema) for schema in (few, many, ten)] == [True, False, False]
    assert all(grows(("trees",), schema) for schema in (few, many, ten))
    assert not grows(("linear", "mlp"), few)


def test_ridge_is_among_the_joint_ways_of_linear_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exact solution of a linear rule beats a few rounds of steps."""
    frame = table().with_columns((2 * polars.col("u") - polars.col("v")).alias("y"))
    got = results(frame, rounds=2, repeats=1)
    assert got["settings"]["chosen"]["joint"] == "linear, ridge"
    assert got["ways"]["joint"]["r2"]["mean"] > 0.9999
    assert "Second moments of inputs and target" in {leaf["what"] for leaf in got["protection"]["leaves"]}
    assert got["bytes"]["up"] < 3 * 20_000


@pytest.mark.parametrize("number", [False, True])
def test_training_that_diverges_is_left_out(number: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = table()
    if number:
        frame = frame.with_columns((polars.col("u") * 2).alias("y"))
    monkeypatch.setattr(families, "RATES", {True: (1e38,), False: (1e38,)})
    got = results(frame, model="mlp")
    assert list(got["ways"]) == ["alone", "ensemble", "pooled"]
    assert results(frame)["settings"]["chosen"]["joint"] == "linear, ridge"  # there is nothing to diverge
    monkeypatch.setattr(families, "RATES", {True: (1e38, 0.03), False: (1e38, 0.01)})
    got = results(frame, model="mlp")
    assert "rate 0.0" in got["settings"]["chosen"]["joint"]


def test_huge_numbers_do_not_break_anything() -> None:
    frame = table().with_columns(polars.col("u") * 1e300, polars.col("v") * 1e-300)
    assert list(results(frame, model="auto")["ways"]) == WAYS


def test_a_rare_class() -> None:
    frame = table().with_columns((polars.int_range(polars.len()) < 5).cast(int).alias("y"))
    got = results(frame, model="auto")
    assert list(got["ways"]) == WAYS
    assert not re.search("Worth|pay", got["verdict"])


def test_two_parties_of_ten_rows() -> None:
    frame = table(20).with_columns(polars.Series("hospital", ["a", "b"] * 10))
    got = results(frame, model="auto")
    assert all(p["verdict"] in ("within noise", "undefined") for p in got["parties"].values())


@pytest.mark.parametrize("seed", [0, 1, slow(2), slow(3), slow(4)])
def test_no_gain_where_all_have_plenty_of_the_same(seed: int) -> None:
    """Each interval has a stated false-alarm rate of 5 %; over seeds 0 to 19 none of 60 raised one."""
    got = results(table(3000, seed), repeats=3, pooled=False, seed=seed)
    assert got["verdict"].startswith("No gain from joining that these data can show.")
    assert {p["verdict"] for p in got["parties"].values()} == {"within noise"}


@pytest.mark.parametrize("unseen", [False, slow(True)])
def test_a_gain_where_each_has_little_of_the_same(unseen: bool) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1600, 20))
    y = (x.sum(axis=1) + 2 * rng.normal(size=1600) > 0).astype(int)
    frame = polars.DataFrame(
        {f"x{i}": x[:, i] for i in range(20)} | {"y": y, "hospital": [f"h{i % 20}" for i in range(1600)]}
    )
    got = results(frame, repeats=3, rounds=15, unseen=unseen)
    assert got["verdict"].startswith("Worth joining for")
    assert got["gain"]["low"] > 0


def test_harm_is_told() -> None:
    """A party with the opposite rule: it must not be talked into the ensemble or the joint model."""
    frame = table(900)
    flipped = frame.with_columns(
        polars.when(polars.col("hospital") == "Ayr").then(1 - polars.col("y")).otherwise(polars.col("y")).alias("y")
    )
    got = results(flipped, repeats=3, rounds=10)
    joint = got["parties"]["Ayr"]["ways"]["joint"]["roc_auc"]["mean"]
    assert joint < got["parties"]["Ayr"]["ways"]["alone"]["roc_auc"]["mean"] - 0.2
    assert got["parties"]["Ayr"]["verdict"] != "gains"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"target": "Y1"}, "no column 'Y1'.*Did you mean 'y'"),
        ({"party": "hospitl"}, "no column 'hospitl'.*Did you mean 'hospital'"),
        ({"target": "hospital"}, "must be two columns"),
        ({"target": None}, "'target' must be the name of a column. Got None"),
        ({"party": None}, "must be named"),
        ({"rounds": 0}, "'rounds' must be an int >= 1. Got 0"),
        ({"repeats": 0}, "'repeats' must be an int >= 1. Got 0"),
        ({"repeats": 2.5}, "'repeats'.*2.5"),
        ({"seed": "x"}, "'seed' must be an int"),
        ({"model": "forest"}, "'model' must be auto"),
    ],
)
def test_wrong_settings(change: dict[str, Any], says: str) -> None:
    with pytest.raises(co.ConfigError, match=f"(?i){says}"):
        results(table(), **change)


def test_wrong_tables() -> None:
    frame = table()
    with pytest.raises(co.ConfigError, match=r"two parties with at least 10 rows.*Got only \(240 rows\)"):
        results(frame.with_columns(polars.lit("only").alias("hospital")))
    with pytest.raises(co.ConfigError, match=r"at least two classes.*'y' is '1'"):
        results(frame.with_columns(polars.lit(1).alias("y")))
    with pytest.raises(co.ConfigError, match=r"\(1 row\).* and 30 more"):
        results(frame[:40].with_columns(polars.Series("hospital", [f"p{i}" for i in range(40)])))
    with pytest.raises(co.ConfigError, match="mapping already says"):
        results({"a": frame, "b": frame}, party="hospital")
    with pytest.raises(co.ConfigError, match="At least one column"):
        results(frame.select("y", "hospital"))
    with pytest.raises(co.ComityError, match="must lie within"):
        results(frame.with_columns((polars.col("u") * 1e300).alias("y")))
    with pytest.raises(co.ConfigError, match="must have rows"):
        results(frame[:0])


def test_progress_is_told_in_order() -> None:
    told: list[tuple[str, float]] = []
    results(table(), tell=lambda what, done: told.append((what, done)))
    shares = [done for _, done in told]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0.0, 1.0)
    assert any(re.fullmatch(r"repeat 2/2   joint 4/5   round 5/5", what) for what, _ in told)


def test_what_cannot_be_written(tmp_path: Path) -> None:
    answer = compare(table(), "y", party="hospital", **FAST)
    for write in (answer.report, answer.json):
        with pytest.raises(co.ConfigError, match="file that can be written"):
            write(tmp_path)
    assert str(answer) == answer.verdict == answer.results["verdict"]
