"""The committed report in a real browser: headless Chromium, driven by Selenium."""

import json
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from made_up import CLAIMS, HOSTILE, TIMES, make_hostile
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

from rnngrad.report.figures import draw_figures
from rnngrad.report.render import explore_page, render_html, render_markdown
from rnngrad.report.style import to_svg
from rnngrad.study import WEIGHTS
from rnngrad.study.results import Results

REPORT = Path(__file__).parent.parent.parent / "reports" / "report.html"
PHONE, DESK = 390, 1280
TIMEOUT = 20  # seconds that any one answer of the browser may take
# two: the browser's own first tab
LOCAL = {"file", "data", "blob", "about", "chrome", "chrome-untrusted"}

FLAGS = (
    "headless",
    "no-sandbox",  # which root cannot have
    "disable-gpu",
    "disable-quic",
    "disable-dev-shm-usage",
    "no-first-run",
    "disable-background-networking",
    "disable-component-update",
    "disable-sync",
)
COLOURS = """
const style = getComputedStyle(document.body);
return [style.backgroundColor, style.color].map(text => text.match(/[\\d.]+/g).map(Number));
"""
FIGURES = """
return [...document.querySelectorAll("figure")].map(figure => {
  const box = (figure.querySelector("div") ?? figure).getBoundingClientRect();
  const svg = figure.querySelector("svg");
  const scale = svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
  const caption = figure.querySelector("figcaption").innerText.trim();
  return {left: box.left, right: box.right, scale, height: box.height, caption};
});
"""
DEAD_TARGETS = """
return [...document.querySelectorAll("[href^='#'], [*|href^='#']")]
  .map(element => decodeURIComponent((element.getAttribute("href")
    || element.getAttributeNS("http://www.w3.org/1999/xlink", "href")).slice(1)))
  .filter(id => id && !document.getElementById(id));
"""
LINKS = "return [...document.querySelectorAll('a[href]')].map(a => a.getAttribute('href'));"
SHOWN = 'return document.getElementById(arguments[0] + "-plot").data.map(trace => trace.name);'
POINTS = """
const {x, y} = document.getElementById(arguments[0] + "-plot").data[0];
return [x, y];
"""
CHOOSE = """
const form = document.getElementById(arguments[0]);
form.elements[arguments[1]].value = arguments[2];
form.dispatchEvent(new Event("change"));
"""
AXE = REPORT.parent.parent / ".axe" / "node_modules" / "axe-core" / "axe.min.js"
FINDINGS = """
const done = arguments[arguments.length - 1];
axe.run().then(found => done(found.violations.map(one => [one.id, one.impact])));
"""
WIDEST = "return document.documentElement.scrollWidth;"


class Browser:
    """Chromium with one page open."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver
        self.console: list[str] = []
        self.requests: list[str] = []
        self.folder = REPORT.parent

    def open(self, page: Path) -> None:
        self.folder = page.parent
        self.driver.get(page.as_uri())
        self.console = [entry["message"] for entry in self.driver.get_log("browser")]
        log = [json.loads(entry["message"]) for entry in self.driver.get_log("performance")]
        events = [entry["message"] for entry in log]
        asked = [event for event in events if event["method"] == "Network.requestWillBeSent"]
        self.requests = [event["params"]["request"]["url"] for event in asked]

    def outside_requests(self) -> list[str]:
        return [url for url in self.requests if urlsplit(url).scheme not in LOCAL]

    def dead_links(self) -> list[str]:
        """In-page links without a target, and relative ones without a file."""
        links = [urlsplit(link) for link in self.run(LINKS)]
        files = [unquote(link.path) for link in links if not link.scheme and link.path]
        missing = [file for file in files if not (self.folder / file).exists()]
        return self.run(DEAD_TARGETS) + missing

    def run(self, script: str, *arguments: str) -> Any:
        return self.driver.execute_script(script, *arguments)

    def resize(self, width: int) -> None:
        metrics = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width == PHONE}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def prefer(self, scheme: str) -> None:
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("no chromium: with its driver, it looks at the report")
    options = Options()
    options.binary_location = chromium
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    for flag in (*FLAGS, f"user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(f"--{flag}")
    before = socket.getdefaulttimeout()
    # where Selenium takes the limit of its calls to the driver from: it could wait forever
    socket.setdefaulttimeout(TIMEOUT)
    started = webdriver.Chrome(options, Service(driver))
    try:
        started.set_page_load_timeout(TIMEOUT)
        yield Browser(started)
    finally:
        started.quit()
        socket.setdefaulttimeout(before)


@pytest.fixture
def report(browser: Browser) -> Browser:
    browser.open(REPORT)
    return browser


def test_the_page_opens_without_a_word_asks_nobody_and_has_no_dead_link(report: Browser) -> None:
    assert report.driver.title
    assert report.console == []
    assert REPORT.as_uri() in report.requests
    assert report.outside_requests() == []
    # the page to play with is made by `make study` and not in git
    assert [link for link in report.dead_links() if link != "explore.html"] == []


@pytest.mark.parametrize("width", [PHONE, DESK])
def test_every_figure_is_laid_out_and_nothing_sticks_out(width: int, report: Browser) -> None:
    report.resize(width)
    assert report.run(WIDEST) <= width
    figures = report.run(FIGURES)
    assert figures
    for figure in figures:
        # letters are 10 to 11.5 high in the figure's own units; a phone scrolls what is not shown
        assert figure["scale"] >= 0.9, figure
        assert figure["height"] > 50, figure
        assert figure["left"] >= 0, figure
        assert figure["right"] <= width, figure
        assert figure["caption"], figure


@pytest.mark.parametrize("width", [PHONE, DESK])
def test_everybody_can_read_and_reach_all_of_it(width: int, report: Browser) -> None:
    assert serious_findings(report, width) == []


def serious_findings(browser: Browser, width: int) -> list[str]:
    """List what axe-core finds that keeps somebody from reading the page."""
    if not AXE.exists():
        pytest.skip("no axe-core: npm install --prefix .axe axe-core")
    browser.resize(width)
    browser.run(AXE.read_text())
    found = browser.driver.execute_async_script(FINDINGS)
    return [finding for finding, impact in found if impact in ("serious", "critical")]


def test_names_from_outside_are_shown_and_not_run(
    browser: Browser, results: Results, tmp_path: Path
) -> None:
    hostile = make_hostile(results)
    drawn = draw_figures(hostile, np.arange(1, 1404), 1403)
    svgs = {name: to_svg(figure) for name, figure in drawn.items()}
    markdown = render_markdown(hostile, CLAIMS, svgs, TIMES | {"processor": HOSTILE[1]})
    page = tmp_path / "report.html"
    page.write_text(render_html(markdown, svgs))
    browser.open(page)
    assert browser.driver.title == "How far back do gradients reach?"
    assert browser.run("return document.querySelectorAll('script, img, [onerror]').length") == 0
    links = [link for link in browser.run(LINKS) if not link.startswith("#")]
    hosts = {urlsplit(link).netloc for link in links}
    tutorials = {"weberna.github.io", "prvnk10.medium.com", "kikaben.com"}
    tutorials |= {"stats.stackexchange.com"}
    assert hosts == {"", "doi.org", "arxiv.org", "discuss.tensorflow.org"} | tutorials
    assert browser.run("return document.querySelectorAll('h1').length") == 1
    assert browser.outside_requests() == []
    assert browser.console == []
    shown = browser.run("return document.body.textContent")
    assert all(" ".join(name.split()) in " ".join(shown.split()) for name in HOSTILE[:3])
    assert "$x_1^2$ \\n# a heading\\n" in shown


def test_curves_to_play_with_change_by_a_choice_and_ask_nobody(
    browser: Browser, results: Results, tmp_path: Path
) -> None:
    page = tmp_path / "explore.html"
    page.write_text(explore_page(results))
    assert page.stat().st_size < 6_000_000
    browser.resize(PHONE)
    browser.open(page)
    assert browser.run(WIDEST) <= PHONE
    assert serious_findings(browser, PHONE) == []
    assert browser.run(SHOWN, "models") == [
        f"{cell}, {weights}, seed 1" for cell in ("RNN", "LSTM") for weights in WEIGHTS.values()
    ]
    browser.run(CHOOSE, "models", "seed", "3")
    browser.run(CHOOSE, "models", "weights", "trained")
    browser.run(CHOOSE, "models", "statistic", "cell_path")
    assert browser.run(SHOWN, "models") == ["LSTM, trained with padding, seed 3"]
    curve = results.curves.query(
        "cell == 'lstm' and seed == 3 and weights == 'trained' and statistic == 'cell_path'"
    ).set_index("step")["log10_median"]
    x, y = browser.run(POINTS, "models")
    assert (x[:100], x[-1]) == ([*range(1, 101)], 500)
    assert y == pytest.approx(curve[x].tolist(), abs=6e-3)
    browser.run(CHOOSE, "models", "cell", "rnn")  # which has no cell path
    assert browser.run(SHOWN, "models") == []
    said = "return document.getElementById('models-plot').layout.annotations[0].text"
    assert browser.run(said) == "none of these was run"
    browser.run(CHOOSE, "conditions", "beside", "float32_flushed")
    browser.run(CHOOSE, "conditions", "cell", "lstm")
    assert browser.run(SHOWN, "conditions") == ["LSTM, question", "LSTM, float32 flushed"]
    assert browser.outside_requests() == []
    assert [entry["message"] for entry in browser.driver.get_log("browser")] == []


def test_dark_mode_swaps_paper_and_ink(report: Browser) -> None:
    report.prefer("light")
    paper, ink = (np.mean(colour[:3]) for colour in report.run(COLOURS))
    assert ink < 64 < 224 < paper  # of 255
    report.prefer("dark")
    dark_paper, light_ink = (np.mean(colour[:3]) for colour in report.run(COLOURS))
    assert dark_paper < 64 < 192 < light_ink
