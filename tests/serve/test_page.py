"""The service's page as a browser shows it."""

from __future__ import annotations

import json
from contextlib import contextmanager

import pytest

from tests.report.test_browser import PHONE


@contextmanager
def opened(browser, service):
    context = browser.new_context(viewport=PHONE)
    page = context.new_page()
    page.complaints, page.asked = [], []
    page.on("console", lambda message: page.complaints.append(message.text))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("request", lambda request: page.asked.append(request.url))
    page.goto(service.url)
    yield page
    context.close()


@pytest.fixture
def page(browser, service):
    with opened(browser, service) as page:
        yield page


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
    items = page.query_selector_all(".ids li")
    weights = [float(each.get_attribute("data-weight")) for each in items]
    expected = [whole["score"] - each["score"] for each in others]
    assert weights == pytest.approx(expected, abs=1e-6)
    assert page.inner_text("#no-rows").startswith("This export holds no training rows")
    assert page.complaints == []
    assert {url.split("?")[0] for url in page.asked} == {
        f"{service.url}/", f"{service.url}/v1/match"
    }  # fmt: skip
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_a_refusal_is_told_on_the_page(page):
    compare(page, "1 " * 1001, "2")
    page.wait_for_selector("#problem:not(:empty)")
    assert "1000 at most" in page.inner_text("#problem")
    assert not page.is_visible("#result")


def test_the_nearest_rows_are_shown_with_their_labels(browser, service_with_rows):
    question = {"a": "1 2 unheard-of", "b": "2 3"}
    _, answer, _ = service_with_rows.request("POST", "/v1/nearest", json.dumps(question))
    rows = json.loads(answer)["rows"]
    with opened(browser, service_with_rows) as page:
        compare(page, *question.values())
        page.wait_for_selector("#rows li")
        shown = [each.inner_text().split("\n") for each in page.query_selector_all("#rows li")]
        words = {1: "match", 0: "no match"}
        assert [[part.strip() for part in lines] for lines in shown] == [
            [f"{words[row['label']]}, similarity {row['similarity']:.3f}", row["a"], row["b"]]
            for row in rows
        ]
        marked = {each.inner_text() for each in page.query_selector_all("#rows mark")}
        held = {raw_id for row in rows for raw_id in f"{row['a']} {row['b']}".split()}
        assert marked == held & {"1", "2", "3"}
        assert page.complaints == []
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        compare(page, "unheard-of", "nor this")
        page.wait_for_selector("#rows:empty", state="attached")
        assert page.inner_text("#no-rows") == "None has an id of these texts."
