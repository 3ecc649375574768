from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from desmatch.data.batches import assemble
from desmatch.data.heat import choose_left_out, leave_out, nearest, neighbors
from desmatch.schema import Special
from tests.conftest import encode_lists

SEPARATORS = (Special.CLS, Special.SEP)


def flat_batch(num_pairs=1, length=6, seed=0, first_id=0):
    """Pairs of texts of 1 to `length` tokens; ids below 7 become [UNK]."""
    rng = np.random.default_rng(seed)
    texts = [rng.integers(first_id, 40, rng.integers(1, length + 1)) for _ in range(2 * num_pairs)]
    texts = [np.where(text < 7, Special.UNK, text).tolist() for text in texts]
    pairs = list(zip(texts[::2], texts[1::2], strict=True))
    return assemble(encode_lists(pairs), np.arange(num_pairs), np.zeros(num_pairs, bool))


@st.composite
def masked_segments(draw):
    """Segments of random lengths, and which of their tokens are kept, perhaps none."""
    lengths = draw(st.lists(st.integers(1, 9), min_size=1, max_size=6))
    size = sum(lengths)
    is_kept = draw(st.lists(st.booleans(), min_size=size, max_size=size))
    return np.array(is_kept), np.repeat(np.arange(len(lengths)), lengths)


@given(masked_segments())
@settings(deadline=None)
def test_neighbours_equal_a_search_step_by_step(case):
    is_kept, segment = case

    def search(start, step):
        at = start
        while 0 <= at < len(segment) and segment[at] == segment[start]:
            if is_kept[at]:
                return at
            at += step
        return None

    found = neighbors(is_kept, segment)
    for token in range(len(segment)):
        left, right = search(token, -1), search(token, 1)
        expected = (left if left is not None else right, right if right is not None else left)
        if expected == (None, None):
            expected = (token, token)
        assert tuple(found[:, token]) == expected
        nearer = min(expected, key=lambda each: (abs(each - token), each))
        assert nearest(found)[:, token].tolist() == [nearer, nearer]


@given(st.integers(0, 2**32 - 1), st.floats(0, 0.9))
@settings(deadline=None)
def test_what_is_kept_keeps_its_place_and_what_is_left_out_is_the_target(seed, probability):
    flat = flat_batch(4, seed=seed)
    rng = np.random.default_rng(seed)
    chosen = choose_left_out(flat, fill="linear", probability=probability, rng=rng)
    left_out = leave_out(flat, chosen, fill="linear")
    within = np.concatenate([np.arange(length) for length in flat.lengths])
    np.testing.assert_array_equal(left_out.kept.ids, flat.ids[~chosen])
    np.testing.assert_array_equal(left_out.position_ids, within[~chosen])
    np.testing.assert_array_equal(left_out.positions, np.flatnonzero(chosen))
    np.testing.assert_array_equal(left_out.labels, flat.ids[chosen])
    np.testing.assert_array_equal(left_out.kept.ids[left_out.kept.starts], Special.CLS)
    assert left_out.kept.lengths.sum() + chosen.sum() == len(flat.ids)
    for side in left_out.neighbors:
        np.testing.assert_array_equal(left_out.kept.ids[side][~chosen], flat.ids[~chosen])
    between = np.stack([left_out.position_ids[side] for side in left_out.neighbors])[:, chosen]
    assert (between[0] < within[chosen]).all()  # [CLS] and [SEP] are always there
    assert (between[1] > within[chosen]).all()


@pytest.mark.parametrize("fill", ["mask", "copy"])
def test_one_neighbour_is_the_nearer_one(fill):
    flat = flat_batch(20, seed=3, first_id=7)
    rng = np.random.default_rng(0)
    chosen = choose_left_out(flat, fill=fill, probability=0.6, rng=rng)
    single = leave_out(flat, chosen, fill=fill)
    both = leave_out(flat, chosen, fill="linear")
    within = np.concatenate([np.arange(length) for length in flat.lengths])
    distance = [abs(within - both.position_ids[side]) for side in both.neighbors]
    np.testing.assert_array_equal(*single.neighbors)
    np.testing.assert_array_equal(
        abs(within - single.position_ids[single.neighbors[0]]), np.minimum(*distance)
    )


@pytest.mark.parametrize("fill", ["linear", "extrapolate"])
@pytest.mark.parametrize("probability", [0.15, 0.3, 0.5])
def test_the_share_of_what_is_left_out_is_the_one_asked_for(fill, probability):
    flat = flat_batch(4000, length=30, seed=1, first_id=7)
    rng = np.random.default_rng(2)
    chosen = choose_left_out(flat, fill=fill, probability=probability, rng=rng)
    is_ordinary = ~np.isin(flat.ids, SEPARATORS)
    assert not chosen[~is_ordinary].any()
    assert chosen[is_ordinary].mean() == pytest.approx(probability, abs=0.01)


@given(st.integers(0, 2**32 - 1), st.floats(0, 0.9))
@settings(deadline=None)
def test_extrapolation_keeps_one_piece_of_each_text_and_starts_from_its_ends(seed, probability):
    flat = flat_batch(3, seed=seed)
    rng = np.random.default_rng(seed)
    chosen = choose_left_out(flat, fill="extrapolate", probability=probability, rng=rng)
    left_out = leave_out(flat, chosen, fill="extrapolate")
    number = np.cumsum(~chosen) - 1
    ends = np.flatnonzero(np.isin(flat.ids, SEPARATORS))
    for before, after in pairwise(ends):
        text = np.arange(before + 1, after)
        kept = text[~chosen[text]]
        if not len(text):  # between [SEP] and the next pair's [CLS]
            continue
        assert len(kept) == kept[-1] - kept[0] + 1
        for token in text[chosen[text]]:
            end = kept[0] if token < kept[0] else kept[-1]
            assert left_out.neighbors[:, token].tolist() == [number[end]] * 2
    predicted = chosen & (flat.ids != Special.UNK)
    np.testing.assert_array_equal(left_out.positions, np.flatnonzero(predicted))


def test_a_piece_stands_anywhere_in_its_text():
    flat = flat_batch(2000, length=1, first_id=7)
    long = np.repeat(flat.ids, np.where(np.isin(flat.ids, SEPARATORS), 1, 4))
    lengths = np.full(2000, 11)
    flat = flat._replace(ids=long, starts=np.cumsum(lengths) - lengths, lengths=lengths)
    rng = np.random.default_rng(0)
    chosen = choose_left_out(flat, fill="extrapolate", probability=0.5, rng=rng)
    share = chosen.reshape(2000, 11).mean(axis=0)
    np.testing.assert_allclose(share[1:5], [2 / 3, 1 / 3, 1 / 3, 2 / 3], atol=0.05)
    np.testing.assert_allclose(share[6:10], [2 / 3, 1 / 3, 1 / 3, 2 / 3], atol=0.05)
