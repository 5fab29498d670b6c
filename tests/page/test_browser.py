"""The report in a browser: nothing is asked of a network, nothing fails, and all can be read and reached by keys.

Needs selenium and Debian's chromium and chromium-driver; AXE=FILE, axe-core's axe.min.js, checks contrast and names.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("plotly", reason="plotly is not installed: pip install -e '.[report]'")
pytest.importorskip("jinja2", reason="jinja2 is not installed: pip install -e '.[report]'")
pytest.importorskip("selenium", reason="selenium is not installed: pip install selenium")

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from evt.page.build import page_of
from tests.common import ROOT
from tests.page.runs import traced_run

pytestmark = pytest.mark.skipif(
    not (shutil.which("chromium") and shutil.which("chromedriver")),
    reason="there is no chromium with its chromedriver: apt-get install chromium chromium-driver",
)

SCREENS = [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Headless Chromium, with the report open and its charts drawn."""
    folder = tmp_path_factory.mktemp("page")
    path = folder / "report.html"
    path.write_text(page_of(ROOT / "results", [traced_run(folder / "run")]))
    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(str(shutil.which("chromedriver"))))
    try:
        driver.get(path.as_uri())
        drawn = "return [...document.querySelectorAll('.chart')].every((x) => x.querySelector('.legend'))"
        WebDriverWait(driver, 60).until(lambda x: x.execute_script(drawn))
        yield driver
    finally:
        driver.quit()


def show(browser: Any, width: int, theme: str) -> None:
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600},
    )
    media = [{"name": "prefers-color-scheme", "value": theme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})


def test_no_request_leaves_the_page_and_nothing_fails(browser: Any) -> None:
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [x["params"]["request"]["url"] for x in events if x["method"] == "Network.requestWillBeSent"]
    assert len([url for url in asked if url.startswith("file:")]) == 1, asked
    assert not [url[:99] for url in asked if not url.startswith(("file:", "data:"))]
    assert not [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


@pytest.mark.parametrize(("width", "theme"), SCREENS)
def test_nothing_is_wider_than_the_screen(browser: Any, width: int, theme: str) -> None:
    show(browser, width, theme)
    wide = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    WebDriverWait(browser, 10).until(lambda x: x.execute_script(wide) <= 0)


@pytest.mark.parametrize(
    ("width", "theme"), [(1280, "light"), (390, "dark")]
)  # seconds each, minutes beside other work
def test_contrast_and_names_pass_axe(browser: Any, width: int, theme: str) -> None:
    if not os.environ.get("AXE"):
        pytest.skip("AXE names no axe.min.js of axe-core")
    show(browser, width, theme)
    browser.execute_script(Path(os.environ["AXE"]).read_text())
    browser.set_script_timeout(300)
    browser.command_executor.client_config.timeout = 300
    found = browser.execute_async_script(
        "const done = arguments[0]; document.querySelectorAll('details').forEach((x) => { x.open = true; });"
        "axe.run({resultTypes: ['violations']}).then((x) => done(x.violations.map("
        "(y) => [y.id, y.impact, y.nodes.length, y.nodes[0].html.slice(0, 200), y.nodes[0].failureSummary])))"
    )
    assert not found


def test_a_table_is_sorted_and_filtered_by_keys(browser: Any) -> None:
    show(browser, 1280, "light")
    part = browser.find_element(By.ID, "table_c_mini")
    head = part.find_element(By.XPATH, ".//th[button[starts-with(., 'map50')]]")
    place = "[...arguments[0].parentNode.cells].indexOf(arguments[0])"
    rows_shown = "[...arguments[0].closest('table').tBodies[0].rows].filter((x) => !x.hidden)"
    cells = f"return {rows_shown}.map((x) => x.cells[{place}].textContent)"

    def values() -> list[float]:
        return [float(x.split(" ")[0]) for x in browser.execute_script(cells, head)]

    before = values()
    head.find_element(By.TAG_NAME, "button").send_keys(Keys.ENTER)
    assert head.get_attribute("aria-sort") == "ascending"
    assert values() == sorted(before) != before
    head.find_element(By.TAG_NAME, "button").send_keys(Keys.SPACE)
    assert values() == sorted(before, reverse=True)
    field = part.find_element(By.TAG_NAME, "input")
    field.send_keys("rows op_ratio>3.9")
    rows = part.find_elements(By.CSS_SELECTOR, "tbody tr:not([hidden])")
    assert rows
    assert all(row.text.startswith("rows") for row in rows)
    assert part.find_element(By.CLASS_NAME, "count").text.startswith(f"{len(rows)} of ")
    field.clear()
    field.send_keys("x", Keys.BACKSPACE)
    assert len(values()) == len(before)


def test_a_figure_says_its_values_on_hover(browser: Any) -> None:
    show(browser, 1280, "light")
    chart = browser.find_element(By.CSS_SELECTOR, ".chart")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", chart)
    browser.execute_script("Plotly.Fx.hover(arguments[0], [{curveNumber: 0, pointNumber: 1}])", chart)
    said = WebDriverWait(browser, 10).until(
        lambda x: chart.find_elements(By.CSS_SELECTOR, ".hoverlayer text")
    )
    assert "±" in said[0].get_attribute("textContent")


def is_checked(value: str) -> Callable[[Any], bool]:
    """Whether what has the focus says so of itself."""
    return lambda browser: browser.switch_to.active_element.get_attribute("aria-checked") == value


def test_curves_are_hidden_and_shown_by_keys(browser: Any) -> None:
    """What a click on a name does, for who has no mouse; the focus stays where it was."""
    show(browser, 1280, "light")
    chart = browser.find_element(By.CSS_SELECTOR, ".chart")
    hidden = "return arguments[0].data.map((x) => x.visible === 'legendonly')"
    now = "return document.activeElement.getAttribute('aria-label')"
    named = "return arguments[0].querySelectorAll('.legend .traces')[1]"
    wait = WebDriverWait(browser, 10)
    wait.until(lambda x: x.execute_script(named, chart).get_attribute("role") == "switch")
    item = browser.execute_script(named, chart)
    browser.execute_script("arguments[0].focus()", item)
    name = browser.execute_script(now)
    assert name == browser.execute_script("return arguments[0].data[1].name", chart)
    for key, checked in ((Keys.ENTER, "false"), (Keys.SPACE, "true")):
        browser.switch_to.active_element.send_keys(key)
        wait.until(is_checked(checked))
        assert browser.execute_script(now) == name
        assert [i for i, x in enumerate(browser.execute_script(hidden, chart)) if x] == [1] * (
            checked == "false"
        )


def test_a_run_is_looked_at_by_keys(browser: Any) -> None:
    """Frame by frame, and gate by gate: only the token of the gate's number passes, see `traced_run`."""
    show(browser, 1280, "light")
    viewer = browser.find_element(By.CLASS_NAME, "viewer")
    picture, said = viewer.find_element(By.TAG_NAME, "img"), viewer.find_element(By.CLASS_NAME, "said")
    frame = viewer.find_element(By.CLASS_NAME, "frame")
    first = picture.get_attribute("src")
    assert said.text.startswith("Frame 1: 6% of the tokens pass, mean norm of the errors 3.50; 0.200 GFlops")
    frame.send_keys(Keys.ARROW_RIGHT)
    assert said.text.startswith("Frame 2: ")
    assert frame.get_attribute("aria-valuetext") == said.text
    assert picture.get_attribute("src") != first
    viewer.find_element(By.CLASS_NAME, "block").send_keys("block 2")
    viewer.find_element(By.CLASS_NAME, "gate").send_keys("before proj")
    assert "mean norm of the errors 5.00; " in said.text
    # Of 4 x 4 tokens the picture shows the upper 2 rows, and gate 4 lets the first of the second row pass.
    places = [[(column + 0.5) / 4, (row + 0.5) / 2] for row in range(2) for column in range(4)]
    pixels = browser.execute_script(
        "const [canvas, places] = arguments; const pen = canvas.getContext('2d');"
        "return places.map(([x, y]) => [...pen.getImageData(x * canvas.width, y * canvas.height, 1, 1).data])",
        viewer.find_element(By.TAG_NAME, "canvas"),
        places,
    )
    assert [red > green for red, green, _, _ in pixels] == [i == 4 for i in range(8)]
    assert all(alpha > 0 for *_, alpha in pixels)
    frame.send_keys(Keys.HOME)
    assert said.text.startswith("Frame 0: a flush, in which all tokens pass; ")
    play = viewer.find_element(By.CLASS_NAME, "play")
    play.send_keys(Keys.ENTER)
    WebDriverWait(browser, 10).until(lambda _: said.text.startswith("Frame 3: "))
    play.send_keys(Keys.ENTER)
    assert play.text == "Play"


def test_light_and_dark_follow_the_reader(browser: Any) -> None:
    show(browser, 1280, "light")
    back = "return getComputedStyle(document.body).backgroundColor"
    text = "return getComputedStyle(document.querySelector('.chart .xtick text')).fill"
    light = browser.execute_script(back), browser.execute_script(text)
    browser.find_element(By.ID, "theme").send_keys(Keys.ENTER)
    WebDriverWait(browser, 10).until(lambda x: x.execute_script(text) != light[1])
    assert browser.execute_script(back) != light[0]
    browser.find_element(By.ID, "theme").send_keys(Keys.ENTER)
    WebDriverWait(browser, 10).until(lambda x: x.execute_script(text) == light[1])
