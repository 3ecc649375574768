"""What is summed up block by block is what is found in all rows at once."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from desmatch.data import summary as module
from desmatch.data.summary import DistinctTexts, Summary, quantile, text_hashes

TEXTS = st.lists(st.sampled_from(["0", "1", "10", "2"]), min_size=1, max_size=5).map(" ".join)
ROWS = st.lists(st.tuples(TEXTS, TEXTS, st.sampled_from([0, 1])), min_size=1, max_size=12)


def table(rows):
    a, b, labels = zip(*rows, strict=True)
    columns = [pa.array(a), pa.array(b), pa.array(labels, pa.int8())]
    return pa.table(columns, names=["a", "b", "label"])


@settings(deadline=None)
@given(rows=ROWS, cuts=st.lists(st.integers(0, 12), max_size=3), room=st.integers(2, 8))
def test_blocks_sum_to_what_all_rows_hold(rows, cuts, room):
    bounds = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    whole = table(rows)
    found = Summary(room)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SUMMED_ROWS", 5)
        for start, end in pairwise(bounds):
            found.add(whole.slice(start, end - start))
    ids = [f"{a} {b}".split() for a, b, _ in rows]
    lengths = [min(len(each), room) for each in ids]
    assert found.num_rows == len(rows)
    assert found.num_positive == sum(label for *_, label in rows)
    assert found.counts() == Counter(raw_id for each in ids for raw_id in each)
    assert found.texts.estimate() == len({text for a, b, _ in rows for text in (a, b)})
    assert found.texts.share == 1
    assert found.lengths.tolist() == np.bincount(lengths, minlength=room + 1).tolist()
    for q in (0.5, 0.99):
        assert quantile(found.lengths, q) == np.quantile(lengths, q)


@settings(deadline=None)
@given(st.lists(st.text(min_size=1, max_size=9), min_size=1, max_size=9), st.integers(0, 8))
def test_a_hash_is_of_the_text_wherever_it_lies(texts, start):
    whole = pa.array(texts)
    hashes = text_hashes(whole)
    assert len(set(hashes.tolist())) == len(set(texts))
    np.testing.assert_array_equal(text_hashes(whole.slice(start)), hashes[start:])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "HASHED_BYTES", 1)
        np.testing.assert_array_equal(text_hashes(whole), hashes)


def test_many_distinct_texts_are_estimated(monkeypatch):
    monkeypatch.setattr(module, "KEPT_TEXTS", 1000)
    found = DistinctTexts()
    for start in range(0, 60_000, 7_000):
        texts = pa.array(np.arange(start, start + 10_000) % 60_000).cast(pa.string())
        found.add(texts)
    assert 0.005 < found.share < 0.03
    assert found.estimate() == pytest.approx(60_000, rel=0.15)  # 500 to 1,000 are remembered
