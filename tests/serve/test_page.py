"""The service's page as a browser shows it."""

from __future__ import annotations

import pytest

from tests.report.test_browser import PHONE


@pytest.fixture
def page(browser, service):
    context = browser.new_context(viewport=PHONE)
    page = context.new_page()
    page.complaints, page.asked = [], []
    page.on("console", lambda message: page.complaints.append(message.text))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("request", lambda request: page.asked.append(request.url))
    page.goto(service.url)
    yield page
    context.close()


def compare(page, a, b):
    page.fill("#a", a)
    page.fill("#b", b)
    page.click("button")


def test_a_pair_is_shown_with_both_orders_and_every_ids_weight(page, service):
    compare(page, "1 2 unheard-of", "2 3")
    page.wait_for_selector("#result:not([hidden])")
    first = ["2 unheard-of", "1 unheard-of", "1 2"]
    left_out = [*((text, "2 3") for text in first), *(("1 2 unheard-of", text) for text in "32")]
    whole, *others = service.match([("1 2 unheard-of", "2 3"), *left_out])
    assert page.inner_text("#score") == f"{whole['score']:.4f}"
    assert page.inner_text("#forward") == f"{whole['score_forward']:.4f}"
    assert page.inner_text("#backward") == f"{whole['score_backward']:.4f}"
    assert page.inner_text("#unknown") == "1 unknown ids"
    weights = [float(each.get_attribute("data-weight")) for each in page.query_selector_all("li")]
    expected = [whole["score"] - each["score"] for each in others]
    assert weights == pytest.approx(expected, abs=1e-6)
    assert page.complaints == []
    assert {url.split("?")[0] for url in page.asked} == {
        f"{service.url}/", f"{service.url}/v1/match"
    }  # fmt: skip
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_a_refusal_is_told_on_the_page(page):
    compare(page, "1 " * 1001, "2")
    page.wait_for_function("document.getElementById('problem').textContent !== ''")
    assert "1000 at most" in page.inner_text("#problem")
    assert not page.is_visible("#result")
