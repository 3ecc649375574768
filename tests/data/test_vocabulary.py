from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from desmatch.data.counts import IdCounts, count_ids
from desmatch.data.vocabulary import (
    FEW_PAIRS,
    NUM_SPECIAL,
    Vocabulary,
    fit_vocabulary,
    truncated_lengths,
)
from desmatch.recipe import DataConfig
from desmatch.schema import Special

texts = st.lists(st.integers(0, 12).map(str), min_size=1, max_size=14).map(" ".join)
pairs = st.lists(st.tuples(texts, texts), min_size=1, max_size=8)


def encoded_lists(vocabulary, rows):
    """Token ids of each side of each pair, however the texts come."""
    sides = [[a for a, _ in rows], [b for _, b in rows]]
    assert len(rows) <= FEW_PAIRS
    encoded, few = vocabulary.encode(*map(pa.array, sides)), vocabulary.encode(*sides)
    for in_arrays, one_by_one in zip(encoded, few, strict=True):
        np.testing.assert_array_equal(in_arrays, one_by_one, strict=True)
    flat = [
        encoded.ids[start:end].tolist()
        for start, end in zip(encoded.offsets, encoded.offsets[1:], strict=False)
    ]
    return list(zip(flat[::2], flat[1::2], strict=True))


def test_ids_are_sorted_by_count_then_by_number():
    counts = {"10": 5, "9": 5, "2": 7, "3": 1}
    vocabulary = fit_vocabulary(counts, DataConfig(min_count=2))
    assert vocabulary.ids == ("2", "9", "10")
    assert vocabulary.counts == (7, 5, 5)
    assert vocabulary.tokens[: len(Special)] == [
        "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[NO]", "[YES]",
    ]  # fmt: skip


def test_ids_that_are_no_numbers_are_sorted_as_texts():
    assert fit_vocabulary({"b": 3, "a10": 3, "a9": 3}, DataConfig(min_count=1)).ids == (
        "a10",
        "a9",
        "b",
    )


def test_an_id_spelled_like_a_special_token_gets_no_row_of_its_own():
    vocabulary = fit_vocabulary({"[MASK]": 9, "4": 9}, DataConfig(min_count=1))
    assert vocabulary.ids == ("4",)


@given(pairs)
def test_counts_are_those_of_a_counter(rows):
    column = pa.array([a for a, _ in rows])
    assert count_ids(column) == Counter(" ".join(a for a, _ in rows).split())


@given(a=st.integers(1, 60), b=st.integers(1, 60), room=st.integers(2, 40))
def test_truncation_keeps_what_fits_and_cuts_the_longer_text(a, b, room):
    kept_a, kept_b = (
        int(kept[0]) for kept in truncated_lengths(np.array([a]), np.array([b]), room)
    )
    assert kept_a + kept_b == min(a + b, room)
    if kept_a < a:
        assert kept_a >= min(kept_b, b) - 1
    if kept_b < b:
        assert kept_b >= min(kept_a, a) - 1


@settings(max_examples=40, deadline=None)
@given(rows=pairs, max_length=st.integers(5, 24), min_count=st.integers(1, 4))
def test_the_saved_tokenizer_gives_the_ids_of_encode(tmp_path_factory, rows, max_length, min_count):
    folder = tmp_path_factory.mktemp("tokenizer")
    counts = Counter(" ".join(f"{a} {b}" for a, b in rows).split())
    vocabulary = fit_vocabulary(counts, DataConfig(max_length=max_length, min_count=min_count))
    vocabulary.save(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    theirs = tokenizer(
        [a for a, _ in rows],
        [b for _, b in rows],
        truncation="longest_first",
        max_length=max_length,
    )
    cls, sep = int(Special.CLS), int(Special.SEP)
    ours = [[cls, *a, sep, *b, sep] for a, b in encoded_lists(vocabulary, rows)]
    assert theirs["input_ids"] == ours
    assert all(not any(types) for types in theirs["token_type_ids"])
    assert Vocabulary.load(folder) == vocabulary


def cut_by_hand(*sides, room):
    kept = truncated_lengths(*(np.array([len(side)]) for side in sides), room)
    return [side[: int(length)] for side, (length,) in zip(sides, kept, strict=True)]


def placeholders_by_hand(vocabulary, rows):
    """The k-th different rare id of a pair becomes placeholder k, one pair at a time."""
    known = {raw_id: vocabulary.first_id + rank for rank, raw_id in enumerate(vocabulary.ids)}
    result = []
    for a, b in rows:
        seen: dict[str, int] = {}
        sides = []
        for side in cut_by_hand(a.split(), b.split(), room=vocabulary.config.max_length - 3):
            row = []
            for raw_id in side:
                if raw_id not in known:
                    seen.setdefault(raw_id, len(seen))
                    inside = seen[raw_id] < vocabulary.config.num_placeholders
                    row.append(NUM_SPECIAL + seen[raw_id] if inside else int(Special.UNK))
                else:
                    row.append(known[raw_id])
            sides.append(row)
        result.append(tuple(sides))
    return result


@settings(max_examples=100, deadline=None)
@given(
    rows=pairs,
    num_placeholders=st.integers(1, 3),
    kept=st.integers(0, 5),
    max_length=st.integers(5, 64),
)
def test_placeholders_number_the_rare_ids_of_a_pair(rows, num_placeholders, kept, max_length):
    config = DataConfig(
        max_length=max_length, min_count=1, rare="placeholder", num_placeholders=num_placeholders
    )
    vocabulary = fit_vocabulary({str(raw_id): 9 for raw_id in range(kept)}, config)
    assert encoded_lists(vocabulary, rows) == placeholders_by_hand(vocabulary, rows)


def test_a_copied_rare_id_stays_a_copy_and_a_different_one_does_not():
    config = DataConfig(min_count=1, rare="placeholder")
    vocabulary = fit_vocabulary({"1": 9}, config)
    [(a, b), (c, d)] = encoded_lists(vocabulary, [("1 77", "77 1"), ("1 77", "88 1")])
    assert a[1] == b[0]
    assert c[1] != d[0]
    assert vocabulary.tokens[a[1]] == "[RARE1]"


def test_oov_share_counts_occurrences():
    vocabulary = fit_vocabulary({"1": 9, "2": 1}, DataConfig(min_count=2))
    assert vocabulary.oov_share(IdCounts.of({"1": 2, "2": 1, "3": 1})) == 0.5


def test_taking_rows_equals_encoding_them_alone():
    vocabulary = fit_vocabulary({str(i): 9 for i in range(9)}, DataConfig(min_count=1))
    a, b = ["1 2 3", "4", "5 6"], ["7", "8 1 2", "3"]
    taken = vocabulary.encode(a, b).take(np.array([2, 0]))
    alone = vocabulary.encode([a[2], a[0]], [b[2], b[0]])
    np.testing.assert_array_equal(taken.ids, alone.ids)
    np.testing.assert_array_equal(taken.offsets, alone.offsets)
