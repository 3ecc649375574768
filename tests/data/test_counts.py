"""Counts that are added up block by block are those of a counter over all texts."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from desmatch.data import counts
from desmatch.data.counts import IdCounter, IdCounts, count_ids
from desmatch.data.vocabulary import fit_vocabulary
from desmatch.recipe import DataConfig

IDS = st.text("01279aé\U0001f600", min_size=1, max_size=3)
BLOCKS = st.lists(st.lists(IDS, min_size=1, max_size=9), max_size=9)


@settings(deadline=None)
@given(blocks=BLOCKS, merged=st.integers(0, 6))
def test_sums_of_blocks_are_those_of_all_ids(blocks, merged):
    expected = Counter(raw_id for block in blocks for raw_id in block)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counts, "MERGED_IDS", merged)
        counter = IdCounter()
        for block in blocks:
            counter.add(IdCounts.of(Counter(block)))
        total = counter.total()
    assert total == expected
    assert len(total) == len([*total]) == len(expected)


@pytest.mark.parametrize("counted", [1, 2, 100])
def test_texts_are_counted_in_slices(monkeypatch, counted):
    monkeypatch.setattr(counts, "COUNTED_TEXTS", counted)
    texts = pa.chunked_array([["1 2 1", ""], ["3"], ["2 2"]])
    assert count_ids(texts, pa.array(["1"])) == {"1": 3, "2": 3, "3": 1}


def test_looking_up_gives_zero_for_what_was_not_seen():
    found = IdCounts.of({"1": 7, "2": 5}).look_up(pa.array(["2", "3", "1", "2"]))
    assert found.tolist() == [5, 0, 7, 5]
    assert IdCounts.of({}).look_up(pa.array(["2"])).tolist() == [0]


def test_counts_are_read_as_they_were_written(tmp_path):
    given_counts = IdCounts.of({"b": 2, "a": 9, "é": 2})
    given_counts.save(tmp_path / "counts.parquet")
    assert IdCounts.load(tmp_path / "counts.parquet") == given_counts
    assert given_counts.by_frequency.to_pydict() == {"id": ["a", "b", "é"], "count": [9, 2, 2]}


NUMBERS = st.text("0123456789", min_size=1, max_size=25)


@settings(deadline=None)
@given(
    seen=st.dictionaries(NUMBERS, st.integers(1, 4), max_size=12)
    | st.dictionaries(IDS | st.just("[RARE1]") | st.just("[CLS]"), st.integers(1, 4), max_size=12),
    min_count=st.integers(1, 3),
)
def test_a_vocabulary_is_sorted_as_python_sorts(seen, min_count):
    kept = [raw_id for raw_id, count in seen.items() if count >= min_count and raw_id[0] != "["]
    if all(raw_id.isascii() and raw_id.isdigit() for raw_id in kept):
        kept.sort(key=lambda raw_id: (-seen[raw_id], int(raw_id), raw_id))
    else:
        kept.sort(key=lambda raw_id: (-seen[raw_id], raw_id))
    vocabulary = fit_vocabulary(seen, DataConfig(min_count=min_count))
    assert [*vocabulary.ids] == kept
    np.testing.assert_array_equal(vocabulary.counts, [seen[raw_id] for raw_id in kept])
