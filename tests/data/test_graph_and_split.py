from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from desmatch.data.graph import build_graph, find_repeats, number_texts, pair_keys
from desmatch.data.split import CUT, RANDOM, assign_folds, hold_out_rows

edges = st.lists(st.tuples(st.integers(0, 25), st.integers(0, 25)), min_size=12, max_size=60)


def components_by_hand(pairs):
    """Component of each text, by merging sets until nothing changes."""
    component = {text: text for pair in pairs for text in pair}
    changed = True
    while changed:
        changed = False
        for a, b in pairs:
            low = min(component[a], component[b])
            if component[a] != low or component[b] != low:
                component[a] = component[b] = low
                changed = True
    return component


def as_graph(pairs):
    _, numbers = np.unique(np.array(pairs).ravel(), return_inverse=True)
    return build_graph(numbers[::2].astype(np.int64), numbers[1::2].astype(np.int64))


@given(edges)
def test_components_equal_those_found_by_hand(pairs):
    graph = as_graph(pairs)
    by_hand = components_by_hand(pairs)
    ours = graph.pair_component
    theirs = np.array([by_hand[a] for a, _ in pairs])
    assert ((ours[:, None] == ours[None, :]) == (theirs[:, None] == theirs[None, :])).all()


def test_texts_have_the_same_number_in_all_columns():
    first, second = number_texts([pa.array(["x", "y", "x"]), pa.chunked_array([["y"], ["z"]])])
    assert first[0] == first[2] != first[1] == second[0]
    assert second[1] not in first


@given(edges, st.integers(0, 5))
def test_repeats_and_contradictions_are_those_of_a_loop(pairs, seed):
    labels = np.random.default_rng(seed).integers(0, 2, len(pairs)).astype(np.int8)
    repeats = find_repeats(as_graph(pairs), labels)
    sets = [frozenset(pair) for pair in pairs]
    for row, pair in enumerate(sets):
        alike = [k for k, other in enumerate(sets) if other == pair]
        assert repeats.first[row] == min(k for k in alike if labels[k] == labels[row])
        assert repeats.other[row] == min((k for k in alike if labels[k] != labels[row]), default=-1)
    assert repeats.repeats.sum() == len(pairs) - len(set(zip(sets, labels, strict=True)))


@given(edges)
def test_keys_name_a_pair_in_either_order(pairs):
    a, b = np.array(pairs).T
    keys = pair_keys(a, b, 26)
    np.testing.assert_array_equal(keys, pair_keys(b, a, 26))
    assert len(set(keys.tolist())) == len({frozenset(pair) for pair in pairs})


@settings(deadline=None)
@given(pairs=edges, seed=st.integers(0, 5), num_folds=st.integers(2, 4))
def test_no_text_lies_in_two_folds_and_every_row_has_a_place(pairs, seed, num_folds):
    graph = as_graph(pairs)
    labels = np.random.default_rng(seed).integers(0, 2, len(pairs)).astype(np.int8)
    try:
        folds = assign_folds(graph, labels, num_folds=num_folds, rng=np.random.default_rng(seed))
    except ValueError:  # too few groups; what it says is tested below
        assume(False)
    inside = folds.fold != CUT
    for texts in (graph.a, graph.b):
        assert ((folds.fold[inside] >= 0) & (folds.fold[inside] < num_folds)).all()
        assert len(texts) == len(folds.fold)
    fold_of_text: dict[int, int] = {}
    for a, b, fold in zip(graph.a[inside], graph.b[inside], folds.fold[inside], strict=True):
        assert fold_of_text.setdefault(int(a), int(fold)) == fold
        assert fold_of_text.setdefault(int(b), int(fold)) == fold
    assert set(folds.fold[inside]) == set(range(num_folds))
    if not folds.num_split_components:
        assert inside.all()


def test_folds_are_of_like_size_and_share_of_positives():
    rng = np.random.default_rng(0)
    pairs = [(2 * row, 2 * row + 1) for row in range(4000)]
    labels = (rng.random(4000) < 0.3).astype(np.int8)
    folds = assign_folds(as_graph(pairs), labels, num_folds=5, rng=rng)
    assert np.bincount(folds.fold).tolist() == [800] * 5
    shares = [labels[folds.fold == fold].mean() for fold in range(5)]
    assert np.ptp(shares) < 0.002


def test_the_same_generator_state_gives_the_same_folds():
    pairs = [(row, row + 100) for row in range(100)]
    labels = np.tile([0, 1], 50).astype(np.int8)
    first, second = (
        assign_folds(as_graph(pairs), labels, num_folds=4, rng=np.random.default_rng(3)).fold
        for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)


def test_a_giant_component_is_cut_where_few_pairs_cross():
    chain = [(text, text + 1) for text in range(1000)]
    labels = np.tile([0, 1], 500).astype(np.int8)
    folds = assign_folds(as_graph(chain), labels, num_folds=5, rng=np.random.default_rng(0))
    assert folds.num_split_components == 1
    assert folds.num_cut <= 20  # ten parts need nine cuts
    sizes = np.bincount(folds.fold[folds.fold != CUT])
    assert sizes.min() > 0.5 * sizes.max()


def test_too_few_groups_are_refused():
    with pytest.raises(ValueError, match="1 separate groups of pairs cannot fill 2 folds"):
        assign_folds(
            as_graph([(0, 1)]), np.array([1], np.int8), num_folds=2, rng=np.random.default_rng(0)
        )


@given(st.floats(0, 0.5), st.integers(0, 100))
def test_rows_held_out_one_by_one_come_from_all_folds(share, seed):
    fold = np.random.default_rng(seed).integers(-1, 3, size=60).astype(np.int32)
    result = hold_out_rows(fold, share=share, rng=np.random.default_rng(seed))
    taken = result == RANDOM
    candidates = fold != CUT
    assert taken.sum() == round(share * candidates.sum())
    assert candidates[taken].all()
    np.testing.assert_array_equal(result[~taken], fold[~taken])
