"""The page of a running edge in a real browser: draws digits, moves the cut, looks for errors.

    page.py URL TOKEN_FILE SCREENSHOTS

The edge serves the digits, trained, and has an admin token; its cloud answers. The browser is Chromium, headless,
with chromedriver beside it. Each check is an assertion; pictures of the page go to the folder SCREENSHOTS.
"""

import json
import math
import pathlib
import sys
import time
import urllib.request

from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

PATIENCE_S = 20
WIDE, NARROW = 1280, 390


def arc(x, y, rx, ry, start, end, points=14):
    """Part of an ellipse, by angles in degrees: 0 is to the right, 90 is down."""
    angles = [math.radians(start + (end - start) * i / (points - 1)) for i in range(points)]
    return [(x + rx * math.cos(a), y + ry * math.sin(a)) for a in angles]


# As people write them, in a square of side 1: lists of strokes.
DIGITS = {
    0: [arc(0.5, 0.5, 0.23, 0.36, -90, 270, 24)],
    1: [[(0.36, 0.28), (0.52, 0.14), (0.52, 0.86)]],
    2: [arc(0.5, 0.32, 0.2, 0.18, -170, 30) + [(0.3, 0.84), (0.74, 0.84)]],
    3: [arc(0.46, 0.32, 0.2, 0.18, -150, 90) + arc(0.46, 0.68, 0.23, 0.18, -90, 150)],
    4: [[(0.56, 0.12), (0.26, 0.6), (0.76, 0.6)], [(0.6, 0.38), (0.58, 0.88)]],
    5: [[(0.7, 0.14), (0.36, 0.14), (0.34, 0.46)] + arc(0.48, 0.65, 0.22, 0.21, -120, 150)],
    6: [[(0.6, 0.12), (0.4, 0.36)] + arc(0.5, 0.66, 0.19, 0.2, 200, -160, 24)],
    7: [[(0.28, 0.16), (0.72, 0.16), (0.44, 0.86)]],
    8: [arc(0.5, 0.32, 0.17, 0.18, 90, 450, 20) + arc(0.5, 0.68, 0.2, 0.18, -90, 270, 20)],
    9: [arc(0.48, 0.34, 0.18, 0.19, 0, -360, 20) + [(0.66, 0.34), (0.62, 0.86)]],
}


class Page:
    def __init__(self, url, screenshots):
        self.url, self.screenshots = url, screenshots
        options = webdriver.ChromeOptions()
        for flag in ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--hide-scrollbars"]:
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        service = webdriver.ChromeService("/usr/bin/chromedriver")
        self.browser = webdriver.Chrome(options=options, service=service)

    def size(self, width, height=900):
        """Of the page itself, whatever frame the window has."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def by(self, name):
        return self.browser.find_element(By.ID, name)

    def script(self, text, *values):
        return self.browser.execute_script(text, *values)

    def until(self, what, found):
        """Waits for something that is true, and gives it."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            value = found()
            if value:
                return value
            time.sleep(0.1)
        raise AssertionError(f"not within {PATIENCE_S} s: {what}; {self.by('may').text!r} {self.by('answer').text!r}")

    def draw(self, strokes):
        """By mouse moves along the strokes."""
        self.by("clear").click()
        canvas = self.by("draw")
        side = canvas.size["width"]
        self.script("arguments[0].scrollIntoView({block: 'center'})", canvas)
        chain = ActionChains(self.browser, duration=8)
        for stroke in strokes:
            for i, (x, y) in enumerate(stroke):
                chain.move_to_element_with_offset(canvas, round((x - 0.5) * side), round((y - 0.5) * side))
                if i == 0:
                    chain.click_and_hold()
            chain.release()
        chain.perform()

    def verdict(self):
        found = self.browser.find_elements(By.ID, "verdict")
        return int(found[0].get_attribute("data-class")) if found else None

    def answered(self):
        """The class, once what is shown is about what is drawn, the activation as well."""
        answer = self.by("answer")
        self.until("an answer", lambda: answer.get_attribute("aria-busy") == "false" and self.verdict() is not None)
        return self.verdict()

    def times(self):
        return self.browser.find_elements(By.CSS_SELECTOR, "#times .time")

    def count(self, split):
        """Requests that were measured at a split point, as the chart has it."""
        return int(self.script("return document.querySelector(`#splits [data-split='${arguments[0]}']`).dataset.count", split))

    def state(self):
        with urllib.request.urlopen(f"{self.url}/page/api/state") as reply:
            return json.load(reply)

    def shoot(self, name):
        """All of the page, whatever the height."""
        height = self.script("return document.documentElement.scrollHeight")
        width = self.script("return innerWidth")
        self.size(width, height)
        self.settle()
        self.browser.save_screenshot(str(self.screenshots / f"{name}.png"))
        self.size(width)

    def settle(self):
        """Charts follow the width in the next frames."""
        self.browser.execute_async_script("setTimeout(arguments[0], 500)")

    def errors(self):
        return [entry for entry in self.browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


def check_drawing(page):
    for digit, strokes in DIGITS.items():
        page.draw(strokes)
        found = page.answered()
        sure = page.by("answer").text
        print(f"drawn {digit}, read {found}: {sure!r}")
        assert found == digit, f"a {digit} was read as {found}: {sure}"
    shares = page.script(
        "return [...document.querySelectorAll('.class')].map((row) => parseFloat(row.lastElementChild.textContent))")
    assert len(shares) == 10 and abs(sum(shares) - 100) < 1, shares
    assert page.script("return document.querySelectorAll('#maps canvas').length") >= 1
    parts = page.script("return [...document.querySelectorAll('#times .time')].map((row) => row.children[1].children.length)")
    assert len(parts) == 6 and all(count >= 3 for count in parts), parts


def check_keyboard(page):
    """A one by keys: pen down, a line, pen up."""
    page.by("clear").click()
    page.until("nothing", lambda: page.verdict() is None)
    canvas = page.by("draw")
    page.script("arguments[0].focus()", canvas)
    canvas.send_keys(*[Keys.ARROW_UP] * 8, Keys.SPACE, *[Keys.ARROW_DOWN] * 16, Keys.SPACE)
    assert page.answered() == 1


def check_read_only(page):
    assert not page.by("split").is_enabled() and not page.by("link").is_enabled()
    assert "admin token" in page.by("may").text
    page.by("token").send_keys("not the right one")
    page.until("the slider", page.by("split").is_enabled)
    page.by("split").send_keys(Keys.ARROW_LEFT)
    page.until("a refusal", lambda: "not the admin token" in page.by("may").text)
    page.by("token").clear()
    # It is asked for, so the console has its 401, and nothing else.
    errors = page.errors()
    assert len(errors) == 1 and "401" in errors[0]["message"], errors


def admit(page, token):
    page.by("token").send_keys(token)
    page.until("the slider", page.by("split").is_enabled)


def check_moving(page):
    stages = int(page.by("split").get_attribute("max"))
    for split in [1, stages, 2]:
        page.script("arguments[0].scrollIntoView({block: 'center'})", page.by("split"))
        before = page.count(split)
        slider = page.by("split")
        slider.send_keys(Keys.HOME, *[Keys.ARROW_RIGHT] * split)
        page.until(f"split point {split}", lambda: page.state()["deployed"]["split_point"] == split)
        page.until("the row", lambda: page.script("return document.querySelector('.split.now').dataset.split") == str(split))
        page.by("many").click()
        page.until("the measured chart", lambda: page.by("many").is_enabled() and page.count(split) >= before + 20)
        assert f"split point {split}" in page.times()[0].text, page.times()[0].text
        width = page.script(
            f"return document.querySelector('#splits [data-split=\"{split}\"] .measured').getBoundingClientRect().width")
        assert width >= 2, width
    print("measured:", {row["split_point"]: round(row["p50"], 2) for row in page.state()["splits"]})


def check_link(page):
    before = page.state()["link"]["profile"]
    for name in ["lte", before]:
        Select(page.by("link")).select_by_value(name)
        page.until(name, lambda: page.state()["link"]["profile"] == name)
        page.until("the text", lambda: name in page.by("topology").text)
        page.by("many").click()
        page.until("20 answers", page.by("many").is_enabled)
    page.until("a prediction", lambda: page.script("return document.querySelectorAll('#splits .predicted').length") > 0)


# Of each live chart its title, and the length of what is drawn in it.
LIVE = """
return [...document.querySelectorAll('#live .chart')].map((chart) => [chart.querySelector('h3').textContent,
  [...chart.querySelectorAll('polyline, path')].reduce((sum, line) => sum + line.getTotalLength(), 0)]);
"""


def check_live(page):
    """Each has a line: after two seconds and some requests there are two points to each."""
    try:
        page.until("a line in each live chart", lambda: all(length > 0 for _, length in page.script(LIVE)))
    finally:
        charts = page.script(LIVE)
        print("live:", {title: round(length) for title, length in charts})
    assert len(charts) == 6, charts


# Everything that has a text of its own: where it is, whether its box shows all of it.
TEXTS = """
const found = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const node = walker.currentNode;
  const own = node.parentElement;
  if (!node.textContent.trim() || own.closest('script, noscript, option, .skip') || !own.checkVisibility()) continue;
  const range = document.createRange();
  range.selectNodeContents(node);
  for (const box of range.getClientRects()) {
    if (box.width < 1) continue;
    // What scrolls by itself shows a part.
    const scrolls = own.closest('#splits, #maps');
    const clip = scrolls?.getBoundingClientRect();
    if (clip && (box.bottom > clip.bottom || box.top < clip.top)) continue;
    let hidden = false;
    for (let at = own; at && at !== document.body; at = at.parentElement) {
      const around = at.getBoundingClientRect();
      const style = getComputedStyle(at);
      const frame = at.matches('.card, .node, button, svg');
      const across = box.right > around.right + 1 || box.left < around.left - 1;
      const down = box.bottom > around.bottom + 1 || box.top < around.top - 1;
      if (across && (frame || style.overflowX !== 'visible')) hidden = true;
      if (down && (frame || style.overflowY !== 'visible')) hidden = true;
    }
    found.push({ text: node.textContent.trim().slice(0, 60), hidden,
      box: [box.left, box.top + scrollY, box.right, box.bottom + scrollY] });
  }
}
return found;
"""


def check_layout(page, width, theme):
    page.size(width)
    page.settle()
    inner, scrolled = page.script("return [innerWidth, document.documentElement.scrollWidth]")
    assert inner == width and scrolled <= inner, f"{scrolled} wide at {inner}"
    texts = page.script(TEXTS)
    assert len(texts) > 60, len(texts)
    for text in texts:
        left, _, right, _ = text["box"]
        assert not text["hidden"], f"cut off at {width}, {theme}: {text}"
        assert left >= -1 and right <= width + 1, f"outside at {width}, {theme}: {text}"
    # Half a line's leading may be shared; letters may not.
    for i, one in enumerate(texts):
        for other in texts[i + 1:]:
            (l, t, r, b), (l2, t2, r2, b2) = one["box"], other["box"]
            across, down = min(r, r2) - max(l, l2), min(b, b2) - max(t, t2)
            assert across <= 1 or down <= 4, f"on each other at {width}, {theme}: {one} {other}"


def themed(page, theme):
    button = page.by("theme")
    for _ in range(3):
        if page.script("return document.documentElement.dataset.theme") == theme:
            break
        page.script("arguments[0].click()", button)
    assert page.script("return document.documentElement.dataset.theme") == theme
    ground = page.script("return getComputedStyle(document.body).backgroundColor")
    channels = [int(c) for c in ground[4:-1].split(",")]
    assert (sum(channels) < 200) == (theme == "dark"), ground


def main():
    url, token_file, folder = sys.argv[1].rstrip("/"), pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
    folder.mkdir(parents=True, exist_ok=True)
    page = Page(url, folder)
    try:
        page.size(WIDE)
        page.browser.get(f"{url}/")
        assert page.browser.current_url == f"{url}/page/"
        page.until("the edge's state", lambda: "split at" in page.by("status").text)
        page.until("a cloud", lambda: "in use" in page.by("topology").text)
        page.until("curves", lambda: page.script("return document.querySelectorAll('#curves polyline').length") >= 1)
        check_drawing(page)
        assert not page.errors()
        check_keyboard(page)
        check_read_only(page)
        admit(page, token_file.read_text().strip())
        check_link(page)
        check_live(page)
        check_moving(page)
        page.draw(DIGITS[3])
        assert page.answered() == 3
        for theme in ["light", "dark"]:
            themed(page, theme)
            for width in [WIDE, NARROW]:
                check_layout(page, width, theme)
                page.shoot(f"{width}-{theme}")
        page.size(WIDE)
        assert page.script("return sessionStorage.length") == 1 and page.script("return localStorage.length") == 1
        errors = page.errors()
        assert not errors, errors
        print("the page: as it should be")
    except BaseException:
        page.browser.save_screenshot(str(folder / "failed.png"))
        raise
    finally:
        page.browser.quit()


main()
