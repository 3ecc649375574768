"""The query graph: distinct texts are nodes, pairs are edges. Shapes: B pairs, T texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

if TYPE_CHECKING:
    from numpy.typing import NDArray


class QueryGraph(NamedTuple):
    """Who is paired with whom.

    Attributes:
        a: (B,), int64, node of each pair's first text.
        b: (B,), the same for the second text.
        component: (T,), int32, component of each node; components are counted from 0.
    """

    a: NDArray[np.int64]
    b: NDArray[np.int64]
    component: NDArray[np.int32]

    @property
    def num_texts(self) -> int:
        """T."""
        return len(self.component)

    @property
    def pair_component(self) -> NDArray[np.int32]:
        """(B,), component of each pair."""
        return self.component[self.a]


def number_texts(columns: list[Any]) -> list[NDArray[np.int64]]:
    """Give every distinct text a number, the same in all columns; Arrow arrays of texts in."""
    arrays = [column if isinstance(column, pa.ChunkedArray) else pa.chunked_array([column])
              for column in columns]  # fmt: skip
    chunks = [chunk.cast(pa.string()) for array in arrays for chunk in array.chunks]
    encoded = pa.chunked_array(chunks, pa.string()).combine_chunks().dictionary_encode()
    numbers = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    ends = np.cumsum([len(array) for array in arrays])
    return np.split(numbers, ends[:-1])


def adjacency(a: NDArray[np.int64], b: NDArray[np.int64], num_texts: int) -> coo_array:
    """Return the (T, T) matrix with a one at every pair."""
    return coo_array((np.ones(len(a), np.int8), (a, b)), shape=(num_texts, num_texts))


def build_graph(a: NDArray[np.int64], b: NDArray[np.int64]) -> QueryGraph:
    """Find the connected components of pairs of numbered texts, (B,) each."""
    num_texts = int(max(a.max(initial=-1), b.max(initial=-1))) + 1
    _, component = connected_components(adjacency(a, b, num_texts), directed=False)
    return QueryGraph(a, b, component.astype(np.int32))


def pair_keys(a: NDArray[np.int64], b: NDArray[np.int64], num_texts: int) -> NDArray[np.int64]:
    """(B,), one number for each pair of texts, the same in either order: low * num_texts + high."""
    low, high = np.minimum(a, b).astype(np.int64), np.maximum(a, b).astype(np.int64)
    keys: NDArray[np.int64] = low * num_texts + high
    return keys


class RowsOfOnePair(NamedTuple):
    """Rows that hold the same two texts as others, in either order.

    Attributes:
        first: (B,), the first row with the same pair and label; itself where there is none before.
        other: (B,), the first row with the same pair and the other label, or -1.
    """

    first: NDArray[np.int64]
    other: NDArray[np.int64]

    @property
    def repeats(self) -> NDArray[np.bool_]:
        """(B,), whether a row repeats an earlier one with its label."""
        mask: NDArray[np.bool_] = self.first != np.arange(len(self.first))
        return mask


def find_repeats(graph: QueryGraph, labels: NDArray[np.int8]) -> RowsOfOnePair:
    """Find the rows that repeat or contradict others directly."""
    keys = 2 * pair_keys(graph.a, graph.b, graph.num_texts) + labels
    distinct, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    opposite = np.minimum(np.searchsorted(distinct, distinct ^ 1), len(distinct) - 1)
    has_opposite = distinct[opposite] == distinct ^ 1
    other = np.where(has_opposite, first[opposite], -1)
    return RowsOfOnePair(first[inverse], other[inverse])
