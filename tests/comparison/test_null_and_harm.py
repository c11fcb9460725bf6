"""What is said where there is nothing to be gained, and where one party teaches the opposite.

Null: four parties with 1,000 rows each of the same distribution. Harm: four parties with 200 rows each, the labels
of one flipped. The quick form looks at one or two seeds; the slow one counts over twenty.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars
import pytest

from comity.comparison.compare import compare

NAMES = ("Ayr", "Bern", "Cork", "Dijon")
SEEDS = 20


def slow(seed: int) -> Any:
    return pytest.param(seed, marks=pytest.mark.slow)


def frame(seed: int, rows: int, flipped: Sequence[str] = ()) -> polars.DataFrame:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(4 * rows, 5))
    y = (x @ [1.0, -1.0, 0.5, 0.0, 0.0] + rng.normal(size=4 * rows) > 0).astype(int)
    party = np.array(NAMES * rows)
    y = np.where(np.isin(party, flipped), 1 - y, y)
    return polars.DataFrame({f"x{i}": x[:, i] for i in range(5)} | {"y": y, "hospital": party})


def null(seed: int, model: str = "linear", rounds: int = 10) -> Mapping[str, Any]:
    settings: Any = {"model": model, "rounds": rounds, "repeats": 5, "pooled": False}
    return compare(frame(seed, 1000), "y", party="hospital", seed=seed, **settings).results


def harm(seed: int, model: str = "linear", rounds: int = 30) -> tuple[str, Mapping[str, Any]]:
    odd = NAMES[seed % 4]
    settings: Any = {"model": model, "rounds": rounds, "repeats": 5, "pooled": False}
    return odd, compare(frame(seed, 200, [odd]), "y", party="hospital", seed=seed, **settings).results


def alarmed(results: Mapping[str, Any]) -> bool:
    """Does the verdict claim anything, or name anybody?"""
    told = results["verdict"]
    words = {p["verdict"] for p in results["parties"].values()}
    claims = re.search(r"Worth joining|does not pay|would cost|Without", told) or any(n in told for n in NAMES)
    return bool(claims) or not told.startswith("No gain") or words != {"within noise"}


def costly(results: Mapping[str, Any]) -> set[str]:
    return set(re.findall(r"would cost (\w+)", results["verdict"]))


def harmful(results: Mapping[str, Any]) -> set[str]:
    return set(re.findall(r"Without (\w+) the joint model fits all others better", results["verdict"]))


@pytest.mark.parametrize("seed", [0, slow(1), slow(2)])
def test_no_gain_is_said_where_there_is_none(seed: int) -> None:
    got = null(seed)
    assert got["verdict"].startswith("No gain from joining that these data can show.")
    assert not alarmed(got)


@pytest.mark.parametrize("seed", [0, slow(1)])
def test_the_odd_party_is_named_and_nobody_else(seed: int) -> None:
    odd, got = harm(seed)
    assert (costly(got), harmful(got)) == ({odd}, {odd})
    assert {n for n in NAMES if n in got["verdict"]} == {odd}
    assert got["parties"][odd]["against"]["joint"]["high"] < -0.2
    assert got["influence"][odd]["gain"] > 0
    assert all(p["verdict"] != "loses" for p in got["parties"].values())


@pytest.mark.parametrize("seed", [0, 1, *map(slow, range(2, 6))])
def test_nobody_is_accused_on_few_rows(seed: int) -> None:
    """Of 40 rows each, one split alone would have named somebody in a quarter to a half of the seeds."""
    settings: Any = {"model": "linear", "rounds": 20, "repeats": 2, "pooled": False}
    got = compare(frame(1000 + seed, 40), "y", party="hospital", seed=seed, **settings).results
    assert not harmful(got)
    assert not costly(got)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["linear", "auto"])
def test_false_alarms_are_rare(model: str) -> None:
    """At most one of twenty. Were the true rate r, one or none would be seen with probability (1-r)^20 + 20·r·(1-r)^19.

    None of twenty: r is below 14 % with 95 % confidence (1 - 0.05^(1/20)); one: below 22 %.
    """
    said = [null(seed, model, 10 if model == "linear" else 4) for seed in range(SEEDS)]
    alarms = [seed for seed in range(SEEDS) if alarmed(said[seed])]
    print(f"null, {model}: false alarms {len(alarms)} of {SEEDS}, seeds {alarms}")
    assert len(alarms) <= 1, [said[seed]["verdict"] for seed in alarms]


@pytest.mark.slow
def test_harm_is_found() -> None:
    """In at least nineteen of twenty: the odd party named, in both sentences, and nobody else in either."""
    said = [harm(seed) for seed in range(SEEDS)]
    found = [costly(got) == harmful(got) == {odd} for odd, got in said]
    others = [seed for seed, (odd, got) in enumerate(said) if (costly(got) | harmful(got)) - {odd}]
    print(f"harm: named in {sum(found)} of {SEEDS}, others named in {len(others)}")
    assert sum(found) >= 19, [said[seed][1]["verdict"] for seed in range(SEEDS) if not found[seed]]
    assert len(others) <= 1
