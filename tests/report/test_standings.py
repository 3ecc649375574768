import dataclasses

from hypothesis import given, settings
from hypothesis import strategies as st

from desmatch.report.page import page_html
from desmatch.report.standings import selection_text, standing_rows
from tests.report.test_tables import ANYTHING

LINE = {"rows": 90, "log_loss": 0.4, "interval": [0.8, 0.9]}
VALIDATION = {
    "combine": "logit-weights",
    "standings": [
        {**LINE, "name": "small", "is_member": True, "auc": 0.83, "difference": -0.02,
         "difference_interval": [-0.03, -0.01]},
        {**LINE, "name": "large", "is_member": True, "auc": 0.85, "difference": 0.0,
         "difference_interval": [0.0, 0.0]},
        {**LINE, "name": "logit-weights", "is_member": False, "auc": 0.87, "difference": 0.02,
         "difference_interval": [0.005, 0.035]},
    ],
    "selection": {"shares": {"small": 0.25, "large": 0.75, "third": 0.0}, "selected_gain": 0.011,
                  "honest_gain": -0.002, "interval": [-0.01, 0.006], "fold_gains": []},
}  # fmt: skip


def test_members_and_combinations_stand_on_one_scale():
    rows = standing_rows(VALIDATION)
    assert [(row.name, row.note) for row in rows] == [
        ("small", "member"), ("large", "member"), ("logit-weights", "what is submitted"),
    ]  # fmt: skip
    assert {(row.bar.low, row.bar.high) for row in rows if row.bar} == {(0.8, 0.9)}
    assert rows[2].cells["difference_interval"] == (0.005, 0.035)


def test_the_gain_of_a_selection_is_told_with_what_of_it_is_real():
    text = selection_text(VALIDATION)
    assert text.startswith("Greedy selection takes small 25%, large 75%: over the best member")
    assert "+0.0110, and \N{MINUS SIGN}0.0020 (\N{MINUS SIGN}0.0100 to +0.0060)" in text
    assert selection_text({}) == ""


def test_the_page_of_an_ensemble_has_the_table(content):
    card = {**content.card, "validation": {**content.card["validation"], **VALIDATION}}
    html = page_html(dataclasses.replace(content, card=card), [])
    assert 'href="#standings"' in html
    assert "what is submitted" in html
    assert "+0.0050 to +0.0350" in html
    assert 'id="standings"' not in page_html(content, [])


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.sampled_from(["standings", "selection", "combine"]), ANYTHING))
def test_any_card_has_its_table(validation):
    assert all(row.name is not None for row in standing_rows(validation))
    assert isinstance(selection_text(validation), str)
