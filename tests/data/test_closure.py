from __future__ import annotations

from itertools import combinations, combinations_with_replacement

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from desmatch.data.closure import UNKNOWN, close, infer_closure

NUM_TEXTS = 9

labelled = st.lists(
    st.tuples(st.integers(0, 8), st.integers(0, 8), st.integers(0, 1)), min_size=1, max_size=14
)


def arrays_of(rows):
    a, b, labels = np.array(rows).T
    return a, b, labels.astype(np.int8)


def equal_sets(rows):
    """Text to the set of its equals, merged until nothing changes."""
    equal = {text: {text} for text in range(NUM_TEXTS)}
    for _ in range(NUM_TEXTS):
        for a, b, label in rows:
            if label:
                union = equal[a] | equal[b]
                equal.update(dict.fromkeys(union, union))
    return equal


def by_brute_force(rows):
    """{(low, high): label} of all that follows."""
    equal = equal_sets(rows)
    differ = [(equal[a], equal[b]) for a, b, label in rows if not label]
    unsound = [one for one, other in differ if one is other]
    answers = {}
    for low, high in combinations_with_replacement(range(NUM_TEXTS), 2):
        pair = (equal[low], equal[high])
        if pair[0] in unsound or pair[1] in unsound:
            continue
        if pair[0] is pair[1]:
            answers[low, high] = 1
        elif pair in differ or pair[::-1] in differ:
            answers[low, high] = 0
    return answers


@settings(deadline=None)
@given(labelled)
def test_answers_are_those_of_the_rules_applied_until_nothing_is_new(rows):
    closure = infer_closure(*arrays_of(rows), num_texts=NUM_TEXTS)
    expected = by_brute_force(rows)
    pairs = [(a, b) for a in range(NUM_TEXTS + 2) for b in range(NUM_TEXTS + 2)]
    found = closure.answers(*np.array(pairs).T)
    for (a, b), answer in zip(pairs, found, strict=True):
        assert answer == expected.get((min(a, b), max(a, b)), UNKNOWN)


def test_a_contradiction_is_found_and_nothing_follows_from_its_class():
    rows = [(0, 1, 1), (1, 2, 1), (0, 2, 0), (2, 3, 0), (4, 5, 1), (5, 6, 1), (6, 7, 0), (8, 8, 0)]
    a, b, labels = arrays_of(rows)
    closure = infer_closure(a, b, labels, num_texts=NUM_TEXTS)
    assert np.flatnonzero(closure.contradicted).tolist() == [2, 7]
    new = close(a, b, labels, cap=10, rng=np.random.default_rng(0))
    assert {frozenset(pair) for pair in zip(new.a, new.b, strict=True)} <= {
        frozenset(pair) for pair in [(4, 6), (4, 7), (5, 7)]
    }
    assert new.labels.tolist() == [1, 0]  # the rows are 4 to 4, and one new pair has label 1


@settings(deadline=None)
@given(labelled, st.floats(0, 3), st.integers(0, 9))
def test_new_pairs_follow_are_not_known_and_come_once(rows, cap, seed):
    a, b, labels = arrays_of(rows)
    new = close(a, b, labels, cap=cap, rng=np.random.default_rng(seed))
    answers = by_brute_force(rows)
    pairs = [(min(x, y), max(x, y)) for x, y in zip(new.a.tolist(), new.b.tolist(), strict=True)]
    known = {(min(x, y), max(x, y)) for x, y, _ in rows}
    assert len(set(pairs)) == len(pairs) <= cap * len(rows)
    assert not known & set(pairs)
    assert [answers[pair] for pair in pairs] == new.labels.tolist()
    assert all(x != y for x, y in pairs)
    share = labels.mean()
    assert abs(new.labels.sum() - share * len(pairs)) <= 1


def test_all_that_follows_from_a_path_of_equal_texts_comes_where_the_cap_allows():
    a, b = np.arange(4), np.arange(1, 5)  # 0 = 1 = 2 = 3 = 4
    new = close(a, b, np.ones(4, np.int8), cap=10, rng=np.random.default_rng(0))
    found = {(min(pair), max(pair)) for pair in zip(new.a.tolist(), new.b.tolist(), strict=True)}
    everything = {(x, y) for x, y in combinations(range(5), 2) if y - x > 1}
    assert found < everything
    assert len(found) == 5  # of the six at most one a text


def test_a_large_class_does_not_drown_small_ones():
    star = [(0, leaf, 1) for leaf in range(1, 1001)]
    small = [(1001 + 3 * k, 1002 + 3 * k, 1) for k in range(50)]
    small += [(1002 + 3 * k, 1003 + 3 * k, 1) for k in range(50)]
    a, b, labels = arrays_of(star + small)
    new = close(a, b, labels, cap=5, rng=np.random.default_rng(0))
    in_star = new.a < 1001
    assert 900 < in_star.sum() <= 1001
    assert (~in_star).sum() == 50


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_the_ratio_of_labels_is_that_of_the_rows(share):
    rng = np.random.default_rng(1)
    meaning = rng.integers(0, 300, 2000)
    a = rng.integers(0, 2000, 4000)
    by_meaning = np.argsort(meaning, kind="stable")
    nearest = by_meaning[np.searchsorted(meaning[by_meaning], meaning[a])]
    b = np.where(rng.random(4000) < share, nearest, rng.integers(0, 2000, 4000))
    labels = (meaning[a] == meaning[b]).astype(np.int8)
    new = close(a, b, labels, cap=0.5, rng=rng)
    assert len(new.a) > 200
    assert new.labels.mean() == pytest.approx(labels.mean(), abs=2 / len(new.a))
    np.testing.assert_array_equal(new.labels, meaning[new.a] == meaning[new.b])


def test_the_same_generator_gives_the_same_pairs():
    a, b, labels = arrays_of([(0, 1, 1), (1, 2, 1), (2, 3, 0), (3, 4, 1), (4, 5, 1)])
    one, two = (close(a, b, labels, cap=2, rng=np.random.default_rng(4)) for _ in range(2))
    for first, second in zip(one, two, strict=True):
        np.testing.assert_array_equal(first, second)


def test_nothing_follows_from_nothing():
    none = np.empty(0, np.int64)
    new = close(none, none, none.astype(np.int8), cap=1, rng=np.random.default_rng(0))
    assert len(new.a) == len(new.b) == len(new.labels) == 0
