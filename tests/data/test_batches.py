from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from desmatch.data.batches import assemble, plan_by_tokens, plan_prediction
from desmatch.schema import Special
from tests.conftest import encode_lists

token_lists = st.lists(st.integers(7, 30), min_size=1, max_size=6)


@given(
    pairs=st.lists(st.tuples(token_lists, token_lists), min_size=1, max_size=6),
    seed=st.integers(0, 9),
)
def test_assembled_pairs_equal_those_built_one_by_one(pairs, seed):
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, len(pairs), 4)
    swapped = rng.random(4) < 0.5
    flat = assemble(encode_lists(pairs), rows, swapped)
    expected = []
    for row, is_swapped in zip(rows, swapped, strict=True):
        first, second = pairs[row][::-1] if is_swapped else pairs[row]
        expected.append([Special.CLS, *first, Special.SEP, *second, Special.SEP])
    assert flat.ids.tolist() == [token for text in expected for token in text]
    assert flat.lengths.tolist() == [len(text) for text in expected]
    assert flat.starts.tolist() == np.cumsum([0, *flat.lengths[:-1]]).tolist()


def test_prediction_starts_with_the_longest_rows():
    lengths = np.array([5, 9, 7, 9])
    plan = plan_prediction(lengths, batch_size=3)
    assert [rows.tolist() for rows in plan] == [[1, 3, 2], [0]]


@given(
    lengths=st.lists(st.integers(4, 70), max_size=40).map(lambda each: np.array(each, np.int64)),
    batch_tokens=st.integers(1, 300),
)
def test_batches_of_as_many_tokens_hold_every_row_longest_first(lengths, batch_tokens):
    plan = plan_by_tokens(lengths, batch_tokens=batch_tokens)
    rows = [row for batch in plan for row in batch.tolist()]
    assert sorted(rows) == list(range(len(lengths)))
    assert lengths[rows].tolist() == sorted(lengths.tolist(), reverse=True)
    for batch in plan:
        assert 0 < lengths[batch].sum() < batch_tokens + lengths[batch[0]]
