from __future__ import annotations

import numpy as np
import pytest

from desmatch.data.corrupt import (
    NGRAM_SHARES,
    SHORTEST_TEXT,
    choose_ngrams,
    choose_tokens,
    choose_words,
    corrupt,
    text_numbers,
)
from desmatch.data.words import Words
from desmatch.schema import Special


def corrupted(num_tokens=400_000, seed=0, probability=0.15):
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 500, num_tokens)
    chosen = choose_tokens(ids, probability=probability, rng=rng)
    return ids, corrupt(ids, chosen, first_id=7, vocab_size=500, rng=rng)


def test_shares_of_mask_random_and_kept():
    ids, noisy = corrupted()
    ordinary = ids > Special.YES
    assert len(noisy.positions) / ordinary.sum() == pytest.approx(0.15, abs=0.003)
    now = noisy.ids[noisy.positions]
    assert (now == Special.MASK).mean() == pytest.approx(0.8, abs=0.01)
    kept = (now == noisy.labels).mean()
    assert kept == pytest.approx(0.1, abs=0.01)
    at_random = now[(now != Special.MASK) & (now != noisy.labels)]
    assert at_random.min() >= 7
    assert at_random.max() < 500


def test_only_chosen_tokens_change_and_special_ones_never():
    ids, noisy = corrupted(10_000)
    others = np.setdiff1d(np.arange(10_000), noisy.positions)
    np.testing.assert_array_equal(noisy.ids[others], ids[others])
    np.testing.assert_array_equal(ids[noisy.positions], noisy.labels)
    assert (noisy.labels > Special.YES).all()


def test_probability_zero_changes_nothing():
    ids, noisy = corrupted(1000, probability=0.0)
    np.testing.assert_array_equal(noisy.ids, ids)
    assert len(noisy.positions) == 0


def test_noise_is_a_function_of_the_generator():
    first, second, other = corrupted(1000, 1)[1], corrupted(1000, 1)[1], corrupted(1000, 2)[1]
    np.testing.assert_array_equal(first.ids, second.ids)
    assert not np.array_equal(first.positions, other.positions)


def texts_of(lengths, seed=0):
    """Pairs of texts of these lengths, with their special tokens, end to end."""
    rng = np.random.default_rng(seed)
    parts = []
    for number, length in enumerate(lengths):
        parts += [[Special.CLS] if number % 2 == 0 else [], rng.integers(7, 500, length),
                  [Special.SEP]]  # fmt: skip
    return np.concatenate(parts).astype(np.int64)


def runs(chosen):
    """Lengths of the stretches of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], chosen, [0]])))
    return (edges[1::2] - edges[::2]).tolist()


@pytest.mark.parametrize("length", [40, 12])
def test_ngrams_of_long_texts_have_the_shares_and_the_coverage(length):
    ids = texts_of([length] * (400_000 // length))
    chosen = choose_ngrams(ids, probability=0.15, rng=np.random.default_rng(1))
    assert not chosen[ids <= Special.YES].any()
    cut_short = 0.1 * 2 / length  # of the n-grams that begin at a text's last two tokens
    assert chosen[ids > Special.YES].mean() == pytest.approx(0.15, rel=0.02 + cut_short)
    shares = np.bincount(runs(chosen), minlength=4)[1:] / len(runs(chosen))
    assert len(shares) == 3
    np.testing.assert_allclose(shares, NGRAM_SHARES, atol=0.01 + cut_short)


def test_short_texts_have_short_ngrams_and_the_shortest_none():
    for length in range(1, 9):
        ids = texts_of([length] * 4000)
        chosen = choose_ngrams(ids, probability=0.3, rng=np.random.default_rng(2))
        longest = sum(length >= shortest for shortest in SHORTEST_TEXT)
        assert max(runs(chosen), default=0) == longest, length


def test_no_two_ngrams_are_side_by_side_even_where_many_are_hidden():
    ids = texts_of([30] * 2000)
    chosen = choose_ngrams(ids, probability=0.45, rng=np.random.default_rng(3))
    assert max(runs(chosen)) == 3


def test_words_are_hidden_whole():
    ids = texts_of([20] * 5000)
    joints = np.unique(ids[5:2000:7] * 500 + ids[6:2001:7])
    words = Words(joints, 500)
    chosen = choose_words(ids, words, probability=0.15, rng=np.random.default_rng(4))
    number = words.numbers(ids)
    for value in (chosen, ~chosen):
        whole = np.isin(number, number[value & (ids > Special.YES)])
        np.testing.assert_array_equal(whole & (ids > Special.YES), value & (ids > Special.YES))
    assert chosen[ids > Special.YES].mean() == pytest.approx(0.15, abs=0.01)


def test_texts_are_numbered_by_their_end():
    ids = texts_of([2, 1, 3, 1])
    assert text_numbers(ids).tolist() == [0, 0, 0, 0, 1, 1, 2, 2, 2, 2, 2, 3, 3]
