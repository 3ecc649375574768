from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from desmatch.data.closure import UNKNOWN
from desmatch.data.evidence import TextPairs, answer, weigh_answers


def groups_of_equal_texts(noise, num_texts=400, num_pairs=4000, seed=0):
    """Pairs of texts of 40 meanings; a label says whether both mean the same, or lies."""
    rng = np.random.default_rng(seed)
    pairs = TextPairs(*rng.integers(num_texts, size=(2, num_pairs)))
    meaning = rng.integers(40, size=num_texts)
    near = rng.random(num_pairs) < 0.5  # half of the pairs are of one meaning
    place = np.argsort(meaning, kind="stable")
    pairs.a[near] = place[rng.integers(num_texts - 1, size=near.sum())]
    pairs.b[near] = place[np.searchsorted(meaning[place], meaning[pairs.a[near]])]
    labels = (meaning[pairs.a] == meaning[pairs.b]).astype(np.int8)
    return pairs, np.where(rng.random(num_pairs) < noise, 1 - labels, labels).astype(np.int8)


def equal_texts(known, labels, a):
    """Spread from a text along pairs of label 1."""
    equal = {a}
    while True:
        more = {y for x, y, label in zip(*known, labels, strict=True) if label and x in equal}
        more |= {x for x, y, label in zip(*known, labels, strict=True) if label and y in equal}
        if more <= equal:
            return equal
        equal |= more


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(0, 1)), min_size=1),
       st.integers(0, 7), st.integers(0, 7))  # fmt: skip
def test_an_answer_is_that_of_a_search(rows, a, b):
    known = TextPairs(*(np.array(each) for each in list(zip(*rows, strict=True))[:2]))
    labels = np.array([row[2] for row in rows], np.int8)
    (found,) = answer(known, labels, TextPairs(np.array([a]), np.array([b])))
    of_a, of_b = (equal_texts(known, labels, each) for each in (a, b))
    apart = [(x, y) for x, y, label in rows if not label]
    is_sound = all(not (x in each and y in each) for x, y in apart for each in (of_a, of_b))
    is_apart = any((x in of_a and y in of_b) or (y in of_a and x in of_b) for x, y in apart)
    expected = UNKNOWN
    if is_sound and b in of_a:
        expected = 1
    elif is_sound and is_apart:
        expected = 0
    assert found == expected


@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_the_weight_is_how_often_answers_are_right(noise):
    pairs, labels = groups_of_equal_texts(noise)
    evidence = weigh_answers(pairs, labels, rng=np.random.default_rng(1))
    share = evidence.num_right / evidence.num_answered
    assert evidence.num_answered > 50
    if not noise:
        assert share == 1
        assert evidence.ratios[1] > 4
        assert evidence.ratios[0] < -2
    assert evidence.ratios[0] < 0 < evidence.ratios[1]


def test_the_evidence_added_to_the_prior_is_the_share_of_the_label():
    pairs, labels = groups_of_equal_texts(0.02, num_pairs=20_000)
    fitted = np.arange(len(labels)) < 12_000
    known = TextPairs(pairs.a[fitted], pairs.b[fitted])
    evidence = weigh_answers(known, labels[fitted], rng=np.random.default_rng(1))
    answers = answer(known, labels[fitted], TextPairs(pairs.a[~fitted], pairs.b[~fitted]))
    prior = np.log(labels.mean() / (1 - labels.mean()))
    probs = expit(prior + evidence.logits(answers))
    for value in (0, 1):
        here = answers == value
        if here.sum() > 100:
            assert probs[here].mean() == pytest.approx(labels[~fitted][here].mean(), abs=0.05)


def test_answers_that_are_noise_weigh_next_to_nothing():
    rng = np.random.default_rng(0)
    pairs = TextPairs(*rng.integers(300, size=(2, 400)))
    labels = rng.integers(2, size=400).astype(np.int8)
    evidence = weigh_answers(pairs, labels, rng=rng)
    assert np.abs(evidence.ratios).max() < 1.5


def test_without_an_answer_nothing_is_added():
    pairs, labels = groups_of_equal_texts(0.0)
    evidence = weigh_answers(pairs, labels, rng=np.random.default_rng(1))
    added = evidence.logits(np.array([UNKNOWN, 0, 1], np.int8))
    assert added.tolist() == [0.0, *evidence.ratios]
