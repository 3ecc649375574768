"""Cut a large component of the query graph into parts along its weakest links.

Label propagation with a limit of size, level by level (Meyerhenke, Sanders & Schulz 2014,
'Partitioning complex networks via size-constrained clustering'): every node joins the part to which
most of its links lead, as long as that part stays within the limit; parts then become nodes, links
between them are added up, and it goes on until nothing joins; at the end single texts move once
more. A round moves a random half of the nodes at once, so it is a few sorts, no loop over nodes.

No cut is without loss everywhere: all pairs of a single hub share its text, so of a hub with more
pairs than the limit all beyond the limit cross the cut, wherever it runs.

Pairs that cross the cut (%) where parts are half a fold, of components of about 100,000 pairs (the
last one: 3,743); in brackets what stretches of the reverse Cuthill-McKee order lose
(`benchmarks/bench_partition.py`).

| component | 5 folds | 10 folds |
|---|---|---|
| one star | 90 (100) | 95 (100) |
| star of 300 stars | 0.3 (99.6) | 0.3 (99.6) |
| chain of cliques of 12 texts | 0.0 (0.3) | 0.0 (0.7) |
| communities of 100 texts, 5 % of the pairs between two | 3.7 (70) | 4.0 (79) |
| hubs of unequal size, a tenth of their partners shared | 21 (93) | 37 (97) |
| both texts by Zipf's law | 44 (90) | 48 (95) |
| random, mean degree 2.4 | 21 (83) | 23 (91) |
| the largest of antfin's labelled and test pairs together | 1.3 (43) | 2.5 (69) |

Shapes: E pairs, T texts, N nodes of a level.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.sparse import coo_array, csr_array

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROUNDS = 8
"""Most rounds of a level."""

MOST_LEVELS = 50
"""Levels end by themselves after five to ten."""

STILL = 0.02
"""A level ends when no more than this share of its nodes would gain by a move."""


class _Level(NamedTuple):
    """Nodes that are texts or sets of texts.

    Attributes:
        links: (N, N), sparse, pairs between each two nodes, without a diagonal.
        inside: (N,), float, pairs inside each node.
    """

    links: Any
    inside: NDArray[np.float64]

    def contracted(self, part: NDArray[np.int64]) -> _Level:
        """Return the level whose nodes are this one's parts (N,)."""
        edges = self.links.tocoo()
        return _level(part[edges.row], part[edges.col], edges.data, _sums(part, self.inside))


def _level(
    row: NDArray[np.int64],
    col: NDArray[np.int64],
    often: NDArray[np.float64],
    inside: NDArray[np.float64],
) -> _Level:
    """Add up links that are the same; those of a node to itself are inside it."""
    own = row == col
    num_nodes = len(inside)
    inside = inside + _sums(row[own], often[own], num_nodes) / 2
    shape = (num_nodes, num_nodes)
    links = coo_array((often[~own], (row[~own], col[~own])), shape=shape).tocsr()
    return _Level(links, inside)


def _sums(
    number: NDArray[np.int64], values: NDArray[np.float64], size: int = 0
) -> NDArray[np.float64]:
    """Return the sum of the values of each number, 0 to `size` - 1 or to the largest one."""
    return np.bincount(number, values, minlength=size).astype(np.float64)


def partition(
    a: NDArray[np.int64],
    b: NDArray[np.int64],
    *,
    num_texts: int,
    limit: int,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Return the part of each text (T,), counted from 0.

    Args:
        a: (E,), number of each first text.
        b: (E,), of each second text.
        num_texts: T.
        limit: Most pairs inside a part; a few more where nodes that are linked join at once.
        rng: Decides who moves, and who of equals is joined.
    """
    rows, cols = np.concatenate([a, b]), np.concatenate([b, a])
    texts = _level(rows, cols, np.ones(len(rows)), np.zeros(num_texts))
    level, part = texts, np.arange(num_texts)
    for _ in range(MOST_LEVELS):
        num_nodes = len(level.inside)
        joined, is_settled = _propagate(level, np.arange(num_nodes), limit, rng)
        part = joined[part]
        if is_settled and len(np.unique(joined)) == num_nodes:
            break
        level = level.contracted(joined)
    return _propagate(texts, part, limit, rng)[0]


def _propagate(
    level: _Level, part: NDArray[np.int64], limit: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], bool]:
    """Move nodes to the parts they are linked to most.

    Returns:
        The parts (N,) numbered anew, and whether hardly a node would gain by another move.
    """
    part = part.copy()
    is_settled = False
    for _ in range(ROUNDS):
        move = _best_moves(level, part, limit, rng)
        kept = move.within(limit)
        part[move.node[kept]] = move.target[kept]
        is_settled = move.num_willing <= STILL * len(part)
        if is_settled:
            break
    return np.unique(part, return_inverse=True)[1].astype(np.int64), is_settled


class _Moves(NamedTuple):
    """Nodes that may move, the most gain first.

    Attributes:
        node: (moves,).
        target: (moves,), the part that each joins.
        added: (moves,), pairs that the part has more inside then.
        size: (parts,), pairs inside each part before.
        num_willing: Nodes that would gain by a move, whether drawn or not.
    """

    node: NDArray[np.int64]
    target: NDArray[np.int64]
    added: NDArray[np.float64]
    size: NDArray[np.float64]
    num_willing: int

    def within(self, limit: int) -> NDArray[np.bool_]:
        """(moves,), those that their target has room for, first come first served."""
        order = np.argsort(self.target, kind="stable")
        target, added = self.target[order], np.cumsum(self.added[order])
        before = np.concatenate([[0.0], added])[np.searchsorted(target, target)]
        kept = np.empty(len(order), np.bool_)
        kept[order] = self.size[target] + added - before <= limit
        return kept


def _best_moves(
    level: _Level, part: NDArray[np.int64], limit: int, rng: np.random.Generator
) -> _Moves:
    """Return the best move of a random half of the nodes that gain by one."""
    num_nodes = len(part)
    one_hot = csr_array(
        (np.ones(num_nodes), part, np.arange(num_nodes + 1)), shape=level.links.shape
    )
    towards = level.links @ one_hot  # (N, parts): links of each node to each part
    node, target = np.repeat(np.arange(num_nodes), np.diff(towards.indptr)), towards.indices
    often = np.asarray(towards.data, np.float64)
    stays = target == part[node]
    own = np.zeros(num_nodes)
    own[node[stays]] = often[stays]
    size = _sums(part, level.inside + own / 2, num_nodes)
    gain, added = often - own[node], often + level.inside[node]
    choice = np.flatnonzero((gain > 0) & (size[target] + added <= limit))
    num_willing = int(np.count_nonzero(np.diff(node[choice], prepend=-1)))
    choice = choice[rng.random(num_nodes)[node[choice]] < 0.5]
    choice = _best_of_each(choice, node[choice], gain[choice] + 0.5 * rng.random(len(choice)))
    choice = choice[np.argsort(-gain[choice], kind="stable")]
    return _Moves(node[choice], target[choice], added[choice], size, num_willing)


def _best_of_each(
    choice: NDArray[np.int64], owner: NDArray[np.int64], value: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Return the choice of the highest value for each owner; owners ascend."""
    if not len(choice):
        return choice
    starts = np.flatnonzero(np.diff(owner, prepend=-1))
    highest = np.maximum.reduceat(value, starts)
    best: NDArray[np.int64] = choice[
        value == np.repeat(highest, np.diff(starts, append=len(value)))
    ]
    return best
