import dataclasses
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from desmatch.report.page import (
    DASH,
    ReportContent,
    draw_figures,
    flat_values,
    number,
    share,
    write_report,
)

FIGURES = [
    "training-pretrain",
    "training-finetune",
    "roc",
    "reliability",
    "scores",
    "lengths",
    "components",
]


class Page(HTMLParser):
    """The elements of a page, and its text."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.texts = [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data.strip())

    @property
    def text(self):
        return " ".join(text for text in self.texts if text)


def written(run, content):
    return write_report(run, content).read_text(encoding="utf-8")


def test_page_and_figures_are_written(report):
    run = report.parent
    assert sorted(path.name for path in run.iterdir()) == ["figures", "report.html"]
    assert sorted(path.stem for path in (run / "figures").iterdir()) == sorted(FIGURES)


def test_page_is_self_contained_and_small(report):
    html = report.read_text(encoding="utf-8")
    assert len(html.encode()) < 1_000_000
    for _, attrs in Page(html).elements:
        for name in ("src", "href", "xlink:href", "srcset", "action", "data"):
            assert attrs.get(name, "#").startswith(("#", "data:"))
    assert set(re.findall(r"url\(.", html)) <= {"url(#"}
    assert "@import" not in html
    namespaces = {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert set(re.findall(r"https?://[^\"' <)]*", html)) == namespaces


def test_ids_are_unique_and_every_reference_is_met(report):
    html = report.read_text(encoding="utf-8")
    ids = re.findall(r' id="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="|url\()#([^")]+)', html)) <= set(ids)


def test_first_line_is_the_auc_with_its_interval(report):
    text = Page(report.read_text(encoding="utf-8")).text
    line = "Validation AUC 0.9213 95\N{NO-BREAK SPACE}% interval 0.9173 to 0.9254"
    assert line in text
    assert text.index(line) < text.index("minutes") < text.index("Warnings") < text.index("Figures")
    assert text.index("Figures") < text.index("Data") < text.index("Query graph")


def test_page_shows_what_the_card_holds(report, content):
    text = Page(report.read_text(encoding="utf-8")).text
    shown = ["100,000", "37.12\N{NO-BREAK SPACE}%", "0.42\N{NO-BREAK SPACE}%", "6.73", "51,234"]
    shown += ["3,881", "finetune.learning_rate 3e-05", "torch 2.13.0", "42.2", "0.9149 to 0.9279"]
    shown += ["minutes_by_stage.finetune 7.25", "0123456789ab", "rows of the largest 20,111"]
    shown += ["AUC of a test of 25,000 such rows (95 %) 0.9149 to 0.9279"]
    shown += list(content.card["warnings"])
    for each in shown:
        assert each in text


def test_every_figure_has_a_caption_of_one_sentence(content):
    drawn = list(draw_figures(content))
    assert [each.name for each in drawn] == FIGURES
    for each in drawn:
        assert re.fullmatch(r"[A-Z].*[^.]\.", each.caption)
        assert ". " not in each.caption


def test_same_content_gives_the_same_bytes(report, tmp_path, content):
    again = write_report(tmp_path, content)
    for name in ("report.html", *(f"figures/{name}.png" for name in FIGURES)):
        assert (again.parent / name).read_bytes() == (report.parent / name).read_bytes()


def test_names_of_the_user_are_escaped(tmp_path, content):
    evil = "<script>alert('x')</script>"
    card = json.loads(json.dumps(content.card))
    card["warnings"] = [evil]
    card["command"] = card["recipe_name"] = evil
    card["data"][0] |= {"path": evil, "role": evil, "sha256": evil}
    card["versions"] = card["recipe"] = {evil: evil}
    bad = ReportContent(
        card=card,
        history=[{"stage": evil, "step": 1, "loss": 1.0}],
        lengths={evil: np.array([1, 2])},
    )
    html = written(tmp_path, bad)
    assert "<script" not in html.lower()
    assert evil in Page(html).text
    assert (tmp_path / "figures/training-script-alert-x-script.png").exists()


def test_an_empty_card_is_a_page_of_dashes(tmp_path):
    text = Page(written(tmp_path, ReportContent(card={}))).text
    assert f"Validation AUC {DASH} 95\N{NO-BREAK SPACE}% interval {DASH} to {DASH}" in text
    assert "None" not in text
    assert "Figures" not in text
    assert list((tmp_path / "figures").iterdir()) == []


def paths_inside(card, path=()):
    """Yield the keys that lead to each value of nested dicts and lists."""
    for key, value in card.items() if isinstance(card, dict) else enumerate(card):
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from paths_inside(value, (*path, key))


def test_any_key_of_the_card_may_be_missing_or_null(tmp_path, content):
    bare = ReportContent(card=content.card)
    for path in paths_inside(content.card):
        for is_null in (True, False):
            card = json.loads(json.dumps(content.card))
            parent = card
            for key in path[:-1]:
                parent = parent[key]
            if is_null:
                parent[path[-1]] = None
            else:
                del parent[path[-1]]
            assert "None" not in Page(written(tmp_path, dataclasses.replace(bare, card=card))).text


def test_validation_of_one_class_leaves_its_figures_out(content):
    one_class = dataclasses.replace(content, labels=np.ones_like(content.labels))
    names = [each.name for each in draw_figures(one_class)]
    assert names == [name for name in FIGURES if name not in {"roc", "reliability", "scores"}]


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, DASH), (float("nan"), DASH), (1234567, "1,234,567"), (0.5, "0.50"), ("x", "x"),
     (True, "True")],
)  # fmt: skip
def test_numbers_are_written_for_readers(value, text):
    assert number(value, 2) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, DASH), (0.1234, "12.34\N{NO-BREAK SPACE}%"), ("x", "x")]
)
def test_shares_are_written_as_per_cent(value, text):
    assert share(value) == text


def test_nested_values_have_dotted_names():
    assert list(flat_values({"a": {"b": 1, "c": {}}, "d": [2]})) == [("a.b", 1), ("d", [2])]
