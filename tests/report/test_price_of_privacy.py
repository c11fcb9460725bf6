"""The private way in the page and in the terminal."""

from types import ModuleType
from typing import Any

from comity.report.page import page
from comity.report.terminal import lines

SAID = "ε ≤ 7.999 at δ = 1e-05 for one example added or removed (PLD; Poisson sampling at rate 0.25 credited)"


def with_private(sample: ModuleType, trainings: int = 5, price: Any = None) -> dict[str, Any]:
    results: dict[str, Any] = sample.hospitals()
    for ways in (results["ways"], results["parties_mean"], *(p["ways"] for p in results["parties"].values())):
        ways["private"] = sample.scored("roc_auc", 0.820, 0.010)
    results["private"] = {
        "epsilon": 8.0, "delta": 1e-5, "unit": "example", "spent": 7.9989, "guarantee": SAID,
        "together": {"trainings": trainings, "epsilon": 21.437, "guarantee": "ε ≤ 21.44 <b>"},
        "price": price or sample.interval(-0.031, 0.008), "how": "linear, DP-SGD",
        "covers": "ε covers the model.", "beyond": "It does not cover the scores & means.",
    }  # fmt: skip
    return results


def told(results: Any, width: int = 100) -> str:
    return "\n".join(line.plain for line in lines(results, width))


def flat(text: str) -> str:
    return " ".join(text.split())


def test_the_terminal_has_a_column_and_the_guarantee(sample: ModuleType) -> None:
    text = told(with_private(sample))
    assert "private (ε 8)" in text
    assert "With noise the joint model scores 0.820 in place of 0.851: −3.1 ± 0.8 points of ROC AUC." in flat(text)
    assert f"One training: {SAID}." in flat(text)
    assert "The five trainings of this comparison together: ε ≤ 21.5." in flat(text)
    assert "It does not cover the scores & means." in flat(text)
    assert max(len(line) for line in text.split("\n")) <= 100


def test_one_training_is_not_summed_and_noise_is_named(sample: ModuleType) -> None:
    text = flat(told(with_private(sample, 1, sample.interval(-0.001, 0.008))))
    assert "together" not in text
    assert f"ROC AUC, within noise. {SAID}." in text


def test_an_undefined_price_is_no_nought(sample: ModuleType) -> None:
    results = with_private(sample)
    results["private"]["price"] = None
    assert "Against joint its price is not defined." in flat(told(results))
    assert "Against joint its price is not defined." in page(results)


def test_the_page_has_the_way_the_price_and_the_guarantee(sample: ModuleType) -> None:
    text = page(with_private(sample))
    assert '<a href="#private">Privacy</a>' in text
    assert '<div id="private">' in text
    assert "private (ε 8)" in text
    assert '<b class="nowrap">−3.1 ± 0.8</b>' in text
    assert SAID.replace("ε ≤ ", "ε\u00a0≤\u00a0") in text
    assert "scores &amp; means" in text
    assert text.count('<div class="row private">') == 4
    assert "six ways" in text


def test_the_page_does_not_deny_the_noise_that_it_shows(sample: ModuleType) -> None:
    results = sample.full()
    assert "No noise is added" in page(results)
    text = page({**results, "private": with_private(sample)["private"]})
    assert "But for the private model, no noise is added" in text
    assert "No noise is added" not in text


def test_nothing_of_it_where_it_was_not_asked_for(sample: ModuleType) -> None:
    for results in (sample.hospitals(), {**sample.hospitals(), "private": None}):
        assert 'id="private"' not in page(results)
        assert "private" not in told(results)
