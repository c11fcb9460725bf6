import builtins
import copy
import re
from html.parser import HTMLParser

import pytest

from comity.core.errors import ConfigError
from comity.report import charts, numbers, view
from comity.report.page import page, write_page

KINDS = ("full", "hospitals", "losing", "undefined", "writers", "regression")
VOID = {"meta", "br", "hr", "img", "input", "link"}
EVIL = '<script>alert("x")</script>'


class Reader(HTMLParser):
    """Elements with their attributes, the text of all but tips, and whether every element was closed."""

    def __init__(self, html):
        super().__init__()
        self.open, self.elements, self.words, self.tip = [], [], [], None
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if dict(attrs).get("role") == "tooltip":
            self.tip = len(self.open)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if self.tip == len(self.open):
            self.tip = None
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"] and self.tip is None:
            self.words.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.words))


def hero(html):
    return html[html.index('<div class="hero">') : html.index('<dl class="tiles">')]


@pytest.mark.parametrize("kind", KINDS)
def test_every_party_way_score_and_interval_is_there(sample, kind):
    results = getattr(sample, kind)()
    html = page(results)
    read = Reader(html)
    assert not read.open
    for name, party in results["parties"].items():
        assert name in read.text
        assert numbers.count(party["rows"]) in read.text
        assert numbers.points(party["gain"]) in read.text
        for way in sample.WAYS:
            assert f'class="row {way}"' in html
            for metric, interval in party["ways"][way].items():
                assert numbers.score(interval, metric) in read.text
    for way in sample.WAYS:
        for table in ("parties_mean", "ways"):
            interval = results[table][way][results["metric"]]
            ends = " ".join(numbers.fixed(interval[end], 4) for end in ("mean", "low", "high"))
            assert f"{way} {ends}" in read.text


def test_bytes_revealed_settings_and_command_are_there(sample):
    results = sample.hospitals()
    text = Reader(page(results)).text
    for part in ("533 kB", "2.13 MB", "3 min 12 s", "seed 7", "patient_id", "sha256:9f2c 41d7", "numpy 2.1.0"):
        assert part in text
    assert results["settings"]["command"] in text
    for entry in results["revealed"]:
        assert entry["what"] in text
        assert entry["how_much"] in text
    assert text.count("only the sum") == 2
    assert "only the union" in text


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_loads_nothing_and_is_small(sample, kind):
    html = page(getattr(sample, kind)())
    assert len(html.encode()) < 200_000
    for tag, attributes in Reader(html).elements:
        assert tag not in {"script", "link", "img", "iframe", "object", "embed", "base", "form"}
        for name in ("src", "href", "xlink:href", "action", "data", "srcset"):
            assert attributes.get(name, "#").startswith("#")
        assert not [name for name in attributes if name.startswith("on")]
    assert not re.search(r"https?://|@import|url\(|@font-face", html)


@pytest.mark.parametrize("kind", KINDS)
def test_each_chart_has_a_sentence_and_a_twin_table(sample, kind):
    html = page(getattr(sample, kind)())
    charts_drawn = html.count('role="img"')
    assert charts_drawn == {"writers": 2, "full": 5}.get(kind, 3)
    tables = [t for t in html.split("<details>")[1:] if "<table>" in t.partition("</details>")[0]]
    assert len(tables) == charts_drawn + (kind == "full")
    assert all("." in a["aria-label"] for _, a in Reader(html).elements if a.get("role") == "img")


def test_the_first_sentence_is_the_headline(sample):
    html = page(sample.hospitals())
    assert "<h1>Worth joining for three of four hospitals</h1>" in html
    assert "For Basel the difference is within noise ." in Reader(hero(html)).text


def test_a_full_stop_in_the_name_of_a_party_ends_no_sentence(sample):
    results = sample.hospitals()
    results["parties"]["St. Gallen"] = results["parties"].pop("Zurich")
    results["verdict"] = "Not worth joining for St. Gallen or Bern. St. Gallen loses most."
    assert view.verdict(results) == ("Not worth joining for St. Gallen or Bern.", "St. Gallen loses most.")
    assert view.verdict({"verdict": "Worth it", "parties": {}}) == ("Worth it", "")


def test_a_party_that_loses_is_seen_at_the_first_glance(sample):
    text = Reader(hero(page(sample.losing()))).text
    assert re.search(r"Basel ?loses 0.8 ± 0.7 ?points", text)
    assert "−0.8 ± 0.7" in text
    assert " loses" not in Reader(hero(page(sample.hospitals()))).text


def test_a_loss_that_the_verdict_tells_is_told_once(sample):
    results = sample.losing()
    results["verdict"] += " Basel loses 0.8 ± 0.7 points."
    assert view.unsaid_losers(results) == []


def test_undefined_is_a_dash_with_its_reason(sample):
    html = page(sample.undefined())
    text = Reader(html).text
    assert "one class only among its test rows" in Reader(hero(html)).text
    panel = html[html.index("<h3>Lyon<span>") :].split("</div>")[0]
    assert "– one class only among its test rows" in panel
    assert "<rect" not in panel
    assert text.count("Lyon alone – – – 0.400 ± 0.100") == 1
    assert view.ordered(sample.undefined())[-1] == "Lyon"
    assert "nan" not in text.lower()
    assert "None" not in text


def test_without_a_reason_a_general_one_is_given(sample):
    results = sample.undefined()
    results["parties"]["Lyon"]["why"] = None
    assert "the score is not defined on its test rows" in page(results)


@pytest.mark.parametrize("kind", KINDS)
def test_names_are_never_markup(sample, kind):
    results = getattr(sample, kind)()
    first = next(iter(results["parties"]))
    results["parties"] = {EVIL if n == first else n: p for n, p in results["parties"].items()}
    results["bytes"]["parties"] = {EVIL if n == first else n: p for n, p in results["bytes"]["parties"].items()}
    results["parties"][EVIL]["why"] = EVIL
    results["title"] = results["question"]["target"] = results["question"]["party"] = EVIL
    results["question"] |= {"noun": EVIL, "classes": [EVIL, EVIL]}
    results["left_out"] = [{"name": EVIL, "why": EVIL}]
    results["revealed"] = [dict.fromkeys(("what", "how_much", "hub", "parties", "why"), EVIL)]
    results["verdict"] = f"{EVIL} gains. {EVIL} loses."
    texts = ("model", "command", "recipe", "date")
    results["settings"] |= {**dict.fromkeys(texts, EVIL), "chosen": {EVIL: EVIL}, "versions": {EVIL: EVIL}}
    results["interval_note"] = EVIL
    full = sample.full()
    age = full["groups"]["age"]
    ways = {w: {"groups": {EVIL: s["groups"]["under 50"]}, "gap": s["gap"]} for w, s in age["ways"].items()}
    results["groups"] = {EVIL: {"values": {EVIL: 7, "other": 3}, "ways": ways, "why": {"other": EVIL}}}
    results["fair"] = {**full["fair"], "column": EVIL, "how": EVIL}
    results["unseen"] = {EVIL: {EVIL: 0.5, results["metric"]: 0.5, "alone": 0.4}}
    results["cost"] = {"parties": {EVIL: {"seconds": 1.0, "watt_hours": 0.01}}, "assumed_watts": 15.0}
    leaves = [dict.fromkeys(("what", "to", "why", "form"), EVIL)]
    results["protection"] = {"leaves": leaves, "stays": [EVIL], "legal_note": EVIL}
    results["card"] = {**dict.fromkeys(("model", "trained_on", "target", "intended"), EVIL), "inputs": [EVIL] * 30}
    results["card"] |= {"classes": [EVIL], "limits": [EVIL], "scores": {EVIL: {EVIL: 0.5}}}
    results["parties"]['"><img onerror=x>'] = copy.deepcopy(results["parties"][EVIL])
    read = Reader(page(results))
    assert not read.open
    assert {tag for tag, _ in read.elements}.isdisjoint({"script", "img"})
    assert not [a for _, a in read.elements if "onerror" in a]
    assert EVIL in read.text


def test_a_way_that_was_not_run_has_no_column(sample):
    results = sample.hospitals()
    for ways in (results["ways"], results["parties_mean"], *(p["ways"] for p in results["parties"].values())):
        del ways["pooled"]
    html = page(results)
    assert 'class="row pooled"' not in html
    assert "Each hospital, four ways" in html
    assert "the data stay" in html
    assert "Way to pooled" not in html


def test_one_repeat_has_no_interval(sample):
    results = sample.hospitals()
    tables = [results["ways"], results["parties_mean"], *(p["ways"] for p in results["parties"].values())]
    scores = [score for ways in tables for way in ways.values() for score in way.values()]
    for interval in (*scores, results["gain"], *(p["gain"] for p in results["parties"].values())):
        interval["low"] = interval["high"] = None
    results["learning"], results["verdict"] = {}, "Worth joining for three of four hospitals."
    text = Reader(page(results)).text
    assert "±" not in text
    assert "with 95 % interval" not in text
    assert "+4.1" in text


def test_parties_go_by_gain_in_every_part(sample):
    html = page(sample.hospitals())
    places = [
        [html.index(f"{before}{n}<") for n in ("Zurich", "Lyon", "Bern", "Basel")]
        for before in ('"row">', "<b>", "<h3>")
    ]
    assert all(found == sorted(found) for found in places)


def test_bars_start_at_no_skill(sample):
    results = sample.hospitals()
    axis = charts.bars(results)
    assert charts.bar(axis, 0.5, {"mean": 0.7, "low": None, "high": None}) == {
        "x": 0.0,
        "width": 50.0,
        "low": 50.0,
        "high": 50.0,
    }
    worse = charts.bars(sample.regression())
    assert worse.ticks[0] == -0.5
    below, above = (charts.bar(worse, 0.0, {"mean": m, "low": None, "high": None}) for m in (-0.3, 0.4))
    assert below["x"] + below["width"] == pytest.approx(worse.at(0.0), abs=0.02)
    assert above["x"] == worse.at(0.0)
    results["question"]["no_skill"] = 0.62
    assert "Bars start at 0.62, no skill" in page(results)


@pytest.mark.parametrize("values", [[0.0], [0.0, 0.0], [-0.3, 5.3], [0.5, 0.869], [1e-9, 3e-9], [-4e6, 12.0], []])
def test_a_scale_holds_all_values_between_round_ticks(values):
    axis = charts.scale(values)
    assert 2 <= len(axis.ticks) <= 7
    assert all(-1e-6 <= axis.at(v) <= 100 + 1e-6 for v in values)


def test_many_parties_stay_readable_and_small(sample):
    results = sample.hospitals()
    zurich = results["parties"]["Zurich"]
    results["parties"] = {f"site {i}": {**zurich, "gain": {**zurich["gain"], "mean": i / 1000}} for i in range(60)}
    html = page(results)
    assert "forest dense" in html
    assert len(html.encode()) < 400_000


def test_writing_makes_the_folder(sample, tmp_path):
    path = write_page(sample.hospitals(), tmp_path / "new" / "report.html")
    assert path.read_text(encoding="utf-8") == page(sample.hospitals())


def test_a_path_that_cannot_be_written_is_a_clear_error(sample, tmp_path):
    with pytest.raises(ConfigError, match="can be written"):
        write_page(sample.hospitals(), tmp_path)


def test_other_versions_and_missing_keys_are_refused(sample):
    with pytest.raises(ConfigError, match="version 1"):
        page({"version": 2})
    results = sample.hospitals()
    del results["revealed"]
    with pytest.raises(ConfigError, match="Missing: revealed"):
        page(results)


def test_without_jinja2_the_error_says_what_to_install(sample, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "jinja2":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"pip install 'comity\[report\]'"):
        page(sample.hospitals())
