from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from desmatch.data.graph import build_graph
from desmatch.data.split import Folds
from desmatch.inspection import (
    LabelledRows,
    Places,
    RowsToScore,
    data_warnings,
    equal_path,
    graph_figures,
    size_histogram,
)
from desmatch.recipe import Recipe

TRAIN = [  # texts and label, from line 1 on
    (0, 1, 1),
    (1, 2, 1),
    (2, 0, 0),  # against closure
    (3, 4, 0),
    (4, 3, 0),  # repeated
    (3, 4, 1),  # against lines 4 and 5
    (5, 6, 1),
    (6, 7, 1),
    (7, 8, 0),
    (9, 9, 0),  # a text is itself
]
TEST = [(5, 7), (8, 5), (8, 6), (6, 5), (0, 2), (3, 20), (20, 21), (9, 8)]


def places(name, num_rows):
    return Places(
        [Path(name)], np.zeros(num_rows, np.int16), np.arange(1, num_rows + 1, dtype=np.int32)
    )


def labelled_rows(rows):
    a, b, labels = np.array(rows).T
    return LabelledRows(build_graph(a, b), labels.astype(np.int8), places("train.tsv", len(rows)))


@pytest.fixture
def figures():
    test = RowsToScore(*np.array(TEST).T, places("test.tsv", len(TEST)))
    fold = np.zeros(len(TRAIN), np.int32)
    return graph_figures(labelled_rows(TRAIN), test, Folds(fold, fold.astype(np.int64), 0))


def test_contradictions_are_counted_and_named(figures):
    assert figures["repeated_rows"] == 1
    assert figures["contradicting_rows"] == 3
    assert figures["rows_against_closure"] == 2
    examples = figures["examples"]
    assert examples["repeated"] == [["train.tsv:5", "train.tsv:4"]]
    assert examples["contradicting"] == [["train.tsv:4", "train.tsv:6"],
                                         ["train.tsv:5", "train.tsv:6"]]  # fmt: skip
    assert examples["against_closure"] == [["train.tsv:3", "train.tsv:2", "train.tsv:1"],
                                           ["train.tsv:10"]]  # fmt: skip


def test_rows_of_the_test_are_counted_by_what_is_known_of_them(figures):
    assert figures["test_rows_with_known_query"] == 7
    assert figures["test_rows_with_both_known"] == 6
    assert figures["test_rows_with_one_known"] == 1
    assert figures["test_rows_of_known_pair"] == 2
    assert figures["test_rows_that_follow"] == 3
    assert figures["examples"]["known_in_test"] == [["test.tsv:4", "train.tsv:7"],
                                                    ["test.tsv:5", "train.tsv:3"]]  # fmt: skip


def test_the_graph_is_described(figures):
    assert (figures["texts"], figures["components"], figures["largest"]) == (10, 4, 3)
    assert figures["components_by_size"] == {"1": 1, "3 to 4": 3}
    assert figures["hubs"][0] == {"place": "train.tsv:4", "side": "a", "rows": 3,
                                  "positives": pytest.approx(1 / 3)}  # fmt: skip


@given(st.lists(st.integers(1, 70), min_size=1, max_size=20))
def test_every_component_is_in_one_bin(sizes):
    histogram = size_histogram(np.array(sizes))
    for name, count in histogram.items():
        low, _, high = name.partition(" to ")
        assert count == sum(int(low) <= size <= int(high or low) for size in sizes)
    assert sum(histogram.values()) == len(sizes)


def test_the_shortest_path_of_equal_texts_is_found():
    rows = [(0, 1, 1), (2, 1, 1), (2, 3, 1), (0, 4, 1), (4, 3, 1), (3, 0, 0)]
    path = equal_path(labelled_rows(rows), 5)
    assert path in ([4, 3], [3, 4])
    assert len(path) == 2


def test_contradictions_get_a_warning(figures):
    drift = {"interval": [0.4, 0.6]}
    about = {"data": [], "graph": figures, "rejected_rows": 0, "drift": drift}
    assert any("5 labelled rows contradict" in line for line in data_warnings(about, Recipe()))
