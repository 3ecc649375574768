from __future__ import annotations

import numpy as np
import pytest

from desmatch.data.corrupt import corrupt
from desmatch.schema import Special


def corrupted(num_tokens=400_000, seed=0, probability=0.15):
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 500, num_tokens)
    return ids, corrupt(ids, probability=probability, first_id=7, vocab_size=500, rng=rng)


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
