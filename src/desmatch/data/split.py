"""Folds that share no query: whole components of the query graph, stratified by their labels.

A component larger than a fold is cut into parts along its weakest links (`partition`). Pairs that
cross a cut belong to no fold and are left out of training. Shapes: B pairs, T texts, G groups.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from desmatch.data.partition import partition

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from desmatch.data.graph import QueryGraph

CUT = -1
"""The fold of a pair that crosses a cut: it neither trains nor validates."""

RANDOM = -2
"""The fold of a pair that is held out on its own: its queries may be known from training."""


class Folds(NamedTuple):
    """Where each labelled pair belongs.

    Attributes:
        fold: (B,), int32, 0 .. K-1, or CUT.
        group: (B,), int64, component of the pair, or part of a component that was cut; pairs of
            different groups share no text, pairs at CUT aside.
        num_split_components: Components larger than a fold, which were cut.
    """

    fold: NDArray[np.int32]
    group: NDArray[np.int64]
    num_split_components: int

    @property
    def num_cut(self) -> int:
        """Pairs that cross a cut."""
        return int((self.fold == CUT).sum())


def assign_folds(
    graph: QueryGraph, labels: NDArray[np.int8], *, num_folds: int, rng: np.random.Generator
) -> Folds:
    """Deal whole components to `num_folds` folds.

    Groups are stratified rather than rows: scikit-learn's StratifiedGroupKFold takes a time that
    grows with the square of their number.

    Args:
        graph: Texts and components of the B labelled pairs.
        labels: (B,), 0 or 1.
        num_folds: K.
        rng: Decides which group goes where.

    Raises:
        ValueError: There are fewer groups than folds.
    """
    text_group, num_split = _text_groups(graph, max(1, len(labels) // num_folds), rng)
    crosses = text_group[graph.a] != text_group[graph.b]
    group = text_group[graph.a]
    fold_of_group = _deal(group[~crosses], labels[~crosses], num_folds, rng)
    fold = np.full(len(labels), CUT, np.int32)
    fold[~crosses] = fold_of_group[group[~crosses]]
    return Folds(fold, group, num_split)


def hold_out_rows(
    fold: NDArray[np.int32], *, share: float, rng: np.random.Generator
) -> NDArray[np.int32]:
    """Take single rows out of all folds.

    A contest that splits its rows at random leaves queries of the test in the training data; these
    rows are to training what such a test is.

    Args:
        fold: (B,), as `assign_folds` returns it.
        share: Share of the rows that belong to a fold.
        rng: Decides which rows.

    Returns:
        (B,), `fold` with RANDOM in the rows taken out.
    """
    candidates = np.flatnonzero(fold != CUT)
    taken = rng.permutation(candidates)[: round(share * len(candidates))]
    result = fold.copy()
    result[taken] = RANDOM
    return result


def _text_groups(
    graph: QueryGraph, limit: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], int]:
    """Return the group of each text (T,), and how many components had more pairs than `limit`.

    Parts have at most half as many, so that folds stay even and none is one part alone.
    """
    sizes = np.bincount(graph.pair_component, minlength=int(graph.component.max(initial=-1)) + 1)
    groups = graph.component.astype(np.int64)
    next_group = len(sizes)
    too_large = np.flatnonzero(sizes > limit)
    for component in too_large:
        nodes = np.flatnonzero(graph.component == component)
        inside = graph.pair_component == component
        local = np.full(graph.num_texts, -1, np.int64)
        local[nodes] = np.arange(len(nodes))
        part = partition(
            local[graph.a[inside]],
            local[graph.b[inside]],
            num_texts=len(nodes),
            limit=max(1, limit // 2),
            rng=rng,
        )
        groups[nodes] = np.where(part == 0, component, next_group + part - 1)
        next_group += int(part.max())
    return groups, len(too_large)


def _deal(
    group: NDArray[np.int64], labels: NDArray[np.int8], num_folds: int, rng: np.random.Generator
) -> NDArray[np.int32]:
    """Return the fold of every group that has rows, and CUT for the others: (G,).

    Groups are sorted by size and share of positives; of each `num_folds` neighbours every fold
    gets one, in random order. So folds differ by little more than the largest groups do.

    Args:
        group: (B,), group of each row that lies inside one.
        labels: (B,), 0 or 1.
        num_folds: K.
        rng: Shuffles equals, and who of the neighbours goes where.
    """
    size = np.bincount(group)
    positive_share = np.bincount(group, weights=labels) / np.maximum(size, 1)
    present = np.flatnonzero(size)
    if len(present) < num_folds:
        raise ValueError(f"{len(present)} separate groups of pairs cannot fill {num_folds} folds")
    shuffled = rng.permutation(present)
    ranked = shuffled[np.lexsort((positive_share[shuffled], -size[shuffled]))]
    num_blocks = -(-len(ranked) // num_folds)
    dealt = rng.permuted(np.tile(np.arange(num_folds), (num_blocks, 1)), axis=1).ravel()
    if num_blocks > 1:  # the last block is short: its places go to the smallest folds so far
        whole = (num_blocks - 1) * num_folds
        dealt[whole:] = np.argsort(np.bincount(dealt[:whole], size[ranked[:whole]]), kind="stable")
    fold = np.full(len(size), CUT, np.int32)
    fold[ranked] = dealt[: len(ranked)]
    return fold
