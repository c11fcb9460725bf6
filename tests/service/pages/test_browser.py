"""The pages in a real browser: an operator logs in, approves, watches a round, pauses, resumes and takes away."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Browser, installed
from scene import BUDGET, NAMES, Scene, Written, secret

from comity.ledger.blobs import Blobs
from comity.service.hub import Hub
from comity.service.keys import fingerprint
from comity.service.pages import pages
from comity.service.runs import Offering
from comity.service.serving import Served

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(installed() is None, reason="needs chromium: apt-get install chromium"),
]

NOTICE = "document.querySelector('#part-notice').textContent"
FILES = "[...document.querySelectorAll('.files a')]"
WIDTHS = (390, 1280)
CONTRAST = """(() => {
  const lum = (c) => { const v = c.map((x) => x / 255)
    .map((x) => x <= .03928 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4);
    return .2126 * v[0] + .7152 * v[1] + .0722 * v[2]; };
  const rgb = (s) => (s.match(/[0-9.]+/g) || []).map(Number);
  const ground = (e) => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor);
    if (c.length === 3 || c[3] > 0) return c.slice(0, 3); } return [255, 255, 255]; };
  const low = [];
  for (const e of document.querySelectorAll("body *")) {
    if (![...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()) || !e.getClientRects().length) continue;
    const style = getComputedStyle(e), own = e instanceof SVGElement;
    const a = lum(rgb(own ? style.fill : style.color).slice(0, 3)), b = lum(ground(own ? e.closest("div,section") : e));
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < 4.5) low.push([e.tagName, e.textContent.trim().slice(0, 30), ratio.toFixed(2)].join(" "));
  }
  return low; })()"""
UNNAMED = """[...document.querySelectorAll("button, a, input:not([type=hidden]), [role=img], [role=meter]")]
  .filter((e) => !(e.textContent.trim() || e.getAttribute("aria-label") || (e.labels && e.labels.length)))
  .map((e) => e.outerHTML.slice(0, 120))"""


class Place:
    """A hub on a port of this machine, with a run of which sixteen rounds have closed."""

    def __init__(self, folder: Path) -> None:
        self.scene = scene = Scene(folder)
        for name in NAMES:
            scene.party(name)
        scene.party("Geneva", "waiting")
        where = scene.run(
            stop=BUDGET, title="Readmission, joint training", about={"rounds": 100, "reference": {"alone": 0.829}}
        )
        self.book = Written(where, spends=True)
        for i in range(16):
            gone = {14: "nothing sent, NaN in layers.1.bias", 15: "connection reset while uploading"}
            self.book.round(dropped=[("Zurich", gone[i])] if i in gone else [], seconds=20 + i % 5)
        self.book.save()
        (where / "report.html").write_text("<!doctype html><title>report</title>")
        self.turn = scene.ask(16, NAMES[:3])
        scene.answer(self.turn, "Basel")
        blobs = Blobs(folder / "hub")
        self.hub = Hub(scene.registry.db, blobs, scene.identity, doors=scene.registry, most=1 << 20)
        scene.url = ""
        self.served = Served(self.hub, "127.0.0.1:0", (), pages(scene))
        self.url = self.served.at

    def close(self) -> None:
        self.scene.closing = True
        self.served.close()
        self.hub.close()
        self.book.close()
        self.scene.close()


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.close()


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    made = Browser(tmp_path)
    yield made
    made.close()


def enter(browser: Browser, hub: Place, name: str = "A. Keller", role: str = "operator") -> None:
    browser.open(f"{hub.url}/login/{hub.scene.sessions.link(name, role)}")
    browser.click("#enter")
    browser.until("location.pathname === '/' && document.querySelector('h1')")


def test_an_operator_at_work(hub: Place, browser: Browser, tmp_path: Path) -> None:
    scene, wish = hub.scene, lambda: hub.scene.runs.find("r1").wish  # type: ignore[union-attr]
    browser.size(1280)
    enter(browser, hub)
    browser.open(f"{hub.url}/runs/r1")

    approve = "document.querySelector('form.approve').parentElement.querySelector('.btn.main')"
    assert browser.js(f"{approve}.disabled") is True
    shown = browser.js("[...document.querySelectorAll('.fp span')].map((e) => e.textContent).join(' ')")
    assert shown == fingerprint(secret("Geneva").public_key())
    browser.click(".ask .btn.main")
    assert scene.registry.party("Geneva").status == "waiting"  # type: ignore[union-attr]
    browser.click(".check input")
    assert browser.js(f"{approve}.disabled") is False
    browser.click(".ask .btn.main")
    browser.until("location.pathname === '/runs/r1' && !document.querySelector('.ask')")
    assert scene.registry.party("Geneva").status == "approved"  # type: ignore[union-attr]

    browser.until("document.documentElement.classList.contains('lively')")
    browser.js("document.querySelector('details').open = true; window.same = true")
    scene.answer(hub.turn, "Bern")
    browser.until("document.querySelector('.prog dl').textContent.includes('2 of 3 asked')")
    hub.book.round()
    hub.book.save()
    scene.ask(17, NAMES)
    browser.until("document.querySelector('.prog dl').textContent.includes('18 of 100')")
    browser.until("document.querySelector('.lines').textContent.includes('round 17, 4 of 4 answered')")
    assert browser.js("window.same && document.querySelector('details').open") is True  # in place, nothing was reloaded

    browser.click("#pause")
    browser.until(
        "document.querySelector('#resume') && document.querySelector('#part-notice').textContent.includes('pauses')"
    )
    assert wish() == "pause"
    scene.runs.become("r1", "paused")
    browser.until(f"{NOTICE}.includes('Paused.')")
    browser.click("#resume")
    browser.until("document.querySelector('#pause')")
    assert wish() == "go"

    browser.click("#stop-open")
    browser.until("document.querySelector('#stop').matches(':popover-open')")
    browser.key("Escape")
    browser.until("!document.querySelector('#stop').matches(':popover-open')")
    browser.click("#stop-open")
    browser.click("#stop-sure")
    browser.until(f"{NOTICE}.includes('stops after this round')")
    assert wish() == "stop"
    scene.runs.become("r1", "running")
    browser.until("document.querySelector('#stop-now')")
    browser.click("#stop-open")
    browser.click("#stop-now")
    browser.until(f"{NOTICE}.includes('stops now')")
    assert wish() == "stop now"

    browser.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path / "taken"))
    for name in ("Report", "Ledger", "Recipe", "Model"):
        browser.js(
            f"[...document.querySelectorAll('.files a')].find((a) => a.textContent.startsWith('{name}')).click()"
        )
        time.sleep(0.3)
    browser.until("true")
    ends = time.monotonic() + 20
    while len(list((tmp_path / "taken").glob("*[!d]"))) < 4 and time.monotonic() < ends:
        time.sleep(0.1)
    kinds = {path.suffix for path in (tmp_path / "taken").iterdir()}
    assert kinds == {".html", ".jsonl", ".json", ".state"}

    rows = [(what, name) for _, what, name, _ in scene.registry.audit()]
    for what in ("logged in as operator", "approves Geneva", "pause r1", "go r1", "stop r1"):
        assert (what, "A. Keller") in rows, what
    assert browser.complaints() == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_it_can_be_read_at_every_width(hub: Place, browser: Browser, tmp_path: Path, width: int, dark: bool) -> None:
    scene = hub.scene
    scene.party("A hospital with a very long name and Donaudampfschifffahrtsgesellschaft", "waiting")
    scene.runs.offer("r2", Offering({"hash": "ab"}, NAMES, "x" * 200, minimum=3))
    browser.size(width, dark=dark)
    enter(browser, hub)
    for path in ("/", "/runs/r1", "/runs/r2", "/runs/r1/entries", "/runs/r1/audit", "/log", "/login", "/runs/none"):
        browser.open(hub.url + path)
        wide = browser.js("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide == 0, path
        assert browser.js(CONTRAST) == [], path
        assert browser.js(UNNAMED) == [], path
    assert [c for c in browser.complaints() if "404" not in c] == []


def test_by_keyboard_alone(hub: Place, browser: Browser) -> None:
    browser.size(1280)
    enter(browser, hub)
    browser.open(f"{hub.url}/runs/r1")
    seen = list[Any]()
    for _ in range(40):
        browser.key("Tab")
        seen.append(browser.js("[document.activeElement.textContent.trim().slice(0, 30), document.activeElement.id,"
                               " getComputedStyle(document.activeElement).outlineStyle]"))  # fmt: skip
        if seen[-1][1] == "pause":
            break
    assert seen[0][0] == "Skip to the page"
    assert all(outline != "none" for *_, outline in seen), seen
    browser.key("Enter")
    browser.until("document.querySelector('#resume')")


def test_without_scripts(hub: Place, browser: Browser) -> None:
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    browser.size(1280)
    browser.open(f"{hub.url}/login/{hub.scene.sessions.link('A. Keller', 'operator')}")
    browser.click("#enter")
    browser.until("location.pathname === '/' && document.querySelector('.ask')")
    browser.click(".ask .btn.main")
    time.sleep(0.5)
    assert hub.scene.registry.party("Geneva").status == "waiting"  # type: ignore[union-attr]  # the box is required
    browser.click(".check input")
    browser.click(".ask .btn.main")
    browser.until("document.readyState === 'complete' && !document.querySelector('.ask')")
    assert hub.scene.registry.party("Geneva").status == "approved"  # type: ignore[union-attr]
    browser.open(f"{hub.url}/runs/r1")
    browser.click("#pause")
    browser.until("document.querySelector('#resume')")


def test_a_line_that_is_lost_is_said(hub: Place, browser: Browser) -> None:
    browser.size(1280)
    enter(browser, hub)
    browser.open(f"{hub.url}/runs/r1")
    browser.until("document.documentElement.classList.contains('lively')")
    free = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    browser.call("Network.emulateNetworkConditions", offline=True, **free)
    hub.scene.closing = True
    browser.until("document.querySelector('#news').textContent.startsWith('no news for')", 40)
    hub.scene.closing = False
    browser.call(
        "Network.emulateNetworkConditions", offline=False, latency=0, downloadThroughput=-1, uploadThroughput=-1
    )
    browser.until("document.querySelector('#news').textContent.startsWith('updated')", 40)
