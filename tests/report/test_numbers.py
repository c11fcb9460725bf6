import pytest

from comity.report import numbers


def span(mean, low, high):
    return {"mean": mean, "low": low, "high": high}


SIZES = {0: "0 B", 999: "999 B", 1000: "1.00 kB", 9_996: "10.0 kB", 17_600: "17.6 kB", 99_960: "100 kB"}
SIZES |= {533_000: "533 kB", 999_499: "999 kB", 999_600: "1.00 MB", 1_062_000: "1.06 MB", 2.5e9: "2.50 GB"}
SIZES |= {3e12: "3.00 TB", 4e15: "4,000 TB"}
TIMES = {0.01: "under 0.1 s", 0.9: "0.9 s", 9.96: "10 s", 59.4: "59 s", 59.7: "1 min 0 s", 192: "3 min 12 s"}
TIMES |= {3599.6: "1 h 0 min", 7500: "2 h 5 min"}


@pytest.mark.parametrize(("count", "text"), SIZES.items())
def test_bytes_have_three_digits_in_powers_of_1000(count, text):
    assert numbers.size(count) == text


@pytest.mark.parametrize(("seconds", "text"), TIMES.items())
def test_times(seconds, text):
    assert numbers.duration(seconds) == text


def test_scores_have_three_decimals_and_their_interval():
    assert numbers.score(span(0.835, 0.82, 0.85)) == "0.835 ± 0.015"
    assert numbers.score(span(0.75, 0.6, 0.88)) == "0.750 (0.600 to 0.880)"
    assert numbers.score(span(-0.12, -0.22, -0.02)) == "−0.120 ± 0.100"
    assert numbers.score(span(0.5, None, None)) == "0.500"


@pytest.mark.parametrize("nothing", [None, {}, span(None, None, None), span(float("nan"), 0.1, 0.2)])
def test_undefined_is_a_dash_and_never_zero(nothing):
    assert numbers.score(nothing) == numbers.points(nothing) == "–"


def test_gains_are_points_and_always_signed():
    assert numbers.points(span(0.041, 0.029, 0.053)) == "+4.1 ± 1.2"
    assert numbers.points(span(-0.008, -0.015, -0.001)) == "−0.8 ± 0.7"
    assert numbers.points(span(0.0, -0.01, 0.01)) == "+0.0 ± 1.0"
    assert numbers.points(span(-0.0001, -0.01, 0.0098)) == "−0.0 ± 1.0"
    assert numbers.points(span(0.05, 0.01, 0.2)) == "+5.0 (1.0 to 20.0)"


def test_a_score_that_rounds_to_zero_has_no_sign():
    assert numbers.value(span(-0.0001, None, None)) == "0.000"


def test_errors_in_the_units_of_the_target_lose_decimals_when_large():
    got = [numbers.value(span(v, None, None), "rmse") for v in (0.0312, 11.27, 843.21, 18432.4)]
    assert got == ["0.031", "11.27", "843.2", "18,432"]
    assert numbers.score(span(843.21, 812.0, 874.4), "mae") == "843.2 ± 31.2"


def test_words_nouns_and_hashes():
    assert [numbers.word(n) for n in (0, 1, 12, 13, 1797)] == ["no", "one", "twelve", "13", "1,797"]
    assert [numbers.plural(n) for n in ("hospital", "party", "class", "day", "branch")] == [
        "hospitals",
        "parties",
        "classes",
        "days",
        "branches",
    ]
    assert numbers.plural("party", 1) == "party"
    assert numbers.digest("sha256:9f2c41d78e05b3aa6c1d") == "sha256:9f2c 41d7 8e05 b3aa"
    assert numbers.clock(91.4) == "0:01:31"
    assert [numbers.metric_name(k) for k in ("roc_auc", "r2", "log_loss")] == ["ROC AUC", "R²", "log-loss"]


def test_energy_changes_its_unit_at_a_thousand():
    found = [numbers.energy(watt_hours) for watt_hours in (0.0, 0.00001, 0.5, 0.9996, 999.4, 2_500_000)]
    assert found == ["0 mWh", "under 0.1 mWh", "500 mWh", "1.0 Wh", "999 Wh", "2.5 MWh"]


def test_gaps_have_no_plus():
    assert numbers.gap({"mean": 0.046, "low": 0.032, "high": 0.060}) == "4.6 ± 1.4"
    assert numbers.gap({"mean": 0.01, "low": 0.0, "high": 0.05}) == "1.0 (0.0 to 5.0)"
    assert numbers.gap({"mean": 0.01, "low": None, "high": None}) == "1.0"
    assert numbers.gap(None) == numbers.DASH
