"""The pages as a browser shows them; DESMATCH_REQUIRE_CHROMIUM=1 forbids to skip these tests."""

import re

import pytest

from desmatch.report.html import DASH

PHONE, DESK = {"width": 375, "height": 800}, {"width": 1280, "height": 900}


@pytest.fixture
def visit(browser):
    """Opens a page, and keeps what it says on the console and what it asks for."""
    contexts, complaints, asked = [], [], []

    def open_page(path, viewport=DESK, **settings):
        context = browser.new_context(viewport=viewport, **settings)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(path.as_uri())
        return page

    open_page.complaints, open_page.asked = complaints, asked
    yield open_page
    for context in contexts:
        context.close()


def test_the_page_opens_without_a_word_or_a_request(visit, report):
    page = visit(report)
    assert page.locator("figure.plot").count() == page.locator("figure svg").count() == 9
    assert page.locator(".theme").is_visible()
    assert visit.complaints == []
    assert [url for url in visit.asked if not url.startswith("data:")] == [report.as_uri()]


def test_a_resource_or_a_script_from_elsewhere_would_be_refused(visit, tmp_path, report):
    html = report.read_text(encoding="utf-8")
    path = tmp_path / "page.html"
    evil = "<img src='other.png'><script>document.title = 'evil'</script></header>"
    path.write_text(html.replace("</header>", evil), encoding="utf-8")
    page = visit(path)
    assert sum("Content Security Policy" in text for text in visit.complaints) == 2
    assert page.title() != "evil"
    assert (tmp_path / "other.png").as_uri() in visit.asked


def test_the_nearest_point_shows_its_values_under_the_pointer(visit, report):
    page = visit(report)
    figure = page.locator("#plot-roc")
    tip = figure.locator(".tip")
    assert not tip.is_visible()
    figure.locator(".canvas").hover(position={"x": 200, "y": 60})
    assert tip.is_visible()
    words = r"AUC 0\.92.*\nfalse positives 0\.\d+\ntrue positives 0\.\d+\nscore 0\.\d+ or more"
    assert re.fullmatch(words, tip.inner_text())
    page.mouse.move(2, 2)
    assert not tip.is_visible()


def test_a_tap_shows_a_point_too(visit, report):
    page = visit(report, PHONE, has_touch=True, is_mobile=True)
    tip = page.locator("#plot-lengths .tip")
    page.locator("#plot-lengths .canvas").tap(position={"x": 120, "y": 60})
    assert tip.is_visible()
    assert "length of a text" in tip.inner_text()
    page.locator("#plot-lengths figcaption").tap()
    assert not tip.is_visible()


def test_the_arrow_keys_go_from_point_to_point(visit, report):
    page = visit(report)
    canvas, tip = page.locator("#plot-scores .canvas"), page.locator("#plot-scores .tip")
    canvas.focus()
    canvas.press("ArrowRight")
    assert tip.is_visible()
    assert "different pairs\nscore 0 to 0.025" in tip.inner_text()
    canvas.press("ArrowRight")
    assert "score 0.025 to 0.05" in tip.inner_text()
    canvas.press("ArrowDown")
    assert "same pairs\nscore 0.025 to 0.05" in tip.inner_text()
    canvas.press("Escape")
    assert not tip.is_visible()


def test_an_entry_of_the_legend_hides_its_series(visit, report):
    page = visit(report)
    entry = page.locator("#plot-lengths .legend button").first
    line = page.locator("#lengths-0-0")
    assert line.is_visible()
    entry.click()
    assert not line.is_visible()
    assert entry.get_attribute("aria-pressed") == "false"
    canvas = page.locator("#plot-lengths .canvas")
    canvas.focus()
    canvas.press("ArrowRight")
    assert page.locator("#plot-lengths .tip").inner_text().startswith("test")
    entry.click()
    assert line.is_visible()


def column(page, place):
    return page.locator(f"#slices tbody td:nth-child({place})").all_inner_texts()


def test_a_click_on_a_head_sorts_the_table_and_another_turns_it_round(visit, report):
    page = visit(report)
    head = page.locator("#slices thead th").nth(4)
    aucs = [text for text in column(page, 5) if text != DASH]
    head.get_by_role("button").click()
    assert column(page, 5) == [*sorted(aucs, reverse=True), DASH]
    assert head.get_attribute("aria-sort") == "descending"
    head.get_by_role("button").click()
    assert column(page, 5) == [*sorted(aucs), DASH]
    page.locator("#slices thead th").nth(1).get_by_role("button").click()
    values = ["0.2 to 0.6", "1 to 9", "10 to 19", "20 or more", "above 0.6", "below 0.2", "no"]
    assert column(page, 2) == [*values, "yes"]
    assert head.get_attribute("aria-sort") is None


def ground(page):
    rgb = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return sum(map(int, re.findall(r"\d+", rgb)))


def test_the_theme_follows_the_system_and_the_switch(visit, report):
    assert ground(visit(report, color_scheme="dark")) < 100
    page = visit(report, color_scheme="light")
    assert ground(page) > 600
    switch = page.locator(".theme")
    grounds = {}
    for _ in range(3):
        switch.click()
        grounds[switch.inner_text()] = ground(page)
    assert list(grounds) == ["Theme: light", "Theme: dark", "Theme: auto"]
    assert grounds["Theme: dark"] < 100 < 600 < grounds["Theme: auto"]


@pytest.mark.parametrize("viewport", [PHONE, DESK], ids=["phone", "desk"])
def test_nothing_lies_beside_the_screen(visit, report, viewport):
    page = visit(report, viewport)
    for details in page.locator("details").all():
        details.evaluate("each => each.open = true")
    assert page.evaluate("document.documentElement.scrollWidth") == viewport["width"]
    page.locator("#plot-roc .canvas").hover(position={"x": 150, "y": 30})
    assert page.evaluate("document.documentElement.scrollWidth") == viewport["width"]


def test_without_script_the_page_still_shows_its_figures(visit, report):
    page = visit(report, java_script_enabled=False)
    assert page.locator("#plot-roc svg").is_visible()
    assert not page.locator(".theme").is_visible()


def test_every_control_has_a_name_and_every_head_its_scope(visit, report):
    page = visit(report)
    assert page.locator("th:not([scope])").count() == 0
    unnamed = (
        "[...document.querySelectorAll('button, a, summary')].filter(e => !e.innerText.trim())"
    )
    assert page.evaluate(f"{unnamed}.length") == 0
    assert page.locator(".canvas:not([aria-label])").count() == 0


def test_the_comparing_page_opens_as_quietly(visit, comparison):
    page = visit(comparison, PHONE)
    assert visit.complaints == []
    assert [url for url in visit.asked if not url.startswith("data:")] == [comparison.as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    canvas = page.locator("#plot-differences .canvas")
    canvas.focus()
    canvas.press("ArrowRight")
    tip = page.locator("#plot-differences .tip").inner_text()
    assert re.search(r"^better: \+0\.\d+ to \+0\.\d+$", tip, flags=re.MULTILINE)


def test_a_page_of_thirty_thousand_rows_is_small(report, content):
    assert len(content.labels) == 30_000
    assert report.stat().st_size < 1_000_000
