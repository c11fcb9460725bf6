import io

import pytest
from rich.cells import cell_len
from rich.console import Console

from comity.report import numbers, terminal

KINDS = ("full", "crowd", "hospitals", "losing", "undefined", "writers", "regression")


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch):
    for name in ("NO_COLOR", "FORCE_COLOR", "TERM", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)


def printed(results, *, colours=False, no_color=False, **options):
    colour = "truecolor" if colours else None
    console = Console(
        file=io.StringIO(), force_terminal=colours, color_system=colour, width=100, no_color=no_color, _environ={}
    )
    terminal.print_results(results, console, **options)
    return console.file.getvalue()


@pytest.mark.parametrize("kind", KINDS)
def test_at_100_columns_everything_is_there(sample, kind):
    results = getattr(sample, kind)()
    out = printed(results, report_path="report.html")
    assert max(map(cell_len, out.splitlines())) <= 100
    assert "\x1b" not in out
    flat = " ".join(out.split())
    rows = [line.plain for line in terminal.table(results)]
    assert "\n".join(rows) in out
    for name, party in results["parties"].items():
        row = next(line for line in rows if line.startswith(f"{name} "))
        assert numbers.points(party["gain"]) in row
        assert row.endswith(party["verdict"])
        for way in sample.WAYS:
            assert numbers.value(party["ways"][way][results["metric"]]) in row
    for text in (results["verdict"], "Cost", "Revealed", "report report.html", "again seed 7, recipe sha256:9f2c41d7"):
        assert text in flat


def test_the_verdict_stands_before_the_table_on_its_own_line(sample):
    out = printed(sample.hospitals()).splitlines()
    assert out.index("Worth joining for three of four hospitals.") < next(
        i for i, line in enumerate(out) if line.startswith("ROC AUC ")
    )


def test_colours_change_no_word(sample):
    for kind in KINDS:
        results = getattr(sample, kind)()
        coloured = printed(results, colours=True)
        assert "\x1b[" in coloured
        assert "".join(
            part.partition("m")[2] if i else part for i, part in enumerate(coloured.split("\x1b["))
        ) == printed(results)


def test_no_color_has_no_colours(sample):
    assert "38;2" in printed(sample.hospitals(), colours=True)
    assert "38;2" not in printed(sample.hospitals(), colours=True, no_color=True)


def test_a_party_that_loses_is_told_before_the_table(sample):
    out = printed(sample.losing())
    assert out.index("Basel loses 0.8 ± 0.7 points.") < out.index("ROC AUC  ")


def test_undefined_says_why(sample):
    assert "Lyon: one class only among its test rows." in printed(sample.undefined())


@pytest.mark.parametrize("width", [40, 50, 60, 70, 80, 99])
@pytest.mark.parametrize("kind", KINDS[:6])
def test_narrow_terminals_keep_rows_alone_joint_and_gain(sample, width, kind):
    results = getattr(sample, kind)()
    lines = [line.plain for line in terminal.lines(results, width)]
    assert max(map(cell_len, lines)) <= width
    head = next(line for line in terminal.table(results, width)).plain
    assert {"rows", "alone", "joint", "gain"} <= set(head.split())
    assert numbers.points(results["gain"]) in " ".join(lines)


def test_long_and_hostile_names_stay_on_their_line(sample):
    results = sample.hospitals()
    names = ["The General Hospital of the Canton of Zurich", "\x1b[31mred\x1b[0m\nBern", "病院" * 20, "[bold]x[/bold]"]
    results["parties"] = dict(zip(names, results["parties"].values(), strict=True))
    out = printed(results)
    assert "\x1b" not in out
    assert "[bold]x[/bold]" in out
    rows = out[out.index("ROC AUC  ") : out.index("Intervals")].strip().splitlines()
    assert len(rows) == 6
    assert max(map(cell_len, rows)) <= 100


def test_what_a_full_comparison_adds_stands_below_the_table(sample):
    flat = " ".join(printed(sample.full()).split())
    for text in (
        "Gains: 95 % for all four hospitals together. Pooled would need moving data.",
        "Fairness age gap 4.6 ± 1.4 alone, 3.0 ± 1.2 joint; sex gap 1.9 ± 0.9 alone, 1.1 ± 0.8 joint",
        "Fair age gap 3.0 ± 1.2 joint, 1.4 ± 1.0 fair (group weights in training, thresholds per group). "
        "The price: −0.6 ± 0.4 points of ROC AUC.",
        "Newcomers joint without it: Zurich 0.826 (alone 0.794)",
        "529 kB down per hospital; 9.1 s of computing for one training",
    ):
        assert text in flat


def test_what_was_not_asked_for_has_no_line(sample):
    out = printed(sample.hospitals())
    assert not [label for label in ("Fairness", "Fair ", "Newcomers", "computing for") if label in out]
    assert "Intervals: 95 % over 5 repeats, same splits for every way." in out


def test_the_demo_prints_a_verdict_for_each_and_where_its_page_lies(sample):
    console = Console(file=io.StringIO(), _environ={})
    both = {"breast cancer": sample.hospitals(), "digits": sample.writers()}
    terminal.print_demo(both, console, {"breast cancer": "comity-demo/breast-cancer.html"})
    lines = console.file.getvalue().splitlines()
    assert lines[0] == (
        "breast cancer   Worth joining for three of four hospitals. Mean gain +2.2 ± 0.5 points of ROC AUC."
    )
    assert lines[1].startswith("digits          Worth joining for ten of ten writers. Mean gain +9.3 ± 1.9")
    assert "report   comity-demo/breast-cancer.html" in lines
    assert lines[-1].startswith("next     comity compare YOUR.csv")
    assert max(map(len, lines)) <= 100


def test_progress_is_shown_in_a_terminal_and_gone_when_done():
    console = Console(file=io.StringIO(), force_terminal=True, width=100, _environ={})
    with terminal.progress(console) as update:
        update("repeat 3/5   joint   round 17/30", 0.53)
        console.file.flush()
    out = console.file.getvalue()
    assert "repeat 3/5   joint   round 17/30" in out
    assert "53 %" in out
    assert out.rstrip("\n").endswith("\x1b[2K")


@pytest.mark.parametrize("environment", [{}, {"TERM": "dumb"}, {"NO_COLOR": "1"}])
def test_progress_is_silent_without_a_terminal_or_colours(environment):
    console = Console(file=io.StringIO(), force_terminal=bool(environment), _environ=environment)
    with terminal.progress(console) as update:
        update("repeat 1/5", 2.0)
    assert console.file.getvalue().strip() == ""


def test_time_left_is_told_only_after_some_progress():
    assert terminal.time_left(30.0, 0.01) == ""
    assert terminal.time_left(1.0, 0.5) == ""
    assert terminal.time_left(91.0, 0.5) == "0:01:31 left"


def test_a_line_that_is_too_wide_is_broken_at_words() -> None:
    said = [("head       ", ""), ("one two three four five six", "alarm")]
    assert terminal.folded(said, 80) == [said]
    assert terminal.folded(said, 25) == [
        [("head       ", ""), ("one two three", "alarm")],
        [("           ", ""), ("four five six", "alarm")],
    ]
    for kept in ([("party   answered   up", "")], [("next       ", ""), ("comity audit FOLDER", "dim")], []):
        assert terminal.folded(kept, 12) == [kept]
