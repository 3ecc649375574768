from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from desmatch.metrics.roc import roc_auc
from desmatch.metrics.slices import quantile_slices, slice_figures, value_slices


@given(st.lists(st.integers(0, 9), min_size=1, max_size=60), st.integers(1, 6))
def test_quantile_slices_hold_each_row_once_and_rise(values, num_slices):
    values = np.array(values, dtype=float)
    slices = quantile_slices("length", values, num_slices=num_slices)
    assert np.sum([each.mask for each in slices], axis=0).tolist() == [1] * len(values)
    assert 1 <= len(slices) <= num_slices
    for low, high in pairwise(slices):
        assert values[low.mask].max() < values[high.mask].min()


def test_a_value_that_most_rows_have_is_a_slice_of_its_own():
    for special, others in ((0.0, [0.2, 0.5]), (1.0, [0.2, 0.5])):
        slices = quantile_slices("oov_share", np.array([special] * 90 + others * 5))
        sizes = {each.value: int(each.mask.sum()) for each in slices}
        assert sizes[f"{special:.0f}"] == 90
        assert sum(sizes.values()) == 100


def test_slices_of_many_distinct_values_are_of_one_size():
    slices = quantile_slices("length", np.arange(100.0))
    assert [each.value for each in slices] == [
        "0 to 19", "20 to 39", "40 to 59", "60 to 79", "80 to 99",
    ]  # fmt: skip


def test_values_are_called_by_their_names():
    flags = value_slices("is_same_bag", np.array([True, False, True]))
    assert [(each.value, each.mask.sum()) for each in flags] == [("no", 1), ("yes", 2)]
    assert [each.value for each in value_slices("fold", np.array([3, 1, 3]))] == ["1", "3"]


def test_figures_are_those_of_the_rows_of_a_slice():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 200)
    labels[180:] = 1
    scores, lengths = labels + rng.normal(size=200), np.repeat([4, 7, 9], [150, 30, 20])
    slices = value_slices("length", lengths)
    found = slice_figures(slices, labels, scores, np.arange(200), rng=rng)
    assert [(each["slice"], each["value"], each["rows"]) for each in found] == [
        ("length", "4", 150),
        ("length", "7", 30),
        ("length", "9", 20),
    ]
    assert found[0]["auc"] == roc_auc(labels[:150], scores[:150])
    assert found[0]["interval"][0] < found[0]["auc"] < found[0]["interval"][1]
    assert found[0]["positives"] == labels[:150].mean()
    assert found[2] == {**found[2], "auc": None, "interval": None, "positives": 1.0}


@pytest.mark.parametrize(("size", "has_interval"), [(29, False), (30, True)])
def test_a_slice_of_few_rows_has_no_interval(size, has_interval):
    labels = np.arange(size) % 2
    everything = quantile_slices("length", np.zeros(size))
    found = slice_figures(
        everything, labels, labels + 0.1, np.arange(size), rng=np.random.default_rng(0)
    )
    assert found[0]["auc"] == 1
    assert (found[0]["interval"] is not None) == has_interval
