from collections import Counter
from itertools import takewhile
from math import log

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer

from desmatch.ensemble import lexical
from desmatch.ensemble.lexical import LEXICAL, count_texts, lexical_features

texts = st.lists(st.integers(0, 6).map(str), max_size=7).map(" ".join)
rows = st.lists(st.tuples(texts, texts), min_size=1, max_size=8)

CORPUS = ["0 1 2", "1 1 3", "0", "4 5 0 1", "2 2"]


def table(first, second, border, cell):
    grid = [[border(i, j) for j in range(len(second) + 1)] for i in range(len(first) + 1)]
    for i in range(1, len(first) + 1):
        for j in range(1, len(second) + 1):
            grid[i][j] = cell(grid, i, j, first[i - 1] == second[j - 1])
    return grid[-1][-1]


def edit_distance(first, second):
    def cell(grid, i, j, is_same):
        return min(grid[i - 1][j] + 1, grid[i][j - 1] + 1, grid[i - 1][j - 1] + (not is_same))

    return table(first, second, lambda i, j: i + j, cell)


def common_subsequence(first, second):
    def cell(grid, i, j, is_same):
        return grid[i - 1][j - 1] + 1 if is_same else max(grid[i - 1][j], grid[i][j - 1])

    return table(first, second, lambda *_: 0, cell)


def bm25(query, text, corpus):
    """Robertson & Zaragoza 2009, with the IDF that is never negative."""
    mean_length = np.mean([len(each.split()) for each in corpus])
    score = 0.0
    for each in set(query):
        texts_with = sum(each in other.split() for other in corpus)
        idf = log(1 + (len(corpus) - texts_with + 0.5) / (texts_with + 0.5))
        often = text.count(each)
        damping = 1.2 * (0.25 + 0.75 * len(text) / mean_length)
        score += idf * often * 2.2 / (often + damping)
    return score


def by_brute_force(a, b):
    """One pair's features, by Python's own sets and counters."""
    first, second = a.split(), b.split()
    both, either = set(first) & set(second), set(first) | set(second)
    longer = max(len(first), len(second))
    shared = sum((Counter(first) & Counter(second)).values())
    contained = sorted(
        len(both) / len(set(each)) if each else float(not either) for each in (first, second)
    )
    found = sorted([bm25(first, second, CORPUS), bm25(second, first, CORPUS)])
    prefix = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False))))
    return {
        "bm25_lower": found[0],
        "bm25_higher": found[1],
        "jaccard": len(both) / len(either) if either else 1,
        "dice": 2 * shared / (len(first) + len(second)) if either else 1,
        "containment_lower": contained[0],
        "containment_higher": contained[1],
        "edit_distance": edit_distance(first, second) / longer if longer else 0,
        "common_subsequence": common_subsequence(first, second) / longer if longer else 1,
        "common_prefix": prefix / longer if longer else 1,
    }


@settings(deadline=None, max_examples=50)
@given(rows)
@example([("", "")])
@example([("", "1 2"), ("3", "3"), ("1 2 3 4 5 6 0", "0")])
def test_features_are_those_of_a_loop(pairs):
    a, b = ([pair[side] for pair in pairs] for side in (0, 1))
    found = lexical_features(a, b, count_texts(CORPUS))
    assert tuple(found) == LEXICAL
    for name in set(LEXICAL) - {"tfidf_cosine"}:
        expected = [by_brute_force(*pair)[name] for pair in pairs]
        np.testing.assert_allclose(found[name], expected, atol=1e-9, err_msg=name)


@settings(deadline=None, max_examples=50)
@given(rows)
def test_the_cosine_is_that_of_scikit_learn(pairs):
    a, b = (["7 " + pair[side] if pair[side] else "7" for pair in pairs] for side in (0, 1))
    vectorizer = TfidfVectorizer(token_pattern=r"\S+").fit([*a, *b])
    expected = vectorizer.transform(a).multiply(vectorizer.transform(b)).sum(axis=1)
    found = lexical_features(a, b, count_texts(a, b))["tfidf_cosine"]
    np.testing.assert_allclose(found, np.asarray(expected).ravel(), atol=1e-9)


@settings(deadline=None, max_examples=50)
@given(rows)
def test_the_order_of_the_texts_changes_nothing(pairs):
    a, b = ([pair[side] for pair in pairs] for side in (0, 1))
    there, back = (lexical_features(*each, count_texts(CORPUS)) for each in ((a, b), (b, a)))
    for name in LEXICAL:
        np.testing.assert_allclose(there[name], back[name], atol=1e-12, err_msg=name)


@pytest.mark.parametrize(("block", "cells"), [(2, 10**6), (100, 1), (3, 10)])
def test_blocks_and_chunks_change_nothing(monkeypatch, block, cells):
    a, b = ["1 2", "3", "1 1 4", "", "2", "0 1 2 3 4 5"], ["2 1", "", "0", "", "2 3", "1"]
    counts = count_texts(a, b)
    expected = lexical_features(a, b, counts)
    monkeypatch.setattr(lexical, "BLOCK", block)
    monkeypatch.setattr(lexical, "BLOCK_CELLS", cells)
    found = lexical_features(pa.chunked_array([a[:2], a[2:]]), pa.array(b), counts)
    for name in LEXICAL:
        np.testing.assert_array_equal(found[name], expected[name])


def test_only_the_first_ids_of_a_long_text_are_aligned(monkeypatch):
    monkeypatch.setattr(lexical, "MAX_ALIGNED", 3)
    found = lexical_features(["1 2 3 4 5"], ["1 2 9 9 9"], count_texts(CORPUS))
    assert found["edit_distance"] == pytest.approx([1 / 3])
    assert found["common_prefix"] == pytest.approx([2 / 3])
    assert found["jaccard"] == pytest.approx([2 / 6])


def test_texts_are_counted_once_for_each_id():
    counts = count_texts(["1 1 2", "2"], pa.array(["3", ""]))
    assert counts.texts_with == {"1": 1, "2": 2, "3": 1}
    assert counts.num_texts == 4
    assert counts.mean_length == 5 / 4


def test_no_pair_has_no_features():
    found = lexical_features([], [], count_texts([]))
    assert {len(each) for each in found.values()} == {0}
