from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.csgraph import reverse_cuthill_mckee

from desmatch.data.graph import adjacency
from desmatch.data.partition import partition

edges = st.lists(st.tuples(st.integers(0, 15), st.integers(0, 15)), min_size=1, max_size=50)


def parts_of(pairs, limit, seed=0):
    a, b = np.array(pairs).T
    num_texts = int(max(a.max(), b.max())) + 1
    return partition(a, b, num_texts=num_texts, limit=limit, rng=np.random.default_rng(seed))


def num_cut(pairs, part):
    a, b = np.array(pairs).T
    return int((part[a] != part[b]).sum())


def cliques(number, size):
    """Chain of cliques: `number` times all pairs of `size` texts, one pair to the next."""
    inside = [
        (first + i, first + j)
        for first in range(0, number * size, size)
        for i, j in combinations(range(size), 2)
    ]
    return inside + [(first, first + size) for first in range(0, (number - 1) * size, size)]


@settings(deadline=None)
@given(edges, st.integers(1, 30), st.integers(0, 3))
def test_parts_are_numbered_and_hardly_exceed_the_limit(pairs, limit, seed):
    part = parts_of(pairs, limit, seed)
    assert set(part) == set(range(part.max() + 1))
    inside = [part[a] for a, b in pairs if part[a] == part[b]]
    linked = [part[a] for a, b in pairs if part[a] == part[b] and a != b]
    own = [part[a] for a, b in pairs if a == b]  # of a text with itself: never cut
    assert len(own) == sum(a == b for a, b in pairs)
    if linked:
        most = np.bincount(inside).max()
        assert most <= 2 * limit + np.bincount(own, minlength=1).max()


@settings(deadline=None)
@given(edges)
def test_a_component_within_the_limit_stays_whole(pairs):
    part = parts_of(pairs, limit=1000)
    a, b = np.array(pairs).T
    joined = {frozenset((int(x), int(y))) for x, y in zip(part[a], part[b], strict=True)}
    assert all(len(both) == 1 for both in joined)


def test_cliques_stay_whole():
    pairs = cliques(20, 6)
    part = parts_of(pairs, limit=40)
    for first in range(0, 120, 6):
        assert len(set(part[first : first + 6])) == 1
    assert num_cut(pairs, part) <= 19


def test_of_a_star_of_stars_the_inner_stars_stay_whole():
    pairs = [(0, hub) for hub in range(1, 21)]
    pairs += [(hub, 21 + 30 * (hub - 1) + leaf) for hub in range(1, 21) for leaf in range(30)]
    assert num_cut(pairs, parts_of(pairs, limit=62)) <= 20


def test_of_a_single_hub_as_many_pairs_stay_as_the_limit_allows():
    pairs = [(0, leaf) for leaf in range(1, 200)]
    assert num_cut(pairs, parts_of(pairs, limit=50)) == 199 - 50


@pytest.mark.parametrize("seed", [0, 1])
def test_fewer_pairs_are_cut_than_by_stretches_of_an_order_of_the_texts(seed):
    rng = np.random.default_rng(seed)
    community = rng.integers(0, 20, 600)
    a, b = rng.integers(0, 600, (2, 6000))
    kept = (community[a] == community[b]) | (rng.random(6000) < 0.01)
    a, b = a[kept], b[kept]
    limit = kept.sum() // 10
    part = partition(a, b, num_texts=600, limit=limit, rng=rng)
    links = adjacency(np.concatenate([a, b]), np.concatenate([b, a]), 600).tocsr().astype(np.int32)
    order = reverse_cuthill_mckee(links, symmetric_mode=True)
    stretch = np.empty(600, np.int64)
    stretch[order] = np.cumsum(np.bincount(np.concatenate([a, b]), minlength=600)[order])
    stretch //= 2 * limit
    ours, theirs = (int((each[a] != each[b]).sum()) for each in (part, stretch))
    assert ours < 0.5 * theirs
    assert ours <= 1.5 * (community[a] != community[b]).sum()


def test_the_same_generator_gives_the_same_parts():
    pairs = cliques(10, 4)
    np.testing.assert_array_equal(parts_of(pairs, 20, seed=2), parts_of(pairs, 20, seed=2))


def test_texts_without_a_pair_are_parts_of_their_own():
    none = np.empty(0, np.int64)
    part = partition(none, none, num_texts=3, limit=5, rng=np.random.default_rng(0))
    assert sorted(part) == [0, 1, 2]
