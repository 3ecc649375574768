import base64
import dataclasses
import hashlib
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from desmatch.report.content import ReportContent
from desmatch.report.drawings import draw_figures
from desmatch.report.html import DASH, chance, coded, number, raw, sentence, share, signed
from desmatch.report.page import page_html, write_report
from desmatch.runs import read_json

FIGURES = [
    "roc",
    "precision",
    "reliability",
    "scores",
    "lengths",
    "weights",
    "components",
    "training-pretrain",
    "training-finetune",
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
    assert sorted(path.name for path in run.iterdir()) == [
        "figures",
        "report.html",
        "report.json",
    ]
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


def test_the_policy_allows_the_one_script_and_nothing_else(report):
    html = report.read_text(encoding="utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)[1]
    (script,) = re.findall(r"<script>(.*?)</script>", html, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "img-src data:"
    )
    assert html.count("<script") == 1 + len(FIGURES)  # the others hold points, as JSON
    assert html.count('<script type="application/json">') == len(FIGURES)


def test_first_line_is_the_figure_we_recommend_with_its_interval_and_why(report, content):
    text = Page(report.read_text(encoding="utf-8")).text
    line = (
        "Validation AUC, weighted like the test 0.9187 "
        "95\N{NO-BREAK SPACE}% interval 0.9121 to 0.9250"
    )
    order = [line, content.card["validation"]["headline"]["why"], "minutes", "Warnings",
             "What to do next", "Areas under curves", "Slices", "Files", "Query graph",
             "Hardest rows"]  # fmt: skip
    places = [text.index(part, text.index(line)) for part in order]
    assert places == sorted(places)


def test_page_shows_what_the_card_holds(report, content):
    text = Page(report.read_text(encoding="utf-8")).text
    nbsp = "\N{NO-BREAK SPACE}"
    shown = ["100,000", f"37.12{nbsp}%", f"0.42{nbsp}%", "6.73", "51,234", "3,881", "20,111"]
    shown += ["finetune.learning_rate 3e-05", "torch 2.13.0", "42.2", "0.9173 to 0.9254"]
    shown += ["minutes_by_stage.finetune 7.25", "0123456789ab", "0.8743", "0.9149 to 0.9279"]
    shown += ["fold 4 4,000 0.9280", "logits over 1.271", "0.3098", "accuracy 0.8612 0.5120"]
    shown += ["share of rows on the other side of 0.5 0.0121", "14,321", "0.6251 to 0.6377"]
    shown += [f"10 to 19 7,900 35.00{nbsp}% 0.9250 +0.0037 0.9150 to 0.9340"]
    shown += [
        "gaiic_track3_round1_train.tsv:32 label 0 score 1.000",
        "gaiic_track3_round1_train.tsv:71, label 1, similarity 0.610",
    ]
    shown += list(content.card["warnings"])
    for each in shown:
        assert each in text


def test_a_plot_of_the_page_has_its_points_its_legend_and_its_caption(report, content):
    html = report.read_text(encoding="utf-8")
    drawn = list(draw_figures(content))
    assert [each.name for each in drawn] == FIGURES
    blocks = re.findall(r'<script type="application/json">(.*?)</script>', html, flags=re.DOTALL)
    labels = [series["label"] for block in blocks for series in json.loads(block)]
    assert html.count('aria-pressed="true"') == len(labels)
    for each in drawn:
        assert re.fullmatch(r"[A-Z].*[^.]\.", each.caption)
        assert ". " not in each.caption
        assert each.caption in Page(html).text


def test_json_holds_every_figure_of_the_page(report, content):
    found = read_json(report.parent / "report.json")
    assert found["headline"]["value"] == 0.9187
    assert found["card"] == json.loads(json.dumps(content.card))
    assert found["next_steps"]
    assert list(found["figures"]) == FIGURES
    (chance, roc) = found["figures"]["roc"]["series"]
    assert chance["x"] == []
    assert (roc["x"][0], roc["y"][0], roc["x"][-1], roc["y"][-1]) == (0, 0, 1, 1)


def test_json_says_null_for_what_is_no_number(tmp_path):
    write_report(tmp_path, ReportContent(card={"validation": {"auc": float("nan"), "rows": 3}}))
    found = read_json(tmp_path / "report.json")
    assert found["card"] == {"validation": {"auc": None, "rows": 3}}


def test_same_content_gives_the_same_bytes(report, tmp_path, content):
    again = write_report(tmp_path, content)
    for name in ("report.html", "report.json", *(f"figures/{name}.png" for name in FIGURES)):
        assert (again.parent / name).read_bytes() == (report.parent / name).read_bytes()


def draw_names(content):
    return [each.name for each in draw_figures(content)]


def test_names_of_the_user_are_escaped(tmp_path, content):
    evil = "<script>alert('x')</script>"
    card = json.loads(json.dumps(content.card))
    card["warnings"] = [evil]
    card["command"] = card["recipe_name"] = evil
    card["data"][0] |= {"path": evil, "role": evil, "sha256": evil}
    card["versions"] = card["recipe"] = {evil: evil}
    card["validation"]["slices"][0] |= {"slice": evil, "value": evil}
    card["validation"]["headline"]["why"] = evil
    card["validation"]["hardest"][0] |= {"a": evil, "file": evil}
    card["drift"]["features"][0]["name"] = evil
    bad = ReportContent(
        card=card,
        history=[{"stage": evil, "step": 1, "loss": 1.0}],
        lengths={evil: np.array([1, 2])},
    )
    html = written(tmp_path, bad)
    assert html.lower().count("<script") == 1 + len(draw_names(bad))
    assert evil in Page(html).text
    assert (tmp_path / "figures/training-script-alert-x-script.png").exists()


def test_an_empty_card_is_a_page_of_dashes(tmp_path):
    text = Page(written(tmp_path, ReportContent(card={}))).text
    assert f"Validation AUC {DASH} 95\N{NO-BREAK SPACE}% interval {DASH} to {DASH}" in text
    assert "None" not in text
    assert "Slices" not in text
    assert "What to do next" not in text
    assert list((tmp_path / "figures").iterdir()) == []


def shortened(card):
    """The card with the first item of every list."""
    if isinstance(card, dict):
        return {key: shortened(value) for key, value in card.items()}
    return [shortened(card[0])] if isinstance(card, list) and isinstance(card[0], dict) else card


def paths_inside(card, path=()):
    """Yield the keys that lead to each value of nested dicts and lists."""
    for key, value in card.items() if isinstance(card, dict) else enumerate(card):
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from paths_inside(value, (*path, key))


@pytest.mark.parametrize("is_null", [True, False])
def test_any_key_of_the_card_may_be_missing_or_null(content, is_null):
    whole = shortened(content.card)
    for path in paths_inside(whole):
        card = json.loads(json.dumps(whole))
        parent = card
        for key in path[:-1]:
            parent = parent[key]
        if is_null:
            parent[path[-1]] = None
        else:
            del parent[path[-1]]
        assert "None" not in Page(page_html(ReportContent(card=card), [])).text


def test_validation_of_one_class_leaves_its_figures_out(content):
    one_class = dataclasses.replace(content, labels=np.ones_like(content.labels))
    left_out = {"roc", "precision", "reliability", "scores"}
    assert draw_names(one_class) == [name for name in FIGURES if name not in left_out]


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


def test_differences_have_their_sign():
    assert signed(-0.01234) == "\N{MINUS SIGN}0.0123"
    assert signed(0.5, 1) == "+0.5"
    assert signed(None) == DASH


def test_what_one_would_type_is_code():
    assert coded("a <b>; `desmatch run X` or --validation.random_share 0.05, well-known") == (
        "a &lt;b&gt;; <code>desmatch run X</code> or <code>--validation.random_share 0.05</code>, "
        "well-known"
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "below 0.1 %"), (0.5, "50.0 %"), (0.9, "90.0 %"), (1.0, "above 99.9 %")],
)
def test_a_chance_is_never_certain(value, text):
    assert chance(value).replace("\N{NO-BREAK SPACE}", " ") == text


def test_a_sentence_has_a_capital_and_a_stop():
    assert sentence("so it is") == sentence("So it is.") == "So it is."


def test_equal_weights_are_not_drawn(content):
    equal = dataclasses.replace(content, weights=np.ones(9))
    assert draw_names(equal) == [name for name in FIGURES if name != "weights"]


def test_cells_without_a_number_sort_last():
    assert raw(0.25) == "0.25"
    assert raw(None) == raw(float("nan")) == raw("x") == ""
