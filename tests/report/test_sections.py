"""The sections that a comparison may add, each on its own: what they say, and that they stay away when empty."""

import json
import re
from itertools import pairwise

import pytest

from comity.report import beside, charts, curve, fairness, numbers
from comity.report.page import page
from comity.report.words import pieces

SECTIONS = {
    "groups": 'id="fairness"',
    "fair": 'id="fair"',
    "unseen": 'id="unseen"',
    "card": 'id="card"',
    "protection": 'id="protection"',
}


def interval(mean, half):
    return {"mean": mean, "low": mean - half, "high": mean + half}


def part(html, name):
    """One element's markup, from its id to the end of its section."""
    return html[html.index(f'id="{name}"') :].split("</section>")[0]


def text(markup):
    bare = re.sub(r'<span class="tip".*?</span>', "", markup)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", bare))


@pytest.mark.parametrize("key", SECTIONS)
def test_a_section_is_there_only_when_its_key_is(sample, key):
    results = sample.full()
    assert SECTIONS[key] in page(results)
    for empty in ({}, None):
        results[key] = empty
        html = page(results)
        assert SECTIONS[key] not in html
        assert f'href="#{SECTIONS[key][4:-1]}"' not in html
    del results[key]
    assert page(results) == html


def test_results_from_a_file_give_the_same_page(sample):
    results = sample.full()
    assert page(json.loads(json.dumps(results))) == page(results)


def test_the_full_page_is_small_and_every_tip_is_reachable(sample):
    html = page(sample.full())
    assert len(html.encode()) < 1_500_000
    described, tips = (re.findall(rf'{a}="(tip\d+)"', html) for a in ("aria-describedby", " id"))
    assert described == tips
    assert len(set(tips)) == len(tips) > 8
    assert all(f'href="#{anchor}"' in html for anchor in ("fairness", "unseen", "protection", "card"))


def test_two_pages_and_one_for_the_officer(sample):
    assert len(re.findall(r'class="pb"', page(sample.full()))) == 2
    assert re.findall(r'<section id="(\w+)" class="pb"', page(sample.full())) == ["fairness", "protection"]
    assert re.findall(r'<section id="(\w+)" class="pb"', page(sample.hospitals())) == ["revealed"]


def test_groups_say_gap_score_and_finding(sample):
    found = text(part(page(sample.full()), "fairness"))
    assert "Joining narrows the age gap from 4.6 ± 1.4 to 3.0 ± 1.2 points." in found
    assert "The sex gap goes from 1.9 ± 0.9 to 1.1 ± 0.8 points: no clear change." in found
    assert "Served worst, alone and joint: 70 and over." in found
    assert "70 and over 12,690 0.801 ± 0.010 0.818 ± 0.010 0.832 ± 0.010" in found
    assert "gap, points 4.6 ± 1.4 3.7 ± 1.3 3.0 ± 1.2 2.8 ± 1.2 2.2 ± 1.1" in found


@pytest.mark.parametrize(
    ("after", "said"),
    [
        (interval(0.070, 0.010), "Joining widens the age gap from 4.6 ± 1.4 to 7.0 ± 1.0 points."),
        (interval(0.034, 0.005), "The age gap goes from 4.6 ± 1.4 to 3.4 ± 0.5 points: no clear change."),
        ({"mean": 0.03, "low": None, "high": None}, "The age gap goes from 4.6 ± 1.4 to 3.0 points: no clear change."),
        (None, "The age gap cannot be told: too few rows, so fewer than two groups have a score."),
    ],
)
def test_a_gap_that_may_be_chance_is_not_called_a_change(sample, after, said):
    results = sample.full()
    results["groups"]["age"]["ways"]["joint"]["gap"] = after
    assert fairness.finding(results, "age") == said


def test_one_repeat_says_that_a_gap_has_no_interval(sample):
    results = sample.full()
    for way in ("alone", "joint"):
        results["groups"]["age"]["ways"][way]["gap"] = {"mean": 0.04, "low": None, "high": None}
    assert fairness.finding(results, "age") == "The age gap goes from 4.0 to 4.0 points, without an interval."


def test_a_group_with_too_few_rows_has_no_dot_and_says_so(sample):
    results = sample.full()
    age = results["groups"]["age"]
    age["values"]["over 100"] = 3
    for way in age["ways"].values():
        way["groups"]["over 100"] = None
    html = part(page(results), "fairness")
    assert "over 100 (3; too few rows for a score)" in text(html)
    assert [len(row["dots"]) for row in fairness.charts_of(results)[0]["rows"]] == [3] * 5
    assert text(html).count("over 100") == 2


def test_no_group_with_a_score_draws_nothing(sample):
    results = sample.full()
    nothing = {"groups": dict.fromkeys(sample.AGE), "gap": None}
    results["groups"] = {"age_band": {"values": sample.AGE, "ways": {"alone": nothing, "joint": nothing}}}
    html = part(page(results), "fairness")
    assert 'class="dot"' not in html.partition('role="img"')[2]
    assert "The age band gap cannot be told" in html
    assert fairness.line(results) == "age band gap – alone, – joint"


def test_many_groups_are_named_in_the_table_only(sample):
    results = sample.full()
    values = {f"country {i}": 20 + i for i in range(30)}
    scores = tuple((tuple(0.7 + i / 200 for i in range(30)), 0.05) for _ in range(5))
    results["groups"] = {"country": sample.grouped(values, scores)}
    found = text(part(page(results), "fairness"))
    assert "Each dot is one of 30 groups" in found
    assert found.count("country 17") == 1


@pytest.mark.parametrize(
    ("price", "said"),
    [
        (interval(-0.006, 0.004), "The price: −0.6 ± 0.4 points of ROC AUC."),
        (interval(-0.002, 0.004), "The price, −0.2 ± 0.4 points of ROC AUC, is within noise."),
        (interval(0.006, 0.004), "It costs nothing: +0.6 ± 0.4 points of ROC AUC."),
        ({"mean": -0.006, "low": None, "high": None}, "The price: −0.6 points of ROC AUC."),
        (None, "Its price is not defined."),
    ],
)
def test_a_fairer_model_has_its_price(sample, price, said):
    results = sample.full()
    results["fair"]["price"] = price
    found = text(part(page(results), "fair"))
    assert f"{said} " in found
    assert "3.0 ± 1.2 to 1.4 ± 1.0 points" in found
    assert "thresholds per group" in found


def test_a_newcomer_is_told_beside_its_own_model(sample):
    results = sample.full()
    results["unseen"]["Lyon"]["roc_auc"] = None
    found = text(part(page(results), "unseen"))
    assert "better than each hospital’s own model at two of three hospitals" in found
    assert "Zurich 0.826 0.794 +3.2" in found
    assert "Lyon – 0.818 –" in found
    assert "Basel 0.852 0.861 −0.9" in found


def test_a_newcomer_that_nobody_can_score(sample):
    results = sample.full()
    results["unseen"] = {"Bern": {"roc_auc": None, "alone": None}}
    found = text(part(page(results), "unseen"))
    assert "Neither can be scored there." in found
    assert "Bern – – –" in found


def test_computing_and_energy_with_what_was_assumed(sample):
    found = text(part(page(sample.full()), "cost"))
    assert "Basel 533 kB 529 kB 3.9 s 16 mWh" in found
    assert "all 2.13 MB 2.12 MB 9.1 s 38 mWh" in found
    assert "at an assumed 15 W" in found
    without = text(part(page(sample.hospitals()), "cost"))
    assert "energy" not in without.lower()
    assert "Basel 533 kB 529 kB" in without


def test_cost_that_was_measured_at_some_parties_only(sample):
    results = sample.full()
    results["cost"]["parties"]["Bern"] = {"seconds": None, "watt_hours": None}
    del results["cost"]["parties"]["Lyon"]
    rows = {row["name"]: row for row in beside.cost(results)["rows"]}
    assert rows["Bern"]["seconds"] == rows["Lyon"]["energy"] == numbers.DASH
    assert beside.computing(results) == pytest.approx(4.8)


def test_the_officers_page_says_what_leaves_stays_and_is_seen(sample):
    results = sample.full()
    found = text(part(page(results), "protection"))
    for entry in results["protection"]["leaves"]:
        assert " ".join(entry[k] for k in ("what", "to", "why", "form")) in found.replace("  ", " ")
    for stays in results["protection"]["stays"]:
        assert stays in found
    assert "Not private" in found
    assert "ran in one process on one machine" in found
    assert re.search(r"The hub each one’s Column names and types; .*Model changes;", found)
    assert re.search(r"only the sum of Counts, means, variances; Model changes", found)
    assert results["protection"]["legal_note"] in found
    results["protection"]["legal_note"] = None
    assert "None" not in text(part(page(results), "protection"))


def test_the_card_names_every_input(sample):
    results = sample.full()
    found = text(part(page(results), "card"))
    assert all(name in found for name in results["card"]["inputs"])
    assert "and 18 more" in found
    assert "ROC AUC 0.851 ± 0.006" in found
    assert "Not a medical device." in found


@pytest.mark.parametrize("scores", [{"joint": {"roc_auc": 0.851}}, {"roc_auc": 0.851}, {"roc_auc": "0.851"}])
def test_scores_of_a_card_may_be_plain_or_by_way(sample, scores):
    results = sample.full()
    results["card"]["scores"] = scores
    assert "ROC AUC 0.851" in text(part(page(results), "card"))


def test_the_share_of_the_positive_class(sample):
    assert "4,118 rows · 22 % yes" in page(sample.full())
    results = sample.full()
    results["parties"]["Zurich"]["share"] = None
    assert "22 %" not in page(results)


def test_a_note_replaces_the_default_sentence(sample):
    results = sample.full()
    html = page(results)
    assert results["interval_note"] in part(html, "scores")
    assert "95 % interval over 5 repeats" not in text(html)
    assert "95 % interval over 5 repeats" in text(page(sample.hospitals()))


def pooled(results, alone, joint, top):
    for way, mean in zip(("alone", "joint", "pooled"), (alone, joint, top), strict=True):
        results["parties_mean"][way] = {"roc_auc": None if mean is None else interval(mean, 0.01)}
    results.pop("way_to_pooled", None)
    return charts.way_to_pooled(results)


def test_the_way_to_pooled(sample):
    results = sample.full()
    assert charts.way_to_pooled(results) == {"value": "75 %", "range": "(60 to 88)", "why": ""}
    assert pooled(results, 0.80, 0.83, 0.84)["value"] == "75 %"
    assert pooled(results, 0.80, 0.79, 0.84)["value"] == "−25 %"
    for top in (0.80, 0.79):
        assert pooled(results, 0.80, 0.83, top) == {
            "value": "–",
            "range": "",
            "why": "undefined: pooled is no better than alone",
        }
    assert "undefined: pooled is no better than alone" in page(results)
    results = sample.full() | {"way_to_pooled": {"mean": -0.02, "low": -10.2, "high": 10.2}}
    why = "cannot be told: alone and pooled lie too close"
    assert charts.way_to_pooled(results) == {"value": "–", "range": "", "why": why}
    assert why in page(results)
    assert pooled(results, 0.80, None, 0.84)["value"] == "–"


def test_reference_lines_keep_their_labels_apart(sample):
    results = sample.full()
    results["learning"]["reference"] = {"alone": 0.850, "pooled": 0.852}
    found = curve.learning(results)
    at = [label["y"] for label in found["labels"]]
    assert [label["way"] for label in found["labels"]] == ["pooled", "joint", "alone"]
    assert min(b - a for a, b in pairwise(at)) >= curve.APART - 0.01
    assert "alone has 0.850, pooled has 0.852." in found["finding"]
    results["learning"]["reference"] = {"alone": 0.8998, "ensemble": 0.8999, "pooled": 0.9}
    at = [label["y"] for label in curve.learning(results)["labels"]]
    assert at[0] == 0
    assert min(b - a for a, b in pairwise(at)) >= curve.APART - 0.01


def test_the_round_in_which_a_curve_passes_alone():
    def rounds(means):
        return [(i, mean, mean, mean) for i, mean in enumerate(means, 1)]

    assert curve.passes(rounds([0.7, 0.84, 0.82, 0.84, 0.85]), 0.83, lower=False) == 4
    assert curve.passes(rounds([0.7, 0.84, 0.82]), 0.83, lower=False) is None
    assert curve.passes(rounds([0.7, 0.5, 0.4]), 0.6, lower=True) == 2
    assert curve.passes(rounds([0.7]), None, lower=False) is None


def test_an_axis_begins_at_no_skill(sample):
    axis = charts.above(0.1024, charts.scale([0.1024, 0.97]))
    assert axis.ticks == (0.1024, 0.5, 1.0)
    assert [t["text"] for t in charts.tick_labels(axis)] == ["0.10", "0.5", "1.0"]
    assert charts.bar(axis, 0.1024, {"mean": 0.1024})["width"] == 0
    close = charts.above(0.5, charts.scale([0.5, 1.0]))
    assert close.ticks[1] - close.ticks[0] > 0.6 * close.step, "labels lie over one another on a phone"


def test_panels_become_a_table_for_many_parties(sample):
    results = sample.hospitals()
    zurich = results["parties"]["Zurich"]
    for n, (panels, three) in {4: (4, False), 12: (12, True), 13: (0, True)}.items():
        results["parties"] = {f"site {i}": zurich for i in range(n)}
        html = page(results)
        assert html.count('class="panel"') == panels
        assert ('class="bars three"' in html) == (three and panels > 0)
        assert ('data-l="joint"' in html) == (panels == 0)


def test_terms_are_marked_once_and_figures_stay_whole():
    found = pieces("Zurich +4.1 ± 1.2 points, Bern 0.3 (0.1 to 0.9) points within noise.", ["points", "within noise"])
    assert [p.text for p in found if p.term] == ["points", "within noise"]
    assert [p.text for p in found if p.figure] == ["+4.1 ± 1.2", "0.3 (0.1 to 0.9)"]
    assert "".join(p.text for p in found) == ("Zurich +4.1 ± 1.2 points, Bern 0.3 (0.1 to 0.9) points within noise.")
    assert [p.term for p in pieces("viewpoints", ["points"])] == [""]


def test_many_parties_and_groups_still_fit_one_small_page(sample):
    results = sample.crowd()
    html = page(results)
    assert len(html.encode()) < 400_000
    assert "over 100 (6; too few rows for a score)" in text(html)
    assert re.findall(r'<section id="(\w+)" class="pb"', html) == ["cost", "protection"]
    assert all(f'<th scope="row">{name}' in part(html, "cost") for name in results["parties"])
