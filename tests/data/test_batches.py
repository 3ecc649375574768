from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from desmatch.data.batches import assemble, plan_epoch, plan_prediction
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


@given(num_rows=st.integers(1, 500), batch_size=st.integers(1, 40), seed=st.integers(0, 3))
def test_an_epoch_has_every_row_once(num_rows, batch_size, seed):
    plan = plan_epoch(num_rows, batch_size=batch_size, rng=np.random.default_rng(seed))
    assert sorted(np.concatenate(plan).tolist()) == list(range(num_rows))
    assert len(plan) == -(-num_rows // batch_size)
    assert all(len(rows) == batch_size for rows in plan[:-1])


def test_who_meets_whom_is_drawn_anew():
    rng = np.random.default_rng(0)
    first, second = (plan_epoch(1000, batch_size=100, rng=rng) for _ in range(2))
    shared = [len(set(rows) & set(others)) for rows in first for others in second]
    assert max(shared) < 30


def test_prediction_starts_with_the_longest_rows():
    lengths = np.array([5, 9, 7, 9])
    plan = plan_prediction(lengths, batch_size=3)
    assert [rows.tolist() for rows in plan] == [[1, 3, 2], [0]]
