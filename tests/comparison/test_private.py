"""The price of privacy: what is asked for, what it costs, what the guarantee stands on, what stays the same."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import comity as co
from comity.comparison.desk import Desk
from comity.comparison.hub import Hub
from comity.comparison.private import PrivateSeat, asked
from comity.core.errors import ConfigError

FAST: dict[str, Any] = {"model": "linear", "rounds": 4, "repeats": 2, "pooled": False, "unseen": False}
LOOSE = co.Budget(200.0, 1e-5, "rdp")


def tables(n: int = 240, *, number: bool = False) -> dict[str, Any]:
    rng = np.random.default_rng(3)
    out = {}
    for party, rows in {"a": n, "b": n // 2}.items():
        x = rng.normal(size=(rows, 3))
        z = x[:, 0] - x[:, 1] + 0.2 * rng.normal(size=rows)
        out[party] = pl.DataFrame({"u": x[:, 0], "v": x[:, 1], "w": x[:, 2], "y": z if number else (z > 0).astype(int)})
    return out


def compared(private: Any, **more: Any) -> Any:
    return co.compare(tables(), "y", **{**FAST, **more}, private=private).results


@pytest.fixture(scope="module")
def done(tmp_path_factory: Any) -> tuple[Any, Path]:
    runs = tmp_path_factory.mktemp("runs")
    results = compared(co.Budget(8.0, 1e-5, "rdp"), runs=runs)
    return results, next(runs.iterdir())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "must name epsilon, delta and unit. Got ''"),
        ("8", "must name epsilon, delta and unit. Got '8'"),
        ("eps=8,delta=1e-5,unit=example", "Got 'eps'.*Use epsilon=8,delta=1e-5,unit=example"),
        ("epsilom=8,delta=1e-5,unit=example", "Did you mean 'epsilon'"),
        ("epsilon=8,unit=example", "must say its delta"),
        ("epsilon=8,delta=,unit=example", "must say its delta"),
        ("epsilon=8,delta=1e-5", "must say its unit.*unit=example"),
        ("epsilon=8,epsilon=9,delta=1e-5,unit=example", "once"),
        ("epsilon=much,delta=1e-5,unit=example", "epsilon of --private must be a number. Got 'much'"),
        ("epsilon=-1,delta=1e-5,unit=example", "epsilon of --private must be a number > 0. Got -1"),
        ("epsilon=nan,delta=1e-5,unit=example", "epsilon of --private must be a number > 0. Got nan"),
        ("epsilon=inf,delta=1e-5,unit=example", "'epsilon'.*finite.*Leave private out"),
        ("epsilon=8,delta=0,unit=example", "'delta'.*Use delta=1e-5"),
        ("epsilon=8,delta=1,unit=example", "'delta'"),
        ("epsilon=8,delta=1e-5,unit=party", "Got 'party'.*nothing that is learnt is left. Use unit=example"),
        ("epsilon=8,delta=1e-5,unit=participant", "Got 'participant'.*Use unit=example"),
    ],
)
def test_what_the_command_refuses(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        asked(text)


@pytest.mark.parametrize("text", ["epsilon=8,delta=1e-5,unit=example", " unit = example , delta=0.00001,epsilon=8.0 "])
def test_what_the_command_takes(text: str) -> None:
    assert asked(text) == co.Budget(8.0, 1e-5)


def test_trees_are_refused_before_a_table_is_read() -> None:
    with pytest.raises(ConfigError, match=r"gradients. Got model='trees'. Use model='linear' or 'mlp'"):
        co.compare("nowhere.csv", "y", model="trees", private=LOOSE)


def test_much_epsilon_costs_little_and_little_costs_much() -> None:
    """Between alone and joint, more or less; at an epsilon of a hundredth next to nothing is learnt."""
    loose, tight = (compared(co.Budget(e, 1e-5, "rdp"), rounds=10, repeats=3) for e in (200.0, 0.01))
    alone, joint, private = (loose["parties_mean"][w]["roc_auc"]["mean"] for w in ("alone", "joint", "private"))
    assert min(alone, joint) - 0.05 < private < joint + 0.02
    assert tight["parties_mean"]["private"]["roc_auc"]["mean"] < private - 0.1
    assert tight["private"]["price"]["mean"] < loose["private"]["price"]["mean"] - 0.1


@pytest.mark.parametrize(("model", "number"), [("mlp", False), ("linear", True)])
def test_networks_and_measured_targets(model: str, number: bool) -> None:
    got = co.compare(tables(number=number), "y", **{**FAST, "model": model, "rounds": 20, "repeats": 1}, private=LOOSE)
    private = got.results["parties_mean"]["private"]["r2" if number else "roc_auc"]["mean"]
    assert private > (0.6 if number else 0.9)
    assert got.results["private"]["how"].startswith(f"{model}, DP-SGD")


def test_the_price_is_private_minus_joint_with_parties_counted_equally(done: Any) -> None:
    results, _ = done
    means = results["parties_mean"]
    by_hand = means["private"]["roc_auc"]["mean"] - means["joint"]["roc_auc"]["mean"]
    price = results["private"]["price"]
    assert math.isclose(price["mean"], by_hand, abs_tol=1e-12)
    assert price["low"] < price["mean"] < price["high"]


def test_the_guarantee_is_that_of_the_ledgers(done: Any) -> None:
    """Read anew from the folders: each party's own spends, the worst split, and all splits together."""
    results, folder = done
    given = results["private"]
    spends = [co.audit(folder / f"repeat-{k}" / "private").spends for k in range(2)]
    each = [found for one in spends for found in co.spent(one, 1e-5, accountant="rdp")]
    assert {found.who for found in each} == {"a", "b"}
    assert given["spent"] == max(found.epsilon for found in each) <= 8.0
    assert given["spent"] > 7.5
    worst = max(each, key=float)
    assert given["guarantee"] == str(worst).replace(f" of {worst.who}", "")
    assert "one example added or removed (RDP; Poisson sampling at rate 0.25 credited)" in given["guarantee"]
    together = co.spent([facts for one in spends for facts in one], 1e-5, accountant="rdp")
    assert given["together"]["epsilon"] == max(found.epsilon for found in together) > given["spent"]
    for one in spends:
        assert sum(facts["count"] for facts in one if "a" in facts["who"].split("\n")) == 4 * 4


def test_a_seat_trains_on_its_training_rows_and_says_what_it_spends() -> None:
    hub = Hub({p: Desk(p, t, "y", 0) for p, t in tables(60).items()}, 0)
    preparation, _ = hub.prepare(hub.describe("y")[0], 0)
    model = co.Linear(len(preparation.names) + 9, 2, rate=0.25)
    seat = PrivateSeat(hub.desks["a"], model, 1.5, 0)
    round = co.Round("", seed=0, me="a")
    shared = co.Contribution("model", model.init(round))
    answer, _ = seat.contribute(shared, {}, round, co.testing.fixed_secret())
    assert answer.weight == len(hub.desks["a"].split(0).train.y) == 36
    assert dict(answer.metrics) == {}
    assert seat.spend(round) == co.Spend("gaussian", 1.5, 0.25, 4, "example", "poisson")


def test_only_the_noise_differs_between_two_comparisons() -> None:
    one, two = (compared(co.Budget(8.0, 1e-5, "rdp")) for _ in range(2))
    noised = [results["parties_mean"].pop("private") for results in (one, two)]
    assert noised[0] != noised[1]
    for results in (one, two):
        del results["ways"]["private"], results["private"]["price"], results["seconds"], results["cost"]
        for party in results["parties"].values():
            del party["ways"]["private"], party["against"]["private"]
    assert one == two


def test_a_comparison_that_is_run_again_takes_the_training_that_lies_there(done: Any) -> None:
    results, folder = done
    again = compared(co.Budget(8.0, 1e-5, "rdp"), runs=folder.parent)
    for key in ("ways", "parties_mean", "private"):
        assert again[key] == results[key]


def test_another_epsilon_has_a_folder_of_its_own(done: Any) -> None:
    _, folder = done
    compared(co.Budget(9.0, 1e-5, "rdp"), runs=folder.parent, repeats=1)
    assert len(list(folder.parent.iterdir())) == 2


def test_the_other_ways_are_as_they_were_and_nothing_is_said_where_nothing_was_asked(done: Any) -> None:
    results, plain = done[0], compared(None)
    assert (plain["private"], "private" in plain["ways"]) == (None, False)
    assert not any("oised" in row["what"] for row in plain["revealed"])
    ways = list(plain["ways"])
    assert list(results["ways"]) == [*ways, "private"]
    assert all(results["ways"][w] == plain["ways"][w] for w in ways)
    assert results["gain"] == plain["gain"]


def test_what_epsilon_does_not_cover_is_said(done: Any) -> None:
    results, _ = done
    for word in ("row counts", "means, variances and words", "scores", "other ways", "split"):
        assert word in results["private"]["beyond"]
    assert any(row["what"] == "Noised model changes" for row in results["revealed"])
    assert any("covered by ε" in leaf["form"] for leaf in results["protection"]["leaves"])
