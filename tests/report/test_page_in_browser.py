"""The page in Chromium: it draws, hover, keys and click work, nothing goes wrong and nothing leaves the page.

Needs playwright and a Chromium that it is told by CHROMIUM, or that is on the path.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from onnxprune.report.page import page
from tests.report.test_page import NAMES, content

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
CHROMIUM = os.environ.get("CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium-headless-shell", "chromium", "google-chrome"))), None
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")

LOOKS = {"wide": (1100, "light"), "dark": (1100, "dark"), "phone": (375, "light")}
# Elements with text whose boxes may not overlap, and pairs of colours that must differ enough (WCAG 2.1, 1.4.3).
CONTRAST = """() => {
  const light = (c) => c.map((v) => v / 255).map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgb = (text) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = text; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const back = (e) => { for (; e; e = e.parentElement) {
    const c = rgb(getComputedStyle(e).backgroundColor); if (c[3] > 250) return c.slice(0, 3); } return [255, 255, 255]; };
  const low = [];
  for (const e of document.querySelectorAll("h1,h2,p,small,td,th,.badge,.name,.value,.tag,.xtick,.ytick,li,dt,dd,code,.spot,summary")) {
    if (!e.textContent.trim() || !e.getClientRects().length || e.closest(".treemap")) continue;
    const [a, b] = [light(rgb(getComputedStyle(e).color).slice(0, 3)), light(back(e))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) low.push([e.tagName + "." + e.className, e.textContent.trim().slice(0, 30), ratio]);
  }
  return low;
}"""  # noqa: E501


@pytest.fixture(scope="module")
def browser() -> Iterator:
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


class Opened:
    """A page in a window of its own, with all that went wrong in it."""

    def __init__(self, browser, tmp_path: Path, name: str, look: str = "wide") -> None:
        width, scheme = LOOKS[look]
        self.file = tmp_path / f"{name}.html"
        self.file.write_text(page(content(name)), encoding="utf-8")
        self.wrong: list[str] = []
        self.asked: list[str] = []
        self.tab = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        self.tab.on("console", lambda message: self.wrong.append(message.text))
        self.tab.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.tab.on("dialog", lambda dialog: self.wrong.append(dialog.message))
        self.tab.on("request", lambda request: self.asked.append(request.url))
        self.tab.goto(self.file.as_uri())

    @property
    def tip(self):
        return self.tab.locator("#tip")


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("name", NAMES)
def test_a_page_draws_without_errors_and_without_requests(browser, tmp_path, name, look):
    opened = Opened(browser, tmp_path, name, look)
    assert opened.wrong == []
    assert [url for url in opened.asked if url != opened.file.as_uri() and not url.startswith("data:")] == []
    wide = opened.tab.evaluate("document.documentElement.scrollWidth - innerWidth")
    assert wide <= 0, "the page is wider than its window"
    assert opened.tab.evaluate(CONTRAST) == []
    if shots := os.environ.get("ONNXPRUNE_SCREENSHOTS"):
        opened.tab.screenshot(path=Path(shots) / f"{name}-{look}.png", full_page=True)


def test_hovering_and_focus_tell_more(browser, tmp_path):
    opened = Opened(browser, tmp_path, "prune")
    assert opened.tip.is_hidden()
    opened.tab.locator(".m0 .bars li").nth(5).hover()
    assert "graph output 'logits'" in opened.tip.inner_text()
    opened.tab.mouse.move(2, 2)
    assert opened.tip.is_hidden()
    opened.tab.locator(".treemap div").first.focus()
    assert "of the weights" in opened.tip.inner_text()
    opened.tab.keyboard.press("Escape")
    assert opened.tip.is_hidden()


def test_arrows_go_through_a_chart_that_is_one_stop_of_the_tab_key(browser, tmp_path):
    opened = Opened(browser, tmp_path, "prune")
    rows = opened.tab.locator(".m0 .bars li")
    rows.first.focus()
    opened.tab.keyboard.press("ArrowDown")
    assert opened.tip.inner_text().startswith("/conv_1/Conv")
    opened.tab.keyboard.press("End")
    assert opened.tip.inner_text().startswith("/fc_1/Gemm")
    opened.tab.keyboard.press("ArrowDown")
    assert opened.tip.inner_text().startswith("/fc_1/Gemm"), "the last stays"
    opened.tab.keyboard.press("Tab")
    assert opened.tab.evaluate("document.activeElement.closest('.treemap') !== null")


def test_bars_show_what_is_chosen(browser, tmp_path):
    opened = Opened(browser, tmp_path, "prune")
    shown = opened.tab.locator(".measure:visible")
    assert shown.count() == 1 and "32 → 16" in shown.inner_text()
    opened.tab.get_by_role("radio", name="parameters").check()
    assert shown.count() == 1 and "32 → 16" not in shown.inner_text()


@pytest.mark.parametrize("how", ["click", "key"])
def test_a_trial_gives_its_command(browser, tmp_path, how):
    opened = Opened(browser, tmp_path, "search")
    spots, told = opened.tab.locator("button[data-command]"), opened.tab.locator("output")
    if how == "click":
        spots.nth(1).click()
    else:
        spots.nth(1).focus()
        opened.tab.keyboard.press("Enter")
    assert told.inner_text() == "cmd two"
    spots.nth(0).click()
    assert told.inner_text() == "cmd one"
    assert opened.tab.locator("[aria-pressed=true]").count() == 1 and opened.wrong == []


def test_a_tip_stays_in_the_window_of_a_phone(browser, tmp_path):
    opened = Opened(browser, tmp_path, "sensitivity", "phone")
    for spot in opened.tab.locator(".spot").all():
        spot.focus()
        box = opened.tip.bounding_box()
        assert box is not None and box["x"] >= 0 and box["x"] + box["width"] <= 375
    assert opened.wrong == []


def test_rows_and_ticks_do_not_overlap(browser, tmp_path):
    for look in LOOKS:
        for name in ("prune", "sensitivity", "search"):
            opened = Opened(browser, tmp_path, name, look)
            for kind in (".bars:visible .value", ".bars:visible .name", ".xtick", ".ytick"):
                boxes = [spot.bounding_box() for spot in opened.tab.locator(kind).all() if spot.is_visible()]
                for one, other in pairwise(boxes):
                    apart = (
                        one["x"] + one["width"] <= other["x"]
                        or other["x"] + other["width"] <= one["x"]
                        or one["y"] + one["height"] <= other["y"]
                        or other["y"] + other["height"] <= one["y"]
                    )
                    assert apart, (name, look, kind)
