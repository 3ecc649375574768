from __future__ import annotations

from collections import Counter
from itertools import pairwise
from math import log

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from desmatch.data import features
from desmatch.data.features import FEATURES, row_features
from desmatch.data.vocabulary import fit_vocabulary
from desmatch.recipe import DataConfig

texts = st.lists(st.integers(0, 6).map(str), max_size=6).map(" ".join)
rows = st.lists(st.tuples(texts, texts), max_size=8)

COUNTS = {"0": 9, "1": 5, "2": 5, "3": 2, "4": 1}
"""Ids 5 and 6 are in no file."""


def by_brute_force(a, b, vocabulary, counts):
    """One pair's features, by Python's own sets and counters."""
    first, second = a.split(), b.split()
    ids = first + second
    union = set(first) | set(second)
    return {
        "length": len(ids),
        "length_difference": abs(len(first) - len(second)),
        "overlap": len(set(first) & set(second)) / len(union) if union else 1,
        "oov_share": sum(each not in vocabulary.ids for each in ids) / len(ids) if ids else 0,
        "rarest_count": min((counts.get(each, 0) for each in ids), default=0),
        "mean_log_count": sum(log(1 + counts.get(each, 0)) for each in ids) / max(1, len(ids)),
        "is_same_bag": Counter(first) == Counter(second),
    }


@settings(deadline=None)
@given(rows, st.booleans())
@example([], True)
@example([("", "")], True)
@example([("1 1 2", "2 1 1"), ("1 1 2", "1 2 2"), ("", "3")], False)
def test_features_are_those_of_a_loop(pairs, knows_all_counts):
    vocabulary = fit_vocabulary(COUNTS, DataConfig(min_count=5))
    own = dict(zip(vocabulary.ids, vocabulary.counts, strict=True))
    counts = COUNTS if knows_all_counts else own
    found = row_features(
        [a for a, _ in pairs],
        [b for _, b in pairs],
        vocabulary,
        COUNTS if knows_all_counts else None,
    )
    assert tuple(found) == FEATURES
    for name in FEATURES:
        expected = [by_brute_force(a, b, vocabulary, counts)[name] for a, b in pairs]
        np.testing.assert_allclose(found[name], expected, atol=1e-12, err_msg=name)
        assert found[name].dtype == np.float64


@settings(deadline=None)
@given(rows)
def test_the_order_of_the_texts_changes_nothing(pairs):
    vocabulary = fit_vocabulary(COUNTS, DataConfig(min_count=2))
    first, second = [a for a, _ in pairs], [b for _, b in pairs]
    there, back = (row_features(*each, vocabulary) for each in ((first, second), (second, first)))
    for name in FEATURES:
        np.testing.assert_allclose(there[name], back[name], atol=1e-12)


@pytest.mark.parametrize("cuts", [[0, 3], [0, 1, 3], [0, 0, 2, 3]])
def test_chunks_of_a_table_change_nothing(cuts):
    vocabulary = fit_vocabulary(COUNTS, DataConfig(min_count=2))
    a, b = ["1 2", "3", "1 1 4"], ["2 1", "", "0"]
    chunked = pa.chunked_array([a[i:j] for i, j in pairwise(cuts)], pa.string())
    found, expected = row_features(chunked, b, vocabulary), row_features(a, b, vocabulary)
    for name in FEATURES:
        np.testing.assert_array_equal(found[name], expected[name])


def test_blocks_change_nothing(monkeypatch):
    vocabulary = fit_vocabulary(COUNTS, DataConfig(min_count=2))
    a, b = ["1 2", "3", "1 1 4", "", "2"], ["2 1", "", "0", "", "2 3"]
    expected = row_features(a, b, vocabulary)
    monkeypatch.setattr(features, "BLOCK", 2)
    found = row_features(a, b, vocabulary)
    for name in FEATURES:
        np.testing.assert_array_equal(found[name], expected[name])
