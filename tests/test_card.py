from __future__ import annotations

import copy
import json

import pytest

from desmatch.card import public_card
from desmatch.console import describe_run


@pytest.fixture
def card(finished_run):
    return json.loads((finished_run / "card.json").read_text())


def with_headline(card, name, value, interval):
    other = copy.deepcopy(card)
    headline = {"name": name, "value": value, "interval": interval, "why": "of hubs"}
    other["validation"] |= {"headline": headline, "interval": interval}
    return other


def test_a_published_card_claims_the_figure_that_its_interval_is_of(card):
    auc = card["validation"]["auc"]
    other = with_headline(card, "expected_test_auc", 0.95, [0.94, 0.96])
    published = public_card(other)["validation"]
    assert (published["auc"], published["interval"]) == (0.95, [0.94, 0.96])
    assert published["components_auc"] == auc == other["validation"]["auc"]
    plain = public_card(card)["validation"]
    assert plain["auc"] == auc
    assert not {"components_auc", "hardest"} & plain.keys()


def test_the_terminal_tells_each_figure_with_its_own_interval(card, finished_run):
    other = with_headline(card, "expected_test_auc", 0.95, [0.94, 0.96])
    text = describe_run(finished_run, other)
    assert "claimed for a test of 60 rows: 0.9500, 95 % interval 0.9400 to 0.9600 (" in text
    low, high = card["validation"]["validation_interval"]
    auc = card["validation"]["auc"]
    assert f"validation AUC: {auc:.4f}, 95 % interval {low:.4f} to {high:.4f}, " in text
