import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from desmatch.metrics.cross_fit import can_cross_fit, cross_fit, halve


@given(st.lists(st.integers(0, 20), min_size=1, max_size=60), st.integers(0, 100))
def test_halves_hold_whole_components_and_as_many(groups, seed):
    groups = np.array(groups)
    half = halve(groups, rng=np.random.default_rng(seed))
    sides = {group: set(half[groups == group].tolist()) for group in np.unique(groups)}
    assert all(len(side) == 1 for side in sides.values())
    in_first = sum(side == {0} for side in sides.values())
    assert in_first == (len(sides) + 1) // 2


@given(st.lists(st.integers(0, 4), min_size=2, max_size=30).filter(lambda p: len(set(p)) > 1))
def test_no_row_is_part_of_its_own_fit(parts):
    parts = np.array(parts)
    values = np.arange(len(parts), dtype=float)
    fitted = cross_fit(parts, lambda there, here: np.full(here.sum(), values[there].mean()))
    expected = [values[parts != part].mean() for part in parts]
    np.testing.assert_allclose(fitted, expected)


def test_one_part_cannot_be_cross_fitted():
    with pytest.raises(ValueError, match="two parts or more"):
        cross_fit(np.zeros(3, int), lambda _, here: here)
    assert not can_cross_fit(np.array([0, 1, 0]), np.zeros(3, int))


def test_both_labels_must_be_among_the_others():
    parts = np.array([0, 0, 1, 1])
    assert can_cross_fit(np.array([0, 1, 0, 1]), parts)
    assert not can_cross_fit(np.array([0, 1, 0, 0]), parts)
