"""The report in a real browser: a run is made, told and looked at. Skipped where no Chromium is installed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.chromium import Browser, find_chromium
from tests.unit.report.page_samples import HOSTILE, a_run, page_of
from tests.unit.report.safeguarded_runs import guarded_run, tried_run
from tests.unit.report.sample_run import Play, whole_run

CHROMIUM: Final = find_chromium()
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")

SIZES: Final = [(1280, 900), (420, 900)]
SCHEMES: Final = ["light", "dark"]

# Of every element that holds text itself: the contrast of that text against what is painted behind it.
CONTRASTS: Final = """
(() => {
  const parse = (colour) => (colour.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((part) => part / 255)
    .map((part) => part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
    .reduce((sum, part, place) => sum + part * [0.2126, 0.7152, 0.0722][place], 0);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const circle = at.matches(".badge") && at.querySelector("circle, rect");
      if (circle) return parse(getComputedStyle(circle).fill);
      const [r, g, b, a = 1] = parse(getComputedStyle(at).backgroundColor);
      if (a === 1) return [r, g, b];
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const element of document.body.querySelectorAll("*")) {
    const holds = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!holds || element.closest("script, title") || !element.getClientRects().length) continue;
    const style = getComputedStyle(element);
    const ink = parse(element.closest("svg") ? style.fill : style.color);
    const [one, two] = [light(ink), light(behind(element))].sort((a, b) => b - a);
    found.push([(one + 0.05) / (two + 0.05), element.tagName, element.textContent.slice(0, 40)]);
  }
  return found.sort((a, b) => a[0] - b[0]);
})()
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    assert CHROMIUM is not None
    with Browser(CHROMIUM, tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs with guard and canary, a run, one with hostile names, both compared, one with 100 signals, one that only began."""
    folder = tmp_path_factory.mktemp("pages")
    whole = a_run(folder / "whole", rows=900, signals=("loss", "grad_norm", "lr"))
    hostile = a_run(folder / "hostile", whole_run(HOSTILE), rows=90, signals=("loss", HOSTILE, HOSTILE * 40))
    many = a_run(folder / "many", rows=60, signals=[f"part{place % 7}/signal_{place}" for place in range(100)])
    short = a_run(folder / "short", Play().records)
    guarded = a_run(folder / "guarded", guarded_run().records, rows=800)
    tried = a_run(folder / "tried", tried_run().records, rows=500)
    made = {"safeguarded": [guarded, tried], "guarded": [guarded], "tried": [tried]}
    made |= {"whole": [whole], "hostile": [hostile], "compared": [whole, hostile, short], "many": [many], "short": [short]}
    for name, subjects in made.items():
        (folder / f"{name}.html").write_text(page_of(*subjects), encoding="utf-8")
    return {name: folder / f"{name}.html" for name in made}


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("name", ["whole", "hostile", "compared", "many", "short", "safeguarded"])
def test_a_page_opens_alone_without_complaint_and_keeps_to_the_window(
    browser: Browser, pages: dict[str, Path], name: str, width: int, height: int, scheme: str
) -> None:
    browser.open(pages[name], width=width, height=height, scheme=scheme)
    browser.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    browser.frames()
    assert browser.evaluate("document.documentElement.scrollWidth") == width
    assert browser.requests() == [pages[name].resolve().as_uri()]
    assert browser.complaints() == []


def test_nothing_of_a_hostile_run_is_executed(browser: Browser, pages: dict[str, Path]) -> None:
    for name in ("hostile", "compared"):
        browser.open(pages[name])
        browser.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        browser.evaluate("document.querySelector('.chart').focus()")
        browser.press("End")
        assert browser.evaluate("document.title") != "executed"
        assert browser.evaluate("document.scripts.length") == 1
        assert browser.evaluate("document.querySelectorAll('img, iframe, object, embed, link').length") == 0
        assert browser.requests() == [pages[name].resolve().as_uri()]


def test_what_would_be_planted_in_the_page_is_still_not_run(browser: Browser, pages: dict[str, Path], tmp_path: Path) -> None:
    """The second line of defence: were an element to get into the page, the policy would stop it."""
    planted = (
        "<script>document.title='executed'</script><img src=x.png onerror=\"document.title='executed'\"><b style='color:red'>"
    )
    page = tmp_path / "planted.html"
    page.write_text(pages["whole"].read_text(encoding="utf-8").replace("<main", f"{planted}<main"), encoding="utf-8")
    browser.open(page)
    assert browser.evaluate("document.title") != "executed"
    assert len(browser.complaints()) >= 3, "each of them was refused"


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", ["whole", "compared", "guarded", "tried"])
def test_all_text_can_be_read_against_its_background(browser: Browser, pages: dict[str, Path], name: str, scheme: str) -> None:
    browser.open(pages[name], scheme=scheme)
    browser.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    measured = browser.evaluate(CONTRASTS)
    assert len(measured) > 100
    assert [one for one in measured if one[0] < 4.5] == []


def test_values_are_read_out_under_the_pointer_and_by_keys(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["whole"])
    caption = "document.querySelector('.chart figcaption').textContent"
    resting = browser.evaluate(caption)
    browser.evaluate("document.querySelector('.chart').focus()")
    browser.press("Home")
    assert ("3.2" in browser.evaluate(caption), "step 50" in browser.evaluate(caption)) == (True, True)
    browser.press("ArrowRight")
    assert ("1.9" in browser.evaluate(caption), "step 100" in browser.evaluate(caption)) == (True, True)
    titled = "(one) => one.querySelector('h4').textContent === 'dropout'"
    dropout = f"[...document.querySelectorAll('.chart')].find({titled}).querySelector('b')"
    assert browser.evaluate(f"{dropout}.textContent") == "0", "the other charts follow: before the first intervention"
    browser.press("End")
    assert browser.evaluate(f"{dropout}.textContent") == "0.1"
    browser.press("Escape")
    assert browser.evaluate(caption) == resting
    box: dict[str, Any] = json.loads(
        browser.evaluate("JSON.stringify(document.querySelector('.curves').getBoundingClientRect())")
    )
    browser.move(box["x"] + box["width"] * 0.2, box["y"] + 20)
    assert "step 200" in browser.evaluate(caption)
    assert "2.1" in browser.evaluate(caption)


def test_a_mark_is_reached_by_keys_and_leads_to_its_decision(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["whole"])
    browser.evaluate("document.querySelectorAll('.decision').forEach((one) => { one.open = false; })")
    reached: list[str] = []
    for _ in range(12):
        browser.press("Tab")
        reached.append(browser.evaluate("document.activeElement.getAttribute('href') || document.activeElement.tagName"))
    assert "#run1-d3" in reached
    browser.evaluate("document.querySelector('.badge').focus()")
    browser.press("Enter")
    assert browser.evaluate("location.hash") == "#run1-d3"


def test_a_number_in_focus_is_ringed_whatever_it_stands_on(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["guarded"])
    browser.press("Tab")
    rings = browser.evaluate("""
      [...document.querySelectorAll("a.badge")].map((one) => {
        one.focus();
        const ring = getComputedStyle(one.querySelector("circle, rect"));
        return [ring.stroke, ring.strokeWidth];
      })
    """)
    assert rings == [["rgb(11, 92, 171)", "3px"]] * 5, "adjusted and taken back, and the guard's own"


def test_without_a_script_the_page_says_the_same(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["whole"], script=False)
    try:
        root = browser.order("DOM.getDocument", depth=0)["root"]["nodeId"]
        html = browser.order("DOM.getOuterHTML", nodeId=root)["outerHTML"]
    finally:
        browser.order("Emulation.setScriptExecutionDisabled", value=False)
    assert 'class="tools"' not in html
    assert html.count('class="curve c1"') == 6
    assert html.count("<details") >= 8


def test_in_print_everything_is_open_and_light(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["whole"], scheme="dark")
    browser.order("Emulation.setEmulatedMedia", media="print", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    try:
        assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert browser.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
        browser.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert browser.evaluate("document.querySelectorAll('details:not([open])').length") == 0
        browser.evaluate("dispatchEvent(new Event('afterprint'))")
        assert browser.evaluate("document.querySelectorAll('details:not([open])').length") > 0
    finally:
        browser.order("Emulation.setEmulatedMedia", media="", features=[])
