from __future__ import annotations

import itertools
from collections import Counter
from math import log

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from desmatch.data.words import LONGEST_WORD, Words, fit_words
from desmatch.schema import Special
from tests.conftest import encode_lists

TEXTS = st.lists(st.lists(st.integers(1, 12), min_size=1, max_size=8), min_size=2, max_size=12)


def brute_force_joints(texts, min_count, min_information):
    """Neighbours with a high mutual information, by a loop over texts."""
    neighbors = Counter((a, b) for text in texts for a, b in itertools.pairwise(text)
                        if min(a, b) > Special.YES)  # fmt: skip
    alone = Counter(each for text in texts for each in text)
    number, number_of_neighbors = alone.total(), neighbors.total()
    return {
        pair
        for pair, count in neighbors.items()
        if count >= min_count
        and log(count / number_of_neighbors / (alone[pair[0]] / number) / (alone[pair[1]] / number))
        >= min_information
    }


@settings(max_examples=60, deadline=None)
@given(TEXTS, st.integers(1, 3), st.sampled_from([-0.1234, 0.4567, 1.2345]))
def test_joints_are_those_of_a_loop(texts, min_count, min_information):
    texts = texts[: len(texts) // 2 * 2]
    pairs = encode_lists(list(zip(texts[::2], texts[1::2], strict=True)))
    words = fit_words(pairs, vocab_size=13, min_count=min_count, min_information=min_information)
    found = {tuple(divmod(int(joint), 13)) for joint in words.joints}
    assert found == brute_force_joints(texts, min_count, min_information)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=30), st.sets(st.integers(0, 168)))
def test_words_are_runs_of_joints_cut_at_their_longest(ids, joints):
    numbers = Words(np.array(sorted(joints), np.int64), 13).numbers(np.array(ids))
    expected, run = [0], 1
    for a, b in itertools.pairwise(ids):
        is_joined = a * 13 + b in joints and run < LONGEST_WORD
        run = run + 1 if is_joined else 1
        expected.append(expected[-1] + (not is_joined))
    assert numbers.tolist() == expected


def test_a_planted_word_is_found_among_noise():
    rng = np.random.default_rng(0)
    texts = rng.integers(7, 60, (600, 10))
    texts[:200, 3:5] = (60, 61)
    pairs = encode_lists([(a.tolist(), b.tolist()) for a, b in texts.reshape(300, 2, 10)])
    words = fit_words(pairs, vocab_size=62)
    assert words.joints.tolist() == [60 * 62 + 61]


def test_no_words_without_texts_to_count():
    pairs = encode_lists([([7], [8])])
    words = fit_words(pairs, vocab_size=9)
    assert not len(words.joints)
    assert words.numbers(np.array([2, 7, 3])).tolist() == [0, 1, 2]
