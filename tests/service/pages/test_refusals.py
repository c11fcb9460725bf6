"""Who may do what: every refusal of the pages, and that nothing happened."""

import re
from html.parser import HTMLParser
from typing import Any

import pytest
from markupsafe import escape
from scene import NAMES, Scene, Written, secret

from comity.service.keys import fingerprint
from comity.service.pages.guard import HEADERS

ACTS = ("/runs/r1/pause", "/runs/r1/resume", "/runs/r1/stop", "/parties/approve", "/parties/deny")
LOOKS = (
    "/",
    "/log",
    "/live",
    "/runs/r1",
    "/runs/r1/live",
    "/runs/r1/entries",
    "/runs/r1/audit",
    "/runs/r1/recipe.json",
)
FILES = ("/runs/r1/ledger.jsonl", "/runs/r1/report.html", "/runs/r1/state/last")


def fields(name: str = "Geneva", **more: str) -> dict[str, str]:
    """Of the form that approves."""
    return {"name": name, "key": fingerprint(secret(name).public_key()), "compared": "yes", **more}


@pytest.fixture
def busy(scene: Scene) -> Scene:
    """With a run, and a party that waits."""
    scene.party("Geneva", "waiting")
    folder = scene.run()
    book = Written(folder)
    book.round()
    book.save()
    book.close()
    (folder / "report.html").write_text("<script>alert(1)</script>")
    return scene


STRANGE = {"img", "iframe", "object", "embed", "base", "style", "template", "math", "video", "audio"}


def tags(page: str) -> set[str]:
    """The elements of a page, and the attributes that run something."""
    found = set[str]()

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found.update({tag}, {f"{tag} {name}" for name, _ in attrs if name.startswith("on") or name == "style"})

    Reader().feed(page)
    return found


def timeless(page: str) -> str:
    return re.sub("[0-9]", "", page)


def untouched(scene: Scene) -> bool:
    row, party = scene.runs.find("r1"), scene.registry.party("Geneva")
    return row is not None and party is not None and (row.wish, party.status) == ("go", "waiting")


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "http://hub.example.evil.example", "null", "", "HTTP://hub.example"]
)
def test_what_another_site_makes_a_browser_send_is_refused(busy: Scene, ask: Any, origin: str) -> None:
    who = busy.logged_in()
    for path in ACTS:
        got = ask(path, who, headers={"Origin": origin}, **fields())
        assert got.status_code == 403, path
    assert untouched(busy)
    link = busy.sessions.link("Keller", "operator")
    assert ask("/login", headers={"Origin": origin}, link=link).status_code == 403
    assert busy.sessions.offered(link) is not None


def test_a_form_needs_the_token_of_its_session(busy: Scene, ask: Any) -> None:
    mine, other = busy.logged_in(), busy.logged_in()
    for token in ("", "0" * 64, other[1], "ä"):
        for path in ACTS:
            assert ask(path, (mine[0], token), **fields()).status_code == 403, (path, token)
    assert untouched(busy)
    assert ask("/runs/r1/pause", mine, headers={}).status_code == 303


def test_nobody_acts_without_a_session(busy: Scene, ask: Any) -> None:
    for path in ACTS:
        assert ask(path, headers={}, **fields()).status_code == 403
    for path in (*LOOKS, *FILES):
        got = ask(path)
        assert (got.status_code, got.headers["location"]) == (303, "/login"), path
    assert untouched(busy)


@pytest.mark.parametrize(("name", "role"), [("Meier", "auditor"), ("Basel", "party")])
def test_only_an_operator_acts(busy: Scene, ask: Any, name: str, role: str) -> None:
    who = busy.logged_in(name, role)
    for path in ACTS:
        got = ask(path, who, **fields())
        assert (got.status_code, "Only an operator" in got.text) == (403, True), path
    assert untouched(busy)
    page = ask("/runs/r1", who).text
    assert "/pause" not in page
    assert "/stop" not in page
    assert "/parties/approve" not in page


def test_a_get_changes_nothing(busy: Scene, ask: Any) -> None:
    who = busy.logged_in()
    for path in ACTS:
        assert ask(path, who).status_code in (404, 405), path
    assert untouched(busy)


def test_approving_needs_the_comparison_and_the_key_that_was_shown(busy: Scene, ask: Any) -> None:
    who = busy.logged_in()
    assert ask("/parties/approve", who, **fields(compared="")).status_code == 400
    assert ask("/parties/approve", who, **fields(key=fingerprint(b"another"))).status_code == 409
    assert ask("/parties/approve", who, **fields(key="")).status_code == 409
    assert ask("/parties/approve", who, **fields("Nobody")).status_code == 409
    assert untouched(busy)
    assert ask("/parties/approve", who, **fields()).status_code == 303
    party = busy.registry.party("Geneva")
    assert party
    assert party.status == "approved"
    assert ask("/parties/approve", who, **fields()).status_code == 409
    rows = [(what, name) for _, what, name, _ in busy.registry.audit()]
    assert ("approves Geneva", "Keller") in rows
    assert ("approved", "Geneva") in rows


def test_what_an_operator_does_is_written_down(busy: Scene, ask: Any) -> None:
    who = busy.logged_in()
    assert ask("/parties/deny", who, **fields()).status_code == 303
    for path, wish in (("pause", "pause"), ("resume", "go"), ("stop", "stop")):
        assert ask(f"/runs/r1/{path}", who, headers={}).headers["location"] == "/runs/r1"
        row = busy.runs.find("r1")
        assert row
        assert row.wish == wish
    page = ask("/log", who).text
    assert all(text in page for text in ("denies Geneva", "pause r1", "go r1", "stop r1", "Keller"))
    busy.runs.become("r1", "stopped")
    assert ask("/runs/r1/resume", who, headers={}).status_code == 409


@pytest.mark.parametrize(
    "back", ["https://evil.example", "//evil.example", "/\\evil.example", "r1\r\nX: y", "../login"]
)
def test_it_leads_nowhere_else(busy: Scene, ask: Any, back: str) -> None:
    who = busy.logged_in()
    got = ask("/parties/approve", who, **fields(back=back))
    assert got.headers["location"] == "/"
    assert "x" not in got.headers
    got = ask("/login?next=//evil.example", headers={}, link=busy.sessions.link("Keller", "operator"))
    assert got.headers["location"] == "/"
    for path in ("//evil.example", "//evil.example/..", "/%2f%2fevil.example", "/runs//evil.example/"):
        where = ask(path, who).headers.get("location", "")
        assert "evil.example" not in where.removeprefix(busy.url) or where.startswith(f"{busy.url}/")


def test_a_party_sees_its_own_runs_and_no_other(busy: Scene, ask: Any) -> None:
    busy.run("r2", ["Bern", "Lyon"], title="Of others")
    who = busy.logged_in("Basel", "party")
    front = ask("/", who).text
    assert "Readmission" in front
    assert "Of others" not in front
    assert "Geneva" not in front
    paths = [path.replace("r1", "r2") for path in (*LOOKS[3:], *FILES)]
    absent = ask("/runs/none", who)
    for path in paths:
        got = ask(path, who)
        assert (got.status_code, timeless(got.text)) == (404, timeless(absent.text)), path
    assert ask("/log", who).status_code == 403
    assert ask("/runs/r1/audit", who).status_code == 403
    assert ask("/runs/r1/state/last", who).status_code == 403


def test_a_party_sees_of_others_what_the_ledger_holds_and_no_more(busy: Scene, ask: Any) -> None:
    busy.answer(busy.ask(1), "Bern")
    mine, all_of_it = (
        ask("/runs/r1", busy.logged_in(*who)).text for who in (("Basel", "party"), ("Keller", "operator"))
    )
    assert all_of_it.count("<time") > mine.count("<time") >= 1
    assert "asks to join" in all_of_it
    assert "asks to join" not in mine
    assert "/state/last" not in mine
    assert "takes part" in mine
    assert all(name in mine for name in NAMES)


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "{{ 7 * 7 }}",
        "' autofocus onfocus='x",
        "</td></table>",
    ],
)
def test_names_titles_and_reasons_are_text(busy: Scene, ask: Any, text: str) -> None:
    name = f"Evil {text}"[:200]
    busy.party(name, "waiting")
    busy.party(f"B {name}")
    folder = busy.run("r3", [f"B {name}", "Basel"], title=f"T {text}", about={"note": text})
    book = Written(folder, [f"B {name}", "Basel"])
    book.round(dropped=[(f"B {name}", f"reason {text}")])
    book.round()
    book.save()
    book.close()
    busy.runs.become("r3", "failed", f"why {text}")
    who = busy.logged_in(f"op {text}")
    for path in ("/", "/runs/r3", "/runs/r3/entries", "/runs/r3/audit", "/log"):
        got = ask(path, who)
        assert got.status_code == 200, (path, got.text)
        found = tags(got.text)
        assert not found & STRANGE, path
        assert not [name for name in found if " " in name], path
        assert got.text.count("<script ") == 1, path
        if path != "/runs/r3/audit":
            assert str(escape(text)) in got.text, path
    assert "'" not in ask("/runs/r3/recipe.json", who).headers["content-disposition"]


def test_every_answer_has_its_headers(busy: Scene, ask: Any) -> None:
    who = busy.logged_in()
    answers = [
        ask(path, who) for path in (*(p for p in LOOKS if "live" not in p), "/login", "/login/none", "/runs/none")
    ]
    answers += [ask("/"), ask("/runs/r1/pause", who, headers={"Origin": "x"}), ask("/runs/r1/pause", who, headers={})]
    for got in answers:
        for name, value in HEADERS.items():
            if not (name == "Content-Security-Policy" and "disposition" in str(got.headers)):
                assert got.headers[name] == value, (got.url, name)
    policy = HEADERS["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert "default-src 'none'" in policy


def test_files_are_taken_away_and_never_run_here(busy: Scene, ask: Any) -> None:
    who = busy.logged_in()
    for path in ("/runs/r1/recipe.json", *FILES):
        got = ask(path, who)
        assert got.status_code == 200, path
        assert got.headers["content-disposition"].startswith("attachment"), path
        assert "sandbox" in got.headers["content-security-policy"]
        assert got.headers["cache-control"] == "no-store"
    for name in ("../../hub/hub.db", "secret", "..%2f..%2fsecret", "drawers"):
        assert ask(f"/runs/r1/state/{name}", who).status_code in (303, 404)


def test_the_pages_hold_no_style_or_script_of_their_own(busy: Scene, ask: Any) -> None:
    """What the policy would refuse is not there."""
    who = busy.logged_in()
    for path in ("/", "/runs/r1", "/runs/r1/entries", "/runs/r1/audit", "/log", "/login"):
        text = ask(path, who).text
        assert not re.search(r"<style|<[^>]* style=|<[^>]* on[a-z]+=|javascript:", text), path
        for link in re.findall(r'(?:href|src)="(/static/[^"]+)"', text):
            got = ask(link)
            assert got.status_code == 200
            assert "immutable" in got.headers["cache-control"]
    assert ask("/static/views.py").status_code == 404
    assert ask("/static/..%2fviews.py").status_code == 404


def test_a_form_has_a_limit(busy: Scene, ask: Any) -> None:
    who = busy.logged_in()
    assert ask("/parties/approve", who, name="x" * 70_000).status_code == 413
    assert ask("/parties/approve", who, **{f"f{i}": "" for i in range(40)}).status_code == 400


def test_while_the_database_is_away_it_says_so(busy: Scene, ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from comity.core.errors import LedgerError

    who = busy.logged_in()

    def away(*_: Any) -> Any:
        raise LedgerError("postgresql://hub:password@db must answer.")

    monkeypatch.setattr(busy.runs, "all", away)
    got = ask("/", who)
    assert got.status_code == 503
    assert got.headers["retry-after"]
    assert "password" not in got.text
